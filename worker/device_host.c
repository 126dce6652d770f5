/* The host device: both kinds of memory are anonymous maps, so that what is given back goes to the
 * system at once. */
#include "worker/device_private.h"

#include <string.h>
#include <sys/mman.h>

static void *take(struct device *device, enum device_memory kind, size_t bytes)
{
    (void)device;
    (void)kind;
    void *data =
        mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED)
        return NULL;
    madvise(data, bytes, MADV_HUGEPAGE); /* fewer faults and TLB misses; a wish, not a need */
    return data;
}

static void give(struct device *device, enum device_memory kind, void *data, size_t bytes)
{
    (void)device;
    (void)kind;
    munmap(data, bytes ? bytes : 1);
}

static void prefault(void *data, size_t bytes)
{
#ifdef MADV_POPULATE_WRITE
    madvise(data, bytes, MADV_POPULATE_WRITE);
#else
    (void)data;
    (void)bytes;
#endif
}

static lt_status copy(struct device *device, void *to, const void *from, size_t bytes,
                      struct lt_error *error)
{
    (void)device;
    (void)error;
    memcpy(to, from, bytes);
    return LT_OK;
}

static void name_class(const struct device *device, char *text, size_t size)
{
    (void)device;
    lt_kernels_class(text, size);
}

static lt_status kernels(const struct device *device, const char *selector,
                         struct lt_kernels *table_out, struct lt_error *error)
{
    (void)device;
    return lt_kernels_select(table_out, lt_caps_detect(), selector, error);
}

static lt_status create_exec(struct device *device, const struct lt_exec_params *params,
                             struct lt_exec **exec_out, struct lt_error *error)
{
    (void)device;
    return lt_exec_create(params, exec_out, error);
}

static size_t scratch_bytes(const struct device *device, const struct lt_scratch *scratch,
                            int thread_count)
{
    (void)device;
    return lt_scratch_bytes(scratch, thread_count);
}

lt_status device_create_host(const struct device_params *params, struct device **device_out,
                             struct lt_error *error)
{
    static const struct device_ops ops = {.is_ram = true,
                                          .take = take,
                                          .give = give,
                                          .prefault = prefault,
                                          .copy = copy,
                                          .name_class = name_class,
                                          .kernels = kernels,
                                          .create_exec = create_exec,
                                          .scratch_bytes = scratch_bytes};
    lt_assert(!params->virtual_clock || params->copy_bytes_per_second > 0);
    return device_create(&ops, NULL, params, device_out, error);
}
