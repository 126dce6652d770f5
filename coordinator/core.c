#include "coordinator/core_private.h"

#include "common/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    bool terminal;
} states[] = {
    [JOB_STATE_QUEUED] = {"queued", false},         [JOB_STATE_RUNNING] = {"running", false},
    [JOB_STATE_FINALIZING] = {"finalizing", false}, [JOB_STATE_COMPLETED] = {"completed", true},
    [JOB_STATE_FAILED] = {"failed", true},          [JOB_STATE_CANCELED] = {"canceled", true},
};
_Static_assert(LT_COUNT(states) == JOB_STATE_COUNT, "every state has a name");

const char *job_state_name(enum job_state state)
{
    return (size_t)state < JOB_STATE_COUNT ? states[state].name : "unknown";
}

bool job_state_is_terminal(enum job_state state)
{
    return (size_t)state < JOB_STATE_COUNT && states[state].terminal;
}

bool job_state_may_follow(enum job_state from, enum job_state to)
{
    static const bool edge[JOB_STATE_COUNT][JOB_STATE_COUNT] = {
        [JOB_STATE_QUEUED] =
            {[JOB_STATE_RUNNING] = true, [JOB_STATE_FAILED] = true, [JOB_STATE_CANCELED] = true},
        [JOB_STATE_RUNNING] =
            {[JOB_STATE_FINALIZING] = true, [JOB_STATE_FAILED] = true, [JOB_STATE_CANCELED] = true},
        /* Not to canceled: a publisher may be reading the run in another thread. */
        [JOB_STATE_FINALIZING] = {[JOB_STATE_COMPLETED] = true, [JOB_STATE_FAILED] = true},
    };
    return (size_t)from < JOB_STATE_COUNT && (size_t)to < JOB_STATE_COUNT && edge[from][to];
}

/* -- small things shared by the parts ---------------------------------------------------------- */

void *core_grow(void *list, size_t *capacity, size_t count, size_t item_bytes)
{
    if (count < *capacity)
        return list;
    *capacity = *capacity ? 2 * *capacity : 16;
    list = realloc(list, *capacity * item_bytes);
    lt_assert(list);
    return list;
}

/* Ids are 1, 2, 3 … in the order of the list. */
struct core_job *core_find_job(const struct core *core, uint64_t id)
{
    size_t low = 0, high = core->job_count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (core->job[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < core->job_count && core->job[low]->id == id ? core->job[low] : NULL;
}

void core_queue(struct core *core, const struct lt_peer *peer, const struct lt_message *message)
{
    core->out = core_grow(core->out, &core->out_capacity, core->out_count, sizeof *core->out);
    core->out[core->out_count++] = (struct lt_packet){.peer = *peer, .message = *message};
}

void core_tell(struct core *core, enum coordinator_event_kind kind, const struct core_job *job,
               const char *text)
{
    char *copy = lt_arena_text(&core->arena, text);
    lt_assert(copy);
    core->event =
        core_grow(core->event, &core->event_capacity, core->event_count, sizeof *core->event);
    core->event[core->event_count++] = (struct coordinator_event){
        .sequence = ++core->event_sequence,
        .kind = kind,
        .job = job ? job->id : 0,
        .state = job ? job->state : JOB_STATE_QUEUED,
        .text = copy,
    };
}

static void break_down(struct core *core, lt_status status, const struct lt_error *error)
{
    if (core->broken != LT_OK)
        return;
    core->broken = status;
    core->broken_error = *error;
}

void core_put_job(struct core *core, const struct core_job *job)
{
    struct journal_job row = {
        .id = job->id,
        .digest = job->digest,
        .json = job->json,
        .state = job->state,
        .priority = job->priority,
        .created_us = job->created_us,
        .started_us = job->started_us,
        .finished_us = job->finished_us,
        .status = job->status,
        .reason = job->reason,
        .kernel_class = job->kernel_class,
    };
    memcpy(row.pin, job->pin, sizeof row.pin);
    struct lt_error error;
    const lt_status status = journal_put_job(core->params.journal, &row, &error);
    if (status != LT_OK)
        break_down(core, status, &error);
}

void core_put_task(struct core *core, const struct core_job *job, uint32_t task)
{
    const struct run_task *at = run_task(job->run, task);
    struct journal_task row = {
        .task = task,
        .state = graph_state(run_graph(job->run), task),
        .epoch = at->epoch,
        .attempts = at->attempts,
    };
    if (at->lease != LEASE_NONE)
        row.peer = lease_at(&core->leases, at->lease)->peer;
    struct lt_error error;
    const lt_status status = journal_put_task(core->params.journal, job->id, &row, &error);
    if (status != LT_OK)
        break_down(core, status, &error);
}

void core_set_state(struct core *core, struct core_job *job, enum job_state state)
{
    lt_assert(job_state_may_follow(job->state, state));
    job->state = state;
    if (state == JOB_STATE_RUNNING)
        job->started_us = core->params.wall_us();
    if (job_state_is_terminal(state))
        job->finished_us = core->params.wall_us();
    lt_log(LT_LOG_INFO, "job.state", "job=%u state=%s reason=%s", job->id, job_state_name(state),
           job->reason);
    core_put_job(core, job);
    core_tell(core, COORDINATOR_JOB_STATE, job, job->reason);
}

static void forget_leases(struct core *core, const struct core_job *job)
{
    for (uint32_t i = lease_next(&core->leases, 0); i != LEASE_NONE;
         i = lease_next(&core->leases, i + 1)) {
        const struct lease lease = *lease_at(&core->leases, i);
        if (lease.job != job->id)
            continue;
        core_queue(
            core, &lease.peer,
            &(struct lt_message){.kind = LT_MESSAGE_CANCEL,
                                 .cancel = {core_task_number(lease.job, lease.task), lease.epoch}});
        core_end_lease(core, i);
    }
}

void core_end_job(struct core *core, struct core_job *job, enum job_state state, lt_status status,
                  const char *reason)
{
    forget_leases(core, job);
    core_drop_streams(core, NULL, job->id);
    job->status = status;
    snprintf(job->reason, sizeof job->reason, "%s", reason);
    job->ended = true;
    core_set_state(core, job, state);
    struct lt_error error;
    const lt_status written = journal_forget_tasks(core->params.journal, job->id, &error);
    if (written != LT_OK)
        break_down(core, written, &error);
}

/* -- life -------------------------------------------------------------------------------------- */

static struct core_job *append_job(struct core *core, const struct journal_job *row)
{
    struct core_job *job = calloc(1, sizeof *job);
    lt_assert(job);
    *job = (struct core_job){
        .id = row->id,
        .digest = row->digest,
        .json = strdup(row->json),
        .state = row->state,
        .priority = row->priority,
        .created_us = row->created_us,
        .started_us = row->started_us,
        .finished_us = row->finished_us,
        .status = row->status,
    };
    lt_assert(job->json);
    snprintf(job->reason, sizeof job->reason, "%s", row->reason);
    snprintf(job->kernel_class, sizeof job->kernel_class, "%s", row->kernel_class);
    memcpy(job->pin, row->pin, sizeof job->pin);
    const size_t capacity = core->job_capacity;
    core->job =
        core_grow(core->job, &core->job_capacity, core->job_count, sizeof(struct core_job *));
    if (capacity != core->job_capacity) {
        core->candidate = realloc(core->candidate, core->job_capacity * sizeof *core->candidate);
        lt_assert(core->candidate);
    }
    core->job[core->job_count++] = job;
    return job;
}

static lt_status start_run(struct core *core, struct core_job *job, bool resume,
                           struct lt_error *error)
{
    const struct run_params params = {
        .id = job->id,
        .json = job->json,
        .json_bytes = strlen(job->json),
        .journal = core->params.journal,
        .store = job->store,
    };
    LT_TRY(run_create(&params, resume, &job->run, error));
    snprintf(job->name, sizeof job->name, "%s",
             run_job(job->run)->name ? run_job(job->run)->name : "");
    for (uint32_t m = 0; m < RUN_MODELS; m++) {
        const struct job_model *model = run_model(job->run, m);
        if (lt_digest_is_zero(&job->pin[m]))
            job->pin[m] = model->fingerprint;
        else
            run_pin_model(job->run, m, &job->pin[m]);
    }
    return LT_OK;
}

/* Leases of before the restart wait for their workers to come back. */
static lt_status adopt_recovered(struct core *core, struct core_job *job, int64_t now_us,
                                 struct lt_error *error)
{
    struct run_recovered *recovered;
    const size_t count = run_take_recovered(job->run, &recovered);
    lt_status status = LT_OK;
    for (size_t i = 0; i < count && status == LT_OK; i++) {
        struct run_task *task = run_task(job->run, recovered[i].task);
        const struct lease lease = {
            .job = job->id,
            .task = recovered[i].task,
            .epoch = task->epoch,
            .peer = recovered[i].peer,
            .expires_us = now_us + core->params.lease_us,
            .granted_us = now_us,
            .assigned_us = now_us,
        };
        status = lease_add(&core->leases, &lease, &task->lease, error);
        job->lease_count++;
    }
    free(recovered);
    return status;
}

static lt_status recover_job(struct core *core, struct core_job *job, int64_t now_us)
{
    struct lt_error error;
    const struct core_files *files = &core->params.files;
    lt_status status = files->open(files->context, job->id, false, &job->store, &error);
    if (status == LT_OK)
        status = start_run(core, job, true, &error);
    if (status == LT_OK)
        status = adopt_recovered(core, job, now_us, &error);
    if (status == LT_OK && job->state == JOB_STATE_FINALIZING)
        core_tell(core, COORDINATOR_JOB_STATE, job, "");
    if (status == LT_OK)
        core_finish_if_done(core, job);
    if (status != LT_OK && status != LT_NO_MEMORY) {
        char reason[sizeof error.text + 32];
        snprintf(reason, sizeof reason, "cannot be resumed: %s", error.text);
        core_end_job(core, job, JOB_STATE_FAILED, status, reason);
        status = LT_OK;
    }
    return status;
}

static lt_status load_job(void *context, const struct journal_job *row, struct lt_error *error)
{
    struct core *core = context;
    if (row->state >= JOB_STATE_COUNT || row->id == 0)
        return lt_fail(error, LT_CORRUPT, "journal: job %u in state %u", row->id, row->state);
    append_job(core, row);
    return LT_OK;
}

lt_status core_create(const struct core_params *params, int64_t now_us, struct core **core_out,
                      struct lt_error *error)
{
    struct core *core = calloc(1, sizeof *core);
    if (!core)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the coordinator");
    core->params = *params;
    lease_table_init(&core->leases);
    lt_arena_init(&core->arena, 0);
    core->chunk = malloc(LT_CHUNK_BYTES_MAX);
    lt_status status = core->chunk ? LT_OK : lt_fail(error, LT_NO_MEMORY, "no memory for a chunk");
    if (status == LT_OK)
        status = journal_each_job(params->journal, load_job, core, error);
    for (size_t i = 0; i < core->job_count && status == LT_OK; i++)
        if (!job_state_is_terminal(core->job[i]->state))
            status = recover_job(core, core->job[i], now_us);
    if (core->leases.count > 0) /* their workers have yet to hear that we are back */
        core->grace_end_us = now_us + params->grace_us;
    if (status != LT_OK) {
        core_destroy(&core);
        return status;
    }
    *core_out = core;
    return LT_OK;
}

static void close_job(struct core *core, struct core_job *job)
{
    const struct core_files *files = &core->params.files;
    run_destroy(&job->run);
    if (job->store)
        files->close(files->context, job->id, job->store);
    job->store = NULL;
}

void core_destroy(struct core **at)
{
    struct core *core = *at;
    if (!core)
        return;
    for (size_t i = 0; i < core->job_count; i++) {
        close_job(core, core->job[i]);
        free(core->job[i]->json);
        free(core->job[i]);
    }
    core_drop_streams(core, NULL, 0);
    fleet_fini(&core->fleet);
    lease_table_fini(&core->leases);
    lt_arena_fini(&core->arena);
    free(core->job);
    free(core->candidate);
    free(core->upload);
    free(core->download);
    free(core->chunk);
    free(core->out);
    free(core->event);
    free(core);
    *at = NULL;
}

/* -- jobs -------------------------------------------------------------------------------------- */

static lt_status store_blobs(struct core_job *job, const struct core_submit *submit,
                             struct lt_error *error)
{
    for (size_t i = 0; i < submit->blob_count; i++) {
        const struct core_blob *blob = &submit->blob[i];
        char name[80];
        run_blob_name(&blob->digest, name);
        LT_TRY(objects_put(job->store, name, blob->data, blob->bytes, error));
    }
    return LT_OK;
}

static void drop_last_job(struct core *core)
{
    struct core_job *job = core->job[--core->job_count];
    close_job(core, job);
    core->params.files.remove(core->params.files.context, job->id);
    free(job->json);
    free(job);
}

lt_status core_add_job(struct core *core, const struct core_submit *submit, int64_t now_us,
                       uint32_t *id_out, bool *existed_out, struct lt_error *error)
{
    (void)now_us;
    for (size_t i = core->job_count; i-- > 0;) {
        const struct core_job *job = core->job[i];
        if (lt_digest_equal(&job->digest, &submit->digest) && job->state != JOB_STATE_FAILED &&
            job->state != JOB_STATE_CANCELED) {
            *id_out = job->id;
            *existed_out = true;
            return LT_OK;
        }
    }
    struct journal_job row = {
        .id = core->job_count ? core->job[core->job_count - 1]->id + 1 : 1,
        .digest = submit->digest,
        .json = submit->json,
        .state = JOB_STATE_QUEUED,
        .priority = submit->priority,
        .created_us = core->params.wall_us(),
        .reason = "",
        .kernel_class = "",
    };
    struct core_job *job = append_job(core, &row);
    const struct core_files *files = &core->params.files;
    lt_status status = files->open(files->context, job->id, true, &job->store, error);
    if (status == LT_OK)
        status = store_blobs(job, submit, error);
    if (status == LT_OK)
        status = start_run(core, job, false, error);
    if (status != LT_OK) {
        drop_last_job(core);
        return status;
    }
    core_put_job(core, job);
    core_tell(core, COORDINATOR_JOB_STATE, job, "");
    *id_out = job->id;
    *existed_out = false;
    return LT_OK;
}

static lt_status find_live(const struct core *core, uint32_t id, struct core_job **job_out,
                           struct lt_error *error)
{
    struct core_job *job = core_find_job(core, id);
    if (!job)
        return lt_fail(error, LT_NOT_FOUND, "there is no job %u", id);
    if (job_state_is_terminal(job->state))
        return lt_fail(error, LT_CONFLICT, "job %u is %s already", id, job_state_name(job->state));
    *job_out = job;
    return LT_OK;
}

lt_status core_cancel(struct core *core, uint32_t id, struct lt_error *error)
{
    struct core_job *job;
    LT_TRY(find_live(core, id, &job, error));
    if (!job_state_may_follow(job->state, JOB_STATE_CANCELED))
        return lt_fail(error, LT_CONFLICT, "job %u is %s: it cannot be cancelled any more", id,
                       job_state_name(job->state));
    core_end_job(core, job, JOB_STATE_CANCELED, LT_CANCELLED, "cancelled on request");
    return LT_OK;
}

lt_status core_published(struct core *core, uint32_t id, lt_status outcome, const char *text,
                         struct lt_error *error)
{
    struct core_job *job;
    LT_TRY(find_live(core, id, &job, error));
    if (job->state != JOB_STATE_FINALIZING)
        return lt_fail(error, LT_CONFLICT, "job %u is %s, not finalizing", id,
                       job_state_name(job->state));
    core_end_job(core, job, outcome == LT_OK ? JOB_STATE_COMPLETED : JOB_STATE_FAILED, outcome,
                 text ? text : "");
    return LT_OK;
}

void core_drain(struct core *core)
{
    core->draining = true;
    for (size_t i = 0; i < core->fleet.count; i++)
        core_queue(core, &core->fleet.worker[i]->peer,
                   &(struct lt_message){.kind = LT_MESSAGE_DRAIN});
}

/* -- events and time --------------------------------------------------------------------------- */

void core_receive(struct core *core, const struct lt_packet *packet, int64_t now_us)
{
    if (lt_message_channel(packet->message.kind) == LT_CHANNEL_BULK)
        core_bulk(core, packet, now_us);
    else
        core_control(core, packet, now_us);
}

void core_tick(struct core *core, int64_t now_us)
{
    core_expire(core, now_us);
    core_expire_streams(core, now_us);
}

static lt_status make_durable(struct core *core, struct lt_error *error)
{
    if (core->broken != LT_OK) {
        if (error)
            *error = core->broken_error;
        return core->broken;
    }
    for (size_t i = 0; i < core->job_count; i++)
        if (core->job[i]->run && !core->job[i]->ended)
            LT_TRY(run_sync(core->job[i]->run, error));
    LT_TRY(journal_commit(core->params.journal, error));
    for (size_t i = 0; i < core->job_count; i++) {
        struct core_job *job = core->job[i];
        if (job->ended) {
            close_job(core, job);
            core->params.files.remove(core->params.files.context, job->id);
            job->ended = false;
        } else if (job->run) {
            run_committed(job->run);
        }
    }
    return LT_OK;
}

lt_status core_flush(struct core *core, int64_t now_us, core_send *send, void *context,
                     struct lt_error *error)
{
    core_dispatch(core, now_us);
    LT_TRY(make_durable(core, error));
    for (size_t i = 0; i < core->out_count; i++) {
        struct lt_error lost;
        const lt_status status = send(context, &core->out[i], &lost);
        if (status != LT_OK)
            lt_log(LT_LOG_DEBUG, "core.unsent", "message=%s reason=%s",
                   lt_message_name(core->out[i].message.kind), lost.text);
    }
    core->out_count = 0;
    core_pump(core, send, context);
    /* The listener may call back and so add events and packets: those are of the next flush. */
    struct coordinator_event *event = core->event;
    const size_t count = core->event_count;
    struct lt_arena arena = core->arena;
    core->event = NULL;
    core->event_count = core->event_capacity = 0;
    lt_arena_init(&core->arena, 0);
    for (size_t i = 0; core->params.listener && i < count; i++)
        core->params.listener(core->params.listener_context, &event[i]);
    free(event);
    lt_arena_fini(&arena);
    return LT_OK;
}

bool core_is_sending(const struct core *core)
{
    return core->sending;
}

const struct core_totals *core_totals(const struct core *core)
{
    return &core->totals;
}
