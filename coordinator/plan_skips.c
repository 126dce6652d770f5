#include "coordinator/plan_skips.h"

#include "coordinator/skip.h"

enum {
    PREDICTIONS_MAX = 3, /* of a task */
    EVERY_PREDICTION = (1 << PREDICTIONS_MAX) - 1,
    EASYCACHE_START = 10 /* computed in any case, and so is its last step */
};

struct plan_steps plan_expert_steps(const struct plan *plan, uint32_t expert)
{
    struct plan_steps steps = {0};
    for (uint32_t s = 0; s < plan->step_count; s++)
        if (plan->step[s].low_expert == (expert == 1)) {
            steps.first = steps.count ? steps.first : s;
            steps.count++;
        }
    return steps;
}

/* The defaults are each method's own. Steps without velocity leave nothing to reuse. */
static struct skip_params params_of(const struct job *job, const struct plan *plan)
{
    static const double threshold[] = {
        [JOB_CACHE_TEACACHE] = 0.3, [JOB_CACHE_MAGCACHE] = 0.02, [JOB_CACHE_EASYCACHE] = 0.015};
    const struct job_cache *cache = &job->cache;
    const bool easy = cache->kind == JOB_CACHE_EASYCACHE;
    const uint32_t last = plan->step_count - (easy && plan->step_count > 1 ? 2 : 1);
    const uint32_t start = cache->start >= 0 ? (uint32_t)cache->start : easy ? EASYCACHE_START : 1;
    const uint32_t empty = (uint32_t)job->guide.zero_steps;
    return (struct skip_params){
        .model = (enum skip_model)cache->model,
        .threshold = cache->threshold > 0 ? cache->threshold : threshold[cache->kind],
        .start = start > empty ? start : empty + (cache->neighbours && empty > 0),
        .end = cache->end >= 0 && cache->end < last ? (uint32_t)cache->end : last,
        .skips_max = (uint32_t)cache->skips,
        .curve = (enum skip_curve)cache->curve,
        .neighbours = cache->neighbours,
        .compat = cache->compat,
    };
}

static void mark(struct plan *plan, struct plan_steps steps, const bool *skip, unsigned which)
{
    for (uint32_t s = steps.first; s < steps.first + steps.count; s++)
        if (skip[s])
            plan->step[s].skip |= (uint8_t)which;
}

void plan_skips(const struct job *job, struct plan *plan)
{
    bool skip[JOB_LIST_MAX];
    if (job->cache.kind != JOB_CACHE_MAGCACHE)
        return;
    const struct skip_params params = params_of(job, plan);
    for (uint32_t expert = 0; expert < 2; expert++) {
        const struct plan_steps steps = plan_expert_steps(plan, expert);
        const uint32_t end = steps.first + steps.count;
        for (uint32_t half = 0; half < 2; half++) {
            skip_magcache(&params, half, steps.first, end, plan->step_count, skip);
            mark(plan, steps, skip, half ? EVERY_PREDICTION & ~1u : 1);
        }
    }
}

void plan_skips_by_times(const struct job *job, struct plan *plan, uint32_t expert,
                         const float *distance)
{
    const struct plan_steps steps = plan_expert_steps(plan, expert);
    const struct skip_params params = params_of(job, plan);
    bool skip[JOB_LIST_MAX];
    skip_teacache(&params, steps.first, steps.first + steps.count, distance, skip);
    mark(plan, steps, skip, EVERY_PREDICTION);
}

uint32_t plan_reuse(const struct plan *plan, uint32_t step, uint32_t which)
{
    if (!(plan->step[step].skip >> which & 1))
        return 0;
    while (plan->step[step].skip >> which & 1)
        step--; /* an expert's first step is never marked */
    return step + 1;
}

static uint32_t expert_first(const struct plan *plan, uint32_t step)
{
    return plan_expert_steps(plan, plan->step[step].low_expert).first;
}

double plan_threshold(const struct job *job, const struct plan *plan, uint32_t step)
{
    const struct skip_params params = params_of(job, plan);
    const bool open = job->cache.kind == JOB_CACHE_EASYCACHE && step > expert_first(plan, step) &&
                      step >= params.start && step <= params.end;
    return open ? params.threshold : 0;
}

bool plan_is_sticky(const struct job *job, const struct plan *plan, uint32_t step)
{
    if (job->cache.kind == JOB_CACHE_EASYCACHE)
        return step > expert_first(plan, step);
    return plan->step[step].skip != 0;
}
