#include "worker/inspect.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { PROBLEM_BYTES = 1536, VAE_SIZE_MAX = 65536 };

/* -- problems ---------------------------------------------------------------------------------- */

static lt_status add_problem(struct inspect_report *report, struct lt_error *error,
                             const char *format, ...) __attribute__((format(printf, 3, 4)));

static lt_status add_problem(struct inspect_report *report, struct lt_error *error,
                             const char *format, ...)
{
    char text[PROBLEM_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char *c = text; *c; c++) /* names come from the file: a terminal must not obey them */
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    if (report->problem_count == report->problem_room) {
        const size_t room = report->problem_room ? 2 * report->problem_room : 16;
        const char **grown = realloc(report->problem, room * sizeof *grown);
        if (!grown)
            return lt_fail(error, LT_NO_MEMORY, "no memory for the report");
        report->problem = grown;
        report->problem_room = room;
    }
    const char *kept = lt_arena_text(&report->arena, text);
    if (!kept)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the report");
    report->problem[report->problem_count++] = kept;
    return LT_OK;
}

/* -- sums -------------------------------------------------------------------------------------- */

static int64_t values_of(const struct tensor_info *info)
{
    int64_t count = 1;
    for (int i = 0; i < info->rank; i++)
        count *= info->dim[i];
    return count;
}

static long block_of(const char *name)
{
    char *end;
    if (strncmp(name, "blocks.", 7) != 0 || name[7] < '0' || name[7] > '9')
        return -1;
    const long block = strtol(name + 7, &end, 10);
    return *end == '.' && block < 512 ? block : -1;
}

static lt_status sum_blocks(const struct tensor_file *file, struct inspect_report *report,
                            struct lt_error *error)
{
    uint64_t *bytes = calloc(512, sizeof *bytes);
    if (!bytes)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the report");
    for (size_t i = 0; i < tensor_file_count(file); i++) {
        const struct tensor_info *info = tensor_file_at(file, i);
        const long block = block_of(info->name);
        if (block < 0)
            report->rest_bytes += info->bytes;
        else
            bytes[block] += info->bytes;
        if (block >= (long)report->block_count)
            report->block_count = (size_t)block + 1;
    }
    for (size_t i = 0; i < report->block_count; i++) {
        if (i == 0 || bytes[i] < report->block_bytes_min)
            report->block_bytes_min = bytes[i];
        if (bytes[i] > report->block_bytes_max)
            report->block_bytes_max = bytes[i];
    }
    free(bytes);
    return LT_OK;
}

static void sum_types(const struct tensor_file *file, struct inspect_report *report)
{
    static const enum lt_type types[] = {
#define TYPE_ID(name, id, values, bytes) LT_TYPE_##name,
        LT_TYPE_LIST(TYPE_ID)
#undef TYPE_ID
    };
    _Static_assert(LT_COUNT(types) <= INSPECT_TYPES_MAX, "room for every type");
    for (size_t t = 0; t < LT_COUNT(types); t++) {
        struct inspect_type sum = {.type = types[t]};
        for (size_t i = 0; i < tensor_file_count(file); i++) {
            const struct tensor_info *info = tensor_file_at(file, i);
            if (info->type != types[t])
                continue;
            sum.tensors++;
            sum.bytes += info->bytes;
        }
        if (sum.tensors > 0)
            report->type[report->type_count++] = sum;
    }
    for (size_t i = 0; i < tensor_file_count(file); i++) {
        const struct tensor_info *info = tensor_file_at(file, i);
        report->parameters += (uint64_t)values_of(info);
        report->tensor_bytes += info->bytes;
        if (info->bytes > tensor_file_at(file, report->largest)->bytes)
            report->largest = i;
    }
}

/* -- expected and found ------------------------------------------------------------------------ */

static lt_status keep_problem(void *context, const char *text, struct lt_error *error)
{
    return add_problem(context, error, "%s", text);
}

/* What published text encoders hold besides: a vocabulary, a decoder. */
static bool stands_beside_text(const char *name)
{
    return !text_wants(NULL, name);
}

static bool starts_with_any(const char *name, const char *const *start)
{
    for (; *start; start++)
        if (strncmp(name, *start, strlen(*start)) == 0)
            return true;
    return false;
}

/* Towers for text, heads. */
static bool stands_beside_vision(const char *name)
{
    static const char *const known[] = {
        "textual.",    "text_model.",        "text_projection",
        "log_scale",   "logit_scale",        "visual.head",
        "visual.proj", "visual_projection.", "vision_model.embeddings.position_ids",
        NULL};
    return starts_with_any(name, known);
}

/* What only training used. */
static bool stands_beside_audio(const char *name)
{
    static const char *const known[] = {"quantizer.",   "project_q.", "project_hid.",
                                        "masked_spec_", "lm_head.",   NULL};
    return starts_with_any(name, known);
}

static lt_status compare(const struct tensor_file *file, const struct catalogue *expected,
                         struct inspect_report *report, struct lt_error *error)
{
    return catalogue_compare(expected, file,
                             report->kind == INSPECT_TEXT     ? stands_beside_text
                             : report->kind == INSPECT_VISION ? stands_beside_vision
                             : report->kind == INSPECT_AUDIO  ? stands_beside_audio
                                                              : NULL,
                             keep_problem, report, error);
}

static lt_status inspect_vae(const struct tensor_file *file, struct inspect_report *report,
                             struct lt_error *error)
{
    const struct tensor_info *z = tensor_file_find(file, "conv2.bias");
    const struct tensor_info *width = tensor_file_find(file, "decoder.conv1.bias");
    const struct tensor_info *first = tensor_file_find(file, "encoder.conv1.bias");
    const bool grouped =
        tensor_file_find(file, "decoder.upsamples.0.upsamples.0.residual.2.weight") != NULL;
    struct catalogue expected;
    report->kind = grouped ? INSPECT_VAE_Z48 : INSPECT_VAE_Z16;
    if (!z || !width || !first)
        return add_problem(report, error, "tensor '%s' is missing",
                           !z       ? "conv2.bias"
                           : !width ? "decoder.conv1.bias"
                                    : "encoder.conv1.bias");
    report->vae = (struct catalogue_vae){
        .grouped = grouped,
        .dim = grouped ? values_of(first) : values_of(width) / 4,
        .decoder_dim = values_of(width) / 4,
        .channels = values_of(z),
    };
    if (report->vae.dim > VAE_SIZE_MAX || report->vae.decoder_dim > VAE_SIZE_MAX ||
        report->vae.channels > VAE_SIZE_MAX)
        return add_problem(report, error,
                           "width %lld and %lld latent channels are not those of a VAE",
                           (long long)report->vae.dim, (long long)report->vae.channels);
    LT_TRY(catalogue_of_vae(&report->vae, &expected, error));
    const lt_status status = compare(file, &expected, report, error);
    catalogue_fini(&expected);
    return status;
}

static lt_status inspect_tae(const struct tensor_file *file, struct inspect_report *report,
                             struct lt_error *error)
{
    const struct tensor_info *width = tensor_file_find(file, "decoder.1.bias");
    const struct tensor_info *first = tensor_file_find(file, "decoder.1.weight");
    const struct tensor_info *last = tensor_file_find(file, "decoder.22.bias");
    struct catalogue expected;
    report->kind = INSPECT_TAE;
    if (!width || !first || !last)
        return add_problem(report, error, "tensor '%s' is missing",
                           !width   ? "decoder.1.bias"
                           : !first ? "decoder.1.weight"
                                    : "decoder.22.bias");
    const int64_t dim = values_of(width) / 4;
    report->tae = (struct catalogue_tae){.dim = dim,
                                         .channels = dim ? values_of(first) / (36 * dim) : 0,
                                         .patch = values_of(last) == 12 ? 2 : 1};
    if (dim < 1 || dim > VAE_SIZE_MAX || report->tae.channels < 1 ||
        report->tae.channels > VAE_SIZE_MAX)
        return add_problem(report, error,
                           "width %lld and %lld latent channels are not those of a tiny VAE",
                           (long long)dim, (long long)report->tae.channels);
    LT_TRY(catalogue_of_tae(&report->tae, &expected, error));
    const lt_status status = compare(file, &expected, report, error);
    catalogue_fini(&expected);
    return status;
}

static lt_status inspect_lora(struct inspect_report *report, struct lt_error *error)
{
    const struct lora_description *lora = &report->lora;
    report->kind = INSPECT_LORA;
    if (lora->refused_kind)
        LT_TRY(add_problem(report, error, "tensor '%s' is of a %s, which is not built",
                           lora->refused_key, lora->refused_kind));
    if (lora->half_count > 0)
        LT_TRY(add_problem(report, error, "%zu matrices have no other half", lora->half_count));
    return LT_OK;
}

static lt_status inspect_text(const struct tensor_file *file, struct inspect_report *report,
                              struct lt_error *error)
{
    struct catalogue expected;
    struct lt_error reason;
    report->kind = INSPECT_TEXT;
    report->has_vocabulary = tensor_file_find(file, "spiece_model") ||
                             tensor_file_metadata(file, "tokenizer.ggml.tokens");
    if (text_config_detect(file, &report->text, &reason) != LT_OK)
        return add_problem(report, error, "%s", reason.text);
    LT_TRY(catalogue_of_umt5(&report->text, &expected, error));
    const lt_status status = compare(file, &expected, report, error);
    catalogue_fini(&expected);
    return status;
}

static lt_status inspect_vision(const struct tensor_file *file, struct inspect_report *report,
                                struct lt_error *error)
{
    struct catalogue expected;
    struct lt_error reason;
    report->kind = INSPECT_VISION;
    if (vision_config_detect(file, &report->vision, &reason) != LT_OK)
        return add_problem(report, error, "%s", reason.text);
    LT_TRY(catalogue_of_vision(&report->vision, &expected, error));
    const lt_status status = compare(file, &expected, report, error);
    catalogue_fini(&expected);
    return status;
}

static lt_status inspect_audio(const struct tensor_file *file, struct inspect_report *report,
                               struct lt_error *error)
{
    struct catalogue expected;
    struct lt_error reason;
    report->kind = INSPECT_AUDIO;
    if (audio_config_detect(file, &report->audio, &reason) != LT_OK)
        return add_problem(report, error, "%s", reason.text);
    LT_TRY(catalogue_of_audio(&report->audio, &expected, error));
    const lt_status status = compare(file, &expected, report, error);
    catalogue_fini(&expected);
    return status;
}

static lt_status inspect_model(struct tensor_file *file, struct inspect_report *report,
                               struct lt_error *error)
{
    bool is_lora;
    LT_TRY(lora_describe(file, &is_lora, &report->lora, error));
    if (is_lora)
        return inspect_lora(report, error);
    struct catalogue expected;
    struct lt_error reason;
    if (tensor_file_find(file, "visual.cls_embedding"))
        return inspect_vision(file, report, error);
    if (tensor_file_find(file, "feature_extractor.conv_layers.0.conv.weight"))
        return inspect_audio(file, report, error);
    if (tensor_file_find(file, "decoder.middle.0.residual.0.gamma"))
        return inspect_vae(file, report, error);
    if (tensor_file_find(file, "decoder.3.conv.0.weight"))
        return inspect_tae(file, report, error);
    if (tensor_file_find(file, "blocks.0.pos_embedding.embedding.weight"))
        return inspect_text(file, report, error);
    if (dit_config_detect(file, &report->config, &reason) != LT_OK)
        return add_problem(report, error, "%s", reason.text);
    report->kind = INSPECT_TRANSFORMER;
    LT_TRY(catalogue_of_dit(&report->config, &expected, error));
    const lt_status status = compare(file, &expected, report, error);
    catalogue_fini(&expected);
    return status;
}

lt_status inspect_file(struct tensor_file *file, struct inspect_report *report_out,
                       struct lt_error *error)
{
    struct inspect_report report = {0};
    lt_status status;
    lt_arena_init(&report.arena, 0);
    LT_TRY_OR(tensor_file_fingerprint(file, &report.fingerprint, error), out);
    sum_types(file, &report);
    LT_TRY_OR(sum_blocks(file, &report, error), out);
    LT_TRY_OR(inspect_model(file, &report, error), out);
out:
    if (status != LT_OK) {
        inspect_fini(&report);
        return status;
    }
    *report_out = report;
    return LT_OK;
}

void inspect_fini(struct inspect_report *report)
{
    lt_arena_fini(&report->arena);
    free(report->problem);
    *report = (struct inspect_report){0};
}
