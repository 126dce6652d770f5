/* What people and programs may ask of the core. */
#include "coordinator/core_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is left of each kind, at that kind's mean so far, by as many workers as worked on it. A kind
 * that was not timed yet counts like the mean of all. */
static double estimate(const struct core_job *job, const struct run_progress *p, int64_t now_us)
{
    const double left[PLAN_KINDS] = {[PLAN_PREDICT] = p->predict_count - p->predict_done,
                                     [PLAN_DECODE] = p->decode_count - p->decode_done,
                                     [PLAN_CONDITION] = p->condition_count - p->condition_done};
    int64_t spent = 0;
    uint32_t timed = 0;
    double work = 0;
    for (int kind = 0; kind < PLAN_KINDS; kind++) {
        spent += job->timed[kind].spent_us;
        timed += job->timed[kind].count;
    }
    if (left[PLAN_PREDICT] + left[PLAN_DECODE] + left[PLAN_CONDITION] == 0)
        return 0;
    if (job->first_lease_us == 0 || spent == 0 || now_us <= job->first_lease_us)
        return -1;
    for (int kind = 0; kind < PLAN_KINDS; kind++)
        work += left[kind] * (job->timed[kind].count
                                  ? (double)job->timed[kind].spent_us / job->timed[kind].count
                                  : (double)spent / timed);
    return work / (double)spent * (double)(now_us - job->first_lease_us) * 1e-6;
}

static void explain(struct core *core, const struct core_job *job, int64_t now_us, char *out,
                    size_t size)
{
    if (core->draining) {
        snprintf(out, size, "the coordinator is draining");
        return;
    }
    const struct dispatch_job view = {job->run, job->priority, job->lease_count, job->kernel_class};
    dispatch_explain(&core->fleet, &view, now_us, out, size);
}

lt_status core_job_status(struct core *core, uint32_t id, int64_t now_us,
                          struct coordinator_job_status *status_out, struct lt_error *error)
{
    const struct core_job *job = core_find_job(core, id);
    if (!job)
        return lt_fail(error, LT_NOT_FOUND, "there is no job %u", id);
    struct coordinator_job_status status = {
        .id = job->id,
        .digest = job->digest,
        .state = job->state,
        .priority = job->priority,
        .fraction = job->state == JOB_STATE_COMPLETED,
        .eta_seconds = -1,
        .retry_count = job->retry_count,
        .created_us = job->created_us,
        .started_us = job->started_us,
        .finished_us = job->finished_us,
        .status = job->status,
    };
    snprintf(status.name, sizeof status.name, "%s", job->name);
    snprintf(status.kernel_class, sizeof status.kernel_class, "%s", job->kernel_class);
    snprintf(status.reason, sizeof status.reason, "%s", job->reason);
    if (job->run) {
        run_progress(job->run, &status.progress);
        const struct run_progress *p = &status.progress;
        const uint32_t total = p->predict_count + p->decode_count + p->condition_count;
        const uint32_t done = p->predict_done + p->decode_done + p->condition_done;
        status.fraction = (double)done / total;
        status.eta_seconds = estimate(job, &status.progress, now_us);
        const struct dispatch_job view = {job->run, job->priority, job->lease_count,
                                          job->kernel_class};
        status.nobody_can =
            !job_state_is_terminal(job->state) && job->state != JOB_STATE_FINALIZING &&
            dispatch_lacks(&core->fleet, &view, now_us, status.reason, sizeof status.reason);
        if (!status.nobody_can && job->lease_count == 0 && !job_state_is_terminal(job->state) &&
            job->state != JOB_STATE_FINALIZING)
            explain(core, job, now_us, status.reason, sizeof status.reason);
    }
    *status_out = status;
    return LT_OK;
}

size_t core_jobs(const struct core *core, uint32_t *id_out, size_t max)
{
    for (size_t i = 0; i < core->job_count && i < max; i++)
        id_out[i] = core->job[i]->id;
    return core->job_count;
}

const char *core_job_json(const struct core *core, uint32_t id)
{
    const struct core_job *job = core_find_job(core, id);
    return job ? job->json : NULL;
}

struct run *core_job_run(const struct core *core, uint32_t id)
{
    const struct core_job *job = core_find_job(core, id);
    return job && !job->ended ? job->run : NULL;
}

size_t core_workers(const struct core *core, int64_t now_us,
                    struct coordinator_worker_status *status_out, size_t max)
{
    for (size_t i = 0; i < core->fleet.count && i < max; i++) {
        const struct fleet_worker *worker = core->fleet.worker[i];
        struct coordinator_worker_status *status = &status_out[i];
        *status = (struct coordinator_worker_status){
            .state = fleet_state(worker),
            .slot_count = worker->slot_count,
            .lease_count = worker->lease_count,
            .model_count = (uint32_t)worker->model_count,
            .memory_bytes = worker->memory_bytes,
            .memory = worker->memory,
            .tasks_done = worker->tasks_done,
            .tasks_failed = worker->tasks_failed,
            .silent_ms = (now_us - worker->heard_us) / 1000,
            .busy_seconds = (double)worker->busy_us * 1e-6,
            .task_job = (uint32_t)(worker->progress.task >> 32),
            .task_index = (uint32_t)worker->progress.task,
            .task_done = worker->progress.done,
            .task_total = worker->progress.total,
        };
        snprintf(status->name, sizeof status->name, "%s", worker->name);
        snprintf(status->device, sizeof status->device, "%s", worker->device);
        snprintf(status->kernel_class, sizeof status->kernel_class, "%s", worker->kernel_class);
    }
    return core->fleet.count;
}

static void add_number(struct lt_sha256 *hash, uint64_t number)
{
    lt_sha256_add(hash, &number, sizeof number);
}

lt_status core_state_digest(struct core *core, struct lt_digest *digest_out, struct lt_error *error)
{
    struct lt_sha256 hash;
    lt_sha256_begin(&hash);
    for (size_t i = 0; i < core->job_count; i++) {
        const struct core_job *job = core->job[i];
        add_number(&hash, job->id);
        add_number(&hash, job->state);
        if (!job->run || job->ended)
            continue;
        for (uint32_t t = 0; t < run_plan(job->run)->task_count; t++) {
            const struct run_task *task = run_task(job->run, t);
            const enum task_state state = graph_state(run_graph(job->run), t);
            add_number(&hash, state);
            add_number(&hash, task->epoch);
            add_number(&hash, task->attempts);
            if (state == TASK_LEASED)
                lt_sha256_add(&hash, lease_at(&core->leases, task->lease)->peer.id, 16);
        }
        float *x = malloc(run_plan(job->run)->frame_bytes);
        lt_status status = x ? LT_OK : lt_fail(error, LT_NO_MEMORY, "no memory for a frame");
        for (uint32_t f = 0; f < run_plan(job->run)->latent_frames && status == LT_OK; f++) {
            add_number(&hash, graph_frame_step(run_graph(job->run), f));
            status = run_read_present_frame(job->run, f, x, error);
            if (status == LT_OK)
                lt_sha256_add(&hash, x, run_plan(job->run)->frame_bytes);
        }
        free(x);
        LT_TRY(status);
    }
    *digest_out = lt_sha256_end(&hash);
    return LT_OK;
}
