/* Random numbers. Every draw of the farm has a name, so noise never depends on how a job is split.
 *
 * lt_torch: bit-compatible stream of torch's CPU generator (MT19937), pipeline.md 3.9. Values agree
 * with torch to a few ulp (torch's own AVX2 and scalar paths differ by that); bits are fixed by our
 * own log/sincos. lt_philox: counter-based Philox4x32-10; element i of a named stream, in any
 * order, on any machine. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct lt_torch_rng {
    uint32_t state[624];
    uint32_t index;
    /* torch's scalar normal caches its second value (only when fewer than 16 are drawn) */
    double next_normal;
    int has_next_normal;
};

void lt_torch_seed(struct lt_torch_rng *rng, uint64_t seed); /* seed mod 2^32, as torch */
uint32_t lt_torch_u32(struct lt_torch_rng *rng);
float lt_torch_uniform(struct lt_torch_rng *rng); /* (u & 0xFFFFFF) * 2^-24 */
/* torch.randn(count, generator=rng), f32. */
void lt_torch_randn(struct lt_torch_rng *rng, float *out, size_t count);
/* torch.randperm(count, generator=rng). */
void lt_torch_randperm(struct lt_torch_rng *rng, uint32_t *out, uint32_t count);

/* What a stream of the counter-based generator is for. Values are part of job results: never
 * renumber. */
enum lt_stream {
    LT_STREAM_INITIAL_NOISE = 1,
    LT_STREAM_STEP_NOISE = 2,
    LT_STREAM_FREENOISE = 3,
    LT_STREAM_MOTION = 6,
    LT_STREAM_SYNTH = 4,
    LT_STREAM_TEST = 5,
};

/* A named stream: (seed, purpose, a, b), for example a = step, b = latent frame. */
struct lt_philox {
    uint32_t key[2];
    uint32_t counter[3]; /* purpose and names; the fourth word counts blocks of four */
};

struct lt_philox lt_philox_stream(uint64_t seed, enum lt_stream purpose, uint32_t a, uint32_t b);
/* Elements [first, first+count) of the stream. */
void lt_philox_u32(const struct lt_philox *stream, uint64_t first, uint32_t *out, size_t count);
void lt_philox_uniform(const struct lt_philox *stream, uint64_t first, float *out,
                       size_t count); /* [0,1) */
void lt_philox_normal(const struct lt_philox *stream, uint64_t first, float *out, size_t count);

/* Fixed natural logarithm and sine/cosine of 2*pi*x: the same bits on every machine (no libm). */
float lt_fixed_log(float x);
void lt_fixed_sincos_turns(float turns, float *sin_out, float *cos_out);
