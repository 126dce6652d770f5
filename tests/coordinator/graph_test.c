/* If the graph lost a task a job would hang at 99 %; if it gave one twice or too early, frames of
 * different noise levels would be blended into one prediction and nobody would see why the picture
 * shimmers. */
#include "tests/test.h"

#include "common/arena.h"
#include "coordinator/graph.h"

#include <stdlib.h>

struct fixture {
    struct lt_arena arena;
    struct job job;
    struct plan plan;
};

static void fixture_init(struct fixture *fixture, enum window_schedule schedule,
                         int64_t latent_frames, int64_t stride, int64_t steps)
{
    struct lt_error error;
    lt_arena_init(&fixture->arena, 0);
    job_defaults(&fixture->job);
    fixture->job.width = fixture->job.height = 16;
    fixture->job.frame_count = fixture->job.frame_count_padded = 4 * latent_frames - 3;
    if (fixture->job.frame_count > JOB_FRAMES_MAX)
        fixture->job.frame_count = JOB_FRAMES_MAX;
    fixture->job.schedule = schedule;
    fixture->job.window_stride = stride;
    fixture->job.step_count = steps;
    assert_ok(plan_build(&fixture->job, &fixture->arena, &fixture->plan, &error));
}

/* xorshift: any order will do, the same each run. */
static uint32_t random_below(uint64_t *state, uint32_t bound)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)(*state >> 33) % bound;
}

/* Every frame of the task's window stands at its step. */
static void check_frames(const struct graph *graph, const struct plan *plan, uint32_t task)
{
    uint32_t index, window;
    if (plan_task(plan, task, &index, &window) == PLAN_DECODE) {
        const struct plan_segment *segment = &plan->segment[index];
        for (uint32_t k = 0; k < segment->frame_count; k++)
            assert_int_equal(graph_frame_step(graph, segment->frame_first + k), plan->step_count);
        return;
    }
    const struct window *slots = &plan->step[index].window[window];
    for (uint32_t k = 0; k < slots->frame_count; k++)
        assert_int_equal(graph_frame_step(graph, slots->frame[k]), index);
}

/* One list for all steps: frames that share a window differ by one step at most. (A frame gets to s
 * + 2 only through all its windows of step s + 1, and those were ready only when all their frames
 * stood at s + 1.) */
static void check_drift(const struct graph *graph, const struct plan *plan)
{
    for (uint32_t w = 0; w < plan->step[0].window_count; w++) {
        const struct window *window = &plan->step[0].window[w];
        uint32_t low = UINT32_MAX, high = 0;
        for (uint32_t k = 0; k < window->frame_count; k++) {
            const uint32_t step = graph_frame_step(graph, window->frame[k]);
            low = step < low ? step : low;
            high = step > high ? step : high;
        }
        assert_true(high - low <= 1);
    }
}

/* Leases up to eight tasks, returns some, finishes them in random order. Gives the commits made. */
static uint32_t run_random(const struct plan *plan, bool barrier, bool check_drifts, uint64_t seed)
{
    struct lt_error error;
    struct graph *graph;
    assert_ok(graph_create(plan, barrier, &graph, &error));
    uint64_t random = seed * 0x9e3779b97f4a7c15u + 1;
    uint32_t running[8], count = 0, commits = 0, step_low = 0;
    uint32_t *frames = calloc((size_t)plan->latent_frames * 2 + 64, sizeof *frames);
    uint8_t *seen = calloc(plan->task_count, 1);
    while (!graph_done(graph)) {
        while (count < 8 && graph_next(graph) != UINT32_MAX) {
            const uint32_t task = graph_next(graph);
            check_frames(graph, plan, task);
            graph_lease(graph, task);
            if (random_below(&random, 10) == 0)
                graph_return(graph, task);
            else
                running[count++] = task;
        }
        assert_true(count > 0); /* else: a job that hangs */
        const uint32_t pick = random_below(&random, count);
        const uint32_t task = running[pick];
        running[pick] = running[--count];
        uint32_t frame_count, step, window;
        assert_ok(graph_commit(graph, task, frames, &frame_count, &error));
        assert_int_equal(seen[task]++, 0);
        commits++;
        if (barrier && plan_task(plan, task, &step, &window) == PLAN_PREDICT) {
            assert_true(step >= step_low); /* steps never mix */
            step_low = step;
        }
        for (uint32_t i = 0; i < frame_count; i++)
            graph_frame_advanced(graph, frames[i]);
        if (check_drifts)
            check_drift(graph, plan);
    }
    assert_int_equal(graph_ready_count(graph), 0);
    free(frames);
    free(seen);
    graph_destroy(&graph);
    return commits;
}

/* clang-format off */
static const struct {
    enum window_schedule schedule;
    int64_t latent_frames, stride, steps;
} cases[] = {
    {WINDOW_STATIC_BALANCED, 61, 1, 6}, {WINDOW_STATIC_STANDARD, 61, 1, 6},
    {WINDOW_STATIC_STANDARD, 21, 1, 3}, {WINDOW_STATIC_STANDARD, 1, 1, 1},
    {WINDOW_UNIFORM_STANDARD, 61, 1, 6}, {WINDOW_UNIFORM_STANDARD, 41, 2, 8},
    {WINDOW_UNIFORM_LOOPED, 41, 2, 5}, {WINDOW_UNIFORM_LOOPED, 32, 2, 5},
    {WINDOW_BATCHED, 61, 1, 4}, {WINDOW_BATCHED_SHIFTED, 61, 1, 8},
    {WINDOW_UNIFORM_STANDARD_COMFY, 129, 3, 5}, {WINDOW_UNIFORM_LOOPED_OPEN, 21, 1, 4},
};
/* clang-format on */

static void every_order_commits_every_task_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        struct fixture fixture;
        fixture_init(&fixture, cases[i].schedule, cases[i].latent_frames, cases[i].stride,
                     cases[i].steps);
        const bool one_list = cases[i].schedule == WINDOW_STATIC_BALANCED ||
                              cases[i].schedule == WINDOW_STATIC_STANDARD ||
                              cases[i].schedule == WINDOW_BATCHED;
        for (uint64_t seed = 0; seed < 20; seed++) {
            assert_int_equal(run_random(&fixture.plan, false, one_list, seed),
                             fixture.plan.task_count);
            assert_int_equal(run_random(&fixture.plan, true, one_list, seed),
                             fixture.plan.task_count);
        }
        lt_arena_fini(&fixture.arena);
    }
}

/* A frame waits for all its windows, a window for all its frames, a segment for its warm-up. */
static void frames_advance_when_their_windows_are_committed(void **state)
{
    (void)state;
    struct lt_error error;
    struct fixture fixture;
    fixture_init(&fixture, WINDOW_STATIC_STANDARD, 61, 1, 2); /* 0-20, 17-37, 34-54, 40-60 */
    struct graph *graph;
    assert_ok(graph_create(&fixture.plan, false, &graph, &error));
    assert_int_equal(graph_ready_count(graph), 4);
    uint32_t frames[64], count;
    assert_ok(graph_commit(graph, 0, frames, &count, &error));
    assert_int_equal(count, 17);
    assert_int_equal(frames[0], 0);
    assert_int_equal(frames[16], 16);
    for (uint32_t i = 0; i < count; i++)
        graph_frame_advanced(graph, frames[i]);
    assert_int_equal(graph_state(graph, 4), TASK_BLOCKED);
    assert_fails(graph_commit(graph, 4, frames, &count, &error), LT_CONFLICT, "not ready");
    assert_fails(graph_commit(graph, 0, frames, &count, &error), LT_CONFLICT, "already");
    assert_fails(graph_commit(graph, 99, frames, &count, &error), LT_BAD_INPUT, "10 tasks");
    assert_ok(graph_commit(graph, 1, frames, &count, &error));
    assert_int_equal(count, 17); /* 17 to 33: 34 to 37 wait for window 2 */
    for (uint32_t i = 0; i < count; i++)
        graph_frame_advanced(graph, frames[i]);
    assert_int_equal(graph_state(graph, 4), TASK_READY);
    assert_int_equal(graph_state(graph, 5), TASK_BLOCKED);
    assert_int_equal(graph_next(graph), 2); /* lower steps first */
    assert_int_equal(graph_committed_count(graph), 2);
    graph_destroy(&graph);
    lt_arena_fini(&fixture.arena);
}

/* A coordinator that comes back replays its journal: the order of commits alone gives the state
 * back. */
static void a_replay_gives_the_same_state(void **state)
{
    (void)state;
    struct lt_error error;
    struct fixture fixture;
    fixture_init(&fixture, WINDOW_STATIC_BALANCED, 121, 1, 6);
    const uint32_t task_count = fixture.plan.task_count;
    for (uint32_t stop = 0; stop <= task_count; stop += 5) {
        struct graph *first, *second;
        assert_ok(graph_create(&fixture.plan, false, &first, &error));
        assert_ok(graph_create(&fixture.plan, false, &second, &error));
        uint32_t order[64], frames[64], count;
        uint64_t random = stop + 1;
        assert_in_range(task_count, 1, LT_COUNT(order));
        for (uint32_t i = 0; i < stop; i++) {
            uint32_t task;
            do
                task = random_below(&random, task_count);
            while (graph_state(first, task) != TASK_READY);
            graph_lease(first, task);
            order[i] = task;
            assert_ok(graph_commit(first, task, frames, &count, &error));
            for (uint32_t k = 0; k < count; k++)
                graph_frame_advanced(first, frames[k]);
        }
        for (uint32_t i = 0; i < stop; i++) { /* never leased here: ready is enough */
            assert_ok(graph_commit(second, order[i], frames, &count, &error));
            for (uint32_t k = count; k-- > 0;)
                graph_frame_advanced(second, frames[k]);
        }
        for (uint32_t task = 0; task < task_count; task++)
            assert_int_equal(graph_state(first, task), graph_state(second, task));
        assert_int_equal(graph_next(first), graph_next(second));
        assert_int_equal(graph_ready_count(first), graph_ready_count(second));
        graph_destroy(&first);
        graph_destroy(&second);
    }
    lt_arena_fini(&fixture.arena);
}

static void a_barrier_holds_every_window_back(void **state)
{
    (void)state;
    struct lt_error error;
    struct fixture fixture;
    fixture_init(&fixture, WINDOW_STATIC_STANDARD, 61, 1, 2);
    struct graph *graph;
    assert_ok(graph_create(&fixture.plan, true, &graph, &error));
    uint32_t frames[64], count;
    for (uint32_t task = 0; task < 4; task++) {
        assert_int_equal(graph_ready_count(graph), 4 - task);
        assert_ok(graph_commit(graph, task, frames, &count, &error));
        for (uint32_t i = 0; i < count; i++)
            graph_frame_advanced(graph, frames[i]);
    }
    assert_int_equal(graph_ready_count(graph), 4);
    graph_destroy(&graph);
    lt_arena_fini(&fixture.arena);
}

/* Thousands of tasks: the tree of ready bits has three levels. */
static void the_ready_set_gives_the_lowest(void **state)
{
    (void)state;
    struct lt_error error;
    struct fixture fixture;
    fixture_init(&fixture, WINDOW_BATCHED, 25001, 1, 1);
    struct job *job = &fixture.job;
    job->window_frames = 3;
    job->window_overlap = 0;
    assert_ok(plan_build(job, &fixture.arena, &fixture.plan, &error));
    struct graph *graph;
    assert_ok(graph_create(&fixture.plan, false, &graph, &error));
    const uint32_t count = fixture.plan.predict_count;
    assert_int_equal(count, 8334);
    assert_int_equal(graph_ready_count(graph), count);
    for (uint32_t task = 0; task < count; task++) {
        assert_int_equal(graph_next(graph), task);
        graph_lease(graph, task);
    }
    assert_int_equal(graph_next(graph), UINT32_MAX);
    graph_return(graph, 8191);
    graph_return(graph, 4096);
    assert_int_equal(graph_next(graph), 4096);
    graph_lease(graph, 4096);
    assert_int_equal(graph_next(graph), 8191);
    graph_destroy(&graph);
    graph_destroy(&graph);
    lt_arena_fini(&fixture.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_order_commits_every_task_once),
        cmocka_unit_test(frames_advance_when_their_windows_are_committed),
        cmocka_unit_test(a_replay_gives_the_same_state),
        cmocka_unit_test(a_barrier_holds_every_window_back),
        cmocka_unit_test(the_ready_set_gives_the_lowest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
