/* Noise levels of a job: sigma 1 is noise, 0 is the picture (pipeline.md 3.1, 3.2, 3.5). All in
 * f64. */
#pragma once

#include "coordinator/job.h"

struct sigma_list {
    double *sigma; /* [count + 1]: one more than steps; the last is 0 unless the slice ends early */
    double *timestep; /* [count]: what the model is fed; an integer for unipc and dpm++ */
    uint32_t count;   /* steps after start_step and end_step */
};

/* sigma' = s sigma / (1 + (s - 1) sigma) */
double sigma_shift(double sigma, double shift);
/* Q(p) of Beta(0.6, 0.6), p in [0, 1]. */
double sigma_beta_quantile(double p);

/* The list of the job's sampler, sliced. An own list gets its 0 appended and starts at 1 - 1e-6 at
 * most: at 1 the multistep solvers divide by zero. In `arena`. LT_BAD_INPUT: step counts the
 * sampler does not have, empty slices, an own list that does not fall. */
lt_status sigma_list_build(const struct job *job, struct lt_arena *arena,
                           struct sigma_list *list_out, struct lt_error *error);

/* High expert while the integer timestep is at or above 1000 * boundary. */
bool sigma_low_expert(double timestep, double boundary);

enum guidance_ease { GUIDANCE_LINEAR, GUIDANCE_EASE_IN, GUIDANCE_EASE_OUT };

/* A guidance schedule over a share of the steps (pipeline.md 3.8): from `from` to `to` between
 * `start` and `end` (0..1 of the steps), rounded to 2 decimals, 1 elsewhere. value_out
 * [step_count]. */
void sigma_guidance_schedule(double from, double to, double start, double end,
                             enum guidance_ease ease, uint32_t step_count, double *value_out);
