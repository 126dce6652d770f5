#include "worker/commands.h"

#include "common/option.h"
#include "worker/inspect.h"

struct settings {
    bool json, hash;
};

static const struct lt_option options[] = {
    LT_OPTION(struct settings, json, FLAG, NULL, NULL, .help = "one JSON object"),
    LT_OPTION(struct settings, hash, FLAG, NULL, NULL,
              .help = "also the SHA-256 of all its bytes; reads the whole file"),
};

static const struct lt_command command = {
    .program = "longtake-worker inspect",
    .usage = "FILE [--json] [--hash]",
    .summary = "Tells what a GGUF or safetensors file of a model or a LoRA is: variant, sizes, "
               "types, bytes per "
               "block, and which tensors are missing, extra or of a wrong shape. Reads the header "
               "and 64 samples of 4 KiB. Exits with 3 when the file has problems.",
    .examples = "  longtake-worker inspect wan2.2_t2v_high_noise_14B_Q5_K_M.gguf\n"
                "  longtake-worker inspect wan_2.1_vae.safetensors --json\n",
    .options = options,
    .option_count = LT_COUNT(options),
    .operand_min = 1,
    .operand_max = 1,
};

static lt_status run(const char *path, const struct settings *settings, struct lt_error *error)
{
    struct tensor_file *file = NULL;
    struct inspect_report report = {0};
    lt_status status;
    LT_TRY(tensor_file_open(path, &file, error));
    LT_TRY_OR(inspect_file(file, &report, error), close);
    if (settings->hash)
        LT_TRY_OR(tensor_file_hash(file, &report.content, error), fini);
    settings->json ? inspect_print_json(file, &report, stdout)
                   : inspect_print(file, &report, stdout);
    if (report.problem_count > 0)
        status = lt_fail(error, LT_BAD_INPUT, "%s: %zu problems", path, report.problem_count);
fini:
    inspect_fini(&report);
close:
    tensor_file_close(&file);
    return status;
}

static lt_status start(void *context, const void *settings, const struct lt_operands *operands,
                       struct lt_error *error)
{
    (void)context;
    return run(operands->item[0], settings, error);
}

int worker_inspect(int argc, char **argv)
{
    return lt_command_main(&command, argc, argv, sizeof(struct settings), start, NULL);
}
