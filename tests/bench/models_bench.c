/* One model on this machine: load time beside a plain read of the file, seconds and GFLOP/s of a
 * forward beside the roof measured in the same run, and the memory it took.
 *
 *   models-bench dit FILE.gguf [--tokens 512] [--threads 2] [--repeat 3]
 *   models-bench vae-decode FILE.safetensors [--size 256 --latents 2] …
 *
 * Files come from `longtake-worker synth`: weights do not change the time. */
#include "common/clock.h"
#include "common/option.h"
#include "common/rng.h"
#include "tests/bench/roof.h"
#include "worker/model/dit.h"
#include "worker/model/vae.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

struct settings {
    const char *precision;
    int64_t tokens, threads, repeat, size, latents;
};

static const struct lt_option options[] = {
    LT_OPTION(struct settings, tokens, INT, "N", "512", .help = "of a dit: 512 or 1560"),
    LT_OPTION(struct settings, size, INT, "PIXELS", "256", .help = "of a VAE: width and height"),
    LT_OPTION(struct settings, latents, INT, "N", "2", .help = "of a VAE: latent frames"),
    LT_OPTION(struct settings, threads, INT, "N", "2", .max = 1024, .help = "of the ops"),
    LT_OPTION(struct settings, repeat, INT, "N", "3", .min = 1, .max = 1000,
              .help = "runs; the fastest counts"),
    LT_OPTION(struct settings, precision, TEXT, "P", "bf16", .choices = "f32|bf16",
              .help = "of GEMM inputs"),
};
static const struct lt_command command = {"models-bench",
                                          "dit|vae-decode FILE [options]",
                                          "Times one model.",
                                          NULL,
                                          options,
                                          LT_COUNT(options),
                                          2,
                                          2};

struct bench {
    const struct settings *settings;
    const char *path;
    struct tensor_file *file;
    struct store *store;
    struct lt_kernels kernels;
    struct lt_exec *exec;
    struct roof *roof;
    double read_seconds;
    uint64_t file_bytes;
};

static void must(lt_status status, const struct lt_error *error)
{
    if (status != LT_OK) {
        fprintf(stderr, "models-bench: %s\n", error->text);
        exit(1);
    }
}

/* The file through one buffer, as fast as the system gives it. */
static double read_plainly(const char *path, uint64_t *bytes_out)
{
    enum { BUFFER = 8 << 20 };
    char *buffer = malloc(BUFFER);
    const int fd = open(path, O_RDONLY);
    ssize_t got;
    lt_assert(buffer && fd >= 0);
    const int64_t begin = lt_clock_now_us();
    *bytes_out = 0;
    while ((got = read(fd, buffer, BUFFER)) > 0)
        *bytes_out += (uint64_t)got;
    const double seconds = (double)(lt_clock_now_us() - begin) * 1e-6;
    close(fd);
    free(buffer);
    return seconds;
}

static double peak_bytes(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss * 1024;
}

static void load(struct bench *b, store_filter *wanted, void *context)
{
    struct lt_error error;
    struct store_stats stats;
    b->read_seconds =
        read_plainly(b->path, &b->file_bytes); /* and once more to have it cached for both */
    b->read_seconds = read_plainly(b->path, &b->file_bytes);
    must(tensor_file_open(b->path, &b->file, &error), &error);
    must(store_load(b->file, wanted, context, &b->store, &error), &error);
    store_stats(b->store, &stats);
    printf(
        "load      %.2f s, plain read %.2f s (%.2f of it); %.0f MiB of weights, staging %.2f MiB\n",
        stats.load_seconds, b->read_seconds, stats.load_seconds / b->read_seconds,
        (double)stats.weight_bytes / 1048576, (double)stats.staging_peak_bytes / 1048576);
}

static float *normal(int64_t count, uint64_t seed)
{
    float *values = malloc((size_t)count * sizeof *values);
    const struct lt_philox stream = lt_philox_stream(seed, LT_STREAM_TEST, 3, 0);
    lt_assert(values);
    lt_philox_normal(&stream, 0, values, (size_t)count);
    return values;
}

static void print(struct bench *b, const char *what, double flops, double seconds, double roof)
{
    roof = fmax(roof, roof_gflops(b->roof));
    printf("%-9s %.2f s, %.2f TFLOP, %.0f GFLOP/s, %.1f %% of the roof of %.0f; peak RSS %.0f MiB, "
           "%.2f of the file\n",
           what, seconds, flops * 1e-12, flops / seconds * 1e-9,
           100 * flops / seconds * 1e-9 / roof, roof, peak_bytes() / 1048576,
           peak_bytes() / (double)b->file_bytes);
}

/* Products of a forward (dit.md 2): per block q, k, v, o and the feed-forward, q and o of cross
 * attention, and both attentions; keys and values of the text are kept from the first forward on.
 */
static double dit_flops(const struct dit_config *c, double tokens, double text)
{
    const double d = (double)c->dim, block = 2 * tokens * d * (6 * d + 2 * (double)c->ffn_dim) +
                                             4 * tokens * tokens * d + 4 * tokens * text * d;
    return (double)c->layer_count * block +
           2 * tokens * d * 4 * (double)(c->in_channels + c->out_channels);
}

static void bench_dit(struct bench *b)
{
    struct lt_error error;
    struct dit_config config;
    struct dit *dit;
    struct dit_context *context;
    const bool small = b->settings->tokens == 512;
    const int64_t f = small ? 2 : 1, h = small ? 32 : 60, w = small ? 32 : 104,
                  tokens = f * h * w / 4, text = 512;
    load(b, NULL, NULL);
    must(dit_config_detect(b->file, &config, &error), &error);
    must(dit_create(&config, b->store, &b->kernels, b->exec, &dit, &error), &error);
    float *x = normal(config.in_channels * f * h * w, 1), *rows = normal(text * config.text_dim, 2);
    float *out = normal(config.out_channels * f * h * w, 3);
    const struct dit_prompt prompt = {.text = lt_view_2d(rows, LT_TYPE_F32, text, config.text_dim)};
    must(dit_context_create(dit, &prompt, 1ull << 30, &context, &error), &error);
    const struct dit_inputs inputs = {.x = lt_view_4d(x, LT_TYPE_F32, config.in_channels, f, h, w),
                                      .timestep = 900,
                                      .context = context};
    struct lt_view v = lt_view_4d(out, LT_TYPE_F32, config.out_channels, f, h, w);
    const double roof = roof_gflops(b->roof);
    double best = INFINITY, first = 0;
    for (int64_t i = 0; i <= b->settings->repeat; i++) { /* the first also embeds the text */
        const int64_t begin = lt_clock_now_us();
        must(dit_forward(dit, &inputs, 1, &v, &error), &error);
        const double seconds = (double)(lt_clock_now_us() - begin) * 1e-6;
        first = i == 0 ? seconds : first;
        best = i == 0 ? best : fmin(best, seconds);
    }
    printf("tokens    %lld, first forward %.2f s\n", (long long)tokens, first);
    print(b, "forward", dit_flops(&config, (double)tokens, (double)text), best, roof);
    dit_context_destroy(&context);
    dit_destroy(&dit);
    free(x), free(rows), free(out);
}

static lt_status count_frame(void *context, int64_t index, const float *rgb, struct lt_error *error)
{
    (void)rgb, (void)error;
    *(int64_t *)context = index + 1;
    return LT_OK;
}

static void bench_vae(struct bench *b)
{
    struct lt_error error;
    struct vae *vae;
    enum vae_part part = VAE_DECODER;
    const int64_t side = b->settings->size / 8, latent_frames = b->settings->latents;
    int64_t frames = 0;
    load(b, vae_wants, &part);
    const double before = peak_bytes();
    must(vae_create(part, b->store, &b->kernels, b->exec, &vae, &error), &error);
    const int64_t z = vae_latent_channels(vae);
    float *x = normal(z * latent_frames * side * side, 4);
    const struct lt_view latents = lt_view_4d(x, LT_TYPE_F32, z, latent_frames, side, side);
    double best = INFINITY;
    for (int64_t i = 0; i < b->settings->repeat; i++) {
        const int64_t begin = lt_clock_now_us();
        must(vae_decode(vae, &latents, count_frame, &frames, NULL, &error), &error);
        best = fmin(best, (double)(lt_clock_now_us() - begin) * 1e-6);
    }
    printf("decode    %lld frames of %lldx%lld: %.2f s, %.3f s a frame; activations and history "
           "%.0f MiB, RSS grew %.0f MiB; "
           "roof %.0f GFLOP/s\n",
           (long long)frames, (long long)side * 8, (long long)side * 8, best, best / (double)frames,
           (double)vae_peak_bytes(vae) / 1048576, (peak_bytes() - before) / 1048576,
           roof_gflops(b->roof));
    vae_destroy(&vae);
    free(x);
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
    const bool bf16 = strcmp(settings.precision, "bf16") == 0;
    struct bench b = {.settings = &settings, .path = operands.item[1]};
    must(lt_kernels_select(&b.kernels, lt_caps_detect(), "best", &error), &error);
    must(lt_exec_create(&(struct lt_exec_params){(int)settings.threads,
                                                 bf16 ? LT_PRECISION_BF16 : LT_PRECISION_F32},
                        &b.exec, &error),
         &error);
    b.roof = roof_create(b.exec, bf16);
    strcmp(operands.item[0], "dit") == 0 ? bench_dit(&b) : bench_vae(&b);
    roof_destroy(&b.roof);
    lt_exec_destroy(&b.exec);
    store_destroy(&b.store);
    tensor_file_close(&b.file);
    lt_options_free(&command, &settings, &operands);
    return 0;
}
