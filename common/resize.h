/* Resampling exactly as the original pipelines do it (encoders.md 0.1): each kernel is that of the
 * library the original calls, to the last bit for 8-bit pictures, because conditioning that is a
 * pixel off is another conditioning. Output never aliases input. The only failure is
 * LT_NO_MEMORY. */
#pragma once

#include "common/status.h"

/* For [H, W, C] u8. */
enum lt_resize_u8 {
    LT_RESIZE_PIL_BILINEAR, /* Pillow: antialiased when shrinking, 8-bit rounding after each pass */
    LT_RESIZE_PIL_BICUBIC,  /* … Keys a = -0.5 */
    LT_RESIZE_PIL_LANCZOS,  /* … a = 3 */
    LT_RESIZE_CV_LINEAR, /* OpenCV INTER_LINEAR: half-pixel centres, no antialias, 11-bit weights */
    LT_RESIZE_CV_AREA,   /* OpenCV INTER_AREA: box average; only for shrinking both ways */
};
lt_status lt_resize_u8(enum lt_resize_u8 kernel, const uint8_t *in, uint32_t in_width,
                       uint32_t in_height, uint32_t channels, uint8_t *out, uint32_t out_width,
                       uint32_t out_height, struct lt_error *error);

/* For [C, H, W] f32: torch's interpolate, align_corners=False. */
enum lt_resize_f32 {
    LT_RESIZE_NEAREST,           /* floor(dst · in/out) */
    LT_RESIZE_NEAREST_EXACT,     /* floor((dst + 0.5) · in/out) */
    LT_RESIZE_BILINEAR,          /* no antialias */
    LT_RESIZE_BICUBIC,           /* Keys a = -0.75, 4 × 4 taps, no antialias; may overshoot */
    LT_RESIZE_BICUBIC_ANTIALIAS, /* Keys a = -0.5, as Pillow's but not rounded */
    LT_RESIZE_AREA,              /* adaptive average */
};
lt_status lt_resize_f32(enum lt_resize_f32 kernel, const float *in, uint32_t in_width,
                        uint32_t in_height, uint32_t channels, float *out, uint32_t out_width,
                        uint32_t out_height, struct lt_error *error);
