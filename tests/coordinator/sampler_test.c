/* A solver with one wrong coefficient still converges, to another picture than the one people
 * expect of this sampler and these steps; and a frame that is ahead of its neighbour must not
 * change either of them. */
#include "tests/test.h"

#include "common/arena.h"
#include "coordinator/sampler.h"
#include "coordinator/sigma.h"

#include <math.h>

enum { STEPS = 8 };

struct run {
    enum sampler_kind sampler;
    bool official;
    double shift;
    int64_t steps, start, end;
    double own[STEPS]; /* an own list; 0 ends it */
    double noise[STEPS];
    double trace[STEPS];
};

/* clang-format off */
static const struct run runs[] = {
    {.sampler = SAMPLER_UNIPC, .shift = 5, .steps = 4, .end = -1, .trace = {.9624954, .9018862,
     .78735, .4585344}},
    {.sampler = SAMPLER_UNIPC, .official = true, .shift = 5, .steps = 4, .end = -1,
     .trace = {.9624768, .9018742, .7872933, .4586029}},
    {.sampler = SAMPLER_DPMPP, .shift = 5, .steps = 4, .end = -1, .trace = {.9624954, .901528,
     .7862269, .4579027}},
    {.sampler = SAMPLER_EULER, .shift = 5, .steps = 4, .end = -1, .trace = {.9458243, .8342122,
     .4597083, .4495297}},
    {.sampler = SAMPLER_UNIPC, .shift = 5, .steps = 6, .end = -1,
     .trace = {.9769201, .9460694, .9026767, .8365561, .7239336, .4705813}},
    {.sampler = SAMPLER_UNIPC, .official = true, .shift = 5, .steps = 6, .end = -1,
     .trace = {.9769084, .9460528, .9026353, .8365004, .72388, .4706441}},
    {.sampler = SAMPLER_DPMPP, .shift = 5, .steps = 6, .end = -1,
     .trace = {.9769201, .9459214, .9022752, .8359574, .7231348, .470062}},
    {.sampler = SAMPLER_EULER, .shift = 5, .steps = 6, .end = -1,
     .trace = {.9715978, .9306508, .8663971, .7505578, .4749233, .4644848}},
    {.sampler = SAMPLER_UNIPC, .shift = 5, .steps = 6, .start = 2, .end = -1,
     .trace = {.9531636, .8832395, .7641216, .4967051}},
    {.sampler = SAMPLER_UNIPC, .shift = 5, .steps = 6, .end = 3, .trace = {.9769201, .9460694,
     .9023528}},
    {.sampler = SAMPLER_DPMPP_SDE, .shift = 5, .steps = 4, .end = -1, .noise = {.5, -.25, 1,
     -1.5},
     .trace = {.494309, -.0141665, .5684618, .3354003}},
    {.sampler = SAMPLER_DPMPP_SDE, .shift = 5, .steps = 6, .end = -1, .noise = {.5, -.25, 1,
     -1.5, .75, .125},
     .trace = {.4971115, -.0017124, .7216281, -.511852, -.0558116, -.0362859}},
    {.sampler = SAMPLER_LCM, .shift = 5, .steps = 4, .end = -1, .noise = {.5, -.25, 1, -1.5},
     .trace = {.4909707, -.1078486, .0024455, .0000815}},
};
/* clang-format on */

static void build(const struct run *run, struct lt_arena *arena, struct plan *plan,
                  struct sampler *sampler)
{
    struct lt_error error;
    struct job job;
    job_defaults(&job);
    job.width = job.height = 16;
    job.sampler = run->sampler;
    job.official_sigmas = run->official;
    job.shift = run->shift;
    job.step_count = run->steps;
    job.start_step = run->start;
    job.end_step = run->end;
    if (run->own[0] > 0) {
        job.sigma = run->own;
        job.sigma_count = (size_t)run->steps;
    }
    assert_ok(plan_build(&job, arena, plan, &error));
    assert_ok(sampler_build(job.sampler, plan, arena, sampler, &error));
}

/* The published test: v = 0.7 x - 0.2 sigma + 0.1, on one number that starts at 1. The published
 * values have 7 digits; f32 rounding over six steps adds a few 1e-7. */
static void traces_are_the_published_ones(void **state)
{
    (void)state;
    for (size_t r = 0; r < LT_COUNT(runs); r++) {
        struct lt_arena arena;
        lt_arena_init(&arena, 0);
        struct plan plan;
        struct sampler sampler;
        build(&runs[r], &arena, &plan, &sampler);
        float x = 1, history[SAMPLER_HISTORY_MAX] = {NAN, NAN, NAN}; /* step 0 must not read it */
        const struct sampler_frame frame = {&x, {&history[0], &history[1], &history[2]}};
        for (uint32_t i = 0; i < sampler.step_count; i++) {
            const float v = (float)(0.7 * x - 0.2 * plan.step[i].sigma + 0.1);
            const float noise = (float)runs[r].noise[i];
            sampler_advance(&sampler, i, 1, &v, &noise, &frame, &frame);
            if (!(fabs(x - runs[r].trace[i]) < 1e-6))
                fail_msg("run %zu step %u: %.8f, expected %.7f", r, i, x, runs[r].trace[i]);
        }
        lt_arena_fini(&arena);
    }
}

/* Sigma 1 makes lambda infinite (official dpm++ lists start there): the limits hold. */
static void dpm_starts_at_sigma_one(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    struct plan_step steps[] = {{.sigma = 1, .sigma_next = .9},
                                {.sigma = .9, .sigma_next = .75},
                                {.sigma = .75, .sigma_next = .5},
                                {.sigma = .5, .sigma_next = 0}};
    const struct plan plan = {.step = steps, .step_count = 4};
    struct sampler sampler;
    assert_ok(sampler_build(SAMPLER_DPMPP, &plan, &arena, &sampler, &error));
    static const double trace[] = {.94, .8533, .7203088, .4682007};
    float x = 1, history = 0;
    const struct sampler_frame frame = {&x, {&history}};
    for (uint32_t i = 0; i < 4; i++) {
        const float v = (float)(0.7 * x - 0.2 * steps[i].sigma + 0.1);
        sampler_advance(&sampler, i, 1, &v, NULL, &frame, &frame);
        assert_true(fabs(x - trace[i]) < 1e-6);
    }
    lt_arena_fini(&arena);
}

/* From the clamped start the multistep solver gives numbers, near those of dpm++ from the same
 * list. */
static void unipc_survives_an_own_list_that_starts_at_one(void **state)
{
    (void)state;
    const struct run run = {
        .sampler = SAMPLER_UNIPC, .steps = 4, .end = -1, .own = {1, .9, .75, .5}};
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    struct plan plan;
    struct sampler sampler;
    build(&run, &arena, &plan, &sampler);
    float x = 1, history[SAMPLER_HISTORY_MAX] = {0};
    const struct sampler_frame frame = {&x, {&history[0], &history[1], &history[2]}};
    static const double near[] = {.94, .854125, .7203, .468}; /* the first two: published */
    for (uint32_t i = 0; i < 4; i++) {
        const float v = (float)(0.7 * x - 0.2 * plan.step[i].sigma + 0.1);
        sampler_advance(&sampler, i, 1, &v, NULL, &frame, &frame);
        assert_true(fabs(x - near[i]) < (i < 2 ? 2e-4 : 5e-3));
    }
    lt_arena_fini(&arena);
}

/* Two frames advance in turn, one always a step ahead, into other memory; a third in place: the
 * same bits. */
static void frames_do_not_know_of_each_other(void **state)
{
    (void)state;
    enum { COUNT = 37 };
    for (size_t r = 0; r < LT_COUNT(runs); r++) {
        struct lt_arena arena;
        lt_arena_init(&arena, 0);
        struct plan plan;
        struct sampler sampler;
        build(&runs[r], &arena, &plan, &sampler);
        float x[3][2][COUNT], history[3][2][SAMPLER_HISTORY_MAX][COUNT];
        struct sampler_frame frame[3][2];
        for (int f = 0; f < 3; f++)
            for (int side = 0; side < 2; side++) {
                frame[f][side] = (struct sampler_frame){
                    x[f][side], {history[f][side][0], history[f][side][1], history[f][side][2]}};
                for (int i = 0; i < COUNT; i++)
                    x[f][side][i] = (float)i / 7 - 2;
            }
        for (uint32_t tick = 0; tick <= sampler.step_count; tick++)
            for (int f = 0; f < 3; f++) {
                const uint32_t step = f == 0 ? tick : tick - 1; /* frame 0 leads */
                if (step >= sampler.step_count)
                    continue;
                const struct sampler_frame *from = &frame[f][f == 2 ? 0 : step % 2];
                const struct sampler_frame *to = &frame[f][f == 2 ? 0 : (step + 1) % 2];
                float v[COUNT], noise[COUNT];
                for (int i = 0; i < COUNT; i++) {
                    v[i] = 0.7f * from->x[i] - 0.1f;
                    noise[i] = (float)runs[r].noise[step] * (float)i;
                }
                sampler_advance(&sampler, step, COUNT, v, noise, from, to);
            }
        const int last = sampler.step_count % 2;
        assert_memory_equal(x[0][last], x[1][last], sizeof x[0][0]);
        assert_memory_equal(x[0][last], x[2][0], sizeof x[0][0]);
        lt_arena_fini(&arena);
    }
}

static void only_steps_that_add_noise_ask_for_it(void **state)
{
    (void)state;
    for (size_t r = 0; r < LT_COUNT(runs); r++) {
        struct lt_arena arena;
        lt_arena_init(&arena, 0);
        struct plan plan;
        struct sampler sampler;
        build(&runs[r], &arena, &plan, &sampler);
        const bool stochastic =
            runs[r].sampler == SAMPLER_DPMPP_SDE || runs[r].sampler == SAMPLER_LCM;
        for (uint32_t i = 0; i < sampler.step_count; i++)
            assert_int_equal(sampler_needs_noise(&sampler, i),
                             stochastic && i + 1 < sampler.step_count);
        assert_int_equal(sampler.history_count, sampler_history_count(runs[r].sampler));
        lt_arena_fini(&arena);
    }
    assert_int_equal(sampler_history_count(SAMPLER_UNIPC), 3);
    assert_int_equal(sampler_history_count(SAMPLER_DPMPP), 1);
    assert_int_equal(sampler_history_count(SAMPLER_LCM), 0);
}

static void a_level_the_solver_cannot_start_from_is_refused(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    struct plan_step steps[] = {{.sigma = 1.5, .sigma_next = .9}, {.sigma = .9, .sigma_next = 0}};
    const struct plan plan = {.step = steps, .step_count = 2};
    struct sampler sampler;
    assert_fails(sampler_build(SAMPLER_UNIPC, &plan, &arena, &sampler, &error), LT_BAD_INPUT,
                 "from sigma 1.5");
    assert_fails(sampler_build(SAMPLER_DPMPP, &plan, &arena, &sampler, &error), LT_BAD_INPUT,
                 "from sigma 1.5");
    lt_arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(traces_are_the_published_ones),
        cmocka_unit_test(dpm_starts_at_sigma_one),
        cmocka_unit_test(unipc_survives_an_own_list_that_starts_at_one),
        cmocka_unit_test(frames_do_not_know_of_each_other),
        cmocka_unit_test(only_steps_that_add_noise_ask_for_it),
        cmocka_unit_test(a_level_the_solver_cannot_start_from_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
