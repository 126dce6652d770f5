#include "tests/kernels/place_blas.h"

#include <cublas_v2.h>

bool place_blas_here(void)
{
    return true;
}

lt_status place_blas_open(struct lt_exec_cuda *cuda, struct lt_error *error)
{
    if (cublasCreate(&cuda->blas) != CUBLAS_STATUS_SUCCESS ||
        cublasSetStream(cuda->blas, cuda->stream) != CUBLAS_STATUS_SUCCESS ||
        cublasSetPointerMode(cuda->blas, CUBLAS_POINTER_MODE_DEVICE) != CUBLAS_STATUS_SUCCESS)
        return lt_fail(error, LT_DEVICE, "cuBLAS does not start");
    return LT_OK;
}

void place_blas_close(struct lt_exec_cuda *cuda)
{
    cublasDestroy(cuda->blas);
}
