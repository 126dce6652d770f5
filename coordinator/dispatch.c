#include "coordinator/dispatch.h"

#include <stdio.h>
#include <string.h>

enum refusal {
    FITS,
    SILENT,
    LEAVING,
    HELD,
    OTHER_CLASS,
    TOO_OLD,
    NO_MODEL,
    OTHER_MODEL,
    MODEL_REFUSED,
    REFUSAL_COUNT
};

static const char *const refusal_text[REFUSAL_COUNT] = {
    [SILENT] = "silent",
    [LEAVING] = "draining",
    [HELD] = "paused after failures",
    [OTHER_CLASS] = "of another kernel class",
    [TOO_OLD] = "of an older version",
    [NO_MODEL] = "without the model",
    [OTHER_MODEL] = "with another file of the model's name",
    [MODEL_REFUSED] = "unable to use the model",
};

/* What workers of wire 1.0 would leave out unheard. */
static bool job_needs_minor_1(const struct job *job, const struct plan *plan)
{
    const struct job_guide *guide = &job->guide;
    return plan->condition_count > 0 || job->kind != JOB_TEXT_TO_VIDEO || job->lora_count > 0 ||
           guide->zero_star || guide->zero_steps > 0 || guide->nag_scale > 0 ||
           guide->skip_layer_count > 0 || guide->riflex > 0;
}

/* Whether the worker has a file, and can use it. */
static enum refusal judge_model(const struct fleet_worker *worker, const struct job_model *model)
{
    static const struct lt_digest any;
    const struct fleet_model *file = fleet_model(worker, model->name, &model->fingerprint);
    if (!file)
        return fleet_model(worker, model->name, &any) ? OTHER_MODEL : NO_MODEL;
    return file->refused != LT_OK ? MODEL_REFUSED : FITS;
}

/* Slots aside: could this worker run this task? */
static enum refusal judge(const struct fleet_worker *worker, const struct dispatch_job *job,
                          uint32_t model_index, int64_t now_us)
{
    uint32_t companion[RUN_MODELS];
    if (worker->suspect)
        return SILENT;
    if (worker->draining)
        return LEAVING;
    if (job->kernel_class[0] && strcmp(job->kernel_class, worker->kernel_class) != 0)
        return OTHER_CLASS;
    if (worker->version_minor < 1 && job_needs_minor_1(run_job(job->run), run_plan(job->run)))
        return TOO_OLD;
    enum refusal refusal = judge_model(worker, run_model(job->run, model_index));
    const size_t count = run_companions(job->run, model_index, companion);
    for (size_t i = 0; i < count && refusal == FITS; i++)
        refusal = judge_model(worker, run_model(job->run, companion[i]));
    if (refusal != FITS)
        return refusal;
    return worker->hold_until_us > now_us ? HELD : FITS;
}

/* The first ready task of each model, in order; UINT32_MAX: none. */
static void first_tasks(const struct dispatch_job *job, uint32_t first[RUN_MODELS])
{
    const struct graph *graph = run_graph(job->run);
    for (uint32_t m = 0; m < RUN_MODELS; m++)
        first[m] = UINT32_MAX;
    uint32_t missing = RUN_MODELS;
    for (uint32_t task = graph_next(graph); task != UINT32_MAX && missing > 0;) {
        const uint32_t model = run_task_model(job->run, task);
        if (first[model] == UINT32_MAX) {
            first[model] = task;
            missing--;
        }
        /* Tasks of one model come in long runs: skip what needs the same one. */
        task = graph_next_after(graph, run_model_end(job->run, task) - 1);
    }
}

static uint32_t window_of(const struct run *run, uint32_t task)
{
    uint32_t index, window;
    return plan_task(run_plan(run), task, &index, &window) == PLAN_PREDICT ? window : UINT32_MAX;
}

/* It need not read the model: worth more than anything else (pipeline.md G5.5). */
static bool holds_model(const struct fleet_worker *worker, const struct run *run, uint32_t task)
{
    const struct job_model *model = run_model(run, run_task_model(run, task));
    const struct fleet_model *file = fleet_model(worker, model->name, &model->fingerprint);
    return file && !lt_digest_is_zero(&worker->resident) &&
           lt_digest_equal(&worker->resident, &file->fingerprint);
}

static uint32_t score(const struct fleet_worker *worker, const struct run *run, uint32_t task)
{
    const uint32_t held = 8 * holds_model(worker, run, task);
    if (worker->last_job != run_id(run))
        return held;
    return held + 1 + 2 * (worker->last_window == window_of(run, task)) +
           4 * (worker->last_model == run_task_model(run, task));
}

/* The task failed here last, and somebody else can run it, now or after what he runs: one bad
 * machine must not use up a task's attempts. */
static bool should_go_elsewhere(const struct fleet *fleet, const struct dispatch_job *job,
                                uint32_t task, const struct fleet_worker *worker, int64_t now_us)
{
    if (!lease_peer_equal(&run_task(job->run, task)->failed_on, &worker->peer))
        return false;
    for (size_t i = 0; i < fleet->count; i++)
        if (fleet->worker[i] != worker &&
            judge(fleet->worker[i], job, run_task_model(job->run, task), now_us) == FITS)
            return true;
    return false;
}

/* What the task reuses lies with another worker, who can run it, now or after what he runs. */
static const struct fleet_worker *find_holder(const struct fleet *fleet,
                                              const struct dispatch_job *job, uint32_t task,
                                              int64_t now_us)
{
    struct lt_peer holder;
    for (size_t i = 0; run_holder(job->run, task, &holder) && i < fleet->count; i++) {
        const struct fleet_worker *worker = fleet->worker[i];
        if (lease_peer_equal(&holder, &worker->peer) &&
            judge(worker, job, run_task_model(job->run, task), now_us) == FITS &&
            !should_go_elsewhere(fleet, job, task, worker, now_us))
            return worker;
    }
    return NULL;
}

/* The best worker with exactly the wanted kind of room. */
static struct fleet_worker *find_worker(const struct fleet *fleet, const struct dispatch_job *job,
                                        uint32_t task, bool idle, int64_t now_us)
{
    struct fleet_worker *best = NULL;
    const struct fleet_worker *holder = find_holder(fleet, job, task, now_us);
    const uint32_t model = run_task_model(job->run, task);
    for (size_t i = 0; i < fleet->count; i++) {
        struct fleet_worker *worker = fleet->worker[i];
        if (worker->lease_count >= worker->slot_count || (worker->lease_count == 0) != idle)
            continue;
        if (judge(worker, job, model, now_us) != FITS ||
            should_go_elsewhere(fleet, job, task, worker, now_us) || (holder && worker != holder))
            continue;
        if (!best || worker->lease_count < best->lease_count ||
            (worker->lease_count == best->lease_count &&
             score(worker, job->run, task) > score(best, job->run, task)))
            best = worker;
    }
    return best;
}

static bool comes_before(const struct dispatch_job *a, const struct dispatch_job *b)
{
    if (a->priority != b->priority)
        return a->priority > b->priority;
    if (a->lease_count != b->lease_count)
        return a->lease_count < b->lease_count;
    return run_id(a->run) < run_id(b->run);
}

/* The first ready task that a worker can take, of those that stand first for a model each: tasks of
 * one model are alike. */
static struct fleet_worker *pick_of_models(const struct fleet *fleet,
                                           const struct dispatch_job *job, bool idle,
                                           int64_t now_us, uint32_t *task_out)
{
    uint32_t first[RUN_MODELS], best = UINT32_MAX;
    struct fleet_worker *best_worker = NULL;
    first_tasks(job, first);
    for (uint32_t m = 0; m < RUN_MODELS; m++) {
        if (first[m] >= best)
            continue;
        struct fleet_worker *worker = find_worker(fleet, job, first[m], idle, now_us);
        if (worker) {
            best = first[m];
            best_worker = worker;
        }
    }
    *task_out = best;
    return best_worker;
}

/* The same where windows have workers of their own: every ready task is looked at. */
static struct fleet_worker *pick_of_windows(const struct fleet *fleet,
                                            const struct dispatch_job *job, bool idle,
                                            int64_t now_us, uint32_t *task_out)
{
    const struct graph *graph = run_graph(job->run);
    struct fleet_worker *worker = NULL;
    for (uint32_t task = graph_next(graph); task != UINT32_MAX && !worker;
         task = graph_next_after(graph, task)) {
        worker = find_worker(fleet, job, task, idle, now_us);
        *task_out = task;
    }
    return worker;
}

/* The best (job, task, worker) whose worker is idle, or has room beside what it runs. */
static bool pick_kind(const struct fleet *fleet, const struct dispatch_job *job, size_t job_count,
                      bool idle, int64_t now_us, struct dispatch_choice *choice)
{
    bool found = false;
    for (size_t i = 0; i < job_count; i++) {
        if (graph_ready_count(run_graph(job[i].run)) == 0 ||
            (found && !comes_before(&job[i], &job[choice->job])))
            continue;
        uint32_t task;
        struct fleet_worker *worker = run_job(job[i].run)->cache.kind == JOB_CACHE_NONE
                                          ? pick_of_models(fleet, &job[i], idle, now_us, &task)
                                          : pick_of_windows(fleet, &job[i], idle, now_us, &task);
        if (worker) {
            *choice = (struct dispatch_choice){(uint32_t)i, task, worker};
            found = true;
        }
    }
    return found;
}

bool dispatch_pick(const struct fleet *fleet, const struct dispatch_job *job, size_t job_count,
                   int64_t now_us, struct dispatch_choice *choice_out)
{
    uint64_t ready = 0;
    size_t room = 0, idle = 0;
    for (size_t i = 0; i < job_count; i++)
        ready += graph_ready_count(run_graph(job[i].run));
    for (size_t i = 0; i < fleet->count; i++) {
        const struct fleet_worker *worker = fleet->worker[i];
        if (worker->suspect || worker->draining || worker->lease_count >= worker->slot_count)
            continue;
        idle += worker->lease_count == 0;
        room += worker->lease_count > 0;
    }
    if (ready == 0 || room + idle == 0)
        return false;
    if (idle > 0 && pick_kind(fleet, job, job_count, true, now_us, choice_out))
        return true;
    return room > 0 && ready >= room && pick_kind(fleet, job, job_count, false, now_us, choice_out);
}

/* ", 2 without the model, 1 silent" after a sentence of `at` bytes. */
static void append_refusals(const size_t count[REFUSAL_COUNT], char *text, size_t at, size_t size)
{
    for (size_t r = 1; r < REFUSAL_COUNT && at < size; r++)
        if (count[r] > 0)
            at += (size_t)snprintf(text + at, size - at, ", %zu %s", count[r], refusal_text[r]);
}

bool dispatch_lacks(const struct fleet *fleet, const struct dispatch_job *job, int64_t now_us,
                    char *text_out, size_t size)
{
    for (uint32_t model = 0; model < RUN_MODELS && fleet->count > 0; model++) {
        const char *name = run_model(job->run, model)->name;
        size_t count[REFUSAL_COUNT] = {0};
        if (!name)
            continue;
        for (size_t i = 0; i < fleet->count; i++)
            count[judge(fleet->worker[i], job, model, now_us)]++;
        if (count[OTHER_CLASS] + count[TOO_OLD] + count[NO_MODEL] + count[OTHER_MODEL] +
                count[MODEL_REFUSED] <
            fleet->count)
            continue;
        const int at = snprintf(text_out, size, "needs %s; of %zu workers", name, fleet->count);
        append_refusals(count, text_out, (size_t)at, size);
        return true;
    }
    return false;
}

void dispatch_explain(const struct fleet *fleet, const struct dispatch_job *job, int64_t now_us,
                      char *text_out, size_t size)
{
    const uint32_t task = graph_next(run_graph(job->run));
    if (task == UINT32_MAX) {
        snprintf(text_out, size, "%s",
                 job->lease_count ? "every task that can run is leased" : "no task is ready");
        return;
    }
    if (fleet->count == 0) {
        snprintf(text_out, size, "no worker is connected");
        return;
    }
    size_t count[REFUSAL_COUNT] = {0}, at = 0;
    const uint32_t model = run_task_model(job->run, task);
    for (size_t i = 0; i < fleet->count; i++)
        count[judge(fleet->worker[i], job, model, now_us)]++;
    const struct fleet_worker *holder = find_holder(fleet, job, task, now_us);
    if (holder) {
        snprintf(text_out, size, "waiting for %.64s, which holds what task %u reuses", holder->name,
                 task);
        return;
    }
    if (count[FITS] > 0) {
        snprintf(text_out, size, "waiting for a free worker: %zu of %zu can run it, all are busy",
                 count[FITS], fleet->count);
        return;
    }
    at = (size_t)snprintf(text_out, size, "task %u needs %s%s%s; of %zu workers", task,
                          run_model(job->run, model)->name,
                          job->kernel_class[0] ? " on kernel class " : "", job->kernel_class,
                          fleet->count);
    append_refusals(count, text_out, at, size);
}
