/* longtake-worker eval: one component, once, on tensors from a file. This is how anyone compares us
 * with another implementation (docs/formats.md names the tensors). */
#include "worker/commands.h"

#include "common/clock.h"
#include "common/option.h"
#include "common/safetensors.h"
#include "kernels/kernels.h"
#include "worker/model/dit.h"
#include "worker/model/vae.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

struct settings {
    struct lt_text_list model, lora, set;
    const char *inputs, *output, *device, *precision, *kernel, *report;
    int64_t threads;
};

static const struct lt_option options[] = {
    LT_OPTION(struct settings, model, LIST, "FILE", NULL,
              .help = "model file, GGUF or safetensors"),
    LT_OPTION(struct settings, lora, LIST, "FILE[:S]", NULL,
              .help = "LoRA file and strength (not built yet)"),
    LT_OPTION(struct settings, inputs, TEXT, "FILE", NULL,
              .help = "safetensors file with the input tensors"),
    LT_OPTION(struct settings, output, TEXT, "FILE", NULL, .help = "safetensors file to write"),
    LT_OPTION(struct settings, device, TEXT, "NAME", "host", .help = "where to run"),
    LT_OPTION(struct settings, precision, TEXT, "P", "bf16", .choices = "f32|bf16",
              .help = "of GEMM, convolution and attention inputs; sums are f32"),
    LT_OPTION(struct settings, kernel, TEXT, "SEL", "best", .help = "ref, best, or OP=ref|best,…"),
    LT_OPTION(struct settings, threads, INT, "N", "0", .min = 0, .max = 1024,
              .help = "0: all processors"),
    LT_OPTION(struct settings, set, LIST, "KEY=VALUE", NULL,
              .help = "what the tensors do not tell: text_len=8"),
    LT_OPTION(struct settings, report, TEXT, "FILE", NULL,
              .help = "write seconds and bytes as JSON"),
};
static const struct lt_command command = {
    .program = "longtake-worker eval",
    .usage =
        "dit|vae-decode|vae-encode --model FILE --inputs IN.safetensors --output OUT.safetensors",
    .summary = "Runs one component once.\n"
               "  dit         x [C,F,h,w], timestep [1], text [n,text_dim], optional y, clip -> v "
               "[C,F,h,w]\n"
               "  vae-decode  latents [z,T,h,w] normalised -> pixels [3,F,H,W] in [-1,1]\n"
               "  vae-encode  pixels [3,F,H,W] in [-1,1] -> latents [z,T,h,w] normalised",
    .examples = "  longtake-worker eval dit --model t2v.gguf --inputs in.safetensors --output "
                "out.safetensors \\\n"
                "      --precision f32",
    .options = options,
    .option_count = LT_COUNT(options),
    .operand_min = 1,
    .operand_max = 1,
};

struct eval {
    const struct settings *settings;
    struct lt_kernels kernels;
    struct lt_exec *exec;
    struct tensor_file *file;
    struct store *store;
    struct lt_safetensors *inputs;
    struct lt_view output;
    const char *output_name;
    int64_t text_len; /* 0: the model's */
    double seconds, load_seconds;
};

/* -- inputs ------------------------------------------------------------------------------------ */

static lt_status read_input(struct eval *eval, const char *name, int rank, struct lt_view *view,
                            struct lt_error *error)
{
    LT_TRY(lt_safetensors_read_f32(eval->inputs, name, view, error));
    if (view->rank == rank)
        return LT_OK;
    free(view->data);
    const int found = view->rank;
    *view = (struct lt_view){0};
    return lt_fail(error, LT_BAD_INPUT, "%s: tensor '%s': expected %d dimensions, found %d",
                   eval->settings->inputs, name, rank, found);
}

static lt_status read_optional(struct eval *eval, const char *name, int rank, struct lt_view *view,
                               struct lt_error *error)
{
    *view = (struct lt_view){0};
    return lt_safetensors_find(eval->inputs, name) ? read_input(eval, name, rank, view, error)
                                                   : LT_OK;
}

static lt_status refuse_unknown_inputs(struct eval *eval, const char *const *known,
                                       struct lt_error *error)
{
    for (size_t i = 0; i < lt_safetensors_count(eval->inputs); i++) {
        const char *name = lt_safetensors_at(eval->inputs, i)->name;
        bool found = false;
        for (const char *const *k = known; *k; k++)
            found = found || strcmp(*k, name) == 0;
        if (!found)
            return lt_fail(error, LT_UNSUPPORTED,
                           "%s: tensor '%s' is not an input of this component as built",
                           eval->settings->inputs, name);
    }
    return LT_OK;
}

static lt_status apply_settings(struct eval *eval, struct lt_error *error)
{
    for (size_t i = 0; i < eval->settings->set.count; i++) {
        const char *item = eval->settings->set.item[i];
        char *end;
        if (strncmp(item, "text_len=", 9) != 0)
            return lt_fail(error, LT_USAGE, "--set %s: known keys: text_len", item);
        eval->text_len = strtol(item + 9, &end, 10);
        if (*end || eval->text_len < 1 || eval->text_len > 65536)
            return lt_fail(error, LT_USAGE, "--set %s: expected a number from 1 to 65536", item);
    }
    return LT_OK;
}

/* Opens the model and loads what `wanted` accepts. */
static lt_status load(struct eval *eval, store_filter *wanted, void *context,
                      struct lt_error *error)
{
    LT_TRY(store_load(eval->file, wanted, context, &eval->store, error));
    struct store_stats stats;
    store_stats(eval->store, &stats);
    eval->load_seconds = stats.load_seconds;
    return LT_OK;
}

static lt_status take_output(struct eval *eval, const char *name, int rank, const int64_t *dim,
                             struct lt_error *error)
{
    struct lt_view view = lt_view_make(NULL, LT_TYPE_F32, rank, dim);
    view.data = malloc((size_t)lt_view_count(&view) * sizeof(float));
    if (!view.data)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the output '%s'", name);
    eval->output = view;
    eval->output_name = name;
    return LT_OK;
}

/* -- components -------------------------------------------------------------------------------- */

static lt_status run_dit(struct eval *eval, struct lt_error *error)
{
    static const char *const known[] = {"x", "timestep", "text", "y", "clip", NULL};
    struct dit_config config;
    struct dit *dit = NULL;
    struct dit_context *context = NULL;
    struct lt_view x = {0}, y = {0}, timestep = {0}, text = {0}, clip = {0};
    lt_status status;
    LT_TRY(refuse_unknown_inputs(eval, known, error));
    LT_TRY(dit_config_detect(eval->file, &config, error));
    config.text_len = eval->text_len ? eval->text_len : config.text_len;
    LT_TRY_OR(read_input(eval, "x", 4, &x, error), out);
    LT_TRY_OR(read_input(eval, "timestep", 1, &timestep, error), out);
    LT_TRY_OR(read_input(eval, "text", 2, &text, error), out);
    LT_TRY_OR(read_optional(eval, "y", 4, &y, error), out);
    LT_TRY_OR(read_optional(eval, "clip", 2, &clip, error), out);
    if (timestep.dim[0] != 1) {
        status =
            lt_fail(error, LT_UNSUPPORTED, "%s: timestep: one value is supported today, found %lld",
                    eval->settings->inputs, (long long)timestep.dim[0]);
        goto out;
    }
    LT_TRY_OR(load(eval, NULL, NULL, error), out);
    LT_TRY_OR(dit_create(&config, eval->store, &eval->kernels, eval->exec, &dit, error), out);
    LT_TRY_OR(take_output(eval, "v", 4, x.dim, error), out);
    const int64_t start = lt_clock_now_us();
    LT_TRY_OR(dit_context_create(dit, &text, &clip, 0, &context, error), out);
    const struct dit_inputs inputs = {
        .x = x, .y = y, .timestep = ((float *)timestep.data)[0], .context = context};
    LT_TRY_OR(dit_forward(dit, &inputs, &eval->output, error), out);
    eval->seconds = (double)(lt_clock_now_us() - start) * 1e-6;
out:
    dit_context_destroy(&context);
    dit_destroy(&dit);
    free(x.data);
    free(y.data);
    free(timestep.data);
    free(text.data);
    free(clip.data);
    return status;
}

static lt_status place_frame(void *context, int64_t index, const float *rgb, struct lt_error *error)
{
    (void)error;
    const struct lt_view *to = context;
    const int64_t area = to->dim[2] * to->dim[3];
    for (int64_t c = 0; c < 3; c++)
        for (int64_t i = 0; i < area; i++)
            ((float *)to->data)[(c * to->dim[1] + index) * area + i] = rgb[i * 3 + c];
    return LT_OK;
}

static lt_status run_vae(struct eval *eval, enum vae_part part, struct lt_error *error)
{
    static const char *const decode_inputs[] = {"latents", NULL}, *const encode_inputs[] = {
                                                                      "pixels", NULL};
    const bool decode = part == VAE_DECODER;
    struct vae *vae = NULL;
    struct lt_view in = {0};
    lt_status status;
    LT_TRY(refuse_unknown_inputs(eval, decode ? decode_inputs : encode_inputs, error));
    LT_TRY(read_input(eval, decode ? "latents" : "pixels", 4, &in, error));
    LT_TRY_OR(load(eval, vae_wants, &part, error), out);
    LT_TRY_OR(vae_create(part, eval->store, &eval->kernels, eval->exec, &vae, error), out);
    if (in.dim[1] < 1 ||
        (!decode && (in.dim[2] < 8 || in.dim[3] < 8 || in.dim[2] % 8 || in.dim[3] % 8))) {
        status = lt_fail(error, LT_BAD_INPUT,
                         "%s: tensor '%s': at least one frame, sizes multiples of 8",
                         eval->settings->inputs, decode ? "latents" : "pixels");
        goto out;
    }
    const int64_t pixels[] = {3, 4 * in.dim[1] - 3, 8 * in.dim[2], 8 * in.dim[3]};
    const int64_t latents[] = {vae_latent_channels(vae), (in.dim[1] - 1) / 4 + 1, in.dim[2] / 8,
                               in.dim[3] / 8};
    LT_TRY_OR(take_output(eval, decode ? "pixels" : "latents", 4, decode ? pixels : latents, error),
              out);
    const int64_t start = lt_clock_now_us();
    status = decode ? vae_decode(vae, &in, place_frame, &eval->output, NULL, error)
                    : vae_encode(vae, &in, &eval->output, NULL, error);
    eval->seconds = (double)(lt_clock_now_us() - start) * 1e-6;
out:
    vae_destroy(&vae);
    free(in.data);
    return status;
}

/* -- the command ------------------------------------------------------------------------------- */

static lt_status write_report(const struct eval *eval, struct lt_error *error)
{
    struct store_stats stats = {0};
    struct rusage usage;
    if (eval->store)
        store_stats(eval->store, &stats);
    getrusage(RUSAGE_SELF, &usage);
    FILE *file = fopen(eval->settings->report, "w");
    if (!file)
        return lt_fail(error, LT_IO, "%s: cannot create", eval->settings->report);
    fprintf(file,
            "{\"seconds\": %.6f, \"load_seconds\": %.6f, \"rss_peak_bytes\": %llu, "
            "\"device_peak_bytes\": %llu, "
            "\"host_weight_bytes\": %llu, \"copy_bytes\": 0, \"copy_stall_ms\": 0, \"read_bytes\": "
            "%llu, "
            "\"threads\": %d}\n",
            eval->seconds, eval->load_seconds, (unsigned long long)usage.ru_maxrss * 1024,
            (unsigned long long)usage.ru_maxrss * 1024, (unsigned long long)stats.weight_bytes,
            (unsigned long long)stats.read_bytes, lt_exec_thread_count(eval->exec));
    const bool whole = !ferror(file);
    if (fclose(file) != 0 || !whole)
        return lt_fail(error, LT_IO, "%s: cannot write", eval->settings->report);
    return LT_OK;
}

static lt_status check_settings(const struct settings *settings, struct lt_error *error)
{
    if (strcmp(settings->device, "host") != 0)
        return lt_fail(error, LT_UNSUPPORTED,
                       "--device %s: this build has no CUDA; use --device host", settings->device);
    if (settings->lora.count)
        return lt_fail(error, LT_UNSUPPORTED, "--lora: LoRA files are not built yet");
    if (settings->model.count != 1 || !settings->inputs || !settings->output)
        return lt_fail(error, LT_USAGE,
                       "--model (once), --inputs and --output are needed; see --help");
    return LT_OK;
}

static lt_status run(const char *component, const struct settings *settings, struct lt_error *error)
{
    struct eval eval = {.settings = settings};
    const struct lt_exec_params params = {
        (int)settings->threads,
        strcmp(settings->precision, "f32") == 0 ? LT_PRECISION_F32 : LT_PRECISION_BF16};
    lt_status status;
    LT_TRY(check_settings(settings, error));
    LT_TRY(apply_settings(&eval, error));
    LT_TRY(lt_kernels_select(&eval.kernels, lt_caps_detect(), settings->kernel, error));
    LT_TRY_OR(lt_exec_create(&params, &eval.exec, error), out);
    LT_TRY_OR(lt_safetensors_open(settings->inputs, &eval.inputs, error), out);
    LT_TRY_OR(tensor_file_open(settings->model.item[0], &eval.file, error), out);
    if (strcmp(component, "dit") == 0)
        status = run_dit(&eval, error);
    else if (strcmp(component, "vae-decode") == 0)
        status = run_vae(&eval, VAE_DECODER, error);
    else if (strcmp(component, "vae-encode") == 0)
        status = run_vae(&eval, VAE_ENCODER, error);
    else
        status =
            lt_fail(error, LT_UNSUPPORTED,
                    "component '%s': dit, vae-decode and vae-encode are built; text, image and "
                    "audio are not yet",
                    component);
    if (status == LT_OK) {
        const struct lt_named_view tensor = {eval.output_name, eval.output};
        status = lt_safetensors_write(settings->output, &tensor, 1, NULL, 0, error);
    }
    if (status == LT_OK && settings->report)
        status = write_report(&eval, error);
out:
    free(eval.output.data);
    store_destroy(&eval.store);
    tensor_file_close(&eval.file);
    lt_safetensors_close(&eval.inputs);
    lt_exec_destroy(&eval.exec);
    return status;
}

static lt_status start(void *context, const void *settings, const struct lt_operands *operands,
                       struct lt_error *error)
{
    (void)context;
    return run(operands->item[0], settings, error);
}

int worker_eval(int argc, char **argv)
{
    return lt_command_main(&command, argc, argv, sizeof(struct settings), start, NULL);
}
