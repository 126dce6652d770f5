/* The canonical text: every key stands in it, in the order of the alphabet, numbers with all their
 * digits. */
#include "coordinator/job_schema.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static json_t *list_value(const double *list, size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count && array; i++)
        if (json_array_append_new(array, json_real(list[i])) != 0) {
            json_decref(array);
            array = NULL;
        }
    return array;
}

static json_t *model_value(const struct job_model *model)
{
    if (lt_digest_is_zero(&model->fingerprint))
        return json_string(model->name);
    char hex[LT_DIGEST_HEX];
    lt_digest_format(&model->fingerprint, hex);
    return json_pack("{s:s, s:s}", "file", model->name, "fingerprint", hex);
}

static json_t *input_value(const struct job_input *input)
{
    char hex[LT_DIGEST_HEX];
    if (!input->uploaded)
        return json_string(input->path);
    lt_digest_format(&input->digest, hex);
    return json_pack("{s:s, s:[I, I, I, I]}", "sha256", hex, "shape", (json_int_t)input->shape[0],
                     (json_int_t)input->shape[1], (json_int_t)input->shape[2],
                     (json_int_t)input->shape[3]);
}

static json_t *lora_value(const struct job *job)
{
    static const char *const on[] = {"both", "high", "low"};
    json_t *list = json_array();
    for (size_t i = 0; i < job->lora_count && list; i++) {
        const struct job_lora *lora = &job->lora[i];
        json_t *item =
            json_pack("{s:s, s:o, s:s, s:b, s:b}", "file", lora->file.name, "strength",
                      list_value(lora->strength, lora->strength_count), "on", on[lora->on],
                      "combined", (int)lora->combined, "plain_peft", (int)lora->plain_peft);
        char hex[LT_DIGEST_HEX];
        lt_digest_format(&lora->file.fingerprint, hex);
        if (item && !lt_digest_is_zero(&lora->file.fingerprint))
            json_object_set_new(item, "fingerprint", json_string(hex));
        if (json_array_append_new(list, item) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

static json_t *own_value(const struct job *job, const struct job_field *field)
{
    const char *key = field->key;
    if (strcmp(key, "kind") == 0)
        return json_string(job_kind_words[job->kind]);
    if (strcmp(key, "size") == 0)
        return json_pack("[I, I]", (json_int_t)job->width, (json_int_t)job->height);
    if (strcmp(key, "precision") == 0)
        return json_string(job->precision_bf16 ? "bf16" : "f32");
    if (strcmp(key, "guidance") == 0)
        return list_value(job->guidance, job->guidance_count);
    if (strcmp(key, "name") == 0)
        return json_string(field->choice[job->sampler]);
    if (strcmp(key, "skip_layers") == 0)
        return list_value(job->guide.skip_layer, job->guide.skip_layer_count);
    if (strcmp(key, "lora") == 0)
        return lora_value(job);
    lt_assert(strcmp(key, "sigmas") == 0);
    return list_value(job->sigma, job->sigma_count);
}

static json_t *field_value(const struct job *job, const struct job_field *field)
{
    const void *from = (const char *)job + field->offset;
    switch (field->kind) {
    case JOB_FIELD_INT:
        return json_integer(*(const int64_t *)from);
    case JOB_FIELD_REAL:
        return json_real(*(const double *)from);
    case JOB_FIELD_BOOL:
        return json_boolean(*(const bool *)from);
    case JOB_FIELD_TEXT:
        return json_string(*(const char *const *)from);
    case JOB_FIELD_CHOICE:
        return json_string(field->choice[*(const unsigned *)from]);
    case JOB_FIELD_INPUT:
        return input_value(from);
    case JOB_FIELD_MODEL:
        return model_value(from);
    case JOB_FIELD_OWN:
        break;
    }
    return own_value(job, field);
}

/* Texts that may be absent, a list that stands for "from the sampler", and what says something only
 * beside another key. */
static bool is_absent(const struct job *job, const struct job_field *field)
{
    const void *from = (const char *)job + field->offset;
    const struct job_input *input = from;
    return (field->kind == JOB_FIELD_INPUT && !input->path && !input->uploaded) ||
           (field->kind == JOB_FIELD_TEXT && !*(const char *const *)from) ||
           (field->kind == JOB_FIELD_MODEL && !((const struct job_model *)from)->name) ||
           (field->kind == JOB_FIELD_OWN && strcmp(field->key, "sigmas") == 0 && !job->sigma) ||
           (field->kind == JOB_FIELD_OWN && strcmp(field->key, "skip_layers") == 0 &&
            !job->guide.skip_layer) ||
           (field->kind == JOB_FIELD_OWN && strcmp(field->key, "lora") == 0 &&
            job->lora_count == 0) ||
           (job->cache.kind == JOB_CACHE_NONE && strcmp(field->section, "cache") == 0) ||
           (job->decode_tile == 0 && (from == &job->decode_tile || from == &job->decode_overlap));
}

static json_t *build_tree(const struct job *job)
{
    json_t *root = json_object();
    for (size_t i = 0; i < job_field_count && root; i++) {
        const struct job_field *field = &job_fields[i];
        if (is_absent(job, field))
            continue;
        json_t *object = root;
        if (*field->section) {
            object = json_object_get(root, field->section);
            if (!object) {
                object = json_object();
                json_object_set_new(root, field->section,
                                    object); /* a NULL object fails in the next line */
            }
        }
        if (json_object_set_new(object, field->key, field_value(job, field)) != 0) {
            json_decref(root);
            root = NULL;
        }
    }
    return root;
}

lt_status job_format(const struct job *job, struct lt_arena *arena, char **text_out,
                     struct lt_error *error)
{
    json_t *root = build_tree(job);
    char *dumped =
        root ? json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17)) : NULL;
    char *text = dumped ? lt_arena_text(arena, dumped) : NULL;
    free(dumped);
    json_decref(root);
    if (!text)
        return lt_fail(error, LT_NO_MEMORY,
                       "no memory for the text of the job, or a text of it is not UTF-8");
    *text_out = text;
    return LT_OK;
}

lt_status job_digest(const struct job *job, struct lt_digest *digest_out, struct lt_error *error)
{
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    char *text;
    const lt_status status = job_format(job, &arena, &text, error);
    if (status == LT_OK)
        *digest_out = lt_sha256(text, strlen(text));
    lt_arena_fini(&arena);
    return status;
}
