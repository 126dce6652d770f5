/* The solvers against diffusers' schedulers: where ours went another way, a job would give another
 * picture than the programs its recipe is from. tests/golden/schedulers tells how the numbers were
 * made. */
#include "tests/test.h"

#include "common/safetensors.h"
#include "coordinator/sampler.h"
#include "coordinator/sigma.h"

#include <math.h>
#include <stdlib.h>

enum { RUNS = 5, STEPS_MAX = 32 };

static struct lt_safetensors *file;

static int open_file(void **state)
{
    (void)state;
    return lt_safetensors_open(LT_SOURCE_DIR "/tests/golden/schedulers/schedulers.safetensors",
                               &file, NULL) != LT_OK;
}

static int close_file(void **state)
{
    (void)state;
    lt_safetensors_close(&file);
    return 0;
}

static struct lt_view take(const char *scheduler, int run, const char *what)
{
    char name[64];
    struct lt_error error;
    struct lt_view view;
    snprintf(name, sizeof name, "%s.%d.%s", scheduler, run, what);
    assert_ok(lt_safetensors_read_f32(file, name, &view, &error));
    return view;
}

static void near(const char *scheduler, int run, int64_t step, double got, double want)
{
    /* f32 elements over at most 20 steps of values near 1 */
    if (!(fabs(got - want) <= 4e-6 * fmax(1, fabs(want))))
        fail_msg("%s run %d step %lld: %.9g, expected %.9g", scheduler, run, (long long)step, got,
                 want);
}

/* Every step from diffusers' own sample before it, and from ours: errors neither hide nor grow. */
static void walk(const char *scheduler, enum sampler_kind kind, int run)
{
    struct lt_view sigmas = take(scheduler, run, "sigmas"), v = take(scheduler, run, "v"),
                   x = take(scheduler, run, "x");
    const int64_t steps = v.dim[0], count = v.dim[1];
    struct plan_step step[STEPS_MAX] = {0};
    struct lt_arena arena;
    struct lt_error error;
    struct sampler sampler;
    float sample[64], history[SAMPLER_HISTORY_MAX][64];
    const struct sampler_frame frame = {sample, {history[0], history[1], history[2]}};
    assert_true(steps <= STEPS_MAX && count <= 64 && sigmas.dim[0] == steps + 1);
    for (int64_t i = 0; i < steps; i++) {
        step[i].sigma = (double)((float *)sigmas.data)[i];
        step[i].sigma_next = (double)((float *)sigmas.data)[i + 1];
    }
    const struct plan plan = {.step = step, .step_count = (uint32_t)steps};
    lt_arena_init(&arena, 0);
    assert_ok(sampler_build(kind, &plan, &arena, &sampler, &error));
    memcpy(sample, x.data, (size_t)count * sizeof *sample);
    for (int64_t i = 0; i < steps; i++) {
        sampler_advance(&sampler, (uint32_t)i, (size_t)count, (const float *)v.data + i * count,
                        NULL, &frame, &frame);
        for (int64_t c = 0; c < count; c++)
            near(scheduler, run, i, (double)sample[c],
                 (double)((const float *)x.data)[(i + 1) * count + c]);
    }
    lt_arena_fini(&arena);
    free(sigmas.data);
    free(v.data);
    free(x.data);
}

static void unipc_steps_like_diffusers(void **state)
{
    (void)state;
    for (int run = 0; run < RUNS; run++)
        walk("unipc", SAMPLER_UNIPC, run);
}

static void euler_steps_like_diffusers(void **state)
{
    (void)state;
    for (int run = 0; run < RUNS; run++)
        walk("euler", SAMPLER_EULER, run);
}

static void euler_levels_are_those_of_diffusers(void **state)
{
    (void)state;
    for (int run = 0; run < RUNS; run++) {
        struct lt_view sigmas = take("euler", run, "sigmas"),
                       timesteps = take("euler", run, "timesteps"),
                       shift = take("euler", run, "shift");
        struct lt_arena arena;
        struct lt_error error;
        struct sigma_list list;
        struct job job;
        job_defaults(&job);
        job.sampler = SAMPLER_EULER;
        job.shift = (double)((float *)shift.data)[0];
        job.step_count = timesteps.dim[0];
        lt_arena_init(&arena, 0);
        assert_ok(sigma_list_build(&job, &arena, &list, &error));
        assert_int_equal(list.count, timesteps.dim[0]);
        for (uint32_t i = 0; i <= list.count; i++)
            near("euler levels", run, i, list.sigma[i], (double)((float *)sigmas.data)[i]);
        for (uint32_t i = 0; i < list.count; i++)
            near("euler times", run, i, list.timestep[i], (double)((float *)timesteps.data)[i]);
        lt_arena_fini(&arena);
        free(sigmas.data);
        free(timesteps.data);
        free(shift.data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unipc_steps_like_diffusers),
        cmocka_unit_test(euler_steps_like_diffusers),
        cmocka_unit_test(euler_levels_are_those_of_diffusers),
    };
    return cmocka_run_group_tests(tests, open_file, close_file);
}
