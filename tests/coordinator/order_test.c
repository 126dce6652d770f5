/* The promise of the farm, without a farm: any order of completion gives the same bytes as one
 * machine that goes step by step. If this breaks, two renders of one job differ and nobody can say
 * which is right. */
#include "tests/test.h"

#include "common/arena.h"
#include "coordinator/blend.h"
#include "coordinator/graph.h"
#include "coordinator/noise.h"
#include "coordinator/sampler.h"

#include <stdlib.h>

enum { CHANNELS = 2, PLANE = 4, FRAME = CHANNELS * PLANE, LATENTS_MAX = 61, LATENTS_SLOTS = 32 };

static const struct order_case {
    enum sampler_kind sampler;
    enum window_schedule schedule;
    enum window_fuse fuse;
    enum noise_kind noise;
    int64_t latent_frames, stride, steps;
} cases[] = {
    {SAMPLER_UNIPC, WINDOW_STATIC_BALANCED, WINDOW_FUSE_LINEAR, NOISE_PHILOX, 61, 1, 5},
    {SAMPLER_DPMPP_SDE, WINDOW_STATIC_STANDARD, WINDOW_FUSE_HANN, NOISE_TORCH, 50, 1, 4},
    {SAMPLER_LCM, WINDOW_UNIFORM_STANDARD, WINDOW_FUSE_PYRAMID, NOISE_PHILOX, 61, 1, 4},
    {SAMPLER_DPMPP, WINDOW_UNIFORM_LOOPED, WINDOW_FUSE_RELATIVE, NOISE_TORCH, 41, 2, 4},
    {SAMPLER_EULER, WINDOW_BATCHED_SHIFTED, WINDOW_FUSE_FLAT, NOISE_PHILOX, 61, 1, 6},
};

/* A job under way, all in memory. */
struct farm {
    struct plan plan;
    struct sampler sampler;
    struct noise *noise;
    float x[LATENTS_MAX][FRAME], history[SAMPLER_HISTORY_MAX][LATENTS_MAX][FRAME];
    float **prediction; /* [predict_count]: [C, F, h, w], NULL until committed */
};

static void farm_init(struct farm *farm, const struct order_case *with, struct lt_arena *arena,
                      struct job *job)
{
    struct lt_error error;
    memset(farm, 0, sizeof *farm);
    job_defaults(job);
    job->width = job->height = 16;
    job->latent_channels = CHANNELS;
    job->frame_count = job->frame_count_padded = 4 * with->latent_frames - 3;
    job->sampler = with->sampler;
    job->schedule = with->schedule;
    job->fuse = with->fuse;
    job->noise = with->noise;
    job->window_stride = with->stride;
    job->step_count = with->steps;
    assert_ok(plan_build(job, arena, &farm->plan, &error));
    assert_ok(sampler_build(job->sampler, &farm->plan, arena, &farm->sampler, &error));
    assert_ok(noise_create(job, &farm->plan, &farm->noise, &error));
    farm->prediction = calloc(farm->plan.predict_count, sizeof *farm->prediction);
    assert_non_null(farm->prediction);
    for (uint32_t f = 0; f < farm->plan.latent_frames; f++)
        noise_initial_frame(farm->noise, f, farm->x[f]);
}

static void farm_fini(struct farm *farm)
{
    for (uint32_t task = 0; task < farm->plan.predict_count; task++)
        free(farm->prediction[task]);
    free(farm->prediction);
    noise_destroy(&farm->noise);
}

/* A "model": every slot sees its left neighbour, its place and the timestep. */
static void predict(struct farm *farm, uint32_t task)
{
    uint32_t step, index;
    plan_task(&farm->plan, task, &step, &index);
    const struct window *window = &farm->plan.step[step].window[index];
    const uint32_t count = window->frame_count;
    float *v = malloc((size_t)count * FRAME * sizeof *v);
    assert_non_null(v);
    for (uint32_t k = 0; k < count; k++)
        for (uint32_t c = 0; c < CHANNELS; c++)
            for (uint32_t i = 0; i < PLANE; i++) {
                const float x = farm->x[window->frame[k]][c * PLANE + i];
                const float left = farm->x[window->frame[k ? k - 1 : 0]][c * PLANE + i];
                v[(c * count + k) * PLANE + i] = 0.6f * x + 0.2f * left +
                                                 1e-4f * (float)farm->plan.step[step].timestep +
                                                 0.01f * (float)k;
            }
    farm->prediction[task] = v;
}

/* All windows of the frame's step are there: blend and sample it. */
static void advance(struct farm *farm, uint32_t step, uint32_t frame)
{
    struct lt_error error;
    const struct plan_step *at = &farm->plan.step[step];
    struct blend_source source[LATENTS_SLOTS];
    size_t count = 0;
    for (uint32_t w = 0; w < at->window_count; w++)
        for (uint32_t k = 0; k < at->window[w].frame_count; k++)
            if (at->window[w].frame[k] == frame)
                source[count++] = (struct blend_source){
                    .first = farm->prediction[at->task_first + w] + k * PLANE,
                    .channel_stride = at->window[w].frame_count * PLANE,
                    .weight = at->window[w].weight[k],
                };
    float blended[FRAME], added[FRAME];
    assert_ok(blend_frame(source, count, CHANNELS, PLANE, blended, &error));
    const bool noisy = sampler_needs_noise(&farm->sampler, step);
    if (noisy)
        noise_step_frame(farm->noise, step, frame, added);
    const struct sampler_frame state = {
        farm->x[frame],
        {farm->history[0][frame], farm->history[1][frame], farm->history[2][frame]}};
    sampler_advance(&farm->sampler, step, FRAME, blended, noisy ? added : NULL, &state, &state);
}

/* One machine, step by step. */
static void run_in_order(struct farm *farm)
{
    for (uint32_t s = 0; s < farm->plan.step_count; s++) {
        for (uint32_t w = 0; w < farm->plan.step[s].window_count; w++)
            predict(farm, farm->plan.step[s].task_first + w);
        for (uint32_t f = 0; f < farm->plan.latent_frames; f++)
            advance(farm, s, f);
    }
}

/* Up to `running` tasks read their slices when leased and finish in random order. Gives the largest
 * difference in steps between frames. */
static uint32_t run_in_disorder(struct farm *farm, bool barrier, uint32_t running, uint64_t random)
{
    struct lt_error error;
    struct graph *graph;
    assert_ok(graph_create(&farm->plan, barrier, &graph, &error));
    uint32_t leased[16], count = 0, frames[64], frame_count, drift = 0;
    while (graph_committed_count(graph) < farm->plan.predict_count) {
        while (count < running && graph_next(graph) < farm->plan.predict_count) {
            leased[count] = graph_next(graph);
            graph_lease(graph, leased[count]);
            predict(farm, leased[count++]);
        }
        assert_true(count > 0);
        random = random * 6364136223846793005u + 1442695040888963407u;
        const uint32_t pick = (uint32_t)(random >> 33) % count;
        const uint32_t task = leased[pick];
        leased[pick] = leased[--count];
        assert_ok(graph_commit(graph, task, frames, &frame_count, &error));
        for (uint32_t i = 0; i < frame_count; i++) {
            advance(farm, graph_frame_step(graph, frames[i]), frames[i]);
            graph_frame_advanced(graph, frames[i]);
        }
        uint32_t low = UINT32_MAX, high = 0;
        for (uint32_t f = 0; f < farm->plan.latent_frames; f++) {
            const uint32_t step = graph_frame_step(graph, f);
            low = step < low ? step : low;
            high = step > high ? step : high;
        }
        drift = high - low > drift ? high - low : drift;
    }
    graph_destroy(&graph);
    return drift;
}

static void every_order_gives_the_same_bytes(void **state)
{
    (void)state;
    static struct farm want, got;
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        struct lt_arena arena;
        lt_arena_init(&arena, 0);
        struct job job;
        farm_init(&want, &cases[i], &arena, &job);
        run_in_order(&want);
        uint32_t drift = 0;
        for (uint64_t seed = 1; seed <= 12; seed++) {
            const bool barrier = seed % 4 == 0;
            farm_init(&got, &cases[i], &arena, &job);
            const uint32_t most = run_in_disorder(&got, barrier, 1 + (uint32_t)seed, seed);
            assert_memory_equal(got.x, want.x, sizeof want.x);
            assert_memory_equal(got.history, want.history, sizeof want.history);
            drift = most > drift ? most : drift;
            if (barrier)
                assert_true(most <= 1);
            farm_fini(&got);
        }
        if (cases[i].schedule == WINDOW_STATIC_BALANCED)
            assert_true(drift > 1); /* else this did not test the wavefront */
        farm_fini(&want);
        lt_arena_fini(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_order_gives_the_same_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
