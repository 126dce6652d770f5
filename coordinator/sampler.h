/* Samplers, one latent frame at a time (pipeline.md 3.3 to 3.5). Every update is element-wise, so
 * frames may stand at different steps; what a multistep solver remembers lies beside the frame and
 * belongs to the caller. History runs on across the change of experts and begins anew with a job
 * (so with a slice of the steps).
 *
 * Scalars are computed once in f64, elements in f32 in a fixed order of operations: equal inputs
 * give equal bytes. */
#pragma once

#include "coordinator/plan.h"

enum { SAMPLER_HISTORY_MAX = 3 };

struct sampler_step; /* the scalars of one step */

struct sampler {
    enum sampler_kind kind;
    uint32_t step_count;
    uint32_t history_count; /* latents a frame keeps besides x: euler and lcm 0, dpm++ 1, unipc 3 */
    const struct sampler_step *step;
};

struct sampler_frame {
    float *x;                            /* [C, h, w] */
    float *history[SAMPLER_HISTORY_MAX]; /* the first history_count are used, each as large as x */
};

uint32_t sampler_history_count(enum sampler_kind kind);

/* For the levels of the plan; lives in `arena`. LT_BAD_INPUT: a level the solver cannot start from.
 */
lt_status sampler_build(enum sampler_kind kind, const struct plan *plan, struct lt_arena *arena,
                        struct sampler *sampler_out, struct lt_error *error);

/* This step adds noise (noise_step_frame). A last step to sigma 0 draws but multiplies by 0: it
 * does not need it. */
bool sampler_needs_noise(const struct sampler *sampler, uint32_t step);

/* x and history at `step` + the blended prediction (the velocity v = noise - picture, after
 * guidance) = x and history at step + 1. `to` may be `from`. At step 0 the history of `from` is not
 * read. `noise` is read when the step needs it. */
void sampler_advance(const struct sampler *sampler, uint32_t step, size_t value_count,
                     const float *prediction, const float *noise, const struct sampler_frame *from,
                     const struct sampler_frame *to);
