/* Streams: results come in, blobs go out. A result counts when its bytes are whole, hash to what
 * was offered, belong to the present lease (or to nobody's: adoption), and are durable. */
#include "coordinator/core_private.h"

#include "common/log.h"

#include <stdlib.h>
#include <string.h>

enum {
    PUMP_CHUNKS_MAX = 8, /* of one stream per flush: others get their turn */
    DAMAGED_MAX = 3,     /* the third damaged arrival of a result costs its worker the task */
};

/* -- results in -------------------------------------------------------------------------------- */

static void close_upload(struct core *core, size_t index)
{
    lt_stream_receiver_close(&core->upload[index].receiver);
    core->upload[index] = core->upload[--core->upload_count];
}

static void answer(struct core *core, const struct lt_peer *peer, uint64_t stream,
                   enum lt_verdict verdict)
{
    core_queue(core, peer,
               &(struct lt_message){.kind = LT_MESSAGE_WANT,
                                    .want = {.stream = stream, .verdict = verdict}});
}

static void say_committed(struct core *core, const struct lt_peer *peer, uint64_t number,
                          uint64_t epoch, enum lt_verdict verdict)
{
    core_queue(
        core, peer,
        &(struct lt_message){.kind = LT_MESSAGE_COMMITTED, .committed = {number, epoch, verdict}});
}

/* The lease under which a result of (task, epoch) from this peer may be taken, adopting it when
 * nobody has the task; LEASE_NONE: it is stale. */
static uint32_t lease_for_result(struct core *core, struct core_job *job, uint32_t task,
                                 uint64_t epoch, const struct lt_peer *peer, int64_t now_us)
{
    const struct run_task *at = run_task(job->run, task);
    const enum task_state state = graph_state(run_graph(job->run), task);
    if (state == TASK_READY && epoch > 0 && epoch <= at->epoch)
        return core_grant(core, job, task, peer, false, now_us);
    if (state != TASK_LEASED || at->epoch != epoch ||
        !lease_peer_equal(&lease_at(&core->leases, at->lease)->peer, peer))
        return LEASE_NONE;
    return at->lease;
}

static struct upload *find_upload(struct core *core, const struct lt_peer *peer, uint32_t job,
                                  uint32_t task)
{
    for (size_t i = 0; i < core->upload_count; i++)
        if (core->upload[i].job == job && core->upload[i].task == task &&
            lease_peer_equal(&core->upload[i].peer, peer))
            return &core->upload[i];
    return NULL;
}

static bool has_room(const struct core *core, uint64_t bytes)
{
    uint64_t sum = bytes;
    for (size_t i = 0; i < core->upload_count; i++)
        sum += core->upload[i].receiver.bytes;
    return core->upload_count == 0 || sum <= core->params.upload_bytes_max;
}

/* The upload of an accepted offer: the one under way when the bytes are the same, else a new one.
 * NULL: no room now. */
static struct upload *open_upload(struct core *core, const struct lt_peer *peer,
                                  const struct lease *lease, const struct lt_offer *offer)
{
    struct lt_error error;
    struct upload *upload = find_upload(core, peer, lease->job, lease->task);
    if (upload && !lt_digest_equal(&upload->receiver.digest, &offer->digest)) {
        close_upload(core, (size_t)(upload - core->upload));
        upload = NULL;
    }
    if (upload)
        return upload;
    if (!has_room(core, offer->bytes))
        return NULL;
    core->upload =
        core_grow(core->upload, &core->upload_capacity, core->upload_count, sizeof *core->upload);
    upload = &core->upload[core->upload_count];
    *upload = (struct upload){.peer = *peer, .job = lease->job, .task = lease->task};
    if (lt_stream_receiver_open(&upload->receiver, offer->stream, &offer->digest, offer->bytes,
                                core->params.credit_bytes, &error) != LT_OK)
        return NULL;
    core->upload_count++;
    return upload;
}

static void on_offer(struct core *core, struct fleet_worker *worker, const struct lt_offer *offer,
                     int64_t now_us)
{
    const struct lt_peer peer = worker->peer;
    struct core_job *job = core_find_job(core, offer->task >> 32);
    const uint32_t task = (uint32_t)offer->task;
    if (!job || !job->run || job->ended || task >= run_plan(job->run)->task_count) {
        answer(core, &peer, offer->stream, LT_VERDICT_STALE);
        return;
    }
    if (graph_state(run_graph(job->run), task) == TASK_COMMITTED) {
        answer(core, &peer, offer->stream,
               run_task(job->run, task)->epoch == offer->epoch ? LT_VERDICT_HAVE
                                                               : LT_VERDICT_STALE);
        return;
    }
    const uint32_t index = lease_for_result(core, job, task, offer->epoch, &peer, now_us);
    if (index == LEASE_NONE) {
        answer(core, &peer, offer->stream, LT_VERDICT_STALE);
        return;
    }
    lease_at(&core->leases, index)->expires_us = now_us + core->params.lease_us;
    if (offer->bytes != run_result_bytes(job->run, task)) {
        core_fail_lease(core, index, worker, LT_DEVICE, "the result has a wrong size", now_us);
        answer(core, &peer, offer->stream, LT_VERDICT_STALE);
        return;
    }
    struct upload *upload = open_upload(core, &peer, lease_at(&core->leases, index), offer);
    if (!upload) {
        answer(core, &peer, offer->stream, LT_VERDICT_LATER);
        return;
    }
    struct lt_message message = {.kind = LT_MESSAGE_WANT};
    upload->epoch = message.want.epoch = lease_at(&core->leases, index)->epoch;
    upload->heard_us = now_us;
    message.want.stream = offer->stream;
    message.want.verdict = LT_VERDICT_WANT;
    lt_stream_receiver_reopen(&upload->receiver, offer->stream, &message.want.offset,
                              &message.want.credit);
    core_queue(core, &peer, &message);
}

void core_finish_if_done(struct core *core, struct core_job *job)
{
    if (job->state == JOB_STATE_RUNNING && graph_done(run_graph(job->run)))
        core_set_state(core, job, JOB_STATE_FINALIZING);
}

/* A worker has one task at a time: one that waited behind another began when that one's result was
 * in. */
static void count_time(struct core *core, struct core_job *job, const struct lease *lease,
                       struct fleet_worker *worker, int64_t now_us)
{
    const int64_t since =
        lease->granted_us > worker->result_us ? lease->granted_us : worker->result_us;
    uint32_t step, window;
    const enum plan_task_kind kind = plan_task(run_plan(job->run), lease->task, &step, &window);
    worker->busy_us += now_us - since;
    worker->result_us = now_us;
    job->timed[kind].count++;
    job->timed[kind].spent_us += now_us - since;
    core->totals.tasks[kind]++;
    core->totals.task_us[kind] += now_us - since;
}

static void commit_result(struct core *core, uint32_t index, struct fleet_worker *worker,
                          const void *data, size_t bytes, int64_t now_us)
{
    const struct lease lease = *lease_at(&core->leases, index);
    const uint64_t number = core_task_number(lease.job, lease.task);
    struct core_job *job = core_find_job(core, lease.job);
    struct lt_error error;
    bool stored;
    const lt_status status = run_accept(job->run, lease.task, data, bytes, &stored, &error);
    if (status == LT_BAD_INPUT && !stored) { /* the machine's fault: another may do better */
        core_fail_lease(core, index, worker, LT_DEVICE, error.text, now_us);
        say_committed(core, &lease.peer, number, lease.epoch, LT_VERDICT_STALE);
        return;
    }
    if (status != LT_OK && !stored) { /* no room, say: the worker keeps it and offers again */
        lt_log(LT_LOG_ERROR, "result.unstored", "job=%u task=%u %s", lease.job, lease.task,
               error.text);
        return;
    }
    if (status != LT_OK) {
        core_end_job(core, job, JOB_STATE_FAILED, status, error.text);
        return;
    }
    worker->tasks_done++;
    worker->failure_streak = 0;
    count_time(core, job, &lease, worker, now_us);
    core_end_lease(core, index);
    say_committed(core, &lease.peer, number, lease.epoch, LT_VERDICT_HAVE);
    core_tell(core, COORDINATOR_JOB_PROGRESS, job, "");
    core_finish_if_done(core, job);
}

/* A result arrived damaged, in part (`stream`) or as a whole (0): it is asked for again, or its
 * task goes to another. */
static void refuse_damaged(struct core *core, struct fleet_worker *worker,
                           const struct upload *upload, uint64_t stream, int64_t now_us)
{
    const uint64_t number = core_task_number(upload->job, upload->task);
    const uint32_t lease = core_find_lease(core, &upload->peer, number, upload->epoch);
    lt_log(LT_LOG_WARN, "result.damaged", "job=%u task=%u worker=%s", upload->job, upload->task,
           worker->name);
    if (lease != LEASE_NONE && ++lease_at(&core->leases, lease)->damaged >= DAMAGED_MAX) {
        core_fail_lease(core, lease, worker, LT_LINK, "its result arrives damaged again and again",
                        now_us);
        say_committed(core, &upload->peer, number, upload->epoch, LT_VERDICT_STALE);
    } else if (stream) {
        core_queue(core, &upload->peer,
                   &(struct lt_message){.kind = LT_MESSAGE_ABORT,
                                        .abort = {stream, LT_BAD_INPUT, "a chunk was refused"}});
    } else {
        say_committed(core, &upload->peer, number, upload->epoch, LT_VERDICT_WANT);
    }
}

/* All bytes are here. */
static void finish_upload(struct core *core, struct fleet_worker *worker, size_t index,
                          int64_t now_us)
{
    struct upload upload = core->upload[index];
    core->upload[index] = core->upload[--core->upload_count];
    struct core_job *job = core_find_job(core, upload.job);
    const uint64_t number = core_task_number(upload.job, upload.task);
    if (!lt_stream_receiver_verify(&upload.receiver)) {
        refuse_damaged(core, worker, &upload, 0, now_us);
    } else {
        const uint32_t lease =
            lease_for_result(core, job, upload.task, upload.epoch, &upload.peer, now_us);
        if (lease == LEASE_NONE)
            say_committed(core, &upload.peer, number, upload.epoch, LT_VERDICT_STALE);
        else
            commit_result(core, lease, worker, upload.receiver.data, (size_t)upload.receiver.bytes,
                          now_us);
    }
    lt_stream_receiver_close(&upload.receiver);
}

static void on_chunk(struct core *core, struct fleet_worker *worker, const struct lt_packet *packet,
                     int64_t now_us)
{
    const struct lt_chunk *chunk = &packet->message.chunk;
    size_t index = 0;
    while (index < core->upload_count &&
           (core->upload[index].receiver.stream != chunk->stream ||
            !lease_peer_equal(&core->upload[index].peer, &packet->peer)))
        index++;
    if (index == core->upload_count)
        return; /* of a stream that ended */
    struct upload *upload = &core->upload[index];
    struct lt_error error;
    uint64_t credit;
    upload->heard_us = now_us;
    if (lt_stream_receiver_chunk(&upload->receiver, chunk, packet->payload, packet->payload_bytes,
                                 &credit, &error) != LT_OK) {
        const struct upload refused = *upload;
        lt_log(LT_LOG_WARN, "chunk.refused", "worker=%s %s", worker->name, error.text);
        close_upload(core, index);
        refuse_damaged(core, worker, &refused, chunk->stream, now_us);
        return;
    }
    if (credit)
        core_queue(
            core, &packet->peer,
            &(struct lt_message){.kind = LT_MESSAGE_CREDIT,
                                 .credit = {chunk->stream, credit, upload->receiver.offset}});
    if (lt_stream_receiver_done(&upload->receiver))
        finish_upload(core, worker, index, now_us);
}

/* -- blobs out --------------------------------------------------------------------------------- */

static struct download *find_download(struct core *core, const struct lt_peer *peer,
                                      uint64_t stream)
{
    for (size_t i = 0; i < core->download_count; i++)
        if (core->download[i].stream == stream && lease_peer_equal(&core->download[i].peer, peer))
            return &core->download[i];
    return NULL;
}

static void abort_stream(struct core *core, const struct lt_peer *peer, uint64_t stream,
                         const char *text)
{
    core_queue(
        core, peer,
        &(struct lt_message){.kind = LT_MESSAGE_ABORT, .abort = {stream, LT_NOT_FOUND, text}});
}

/* The worker's lease that names the blob. A recovered lease does not know its blobs yet. */
static const struct lease *find_blob(struct core *core, const struct fleet_worker *worker,
                                     const struct lt_digest *digest,
                                     const struct lt_blob_ref **blob_out)
{
    for (uint32_t i = worker->lease_first; i != LEASE_NONE; i = lease_at(&core->leases, i)->next) {
        struct lease *lease = lease_at(&core->leases, i);
        struct lt_task_spec spec;
        struct lt_error error;
        if (lease->blob_count == 0 && run_task_spec(core_find_job(core, lease->job)->run,
                                                    lease->task, &spec, &error) == LT_OK) {
            memcpy(lease->blob, spec.blob, sizeof lease->blob);
            lease->blob_count = spec.blob_count;
        }
        for (size_t b = 0; b < lease->blob_count; b++)
            if (lt_digest_equal(&lease->blob[b].digest, digest)) {
                *blob_out = &lease->blob[b];
                return lease;
            }
    }
    return NULL;
}

static void on_fetch(struct core *core, const struct fleet_worker *worker,
                     const struct lt_fetch *fetch, int64_t now_us)
{
    const struct lt_blob_ref *blob = NULL;
    const struct lease *lease = find_blob(core, worker, &fetch->digest, &blob);
    if (!lease || fetch->offset > blob->bytes) {
        abort_stream(core, &worker->peer, fetch->stream, "no lease of yours names this blob");
        return;
    }
    struct download *download = find_download(core, &worker->peer, fetch->stream);
    for (size_t i = 0; !download && i < core->download_count;
         i++) /* asked again under a new number */
        if (lease_peer_equal(&core->download[i].peer, &worker->peer) &&
            lt_digest_equal(&core->download[i].digest, &fetch->digest))
            download = &core->download[i];
    if (!download) {
        core->download = core_grow(core->download, &core->download_capacity, core->download_count,
                                   sizeof *core->download);
        download = &core->download[core->download_count++];
    }
    *download = (struct download){
        .peer = worker->peer,
        .stream = fetch->stream,
        .job = lease->job,
        .task = lease->task,
        .digest = fetch->digest,
        .bytes = blob->bytes,
        .offset = fetch->offset,
        .credit = fetch->credit,
        .heard_us = now_us,
    };
}

static void on_credit(struct core *core, const struct lt_peer *peer, const struct lt_credit *credit,
                      int64_t now_us)
{
    struct download *download = find_download(core, peer, credit->stream);
    if (!download)
        return;
    download->heard_us = now_us;
    if (__builtin_add_overflow(download->credit, credit->credit, &download->credit))
        download->credit = UINT64_MAX;
}

/* Sends what credit and the link's queue allow. False: the stream is over. */
static bool pump(struct core *core, struct download *download, core_send *send, void *context)
{
    struct core_job *job = core_find_job(core, download->job);
    struct lt_error error;
    for (int i = 0; i < PUMP_CHUNKS_MAX; i++) {
        uint64_t bytes = download->bytes - download->offset;
        bytes = bytes < LT_CHUNK_BYTES_MAX ? bytes : LT_CHUNK_BYTES_MAX;
        if (bytes == 0)
            return false;
        if (download->credit < bytes)
            return true;
        if (!job || !job->run ||
            run_read_blob(job->run, download->task, &download->digest, download->offset,
                          core->chunk, (size_t)bytes, &error) != LT_OK) {
            abort_stream(core, &download->peer, download->stream, "the blob is gone");
            return false;
        }
        const struct lt_packet packet = {
            .peer = download->peer,
            .message = {.kind = LT_MESSAGE_CHUNK,
                        .chunk = {download->stream, download->offset,
                                  lt_crc32c(0, core->chunk, (size_t)bytes)}},
            .payload = core->chunk,
            .payload_bytes = (size_t)bytes,
        };
        const lt_status status = send(context, &packet, &error);
        if (status == LT_BUSY)
            break;
        if (status != LT_OK)
            return false; /* the worker asks again when it is back */
        download->offset += bytes;
        download->credit -= bytes;
    }
    core->sending = true;
    return true;
}

void core_pump(struct core *core, core_send *send, void *context)
{
    core->sending = false;
    for (size_t i = core->download_count; i-- > 0;)
        if (!pump(core, &core->download[i], send, context))
            core->download[i] = core->download[--core->download_count];
}

/* -- both -------------------------------------------------------------------------------------- */

static void on_abort(struct core *core, const struct lt_peer *peer, uint64_t stream)
{
    struct download *download = find_download(core, peer, stream);
    if (download)
        *download = core->download[--core->download_count];
    for (size_t i = core->upload_count; i-- > 0;)
        if (core->upload[i].receiver.stream == stream &&
            lease_peer_equal(&core->upload[i].peer, peer))
            close_upload(core, i);
}

void core_bulk(struct core *core, const struct lt_packet *packet, int64_t now_us)
{
    const struct lt_message *message = &packet->message;
    struct fleet_worker *worker = fleet_find(&core->fleet, &packet->peer);
    if (!worker)
        return; /* its beat will be answered */
    worker->heard_us = now_us;
    worker->suspect = false;
    switch (message->kind) {
    case LT_MESSAGE_OFFER:
        on_offer(core, worker, &message->offer, now_us);
        break;
    case LT_MESSAGE_CHUNK:
        on_chunk(core, worker, packet, now_us);
        break;
    case LT_MESSAGE_FETCH:
        on_fetch(core, worker, &message->fetch, now_us);
        break;
    case LT_MESSAGE_CREDIT:
        on_credit(core, &packet->peer, &message->credit, now_us);
        break;
    case LT_MESSAGE_ABORT:
        on_abort(core, &packet->peer, message->abort.stream);
        break;
    default:
        break;
    }
}

void core_drop_streams(struct core *core, const struct lt_peer *peer, uint32_t job)
{
    for (size_t i = core->upload_count; i-- > 0;)
        if ((!peer || lease_peer_equal(&core->upload[i].peer, peer)) &&
            (!job || core->upload[i].job == job))
            close_upload(core, i);
    for (size_t i = core->download_count; i-- > 0;)
        if ((!peer || lease_peer_equal(&core->download[i].peer, peer)) &&
            (!job || core->download[i].job == job))
            core->download[i] = core->download[--core->download_count];
}

void core_expire_streams(struct core *core, int64_t now_us)
{
    for (size_t i = core->upload_count; i-- > 0;)
        if (now_us - core->upload[i].heard_us > core->params.lease_us)
            close_upload(core, i);
    for (size_t i = core->download_count; i-- > 0;)
        if (now_us - core->download[i].heard_us > core->params.lease_us)
            core->download[i] = core->download[--core->download_count];
}
