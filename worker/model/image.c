#include "worker/model/image.h"

#include "common/resize.h"

#include <math.h>
#include <stdlib.h>

enum { SIDE_MAX = 16384, ASPECT_MAX = 64 };

static const float means[3] = {0.48145466f, 0.4578275f, 0.40821073f};
static const float deviations[3] = {0.26862954f, 0.26130258f, 0.27577711f};

struct plan {
    enum lt_resize_f32 kernel;
    int64_t rows, columns, top, left; /* the resized picture, and where the encoder's begins */
};

static struct plan plan_for(enum image_preparation preparation, int64_t rows, int64_t columns,
                            int64_t size)
{
    struct plan plan = {preparation == IMAGE_PREPARE_WAN ? LT_RESIZE_BICUBIC
                                                         : LT_RESIZE_BICUBIC_ANTIALIAS,
                        size, size, 0, 0};
    if (preparation != IMAGE_PREPARE_COMFY_CENTER || (rows == size && columns == size))
        return plan;
    const double scale = (double)size / (double)(rows < columns ? rows : columns);
    plan.rows = (int64_t)rint(scale * (double)rows); /* Python rounds half to even */
    plan.columns = (int64_t)rint(scale * (double)columns);
    plan.top = (plan.rows - size) / 2;
    plan.left = (plan.columns - size) / 2;
    return plan;
}

static float finish(enum image_preparation preparation, float value, int channel)
{
    if (preparation == IMAGE_PREPARE_WAN)
        value = value * 0.5f + 0.5f;
    else
        value = rintf(fminf(fmaxf(255 * value, 0), 255)) / 255;
    return (value - means[channel]) / deviations[channel];
}

static lt_status check(const struct lt_view *pixels, struct lt_error *error)
{
    if (pixels->rank != 3 || pixels->dim[0] != 3 || pixels->dim[1] < 1 || pixels->dim[2] < 1 ||
        pixels->dim[1] > SIDE_MAX || pixels->dim[2] > SIDE_MAX)
        return lt_fail(error, LT_BAD_INPUT,
                       "pixels: expected [3, H, W] with sides of 1 to %d, found [%lld, %lld, %lld]",
                       SIDE_MAX, (long long)pixels->dim[0], (long long)pixels->dim[1],
                       (long long)pixels->dim[2]);
    if (pixels->dim[1] > ASPECT_MAX * pixels->dim[2] ||
        pixels->dim[2] > ASPECT_MAX * pixels->dim[1])
        return lt_fail(error, LT_BAD_INPUT,
                       "pixels: expected one side at most %d times the other, found %lld x %lld",
                       ASPECT_MAX, (long long)pixels->dim[1], (long long)pixels->dim[2]);
    const float *values = pixels->data;
    for (int64_t i = 0; i < lt_view_count(pixels); i++)
        if (!isfinite(values[i]))
            return lt_fail(error, LT_BAD_INPUT, "pixels: value %lld is not finite", (long long)i);
    return LT_OK;
}

/* The picture in the range it is resized in: Wan's is -1 to 1. */
static void copy_in(enum image_preparation preparation, const struct lt_view *pixels, float *to)
{
    const float *in = pixels->data;
    for (int64_t i = 0; i < lt_view_count(pixels); i++)
        to[i] = preparation == IMAGE_PREPARE_WAN ? 2 * in[i] - 1 : in[i];
}

static void cut_out(enum image_preparation preparation, const struct plan *plan,
                    const float *resized, struct lt_view *out)
{
    const int64_t size = out->dim[1];
    float *to = out->data;
    for (int c = 0; c < 3; c++, resized += plan->rows * plan->columns)
        for (int64_t y = 0; y < size; y++)
            for (int64_t x = 0; x < size; x++)
                *to++ = finish(preparation,
                               resized[(plan->top + y) * plan->columns + plan->left + x], c);
}

lt_status image_prepare(enum image_preparation preparation, const struct lt_view *pixels,
                        struct lt_view *out, struct lt_error *error)
{
    LT_TRY(check(pixels, error));
    lt_assert(out->rank == 3 && out->dim[0] == 3 && out->dim[1] == out->dim[2]);
    const int64_t rows = pixels->dim[1], columns = pixels->dim[2];
    const struct plan plan = plan_for(preparation, rows, columns, out->dim[1]);
    float *picture = malloc((size_t)(3 * rows * columns) * sizeof *picture);
    float *resized = malloc((size_t)(3 * plan.rows * plan.columns) * sizeof *resized);
    lt_status status = LT_NO_MEMORY;
    if (picture && resized) {
        copy_in(preparation, pixels, picture);
        status = lt_resize_f32(plan.kernel, picture, (uint32_t)columns, (uint32_t)rows, 3, resized,
                               (uint32_t)plan.columns, (uint32_t)plan.rows, error);
    } else {
        lt_fail(error, LT_NO_MEMORY, "no memory to resize a picture");
    }
    if (status == LT_OK)
        cut_out(preparation, &plan, resized, out);
    free(picture);
    free(resized);
    return status;
}
