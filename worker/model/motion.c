/* Weights are stored plain and scaled by 1/√fan_in at run time. Every activation is
 * √2 · leaky(x + bias) and every level ends in (a + s)/√2; leaky ReLU is homogeneous, so all those
 * factors go into weights and biases and what runs is convolutions, leaky ReLUs and a sum. */
#include "worker/model/motion.h"

#include <math.h>
#include <stdio.h>

enum { FRAMES_AT_ONCE = 2 };

/* -- weights ----------------------------------------------------------------------------------- */

/* A tensor times `gain`, f32, in the arena. */
static lt_status scaled(struct net *net, struct lt_view *view_out, int rank, const int64_t *dim,
                        double gain, struct lt_error *error, const char *prefix, const char *name)
{
    struct lt_view stored;
    LT_TRY(net_tensor(net, &stored, rank, dim, error, "%s%s", prefix, name));
    struct lt_view flat;
    LT_TRY(net_take(net, &flat, 1, lt_view_count(&stored), error));
    *view_out = lt_view_make(flat.data, LT_TYPE_F32, rank, dim);
    LT_TRY(LT_OP(convert, net->kernels, net->exec, error, .out = *view_out, .in = stored));
    return LT_OP(scale, net->kernels, net->exec, error, .out = flat, .in = flat, .factor = gain);
}

/* A convolution's weights [out, in, k, k], scaled by gain / √fan_in. */
static lt_status conv_weights(struct net *net, struct lt_view *view_out, int64_t out, int64_t in,
                              int64_t k, double gain, struct lt_error *error, const char *prefix,
                              const char *name)
{
    return scaled(net, view_out, 4, (int64_t[]){out, in, k, k}, gain / sqrt((double)(in * k * k)),
                  error, prefix, name);
}

/* -- convolutions ------------------------------------------------------------------------------ */

static lt_status take_map(struct net *net, struct lt_view *view_out, int64_t frames, int64_t size,
                          int64_t channels, struct lt_error *error)
{
    struct lt_view flat;
    LT_TRY(net_take(net, &flat, frames * size * size, channels, error));
    *view_out = lt_view_reshape(&flat, 4, (int64_t[]){frames, size, size, channels});
    return LT_OK;
}

static lt_status activate(struct net *net, const struct lt_view *x, struct lt_error *error)
{
    return LT_OP(activate, net->kernels, net->exec, error, .out = *x, .in = *x,
                 .activation = LT_ACTIVATION_LEAKY_RELU);
}

struct conv_step {
    int stride, pad;
    bool add; /* to what `out` holds */
};

static lt_status convolve(struct net *net, const struct lt_view *in, const struct lt_view *weight,
                          const struct lt_view *bias, struct conv_step step,
                          const struct lt_view *out, struct lt_error *error)
{
    struct lt_view none = {0};
    return LT_OP(conv, net->kernels, net->exec, error, .out = *out, .in = *in, .weight = *weight,
                 .bias = bias ? *bias : none, .add = step.add ? *out : none, .stride_time = 1,
                 .stride_space = step.stride, .pad_top = step.pad, .pad_bottom = step.pad,
                 .pad_left = step.pad, .pad_right = step.pad, .exact = true);
}

/* [B, n, n, Ci] -> [B, n/2, n/2, Co]. */
static lt_status run_level(struct net *net, const char *prefix, const struct lt_view *x,
                           const struct lt_view *out, struct lt_error *error)
{
    const int64_t frames = x->dim[0], size = x->dim[1], from = x->dim[3], to = out->dim[3];
    struct lt_view weight, bias, map, wide, narrow;
    LT_TRY(take_map(net, &map, frames, size, from, error));
    LT_TRY(conv_weights(net, &weight, from, from, 3, sqrt(2), error, prefix, "conv1.0.weight"));
    LT_TRY(scaled(net, &bias, 1, &from, sqrt(2), error, prefix, "conv1.1.bias"));
    LT_TRY(convolve(net, x, &weight, &bias, (struct conv_step){1, 1, false}, &map, error));
    LT_TRY(activate(net, &map, error));

    LT_TRY(take_map(net, &wide, frames, size + 1, from, error));
    LT_TRY(
        LT_OP(blur, net->kernels, net->exec, error, .out = wide, .in = map, .pad = 2, .stride = 1));
    LT_TRY(conv_weights(net, &weight, to, from, 3, 1, error, prefix, "conv2.1.weight"));
    LT_TRY(scaled(net, &bias, 1, &to, 1, error, prefix, "conv2.2.bias"));
    LT_TRY(convolve(net, &wide, &weight, &bias, (struct conv_step){2, 0, false}, out, error));
    LT_TRY(activate(net, out, error));

    /* 1 by 1 with stride 2 after the blur: every second place of the blur is enough */
    LT_TRY(take_map(net, &narrow, frames, size / 2, from, error));
    LT_TRY(LT_OP(blur, net->kernels, net->exec, error, .out = narrow, .in = *x, .pad = 1,
                 .stride = 2));
    LT_TRY(conv_weights(net, &weight, to, from, 1, sqrt(0.5), error, prefix, "skip.1.weight"));
    return convolve(net, &narrow, &weight, NULL, (struct conv_step){1, 0, true}, out, error);
}

/* Frames [first, first + count) of [3, P, size, size] as [count, size, size, 3]; of RAM. */
static void interleave(const struct lt_view *faces, int64_t first, const struct lt_view *pixels)
{
    const int64_t area = faces->dim[2] * faces->dim[3], frames = faces->dim[1];
    float *to = pixels->data;
    for (int64_t f = first; f < first + pixels->dim[0]; f++)
        for (int64_t i = 0; i < area; i++)
            for (int64_t c = 0; c < 3; c++)
                *to++ = ((const float *)faces->data)[(c * frames + f) * area + i];
}

static const char convs[] = "motion_encoder.enc.net_app.convs.";

static lt_status look(struct net *net, const struct face_config *config,
                      const struct lt_view *faces, int64_t first, const struct lt_view *seen,
                      struct lt_error *error)
{
    const int64_t frames = seen->dim[0];
    struct lt_view pixels, x, weight, bias;
    char prefix[96];
    LT_TRY(net_host(net, &pixels, frames * config->size * config->size, 3, error));
    pixels = lt_view_reshape(&pixels, 4, (int64_t[]){frames, config->size, config->size, 3});
    interleave(faces, first, &pixels);
    LT_TRY(net_input(net, &pixels, &pixels, error));
    LT_TRY(take_map(net, &x, frames, config->size, config->channels[0], error));
    LT_TRY(
        conv_weights(net, &weight, config->channels[0], 3, 1, sqrt(2), error, convs, "0.0.weight"));
    LT_TRY(scaled(net, &bias, 1, &config->channels[0], sqrt(2), error, convs, "0.1.bias"));
    LT_TRY(convolve(net, &pixels, &weight, &bias, (struct conv_step){1, 0, false}, &x, error));
    LT_TRY(activate(net, &x, error));
    int level = 1;
    for (int64_t size = config->size; size > 4; size /= 2, level++) {
        struct lt_view out;
        snprintf(prefix, sizeof prefix, "%s%d.", convs, level);
        LT_TRY(take_map(net, &out, frames, size / 2, config->channels[level], error));
        const struct net_mark mark = net_mark(net);
        LT_TRY(run_level(net, prefix, &x, &out, error));
        net_rewind(net, mark);
        x = out;
    }
    const struct lt_view out =
        lt_view_reshape(seen, 4, (int64_t[]){frames, 1, 1, config->motion_dim});
    snprintf(prefix, sizeof prefix, "%s%d.", convs, level);
    LT_TRY(conv_weights(net, &weight, config->motion_dim, config->channels[level - 1], 4, 1, error,
                        prefix, "weight"));
    return convolve(net, &x, &weight, NULL, (struct conv_step){1, 0, false}, &out, error);
}

/* -- motion ------------------------------------------------------------------------------------ */

/* Householder's H = 1 - tau v vᵀ, v[j] = 1, stands below the diagonal of column j. */
static double reflector(double *a, int64_t rows, int64_t columns, int64_t j)
{
    double below = 0;
    for (int64_t i = j + 1; i < rows; i++)
        below = hypot(below, a[i * columns + j]);
    if (below == 0)
        return 0;
    const double head = a[j * columns + j], beta = -copysign(hypot(head, below), head);
    for (int64_t i = j + 1; i < rows; i++)
        a[i * columns + j] /= head - beta;
    a[j * columns + j] = beta;
    return (beta - head) / beta;
}

/* Columns [first, columns) of m -= tau v (vᵀ m), v from column j of a. */
static void reflect(const double *a, int64_t rows, int64_t columns, int64_t j, double tau,
                    double *m, int64_t first)
{
    for (int64_t c = first; c < columns; c++) {
        double dot = m[j * columns + c];
        for (int64_t i = j + 1; i < rows; i++)
            dot += a[i * columns + j] * m[i * columns + c];
        m[j * columns + c] -= tau * dot;
        for (int64_t i = j + 1; i < rows; i++)
            m[i * columns + c] -= tau * dot * a[i * columns + j];
    }
}

void motion_orthonormal(double *a, int64_t rows, int64_t columns, double *q)
{
    for (int64_t i = 0; i < rows * columns; i++)
        q[i] = i / columns == i % columns;
    /* tau of column j is told by its v: 2 / (vᵀ v), so that nothing needs to be remembered */
    for (int64_t j = 0; j < columns; j++)
        reflect(a, rows, columns, j, reflector(a, rows, columns, j), a, j + 1);
    for (int64_t j = columns - 1; j >= 0; j--) {
        double square = 1;
        for (int64_t i = j + 1; i < rows; i++)
            square += a[i * columns + j] * a[i * columns + j];
        reflect(a, rows, columns, j, square > 1 ? 2 / square : 0, q, j);
    }
}

/* Q of the stored directions, [motion_dim, motion_basis]: a few thousand values, once a window, and
 * no order of their sums is any device's own: made here. */
static lt_status take_basis(struct net *net, const struct face_config *config,
                            struct lt_view *basis_out, struct lt_error *error)
{
    const int64_t rows = config->motion_dim, columns = config->motion_basis, count = rows * columns;
    struct lt_view stored;
    const float *direction;
    LT_TRY(scaled(net, &stored, 2, (int64_t[]){rows, columns}, 1, error, "motion_encoder.",
                  "dec.direction.weight"));
    LT_TRY(net_values(net, &stored, &direction, error));
    LT_TRY(net_host(net, basis_out, rows, columns, error));
    double *a = lt_arena_take_array(&net->host, (size_t)(2 * count), sizeof *a), *q = a + count;
    if (!a)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a basis of motion");
    for (int64_t i = 0; i < count; i++)
        a[i] = (double)direction[i] + 1e-8;
    motion_orthonormal(a, rows, columns, q);
    for (int64_t i = 0; i < count; i++)
        ((float *)basis_out->data)[i] = (float)q[i];
    return net_input(net, basis_out, basis_out, error);
}

/* Five linears without activations between them, then the sum of the directions. */
static lt_status move(struct net *net, const struct face_config *config, const struct lt_view *seen,
                      const struct lt_view *motion, struct lt_error *error)
{
    struct lt_view x = *seen, out, basis;
    for (int i = 0; i < 5; i++) {
        const int64_t in = config->motion_dim, width = i < 4 ? in : config->motion_basis;
        struct linear fc = {0};
        char name[64];
        snprintf(name, sizeof name, "motion_encoder.enc.fc.%d", i);
        LT_TRY(net_linear(net, &fc, width, in, error, name));
        LT_TRY(scaled(net, &fc.weight, 2, (int64_t[]){width, in}, 1 / sqrt((double)in), error, name,
                      ".weight"));
        LT_TRY(net_take(net, &out, x.dim[0], width, error));
        LT_TRY(net_apply(net, &fc, &x, &out, LT_ACTIVATION_NONE, true, error));
        x = out;
    }
    LT_TRY(take_basis(net, config, &basis, error));
    return net_apply(net, &(struct linear){.weight = basis}, &x, motion, LT_ACTIVATION_NONE, true,
                     error);
}

lt_status motion_encode(struct net *net, const struct face_config *config,
                        const struct lt_view *faces, const struct lt_view *motion,
                        struct lt_error *error)
{
    struct lt_view seen;
    LT_TRY(net_take(net, &seen, faces->dim[1], config->motion_dim, error));
    for (int64_t first = 0; first < faces->dim[1]; first += FRAMES_AT_ONCE) {
        const int64_t left = faces->dim[1] - first;
        const struct lt_view part =
            lt_view_rows(&seen, first, left < FRAMES_AT_ONCE ? left : FRAMES_AT_ONCE);
        const struct net_mark mark = net_mark(net);
        LT_TRY(look(net, config, faces, first, &part, error));
        net_rewind(net, mark);
    }
    return move(net, config, &seen, motion, error);
}

size_t motion_bytes(const struct face_config *config)
{
    const size_t side = (size_t)config->size, half = side / 2;
    const size_t c = (size_t)config->channels[0], next = (size_t)config->channels[1];
    const size_t pixels = 3 * side * side, maps = 2 * c * side * side, /* in, and convolved */
        wide = c * (side + 1) * (side + 1), halves = (next + c) * half * half;
    return FRAMES_AT_ONCE * (pixels + maps + wide + halves) * sizeof(float);
}

static void join_conv(struct lt_scratch *most, int64_t to, int64_t from, int64_t k, int64_t columns)
{
    const struct lt_scratch one = lt_scratch_conv(to, from, 1, k, k, columns);
    lt_scratch_join(most, &one);
}

void motion_scratch(const struct face_config *config, struct lt_scratch *most)
{
    const int64_t *c = config->channels;
    int level = 1;
    join_conv(most, c[0], 3, 1, config->size);
    for (int64_t size = config->size; size > 4; size /= 2, level++) {
        join_conv(most, c[level - 1], c[level - 1], 3, size);
        join_conv(most, c[level], c[level - 1], 3, size / 2);
    }
    join_conv(most, config->motion_dim, c[level - 1], 4, 1);
    /* a blurred row and its margins */
    const struct lt_scratch blur = {.shared = (size_t)(config->size * c[0]) * sizeof(float),
                                    .thread = (size_t)((config->size + 4) * c[0]) * sizeof(float)};
    lt_scratch_join(most, &blur);
}
