#include "coordinator/media/mask.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static size_t plane_of(struct frame_size size)
{
    return (size_t)size.width * size.height;
}

static void fill(float *out, size_t count, float value)
{
    for (size_t i = 0; i < count; i++)
        out[i] = value;
}

void mask_pack(const float *mask, uint32_t frame_count, size_t plane, float *out)
{
    lt_assert(frame_count % 4 == 1);
    const uint32_t latents = (frame_count - 1) / 4 + 1;
    for (uint32_t j = 0; j < 4; j++)
        for (uint32_t t = 0; t < latents; t++) {
            const uint32_t frame = 4 * t + j < 3 ? 0 : 4 * t + j - 3;
            memcpy(out + ((size_t)j * latents + t) * plane, mask + frame * plane,
                   plane * sizeof *out);
        }
}

/* -- replacement ------------------------------------------------------------------------------- */

lt_status mask_background(const uint8_t *rgb, struct frame_size size, uint8_t threshold,
                          struct frame_size grid, float *out, struct lt_error *error)
{
    float *const whole = malloc(plane_of(size) * sizeof *whole);
    if (!whole)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a mask of %ux%u", size.width,
                       size.height);
    for (size_t i = 0; i < plane_of(size); i++)
        whole[i] = rgb[3 * i] < threshold;
    const lt_status status = lt_resize_f32(LT_RESIZE_NEAREST, whole, size.width, size.height, 1,
                                           out, grid.width, grid.height, error);
    free(whole);
    return status;
}

void mask_black_out(uint8_t *rgb, const uint8_t *mask_rgb, struct frame_size size,
                    uint8_t threshold)
{
    for (size_t i = 0; i < plane_of(size); i++)
        if (mask_rgb[3 * i] >= threshold)
            memset(rgb + 3 * i, 0, 3);
}

/* -- speakers ---------------------------------------------------------------------------------- */

static void fill_box(float *plane, struct frame_size size, struct frame_box box)
{
    for (int32_t y = box.y0; y < box.y1; y++)
        fill(plane + (size_t)y * size.width + box.x0, (size_t)(box.x1 - box.x0), 1);
}

lt_status speaker_masks_boxes(struct frame_size size, const struct frame_box *box, uint32_t count,
                              float *out, struct lt_error *error)
{
    const size_t plane = plane_of(size);
    const int32_t width = (int32_t)size.width, height = (int32_t)size.height;
    fill(out, count * plane, 0);
    for (uint32_t i = 0; i < count; i++) {
        struct frame_box b = box[i];
        b.x0 = b.x0 < 0 ? 0 : b.x0;
        b.y0 = b.y0 < 0 ? 0 : b.y0;
        b.x1 = b.x1 > width ? width : b.x1;
        b.y1 = b.y1 > height ? height : b.y1;
        if (b.x1 <= b.x0 || b.y1 <= b.y0)
            return lt_fail(error, LT_BAD_INPUT,
                           "speaker %u: nothing of the box [%d, %d) x [%d, %d) is inside %dx%d", i,
                           box[i].x0, box[i].x1, box[i].y0, box[i].y1, width, height);
        fill_box(out + i * plane, size, b);
    }
    for (size_t i = 0; i < plane; i++) {
        bool taken = false;
        for (uint32_t k = 0; k < count; k++)
            taken = taken || out[k * plane + i] > 0;
        out[count * plane + i] = !taken;
    }
    return LT_OK;
}

void speaker_masks_halves(struct frame_size size, double margin, float *out)
{
    const double half = size.width / 2, from = half * margin, to = half * (1 - margin);
    const int32_t top = (int32_t)(size.height * margin);
    const int32_t bottom = (int32_t)(size.height * (1 - margin));
    const size_t plane = plane_of(size);
    fill(out, 2 * plane, 0);
    fill_box(out, size, (struct frame_box){(int32_t)from, top, (int32_t)to, bottom});
    fill_box(out + plane, size,
             (struct frame_box){(int32_t)(from + half), top, (int32_t)(to + half), bottom});
    for (size_t i = 0; i < plane; i++)
        out[2 * plane + i] = out[i] + out[plane + i] == 0;
}

void speaker_masks_one(struct frame_size size, float *out)
{
    fill(out, 3 * plane_of(size), 1);
}

lt_status speaker_masks_fit(const float *masks, uint32_t count, struct frame_size from,
                            struct frame_size picture, struct frame_size grid, float *out,
                            struct lt_error *error)
{
    const double scale =
        fmax((double)picture.height / from.height, (double)picture.width / from.width);
    const struct frame_size whole = {(uint32_t)fmax(ceil(scale * from.width), picture.width),
                                     (uint32_t)fmax(ceil(scale * from.height), picture.height)};
    const size_t left = (size_t)rint((whole.width - picture.width) / 2.0);
    const size_t top = (size_t)rint((whole.height - picture.height) / 2.0);
    float *const cover = malloc(plane_of(whole) * sizeof *cover);
    float *const cut = malloc(plane_of(picture) * sizeof *cut);
    lt_status status = cover && cut ? LT_OK
                                    : lt_fail(error, LT_NO_MEMORY, "no memory for masks of %ux%u",
                                              whole.width, whole.height);
    for (uint32_t i = 0; i < count && status == LT_OK; i++) {
        status = lt_resize_f32(LT_RESIZE_NEAREST, masks + i * plane_of(from), from.width,
                               from.height, 1, cover, whole.width, whole.height, error);
        for (size_t y = 0; y < picture.height && status == LT_OK; y++)
            memcpy(cut + y * picture.width, cover + (top + y) * whole.width + left,
                   picture.width * sizeof *cut);
        float *const plane = out + i * plane_of(grid);
        if (status == LT_OK)
            status = lt_resize_f32(LT_RESIZE_NEAREST, cut, picture.width, picture.height, 1, plane,
                                   grid.width, grid.height, error);
        for (size_t k = 0; k < plane_of(grid) && status == LT_OK; k++)
            plane[k] = plane[k] > 0;
    }
    free(cover);
    free(cut);
    return status;
}
