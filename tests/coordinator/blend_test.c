/* Wrong weights are seams: a pulse of brightness every hop, or a picture that jumps where windows
 * meet. */
#include "tests/test.h"

#include "common/arena.h"
#include "coordinator/blend.h"
#include "coordinator/window.h"

#include <math.h>

/* The published numbers have 4 to 5 digits. */
static const double digits = 6e-5;

static void weights_of(enum window_schedule schedule, enum window_fuse fuse, uint32_t t, uint32_t n,
                       uint32_t o, uint32_t start, float *weight)
{
    const struct window_params params = {
        .schedule = schedule, .fuse = fuse, .frame_count = t, .size = n, .overlap = o, .stride = 1};
    uint32_t frame[32];
    for (uint32_t i = 0; i < n; i++)
        frame[i] = (start + i) % t;
    blend_weights(&params, frame, n, weight);
}

/* clang-format off */
static const struct {
    enum window_schedule schedule;
    enum window_fuse fuse;
    uint32_t n, o, start, first; /* the weights from slot `first` on, of T = 61 */
    double want[8];
    uint32_t want_count;
} masks[] = {
    {WINDOW_STATIC_STANDARD, WINDOW_FUSE_LINEAR, 21, 4, 17, 0, {0, 1. / 3, 2. / 3, 1, 1, 1}, 6},
    {WINDOW_STATIC_STANDARD, WINDOW_FUSE_LINEAR, 21, 4, 17, 15, {1, 1, 1, 2. / 3, 1. / 3, 0}, 6},
    {WINDOW_STATIC_STANDARD, WINDOW_FUSE_LINEAR, 21, 4, 0, 0, {1, 1, 1, 1}, 4},
    {WINDOW_STATIC_STANDARD, WINDOW_FUSE_LINEAR, 21, 4, 40, 17, {1, 1, 1, 1}, 4},
    {WINDOW_UNIFORM_LOOPED, WINDOW_FUSE_LINEAR, 21, 4, 0, 0, {1, 1, 1, 1}, 4},
    {WINDOW_UNIFORM_LOOPED, WINDOW_FUSE_LINEAR, 21, 4, 51, 0, {0, 1. / 3, 2. / 3, 1}, 4},
    {WINDOW_UNIFORM_LOOPED, WINDOW_FUSE_LINEAR, 21, 4, 51, 17, {1, 2. / 3, 1. / 3, 0}, 4},
    {WINDOW_STATIC_STANDARD, WINDOW_FUSE_LINEAR, 21, 1, 20, 0, {0, 1}, 2},
    {WINDOW_STATIC_STANDARD, WINDOW_FUSE_LINEAR, 21, 1, 20, 19, {1, 1}, 2},
    {WINDOW_STATIC_STANDARD, WINDOW_FUSE_OVERLAP_LINEAR, 21, 4, 17, 0, {1e-37, 1. / 3, 2. / 3,
     1}, 4},
    {WINDOW_STATIC_STANDARD, WINDOW_FUSE_HANN, 21, 4, 17, 0, {1e-37, .25, .75, 1, 1}, 5},
    {WINDOW_STATIC_STANDARD, WINDOW_FUSE_HANN, 21, 4, 17, 16, {1, 1, .75, .25, 1e-37}, 5},
    {WINDOW_STATIC_STANDARD, WINDOW_FUSE_HANN, 21, 4, 0, 0, {1, 1, 1, 1}, 4},
    {WINDOW_STATIC_STANDARD, WINDOW_FUSE_PYRAMID, 21, 4, 17, 0, {.0909, .1818, .2727}, 3},
    {WINDOW_STATIC_STANDARD, WINDOW_FUSE_PYRAMID, 21, 4, 17, 9, {.9091, 1, .9091}, 3},
    {WINDOW_STATIC_STANDARD, WINDOW_FUSE_PYRAMID, 20, 4, 16, 0, {.1, .2}, 2},
    {WINDOW_STATIC_STANDARD, WINDOW_FUSE_PYRAMID, 20, 4, 16, 8, {.9, 1, 1, .9}, 4},
    {WINDOW_STATIC_STANDARD, WINDOW_FUSE_PYRAMID, 21, 4, 0, 0, {.0909, .3333, .6667, 1, .4545},
     5},
    {WINDOW_STATIC_STANDARD, WINDOW_FUSE_PYRAMID, 21, 4, 40, 16, {.4545, 1, .6667, .3333, .0909},
     5},
    {WINDOW_STATIC_STANDARD, WINDOW_FUSE_PYRAMID_COMFY, 21, 4, 17, 0, {1, 2, 3, 4}, 4},
    {WINDOW_STATIC_STANDARD, WINDOW_FUSE_PYRAMID_COMFY, 21, 4, 17, 9, {10, 11, 10}, 3},
    {WINDOW_STATIC_STANDARD, WINDOW_FUSE_RELATIVE, 21, 4, 17, 0, {.01, .10045, .2004}, 3},
    {WINDOW_STATIC_STANDARD, WINDOW_FUSE_RELATIVE, 21, 4, 17, 10, {1}, 1},
    {WINDOW_STATIC_STANDARD, WINDOW_FUSE_GAUSSIAN, 21, 4, 17, 10, {1, .98202}, 2}, /*
     exp(-(4/21)^2 / 2) */
    {WINDOW_STATIC_STANDARD, WINDOW_FUSE_FLAT, 21, 4, 17, 0, {1, 1, 1}, 3},
    {WINDOW_BATCHED, WINDOW_FUSE_LINEAR, 21, 4, 21, 0, {1, 1, 1}, 3},
};
/* clang-format on */

static void masks_are_the_published_ones(void **state)
{
    (void)state;
    for (size_t i = 0; i < LT_COUNT(masks); i++) {
        float weight[32];
        weights_of(masks[i].schedule, masks[i].fuse, 61, masks[i].n, masks[i].o, masks[i].start,
                   weight);
        for (uint32_t k = 0; k < masks[i].want_count; k++) {
            const double got = weight[masks[i].first + k];
            if (!(fabs(got - masks[i].want[k]) < digits) || (masks[i].want[k] > 0) != (got > 0))
                fail_msg("mask %zu slot %u: %.9g, expected %.9g", i, masks[i].first + k, got,
                         masks[i].want[k]);
        }
    }
}

/* Bit-equality with the wrapper rests on these: torch.linspace(0, 1, o) in f32, element i
 * (torch 2.13.0, CPU). */
static void linear_ramps_have_the_bits_of_torch(void **state)
{
    (void)state;
    static const struct {
        uint32_t o, i;
        float want;
    } elements[] = {
        {4, 1, 0x1.555556p-2f},   {4, 2, 0x1.555554p-1f},
        {18, 1, 0x1.e1e1e2p-5f},  {18, 10, 0x1.2d2d2ep-1f},
        {18, 12, 0x1.69696ap-1f}, {19, 12, 0x1.555556p-1f}, /* one rounding, not two */
    };
    for (size_t k = 0; k < LT_COUNT(elements); k++) {
        float weight[40];
        weights_of(WINDOW_STATIC_STANDARD, WINDOW_FUSE_LINEAR, 200, 32, elements[k].o, 168, weight);
        assert_true(weight[elements[k].i] == elements[k].want);
    }
}

/* Runs of equal or listed results: the prediction of window k is the constant k. */
/* clang-format off */
static const struct {
    uint32_t t, o;
    struct {
        uint32_t first, last;
        double value;
    } run[24];
} blends[] = {
    {41, 4, {{0, 17, 0}, {18, 18, .3333}, {19, 19, .6667}, {20, 20, 1}, {21, 21, 1.25}, {22, 22,
     1.4},
             {23, 34, 1.5}, {35, 35, 1.6}, {36, 36, 1.75}, {37, 40, 2}}},
    {61, 4, {{0, 17, 0}, {18, 18, .3333}, {19, 19, .6667}, {20, 34, 1}, {35, 35, 1.3333}, {36,
     36, 1.6667},
             {37, 40, 2}, {41, 41, 2.25}, {42, 42, 2.4}, {43, 51, 2.5}, {52, 52, 2.6}, {53, 53,
     2.75},
             {54, 60, 3}}},
    {41, 8, {{0, 13, 0}, {14, 14, .1429}, {15, 15, .2857}, {16, 16, .4286}, {17, 17, .5714}, {18,
     18, .7143},
             {19, 19, .8571}, {20, 20, 1}, {21, 21, 1.125}, {22, 22, 1.2222}, {23, 23, 1.3}, {24,
     24, 1.3636},
             {25, 25, 1.4167}, {26, 26, 1.4615}, {27, 27, 1.5385}, {28, 28, 1.5833}, {29, 29,
     1.6364},
             {30, 30, 1.7}, {31, 31, 1.7778}, {32, 32, 1.875}, {33, 40, 2}}},
};
/* clang-format on */

/* Latent frame f of all windows, each of which predicts its own number; two channels, the second
 * negated. */
static void blend_constant(const struct window_list *list, uint32_t f, float result[4],
                           double *total)
{
    struct lt_error error;
    static float prediction[8][2 * 21 * 2];
    struct blend_source source[8];
    size_t count = 0;
    *total = 0;
    for (uint32_t w = 0; w < list->count; w++)
        for (uint32_t k = 0; k < list->window[w].frame_count; k++) {
            if (list->window[w].frame[k] != f)
                continue;
            for (int c = 0; c < 2; c++)
                for (int i = 0; i < 2; i++)
                    prediction[count][(c * 21 + (int)k) * 2 + i] = c ? -(float)w : (float)w;
            source[count] =
                (struct blend_source){&prediction[count][k * 2], 42, list->window[w].weight[k]};
            *total += list->window[w].weight[k];
            count++;
        }
    assert_ok(blend_frame(source, count, 2, 2, result, &error));
}

static void blends_are_the_published_ones(void **state)
{
    (void)state;
    for (size_t i = 0; i < LT_COUNT(blends); i++) {
        struct lt_error error;
        struct lt_arena arena;
        lt_arena_init(&arena, 0);
        const struct window_params params = {.schedule = WINDOW_STATIC_STANDARD,
                                             .fuse = WINDOW_FUSE_LINEAR,
                                             .frame_count = blends[i].t,
                                             .size = 21,
                                             .overlap = blends[i].o,
                                             .stride = 1};
        struct window_list list;
        assert_ok(window_list_build(&params, 0, &arena, &list, &error));
        uint32_t next = 0;
        for (size_t r = 0; next < blends[i].t; r++) {
            assert_int_equal(blends[i].run[r].first, next);
            for (; next <= blends[i].run[r].last; next++) {
                float result[4];
                double total;
                blend_constant(&list, next, result, &total);
                assert_true(fabs(result[0] - blends[i].run[r].value) < digits);
                assert_true(result[1] == result[0] && result[2] == -result[0] &&
                            result[3] == -result[0]);
            }
        }
        lt_arena_fini(&arena);
    }
}

static void denominators_are_the_published_ones(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    const struct window_params params = {.schedule = WINDOW_STATIC_STANDARD,
                                         .fuse = WINDOW_FUSE_LINEAR,
                                         .frame_count = 61,
                                         .size = 21,
                                         .overlap = 4,
                                         .stride = 1};
    struct window_list list;
    assert_ok(window_list_build(&params, 0, &arena, &list, &error));
    for (uint32_t f = 0; f < 61; f++) {
        const double want = f <= 40 || f >= 54   ? 1
                            : f == 41 || f == 53 ? 4. / 3
                            : f == 42 || f == 52 ? 5. / 3
                                                 : 2;
        float result[4];
        double total;
        blend_constant(&list, f, result, &total);
        assert_true(fabs(total - want) < 1e-6);
    }
    lt_arena_fini(&arena);
}

/* The running average of upstream's "relative" is the weighted mean; f32 rounding only. */
static void relative_equals_the_running_average(void **state)
{
    (void)state;
    float a[32], b[32];
    weights_of(WINDOW_STATIC_STANDARD, WINDOW_FUSE_RELATIVE, 41, 21, 8, 0, a);
    weights_of(WINDOW_STATIC_STANDARD, WINDOW_FUSE_RELATIVE, 41, 21, 8, 13, b);
    for (uint32_t f = 13; f <= 20; f++) {
        struct lt_error error;
        const float first = 0.75f, second = -1.5f;
        const double wa = a[f], wb = b[f - 13];
        double running = first * (wa / wa);
        running = running * (wa / (wa + wb)) + second * (wb / (wa + wb));
        const struct blend_source source[] = {{&first, 1, a[f]}, {&second, 1, b[f - 13]}};
        float result;
        assert_ok(blend_frame(source, 2, 1, 1, &result, &error));
        assert_true(fabs(result - running) < 4e-7);
    }
}

/* The trap: 0 * NaN is NaN, so a weight of 0 does not hide a bad prediction. */
static void predictions_that_are_not_finite_are_refused(void **state)
{
    (void)state;
    struct lt_error error;
    const float good[] = {1, 2, 3, 4}, bad[] = {1, 2, 3, NAN}, huge[] = {1, INFINITY, 3, 4};
    float result[4] = {9, 9, 9, 9};
    const struct blend_source with_nan[] = {{good, 2, 1}, {bad, 2, 0}};
    assert_fails(blend_frame(with_nan, 2, 2, 2, result, &error), LT_BAD_INPUT,
                 "prediction 1: channel 1, element 1");
    const struct blend_source with_inf[] = {{huge, 2, 1}};
    assert_fails(blend_frame(with_inf, 1, 2, 2, result, &error), LT_BAD_INPUT,
                 "channel 0, element 1");
    const struct blend_source weightless[] = {{good, 2, 0}};
    assert_fails(blend_frame(weightless, 1, 2, 2, result, &error), LT_BAD_INPUT, "weight above 0");
    assert_true(result[0] == 9); /* untouched */
    size_t index;
    assert_false(blend_is_finite(bad, 4, &index));
    assert_int_equal(index, 3);
    assert_true(blend_is_finite(good, 4, &index));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks_are_the_published_ones),
        cmocka_unit_test(linear_ramps_have_the_bits_of_torch),
        cmocka_unit_test(blends_are_the_published_ones),
        cmocka_unit_test(denominators_are_the_published_ones),
        cmocka_unit_test(relative_equals_the_running_average),
        cmocka_unit_test(predictions_that_are_not_finite_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
