/* Finds model files by name and fingerprint, and keeps one model of each component resident. */
#include "common/file.h"
#include "common/log.h"
#include "worker/engine_private.h"
#include "worker/model/catalogue.h"

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

lt_status engine_find_model(const struct engine *engine, const struct lt_model_file *wanted,
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

/* Contexts belong to their transformer. */
static lt_status make_prompts(struct engine *engine, const struct engine_plan *plan,
                              struct lt_error *error)
{
    const struct lt_lru_params params = {.key_bytes = engine_prompt_key_bytes(),
                                         .entries_max = ENGINE_PROMPTS_KEPT,
                                         .bytes_max =
                                             ENGINE_PROMPTS_KEPT * (uint64_t)plan->context_bytes,
                                         .free_value = engine_free_prompt};
    engine->context_bytes = plan->context_bytes;
    return lt_lru_create(&params, &engine->prompts, error);
}

static void log_plan(const struct engine_plan *plan)
{
    const struct memory_plan *memory = &plan->memory;
    lt_log(LT_LOG_INFO, "memory.plan",
           "blocks=%zu streamed=%zu from_disk=%zu slots=%zu device=%llu ram=%llu batch=%u "
           "context=%zu",
           memory->block_count, memory->store.blocks_to_swap, memory->store.disk_blocks,
           memory->weights.slot_count, (unsigned long long)memory->device_bytes,
           (unsigned long long)memory->ram_bytes, plan->batch_max, plan->context_bytes);
}

static lt_status plan_with_lora(const struct engine_task *task, struct tensor_file *file,
                                const struct dit_config *config, struct resident *resident,
                                struct engine_plan *plan, struct lt_error *error)
{
    if (task->work->lora_count > 0)
        LT_TRY(engine_open_lora(task, file, &resident->lora, error));
    const lt_status status =
        engine_plan_dit(task, file, config, &resident->size, resident->lora, plan, error);
    if (!resident->lora || !memory_plan_pairs_are_too_much(status, &plan->memory))
        return status;
    lora_set_stream(resident->lora);
    return engine_plan_dit(task, file, config, &resident->size, resident->lora, plan, error);
}

static lt_status make_dit(const struct engine_task *task, struct tensor_file *file,
                          struct resident *resident, struct lt_error *error)
{
    struct engine *engine = task->engine;
    struct dit_config config;
    struct engine_plan plan;
    LT_TRY(dit_config_detect(file, &config, error));
    LT_TRY(catalogue_check_dit(&config, file, error));
    config.text_len = resident->size.text_len;
    LT_TRY(plan_with_lora(task, file, &config, resident, &plan, error));
    LT_TRY(make_prompts(engine, &plan, error));
    LT_TRY(engine_take_plan(engine, ENGINE_TRANSFORMER, &plan.memory, error));
    plan.memory.store.extras = resident->lora ? lora_set_extras(resident->lora) : NULL;
    log_plan(&plan);
    LT_TRY(store_open(file, NULL, NULL, &plan.memory.store, &resident->store, error));
    atomic_store(&engine->batch_max, plan.batch_max);
    return dit_create(&config, resident->store, &task->engine->kernels, task->exec, &resident->dit,
                      error);
}

static void drop_dit(struct engine *engine, struct resident *resident)
{
    atomic_store(&engine->batch_max, 1);
    lt_lru_destroy(&engine->prompts);
    if (engine->windows)
        lt_lru_clear(engine->windows);
    dit_destroy(&resident->dit);
}

/* What a component takes beside its weights. */
struct extent {
    size_t activation_bytes, scratch_bytes;
    size_t held_bytes; /* in RAM, wherever the device is */
};

static size_t scratch_of(const struct engine_task *task, const struct lt_scratch *scratch)
{
    return device_scratch_bytes(task->engine->device, scratch, lt_exec_thread_count(task->exec));
}

/* All weights that `wants` takes, placed as there is room. */
static lt_status open_planned(const struct engine_task *task, enum engine_slot slot,
                              struct tensor_file *file, store_filter *wants, void *context,
                              const struct extent *extent, const char *what,
                              struct resident *resident, struct lt_error *error)
{
    struct engine *engine = task->engine;
    struct layout layout;
    struct memory_plan plan;
    LT_TRY(layout_build(file, wants, context, NULL, &layout, error));
    const lt_status status =
        engine_plan(engine, slot, &layout, extent->activation_bytes, extent->scratch_bytes,
                    extent->held_bytes, what, &plan, error);
    layout_fini(&layout);
    LT_TRY(status);
    LT_TRY(engine_take_plan(engine, slot, &plan, error));
    LT_TRY(store_open(file, wants, context, &plan.store, &resident->store, error));
    return store_finish_loading(resident->store, error);
}

/* The tiles of a decode; rows 0: the picture whole. */
struct vae_tiling engine_tiling(const struct lt_task_spec *spec)
{
    const int64_t tile = spec->tile, stride = spec->tile_stride;
    return (struct vae_tiling){tile, tile, stride, stride};
}

/* Frames, rows and columns in latents, of the picture. */
static lt_status vae_extent(const struct engine_task *task, const struct tensor_file *file,
                            enum vae_part part, struct extent *extent, struct lt_error *error)
{
    const enum lt_precision precision = (enum lt_precision)task->spec->precision;
    const uint32_t *shape = part == VAE_DECODER ? &task->spec->shape[1] : task->pixels;
    const struct vae_tiling tiling = engine_tiling(task->spec);
    const bool tiled = part == VAE_DECODER && tiling.rows > 0;
    int64_t frames = shape[0], scale = 1;
    if (part == VAE_ENCODER) {
        LT_TRY(vae_file_scale(part, file, &scale, error));
        frames = (frames + 3) / 4;
    }
    const int64_t rows = shape[1] / scale, columns = shape[2] / scale;
    struct lt_scratch scratch;
    LT_TRY(vae_scratch(part, file, precision, tiled && tiling.rows < rows ? tiling.rows : rows,
                       tiled && tiling.columns < columns ? tiling.columns : columns, &scratch,
                       error));
    extent->scratch_bytes = scratch_of(task, &scratch);
    return tiled ? vae_decode_tiled_bytes(file, precision, &tiling, frames, rows, columns,
                                          &extent->activation_bytes, &extent->held_bytes, error)
                 : vae_bytes(part, file, precision, frames, rows, columns,
                             &extent->activation_bytes, error);
}

static lt_status make_vae(const struct engine_task *task, struct tensor_file *file,
                          struct resident *resident, enum engine_slot slot, enum vae_part part,
                          struct lt_error *error)
{
    struct extent extent = {0};
    LT_TRY(vae_extent(task, file, part, &extent, error));
    LT_TRY(open_planned(task, slot, file, vae_wants, &part, &extent, "the VAE", resident, error));
    return vae_create(part, resident->store, &task->engine->kernels, task->exec, &resident->vae,
                      error);
}

static lt_status make_decoder(const struct engine_task *task, struct tensor_file *file,
                              struct resident *resident, struct lt_error *error)
{
    return make_vae(task, file, resident, ENGINE_VAE_DECODER, VAE_DECODER, error);
}

static lt_status make_encoder(const struct engine_task *task, struct tensor_file *file,
                              struct resident *resident, struct lt_error *error)
{
    return make_vae(task, file, resident, ENGINE_VAE_ENCODER, VAE_ENCODER, error);
}

static void drop_vae(struct engine *engine, struct resident *resident)
{
    (void)engine;
    vae_destroy(&resident->vae);
}

static lt_status make_text(const struct engine_task *task, struct tensor_file *file,
                           struct resident *resident, struct lt_error *error)
{
    struct text_config config;
    LT_TRY(text_config_detect(file, &config, error));
    LT_TRY(vocabulary_of_file(file, &resident->vocabulary, error));
    struct lt_scratch scratch;
    const size_t rows = task->spec->shape[0];
    LT_TRY(text_scratch(&config, (enum lt_precision)task->spec->precision, rows, &scratch, error));
    const struct extent extent = {.activation_bytes = text_activation_bytes(&config, rows),
                                  .scratch_bytes = scratch_of(task, &scratch)};
    LT_TRY(open_planned(task, ENGINE_TEXT, file, text_wants, NULL, &extent, "the text encoder",
                        resident, error));
    return text_create(&config, resident->store, &task->engine->kernels, task->exec,
                       &resident->text, error);
}

static void drop_text(struct engine *engine, struct resident *resident)
{
    (void)engine;
    text_destroy(&resident->text);
    vocabulary_close(&resident->vocabulary);
}

static lt_status make_vision(const struct engine_task *task, struct tensor_file *file,
                             struct resident *resident, struct lt_error *error)
{
    struct vision_config *config = &resident->vision_config;
    LT_TRY(vision_config_detect(file, config, error));
    struct lt_scratch scratch;
    LT_TRY(vision_scratch(config, (enum lt_precision)task->spec->precision, &scratch, error));
    const struct extent extent = {.activation_bytes = vision_activation_bytes(config),
                                  .scratch_bytes = scratch_of(task, &scratch)};
    LT_TRY(open_planned(task, ENGINE_VISION, file, vision_wants, config, &extent,
                        "the image encoder", resident, error));
    return vision_create(config, resident->store, &task->engine->kernels, task->exec,
                         &resident->vision, error);
}

static void drop_vision(struct engine *engine, struct resident *resident)
{
    (void)engine;
    vision_destroy(&resident->vision);
}

static lt_status make_audio(const struct engine_task *task, struct tensor_file *file,
                            struct resident *resident, struct lt_error *error)
{
    struct audio_config *config = &resident->audio_config;
    LT_TRY(audio_config_detect(file, config, error));
    struct lt_scratch scratch;
    const uint32_t samples = task->spec->shape[3];
    LT_TRY(
        audio_scratch(config, (enum lt_precision)task->spec->precision, samples, &scratch, error));
    const struct extent extent = {.activation_bytes = audio_activation_bytes(config, samples) +
                                                      audio_prepared_bytes(config),
                                  .scratch_bytes = scratch_of(task, &scratch)};
    LT_TRY(open_planned(task, ENGINE_AUDIO, file, NULL, NULL, &extent, "the audio encoder",
                        resident, error));
    return audio_create(config, resident->store, &task->engine->kernels, task->exec,
                        &resident->audio, error);
}

static void drop_audio(struct engine *engine, struct resident *resident)
{
    (void)engine;
    audio_destroy(&resident->audio);
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
    [ENGINE_TEXT] = {make_text, drop_text},
    [ENGINE_VISION] = {make_vision, drop_vision},
    [ENGINE_AUDIO] = {make_audio, drop_audio},
};

void engine_drop(struct engine *engine, enum engine_slot slot)
{
    struct resident *resident = &engine->slot[slot];
    components[slot].drop(engine, resident);
    engine_keep_counts(engine, resident->store);
    store_destroy(&resident->store);
    lora_set_destroy(&resident->lora);
    *resident = (struct resident){0};
    if (slot == ENGINE_TRANSFORMER)
        engine_show_signature(engine, NULL, NULL);
}

enum { TEXT_WIDTH = 4096 }; /* of every published text encoder */

static struct engine_size transformer_size(const struct engine_task *task)
{
    const struct lt_task_spec *spec = task->spec;
    const struct engine_blob *text = engine_find_blob(task, LT_BLOB_TEXT);
    const bool ahead = spec->kind == LT_TASK_COMPARE_TIMES; /* room for the predictions to come */
    return (struct engine_size){.text_len = spec->text_len,
                                .tokens = (int64_t)spec->shape[1] * (spec->shape[2] / 2) *
                                          (spec->shape[3] / 2),
                                .text_values = text    ? text->bytes / sizeof(float)
                                               : ahead ? (uint64_t)spec->text_len * TEXT_WIDTH
                                                       : 0,
                                .input_count = engine_input_count(spec),
                                .keeps = ahead || spec->cache != LT_CACHE_NONE};
}

static uint32_t at_most(uint32_t value, uint32_t most)
{
    return most > 0 && most < value ? most : value;
}

static struct engine_size size_of(const struct engine_task *task, enum engine_slot slot)
{
    const uint32_t *shape = task->spec->shape, tile = task->spec->tile;
    struct engine_size size = {0};
    switch (slot) {
    case ENGINE_TRANSFORMER:
        return transformer_size(task);
    case ENGINE_VAE_DECODER:
        size.extent[0] = shape[1];
        size.extent[1] = at_most(shape[2], tile);
        size.extent[2] = at_most(shape[3], tile);
        size.extent[3] = tile ? shape[2] * shape[3] : 0;
        break;
    case ENGINE_VAE_ENCODER:
        memcpy(size.extent, task->pixels, sizeof task->pixels);
        break;
    case ENGINE_TEXT: /* rows of the result */
        size.extent[0] = shape[0];
        break;
    case ENGINE_AUDIO: /* samples */
        size.extent[0] = shape[3];
        break;
    case ENGINE_VISION: /* one picture at a time, of the model's size */
    case ENGINE_SLOT_COUNT:
        break;
    }
    return size;
}

/* What was planned serves what is asked for. */
static bool holds(const struct engine_size *planned, const struct engine_size *asked)
{
    bool held = planned->text_len == asked->text_len && planned->tokens >= asked->tokens &&
                planned->text_values >= asked->text_values &&
                planned->input_count >= asked->input_count && planned->keeps >= asked->keeps;
    for (size_t i = 0; i < LT_COUNT(asked->extent); i++)
        held = held && planned->extent[i] >= asked->extent[i];
    return held;
}

static bool is_resident(const struct resident *resident, const struct weights_signature *wanted,
                        const struct engine_size *size)
{
    return resident->store && lt_digest_equal(&resident->signature.base, &wanted->base) &&
           holds(&resident->size, size);
}

static lt_status refuse_changed(const struct found *found, struct lt_error *error)
{
    return lt_fail(error, LT_CORRUPT,
                   "%s: the file changed since this worker started; start it again", found->path);
}

/* What it held when it was first opened is what it must hold. */
static lt_status check_content(struct engine *engine, const struct found *found,
                               struct tensor_file *file, struct lt_error *error)
{
    struct lt_digest *known = &engine->found[found - engine->found].content, now;
    char hex[LT_DIGEST_HEX];
    LT_TRY(tensor_file_hash(file, &now, error));
    if (!lt_digest_is_zero(known) && !lt_digest_equal(known, &now))
        return refuse_changed(found, error);
    *known = now;
    lt_digest_format(&now, hex);
    lt_log(LT_LOG_INFO, "model.verified", "file=%s sha256=%s", found->file.name, hex);
    return LT_OK;
}

lt_status engine_open_found(struct engine *engine, const struct found *found,
                            struct tensor_file **file_out, struct lt_error *error)
{
    struct tensor_file *file;
    struct lt_digest now;
    LT_TRY(tensor_file_open(found->path, &file, error));
    lt_status status = tensor_file_fingerprint(file, &now, error);
    if (status == LT_OK && !lt_digest_equal(&now, &found->file.fingerprint))
        status = refuse_changed(found, error);
    if (status == LT_OK && engine->verify)
        status = check_content(engine, found, file, error);
    if (status != LT_OK) {
        tensor_file_close(&file);
        return status;
    }
    *file_out = file;
    return LT_OK;
}

/* The add-on of a talk model stands behind its base. */
static lt_status join_addon(const struct engine_task *task, struct tensor_file *file,
                            struct lt_error *error)
{
    const struct found *found = NULL;
    struct tensor_file *addon;
    if (!task->spec->addon.name)
        return LT_OK;
    LT_TRY(engine_find_model(task->engine, &task->spec->addon, &found, error));
    LT_TRY(engine_open_found(task->engine, found, &addon, error));
    const lt_status status = tensor_file_join(file, &addon, error);
    tensor_file_close(&addon);
    return status;
}

static lt_status load(const struct engine_task *task, enum engine_slot slot,
                      const struct found *found, const struct weights_signature *wanted,
                      struct lt_error *error)
{
    struct resident *resident = &task->engine->slot[slot];
    struct tensor_file *file = NULL;
    bool served = true;
    lt_status status;
    LT_TRY(engine_open_found(task->engine, found, &file, error));
    if (slot == ENGINE_TRANSFORMER)
        LT_TRY_OR(join_addon(task, file, error), out);
    LT_TRY_OR(components[slot].make(task, file, resident, error), out);
    resident->signature = *wanted;
    resident->files = wanted->files;
    if (slot == ENGINE_TRANSFORMER)
        LT_TRY_OR(engine_turn_lora(task, resident, wanted, &served, error), out);
out:
    tensor_file_close(&file);
    return status;
}

lt_status engine_load(const struct engine_task *task, enum engine_slot slot,
                      struct resident **resident_out, struct lt_error *error)
{
    struct engine *engine = task->engine;
    struct resident *resident = &engine->slot[slot];
    const struct engine_size size = size_of(task, slot);
    const struct found *found = NULL;
    struct weights_signature wanted;
    bool served = false;
    LT_TRY(engine_find_model(engine, &task->spec->model, &found, error));
    LT_TRY(engine_name_weights(task, slot, found, &wanted, error));
    *resident_out = resident;
    if (is_resident(resident, &wanted, &size)) {
        served = true;
        if (slot == ENGINE_TRANSFORMER)
            LT_TRY(engine_turn_lora(task, resident, &wanted, &served, error));
    }
    if (!served) {
        engine_drop(engine, slot);
        engine_sample(engine, MEMORY_STAGE_LOAD_BEGIN, task->work->task, found->file.name);
        resident->size = size;
        const lt_status status = load(task, slot, found, &wanted, error);
        if (status != LT_OK)
            engine_drop(engine, slot);
        engine_sample(engine, status == LT_OK ? MEMORY_STAGE_LOAD_END : MEMORY_STAGE_CLEANUP,
                      task->work->task, found->file.name);
        LT_TRY(status);
    }
    if (slot == ENGINE_TRANSFORMER)
        engine_show_signature(engine, &resident->signature, &found->file.fingerprint);
    return LT_OK;
}
