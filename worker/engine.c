/* A task, step by step: check the spec against its blobs, find the model by name and fingerprint,
 * load it if another one is resident, compute, check that every number is finite. */
#include "worker/engine_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES_MAX = 256 };

/* -- life -------------------------------------------------------------------------------------- */

/* A card's own limit is then the user's too. */
static lt_status open_device(struct engine *engine, const struct engine_params *params,
                             struct lt_error *error)
{
    const struct device_params device = {
        .limit_bytes = {[DEVICE_MEMORY_LOCAL] = params->memory.device_memory},
        .copy_bytes_per_second = params->memory.copy_bandwidth,
        .sync_ops = params->memory.sync_ops};
    struct device_stats stats;
    char kernels[96];
    LT_TRY(device_open(params->device ? params->device : "host", &device, &engine->device, error));
    device_stats(engine->device, &stats);
    engine->memory.device_memory = stats.limit_bytes[DEVICE_MEMORY_LOCAL];
    device_class(engine->device, kernels, sizeof kernels);
    snprintf(engine->kernel_class, sizeof engine->kernel_class, "%s %.24s", kernels,
             params->kernel_selector);
    return device_kernels(engine->device, params->kernel_selector, &engine->kernels, error);
}

lt_status engine_create(const struct engine_params *params, struct engine **engine_out,
                        struct lt_error *error)
{
    struct engine *engine = calloc(1, sizeof *engine);
    if (!engine)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the engine");
    pthread_mutex_init(&engine->lock, NULL);
    engine->thread_count = params->thread_count;
    atomic_store(&engine->batch_max, 1);
    engine->memory = params->memory;
    engine->blob_bytes = params->blob_bytes;
    engine->verify = params->verify;
    lt_status status = open_device(engine, params, error);
    if (status == LT_OK)
        status = engine_windows_create(engine, error);
    engine->reuse_bytes = params->reuse_bytes;
    if (status == LT_OK)
        status = engine_reuse_create(engine, error);
    if (status == LT_OK)
        status = diagnostics_create(SAMPLES_MAX, &engine->diagnostics, error);
    for (size_t i = 0; i < params->model_dir_count && status == LT_OK; i++)
        status = engine_add_models(engine, params->model_dir[i], error);
    if (status != LT_OK) {
        engine_destroy(&engine);
        return status;
    }
    engine_sample(engine, MEMORY_STAGE_START, 0, "engine");
    engine->runtime_bytes = memory_program_bytes() + device_staging_bytes(engine->device);
    *engine_out = engine;
    return LT_OK;
}

void engine_destroy(struct engine **engine)
{
    struct engine *e = *engine;
    if (!e)
        return;
    for (int slot = 0; slot < ENGINE_SLOT_COUNT; slot++)
        engine_drop(e, (enum engine_slot)slot);
    lt_lru_destroy(&e->windows);
    lt_lru_destroy(&e->reuse);
    diagnostics_destroy(&e->diagnostics);
    lt_exec_destroy(&e->exec[0]);
    lt_exec_destroy(&e->exec[1]);
    device_destroy(&e->device);
    for (size_t i = 0; i < e->model_count; i++)
        free(e->found[i].path);
    pthread_mutex_destroy(&e->lock);
    free(e);
    *engine = NULL;
}

const struct lt_model_file *engine_models(const struct engine *engine, size_t *count_out)
{
    *count_out = engine->model_count;
    return engine->model;
}

uint32_t engine_batch_max(const struct engine *engine)
{
    return atomic_load(&engine->batch_max);
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
    LT_TRY(device_bind(engine->device, error));
    if (!*exec)
        LT_TRY(device_exec_create(engine->device,
                                  &(struct lt_exec_params){engine->thread_count, precision}, exec,
                                  error));
    lt_exec_set_cancel(*exec, &progress->cancel);
    *exec_out = *exec;
    return LT_OK;
}

/* -- checks ------------------------------------------------------------------------------------ */

const struct engine_blob *engine_find_blob(const struct engine_task *task, enum lt_blob_role role)
{
    for (size_t i = 0; i < task->work->blob_count; i++)
        if (task->work->blob[i].role == role)
            return &task->work->blob[i];
    return NULL;
}

lt_status engine_shape(const uint32_t shape[4], struct lt_view *view_out, struct lt_error *error)
{
    uint64_t values = 1;
    int64_t dim[4];
    for (int i = 0; i < 4; i++) {
        if (shape[i] < 1 || shape[i] > ENGINE_VALUES_MAX ||
            (values *= shape[i]) > ENGINE_VALUES_MAX)
            return lt_fail(error, LT_BAD_INPUT, "task: a slice of [%u, %u, %u, %u] is not possible",
                           shape[0], shape[1], shape[2], shape[3]);
        dim[i] = shape[i];
    }
    *view_out = lt_view_make(NULL, LT_TYPE_F32, 4, dim);
    return LT_OK;
}

lt_status engine_slice(const struct engine_task *task, enum lt_blob_role role,
                       struct lt_view *view_out, struct lt_error *error)
{
    const struct engine_blob *blob = engine_find_blob(task, role);
    struct lt_view view;
    LT_TRY(engine_shape(task->spec->shape, &view, error));
    const uint64_t bytes = (uint64_t)lt_view_count(&view) * sizeof(float);
    if (!blob || blob->bytes != bytes)
        return lt_fail(error, LT_BAD_INPUT, "task: latents of %zu bytes, expected %llu",
                       blob ? blob->bytes : 0, (unsigned long long)bytes);
    view.data = (void *)(uintptr_t)blob->data;
    *view_out = view;
    return LT_OK;
}

lt_status engine_check_result_bytes(const struct engine_task *task, uint64_t bytes,
                                    struct lt_error *error)
{
    if (task->spec->result_bytes == bytes)
        return LT_OK;
    return lt_fail(error, LT_BAD_INPUT, "task: announces a result of %llu bytes, it has %llu",
                   (unsigned long long)task->spec->result_bytes, (unsigned long long)bytes);
}

lt_status engine_check_finite(const float *values, int64_t count, const char *what,
                              struct lt_error *error)
{
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(values[i]))
            return lt_fail(error, LT_BAD_INPUT,
                           "the %s is not finite: element %lld is %g (damaged weights or latents?)",
                           what, (long long)i, values[i]);
    return LT_OK;
}

void engine_begin(const struct engine_task *task, unsigned total)
{
    atomic_store(&task->progress->total, total);
    atomic_store(&task->progress->phase, LT_PHASE_RUNNING);
}

/* -- dispatch ---------------------------------------------------------------------------------- */

static const char *kind_name(enum lt_task_kind kind)
{
    switch (kind) {
    case LT_TASK_PREDICT:
        return "predict";
    case LT_TASK_VAE_DECODE:
        return "vae-decode";
    case LT_TASK_VAE_ENCODE:
        return "vae-encode";
    case LT_TASK_ENCODE_TEXT:
        return "encode-text";
    case LT_TASK_ENCODE_IMAGE:
        return "encode-image";
    case LT_TASK_ENCODE_AUDIO:
        return "encode-audio";
    case LT_TASK_COMPARE_TIMES:
        return "compare-times";
    default:
        return "unknown";
    }
}

bool engine_may_join(const struct lt_task_spec *a, const struct lt_task_spec *b)
{
    return a->kind == LT_TASK_PREDICT && b->kind == LT_TASK_PREDICT &&
           strcmp(a->model.name, b->model.name) == 0 &&
           lt_digest_equal(&a->model.fingerprint, &b->model.fingerprint) &&
           a->precision == b->precision && a->text_len == b->text_len &&
           !a->addon.name == !b->addon.name &&
           (!a->addon.name || (strcmp(a->addon.name, b->addon.name) == 0 &&
                               lt_digest_equal(&a->addon.fingerprint, &b->addon.fingerprint)));
}

static lt_status run_one(const struct engine_task *task, void **result_out, struct lt_error *error)
{
    switch (task->spec->kind) {
    case LT_TASK_VAE_DECODE:
        return engine_vae_decode(task, result_out, error);
    case LT_TASK_VAE_ENCODE:
        return engine_vae_encode(task, result_out, error);
    case LT_TASK_ENCODE_TEXT:
        return engine_encode_text(task, result_out, error);
    case LT_TASK_ENCODE_IMAGE:
        return engine_encode_image(task, result_out, error);
    case LT_TASK_COMPARE_TIMES:
        return engine_compare_times(task, result_out, error);
    case LT_TASK_ENCODE_AUDIO:
        return engine_encode_audio(task, result_out, error);
    default:
        return lt_fail(error, LT_UNSUPPORTED, "task: kind %d is not built yet",
                       (int)task->spec->kind);
    }
}

static lt_status prepare(struct engine_task *task, struct lt_error *error)
{
    if (task->spec->precision > LT_PRECISION_BF16)
        return lt_fail(error, LT_BAD_INPUT, "task: precision %u is unknown", task->spec->precision);
    return take_exec(task->engine, (enum lt_precision)task->spec->precision, task->progress,
                     &task->exec, error);
}

/* A failing call may have seen no more than a NULL: what a broken device says goes before it. */
static void tell_broken(struct engine *engine, struct engine_work *work, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct lt_error broken;
        if (work[i].status == LT_OK || work[i].status == LT_DEVICE ||
            device_bind(engine->device, &broken) != LT_DEVICE)
            continue;
        work[i].status = LT_DEVICE;
        work[i].error = broken;
    }
}

void engine_run(struct engine *engine, struct engine_work *work, size_t count,
                struct engine_progress *progress)
{
    struct engine_task task[ENGINE_BATCH_MAX];
    lt_assert(count >= 1 && count <= ENGINE_BATCH_MAX);
    atomic_store(&progress->done, 0);
    atomic_store(&progress->total, 0);
    atomic_store(&progress->phase, LT_PHASE_LOADING);
    for (size_t i = 0; i < count; i++) {
        lt_assert(i == 0 || (engine_may_join(work[0].spec, work[i].spec) &&
                             engine_same_loras(&work[0], &work[i])));
        task[i] = (struct engine_task){
            .engine = engine, .work = &work[i], .spec = work[i].spec, .progress = progress};
        work[i].result = NULL;
        work[i].status = prepare(&task[i], &work[i].error);
    }
    if (work[0].status != LT_OK) /* they share a precision: all of them failed */
        return;
    engine_sample(engine, MEMORY_STAGE_TASK_BEGIN, work[0].task, kind_name(work[0].spec->kind));
    if (work[0].spec->kind == LT_TASK_PREDICT)
        engine_predict(task, count);
    else
        work[0].status = run_one(&task[0], &work[0].result, &work[0].error);
    tell_broken(engine, work, count);
    engine_sample(engine, MEMORY_STAGE_TASK_END, work[0].task, kind_name(work[0].spec->kind));
}
