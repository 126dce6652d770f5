/* The parameter-free shortcuts of the Wan 2.2 VAE. Which value goes where is the same for every
 * pixel: a table of channels is made once a call, and a part makes one row of the output. */
#include "kernels/host/host.h"
#include "kernels/host/simd.h"

#include <string.h>

struct shortcut {
    struct lt_exec *exec;
    const struct lt_view *out, *in;
    const struct simd *simd;
    bool accumulate;
    int64_t space, group;
    const int32_t *source; /* avg_down [Co, group]: index in the block's values, -1: not of this
                              frame. dup_up [space², Co]: channel. */
    struct host_failure failure;
};

/* Values [at, at + count) as f32: where they are, or widened into `buffer`. */
static const float *widen(const struct shortcut *s, const struct lt_view *view, int64_t at,
                          int64_t count, float *buffer)
{
    if (view->type == LT_TYPE_F32)
        return (const float *)view->data + at;
    s->simd->from_bf16((const uint16_t *)view->data + at, buffer, count);
    return buffer;
}

static void narrow(const struct shortcut *s, const float *values, int64_t at, int64_t count)
{
    if (s->out->type == LT_TYPE_F32)
        memcpy((float *)s->out->data + at, values, (size_t)count * sizeof *values);
    else
        s->simd->to_bf16(values, (uint16_t *)s->out->data + at, count);
}

/* Scratch of a part: the widened values of a block, then those of an output pixel twice. NULL: out
 * of memory, noted. */
static float *take_scratch(struct shortcut *s, int64_t block_values, int thread)
{
    const size_t values = (size_t)(block_values + 2 * s->out->dim[3]);
    float *scratch = lt_exec_scratch(s->exec, thread, values * sizeof *scratch);
    if (!scratch) {
        struct lt_error error;
        lt_fail(&error, LT_NO_MEMORY, "op avg_down, dup_up: no scratch memory");
        host_failure_note(&s->failure, &error);
    }
    return scratch;
}

static void finish_pixel(const struct shortcut *s, float *sums, int64_t at, float *before)
{
    const int64_t co = s->out->dim[3];
    if (s->accumulate)
        s->simd->gated_add(sums, widen(s, s->out, at, co, before), sums, NULL, co);
    narrow(s, sums, at, co);
}

static void avg_part(void *context, int64_t y, int thread)
{
    struct shortcut *s = context;
    const int64_t fs = s->space, ci = s->in->dim[3], co = s->out->dim[3];
    float *block = take_scratch(s, fs * fs * ci, thread);
    if (!block)
        return;
    float *sums = block + fs * fs * ci, *before = sums + co;
    const float by = 1.0f / (float)s->group;
    for (int64_t x = 0; x < s->out->dim[2]; x++) {
        for (int64_t q = 0; q < fs; q++) {
            const int64_t from = ((y * fs + q) * s->in->dim[2] + x * fs) * ci;
            const float *row = widen(s, s->in, from, fs * ci, block + q * fs * ci);
            if (row != block + q * fs * ci)
                memcpy(block + q * fs * ci, row, (size_t)(fs * ci) * sizeof *row);
        }
        const int32_t *source = s->source;
        for (int64_t o = 0; o < co; o++) {
            float sum = 0;
            for (int64_t j = 0; j < s->group; j++, source++)
                sum += *source < 0 ? 0 : block[*source];
            sums[o] = sum * by;
        }
        finish_pixel(s, sums, (y * s->out->dim[2] + x) * co, before);
    }
}

static void dup_part(void *context, int64_t y, int thread)
{
    struct shortcut *s = context;
    const int64_t fs = s->space, ci = s->in->dim[3], co = s->out->dim[3];
    float *block = take_scratch(s, ci, thread);
    if (!block)
        return;
    float *sums = block + ci, *before = sums + co;
    for (int64_t x = 0; x < s->out->dim[2]; x++) {
        const int32_t *source = s->source + (y % fs * fs + x % fs) * co;
        const float *in = widen(s, s->in, (y / fs * s->in->dim[2] + x / fs) * ci, ci, block);
        for (int64_t o = 0; o < co; o++)
            sums[o] = in[source[o]];
        finish_pixel(s, sums, (y * s->out->dim[2] + x) * co, before);
    }
}

lt_status host_avg_down(struct lt_exec *exec, const struct lt_avg_down_args *args,
                        struct lt_error *error)
{
    const int64_t ci = args->in.dim[3], co = args->out.dim[3], fs = args->space;
    const int64_t block = args->time * fs * fs, count = ci * block;
    int32_t *source = lt_exec_scratch(exec, -1, (size_t)count * sizeof *source);
    if (!source)
        return lt_fail(error, LT_NO_MEMORY, "op avg_down: no scratch memory");
    for (int64_t k = 0; k < count; k++)
        source[k] =
            k % block / (fs * fs) == args->frame ? (int32_t)(k % (fs * fs) * ci + k / block) : -1;
    struct shortcut s = {.exec = exec,
                         .out = &args->out,
                         .in = &args->in,
                         .simd = simd_best(),
                         .accumulate = args->accumulate,
                         .space = fs,
                         .group = count / co,
                         .source = source};
    lt_exec_parallel(exec, args->out.dim[1], avg_part, &s);
    return host_failure_give(&s.failure, error);
}

lt_status host_dup_up(struct lt_exec *exec, const struct lt_dup_up_args *args,
                      struct lt_error *error)
{
    const int64_t ci = args->in.dim[3], co = args->out.dim[3], fs = args->space;
    const int64_t block = args->time * fs * fs, repeats = co * block / ci;
    int32_t *source = lt_exec_scratch(exec, -1, (size_t)(fs * fs * co) * sizeof *source);
    if (!source)
        return lt_fail(error, LT_NO_MEMORY, "op dup_up: no scratch memory");
    for (int64_t i = 0; i < fs * fs; i++)
        for (int64_t o = 0; o < co; o++)
            source[i * co + o] = (int32_t)((o * block + args->frame * fs * fs + i) / repeats);
    struct shortcut s = {.exec = exec,
                         .out = &args->out,
                         .in = &args->in,
                         .simd = simd_best(),
                         .accumulate = args->accumulate,
                         .space = fs,
                         .source = source};
    lt_exec_parallel(exec, args->out.dim[1], dup_part, &s);
    return host_failure_give(&s.failure, error);
}
