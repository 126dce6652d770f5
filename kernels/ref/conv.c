#include "kernels/ref/ref.h"

/* Where frame t of [zeros, past, in] lies, or NULL for a zero frame. */
static const struct lt_view *frame_of(const struct lt_conv_args *args, int64_t t, int64_t zeros,
                                      int64_t *index)
{
    const int64_t past = args->past.data ? args->past.dim[0] : 0;
    if (t < zeros)
        return NULL;
    if (t < zeros + past) {
        *index = t - zeros;
        return &args->past;
    }
    *index = t - zeros - past;
    return &args->in;
}

static double at(const struct lt_conv_args *args, const struct lt_view *from, int64_t frame,
                 int64_t y, int64_t x, int64_t channel)
{
    const int up = args->upsample ? 2 : 1;
    if (y < 0 || x < 0 || y >= from->dim[1] * up || x >= from->dim[2] * up)
        return 0;
    return ref_get(from, frame * from->stride[0] + y / up * from->stride[1] +
                             x / up * from->stride[2] + channel);
}

static float rounded(const struct lt_conv_args *args, const struct lt_exec *exec, float value)
{
    return args->exact ? value : ref_round(exec, value);
}

static double one(const struct lt_conv_args *args, struct lt_exec *exec, const float *weight,
                  int64_t zeros, int64_t t, int64_t y, int64_t x)
{
    const int w = args->weight.rank;
    const int64_t ci = args->weight.dim[1], kt = w == 5 ? args->weight.dim[2] : 1;
    const int64_t ky = args->weight.dim[w - 2], kx = args->weight.dim[w - 1];
    double sum = 0;
    for (int64_t a = 0; a < kt; a++) {
        int64_t frame = 0;
        const struct lt_view *from = frame_of(args, t * args->stride_time + a, zeros, &frame);
        for (int64_t b = 0; from && b < ky; b++)
            for (int64_t c = 0; c < kx; c++)
                for (int64_t i = 0; i < ci; i++)
                    sum += rounded(args, exec,
                                   (float)at(args, from, frame,
                                             y * args->stride_space + b - args->pad_top,
                                             x * args->stride_space + c - args->pad_left, i)) *
                           (double)weight[((i * kt + a) * ky + b) * kx + c];
    }
    return sum;
}

lt_status ref_conv(struct lt_exec *exec, const struct lt_conv_args *args, struct lt_error *error)
{
    const int64_t kt = args->weight.rank == 5 ? args->weight.dim[2] : 1;
    const int64_t have = args->in.dim[0] + (args->past.data ? args->past.dim[0] : 0);
    const int64_t zeros = (args->out.dim[0] - 1) * args->stride_time + kt - have;
    const int64_t per_output = lt_view_count(&args->weight) / args->weight.dim[0];
    float *weight = ref_weights(&args->weight), *bias = ref_weights(&args->bias);
    if (!weight || (args->bias.data && !bias)) {
        free(weight);
        free(bias);
        return lt_fail(error, LT_NO_MEMORY, "op conv: no memory");
    }
    for (int64_t i = 0; i < per_output * args->weight.dim[0]; i++)
        weight[i] = rounded(args, exec, weight[i]);
    const struct lt_view *out = &args->out, *add = &args->add;
    for (int64_t t = 0; t < out->dim[0]; t++)
        for (int64_t y = 0; y < out->dim[1]; y++)
            for (int64_t x = 0; x < out->dim[2]; x++)
                for (int64_t o = 0; o < out->dim[3]; o++) {
                    double value = one(args, exec, weight + o * per_output, zeros, t, y, x);
                    value += bias ? bias[o] : 0;
                    if (add->data)
                        value += ref_get(add, t * add->stride[0] + y * add->stride[1] +
                                                  x * add->stride[2] + o);
                    ref_put(out, t * out->stride[0] + y * out->stride[1] + x * out->stride[2] + o,
                            value);
                }
    free(weight);
    free(bias);
    return LT_OK;
}

lt_status ref_blur(struct lt_exec *exec, const struct lt_blur_args *args, struct lt_error *error)
{
    static const double tap[] = {0.125, 0.375, 0.375, 0.125};
    (void)exec;
    (void)error;
    const struct lt_view *in = &args->in, *out = &args->out;
    for (int64_t i = 0; i < lt_view_count(out); i++) {
        const int64_t c = i % out->dim[3], x = i / out->stride[2] % out->dim[2] * args->stride,
                      y = i / out->stride[1] % out->dim[1] * args->stride, t = i / out->stride[0];
        double sum = 0;
        for (int64_t a = 0; a < 4; a++)
            for (int64_t b = 0; b < 4; b++) {
                const int64_t row = y + a - args->pad, column = x + b - args->pad;
                if (row >= 0 && column >= 0 && row < in->dim[1] && column < in->dim[2])
                    sum += tap[a] * tap[b] *
                           ref_get(in, t * in->stride[0] + row * in->stride[1] +
                                           column * in->stride[2] + c);
            }
        ref_put(out, i, sum);
    }
    return LT_OK;
}
