/* longtake-worker eval: one component, once, on tensors from a file. This is how anyone compares us
 * with another implementation (docs/formats.md names the tensors). */
#include "worker/eval.h"

#include "common/option.h"
#include "common/safetensors.h"
#include "worker/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

struct eval_settings {
    struct lt_text_list model, lora, set;
    const char *inputs, *output, *device, *precision, *kernel, *report;
    int64_t threads;
    struct memory_settings memory;
};

static const struct lt_option options[] = {
    LT_OPTION(struct eval_settings, model, LIST, "FILE", NULL,
              .help = "model file, GGUF or safetensors"),
    LT_OPTION(struct eval_settings, lora, LIST, "FILE[:S]", NULL,
              .help = "LoRA file and strength, or one per step: 1,1,0.5; order does not matter"),
    LT_OPTION(struct eval_settings, inputs, TEXT, "FILE", NULL,
              .help = "safetensors file with the input tensors"),
    LT_OPTION(struct eval_settings, output, TEXT, "FILE", NULL,
              .help = "safetensors file to write"),
    LT_OPTION(struct eval_settings, device, TEXT, "NAME", "host",
              .help = "where to run: host, or cuda:N"),
    LT_OPTION(struct eval_settings, precision, TEXT, "P", "bf16", .choices = "f32|bf16",
              .help = "of GEMM, convolution and attention inputs; sums are f32"),
    LT_OPTION(struct eval_settings, kernel, TEXT, "SEL", "best",
              .help = "ref, best, or OP=ref|best,…"),
    LT_OPTION(struct eval_settings, threads, INT, "N", "0", .min = 0, .max = 1024,
              .help = "0: all processors"),
    MEMORY_OPTIONS(struct eval_settings, memory),
    MEMORY_SYNC_OPTION(struct eval_settings, memory),
    LT_OPTION(struct eval_settings, set, LIST, "KEY=VALUE", NULL,
              .help = "what the tensors do not tell: text_len=8"),
    LT_OPTION(struct eval_settings, report, TEXT, "FILE", NULL,
              .help = "write seconds and bytes as JSON"),
};

static const struct eval_component *const components[] = {
    &eval_dit,   &eval_vae_decode, &eval_vae_encode, &eval_image,
    &eval_audio, &eval_text,       &eval_preview,
};

/* -- inputs and outputs ------------------------------------------------------------------------ */

const char *eval_model_path(const struct eval *eval, size_t index)
{
    return index < eval->settings->model.count ? eval->settings->model.item[index] : NULL;
}

const char *eval_inputs_path(const struct eval *eval)
{
    return eval->settings->inputs ? eval->settings->inputs : "--inputs";
}

lt_status eval_input(struct eval *eval, const char *name, int rank, struct lt_view *view_out,
                     struct lt_error *error)
{
    struct lt_view view;
    lt_assert(eval->read_count < EVAL_TENSORS_MAX);
    if (!eval->inputs)
        return lt_fail(error, LT_USAGE, "%s needs --inputs with a tensor '%s'",
                       eval->component->name, name);
    LT_TRY(lt_safetensors_read_f32(eval->inputs, name, &view, error));
    eval->read[eval->read_count++] = view.data;
    eval->input_bytes += (uint64_t)lt_view_count(&view) * sizeof(float);
    if (view.rank != rank)
        return lt_fail(error, LT_BAD_INPUT, "%s: tensor '%s': expected %d dimensions, found %d",
                       eval_inputs_path(eval), name, rank, view.rank);
    *view_out = view;
    return LT_OK;
}

lt_status eval_input_optional(struct eval *eval, const char *name, int rank,
                              struct lt_view *view_out, struct lt_error *error)
{
    *view_out = (struct lt_view){0};
    return eval->inputs && lt_safetensors_find(eval->inputs, name)
               ? eval_input(eval, name, rank, view_out, error)
               : LT_OK;
}

lt_status eval_output(struct eval *eval, const char *name, enum lt_type type, int rank,
                      const int64_t *dim, struct lt_view *view_out, struct lt_error *error)
{
    uint64_t bytes;
    lt_assert(eval->output_count < EVAL_OUTPUTS_MAX);
    struct lt_view view = lt_view_make(NULL, type, rank, dim);
    if (lt_type_bytes(type, (uint64_t)lt_view_count(&view), &bytes))
        view.data = calloc(1, (size_t)bytes);
    if (!view.data)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the output '%s'", name);
    eval->output[eval->output_count++] = (struct lt_named_view){name, view};
    *view_out = view;
    return LT_OK;
}

static bool is_one_of(const char *word, size_t length, const char *const *words)
{
    for (; *words; words++)
        if (strlen(*words) == length && memcmp(*words, word, length) == 0)
            return true;
    return false;
}

static lt_status refuse_unknown_inputs(const struct eval *eval, struct lt_error *error)
{
    for (size_t i = 0; eval->inputs && i < lt_safetensors_count(eval->inputs); i++) {
        const char *name = lt_safetensors_at(eval->inputs, i)->name;
        if (!is_one_of(name, strlen(name), eval->component->inputs))
            return lt_fail(error, LT_UNSUPPORTED, "%s: tensor '%s' is not an input of %s",
                           eval_inputs_path(eval), name, eval->component->name);
    }
    return LT_OK;
}

/* -- settings ---------------------------------------------------------------------------------- */

static lt_status refuse_unknown_keys(const struct eval *eval, struct lt_error *error)
{
    for (size_t i = 0; i < eval->settings->set.count; i++) {
        const char *item = eval->settings->set.item[i], *equals = strchr(item, '=');
        if (equals && is_one_of(item, (size_t)(equals - item), eval->component->keys))
            continue;
        char known[256] = "none";
        for (size_t used = 0, k = 0; eval->component->keys[k] && used < sizeof known; k++)
            used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", k ? ", " : "",
                                     eval->component->keys[k]);
        return lt_fail(error, LT_USAGE, "--set %s: expected KEY=VALUE; %s knows the keys: %s", item,
                       eval->component->name, known);
    }
    return LT_OK;
}

const char *eval_setting(const struct eval *eval, const char *key)
{
    const size_t length = strlen(key);
    for (size_t i = eval->settings->set.count; i-- > 0;) { /* the last one counts */
        const char *item = eval->settings->set.item[i];
        if (strncmp(item, key, length) == 0 && item[length] == '=')
            return item + length + 1;
    }
    return NULL;
}

lt_status eval_setting_real(const struct eval *eval, const char *key, double min, double max,
                            double *value, struct lt_error *error)
{
    const char *text = eval_setting(eval, key);
    char *end;
    if (!text)
        return LT_OK;
    const double number = strtod(text, &end);
    if (end == text || *end || !(number >= min && number <= max))
        return lt_fail(error, LT_USAGE, "--set %s=%s: expected a number from %g to %g", key, text,
                       min, max);
    *value = number;
    return LT_OK;
}

lt_status eval_setting_int(const struct eval *eval, const char *key, int64_t min, int64_t max,
                           int64_t *value, struct lt_error *error)
{
    const char *text = eval_setting(eval, key);
    char *end;
    if (!text)
        return LT_OK;
    const int64_t number = strtoll(text, &end, 10);
    if (end == text || *end || number < min || number > max)
        return lt_fail(error, LT_USAGE, "--set %s=%s: expected a whole number from %lld to %lld",
                       key, text, (long long)min, (long long)max);
    *value = number;
    return LT_OK;
}

/* -- the command ------------------------------------------------------------------------------- */

enum { SAMPLES_MAX = 16 };

void eval_sample(struct eval *eval, enum memory_stage stage)
{
    struct store_stats stats;
    struct device_stats device = {0};
    eval_store_stats(eval, &stats);
    device_stats(eval->device, &device);
    const struct memory_counts counts = {
        .weights_resident_bytes = stats.device_bytes,
        .weights_swapped_bytes = stats.pinned_bytes,
        .lora_bytes = stats.made_bytes,
        .scratch_bytes = lt_exec_scratch_bytes(eval->exec),
        .latents_bytes = eval->input_bytes,
        .device_bytes = device.used_bytes[DEVICE_MEMORY_LOCAL],
        .device_peak_bytes = device.peak_bytes[DEVICE_MEMORY_LOCAL],
        .read_bytes = stats.read_bytes,
        .copied_bytes = stats.copy_bytes,
        .stall_us = (uint64_t)stats.stall_us,
    };
    diagnostics_sample(eval->diagnostics, stage, 0, eval->component->name, &counts);
}

static lt_status write_report(const struct eval *eval, struct lt_error *error)
{
    struct store_stats stats;
    struct device_stats device = {0};
    struct rusage usage;
    eval_store_stats(eval, &stats);
    device_stats(eval->device, &device);
    getrusage(RUSAGE_SELF, &usage);
    FILE *file = fopen(eval->settings->report, "w");
    if (!file)
        return lt_fail(error, LT_IO, "%s: cannot create", eval->settings->report);
    fprintf(file, "{\"seconds\": %.6f, \"load_seconds\": %.6f, \"load_wait_ms\": %.3f",
            eval->seconds, stats.load_seconds, (double)stats.load_wait_us * 1e-3);
    fprintf(file, ", \"first_block_seconds\": %.6f, \"forward_seconds\": [",
            stats.first_block_seconds);
    for (size_t i = 0; i < eval->forward_count; i++)
        fprintf(file, "%s%.6f", i ? ", " : "", eval->forward_seconds[i]);
    fprintf(file, "], \"rss_peak_bytes\": %llu, \"device_peak_bytes\": %llu",
            (unsigned long long)usage.ru_maxrss * 1024,
            (unsigned long long)(device.peak_bytes[DEVICE_MEMORY_LOCAL] +
                                 (device_is_ram(eval->device) ? eval->activation_bytes : 0)));
    fprintf(file, ", \"host_weight_bytes\": %llu, \"swapped_weight_bytes\": %llu",
            (unsigned long long)stats.weight_bytes, (unsigned long long)stats.pinned_bytes);
    fprintf(file, ", \"copy_bytes\": %llu, \"copy_stall_ms\": %.3f, \"read_bytes\": %llu",
            (unsigned long long)stats.copy_bytes, (double)stats.stall_us * 1e-3,
            (unsigned long long)stats.read_bytes);
    fprintf(file, ", \"threads\": %d, \"plan\": ", lt_exec_thread_count(eval->exec));
    memory_plan_write_json(&eval->plan, file);
    if (eval->lora)
        eval_print_loras(eval, file);
    fputs(", \"memory\": ", file);
    diagnostics_write_json(eval->diagnostics, file);
    fputs("}\n", file);
    const bool whole = !ferror(file);
    if (fclose(file) != 0 || !whole)
        return lt_fail(error, LT_IO, "%s: cannot write", eval->settings->report);
    return LT_OK;
}

static lt_status check_settings(const struct eval_component *component,
                                const struct eval_settings *settings, struct lt_error *error)
{
    if (settings->lora.count && !component->takes_lora)
        return lt_fail(error, LT_USAGE, "--lora: %s takes none", component->name);
    if (settings->model.count < component->model_min ||
        settings->model.count > component->model_max)
        return lt_fail(error, LT_USAGE, "%s takes --model %zu to %zu times, found %zu; see --help",
                       component->name, component->model_min, component->model_max,
                       settings->model.count);
    if (!settings->output || (!settings->inputs && !component->inputs_optional))
        return lt_fail(error, LT_USAGE, "--inputs and --output are needed; see --help");
    return LT_OK;
}

static lt_status find_component(const char *name, const struct eval_component **component_out,
                                struct lt_error *error)
{
    char known[256] = "";
    for (size_t used = 0, i = 0; i < LT_COUNT(components); i++) {
        if (strcmp(components[i]->name, name) == 0) {
            *component_out = components[i];
            return LT_OK;
        }
        if (used < sizeof known)
            used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "",
                                     components[i]->name);
    }
    return lt_fail(error, LT_UNSUPPORTED, "component '%s': these are built: %s", name, known);
}

static lt_status open_files(struct eval *eval, struct lt_error *error)
{
    const struct eval_settings *settings = eval->settings;
    if (settings->inputs)
        LT_TRY(lt_safetensors_open(settings->inputs, &eval->inputs, error));
    LT_TRY(refuse_unknown_inputs(eval, error));
    const size_t most = eval->component->file_max;
    for (size_t i = 0; i < settings->model.count && (most == 0 || i < most); i++)
        LT_TRY(tensor_file_open(settings->model.item[i], &eval->file[i], error));
    return settings->lora.count ? eval_open_loras(eval, &settings->lora, eval->file[0], error)
                                : LT_OK;
}

/* One device for all models of the command. A card's own limit is then the user's too. */
static lt_status open_device(struct eval *eval, struct lt_error *error)
{
    const struct device_params params = {
        .limit_bytes = {[DEVICE_MEMORY_LOCAL] = eval->memory.device_memory,
                        [DEVICE_MEMORY_PINNED] = eval->memory.ram},
        .copy_bytes_per_second = eval->memory.copy_bandwidth,
        .sync_ops = eval->memory.sync_ops,
    };
    struct device_stats stats;
    LT_TRY(device_open(eval->settings->device, &params, &eval->device, error));
    device_stats(eval->device, &stats);
    eval->memory.device_memory = stats.limit_bytes[DEVICE_MEMORY_LOCAL];
    eval->runtime_bytes += device_staging_bytes(eval->device);
    return LT_OK;
}

static lt_status run(struct eval *eval, struct lt_error *error)
{
    const struct eval_settings *settings = eval->settings;
    const struct lt_exec_params params = {
        (int)settings->threads,
        strcmp(settings->precision, "f32") == 0 ? LT_PRECISION_F32 : LT_PRECISION_BF16};
    LT_TRY(check_settings(eval->component, settings, error));
    eval->memory = settings->memory;
    eval->runtime_bytes = memory_program_bytes();
    LT_TRY(refuse_unknown_keys(eval, error));
    LT_TRY(open_device(eval, error));
    LT_TRY(device_kernels(eval->device, settings->kernel, &eval->kernels, error));
    LT_TRY(device_exec_create(eval->device, &params, &eval->exec, error));
    LT_TRY(open_files(eval, error));
    LT_TRY(diagnostics_create(SAMPLES_MAX, &eval->diagnostics, error));
    eval_sample(eval, MEMORY_STAGE_START);
    LT_TRY(eval->component->run(eval, error));
    eval_sample(eval, MEMORY_STAGE_TASK_END);
    LT_TRY(
        lt_safetensors_write(settings->output, eval->output, eval->output_count, NULL, 0, error));
    return settings->report ? write_report(eval, error) : LT_OK;
}

static void finish(struct eval *eval)
{
    for (size_t i = 0; i < eval->output_count; i++)
        free(eval->output[i].view.data);
    for (size_t i = 0; i < eval->read_count; i++)
        free(eval->read[i]);
    for (size_t i = 0; i < EVAL_MODELS_MAX; i++) {
        store_destroy(&eval->store[i]);
        tensor_file_close(&eval->file[i]);
    }
    lora_set_destroy(&eval->lora);
    diagnostics_destroy(&eval->diagnostics);
    lt_safetensors_close(&eval->inputs);
    lt_exec_destroy(&eval->exec);
    device_destroy(&eval->device);
}

static lt_status start(void *context, const void *settings, const struct lt_operands *operands,
                       struct lt_error *error)
{
    (void)context;
    struct eval eval = {.settings = settings};
    LT_TRY(find_component(operands->item[0], &eval.component, error));
    const lt_status status = run(&eval, error);
    finish(&eval);
    return status;
}

int worker_eval(int argc, char **argv)
{
    char summary[4096] = "Runs one component once, on tensors from a file.\n";
    char usage[512] = "";
    size_t used = strlen(summary), usage_used = 0;
    for (size_t i = 0; i < LT_COUNT(components); i++) {
        used += (size_t)snprintf(summary + used, sizeof summary - used, "  %-12s %s%s",
                                 components[i]->name, components[i]->summary,
                                 i + 1 < LT_COUNT(components) ? "\n" : "");
        usage_used += (size_t)snprintf(usage + usage_used, sizeof usage - usage_used, "%s%s",
                                       i ? "|" : "", components[i]->name);
        lt_assert(used < sizeof summary && usage_used < sizeof usage);
    }
    snprintf(usage + usage_used, sizeof usage - usage_used,
             " --model FILE --inputs IN.safetensors --output OUT.safetensors");
    const struct lt_command command = {
        .program = "longtake-worker eval",
        .usage = usage,
        .summary = summary,
        .examples = "  longtake-worker eval dit --model t2v.gguf --inputs in.safetensors --output "
                    "out.safetensors \\\n"
                    "      --precision f32",
        .options = options,
        .option_count = LT_COUNT(options),
        .operand_min = 1,
        .operand_max = 1,
    };
    return lt_command_main(&command, argc, argv, sizeof(struct eval_settings), start, NULL);
}
