#include "worker/commands.h"

#include "common/clock.h"
#include "common/option.h"
#include "worker/synth.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct settings {
    const char *variant, *quant, *fill, *base, *form, *output;
    int64_t layers, dim, ffn, text_dim, freq_dim, face_size, audio_features, z, tokens, rank, seed,
        threads;
};

static const struct lt_option options[] = {
    LT_OPTION(
        struct settings, variant, TEXT, "NAME", NULL,
        .help = "t2v-1.3b, t2v-14b, i2v-14b, flf2v-14b, i2v-a14b, ti2v-5b, animate-14b, "
                "talk-addon, vae-z16, vae-z48, taew2_1, taew2_2 (previews), umt5 (a text encoder), "
                "clip-vision, wav2vec2 (encoders of pictures and voices), text (features that "
                "stand for a prompt), lora"),
    LT_OPTION(struct settings, quant, TEXT, "TYPE", NULL,
              .help = "f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 q2_k q3_k_s q3_k_m q3_k_l q4_k_s "
                      "q4_k_m q5_k_s q5_k_m q6_k; default q5_k_m (a VAE, a LoRA: bf16, encoders "
                      "and previews: f16, text: f32)"),
    LT_OPTION(struct settings, output, TEXT, "FILE", NULL,
              .help = "GGUF, or safetensors when the name ends so"),
    LT_OPTION(struct settings, seed, INT, "S", "0",
              .help = "the weights are a function of seed and tensor name"),
    LT_OPTION(struct settings, fill, TEXT, "KIND", "random", .choices = "random|golden|tiled",
              .help = "golden: the published deterministic fill that golden values are made with; "
                      "tiled: a tensor repeats its first million values, for large files in a "
                      "short time"),
    LT_OPTION(struct settings, layers, INT, "N", "0",
              .help = "transformer blocks; 0: the variant's own"),
    LT_OPTION(struct settings, dim, INT, "D", "0",
              .help =
                  "width, a multiple of 128 (encoders: of 16; a VAE: its base width, 96 or 160; "
                  "previews: 64); 0: the variant's own"),
    LT_OPTION(struct settings, ffn, INT, "N", "0",
              .help = "width of the feed-forward; 0: the variant's own"),
    LT_OPTION(struct settings, text_dim, INT, "N", "0", .help = "width of text features; 0: 4096"),
    LT_OPTION(struct settings, freq_dim, INT, "N", "0",
              .help = "width of the time embedding's input; 0: 256"),
    LT_OPTION(struct settings, face_size, INT, "N", "0",
              .help = "pixels a side of Animate's face, 8 to 512, a power of 2; 0: 512"),
    LT_OPTION(struct settings, audio_features, INT, "N", "0",
              .help = "of the talk add-on: layers x width of the audio encoder, and small "
                      "throughout; 0: 12 x 768"),
    LT_OPTION(struct settings, z, INT, "N", "0", .help = "latent channels of a VAE; 0: 16 or 48"),
    LT_OPTION(struct settings, tokens, INT, "N", "0",
              .help = "rows of text features (0: 32), or of umt5's embedding (0: 256384)"),
    LT_OPTION(struct settings, base, TEXT, "NAME", "t2v-14b",
              .help = "of a LoRA: the transformer it is for"),
    LT_OPTION(struct settings, rank, INT, "R", "16", .min = 1, .max = 16384, .help = "of a LoRA"),
    LT_OPTION(struct settings, form, TEXT, "NAME", "comfyui", .choices = "comfyui|kohya|diffusers",
              .help = "of a LoRA: the tool whose keys it has"),
    LT_OPTION(struct settings, threads, INT, "N", "0", .min = 0, .max = 1024,
              .help = "0: all processors"),
};

static const struct lt_command command = {
    .program = "longtake-worker synth",
    .usage = "--variant NAME --output FILE [options]",
    .summary = "Writes a model file with the real names, shapes and types of a variant and random "
               "weights of a sane scale. It loads, computes and swaps like a real one; its "
               "pictures are noise. The file is written in small pieces: a 14B model needs little "
               "memory, but its full size on disk.",
    .examples =
        "  longtake-worker synth --variant t2v-1.3b --quant q8_0 --seed 1 --output t2v.gguf\n"
        "  longtake-worker synth --variant t2v-1.3b --layers 2 --dim 256 --ffn 512 --text-dim 64 "
        "--output tiny.gguf\n"
        "  longtake-worker synth --variant vae-z16 --dim 16 --output vae.safetensors\n"
        "  longtake-worker synth --variant lora --base t2v-1.3b --rank 32 --output "
        "lora.safetensors\n",
    .options = options,
    .option_count = LT_COUNT(options),
};

static void show_progress(void *context, uint64_t done, uint64_t total)
{
    int *shown = context;
    const int percent = (int)(100 * done / total);
    if (percent == *shown)
        return;
    *shown = percent;
    fprintf(stderr, "\rlongtake-worker synth: %3d %%%s", percent, done == total ? "\n" : "");
}

static lt_status run(const struct settings *settings, struct lt_error *error)
{
    if (!settings->variant || !settings->output)
        return lt_fail(error, LT_USAGE, "--%s is missing (try --help)",
                       settings->variant ? "output" : "variant");
    const struct synth_params params = {
        .variant = settings->variant,
        .quant = settings->quant,
        .base = settings->base,
        .form = settings->form,
        .rank = settings->rank,
        .fill = settings->fill[0] == 'g'   ? SYNTH_FILL_GOLDEN
                : settings->fill[0] == 't' ? SYNTH_FILL_TILED
                                           : SYNTH_FILL_RANDOM,
        .seed = (uint64_t)settings->seed,
        .layers = settings->layers,
        .dim = settings->dim,
        .ffn = settings->ffn,
        .text_dim = settings->text_dim,
        .freq_dim = settings->freq_dim,
        .face_size = settings->face_size,
        .audio_features = settings->audio_features,
        .z = settings->z,
        .tokens = settings->tokens,
        .threads = (int)settings->threads,
        .path = settings->output,
    };
    const int64_t start_us = lt_clock_now_us();
    struct synth_report report;
    int shown = -1;
    char size[32];
    LT_TRY(
        synth_write(&params, isatty(STDERR_FILENO) ? show_progress : NULL, &shown, &report, error));
    printf("%s: %zu tensors, %.3f M parameters, %s, %.1f s\n", params.path, report.tensor_count,
           (double)report.parameters * 1e-6, lt_size_format(report.file_bytes, size),
           (double)(lt_clock_now_us() - start_us) * 1e-6);
    return LT_OK;
}

static lt_status start(void *context, const void *settings, const struct lt_operands *operands,
                       struct lt_error *error)
{
    (void)context;
    (void)operands;
    return run(settings, error);
}

int worker_synth(int argc, char **argv)
{
    return lt_command_main(&command, argc, argv, sizeof(struct settings), start, NULL);
}
