/* Blending: where windows overlap, each latent frame of the prediction is the weighted mean of what
 * the windows say (pipeline.md 1.6). Sums run in list order in f32, so the bytes do not depend on
 * the order of arrival. */
#pragma once

#include "coordinator/window.h"

/* The weights of one window, [count]. */
void blend_weights(const struct window_params *params, const uint32_t *frame, uint32_t count,
                   float *weight_out);

/* One window's prediction of one latent frame: C planes of h*w values, `channel_stride` values
 * apart (a prediction is [C, F, h, w], so slot k starts at k*h*w and the stride is F*h*w). */
struct blend_source {
    const float *first;
    size_t channel_stride;
    float weight;
};

/* frame_out [C, h*w] = sum(weight * prediction) / sum(weight), in the order given. LT_BAD_INPUT
 * names the source and the element when a prediction is not finite: a weight of 0 would turn it
 * into NaN, not hide it. */
lt_status blend_frame(const struct blend_source *source, size_t source_count, size_t channel_count,
                      size_t plane_values, float *frame_out, struct lt_error *error);

/* All finite? Otherwise the index of the first value that is not. */
bool blend_is_finite(const float *value, size_t count, size_t *index_out);
