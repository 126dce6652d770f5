/* Included by simd_plain.c, simd_avx2.c and simd_avx512.c, which differ only in compiler flags.
 * Loops are written for the vectoriser: no calls, sixteen independent lanes where a sum is needed.
 */
#include "kernels/host/simd.h"
#include "kernels/quant_blocks.h"

static void to_bf16(const float *in, uint16_t *out, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &in[i], 4);
        const uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
        const uint32_t nan = bits >> 16 | 0x40;
        out[i] = (uint16_t)((bits & 0x7FFFFFFFu) > 0x7F800000u ? nan : rounded);
    }
}

static void from_bf16(const uint16_t *in, float *out, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        const uint32_t bits = (uint32_t)in[i] << 16;
        memcpy(&out[i], &bits, 4);
    }
}

/* exp with a relative error below 2e-7: 2^n · p(r), n nearest, p of degree 6 on |r| <= ln2/2. */
static inline float fast_exp(float x)
{
    x = x > 88.0f ? 88.0f : x;
    x = x < -87.3f ? -87.3f : x;
    const float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f; /* rounds to nearest */
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return p * power;
}

static inline float fast_sigmoid(float x)
{
    return 1.0f / (1.0f + fast_exp(-x));
}

/* erf by Abramowitz and Stegun 7.1.26, absolute error 1.5e-7. */
static inline float fast_erf(float x)
{
    const float a = x < 0 ? -x : x, t = 1.0f / (1.0f + 0.3275911f * a);
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const float y = 1.0f - p * t * fast_exp(-a * a);
    return x < 0 ? -y : y;
}

static void activate(enum lt_activation activation, float *x, int64_t count)
{
    switch (activation) {
    case LT_ACTIVATION_SILU:
        for (int64_t i = 0; i < count; i++)
            x[i] = x[i] * fast_sigmoid(x[i]);
        break;
    case LT_ACTIVATION_GELU_TANH: /* 0.5 (1 + tanh u) = sigmoid(2u) */
        for (int64_t i = 0; i < count; i++)
            x[i] =
                x[i] * fast_sigmoid(1.5957691216057308f * (x[i] + 0.044715f * x[i] * x[i] * x[i]));
        break;
    case LT_ACTIVATION_GELU_ERF:
        for (int64_t i = 0; i < count; i++)
            x[i] = 0.5f * x[i] * (1.0f + fast_erf(x[i] * 0.70710678f));
        break;
    case LT_ACTIVATION_RELU:
        for (int64_t i = 0; i < count; i++)
            x[i] = x[i] > 0 ? x[i] : 0;
        break;
    case LT_ACTIVATION_LEAKY_RELU:
        for (int64_t i = 0; i < count; i++)
            x[i] = x[i] > 0 ? x[i] : 0.2f * x[i];
        break;
    case LT_ACTIVATION_NONE:
        break;
    }
}

/* Adds the lanes in a fixed order. */
static inline float add_lanes(const float lane[SIMD_LANES])
{
    float half[SIMD_LANES / 2];
    for (int i = 0; i < 8; i++)
        half[i] = lane[i] + lane[i + 8];
    for (int i = 0; i < 4; i++)
        half[i] += half[i + 4];
    return (half[0] + half[2]) + (half[1] + half[3]);
}

static float sum(const float *x, int64_t count)
{
    float lane[SIMD_LANES] = {0};
    int64_t i = 0;
    for (; i + SIMD_LANES <= count; i += SIMD_LANES)
        for (int j = 0; j < SIMD_LANES; j++)
            lane[j] += x[i + j];
    for (int j = 0; i < count; i++, j++)
        lane[j] += x[i];
    return add_lanes(lane);
}

static float sum_squares(const float *x, float mean, int64_t count)
{
    float lane[SIMD_LANES] = {0};
    int64_t i = 0;
    for (; i + SIMD_LANES <= count; i += SIMD_LANES)
        for (int j = 0; j < SIMD_LANES; j++)
            lane[j] += (x[i + j] - mean) * (x[i + j] - mean);
    for (int j = 0; i < count; i++, j++)
        lane[j] += (x[i] - mean) * (x[i] - mean);
    return add_lanes(lane);
}

static void normalize(float *out, const float *x, float mean, float scale, const float *weight,
                      const float *bias, const float *modulation, const float *shift, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = (x[i] - mean) * scale;
    if (weight)
        for (int64_t i = 0; i < count; i++)
            out[i] *= weight[i];
    if (bias)
        for (int64_t i = 0; i < count; i++)
            out[i] += bias[i];
    if (modulation)
        for (int64_t i = 0; i < count; i++)
            out[i] *= 1.0f + modulation[i];
    if (shift)
        for (int64_t i = 0; i < count; i++)
            out[i] += shift[i];
}

static void rotate(float *x, const float *angle, int64_t pairs)
{
    for (int64_t p = 0; p < pairs; p++) {
        const float c = angle[2 * p], s = angle[2 * p + 1], a = x[2 * p], b = x[2 * p + 1];
        x[2 * p] = a * c - b * s;
        x[2 * p + 1] = a * s + b * c;
    }
}

static void gated_add(float *out, const float *residual, const float *in, const float *gate,
                      int64_t count)
{
    if (gate)
        for (int64_t i = 0; i < count; i++)
            out[i] = residual[i] + gate[i] * in[i];
    else
        for (int64_t i = 0; i < count; i++)
            out[i] = residual[i] + in[i];
}

static void multiply(float *out, const float *a, const float *b, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = a[i] * b[i];
}

static float exp_row(float *x, float scale, float top, int64_t count)
{
    float lane[SIMD_LANES] = {0};
    int64_t i = 0;
    for (; i + SIMD_LANES <= count; i += SIMD_LANES)
        for (int j = 0; j < SIMD_LANES; j++) {
            const float e = fast_exp(x[i + j] * scale - top);
            x[i + j] = e;
            lane[j] += e;
        }
    for (int j = 0; i < count; i++, j++) {
        x[i] = fast_exp(x[i] * scale - top);
        lane[j] += x[i];
    }
    return add_lanes(lane);
}

static float max_row(const float *x, int64_t count)
{
    float lane[SIMD_LANES];
    for (int j = 0; j < SIMD_LANES; j++)
        lane[j] = x[0];
    int64_t i = 0;
    for (; i + SIMD_LANES <= count; i += SIMD_LANES)
        for (int j = 0; j < SIMD_LANES; j++)
            lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
    for (; i < count; i++)
        lane[0] = x[i] > lane[0] ? x[i] : lane[0];
    for (int j = 1; j < SIMD_LANES; j++)
        lane[0] = lane[j] > lane[0] ? lane[j] : lane[0];
    return lane[0];
}

static void scale_row(float *x, float by, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        x[i] *= by;
}

static float dot(const float *a, const float *b, int64_t count)
{
    float lane[SIMD_LANES] = {0};
    int64_t i = 0;
    for (; i + SIMD_LANES <= count; i += SIMD_LANES)
        for (int j = 0; j < SIMD_LANES; j++)
            lane[j] += a[i + j] * b[i + j];
    for (int j = 0; i < count; i++, j++)
        lane[j] += a[i] * b[i];
    return add_lanes(lane);
}

static float sum_abs(const float *x, int64_t count)
{
    float lane[SIMD_LANES] = {0};
    int64_t i = 0;
    for (; i + SIMD_LANES <= count; i += SIMD_LANES)
        for (int j = 0; j < SIMD_LANES; j++)
            lane[j] += x[i + j] < 0 ? -x[i + j] : x[i + j];
    for (int j = 0; i < count; i++, j++)
        lane[j] += x[i] < 0 ? -x[i] : x[i];
    return add_lanes(lane);
}

static void mix(float *out, const float *a, float by_a, const float *b, float by_b, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = by_a * a[i] + by_b * b[i];
}

static void blur(float *out, const float *const in[4], int64_t count)
{
    const float *a = in[0], *b = in[1], *c = in[2], *d = in[3];
    for (int64_t i = 0; i < count; i++)
        out[i] = 0.125f * (a[i] + d[i]) + 0.375f * (b[i] + c[i]);
}

#if defined(__AVX512F__)
typedef uint32_t vec __attribute__((vector_size(64), aligned(4)));

/* Transposes 16 by 16: swaps off-diagonal squares of 8, 4, 2 and 1. */
static inline void transpose_16(const uint32_t *from, int64_t stride, uint32_t *to, int64_t width)
{
    vec a[16], b[16];
    for (int i = 0; i < 16; i++)
        memcpy(&a[i], from + i * stride, sizeof a[i]);
#define SWAP(in, out, step, low, high)                                                             \
    for (int i = 0; i < 16; i++)                                                                   \
        out[i] = i & step ? __builtin_shufflevector(in[i - step], in[i], high)                     \
                          : __builtin_shufflevector(in[i], in[i + step], low);
#define LIST(...) __VA_ARGS__
    SWAP(a, b, 8, LIST(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
         LIST(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
    SWAP(b, a, 4, LIST(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27),
         LIST(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
    SWAP(a, b, 2, LIST(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
         LIST(2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
    SWAP(b, a, 1, LIST(0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30),
         LIST(1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
#undef SWAP
#undef LIST
    for (int i = 0; i < 16; i++)
        memcpy(to + i * width, &a[i], sizeof a[i]);
}
#endif

static void transpose(const uint32_t *from, int64_t stride, int64_t rows, int64_t count,
                      uint32_t *to, int64_t width)
{
    int64_t j = 0;
#if defined(__AVX512F__)
    for (; rows == 16 && j + 16 <= count; j += 16)
        transpose_16(from + j, stride, to + j * width, width);
#endif
    for (; j < count; j++)
        for (int64_t i = 0; i < rows; i++)
            to[j * width + i] = from[i * stride + j];
}

static void zip(const uint16_t *a, const uint16_t *b, uint16_t *to, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        to[2 * i] = a[i];
        to[2 * i + 1] = b[i];
    }
}

#define SIMD_TABLE(name_)                                                                          \
    {                                                                                              \
        name_, dequantize_row, to_bf16, from_bf16, activate, sum, sum_squares, normalize, rotate,  \
            gated_add, multiply, exp_row, max_row, scale_row, dot, sum_abs, mix, blur, transpose,  \
            zip                                                                                    \
    }
