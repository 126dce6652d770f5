/* The LoRAs of a task on the resident transformer: which weights are wanted, named; what is loaded
 * with the model; and what a change of strengths, or their absence, costs (nothing is read). */
#include "worker/engine_private.h"

#include <string.h>

static lt_status find_sources(const struct engine_task *task, struct lora_source *source,
                              struct signature_lora *named, struct lt_error *error)
{
    const struct engine_work *work = task->work;
    if (work->lora_count > ENGINE_LORAS_MAX)
        return lt_fail(error, LT_BAD_INPUT, "task: %zu LoRAs, at most %d are possible",
                       work->lora_count, ENGINE_LORAS_MAX);
    for (size_t i = 0; i < work->lora_count; i++) {
        const struct engine_lora *lora = &work->lora[i];
        const struct found *found = NULL;
        LT_TRY(engine_find_model(task->engine, &lora->file, &found, error));
        source[i] = (struct lora_source){found->path, lora->strength, lora->strength_count,
                                         (enum lora_expert)lora->expert, lora->plain_peft};
        named[i] = (struct signature_lora){found->file.fingerprint, lora->strength,
                                           lora->strength_count, lora->expert, lora->plain_peft};
    }
    return LT_OK;
}

lt_status engine_name_weights(const struct engine_task *task, enum engine_slot slot,
                              const struct found *found, struct weights_signature *wanted_out,
                              struct lt_error *error)
{
    const struct engine *engine = task->engine;
    const bool is_dit = slot == ENGINE_TRANSFORMER;
    const struct found *addon = NULL;
    if (is_dit && task->spec->addon.name)
        LT_TRY(engine_find_model(engine, &task->spec->addon, &addon, error));
    const struct signature_base base = {.model = found->file.fingerprint,
                                        .addon = addon ? addon->file.fingerprint
                                                       : (struct lt_digest){{0}},
                                        .kernels = engine->kernel_class,
                                        .device = "host",
                                        .precision = task->spec->precision,
                                        .text_len = is_dit ? task->spec->text_len : 0,
                                        .device_memory = engine->memory.device_memory,
                                        .ram = engine->memory.ram,
                                        .blocks_to_swap = engine->memory.blocks_to_swap,
                                        .prefetch = engine->memory.prefetch,
                                        .swap_order = engine->memory.swap_order};
    struct lora_source source[ENGINE_LORAS_MAX];
    struct signature_lora named[ENGINE_LORAS_MAX];
    if (is_dit)
        LT_TRY(find_sources(task, source, named, error));
    signature_make(&base, named, is_dit ? task->work->lora_count : 0, wanted_out);
    return LT_OK;
}

/* A file of theirs that changed is told before it is used. */
static lt_status check_files(const struct engine_task *task, struct lt_error *error)
{
    for (size_t i = 0; i < task->work->lora_count; i++) {
        const struct found *found = NULL;
        struct tensor_file *file = NULL;
        LT_TRY(engine_find_model(task->engine, &task->work->lora[i].file, &found, error));
        LT_TRY(engine_open_found(task->engine, found, &file, error));
        tensor_file_close(&file);
    }
    return LT_OK;
}

lt_status engine_open_lora(const struct engine_task *task, struct tensor_file *model,
                           struct lora_set **set_out, struct lt_error *error)
{
    struct lora_source source[ENGINE_LORAS_MAX];
    struct signature_lora named[ENGINE_LORAS_MAX];
    const struct lora_params params = {
        .source = source,
        .count = task->work->lora_count,
        .type = task->spec->precision == LT_PRECISION_F32 ? LT_TYPE_F32 : LT_TYPE_BF16};
    LT_TRY(find_sources(task, source, named, error));
    LT_TRY(check_files(task, error));
    return lora_set_create(&params, model, set_out, error);
}

lt_status engine_turn_lora(const struct engine_task *task, struct resident *resident,
                           const struct weights_signature *wanted, bool *served_out,
                           struct lt_error *error)
{
    struct lora_source source[ENGINE_LORAS_MAX];
    struct signature_lora named[ENGINE_LORAS_MAX];
    const bool none = task->work->lora_count == 0;
    *served_out = none || lt_digest_equal(&resident->files, &wanted->files);
    if (!*served_out)
        return LT_OK;
    if (!none) {
        LT_TRY(find_sources(task, source, named, error));
        LT_TRY(lora_set_strengths(resident->lora, source, task->work->lora_count, error));
        lora_set_step(resident->lora, task->work->step);
    }
    dit_set_lora(resident->dit, none ? NULL : resident->lora);
    resident->signature = *wanted;
    return LT_OK;
}

struct lt_digest engine_lora_state(const struct engine_task *task)
{
    const struct lt_digest none = {{0}};
    return task->work->lora_count > 0 ? lora_set_state(task->engine->slot[ENGINE_TRANSFORMER].lora)
                                      : none;
}

bool engine_same_loras(const struct engine_work *a, const struct engine_work *b)
{
    if (a->lora_count != b->lora_count || (a->lora_count > 0 && a->step != b->step))
        return false;
    for (size_t i = 0; i < a->lora_count; i++) {
        const struct engine_lora *x = &a->lora[i], *y = &b->lora[i];
        if (strcmp(x->file.name, y->file.name) != 0 ||
            !lt_digest_equal(&x->file.fingerprint, &y->file.fingerprint) ||
            x->strength_count != y->strength_count || x->expert != y->expert ||
            x->plain_peft != y->plain_peft ||
            (x->strength_count > 0 &&
             memcmp(x->strength, y->strength, x->strength_count * sizeof *x->strength) != 0))
            return false;
    }
    return true;
}

void engine_show_signature(struct engine *engine, const struct weights_signature *signature,
                           const struct lt_digest *fingerprint)
{
    const struct lt_digest none = {{0}}, whole = signature ? signature_whole(signature) : none;
    pthread_mutex_lock(&engine->lock);
    engine->signature = whole;
    engine->resident = signature ? *fingerprint : none;
    pthread_mutex_unlock(&engine->lock);
}

struct lt_digest engine_resident(struct engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    const struct lt_digest resident = engine->resident;
    pthread_mutex_unlock(&engine->lock);
    return resident;
}

struct lt_digest engine_signature(struct engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    const struct lt_digest signature = engine->signature;
    pthread_mutex_unlock(&engine->lock);
    return signature;
}
