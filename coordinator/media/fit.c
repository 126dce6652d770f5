#include "coordinator/media/fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* -- sizes ------------------------------------------------------------------------------------- */

static uint32_t at_least(double value, uint32_t least)
{
    return value >= least ? (uint32_t)value : least;
}

struct frame_size size_image_to_video(struct frame_size image, uint32_t area)
{
    const double aspect = (double)image.height / image.width;
    const double h = floor(floor(sqrt(area * aspect) / 8) / 2) * 2;
    const double w = floor(floor(sqrt(area / aspect) / 8) / 2) * 2;
    return (struct frame_size){8 * at_least(w, 2), 8 * at_least(h, 2)};
}

struct frame_size size_best_output(struct frame_size image, uint32_t area, uint32_t unit)
{
    const double ratio = (double)image.width / image.height;
    const double ow = sqrt(area * ratio), oh = area / ow;
    const double w1 = fmax(floor(ow / unit), 1) * unit;
    const double h1 = fmax(floor(area / w1 / unit), 1) * unit;
    const double h2 = fmax(floor(oh / unit), 1) * unit;
    const double w2 = fmax(floor(area / h2 / unit), 1) * unit;
    const double off1 = fmax(ratio / (w1 / h1), w1 / h1 / ratio);
    const double off2 = fmax(ratio / (w2 / h2), w2 / h2 / ratio);
    return off1 < off2 ? (struct frame_size){(uint32_t)w1, (uint32_t)h1}
                       : (struct frame_size){(uint32_t)w2, (uint32_t)h2};
}

struct frame_size size_by_area(struct frame_size image, uint32_t area)
{
    const double ratio = (double)image.width / image.height;
    const uint32_t highest = ((uint32_t)sqrt(area / ratio) + 15) / 16 * 16;
    struct frame_size best = {0};
    double best_area = 0, best_off = 0;
    for (uint32_t h = 16; h <= highest; h += 16)
        for (int up = 0; up < 2; up++) {
            const double ideal = h * ratio;
            const double w = 64 * floor((up ? ideal + 63 : ideal) / 64);
            const double off = fabs(w / h - ratio);
            if (w < 64 || w * h > area ||
                !(w * h > best_area || (w * h == best_area && off < best_off)))
                continue;
            best = (struct frame_size){(uint32_t)w, h};
            best_area = w * h;
            best_off = off;
        }
    if (best.width ==
        0) { /* a very small area or a very long picture: the plain rule, in sixteens */
        const double h = sqrt(area / ratio), w = area / h;
        best = (struct frame_size){16 * at_least(w / 16, 1), 16 * at_least(h / 16, 1)};
    }
    return best;
}

struct bucket {
    double ratio; /* height / width, as the original's table is keyed */
    struct frame_size size;
};

static const struct bucket bucket_480[] = {
    {0.26, {1216, 320}}, {0.38, {1024, 384}}, {0.50, {896, 448}}, {0.67, {768, 512}},
    {0.82, {704, 576}},  {1.00, {640, 640}},  {1.22, {576, 704}}, {1.50, {512, 768}},
    {1.86, {448, 832}},  {2.00, {448, 896}},  {2.50, {384, 960}}, {2.83, {384, 1088}},
    {3.60, {320, 1152}}, {3.80, {320, 1216}}, {4.00, {320, 1280}}};
static const struct bucket bucket_720[] = {
    {0.22, {2048, 448}}, {0.29, {1792, 512}}, {0.36, {1600, 576}}, {0.45, {1408, 640}},
    {0.55, {1280, 704}}, {0.63, {1216, 768}}, {0.76, {1088, 832}}, {0.88, {1024, 896}},
    {1.00, {960, 960}},  {1.14, {896, 1024}}, {1.31, {832, 1088}}, {1.50, {768, 1152}},
    {1.58, {768, 1216}}, {1.82, {704, 1280}}, {1.91, {704, 1344}}, {2.20, {640, 1408}},
    {2.30, {640, 1472}}, {2.67, {576, 1536}}, {2.89, {576, 1664}}, {3.62, {512, 1856}},
    {3.75, {512, 1920}}};

struct frame_size size_talk_bucket(struct frame_size image, bool large)
{
    const struct bucket *const table = large ? bucket_720 : bucket_480;
    const size_t count = large ? LT_COUNT(bucket_720) : LT_COUNT(bucket_480);
    const double ratio = (double)image.height / image.width;
    size_t best = 0;
    for (size_t i = 1; i < count; i++)
        if (fabs(table[i].ratio - ratio) < fabs(table[best].ratio - ratio))
            best = i;
    return table[best].size;
}

/* -- pictures ---------------------------------------------------------------------------------- */

static size_t frame_bytes(struct frame_size size)
{
    return (size_t)3 * size.width * size.height;
}

static lt_status resize_new(enum lt_resize_u8 kernel, const uint8_t *in, struct frame_size from,
                            struct frame_size to, uint8_t **out, struct lt_error *error)
{
    *out = malloc(frame_bytes(to));
    if (!*out)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a picture of %ux%u", to.width,
                       to.height);
    return lt_resize_u8(kernel, in, from.width, from.height, 3, *out, to.width, to.height, error);
}

enum lt_resize_u8 letterbox_kernel(struct frame_size from, struct frame_size to)
{
    return (uint64_t)to.width * to.height < (uint64_t)from.width * from.height
               ? LT_RESIZE_CV_AREA
               : LT_RESIZE_CV_LINEAR;
}

lt_status fit_letterbox(enum lt_resize_u8 kernel, const uint8_t *in, struct frame_size from,
                        uint8_t *out, struct frame_size to, struct lt_error *error)
{
    struct frame_size inner = to;
    uint8_t *picture = NULL;
    if ((double)from.height / from.width > (double)to.height / to.width)
        inner.width = at_least((double)to.height / from.height * from.width, 1);
    else
        inner.height = at_least((double)to.width / from.width * from.height, 1);
    if (kernel == LT_RESIZE_CV_AREA && (inner.width > from.width || inner.height > from.height))
        kernel = LT_RESIZE_CV_LINEAR; /* smaller in area, yet longer one way: no box to average */
    const lt_status status = resize_new(kernel, in, from, inner, &picture, error);
    if (status == LT_OK) {
        const size_t left = (to.width - inner.width) / 2, top = (to.height - inner.height) / 2;
        memset(out, 0, frame_bytes(to));
        for (size_t y = 0; y < inner.height; y++)
            memcpy(out + 3 * ((top + y) * to.width + left), picture + 3 * y * inner.width,
                   (size_t)3 * inner.width);
    }
    free(picture);
    return status;
}

static void cut(const uint8_t *in, struct frame_size from, uint32_t left, uint32_t top,
                uint8_t *out, struct frame_size to)
{
    for (size_t y = 0; y < to.height; y++)
        memcpy(out + 3 * y * to.width, in + 3 * ((top + y) * from.width + left),
               (size_t)3 * to.width);
}

lt_status fit_cover(enum fit_cover rule, const uint8_t *in, struct frame_size from, uint8_t *out,
                    struct frame_size to, struct lt_error *error)
{
    const double scale = fmax((double)to.height / from.height, (double)to.width / from.width);
    const double w = scale * from.width, h = scale * from.height;
    const bool talk = rule == FIT_TALK;
    struct frame_size whole = {at_least(talk ? ceil(w) : rint(w), to.width),
                               at_least(talk ? ceil(h) : rint(h), to.height)};
    uint8_t *picture = NULL;
    const lt_status status = resize_new(talk ? LT_RESIZE_PIL_BILINEAR : LT_RESIZE_PIL_LANCZOS, in,
                                        from, whole, &picture, error);
    const uint32_t wide = whole.width - to.width, high = whole.height - to.height;
    if (status == LT_OK)
        cut(picture, whole, talk ? (uint32_t)rint(wide / 2.0) : wide / 2,
            talk ? (uint32_t)rint(high / 2.0) : high / 2, out, to);
    free(picture);
    return status;
}

static int32_t clip(int32_t value, uint32_t most)
{
    return value < 0 ? 0 : value > (int32_t)most ? (int32_t)most : value;
}

lt_status fit_crop(const uint8_t *in, struct frame_size from, struct frame_box box, uint8_t *out,
                   struct frame_size to, struct lt_error *error)
{
    const int32_t x0 = clip(box.x0, from.width), x1 = clip(box.x1, from.width);
    const int32_t y0 = clip(box.y0, from.height), y1 = clip(box.y1, from.height);
    if (x1 <= x0 || y1 <= y0)
        return lt_fail(error, LT_BAD_INPUT, "a crop of [%d, %d) x [%d, %d) is outside of %ux%u",
                       box.x0, box.x1, box.y0, box.y1, from.width, from.height);
    const struct frame_size inner = {(uint32_t)(x1 - x0), (uint32_t)(y1 - y0)};
    uint8_t *const picture = malloc(frame_bytes(inner));
    if (!picture)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a crop of %ux%u", inner.width,
                       inner.height);
    cut(in, from, (uint32_t)x0, (uint32_t)y0, picture, inner);
    const lt_status status = lt_resize_u8(LT_RESIZE_CV_LINEAR, picture, inner.width, inner.height,
                                          3, out, to.width, to.height, error);
    free(picture);
    return status;
}

void frame_to_pixels(const uint8_t *rgb, struct frame_size size, float *out, size_t plane_stride)
{
    const size_t count = (size_t)size.width * size.height;
    for (size_t i = 0; i < count; i++)
        for (size_t c = 0; c < 3; c++)
            out[c * plane_stride + i] = (float)rgb[3 * i + c] / 127.5f - 1;
}
