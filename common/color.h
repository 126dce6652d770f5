/* Colour transfer between pictures: what keeps a chain of clips from drifting (pipeline.md 2.3.11,
 * 2.4.8). Statistics are of the whole frame, each frame by itself, in f64. Here, because the
 * coordinator matches finished frames and a worker those it hands on. */
#pragma once

#include "common/status.h"

#include <stdbool.h>
#include <stddef.h>

enum lt_color_method {
    LT_COLOR_NONE,
    LT_COLOR_REINHARD, /* mean and deviation of each CIE Lab channel (D65), as MultiTalk's option */
    LT_COLOR_MKL,      /* the linear map of least motion between the two RGB Gaussians (Monge and
                          Kantorovich), as the package color-matcher's "mkl" */
};

/* "none", "reinhard", "mkl"; false: no such method. */
bool lt_color_method_by_name(const char *name, enum lt_color_method *method_out);
const char *lt_color_method_name(enum lt_color_method method);

/* Of one picture: mean and covariance, of Lab (variances only) or of RGB. */
struct lt_color_stats {
    enum lt_color_method method;
    double mean[3], covariance[3][3];
};

/* Values from 0 to 1 (others are allowed): value (i, c) of `count` pixels stands at
 * rgb[i · pixel_stride + c · channel_stride]: (3, 1) for [H, W, 3], (1, F·H·W) for a frame of
 * [3, F, H, W]. */
struct lt_color_stats lt_color_measure(enum lt_color_method method, const float *rgb, size_t count,
                                       size_t pixel_stride, size_t channel_stride);

/* rgb ← (1 - strength) · rgb + strength · (rgb with the reference's statistics), clamped to 0 … 1;
 * the strides as above. A flat picture becomes the reference's mean. LT_COLOR_NONE and strength 0
 * change nothing. */
void lt_color_match(const struct lt_color_stats *reference, double strength, float *rgb,
                    size_t count, size_t pixel_stride, size_t channel_stride);
