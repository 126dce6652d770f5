#include "kernels/host/simd_template.h"

const struct simd simd_avx2 = SIMD_TABLE("avx2");
