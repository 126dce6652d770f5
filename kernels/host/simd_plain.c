#include "kernels/host/simd_template.h"

const struct simd simd_plain = SIMD_TABLE("plain");
