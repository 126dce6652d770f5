/* A plan: everything of a job that is decided before the first task runs. Pure: equal jobs give
 * equal plans. */
#pragma once

#include "coordinator/clips.h"
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
    uint8_t skip; /* predictions that reuse an earlier step's work: a bit each, as they are numbered
                     in a task (0: with the prompt) */
};

struct plan_segment {                  /* one decode task */
    uint32_t frame_first, frame_count; /* latent frames decoded, warm-up included */
    uint32_t drop_frames;              /* pixel frames dropped at the front */
    uint32_t pixel_first,
        pixel_count; /* pixel frames of the take it gives (after trimming to frame_count) */
};

/* What is computed once, beside the windows: features and latents of what the user gave. */
enum plan_condition_what {
    PLAN_CONDITION_TEXT,     /* index: of the prompt */
    PLAN_CONDITION_NEGATIVE, /* text */
    PLAN_CONDITION_CLIP,     /* index 0: image, 1: end image */
    PLAN_CONDITION_Y,        /* latents of the picture and the grey frames after it; index: of the
                                clip in a loop's first clip only */
    PLAN_CONDITION_FIRST,    /* latents of the image alone: reference, or clean first frame */
    PLAN_CONDITION_POSE,     /* index: of the clip */
    PLAN_CONDITION_AUDIO,    /* index: of the speaker */
    PLAN_CONDITION_TIMES,    /* how the time embeddings of an expert's steps differ; index 1: low */
};

struct plan_condition { /* one conditioning task */
    enum plan_condition_what what;
    uint32_t index;
};

/* Task `to` waits until `from` is committed (beside its frames). */
struct plan_edge {
    uint32_t from, to;
};

enum plan_task_kind { PLAN_PREDICT, PLAN_DECODE, PLAN_CONDITION, PLAN_KINDS };

struct plan {
    int64_t latent_channels, latent_frames, latent_height, latent_width; /* C T h w */
    struct plan_step *step;
    uint32_t step_count;
    struct plan_segment *segment;
    uint32_t segment_count;
    uint32_t predict_count; /* tasks [0, predict_count) predict, then one decode task per segment,
                               then the conditioning: what windows wait for is ready before them,
                               and what later clips need waits for the windows of earlier ones */
    struct plan_condition *condition;
    uint32_t condition_count;
    struct plan_edge *edge;
    uint32_t edge_count;
    uint32_t task_count;
    uint32_t prompt_count;
    uint32_t scale;       /* pixels a latent, each way: 8, or 16 with 48 channels */
    uint32_t lead;        /* latent frames before the picture's: 1 with a reference image */
    struct clips clips;   /* loop mode; count 0: windows */
    uint64_t frame_bytes; /* f32 bytes of one latent frame: 4·C·h·w */
    uint64_t wire_bytes_down,
        wire_bytes_up; /* payload of the whole job: slices down, predictions and pixels up */
};

/* On success everything lives in `arena`. Checks (pipeline.md 1.5): every index in range, every
 * frame covered by a positive total weight at every step. */
lt_status plan_build(const struct job *job, struct lt_arena *arena, struct plan *plan_out,
                     struct lt_error *error);

/* The conditioning task of (what, index); UINT32_MAX: the job has none. */
uint32_t plan_find_condition(const struct plan *plan, enum plan_condition_what what,
                             uint32_t index);

/* For conditioning: its number among them. */
enum plan_task_kind plan_task(const struct plan *plan, uint32_t task, uint32_t *step_or_segment_out,
                              uint32_t *window_out);
