/* The invariants (docs/wire.md, "rules"):
 *   fence    an epoch of a task is told to one worker only, in all lives of the coordinator
 *   once     a task is committed once, under the newest epoch anybody was told, and stays committed
 *   books    leases in the table, on the workers, in the graph and in the jobs are the same ones
 *   quiet    without faults every task is assigned, offered and committed once, and every blob
 * fetched once replay   a restart gives back what the last flush left (world.c) bytes    the take's
 * digests equal those of one worker without faults ends     every job ends once and for all, or
 * says why */
#include "tests/sim/world.h"

#include <string.h>

static void told(struct world *world, const struct lt_peer *peer, uint64_t number, uint64_t epoch)
{
    struct world_job *job = world_find_job(world, (uint32_t)(number >> 32));
    const uint32_t task = (uint32_t)number;
    if (!job || task >= WORLD_TASKS_MAX || epoch == 0 || epoch >= WORLD_EPOCHS_MAX) {
        world_fail(world, "task %llx epoch %llu is out of the world", (unsigned long long)number,
                   (unsigned long long)epoch);
        return;
    }
    struct world_task *at = &job->task[task];
    if (at->told[epoch] && !lease_peer_equal(&at->owner[epoch], peer))
        world_fail(world, "fence: job %u task %u epoch %llu was told to two workers", job->id, task,
                   (unsigned long long)epoch);
    if (at->committed_epoch)
        world_fail(world, "once: job %u task %u was assigned after it was committed", job->id,
                   task);
    at->told[epoch] = true;
    at->owner[epoch] = *peer;
}

/* WANT names a stream: its upload knows the task. A lease is told by it when a result is adopted.
 */
static void wanted(struct world *world, const struct lt_peer *peer, const struct lt_want *want)
{
    for (size_t i = 0; i < world->core->upload_count; i++) {
        const struct upload *upload = &world->core->upload[i];
        if (upload->receiver.stream == want->stream && lease_peer_equal(&upload->peer, peer))
            told(world, peer, core_task_number(upload->job, upload->task), want->epoch);
    }
}

void check_sent(struct world *world, const struct lt_packet *packet)
{
    const struct lt_message *message = &packet->message;
    world->sent[message->kind]++;
    if (message->kind == LT_MESSAGE_ASSIGN)
        told(world, &packet->peer, message->assign.task, message->assign.epoch);
    if (message->kind == LT_MESSAGE_WANT && message->want.verdict == LT_VERDICT_WANT)
        wanted(world, &packet->peer, &message->want);
}

void check_quiet(struct world *world)
{
    const uint32_t tasks = world->task_count,
                   /* a slice each (or an equal one), two texts, conditioning once for each window
                    */
        fetches = tasks + 2 + world->conditioned_count;
    if (world->sent[LT_MESSAGE_ASSIGN] != tasks || world->sent[LT_MESSAGE_WANT] != tasks ||
        world->sent[LT_MESSAGE_COMMITTED] != tasks || world->received[LT_MESSAGE_FETCH] > fetches)
        world_fail(world,
                   "quiet: %u tasks took %u assignments, %u offers, %u commits and %u fetches (at "
                   "most %u expected)",
                   tasks, world->sent[LT_MESSAGE_ASSIGN], world->sent[LT_MESSAGE_WANT],
                   world->sent[LT_MESSAGE_COMMITTED], world->received[LT_MESSAGE_FETCH], fetches);
}

static void check_task(struct world *world, const struct core_job *job, struct world_job *known,
                       uint32_t t)
{
    const struct run_task *task = run_task(job->run, t);
    const enum task_state state = graph_state(run_graph(job->run), t);
    struct world_task *at = &known->task[t];
    if ((state == TASK_LEASED) != (task->lease != LEASE_NONE))
        world_fail(world, "books: job %u task %u is in state %d with lease %u", job->id, t,
                   (int)state, task->lease);
    if (state != TASK_COMMITTED) {
        if (at->committed_epoch)
            world_fail(world, "once: job %u task %u is not committed any more", job->id, t);
        return;
    }
    if (at->committed_epoch && at->committed_epoch != task->epoch)
        world_fail(world, "once: job %u task %u was committed twice", job->id, t);
    for (uint64_t e = task->epoch + 1; e < WORLD_EPOCHS_MAX; e++)
        if (at->told[e])
            world_fail(world,
                       "fence: job %u task %u was committed under epoch %llu after %llu was told",
                       job->id, t, (unsigned long long)task->epoch, (unsigned long long)e);
    at->committed_epoch = task->epoch;
}

static void check_leases(struct world *world)
{
    struct core *core = world->core;
    uint32_t on_jobs = 0;
    for (size_t w = 0; w < core->fleet.count; w++) {
        const struct fleet_worker *worker = core->fleet.worker[w];
        uint32_t count = 0;
        for (uint32_t i = worker->lease_first; i != LEASE_NONE;
             i = lease_at(&core->leases, i)->next, count++)
            if (!lease_peer_equal(&lease_at(&core->leases, i)->peer, &worker->peer))
                world_fail(world, "books: a worker has another's lease");
        if (count != worker->lease_count)
            world_fail(world, "books: %u leases on a worker that counts %u", count,
                       worker->lease_count);
    }
    for (size_t j = 0; j < core->job_count; j++)
        on_jobs += core->job[j]->lease_count;
    if (on_jobs != core->leases.count)
        world_fail(world, "books: jobs count %u leases, the table %u", on_jobs, core->leases.count);
    for (uint32_t i = lease_next(&core->leases, 0); i != LEASE_NONE;
         i = lease_next(&core->leases, i + 1)) {
        const struct lease *lease = lease_at(&core->leases, i);
        const struct core_job *job = core_find_job(core, lease->job);
        if (!job || !job->run || run_task(job->run, lease->task)->lease != i ||
            run_task(job->run, lease->task)->epoch != lease->epoch)
            world_fail(world, "books: lease %u of job %u task %u is not the task's", i, lease->job,
                       lease->task);
    }
}

void check_state(struct world *world)
{
    check_leases(world);
    for (size_t j = 0; j < world->core->job_count; j++) {
        const struct core_job *job = world->core->job[j];
        struct world_job *known = world_find_job(world, job->id);
        if (job_state_is_terminal(known->state) && job->state != known->state)
            world_fail(world, "ends: job %u was %s and is %s", job->id,
                       job_state_name(known->state), job_state_name(job->state));
        known->state = job->state;
        if (!job->run)
            continue;
        for (uint32_t t = 0; t < run_plan(job->run)->task_count; t++)
            check_task(world, job, known, t);
    }
}

/* Machines that fail may fail a job. */
static bool may_fail(const struct world_plan *plan)
{
    return plan->engine_failure > 0 || plan->damage > 0 || (plan->liar && !plan->only_liar);
}

void check_final(struct world *world, const struct world_reference *reference)
{
    for (uint32_t j = 0; j < world->plan.job_count; j++) {
        const struct world_job *known = &world->job[j];
        const struct core_job *job = core_find_job(world->core, known->id);
        if (!job || !job_state_is_terminal(job->state)) {
            struct coordinator_job_status status = {0};
            struct lt_error error;
            core_job_status(world->core, known->id, world->now_us, &status, &error);
            world_fail(world, "ends: job %u is %s: %u of %u predictions, %u of %u decodes; %s",
                       known->id, job_state_name(status.state), status.progress.predict_done,
                       status.progress.predict_count, status.progress.decode_done,
                       status.progress.decode_count, status.reason);
            continue;
        }
        if (job->state == JOB_STATE_FAILED && (!job->reason[0] || !may_fail(&world->plan)))
            world_fail(world, "ends: job %u failed: '%s'", known->id, job->reason);
        if (job->state == JOB_STATE_CANCELED && !known->cancel_asked)
            world_fail(world, "ends: job %u was cancelled by nobody", known->id);
        if (job->state == JOB_STATE_COMPLETED &&
            (!lt_digest_equal(&known->latents, &reference[known->kind].latents) ||
             !lt_digest_equal(&known->frames, &reference[known->kind].frames)))
            world_fail(world, "bytes: job %u of kind %u gives another take", known->id,
                       known->kind);
        if (known->completions != (job->state == JOB_STATE_COMPLETED))
            world_fail(world, "once: job %u is %s and was completed %u times", known->id,
                       job_state_name(job->state), known->completions);
        if (!known->removed)
            world_fail(world, "books: files of job %u are still there", known->id);
    }
    if (world->core->leases.count || world->core->upload_count)
        world_fail(world, "books: %u leases and %zu uploads after the end",
                   world->core->leases.count, world->core->upload_count);
}
