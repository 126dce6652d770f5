/* What host ops take from the scratch of their exec, told before they run, so that a memory plan
 * can name it. The shared part of an exec grows to the most any op asked for, and so does each
 * thread's. The ops themselves size their scratch by these functions. */
#pragma once

#include "kernels/exec.h"

struct lt_scratch {
    size_t shared, thread; /* bytes; `thread` is taken by each thread */
    size_t cuda;           /* bytes of a CUDA device's ops, instead; 0 in a build without CUDA */
};

/* linear: in [rows, k], weight [n, k]; `exact` as in its arguments. */
lt_status lt_scratch_linear(enum lt_precision precision, int64_t rows, int64_t k, int64_t n,
                            bool exact, struct lt_scratch *scratch_out, struct lt_error *error);
/* attention: `keys` keys, `heads` heads of `width`; f32 for an exact one. */
lt_status lt_scratch_attention(enum lt_precision precision, int64_t keys, int64_t heads,
                               int64_t width, struct lt_scratch *scratch_out,
                               struct lt_error *error);

/* conv on f32 frames without upsampling, `exact` or in f32: weight [co, ci, kt, ky, kx], rows of
 * `columns` places out. At most: how weights are laid out is oneDNN's to say. */
struct lt_scratch lt_scratch_conv(int64_t co, int64_t ci, int64_t kt, int64_t ky, int64_t kx,
                                  int64_t columns);
/* Any conv, exactly: with shapes and types as in its arguments; of `data` only whether it is NULL
 * counts. */
struct lt_conv_args;
lt_status lt_scratch_conv_of(enum lt_precision precision, const struct lt_conv_args *args,
                             struct lt_scratch *scratch_out, struct lt_error *error);

/* `most` becomes what serves both. */
void lt_scratch_join(struct lt_scratch *most, const struct lt_scratch *other);
/* Bytes an exec of so many threads holds after ops that need `scratch`. */
size_t lt_scratch_bytes(const struct lt_scratch *scratch, int thread_count);
