/* A plan: everything of a job that is decided before the first task runs. Pure: equal jobs give
 * equal plans. */
#pragma once

#include "coordinator/job.h"

struct window {
    const uint32_t *frame; /* latent frame indices, in order (may wrap or stride) */
    const float *weight;   /* blend weights, one per frame */
    uint32_t frame_count;
};

struct plan_step {
    const struct window *window;
    uint32_t window_count;
    uint32_t task_first; /* task index of window 0; tasks of a step are consecutive */
    double sigma, sigma_next;
    double timestep; /* what the model is fed: truncated to an integer where the schedule says so */
    double guidance;
    bool low_expert;
};

struct plan_segment {                  /* one decode task */
    uint32_t frame_first, frame_count; /* latent frames decoded, warm-up included */
    uint32_t drop_frames;              /* pixel frames dropped at the front */
    uint32_t pixel_first,
        pixel_count; /* pixel frames of the take it gives (after trimming to frame_count) */
};

enum plan_task_kind { PLAN_PREDICT, PLAN_DECODE };

struct plan {
    int64_t latent_channels, latent_frames, latent_height, latent_width; /* C T h w */
    struct plan_step *step;
    uint32_t step_count;
    struct plan_segment *segment;
    uint32_t segment_count;
    uint32_t predict_count; /* tasks [0, predict_count) predict, then one decode task per segment */
    uint32_t task_count;
    uint64_t frame_bytes; /* f32 bytes of one latent frame: 4·C·h·w */
    uint64_t wire_bytes_down,
        wire_bytes_up; /* payload of the whole job: slices down, predictions and pixels up */
};

/* On success everything lives in `arena`. Checks (pipeline.md 1.5): every index in range, every
 * frame covered by a positive total weight at every step. */
lt_status plan_build(const struct job *job, struct lt_arena *arena, struct plan *plan_out,
                     struct lt_error *error);

enum plan_task_kind plan_task(const struct plan *plan, uint32_t task, uint32_t *step_or_segment_out,
                              uint32_t *window_out);
