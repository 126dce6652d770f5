#include "kernels/quant.h"

#include "kernels/quant_blocks.h"

void lt_dequantize_row(enum lt_type type, const void *from, float *to, int64_t count)
{
    dequantize_row(type, from, to, count);
}
