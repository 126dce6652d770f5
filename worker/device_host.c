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

lt_status device_create_host(const struct device_params *params, struct device **device_out,
                             struct lt_error *error)
{
    static const struct device_ops ops = {
        .take = take, .give = give, .prefault = prefault, .copy = copy};
    lt_assert(!params->virtual_clock || params->copy_bytes_per_second > 0);
    return device_create(&ops, NULL, params, device_out, error);
}
