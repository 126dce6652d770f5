/* If halves were combined wrongly, every guided picture would be too pale or burnt. */
#include "tests/test.h"

#include "worker/guidance.h"

#include <math.h>

static void plain_guidance_goes_past_the_first(void **state)
{
    (void)state;
    float with[] = {1, -2, 0.5f}, same[] = {1, -2, 0.5f};
    const float without[] = {0.5f, -1, 2};
    guidance_cfg(with, without, 3, 5);
    assert_true(with[0] == 3 && with[1] == -6 && with[2] == -5.5f);
    guidance_cfg(same, without, 3, 1);
    assert_true(same[0] == 1 && same[1] == -2 && same[2] == 0.5f);
}

/* α = (1·2 + 3·1) / (4 + 1) = 1: the plain guidance; with halves of one direction α takes out their
 * lengths, and what is left is `with` itself. */
static void zero_star_scales_the_other_half(void **state)
{
    (void)state;
    float with[] = {1, 3}, twin[] = {1, 3};
    const float without[] = {2, 1};
    guidance_zero_star(with, without, 2, 4);
    guidance_cfg(twin, without, 2, 4);
    assert_true(fabsf(with[0] - twin[0]) < 1e-5f && fabsf(with[1] - twin[1]) < 1e-5f);

    float long_one[] = {3, -6, 9};
    const float short_one[] = {1, -2, 3};
    guidance_zero_star(long_one, short_one, 3, 7);
    assert_true(fabsf(long_one[0] - 3) < 1e-5f && fabsf(long_one[1] + 6) < 1e-5f &&
                fabsf(long_one[2] - 9) < 1e-5f);

    float alone[] = {1, 2};
    const float nothing[] = {0, 0};
    guidance_zero_star(alone, nothing, 2, 3); /* α = 0/1e-8, not 0/0 */
    assert_true(alone[0] == 3 && alone[1] == 6);
}

/* pipeline.md 3.8: with both scales 1 nothing changes; the wrapper's text scale counts twice. */
static void speech_has_a_scale_of_its_own(void **state)
{
    (void)state;
    float same[] = {1, -2}, official[] = {1, -2}, wrapper[] = {1, -2};
    const float other[] = {0.5f, 1}, without[] = {0.25f, 2};
    guidance_audio(same, other, without, 2, 1, 1, false);
    assert_true(same[0] == 1 && same[1] == -2);
    guidance_audio(official, other, without, 2, 3, 4, false);
    assert_true(official[0] == 0.25f + 1.5f + 1 && official[1] == 2 - 9 - 4);
    guidance_audio(wrapper, other, without, 2, 3, 4, true);
    assert_true(wrapper[0] == 0.25f + 1.5f + 3 && wrapper[1] == 2 - 9 - 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_guidance_goes_past_the_first),
        cmocka_unit_test(zero_star_scales_the_other_half),
        cmocka_unit_test(speech_has_a_scale_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
