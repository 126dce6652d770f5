/* Stands for linear.cu and low_rank.cu where there is no cuBLAS; check-kernels-cuda then says that
 * it skips the two. */
#include "tests/kernels/place_blas.h"

bool place_blas_here(void)
{
    return false;
}

lt_status place_blas_open(struct lt_exec_cuda *cuda, struct lt_error *error)
{
    (void)cuda, (void)error;
    return LT_OK;
}

void place_blas_close(struct lt_exec_cuda *cuda)
{
    (void)cuda;
}

#define MISSING(op)                                                                                \
    lt_status cuda_##op(struct lt_exec *exec, const struct lt_##op##_args *args,                   \
                        struct lt_error *error);                                                   \
    lt_status cuda_##op(struct lt_exec *exec, const struct lt_##op##_args *args,                   \
                        struct lt_error *error)                                                    \
    {                                                                                              \
        (void)exec, (void)args;                                                                    \
        return lt_fail(error, LT_UNSUPPORTED, "op " #op ": built without cuBLAS");                 \
    }                                                                                              \
    size_t lt_cuda_scratch_##op(bool bf16, const struct lt_##op##_args *args)                      \
    {                                                                                              \
        (void)bf16, (void)args;                                                                    \
        return 0;                                                                                  \
    }
MISSING(linear)
MISSING(low_rank)
