/* The cheapest preview: one colour for each latent pixel, a linear map of its channels
 * (encoders.md 4.1). No model is needed, so the coordinator shows a step's latents by itself. */
#pragma once

#include "common/status.h"

/* Are there factors for latents of so many channels? For 16 (Wan 2.1, and 2.2 A14B) and 48
 * (TI2V-5B). */
bool preview_is_known(int64_t channels);

/* rgb[i] of pixel i = floor(255 · clamp((Σ_c latents[c · stride + i] · factor[c] + bias + 1) / 2)).
 * latents: f32 [channels, …], `stride` values from one channel to the next, normalised as the
 * transformer sees them, best those of the clean estimate x0. rgb: [count, 3]. A channel count that
 * is not known: LT_UNSUPPORTED. */
lt_status preview_rgb(const float *latents, int64_t channels, int64_t stride, int64_t count,
                      uint8_t *rgb, struct lt_error *error);
