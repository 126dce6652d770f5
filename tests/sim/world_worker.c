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
    hash = mix(hash, spec->model.fingerprint.byte, LT_DIGEST_BYTES);
    for (size_t i = 0; i < spec->blob_count; i++) {
        hash = mix(hash, &spec->blob[i].role, sizeof spec->blob[i].role);
        hash = mix(hash, spec->blob[i].digest.byte, LT_DIGEST_BYTES);
    }
    return hash;
}

static void *compute(const struct lt_task_spec *spec, const struct engine_blob *blob, size_t count)
{
    const uint64_t hash = fold(spec);
    uint8_t *result = malloc((size_t)spec->result_bytes);
    lt_assert(result && count > 0 && blob[0].role == LT_BLOB_LATENTS);
    if (spec->kind == LT_TASK_VAE_DECODE) {
        for (size_t i = 0; i < spec->result_bytes; i++)
            result[i] = (uint8_t)((hash >> i % 56) + i);
        return result;
    }
    const float *x = blob[0].data;
    float *v = (float *)(void *)result;
    for (size_t i = 0; i < spec->result_bytes / sizeof *v; i++)
        v[i] = 0.6f * x[i] + 0.2f * x[i ? i - 1 : 0] + 1e-3f * (float)((hash >> i % 48) & 0xff);
    return result;
}

/* The engine fails, or gives a prediction that is no number. */
static void spoil(struct world_worker *worker, const struct lt_task_spec *spec)
{
    static const lt_status errors[] = {LT_DEVICE, LT_NO_MEMORY, LT_INTERNAL, LT_NO_DEVICE_MEMORY,
                                       LT_IO};
    if (spec->kind == LT_TASK_PREDICT && world_chance(worker->world, 300)) {
        memset(worker->result, 0xff, sizeof(float));
        return;
    }
    worker->status = errors[world_draw(worker->world, LT_COUNT(errors))];
    free(worker->result);
    worker->result = NULL;
}

static void start(struct world_worker *worker, const struct worker_action *action)
{
    struct world *world = worker->world;
    lt_assert(!worker->busy);
    for (size_t i = 0; i < action->blob_count; i++) {
        const struct lt_digest digest = lt_sha256(action->blob[i].data, action->blob[i].bytes);
        if (!lt_digest_equal(&digest, &action->spec->blob[i].digest))
            world_fail(world, "a task was started with a blob of another digest");
    }
    worker->busy = true;
    worker->cancelled = false;
    worker->status = LT_OK;
    worker->result = compute(action->spec, action->blob, action->blob_count);
    if (!world->calm && world_chance(world, world->plan.engine_failure))
        spoil(worker, action->spec);
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
    free(worker->result);
    worker->result = NULL;
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
    void *result = worker->result;
    lt_status status = worker->status;
    worker->result = NULL;
    worker->busy = false;
    if (worker->cancelled) {
        free(result);
        result = NULL;
        status = LT_CANCELLED;
    }
    worker_core_finished(worker->core, status, status == LT_OK ? "" : "the device fell over",
                         result, world->now_us);
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
