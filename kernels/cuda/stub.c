/* A build without CUDA: no machine then reports LT_CAP_CUDA, and the table stays as it is. */
#include "kernels/cuda/exec_cuda.h"

void lt_kernels_init_cuda(struct lt_kernels *table)
{
    (void)table;
}

#define NO_SCRATCH(op)                                                                             \
    size_t lt_cuda_scratch_##op(bool bf16, const struct lt_##op##_args *args)                      \
    {                                                                                              \
        (void)bf16, (void)args;                                                                    \
        return 0;                                                                                  \
    }
NO_SCRATCH(linear)
NO_SCRATCH(low_rank)
NO_SCRATCH(attention)
NO_SCRATCH(conv)
#undef NO_SCRATCH
