/* [1 3 3 1]/8 down the columns into a row between zeros, then along it. Bound by memory: an input
 * row is read by four output rows, mostly from cache. */
#include "kernels/host/host.h"
#include "kernels/host/simd.h"

#include <string.h>

struct blur {
    const struct lt_blur_args *args;
    struct lt_exec *exec;
    const struct simd *simd;
    const float *zeros; /* a row */
    struct host_failure failure;
};

/* Output row `index` of all frames. */
static void row_part(void *context, int64_t index, int thread)
{
    struct blur *b = context;
    const struct lt_view *in = &b->args->in, *out = &b->args->out;
    const int64_t rows = out->dim[1], t = index / rows, channels = in->dim[3];
    const int64_t values = in->dim[2] * channels, margin = b->args->pad * channels;
    const int64_t stride = b->args->stride, top = index % rows * stride - b->args->pad;
    struct lt_error error;
    float *wide = lt_exec_scratch(b->exec, thread, (size_t)(values + 2 * margin) * sizeof *wide);
    if (!wide) {
        lt_fail(&error, LT_NO_MEMORY, "op blur: no scratch memory");
        host_failure_note(&b->failure, &error);
        return;
    }
    const float *taps[4];
    for (int64_t i = 0; i < 4; i++)
        taps[i] = top + i >= 0 && top + i < in->dim[1]
                      ? (const float *)in->data + t * in->stride[0] + (top + i) * in->stride[1]
                      : b->zeros;
    memset(wide, 0, (size_t)margin * sizeof *wide);
    memset(wide + margin + values, 0, (size_t)margin * sizeof *wide);
    b->simd->blur(wide + margin, taps, values);
    float *to = (float *)out->data + index * out->stride[1];
    const int64_t at_once = stride == 1 ? out->dim[2] : 1; /* then neighbours are neighbours */
    for (int64_t x = 0; x < out->dim[2]; x += at_once) {
        for (int64_t i = 0; i < 4; i++)
            taps[i] = wide + (x * stride + i) * channels;
        b->simd->blur(to + x * channels, taps, at_once * channels);
    }
}

lt_status host_blur(struct lt_exec *exec, const struct lt_blur_args *args, struct lt_error *error)
{
    const size_t row_bytes = (size_t)args->in.stride[1] * sizeof(float);
    float *zeros = lt_exec_scratch(exec, -1, row_bytes);
    if (!zeros)
        return lt_fail(error, LT_NO_MEMORY, "op blur: no scratch memory");
    memset(zeros, 0, row_bytes);
    struct blur blur = {.args = args, .exec = exec, .simd = simd_best(), .zeros = zeros};
    lt_exec_parallel(exec, args->out.dim[0] * args->out.dim[1], row_part, &blur);
    return host_failure_give(&blur.failure, error);
}
