/* Values of synthetic weights. Scales are chosen so that activations keep their size through any
 * number of blocks: matrices N(0, 1/fan_in), norm weights near 1, biases and tokens small. */
#include "worker/synth.h"

#include "common/rng.h"

#include <math.h>
#include <string.h>

static bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

static bool is_norm_weight(const char *name)
{
    return (ends_with(name, ".weight") && strstr(name, "norm")) ||
           ends_with(name, ".weight_g") || /* of wav2vec2's positions: a norm a tap */
           strcmp(name, "img_emb.proj.0.weight") == 0 || strcmp(name, "img_emb.proj.4.weight") == 0;
}

static uint32_t fnv1a(const char *text)
{
    uint32_t hash = 2166136261u;
    for (; *text; text++)
        hash = (hash ^ (uint8_t)*text) * 16777619u;
    return hash;
}

/* -- golden (dit.md 8.1) ----------------------------------------------------------------------- */

static const uint32_t LCG_FACTOR = 1664525u, LCG_SUM = 1013904223u;

/* `steps` steps at once, by squaring the affine map s -> factor·s + sum. */
static uint32_t lcg_skip(uint32_t state, uint64_t steps)
{
    uint32_t factor = LCG_FACTOR, sum = LCG_SUM;
    for (; steps > 0; steps >>= 1) {
        if (steps & 1)
            state = state * factor + sum;
        sum = sum * factor + sum;
        factor *= factor;
    }
    return state;
}

static void fill_golden(const char *name, uint64_t first, float *out, size_t count)
{
    const double centre = is_norm_weight(name) ? 1 : 0;
    uint32_t state = lcg_skip(fnv1a(name), first);
    for (size_t i = 0; i < count; i++) {
        state = state * LCG_FACTOR + LCG_SUM;
        out[i] = (float)(centre + 0.1 * (2 * ((double)state / 0x1p32) - 1));
    }
}

/* -- random ------------------------------------------------------------------------------------ */

/* The stored blur kernels of Animate's motion encoder: outer([1,3,3,1], [1,3,3,1]) / 64. */
static void fill_blur(uint64_t first, float *out, size_t count)
{
    static const float tap[] = {1, 3, 3, 1};
    for (size_t i = 0; i < count; i++)
        out[i] = tap[(first + i) / 4 % 4] * tap[(first + i) % 4] / 64;
}

static void choose_scale(const struct catalogue_entry *entry, float *mean, float *scale)
{
    const char *name = entry->name;
    const int64_t fan_in = catalogue_values(entry) / entry->dim[0];
    *mean = 0;
    *scale = 0.02f;
    if (is_norm_weight(name) || ends_with(name, ".gamma")) {
        *mean = 1;
        *scale = 0.05f;
    } else if (strncmp(name, "motion_encoder.", 15) == 0 && ends_with(name, ".weight")) {
        *scale = 1; /* divided by sqrt(fan_in) when it runs (dit.md 3.6) */
    } else if (ends_with(name, ".lora_B.weight") || ends_with(name, ".lora_up.weight")) {
        *scale = 0.1f / sqrtf((float)fan_in); /* a tenth of the weight it patches */
    } else if (strcmp(name, "text") == 0) {
        *scale = 0.1f;
    } else if (ends_with(name, "modulation")) {
        *scale = 1 / sqrtf((float)entry->dim[entry->rank - 1]);
    } else if (entry->rank > 1 && ends_with(name, ".weight")) {
        *scale = 1 / sqrtf((float)fan_in);
    }
}

static void fill_random(uint64_t seed, const struct catalogue_entry *entry, uint64_t first,
                        float *out, size_t count)
{
    float mean, scale;
    const struct lt_philox stream =
        lt_philox_stream(seed, LT_STREAM_SYNTH, fnv1a(entry->name), (uint32_t)strlen(entry->name));
    choose_scale(entry, &mean, &scale);
    lt_philox_normal(&stream, first, out, count);
    for (size_t i = 0; i < count; i++)
        out[i] = mean + scale * out[i];
}

void synth_fill_values(const struct synth_params *params, const struct catalogue_entry *entry,
                       uint64_t first, float *out, size_t count)
{
    if (ends_with(entry->name, ".alpha"))
        out[0] = params->rank ? (float)params->rank : 16;
    else if (params->fill == SYNTH_FILL_GOLDEN)
        fill_golden(entry->name, first, out, count);
    else if (ends_with(entry->name, ".kernel"))
        fill_blur(first, out, count);
    else
        fill_random(params->seed, entry, first, out, count);
}
