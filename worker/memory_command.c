/* longtake-worker memory: what a model would take on this worker, before anything is loaded. */
#include "worker/commands.h"

#include "kernels/exec.h"
#include "worker/lora_option.h"
#include "worker/memory_options.h"
#include "worker/model/dit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct settings {
    const char *size, *precision, *device;
    int64_t latent_frames, text_tokens, threads;
    bool guided, json;
    const char *addon, *lora_expert;
    struct lt_text_list lora;
    struct memory_settings memory;
};

static const struct lt_option options[] = {
    LT_OPTION(struct settings, size, TEXT, "WxH", "832x480", .help = "of the picture, in pixels"),
    LT_OPTION(struct settings, latent_frames, INT, "N", "21", .min = 1, .max = 100000,
              .help = "of a window: 21 are 81 frames"),
    LT_OPTION(struct settings, text_tokens, INT, "N", "512", .min = 1, .max = 4096,
              .help = "of the prompt"),
    LT_OPTION(struct settings, guided, FLAG, NULL, NULL,
              .help = "with a negative prompt: two predictions at a time"),
    LT_OPTION(struct settings, addon, TEXT, "FILE", NULL,
              .help = "merged onto the model: that of MultiTalk or InfiniteTalk"),
    LT_OPTION(struct settings, lora, LIST, "FILE[:S]", NULL,
              .help = "LoRA file and strength; of DoRA the model's rows are read too"),
    LT_OPTION(struct settings, lora_expert, TEXT, "E", "any", .choices = "any|high|low",
              .help = "of LoRA files that hold both experts': whose model this is"),
    LT_OPTION(struct settings, precision, TEXT, "P", "bf16", .choices = "f32|bf16",
              .help = "of products"),
    LT_OPTION(struct settings, threads, INT, "N", "0", .min = 0, .max = 1024,
              .help = "0: all processors; each takes scratch"),
    LT_OPTION(struct settings, device, TEXT, "NAME", "host",
              .help = "host; cuda:N: that card, with what is free on it; gpu: a card that is not "
                      "here, with the scratch of kernels only in a build with CUDA"),
    MEMORY_OPTIONS(struct settings, memory),
    LT_OPTION(struct settings, json, FLAG, NULL, NULL, .help = "one JSON object"),
};

static const struct lt_command command = {
    .program = "longtake-worker memory",
    .usage = "MODEL [--size WxH] [--device-memory SIZE] [--ram SIZE] [options]",
    .summary = "Adds up what a transformer takes: weights, activations, scratch, what is kept of "
               "prompts. Chooses how many blocks are streamed, from where, through how many slots, "
               "as a worker with these limits would. Reads the file's header only. Exits with 6 or "
               "7 when it does not fit, and says what would.",
    .examples = "  longtake-worker memory wan2.2_animate_14B_Q5_K_M.gguf --device gpu "
                "--device-memory 16GiB \\\n      --ram 24GiB --blocks-to-swap 8 --prefetch 2\n"
                "  longtake-worker memory t2v_14B_Q8_0.gguf --ram 12GiB --json",
    .options = options,
    .option_count = LT_COUNT(options),
    .operand_min = 1,
    .operand_max = 1,
};

static lt_status parse_size(const char *text, int64_t *width, int64_t *height,
                            struct lt_error *error)
{
    char *end;
    *width = strtoll(text, &end, 10);
    *height = *end == 'x' ? strtoll(end + 1, &end, 10) : 0;
    if (*end || *width < 16 || *height < 16 || *width > 8192 || *height > 8192)
        return lt_fail(error, LT_USAGE, "--size %s: expected WIDTHxHEIGHT, 16 to 8192 each", text);
    return LT_OK;
}

struct subject {
    struct tensor_file *file;
    struct dit_config config;
    struct lora_set *lora; /* NULL: none */
    struct device *device; /* NULL: a card that is not here */
};

/* The terms of a plan that come from the work, not from the weights. */
static lt_status describe_work(const struct settings *s, const struct subject *subject,
                               struct memory_request *request, struct lt_error *error)
{
    const struct dit_config *config = &subject->config;
    int64_t width, height;
    struct lt_scratch scratch = {0};
    struct lt_exec *exec = NULL;
    LT_TRY(parse_size(s->size, &width, &height, error));
    /* z48 packs twice as many pixels a side into a latent (encoders.md 2) */
    const int64_t scale = config->out_channels == 48 ? 16 : 8;
    const int64_t rows = height / scale / 2, columns = width / scale / 2;
    const int64_t tokens = s->latent_frames * rows * columns;
    const enum lt_precision precision =
        s->precision[0] == 'f' ? LT_PRECISION_F32 : LT_PRECISION_BF16;
    const size_t inputs = s->guided ? 2 : 1;
    LT_TRY(lt_exec_create(&(struct lt_exec_params){(int)s->threads, precision}, &exec, error));
    const int threads = lt_exec_thread_count(exec);
    lt_exec_destroy(&exec);
    LT_TRY(dit_scratch(config, precision, tokens, &scratch, error));
    if (subject->lora)
        LT_TRY(lora_set_scratch(subject->lora, precision, tokens, &scratch, error));
    request->scratch_bytes =
        subject->device ? device_scratch_bytes(subject->device, &scratch, threads) : scratch.cuda;
    request->activation_bytes = dit_activation_bytes(config, tokens, inputs);
    if (!request->device_is_ram)
        request->activation_bytes += dit_card_bytes(config, tokens, inputs);
    request->cache_bytes = inputs * (uint64_t)(config->layer_count * 2 * config->dim) *
                           (uint64_t)(s->text_tokens + 1) * sizeof(float);
    request->latent_bytes = (1 + inputs) * sizeof(float) * (uint64_t)config->out_channels *
                            (uint64_t)(s->latent_frames * rows * columns * 4);
    return LT_OK;
}

static lt_status open_loras(const struct settings *s, struct subject *subject,
                            struct lt_error *error)
{
    const struct lora_source choice = {.expert = s->lora_expert[0] == 'h'   ? LORA_EXPERT_HIGH
                                                 : s->lora_expert[0] == 'l' ? LORA_EXPERT_LOW
                                                                            : LORA_EXPERT_ANY};
    struct lora_option option;
    LT_TRY(lora_option_parse(&s->lora, &choice, &option, error));
    const struct lora_params params = {.source = option.source,
                                       .count = option.count,
                                       .type = s->precision[0] == 'f' ? LT_TYPE_F32 : LT_TYPE_BF16};
    const lt_status status = lora_set_create(&params, subject->file, &subject->lora, error);
    lora_option_fini(&option);
    return status;
}

static lt_status open_subject(const char *path, const struct settings *s, struct subject *subject,
                              struct lt_error *error)
{
    struct tensor_file *addon = NULL;
    LT_TRY(tensor_file_open(path, &subject->file, error));
    if (s->addon) {
        LT_TRY(tensor_file_open(s->addon, &addon, error));
        const lt_status status = tensor_file_join(subject->file, &addon, error);
        tensor_file_close(&addon);
        LT_TRY(status);
    }
    LT_TRY(dit_config_detect(subject->file, &subject->config, error));
    const struct device_params params = {
        .limit_bytes = {[DEVICE_MEMORY_LOCAL] = s->memory.device_memory}};
    if (strcmp(s->device, "gpu") != 0)
        LT_TRY(device_open(s->device, &params, &subject->device, error));
    return s->lora.count ? open_loras(s, subject, error) : LT_OK;
}

/* With the LoRAs as they are now, in slabs or streamed. */
static lt_status make_plan(const struct subject *subject, struct memory_request request,
                           struct memory_plan *made, struct lt_error *error)
{
    struct layout layout;
    const struct lora_set *lora = subject->lora;
    LT_TRY(layout_build(subject->file, NULL, NULL, lora ? lora_set_extras(lora) : NULL, &layout,
                        error));
    request.layout = &layout;
    request.activation_bytes += lora ? lora_set_use_bytes(lora) : 0;
    lt_status status = memory_plan_make(&request, made, error);
    if (status == LT_NO_MEMORY || status == LT_NO_DEVICE_MEMORY) { /* prompts are then not kept */
        request.cache_bytes = 0;
        status = memory_plan_make(&request, made, error);
    }
    layout_fini(&layout);
    return status;
}

static void print_loras(const struct lora_set *lora, bool json)
{
    char size[32];
    struct lora_stats stats;
    const bool streamed = lora_set_is_streamed(lora);
    lora_set_stats(lora, &stats);
    if (json)
        printf("\"lora_files\": %zu, \"lora_bytes\": %llu, \"lora_streamed\": %s, ",
               lora_set_count(lora), (unsigned long long)stats.extra_bytes,
               streamed ? "true" : "false");
    else
        printf("LoRAs      %zu, %s, %s\n", lora_set_count(lora),
               lt_size_format(stats.extra_bytes, size),
               streamed ? "read from their files when they are used" : "placed with the weights");
}

static lt_status plan(const struct settings *s, struct subject *subject, struct lt_error *error)
{
    struct memory_plan made;
    struct memory_request request = {.runtime_bytes = memory_program_bytes(),
                                     .device_is_ram =
                                         subject->device && device_is_ram(subject->device),
                                     .device_limit = s->memory.device_memory,
                                     .ram_limit = s->memory.ram,
                                     .blocks_to_swap = s->memory.blocks_to_swap,
                                     .prefetch = s->memory.prefetch,
                                     .order = memory_swap_order(&s->memory)};
    if (subject->device) {
        struct device_stats stats;
        device_stats(subject->device, &stats);
        request.device_limit = stats.limit_bytes[DEVICE_MEMORY_LOCAL];
        request.runtime_bytes += device_staging_bytes(subject->device);
    }
    LT_TRY(describe_work(s, subject, &request, error));
    lt_status status = make_plan(subject, request, &made, error);
    if (subject->lora && memory_plan_pairs_are_too_much(status, &made)) {
        lora_set_stream(subject->lora);
        status = make_plan(subject, request, &made, error);
    }
    LT_TRY(status);
    if (s->json)
        fputc('{', stdout);
    if (subject->lora)
        print_loras(subject->lora, s->json);
    if (s->json) {
        memory_plan_write_members(&made, stdout);
        puts("}");
    } else {
        memory_plan_print(&made, &request, stdout);
    }
    return LT_OK;
}

static lt_status start(void *context, const void *settings, const struct lt_operands *operands,
                       struct lt_error *error)
{
    struct subject subject = {0};
    (void)context;
    lt_status status = open_subject(operands->item[0], settings, &subject, error);
    if (status == LT_OK)
        status = plan(settings, &subject, error);
    lora_set_destroy(&subject.lora);
    device_destroy(&subject.device);
    tensor_file_close(&subject.file);
    return status;
}

int worker_memory(int argc, char **argv)
{
    return lt_command_main(&command, argc, argv, sizeof(struct settings), start, NULL);
}
