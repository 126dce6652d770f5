/* What swapping costs a forward: a table over how many blocks swap, how many are fetched ahead, and
 * which, each beside the forward with everything resident, in one run on the host device.
 *
 *   swap-bench FILE.gguf [--tokens 512] [--copy-bandwidth 8GiB] [--disk]
 *
 * By default a block's copy takes as long as its compute: the edge at which prefetch can hide it.
 */
#include "common/clock.h"
#include "common/option.h"
#include "common/rng.h"
#include "worker/model/dit.h"

#include <stdio.h>
#include <stdlib.h>

struct settings {
    int64_t tokens, threads, repeat;
    uint64_t copy_bandwidth;
    bool disk;
};

static const struct lt_option options[] = {
    LT_OPTION(struct settings, tokens, INT, "N", "256", .min = 4, .help = "of the forward"),
    LT_OPTION(struct settings, threads, INT, "N", "1", .max = 1024,
              .help = "of the ops; the copy queue has its own"),
    LT_OPTION(struct settings, repeat, INT, "N", "2", .min = 1, .max = 100,
              .help = "forwards per line; the fastest counts"),
    LT_OPTION(struct settings, copy_bandwidth, SIZE, "SIZE", NULL,
              .help = "bytes a second; default: a copy takes as long as a block's compute"),
    LT_OPTION(struct settings, disk, FLAG, NULL, NULL, .help = "masters on disk, not in RAM"),
};
static const struct lt_command command = {"swap-bench",
                                          "FILE [options]",
                                          "Tables the stall of block swap.",
                                          NULL,
                                          options,
                                          LT_COUNT(options),
                                          1,
                                          1};

struct bench {
    const struct settings *settings;
    struct tensor_file *file;
    struct dit_config config;
    struct lt_kernels kernels;
    struct lt_exec *exec;
    float *x, *v, *text;
};

struct line {
    double seconds, stall_seconds;
    uint64_t copy_bytes;
};

static void must(lt_status status, const struct lt_error *error)
{
    if (status != LT_OK) {
        fprintf(stderr, "swap-bench: %s\n", error->text);
        exit(1);
    }
}

static float *normal(int64_t count, uint64_t seed)
{
    float *values = malloc((size_t)count * sizeof *values);
    const struct lt_philox stream = lt_philox_stream(seed, LT_STREAM_TEST, 5, 0);
    lt_assert(values);
    lt_philox_normal(&stream, 0, values, (size_t)count);
    return values;
}

/* The fastest of some forwards with this placement, the first one (cold) left out. */
static struct line measure(struct bench *b, struct store_params params, uint64_t bandwidth)
{
    struct lt_error error;
    struct store *store;
    struct dit *dit;
    struct dit_context *context;
    struct line best = {0};
    const int64_t tokens = b->settings->tokens;
    const struct device_params device_params = {.copy_bytes_per_second = bandwidth};
    must(device_create_host(&device_params, &params.device, &error), &error);
    must(store_open(b->file, NULL, NULL, &params, &store, &error), &error);
    must(store_finish_loading(store, &error), &error);
    must(dit_create(&b->config, store, &b->kernels, b->exec, &dit, &error), &error);
    const struct dit_prompt prompt = {.text =
                                          lt_view_2d(b->text, LT_TYPE_F32, 8, b->config.text_dim)};
    must(dit_context_create(dit, &prompt, 64 << 20, &context, &error), &error);
    const struct dit_inputs inputs = {
        .x = lt_view_4d(b->x, LT_TYPE_F32, b->config.out_channels, 1, 4, tokens),
        .timestep = 500,
        .context = context};
    struct lt_view v = inputs.x;
    v.data = b->v;
    for (int64_t i = 0; i <= b->settings->repeat; i++) {
        struct store_stats before, after;
        store_stats(store, &before);
        const int64_t start = lt_clock_now_us();
        must(dit_forward(dit, &inputs, 1, &v, &error), &error);
        const double seconds = (double)(lt_clock_now_us() - start) * 1e-6;
        store_stats(store, &after);
        if (i > 0 && (best.seconds == 0 || seconds < best.seconds))
            best = (struct line){seconds, (double)(after.stall_us - before.stall_us) * 1e-6,
                                 after.copy_bytes - before.copy_bytes};
    }
    dit_context_destroy(&context);
    dit_destroy(&dit);
    store_destroy(&store);
    device_destroy(&params.device);
    return best;
}

static uint64_t block_bytes(const struct bench *b)
{
    struct lt_error error;
    struct layout layout;
    must(layout_build(b->file, NULL, NULL, NULL, &layout, &error), &error);
    const uint64_t bytes = layout.slab_bytes[0];
    layout_fini(&layout);
    return bytes;
}

static void print_table(struct bench *b)
{
    const size_t blocks = (size_t)b->config.layer_count,
                 counts[] = {blocks / 4, blocks / 2, blocks};
    const struct line resident = measure(b, (struct store_params){0}, 0);
    const uint64_t bytes = block_bytes(b);
    const uint64_t bandwidth = b->settings->copy_bandwidth
                                   ? b->settings->copy_bandwidth
                                   : (uint64_t)((double)bytes * (double)blocks / resident.seconds);
    printf("%zu blocks of %.1f MiB, %lld tokens: %.3f s resident, %.1f ms a block; copies at %.2f "
           "GB/s take %.1f ms a block\n",
           blocks, (double)bytes / 1048576, (long long)b->settings->tokens, resident.seconds,
           resident.seconds / (double)blocks * 1e3, (double)bandwidth * 1e-9,
           (double)bytes / (double)bandwidth * 1e3);
    printf("%7s %8s %7s %9s %9s %9s %9s\n", "swapped", "prefetch", "order", "forward", "of best",
           "stall", "copied");
    for (size_t n = 0; n < LT_COUNT(counts); n++)
        for (size_t prefetch = 0; prefetch <= 2; prefetch++)
            for (int order = STORE_ORDER_TAIL; order <= STORE_ORDER_SPREAD; order++) {
                const struct store_params params = {.blocks_to_swap = counts[n],
                                                    .disk_blocks =
                                                        b->settings->disk ? counts[n] : 0,
                                                    .prefetch = prefetch,
                                                    .order = (enum store_order)order};
                const struct line line = measure(b, params, bandwidth);
                printf("%7zu %8zu %7s %7.3f s %9.3f %7.2f %% %5.0f MiB\n", counts[n], prefetch,
                       order == STORE_ORDER_TAIL ? "tail" : "spread", line.seconds,
                       line.seconds / resident.seconds, 100 * line.stall_seconds / line.seconds,
                       (double)line.copy_bytes / 1048576);
                fflush(stdout);
            }
}

static lt_status start(void *context, const void *settings, const struct lt_operands *operands,
                       struct lt_error *error)
{
    (void)context;
    struct bench b = {.settings = settings};
    const struct lt_exec_params exec = {(int)b.settings->threads, LT_PRECISION_BF16};
    LT_TRY(tensor_file_open(operands->item[0], &b.file, error));
    must(dit_config_detect(b.file, &b.config, error), error);
    must(lt_kernels_select(&b.kernels, lt_caps_detect(), "best", error), error);
    must(lt_exec_create(&exec, &b.exec, error), error);
    const int64_t values = b.config.out_channels * 4 * b.settings->tokens; /* 2 rows, N columns */
    b.x = normal(values, 1);
    b.v = malloc((size_t)values * sizeof *b.v);
    b.text = normal(8 * b.config.text_dim, 2);
    lt_assert(b.v);
    print_table(&b);
    free(b.x);
    free(b.v);
    free(b.text);
    lt_exec_destroy(&b.exec);
    tensor_file_close(&b.file);
    return LT_OK;
}

int main(int argc, char **argv)
{
    return lt_command_main(&command, argc, argv, sizeof(struct settings), start, NULL);
}
