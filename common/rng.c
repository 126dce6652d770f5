#include "common/rng.h"

#include <string.h>

/* -- fixed functions --------------------------------------------------------------------------- */

/* Noise must have the same bits on every machine, and libm differs between machines in the last
 * bits. These use only f32/f64 additions and multiplications in a fixed order (the build forbids
 * contraction to FMA). */

float lt_fixed_log(float x)
{
    /* x = m * 2^e with m in [sqrt(1/2), sqrt(2)); ln m = 2 atanh(s), s = (m-1)/(m+1), in f64. */
    uint32_t bits;
    memcpy(&bits, &x, 4);
    int exponent = (int)(bits >> 23) - 127;
    bits = (bits & 0x7FFFFFu) | 0x3F800000u;
    float mantissa;
    memcpy(&mantissa, &bits, 4);
    double m = mantissa;
    if (m > 1.41421356237309515) {
        m *= 0.5;
        exponent++;
    }
    const double s = (m - 1.0) / (m + 1.0), z = s * s;
    const double series =
        1.0 +
        z * (1.0 / 3 + z * (1.0 / 5 + z * (1.0 / 7 + z * (1.0 / 9 + z * (1.0 / 11 + z / 13)))));
    return (float)(2.0 * s * series + (double)exponent * 0.69314718055994531);
}

/* Reduces to an eighth around the nearest quarter turn, then Taylor series. */
static void sincos_of_quarters(double quarters, float *sin_out, float *cos_out)
{
    const double nearest = (double)(int64_t)(quarters + (quarters < 0 ? -0.5 : 0.5));
    const double a = (quarters - nearest) * 1.5707963267948966, z = a * a;
    const double s =
        a * (1.0 +
             z * (-1.0 / 6 + z * (1.0 / 120 +
                                  z * (-1.0 / 5040 + z * (1.0 / 362880 + z * (-1.0 / 39916800))))));
    const double c =
        1.0 +
        z * (-0.5 + z * (1.0 / 24 + z * (-1.0 / 720 + z * (1.0 / 40320 +
                                                           z * (-1.0 / 3628800 + z / 479001600)))));
    const double sin_of[4] = {s, c, -s, -c}, cos_of[4] = {c, -s, -c, s};
    const int quadrant = (int)((uint64_t)(int64_t)nearest & 3);
    *sin_out = (float)sin_of[quadrant];
    *cos_out = (float)cos_of[quadrant];
}

void lt_fixed_sincos_turns(float turns, float *sin_out, float *cos_out)
{
    sincos_of_quarters((double)turns * 4.0, sin_out, cos_out);
}

/* 1/sqrt-free square root: IEEE requires sqrt to be exact, so the instruction is the same
 * everywhere. */
static float root(float x)
{
    return __builtin_sqrtf(x);
}

/* Box-Muller of one pair; u1 in (0,1]. The angle is rounded to f32 as torch rounds it: without that
 * the values differ from torch's by up to 2e-6. */
static void normal_pair(float u1, float u2, float *first, float *second)
{
    float sine, cosine;
    const float radius = root(-2.0f * lt_fixed_log(u1));
    const float angle = 6.28318530717958647692f * u2;
    sincos_of_quarters((double)angle * 0.63661977236758134, &sine, &cosine);
    *first = radius * cosine;
    *second = radius * sine;
}

/* -- torch's CPU generator: MT19937 ------------------------------------------------------------ */

enum { MT_COUNT = 624, MT_SHIFT = 397 };

void lt_torch_seed(struct lt_torch_rng *rng, uint64_t seed)
{
    memset(rng, 0, sizeof *rng);
    rng->state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < MT_COUNT; i++)
        rng->state[i] = 1812433253u * (rng->state[i - 1] ^ rng->state[i - 1] >> 30) + i;
    rng->index = MT_COUNT;
}

static void refill(struct lt_torch_rng *rng)
{
    uint32_t *s = rng->state;
    for (uint32_t i = 0; i < MT_COUNT; i++) {
        const uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % MT_COUNT] & 0x7FFFFFFFu);
        s[i] = s[(i + MT_SHIFT) % MT_COUNT] ^ y >> 1 ^ (0x9908B0DFu & (0u - (y & 1)));
    }
    rng->index = 0;
}

uint32_t lt_torch_u32(struct lt_torch_rng *rng)
{
    if (rng->index >= MT_COUNT)
        refill(rng);
    uint32_t y = rng->state[rng->index++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9D2C5680u;
    y ^= y << 15 & 0xEFC60000u;
    return y ^ y >> 18;
}

float lt_torch_uniform(struct lt_torch_rng *rng)
{
    return (float)(lt_torch_u32(rng) & 0xFFFFFF) * 0x1p-24f;
}

static void normal_block(float *d)
{
    for (int j = 0; j < 8; j++) {
        float first, second;
        normal_pair(1.0f - d[j], d[j + 8], &first, &second);
        d[j] = first;
        d[j + 8] = second;
    }
}

/* 53-bit uniform as torch draws it for double: two words. */
static double uniform_double(struct lt_torch_rng *rng)
{
    const uint64_t high = lt_torch_u32(rng), low = lt_torch_u32(rng);
    return (double)((high << 32 | low) & 0x1FFFFFFFFFFFFFull) * 0x1p-53;
}

static float scalar_normal(struct lt_torch_rng *rng)
{
    if (rng->has_next_normal) {
        rng->has_next_normal = 0;
        return (float)rng->next_normal;
    }
    const double u1 = uniform_double(rng), u2 = uniform_double(rng);
    const double radius = __builtin_sqrt(-2.0 * __builtin_log1p(-u2));
    rng->next_normal = radius * __builtin_sin(6.283185307179586 * u1);
    rng->has_next_normal = 1;
    return (float)(radius * __builtin_cos(6.283185307179586 * u1));
}

void lt_torch_randn(struct lt_torch_rng *rng, float *out, size_t count)
{
    if (count < 16) {
        for (size_t i = 0; i < count; i++)
            out[i] = scalar_normal(rng);
        return;
    }
    for (size_t i = 0; i < count; i++)
        out[i] = lt_torch_uniform(rng);
    for (size_t i = 0; i + 16 <= count; i += 16)
        normal_block(out + i);
    if (count % 16 != 0) { /* torch redraws the last 16 with fresh uniforms */
        float *last = out + count - 16;
        for (int i = 0; i < 16; i++)
            last[i] = lt_torch_uniform(rng);
        normal_block(last);
    }
}

void lt_torch_randperm(struct lt_torch_rng *rng, uint32_t *out, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        out[i] = i;
    for (uint32_t i = 0; i + 1 < count; i++) {
        const uint32_t other = i + lt_torch_u32(rng) % (count - i), held = out[i];
        out[i] = out[other];
        out[other] = held;
    }
}

/* -- Philox4x32-10 (Salmon et al. 2011) -------------------------------------------------------- */

struct lt_philox lt_philox_stream(uint64_t seed, enum lt_stream purpose, uint32_t a, uint32_t b)
{
    return (struct lt_philox){{(uint32_t)seed, (uint32_t)(seed >> 32)}, {(uint32_t)purpose, a, b}};
}

/* One block of four words. The block index is 32 bits: 2^34 values a stream. */
static void philox_block(const struct lt_philox *stream, uint32_t block, uint32_t out[4])
{
    uint32_t c[4] = {block, stream->counter[0], stream->counter[1], stream->counter[2]};
    uint32_t k0 = stream->key[0], k1 = stream->key[1];
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = 0xD2511F53ull * c[0], p1 = 0xCD9E8D57ull * c[2];
        const uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k0, (uint32_t)p1,
                                  (uint32_t)(p0 >> 32) ^ c[3] ^ k1, (uint32_t)p0};
        memcpy(c, next, sizeof next);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    memcpy(out, c, sizeof c);
}

void lt_philox_u32(const struct lt_philox *stream, uint64_t first, uint32_t *out, size_t count)
{
    while (count > 0) {
        uint32_t block[4];
        const size_t skip = first % 4, part = count < 4 - skip ? count : 4 - skip;
        philox_block(stream, (uint32_t)(first / 4), block);
        memcpy(out, block + skip, part * sizeof *out);
        out += part;
        first += part;
        count -= part;
    }
}

static float uniform_of(uint32_t word)
{
    return (float)(word >> 8) * 0x1p-24f;
}

void lt_philox_uniform(const struct lt_philox *stream, uint64_t first, float *out, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t word;
        lt_philox_u32(stream, first + i, &word, 1);
        out[i] = uniform_of(word);
    }
}

void lt_philox_normal(const struct lt_philox *stream, uint64_t first, float *out, size_t count)
{
    /* Words (0,1) of a block make values 0 and 1, words (2,3) values 2 and 3. */
    while (count > 0) {
        uint32_t word[4];
        float value[4];
        const size_t skip = first % 4, part = count < 4 - skip ? count : 4 - skip;
        philox_block(stream, (uint32_t)(first / 4), word);
        for (int i = 0; i < 4; i += 2)
            normal_pair(1.0f - uniform_of(word[i]), uniform_of(word[i + 1]), &value[i],
                        &value[i + 1]);
        memcpy(out, value + skip, part * sizeof *out);
        out += part;
        first += part;
        count -= part;
    }
}
