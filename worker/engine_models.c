/* Finds model files by name and fingerprint, and keeps one model of each component resident. */
#include "common/file.h"
#include "common/log.h"
#include "worker/engine_private.h"

#include <dirent.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

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
    if (engine->model_count == ENGINE_MODELS_MAX)
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

lt_status engine_add_models(struct engine *engine, const char *path, struct lt_error *error)
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

/* -- residents --------------------------------------------------------------------------------- */

static lt_status make_dit(const struct engine_task *task, struct tensor_file *file,
                          struct resident *resident, struct lt_error *error)
{
    struct dit_config config;
    LT_TRY(dit_config_detect(file, &config, error));
    config.text_len = resident->text_len = task->spec->text_len;
    LT_TRY(store_load(file, NULL, NULL, &resident->store, error));
    return dit_create(&config, resident->store, &task->engine->kernels, task->exec, &resident->dit,
                      error);
}

static void drop_dit(struct engine *engine, struct resident *resident)
{
    if (engine->prompts)
        lt_lru_clear(engine->prompts);
    dit_destroy(&resident->dit);
}

static lt_status make_vae(const struct engine_task *task, struct tensor_file *file,
                          struct resident *resident, enum vae_part part, struct lt_error *error)
{
    LT_TRY(store_load(file, vae_wants, &part, &resident->store, error));
    return vae_create(part, resident->store, &task->engine->kernels, task->exec, &resident->vae,
                      error);
}

static lt_status make_decoder(const struct engine_task *task, struct tensor_file *file,
                              struct resident *resident, struct lt_error *error)
{
    return make_vae(task, file, resident, VAE_DECODER, error);
}

static lt_status make_encoder(const struct engine_task *task, struct tensor_file *file,
                              struct resident *resident, struct lt_error *error)
{
    return make_vae(task, file, resident, VAE_ENCODER, error);
}

static void drop_vae(struct engine *engine, struct resident *resident)
{
    (void)engine;
    vae_destroy(&resident->vae);
}

/* `make` loads the store and builds the model on it; `drop` destroys the model, made or not. */
static const struct {
    lt_status (*make)(const struct engine_task *task, struct tensor_file *file,
                      struct resident *resident, struct lt_error *error);
    void (*drop)(struct engine *engine, struct resident *resident);
} components[ENGINE_SLOT_COUNT] = {
    [ENGINE_TRANSFORMER] = {make_dit, drop_dit},
    [ENGINE_VAE_DECODER] = {make_decoder, drop_vae},
    [ENGINE_VAE_ENCODER] = {make_encoder, drop_vae},
};

void engine_drop(struct engine *engine, enum engine_slot slot)
{
    struct resident *resident = &engine->slot[slot];
    components[slot].drop(engine, resident);
    engine_keep_counts(engine, resident->store);
    store_destroy(&resident->store);
    *resident = (struct resident){0};
}

static bool is_resident(const struct resident *resident, const struct lt_task_spec *spec,
                        enum engine_slot slot, const struct found *found)
{
    return resident->store && lt_digest_equal(&resident->fingerprint, &found->file.fingerprint) &&
           resident->precision == (enum lt_precision)spec->precision &&
           (slot != ENGINE_TRANSFORMER || resident->text_len == (int64_t)spec->text_len);
}

lt_status engine_load(const struct engine_task *task, enum engine_slot slot,
                      struct resident **resident_out, struct lt_error *error)
{
    struct engine *engine = task->engine;
    struct resident *resident = &engine->slot[slot];
    const struct found *found = NULL;
    LT_TRY(find_model(engine, &task->spec->model, &found, error));
    *resident_out = resident;
    if (is_resident(resident, task->spec, slot, found))
        return LT_OK;
    struct tensor_file *file = NULL;
    struct lt_digest now;
    lt_status status;
    engine_drop(engine, slot);
    engine_sample(engine, MEMORY_STAGE_LOAD_BEGIN, task->work->task, found->file.name);
    LT_TRY(tensor_file_open(found->path, &file, error));
    LT_TRY_OR(tensor_file_fingerprint(file, &now, error), out);
    if (!lt_digest_equal(&now, &found->file.fingerprint)) {
        status =
            lt_fail(error, LT_CORRUPT,
                    "%s: the file changed since this worker started; start it again", found->path);
        goto out;
    }
    LT_TRY_OR(components[slot].make(task, file, resident, error), out);
    resident->fingerprint = found->file.fingerprint;
    resident->precision = (enum lt_precision)task->spec->precision;
out:
    tensor_file_close(&file);
    if (status != LT_OK)
        engine_drop(engine, slot);
    engine_sample(engine, status == LT_OK ? MEMORY_STAGE_LOAD_END : MEMORY_STAGE_CLEANUP,
                  task->work->task, found->file.name);
    return status;
}
