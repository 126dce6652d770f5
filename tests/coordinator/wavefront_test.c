/* The wavefront is why many machines may share one video. If workers began to wait for each other
 * again, the job would still be right and nobody would notice but the one who pays. */
#include "tests/test.h"

#include "tests/bench/wavefront.h"

/* 14 windows x 20 steps, 4 workers of uneven speed: at least 95 % busy until the last wave, for
 * every seed. */
static void workers_are_busy_until_the_last_wave(void **state)
{
    (void)state;
    struct lt_error error;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        const struct farm farm = {14, 20, 4, seed, false};
        struct farm_result result;
        assert_ok(farm_run(&farm, &result, &error));
        if (!(result.busy_until_last >= 0.95) || result.busy_until_last > 1)
            fail_msg("seed %llu: busy %.4f", (unsigned long long)seed, result.busy_until_last);
    }
}

/* The comparison must mean something: a barrier costs time on the same farm. */
static void a_barrier_is_slower(void **state)
{
    (void)state;
    struct lt_error error;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct farm farm = {14, 20, 4, seed, false};
        struct farm_result wavefront, barrier;
        assert_ok(farm_run(&farm, &wavefront, &error));
        farm.barrier = true;
        assert_ok(farm_run(&farm, &barrier, &error));
        assert_true(barrier.makespan > wavefront.makespan);
        assert_true(barrier.busy < wavefront.busy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workers_are_busy_until_the_last_wave),
        cmocka_unit_test(a_barrier_is_slower),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
