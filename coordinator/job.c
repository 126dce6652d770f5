/* jansson makes the tree; the table of job_schema.c says what may stand in it; what several keys
 * decide together is looked at by job_check.c. Nothing of the tree outlives job_parse. */
#include "coordinator/job.h"

#include "coordinator/job_private.h"
#include "coordinator/job_schema.h"
#include "coordinator/sigma.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE_MAX = 8192, SKIP_MAX = 32 /* as many as a task names */ };
static const int64_t JOB_INPUT_VALUES_MAX = INT64_C(1) << 31;

/* What comes from the file and goes to a terminal has no control characters. */
static void make_printable(char *text)
{
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
}

lt_status job_fail_at(const struct job_reader *reader, const char *section, const char *key,
                      lt_status status, const char *format, ...)
{
    char text[512], pointer[160];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    snprintf(pointer, sizeof pointer, "%s%s/%.64s", *section ? "/" : "", section, key);
    make_printable(pointer);
    make_printable(text);
    return lt_fail(reader->error, status, "%s: %s: %s", reader->origin, pointer, text);
}

static const char *type_name(const json_t *value)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "a list",  [JSON_STRING] = "a text",
        [JSON_INTEGER] = "a number", [JSON_REAL] = "a number", [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",      [JSON_NULL] = "null",
    };
    return names[json_typeof(value)];
}

static lt_status read_int(const struct job_reader *reader, const struct job_field *field,
                          const json_t *value, int64_t *to)
{
    if (!json_is_integer(value))
        return job_fail_at(reader, field->section, field->key, LT_BAD_INPUT,
                           "expected a whole number, found %s",
                           json_is_real(value) ? "a fraction" : type_name(value));
    const int64_t number = json_integer_value(value);
    /* 2^63 - 1 is no double: at that limit every int64 is allowed */
    const bool below = field->max >= 9e18 || number <= (int64_t)field->max;
    if (number < (int64_t)field->min || !below)
        return job_fail_at(reader, field->section, field->key, LT_BAD_INPUT,
                           "expected %.0f to %.0f, found %lld", field->min, field->max,
                           (long long)number);
    *to = number;
    return LT_OK;
}

static lt_status check_real(const struct job_reader *reader, const char *section, const char *key,
                            const json_t *value, double min, double max, double *to)
{
    if (!json_is_number(value))
        return job_fail_at(reader, section, key, LT_BAD_INPUT, "expected a number, found %s",
                           type_name(value));
    const double number = json_number_value(value);
    if (!(number >= min && number <= max))
        return job_fail_at(reader, section, key, LT_BAD_INPUT, "expected %g to %g, found %g", min,
                           max, number);
    *to = number;
    return LT_OK;
}

static lt_status check_text(const struct job_reader *reader, const char *section, const char *key,
                            const json_t *value, const char **to)
{
    if (!json_is_string(value))
        return job_fail_at(reader, section, key, LT_BAD_INPUT, "expected a text, found %s",
                           type_name(value));
    const char *text = json_string_value(value);
    const size_t bytes = json_string_length(value);
    if (bytes == 0 || bytes > JOB_TEXT_MAX)
        return job_fail_at(reader, section, key, LT_BAD_INPUT,
                           "expected 1 to %d bytes of text, found %zu", JOB_TEXT_MAX, bytes);
    for (size_t i = 0; i < bytes; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return job_fail_at(reader, section, key, LT_BAD_INPUT, "control character at byte %zu",
                               i);
    *to = lt_arena_text(reader->arena, text);
    return *to ? LT_OK
               : lt_fail(reader->error, LT_NO_MEMORY, "%s: no memory for the job", reader->origin);
}

static lt_status read_choice(const struct job_reader *reader, const struct job_field *field,
                             const json_t *value, unsigned *to)
{
    if (!json_is_string(value))
        return job_fail_at(reader, field->section, field->key, LT_BAD_INPUT,
                           "expected a word, found %s", type_name(value));
    char words[256];
    size_t used = 0;
    words[0] = 0;
    for (unsigned i = 0; field->choice[i]; i++) {
        if (strcmp(field->choice[i], json_string_value(value)) == 0) {
            *to = i;
            return LT_OK;
        }
        if (used < sizeof words)
            used += (size_t)snprintf(words + used, sizeof words - used, "%s%s", i ? ", " : "",
                                     field->choice[i]);
    }
    return job_fail_at(reader, field->section, field->key, LT_BAD_INPUT,
                       "expected one of %s; found '%.64s'", words, json_string_value(value));
}

/* "file.gguf", or with its fingerprint once known. */
static lt_status read_model(const struct job_reader *reader, const struct job_field *field,
                            const json_t *value, struct job_model *to)
{
    struct job_model model = {0};
    const json_t *file = value;
    if (json_is_object(value)) {
        const char *key;
        json_t *item;
        json_object_foreach(
            (json_t *)value, key,
            item) if (strcmp(key, "file") != 0 &&
                      strcmp(key, "fingerprint") !=
                          0) return job_fail_at(reader, field->section, field->key, LT_BAD_INPUT,
                                                "unknown key '%.64s'; expected file, fingerprint",
                                                key);
        const json_t *fingerprint = json_object_get(value, "fingerprint");
        const char *hex = fingerprint ? json_string_value(fingerprint) : NULL;
        if (fingerprint && (!hex || !lt_digest_parse(hex, &model.fingerprint)))
            return job_fail_at(reader, field->section, field->key, LT_BAD_INPUT,
                               "the fingerprint must be 64 hexadecimal digits");
        file = json_object_get(value, "file");
        if (!file)
            return job_fail_at(reader, field->section, field->key, LT_BAD_INPUT,
                               "'file' is missing");
    }
    LT_TRY(check_text(reader, field->section, field->key, file, &model.name));
    *to = model;
    return LT_OK;
}

/* "pose.mp4", or {"sha256": hex, "shape": [81, 480, 832, 3]} once uploaded. */
static lt_status read_input(const struct job_reader *reader, const struct job_field *field,
                            const json_t *value, struct job_input *to)
{
    struct job_input input = {.uploaded = json_is_object(value)};
    if (!input.uploaded) {
        LT_TRY(check_text(reader, field->section, field->key, value, &input.path));
        *to = input;
        return LT_OK;
    }
    const char *hex = json_string_value(json_object_get(value, "sha256"));
    const json_t *shape = json_object_get(value, "shape");
    const size_t rank = json_array_size(shape);
    if (json_object_size(value) != 2 || !hex || !lt_digest_parse(hex, &input.digest) || rank < 1 ||
        rank > JOB_INPUT_RANK)
        return job_fail_at(
            reader, field->section, field->key, LT_BAD_INPUT,
            "expected a path, or {\"sha256\": 64 hexadecimal digits, \"shape\": 1 to %d "
            "numbers}",
            JOB_INPUT_RANK);
    uint64_t values = 1;
    for (size_t i = 0; i < JOB_INPUT_RANK; i++) {
        const size_t missing = JOB_INPUT_RANK - rank;
        const json_t *item = i < missing ? NULL : json_array_get(shape, i - missing);
        const json_int_t number = i < missing ? 1 : json_integer_value(item);
        if ((item && !json_is_integer(item)) || number < 1 || number > JOB_INPUT_VALUES_MAX ||
            (values *= (uint64_t)number) > JOB_INPUT_VALUES_MAX)
            return job_fail_at(reader, field->section, field->key, LT_BAD_INPUT,
                               "shape: expected numbers from 1 whose product is at most %lld",
                               (long long)JOB_INPUT_VALUES_MAX);
        input.shape[i] = (uint32_t)number;
    }
    *to = input;
    return LT_OK;
}

static lt_status read_field(const struct job_reader *reader, const struct job_field *field,
                            const json_t *value)
{
    void *to = (char *)reader->job + field->offset;
    switch (field->kind) {
    case JOB_FIELD_INT:
        return read_int(reader, field, value, to);
    case JOB_FIELD_REAL:
        return check_real(reader, field->section, field->key, value, field->min, field->max, to);
    case JOB_FIELD_BOOL:
        if (!json_is_boolean(value))
            return job_fail_at(reader, field->section, field->key, LT_BAD_INPUT,
                               "expected true or false, found %s", type_name(value));
        *(bool *)to = json_is_true(value);
        return LT_OK;
    case JOB_FIELD_TEXT:
        return check_text(reader, field->section, field->key, value, to);
    case JOB_FIELD_CHOICE:
        return read_choice(reader, field, value, to);
    case JOB_FIELD_INPUT:
        return read_input(reader, field, value, to);
    case JOB_FIELD_MODEL:
        return read_model(reader, field, value, to);
    case JOB_FIELD_OWN:
        break;
    }
    return LT_OK;
}

static lt_status read_list(const struct job_reader *reader, const char *section, const char *key,
                           const json_t *value, double min, double max, const double **list_out,
                           size_t *count_out)
{
    const size_t count = json_is_array(value) ? json_array_size(value) : 1;
    if (count < 1 || count > JOB_LIST_MAX)
        return job_fail_at(reader, section, key, LT_BAD_INPUT,
                           "expected 1 to %d numbers, found %zu", JOB_LIST_MAX, count);
    double *list = lt_arena_take_array(reader->arena, count, sizeof *list);
    if (!list)
        return lt_fail(reader->error, LT_NO_MEMORY, "%s: no memory for the job", reader->origin);
    for (size_t i = 0; i < count; i++) {
        char pointer[64];
        snprintf(pointer, sizeof pointer, "%s/%zu", key, i);
        const bool array = json_is_array(value);
        LT_TRY(check_real(reader, section, array ? pointer : key,
                          array ? json_array_get(value, i) : value, min, max, &list[i]));
    }
    *list_out = list;
    *count_out = count;
    return LT_OK;
}

static lt_status read_kind(const struct job_reader *reader, const json_t *value)
{
    const struct job_field field = {.section = "", .key = "kind", .choice = job_kind_words};
    unsigned kind = 0;
    LT_TRY(read_choice(reader, &field, value, &kind));
    reader->job->kind = (enum job_kind)kind;
    return LT_OK;
}

/* Floored to what the VAE and the patches divide. */
static lt_status read_size(const struct job_reader *reader, const json_t *value)
{
    const double *side;
    size_t count;
    LT_TRY(read_list(reader, "", "size", value, 16, SIDE_MAX, &side, &count));
    if (!json_is_array(value) || count != 2)
        return job_fail_at(reader, "", "size", LT_BAD_INPUT, "expected [width, height]");
    for (size_t i = 0; i < 2; i++)
        if (side[i] != floor(side[i]))
            return job_fail_at(reader, "", "size", LT_BAD_INPUT, "expected whole pixels, found %g",
                               side[i]);
    reader->job->width = (int64_t)side[0] / 16 * 16;
    reader->job->height = (int64_t)side[1] / 16 * 16;
    return LT_OK;
}

static lt_status read_precision(const struct job_reader *reader, const json_t *value)
{
    static const char *const words[] = {"f32", "bf16", NULL};
    const struct job_field field = {.section = "model", .key = "precision", .choice = words};
    unsigned precision = 0;
    LT_TRY(read_choice(reader, &field, value, &precision));
    reader->job->precision_bf16 = precision == 1;
    return LT_OK;
}

/* "unipc/beta" is the widespread way to write {"name": "unipc", "beta": true}. */
static lt_status read_sampler(const struct job_reader *reader, const json_t *value,
                              const json_t *beta)
{
    static const char suffix[] = "/beta";
    const struct job_field *field = job_schema_find("sampler", "name");
    const char *name = json_string_value(value);
    const size_t bytes = name ? strlen(name) : 0, suffix_bytes = sizeof suffix - 1;
    unsigned sampler = 0;
    if (bytes <= suffix_bytes || strcmp(name + bytes - suffix_bytes, suffix) != 0) {
        LT_TRY(read_choice(reader, field, value, &sampler));
        reader->job->sampler = (enum sampler_kind)sampler;
        return LT_OK;
    }
    if (json_is_false(beta))
        return job_fail_at(reader, "sampler", "beta", LT_BAD_INPUT,
                           "false contradicts the name '%.64s'", name);
    json_t *stem = json_stringn(name, bytes - suffix_bytes);
    if (!stem)
        return lt_fail(reader->error, LT_NO_MEMORY, "%s: no memory for the job", reader->origin);
    const lt_status status = read_choice(reader, field, stem, &sampler);
    json_decref(stem);
    LT_TRY(status);
    reader->job->sampler = (enum sampler_kind)sampler;
    reader->job->beta_schedule = true;
    return LT_OK;
}

/* An own list; a final 0 is implied and may be written. The step count follows from it. */
static lt_status read_sigmas(const struct job_reader *reader, const json_t *value, bool has_steps)
{
    struct job *job = reader->job;
    LT_TRY(read_list(reader, "sampler", "sigmas", value, 0, 1, &job->sigma, &job->sigma_count));
    if (job->sigma_count > 1 && !(job->sigma[job->sigma_count - 1] > 0))
        job->sigma_count--;
    if (has_steps && job->step_count != (int64_t)job->sigma_count)
        return job_fail_at(reader, "sampler", "steps", LT_BAD_INPUT,
                           "%lld steps, but sigmas has %zu above 0", (long long)job->step_count,
                           job->sigma_count);
    job->step_count = (int64_t)job->sigma_count;
    return LT_OK;
}

static lt_status read_skip_layers(const struct job_reader *reader, const json_t *value)
{
    struct job_guide *guide = &reader->job->guide;
    LT_TRY(read_list(reader, "guide", "skip_layers", value, 0, 511, &guide->skip_layer,
                     &guide->skip_layer_count));
    if (guide->skip_layer_count > SKIP_MAX)
        return job_fail_at(reader, "guide", "skip_layers", LT_BAD_INPUT, "at most %d, found %zu",
                           SKIP_MAX, guide->skip_layer_count);
    for (size_t i = 0; i < guide->skip_layer_count; i++)
        if (guide->skip_layer[i] != floor(guide->skip_layer[i]))
            return job_fail_at(reader, "guide", "skip_layers", LT_BAD_INPUT,
                               "expected numbers of blocks, found %g", guide->skip_layer[i]);
    return LT_OK;
}

/* {"from", "to", "start", "end", "ease"}: one value per step of the slice. */
static lt_status read_guidance_schedule(const struct job_reader *reader, const json_t *value)
{
    static const char *const keys[] = {"from", "to", "start", "end", "ease"};
    static const char *const eases[] = {"linear", "ease_in", "ease_out", NULL};
    const char *key;
    json_t *item;
    double number[4] = {1, 1, 0, 1};
    unsigned ease = GUIDANCE_LINEAR;
    json_object_foreach((json_t *)value, key, item)
    {
        size_t i = 0;
        while (i < LT_COUNT(keys) && strcmp(key, keys[i]) != 0)
            i++;
        if (i == LT_COUNT(keys))
            return job_fail_at(reader, "guidance", key, LT_BAD_INPUT,
                               "unknown key; expected from, to, start, end, ease");
        const struct job_field field = {.section = "guidance", .key = key, .choice = eases};
        if (i < 4)
            LT_TRY(check_real(reader, "guidance", key, item, 0, i < 2 ? 100 : 1, &number[i]));
        else
            LT_TRY(read_choice(reader, &field, item, &ease));
    }
    if (!json_object_get(value, "from") || !json_object_get(value, "to"))
        return job_fail_at(reader, "", "guidance", LT_BAD_INPUT,
                           "a schedule needs 'from' and 'to'");
    struct job *job = reader->job;
    const int64_t end =
        job->end_step < 0 || job->end_step > job->step_count ? job->step_count : job->end_step;
    const uint32_t count = end > job->start_step ? (uint32_t)(end - job->start_step) : 1;
    double *list = lt_arena_take_array(reader->arena, count, sizeof *list);
    if (!list)
        return lt_fail(reader->error, LT_NO_MEMORY, "%s: no memory for the job", reader->origin);
    sigma_guidance_schedule(number[0], number[1], number[2], number[3], (enum guidance_ease)ease,
                            count, list);
    job->guidance = list;
    job->guidance_count = count;
    return LT_OK;
}

static lt_status read_lora(const struct job_reader *reader, const json_t *value, size_t index,
                           struct job_lora *to)
{
    static const char *const keys[] = {"file", "fingerprint", "strength",
                                       "on",   "combined",    "plain_peft"};
    static const char *const on_words[] = {"both", "high", "low", NULL};
    static const double strength_default[] = {1};
    struct job_lora lora = {.strength = strength_default, .strength_count = 1};
    char place[32];
    snprintf(place, sizeof place, "lora/%zu", index);
    const struct job_field field = {.section = "", .key = place, .choice = on_words};
    const char *key;
    json_t *item;
    if (!json_is_object(value))
        return job_fail_at(reader, "", place, LT_BAD_INPUT, "expected an object, found %s",
                           type_name(value));
    json_object_foreach((json_t *)(uintptr_t)value, key, item)
    {
        bool known = false;
        for (size_t i = 0; i < LT_COUNT(keys); i++)
            known |= strcmp(key, keys[i]) == 0;
        if (!known)
            return job_fail_at(reader, "", place, LT_BAD_INPUT,
                               "unknown key '%.64s'; expected file, fingerprint, strength, on, "
                               "combined, plain_peft",
                               key);
    }
    json_t *file = json_object();
    json_object_set(file, "file", json_object_get(value, "file"));
    if (json_object_get(value, "fingerprint"))
        json_object_set(file, "fingerprint", json_object_get(value, "fingerprint"));
    const lt_status status = read_model(reader, &field, file, &lora.file);
    json_decref(file);
    LT_TRY(status);
    const json_t *strength = json_object_get(value, "strength"), *on = json_object_get(value, "on");
    if (strength)
        LT_TRY(read_list(reader, "", place, strength, -100, 100, &lora.strength,
                         &lora.strength_count));
    if (on)
        LT_TRY(read_choice(reader, &field, on, &lora.on));
    lora.combined = json_is_true(json_object_get(value, "combined"));
    lora.plain_peft = json_is_true(json_object_get(value, "plain_peft"));
    *to = lora;
    return LT_OK;
}

static lt_status read_loras(const struct job_reader *reader, const json_t *list)
{
    struct job *job = reader->job;
    if (!json_is_array(list) || json_array_size(list) > JOB_LORAS_MAX)
        return job_fail_at(reader, "", "lora", LT_BAD_INPUT, "expected a list of at most %d",
                           JOB_LORAS_MAX);
    for (size_t i = 0; i < json_array_size(list); i++)
        LT_TRY(read_lora(reader, json_array_get(list, i), i, &job->lora[job->lora_count++]));
    return LT_OK;
}

static lt_status read_own(const struct job_reader *reader, const json_t *root)
{
    const json_t *kind = json_object_get(root, "kind"), *size = json_object_get(root, "size"),
                 *guidance = json_object_get(root, "guidance");
    const json_t *model = json_object_get(root, "model"),
                 *sampler = json_object_get(root, "sampler");
    const json_t *precision = json_object_get(model, "precision"),
                 *sigmas = json_object_get(sampler, "sigmas"),
                 *skip = json_object_get(json_object_get(root, "guide"), "skip_layers");
    if (kind)
        LT_TRY(read_kind(reader, kind));
    if (json_object_get(root, "lora"))
        LT_TRY(read_loras(reader, json_object_get(root, "lora")));
    if (size)
        LT_TRY(read_size(reader, size));
    if (precision)
        LT_TRY(read_precision(reader, precision));
    if (json_object_get(sampler, "name"))
        LT_TRY(read_sampler(reader, json_object_get(sampler, "name"),
                            json_object_get(sampler, "beta")));
    if (sigmas)
        LT_TRY(read_sigmas(reader, sigmas, json_object_get(sampler, "steps") != NULL));
    if (skip)
        LT_TRY(read_skip_layers(reader, skip));
    if (json_is_object(guidance))
        LT_TRY(read_guidance_schedule(reader, guidance)); /* counts the steps: after sigmas */
    else if (guidance)
        LT_TRY(read_list(reader, "", "guidance", guidance, 0, 100, &reader->job->guidance,
                         &reader->job->guidance_count));
    return LT_OK;
}

static lt_status check_keys(const struct job_reader *reader, const char *section,
                            const json_t *object)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        if (*section == 0 && job_schema_is_section(key)) {
            if (!json_is_object(value))
                return job_fail_at(reader, "", key, LT_BAD_INPUT, "expected an object, found %s",
                                   type_name(value));
            LT_TRY(check_keys(reader, key, value));
        } else if (!job_schema_find(section, key)) {
            const char *nearest = job_schema_nearest(section, key);
            return job_fail_at(reader, section, key, LT_BAD_INPUT,
                               nearest ? "unknown key; did you mean '%s'?" : "unknown key%s",
                               nearest ? nearest : "");
        }
    }
    return LT_OK;
}

/* Depth before jansson sees it: its own limit is 2,048. Strings do not count; wrong text is
 * jansson's to refuse. */
static bool depth_is_bounded(const char *text, size_t bytes)
{
    int depth = 0;
    bool in_text = false;
    for (size_t i = 0; i < bytes; i++) {
        if (in_text) {
            if (text[i] == '\\')
                i++;
            else
                in_text = text[i] != '"';
        } else if (text[i] == '"') {
            in_text = true;
        } else if (text[i] == '{' || text[i] == '[') {
            if (++depth > JOB_DEPTH_MAX)
                return false;
        } else if (text[i] == '}' || text[i] == ']') {
            depth--;
        }
    }
    return true;
}

static lt_status read_tree(const struct job_reader *reader, const json_t *root)
{
    if (!json_is_object(root))
        return lt_fail(reader->error, LT_BAD_INPUT, "%s: expected an object, found %s",
                       reader->origin, type_name(root));
    LT_TRY(check_keys(reader, "", root));
    for (size_t i = 0; i < job_field_count; i++) {
        const struct job_field *field = &job_fields[i];
        const json_t *object = *field->section ? json_object_get(root, field->section) : root;
        const json_t *value = json_object_get(object, field->key);
        if (value)
            LT_TRY(read_field(reader, field, value));
    }
    LT_TRY(read_own(reader, root)); /* an unsupported kind is named before what it lacks */
    for (size_t i = 0; i < job_field_count; i++) {
        const struct job_field *field = &job_fields[i];
        if (field->required && !json_object_get(json_object_get(root, field->section), field->key))
            return job_fail_at(reader, field->section, field->key, LT_BAD_INPUT, "missing");
    }
    return job_check(reader);
}

lt_status job_parse(const char *text, size_t bytes, const char *origin, struct lt_arena *arena,
                    struct job *job_out, struct lt_error *error)
{
    if (bytes > JOB_BYTES_MAX)
        return lt_fail(error, LT_BAD_INPUT, "%s: %zu bytes: a job has at most %d", origin, bytes,
                       JOB_BYTES_MAX);
    if (!depth_is_bounded(text, bytes))
        return lt_fail(error, LT_BAD_INPUT, "%s: nested more than %d deep", origin, JOB_DEPTH_MAX);
    json_error_t problem;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &problem);
    if (!root) {
        make_printable(problem.text);
        return lt_fail(error, LT_BAD_INPUT, "%s:%d:%d: %s", origin, problem.line, problem.column,
                       problem.text);
    }
    struct job job;
    job_defaults(&job);
    const struct job_reader reader = {
        .origin = origin, .arena = arena, .job = &job, .error = error};
    const lt_status status = read_tree(&reader, root);
    json_decref(root);
    if (status == LT_OK)
        *job_out = job;
    return status;
}
