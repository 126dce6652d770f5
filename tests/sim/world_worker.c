/* A worker of the world: the real protocol core with a fake engine. Its prediction is a pure
 * function of spec and blobs, so a wrong slice, a wrong timestep or a mixed-up blob changes the
 * digest of the take. */
#include "tests/sim/world.h"

#include <stdlib.h>
#include <string.h>

static uint64_t mix(uint64_t hash, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ at[i]) * 0x100000001b3u;
    return hash;
}

/* Numbers of the spec and every blob's digest; start has compared those with the bytes. */
static uint64_t fold(const struct lt_task_spec *spec)
{
    uint64_t hash = mix(0xcbf29ce484222325u, &spec->kind, sizeof spec->kind);
    hash = mix(hash, spec->shape, sizeof spec->shape);
    hash = mix(hash, &spec->timestep, sizeof spec->timestep);
    hash = mix(hash, &spec->guidance, sizeof spec->guidance);
    hash = mix(hash, &spec->drop_frames, sizeof spec->drop_frames);
    hash = mix(hash, spec->frame_at, spec->frame_at_count * sizeof *spec->frame_at);
    hash = mix(hash, spec->clean_slot, spec->clean_slot_count * sizeof *spec->clean_slot);
    hash = mix(hash, &spec->handoff_frames, sizeof spec->handoff_frames);
    hash = mix(hash, spec->addon.fingerprint.byte, LT_DIGEST_BYTES);
    hash = mix(hash, &spec->audio_guidance, sizeof spec->audio_guidance);
    hash = mix(hash, &spec->cache, sizeof spec->cache);
    hash = mix(hash, spec->reuse, spec->reuse_count * sizeof *spec->reuse);
    hash = mix(hash, &spec->time_projected, sizeof spec->time_projected);
    hash = mix(hash, spec->model.fingerprint.byte, LT_DIGEST_BYTES);
    for (size_t i = 0; i < spec->blob_count; i++) {
        hash = mix(hash, &spec->blob[i].role, sizeof spec->blob[i].role);
        hash = mix(hash, spec->blob[i].digest.byte, LT_DIGEST_BYTES);
    }
    return hash;
}

static void *compute(const struct engine_work *work)
{
    const struct lt_task_spec *spec = work->spec;
    const uint64_t hash = fold(spec);
    uint8_t *result = malloc((size_t)spec->result_bytes);
    lt_assert(result);
    if (spec->kind != LT_TASK_PREDICT) { /* pixels, latents, features: finite as f32 too */
        for (size_t i = 0; i < spec->result_bytes; i++)
            result[i] = (uint8_t)((hash >> i % 56) + i) & 0x3f;
        return result;
    }
    lt_assert(work->blob_count > 0 && work->blob[0].role == LT_BLOB_LATENTS);
    const float *x = work->blob[0].data;
    float *v = (float *)(void *)result;
    for (size_t i = 0; i < spec->result_bytes / sizeof *v; i++)
        v[i] = 0.6f * x[i] + 0.2f * x[i ? i - 1 : 0] + 1e-3f * (float)((hash >> i % 48) & 0xff);
    return result;
}

/* The engine fails, or gives a prediction that is no number. */
static void spoil(struct world *world, struct engine_work *work)
{
    static const lt_status errors[] = {LT_DEVICE, LT_NO_MEMORY, LT_INTERNAL, LT_NO_DEVICE_MEMORY,
                                       LT_IO};
    if (work->spec->kind == LT_TASK_PREDICT && world_chance(world, 300)) {
        memset(work->result, 0xff, sizeof(float));
        return;
    }
    work->status = errors[world_draw(world, LT_COUNT(errors))];
    free(work->result);
    work->result = NULL;
}

static void check_blobs(struct world *world, const struct engine_work *work)
{
    for (size_t i = 0; i < work->blob_count; i++) {
        const struct lt_digest digest = lt_sha256(work->blob[i].data, work->blob[i].bytes);
        if (!lt_digest_equal(&digest, &work->spec->blob[i].digest))
            world_fail(world, "a task was started with a blob of another digest");
    }
}

static void start(struct world_worker *worker, const struct worker_action *action)
{
    struct world *world = worker->world;
    lt_assert(!worker->busy && action->work_count > 0);
    worker->busy = true;
    worker->cancelled = false;
    worker->work_count = action->work_count;
    for (size_t i = 0; i < action->work_count; i++) {
        struct engine_work *work = &worker->work[i];
        *work = action->work[i];
        if (i > 0 && !engine_may_join(worker->work[0].spec, work->spec))
            world_fail(world, "a batch of tasks that may not join each other");
        check_blobs(world, work);
        work->status = LT_OK;
        work->result = compute(work);
        if (!world->calm && world_chance(world, world->plan.engine_failure))
            spoil(world, work);
    }
    const int64_t took_us = 20000 + world_draw(world, 200000);
    worker->done_us = world->now_us + (worker->slow ? 20 * took_us : took_us);
}

static void perform(void *context, const struct worker_action *action)
{
    struct world_worker *worker = context;
    struct lt_error error;
    switch (action->kind) {
    case WORKER_SEND:
        faults_send(worker->world, worker->link, worker->peer.id[0] - 1u, &action->packet, &error);
        break;
    case WORKER_RECONNECT:
        worker->reconnect = true;
        break;
    case WORKER_START:
        start(worker, action);
        break;
    case WORKER_CANCEL:
        worker->cancelled = true;
        break;
    case WORKER_EXIT:
        worker->exited = true;
        break;
    }
}

void worker_boot(struct world *world, uint32_t index)
{
    static const struct lt_model_file models[] = {
        {.name = "high.gguf", .fingerprint = {{1}}, .bytes = 1},
        {.name = "low.gguf", .fingerprint = {{2}}, .bytes = 1},
        {.name = "vae.safetensors", .fingerprint = {{3}}, .bytes = 1},
        {.name = "text.gguf", .fingerprint = {{4}}, .bytes = 1},
        {.name = "talk.safetensors", .fingerprint = {{5}}, .bytes = 1},
    };
    /* The first worker has all, so that every task can be done somewhere. */
    const uint32_t skipped =
        index > 0 && world->plan.mixed_models ? world_draw(world, LT_COUNT(models)) : 0;
    struct world_worker *worker = &world->worker[index];
    struct lt_error error;
    worker->world = world;
    worker->boots++;
    snprintf(worker->name, sizeof worker->name, "w%u", index);
    worker->peer = (struct lt_peer){{(uint8_t)(index + 1)}};
    memcpy(worker->peer.id + 8, &worker->boots, sizeof worker->boots);
    lt_assert(lt_hub_worker(world->hub, worker->peer, &worker->link, &error) == LT_OK);
    const struct worker_params params = {
        .name = worker->name, /* the core keeps it */
        .build = "sim",
        .device = "sim",
        .kernel_class = world->plan.two_classes && index % 2 ? "other" : "sim",
        .model = models + skipped,
        .model_count = LT_COUNT(models) - skipped,
        .boot_nonce = worker->boots,
        .memory_bytes = 1 << 20,
        .blob_cache_bytes = world->plan.blob_cache_bytes,
        .jitter_seed = world->seed + index,
    };
    lt_assert(worker_core_create(&params, perform, worker, world->now_us, &worker->core, &error) ==
              LT_OK);
    worker_core_batch(worker->core, index % 2 ? world->plan.batch_max : 1);
    worker->slow = !world->calm && world_chance(world, world->plan.slow);
}

void worker_kill(struct world *world, uint32_t index)
{
    struct world_worker *worker = &world->worker[index];
    if (!worker->core)
        return;
    worker_core_destroy(&worker->core);
    worker->link->ops->destroy(worker->link);
    lt_hub_cut(world->hub, worker->peer);
    for (size_t i = 0; worker->busy && i < worker->work_count; i++)
        free(worker->work[i].result);
    worker->link = NULL;
    worker->busy = worker->reconnect = worker->exited = false;
    worker->frozen_until_us = 0;
}

void worker_freeze(struct world *world, uint32_t index, int64_t us)
{
    struct world_worker *worker = &world->worker[index];
    if (worker->frozen_until_us > world->now_us)
        return;
    worker->frozen_until_us = world->now_us + us;
    worker->done_us += us;
}

static void finish(struct world *world, struct world_worker *worker)
{
    struct engine_work work[ENGINE_BATCH_MAX]; /* the last result may start the next batch */
    const size_t count = worker->work_count;
    memcpy(work, worker->work, count * sizeof *work);
    worker->busy = false;
    for (size_t i = 0; i < count; i++) {
        if (worker->cancelled) {
            free(work[i].result);
            work[i].result = NULL;
            work[i].status = LT_CANCELLED;
        }
        worker_core_finished(worker->core, work[i].task, work[i].status,
                             work[i].status == LT_OK ? "" : "the device fell over", work[i].result,
                             world->now_us);
    }
}

/* In the order of the loop in worker.c: a worker that was stopped for long notices before it reads
 * old packets. */
void worker_run_due(struct world *world, uint32_t index)
{
    struct world_worker *worker = &world->worker[index];
    struct lt_packet packet;
    struct lt_error error;
    bool got = true;
    if (!worker->core) {
        if (world->now_us >= worker->up_us)
            worker_boot(world, index);
        return;
    }
    if (worker->frozen_until_us > world->now_us)
        return;
    if (worker_core_deadline_us(worker->core) <= world->now_us)
        worker_core_tick(worker->core, world->now_us);
    if (worker->reconnect) {
        worker->reconnect = false;
        lt_hub_cut(world->hub, worker->peer);
        worker_core_connected(worker->core, world->now_us);
    }
    while (worker->link->ops->receive(worker->link, 0, &packet, &got, &error) == LT_OK && got) {
        worker_core_receive(worker->core, &packet, world->now_us);
        world->events++;
    }
    if (worker->busy && (worker->cancelled || worker->done_us <= world->now_us))
        finish(world, worker);
    if (worker->exited) {
        worker_kill(world, index);
        worker->up_us = world->now_us + 500000;
    }
}

int64_t worker_next_us(const struct world *world, uint32_t index)
{
    const struct world_worker *worker = &world->worker[index];
    if (!worker->core)
        return worker->up_us;
    if (worker->frozen_until_us > world->now_us)
        return worker->frozen_until_us;
    int64_t next = worker_core_deadline_us(worker->core);
    if (worker->busy && worker->done_us < next)
        next = worker->done_us;
    return next;
}
