/* The first CUDA device. Every op waits for its end; scratch is exactly what was told before, and
 * lies in memory of its own, so that a byte too many is found. */
#include "tests/kernels/place.h"

#include "kernels/cuda/exec_cuda.h"

#include <stdlib.h>
#include <string.h>

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

static lt_status failed(struct lt_error *error, const char *what, int code)
{
    return lt_fail(error, LT_DEVICE, "%s fails with code %d", what, code);
}

#define TRY_CALL(call)                                                                             \
    do {                                                                                           \
        const int code_ = (int)(call);                                                             \
        if (code_ != 0)                                                                            \
            return failed(error, #call, code_);                                                    \
    } while (0)

/* Each op that takes scratch, with what it asked for. */
#define PLANNED(op)                                                                                \
    static lt_status (*run_##op)(struct lt_exec * exec, const struct lt_##op##_args *args,         \
                                 struct lt_error *error);                                          \
    static lt_status planned_##op(struct lt_exec *exec, const struct lt_##op##_args *args,         \
                                  struct lt_error *error)                                          \
    {                                                                                              \
        struct lt_exec_cuda *cuda = lt_exec_cuda_of(exec);                                         \
        cuda->scratch_bytes = lt_cuda_scratch_##op(cuda->bf16, args);                              \
        cuda->scratch = NULL;                                                                      \
        if (cuda->scratch_bytes)                                                                   \
            TRY_CALL(cudaMalloc(&cuda->scratch, cuda->scratch_bytes));                             \
        const lt_status status = run_##op(exec, args, error);                                      \
        TRY_CALL(cudaFree(cuda->scratch));                                                         \
        return status;                                                                             \
    }
PLANNED(linear)
PLANNED(low_rank)
PLANNED(attention)
PLANNED(conv)
#undef PLANNED

void place_kernels_init(struct lt_kernels *best)
{
    lt_kernels_init(best, LT_CAP_CUDA);
#define BE_CUDA(op) lt_assert(strcmp(best->op##_variant, "cuda") == 0);
    LT_KERNEL_LIST(BE_CUDA) /* nothing is held to itself */
#undef BE_CUDA
#define WRAP(op)                                                                                   \
    run_##op = best->op;                                                                           \
    best->op = planned_##op;
    WRAP(linear)
    WRAP(low_rank)
    WRAP(attention)
    WRAP(conv)
#undef WRAP
}

static lt_status open_cuda(struct lt_exec_cuda *cuda, struct lt_error *error)
{
    static const float zero_one[] = {0, 1};
    TRY_CALL(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking));
    TRY_CALL(cudaMalloc((void **)&cuda->zero_one, sizeof zero_one));
    TRY_CALL(cudaMemcpy((void *)cuda->zero_one, zero_one, sizeof zero_one, cudaMemcpyHostToDevice));
    TRY_CALL(cublasCreate(&cuda->blas));
    TRY_CALL(cublasSetStream(cuda->blas, cuda->stream));
    TRY_CALL(cublasSetPointerMode(cuda->blas, CUBLAS_POINTER_MODE_DEVICE));
    return LT_OK;
}

lt_status place_exec_create(int threads, enum lt_precision precision, struct lt_exec **exec_out,
                            struct lt_error *error)
{
    struct lt_exec_cuda *cuda = calloc(1, sizeof *cuda);
    (void)threads; /* the host part only: a stream has one order */
    if (!cuda)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the device");
    cuda->bf16 = precision == LT_PRECISION_BF16;
    cuda->sync = true;
    LT_TRY(open_cuda(cuda, error));
    LT_TRY(lt_exec_create(&(struct lt_exec_params){1, precision}, exec_out, error));
    lt_exec_set_cuda(*exec_out, cuda);
    return LT_OK;
}

void place_exec_destroy(struct lt_exec **exec)
{
    struct lt_exec_cuda *cuda = lt_exec_cuda_of(*exec);
    cublasDestroy(cuda->blas);
    cudaFree((void *)cuda->zero_one);
    cudaStreamDestroy(cuda->stream);
    free(cuda);
    lt_exec_destroy(exec);
}

/* Pinned memory has one address for both. */
void *place_allocate(size_t bytes)
{
    void *data = NULL;
    const cudaError_t code = cudaHostAlloc(&data, bytes ? bytes : 1, cudaHostAllocPortable);
    return code == cudaSuccess ? data : NULL;
}

void place_free(void *data)
{
    cudaFreeHost(data);
}
