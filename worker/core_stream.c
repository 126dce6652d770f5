#include "worker/core_private.h"

void worker_core_offer(struct worker_core *core, struct task *task, int64_t now_us)
{
    struct lt_message message = {.kind = LT_MESSAGE_OFFER};
    if (core->link != LINK_UP)
        return;
    task->stream = ++core->next_stream;
    task->offered_us = now_us;
    lt_stream_sender_open(&task->sender, task->stream, task->result, task->spec.result_bytes, 0, 0);
    message.offer = (struct lt_offer){task->stream, task->number, task->epoch, task->digest,
                                      task->spec.result_bytes};
    worker_core_send(core, &message);
}

static void pump(struct worker_core *core, struct task *task, int64_t now_us)
{
    struct worker_action action = {.kind = WORKER_SEND, .packet.message.kind = LT_MESSAGE_CHUNK};
    struct lt_packet *packet = &action.packet;
    while (lt_stream_sender_next(&task->sender, &packet->message.chunk, &packet->payload,
                                 &packet->payload_bytes)) {
        worker_core_act(core, &action);
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

void worker_core_on_want(struct worker_core *core, const struct lt_want *want, int64_t now_us)
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
        worker_core_forget_task(core, task);
        break;
    case LT_VERDICT_STALE:
        worker_core_forget_task(core, task);
        break;
    case LT_VERDICT_LATER:
        task->stream = 0;
        break; /* tick offers again */
    }
}

void worker_core_on_committed(struct worker_core *core, const struct lt_committed *committed,
                              int64_t now_us)
{
    struct task *task = worker_core_find_task(core, committed->task);
    if (!task || task->stage != STAGE_FINISHED)
        return;
    if (committed->verdict == LT_VERDICT_WANT) {
        worker_core_offer(core, task, now_us);
        return;
    }
    if (committed->verdict == LT_VERDICT_HAVE)
        core->stats.tasks_committed++;
    worker_core_forget_task(core, task);
}

void worker_core_fetch(struct worker_core *core, struct blob *blob, int64_t now_us)
{
    struct lt_message message = {.kind = LT_MESSAGE_FETCH};
    if (core->link != LINK_UP)
        return;
    message.fetch.digest = blob->digest;
    message.fetch.stream = ++core->next_stream;
    lt_stream_receiver_reopen(&blob->receiver, message.fetch.stream, &message.fetch.offset,
                              &message.fetch.credit);
    blob->asked_us = now_us;
    worker_core_send(core, &message);
}

/* The blob is whole, or asked for again from where it was, or given up and with it the tasks that
 * need it. */
static void go_on_fetching(struct worker_core *core, struct blob *blob, int64_t now_us)
{
    if (blob->state == BLOB_FETCHING)
        worker_core_fetch(core, blob, now_us);
    worker_core_start_next(core);
    worker_core_after_work(core);
}

void worker_core_on_chunk(struct worker_core *core, const struct lt_packet *packet, int64_t now_us)
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
        worker_core_send(core, &message);
    }
    if (!lt_stream_receiver_done(&blob->receiver))
        return;
    core->stats.blobs_fetched++;
    blobs_complete(&core->blobs, blob);
    go_on_fetching(core, blob, now_us);
}

void worker_core_on_abort(struct worker_core *core, const struct lt_abort *abort_message,
                          int64_t now_us)
{
    struct blob *blob = blobs_by_stream(&core->blobs, abort_message->stream);
    struct task *result = task_by_stream(core, abort_message->stream);
    if (result) {
        worker_core_offer(core, result, now_us);
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
            worker_core_report_failure(core, task, LT_LINK, abort_message->text);
            worker_core_forget_task(core, task); /* the last user lets the blob go */
        }
    }
    worker_core_start_next(core);
    worker_core_after_work(core);
}

static int64_t resend_us(const struct worker_core *core)
{
    const int64_t two_beats = 2000ll * core->heartbeat_ms;
    return two_beats > RESEND_US_MIN ? two_beats : RESEND_US_MIN;
}

void worker_core_resend(struct worker_core *core, int64_t now_us)
{
    for (int i = 0; i < TASKS_MAX; i++) {
        struct task *task = &core->task[i];
        if (task->stage == STAGE_FINISHED && now_us - task->offered_us >= resend_us(core))
            worker_core_offer(core, task, now_us);
    }
    for (int i = 0; i < BLOBS_MAX; i++) {
        struct blob *blob = &core->blobs.blob[i];
        if (blob->state == BLOB_FETCHING && now_us - blob->asked_us >= resend_us(core))
            worker_core_fetch(core, blob, now_us);
    }
}

bool worker_core_waits_for_bulk(const struct worker_core *core)
{
    for (int i = 0; i < TASKS_MAX; i++)
        if (core->task[i].stage == STAGE_FINISHED)
            return true;
    for (int i = 0; i < BLOBS_MAX; i++)
        if (core->blobs.blob[i].state == BLOB_FETCHING)
            return true;
    return false;
}

void worker_core_on_credit(struct worker_core *core, const struct lt_credit *credit, int64_t now_us)
{
    struct task *task = task_by_stream(core, credit->stream);
    if (task) {
        lt_stream_sender_credit(&task->sender, credit->credit);
        pump(core, task, now_us);
    }
}
