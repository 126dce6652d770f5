/* If the linear preview were wrong, a user would judge a render by false colours. Golden:
 * tests/golden/preview, from torch. */
#include "tests/test.h"

#include "common/safetensors.h"
#include "coordinator/preview.h"

#include <math.h>
#include <stdlib.h>

static void read(struct lt_safetensors *file, const char *name, const char *what,
                 struct lt_view *view)
{
    char full[32];
    struct lt_error error;
    snprintf(full, sizeof full, "%s.%s", name, what);
    assert_ok(lt_safetensors_read_f32(file, full, view, &error));
}

static void colours_are_those_of_torch(void **state)
{
    static const char *const names[] = {"z16", "z48"};
    struct lt_safetensors *file;
    struct lt_error error;
    (void)state;
    assert_ok(lt_safetensors_open(LT_SOURCE_DIR "/tests/golden/preview/preview.safetensors", &file,
                                  &error));
    for (size_t n = 0; n < LT_COUNT(names); n++) {
        struct lt_view latents, shown;
        read(file, names[n], "latents", &latents);
        read(file, names[n], "shown", &shown);
        const int64_t pixels = latents.dim[1] * latents.dim[2];
        uint8_t *rgb = malloc((size_t)(3 * pixels));
        assert_non_null(rgb);
        assert_true(preview_is_known(latents.dim[0]));
        assert_ok(preview_rgb(latents.data, latents.dim[0], pixels, pixels, rgb, &error));
        for (int64_t i = 0; i < 3 * pixels;
             i++) { /* the last bit of a sum may pass a whole number */
            const float want = ((const float *)shown.data)[i];
            if (!(rgb[i] <= want + 1e-3f && want - 1e-3f < rgb[i] + 1))
                fail_msg("%s value %d: %d, expected %g", names[n], (int)i, rgb[i], (double)want);
        }
        free(rgb);
        free(latents.data);
        free(shown.data);
    }
    lt_safetensors_close(&file);
}

static void extremes_stay_colours(void **state)
{
    float latents[16] = {0};
    uint8_t rgb[3] = {1, 2, 3};
    struct lt_error error;
    (void)state;
    latents[2] = 1e30f;
    assert_ok(preview_rgb(latents, 16, 1, 1, rgb, &error));
    assert_int_equal(rgb[0] & rgb[1] & rgb[2], 255);
    latents[2] = -1e30f;
    assert_ok(preview_rgb(latents, 16, 1, 1, rgb, &error));
    assert_int_equal(rgb[0] | rgb[1] | rgb[2], 0);
    latents[2] = NAN;
    assert_ok(preview_rgb(latents, 16, 1, 1, rgb, &error));
    assert_int_equal(rgb[0] | rgb[1] | rgb[2], 0);
}

static void unknown_latents_are_refused(void **state)
{
    const float latents[4] = {0};
    uint8_t rgb[3];
    struct lt_error error;
    (void)state;
    assert_false(preview_is_known(4));
    assert_int_equal(preview_rgb(latents, 4, 1, 1, rgb, &error), LT_UNSUPPORTED);
    assert_non_null(strstr(error.text, "4 channels"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(colours_are_those_of_torch),
        cmocka_unit_test(extremes_stay_colours),
        cmocka_unit_test(unknown_latents_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
