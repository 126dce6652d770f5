/* A picture into the size a model takes: the size rules of the originals and the three ways to get
 * there (stretch is lt_resize_u8). Pictures are [height, width, 3] u8 RGB. */
#pragma once

#include "common/resize.h"

struct frame_size {
    uint32_t width, height;
};

/* -- sizes ------------------------------------------------------------------------------------- */

/* Image to video, Wan 2.1 14B and 2.2 A14B (encoders.md 5.2): about `area` pixels (480·832,
 * 720·1280) at the image's aspect, both sides multiples of 16. */
struct frame_size size_image_to_video(struct frame_size image, uint32_t area);
/* Wan 2.2 TI2V-5B (5.3 best_output_size): multiples of `unit` (32) near `area` (704·1280). */
struct frame_size size_best_output(struct frame_size image, uint32_t area, uint32_t unit);
/* Animate (10.1 resize_by_area): the largest of at most `area` (720·1280) pixels, height a multiple
 * of 16, width of 64, near the image's aspect. */
struct frame_size size_by_area(struct frame_size image, uint32_t area);
/* MultiTalk and InfiniteTalk (10.3): the bucket of the 480 or (`large`) the 720 class that is
 * nearest in height / width. */
struct frame_size size_talk_bucket(struct frame_size image, bool large);

/* -- pictures ---------------------------------------------------------------------------------- */

/* Scaled to fit inside, black around (10.1 padding_resize). `kernel` is LT_RESIZE_CV_LINEAR inside
 * the generator (10.2); letterbox_kernel is what the offline step takes. */
lt_status fit_letterbox(enum lt_resize_u8 kernel, const uint8_t *in, struct frame_size from,
                        uint8_t *out, struct frame_size to, struct lt_error *error);
/* INTER_AREA when the canvas is smaller than the picture, else INTER_LINEAR. */
enum lt_resize_u8 letterbox_kernel(struct frame_size from, struct frame_size to);

/* Scaled to cover, the middle cut out. FIT_TALK: Pillow bilinear to sizes rounded up, cut as
 * torchvision's center_crop (10.3). FIT_IMAGE: Pillow Lanczos to rounded sizes, cut at the lower
 * middle (5.3). */
enum fit_cover { FIT_TALK, FIT_IMAGE };
lt_status fit_cover(enum fit_cover rule, const uint8_t *in, struct frame_size from, uint8_t *out,
                    struct frame_size to, struct lt_error *error);

/* Columns and rows [x0, x1) × [y0, y1), clipped to the picture and stretched by INTER_LINEAR: a
 * face crop (10.1). LT_BAD_INPUT when nothing is left of the box. */
struct frame_box {
    int32_t x0, y0, x1, y1;
};
lt_status fit_crop(const uint8_t *in, struct frame_size from, struct frame_box box, uint8_t *out,
                   struct frame_size to, struct lt_error *error);

/* [H, W, 3] u8 to three f32 planes `plane_stride` values apart, v / 127.5 - 1: frame f of pixels
 * [3, F, H, W] is at out + f·H·W with a stride of F·H·W. */
void frame_to_pixels(const uint8_t *rgb, struct frame_size size, float *out, size_t plane_stride);
