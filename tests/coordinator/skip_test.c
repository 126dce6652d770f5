/* If this fails, steps are left out that should be computed (smeared pictures), or the other way
 * round (no speed). The lists are those of the published functions, executed (pipeline.md 5). */
#include "coordinator/skip.h"

#include "tests/test.h"

#include <math.h>

enum { STEPS_MAX = 60 };

static void check_list(const bool *skip, uint32_t count, const char *want)
{
    char found[256] = "";
    size_t at = 0;
    for (uint32_t s = 0; s < count; s++)
        if (skip[s])
            at += (size_t)snprintf(found + at, sizeof found - at, at ? " %u" : "%u", s);
    assert_string_equal(found, want);
}

static void magcache_skips_as_published(void **state)
{
    (void)state;
    static const struct {
        enum skip_model model;
        uint32_t steps;
        bool compat;
        const char *want;
    } cases[] = {
        {SKIP_MODEL_14B, 20, false, "2 3 5 6 8 10 12 14"},
        {SKIP_MODEL_14B, 30, false, "2 3 4 6 7 9 10 12 13 15 17 19 21"},
        {SKIP_MODEL_I2V_480, 20, false, "2 4 6 8 10 12"},
        {SKIP_MODEL_I2V_14B_2_2, 20, false, "2 3 5 6 8 10 12"},
        {SKIP_MODEL_14B, 20, true, "4 5 6 7 9 10 11 13 14 16 17 19"},
        {SKIP_MODEL_I2V_480, 20, true, "2 3 8 10 12 14 16 18"},
        {SKIP_MODEL_I2V_14B_2_2, 20, true, "2 3 5 6 8 9 11 12 14 15 17 18"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct skip_params params = {.model = cases[i].model,
                                           .threshold = 0.02,
                                           .start = 1,
                                           .end = cases[i].steps - 1,
                                           .skips_max = 4,
                                           .compat = cases[i].compat};
        bool skip[STEPS_MAX];
        skip_magcache(&params, 0, 0, cases[i].steps, cases[i].steps, skip);
        check_list(skip, cases[i].steps, cases[i].want);
    }
}

/* The half has a list of its own; a model's first step is computed, and so is what lies outside. */
static void magcache_keeps_its_bounds(void **state)
{
    (void)state;
    struct skip_params params = {
        .model = SKIP_MODEL_1_3B, .threshold = 0.06, .start = 10, .end = 18, .skips_max = 2};
    bool with[STEPS_MAX], without[STEPS_MAX];
    skip_magcache(&params, 0, 0, 50, 50, with);
    check_list(with, 50, "11 12 14 15 17 18");
    params.skips_max = 0;
    skip_magcache(&params, 0, 0, 50, 50, with);
    check_list(with, 50, "");
    params = (struct skip_params){
        .model = SKIP_MODEL_1_3B, .threshold = 0.022, .start = 0, .end = 49, .skips_max = 1};
    skip_magcache(&params, 0, 0, 50, 50, with);
    skip_magcache(&params, 1, 0, 50, 50, without);
    assert_true(with[1] && !without[1]); /* 1.0124 against 1.02213 */
    memset(with, 0, sizeof with);
    skip_magcache(&params, 0, 25, 50, 50, with); /* the low-noise model */
    assert_false(with[25]);
    assert_true(with[26]);
    skip_magcache(&params, 0, 0, 1, 1, with);
    assert_false(with[0]);
}

static void teacache_polynomials(void **state)
{
    (void)state;
    static const double at[] = {0.01, 0.03, 0.05, 0.1, 0.2};
    static const struct {
        enum skip_model model;
        enum skip_curve curve;
        double want[5];
    } cases[] = {
        {SKIP_MODEL_1_3B, SKIP_CURVE_E, {.07375, .03667, .07738, .24992, -.12256}},
        {SKIP_MODEL_14B, SKIP_CURVE_E, {-10.63553, -6.82197, -4.09181, -.63595, .12599}},
        {SKIP_MODEL_14B_2_2, SKIP_CURVE_E, {-10.63553, -6.82197, -4.09181, -.63595, .12599}},
        {SKIP_MODEL_I2V_480, SKIP_CURVE_E, {-.14827, -.06726, -.01356, .05363, .17873}},
        {SKIP_MODEL_I2V_720, SKIP_CURVE_E, {-.18679, -.10194, -.02798, .123, .33516}},
        {SKIP_MODEL_1_3B, SKIP_CURVE_E0, {.04288, .09248, .1419, .04892, -28.09595}},
        {SKIP_MODEL_14B, SKIP_CURVE_E0, {.05227, .1355, .21895, -2.27316, -187.66084}},
        {SKIP_MODEL_I2V_480, SKIP_CURVE_E0, {.10406, .2393, .13956, 3.09446, 181.58791}},
        {SKIP_MODEL_I2V_720, SKIP_CURVE_E0, {.08935, .18537, .17431, .83555, 18.4077}},
        {SKIP_MODEL_I2V_14B_2_2, SKIP_CURVE_E0, {.08935, .18537, .17431, .83555, 18.4077}},
        {SKIP_MODEL_14B, SKIP_CURVE_PLAIN, {.01, .03, .05, .1, .2}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t k = 0; k < 5; k++) {
            const double found = skip_teacache_change(cases[i].model, cases[i].curve, at[k]);
            assert_true(fabs(found - cases[i].want[k]) < 5.1e-6); /* five digits are published */
        }
}

/* Embeddings that are the numbers 10, 11, 12, …: the distance of i from j is |i - j| / (10 + j). */
static void make_distances(float *distance, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t j = 0; j < count; j++)
            distance[i * count + j] = (float)fabs((double)i - j) / (float)(10 + j);
}

/* The two ways to store the embedding give different steps for one threshold:
 *
 *   last computed: step 1 is computed (10/11…); 2: 1/11 = .091 skip; 3: + 2/11 = .273 skip;
 *                  4: + 3/11 = .545, computed; 5: 1/14 = .071; 6: + 2/14 = .214; 7: + 3/14,
 * computed; 8: 1/17; 9: + 2/17 = .176 neighbours:    1: 1/10; 2: + 1/11 = .191; 3: + 1/12 = .274;
 * 4: + 1/13 = .351, computed; 5: 1/14; 6: + 1/15 = .138; 7: + 1/16 = .201; 8: + 1/17 = .259; 9: +
 * 1/18 = .315 */
static void teacache_compares_with_last_or_neighbour(void **state)
{
    (void)state;
    float distance[100];
    bool skip[10];
    make_distances(distance, 10);
    struct skip_params params = {
        .model = SKIP_MODEL_14B, .curve = SKIP_CURVE_PLAIN, .threshold = 0.3, .start = 1, .end = 9};
    skip_teacache(&params, 0, 10, distance, skip);
    check_list(skip, 10, "2 3 5 6 8 9");
    params.neighbours = true;
    skip_teacache(&params, 0, 10, distance, skip);
    check_list(skip, 10, "1 2 3 5 6 7 8");
    params.start = 5;
    params.end = 8;
    skip_teacache(&params, 0, 10, distance, skip);
    check_list(skip, 10, "5 6 7 8");
    params.start = 0;
    params.end = 9;
    skip_teacache(&params, 0, 10, distance, skip);
    assert_false(skip[0]); /* there is no neighbour */
}

/* The polynomial of 14B is below zero for small distances: the wrapper's sum falls and skips on and
 * on, ours stands still and skips as well, but is not carried below zero. */
static void a_falling_sum_is_for_comparison_only(void **state)
{
    (void)state;
    static const float row[5] = {0, 0.2f, 0.05f, 0.2f, 0.2f}; /* from the step before */
    float distance[25] = {0};
    bool skip[5];
    for (int i = 1; i < 5; i++)
        distance[i * 5 + i - 1] = row[i];
    struct skip_params params = {.model = SKIP_MODEL_14B,
                                 .curve = SKIP_CURVE_E,
                                 .threshold = 0.2,
                                 .start = 1,
                                 .end = 4,
                                 .neighbours = true};
    skip_teacache(&params, 0, 5, distance, skip); /* .126, 0, .252: computed, .126 */
    check_list(skip, 5, "1 2 4");
    params.compat = true;
    skip_teacache(&params, 0, 5, distance, skip); /* .126, -3.97, -3.84, -3.71 */
    check_list(skip, 5, "1 2 3 4");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(magcache_skips_as_published),
        cmocka_unit_test(magcache_keeps_its_bounds),
        cmocka_unit_test(teacache_polynomials),
        cmocka_unit_test(teacache_compares_with_last_or_neighbour),
        cmocka_unit_test(a_falling_sum_is_for_comparison_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
