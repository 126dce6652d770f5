/* What the CUDA table holds: every op, so that a device is all CUDA. */
#include "kernels/cuda/op.cuh"

void lt_kernels_init_cuda(struct lt_kernels *table)
{
#define ENTRY(op)                                                                                  \
    table->op = cuda_##op;                                                                         \
    table->op##_variant = "cuda";
    LT_KERNEL_LIST(ENTRY)
#undef ENTRY
}
