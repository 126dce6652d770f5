/* A set and its files: opened, looked over, matched with the model (lora_match.c), reported. */
#include "worker/weights/lora_private.h"

#include "common/json_scan.h"
#include "common/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_VALUES_MAX = 256 << 10 };

static lt_status no_memory(struct lt_error *error)
{
    return lt_fail(error, LT_NO_MEMORY, "no memory for LoRA files");
}

/* -- one file ---------------------------------------------------------------------------------- */

/* diffusers keeps its PEFT settings as one JSON object: "transformer.lora_alpha": 32, … */
static lt_status read_metadata(struct lora_file *source, struct lt_error *error)
{
    const char *text = tensor_file_metadata(source->file, "lora_adapter_metadata");
    struct lt_json_scan scan;
    char key[128];
    if (!text)
        return LT_OK;
    lt_json_begin(&scan, text, strlen(text));
    if (!lt_json_take(&scan, '{'))
        return LT_OK;
    while (lt_json_peek(&scan) == '"' && lt_json_string(&scan, key, sizeof key) &&
           lt_json_take(&scan, ':')) {
        const char first = lt_json_peek(&scan);
        if (lora_ends_with(key, "lora_alpha"))
            source->metadata_alpha = strtod(scan.at, NULL);
        else if (lora_ends_with(key, "use_rslora"))
            source->metadata_rslora = first == 't';
        else if (lora_ends_with(key, "alpha_pattern") && first == '{' &&
                 scan.at[1 + strspn(scan.at + 1, " \n\r\t")] != '}')
            return lt_fail(error, LT_UNSUPPORTED,
                           "%s: metadata '%s': alphas by module are not built", source->report.path,
                           key);
        if (!lt_json_skip(&scan))
            return LT_OK;
        lt_json_take(&scan, ',');
    }
    return LT_OK;
}

/* What the whole file says: whose expert it is, whether it is PEFT's own. */
static lt_status look_over(struct lora_file *source, struct lt_error *error)
{
    bool high = false, low = false;
    for (size_t i = 0; i < tensor_file_count(source->file); i++) {
        const char *name = tensor_file_at(source->file, i)->name, *refused;
        struct lora_key key;
        const bool is_key = lora_key_parse(name, &key, &refused);
        if (refused)
            return lt_fail(error, LT_UNSUPPORTED, "%s: '%s' is of a %s: not built",
                           source->report.path, name, refused);
        high = high || (is_key && key.expert == LORA_EXPERT_HIGH);
        low = low || (is_key && key.expert == LORA_EXPERT_LOW);
        if (strcmp(name, "base_model.model.blocks.0.cross_attn.k.lora_A.weight") == 0)
            source->peft_ranked = !source->plain_peft;
    }
    if (high && low && source->expert == LORA_EXPERT_ANY)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: keys of both experts ('transformer.' high noise, 'transformer_2.' low "
                       "noise): say which one",
                       source->report.path);
    if (!high || !low)
        source->expert = LORA_EXPERT_ANY;
    return read_metadata(source, error);
}

static lt_status open_source(struct lora_set *set, const struct lora_source *from,
                             struct lt_error *error)
{
    struct lora_file *source = &set->source[set->count];
    const size_t count = from->strength_count ? from->strength_count : 1;
    source->strength = lt_arena_take_array(&set->arena, count, sizeof *source->strength);
    source->report.path = lt_arena_text(&set->arena, from->path);
    if (!source->strength || !source->report.path)
        return no_memory(error);
    source->strength_count = count;
    for (size_t i = 0; i < count; i++) {
        source->strength[i] = from->strength_count ? from->strength[i] : 1;
        if (!isfinite(source->strength[i]))
            return lt_fail(error, LT_BAD_INPUT, "%s: strength %zu is not a number", from->path, i);
    }
    source->expert = from->expert;
    source->plain_peft = from->plain_peft;
    LT_TRY(tensor_file_open(from->path, &source->file, error));
    set->count++;
    source->report.key_count = tensor_file_count(source->file);
    LT_TRY(tensor_file_fingerprint(source->file, &source->report.fingerprint, error));
    return look_over(source, error);
}

/* -- life -------------------------------------------------------------------------------------- */

static lt_status report_file(const struct lora_report *report, const struct tensor_file *model,
                             struct lt_error *error)
{
    char names[LORA_NAMES_SHOWN * (LORA_NAME_BYTES + 2) + 1] = "";
    size_t used = 0;
    for (size_t i = 0; i < LORA_NAMES_SHOWN && report->left[i]; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "",
                                 report->left[i]);
    if (report->matched_count == 0)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: none of its %zu keys matches %s (%zu are of another shape): %.500s",
                       report->path, report->key_count, tensor_file_path(model),
                       report->mismatched_count, names);
    if (report->matched_count < report->key_count)
        lt_log(LT_LOG_WARN, "lora.partial",
               "file=%s matched=%zu keys=%zu other_shape=%zu first=\"%s\"", report->path,
               report->matched_count, report->key_count, report->mismatched_count, names);
    lt_log(LT_LOG_INFO, "lora.open", "file=%s form=%s tensors=%zu rank=%lld..%lld", report->path,
           lora_form_name(report->form), report->patch_count, (long long)report->rank_min,
           (long long)report->rank_max);
    return LT_OK;
}

/* One piece serves every tensor: the largest that any patch has, up to 1 MiB. */
static lt_status take_piece(struct lora_set *set, struct lt_error *error)
{
    int64_t most = 1;
    for (size_t s = 0; s < set->count; s++)
        for (size_t i = 0; i < tensor_file_count(set->source[s].file); i++) {
            const int64_t values = lora_values(tensor_file_at(set->source[s].file, i));
            most = values > most ? values : most;
        }
    set->piece_values = most < PIECE_VALUES_MAX ? most : PIECE_VALUES_MAX;
    set->piece = malloc((size_t)set->piece_values * sizeof *set->piece);
    set->stats.buffer_bytes += (uint64_t)set->piece_values * sizeof *set->piece;
    return set->piece ? LT_OK : no_memory(error);
}

static lt_status build_set(struct lora_set *set, const struct lora_params *params,
                           struct tensor_file *model, struct lt_error *error)
{
    set->source = lt_arena_take_zeroed(&set->arena, params->count * sizeof *set->source);
    if (!set->source)
        return no_memory(error);
    for (size_t i = 0; i < params->count; i++)
        LT_TRY(open_source(set, &params->source[i], error));
    LT_TRY(take_piece(set, error));
    LT_TRY(lora_match(set, model, error));
    for (size_t i = 0; i < set->count; i++)
        LT_TRY(report_file(&set->source[i].report, model, error));
    return lora_measure_gains(set, model, error);
}

lt_status lora_set_create(const struct lora_params *params, struct tensor_file *model,
                          struct lora_set **set_out, struct lt_error *error)
{
    if (params->count == 0 || params->count > LORA_SOURCES_MAX)
        return lt_fail(error, LT_BAD_INPUT, "%zu LoRA files, expected 1 to %d", params->count,
                       LORA_SOURCES_MAX);
    lt_assert(params->type == LT_TYPE_F32 || params->type == LT_TYPE_BF16);
    struct lora_set *set = calloc(1, sizeof *set);
    if (!set)
        return no_memory(error);
    lt_arena_init(&set->arena, 0);
    set->type = params->type;
    set->streamed = params->streamed;
    const lt_status status = build_set(set, params, model, error);
    if (status != LT_OK) {
        lora_set_destroy(&set);
        return status;
    }
    *set_out = set;
    return LT_OK;
}

void lora_set_destroy(struct lora_set **set)
{
    struct lora_set *s = *set;
    if (!s)
        return;
    for (size_t i = 0; i < s->count; i++)
        tensor_file_close(&s->source[i].file);
    for (size_t i = 0; i < s->patch_count; i++)
        free(s->patch[i].gain);
    free(s->patch);
    free(s->piece);
    free(s->stream);
    lt_arena_fini(&s->arena);
    free(s);
    *set = NULL;
}
