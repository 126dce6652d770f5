/* Every op of the table: small, against the reference on the host; then larger and larger until a
 * call takes some milliseconds or memory ends, for its rate. The ceilings are this device's own:
 * a plain op for memory, one large product of bf16 for arithmetic. */
#include "worker/selftest.h"

#include "common/clock.h"
#include "common/rng.h"
#include "kernels/quant.h"
#include "kernels/scratch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TILE = 1 << 20, REPEATS = 5, ENOUGH_US = 2000, HEAD = 128 };

/* Rows and width of activations; whatever else an op has follows from them. */
static const struct size {
    int64_t rows, width;
} sizes[] = {{48, 256}, {512, 1024}, {4096, 5120}, {32768, 5120}};

struct trial {
    const struct lt_kernels *kernels;
    struct lt_exec *exec;
    struct device *device; /* NULL: the reference, which takes scratch as it needs it */
    int64_t rows, width;
    unsigned repeat;
    struct lt_arena arena;
    uint32_t drawn;
    struct lt_view out;
    double bytes, flops; /* of one call */
    int64_t us;          /* of `repeat` calls */
};

/* -- what the cases are made with -------------------------------------------------------------- */

static lt_status take(struct trial *t, size_t bytes, void **data_out, struct lt_error *error)
{
    *data_out = lt_arena_take(&t->arena, bytes);
    return *data_out ? LT_OK
                     : lt_fail(error, LT_NO_DEVICE_MEMORY, "no memory for %zu bytes", bytes);
}

/* One tile, over and over: large ones would take longer to draw than to use. */
static lt_status fill(struct trial *t, char *to, const void *tile, size_t tile_bytes, size_t bytes,
                      struct lt_error *error)
{
    for (size_t done = 0; done < bytes; done += tile_bytes) {
        const size_t left = bytes - done, part = left < tile_bytes ? left : tile_bytes;
        LT_TRY(lt_exec_upload(t->exec, to + done, tile, part, error));
    }
    return LT_OK;
}

/* `count` normal values of any type, where ops are. */
static lt_status values(struct trial *t, enum lt_type type, int64_t count, float scale,
                        void **data_out, struct lt_error *error)
{
    const int64_t drawn = count < TILE ? count : TILE;
    const struct lt_philox stream = lt_philox_stream(1, LT_STREAM_TEST, 2, t->drawn++);
    uint64_t bytes = 0, tile_bytes = 0;
    lt_assert(lt_type_bytes(type, (uint64_t)count, &bytes) &&
              lt_type_bytes(type, (uint64_t)drawn, &tile_bytes));
    LT_TRY(take(t, (size_t)bytes, data_out, error));
    float *drawing = malloc((size_t)drawn * sizeof *drawing);
    void *tile = malloc((size_t)tile_bytes);
    lt_status status =
        drawing && tile ? LT_OK : lt_fail(error, LT_NO_MEMORY, "no memory for a tile of values");
    if (status == LT_OK) {
        lt_philox_normal(&stream, 0, drawing, (size_t)drawn);
        for (int64_t i = 0; i < drawn; i++)
            drawing[i] *= scale;
        status = lt_quantize_row(type, drawing, tile, drawn, error);
    }
    if (status == LT_OK)
        status = fill(t, *data_out, tile, (size_t)tile_bytes, (size_t)bytes, error);
    free(drawing);
    free(tile);
    return status;
}

static lt_status draw(struct trial *t, struct lt_view *view, float scale, struct lt_error *error)
{
    return values(t, view->type, lt_view_count(view), scale, &view->data, error);
}

/* Room for the result, f32. */
static lt_status room(struct trial *t, struct lt_view *view, struct lt_error *error)
{
    LT_TRY(take(t, (size_t)lt_view_count(view) * sizeof(float), &view->data, error));
    t->out = *view;
    return LT_OK;
}

static lt_status plan(struct trial *t, lt_status status, const struct lt_scratch *scratch,
                      struct lt_error *error)
{
    LT_TRY(status);
    return t->device
               ? device_set_scratch(t->device, device_scratch_bytes(t->device, scratch, 1), error)
               : LT_OK;
}

/* Waits for what is queued. */
static lt_status settle(struct trial *t, struct lt_error *error)
{
    float value;
    return lt_exec_is_host(t->exec)
               ? LT_OK
               : lt_exec_download(t->exec, &value, t->out.data, sizeof value, error);
}

/* The call, and `repeat` more on the clock. */
#define RUN(op, ...)                                                                               \
    do {                                                                                           \
        const struct lt_##op##_args args_ = {__VA_ARGS__};                                         \
        LT_TRY(lt_##op(t->kernels, t->exec, &args_, error));                                       \
        LT_TRY(settle(t, error));                                                                  \
        const int64_t begin_ = lt_clock_now_us();                                                  \
        for (unsigned i_ = 0; i_ < t->repeat; i_++)                                                \
            LT_TRY(lt_##op(t->kernels, t->exec, &args_, error));                                   \
        LT_TRY(settle(t, error));                                                                  \
        t->us = lt_clock_now_us() - begin_;                                                        \
        return LT_OK;                                                                              \
    } while (0)

#define VIEW(...)                                                                                  \
    lt_view_make(NULL, LT_TYPE_F32, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),     \
                 (int64_t[]){__VA_ARGS__})

/* -- cases ------------------------------------------------------------------------------------- */

static lt_status run_convert(struct trial *t, struct lt_error *error)
{
    struct lt_view out = VIEW(t->rows, t->width), in = out;
    in = lt_view_2d(NULL, LT_TYPE_Q5_K, t->rows, t->width);
    LT_TRY(draw(t, &in, 1, error));
    LT_TRY(room(t, &out, error));
    t->bytes = (double)lt_view_count(&out) * (4 + 176.0 / 256);
    RUN(convert, .out = out, .in = in);
}

static lt_status run_product(struct trial *t, enum lt_type type, struct lt_error *error)
{
    const int64_t rows = t->rows, k = t->width, n = t->width;
    struct lt_view out = VIEW(rows, n), in = VIEW(rows, k), bias = VIEW(n);
    struct lt_view weight = lt_view_2d(NULL, type, n, k);
    struct lt_scratch scratch;
    LT_TRY(plan(t,
                lt_scratch_linear(lt_exec_precision(t->exec), rows, k, n, false, &scratch, error),
                &scratch, error));
    LT_TRY(draw(t, &in, 1, error));
    LT_TRY(draw(t, &weight, 1 / sqrtf((float)k), error));
    LT_TRY(draw(t, &bias, 1, error));
    LT_TRY(room(t, &out, error));
    t->flops = 2.0 * (double)rows * (double)k * (double)n;
    RUN(linear, .out = out, .in = in, .weight = weight, .bias = bias);
}

static lt_status run_linear(struct trial *t, struct lt_error *error)
{
    return run_product(t, LT_TYPE_Q8_0, error);
}

/* Nothing to dequantise: the product alone. */
static lt_status run_ceiling(struct trial *t, struct lt_error *error)
{
    return run_product(t, LT_TYPE_BF16, error);
}

static lt_status run_low_rank(struct trial *t, struct lt_error *error)
{
    enum { RANK = 32 };
    const int64_t rows = t->rows, k = t->width;
    const int64_t fit = (4 << 20) / (RANK * 4), some = rows < fit ? rows : fit;
    struct lt_view out = VIEW(rows, k), in = out, hidden = VIEW(some, RANK), scale = VIEW(RANK);
    struct lt_view a = lt_view_2d(NULL, LT_TYPE_F16, RANK, k),
                   b = lt_view_2d(NULL, LT_TYPE_F16, k, RANK);
    struct lt_scratch scratch, second;
    const enum lt_precision precision = lt_exec_precision(t->exec);
    LT_TRY(lt_scratch_linear(precision, some, k, RANK, false, &scratch, error));
    LT_TRY(lt_scratch_linear(precision, some, RANK, k, false, &second, error));
    lt_scratch_join(&scratch, &second);
    LT_TRY(plan(t, LT_OK, &scratch, error));
    LT_TRY(draw(t, &in, 1, error));
    LT_TRY(draw(t, &a, 1 / sqrtf((float)k), error));
    LT_TRY(draw(t, &b, 0.2f, error));
    LT_TRY(draw(t, &scale, 1, error));
    LT_TRY(draw(t, &out, 1, error));
    t->out = out;
    LT_TRY(take(t, (size_t)lt_view_count(&hidden) * sizeof(float), &hidden.data, error));
    t->bytes = (double)(3 * rows * k) * sizeof(float);
    RUN(low_rank, .out = out, .in = in, .a = a, .b = b, .scale = scale, .hidden = hidden);
}

static lt_status run_layer_norm(struct trial *t, struct lt_error *error)
{
    struct lt_view out = VIEW(t->rows, t->width), in = out, scale = VIEW(1, t->width),
                   shift = scale;
    LT_TRY(draw(t, &in, 1, error));
    LT_TRY(draw(t, &scale, 0.2f, error));
    LT_TRY(draw(t, &shift, 1, error));
    LT_TRY(room(t, &out, error));
    t->bytes = (double)(2 * t->rows * t->width) * sizeof(float);
    RUN(layer_norm, .out = out, .in = in, .scale = scale, .shift = shift, .epsilon = 1e-6f);
}

static lt_status run_rms_norm(struct trial *t, struct lt_error *error)
{
    struct lt_view out = VIEW(t->rows, t->width), in = out, weight = VIEW(t->width),
                   time = VIEW(t->rows, 22, 2), row = VIEW(1, 21, 2), column = row;
    LT_TRY(draw(t, &in, 1, error));
    LT_TRY(draw(t, &weight, 1, error));
    LT_TRY(draw(t, &time, 1, error));
    LT_TRY(draw(t, &row, 1, error));
    LT_TRY(draw(t, &column, 1, error));
    LT_TRY(room(t, &out, error));
    t->bytes = (double)(2 * t->rows * t->width) * sizeof(float);
    RUN(rms_norm, .out = out, .in = in, .weight = weight, .epsilon = 1e-6f, .head_width = HEAD,
        .time = time, .row = row, .column = column);
}

static lt_status run_gated_add(struct trial *t, struct lt_error *error)
{
    struct lt_view out = VIEW(t->rows, t->width), in = out, residual = out,
                   gate = VIEW(1, t->width);
    LT_TRY(draw(t, &in, 1, error));
    LT_TRY(draw(t, &residual, 1, error));
    LT_TRY(draw(t, &gate, 1, error));
    LT_TRY(room(t, &out, error));
    t->bytes = (double)(3 * t->rows * t->width) * sizeof(float);
    RUN(gated_add, .out = out, .residual = residual, .in = in, .gate = gate);
}

static lt_status run_multiply(struct trial *t, struct lt_error *error)
{
    struct lt_view out = VIEW(t->rows, t->width), a = out, b = out;
    LT_TRY(draw(t, &a, 1, error));
    LT_TRY(draw(t, &b, 1, error));
    LT_TRY(room(t, &out, error));
    t->bytes = (double)(3 * t->rows * t->width) * sizeof(float);
    RUN(multiply, .out = out, .a = a, .b = b);
}

static lt_status run_scale(struct trial *t, struct lt_error *error)
{
    struct lt_view out = VIEW(t->rows, t->width), in = out;
    LT_TRY(draw(t, &in, 1, error));
    LT_TRY(room(t, &out, error));
    t->bytes = (double)(2 * t->rows * t->width) * sizeof(float);
    RUN(scale, .out = out, .in = in, .factor = 0.7);
}

static lt_status run_activate(struct trial *t, struct lt_error *error)
{
    struct lt_view out = VIEW(t->rows, t->width), in = out;
    LT_TRY(draw(t, &in, 1, error));
    LT_TRY(room(t, &out, error));
    t->bytes = (double)(2 * t->rows * t->width) * sizeof(float);
    RUN(activate, .out = out, .in = in, .activation = LT_ACTIVATION_GELU_TANH);
}

static lt_status run_attention(struct trial *t, struct lt_error *error)
{
    const int64_t rows = t->rows, heads = t->width / HEAD;
    struct lt_view out = VIEW(rows, heads, HEAD), q = out, k = out, v = out;
    struct lt_scratch scratch;
    LT_TRY(plan(
        t, lt_scratch_attention(lt_exec_precision(t->exec), rows, heads, HEAD, &scratch, error),
        &scratch, error));
    LT_TRY(draw(t, &q, 1, error));
    LT_TRY(draw(t, &k, 1, error));
    LT_TRY(draw(t, &v, 1, error));
    LT_TRY(room(t, &out, error));
    t->flops = 4.0 * (double)rows * (double)rows * (double)t->width;
    RUN(attention, .out = out, .q = q, .k = k, .v = v, .scale = 0.08838834764f);
}

static lt_status run_patchify(struct trial *t, struct lt_error *error)
{
    struct lt_view out = VIEW(t->rows, 64), in = VIEW(16, 1, 4, t->rows);
    LT_TRY(draw(t, &in, 1, error));
    LT_TRY(room(t, &out, error));
    t->bytes = (double)(2 * t->rows * 64) * sizeof(float);
    RUN(patchify, .out = out, .in = in);
}

static lt_status run_unpatchify(struct trial *t, struct lt_error *error)
{
    struct lt_view in = VIEW(t->rows, 64), out = VIEW(16, 1, 4, t->rows);
    LT_TRY(draw(t, &in, 1, error));
    LT_TRY(room(t, &out, error));
    t->bytes = (double)(2 * t->rows * 64) * sizeof(float);
    RUN(unpatchify, .out = out, .in = in);
}

static lt_status run_conv(struct trial *t, struct lt_error *error)
{
    const int64_t columns = t->rows / 8, c = t->width / 16;
    struct lt_view out = VIEW(3, 8, columns, c), in = out, weight = VIEW(c, c, 3, 3, 3),
                   bias = VIEW(c);
    struct lt_conv_args args = {.out = out,
                                .in = in,
                                .weight = weight,
                                .bias = bias,
                                .stride_time = 1,
                                .stride_space = 1,
                                .pad_top = 1,
                                .pad_bottom = 1,
                                .pad_left = 1,
                                .pad_right = 1};
    struct lt_scratch scratch;
    LT_TRY(plan(t, lt_scratch_conv_of(lt_exec_precision(t->exec), &args, &scratch, error), &scratch,
                error));
    LT_TRY(draw(t, &args.in, 1, error));
    LT_TRY(draw(t, &args.weight, 1 / sqrtf((float)(27 * c)), error));
    LT_TRY(draw(t, &args.bias, 1, error));
    LT_TRY(room(t, &args.out, error));
    t->flops = 2.0 * 24 * (double)columns * 27 * (double)(c * c);
    RUN(conv, .out = args.out, .in = args.in, .weight = args.weight, .bias = args.bias,
        .stride_time = 1, .stride_space = 1, .pad_top = 1, .pad_bottom = 1, .pad_left = 1,
        .pad_right = 1);
}

static lt_status run_channel_norm(struct trial *t, struct lt_error *error)
{
    struct lt_view out = VIEW(t->rows, t->width), in = out, gamma = VIEW(t->width);
    LT_TRY(draw(t, &in, 1, error));
    LT_TRY(draw(t, &gamma, 1, error));
    LT_TRY(room(t, &out, error));
    t->bytes = (double)(2 * t->rows * t->width) * sizeof(float);
    RUN(channel_norm, .out = out, .in = in, .gamma = gamma, .activation = LT_ACTIVATION_SILU);
}

static lt_status run_nag(struct trial *t, struct lt_error *error)
{
    struct lt_view out = VIEW(t->rows, t->width), positive = out, negative = out;
    LT_TRY(draw(t, &positive, 1, error));
    LT_TRY(draw(t, &negative, 1, error));
    LT_TRY(room(t, &out, error));
    t->bytes = (double)(3 * t->rows * t->width) * sizeof(float);
    RUN(nag, .out = out, .positive = positive, .negative = negative, .scale = 5, .tau = 2.5f,
        .alpha = 0.25f);
}

static lt_status run_rotate(struct trial *t, struct lt_error *error)
{
    struct lt_view out = VIEW(t->rows, t->width / HEAD, HEAD), in = out, position = VIEW(t->rows);
    LT_TRY(draw(t, &in, 1, error));
    LT_TRY(draw(t, &position, 10, error));
    LT_TRY(room(t, &out, error));
    t->bytes = (double)(2 * t->rows * t->width) * sizeof(float);
    RUN(rotate, .out = out, .in = in, .position = position);
}

/* Two speakers and nobody. */
static lt_status run_route(struct trial *t, struct lt_error *error)
{
    struct lt_view looks = VIEW(t->rows, t->width / HEAD, HEAD), maps = VIEW(3, t->rows),
                   range = VIEW(2, 2), size = VIEW(3), first = VIEW(3), position = VIEW(t->rows);
    LT_TRY(draw(t, &looks, 1, error));
    LT_TRY(draw(t, &size, 1, error));
    LT_TRY(draw(t, &first, 10, error));
    LT_TRY(room(t, &maps, error));
    LT_TRY(room(t, &range, error));
    LT_TRY(room(t, &position, error));
    /* three values of each head are a sector of 32 bytes */
    t->bytes = (double)(8 * t->rows * looks.dim[1] + 6 * t->rows) * sizeof(float);
    RUN(route, .position = position, .maps = maps, .range = range, .looks = looks, .size = size,
        .first = first, .width = 4);
}

static lt_status run_blur(struct trial *t, struct lt_error *error)
{
    const int64_t columns = t->rows / 8;
    struct lt_view out = VIEW(1, 9, columns + 1, t->width), in = VIEW(1, 8, columns, t->width);
    LT_TRY(draw(t, &in, 1, error));
    LT_TRY(room(t, &out, error));
    t->bytes = (double)(lt_view_count(&in) + lt_view_count(&out)) * sizeof(float);
    RUN(blur, .out = out, .in = in, .pad = 2, .stride = 1);
}

static lt_status run_avg_down(struct trial *t, struct lt_error *error)
{
    const int64_t columns = t->rows / 8;
    struct lt_view out = VIEW(1, 4, columns / 2, t->width), in = VIEW(1, 8, columns, t->width);
    LT_TRY(draw(t, &in, 1, error));
    LT_TRY(room(t, &out, error));
    t->bytes = (double)(lt_view_count(&in) + lt_view_count(&out)) * sizeof(float);
    RUN(avg_down, .out = out, .in = in, .time = 1, .space = 2);
}

static lt_status run_dup_up(struct trial *t, struct lt_error *error)
{
    const int64_t columns = t->rows / 8;
    struct lt_view out = VIEW(1, 16, 2 * columns, t->width / 4), in = VIEW(1, 8, columns, t->width);
    LT_TRY(draw(t, &in, 1, error));
    LT_TRY(room(t, &out, error));
    t->bytes = (double)(lt_view_count(&in) + lt_view_count(&out)) * sizeof(float);
    RUN(dup_up, .out = out, .in = in, .time = 1, .space = 2);
}

typedef lt_status trial_run(struct trial *trial, struct lt_error *error);

/* Bounds: sums of f32 in another order, or inputs rounded to bf16 alike on both sides; attention
 * also rounds its probabilities (2^-9). */
static const struct op_case {
    const char *op;
    trial_run *run;
    double f32_bound, bf16_bound; /* bf16_bound 0: precision does not matter */
} cases[] = {
    {"convert", run_convert, 1e-6, 0},
    {"linear", run_linear, 1e-5, 1e-4},
    {"low_rank", run_low_rank, 1e-5, 1e-3},
    {"layer_norm", run_layer_norm, 1e-5, 0},
    {"rms_norm", run_rms_norm, 1e-5, 0},
    {"gated_add", run_gated_add, 1e-6, 0},
    {"multiply", run_multiply, 1e-6, 0},
    {"scale", run_scale, 1e-6, 0},
    {"activate", run_activate, 1e-5, 0},
    {"attention", run_attention, 1e-5, 5e-3},
    {"patchify", run_patchify, 1e-7, 0},
    {"unpatchify", run_unpatchify, 1e-7, 0},
    {"conv", run_conv, 1e-5, 1e-4},
    {"channel_norm", run_channel_norm, 1e-5, 0},
    {"nag", run_nag, 1e-5, 0},
    {"rotate", run_rotate, 1e-5, 0},
    {"route", run_route, 1e-6, 0},
    {"blur", run_blur, 1e-6, 0},
    {"avg_down", run_avg_down, 1e-6, 0},
    {"dup_up", run_dup_up, 1e-6, 0},
};

/* -- running them ------------------------------------------------------------------------------ */

/* The trial at one size; its result in RAM (malloc'ed) where `result_out` is given. */
static lt_status try_size(struct trial *t, trial_run *run, const struct size *size, unsigned repeat,
                          float **result_out, struct lt_error *error)
{
    t->rows = size->rows;
    t->width = size->width;
    t->repeat = repeat;
    t->drawn = 0;
    t->bytes = t->flops = 0;
    if (t->device)
        LT_TRY(device_bind(t->device, error)); /* broken: in its own words */
    lt_exec_arena_init(t->exec, &t->arena);
    lt_status status = run(t, error);
    if (status == LT_OK && result_out) {
        const size_t bytes = (size_t)lt_view_count(&t->out) * sizeof(float);
        *result_out = malloc(bytes);
        status = *result_out ? lt_exec_download(t->exec, *result_out, t->out.data, bytes, error)
                             : lt_fail(error, LT_NO_MEMORY, "no memory for a result");
    }
    lt_arena_fini(&t->arena);
    return status;
}

/* How fast, at the largest size that is worth it. */
static lt_status measure(struct trial *t, trial_run *run, bool quick, struct selftest_row *row,
                         double memory, double compute, struct lt_error *error)
{
    for (size_t s = 0; s < LT_COUNT(sizes); s++) {
        const lt_status status = try_size(t, run, &sizes[s], REPEATS, NULL, error);
        if (status == LT_NO_DEVICE_MEMORY && s > 0)
            break;
        LT_TRY(status);
        const double seconds = (double)(t->us > 0 ? t->us : 1) * 1e-6 / REPEATS;
        row->rate = t->flops > 0 ? t->flops / seconds * 1e-12 : t->bytes / seconds * 1e-9;
        row->unit = t->flops > 0 ? "TFLOP/s" : "GB/s";
        row->share = t->flops > 0 ? (compute > 0 ? row->rate / compute : 0)
                                  : (memory > 0 ? row->rate / memory : 0);
        snprintf(row->note, sizeof row->note, "%lld x %lld", (long long)t->rows,
                 (long long)t->width);
        if (quick || t->us > REPEATS * ENOUGH_US)
            break;
    }
    return LT_OK;
}

static struct trial on_device(struct selftest *test, enum lt_precision precision)
{
    return (struct trial){
        .kernels = &test->kernels, .exec = test->exec[precision], .device = test->device};
}

static double measure_ceiling(struct selftest *test, const char *name, trial_run *run)
{
    struct lt_error error;
    struct trial trial = on_device(test, LT_PRECISION_BF16);
    struct selftest_row *row = selftest_row(test, "ceiling", name);
    if (measure(&trial, run, test->quick, row, 0, 0, &error) != LT_OK) {
        row->failed = true;
        snprintf(row->note, sizeof row->note, "%.190s", error.text);
    }
    return row->rate;
}

static void check_op(struct selftest *test, const struct op_case *op, enum lt_precision precision)
{
    struct lt_error error;
    float *want = NULL, *got = NULL;
    struct trial reference = {.kernels = &test->reference, .exec = test->host[precision]};
    struct trial trial = on_device(test, precision);
    char name[40];
    snprintf(name, sizeof name, "%s%s", op->op,
             op->bf16_bound == 0              ? ""
             : precision == LT_PRECISION_BF16 ? " bf16"
                                              : " f32");
    struct selftest_row *row = selftest_row(test, "op", name);
    lt_status status = try_size(&reference, op->run, &sizes[0], 0, &want, &error);
    if (status == LT_OK)
        status = try_size(&trial, op->run, &sizes[0], 0, &got, &error);
    if (status == LT_OK) {
        selftest_compare(row, got, want, (size_t)lt_view_count(&trial.out),
                         precision == LT_PRECISION_BF16 && op->bf16_bound > 0 ? op->bf16_bound
                                                                              : op->f32_bound);
        /* f32 products have another ceiling */
        status = measure(&trial, op->run, test->quick, row, test->memory_rate,
                         precision == LT_PRECISION_BF16 ? test->compute_rate : 0, &error);
    }
    if (status != LT_OK) {
        row->failed = true;
        snprintf(row->note, sizeof row->note, "%.190s", error.text);
    }
    free(want);
    free(got);
}

static const struct op_case *find_case(const char *op)
{
    for (size_t i = 0; i < LT_COUNT(cases); i++)
        if (strcmp(cases[i].op, op) == 0)
            return &cases[i];
    return NULL;
}

void selftest_ops(struct selftest *test)
{
    static const char *const ops[] = {
#define NAME(op) #op,
        LT_KERNEL_LIST(NAME)
#undef NAME
    };
    test->memory_rate = measure_ceiling(test, "memory", run_multiply);
    test->compute_rate = measure_ceiling(test, "products of bf16", run_ceiling);
    for (size_t i = 0; i < LT_COUNT(ops); i++) {
        const struct op_case *op = find_case(ops[i]);
        if (!op) {
            struct selftest_row *row = selftest_row(test, "op", ops[i]);
            row->failed = true;
            snprintf(row->note, sizeof row->note, "has no case here");
            continue;
        }
        check_op(test, op, LT_PRECISION_F32);
        if (op->bf16_bound > 0)
            check_op(test, op, LT_PRECISION_BF16);
        selftest_print(test);
    }
}
