#include "worker/core.h"

#include "common/rng.h"
#include "worker/blobs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FILE_NAME_BYTES = 256, /* what file systems allow */
    TASKS_MAX = 32,        /* running, waiting and finished ones whose result is not committed */
    GREETING_US = 5000000, /* a HELLO without an answer */
    BACKOFF_US = 200000,   /* first pause before a new connection, doubled up to … */
    BACKOFF_MAX_US = 30000000,
    RESEND_US_MIN = 1000000,   /* an OFFER or FETCH without an answer */
    UNHEARD_US_MAX = 600000000 /* results are held this long without a coordinator */
};

enum link_state { LINK_DOWN, LINK_GREETING, LINK_UP };
enum task_stage { STAGE_NONE, STAGE_FETCHING, STAGE_RUNNING, STAGE_FINISHED };

struct task {
    enum task_stage stage;
    uint64_t number, epoch, order; /* order: of arrival */
    struct lt_task_spec spec;
    char model_name[LT_TEXT_BYTES_MAX + 1];
    char file_name[LT_SPEC_LORAS_MAX + 1][FILE_NAME_BYTES]; /* of LoRAs, and of the add-on */
    struct engine_lora lora[LT_SPEC_LORAS_MAX];
    float lora_strength[LT_SPEC_LORAS_MAX];
    bool dropped; /* running, but nobody wants the result any more */
    bool release; /* and the coordinator is to be told when it has ended */
    uint8_t *result;
    struct lt_digest digest;
    uint64_t stream; /* of the offer under way, 0: none */
    struct lt_stream_sender sender;
    int64_t offered_us; /* last OFFER or progress */
};

struct worker_core {
    struct worker_params params;
    worker_act *act;
    void *context;
    enum link_state link;
    int64_t link_since_us, retry_us, heard_us, beat_us;
    int64_t bulk_us; /* when the bulk connection last spoke, or was not waited for */
    uint32_t attempts, beat_sequence;
    uint64_t session, next_stream, next_order;
    uint32_t heartbeat_ms, lease_ms;
    uint64_t credit_bytes;
    bool draining, exiting;
    struct task task[TASKS_MAX];
    struct blobs blobs;
    uint32_t batch_max;
    struct engine_work work[ENGINE_BATCH_MAX]; /* what runs */
    struct lt_progress progress;               /* of all that runs */
    struct lt_beat_memory memory;
    struct lt_digest resident;
    struct worker_core_stats stats;
};

/* -- small things ------------------------------------------------------------------------------ */

static void act(struct worker_core *core, const struct worker_action *action)
{
    core->act(core->context, action);
}

static void send(struct worker_core *core, const struct lt_message *message)
{
    act(core, &(struct worker_action){.kind = WORKER_SEND, .packet = {.message = *message}});
}

static void leave(struct worker_core *core, lt_status status, const char *text)
{
    struct worker_action action = {.kind = WORKER_EXIT, .status = status};
    if (core->exiting)
        return;
    core->exiting = true;
    snprintf(action.text, sizeof action.text, "%s", text);
    act(core, &action);
}

static struct task *find_task(struct worker_core *core, uint64_t number)
{
    for (int i = 0; i < TASKS_MAX; i++)
        if (core->task[i].stage != STAGE_NONE && core->task[i].number == number)
            return &core->task[i];
    return NULL;
}

static struct task *find_stage(struct worker_core *core, enum task_stage stage)
{
    struct task *first = NULL;
    for (int i = 0; i < TASKS_MAX; i++)
        if (core->task[i].stage == stage && (!first || core->task[i].order < first->order))
            first = &core->task[i];
    return first;
}

static uint32_t slot_count(const struct worker_core *core)
{
    return core->batch_max * WORKER_SLOTS_PER_TASK;
}

static void forget_task(struct worker_core *core, struct task *task)
{
    if (task->stage == STAGE_FETCHING || task->stage == STAGE_RUNNING)
        for (size_t i = 0; i < task->spec.blob_count; i++)
            blobs_release(&core->blobs, &task->spec.blob[i].digest);
    free(task->result);
    memset(task, 0, sizeof *task);
}

static int64_t resend_us(const struct worker_core *core)
{
    const int64_t two_beats = 2000ll * core->heartbeat_ms;
    return two_beats > RESEND_US_MIN ? two_beats : RESEND_US_MIN;
}

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
        .slot_count = slot_count(core),
        .model = (struct lt_model_file *)core->params.model,
        .model_count = core->params.model_count,
        .held = held,
        .held_count = held_count,
    };
    core->link = LINK_GREETING;
    core->link_since_us = now_us;
    core->stats.sessions++;
    send(core, &message);
}

/* -- results ----------------------------------------------------------------------------------- */

static void offer(struct worker_core *core, struct task *task, int64_t now_us)
{
    struct lt_message message = {.kind = LT_MESSAGE_OFFER};
    if (core->link != LINK_UP)
        return;
    task->stream = ++core->next_stream;
    task->offered_us = now_us;
    lt_stream_sender_open(&task->sender, task->stream, task->result, task->spec.result_bytes, 0, 0);
    message.offer = (struct lt_offer){task->stream, task->number, task->epoch, task->digest,
                                      task->spec.result_bytes};
    send(core, &message);
}

static void pump(struct worker_core *core, struct task *task, int64_t now_us)
{
    struct worker_action action = {.kind = WORKER_SEND, .packet.message.kind = LT_MESSAGE_CHUNK};
    struct lt_packet *packet = &action.packet;
    while (lt_stream_sender_next(&task->sender, &packet->message.chunk, &packet->payload,
                                 &packet->payload_bytes)) {
        act(core, &action);
        lt_stream_sender_sent(&task->sender, packet->payload_bytes);
        core->stats.bytes_out += packet->payload_bytes;
        task->offered_us = now_us;
    }
}

static struct task *task_by_stream(struct worker_core *core, uint64_t stream)
{
    for (int i = 0; i < TASKS_MAX; i++)
        if (core->task[i].stage == STAGE_FINISHED && core->task[i].stream == stream && stream != 0)
            return &core->task[i];
    return NULL;
}

static void on_want(struct worker_core *core, const struct lt_want *want, int64_t now_us)
{
    struct task *task = task_by_stream(core, want->stream);
    if (!task)
        return;
    switch ((enum lt_verdict)want->verdict) {
    case LT_VERDICT_WANT:
        if (want->epoch)
            task->epoch = want->epoch; /* adopted under a newer lease */
        lt_stream_sender_open(&task->sender, task->stream, task->result, task->spec.result_bytes,
                              want->offset, want->credit);
        pump(core, task, now_us);
        break;
    case LT_VERDICT_HAVE:
        core->stats.tasks_committed++;
        forget_task(core, task);
        break;
    case LT_VERDICT_STALE:
        forget_task(core, task);
        break;
    case LT_VERDICT_LATER:
        task->stream = 0;
        break; /* tick offers again */
    }
}

static void on_committed(struct worker_core *core, const struct lt_committed *committed,
                         int64_t now_us)
{
    struct task *task = find_task(core, committed->task);
    if (!task || task->stage != STAGE_FINISHED)
        return;
    if (committed->verdict == LT_VERDICT_WANT) {
        offer(core, task, now_us);
        return;
    }
    if (committed->verdict == LT_VERDICT_HAVE)
        core->stats.tasks_committed++;
    forget_task(core, task);
}

/* -- tasks ------------------------------------------------------------------------------------- */

static void fetch(struct worker_core *core, struct blob *blob, int64_t now_us)
{
    struct lt_message message = {.kind = LT_MESSAGE_FETCH};
    if (core->link != LINK_UP)
        return;
    message.fetch.digest = blob->digest;
    message.fetch.stream = ++core->next_stream;
    lt_stream_receiver_reopen(&blob->receiver, message.fetch.stream, &message.fetch.offset,
                              &message.fetch.credit);
    blob->asked_us = now_us;
    send(core, &message);
}

static void report_failure(struct worker_core *core, const struct task *task, lt_status status,
                           const char *text)
{
    struct lt_message message = {.kind = LT_MESSAGE_FAIL,
                                 .fail = {task->number, task->epoch, status, text}};
    core->stats.tasks_failed++;
    if (core->link == LINK_UP)
        send(core, &message);
}

static void release(struct worker_core *core, const struct task *task, lt_status reason)
{
    struct lt_message message = {.kind = LT_MESSAGE_RELEASE,
                                 .release = {task->number, task->epoch, reason}};
    if (core->link == LINK_UP)
        send(core, &message);
}

static void after_work(struct worker_core *core)
{
    if (core->draining && worker_core_is_idle(core)) {
        struct lt_message message = {.kind = LT_MESSAGE_BYE, .bye = {"drained"}};
        if (core->link == LINK_UP)
            send(core, &message);
        leave(core, LT_OK, "drained");
    }
}

/* Those whose blobs cannot be had. */
static void fail_unfetchable(struct worker_core *core)
{
    for (int i = 0; i < TASKS_MAX; i++) {
        struct task *task = &core->task[i];
        bool failed = false;
        for (size_t b = 0; task->stage == STAGE_FETCHING && b < task->spec.blob_count; b++)
            failed = failed ||
                     blobs_find(&core->blobs, &task->spec.blob[b].digest)->state == BLOB_FAILED;
        if (failed) {
            report_failure(core, task, LT_LINK, "a blob could not be fetched whole");
            forget_task(core, task);
        }
    }
}

/* False: a blob is still on its way. */
static bool make_work(struct worker_core *core, const struct task *task, struct engine_work *work)
{
    *work = (struct engine_work){.task = task->number,
                                 .epoch = task->epoch,
                                 .spec = &task->spec,
                                 .lora = task->lora,
                                 .lora_count = task->spec.lora_count,
                                 .blob_count = task->spec.blob_count};
    for (size_t i = 0; i < task->spec.blob_count; i++) {
        const struct blob *blob = blobs_find(&core->blobs, &task->spec.blob[i].digest);
        if (blob->state != BLOB_READY)
            return false;
        work->blob[i] =
            (struct engine_blob){task->spec.blob[i].role, blob->data, (size_t)blob->bytes};
    }
    return true;
}

/* The oldest waiting task, and with it those that may join it; nothing overtakes one whose blobs
 * are on their way, so that no task waits for ever. */
static void start_next(struct worker_core *core)
{
    size_t count = 0;
    if (find_stage(core, STAGE_RUNNING))
        return;
    fail_unfetchable(core);
    while (count < core->batch_max && !core->draining) {
        struct task *task = find_stage(core, STAGE_FETCHING);
        if (!task || !make_work(core, task, &core->work[count]) ||
            (count > 0 && (!engine_may_join(core->work[0].spec, &task->spec) ||
                           !engine_same_loras(&core->work[0], &core->work[count]))))
            break;
        task->stage = STAGE_RUNNING;
        count++;
    }
    if (count == 0)
        return;
    core->progress = (struct lt_progress){.phase = LT_PHASE_LOADING};
    act(core,
        &(struct worker_action){.kind = WORKER_START, .work = core->work, .work_count = count});
}

static lt_status take_blobs(struct worker_core *core, struct task *task, struct lt_error *error)
{
    for (size_t i = 0; i < task->spec.blob_count; i++)
        if (!blobs_use(&core->blobs, &task->spec.blob[i].digest, task->spec.blob[i].bytes,
                       core->credit_bytes, error)) {
            while (i-- > 0)
                blobs_release(&core->blobs, &task->spec.blob[i].digest);
            return error->code;
        }
    return LT_OK;
}

static void decline(struct worker_core *core, const struct lt_assign *assign, lt_status status,
                    const char *text)
{
    struct lt_message message = {.kind = LT_MESSAGE_DECLINE,
                                 .decline = {assign->task, assign->epoch, status, text}};
    send(core, &message);
}

static void on_known_assign(struct worker_core *core, struct task *task,
                            const struct lt_assign *assign, int64_t now_us)
{
    if (assign->epoch <= task->epoch)
        return; /* a repeated packet */
    task->epoch = assign->epoch;
    task->dropped = task->release = false;
    if (task->stage == STAGE_FINISHED)
        offer(core, task, now_us);
}

static void on_assign(struct worker_core *core, const struct lt_assign *assign, int64_t now_us)
{
    struct task *task = find_task(core, assign->task), *slot = NULL;
    struct lt_error error;
    int active = 0;
    if (task) {
        on_known_assign(core, task, assign, now_us);
        return;
    }
    for (int i = 0; i < TASKS_MAX; i++) {
        active += core->task[i].stage == STAGE_FETCHING || core->task[i].stage == STAGE_RUNNING;
        if (core->task[i].stage == STAGE_NONE && !slot)
            slot = &core->task[i];
    }
    if (active >= (int)slot_count(core) || !slot || core->draining) {
        decline(core, assign, LT_BUSY, core->draining ? "draining" : "all slots are taken");
        return;
    }
    *slot = (struct task){.number = assign->task,
                          .epoch = assign->epoch,
                          .spec = assign->spec,
                          .order = ++core->next_order};
    snprintf(slot->model_name, sizeof slot->model_name, "%s", assign->spec.model.name);
    slot->spec.model.name = slot->model_name;
    for (size_t i = 0; i < slot->spec.lora_count; i++) {
        snprintf(slot->file_name[i], FILE_NAME_BYTES, "%s", assign->spec.lora[i].file.name);
        slot->spec.lora[i].file.name = slot->file_name[i];
        slot->lora_strength[i] = (float)assign->spec.lora[i].strength;
        slot->lora[i] = (struct engine_lora){.file = slot->spec.lora[i].file,
                                             .strength = &slot->lora_strength[i],
                                             .strength_count = 1,
                                             .expert = slot->spec.lora[i].expert,
                                             .plain_peft = slot->spec.lora[i].plain_peft};
    }
    if (slot->spec.addon.name) {
        snprintf(slot->file_name[LT_SPEC_LORAS_MAX], FILE_NAME_BYTES, "%s",
                 assign->spec.addon.name);
        slot->spec.addon.name = slot->file_name[LT_SPEC_LORAS_MAX];
    }
    if (take_blobs(core, slot, &error) != LT_OK) {
        decline(core, assign, error.code, error.text);
        memset(slot, 0, sizeof *slot);
        return;
    }
    slot->stage = STAGE_FETCHING;
    for (size_t i = 0; i < slot->spec.blob_count; i++) {
        struct blob *blob = blobs_find(&core->blobs, &slot->spec.blob[i].digest);
        if (blob->state == BLOB_FETCHING && blob->receiver.stream == 0)
            fetch(core, blob, now_us);
    }
    start_next(core);
}

/* A running task's result is wanted: the batch goes on for it. */
static bool somebody_waits(const struct worker_core *core)
{
    for (int i = 0; i < TASKS_MAX; i++)
        if (core->task[i].stage == STAGE_RUNNING && !core->task[i].dropped)
            return true;
    return false;
}

/* The coordinator does not want the task any more. `tell`: it waits to hear that it ended. */
static void drop_task(struct worker_core *core, struct task *task, bool tell)
{
    if (task->stage == STAGE_RUNNING) {
        task->dropped = true;
        task->release = tell;
        if (!somebody_waits(core))
            act(core, &(struct worker_action){.kind = WORKER_CANCEL});
        return;
    }
    if (tell && task->stage == STAGE_FETCHING)
        release(core, task, LT_CANCELLED);
    forget_task(core, task);
}

void worker_core_finished(struct worker_core *core, uint64_t number, lt_status status,
                          const char *text, void *result, int64_t now_us)
{
    struct task *task = find_task(core, number);
    lt_assert(task && task->stage == STAGE_RUNNING);
    if (task->dropped || status != LT_OK) {
        free(result);
        if (task->dropped ? task->release : status == LT_CANCELLED)
            release(core, task, LT_CANCELLED);
        else if (!task->dropped)
            report_failure(core, task, status, text);
        forget_task(core, task);
    } else {
        for (size_t i = 0; i < task->spec.blob_count; i++)
            blobs_release(&core->blobs, &task->spec.blob[i].digest);
        task->result = result;
        task->digest = lt_sha256(result, (size_t)task->spec.result_bytes);
        task->stage = STAGE_FINISHED;
        offer(core, task, now_us);
    }
    start_next(core);
    after_work(core);
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
            offer(core, task, now_us); /* even if the lease is gone: it may be adopted */
        else if (!kept)
            drop_task(core, task, false);
    }
    for (int i = 0; i < BLOBS_MAX; i++)
        if (core->blobs.blob[i].state == BLOB_FETCHING)
            fetch(core, &core->blobs.blob[i], now_us);
    start_next(core);
    if (welcome->draining)
        worker_core_drain(core, now_us);
}

static void on_reject(struct worker_core *core, const struct lt_reject *reject, int64_t now_us)
{
    if (core->link != LINK_GREETING)
        return;
    if (reject->status == LT_UNSUPPORTED || reject->status == LT_BAD_INPUT) {
        leave(core, (lt_status)reject->status, reject->text);
        return;
    }
    disconnect(core, now_us);
    if (reject->retry_after_ms)
        core->retry_us = now_us + 1000ll * reject->retry_after_ms;
}

/* The blob is whole, or asked for again from where it was, or given up and with it the tasks that
 * need it. */
static void go_on_fetching(struct worker_core *core, struct blob *blob, int64_t now_us)
{
    if (blob->state == BLOB_FETCHING)
        fetch(core, blob, now_us);
    start_next(core);
    after_work(core);
}

static void on_chunk(struct worker_core *core, const struct lt_packet *packet, int64_t now_us)
{
    struct blob *blob = blobs_by_stream(&core->blobs, packet->message.chunk.stream);
    uint64_t credit;
    if (!blob)
        return;
    const uint64_t before = blob->receiver.offset;
    if (lt_stream_receiver_chunk(&blob->receiver, &packet->message.chunk, packet->payload,
                                 packet->payload_bytes, &credit, NULL) != LT_OK) {
        blobs_damaged(&core->blobs, blob);
        go_on_fetching(core, blob, now_us);
        return;
    }
    if (blob->receiver.offset > before)
        blob->asked_us = now_us;
    core->stats.bytes_in += blob->receiver.offset - before;
    if (credit) {
        struct lt_message message = {
            .kind = LT_MESSAGE_CREDIT,
            .credit = {blob->receiver.stream, credit, blob->receiver.offset}};
        send(core, &message);
    }
    if (!lt_stream_receiver_done(&blob->receiver))
        return;
    core->stats.blobs_fetched++;
    blobs_complete(&core->blobs, blob);
    go_on_fetching(core, blob, now_us);
}

static void on_abort(struct worker_core *core, const struct lt_abort *abort_message, int64_t now_us)
{
    struct blob *blob = blobs_by_stream(&core->blobs, abort_message->stream);
    struct task *result = task_by_stream(core, abort_message->stream);
    if (result) {
        offer(core, result, now_us);
        return;
    }
    if (!blob)
        return;
    for (int i = 0; i < TASKS_MAX; i++) {
        struct task *task = &core->task[i];
        bool needs = false;
        for (size_t b = 0; task->stage == STAGE_FETCHING && b < task->spec.blob_count; b++)
            needs = needs || lt_digest_equal(&task->spec.blob[b].digest, &blob->digest);
        if (needs) {
            report_failure(core, task, LT_LINK, abort_message->text);
            forget_task(core, task); /* the last user lets the blob go */
        }
    }
    start_next(core);
    after_work(core);
}

static void on_revoked(struct worker_core *core, const struct lt_beat_ack *ack)
{
    for (size_t i = 0; i < ack->revoked_count; i++) {
        struct task *task = find_task(core, ack->revoked[i].task);
        /* A finished one is left: its offer is answered with STALE, or adopted. */
        if (task && task->epoch <= ack->revoked[i].epoch && task->stage != STAGE_FINISHED)
            drop_task(core, task, false);
    }
    start_next(core);
    after_work(core);
}

static void on_cancel(struct worker_core *core, const struct lt_cancel *cancel)
{
    struct task *task = find_task(core, cancel->task);
    if (task && task->epoch <= cancel->epoch)
        drop_task(core, task, true);
    start_next(core);
    after_work(core);
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
        on_assign(core, &message->assign, now_us);
        break;
    case LT_MESSAGE_BEAT_ACK:
        on_revoked(core, &message->beat_ack);
        break;
    case LT_MESSAGE_CANCEL:
        on_cancel(core, &message->cancel);
        break;
    case LT_MESSAGE_DRAIN:
        worker_core_drain(core, now_us);
        break;
    case LT_MESSAGE_BYE:
        disconnect(core, now_us);
        break;
    case LT_MESSAGE_COMMITTED:
        on_committed(core, &message->committed, now_us);
        after_work(core);
        break;
    case LT_MESSAGE_WANT:
        on_want(core, &message->want, now_us);
        after_work(core);
        break;
    case LT_MESSAGE_CHUNK:
        on_chunk(core, packet, now_us);
        break;
    case LT_MESSAGE_CREDIT: {
        struct task *task = task_by_stream(core, message->credit.stream);
        if (task) {
            lt_stream_sender_credit(&task->sender, message->credit.credit);
            pump(core, task, now_us);
        }
        break;
    }
    case LT_MESSAGE_ABORT:
        on_abort(core, &message->abort, now_us);
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
                                    .slot_count = slot_count(core),
                                    .memory = core->memory,
                                    .resident = core->resident};
    send(core, &message);
}

/* Asks again for what was not answered: packets may be lost when a queue overflows or a connection
 * breaks. */
static void resend(struct worker_core *core, int64_t now_us)
{
    for (int i = 0; i < TASKS_MAX; i++) {
        struct task *task = &core->task[i];
        if (task->stage == STAGE_FINISHED && now_us - task->offered_us >= resend_us(core))
            offer(core, task, now_us);
    }
    for (int i = 0; i < BLOBS_MAX; i++) {
        struct blob *blob = &core->blobs.blob[i];
        if (blob->state == BLOB_FETCHING && now_us - blob->asked_us >= resend_us(core))
            fetch(core, blob, now_us);
    }
}

static bool waits_for_bulk(const struct worker_core *core)
{
    for (int i = 0; i < TASKS_MAX; i++)
        if (core->task[i].stage == STAGE_FINISHED)
            return true;
    for (int i = 0; i < BLOBS_MAX; i++)
        if (core->blobs.blob[i].state == BLOB_FETCHING)
            return true;
    return false;
}

void worker_core_tick(struct worker_core *core, int64_t now_us)
{
    if (core->exiting)
        return;
    if (core->link == LINK_DOWN && now_us >= core->retry_us) {
        core->link = LINK_GREETING; /* until connected says HELLO */
        core->link_since_us = now_us;
        act(core, &(struct worker_action){.kind = WORKER_RECONNECT});
        return;
    }
    if (core->link == LINK_GREETING && now_us - core->link_since_us >= GREETING_US)
        disconnect(core, now_us);
    if (core->link == LINK_UP && now_us - core->heard_us >= 1000ll * core->lease_ms)
        disconnect(core, now_us); /* self-fence: nothing is offered until a new WELCOME */
    /* Control may be well while bulk is dead: beats would keep a lease that never gets its bytes.
     */
    if (!waits_for_bulk(core))
        core->bulk_us = now_us;
    if (core->link == LINK_UP && now_us - core->bulk_us >= 1000ll * core->lease_ms)
        disconnect(core, now_us);
    if (core->link == LINK_UP && now_us >= core->beat_us) {
        core->beat_us = now_us + 1000ll * core->heartbeat_ms;
        beat(core);
        resend(core, now_us);
    }
    if (core->link != LINK_UP && now_us - core->heard_us > UNHEARD_US_MAX)
        for (int i = 0; i < TASKS_MAX; i++)
            if (core->task[i].stage == STAGE_FINISHED)
                forget_task(core, &core->task[i]);
    if (core->link != LINK_UP)
        after_work(core);
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

void worker_core_drain(struct worker_core *core, int64_t now_us)
{
    (void)now_us;
    core->draining = true;
    for (int i = 0; i < TASKS_MAX; i++)
        if (core->task[i].stage == STAGE_FETCHING) {
            release(core, &core->task[i], LT_BUSY);
            forget_task(core, &core->task[i]);
        }
    after_work(core);
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
            forget_task(*core, &(*core)->task[i]);
    blobs_fini(&(*core)->blobs);
    free(*core);
    *core = NULL;
}
