/* A level off by a little trains nobody's eye: the picture is just worse than upstream's, for ever.
 * A timestep off by one feeds the model another embedding. */
#include "tests/test.h"

#include "common/arena.h"
#include "coordinator/sigma.h"

#include <math.h>

enum { LIST = 48 };

/* clang-format off */
static const struct {
    enum sampler_kind sampler;
    bool official, beta;
    double shift;
    int64_t steps;
    double sigma[LIST]; /* as published, 0: not given */
} sigmas[] = {
    {SAMPLER_UNIPC, false, false, 5, 4, {.99996, .937453, .833278, .624937}},
    {SAMPLER_UNIPC, false, false, 5, 6, {.99996, .961494, .909041, .833278, .714224, .49994}},
    {SAMPLER_DPMPP, false, false, 5, 10,
     {.99996, .978218, .952336, .921004, .882301, .833278, .769172, .681756, .555494, .357092}},
    {SAMPLER_UNIPC, false, false, 8, 4, {.999984, .959981, .888864, .72724}},
    {SAMPLER_UNIPC, false, false, 3, 20, {.999889, .982646, .964171, [17] = .346065, .249931,
     .136322}},
    {SAMPLER_DPMPP_SDE, false, false, 12, 40, {.999993, .997861, .995626, [37] = .493128,
     .387076, .235279}},
    {SAMPLER_UNIPC, true, false, 5, 4, {.9998, .937265, .833055, .624687}},
    {SAMPLER_UNIPC, true, false, 5, 6, {.9998, .961316, .908843, .833055, .713979, .4997}},
    {SAMPLER_UNIPC, true, false, 8, 4, {.999875, .959846, .888691, .727008}},
    {SAMPLER_UNIPC, true, false, 12, 40, {.999917, .997783, .995546, [37] = .49288, .386847,
     .23511}},
    {SAMPLER_DPMPP, true, false, 5, 4, {1, .9375, 5. / 6, .625}}, /* 1 .75 .5 .25 shifted */
    {SAMPLER_UNIPC, false, true, 5, 4, {.99996, .896674, .728224, .624937}},
    {SAMPLER_UNIPC, false, true, 5, 6, {.99996, .938497, .818602, .681298, .561403, .49994}},
    {SAMPLER_EULER, false, false, 5, 4, {1, .909707, .717317, .024414}},
    {SAMPLER_EULER, false, false, 5, 6, {1, .952663, .883213, .771431, .56165, .024414}},
    {SAMPLER_LCM, false, false, 8, 4, {1, .941834, .803771, .060207}},
    {SAMPLER_EULER, false, false, 1, 4, {1, .667, .334, .001}},
    {SAMPLER_EULER, false, false, 5, 20,
     {1, .989068, .977136, .964061, .94967, .933753, .916055, .896259, .873967, .848677, .81974,
     .786306, .747238,
      .700981, .645349, .577173, .491668, .381266, .233242, .024414}},
    {SAMPLER_EULER, false, false, 5, 30,
     {1, .992944, .985478, .977566, .969166, .960231, .950709, .94054, .929655, .917977, .905416,
     .891866, .877207,
      .861297, .843969, .825023, .804223, .781282, .755852, .727504, .695705, .659785, .618887,
     .5719, .517352,
      .453262, .376883, .284308, .169773, .024414}},
    {SAMPLER_EULER, false, false, 5, 1, {1}},
    {SAMPLER_FLOWMATCH_DISTILL, false, false, 5, 4, {.9997998, .9375, .8333333, .625}},
    {SAMPLER_FLOWMATCH_DISTILL, false, false, 8, 4, {.9998749, .96, .8888889, .7272728}},
    {SAMPLER_FLOWMATCH_DISTILL, false, false, 3, 4, {.9996664, .9, .75, .5}},
    {SAMPLER_FLOWMATCH_DISTILL, false, false, 1, 4, {.999, .75, .5, .25}},
    {SAMPLER_FLOWMATCH_CAUSVID, false, false, 5, 9, {.999, .934, .862, .756, .603, .41, .25, .14,
     .074}},
    {SAMPLER_FLOWMATCH_CAUSVID, false, false, 5, 2, {.999, .934}},
    {SAMPLER_MULTITALK, false, false, 5, 4, {1, .9092148, .7148973, .0049801}},
    {SAMPLER_MULTITALK, false, false, 5, 8,
     {1, .9677783, .9260219, .8697636, .7898612, .6674434, .4562772, .0049801}},
    {SAMPLER_MULTITALK, false, false, 7, 40, {1, .9962585, .9923452, .9882479, .9839534, [38] =
     .1606527, .0069583}},
    {SAMPLER_MULTITALK, false, false, 11, 8,
     {1, .9850918, .9649596, .9362747, .8921166, .815342, .6486518, .0108911}},
    {SAMPLER_MULTITALK, false, false, 2, 8, {1, .92316, .83353, .72762, .60056, .44531, .25131,
     .001998}}, /* five digits */
};
/* clang-format on */

/* clang-format off */
static const struct {
    bool official, beta;
    double shift;
    int64_t steps;
    int timestep[LIST]; /* 0: not given */
} timesteps[] = {
    {false, false, 5, 4, {999, 937, 833, 624}},
    {false, false, 5, 6, {999, 961, 909, 833, 714, 499}},
    {false, false, 5, 10, {999, 978, 952, 921, 882, 833, 769, 681, 555, 357}},
    {false, false, 5, 20, {999, 989, 978, 965, 952, 937, 921, 902, 882, 859, 833, 803, 769, 729,
     681, 624, 555, 468,
                           357, 208}},
    {false, false, 5, 30, {999, 993, 985, 978, 970, 961, [27] = 357, 263, 147}},
    {false, false, 8, 4, {999, 959, 888, 727}},
    {false, false, 3, 20, {999, 982, 964, 944, 922, 899, 874, 847, 818, 785, 749, 710, 666, 617,
     562, 499, 428, 346,
                           249, 136}},
    {false, false, 12, 40, {999, 997, 995, 993, 990, 988, [37] = 493, 387, 235}},
    {true, false, 5, 4, {999, 937, 833, 624}},
    {true, false, 5, 6, {999, 961, 908, 833, 713, 499}},
    {true, false, 5, 20, {999, 989, 978, 965, 952, 937, 920, 902, 882, 859, 833, 803, 768, 728,
     681, 624, 555, 468,
                          356, 208}},
    {true, false, 5, 30, {999, 992, 985, 978, 969, 961, [27] = 356, 262, 146}},
    {true, false, 8, 4, {999, 959, 888, 727}},
    {true, false, 12, 40, {999, 997, 995, 993, 990, 988, [37] = 492, 386, 235}},
    {false, true, 5, 4, {999, 896, 728, 624}},
    {false, true, 5, 20, {999, 989, 965, 933, 894, 849, 799, 746, 690, 633, 575, 517, 462, 408,
     359, 313, 274, 242,
                          219, 208}},
};
/* clang-format on */

static struct job job_of(enum sampler_kind sampler, bool official, bool beta, double shift,
                         int64_t steps)
{
    struct job job;
    job_defaults(&job);
    job.sampler = sampler;
    job.official_sigmas = official;
    job.beta_schedule = beta;
    job.shift = shift;
    job.step_count = steps;
    return job;
}

static void levels_are_the_published_ones(void **state)
{
    (void)state;
    for (size_t i = 0; i < LT_COUNT(sigmas); i++) {
        struct lt_error error;
        struct lt_arena arena;
        lt_arena_init(&arena, 0);
        const struct job job = job_of(sigmas[i].sampler, sigmas[i].official, sigmas[i].beta,
                                      sigmas[i].shift, sigmas[i].steps);
        struct sigma_list list;
        assert_ok(sigma_list_build(&job, &arena, &list, &error));
        assert_int_equal(list.count, sigmas[i].steps);
        const double digits = sigmas[i].shift == 2 ? 6e-6 : 6e-7;
        for (uint32_t k = 0; k < list.count; k++) {
            assert_true(list.sigma[k + 1] < list.sigma[k]);
            if (sigmas[i].sigma[k] > 0 && !(fabs(list.sigma[k] - sigmas[i].sigma[k]) < digits))
                fail_msg("list %zu level %u: %.9g, expected %.9g", i, k, list.sigma[k],
                         sigmas[i].sigma[k]);
        }
        assert_true(list.sigma[list.count] == 0);
        lt_arena_fini(&arena);
    }
}

static void timesteps_are_the_published_ones(void **state)
{
    (void)state;
    for (size_t i = 0; i < LT_COUNT(timesteps); i++) {
        struct lt_error error;
        struct lt_arena arena;
        lt_arena_init(&arena, 0);
        const struct job job = job_of(SAMPLER_UNIPC, timesteps[i].official, timesteps[i].beta,
                                      timesteps[i].shift, timesteps[i].steps);
        struct sigma_list list;
        assert_ok(sigma_list_build(&job, &arena, &list, &error));
        for (uint32_t k = 0; k < list.count; k++)
            if (timesteps[i].timestep[k] && list.timestep[k] != timesteps[i].timestep[k])
                fail_msg("list %zu step %u: %g, expected %d", i, k, list.timestep[k],
                         timesteps[i].timestep[k]);
        lt_arena_fini(&arena);
    }
}

static void float_timesteps_are_not_truncated(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    struct job job = job_of(SAMPLER_FLOWMATCH_DISTILL, false, false, 5, 4);
    struct sigma_list list;
    assert_ok(sigma_list_build(&job, &arena, &list, &error));
    assert_true(list.timestep[1] == 937.5);
    assert_true(fabs(list.timestep[0] - 999.7998) < 1e-4);
    lt_arena_fini(&arena);
}

/* The distribution function by Simpson's rule; t = u^(5/3) takes the pole at 0 away. */
static double beta_cdf(double x)
{
    const int count = 2000;
    const double end = pow(x, 0.6), step = end / count;
    double sum = 0;
    for (int i = 0; i <= count; i++) {
        const double u = i * step, weight = i == 0 || i == count ? 1 : i % 2 ? 4 : 2;
        sum += weight * pow(1 - pow(u, 5. / 3), -0.4);
    }
    return 5. / 3 * sum * step / 3 * tgamma(1.2) / (tgamma(.6) * tgamma(.6));
}

static void the_beta_quantile_inverts_the_integral(void **state)
{
    (void)state;
    for (int i = 1; i <= 10; i++) /* up to 1/2, where the integrand is smooth */
        assert_true(fabs(beta_cdf(sigma_beta_quantile(i / 20.)) - i / 20.) <
                    1e-8); /* Simpson's error */
    assert_true(sigma_beta_quantile(0) == 0);
    assert_true(sigma_beta_quantile(1) == 1);
    assert_true(fabs(sigma_beta_quantile(0.5) - 0.5) < 1e-15);
    for (int i = 1; i < 100; i++) {
        const double p = i / 100.0;
        assert_true(sigma_beta_quantile(p) > sigma_beta_quantile(p - 0.01));
        assert_true(fabs(sigma_beta_quantile(p) + sigma_beta_quantile(1 - p) - 1) < 1e-14);
    }
}

static void slices_keep_one_more_level_than_steps(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    struct job job = job_of(SAMPLER_UNIPC, false, false, 5, 6);
    job.start_step = 2;
    job.end_step = 5;
    struct sigma_list list;
    assert_ok(sigma_list_build(&job, &arena, &list, &error));
    assert_int_equal(list.count, 3);
    assert_true(list.timestep[0] == 909 && list.timestep[2] == 714);
    assert_true(fabs(list.sigma[3] - .49994) < 1e-6);
    job.start_step = 5;
    assert_fails(sigma_list_build(&job, &arena, &list, &error), LT_BAD_INPUT, "none is left");
    job.start_step = 0;
    job.end_step = 7;
    assert_fails(sigma_list_build(&job, &arena, &list, &error), LT_BAD_INPUT, "steps 0 to 7 of 6");
    lt_arena_fini(&arena);
}

static void own_lists_start_below_one_and_fall(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    static const double falling[] = {1, .9, .75, .5}, rising[] = {.5, .6}, level[] = {.5, 0};
    struct job job = job_of(SAMPLER_UNIPC, false, false, 5, 30);
    job.sigma = falling;
    job.sigma_count = 4;
    struct sigma_list list;
    assert_ok(sigma_list_build(&job, &arena, &list, &error));
    assert_int_equal(list.count, 4);
    assert_true(list.sigma[0] == 1 - 1e-6 && list.sigma[1] == .9 && list.sigma[4] == 0);
    assert_true(list.timestep[0] == 999);
    job.sigma = rising;
    job.sigma_count = 2;
    assert_fails(sigma_list_build(&job, &arena, &list, &error), LT_BAD_INPUT, "sigma 1 is 0.6");
    job.sigma = level;
    assert_fails(sigma_list_build(&job, &arena, &list, &error), LT_BAD_INPUT, "sigma 1 is 0");
    lt_arena_fini(&arena);
}

static void impossible_lists_are_refused(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    struct sigma_list list;
    struct job job = job_of(SAMPLER_FLOWMATCH_DISTILL, false, false, 5, 5);
    assert_fails(sigma_list_build(&job, &arena, &list, &error), LT_BAD_INPUT, "exactly 4 steps");
    job = job_of(SAMPLER_FLOWMATCH_CAUSVID, false, false, 5, 10);
    assert_fails(sigma_list_build(&job, &arena, &list, &error), LT_BAD_INPUT, "at most 9 steps");
    job = job_of(SAMPLER_FLOWMATCH_DISTILL, false, true, 5, 4);
    assert_fails(sigma_list_build(&job, &arena, &list, &error), LT_BAD_INPUT, "beta");
    job = job_of(SAMPLER_UNIPC, false, false, 5, 0);
    assert_fails(sigma_list_build(&job, &arena, &list, &error), LT_BAD_INPUT, "0 steps");
    lt_arena_fini(&arena);
}

static void the_boundary_belongs_to_the_high_expert(void **state)
{
    (void)state;
    assert_false(sigma_low_expert(875, .875));
    assert_true(sigma_low_expert(874, .875));
    assert_false(sigma_low_expert(900, .9));
    assert_true(sigma_low_expert(899.9, .9));
    assert_false(sigma_low_expert(1000, 1));
    assert_true(sigma_low_expert(999.99, 1));
    assert_false(sigma_low_expert(0, 0));
}

/* clang-format off */
static const struct {
    double from, to, start, end;
    enum guidance_ease ease;
    uint32_t steps;
    double value[6];
} guidance[] = {
    {3, 1, 0, .5, GUIDANCE_LINEAR, 6, {3, 2.33, 1.67, 1, 1, 1}},
    {3, 1, 0, 1, GUIDANCE_EASE_IN, 6, {3, 2.92, 2.68, 2.28, 1.72, 1}},
    {3, 1, 0, 1, GUIDANCE_EASE_OUT, 6, {3, 2.28, 1.72, 1.32, 1.08, 1}},
    {5, 5, .5, .5, GUIDANCE_LINEAR, 6, {1, 1, 1, 5, 1, 1}},
    {5, 2, .01, 1, GUIDANCE_LINEAR, 4, {1, 4, 3, 2}}, /* start > 0: step 0 is the default */
    {4, 2, 0, 1, GUIDANCE_LINEAR, 1, {4}},
};
/* clang-format on */

static void guidance_schedules_are_the_published_ones(void **state)
{
    (void)state;
    for (size_t i = 0; i < LT_COUNT(guidance); i++) {
        double value[6];
        sigma_guidance_schedule(guidance[i].from, guidance[i].to, guidance[i].start,
                                guidance[i].end, guidance[i].ease, guidance[i].steps, value);
        for (uint32_t k = 0; k < guidance[i].steps; k++)
            if (value[k] != guidance[i].value[k])
                fail_msg("schedule %zu step %u: %g, expected %g", i, k, value[k],
                         guidance[i].value[k]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_are_the_published_ones),
        cmocka_unit_test(timesteps_are_the_published_ones),
        cmocka_unit_test(float_timesteps_are_not_truncated),
        cmocka_unit_test(the_beta_quantile_inverts_the_integral),
        cmocka_unit_test(slices_keep_one_more_level_than_steps),
        cmocka_unit_test(own_lists_start_below_one_and_fall),
        cmocka_unit_test(impossible_lists_are_refused),
        cmocka_unit_test(the_boundary_belongs_to_the_high_expert),
        cmocka_unit_test(guidance_schedules_are_the_published_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
