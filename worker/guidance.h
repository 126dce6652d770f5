/* How predictions of one slice become one (pipeline.md 3.8): pure functions over `count` values, in
 * place of the first prediction. Sums run over the slice, in f64 and in order, so the same inputs
 * give the same bits. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* with = without + scale · (with - without). */
void guidance_cfg(float *with, const float *without, int64_t count, double scale);

/* Talk, three predictions: with everything, with another text, and with neither that text's picture
 * nor the voice: without + text · (with - other) + audio · (other - without) (official), or
 * without + text · ((with - other) + audio · (other - without)) (`wrapper`). */
void guidance_audio(float *with, const float *other, const float *without, int64_t count,
                    double text, double audio, bool wrapper);

/* CFG-zero-star: the same around α · without, α = ⟨with, without⟩ / (‖without‖² + 1e-8). That the
 * first steps may have no velocity at all is the caller's: they need no prediction. */
void guidance_zero_star(float *with, const float *without, int64_t count, double scale);
