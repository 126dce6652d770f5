/* Row functions compiled once for each instruction set. Sums use sixteen lanes in a fixed order, so
 * every set gives the same bits. */
#pragma once

#include "kernels/kernels.h"

enum { SIMD_LANES = 16 };

struct simd {
    const char *name;
    void (*dequantize)(enum lt_type type, const void *from, float *to, int64_t count);
    void (*to_bf16)(const float *in, uint16_t *out, int64_t count);
    void (*from_bf16)(const uint16_t *in, float *out, int64_t count);
    void (*activate)(enum lt_activation activation, float *x, int64_t count);
    float (*sum)(const float *x, int64_t count);
    float (*sum_squares)(const float *x, float mean, int64_t count); /* Σ (x - mean)² */
    /* out = ((x - mean) · scale · weight + bias) · (1 + modulation) + shift; the four may be NULL
     */
    void (*normalize)(float *out, const float *x, float mean, float scale, const float *weight,
                      const float *bias, const float *modulation, const float *shift,
                      int64_t count);
    void (*rotate)(float *x, const float *angle, int64_t pairs);
    void (*gated_add)(float *out, const float *residual, const float *in, const float *gate,
                      int64_t count);
    void (*multiply)(float *out, const float *a, const float *b, int64_t count);
    /* x = exp(x·scale - top); gives the sum of what was written */
    float (*exp_row)(float *x, float scale, float top, int64_t count);
    float (*max_row)(const float *x, int64_t count);
    void (*scale_row)(float *x, float by, int64_t count);
    float (*dot)(const float *a, const float *b, int64_t count);
    float (*sum_abs)(const float *x, int64_t count);
    /* out = a·by_a + b·by_b; out may be a or b */
    void (*mix)(float *out, const float *a, float by_a, const float *b, float by_b, int64_t count);
    /* out = (in[0] + 3·in[1] + 3·in[2] + in[3]) / 8 */
    void (*blur)(float *out, const float *const in[4], int64_t count);
    /* to[j·width + i] = from[i·stride + j] for i < rows, j < count */
    void (*transpose)(const uint32_t *from, int64_t stride, int64_t rows, int64_t count,
                      uint32_t *to, int64_t width);
    /* to[2i] = a[i], to[2i + 1] = b[i] */
    void (*zip)(const uint16_t *a, const uint16_t *b, uint16_t *to, int64_t count);
};

extern const struct simd simd_plain, simd_avx2, simd_avx512;
const struct simd *simd_best(void); /* by run-time check */
