/* Quantisers of every block type. A group is fitted by least squares: for each of a few candidate
 * steps the integers are chosen by rounding, then the best step (and offset) for those integers is
 * solved for; the candidate with the smallest squared error wins. Layouts are drawn in
 * quant_blocks.h. */
#include "kernels/quant.h"

#include "common/safetensors.h"

#include <math.h>
#include <string.h>

enum { GROUP_MAX = 32, CANDIDATES = 9 };

static int clamp(int value, int low, int high)
{
    return value < low ? low : value > high ? high : value;
}

static float rounded_half(float value, uint8_t *at)
{
    const uint16_t bits = lt_f32_to_f16(value);
    memcpy(at, &bits, 2);
    return lt_f16_to_f32(bits);
}

static void round_symmetric(const float *x, int count, float step, int low, int high, int8_t *q)
{
    const float inverse = step != 0 ? 1 / step : 0;
    for (int i = 0; i < count; i++)
        q[i] = (int8_t)clamp((int)lrintf(x[i] * inverse), low, high);
}

/* x ≈ step · q, q in [low, high]. The value of largest magnitude goes to `low`, the longer side. */
static float fit_symmetric(const float *x, int count, int low, int high)
{
    float extreme = 0, best_step = 0;
    double best = INFINITY;
    int8_t q[GROUP_MAX];
    for (int i = 0; i < count; i++)
        if (fabsf(x[i]) > fabsf(extreme))
            extreme = x[i];
    if (extreme == 0)
        return 0;
    for (int c = 0; c < CANDIDATES; c++) {
        float step = extreme / ((float)low - 0.1f * (float)(c - CANDIDATES / 2) * (float)-low / 16);
        double xq = 0, qq = 0, error = 0;
        round_symmetric(x, count, step, low, high, q);
        for (int i = 0; i < count; i++) {
            xq += (double)x[i] * q[i];
            qq += (double)q[i] * q[i];
        }
        if (qq > 0)
            step = (float)(xq / qq);
        for (int i = 0; i < count; i++)
            error += ((double)x[i] - (double)step * q[i]) * ((double)x[i] - (double)step * q[i]);
        if (error < best) {
            best = error;
            best_step = step;
        }
    }
    return best_step;
}

static void round_offset(const float *x, int count, float step, float low, int high, uint8_t *q)
{
    const float inverse = step > 0 ? 1 / step : 0;
    for (int i = 0; i < count; i++)
        q[i] = (uint8_t)clamp((int)lrintf((x[i] - low) * inverse), 0, high);
}

/* x ≈ step · q + low, q in [0, high], step >= 0. `low_max`: an upper bound of low (0 where the
 * format needs it). */
static void fit_offset(const float *x, int count, int high, float low_max, float *step_out,
                       float *low_out)
{
    float min = x[0], max = x[0];
    double best = INFINITY;
    uint8_t q[GROUP_MAX];
    for (int i = 1; i < count; i++) {
        min = x[i] < min ? x[i] : min;
        max = x[i] > max ? x[i] : max;
    }
    min = min < low_max ? min : low_max;
    *step_out = 0;
    *low_out = min;
    if (max <= min)
        return;
    for (int c = 0; c < CANDIDATES; c++) {
        float step = (max - min) / ((float)high + 0.15f * (float)(c - CANDIDATES / 2)), low = min;
        double sq = 0, sqq = 0, sx = 0, sxq = 0, error = 0;
        round_offset(x, count, step, low, high, q);
        for (int i = 0; i < count; i++) {
            sq += q[i];
            sqq += (double)q[i] * q[i];
            sx += x[i];
            sxq += (double)x[i] * q[i];
        }
        const double determinant = count * sqq - sq * sq;
        if (determinant > 0) {
            step = (float)((count * sxq - sq * sx) / determinant);
            low = (float)((sx - step * sq) / count);
            if (low > low_max) {
                low = low_max;
                step = sqq > 0 ? (float)((sxq - low * sq) / sqq) : 0;
            }
        }
        for (int i = 0; i < count; i++) {
            const double d = x[i] - ((double)step * q[i] + low);
            error += d * d;
        }
        if (step > 0 && error < best) {
            best = error;
            *step_out = step;
            *low_out = low;
        }
    }
}

/* -- blocks of 32 ------------------------------------------------------------------------------ */

static void nibbles(const uint8_t q[32], uint8_t *to)
{
    for (int j = 0; j < 16; j++)
        to[j] = (uint8_t)((q[j] & 15) | (q[j + 16] & 15) << 4);
}

static void high_bits(const uint8_t q[32], uint8_t *to)
{
    uint32_t bits = 0;
    for (int j = 0; j < 32; j++)
        bits |= (uint32_t)(q[j] >> 4 & 1) << j;
    memcpy(to, &bits, 4);
}

static void symmetric_32(const float *x, uint8_t *to, int low, int high, uint8_t q[32])
{
    int8_t value[32];
    const float d = rounded_half(fit_symmetric(x, 32, low, high), to);
    round_symmetric(x, 32, d, low, high, value);
    for (int j = 0; j < 32; j++)
        q[j] = (uint8_t)(value[j] - low);
}

static void offset_32(const float *x, uint8_t *to, int high, uint8_t q[32])
{
    float step, low;
    fit_offset(x, 32, high, INFINITY, &step, &low);
    step = rounded_half(step, to);
    low = rounded_half(low, to + 2);
    round_offset(x, 32, step, low, high, q);
}

static void to_q4_0(const float *x, uint8_t *to)
{
    uint8_t q[32];
    symmetric_32(x, to, -8, 7, q);
    nibbles(q, to + 2);
}

static void to_q4_1(const float *x, uint8_t *to)
{
    uint8_t q[32];
    offset_32(x, to, 15, q);
    nibbles(q, to + 4);
}

static void to_q5_0(const float *x, uint8_t *to)
{
    uint8_t q[32];
    symmetric_32(x, to, -16, 15, q);
    high_bits(q, to + 2);
    nibbles(q, to + 6);
}

static void to_q5_1(const float *x, uint8_t *to)
{
    uint8_t q[32];
    offset_32(x, to, 31, q);
    high_bits(q, to + 4);
    nibbles(q, to + 8);
}

static void to_q8_0(const float *x, uint8_t *to)
{
    float top = 0;
    for (int i = 0; i < 32; i++)
        top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
    const float d = rounded_half(top / 127, to);
    round_symmetric(x, 32, d, -127, 127, (int8_t *)to + 2);
}

/* -- super-blocks of 256 ----------------------------------------------------------------------- */

/* Sixteen symmetric groups of 16 under one f16 step: gives the integers and signed scales. */
static void symmetric_256(const float *x, uint8_t *d_at, int low, int high, int scale_max,
                          int8_t scale[16], int8_t q[256])
{
    float step[16], extreme = 0;
    for (int g = 0; g < 16; g++) {
        step[g] = fit_symmetric(x + 16 * g, 16, low, high);
        if (fabsf(step[g]) > fabsf(extreme))
            extreme = step[g];
    }
    const float d = rounded_half(extreme / (float)-scale_max, d_at);
    for (int g = 0; g < 16; g++) {
        scale[g] = (int8_t)clamp(d != 0 ? (int)lrintf(step[g] / d) : 0, -scale_max, scale_max - 1);
        round_symmetric(x + 16 * g, 16, d * (float)scale[g], low, high, q + 16 * g);
    }
}

/* Groups under two f16 factors, x ≈ d·scale·q - dmin·min. */
static void offset_256(const float *x, uint8_t *d_at, uint8_t *dmin_at, int groups, int high,
                       int scale_max, uint8_t scale[16], uint8_t min[16], uint8_t q[256])
{
    float step[16], low[16], step_top = 0, low_top = 0;
    const int size = 256 / groups;
    for (int g = 0; g < groups; g++) {
        fit_offset(x + size * g, size, high, 0, &step[g], &low[g]);
        step_top = step[g] > step_top ? step[g] : step_top;
        low_top = -low[g] > low_top ? -low[g] : low_top;
    }
    const float d = rounded_half(step_top / (float)scale_max, d_at);
    const float dmin = rounded_half(low_top / (float)scale_max, dmin_at);
    for (int g = 0; g < groups; g++) {
        scale[g] = (uint8_t)clamp(d > 0 ? (int)lrintf(step[g] / d) : 0, 0, scale_max);
        min[g] = (uint8_t)clamp(dmin > 0 ? (int)lrintf(-low[g] / dmin) : 0, 0, scale_max);
        round_offset(x + size * g, size, d * (float)scale[g], -dmin * (float)min[g], high,
                     q + size * g);
    }
}

static void to_q2_k(const float *x, uint8_t *to)
{
    uint8_t scale[16], min[16], q[256];
    offset_256(x, to + 80, to + 82, 16, 3, 15, scale, min, q);
    for (int g = 0; g < 16; g++)
        to[g] = (uint8_t)(scale[g] | min[g] << 4);
    memset(to + 16, 0, 64);
    for (int i = 0; i < 256; i++)
        to[16 + i / 128 * 32 + i % 32] |= (uint8_t)(q[i] << (i % 128 / 32 * 2));
}

static void to_q3_k(const float *x, uint8_t *to)
{
    int8_t scale[16], q[256];
    symmetric_256(x, to + 108, -4, 3, 32, scale, q);
    memset(to, 0, 108);
    for (int g = 0; g < 16; g++) {
        const int s = scale[g] + 32;
        to[96 + g % 8] |= (uint8_t)((s & 15) << (g / 8 * 4));
        to[96 + 8 + g % 4] |= (uint8_t)((s >> 4) << (g / 4 * 2));
    }
    for (int i = 0; i < 256; i++) {
        const int value = q[i] + 4;
        to[32 + i / 128 * 32 + i % 32] |= (uint8_t)((value & 3) << (i % 128 / 32 * 2));
        to[i % 32] |= (uint8_t)((value >> 2) << (i / 32));
    }
}

static void pack_scales(const uint8_t scale[8], const uint8_t min[8], uint8_t to[12])
{
    for (int g = 0; g < 4; g++) {
        to[g] = (uint8_t)(scale[g] | (scale[g + 4] >> 4) << 6);
        to[g + 4] = (uint8_t)(min[g] | (min[g + 4] >> 4) << 6);
        to[g + 8] = (uint8_t)((scale[g + 4] & 15) | (min[g + 4] & 15) << 4);
    }
}

static void to_q4_k(const float *x, uint8_t *to)
{
    uint8_t scale[16], min[16], q[256];
    offset_256(x, to, to + 2, 8, 15, 63, scale, min, q);
    pack_scales(scale, min, to + 4);
    for (int i = 0; i < 128; i++)
        to[16 + i] = (uint8_t)(q[i / 32 * 64 + i % 32] | q[i / 32 * 64 + 32 + i % 32] << 4);
}

static void to_q5_k(const float *x, uint8_t *to)
{
    uint8_t scale[16], min[16], q[256];
    offset_256(x, to, to + 2, 8, 31, 63, scale, min, q);
    pack_scales(scale, min, to + 4);
    memset(to + 16, 0, 32);
    for (int i = 0; i < 256; i++)
        to[16 + i % 32] |= (uint8_t)((q[i] >> 4) << (i / 32));
    for (int i = 0; i < 128; i++)
        to[48 + i] =
            (uint8_t)((q[i / 32 * 64 + i % 32] & 15) | (q[i / 32 * 64 + 32 + i % 32] & 15) << 4);
}

static void to_q6_k(const float *x, uint8_t *to)
{
    int8_t scale[16], q[256];
    symmetric_256(x, to + 208, -32, 31, 128, scale, q);
    memset(to, 0, 192);
    memcpy(to + 192, scale, 16);
    for (int i = 0; i < 256; i++) {
        const int value = q[i] + 32, half = i / 128, quarter = i % 128 / 32, j = i % 32;
        to[half * 64 + quarter % 2 * 32 + j] |= (uint8_t)((value & 15) << (quarter / 2 * 4));
        to[128 + half * 32 + j] |= (uint8_t)((value >> 4) << (quarter * 2));
    }
}

static void (*const quantizers[])(const float *x, uint8_t *to) = {
    [LT_TYPE_Q4_0] = to_q4_0, [LT_TYPE_Q4_1] = to_q4_1, [LT_TYPE_Q5_0] = to_q5_0,
    [LT_TYPE_Q5_1] = to_q5_1, [LT_TYPE_Q8_0] = to_q8_0, [LT_TYPE_Q2_K] = to_q2_k,
    [LT_TYPE_Q3_K] = to_q3_k, [LT_TYPE_Q4_K] = to_q4_k, [LT_TYPE_Q5_K] = to_q5_k,
    [LT_TYPE_Q6_K] = to_q6_k,
};

/* To the nearest, ties to the even; what is too large becomes the largest, as files are made. */
static uint8_t to_f8_e4m3(float value)
{
    const uint8_t sign = signbit(value) ? 0x80 : 0;
    const float size = fabsf(value);
    int exponent;
    if (!(size <= 448))
        return sign | (isnan(value) ? 0x7f : 0x7e);
    frexpf(size, &exponent); /* size in [2^(exponent-1), 2^exponent) */
    if (exponent < -5)
        exponent = -5; /* below 2^-6 the step stays 2^-9 */
    const int steps = (int)nearbyintf(ldexpf(size, 4 - exponent)); /* 8 … 16; fewer when small */
    return (uint8_t)(sign | (steps + (size < 0x1p-6f ? 0 : (exponent + 5) * 8)));
}

static uint8_t to_f8_e5m2(float value)
{
    const uint16_t half = lt_f32_to_f16(value);
    if ((half & 0x7fff) > 0x7c00)
        return (uint8_t)(half >> 8 | 0x7f);
    return (uint8_t)((half + 0x7f + (half >> 8 & 1)) >> 8);
}

lt_status lt_quantize_row(enum lt_type type, const float *from, void *to, int64_t count,
                          struct lt_error *error)
{
    const struct lt_type_info *info = lt_type_info(type);
    if (!info || count % (int64_t)info->block_values != 0)
        return lt_fail(error, LT_UNSUPPORTED, "cannot quantise %lld values to %s", (long long)count,
                       info ? info->name : "an unknown type");
    if (type == LT_TYPE_F32) {
        memcpy(to, from, (size_t)count * sizeof *from);
    } else if (type == LT_TYPE_F16 || type == LT_TYPE_BF16) {
        for (int64_t i = 0; i < count; i++)
            ((uint16_t *)to)[i] =
                type == LT_TYPE_F16 ? lt_f32_to_f16(from[i]) : lt_f32_to_bf16(from[i]);
    } else if (type == LT_TYPE_F8_E4M3 || type == LT_TYPE_F8_E5M2) {
        for (int64_t i = 0; i < count; i++)
            ((uint8_t *)to)[i] =
                type == LT_TYPE_F8_E4M3 ? to_f8_e4m3(from[i]) : to_f8_e5m2(from[i]);
    } else if ((size_t)type < LT_COUNT(quantizers) && quantizers[type]) {
        uint8_t *block = to;
        for (int64_t i = 0; i < count; i += info->block_values, block += info->block_bytes)
            quantizers[type](from + i, block);
    } else {
        return lt_fail(error, LT_UNSUPPORTED, "cannot quantise to %s", info->name);
    }
    return LT_OK;
}
