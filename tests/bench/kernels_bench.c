/* How fast the ops of this machine are, beside a roof measured in the same run: products (linear,
 * attention, conv) against square oneDNN products on every thread at once, row ops as bytes moved.
 *
 *   kernels-bench [--filter OP] [--threads N] [--precision bf16|f32] [--kernel SELECTOR] [--seconds
 * S]
 *
 * Every case is run until S seconds are over, at least three times, with the roof measured before
 * and after it: the figure is the fastest run, for the machine may be shared. */
#include "common/clock.h"
#include "common/option.h"
#include "common/rng.h"
#include "kernels/exec.h"
#include "kernels/kernels.h"
#include "kernels/quant.h"
#include "tests/bench/roof.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct settings {
    const char *filter, *precision, *kernel;
    int64_t threads;
    double seconds;
};

static const struct lt_option options[] = {
    LT_OPTION(struct settings, filter, TEXT, "OP", NULL, .help = "bench this op only"),
    LT_OPTION(struct settings, threads, INT, "N", "0", .max = 1024, .help = "0: one per processor"),
    LT_OPTION(struct settings, precision, TEXT, "P", "bf16", .choices = "f32|bf16",
              .help = "of GEMM inputs"),
    LT_OPTION(struct settings, kernel, TEXT, "SELECTOR", "best", .help = "as of lt_kernels_select"),
    LT_OPTION(struct settings, seconds, REAL, "S", "0.5", .min = 0, .max = 3600,
              .help = "spent on a case"),
};
static const struct lt_command command = {"kernels-bench",
                                          "[options]",
                                          "Prints GFLOP/s and GB/s of the ops.",
                                          NULL,
                                          options,
                                          LT_COUNT(options),
                                          0,
                                          0};

struct bench {
    const struct settings *settings;
    struct lt_kernels kernels;
    struct lt_exec *exec;
    struct roof *roof;
};

static void must(lt_status status, const struct lt_error *error)
{
    if (status != LT_OK) {
        fprintf(stderr, "kernels-bench: %s\n", error->text);
        exit(1);
    }
}

static void *take(size_t bytes)
{
    void *data = aligned_alloc(64, (bytes + 63) / 64 * 64);
    lt_assert(data);
    return data;
}

static float *normal(int64_t count, float scale)
{
    static uint32_t number;
    float *data = take((size_t)count * sizeof *data);
    const struct lt_philox stream = lt_philox_stream(1, LT_STREAM_TEST, 2, number++);
    lt_philox_normal(&stream, 0, data, (size_t)count);
    for (int64_t i = 0; i < count; i++)
        data[i] *= scale;
    return data;
}

/* -- cases ------------------------------------------------------------------------------------- */

/* Runs an op for the time of a case; gives the fastest run in microseconds. */
#define FASTEST(bench, op, args, us_out)                                                           \
    do {                                                                                           \
        struct lt_error error_;                                                                    \
        const int64_t first_ = lt_clock_now_us();                                                  \
        (us_out) = INFINITY;                                                                       \
        for (int run_ = 0;                                                                         \
             run_ < 3 || (double)(lt_clock_now_us() - first_) < (bench)->settings->seconds * 1e6;  \
             run_++) {                                                                             \
            const int64_t begin_ = lt_clock_now_us();                                              \
            must(lt_##op(&(bench)->kernels, (bench)->exec, args, &error_), &error_);               \
            (us_out) = fmin(us_out, (double)(lt_clock_now_us() - begin_));                         \
        }                                                                                          \
    } while (0)

static void print_flops(struct bench *bench, const char *what, double flops, double us, double roof)
{
    roof = fmax(roof, roof_gflops(bench->roof));
    printf("%-52s %10.2f ms %8.1f GFLOP/s %6.1f %% of %.0f\n", what, us / 1e3, flops / us / 1e3,
           100 * flops / us / 1e3 / roof, roof);
    fflush(stdout);
}

static void print_bytes(const char *what, double bytes, double us)
{
    printf("%-52s %10.2f ms %8.2f GB/s\n", what, us / 1e3, bytes / us / 1e3);
    fflush(stdout);
}

static void bench_linear_case(struct bench *bench, enum lt_type type, const float *values,
                              int64_t m, int64_t k, int64_t n)
{
    char what[96];
    struct lt_error error;
    uint64_t bytes = 0;
    lt_type_bytes(type, (uint64_t)(n * k), &bytes);
    void *weight = take(bytes);
    must(lt_quantize_row(type, values, weight, n * k, &error), &error);
    float *in = normal(m * k, 1), *out = take((size_t)(m * n) * 4), *bias = normal(n, 1);
    const struct lt_linear_args args = {.out = lt_view_2d(out, LT_TYPE_F32, m, n),
                                        .in = lt_view_2d(in, LT_TYPE_F32, m, k),
                                        .weight = lt_view_2d(weight, type, n, k),
                                        .bias = lt_view_1d(bias, LT_TYPE_F32, n)};
    double us;
    const double roof = roof_gflops(bench->roof);
    FASTEST(bench, linear, &args, us);
    snprintf(what, sizeof what, "linear %-5s M %lld K %lld N %lld", lt_type_info(type)->name,
             (long long)m, (long long)k, (long long)n);
    print_flops(bench, what, 2.0 * (double)m * (double)k * (double)n, us, roof);
    free(weight);
    free(in);
    free(out);
    free(bias);
}

/* The products of a block of T2V-1.3B: attention projections, and both of the feed-forward. */
static void bench_linear(struct bench *bench)
{
    static const enum lt_type types[] = {LT_TYPE_F16, LT_TYPE_Q8_0, LT_TYPE_Q5_K, LT_TYPE_Q4_K,
                                         LT_TYPE_Q6_K};
    static const int64_t rows[] = {1, 512, 1560},
                         shape[][2] = {{1536, 1536}, {1536, 8960}, {8960, 1536}};
    for (size_t s = 0; s < LT_COUNT(shape); s++) {
        float *values = normal(shape[s][0] * shape[s][1], 0.02f);
        for (size_t m = 0; m < LT_COUNT(rows); m++)
            for (size_t t = 0; t < LT_COUNT(types); t++)
                bench_linear_case(bench, types[t], values, rows[m], shape[s][0], shape[s][1]);
        free(values);
    }
}

static void bench_attention(struct bench *bench)
{
    static const int64_t shape[][4] = {/* L, S, H, K */
                                       {1560, 1560, 12, 128},
                                       {4680, 4680, 12, 128},
                                       {1560, 512, 12, 128},
                                       {1560, 1560, 1, 384}};
    for (size_t i = 0; i < LT_COUNT(shape); i++) {
        const int64_t *s = shape[i], lq = s[0] * s[2] * s[3], sk = s[1] * s[2] * s[3];
        float *q = normal(lq, 1), *k = normal(sk, 1), *v = normal(sk, 1),
              *out = take((size_t)lq * 4);
        const struct lt_attention_args args = {.out =
                                                   lt_view_3d(out, LT_TYPE_F32, s[0], s[2], s[3]),
                                               .q = lt_view_3d(q, LT_TYPE_F32, s[0], s[2], s[3]),
                                               .k = lt_view_3d(k, LT_TYPE_F32, s[1], s[2], s[3]),
                                               .v = lt_view_3d(v, LT_TYPE_F32, s[1], s[2], s[3]),
                                               .scale = 1.0f / sqrtf((float)s[3])};
        char what[96];
        double us;
        const double roof = roof_gflops(bench->roof);
        FASTEST(bench, attention, &args, us);
        snprintf(what, sizeof what, "attention L %lld S %lld H %lld K %lld", (long long)s[0],
                 (long long)s[1], (long long)s[2], (long long)s[3]);
        print_flops(bench, what, 4.0 * (double)s[1] * (double)lq, us, roof);
        free(q);
        free(k);
        free(v);
        free(out);
    }
}

/* The places where the z16 decoder spends its time, one latent frame of 480p (encoders.md 3.3). */
static void bench_conv(struct bench *bench)
{
    static const struct {
        int64_t frames, rows, columns, ci, co, kt;
        bool upsample;
    } shape[] = {
        {1, 60, 104, 384, 384, 3, false},  {2, 120, 208, 384, 384, 3, false},
        {2, 240, 416, 192, 192, 3, false}, {1, 480, 832, 96, 96, 3, false},
        {1, 240, 416, 192, 96, 1, true},   {1, 120, 208, 384, 192, 1, true},
        {1, 480, 832, 96, 3, 3, false},
    };
    const enum lt_type type =
        lt_exec_precision(bench->exec) == LT_PRECISION_BF16 ? LT_TYPE_BF16 : LT_TYPE_F32;
    for (size_t i = 0; i < LT_COUNT(shape); i++) {
        const int64_t up = shape[i].upsample ? 2 : 1, rows = shape[i].rows,
                      columns = shape[i].columns;
        const int64_t plane = rows * columns * shape[i].ci,
                      out_plane = rows * columns * up * up * shape[i].co;
        const int64_t weights = shape[i].co * shape[i].ci * shape[i].kt * 9,
                      frames = shape[i].frames;
        float *weight = normal(weights, 0.02f), *bias = normal(shape[i].co, 1);
        const size_t bytes = type == LT_TYPE_F32 ? 4 : 2;
        void *in = take((size_t)((frames + 2) * plane) * bytes),
             *out = take((size_t)(frames * out_plane) * bytes);
        memset(in, 0, (size_t)((frames + 2) * plane) * bytes);
        struct lt_conv_args args = {
            .out = lt_view_4d(out, type, frames, rows * up, columns * up, shape[i].co),
            .in = lt_view_4d((char *)in + (size_t)(2 * plane) * bytes, type, frames, rows, columns,
                             shape[i].ci),
            .weight = lt_view_make(weight, LT_TYPE_F32, 5,
                                   (int64_t[]){shape[i].co, shape[i].ci, shape[i].kt, 3, 3}),
            .bias = lt_view_1d(bias, LT_TYPE_F32, shape[i].co),
            .stride_time = 1,
            .stride_space = 1,
            .pad_top = 1,
            .pad_bottom = 1,
            .pad_left = 1,
            .pad_right = 1,
            .upsample = shape[i].upsample};
        if (shape[i].kt > 1)
            args.past = lt_view_4d(in, type, 2, rows, columns, shape[i].ci);
        char what[96];
        double us;
        const double roof = roof_gflops(bench->roof);
        FASTEST(bench, conv, &args, us);
        snprintf(what, sizeof what, "conv %lldx%lldx%lld %lld to %lld, %lld taps%s",
                 (long long)frames, (long long)(rows * up), (long long)(columns * up),
                 (long long)shape[i].ci, (long long)shape[i].co, (long long)shape[i].kt,
                 shape[i].upsample ? ", x2" : "");
        print_flops(bench, what,
                    2.0 * (double)weights * (double)(frames * rows * columns * up * up), us, roof);
        printf("%-52s %10.1f MiB\n", "  scratch held",
               (double)lt_exec_scratch_bytes(bench->exec) / 1048576);
        free(weight);
        free(bias);
        free(in);
        free(out);
    }
}

static void bench_rows(struct bench *bench)
{
    enum { L = 1560, D = 1536 };
    const char *only = bench->settings->filter;
    float *in = normal(L * D, 1), *out = take(sizeof(float) * L * D), *vector = normal(D, 1),
          *shift = normal(D, 1);
    float *angle = normal(64 * 64 * 2, 1);
    const struct lt_view a = lt_view_2d(in, LT_TYPE_F32, L, D),
                         b = lt_view_2d(out, LT_TYPE_F32, L, D);
    const struct lt_view row = lt_view_2d(vector, LT_TYPE_F32, 1, D),
                         low = lt_view_2d(shift, LT_TYPE_F32, 1, D);
    const struct lt_layer_norm_args norm = {
        .out = b, .in = a, .scale = row, .shift = low, .epsilon = 1e-6f};
    const struct lt_rms_norm_args rms = {.out = b,
                                         .in = a,
                                         .weight = lt_view_1d(vector, LT_TYPE_F32, D),
                                         .epsilon = 1e-6f,
                                         .head_width = 128,
                                         .time = lt_view_3d(angle, LT_TYPE_F32, 1, 22, 2),
                                         .row = lt_view_3d(angle, LT_TYPE_F32, 30, 21, 2),
                                         .column = lt_view_3d(angle, LT_TYPE_F32, 52, 21, 2)};
    const struct lt_gated_add_args add = {.out = b, .residual = b, .in = a, .gate = row};
    const struct lt_activate_args gelu = {.out = b, .in = a, .activation = LT_ACTIVATION_GELU_TANH};
    const struct lt_view pixels = lt_view_2d(in, LT_TYPE_F32, L * D / 96, 96);
    const struct lt_view pixels_out = lt_view_2d(out, LT_TYPE_F32, L * D / 96, 96);
    const struct lt_channel_norm_args channel = {.out = pixels_out,
                                                 .in = pixels,
                                                 .gamma = lt_view_1d(vector, LT_TYPE_F32, 96),
                                                 .activation = LT_ACTIVATION_SILU};
    const struct lt_nag_args nag = {
        .out = b, .positive = b, .negative = a, .scale = 11, .tau = 2.5f, .alpha = 0.25f};
    const struct lt_blur_args blur = {.out = lt_view_4d(out, LT_TYPE_F32, 1, 256, 256, 32),
                                      .in = lt_view_4d(in, LT_TYPE_F32, 1, 255, 255, 32),
                                      .pad = 2,
                                      .stride = 1};
    const double bytes = 8.0 * L * D;
    double us;
    memset(out, 0, sizeof(float) * L * D);
#define ROWS(op, args, text, moved)                                                                \
    if (!only || strcmp(only, #op) == 0) {                                                         \
        FASTEST(bench, op, args, us);                                                              \
        print_bytes(text, moved, us);                                                              \
    }
    ROWS(layer_norm, &norm, "layer_norm, modulated, 1560 x 1536", bytes)
    ROWS(rms_norm, &rms, "rms_norm and rotation, 1560 x 1536", bytes)
    ROWS(gated_add, &add, "gated_add, 1560 x 1536", bytes * 1.5)
    ROWS(activate, &gelu, "activate gelu tanh, 1560 x 1536", bytes)
    ROWS(channel_norm, &channel, "channel_norm and silu, 24960 x 96", bytes)
    ROWS(nag, &nag, "nag, 1560 x 1536", bytes * 1.5)
    ROWS(blur, &blur, "blur, 256 x 256 x 32", 8.0 * 256 * 256 * 32)
#undef ROWS
    free(in);
    free(out);
    free(vector);
    free(shift);
    free(angle);
}

static void bench_convert(struct bench *bench)
{
#define NAME(name, id, values, block) LT_TYPE_##name,
    static const enum lt_type types[] = {LT_TYPE_LIST(NAME)};
#undef NAME
    enum { COUNT = 1536 * 1536 };
    float *values = normal(COUNT, 0.02f), *out = take(sizeof(float) * COUNT);
    for (size_t i = 0; i < LT_COUNT(types); i++) {
        struct lt_error error;
        uint64_t bytes = 0;
        char what[96];
        double us;
        lt_type_bytes(types[i], COUNT, &bytes);
        void *from = take(bytes);
        if (lt_quantize_row(types[i], values, from, COUNT, &error) == LT_OK) {
            const struct lt_convert_args args = {.out = lt_view_1d(out, LT_TYPE_BF16, COUNT),
                                                 .in = lt_view_1d(from, types[i], COUNT)};
            FASTEST(bench, convert, &args, us);
            snprintf(what, sizeof what, "convert %s to BF16, 2.36 M values",
                     lt_type_info(types[i])->name);
            print_bytes(what, (double)bytes + 2.0 * COUNT, us);
        }
        free(from);
    }
    free(values);
    free(out);
}

int main(int argc, char **argv)
{
    struct settings settings;
    struct lt_operands operands;
    struct lt_error error;
    bool help;
    must(lt_options_parse(&command, argc, argv, &settings, sizeof settings, &operands, &help,
                          &error),
         &error);
    if (help)
        return 0;
    struct bench bench = {.settings = &settings};
    const bool bf16 = strcmp(settings.precision, "bf16") == 0;
    const struct lt_exec_params params = {(int)settings.threads,
                                          bf16 ? LT_PRECISION_BF16 : LT_PRECISION_F32};
    must(lt_kernels_select(&bench.kernels, lt_caps_detect(), settings.kernel, &error), &error);
    must(lt_exec_create(&params, &bench.exec, &error), &error);
    bench.roof = roof_create(bench.exec, bf16);
    char caps[64];
    lt_caps_format(lt_caps_detect(), caps, sizeof caps);
    printf("%d threads, %s, %s; roof %.1f GFLOP/s\n", lt_exec_thread_count(bench.exec),
           settings.precision, caps, roof_gflops(bench.roof));
    const char *only = settings.filter;
    if (!only || strcmp(only, "linear") == 0)
        bench_linear(&bench);
    if (!only || strcmp(only, "attention") == 0)
        bench_attention(&bench);
    if (!only || strcmp(only, "conv") == 0)
        bench_conv(&bench);
    if (!only || strcmp(only, "convert") == 0)
        bench_convert(&bench);
    bench_rows(&bench);
    roof_destroy(&bench.roof);
    lt_exec_destroy(&bench.exec);
    lt_options_free(&command, &settings, &operands);
    return 0;
}
