/* A build without CUDA: no machine then reports LT_CAP_CUDA, and the table stays as it is. */
#include "kernels/cuda/exec_cuda.h"

void lt_kernels_init_cuda(struct lt_kernels *table)
{
    (void)table;
}
