/* A wrong window list blends frames that belong elsewhere; an index past the end reads foreign
 * memory; a frame without weight is 0/0 = NaN and black for the rest of the job. */
#include "tests/test.h"

#include "common/arena.h"
#include "coordinator/blend.h"
#include "coordinator/window.h"

#include <math.h>

static struct window_params params_of(enum window_schedule schedule, uint32_t t, uint32_t n,
                                      uint32_t o, uint32_t d)
{
    return (struct window_params){.schedule = schedule,
                                  .fuse = WINDOW_FUSE_LINEAR,
                                  .frame_count = t,
                                  .size = n,
                                  .overlap = o,
                                  .stride = d};
}

/* "0-20 17-37" for runs, "51-60+0-10" for wrapped windows, "0-40/2" for strided ones. */
static void print_list(const struct window_list *list, uint32_t t, char *text, size_t bytes)
{
    size_t used = 0;
    text[0] = 0;
    for (uint32_t w = 0; w < list->count; w++) {
        const uint32_t *f = list->window[w].frame, n = list->window[w].frame_count;
        const uint32_t d = n > 1 ? (f[1] + t - f[0]) % t : 1;
        for (uint32_t i = 0; i < n;) {
            uint32_t j = i;
            while (j + 1 < n && f[j + 1] == f[j] + d)
                j++;
            used += (size_t)snprintf(text + used, bytes - used, "%s%u-%u",
                                     i   ? "+"
                                     : w ? " "
                                         : "",
                                     f[i], f[j]);
            if (d > 1)
                used += (size_t)snprintf(text + used, bytes - used, "/%u", d);
            i = j + 1;
        }
    }
}

/* clang-format off */
static const struct {
    enum window_schedule schedule;
    uint32_t t, o, d, step;
    const char *list;
} goldens[] = {
    {WINDOW_STATIC_STANDARD, 61, 4, 1, 0, "0-20 17-37 34-54 40-60"},
    {WINDOW_STATIC_STANDARD, 61, 4, 1, 3, "0-20 17-37 34-54 40-60"},
    {WINDOW_UNIFORM_STANDARD, 61, 4, 1, 0, "0-20 17-37 34-54 40-60"},
    {WINDOW_UNIFORM_STANDARD, 61, 4, 1, 1, "30-50 40-60 0-20 3-23 20-40"},
    {WINDOW_UNIFORM_STANDARD, 61, 4, 1, 2, "15-35 32-52 40-60 0-20 5-25"},
    {WINDOW_UNIFORM_STANDARD, 61, 4, 1, 3, "40-60 0-20 2-22 19-39 36-56"},
    {WINDOW_UNIFORM_LOOPED, 61, 4, 1, 0, "0-20 17-37 34-54 51-60+0-10"},
    {WINDOW_UNIFORM_LOOPED, 61, 4, 1, 1, "30-50 47-60+0-6 3-23 20-40"},
    {WINDOW_UNIFORM_LOOPED, 61, 4, 1, 2, "15-35 32-52 49-60+0-8 5-25"},
    {WINDOW_UNIFORM_LOOPED, 61, 4, 1, 3, "46-60+0-5 2-22 19-39 36-56"},
    {WINDOW_BATCHED, 61, 4, 1, 1, "0-20 21-41 42-60"},
    {WINDOW_BATCHED_SHIFTED, 61, 4, 1, 0, "0-20 21-41 42-60"},
    {WINDOW_BATCHED_SHIFTED, 61, 4, 1, 1, "0-8 9-29 30-50 51-60"},
    {WINDOW_BATCHED_SHIFTED, 61, 4, 1, 2, "0-14 15-35 36-56 57-60"},
    {WINDOW_BATCHED_SHIFTED, 61, 4, 1, 3, "0-3 4-24 25-45 46-60"},
    {WINDOW_STATIC_BALANCED, 61, 4, 1, 2, "0-20 13-33 27-47 40-60"},
    {WINDOW_STATIC_STANDARD, 22, 4, 1, 0, "0-20 1-21"},
    {WINDOW_STATIC_STANDARD, 41, 4, 1, 0, "0-20 17-37 20-40"},
    {WINDOW_STATIC_STANDARD, 41, 8, 1, 0, "0-20 13-33 20-40"},
    {WINDOW_STATIC_STANDARD, 50, 4, 1, 0, "0-20 17-37 29-49"},
    {WINDOW_STATIC_STANDARD, 81, 4, 1, 0, "0-20 17-37 34-54 51-71 60-80"},
    {WINDOW_STATIC_STANDARD, 61, 8, 1, 0, "0-20 13-33 26-46 39-59 40-60"},
    {WINDOW_STATIC_BALANCED, 41, 4, 1, 0, "0-20 10-30 20-40"},
    {WINDOW_STATIC_BALANCED, 50, 4, 1, 0, "0-20 15-35 29-49"},
    {WINDOW_STATIC_BALANCED, 81, 4, 1, 0, "0-20 15-35 30-50 45-65 60-80"},
    {WINDOW_STATIC_BALANCED, 121, 4, 1, 0, "0-20 17-37 33-53 50-70 67-87 83-103 100-120"},
    {WINDOW_STATIC_BALANCED, 61, 8, 1, 0, "0-20 10-30 20-40 30-50 40-60"},
    {WINDOW_STATIC_BALANCED, 81, 8, 1, 0, "0-20 12-32 24-44 36-56 48-68 60-80"},
    {WINDOW_UNIFORM_STANDARD, 41, 4, 1, 1, "20-40 0-20 13-33"},
    {WINDOW_UNIFORM_STANDARD, 41, 4, 1, 2, "10-30 20-40 0-20 3-23"},
    {WINDOW_UNIFORM_STANDARD, 41, 4, 1, 3, "20-40 0-20 7-27"},
    {WINDOW_UNIFORM_STANDARD, 22, 4, 1, 1, "1-21 0-20"},
    {WINDOW_UNIFORM_STANDARD, 81, 4, 1, 1, "40-60 57-77 60-80 0-20 10-30 27-47"},
    {WINDOW_UNIFORM_LOOPED, 41, 4, 1, 0, "0-20 17-37 34-40+0-13"},
    {WINDOW_UNIFORM_LOOPED, 41, 4, 2, 0, "0-20 17-37 34-40+0-13 0-40/2 38-40/2+1-37/2"},
    {WINDOW_UNIFORM_STANDARD, 41, 4, 2, 0, "0-20 17-37 20-40 0-40/2"},
    {WINDOW_UNIFORM_STANDARD_COMFY, 41, 8, 1, 0, "0-20 13-33 20-40"},
    {WINDOW_UNIFORM_STANDARD_COMFY, 41, 8, 1, 1, "20-40 0-20 5-25"},
    {WINDOW_UNIFORM_STANDARD_COMFY, 41, 8, 1, 2, "10-30 20-40 0-20"},
    {WINDOW_UNIFORM_STANDARD_COMFY, 41, 8, 1, 3, "20-40 0-20 3-23 16-36"},
    {WINDOW_UNIFORM_LOOPED_OPEN, 41, 8, 1, 0, "0-20 13-33 26-40+0-5"},
    {WINDOW_UNIFORM_LOOPED, 41, 8, 1, 0, "0-20 13-33 26-40+0-5 39-40+0-18"},
    {WINDOW_UNIFORM_STANDARD, 21, 4, 1, 1, "0-20"},
    {WINDOW_STATIC_STANDARD, 1, 4, 1, 0, "0-0"},
    {WINDOW_BATCHED_SHIFTED, 20, 4, 1, 1, "0-19"},
};
/* clang-format on */

static void lists_are_the_published_ones(void **state)
{
    (void)state;
    for (size_t i = 0; i < LT_COUNT(goldens); i++) {
        struct lt_error error;
        struct lt_arena arena;
        lt_arena_init(&arena, 0);
        const struct window_params params =
            params_of(goldens[i].schedule, goldens[i].t, 21, goldens[i].o, goldens[i].d);
        struct window_list list;
        assert_ok(window_list_build(&params, goldens[i].step, &arena, &list, &error));
        char text[1024];
        print_list(&list, goldens[i].t, text, sizeof text);
        assert_string_equal(text, goldens[i].list);
        lt_arena_fini(&arena);
    }
}

static void halving_reverses_bits(void **state)
{
    (void)state;
    static const double want[] = {0,    .5,   .25,   .75,   .125,  .625,
                                  .375, .875, .0625, .5625, .3125, .8125};
    for (size_t i = 0; i < LT_COUNT(want); i++)
        assert_true(window_ordered_halving(i) == want[i]);
}

/* What upstream's uniform schedules give, mistakes included: the oracle of the exhaustive run. */
enum { ORACLE_WINDOWS = 256, ORACLE_FRAMES = 21 };

struct oracle {
    uint32_t t, n, count;
    int frame[ORACLE_WINDOWS][ORACLE_FRAMES];
};

static void oracle_looped(struct oracle *list, uint32_t o, uint32_t d, uint32_t step, bool closed)
{
    const double halving = window_ordered_halving(step);
    const int levels_full = (int)ceil(log2((double)list->t / list->n)) + 1;
    const int levels = (int)d < levels_full ? (int)d : levels_full;
    const int t = (int)list->t, n = (int)list->n, pad = (int)nearbyint(t * halving);
    for (int c = 1; c < 1 << levels; c *= 2)
        for (int j = (int)(halving * c) + pad; j < t + pad + (closed ? 0 : -(int)o);
             j += n * c - (int)o) {
            for (int m = 0; m < n; m++)
                list->frame[list->count][m] = (j + m * c) % t;
            list->count++;
        }
}

static bool oracle_holds(const int *frame, uint32_t n, int value)
{
    for (uint32_t i = 0; i < n; i++)
        if (frame[i] == value)
            return true;
    return false;
}

static void oracle_repair(struct oracle *list)
{
    const uint32_t n = list->n;
    bool drop[ORACLE_WINDOWS] = {0};
    for (uint32_t p = 0; p < list->count; p++) {
        int *frame = list->frame[p], wrap = -1;
        for (uint32_t i = 1; i < n && wrap < 0; i++)
            if (frame[i] < frame[i - 1])
                wrap = frame[i];
        if (wrap >= 0) {
            const int first = frame[0];
            for (uint32_t i = 0; i < n; i++)
                frame[i] = (frame[i] - first + (int)list->t) % (int)list->t;
            const int add = (int)list->t - frame[n - 1] - 1;
            for (uint32_t i = 0; i < n; i++)
                frame[i] += add;
            if (!oracle_holds(list->frame[(p + 1) % list->count], n, wrap)) {
                memmove(list->frame[p + 2], list->frame[p + 1],
                        (list->count - p - 1) * sizeof list->frame[0]);
                for (uint32_t i = 0; i < n; i++)
                    list->frame[p + 1][i] = wrap + (int)i;
                list->count++;
            }
        }
        for (uint32_t q = 0; q < p; q++)
            drop[p] = drop[p] || memcmp(list->frame[q], frame, n * sizeof *frame) == 0;
    }
    uint32_t kept = 0;
    for (uint32_t p = 0; p < list->count; p++)
        if (!drop[p])
            memmove(list->frame[kept++], list->frame[p], sizeof list->frame[0]);
    list->count = kept;
}

static bool oracle_in_range(const struct oracle *list)
{
    for (uint32_t p = 0; p < list->count; p++)
        for (uint32_t i = 0; i < list->n; i++)
            if (list->frame[p][i] >= (int)list->t)
                return false;
    return true;
}

static bool oracle_covers(const struct oracle *list, const struct window_params *params)
{
    double total[129] = {0};
    for (uint32_t p = 0; p < list->count; p++) {
        uint32_t frame[ORACLE_FRAMES];
        float weight[ORACLE_FRAMES];
        for (uint32_t i = 0; i < list->n; i++)
            frame[i] = (uint32_t)list->frame[p][i];
        blend_weights(params, frame, list->n, weight);
        for (uint32_t i = 0; i < list->n; i++)
            total[frame[i]] += weight[i];
    }
    for (uint32_t f = 0; f < list->t; f++)
        if (!(total[f] > 0))
            return false;
    return true;
}

static bool oracle_equals(const struct oracle *oracle, const struct window_list *list)
{
    if (oracle->count != list->count)
        return false;
    for (uint32_t p = 0; p < list->count; p++)
        for (uint32_t i = 0; i < oracle->n; i++)
            if (list->window[p].frame_count != oracle->n ||
                list->window[p].frame[i] != (uint32_t)oracle->frame[p][i])
                return false;
    return true;
}

/* In range and every frame with weight: the promise for every list. */
static void check_list(const struct window_list *list, uint32_t t)
{
    double total[129] = {0};
    for (uint32_t p = 0; p < list->count; p++)
        for (uint32_t i = 0; i < list->window[p].frame_count; i++) {
            assert_in_range(list->window[p].frame[i], 0, t - 1);
            total[list->window[p].frame[i]] += list->window[p].weight[i];
        }
    for (uint32_t f = 0; f < t; f++)
        assert_true(total[f] > 0);
}

struct tally {
    uint32_t lists, out_of_range, uncovered, equal;
};

/* T 22..129, n 20 and 21, o 1 2 4 8, steps 0..7: 6,912 lists. */
static struct tally run_all(enum window_schedule schedule, enum window_fuse fuse, uint32_t d)
{
    static struct oracle oracle;
    static const uint32_t overlaps[] = {1, 2, 4, 8};
    const bool closed = schedule == WINDOW_UNIFORM_STANDARD || schedule == WINDOW_UNIFORM_LOOPED;
    const bool looped = window_schedule_is_looped(schedule);
    struct tally tally = {0};
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    for (uint32_t t = 22; t <= 129; t++)
        for (uint32_t n = 20; n <= 21; n++)
            for (size_t o = 0; o < LT_COUNT(overlaps); o++)
                for (uint32_t step = 0; step < 8; step++) {
                    struct window_params params = params_of(schedule, t, n, overlaps[o], d);
                    params.fuse = fuse;
                    oracle.t = t;
                    oracle.n = n;
                    oracle.count = 0;
                    oracle_looped(&oracle, overlaps[o], d, step, closed);
                    if (!looped)
                        oracle_repair(&oracle);
                    struct window_list list;
                    const struct lt_mark mark = lt_arena_mark(&arena);
                    assert_ok(window_list_build(&params, step, &arena, &list, &error));
                    check_list(&list, t);
                    const bool in_range = oracle_in_range(&oracle);
                    const bool covers = in_range && oracle_covers(&oracle, &params);
                    tally.lists++;
                    tally.out_of_range += !in_range;
                    tally.uncovered += in_range && !covers;
                    if (in_range && covers) {
                        assert_true(oracle_equals(&oracle, &list));
                        tally.equal++;
                    }
                    lt_arena_rewind(&arena, mark);
                }
    lt_arena_fini(&arena);
    return tally;
}

static void uniform_lists_are_upstreams_where_those_are_valid(void **state)
{
    (void)state;
    const struct tally d1 = run_all(WINDOW_UNIFORM_STANDARD, WINDOW_FUSE_LINEAR, 1);
    assert_int_equal(d1.lists, 6912);
    assert_int_equal(d1.equal, 6912);
    const struct tally d2 = run_all(WINDOW_UNIFORM_STANDARD, WINDOW_FUSE_LINEAR, 2);
    assert_int_equal(d2.out_of_range, 1152);
    assert_int_equal(d2.uncovered, 13);
    const struct tally d3 = run_all(WINDOW_UNIFORM_STANDARD, WINDOW_FUSE_LINEAR, 3);
    assert_int_equal(d3.out_of_range, 3520);
    struct tally comfy = {0};
    for (uint32_t d = 1; d <= 3; d++) {
        const struct tally tally =
            run_all(WINDOW_UNIFORM_STANDARD_COMFY, WINDOW_FUSE_PYRAMID_COMFY, d);
        comfy.lists += tally.lists;
        comfy.out_of_range += tally.out_of_range;
        comfy.uncovered += tally.uncovered;
    }
    assert_int_equal(comfy.lists, 20736);
    assert_int_equal(comfy.out_of_range, 4672);
    assert_int_equal(comfy.uncovered, 17);
}

static void looped_and_static_lists_are_always_valid(void **state)
{
    (void)state;
    for (uint32_t d = 1; d <= 3; d++) {
        assert_int_equal(run_all(WINDOW_UNIFORM_LOOPED, WINDOW_FUSE_PYRAMID, d).equal, 6912);
        assert_int_equal(run_all(WINDOW_UNIFORM_LOOPED_OPEN, WINDOW_FUSE_PYRAMID_COMFY, d).equal,
                         6912);
    }
    static const enum window_schedule schedules[] = {
        WINDOW_STATIC_STANDARD, WINDOW_STATIC_BALANCED,  WINDOW_BATCHED,
        WINDOW_BATCHED_SHIFTED, WINDOW_UNIFORM_STANDARD, WINDOW_UNIFORM_LOOPED};
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    for (size_t i = 0; i < LT_COUNT(schedules); i++)
        for (int fuse = WINDOW_FUSE_LINEAR; fuse <= WINDOW_FUSE_GAUSSIAN; fuse++)
            for (uint32_t t = 1; t <= 60; t++)
                for (uint32_t n = 1; n <= 12; n++)
                    for (uint32_t o = 0; o < n; o++) {
                        struct window_params params = params_of(schedules[i], t, n, o, 1);
                        params.fuse = (enum window_fuse)fuse;
                        struct window_list list;
                        const struct lt_mark mark = lt_arena_mark(&arena);
                        assert_ok(window_list_build(&params, t + n, &arena, &list, &error));
                        check_list(&list, t);
                        lt_arena_rewind(&arena, mark);
                    }
    lt_arena_fini(&arena);
}

static void impossible_windows_are_refused(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    struct window_list list;
    struct window_params params = params_of(WINDOW_STATIC_STANDARD, 61, 21, 21, 1);
    assert_fails(window_list_build(&params, 0, &arena, &list, &error), LT_BAD_INPUT, "overlap 21");
    params = params_of(WINDOW_STATIC_STANDARD, 61, 0, 0, 1);
    assert_fails(window_list_build(&params, 0, &arena, &list, &error), LT_BAD_INPUT,
                 "windows of 0");
    params = params_of(WINDOW_UNIFORM_STANDARD, 61, 21, 4, 0);
    assert_fails(window_list_build(&params, 0, &arena, &list, &error), LT_BAD_INPUT, "stride");
    lt_arena_fini(&arena);
    lt_arena_init(&arena, 1024);
    params = params_of(WINDOW_STATIC_STANDARD, 61, 21, 4, 1);
    assert_fails(window_list_build(&params, 0, &arena, &list, &error), LT_NO_MEMORY,
                 "window lists");
    lt_arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_are_the_published_ones),
        cmocka_unit_test(halving_reverses_bits),
        cmocka_unit_test(uniform_lists_are_upstreams_where_those_are_valid),
        cmocka_unit_test(looped_and_static_lists_are_always_valid),
        cmocka_unit_test(impossible_windows_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
