#include "worker/core_private.h"

#include "common/rng.h"

#include <stdlib.h>
#include <string.h>

/* -- connection -------------------------------------------------------------------------------- */

/* Doubling pauses with full jitter, so that a thousand workers do not come back in one instant. */
static void disconnect(struct worker_core *core, int64_t now_us)
{
    const uint32_t doublings = core->attempts < 8 ? core->attempts : 8;
    int64_t pause = (int64_t)BACKOFF_US << doublings;
    uint32_t word;
    const struct lt_philox jitter =
        lt_philox_stream(core->params.jitter_seed, LT_STREAM_TEST, core->attempts, 0);
    lt_philox_u32(&jitter, 0, &word, 1);
    pause = pause < BACKOFF_MAX_US ? pause : BACKOFF_MAX_US;
    core->link = LINK_DOWN;
    core->link_since_us = now_us;
    core->retry_us =
        now_us + (core->attempts ? pause / 2 + (int64_t)(word % (uint64_t)(pause / 2 + 1)) : 0);
    core->attempts++;
    for (int i = 0; i < TASKS_MAX; i++)
        core->task[i].stream = 0;
}

void worker_core_connected(struct worker_core *core, int64_t now_us)
{
    struct lt_held held[TASKS_MAX];
    struct lt_message message = {.kind = LT_MESSAGE_HELLO};
    size_t held_count = 0;
    for (int i = 0; i < TASKS_MAX; i++) {
        const struct task *task = &core->task[i];
        if (task->stage != STAGE_NONE && !task->dropped)
            held[held_count++] =
                (struct lt_held){task->number, task->epoch, task->stage == STAGE_FINISHED};
    }
    message.hello = (struct lt_hello){
        .name = core->params.name,
        .boot_nonce = core->params.boot_nonce,
        .version_min = LT_WIRE_MAJOR,
        .version_max = LT_WIRE_MAJOR,
        .version_minor = LT_WIRE_MINOR,
        .build = core->params.build,
        .device = core->params.device,
        .kernel_class = core->params.kernel_class,
        .memory_bytes = core->params.memory_bytes,
        .slot_count = worker_core_slot_count(core),
        .model = (struct lt_model_file *)core->params.model,
        .model_count = core->params.model_count,
        .held = held,
        .held_count = held_count,
    };
    core->link = LINK_GREETING;
    core->link_since_us = now_us;
    core->stats.sessions++;
    worker_core_send(core, &message);
}

/* -- messages ---------------------------------------------------------------------------------- */

static void on_welcome(struct worker_core *core, const struct lt_welcome *welcome, int64_t now_us)
{
    if (core->link != LINK_GREETING)
        return;
    core->link = LINK_UP;
    core->bulk_us = now_us;
    core->attempts = 0;
    core->session = welcome->session;
    core->heartbeat_ms = welcome->heartbeat_ms;
    core->lease_ms = welcome->lease_ms;
    core->credit_bytes = welcome->credit_bytes ? welcome->credit_bytes : LT_CREDIT_BYTES_DEFAULT;
    core->beat_us = now_us;
    for (int i = 0; i < TASKS_MAX; i++) {
        struct task *task = &core->task[i];
        bool kept = false;
        if (task->stage == STAGE_NONE || task->dropped)
            continue;
        for (size_t k = 0; k < welcome->keep_count; k++)
            if (welcome->keep[k].task == task->number) {
                kept = true;
                if (welcome->keep[k].epoch > task->epoch)
                    task->epoch = welcome->keep[k].epoch;
            }
        if (task->stage == STAGE_FINISHED)
            worker_core_offer(core, task,
                              now_us); /* even if the lease is gone: it may be adopted */
        else if (!kept)
            worker_core_drop_task(core, task, false);
    }
    for (int i = 0; i < BLOBS_MAX; i++)
        if (core->blobs.blob[i].state == BLOB_FETCHING)
            worker_core_fetch(core, &core->blobs.blob[i], now_us);
    worker_core_start_next(core);
    if (welcome->draining)
        worker_core_drain(core, now_us);
}

static void on_reject(struct worker_core *core, const struct lt_reject *reject, int64_t now_us)
{
    if (core->link != LINK_GREETING)
        return;
    if (reject->status == LT_UNSUPPORTED || reject->status == LT_BAD_INPUT) {
        worker_core_leave(core, (lt_status)reject->status, reject->text);
        return;
    }
    disconnect(core, now_us);
    if (reject->retry_after_ms)
        core->retry_us = now_us + 1000ll * reject->retry_after_ms;
}

void worker_core_receive(struct worker_core *core, const struct lt_packet *packet, int64_t now_us)
{
    const struct lt_message *message = &packet->message;
    if (core->link == LINK_DOWN || core->exiting)
        return; /* late packets of an old session */
    if (core->link == LINK_GREETING && message->kind != LT_MESSAGE_WELCOME &&
        message->kind != LT_MESSAGE_REJECT && message->kind != LT_MESSAGE_BYE)
        return;
    core->heard_us = now_us;
    if (message->kind == LT_MESSAGE_WANT || message->kind == LT_MESSAGE_CHUNK ||
        message->kind == LT_MESSAGE_CREDIT || message->kind == LT_MESSAGE_ABORT)
        core->bulk_us = now_us;
    switch (message->kind) {
    case LT_MESSAGE_WELCOME:
        on_welcome(core, &message->welcome, now_us);
        break;
    case LT_MESSAGE_REJECT:
        on_reject(core, &message->reject, now_us);
        break;
    case LT_MESSAGE_ASSIGN:
        worker_core_on_assign(core, &message->assign, now_us);
        break;
    case LT_MESSAGE_BEAT_ACK:
        worker_core_on_revoked(core, &message->beat_ack);
        break;
    case LT_MESSAGE_CANCEL:
        worker_core_on_cancel(core, &message->cancel);
        break;
    case LT_MESSAGE_DRAIN:
        worker_core_drain(core, now_us);
        break;
    case LT_MESSAGE_BYE:
        disconnect(core, now_us);
        break;
    case LT_MESSAGE_COMMITTED:
        worker_core_on_committed(core, &message->committed, now_us);
        worker_core_after_work(core);
        break;
    case LT_MESSAGE_WANT:
        worker_core_on_want(core, &message->want, now_us);
        worker_core_after_work(core);
        break;
    case LT_MESSAGE_CHUNK:
        worker_core_on_chunk(core, packet, now_us);
        break;
    case LT_MESSAGE_CREDIT:
        worker_core_on_credit(core, &message->credit, now_us);
        break;
    case LT_MESSAGE_ABORT:
        worker_core_on_abort(core, &message->abort, now_us);
        break;
    default:
        break; /* frames of the other direction never get here */
    }
}

/* -- time -------------------------------------------------------------------------------------- */

static void beat(struct worker_core *core)
{
    struct lt_progress leases[TASKS_MAX];
    struct lt_message message = {.kind = LT_MESSAGE_BEAT};
    size_t count = 0;
    for (int i = 0; i < TASKS_MAX; i++) {
        const struct task *task = &core->task[i];
        if (task->stage == STAGE_NONE || task->dropped)
            continue;
        leases[count] = (struct lt_progress){task->number, task->epoch, LT_PHASE_WAITING, 0, 0};
        if (task->stage == STAGE_RUNNING) {
            leases[count] = core->progress;
            leases[count].task = task->number;
            leases[count].epoch = task->epoch;
        } else if (task->stage == STAGE_FINISHED) {
            leases[count].phase = LT_PHASE_SENDING;
        }
        count++;
    }
    message.beat = (struct lt_beat){.sequence = ++core->beat_sequence,
                                    .lease = leases,
                                    .lease_count = count,
                                    .slot_count = worker_core_slot_count(core),
                                    .memory = core->memory,
                                    .resident = core->resident};
    worker_core_send(core, &message);
}

void worker_core_tick(struct worker_core *core, int64_t now_us)
{
    if (core->exiting)
        return;
    if (core->link == LINK_DOWN && now_us >= core->retry_us) {
        core->link = LINK_GREETING; /* until connected says HELLO */
        core->link_since_us = now_us;
        worker_core_act(core, &(struct worker_action){.kind = WORKER_RECONNECT});
        return;
    }
    if (core->link == LINK_GREETING && now_us - core->link_since_us >= GREETING_US)
        disconnect(core, now_us);
    if (core->link == LINK_UP && now_us - core->heard_us >= 1000ll * core->lease_ms)
        disconnect(core, now_us); /* self-fence: nothing is offered until a new WELCOME */
    /* Control may be well while bulk is dead: beats would keep a lease that never gets its bytes.
     */
    if (!worker_core_waits_for_bulk(core))
        core->bulk_us = now_us;
    if (core->link == LINK_UP && now_us - core->bulk_us >= 1000ll * core->lease_ms)
        disconnect(core, now_us);
    if (core->link == LINK_UP && now_us >= core->beat_us) {
        core->beat_us = now_us + 1000ll * core->heartbeat_ms;
        beat(core);
        worker_core_resend(core, now_us);
    }
    if (core->link != LINK_UP && now_us - core->heard_us > UNHEARD_US_MAX)
        for (int i = 0; i < TASKS_MAX; i++)
            if (core->task[i].stage == STAGE_FINISHED)
                worker_core_forget_task(core, &core->task[i]);
    if (core->link != LINK_UP)
        worker_core_after_work(core);
}

int64_t worker_core_deadline_us(const struct worker_core *core)
{
    switch (core->link) {
    case LINK_DOWN:
        return core->retry_us;
    case LINK_GREETING:
        return core->link_since_us + GREETING_US;
    default:
        return core->beat_us;
    }
}

void worker_core_progress(struct worker_core *core, uint32_t phase, uint32_t done, uint32_t total)
{
    core->progress.phase = phase;
    core->progress.done = done;
    core->progress.total = total;
}

void worker_core_memory(struct worker_core *core, const struct lt_beat_memory *memory)
{
    core->memory = *memory;
}

void worker_core_resident(struct worker_core *core, const struct lt_digest *fingerprint)
{
    core->resident = *fingerprint;
}

void worker_core_batch(struct worker_core *core, uint32_t batch_max)
{
    core->batch_max = batch_max < 1                  ? 1
                      : batch_max > ENGINE_BATCH_MAX ? ENGINE_BATCH_MAX
                                                     : batch_max;
}

bool worker_core_is_idle(const struct worker_core *core)
{
    for (int i = 0; i < TASKS_MAX; i++)
        if (core->task[i].stage != STAGE_NONE)
            return false;
    return true;
}

void worker_core_stats(const struct worker_core *core, struct worker_core_stats *stats_out)
{
    *stats_out = core->stats;
}

/* -- life -------------------------------------------------------------------------------------- */

lt_status worker_core_create(const struct worker_params *params, worker_act *act_function,
                             void *context, int64_t now_us, struct worker_core **core_out,
                             struct lt_error *error)
{
    struct worker_core *core = calloc(1, sizeof *core);
    if (!core)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the worker");
    core->params = *params;
    core->batch_max = 1;
    core->act = act_function;
    core->context = context;
    core->retry_us = core->heard_us = now_us;
    core->heartbeat_ms = 2000;
    core->lease_ms = 30000;
    core->credit_bytes = LT_CREDIT_BYTES_DEFAULT;
    core->blobs.cache_bytes = params->blob_cache_bytes;
    *core_out = core;
    return LT_OK;
}

void worker_core_destroy(struct worker_core **core)
{
    if (!*core)
        return;
    for (int i = 0; i < TASKS_MAX; i++)
        if ((*core)->task[i].stage != STAGE_NONE)
            worker_core_forget_task(*core, &(*core)->task[i]);
    blobs_fini(&(*core)->blobs);
    free(*core);
    *core = NULL;
}
