/* The part of a CUDA place that needs cuBLAS: a build without it checks the other ops. */
#pragma once

#include "kernels/cuda/exec_cuda.h"

bool place_blas_here(void);
lt_status place_blas_open(struct lt_exec_cuda *cuda, struct lt_error *error);
void place_blas_close(struct lt_exec_cuda *cuda);
