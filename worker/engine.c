/* A task, step by step: check the spec against its blobs, find the model by name and fingerprint,
 * load it if another one is resident, compute, check that every number is finite. */
#include "worker/engine.h"

#include "common/file.h"
#include "common/lru.h"
#include "common/log.h"
#include "kernels/kernels.h"
#include "worker/model/dit.h"
#include "worker/model/vae.h"

#include <dirent.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MODELS_MAX = 200, PROMPTS_KEPT = 4, VALUES_MAX = 1 << 30 };
static const size_t context_bytes = 256u
                                    << 20; /* cross-attention keys and values kept per prompt */

struct found { /* a model file of the folders */
    char *path;
    struct lt_model_file file;
};

struct prompt { /* names a context that is kept for the steps to come */
    struct lt_digest text;
    int64_t text_len;
};

struct resident {
    struct lt_digest fingerprint;
    enum lt_precision precision;
    struct store *store; /* NULL: nothing is loaded */
};

struct engine {
    struct found found[MODELS_MAX];
    struct lt_model_file model[MODELS_MAX];
    size_t model_count;
    char kernel_class[128];
    struct lt_kernels kernels;
    int thread_count;
    struct lt_exec *exec[2]; /* by precision, made when first needed */
    struct resident transformer, decoder;
    struct dit *dit;
    struct vae *vae;
    struct lt_lru *prompts; /* struct prompt -> struct dit_context, of the resident transformer */
};

/* -- models ------------------------------------------------------------------------------------ */

static bool is_model_name(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && (strcmp(dot, ".gguf") == 0 || strcmp(dot, ".safetensors") == 0);
}

/* A file that cannot be read is left out with a warning: it may be somebody's half-finished
 * download. */
static void add_model(struct engine *engine, const char *path)
{
    struct lt_error error;
    struct tensor_file *file = NULL;
    struct found *found = &engine->found[engine->model_count];
    if (engine->model_count == MODELS_MAX)
        return;
    if (tensor_file_open(path, &file, &error) != LT_OK ||
        tensor_file_fingerprint(file, &found->file.fingerprint, &error) != LT_OK ||
        !(found->path = strdup(path))) {
        lt_log(LT_LOG_WARN, "model.unreadable", "%s", error.text);
        tensor_file_close(&file);
        return;
    }
    const char *slash = strrchr(found->path, '/');
    found->file.name = slash ? slash + 1 : found->path;
    found->file.bytes = tensor_file_bytes(file);
    engine->model[engine->model_count++] = found->file;
    tensor_file_close(&file);
}

static lt_status add_folder(struct engine *engine, const char *path, struct lt_error *error)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return lt_fail(error, LT_NOT_FOUND, "--models %s: no such file or folder", path);
    if (!S_ISDIR(info.st_mode)) {
        add_model(engine, path);
        return LT_OK;
    }
    struct dirent **entries;
    const int count = scandir(path, &entries, NULL, alphasort);
    if (count < 0)
        return lt_fail(error, LT_IO, "--models %s: cannot list", path);
    for (int i = 0; i < count; i++) {
        char full[PATH_MAX];
        if (is_model_name(entries[i]->d_name) &&
            lt_path_join(full, sizeof full, path, entries[i]->d_name, NULL) == LT_OK)
            add_model(engine, full);
        free(entries[i]);
    }
    free(entries);
    return LT_OK;
}

static lt_status find_model(const struct engine *engine, const struct lt_model_file *wanted,
                            const struct found **out, struct lt_error *error)
{
    const bool any = lt_digest_is_zero(&wanted->fingerprint);
    const char *slash = strrchr(wanted->name, '/'), *name = slash ? slash + 1 : wanted->name;
    bool other = false;
    for (size_t i = 0; i < engine->model_count; i++) {
        const struct found *found = &engine->found[i];
        const bool named = strcmp(found->file.name, name) == 0;
        if (any ? named : lt_digest_equal(&found->file.fingerprint, &wanted->fingerprint)) {
            *out = found;
            return LT_OK;
        }
        other = other || named;
    }
    return lt_fail(error, LT_NOT_FOUND,
                   other ? "model '%s' is here, but its bytes are not those the job was pinned to"
                         : "model '%s' is not in the --models folders of this worker",
                   wanted->name);
}

/* -- life -------------------------------------------------------------------------------------- */

static void free_prompt(void *value)
{
    struct dit_context *context = value;
    dit_context_destroy(&context);
}

lt_status engine_create(const struct engine_params *params, struct engine **engine_out,
                        struct lt_error *error)
{
    struct engine *engine = calloc(1, sizeof *engine);
    if (!engine)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the engine");
    char kernels[96];
    lt_kernels_class(kernels, sizeof kernels);
    engine->thread_count = params->thread_count;
    lt_status status =
        lt_kernels_select(&engine->kernels, lt_caps_detect(), params->kernel_selector, error);
    snprintf(engine->kernel_class, sizeof engine->kernel_class, "%s %.24s", kernels,
             params->kernel_selector);
    const struct lt_lru_params prompts = {.key_bytes = sizeof(struct prompt),
                                          .entries_max = PROMPTS_KEPT,
                                          .bytes_max = PROMPTS_KEPT * context_bytes,
                                          .free_value = free_prompt};
    if (status == LT_OK)
        status = lt_lru_create(&prompts, &engine->prompts, error);
    for (size_t i = 0; i < params->model_dir_count && status == LT_OK; i++)
        status = add_folder(engine, params->model_dir[i], error);
    if (status != LT_OK) {
        engine_destroy(&engine);
        return status;
    }
    *engine_out = engine;
    return LT_OK;
}

static void drop_transformer(struct engine *engine)
{
    if (engine->prompts)
        lt_lru_clear(engine->prompts);
    dit_destroy(&engine->dit);
    store_destroy(&engine->transformer.store);
}

static void drop_decoder(struct engine *engine)
{
    vae_destroy(&engine->vae);
    store_destroy(&engine->decoder.store);
}

void engine_destroy(struct engine **engine)
{
    struct engine *e = *engine;
    if (!e)
        return;
    drop_transformer(e);
    drop_decoder(e);
    lt_lru_destroy(&e->prompts);
    lt_exec_destroy(&e->exec[0]);
    lt_exec_destroy(&e->exec[1]);
    for (size_t i = 0; i < e->model_count; i++)
        free(e->found[i].path);
    free(e);
    *engine = NULL;
}

const struct lt_model_file *engine_models(const struct engine *engine, size_t *count_out)
{
    *count_out = engine->model_count;
    return engine->model;
}

const char *engine_kernel_class(const struct engine *engine)
{
    return engine->kernel_class;
}

static lt_status take_exec(struct engine *engine, enum lt_precision precision,
                           struct engine_progress *progress, struct lt_exec **exec_out,
                           struct lt_error *error)
{
    struct lt_exec **exec = &engine->exec[precision];
    if (!*exec)
        LT_TRY(
            lt_exec_create(&(struct lt_exec_params){engine->thread_count, precision}, exec, error));
    lt_exec_set_cancel(*exec, &progress->cancel);
    *exec_out = *exec;
    return LT_OK;
}

/* -- checks ------------------------------------------------------------------------------------ */

static const struct engine_blob *find_blob(const struct engine_blob *blobs, size_t count,
                                           enum lt_blob_role role)
{
    for (size_t i = 0; i < count; i++)
        if (blobs[i].role == role)
            return &blobs[i];
    return NULL;
}

/* The spec's slice as a view on its blob; sizes are bounded before they are multiplied. */
static lt_status slice_of(const struct lt_task_spec *spec, const struct engine_blob *blobs,
                          size_t count, struct lt_view *view_out, struct lt_error *error)
{
    uint64_t values = 1;
    int64_t dim[4];
    for (int i = 0; i < 4; i++) {
        if (spec->shape[i] < 1 || spec->shape[i] > VALUES_MAX ||
            (values *= spec->shape[i]) > VALUES_MAX)
            return lt_fail(error, LT_BAD_INPUT, "task: a slice of [%u, %u, %u, %u] is not possible",
                           spec->shape[0], spec->shape[1], spec->shape[2], spec->shape[3]);
        dim[i] = spec->shape[i];
    }
    const struct engine_blob *blob = find_blob(blobs, count, LT_BLOB_LATENTS);
    if (!blob || blob->bytes != values * sizeof(float))
        return lt_fail(error, LT_BAD_INPUT, "task: latents of %zu bytes, expected %llu",
                       blob ? blob->bytes : 0, (unsigned long long)(values * sizeof(float)));
    *view_out = lt_view_make((void *)blob->data, LT_TYPE_F32, 4, dim);
    return LT_OK;
}

static lt_status check_result_bytes(const struct lt_task_spec *spec, uint64_t bytes,
                                    struct lt_error *error)
{
    if (spec->result_bytes == bytes)
        return LT_OK;
    return lt_fail(error, LT_BAD_INPUT, "task: announces a result of %llu bytes, it has %llu",
                   (unsigned long long)spec->result_bytes, (unsigned long long)bytes);
}

/* -- predict ----------------------------------------------------------------------------------- */

static lt_status load_transformer(struct engine *engine, const struct lt_task_spec *spec,
                                  struct lt_exec *exec, struct lt_error *error)
{
    struct resident *resident = &engine->transformer;
    const struct found *found;
    LT_TRY(find_model(engine, &spec->model, &found, error));
    if (engine->dit && lt_digest_equal(&resident->fingerprint, &found->file.fingerprint) &&
        resident->precision == (enum lt_precision)spec->precision &&
        dit_config(engine->dit)->text_len == (int64_t)spec->text_len)
        return LT_OK;
    struct tensor_file *file = NULL;
    struct dit_config config;
    struct lt_digest now;
    lt_status status;
    drop_transformer(engine);
    LT_TRY(tensor_file_open(found->path, &file, error));
    LT_TRY_OR(tensor_file_fingerprint(file, &now, error), out);
    if (!lt_digest_equal(&now, &found->file.fingerprint)) {
        status =
            lt_fail(error, LT_CORRUPT,
                    "%s: the file changed since this worker started; start it again", found->path);
        goto out;
    }
    LT_TRY_OR(dit_config_detect(file, &config, error), out);
    config.text_len = spec->text_len;
    LT_TRY_OR(store_load(file, NULL, NULL, &resident->store, error), out);
    LT_TRY_OR(dit_create(&config, resident->store, &engine->kernels, exec, &engine->dit, error),
              out);
    resident->fingerprint = found->file.fingerprint;
    resident->precision = (enum lt_precision)spec->precision;
out:
    tensor_file_close(&file);
    if (status != LT_OK)
        drop_transformer(engine);
    return status;
}

struct make_prompt {
    struct engine *engine;
    const struct engine_blob *text;
};

static lt_status make_prompt(void *context, const void *key, void **value_out, uint64_t *bytes_out,
                             struct lt_error *error)
{
    const struct make_prompt *make = context;
    const struct engine_blob *text = make->text;
    const struct dit_config *config = dit_config(make->engine->dit);
    const size_t row_bytes = (size_t)config->text_dim * sizeof(float);
    struct dit_context *made;
    (void)key;
    if (text->bytes == 0 || text->bytes % row_bytes != 0)
        return lt_fail(error, LT_BAD_INPUT, "task: a text of %zu bytes, expected rows of %zu",
                       text->bytes, row_bytes);
    const struct lt_view view = lt_view_2d((void *)text->data, LT_TYPE_F32,
                                           (int64_t)(text->bytes / row_bytes), config->text_dim);
    LT_TRY(dit_context_create(make->engine->dit, &view, &(struct lt_view){0}, context_bytes, &made,
                              error));
    *value_out = made;
    *bytes_out = context_bytes; /* what it may grow to */
    return LT_OK;
}

/* The context of a prompt, to be released. */
static lt_status take_prompt(struct engine *engine, const struct engine_blob *text,
                             struct lt_lru_entry **prompt_out, struct lt_error *error)
{
    const struct prompt key = {lt_sha256(text->data, text->bytes),
                               dit_config(engine->dit)->text_len};
    struct make_prompt make = {engine, text};
    return lt_lru_take(engine->prompts, &key, make_prompt, &make, prompt_out, error);
}

static lt_status check_finite(const float *values, int64_t count, struct lt_error *error)
{
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(values[i]))
            return lt_fail(error, LT_BAD_INPUT,
                           "the prediction is not finite: element %lld is %g (damaged weights or "
                           "latents?)",
                           (long long)i, values[i]);
    return LT_OK;
}

static lt_status predict_one(struct engine *engine, const struct lt_task_spec *spec,
                             const struct lt_view *x, const struct engine_blob *text,
                             struct engine_progress *progress, float *to, struct lt_error *error)
{
    struct lt_lru_entry *prompt;
    struct lt_view v = lt_view_make(to, LT_TYPE_F32, 4, x->dim);
    if (!text)
        return lt_fail(error, LT_BAD_INPUT, "task: its text is missing");
    LT_TRY(take_prompt(engine, text, &prompt, error));
    const struct dit_inputs inputs = {.x = *x,
                                      .timestep = spec->timestep,
                                      .context = lt_lru_value(prompt),
                                      .done = &progress->done};
    const lt_status status = dit_forward(engine->dit, &inputs, &v, error);
    lt_lru_release(engine->prompts, prompt);
    return status;
}

static lt_status predict(struct engine *engine, const struct lt_task_spec *spec,
                         const struct engine_blob *blobs, size_t blob_count,
                         struct engine_progress *progress, void **result_out,
                         struct lt_error *error)
{
    const bool guided = fabs(spec->guidance - 1) > 1e-9;
    struct lt_exec *exec;
    struct lt_view x;
    LT_TRY(slice_of(spec, blobs, blob_count, &x, error));
    const int64_t count = lt_view_count(&x);
    LT_TRY(check_result_bytes(spec, (uint64_t)count * sizeof(float), error));
    LT_TRY(take_exec(engine, (enum lt_precision)spec->precision, progress, &exec, error));
    LT_TRY(load_transformer(engine, spec, exec, error));
    atomic_store(&progress->total,
                 (unsigned)dit_config(engine->dit)->layer_count * (guided ? 2 : 1));
    atomic_store(&progress->phase, LT_PHASE_RUNNING);
    float *with = malloc((size_t)count * sizeof *with),
          *without = guided ? malloc((size_t)count * sizeof *without) : NULL;
    lt_status status = with && (without || !guided)
                           ? LT_OK
                           : lt_fail(error, LT_NO_MEMORY, "no memory for a prediction");
    if (status == LT_OK)
        status = predict_one(engine, spec, &x, find_blob(blobs, blob_count, LT_BLOB_TEXT), progress,
                             with, error);
    if (status == LT_OK && guided)
        status = predict_one(engine, spec, &x, find_blob(blobs, blob_count, LT_BLOB_TEXT_NEGATIVE),
                             progress, without, error);
    if (status == LT_OK && guided)
        for (int64_t i = 0; i < count; i++)
            with[i] = without[i] + (float)spec->guidance * (with[i] - without[i]);
    if (status == LT_OK)
        status = check_finite(with, count, error);
    free(without);
    if (status != LT_OK) {
        free(with);
        return status;
    }
    *result_out = with;
    return LT_OK;
}

/* -- decode ------------------------------------------------------------------------------------ */

static lt_status load_decoder(struct engine *engine, const struct lt_task_spec *spec,
                              struct lt_exec *exec, struct lt_error *error)
{
    struct resident *resident = &engine->decoder;
    const struct found *found;
    enum vae_part part = VAE_DECODER;
    LT_TRY(find_model(engine, &spec->model, &found, error));
    if (engine->vae && lt_digest_equal(&resident->fingerprint, &found->file.fingerprint) &&
        resident->precision == (enum lt_precision)spec->precision)
        return LT_OK;
    struct tensor_file *file = NULL;
    lt_status status;
    drop_decoder(engine);
    LT_TRY(tensor_file_open(found->path, &file, error));
    LT_TRY_OR(store_load(file, vae_wants, &part, &resident->store, error), out);
    LT_TRY_OR(vae_create(part, resident->store, &engine->kernels, exec, &engine->vae, error), out);
    resident->fingerprint = found->file.fingerprint;
    resident->precision = (enum lt_precision)spec->precision;
out:
    tensor_file_close(&file);
    if (status != LT_OK)
        drop_decoder(engine);
    return status;
}

struct pixels {
    uint8_t *rgb;
    int64_t drop, frame_values;
};

static lt_status keep_frame(void *context, int64_t index, const float *rgb, struct lt_error *error)
{
    (void)error;
    const struct pixels *to = context;
    if (index < to->drop) /* warm-up */
        return LT_OK;
    uint8_t *out = to->rgb + (index - to->drop) * to->frame_values;
    for (int64_t i = 0; i < to->frame_values; i++)
        out[i] = (uint8_t)lrintf((rgb[i] + 1.0f) * 127.5f);
    return LT_OK;
}

static lt_status decode(struct engine *engine, const struct lt_task_spec *spec,
                        const struct engine_blob *blobs, size_t blob_count,
                        struct engine_progress *progress, void **result_out, struct lt_error *error)
{
    struct lt_exec *exec;
    struct lt_view latents;
    LT_TRY(slice_of(spec, blobs, blob_count, &latents, error));
    struct pixels pixels = {.drop = spec->drop_frames,
                            .frame_values =
                                latents.dim[2] * latents.dim[3] * VAE_SCALE * VAE_SCALE * 3};
    const int64_t frames = 4 * latents.dim[1] - 3 - pixels.drop;
    if (frames < 1)
        return lt_fail(error, LT_BAD_INPUT, "task: drops %u of %lld frames", spec->drop_frames,
                       (long long)(4 * latents.dim[1] - 3));
    LT_TRY(check_result_bytes(spec, (uint64_t)frames * (uint64_t)pixels.frame_values, error));
    LT_TRY(take_exec(engine, (enum lt_precision)spec->precision, progress, &exec, error));
    LT_TRY(load_decoder(engine, spec, exec, error));
    if (!(pixels.rgb = malloc((size_t)spec->result_bytes)))
        return lt_fail(error, LT_NO_MEMORY, "no memory for %lld decoded frames", (long long)frames);
    atomic_store(&progress->total, (unsigned)latents.dim[1]);
    atomic_store(&progress->phase, LT_PHASE_RUNNING);
    const lt_status status =
        vae_decode(engine->vae, &latents, keep_frame, &pixels, &progress->done, error);
    if (status != LT_OK) {
        free(pixels.rgb);
        return status;
    }
    *result_out = pixels.rgb;
    return LT_OK;
}

lt_status engine_run(struct engine *engine, const struct lt_task_spec *spec,
                     const struct engine_blob *blobs, size_t blob_count,
                     struct engine_progress *progress, void **result_out, struct lt_error *error)
{
    atomic_store(&progress->done, 0);
    atomic_store(&progress->total, 0);
    atomic_store(&progress->phase, LT_PHASE_LOADING);
    switch (spec->kind) {
    case LT_TASK_PREDICT:
        return predict(engine, spec, blobs, blob_count, progress, result_out, error);
    case LT_TASK_VAE_DECODE:
        return decode(engine, spec, blobs, blob_count, progress, result_out, error);
    default:
        return lt_fail(error, LT_UNSUPPORTED, "task: kind %d is not built yet", (int)spec->kind);
    }
}
