/* A CUDA card: local memory by cudaMalloc, pinned RAM by cudaHostAlloc, one stream for compute and
 * one for copies, neither ordered with the legacy stream. A copy is queued and waited for on the
 * copy queue's thread, so what device.c says of jobs holds; before it, that thread waits for the
 * CUDA event that compute recorded at the slot's mark.
 *
 * Any error that is not plain lack of memory breaks the device: the driver gives no way back from
 * most of them, and what ops computed since is not to be trusted. */
#include "worker/device_cuda.h"

#include "common/option.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ARCHITECTURE_MIN = 8, RESERVE_SHARE = 32 };
static const size_t RESERVE_MAX = (size_t)512 << 20;

/* -- errors ------------------------------------------------------------------------------------ */

lt_status cuda_fail(struct cuda *cuda, const char *what, cudaError_t code, struct lt_error *error)
{
    cudaGetLastError(); /* one that does not stick is told once */
    if (code == cudaErrorMemoryAllocation)
        return lt_fail(error, LT_NO_DEVICE_MEMORY, "device cuda:%d: %.*s: %s", cuda->index,
                       (int)strcspn(what, "("), what, cudaGetErrorString(code));
    pthread_mutex_lock(&cuda->lock);
    if (cuda->broken.code == LT_OK)
        lt_fail(&cuda->broken, LT_DEVICE, "device cuda:%d: %.*s: %s (%s)", cuda->index,
                (int)strcspn(what, "("), what, cudaGetErrorString(code), cudaGetErrorName(code));
    if (error)
        *error = cuda->broken;
    pthread_mutex_unlock(&cuda->lock);
    return LT_DEVICE;
}

lt_status cuda_bind(struct cuda *cuda, struct lt_error *error)
{
    pthread_mutex_lock(&cuda->lock);
    const bool broken = cuda->broken.code != LT_OK;
    if (broken && error)
        *error = cuda->broken;
    pthread_mutex_unlock(&cuda->lock);
    if (broken)
        return LT_DEVICE;
    TRY_CUDA(cuda, error, cudaSetDevice(cuda->index));
    return LT_OK;
}

static lt_status bind(struct device *device, struct lt_error *error)
{
    return cuda_bind(device->handle, error);
}

/* -- memory ------------------------------------------------------------------------------------ */

static void *take(struct device *device, enum device_memory kind, size_t bytes)
{
    void *data = NULL;
    const size_t some = bytes ? bytes : 1;
    const cudaError_t code = kind == DEVICE_MEMORY_LOCAL
                                 ? cudaMalloc(&data, some)
                                 : cudaHostAlloc(&data, some, cudaHostAllocPortable);
    if (code == cudaSuccess)
        return data;
    cuda_fail(device->handle, kind == DEVICE_MEMORY_LOCAL ? "cudaMalloc" : "cudaHostAlloc", code,
              NULL);
    return NULL;
}

/* Work that uses it ends first: the driver waits. */
static void give(struct device *device, enum device_memory kind, void *data, size_t bytes)
{
    struct cuda *cuda = device->handle;
    (void)bytes;
    cudaSetDevice(cuda->index);
    const cudaError_t code = kind == DEVICE_MEMORY_LOCAL ? cudaFree(data) : cudaFreeHost(data);
    if (code != cudaSuccess)
        cuda_fail(cuda, kind == DEVICE_MEMORY_LOCAL ? "cudaFree" : "cudaFreeHost", code, NULL);
}

/* -- queues and events ------------------------------------------------------------------------- */

static lt_status copy(struct device *device, void *to, const void *from, size_t bytes,
                      struct lt_error *error)
{
    struct cuda *cuda = device->handle;
    LT_TRY(cuda_bind(cuda, error));
    TRY_CUDA(cuda, error, cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, cuda->copy));
    TRY_CUDA(cuda, error, cudaStreamSynchronize(cuda->copy));
    return LT_OK;
}

static lt_status open_event(struct device *device, struct device_event *event,
                            struct lt_error *error)
{
    struct cuda *cuda = device->handle;
    LT_TRY(cuda_bind(cuda, error));
    TRY_CUDA(cuda, error,
             cudaEventCreateWithFlags((cudaEvent_t *)&event->handle,
                                      cudaEventDisableTiming | cudaEventBlockingSync));
    return LT_OK;
}

static void close_event(struct device_event *event)
{
    cudaEventDestroy(event->handle);
}

/* What cannot be recorded breaks the device, and is told by what comes next. */
static void mark(struct device *device, struct device_event *event)
{
    struct cuda *cuda = device->handle;
    if (cuda_bind(cuda, NULL) != LT_OK)
        return;
    const cudaError_t code = cudaEventRecord(event->handle, cuda->compute);
    if (code != cudaSuccess)
        cuda_fail(cuda, "cudaEventRecord", code, NULL);
}

static lt_status await(struct device *device, struct device_event *event, struct lt_error *error)
{
    struct cuda *cuda = device->handle;
    LT_TRY(cuda_bind(cuda, error));
    TRY_CUDA(cuda, error, cudaEventSynchronize(event->handle));
    return LT_OK;
}

/* -- life -------------------------------------------------------------------------------------- */

static void name_class(const struct device *device, char *text, size_t size)
{
    const struct cuda *cuda = device->handle;
    snprintf(text, size, "%s", cuda->card);
}

static void version_text(int version, char text[16])
{
    snprintf(text, 16, "%d.%d", version / 1000, version % 1000 / 10);
}

/* One line for each way there may be no card. */
static lt_status find_card(int index, struct lt_error *error)
{
    int count = 0, driver = 0, runtime = 0;
    char has[16], needs[16];
    const cudaError_t code = cudaGetDeviceCount(&count);
    cudaGetLastError();
    if (code == cudaSuccess && index < count)
        return LT_OK;
    if (code == cudaErrorInsufficientDriver) {
        cudaDriverGetVersion(&driver);
        cudaRuntimeGetVersion(&runtime);
        version_text(driver, has);
        version_text(runtime, needs);
        return driver == 0
                   ? lt_fail(error, LT_UNSUPPORTED,
                             "device cuda:%d: no NVIDIA driver is installed here, or none that "
                             "serves CUDA %s; --device host works without",
                             index, needs)
                   : lt_fail(error, LT_UNSUPPORTED,
                             "device cuda:%d: the NVIDIA driver serves CUDA %s, this longtake "
                             "needs %s: install a newer driver, or use --device host",
                             index, has, needs);
    }
    if (code == cudaErrorNoDevice || (code == cudaSuccess && count == 0))
        return lt_fail(error, LT_NOT_FOUND,
                       "device cuda:%d: this machine has no CUDA device (or CUDA_VISIBLE_DEVICES "
                       "hides it); use --device host",
                       index);
    if (code == cudaSuccess)
        return lt_fail(error, LT_NOT_FOUND,
                       "device cuda:%d: the last CUDA device of this machine is cuda:%d", index,
                       count - 1);
    return lt_fail(error, LT_DEVICE, "device cuda:%d: the driver does not answer: %s (%s)", index,
                   cudaGetErrorString(code), cudaGetErrorName(code));
}

static lt_status check_card(struct cuda *cuda, struct lt_error *error)
{
    struct cudaDeviceProp card;
    int runtime = 0, major = 0, minor = 0;
    char version[16];
    TRY_CUDA(cuda, error, cudaGetDeviceProperties(&card, cuda->index));
    if (card.major < ARCHITECTURE_MIN)
        return lt_fail(error, LT_UNSUPPORTED,
                       "device cuda:%d: %s is sm_%d%d, sm_80 (Ampere) or later is needed",
                       cuda->index, card.name, card.major, card.minor);
    TRY_CUDA(cuda, error, cudaRuntimeGetVersion(&runtime));
    version_text(runtime, version);
    cublasGetProperty(MAJOR_VERSION, &major);
    cublasGetProperty(MINOR_VERSION, &minor);
    cuda->major = card.major;
    snprintf(cuda->card, sizeof cuda->card, "cuda-%s cublas-%d.%d sm_%d%d %.32s", version, major,
             minor, card.major, card.minor, card.name);
    return LT_OK;
}

/* What may be taken: what is free now, less what the driver and fragments will want. */
static lt_status bound_memory(struct cuda *cuda, struct device_params *params,
                              struct lt_error *error)
{
    size_t available, total;
    char text[32];
    TRY_CUDA(cuda, error, cudaMemGetInfo(&available, &total));
    const size_t share = total / RESERVE_SHARE, reserve = share < RESERVE_MAX ? share : RESERVE_MAX;
    uint64_t *limit = &params->limit_bytes[DEVICE_MEMORY_LOCAL];
    if (available <= reserve)
        return lt_fail(error, LT_NO_DEVICE_MEMORY,
                       "device cuda:%d: %s are free: another program uses the card", cuda->index,
                       lt_size_format(available, text));
    if (!*limit || *limit > available - reserve)
        *limit = available - reserve;
    return LT_OK;
}

static lt_status open_card(struct cuda *cuda, struct device_params *params, struct lt_error *error)
{
    LT_TRY(check_card(cuda, error));
    LT_TRY(cuda_bind(cuda, error));
    TRY_CUDA(cuda, error, cudaStreamCreateWithFlags(&cuda->compute, cudaStreamNonBlocking));
    TRY_CUDA(cuda, error, cudaStreamCreateWithFlags(&cuda->copy, cudaStreamNonBlocking));
    return bound_memory(cuda, params, error);
}

static void close_card(struct cuda *cuda)
{
    cudaSetDevice(cuda->index);
    if (cuda->copy)
        cudaStreamDestroy(cuda->copy);
    if (cuda->compute)
        cudaStreamDestroy(cuda->compute);
    pthread_mutex_destroy(&cuda->lock);
    free(cuda);
}

static void destroy(struct device *device)
{
    struct cuda *cuda = device->handle;
    cuda_close_execs(cuda);
    close_card(cuda);
}

lt_status device_create_cuda(int index, const struct device_params *params,
                             struct device **device_out, struct lt_error *error)
{
    static const struct device_ops ops = {
        .take = take,
        .give = give,
        .copy = copy,
        .await = await,
        .mark = mark,
        .open_event = open_event,
        .close_event = close_event,
        .bind = bind,
        .destroy = destroy,
        .name_class = name_class,
        .kernels = cuda_kernels,
        .create_exec = cuda_create_exec,
        .scratch_bytes = cuda_scratch_bytes,
        .set_scratch = cuda_set_scratch,
        .staging_bytes = (size_t)CUDA_RING_COUNT * CUDA_RING_BYTES,
    };
    struct device_params bounded = *params;
    lt_assert(!params->virtual_clock);
    bounded.staged = true;
    LT_TRY(find_card(index, error));
    struct cuda *cuda = calloc(1, sizeof *cuda);
    if (!cuda)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a device");
    cuda->index = index;
    pthread_mutex_init(&cuda->lock, NULL);
    lt_status status = open_card(cuda, &bounded, error);
    if (status == LT_OK)
        status = device_create(&ops, cuda, &bounded, &cuda->device, error);
    if (status != LT_OK) {
        close_card(cuda);
        return status;
    }
    *device_out = cuda->device;
    return LT_OK;
}
