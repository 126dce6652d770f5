/* A job whose steps reuse earlier ones' work: which steps do, once it is known, and who holds it.
 */
#include "coordinator/lease.h"
#include "coordinator/plan_skips.h"
#include "coordinator/run.h"
#include "coordinator/run_private.h"

#include <stdlib.h>
#include <string.h>

lt_status run_skips_init(struct run *run, struct lt_error *error)
{
    if (run->job.cache.kind == JOB_CACHE_NONE)
        return LT_OK;
    const uint32_t windows = run->plan.step[0].window_count; /* of every step: they stay */
    run->holder = lt_arena_take_array(&run->arena, windows, sizeof *run->holder);
    if (!run->holder)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a job's windows");
    memset(run->holder, 0, windows * sizeof *run->holder);
    return LT_OK;
}

static lt_status know_expert(struct run *run, uint32_t expert, struct lt_error *error)
{
    const uint32_t task = plan_find_condition(&run->plan, PLAN_CONDITION_TIMES, expert);
    char name[32];
    if (task == UINT32_MAX)
        return LT_OK;
    const size_t bytes = (size_t)run_result_bytes(run, task);
    float *distance = malloc(bytes);
    if (!distance)
        return lt_fail(error, LT_NO_MEMORY, "no memory for time embeddings");
    run_result_name(run, task, name);
    const lt_status status = objects_read(run->store, name, 0, distance, bytes, error);
    if (status == LT_OK)
        plan_skips_by_times(&run->job, &run->plan, expert, distance);
    free(distance);
    return status;
}

lt_status run_know_skips(struct run *run, struct lt_error *error)
{
    if (run->skips_known || run->job.cache.kind != JOB_CACHE_TEACACHE)
        return LT_OK;
    for (uint32_t expert = 0; expert < 2; expert++)
        LT_TRY(know_expert(run, expert, error));
    run->skips_known = true;
    return LT_OK;
}

struct lt_digest run_cache_key(const struct run *run, uint32_t window)
{
    struct {
        struct lt_digest job;
        uint32_t run, window;
    } name = {.run = run->id, .window = window};
    struct lt_error error;
    if (job_digest(&run->job, &name.job, &error) != LT_OK)
        name.job = (struct lt_digest){{0}}; /* no memory: the run alone names it */
    return lt_sha256(&name, sizeof name);
}

static bool is_of_window(const struct run *run, uint32_t task, uint32_t *step_out,
                         uint32_t *window_out)
{
    return run->holder && plan_task(&run->plan, task, step_out, window_out) == PLAN_PREDICT;
}

bool run_holder(const struct run *run, uint32_t task, struct lt_peer *peer_out)
{
    static const struct lt_peer nobody;
    uint32_t step, window;
    if (!is_of_window(run, task, &step, &window) || !plan_is_sticky(&run->job, &run->plan, step))
        return false;
    *peer_out = run->holder[window];
    return !lease_peer_equal(peer_out, &nobody);
}

void run_set_holder(struct run *run, uint32_t task, const struct lt_peer *peer)
{
    uint32_t step, window;
    if (is_of_window(run, task, &step, &window))
        run->holder[window] = *peer;
}
