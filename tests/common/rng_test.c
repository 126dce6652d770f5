/* If these numbers moved, every job would render another video than yesterday, and two coordinators
 * would disagree about the same job. */
#include "tests/test.h"

#include "common/rng.h"

#include <math.h>
#include <stdlib.h>

static void torch_words_and_normals_of_seed_42(void **state)
{
    (void)state;
    static const float want[16] = {1.9269153f, 1.4872841f,  .9007172f,  -2.1055210f,
                                   .6784185f,  -1.2345449f, -.0430675f, -1.6046669f,
                                   -.7521353f, 1.6487231f,  -.3924786f, -1.4036071f,
                                   -.7278813f, -.5594302f,  -.7688389f, .7624454f};
    struct lt_torch_rng rng;
    lt_torch_seed(&rng, 42);
    assert_int_equal(lt_torch_u32(&rng), 1608637542);
    assert_int_equal(lt_torch_u32(&rng), 3421126067);
    assert_int_equal(lt_torch_u32(&rng), 4083286876);
    assert_int_equal(lt_torch_u32(&rng), 787846414);
    lt_torch_seed(&rng, (1ull << 32) + 42);
    float got[16];
    lt_torch_randn(&rng, got, 16);
    for (int i = 0; i < 16; i++)
        assert_true(fabsf(got[i] - want[i]) <= 3e-7f); /* torch's own paths differ by 2.4e-7 */
}

static void torch_normals_of_a_whole_latent(void **state)
{
    (void)state;
    const size_t frame = 60 * 104, count = 16 * 21 * frame;
    float *x = malloc(count * sizeof *x);
    struct lt_torch_rng rng;
    lt_torch_seed(&rng, 42);
    lt_torch_randn(&rng, x, count);
    assert_true(fabsf(x[frame] + .7796450f) < 5e-7f);
    assert_true(fabsf(x[21 * frame] - 2.3951662f) < 5e-7f);
    assert_true(fabsf(x[count - 1] - 1.6538277f) < 5e-7f);
    double sum = 0, square = 0;
    for (size_t i = 0; i < count; i++) {
        sum += x[i];
        square += (double)x[i] * x[i];
    }
    assert_true(fabs(sum / (double)count + .0002766) < 1e-6);
    assert_true(fabs(sqrt(square / (double)count) - .9999392) < 1e-6);
    free(x);
}

/* 17 values: torch redraws the last sixteen, and the stream has then given 33. */
static void torch_odd_counts_consume_sixteen_more(void **state)
{
    (void)state;
    struct lt_torch_rng odd, plain;
    float x[17];
    lt_torch_seed(&odd, 7);
    lt_torch_seed(&plain, 7);
    lt_torch_randn(&odd, x, 17);
    for (int i = 0; i < 33; i++)
        lt_torch_u32(&plain);
    assert_int_equal(lt_torch_u32(&odd), lt_torch_u32(&plain));
}

static void torch_permutations(void **state)
{
    (void)state;
    static const struct {
        uint64_t seed;
        uint32_t count, want[17];
    } cases[] = {
        {42, 17, {13, 4, 3, 15, 8, 16, 9, 11, 12, 10, 6, 2, 1, 7, 14, 0, 5}},
        {7, 12, {3, 4, 0, 5, 7, 9, 11, 6, 8, 1, 10, 2}},
        {0, 5, {4, 0, 1, 3, 2}},
    };
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        struct lt_torch_rng rng;
        uint32_t got[17];
        lt_torch_seed(&rng, cases[i].seed);
        lt_torch_randperm(&rng, got, cases[i].count);
        assert_memory_equal(got, cases[i].want, cases[i].count * sizeof *got);
    }
}

/* Known answers of Philox4x32-10, from the Random123 distribution's kat_vectors. */
static void philox_known_answers(void **state)
{
    (void)state;
    uint32_t got[4];
    const struct lt_philox zero = {{0, 0}, {0, 0, 0}};
    lt_philox_u32(&zero, 0, got, 4);
    assert_memory_equal(got, ((uint32_t[]){0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}), 16);
    const struct lt_philox ones = {{0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff, 0xffffffff}};
    lt_philox_u32(&ones, 0xffffffffull * 4, got, 4);
    assert_memory_equal(got, ((uint32_t[]){0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}), 16);
    const struct lt_philox pi = {{0xa4093822, 0x299f31d0}, {0x85a308d3, 0x13198a2e, 0x03707344}};
    lt_philox_u32(&pi, 0x243f6a88ull * 4, got, 4);
    assert_memory_equal(got, ((uint32_t[]){0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}), 16);
}

static void philox_elements_do_not_depend_on_the_cut(void **state)
{
    (void)state;
    const struct lt_philox stream = lt_philox_stream(99, LT_STREAM_TEST, 3, 4);
    float whole[1000], part[1000];
    lt_philox_normal(&stream, 0, whole, 1000);
    for (size_t first = 0, size = 1; first < 1000; first += size, size = size % 13 + 1)
        lt_philox_normal(&stream, first, part + first, size < 1000 - first ? size : 1000 - first);
    assert_memory_equal(whole, part, sizeof whole);
    double sum = 0, square = 0;
    for (int i = 0; i < 1000; i++) {
        sum += whole[i];
        square += (double)whole[i] * whole[i];
    }
    assert_true(fabs(sum / 1000) < 0.1 &&
                fabs(square / 1000 - 1) < 0.15); /* three sigma of 1,000 draws */
}

static void fixed_functions_are_close_to_libm(void **state)
{
    (void)state;
    for (int i = 1; i <= 1 << 16; i++) {
        const float x = (float)i / (1 << 16);
        float s, c;
        lt_fixed_sincos_turns(x, &s, &c);
        assert_true(fabs(s - sin(6.283185307179586 * x)) < 1e-7);
        assert_true(fabs(c - cos(6.283185307179586 * x)) < 1e-7);
        assert_true(fabs(lt_fixed_log(x) - log(x)) <= 1e-7 * (1 + fabs(log(x))));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(torch_words_and_normals_of_seed_42),
        cmocka_unit_test(torch_normals_of_a_whole_latent),
        cmocka_unit_test(torch_odd_counts_consume_sixteen_more),
        cmocka_unit_test(torch_permutations),
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(philox_elements_do_not_depend_on_the_cut),
        cmocka_unit_test(fixed_functions_are_close_to_libm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
