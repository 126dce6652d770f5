/* If noise depended on who asks, when, or in what order, a resumed job would change its picture
 * half way; if the torch stream were off by one draw, no seed would ever give what people know from
 * other programs. */
#include "tests/test.h"

#include "common/arena.h"
#include "common/rng.h"
#include "coordinator/noise.h"

#include <math.h>
#include <stdlib.h>

static void order_from_torch(void *context, uint32_t chunk, uint32_t *order_out, uint32_t count)
{
    (void)chunk;
    lt_torch_randperm(context, order_out, count);
}

/* The published source frames; `drawn`: numbers drawn from the generator before. */
/* clang-format off */
static const struct {
    uint32_t t;
    size_t drawn;
    uint32_t source[40];
} sources[] = {
    {41, 0, {13, 4, 3, 15, 8, 16, 9, 11, 12, 10, 6, 2, 1, 7, 14, 0, 5, 19, 17, 18}},
    {41, 16 * 41 * 60 * 104, {8, 6, 15, 3, 5, 2, 12, 1, 10, 11, 13, 14, 16, 0, 9, 7, 4, 19, 18,
     17}},
    {61, 16 * 61 * 60 * 104, {9,  16, 10, 14, 3,  6, 0, 11, 15, 8, 1, 2, 4,  5,  12, 13, 7, 2,
     15, 11,
                              19, 4,  8,  3,  17, 0, 18, 9, 20, 16, 14, 10, 1, 6, 15, 7,  2, 5,
     13, 12}},
};
/* clang-format on */

static void freenoise_takes_the_published_frames(void **state)
{
    (void)state;
    for (size_t i = 0; i < LT_COUNT(sources); i++) {
        struct lt_error error;
        struct lt_torch_rng rng;
        lt_torch_seed(&rng, 42);
        for (size_t k = 0; k < sources[i].drawn; k++)
            lt_torch_u32(&rng);
        uint32_t source[61];
        assert_ok(noise_freenoise(sources[i].t, 21, 4, order_from_torch, &rng, source, &error));
        for (uint32_t f = 0; f < sources[i].t; f++)
            assert_int_equal(source[f], f < 21 ? f : sources[i].source[f - 21]);
    }
}

struct setup {
    struct lt_arena arena;
    struct job job;
    struct plan plan;
    struct noise *noise;
};

static void setup_init(struct setup *setup, enum noise_kind kind, int64_t width,
                       int64_t latent_frames, int64_t channels, bool freenoise)
{
    struct lt_error error;
    lt_arena_init(&setup->arena, 0);
    job_defaults(&setup->job);
    setup->job.width = width;
    setup->job.height = 16;
    setup->job.frame_count = setup->job.frame_count_padded = 4 * latent_frames - 3;
    setup->job.latent_channels = channels;
    setup->job.noise = kind;
    setup->job.seed = 42;
    setup->job.sampler = SAMPLER_DPMPP_SDE;
    setup->job.step_count = 4;
    setup->job.freenoise = freenoise;
    assert_ok(plan_build(&setup->job, &setup->arena, &setup->plan, &error));
    assert_ok(noise_create(&setup->job, &setup->plan, &setup->noise, &error));
}

static void setup_fini(struct setup *setup)
{
    noise_destroy(&setup->noise);
    lt_arena_fini(&setup->arena);
}

/* Frame f of a tensor [C, T, plane], as noise gives it: [C, plane]. */
static void check_frame(const float *tensor, const struct plan *plan, uint32_t frame,
                        const float *got)
{
    const size_t plane = (size_t)(plan->latent_height * plan->latent_width);
    for (int64_t c = 0; c < plan->latent_channels; c++)
        assert_memory_equal(got + (size_t)c * plane,
                            tensor + ((size_t)(c * plan->latent_frames) + frame) * plane,
                            plane * sizeof *got);
}

/* The order of draws: whole noise, permutations, one whole draw per step. Shapes: blocks of 16
 * whole, planes that cut blocks (2x6 = 12), totals that do not end on a block (their last 16
 * numbers are drawn again). */
static void torch_noise_follows_the_order_of_draws(void **state)
{
    (void)state;
    static const struct {
        int64_t width, t, channels;
        bool freenoise;
    } shapes[] = {{16, 5, 16, false},
                  {48, 61, 16, true},
                  {48, 25, 3, true},
                  {16, 7, 1, true},
                  {48, 41, 1, false}};
    for (size_t i = 0; i < LT_COUNT(shapes); i++) {
        struct setup setup;
        setup_init(&setup, NOISE_TORCH, shapes[i].width, shapes[i].t, shapes[i].channels,
                   shapes[i].freenoise);
        const struct plan *plan = &setup.plan;
        const size_t frame_values = (size_t)plan->frame_bytes / 4;
        const size_t count = frame_values * (size_t)plan->latent_frames;
        float *tensor = malloc(count * sizeof *tensor), *got = malloc(frame_values * sizeof *got);
        uint32_t source[61];
        struct lt_error error;
        struct lt_torch_rng rng;
        lt_torch_seed(&rng, 42);
        lt_torch_randn(&rng, tensor, count);
        for (uint32_t f = 0; f < plan->latent_frames; f++)
            source[f] = f;
        if (shapes[i].freenoise)
            assert_ok(noise_freenoise((uint32_t)plan->latent_frames, 21, 4, order_from_torch, &rng,
                                      source, &error));
        for (uint32_t f = (uint32_t)plan->latent_frames; f-- > 0;) { /* any order: here backwards */
            noise_initial_frame(setup.noise, f, got);
            check_frame(tensor, plan, source[f], got);
        }
        for (uint32_t step = 0; step < plan->step_count; step++) {
            lt_torch_randn(&rng, tensor, count);
            for (uint32_t f = 0; f < plan->latent_frames; f++) {
                noise_step_frame(setup.noise, step, f, got);
                check_frame(tensor, plan, f, got);
            }
        }
        /* a fresh generator that begins with a late step, as after a resume */
        noise_destroy(&setup.noise);
        assert_ok(noise_create(&setup.job, plan, &setup.noise, &error));
        noise_step_frame(setup.noise, plan->step_count - 1, 1, got);
        check_frame(tensor, plan, 1, got);
        free(tensor);
        free(got);
        setup_fini(&setup);
    }
}

/* torch.randn(16, 21, 60, 104), seed 42 (pipeline.md 3.9); torch's own paths differ by up
 * to 2.4e-7. */
static void torch_noise_is_the_published_one(void **state)
{
    (void)state;
    struct lt_error error;
    struct setup setup;
    setup_init(&setup, NOISE_TORCH, 832, 21, 16, true);
    setup.job.height = 480;
    assert_ok(plan_build(&setup.job, &setup.arena, &setup.plan, &error));
    noise_destroy(&setup.noise);
    assert_ok(noise_create(&setup.job, &setup.plan, &setup.noise, &error));
    static float frame[16][60 * 104];
    noise_initial_frame(setup.noise, 1, frame[0]);
    assert_true(fabs(frame[0][0] + .7796450) < 5e-7);
    noise_initial_frame(setup.noise, 0, frame[0]);
    assert_true(fabs(frame[0][0] - 1.9269153) < 5e-7);
    assert_true(fabs(frame[1][0] - 2.3951662) < 5e-7);
    noise_initial_frame(setup.noise, 20, frame[0]);
    assert_true(fabs(frame[15][60 * 104 - 1] - 1.6538277) < 5e-7);
    setup_fini(&setup);
}

/* Counter noise has names: a longer take begins with the same frames. */
static void counter_noise_does_not_depend_on_the_length(void **state)
{
    (void)state;
    struct setup a, b;
    setup_init(&a, NOISE_PHILOX, 48, 21, 16, true);
    setup_init(&b, NOISE_PHILOX, 48, 61, 16, true);
    float first[16 * 12], second[16 * 12];
    assert_int_equal(a.plan.frame_bytes, sizeof first);
    for (uint32_t f = 0; f < 21; f++) {
        noise_initial_frame(a.noise, f, first);
        noise_initial_frame(b.noise, f, second);
        assert_memory_equal(first, second, sizeof first);
        noise_step_frame(a.noise, 2, f, first);
        noise_step_frame(b.noise, 2, f, second);
        assert_memory_equal(first, second, sizeof first);
    }
    noise_step_frame(a.noise, 1, 3, first);
    noise_step_frame(a.noise, 2, 3, second);
    assert_memory_not_equal(first, second, sizeof first);
    noise_initial_frame(a.noise, 3, second);
    assert_memory_not_equal(first, second, sizeof first);
    noise_initial_frame(a.noise, 4, first);
    assert_memory_not_equal(first, second, sizeof first);
    setup_fini(&a);
    setup_fini(&b);
}

/* Later frames of FreeNoise are copies of earlier ones, each of its chunk once. */
static void counter_freenoise_permutes(void **state)
{
    (void)state;
    struct setup setup;
    setup_init(&setup, NOISE_PHILOX, 16, 38, 16, true);
    float frame[38][64];
    for (uint32_t f = 0; f < 38; f++)
        noise_initial_frame(setup.noise, f, frame[f]);
    uint32_t used = 0, moved = 0;
    for (uint32_t f = 21; f < 38; f++)
        for (uint32_t g = 0; g < 17; g++)
            if (memcmp(frame[f], frame[g], sizeof frame[f]) == 0) {
                assert_false(used >> g & 1);
                used |= 1u << g;
                moved += g != f - 21;
            }
    assert_int_equal(used, (1u << 17) - 1);
    assert_true(moved > 8); /* shuffled, not shifted */
    setup_fini(&setup);
}

/* Mean and variance of 61 * 16 * 480 numbers: 5 standard errors. */
static void counter_noise_is_normal(void **state)
{
    (void)state;
    struct setup setup;
    setup_init(&setup, NOISE_PHILOX, 1920, 61, 16, false);
    static float frame[16 * 480];
    double sum = 0, squares = 0;
    for (uint32_t f = 0; f < 61; f++) {
        noise_initial_frame(setup.noise, f, frame);
        for (size_t i = 0; i < LT_COUNT(frame); i++) {
            sum += frame[i];
            squares += (double)frame[i] * frame[i];
        }
    }
    const double count = 61. * LT_COUNT(frame);
    assert_true(fabs(sum / count) < 5 / sqrt(count));
    assert_true(fabs(squares / count - 1) < 5 * sqrt(2 / count));
    setup_fini(&setup);
}

static void draws_too_small_for_torch_are_refused(void **state)
{
    (void)state;
    struct lt_error error;
    struct setup setup;
    setup_init(&setup, NOISE_PHILOX, 16, 1, 2, true);
    noise_destroy(&setup.noise);
    setup.job.noise = NOISE_TORCH;
    assert_fails(noise_create(&setup.job, &setup.plan, &setup.noise, &error), LT_UNSUPPORTED,
                 "at least 16");
    setup_fini(&setup);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(freenoise_takes_the_published_frames),
        cmocka_unit_test(torch_noise_follows_the_order_of_draws),
        cmocka_unit_test(torch_noise_is_the_published_one),
        cmocka_unit_test(counter_noise_does_not_depend_on_the_length),
        cmocka_unit_test(counter_freenoise_permutes),
        cmocka_unit_test(counter_noise_is_normal),
        cmocka_unit_test(draws_too_small_for_torch_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
