/* The plan is the promise: frames of the take that no segment gives are missing from the mp4, bytes
 * that it does not count are a bill nobody expected. */
#include "tests/test.h"

#include "common/arena.h"
#include "coordinator/cut.h"
#include "coordinator/plan.h"
#include "coordinator/plan_json.h"
#include "coordinator/plan_skips.h"
#include "coordinator/skip.h"

#include <jansson.h>
#include <stdlib.h>

static struct job job_of(int64_t frames)
{
    struct job job;
    job_defaults(&job);
    job.frame_count = frames;
    job.frame_count_padded = (frames + 2) / 4 * 4 + 1;
    return job;
}

/* clang-format off */
static const struct {
    int64_t frames, segment, warmup;
    struct plan_segment want[4];
    uint32_t count;
} segments[] = {
    {1, 0, 0, {{0, 1, 0, 0, 1}}, 1},
    {2, 0, 0, {{0, 2, 0, 0, 2}}, 1},
    {5, 32, 12, {{0, 2, 0, 0, 5}}, 1},
    {81, 0, 0, {{0, 21, 0, 0, 81}}, 1},
    {81, 21, 0, {{0, 21, 0, 0, 81}}, 1},
    {81, 20, 8, {{0, 20, 0, 0, 77}, {12, 9, 29, 77, 4}}, 2}, /* one latent left: its four frames
     */
    {78, 20, 8, {{0, 20, 0, 0, 77}, {12, 9, 29, 77, 1}}, 2}, /* trimmed to 78 */
    {80, 7, 1, {{0, 7, 0, 0, 25}, {6, 8, 1, 25, 28}, {13, 8, 1, 53, 27}}, 3},
    {81, 10, 12, {{0, 10, 0, 0, 37}, {0, 20, 37, 37, 40}, {8, 13, 45, 77, 4}}, 3}, /* warm-up
     from latent 0 */
};
/* clang-format on */

static void segments_give_the_frames_asked_for(void **state)
{
    (void)state;
    for (size_t i = 0; i < LT_COUNT(segments); i++) {
        struct lt_error error;
        struct lt_arena arena;
        lt_arena_init(&arena, 0);
        struct job job = job_of(segments[i].frames);
        job.decode_segment = segments[i].segment;
        job.decode_warmup = segments[i].warmup;
        struct plan plan;
        assert_ok(plan_build(&job, &arena, &plan, &error));
        assert_int_equal(plan.segment_count, segments[i].count);
        assert_memory_equal(plan.segment, segments[i].want,
                            plan.segment_count * sizeof plan.segment[0]);
        lt_arena_fini(&arena);
    }
}

static json_t *write_and_read(const struct job *job, const struct plan *plan)
{
    struct lt_error error;
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&text, &bytes);
    assert_non_null(to);
    assert_ok(plan_write_json(job, plan, "{\"ram_bytes\": 7}", to, &error));
    fclose(to);
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    free(text);
    return root;
}

/* What leads predictions stands in their specs, in the steps it is meant for; the negative text
 * goes along where attention is led away from it. */
static void options_reach_their_tasks(void **state)
{
    (void)state;
    static const double skipped[] = {9, 10}, one = 1;
    struct lt_error error;
    struct lt_arena arena;
    struct cut cuts[CUTS_MAX];
    lt_arena_init(&arena, 0);
    struct job job = job_of(81);
    struct plan plan;
    job.text = "p";
    job.text_negative = "n";
    job.guidance = &one;
    job.guidance_count = 1;
    job.step_count = 10;
    job.guide.zero_star = true;
    job.guide.zero_steps = 1;
    job.guide.nag_scale = 11;
    job.guide.skip_layer = skipped;
    job.guide.skip_layer_count = 2;
    job.guide.skip_end = 0.5;
    job.guide.riflex = 6;
    job.face_strength = 0.5;
    assert_ok(plan_build(&job, &arena, &plan, &error));
    assert_int_equal(plan.step_count, 10);
    for (uint32_t task = 0; task < plan.predict_count; task++) {
        uint32_t step, window;
        struct lt_task_spec spec = {0};
        size_t count;
        bool negative = false;
        assert_int_equal(plan_task(&plan, task, &step, &window), PLAN_PREDICT);
        cut_spec(&job, &plan, task, &spec);
        assert_int_equal(spec.guide, LT_GUIDE_ZERO_STAR);
        assert_int_equal(spec.no_velocity, step == 0);
        assert_true(spec.nag_count == LT_SPEC_NAG && spec.nag[0] == 11 && spec.nag[1] == 2.5);
        assert_int_equal(spec.skip_layer_count, step >= 1 && step <= 5 ? 2 : 0);
        assert_true(spec.riflex_index == 6 && spec.riflex_frames == 21);
        assert_true(spec.strength_count == 2 && spec.strength[0] == 1 && spec.strength[1] == 0.5);
        assert_ok(
            cut_task(&job, &plan, task, (const uint64_t[]){64, 32}, &arena, cuts, &count, &error));
        for (size_t i = 0; i < count; i++)
            negative |= cuts[i].role == LT_BLOB_TEXT_NEGATIVE;
        assert_true(negative);
    }
    lt_arena_fini(&arena);
}

/* Every frame once, in order, and none that the run of the decoder does not have: all lengths, all
 * segment sizes. */
static void segments_tile_the_take(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    for (int64_t frames = 1; frames <= 130; frames++)
        for (int64_t segment = 0; segment <= 34; segment += segment < 6 ? 1 : 7)
            for (int64_t warmup = 1; warmup <= 12; warmup += 3) {
                const struct lt_mark mark = lt_arena_mark(&arena);
                struct job job = job_of(frames);
                job.decode_segment = segment;
                job.decode_warmup = warmup;
                job.step_count = 1;
                struct plan plan;
                assert_ok(plan_build(&job, &arena, &plan, &error));
                uint32_t next = 0;
                for (uint32_t k = 0; k < plan.segment_count; k++) {
                    const struct plan_segment *s = &plan.segment[k];
                    assert_int_equal(s->pixel_first, next);
                    assert_true(s->pixel_count > 0);
                    assert_true(s->frame_first + s->frame_count <= plan.latent_frames);
                    assert_true(s->drop_frames + s->pixel_count <= 4 * s->frame_count - 3);
                    /* the run's first frame is frame 4 first - 3 + 3 of the take (its latent's
                     * last) */
                    const uint32_t run_first = s->frame_first ? 4 * s->frame_first : 0;
                    assert_int_equal(run_first + s->drop_frames, s->pixel_first);
                    next += s->pixel_count;
                }
                assert_int_equal(next, frames);
                lt_arena_rewind(&arena, mark);
            }
    lt_arena_fini(&arena);
}

/* pipeline.md 2.2: a window-step of 21 latents at 480x832 is 8,386,560 bytes each way. */
static void bytes_are_the_published_ones(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    struct job job = job_of(961);
    job.schedule = WINDOW_STATIC_STANDARD;
    job.step_count = 6;
    struct plan plan;
    assert_ok(plan_build(&job, &arena, &plan, &error));
    assert_int_equal(plan.latent_frames, 241);
    assert_int_equal(plan.latent_height, 60);
    assert_int_equal(plan.latent_width, 104);
    assert_int_equal(plan.frame_bytes * 21, 8386560);
    assert_int_equal(plan.step[0].window_count, 14);
    assert_int_equal(plan.predict_count, 84);
    assert_int_equal(plan.segment_count, 8);
    assert_int_equal(plan.task_count, 92);
    uint64_t decoded = 0;
    for (uint32_t k = 0; k < plan.segment_count; k++)
        decoded += plan.segment[k].frame_count;
    assert_int_equal(decoded, 241 + 7 * 12);
    assert_int_equal(plan.wire_bytes_down, 84 * UINT64_C(8386560) + decoded * 399360);
    assert_int_equal(plan.wire_bytes_up, 84 * UINT64_C(8386560) + UINT64_C(961) * 832 * 480 * 3);
    lt_arena_fini(&arena);
}

static void tasks_are_numbered_by_step_and_window(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    struct job job = job_of(241);
    job.schedule = WINDOW_UNIFORM_STANDARD; /* 4, 5, 5, 5 windows */
    job.step_count = 4;
    struct plan plan;
    assert_ok(plan_build(&job, &arena, &plan, &error));
    assert_int_equal(plan.predict_count, 19);
    uint32_t task = 0;
    for (uint32_t s = 0; s < plan.step_count; s++) {
        assert_int_equal(plan.step[s].task_first, task);
        for (uint32_t w = 0; w < plan.step[s].window_count; w++, task++) {
            uint32_t step, window;
            assert_int_equal(plan_task(&plan, task, &step, &window), PLAN_PREDICT);
            assert_int_equal(step, s);
            assert_int_equal(window, w);
        }
    }
    uint32_t segment, window;
    assert_int_equal(plan_task(&plan, 20, &segment, &window), PLAN_DECODE);
    assert_int_equal(segment, 1);
    lt_arena_fini(&arena);
}

static void steps_carry_guidance_and_expert(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    static const double guidance[] = {4, 3, 1 + 1e-12};
    struct job job = job_of(81);
    job.step_count = 4; /* 999 937 833 624 */
    job.guidance = guidance;
    job.guidance_count = 3;
    struct plan plan;
    assert_ok(plan_build(&job, &arena, &plan, &error));
    assert_false(plan.step[3].low_expert); /* only one expert */
    job.transformer_low.name = "low.gguf";
    assert_ok(plan_build(&job, &arena, &plan, &error));
    static const bool low[] = {false, false, true, true};
    static const double want[] = {4, 3, 1, 1};
    for (uint32_t s = 0; s < 4; s++) {
        assert_int_equal(plan.step[s].low_expert, low[s]);
        assert_true(plan.step[s].guidance == want[s]);
        assert_true(s == 0 || plan.step[s].sigma == plan.step[s - 1].sigma_next);
        assert_ptr_equal(plan.step[s].window, plan.step[0].window); /* one list for all */
    }
    lt_arena_fini(&arena);
}

/* Every task of a step: what it reuses of which step, for each of its predictions. */
static void check_reuse(const struct job *job, const struct plan *plan, uint32_t step,
                        uint32_t with, uint32_t without)
{
    for (uint32_t w = 0; w < plan->step[step].window_count; w++) {
        struct lt_task_spec spec = {0};
        cut_spec(job, plan, plan->step[step].task_first + w, &spec);
        assert_int_equal(spec.cache, LT_CACHE_PLANNED);
        assert_int_equal(spec.cache_step, step);
        assert_int_equal(spec.reuse_count, with || without ? 3 : 0);
        assert_true(spec.reuse[0] == with && spec.reuse[1] == without && spec.reuse[2] == without);
    }
}

/* The published list of 14B over 20 steps, as numbers in the tasks; an expert's first step is
 * computed. */
static void magcache_stands_in_the_plan(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    struct job job = job_of(161);
    job.step_count = 20;
    job.cache.kind = JOB_CACHE_MAGCACHE;
    job.cache.model = SKIP_MODEL_14B;
    struct plan plan;
    assert_ok(plan_build(&job, &arena, &plan, &error));
    assert_int_equal(plan.condition_count, 0);
    assert_true(plan.step[0].window_count > 1);
    check_reuse(&job, &plan, 1, 0, 0);
    check_reuse(&job, &plan, 2, 2, 2);
    check_reuse(&job, &plan, 3, 2, 2);
    check_reuse(&job, &plan, 4, 0, 0);
    check_reuse(&job, &plan, 5, 5, 5);
    check_reuse(&job, &plan, 19, 0, 0);
    assert_true(plan_is_sticky(&job, &plan, 2) && !plan_is_sticky(&job, &plan, 4));
    json_t *root = write_and_read(&job, &plan);
    static const int want[] = {2, 3, 5, 6, 8, 10, 12, 14};
    const json_t *list = json_object_get(json_object_get(root, "skips"), "positive");
    assert_int_equal(json_array_size(list), LT_COUNT(want));
    for (size_t i = 0; i < LT_COUNT(want); i++)
        assert_int_equal(json_integer_value(json_array_get(list, i)), want[i]);
    json_decref(root);
    job.transformer_low.name = "low.gguf";
    job.boundary = 0.9;
    job.guide.zero_star = true;
    job.guide.zero_steps = 3;
    assert_ok(plan_build(&job, &arena, &plan, &error));
    const struct plan_steps low = plan_expert_steps(&plan, 1);
    assert_true(low.first > 3 && low.first + low.count == 20);
    for (uint32_t s = 0; s <= 3; s++)
        check_reuse(&job, &plan, s, 0, 0); /* nothing was computed before */
    check_reuse(&job, &plan, low.first, 0, 0);
    check_reuse(&job, &plan, low.first + 1, low.first + 1, low.first + 1);
    lt_arena_fini(&arena);
}

/* TeaCache asks each transformer for its time embeddings before the first windows. */
static void teacache_waits_for_the_embeddings(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    struct cut cut[CUTS_MAX];
    size_t count;
    lt_arena_init(&arena, 0);
    struct job job = job_of(81);
    job.step_count = 4; /* 999 937 833 624 */
    job.transformer_low.name = "low.gguf";
    job.cache.kind = JOB_CACHE_TEACACHE;
    job.cache.curve = SKIP_CURVE_PLAIN;
    struct plan plan;
    assert_ok(plan_build(&job, &arena, &plan, &error));
    assert_int_equal(plan.condition_count, 2);
    assert_int_equal(plan.edge_count, 2 * plan.step[0].window_count);
    const uint32_t task = plan_find_condition(&plan, PLAN_CONDITION_TIMES, 1);
    struct lt_task_spec spec = {0};
    cut_spec(&job, &plan, task, &spec);
    assert_int_equal(spec.kind, LT_TASK_COMPARE_TIMES);
    assert_int_equal(spec.result_bytes, 2 * 2 * sizeof(float));
    assert_true(spec.time_projected);
    assert_ok(cut_task(&job, &plan, task, (const uint64_t[]){0, 0}, &arena, cut, &count, &error));
    assert_int_equal(count, 1);
    assert_true(cut->role == LT_BLOB_TIMES && cut_bytes(cut) == 2 * sizeof(double));
    assert_true(cut->cell[0].source == CUT_TIMES && cut->cell[0].index == 2);
    const float distance[] = {0, 0.1f, 0.1f, 0};
    plan_skips_by_times(&job, &plan, 1, distance);
    check_reuse(&job, &plan, 2, 0, 0);
    check_reuse(&job, &plan, 3, 3, 3);
    job.cache.kind = JOB_CACHE_EASYCACHE; /* decided by the windows */
    job.step_count = 20;
    job.transformer_low.name = NULL;
    assert_ok(plan_build(&job, &arena, &plan, &error));
    assert_int_equal(plan.condition_count, 0);
    assert_true(plan_threshold(&job, &plan, 9) == 0 && plan_threshold(&job, &plan, 19) == 0);
    assert_true(plan_threshold(&job, &plan, 10) == 0.015 &&
                plan_threshold(&job, &plan, 18) == 0.015);
    assert_true(!plan_is_sticky(&job, &plan, 0) && plan_is_sticky(&job, &plan, 1));
    lt_arena_fini(&arena);
}

/* 100,000 frames, the most: 25,001 latents. Uniform lists differ per step and are all kept. */
static void the_longest_job_fits(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 64 << 20);
    struct job job = job_of(100000);
    job.schedule = WINDOW_UNIFORM_STANDARD;
    job.step_count = 30;
    struct plan plan;
    assert_ok(plan_build(&job, &arena, &plan, &error));
    assert_int_equal(plan.latent_frames, 25001);
    assert_int_equal(plan.predict_count / 30, 1471);
    lt_arena_fini(&arena);
    lt_arena_init(&arena, 0);
    job.window_frames = 12000; /* 13,002 windows of 12,000 frames: refused before they are made */
    job.window_overlap = 11999;
    assert_fails(plan_build(&job, &arena, &plan, &error), LT_UNSUPPORTED, "raise the hop");
    assert_true(arena.peak_bytes < 1 << 20);
    job.schedule = WINDOW_STATIC_STANDARD;
    job.window_frames = 21;
    job.window_overlap = 20;
    job.step_count = 1000;
    assert_fails(plan_build(&job, &arena, &plan, &error), LT_UNSUPPORTED, "raise the hop");
    job.frame_count = 100001;
    assert_fails(plan_build(&job, &arena, &plan, &error), LT_BAD_INPUT, "100001 frames");
    lt_arena_fini(&arena);
}

static void a_cold_decoder_is_refused(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    struct job job = job_of(81);
    job.decode_segment = 7;
    job.decode_warmup = 0;
    struct plan plan;
    assert_fails(plan_build(&job, &arena, &plan, &error), LT_BAD_INPUT, "warm-up");
    lt_arena_fini(&arena);
}

/* Read back by a JSON parser: the numbers people compare are the plan's. */
static void the_json_holds_the_plan(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    struct job job = job_of(241);
    job.schedule = WINDOW_UNIFORM_STANDARD;
    job.step_count = 4;
    struct plan plan;
    assert_ok(plan_build(&job, &arena, &plan, &error));
    json_t *root = write_and_read(&job, &plan);
    json_t *windows = json_object_get(root, "windows"), *weights = json_object_get(root, "weights");
    assert_int_equal(json_array_size(windows), 4);
    for (uint32_t s = 0; s < 4; s++) {
        const struct plan_step *step = &plan.step[s];
        assert_int_equal(json_array_size(json_array_get(windows, s)), step->window_count);
        for (uint32_t w = 0; w < step->window_count; w++)
            for (uint32_t k = 0; k < step->window[w].frame_count; k++) {
                json_t *frame = json_array_get(json_array_get(json_array_get(windows, s), w), k);
                json_t *weight = json_array_get(json_array_get(json_array_get(weights, s), w), k);
                assert_int_equal(json_integer_value(frame), step->window[w].frame[k]);
                assert_true((float)json_number_value(weight) == step->window[w].weight[k]);
            }
        json_t *sigmas = json_object_get(root, "sigmas"),
               *steps = json_object_get(root, "timesteps");
        assert_true(json_number_value(json_array_get(sigmas, s)) == step->sigma);
        assert_true(json_number_value(json_array_get(steps, s)) == step->timestep);
    }
    assert_int_equal(json_array_size(json_object_get(root, "sigmas")), 5);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(root, "tasks"), "predict")),
                     19);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(root, "wire"), "down_bytes")),
        plan.wire_bytes_down);
    json_decref(root);
    FILE *full = fopen("/dev/full", "w");
    assert_non_null(full);
    assert_fails(plan_write_json(&job, &plan, NULL, full, &error), LT_IO, "could not be written");
    fclose(full);
    lt_arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(segments_give_the_frames_asked_for),
        cmocka_unit_test(options_reach_their_tasks),
        cmocka_unit_test(segments_tile_the_take),
        cmocka_unit_test(bytes_are_the_published_ones),
        cmocka_unit_test(tasks_are_numbered_by_step_and_window),
        cmocka_unit_test(steps_carry_guidance_and_expert),
        cmocka_unit_test(magcache_stands_in_the_plan),
        cmocka_unit_test(teacache_waits_for_the_embeddings),
        cmocka_unit_test(the_longest_job_fits),
        cmocka_unit_test(the_json_holds_the_plan),
        cmocka_unit_test(a_cold_decoder_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
