#include "kernels/host/simd_template.h"

const struct simd simd_avx512 = SIMD_TABLE("avx512");
