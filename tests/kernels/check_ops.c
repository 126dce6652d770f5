/* One random case of each op: reference against the best variant, run with two thread counts that
 * must agree bit for bit. Bounds: f32 sums of n products of order one err by about sqrt(n)·2^-24;
 * in bf16 both sides round the same inputs, so what is left is the order of f32 sums, and for
 * attention the rounding of probabilities (2^-9). */
#include "tests/kernels/check.h"

#include "common/clock.h"
#include "common/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const enum lt_type weight_types[] = {
    LT_TYPE_F32,  LT_TYPE_F16,  LT_TYPE_BF16, LT_TYPE_Q8_0,    LT_TYPE_Q4_0,
    LT_TYPE_Q4_1, LT_TYPE_Q5_0, LT_TYPE_Q5_1, LT_TYPE_Q2_K,    LT_TYPE_Q3_K,
    LT_TYPE_Q4_K, LT_TYPE_Q5_K, LT_TYPE_Q6_K, LT_TYPE_F8_E4M3, LT_TYPE_F8_E5M2};

/* Runs op three times (timed) into want (reference), got and again (other threads); compares. */
#define RUN(op, args_, out_, want_, got_, again_, count_, bound_)                                  \
    do {                                                                                           \
        struct lt_error error_;                                                                    \
        struct lt_##op##_args a_ = args_;                                                          \
        a_.out_.data = want_;                                                                      \
        int64_t begin_ = lt_clock_now_us();                                                        \
        check_status(check, lt_##op(check->ref, check->exec, &a_, &error_), &error_);              \
        check->ref_us += lt_clock_now_us() - begin_;                                               \
        a_.out_.data = got_;                                                                       \
        begin_ = lt_clock_now_us();                                                                \
        check_status(check, lt_##op(check->best, check->exec, &a_, &error_), &error_);             \
        check->best_us += lt_clock_now_us() - begin_;                                              \
        a_.out_.data = again_;                                                                     \
        check_status(check, lt_##op(check->best, check->other, &a_, &error_), &error_);            \
        check_close(check, got_, want_, count_, bound_);                                           \
        check_same(check, got_, again_, (size_t)(count_) * sizeof(float),                          \
                   "bits depend on the number of threads");                                        \
    } while (0)

/* The same on frames of bf16: both round once, and may round to neighbours. */
#define RUN_BF16(op, args_, count_)                                                                \
    do {                                                                                           \
        struct lt_error error_;                                                                    \
        struct lt_##op##_args a_ = args_;                                                          \
        uint16_t *of_ref_ = (uint16_t *)(void *)check_buffer(check, ((count_) + 1) / 2),           \
                 *of_best_ = (uint16_t *)(void *)check_buffer(check, ((count_) + 1) / 2);          \
        a_.out.data = of_ref_;                                                                     \
        check_status(check, lt_##op(check->ref, check->exec, &a_, &error_), &error_);              \
        a_.out.data = of_best_;                                                                    \
        check_status(check, lt_##op(check->best, check->exec, &a_, &error_), &error_);             \
        check_close_bf16(check, of_best_, of_ref_, count_);                                        \
    } while (0)

static void check_close_bf16(struct check *check, const uint16_t *got, const uint16_t *want,
                             int64_t count)
{
    const struct check_bound bound = {1e-5, 1e-5, 0.0079, "rounded to the next bf16"};
    float *values = check_buffer(check, 2 * count);
    for (int64_t i = 0; i < count; i++) {
        values[i] = lt_bf16_to_f32(got[i]);
        values[count + i] = lt_bf16_to_f32(want[i]);
    }
    check_close(check, values, values + count, count, bound);
}

/* An input of rows that stand some values apart, as in a product of several side by side. */
static void draw_rows(struct check *check, struct lt_view *view, float scale)
{
    const int64_t stride = view->stride[0] + (check_int(check, 0, 1) ? check_int(check, 1, 12) : 0);
    view->data = check_buffer(check, view->dim[0] * stride);
    check_fill(check, view->data, view->dim[0] * stride, scale);
    view->stride[0] = stride;
}

/* What an op adds to. */
static void same_start(struct check *check, float *want, float *got, float *again, int64_t count)
{
    check_fill(check, want, count, 1);
    memcpy(got, want, (size_t)count * sizeof *got);
    memcpy(again, want, (size_t)count * sizeof *again);
}

void check_linear(struct check *check)
{
    const enum lt_type type = weight_types[check_int(check, 0, LT_COUNT(weight_types) - 1)];
    const int64_t block = lt_type_info(type)->block_values;
    const int64_t k =
        block > 1 ? block * check_int(check, 1, 512 / block) : check_int(check, 1, 300);
    const int64_t rows = check_int(check, 1, 150), n = check_int(check, 1, 200),
                  pad = check_int(check, 0, 9);
    float *in = check_buffer(check, rows * (k + pad)), *bias = check_buffer(check, n),
          *scale = check_buffer(check, 1);
    float *want = check_buffer(check, rows * n), *got = check_buffer(check, rows * n),
          *again = check_buffer(check, rows * n);
    check_fill(check, in, rows * (k + pad), 1);
    check_fill(check, bias, n, 1);
    *scale = 1.75f;
    struct lt_linear_args args = {
        .out = lt_view_2d(NULL, LT_TYPE_F32, rows, n),
        .in = lt_view_2d(in, LT_TYPE_F32, rows, k),
        .weight = lt_view_2d(check_weights(check, type, n * k, 1.0f / sqrtf((float)k)), type, n, k),
        .bias = lt_view_1d(check_int(check, 0, 3) ? bias : NULL, LT_TYPE_F32, n),
        .activation = (enum lt_activation)check_int(check, 0, LT_ACTIVATION_LEAKY_RELU),
        .exact = check_int(check, 0, 3) == 0,
        .weight_scale = lt_view_1d(check_int(check, 0, 3) ? NULL : scale, LT_TYPE_F32, 1),
    };
    const bool overlapping = check_int(check, 0, 4) == 0; /* windows of a convolution over time */
    args.in.stride[0] = overlapping ? check_int(check, 1, k) : k + pad;
    if (check_int(check, 0, 2) == 0) {
        args.accumulate = true;
        same_start(check, want, got, again, rows * n);
    }
    snprintf(check->what, sizeof check->what, "%s %lldx%lldx%lld activation %d%s%s",
             lt_type_info(type)->name, (long long)rows, (long long)n, (long long)k, args.activation,
             args.accumulate ? " accumulated" : "", overlapping ? " of overlapping rows" : "");
    const struct check_bound bound = {1e-10, 2e-5, 2e-5,
                                      "f32 sums of up to 512 products, inputs rounded alike"};
    RUN(linear, args, out, want, got, again, rows * n, bound);
}

void check_low_rank(struct check *check)
{
    static const enum lt_type types[] = {LT_TYPE_F32, LT_TYPE_BF16, LT_TYPE_F16};
    const enum lt_type type = types[check_int(check, 0, 2)];
    const bool dense = check_int(check, 0, 4) == 0;
    const int64_t rows = check_int(check, 1, 90), k = check_int(check, 1, 300),
                  n = check_int(check, 1, 200), rank = dense ? k : check_int(check, 1, 70);
    const int64_t room = check_int(check, 1, rows), pad = check_int(check, 0, 9);
    float *in = check_buffer(check, rows * (k + pad)), *bias = check_buffer(check, n),
          *scale = check_buffer(check, rank), *hidden = check_buffer(check, room * rank);
    float *want = check_buffer(check, rows * n), *got = check_buffer(check, rows * n),
          *again = check_buffer(check, rows * n);
    check_fill(check, in, rows * (k + pad), 1);
    check_fill(check, bias, n, 1);
    check_fill(check, scale, rank, 1);
    same_start(check, want, got, again, rows * n);
    struct lt_low_rank_args args = {
        .out = lt_view_2d(NULL, LT_TYPE_F32, rows, n),
        .in = lt_view_2d(in, LT_TYPE_F32, rows, k),
        .b = lt_view_2d(check_weights(check, type, n * rank, 1.0f / sqrtf((float)rank)), type, n,
                        rank),
        .scale = lt_view_1d(scale, LT_TYPE_F32, rank),
        .bias = lt_view_1d(check_int(check, 0, 3) ? bias : NULL, LT_TYPE_F32, n),
        .hidden = lt_view_2d(hidden, LT_TYPE_F32, room, rank),
        .activation = (enum lt_activation)check_int(check, 0, 4),
        .exact = check_int(check, 0, 3) == 0,
    };
    args.in.stride[0] = k + pad;
    if (!dense)
        args.a =
            lt_view_2d(check_weights(check, type, rank * k, 1.0f / sqrtf((float)k)), type, rank, k);
    snprintf(check->what, sizeof check->what, "%s %lldx%lldx%lld rank %lld, %lld rows at a time",
             lt_type_info(type)->name, (long long)rows, (long long)n, (long long)k, (long long)rank,
             (long long)room);
    const struct check_bound f32 = {1e-10, 2e-5, 2e-5,
                                    "f32 sums of up to 300 products, inputs rounded alike"};
    const struct check_bound bf16 = {
        2e-6, 1.5e-2, 1e-3,
        "an f32 sum may round to the neighbouring bf16: 2^-8 of few of the up to 300 terms"};
    RUN(low_rank, args, out, want, got, again, rows * n, check->bf16 && !args.exact ? bf16 : f32);
}

void check_layer_norm(struct check *check)
{
    const int64_t rows = check_int(check, 1, 70), width = check_int(check, 1, 700);
    const int64_t group_rows = check_int(check, 0, 1) ? check_int(check, 1, rows) : 0;
    const int64_t groups = group_rows ? (rows + group_rows - 1) / group_rows : 1;
    float *w = check_buffer(check, width), *b = check_buffer(check, width);
    float *scale = check_buffer(check, groups * width),
          *shift = check_buffer(check, groups * width);
    float *want = check_buffer(check, rows * width), *got = check_buffer(check, rows * width),
          *again = check_buffer(check, rows * width);
    check_fill(check, w, width, 1);
    check_fill(check, b, width, 1);
    check_fill(check, scale, groups * width, 1);
    check_fill(check, shift, groups * width, 1);
    const int parts = (int)check_int(check, 0, 3);
    struct lt_layer_norm_args args = {
        .out = lt_view_2d(NULL, LT_TYPE_F32, rows, width),
        .in = lt_view_2d(NULL, LT_TYPE_F32, rows, width),
        .weight = lt_view_1d(parts & 1 ? w : NULL, LT_TYPE_F32, width),
        .bias = lt_view_1d(parts & 1 ? b : NULL, LT_TYPE_F32, width),
        .scale = lt_view_2d(parts & 2 ? scale : NULL, LT_TYPE_F32, groups, width),
        .shift = lt_view_2d(parts & 2 ? shift : NULL, LT_TYPE_F32, groups, width),
        .group_rows = group_rows,
        .epsilon = 1e-6f,
    };
    draw_rows(check, &args.in, 3);
    snprintf(check->what, sizeof check->what, "%lldx%lld groups %lld parts %d", (long long)rows,
             (long long)width, (long long)groups, parts);
    const struct check_bound bound = {1e-10, 3e-5, 1e-5,
                                      "f32 mean and variance of up to 700 values"};
    RUN(layer_norm, args, out, want, got, again, rows * width, bound);
}

static void rope_axis(struct lt_view *axis, float *data, int64_t positions, int64_t pairs)
{
    *axis = lt_view_3d(data, LT_TYPE_F32, positions, pairs, 2);
    for (int64_t i = 0; i < positions * pairs; i++) {
        data[2 * i] = cosf((float)i);
        data[2 * i + 1] = sinf((float)i);
    }
}

void check_rms_norm(struct check *check)
{
    const bool rope = check_int(check, 0, 1);
    const int64_t heads = check_int(check, 1, 7),
                  head = rope ? 2 * check_int(check, 3, 64) : check_int(check, 1, 128),
                  width = heads * head;
    const int64_t f = check_int(check, 1, 4), h = check_int(check, 1, 4),
                  w = check_int(check, 1, 4), rows = f * h * w;
    float *weight = check_buffer(check, width);
    float *want = check_buffer(check, rows * width), *got = check_buffer(check, rows * width),
          *again = check_buffer(check, rows * width);
    check_fill(check, weight, width, 1);
    struct lt_rms_norm_args args = {
        .out = lt_view_2d(NULL, LT_TYPE_F32, rows, width),
        .in = lt_view_2d(NULL, LT_TYPE_F32, rows, width),
        .weight = lt_view_1d(weight, LT_TYPE_F32, check_int(check, 0, 1) ? width : head),
        .epsilon = 1e-6f,
        .head_width = head,
    };
    draw_rows(check, &args.in, 2);
    const int64_t row_pairs = head / 6, time_pairs = head / 2 - 2 * row_pairs;
    if (rope) {
        rope_axis(&args.time, check_buffer(check, f * time_pairs * 2), f, time_pairs);
        rope_axis(&args.row, check_buffer(check, h * row_pairs * 2), h, row_pairs);
        rope_axis(&args.column, check_buffer(check, w * row_pairs * 2), w, row_pairs);
    }
    snprintf(check->what, sizeof check->what, "%lldx%lld rope %d", (long long)rows,
             (long long)width, args.time.data != NULL);
    const struct check_bound bound = {1e-11, 3e-6, 5e-6, "f32 sum of squares, one rotation"};
    RUN(rms_norm, args, out, want, got, again, rows * width, bound);
}

void check_gated_add(struct check *check)
{
    const int64_t rows = check_int(check, 1, 60), width = check_int(check, 1, 300);
    float *residual = check_buffer(check, rows * width), *gate = check_buffer(check, width);
    float *want = check_buffer(check, rows * width), *got = check_buffer(check, rows * width),
          *again = check_buffer(check, rows * width);
    check_fill(check, residual, rows * width, 1);
    check_fill(check, gate, width, 1);
    struct lt_gated_add_args args = {
        .out = lt_view_2d(NULL, LT_TYPE_F32, rows, width),
        .residual = lt_view_2d(residual, LT_TYPE_F32, rows, width),
        .in = lt_view_2d(NULL, LT_TYPE_F32, rows, width),
        .gate = lt_view_1d(check_int(check, 0, 1) ? gate : NULL, LT_TYPE_F32, width),
    };
    draw_rows(check, &args.in, 1);
    snprintf(check->what, sizeof check->what, "%lldx%lld", (long long)rows, (long long)width);
    const struct check_bound bound = {1e-12, 2e-6, 2e-7, "one product and one sum in f32"};
    RUN(gated_add, args, out, want, got, again, rows * width, bound);
    memcpy(again, residual, (size_t)(rows * width) * sizeof *again); /* in place is promised */
    struct lt_error error;
    args.out.data = args.residual.data = again;
    check_status(check, lt_gated_add(check->best, check->exec, &args, &error), &error);
    check_same(check, got, again, (size_t)(rows * width) * sizeof *again, "in place differs");
}

void check_multiply(struct check *check)
{
    const int64_t rows = check_int(check, 1, 60), width = check_int(check, 1, 300);
    float *a = check_buffer(check, rows * width), *b = check_buffer(check, rows * width);
    float *want = check_buffer(check, rows * width), *got = check_buffer(check, rows * width),
          *again = check_buffer(check, rows * width);
    check_fill(check, a, rows * width, 1);
    check_fill(check, b, rows * width, 1);
    struct lt_multiply_args args = {.out = lt_view_2d(NULL, LT_TYPE_F32, rows, width),
                                    .a = lt_view_2d(a, LT_TYPE_F32, rows, width),
                                    .b = lt_view_2d(b, LT_TYPE_F32, rows, width)};
    snprintf(check->what, sizeof check->what, "%lldx%lld", (long long)rows, (long long)width);
    RUN(multiply, args, out, want, got, again, rows * width,
        ((struct check_bound){0, 0, 0, "one product"}));
    struct lt_error error;
    args.out.data = a; /* in place is promised */
    check_status(check, lt_multiply(check->best, check->exec, &args, &error), &error);
    check_same(check, got, a, (size_t)(rows * width) * sizeof *a, "in place differs");
}

void check_scale(struct check *check)
{
    const int64_t count = check_int(check, 1, 5000);
    float *in = check_buffer(check, count), *want = check_buffer(check, count),
          *got = check_buffer(check, count), *again = check_buffer(check, count);
    check_fill(check, in, count, 6);
    struct lt_scale_args args = {.out = lt_view_1d(NULL, LT_TYPE_F32, count),
                                 .in = lt_view_1d(in, LT_TYPE_F32, count),
                                 .factor = sqrt((double)check_int(check, 1, 4096)) / 64};
    snprintf(check->what, sizeof check->what, "%lld", (long long)count);
    RUN(scale, args, out, want, got, again, count, ((struct check_bound){0, 0, 0, "one product"}));
    struct lt_error error;
    args.out.data = in; /* in place is promised */
    check_status(check, lt_scale(check->best, check->exec, &args, &error), &error);
    check_same(check, got, in, (size_t)count * sizeof *in, "in place differs");
}

void check_activate(struct check *check)
{
    const int64_t count = check_int(check, 1, 5000);
    float *in = check_buffer(check, count), *want = check_buffer(check, count),
          *got = check_buffer(check, count), *again = check_buffer(check, count);
    check_fill(check, in, count, 6);
    struct lt_activate_args args = {
        .out = lt_view_1d(NULL, LT_TYPE_F32, count),
        .in = lt_view_1d(in, LT_TYPE_F32, count),
        .activation = (enum lt_activation)check_int(check, 0, LT_ACTIVATION_LEAKY_RELU)};
    snprintf(check->what, sizeof check->what, "%lld kind %d", (long long)count, args.activation);
    const struct check_bound bound = {1e-11, 3e-6, 1e-5,
                                      "polynomial exp (2e-7) and erf (1.5e-7 absolute, times x)"};
    RUN(activate, args, out, want, got, again, count, bound);
    args.in = lt_view_1d(check_weights(check, LT_TYPE_BF16, count, 6), LT_TYPE_BF16, count);
    args.out.type = LT_TYPE_BF16;
    RUN_BF16(activate, args, count);
}

void check_attention(struct check *check)
{
    const int64_t l = check_int(check, 1, 150), s = check_int(check, 1, 600),
                  heads = check_int(check, 1, 3);
    const bool plain = check->seed % 2 == 0; /* as transformers ask: every other time, so surely */
    const int64_t width = plain || check_int(check, 0, 1) ? 128 : check_int(check, 1, 200);
    const int64_t lq = l * heads * width;
    float *want = check_buffer(check, lq), *got = check_buffer(check, lq),
          *again = check_buffer(check, lq);
    struct lt_attention_args args = {.out = lt_view_3d(NULL, LT_TYPE_F32, l, heads, width),
                                     .q = lt_view_3d(NULL, LT_TYPE_F32, l, heads, width),
                                     .k = lt_view_3d(NULL, LT_TYPE_F32, s, heads, width),
                                     .v = lt_view_3d(NULL, LT_TYPE_F32, s, heads, width),
                                     .scale = 1.0f / sqrtf((float)width),
                                     .last_key_bias = check_int(check, 0, 1) ? logf(500) : 0,
                                     .exact = !plain && check_int(check, 0, 3) == 0};
    draw_rows(check, &args.q, 1);
    draw_rows(check, &args.k, 1);
    draw_rows(check, &args.v, 1);
    if (!plain && check_int(check, 0, 1)) {
        const int64_t distances = l + s - 1;
        args.relative_bias =
            lt_view_2d(check_buffer(check, heads * distances), LT_TYPE_F32, heads, distances);
        check_fill(check, args.relative_bias.data, heads * distances, 2);
    }
    snprintf(check->what, sizeof check->what,
             "%lldx%lld heads %lld width %lld bias %g relative %d exact %d", (long long)l,
             (long long)s, (long long)heads, (long long)width, args.last_key_bias,
             args.relative_bias.data != NULL, args.exact);
    const struct check_bound exact = {1e-10, 2e-5, 2e-5, "f32 dot products and online softmax"};
    const struct check_bound rounded = {2e-5, 2e-2, 1e-2,
                                        "probabilities rounded to bf16 (2^-9 each)"};
    RUN(attention, args, out, want, got, again, lq, check->bf16 && !args.exact ? rounded : exact);
}

void check_patchify(struct check *check)
{
    const int64_t c = check_int(check, 1, 20), f = check_int(check, 1, 4),
                  h = 2 * check_int(check, 1, 6), w = 2 * check_int(check, 1, 6),
                  count = c * f * h * w;
    float *in = check_buffer(check, count), *want = check_buffer(check, count),
          *got = check_buffer(check, count), *again = check_buffer(check, count);
    check_fill(check, in, count, 1);
    struct lt_patchify_args args = {.out = lt_view_2d(NULL, LT_TYPE_F32, f * h * w / 4, 4 * c),
                                    .in = lt_view_4d(in, LT_TYPE_F32, c, f, h, w)};
    snprintf(check->what, sizeof check->what, "%lldx%lldx%lldx%lld", (long long)c, (long long)f,
             (long long)h, (long long)w);
    RUN(patchify, args, out, want, got, again, count, ((struct check_bound){0, 0, 0, "a copy"}));
}

void check_unpatchify(struct check *check)
{
    const int64_t c = check_int(check, 1, 20), f = check_int(check, 1, 4),
                  h = 2 * check_int(check, 1, 6), w = 2 * check_int(check, 1, 6),
                  count = c * f * h * w;
    float *in = check_buffer(check, count), *want = check_buffer(check, count),
          *got = check_buffer(check, count), *again = check_buffer(check, count);
    check_fill(check, in, count, 1);
    struct lt_unpatchify_args args = {.out = lt_view_4d(NULL, LT_TYPE_F32, c, f, h, w),
                                      .in = lt_view_2d(in, LT_TYPE_F32, f * h * w / 4, 4 * c)};
    snprintf(check->what, sizeof check->what, "%lldx%lldx%lldx%lld", (long long)c, (long long)f,
             (long long)h, (long long)w);
    RUN(unpatchify, args, out, want, got, again, count, ((struct check_bound){0, 0, 0, "a copy"}));
}

/* To the half types too: both round in one way. */
static void check_halves(struct check *check, struct lt_convert_args args, float *want, float *got,
                         int64_t count)
{
    static const enum lt_type halves[] = {LT_TYPE_BF16, LT_TYPE_F16};
    struct lt_error error;
    for (size_t i = 0; i < LT_COUNT(halves); i++) {
        args.out = lt_view_1d(want, halves[i], count);
        check_status(check, lt_convert(check->ref, check->exec, &args, &error), &error);
        args.out.data = got;
        check_status(check, lt_convert(check->best, check->exec, &args, &error), &error);
        check_same(check, want, got, (size_t)count * 2, "rounding differs");
    }
}

/* Every type each time: one block, some, and plain values beyond a kernel's tile. */
void check_convert(struct check *check)
{
    for (size_t i = 0; i < LT_COUNT(weight_types); i++) {
        const enum lt_type type = weight_types[i];
        const int64_t size = lt_type_info(type)->block_values;
        const int64_t blocks = check_int(check, 0, 3) == 0 ? 1 : check_int(check, 1, 40),
                      count = size > 1 ? size * blocks : blocks * check_int(check, 1, 99);
        float *want = check_buffer(check, count), *got = check_buffer(check, count),
              *again = check_buffer(check, count);
        const struct lt_convert_args args = {
            .out = lt_view_1d(NULL, LT_TYPE_F32, count),
            .in = lt_view_1d(check_weights(check, type, count, 1), type, count)};
        snprintf(check->what, sizeof check->what, "%s %lld", lt_type_info(type)->name,
                 (long long)count);
        RUN(convert, args, out, want, got, again, count,
            ((struct check_bound){0, 0, 0, "the same formula"}));
        check_halves(check, args, want, got, count);
    }
}

void check_channel_norm(struct check *check)
{
    const int64_t pixels = check_int(check, 1, 900), channels = check_int(check, 1, 400),
                  count = pixels * channels;
    float *in = check_buffer(check, count), *gamma = check_buffer(check, channels);
    float *want = check_buffer(check, count), *got = check_buffer(check, count),
          *again = check_buffer(check, count);
    check_fill(check, in, count, 2);
    check_fill(check, gamma, channels, 1);
    if (check_int(check, 0, 3) == 0)
        memset(in, 0, (size_t)channels * sizeof *in); /* a zero pixel must stay zero, not NaN */
    struct lt_channel_norm_args args = {.out = lt_view_2d(NULL, LT_TYPE_F32, pixels, channels),
                                        .in = lt_view_2d(in, LT_TYPE_F32, pixels, channels),
                                        .gamma = lt_view_1d(gamma, LT_TYPE_F32, channels),
                                        .activation = check_int(check, 0, 1) ? LT_ACTIVATION_SILU
                                                                             : LT_ACTIVATION_NONE};
    snprintf(check->what, sizeof check->what, "%lldx%lld", (long long)pixels, (long long)channels);
    const struct check_bound bound = {1e-11, 5e-6, 1e-5, "f32 sum of squares and fast exp"};
    RUN(channel_norm, args, out, want, got, again, count, bound);
    args.in =
        lt_view_2d(check_weights(check, LT_TYPE_BF16, count, 2), LT_TYPE_BF16, pixels, channels);
    args.out.type = LT_TYPE_BF16;
    RUN_BF16(channel_norm, args, count);
}

void check_nag(struct check *check)
{
    const int64_t rows = check_int(check, 1, 70), width = check_int(check, 1, 700),
                  count = rows * width;
    float *positive = check_buffer(check, count), *negative = check_buffer(check, count);
    float *want = check_buffer(check, count), *got = check_buffer(check, count),
          *again = check_buffer(check, count);
    check_fill(check, positive, count, 1);
    check_fill(check, negative, count, check_int(check, 0, 1) ? 1 : 0.01f);
    if (check_int(check, 0, 3) == 0) { /* nothing to guide must stay nothing, not NaN */
        memset(positive, 0, (size_t)width * sizeof *positive);
        memset(negative, 0, (size_t)width * sizeof *negative);
    }
    struct lt_nag_args args = {.out = lt_view_2d(NULL, LT_TYPE_F32, rows, width),
                               .positive = lt_view_2d(positive, LT_TYPE_F32, rows, width),
                               .negative = lt_view_2d(negative, LT_TYPE_F32, rows, width),
                               .scale = check_int(check, 0, 1) ? 11 : 2,
                               .tau = 2.5f,
                               .alpha = 0.25f};
    snprintf(check->what, sizeof check->what, "%lldx%lld scale %g", (long long)rows,
             (long long)width, (double)args.scale);
    const struct check_bound bound = {1e-11, 2e-6, 1e-5, "f32 sums of up to 700 absolute values"};
    RUN(nag, args, out, want, got, again, count, bound);
    struct lt_error error;
    memcpy(again, positive, (size_t)count * sizeof *again); /* in place is promised */
    args.out.data = args.positive.data = again;
    check_status(check, lt_nag(check->best, check->exec, &args, &error), &error);
    check_same(check, got, again, (size_t)count * sizeof *again, "in place differs");
}

void check_rotate(struct check *check)
{
    const int64_t rows = check_int(check, 1, 70), heads = check_int(check, 1, 5),
                  width = 2 * check_int(check, 1, 80), count = rows * heads * width;
    float *in = check_buffer(check, count), *position = check_buffer(check, rows);
    float *want = check_buffer(check, count), *got = check_buffer(check, count),
          *again = check_buffer(check, count);
    check_fill(check, in, count, 1);
    check_fill(check, position, rows, 24);
    struct lt_rotate_args args = {.out = lt_view_3d(NULL, LT_TYPE_F32, rows, heads, width),
                                  .in = lt_view_3d(in, LT_TYPE_F32, rows, heads, width),
                                  .position = lt_view_1d(position, LT_TYPE_F32, rows)};
    snprintf(check->what, sizeof check->what, "%lldx%lldx%lld", (long long)rows, (long long)heads,
             (long long)width);
    const struct check_bound bound = {1e-12, 1e-6, 1e-6, "sine and cosine rounded to f32"};
    RUN(rotate, args, out, want, got, again, count, bound);
    struct lt_error error;
    memcpy(again, in, (size_t)count * sizeof *again); /* in place is promised */
    args.out.data = args.in.data = again;
    check_status(check, lt_rotate(check->best, check->exec, &args, &error), &error);
    check_same(check, got, again, (size_t)count * sizeof *again, "in place differs");
}

void check_route(struct check *check)
{
    const int64_t count = check_int(check, 1, 700), heads = check_int(check, 1, 6),
                  masks = check_int(check, 2, 9), width = check_int(check, 9, 12);
    const int64_t outs = count + masks * count + 2 * (masks - 1);
    float *looks = check_buffer(check, count * heads * width), *size = check_buffer(check, masks),
          *first = check_buffer(check, masks);
    float *out[3]; /* wanted, got, again: position, maps and range */
    check_fill(check, looks, count * heads * width, 1);
    for (int64_t c = 0; c < masks; c++) {
        size[c] = (float)check_int(check, 0, 20); /* nobody may be there */
        first[c] = (float)(4 * c);
    }
    struct lt_error error;
    for (int i = 0; i < 3; i++) {
        out[i] = check_buffer(check, outs);
        const struct lt_route_args args = {
            .position = lt_view_1d(out[i], LT_TYPE_F32, count),
            .maps = lt_view_2d(out[i] + count, LT_TYPE_F32, masks, count),
            .range = lt_view_2d(out[i] + count + masks * count, LT_TYPE_F32, masks - 1, 2),
            .looks = lt_view_3d(looks, LT_TYPE_F32, count, heads, width),
            .size = lt_view_1d(size, LT_TYPE_F32, masks),
            .first = lt_view_1d(first, LT_TYPE_F32, masks),
            .width = 4};
        check_status(check, lt_route(i ? check->best : check->ref, check->exec, &args, &error),
                     &error);
    }
    snprintf(check->what, sizeof check->what, "%lldx%lld %lld masks", (long long)count,
             (long long)heads, (long long)masks);
    check_same(check, out[0], out[1], (size_t)outs * sizeof(float), "f64 in one order differs");
    check_same(check, out[1], out[2], (size_t)outs * sizeof(float), "not deterministic");
}

void check_blur(struct check *check)
{
    const int64_t t = check_int(check, 1, 3), y = check_int(check, 4, 20),
                  x = check_int(check, 4, 20), c = check_int(check, 1, 70);
    const int pad = (int)check_int(check, 0, 2), stride = (int)check_int(check, 1, 2);
    const int64_t oy = (y + 2 * pad - 4) / stride + 1, ox = (x + 2 * pad - 4) / stride + 1;
    float *in = check_buffer(check, t * y * x * c), *want = check_buffer(check, t * oy * ox * c),
          *got = check_buffer(check, t * oy * ox * c),
          *again = check_buffer(check, t * oy * ox * c);
    check_fill(check, in, t * y * x * c, 1);
    struct lt_blur_args args = {.out = lt_view_4d(NULL, LT_TYPE_F32, t, oy, ox, c),
                                .in = lt_view_4d(in, LT_TYPE_F32, t, y, x, c),
                                .pad = pad,
                                .stride = stride};
    snprintf(check->what, sizeof check->what, "%lldx%lldx%lldx%lld pad %d stride %d", (long long)t,
             (long long)y, (long long)x, (long long)c, pad, stride);
    const struct check_bound bound = {1e-12, 1e-6, 1e-6, "two f32 sums of four"};
    RUN(blur, args, out, want, got, again, t * oy * ox * c, bound);
}

/* The same sequence frame by frame with history must give the same bits as in one call. */
static void check_conv_cut(struct check *check, struct lt_conv_args args, const void *whole,
                           void *pieces)
{
    struct lt_error error;
    const int64_t frames = args.in.dim[0], kt = args.weight.dim[2];
    const size_t bytes = args.in.type == LT_TYPE_F32 ? 4 : 2;
    const struct lt_view in = args.in, out = args.out;
    for (int64_t t = 0; t < frames; t++) {
        const int64_t past = t < kt - 1 ? t : kt - 1;
        args.in = lt_view_rows(&in, t, 1);
        args.past = lt_view_rows(&in, t - past, past);
        if (past == 0)
            args.past.data = NULL;
        args.out = out;
        args.out.dim[0] = 1;
        args.out.data = (char *)pieces + (size_t)(t * out.stride[0]) * bytes;
        check_status(check, lt_conv(check->best, check->exec, &args, &error), &error);
    }
    check_same(check, whole, pieces, (size_t)lt_view_count(&out) * bytes,
               "frame by frame differs from the whole sequence");
}

/* The decoder's own case: bf16 activations, history, residual in place, sometimes two frames to
 * one. */
static void check_conv_bf16(struct check *check)
{
    struct lt_error error;
    const int64_t ci = check_int(check, 1, 40), co = check_int(check, 1, 40),
                  past = check_int(check, 0, 2);
    const int64_t step = check_int(check, 1, 2), to = check_int(check, 1, 3);
    const int64_t zeros = check_int(check, 0, 2 - past), t = (to - 1) * step + 3 - past - zeros;
    const int64_t y = check_int(check, 1, 20), x = check_int(check, 1, 12), count = to * y * x * co;
    float *bias = check_buffer(check, co), *want = check_buffer(check, count),
          *got = check_buffer(check, count);
    uint16_t *out[3], *add = check_weights(check, LT_TYPE_BF16, count, 1);
    check_fill(check, bias, co, 1);
    struct lt_conv_args args = {
        .out = lt_view_4d(NULL, LT_TYPE_BF16, to, y, x, co),
        .in = lt_view_4d(check_weights(check, LT_TYPE_BF16, t * y * x * ci, 1), LT_TYPE_BF16, t, y,
                         x, ci),
        .weight = lt_view_make(
            check_weights(check, LT_TYPE_F32, co * ci * 27, 1.0f / sqrtf(27.0f * (float)ci)),
            LT_TYPE_F32, 5, (int64_t[]){co, ci, 3, 3, 3}),
        .bias = lt_view_1d(bias, LT_TYPE_F32, co),
        .add = lt_view_4d(NULL, LT_TYPE_BF16, to, y, x, co),
        .stride_time = (int)step,
        .stride_space = 1,
        .pad_top = 1,
        .pad_bottom = 1,
        .pad_left = 1,
        .pad_right = 1};
    if (past)
        args.past = lt_view_4d(check_weights(check, LT_TYPE_BF16, past * y * x * ci, 1),
                               LT_TYPE_BF16, past, y, x, ci);
    snprintf(check->what, sizeof check->what,
             "bf16 %lld+%lldx%lldx%lldx%lld to %lld frames of %lld", (long long)past, (long long)t,
             (long long)y, (long long)x, (long long)ci, (long long)to, (long long)co);
    for (int i = 0; i < 3; i++) {
        out[i] = (uint16_t *)(void *)check_buffer(check, (count + 1) / 2);
        memcpy(out[i], add, (size_t)count * 2);
        args.out.data = args.add.data = out[i];
        check_status(check,
                     lt_conv(i ? check->best : check->ref, i == 2 ? check->other : check->exec,
                             &args, &error),
                     &error);
    }
    for (int64_t i = 0; i < count; i++) {
        want[i] = lt_bf16_to_f32(out[0][i]);
        got[i] = lt_bf16_to_f32(out[1][i]);
    }
    const struct check_bound bound = {
        1e-5, 1e-5, 0.0079, "sums that f32 orders differently may round to the next bf16"};
    check_close(check, got, want, count, bound);
    check_same(check, out[1], out[2], (size_t)count * 2, "bits depend on the number of threads");
    args.add.data = NULL;
    if (step == 1 && zeros == 2) { /* nothing before it: a whole sequence */
        args.out.data = out[1];
        check_status(check, lt_conv(check->best, check->exec, &args, &error), &error);
        check_conv_cut(check, args, out[1], out[2]);
    }
}

void check_conv(struct check *check)
{
    const bool causal = check_int(check, 0, 1), up = !causal && check_int(check, 0, 1);
    const int64_t ci = check_int(check, 1, 40), co = check_int(check, 1, 40), kt = causal ? 3 : 1;
    const int64_t k = check_int(check, 0, 3) ? 3 : 1, t = causal ? check_int(check, 1, 4) : 1;
    const int stride = !up && !causal && k == 3 ? (int)check_int(check, 1, 2) : 1;
    const int64_t y = 2 * check_int(check, 1, 20), x = 2 * check_int(check, 1, 12);
    const int64_t oy = (up ? 2 * y : y) / stride, ox = (up ? 2 * x : x) / stride;
    float *in = check_buffer(check, t * y * x * ci), *bias = check_buffer(check, co),
          *add = check_buffer(check, t * oy * ox * co);
    float *want = check_buffer(check, t * oy * ox * co),
          *got = check_buffer(check, t * oy * ox * co),
          *again = check_buffer(check, t * oy * ox * co);
    check_fill(check, in, t * y * x * ci, 1);
    check_fill(check, bias, co, 1);
    check_fill(check, add, t * oy * ox * co, 1);
    const int pad = (int)(k - 1) / 2;
    const int64_t weights = co * ci * kt * k * k;
    const enum lt_type type = check_int(check, 0, 1) ? LT_TYPE_F32 : LT_TYPE_BF16;
    struct lt_conv_args args = {
        .out = lt_view_4d(NULL, LT_TYPE_F32, t, oy, ox, co),
        .in = lt_view_4d(in, LT_TYPE_F32, t, y, x, ci),
        .weight = lt_view_make(
            check_weights(check, type, weights, 1.0f / sqrtf((float)(ci * kt * k * k))), type, 5,
            (int64_t[]){co, ci, kt, k, k}),
        .bias = lt_view_1d(check_int(check, 0, 1) ? bias : NULL, LT_TYPE_F32, co),
        .add = lt_view_4d(check_int(check, 0, 1) ? add : NULL, LT_TYPE_F32, t, oy, ox, co),
        .stride_time = 1,
        .stride_space = stride,
        .pad_top = stride == 2 ? 0 : pad,
        .pad_bottom = stride == 2 ? 1 : pad,
        .pad_left = stride == 2 ? 0 : pad,
        .pad_right = stride == 2 ? 1 : pad,
        .upsample = up,
        .exact = check_int(check, 0, 3) == 0,
    };
    snprintf(check->what, sizeof check->what,
             "%lldx%lldx%lldx%lld to %lld kernel %lldx%lld stride %d up %d", (long long)t,
             (long long)y, (long long)x, (long long)ci, (long long)co, (long long)kt, (long long)k,
             stride, up);
    const struct check_bound bound = {1e-10, 2e-5, 2e-5,
                                      "f32 sums of up to 1,080 products, inputs rounded alike"};
    RUN(conv, args, out, want, got, again, t * oy * ox * co, bound);
    if (causal && !args.add.data)
        check_conv_cut(check, args, got, again);
    if (check->bf16)
        check_conv_bf16(check);
}

/* Both shortcuts of the Wan 2.2 VAE: [1, y, x, ci] and [1, y·space, x·space, co] with whole groups.
 * `big` is the one with more pixels. */
struct shortcut_case {
    int64_t y, x, ci, co;
    int time, space, frame;
    bool accumulate;
};

static struct shortcut_case shortcut_case(struct check *check, bool down)
{
    struct shortcut_case c = {.y = check_int(check, 1, 9),
                              .x = check_int(check, 1, 9),
                              .time = (int)check_int(check, 1, 2),
                              .space = (int)check_int(check, 1, 2),
                              .accumulate = check_int(check, 0, 1)};
    const int64_t block = c.time * c.space * c.space, few = check_int(check, 1, 40);
    c.frame = (int)check_int(check, 0, c.time - 1);
    c.ci = c.co = few * block; /* a multiple either way: groups of block, one value or more */
    if (check_int(check, 0, 1))
        *(down ? &c.co : &c.ci) = few;
    else if (check_int(check, 0, 1))
        *(down ? &c.co : &c.ci) = few * block * (block > 1 ? 2 : 1) / (block > 1 ? block : 1);
    snprintf(check->what, sizeof check->what, "%lldx%lldx%lld to %lld time %d space %d frame %d",
             (long long)c.y, (long long)c.x, (long long)c.ci, (long long)c.co, c.time, c.space,
             c.frame);
    return c;
}

/* The output starts with the same values for all where it is added to. */
#define RUN_SHORTCUT(op, args_, count_, bound_)                                                    \
    do {                                                                                           \
        float *want_ = check_buffer(check, count_), *got_ = check_buffer(check, count_),           \
              *again_ = check_buffer(check, count_);                                               \
        if ((args_).accumulate) {                                                                  \
            check_fill(check, want_, count_, 1);                                                   \
            memcpy(got_, want_, (size_t)(count_) * sizeof *got_);                                  \
            memcpy(again_, want_, (size_t)(count_) * sizeof *got_);                                \
        }                                                                                          \
        RUN(op, args_, out, want_, got_, again_, count_, bound_);                                  \
    } while (0)

void check_avg_down(struct check *check)
{
    const struct shortcut_case c = shortcut_case(check, true);
    const int64_t in_count = c.y * c.x * c.space * c.space * c.ci;
    float *in = check_buffer(check, in_count);
    check_fill(check, in, in_count, 1);
    const struct lt_avg_down_args args = {
        .out = lt_view_4d(NULL, LT_TYPE_F32, 1, c.y, c.x, c.co),
        .in = lt_view_4d(in, LT_TYPE_F32, 1, c.y * c.space, c.x * c.space, c.ci),
        .time = c.time,
        .space = c.space,
        .frame = c.frame,
        .accumulate = c.accumulate};
    const struct check_bound bound = {1e-12, 1e-6, 1e-6, "f32 sums of a few values"};
    RUN_SHORTCUT(avg_down, args, c.y * c.x * c.co, bound);
}

void check_dup_up(struct check *check)
{
    const struct shortcut_case c = shortcut_case(check, false);
    const int64_t in_count = c.y * c.x * c.ci, count = c.y * c.x * c.space * c.space * c.co;
    float *in = check_buffer(check, in_count);
    check_fill(check, in, in_count, 1);
    const struct lt_dup_up_args args = {
        .out = lt_view_4d(NULL, LT_TYPE_F32, 1, c.y * c.space, c.x * c.space, c.co),
        .in = lt_view_4d(in, LT_TYPE_F32, 1, c.y, c.x, c.ci),
        .time = c.time,
        .space = c.space,
        .frame = c.frame,
        .accumulate = c.accumulate};
    RUN_SHORTCUT(dup_up, args, count, ((struct check_bound){0, 0, 0, "a copy, or one f32 sum"}));
}
