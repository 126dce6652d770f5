/* What ops need of a CUDA card: the table of its kernels, cuBLAS on the compute stream with a
 * workspace of ours, scratch that was planned, and memory whose bytes count like any other.
 *
 * Everything is queued on the compute stream; only a download waits. An upload goes through a ring
 * of pinned pieces: a piece is filled again when the copy out of it is done. */
#include "worker/device_cuda.h"

#include <string.h>

enum { MIB = 1 << 20 };

/* What NVIDIA recommends: Hopper's kernels split more. */
static size_t workspace_bytes(const struct cuda *cuda)
{
    return (size_t)(cuda->major >= 9 ? 32 : 4) * MIB;
}

static size_t own_bytes(const struct cuda *cuda)
{
    return workspace_bytes(cuda) + 2 * sizeof(float);
}

/* -- memory of ops ----------------------------------------------------------------------------- */

static lt_status take(void *context, size_t bytes, void **data_out, struct lt_error *error)
{
    struct cuda *cuda = context;
    return device_take(cuda->device, DEVICE_MEMORY_LOCAL, bytes, "what ops work on", data_out,
                       error);
}

static void give(void *context, void *data, size_t bytes)
{
    struct cuda *cuda = context;
    device_give(cuda->device, DEVICE_MEMORY_LOCAL, data, bytes);
}

static lt_status upload(void *context, void *to, const void *from, size_t bytes,
                        struct lt_error *error)
{
    struct cuda *cuda = context;
    struct cuda_ring *ring = &cuda->ring;
    LT_TRY(cuda_bind(cuda, error));
    for (size_t done = 0; done < bytes;) {
        const size_t left = bytes - done, part = left < CUDA_RING_BYTES ? left : CUDA_RING_BYTES;
        char *piece = ring->data + (size_t)ring->next * CUDA_RING_BYTES;
        cudaEvent_t freed = ring->freed[ring->next];
        TRY_CUDA(cuda, error, cudaEventSynchronize(freed));
        memcpy(piece, (const char *)from + done, part);
        TRY_CUDA(
            cuda, error,
            cudaMemcpyAsync((char *)to + done, piece, part, cudaMemcpyHostToDevice, cuda->compute));
        TRY_CUDA(cuda, error, cudaEventRecord(freed, cuda->compute));
        ring->next = (ring->next + 1) % CUDA_RING_COUNT;
        done += part;
    }
    return LT_OK;
}

static lt_status download(void *context, void *to, const void *from, size_t bytes,
                          struct lt_error *error)
{
    struct cuda *cuda = context;
    LT_TRY(cuda_bind(cuda, error));
    TRY_CUDA(cuda, error, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, cuda->compute));
    TRY_CUDA(cuda, error, cudaStreamSynchronize(cuda->compute));
    return LT_OK;
}

static lt_status zero(void *context, void *to, size_t bytes, struct lt_error *error)
{
    struct cuda *cuda = context;
    LT_TRY(cuda_bind(cuda, error));
    TRY_CUDA(cuda, error, cudaMemsetAsync(to, 0, bytes, cuda->compute));
    return LT_OK;
}

/* -- scratch ----------------------------------------------------------------------------------- */

size_t cuda_scratch_bytes(const struct device *device, const struct lt_scratch *scratch,
                          int thread_count)
{
    (void)thread_count;
    return own_bytes(device->handle) + scratch->cuda;
}

lt_status cuda_set_scratch(struct device *device, size_t bytes, struct lt_error *error)
{
    struct cuda *cuda = device->handle;
    const size_t own = own_bytes(cuda), wanted = bytes > own ? bytes - own : 0;
    if (wanted == cuda->scratch_bytes)
        return LT_OK;
    LT_TRY(cuda_bind(cuda, error));
    device_give(device, DEVICE_MEMORY_LOCAL, cuda->scratch, cuda->scratch_bytes);
    cuda->scratch = NULL;
    cuda->scratch_bytes = 0;
    lt_status status = LT_OK;
    if (wanted)
        status = device_take(device, DEVICE_MEMORY_LOCAL, wanted, "scratch of the kernels",
                             &cuda->scratch, error);
    if (status == LT_OK)
        cuda->scratch_bytes = wanted;
    for (size_t i = 0; i < LT_COUNT(cuda->exec); i++) {
        cuda->exec[i].scratch = cuda->scratch;
        cuda->exec[i].scratch_bytes = cuda->scratch_bytes;
    }
    return status;
}

/* -- execs ------------------------------------------------------------------------------------- */

lt_status cuda_kernels(const struct device *device, const char *selector,
                       struct lt_kernels *table_out, struct lt_error *error)
{
    const struct cuda *cuda = device->handle;
    struct lt_kernels table;
    LT_TRY(lt_kernels_select(&table, LT_CAP_CUDA, selector, error));
#define BE_CUDA(op)                                                                                \
    if (strcmp(table.op##_variant, "cuda") != 0)                                                   \
        return lt_fail(error, LT_USAGE,                                                            \
                       "--kernel %s: " #op " by '%s' works on main memory, not on cuda:%d",        \
                       selector, table.op##_variant, cuda->index);
    LT_KERNEL_LIST(BE_CUDA)
#undef BE_CUDA
    *table_out = table;
    return LT_OK;
}

static lt_status try_blas(struct cuda *cuda, const char *what, cublasStatus_t code,
                          struct lt_error *error)
{
    if (code == CUBLAS_STATUS_SUCCESS)
        return LT_OK;
    return lt_fail(error, code == CUBLAS_STATUS_ALLOC_FAILED ? LT_NO_DEVICE_MEMORY : LT_DEVICE,
                   "device cuda:%d: %s: %s", cuda->index, what, cublasGetStatusString(code));
}

static lt_status open_blas(struct cuda *cuda, struct lt_error *error)
{
    const size_t bytes = workspace_bytes(cuda);
    LT_TRY(device_take(cuda->device, DEVICE_MEMORY_LOCAL, bytes, "workspace of cuBLAS",
                       &cuda->workspace, error));
    LT_TRY(try_blas(cuda, "cublasCreate", cublasCreate(&cuda->blas), error));
    LT_TRY(try_blas(cuda, "cublasSetStream", cublasSetStream(cuda->blas, cuda->compute), error));
    LT_TRY(try_blas(cuda, "cublasSetWorkspace",
                    cublasSetWorkspace(cuda->blas, cuda->workspace, bytes), error));
    return try_blas(cuda, "cublasSetPointerMode",
                    cublasSetPointerMode(cuda->blas, CUBLAS_POINTER_MODE_DEVICE), error);
}

static lt_status open_ring(struct cuda *cuda, struct lt_error *error)
{
    void *data = NULL;
    LT_TRY(device_take(cuda->device, DEVICE_MEMORY_PINNED, device_staging_bytes(cuda->device),
                       "staging of uploads", &data, error));
    cuda->ring.data = data;
    for (int i = 0; i < CUDA_RING_COUNT; i++)
        TRY_CUDA(cuda, error,
                 cudaEventCreateWithFlags(&cuda->ring.freed[i],
                                          cudaEventDisableTiming | cudaEventBlockingSync));
    return LT_OK;
}

static lt_status open_execs(struct cuda *cuda, struct lt_error *error)
{
    static const float zero_one[2] = {0, 1};
    void *data = NULL;
    LT_TRY(open_ring(cuda, error));
    LT_TRY(open_blas(cuda, error));
    LT_TRY(
        device_take(cuda->device, DEVICE_MEMORY_LOCAL, sizeof zero_one, "constants", &data, error));
    cuda->zero_one = data;
    LT_TRY(upload(cuda, cuda->zero_one, zero_one, sizeof zero_one, error));
    cuda->memory = (struct lt_exec_memory){take, give, upload, download, zero, cuda};
    for (size_t i = 0; i < LT_COUNT(cuda->exec); i++)
        cuda->exec[i] = (struct lt_exec_cuda){.stream = cuda->compute,
                                              .blas = cuda->blas,
                                              .zero_one = cuda->zero_one,
                                              .scratch = cuda->scratch,
                                              .scratch_bytes = cuda->scratch_bytes,
                                              .bf16 = i == LT_PRECISION_BF16,
                                              .sync = cuda->device->params.sync_ops};
    return LT_OK;
}

void cuda_close_execs(struct cuda *cuda)
{
    struct device *device = cuda->device;
    cudaSetDevice(cuda->index);
    if (cuda->blas)
        cublasDestroy(cuda->blas);
    for (int i = 0; i < CUDA_RING_COUNT; i++)
        if (cuda->ring.freed[i])
            cudaEventDestroy(cuda->ring.freed[i]);
    device_give(device, DEVICE_MEMORY_LOCAL, cuda->workspace, workspace_bytes(cuda));
    device_give(device, DEVICE_MEMORY_LOCAL, cuda->zero_one, 2 * sizeof(float));
    device_give(device, DEVICE_MEMORY_LOCAL, cuda->scratch, cuda->scratch_bytes);
    device_give(device, DEVICE_MEMORY_PINNED, cuda->ring.data, device_staging_bytes(device));
    cuda->blas = NULL;
    cuda->workspace = cuda->scratch = NULL;
    cuda->zero_one = NULL;
    cuda->ring = (struct cuda_ring){0};
    cuda->scratch_bytes = 0;
    cuda->computes = false;
}

lt_status cuda_create_exec(struct device *device, const struct lt_exec_params *params,
                           struct lt_exec **exec_out, struct lt_error *error)
{
    struct cuda *cuda = device->handle;
    struct lt_exec *exec;
    LT_TRY(cuda_bind(cuda, error));
    if (!cuda->computes) {
        const lt_status status = open_execs(cuda, error);
        if (status != LT_OK) {
            cuda_close_execs(cuda);
            return status;
        }
        cuda->computes = true;
    }
    const struct lt_exec_params one = {.thread_count = 1, .precision = params->precision};
    LT_TRY(lt_exec_create(&one, &exec, error));
    lt_exec_set_cuda(exec, &cuda->exec[params->precision]);
    lt_exec_set_memory(exec, &cuda->memory);
    *exec_out = exec;
    return LT_OK;
}
