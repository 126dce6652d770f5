/* A farm in virtual time: the real plan and the real graph, workers that only take time. Shared by
 * the bench that prints and the test that asserts. */
#pragma once

#include "common/arena.h"
#include "coordinator/graph.h"

#include <stdlib.h>

enum { FARM_WORKERS_MAX = 64 };

struct farm {
    uint32_t window_count, step_count, worker_count;
    uint64_t seed;
    bool barrier;
};

struct farm_result {
    double makespan;        /* when the last prediction is committed; 1 is a mean task */
    double busy;            /* share of worker time until then */
    double busy_until_last; /* the same until the last prediction is handed out: the last wave left
                               aside */
};

static uint64_t farm_random(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static double farm_between(uint64_t *state, double low, double high)
{
    return low + (high - low) * (double)(farm_random(state) >> 11) * 0x1p-53;
}

/* Frames for exactly `window_count` windows of 21 latents with 4 shared. */
static lt_status farm_plan(const struct farm *farm, struct lt_arena *arena, struct plan *plan,
                           struct lt_error *error)
{
    struct job job;
    job_defaults(&job);
    job.width = job.height = 16;
    job.frame_count = job.frame_count_padded =
        4 * (20 + 17 * ((int64_t)farm->window_count - 1)) + 1;
    job.step_count = farm->step_count;
    job.decode_segment = 0;
    return plan_build(&job, arena, plan, error);
}

struct farm_worker {
    double slowness; /* time per task; others' mean is 1 */
    double free_at;  /* when its task ends */
    uint32_t task;   /* UINT32_MAX: idle */
    double busy, busy_before_last;
};

/* Hands ready predictions to idle workers, the fastest first; each task takes its worker's time
 * give or take a tenth. Gives how many were handed out. */
static uint32_t farm_assign(struct graph *graph, const struct plan *plan,
                            struct farm_worker *worker, uint32_t worker_count, double now,
                            uint64_t *random)
{
    uint32_t handed_out = 0;
    for (;;) {
        const uint32_t task = graph_next(graph);
        struct farm_worker *best = NULL;
        for (uint32_t k = 0; k < worker_count; k++)
            if (worker[k].task == UINT32_MAX && (!best || worker[k].slowness < best->slowness))
                best = &worker[k];
        if (!best || task >= plan->predict_count)
            return handed_out;
        graph_lease(graph, task);
        best->task = task;
        best->free_at = now + best->slowness * farm_between(random, 0.9, 1.1);
        best->busy += best->free_at - now;
        handed_out++;
    }
}

static void farm_commit(struct graph *graph, struct farm_worker *worker, uint32_t *frames)
{
    struct lt_error error;
    uint32_t count = 0;
    const lt_status status = graph_commit(graph, worker->task, frames, &count, &error);
    lt_assert(status == LT_OK);
    for (uint32_t i = 0; i < count; i++)
        graph_frame_advanced(graph, frames[i]);
    worker->task = UINT32_MAX;
}

/* Worker speeds lie between 0.7 and 1.3 of the mean. */
static lt_status farm_run(const struct farm *farm, struct farm_result *result_out,
                          struct lt_error *error)
{
    struct farm_worker worker[FARM_WORKERS_MAX] = {0};
    uint32_t frames[64], handed_out = 0;
    uint64_t random = farm->seed;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    struct plan plan;
    struct graph *graph = NULL;
    lt_status status = farm_plan(farm, &arena, &plan, error);
    if (status == LT_OK)
        status = graph_create(&plan, farm->barrier, &graph, error);
    for (uint32_t k = 0; k < farm->worker_count; k++) {
        worker[k].slowness = farm_between(&random, 0.7, 1.3);
        worker[k].task = UINT32_MAX;
    }
    double now = 0, last_handed_out = 0;
    while (status == LT_OK && graph_committed_count(graph) < plan.predict_count) {
        const uint32_t before = handed_out;
        handed_out += farm_assign(graph, &plan, worker, farm->worker_count, now, &random);
        if (before < plan.predict_count && handed_out == plan.predict_count)
            last_handed_out = now;
        struct farm_worker *first = NULL;
        for (uint32_t k = 0; k < farm->worker_count; k++)
            if (worker[k].task != UINT32_MAX && (!first || worker[k].free_at < first->free_at))
                first = &worker[k];
        lt_assert(first != NULL); /* nothing runs and nothing is ready: the graph lost a task */
        now = first->free_at;
        farm_commit(graph, first, frames);
        for (uint32_t k = 0; k < farm->worker_count && handed_out < plan.predict_count; k++)
            worker[k].busy_before_last =
                worker[k].busy - (worker[k].task != UINT32_MAX ? worker[k].free_at - now : 0);
    }
    double busy = 0, busy_before_last = 0;
    for (uint32_t k = 0; k < farm->worker_count; k++) {
        busy += worker[k].busy;
        busy_before_last += worker[k].busy_before_last;
    }
    if (status == LT_OK)
        *result_out = (struct farm_result){
            .makespan = now,
            .busy = busy / (now * farm->worker_count),
            .busy_until_last = busy_before_last / (last_handed_out * farm->worker_count),
        };
    graph_destroy(&graph);
    lt_arena_fini(&arena);
    return status;
}
