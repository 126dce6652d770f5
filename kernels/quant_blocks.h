/* Dequantisation of every block type, one function a block. A template: quant.c compiles it
 * plainly, host/simd_*.c for their instruction sets; without contraction all give the same bits.
 *
 * Layouts, all little endian: d and dmin are f16; "low nibbles first" means byte j holds value j
 * and value j + half. Q4_0 d, 16 nibbles pairs       v = d (q - 8)            Q4_1 d m v = d q + m
 *   Q5_0 d, 32 high bits, nibbles  v = d (q - 16)           Q5_1 d m, high bits     v = d q + m
 *   Q8_0 d, 32 int8                v = d q
 *   Q2_K scales[16] (scale low, min high nibble), 64 bytes of 2 bits, d, dmin
 *   Q3_K 32 bytes of high bits, 64 bytes of 2 bits, 12 bytes of sixteen 6-bit scales, d
 *   Q4_K d, dmin, 12 bytes of eight 6-bit (scale, min), 128 bytes of nibbles
 *   Q5_K d, dmin, 12 bytes, 32 bytes of high bits, 128 bytes of nibbles
 *   Q6_K 128 bytes of low nibbles, 64 bytes of high pairs, sixteen int8 scales, d */
#pragma once

#include "common/safetensors.h"
#include "common/status.h"
#include "common/view.h"

#include <string.h>
#if defined(__F16C__)
#include <immintrin.h>
#endif

static float half_at(const uint8_t *at)
{
    uint16_t bits;
    memcpy(&bits, at, 2);
    return lt_f16_to_f32(bits);
}

static void q4_0(const uint8_t *block, float *v)
{
    const float d = half_at(block);
    for (int j = 0; j < 16; j++) {
        v[j] = d * (float)((block[2 + j] & 15) - 8);
        v[j + 16] = d * (float)((block[2 + j] >> 4) - 8);
    }
}

static void q4_1(const uint8_t *block, float *v)
{
    const float d = half_at(block), m = half_at(block + 2);
    for (int j = 0; j < 16; j++) {
        v[j] = d * (float)(block[4 + j] & 15) + m;
        v[j + 16] = d * (float)(block[4 + j] >> 4) + m;
    }
}

static void fives(const uint8_t *high_bits, const uint8_t *nibbles, uint8_t q[32])
{
    uint32_t high;
    memcpy(&high, high_bits, 4);
    for (int j = 0; j < 16; j++) {
        q[j] = (uint8_t)((nibbles[j] & 15) | (high >> j & 1) << 4);
        q[j + 16] = (uint8_t)(nibbles[j] >> 4 | (high >> (j + 16) & 1) << 4);
    }
}

static void q5_0(const uint8_t *block, float *v)
{
    uint8_t q[32];
    const float d = half_at(block);
    fives(block + 2, block + 6, q);
    for (int j = 0; j < 32; j++)
        v[j] = d * (float)(q[j] - 16);
}

static void q5_1(const uint8_t *block, float *v)
{
    uint8_t q[32];
    const float d = half_at(block), m = half_at(block + 2);
    fives(block + 4, block + 8, q);
    for (int j = 0; j < 32; j++)
        v[j] = d * (float)q[j] + m;
}

static void q8_0(const uint8_t *block, float *v)
{
    const float d = half_at(block);
    for (int j = 0; j < 32; j++)
        v[j] = d * (float)(int8_t)block[2 + j];
}

static void q2_k(const uint8_t *block, float *v)
{
    const uint8_t *scale = block;
    const float d = half_at(block + 80), dmin = half_at(block + 82);
    for (int group = 0; group < 16; group++) {
        const uint8_t *bits = block + 16 + group / 8 * 32 + group % 2 * 16;
        const int shift = group % 8 / 2 * 2;
        const float step = d * (float)(scale[group] & 15), low = dmin * (float)(scale[group] >> 4);
        for (int j = 0; j < 16; j++)
            v[group * 16 + j] = step * (float)(bits[j] >> shift & 3) - low;
    }
}

/* Sixteen 6-bit scales in 12 bytes: low nibbles in the first eight, high pairs in the last four. */
static int q3_scale(const uint8_t *packed, int group)
{
    const int low = group < 8 ? packed[group] & 15 : packed[group - 8] >> 4;
    const int high = packed[8 + group % 4] >> (group / 4 * 2) & 3;
    return (low | high << 4) - 32;
}

static void q3_k(const uint8_t *block, float *v)
{
    const uint8_t *scales = block + 96;
    const float d = half_at(block + 108);
    for (int group = 0; group < 16; group++) {
        const uint8_t *high = block + group % 2 * 16;
        const uint8_t *bits = block + 32 + group / 8 * 32 + group % 2 * 16;
        const int shift = group % 8 / 2 * 2, bit = group / 2;
        const float step = d * (float)q3_scale(scales, group);
        for (int j = 0; j < 16; j++)
            v[group * 16 + j] =
                step * (float)((bits[j] >> shift & 3) + (high[j] >> bit & 1) * 4 - 4);
    }
}

/* Eight 6-bit (scale, min) pairs in 12 bytes. */
static void k_scale(const uint8_t *packed, int group, int *scale, int *min)
{
    if (group < 4) {
        *scale = packed[group] & 63;
        *min = packed[group + 4] & 63;
    } else {
        *scale = (packed[group + 4] & 15) | (packed[group - 4] >> 6) << 4;
        *min = packed[group + 4] >> 4 | (packed[group] >> 6) << 4;
    }
}

static void q4_k(const uint8_t *block, float *v)
{
    const float d = half_at(block), dmin = half_at(block + 2);
    for (int group = 0; group < 8; group++) {
        int scale, min;
        k_scale(block + 4, group, &scale, &min);
        const uint8_t *nibbles = block + 16 + group / 2 * 32;
        const float step = d * (float)scale, low = dmin * (float)min;
        for (int j = 0; j < 32; j++)
            v[group * 32 + j] = step * (float)(nibbles[j] >> (group % 2 * 4) & 15) - low;
    }
}

static void q5_k(const uint8_t *block, float *v)
{
    const float d = half_at(block), dmin = half_at(block + 2);
    const uint8_t *high = block + 16;
    for (int group = 0; group < 8; group++) {
        int scale, min;
        k_scale(block + 4, group, &scale, &min);
        const uint8_t *nibbles = block + 48 + group / 2 * 32;
        const float step = d * (float)scale, low = dmin * (float)min;
        for (int j = 0; j < 32; j++) {
            const int q = (nibbles[j] >> (group % 2 * 4) & 15) | (high[j] >> group & 1) << 4;
            v[group * 32 + j] = step * (float)q - low;
        }
    }
}

static void q6_k(const uint8_t *block, float *v)
{
    const int8_t *scale = (const int8_t *)block + 192;
    const float d = half_at(block + 208);
    for (int group = 0; group < 16; group++) {
        const int quarter = group % 8 / 2, low_shift = quarter / 2 * 4, high_shift = quarter * 2;
        const uint8_t *low = block + group / 8 * 64 + quarter % 2 * 32 + group % 2 * 16;
        const uint8_t *high = block + 128 + group / 8 * 32 + group % 2 * 16;
        const float step = d * (float)scale[group];
        for (int j = 0; j < 16; j++)
            v[group * 16 + j] =
                step * (float)((low[j] >> low_shift & 15) + (high[j] >> high_shift & 3) * 16 - 32);
    }
}

static void (*const blocks[])(const uint8_t *block, float *v) = {
    [LT_TYPE_Q4_0] = q4_0, [LT_TYPE_Q4_1] = q4_1, [LT_TYPE_Q5_0] = q5_0, [LT_TYPE_Q5_1] = q5_1,
    [LT_TYPE_Q8_0] = q8_0, [LT_TYPE_Q2_K] = q2_k, [LT_TYPE_Q3_K] = q3_k, [LT_TYPE_Q4_K] = q4_k,
    [LT_TYPE_Q5_K] = q5_k, [LT_TYPE_Q6_K] = q6_k,
};

static void halves(const uint16_t *from, float *to, int64_t count)
{
    int64_t i = 0;
#if defined(__F16C__)
    for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps(
            to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(from + i))));
#endif
    for (; i < count; i++)
        to[i] = lt_f16_to_f32(from[i]);
}

/* Sign, exponent with bias 7, three bits; exponent 0 counts in 2^-9; all ones is the only NaN. */
static float f8_e4m3(uint8_t byte)
{
    const uint32_t sign = (uint32_t)(byte & 0x80) << 24, exponent = byte >> 3 & 15,
                   mantissa = byte & 7;
    uint32_t bits = sign | (exponent + 120) << 23 | mantissa << 20;
    float value;
    if (exponent == 0)
        return (sign ? -0x1p-9f : 0x1p-9f) * (float)mantissa;
    if ((byte & 0x7f) == 0x7f)
        bits = sign | 0x7fc00000;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void bytes_of_f8(enum lt_type type, const uint8_t *from, float *to, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        to[i] =
            type == LT_TYPE_F8_E4M3 ? f8_e4m3(from[i]) : lt_f16_to_f32((uint16_t)(from[i] << 8));
}

static void dequantize_row(enum lt_type type, const void *from, float *to, int64_t count)
{
    const struct lt_type_info *info = lt_type_info(type);
    lt_assert(info && count % (int64_t)info->block_values == 0);
    if (type == LT_TYPE_F32) {
        memcpy(to, from, (size_t)count * sizeof *to);
    } else if (type == LT_TYPE_F16) {
        halves(from, to, count);
    } else if (type == LT_TYPE_BF16) {
        const uint16_t *bits = from;
        for (int64_t i = 0; i < count; i++) {
            const uint32_t wide = (uint32_t)bits[i] << 16;
            memcpy(&to[i], &wide, 4);
        }
    } else if (type == LT_TYPE_F8_E4M3 || type == LT_TYPE_F8_E5M2) {
        bytes_of_f8(type, from, to, count);
    } else {
        lt_assert((size_t)type < LT_COUNT(blocks) && blocks[type]);
        const uint8_t *block = from;
        for (int64_t i = 0; i < count; i += info->block_values, block += info->block_bytes)
            blocks[type](block, to + i);
    }
}
