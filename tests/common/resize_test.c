/* If a picture were resized by another kernel than the original's, every conditioning made from it
 * would be a little off, and nothing would ever say so. */
#include "tests/test.h"

#include "common/color.h"
#include "common/safetensors.h"
#include "common/resize.h"
#include "tests/coordinator/picture.h"

#include <math.h>

static struct lt_error error;
static struct lt_safetensors *goldens;

static int open_goldens(void **state)
{
    (void)state;
    return lt_safetensors_open(LT_SOURCE_DIR "/tests/golden/media/media.safetensors", &goldens,
                               &error);
}

static int close_goldens(void **state)
{
    (void)state;
    lt_safetensors_close(&goldens);
    return 0;
}

/* A golden's bytes, malloc'ed; NULL when there is none of that name. */
static void *golden(const char *name, const struct lt_safetensor **tensor_out)
{
    const struct lt_safetensor *const tensor = lt_safetensors_find(goldens, name);
    if (!tensor)
        return NULL;
    void *const data = malloc(tensor->bytes);
    assert_ok(lt_safetensors_read(goldens, tensor, data, &error));
    *tensor_out = tensor;
    return data;
}

static const struct {
    int width, height, out_width, out_height;
} sizes[] = {{37, 29, 16, 12}, {37, 29, 61, 50}, {64, 48, 32, 24}, {64, 48, 16, 16},
             {50, 40, 33, 40}, {23, 17, 23, 40}, {40, 30, 13, 29}, {8, 8, 1, 1},
             {1, 1, 5, 7},     {90, 60, 30, 20}};

static void bytes_are_those_of_pillow_and_opencv(void **state)
{
    (void)state;
    static const char *const kernels[] = {"pil_bilinear", "pil_bicubic", "pil_lanczos", "cv_linear",
                                          "cv_area"};
    int compared = 0;
    for (size_t k = 0; k < LT_COUNT(kernels); k++)
        for (size_t i = 0; i < LT_COUNT(sizes); i++) {
            const int w = sizes[i].out_width, h = sizes[i].out_height;
            const size_t count = (size_t)3 * w * h;
            const struct lt_safetensor *tensor;
            char name[64];
            snprintf(name, sizeof name, "%s.%dx%d.%dx%d", kernels[k], sizes[i].width,
                     sizes[i].height, w, h);
            uint8_t *const want = golden(name, &tensor);
            if (!want)
                continue; /* area is for shrinking */
            assert_int_equal(tensor->bytes, count);
            uint8_t *const in = picture_fill(sizes[i].width, sizes[i].height, 1);
            uint8_t *const out = malloc(count);
            assert_ok(lt_resize_u8((enum lt_resize_u8)k, in, sizes[i].width, sizes[i].height, 3,
                                   out, w, h, &error));
            int worst = 0, differ = 0;
            for (size_t j = 0; j < count; j++) {
                const int d = abs(out[j] - want[j]);
                worst = d > worst ? d : worst;
                differ += d > 0;
            }
            if (worst > 0)
                fail_msg("%s: %d of %zu bytes differ, by %d at most", name, differ, count, worst);
            compared++;
            free(in);
            free(out);
            free(want);
        }
    assert_int_equal(compared, 47);
}

/* torch sums in f32; values are from 0 to 1. */
static void values_are_those_of_torch(void **state)
{
    (void)state;
    static const char *const kernels[] = {"nearest", "nearest_exact",     "bilinear",
                                          "bicubic", "bicubic_antialias", "area"};
    for (size_t k = 0; k < LT_COUNT(kernels); k++)
        for (size_t i = 0; i < LT_COUNT(sizes); i++) {
            const int width = sizes[i].width, height = sizes[i].height;
            const int w = sizes[i].out_width, h = sizes[i].out_height;
            const size_t pixels = (size_t)width * height, count = (size_t)3 * w * h;
            const struct lt_safetensor *tensor;
            char name[64];
            snprintf(name, sizeof name, "%s.%dx%d.%dx%d", kernels[k], width, height, w, h);
            float *const want = golden(name, &tensor);
            assert_non_null(want);
            assert_int_equal(tensor->bytes, count * sizeof(float));
            uint8_t *const rgb = picture_fill(width, height, 1);
            float *const in = malloc(3 * pixels * sizeof *in);
            float *const out = malloc(count * sizeof *out);
            for (size_t j = 0; j < 3 * pixels; j++)
                in[j % 3 * pixels + j / 3] = (float)rgb[j] / 255;
            assert_ok(
                lt_resize_f32((enum lt_resize_f32)k, in, width, height, 3, out, w, h, &error));
            double worst = 0;
            for (size_t j = 0; j < count; j++)
                worst = fmax(worst, fabs((double)out[j] - (double)want[j]));
            if (worst > 2e-6)
                fail_msg("%s: off by %g", name, worst);
            free(rgb);
            free(in);
            free(out);
            free(want);
        }
}

static float *unit_picture(int width, int height, int seed, bool swap)
{
    uint8_t *const rgb = picture_fill(width, height, seed);
    float *const out = malloc((size_t)3 * width * height * sizeof *out);
    for (int i = 0; i < 3 * width * height; i++)
        out[i] = (float)rgb[swap ? i / 3 * 3 + 2 - i % 3 : i] / 255;
    free(rgb);
    return out;
}

/* scikit-image rounds its inverse matrix otherwise and color-matcher's eigenvectors are LAPACK's:
 * 1e-5 is far below a step of 8 bits (4e-3). */
static void colours_are_those_of_the_originals(void **state)
{
    (void)state;
    static const int seeds[][2] = {{2, 6}, {5, 1}, {3, 3}};
    for (int method = LT_COLOR_REINHARD; method <= LT_COLOR_MKL; method++)
        for (int i = 0; i < 3; i++) {
            const struct lt_safetensor *tensor;
            char name[32];
            snprintf(name, sizeof name, "%s.%d", lt_color_method_name(method), i);
            float *const want = golden(name, &tensor);
            assert_non_null(want);
            float *const picture = unit_picture(24, 20, seeds[i][0], false);
            float *const reference = unit_picture(31, 17, seeds[i][1], true);
            const struct lt_color_stats stats = lt_color_measure(method, reference, 31 * 17, 3, 1);
            float planar[3 * 480], half[3 * 480];
            for (int j = 0; j < 3 * 480; j++)
                planar[j % 3 * 480 + j / 3] = half[j] = picture[j];
            lt_color_match(&stats, 1, picture, 480, 3, 1);
            lt_color_match(&stats, 1, planar, 480, 1, 480);
            double worst = 0, worst_half = 0;
            for (int j = 0; j < 3 * 480; j++) {
                const double clipped = fmin(fmax((double)want[j], 0), 1);
                worst = fmax(worst, fabs((double)picture[j] - clipped));
                assert_true(planar[j % 3 * 480 + j / 3] == picture[j]);
                const double mixed = (double)half[j] * 0.75 + clipped * 0.25;
                half[j] = (float)mixed;
            }
            if (worst > 1e-5)
                fail_msg("%s: off by %g", name, worst);
            float *const again = unit_picture(24, 20, seeds[i][0], false);
            lt_color_match(&stats, 0.25, again, 480, 3, 1);
            for (int j = 0; j < 3 * 480; j++)
                worst_half = fmax(worst_half, fabs((double)again[j] - (double)half[j]));
            assert_true(worst_half < 1e-5);
            free(again);
            free(picture);
            free(reference);
            free(want);
        }
}

static void flat_pictures_and_no_method(void **state)
{
    (void)state;
    float *const reference = unit_picture(31, 17, 4, false);
    for (int method = LT_COLOR_NONE; method <= LT_COLOR_MKL; method++) {
        const struct lt_color_stats stats = lt_color_measure(method, reference, 31 * 17, 3, 1);
        float flat[30], white[3] = {1, 1, 1};
        for (int i = 0; i < 30; i++)
            flat[i] = 0.5f;
        lt_color_match(&stats, 1, flat, 10, 3, 1);
        lt_color_match(&stats, 1, white, 1, 3, 1);
        for (int i = 0; i < 30; i++) {
            assert_true(isfinite(flat[i]));
            assert_true(flat[i] == flat[i % 3]);
            if (method == LT_COLOR_NONE)
                assert_true(flat[i] == 0.5f);
            if (method == LT_COLOR_MKL)
                assert_true(fabs((double)flat[i] - stats.mean[i % 3]) < 1e-6);
        }
        enum lt_color_method found;
        assert_true(lt_color_method_by_name(lt_color_method_name(method), &found));
        assert_int_equal(found, method);
        assert_false(lt_color_method_by_name("hm", &found));
    }
    free(reference);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_those_of_pillow_and_opencv),
        cmocka_unit_test(values_are_those_of_torch),
        cmocka_unit_test(colours_are_those_of_the_originals),
        cmocka_unit_test(flat_pictures_and_no_method),
    };
    return cmocka_run_group_tests(tests, open_goldens, close_goldens);
}
