/* Control messages: who is there, who has which lease, what became of it. The rules are those of
 * docs/wire.md; an epoch is written into the open transaction before its ASSIGN is queued, and
 * core_flush commits before it sends. */
#include "coordinator/core_private.h"

#include "common/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    HOLD_US = 250000, /* first pause of a failing worker, doubled up to … */
    HOLD_US_MAX = 60000000,
    REPLY_MAX = LT_REPEAT_MAX,
};

/* -- granting and ending ----------------------------------------------------------------------- */

uint32_t core_grant(struct core *core, struct core_job *job, uint32_t task,
                    const struct lt_peer *peer, bool same_epoch, int64_t now_us)
{
    struct lt_error error;
    struct run_task *at = run_task(job->run, task);
    struct fleet_worker *worker = fleet_find(&core->fleet, peer);
    lt_assert(worker && at->lease == LEASE_NONE);
    const struct lease lease = {
        .job = job->id,
        .task = task,
        .epoch = same_epoch ? at->epoch : at->epoch + 1,
        .peer = *peer,
        .expires_us = now_us + core->params.lease_us,
        .granted_us = now_us,
        .assigned_us = now_us,
    };
    uint32_t index = LEASE_NONE;
    lt_assert(lease_add(&core->leases, &lease, &index, &error) == LT_OK);
    at->epoch = lease.epoch;
    at->lease = index;
    run_lease(job->run, task);
    run_set_holder(job->run, task, peer);
    fleet_attach(worker, &core->leases, index);
    job->lease_count++;
    if (job->first_lease_us == 0)
        job->first_lease_us = now_us;
    core_put_task(core, job, task);
    if (job->state == JOB_STATE_QUEUED)
        core_set_state(core, job, JOB_STATE_RUNNING);
    return index;
}

void core_end_lease(struct core *core, uint32_t index)
{
    const struct lease lease = *lease_at(&core->leases, index);
    struct core_job *job = core_find_job(core, lease.job);
    struct fleet_worker *worker = fleet_find(&core->fleet, &lease.peer);
    if (worker) /* not yet here: a lease recovered from the journal */
        fleet_detach(worker, &core->leases, index);
    lease_remove(&core->leases, index);
    job->lease_count--;
    run_task(job->run, lease.task)->lease = LEASE_NONE;
    if (graph_state(run_graph(job->run), lease.task) != TASK_LEASED)
        return; /* committed: its row is written */
    run_return(job->run, lease.task);
    job->retry_count++;
    core->totals.leases_lost++;
    core_put_task(core, job, lease.task);
}

static void hold_worker(struct fleet_worker *worker, int64_t now_us)
{
    const uint32_t doublings = worker->failure_streak < 10 ? worker->failure_streak : 10;
    const int64_t pause = (int64_t)HOLD_US << doublings;
    worker->failure_streak++;
    worker->hold_until_us = now_us + (pause < HOLD_US_MAX ? pause : HOLD_US_MAX);
}

void core_fail_lease(struct core *core, uint32_t index, struct fleet_worker *worker,
                     lt_status status, const char *text, int64_t now_us)
{
    const struct lease lease = *lease_at(&core->leases, index);
    struct core_job *job = core_find_job(core, lease.job);
    const struct lease_rule rule = lease_rule(status);
    struct run_task *task = run_task(job->run, lease.task);
    char reason[512];
    snprintf(reason, sizeof reason, "task %u on %s: %s: %s", lease.task,
             worker ? worker->name : "?", lt_status_name(status), text ? text : "");
    task->attempts += rule.charged;
    if (rule.charged)
        task->failed_on = lease.peer;
    core_end_lease(core, index);
    core->totals.failures++;
    core_tell(core, COORDINATOR_TASK_FAILED, job, reason);
    lt_log(LT_LOG_WARN, "task.failed", "job=%u epoch=%llu attempts=%u %s", job->id,
           (unsigned long long)lease.epoch, task->attempts, reason);
    if (worker) {
        worker->tasks_failed += rule.charged;
        if (rule.verdict != LEASE_GIVE_UP)
            hold_worker(worker, now_us);
        const struct job_model *model = run_model(job->run, run_task_model(job->run, lease.task));
        struct fleet_model *file = fleet_model(worker, model->name, &model->fingerprint);
        if (rule.verdict == LEASE_RETRY_ELSEWHERE && file)
            file->refused = status;
    }
    if (rule.verdict == LEASE_GIVE_UP || task->attempts >= core->params.attempts_max)
        core_end_job(core, job, JOB_STATE_FAILED, status, reason);
}

/* -- assigning --------------------------------------------------------------------------------- */

lt_status core_send_assign(struct core *core, uint32_t index, int64_t now_us)
{
    struct lease *lease = lease_at(&core->leases, index);
    struct core_job *job = core_find_job(core, lease->job);
    struct lt_message message = {.kind = LT_MESSAGE_ASSIGN};
    struct lt_error error;
    const lt_status status = run_task_spec(job->run, lease->task, &message.assign.spec, &error);
    if (status != LT_OK) {
        core_end_job(core, job, JOB_STATE_FAILED, status, error.text);
        return status;
    }
    struct lt_task_spec *spec = &message.assign.spec;
    message.assign.task = core_task_number(lease->job, lease->task);
    message.assign.epoch = lease->epoch;
    message.assign.lease_ms = (uint32_t)(core->params.lease_us / 1000);
    /* The job may end before the batch is sent: texts must outlive it. */
    spec->model.name = lt_arena_text(&core->arena, fleet_base_name(spec->model.name));
    lt_assert(spec->model.name);
    for (size_t i = 0; i < spec->lora_count; i++) {
        spec->lora[i].file.name =
            lt_arena_text(&core->arena, fleet_base_name(spec->lora[i].file.name));
        lt_assert(spec->lora[i].file.name);
    }
    if (spec->addon.name) {
        spec->addon.name = lt_arena_text(&core->arena, fleet_base_name(spec->addon.name));
        lt_assert(spec->addon.name);
    }
    memcpy(lease->blob, spec->blob, sizeof lease->blob);
    lease->blob_count = spec->blob_count;
    lease->assigned_us = now_us;
    core_queue(core, &lease->peer, &message);
    return LT_OK;
}

static void pin(struct core *core, struct core_job *job, const struct fleet_worker *worker,
                uint32_t task)
{
    uint32_t index[RUN_MODELS + 1] = {run_task_model(job->run, task)};
    const size_t count = 1 + run_companions(job->run, index[0], index + 1);
    bool changed = false;
    if (!job->kernel_class[0]) {
        snprintf(job->kernel_class, sizeof job->kernel_class, "%s", worker->kernel_class);
        changed = true;
    }
    for (size_t i = 0; i < count; i++) {
        const struct job_model *model = run_model(job->run, index[i]);
        const struct fleet_model *file = fleet_model(worker, model->name, &model->fingerprint);
        if (!lt_digest_is_zero(&job->pin[index[i]]) || !file)
            continue;
        job->pin[index[i]] = file->fingerprint;
        run_pin_model(job->run, index[i], &file->fingerprint);
        changed = true;
    }
    if (changed)
        core_put_job(core, job);
}

void core_dispatch(struct core *core, int64_t now_us)
{
    struct dispatch_choice choice;
    while (!core->draining) {
        size_t count = 0;
        for (size_t i = 0; i < core->job_count; i++) {
            const struct core_job *job = core->job[i];
            if (job->run && (job->state == JOB_STATE_QUEUED || job->state == JOB_STATE_RUNNING))
                core->candidate[count++] = (struct dispatch_job){
                    .run = job->run,
                    .priority = job->priority,
                    .lease_count = job->lease_count,
                    .kernel_class = job->kernel_class,
                };
        }
        if (!dispatch_pick(&core->fleet, core->candidate, count, now_us, &choice))
            return;
        struct core_job *job = core_find_job(core, run_id(core->candidate[choice.job].run));
        struct fleet_worker *worker = choice.worker;
        uint32_t index, window;
        const bool predicts =
            plan_task(run_plan(job->run), choice.task, &index, &window) == PLAN_PREDICT;
        pin(core, job, worker, choice.task);
        worker->last_job = job->id;
        worker->last_window = predicts ? window : UINT32_MAX;
        worker->last_model = run_task_model(job->run, choice.task);
        const uint32_t lease = core_grant(core, job, choice.task, &worker->peer, false, now_us);
        lt_log(LT_LOG_DEBUG, "lease.granted", "job=%u task=%u epoch=%llu worker=%s", job->id,
               choice.task, (unsigned long long)lease_at(&core->leases, lease)->epoch,
               worker->name);
        core_send_assign(core, lease, now_us);
    }
}

/* -- workers ----------------------------------------------------------------------------------- */

/* A task as a worker names it. NULL: no such job runs. */
static struct core_job *find_task(const struct core *core, uint64_t number, uint32_t *task_out)
{
    struct core_job *job = core_find_job(core, number >> 32);
    *task_out = (uint32_t)number;
    return job && job->run && !job->ended && *task_out < run_plan(job->run)->task_count ? job
                                                                                        : NULL;
}

uint32_t core_find_lease(struct core *core, const struct lt_peer *peer, uint64_t number,
                         uint64_t epoch)
{
    uint32_t task;
    const struct core_job *job = find_task(core, number, &task);
    if (!job)
        return LEASE_NONE;
    const uint32_t index = run_task(job->run, task)->lease;
    if (index == LEASE_NONE || lease_at(&core->leases, index)->epoch != epoch ||
        !lease_peer_equal(&lease_at(&core->leases, index)->peer, peer))
        return LEASE_NONE;
    return index;
}

/* A worker still holds (task, epoch), and nobody has had the task since: the lease goes on. */
static bool reinstate(struct core *core, const struct fleet_worker *worker, uint64_t number,
                      uint64_t epoch, int64_t now_us)
{
    uint32_t task;
    struct core_job *job = find_task(core, number, &task);
    if (!job || graph_state(run_graph(job->run), task) != TASK_READY || epoch == 0 ||
        run_task(job->run, task)->epoch != epoch || worker->draining)
        return false;
    core_grant(core, job, task, &worker->peer, true, now_us);
    return true;
}

/* Leases that were recovered from the journal find their worker. */
static void attach_recovered(struct core *core, struct fleet_worker *worker)
{
    for (uint32_t i = lease_next(&core->leases, 0); i != LEASE_NONE;
         i = lease_next(&core->leases, i + 1))
        if (lease_peer_equal(&lease_at(&core->leases, i)->peer, &worker->peer))
            fleet_attach(worker, &core->leases, i);
}

static void reject(struct core *core, const struct lt_peer *peer, lt_status status,
                   const char *text)
{
    struct lt_message message = {.kind = LT_MESSAGE_REJECT};
    message.reject = (struct lt_reject){
        .status = status,
        .text = lt_arena_text(&core->arena, text),
        .retry_after_ms = 1000,
        .version_min = LT_WIRE_MAJOR,
        .version_max = LT_WIRE_MAJOR,
    };
    core_queue(core, peer, &message);
}

static void welcome(struct core *core, struct fleet_worker *worker, const struct lt_hello *hello,
                    int64_t now_us)
{
    struct lt_task_ref *keep =
        lt_arena_take_array(&core->arena, hello->held_count + 1, sizeof *keep);
    size_t count = 0;
    lt_assert(keep);
    for (size_t i = 0; i < hello->held_count && count < REPLY_MAX; i++) {
        const struct lt_held *held = &hello->held[i];
        const uint32_t lease = core_find_lease(core, &worker->peer, held->task, held->epoch);
        if (lease != LEASE_NONE)
            lease_at(&core->leases, lease)->expires_us = now_us + core->params.lease_us;
        else if (!reinstate(core, worker, held->task, held->epoch, now_us))
            continue;
        keep[count++] = (struct lt_task_ref){held->task, held->epoch};
    }
    struct lt_message message = {.kind = LT_MESSAGE_WELCOME};
    message.welcome = (struct lt_welcome){
        .session = worker->session,
        .heartbeat_ms = (uint32_t)(core->params.heartbeat_us / 1000),
        .lease_ms = (uint32_t)(core->params.lease_us / 1000),
        .credit_bytes = core->params.credit_bytes,
        .keep = keep,
        .keep_count = count,
        .draining = core->draining,
    };
    core_queue(core, &worker->peer, &message);
}

static void on_hello(struct core *core, const struct lt_peer *peer, const struct lt_hello *hello,
                     int64_t now_us)
{
    struct lt_error error;
    struct fleet_worker *worker = fleet_find(&core->fleet, peer);
    const bool is_new = !worker;
    if (hello->version_min > LT_WIRE_MAJOR || hello->version_max < LT_WIRE_MAJOR) {
        char text[128];
        snprintf(text, sizeof text, "the worker speaks wire versions %u to %u, this coordinator %d",
                 hello->version_min, hello->version_max, LT_WIRE_MAJOR);
        reject(core, peer, LT_UNSUPPORTED, text);
        return;
    }
    if (fleet_join(&core->fleet, peer, hello, now_us, &worker, &error) != LT_OK) {
        reject(core, peer, error.code, error.text);
        return;
    }
    if (is_new) {
        attach_recovered(core, worker);
        core_tell(core, COORDINATOR_WORKER_JOINED, NULL, worker->name);
        lt_log(LT_LOG_INFO, "worker.joined", "worker=%s device=%s models=%zu class=%s",
               worker->name, worker->device, worker->model_count, worker->kernel_class);
    }
    core_drop_streams(core, peer, 0); /* a new connection: stream numbers start anew */
    welcome(core, worker, hello, now_us);
    if (core->draining)
        core_queue(core, peer, &(struct lt_message){.kind = LT_MESSAGE_DRAIN});
}

static void remove_worker(struct core *core, struct fleet_worker *worker)
{
    const struct lt_peer peer = worker->peer;
    while (worker->lease_first != LEASE_NONE)
        core_end_lease(core, worker->lease_first);
    core_drop_streams(core, &peer, 0);
    core_tell(core, COORDINATOR_WORKER_LEFT, NULL, worker->name);
    lt_log(LT_LOG_INFO, "worker.left", "worker=%s", worker->name);
    fleet_remove(&core->fleet, worker);
}

/* -- beats ------------------------------------------------------------------------------------- */

static bool beat_names(const struct lt_beat *beat, uint64_t number, uint64_t epoch)
{
    for (size_t i = 0; i < beat->lease_count; i++)
        if (beat->lease[i].task == number && beat->lease[i].epoch == epoch)
            return true;
    return false;
}

/* A lease that its worker does not name for two beats was lost on the way, or ended unheard. */
static void resend_lost(struct core *core, const struct fleet_worker *worker,
                        const struct lt_beat *beat, int64_t now_us)
{
    uint32_t next;
    for (uint32_t i = worker->lease_first; i != LEASE_NONE; i = next) {
        const struct lease *lease = lease_at(&core->leases, i);
        next = lease->next;
        if (beat_names(beat, core_task_number(lease->job, lease->task), lease->epoch) ||
            now_us - lease->assigned_us < 2 * core->params.heartbeat_us)
            continue;
        if (core_send_assign(core, i, now_us) != LT_OK)
            return; /* the job has ended, and its leases with it */
    }
}

/* What a worker names that is not its lease: gone on with, told that it is done, left to be
 * adopted, or revoked. */
static bool settle_unknown(struct core *core, const struct fleet_worker *worker,
                           const struct lt_progress *progress, int64_t now_us)
{
    uint32_t task;
    const struct core_job *job = find_task(core, progress->task, &task);
    if (!job)
        return false;
    switch (graph_state(run_graph(job->run), task)) {
    case TASK_READY:
        return reinstate(core, worker, progress->task, progress->epoch, now_us) ||
               progress->phase == LT_PHASE_SENDING; /* its offer will be adopted */
    case TASK_COMMITTED:
        if (progress->phase != LT_PHASE_SENDING)
            return false;
        core_queue(
            core, &worker->peer,
            &(struct lt_message){.kind = LT_MESSAGE_COMMITTED,
                                 .committed = {progress->task, progress->epoch,
                                               run_task(job->run, task)->epoch == progress->epoch
                                                   ? LT_VERDICT_HAVE
                                                   : LT_VERDICT_STALE}});
        return true;
    default:
        return false;
    }
}

static void on_beat(struct core *core, struct fleet_worker *worker, const struct lt_beat *beat,
                    int64_t now_us)
{
    struct lt_task_ref *revoked =
        lt_arena_take_array(&core->arena, beat->lease_count + 1, sizeof *revoked);
    size_t count = 0;
    lt_assert(revoked);
    worker->memory = beat->memory;
    worker->resident = beat->resident;
    fleet_set_slots(worker, beat->slot_count);
    worker->progress = (struct lt_progress){0};
    for (size_t i = 0; i < beat->lease_count; i++) {
        const struct lt_progress *progress = &beat->lease[i];
        const uint32_t lease =
            core_find_lease(core, &worker->peer, progress->task, progress->epoch);
        if (lease != LEASE_NONE) {
            lease_at(&core->leases, lease)->expires_us = now_us + core->params.lease_us;
            if (progress->phase != LT_PHASE_WAITING)
                worker->progress = *progress;
        } else if (!settle_unknown(core, worker, progress, now_us) && count < REPLY_MAX) {
            revoked[count++] = (struct lt_task_ref){progress->task, progress->epoch};
        }
    }
    resend_lost(core, worker, beat, now_us);
    core_queue(core, &worker->peer,
               &(struct lt_message){.kind = LT_MESSAGE_BEAT_ACK,
                                    .beat_ack = {beat->sequence, revoked, count}});
}

/* -- ends -------------------------------------------------------------------------------------- */

static void on_fail(struct core *core, struct fleet_worker *worker, uint64_t number, uint64_t epoch,
                    uint32_t status, const char *text, int64_t now_us)
{
    const uint32_t lease = core_find_lease(core, &worker->peer, number, epoch);
    if (lease == LEASE_NONE)
        return; /* of an older lease: no news */
    const lt_status known =
        status > LT_OK && status < LT_STATUS_COUNT ? (lt_status)status : LT_INTERNAL;
    core_fail_lease(core, lease, worker, known, text, now_us);
}

static void on_release(struct core *core, struct fleet_worker *worker,
                       const struct lt_release *release, int64_t now_us)
{
    const uint32_t lease = core_find_lease(core, &worker->peer, release->task, release->epoch);
    if (lease == LEASE_NONE)
        return;
    if (release->reason == LT_BUSY)
        worker->draining = true;
    core_end_lease(core, lease);
    worker->hold_until_us = now_us + HOLD_US;
}

void core_control(struct core *core, const struct lt_packet *packet, int64_t now_us)
{
    const struct lt_message *message = &packet->message;
    if (message->kind == LT_MESSAGE_HELLO) {
        on_hello(core, &packet->peer, &message->hello, now_us);
        return;
    }
    struct fleet_worker *worker = fleet_find(&core->fleet, &packet->peer);
    if (!worker) { /* of before a restart, or given up: it must say HELLO */
        if (message->kind == LT_MESSAGE_BEAT)
            core_queue(core, &packet->peer,
                       &(struct lt_message){.kind = LT_MESSAGE_BYE, .bye = {"say HELLO first"}});
        return;
    }
    worker->heard_us = now_us;
    worker->suspect = false;
    switch (message->kind) {
    case LT_MESSAGE_BEAT:
        on_beat(core, worker, &message->beat, now_us);
        break;
    case LT_MESSAGE_FAIL:
        on_fail(core, worker, message->fail.task, message->fail.epoch, message->fail.status,
                message->fail.text, now_us);
        break;
    case LT_MESSAGE_DECLINE:
        on_fail(core, worker, message->decline.task, message->decline.epoch,
                message->decline.status, message->decline.text, now_us);
        break;
    case LT_MESSAGE_RELEASE:
        on_release(core, worker, &message->release, now_us);
        break;
    case LT_MESSAGE_BYE:
        remove_worker(core, worker);
        break;
    default:
        break; /* frames of the other direction never get here */
    }
}

/* -- time -------------------------------------------------------------------------------------- */

void core_expire(struct core *core, int64_t now_us)
{
    for (uint32_t i = lease_next(&core->leases, 0); i != LEASE_NONE && now_us >= core->grace_end_us;
         i = lease_next(&core->leases, i + 1)) {
        const struct lease lease = *lease_at(&core->leases, i);
        if (lease.expires_us > now_us)
            continue;
        lt_log(LT_LOG_WARN, "lease.expired", "job=%u task=%u epoch=%llu", lease.job, lease.task,
               (unsigned long long)lease.epoch);
        core_end_lease(core, i);
    }
    for (size_t i = core->fleet.count; i-- > 0;) {
        struct fleet_worker *worker = core->fleet.worker[i];
        const int64_t silent_us = now_us - worker->heard_us;
        worker->suspect = silent_us > core->params.heartbeat_us * 5 / 2;
        if (silent_us > core->params.lease_us && worker->lease_count == 0)
            remove_worker(core, worker);
    }
}
