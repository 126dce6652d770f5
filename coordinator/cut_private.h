/* What cut.c (tasks, encodes, specs) and cut_window.c (what windows are fed) share: a task being
 * cut, and small measures of its job and plan. */
#pragma once

#include "coordinator/cut.h"

enum {
    CLIP_ROWS = 257, /* ViT-H/14 at 224: 16 x 16 patches and the class token */
    CLIP_WIDTH = 1280,
    AUDIO_FPS = 25,
    AUDIO_RATE = 16000,
    AUDIO_TAPS = 5,
    AUDIO_HEARD = 8,   /* rows of a latent frame but the first */
    MASK_CHANNELS = 4, /* one for each pixel frame of a latent frame */
};

static const uint32_t one_channel[] = {1};

/* A task being cut. */
struct knife {
    const struct job *job;
    const struct plan *plan;
    struct lt_arena *arena;
    struct cut *cut;
    size_t count;
    const uint64_t *text_bytes;
    bool failed; /* no memory */
};

static inline struct cut_cell zero(void)
{
    return (struct cut_cell){.source = CUT_ZERO, .frame_count = 1};
}

static inline struct cut_cell one(void)
{
    return (struct cut_cell){.source = CUT_ONE, .frame_count = 1};
}

/* Room for the cells of a new blob. NULL: no memory. */
static inline struct cut_cell *begin(struct knife *knife, enum lt_blob_role role,
                                     uint64_t plane_bytes, uint32_t slots, const uint32_t *channels,
                                     uint32_t groups, const void *name)
{
    struct cut_cell *cell = lt_arena_take_array(knife->arena, (size_t)groups * slots, sizeof *cell);
    lt_assert(knife->count < CUTS_MAX);
    if (!cell) {
        knife->failed = true;
        return NULL;
    }
    knife->cut[knife->count++] = (struct cut){.role = role,
                                              .plane_bytes = plane_bytes,
                                              .slot_count = slots,
                                              .group_count = groups,
                                              .channels = channels,
                                              .cell = cell,
                                              .name = name};
    return cell;
}

static inline void add_whole(struct knife *knife, enum lt_blob_role role, uint64_t bytes,
                             enum cut_source source, uint32_t index, const void *name)
{
    struct cut_cell *cell = begin(knife, role, bytes, 1, one_channel, 1, name);
    if (cell)
        *cell = (struct cut_cell){.source = source, .index = index, .frame_count = 1};
}

static inline uint64_t latent_plane(const struct plan *plan)
{
    return plan->frame_bytes / (uint64_t)plan->latent_channels;
}

static inline uint64_t picture_bytes(const struct job *job)
{
    return 3 * (uint64_t)job->width * (uint64_t)job->height;
}

static inline bool is_given(const struct job *job, enum job_input_kind kind)
{
    return job->input[kind].uploaded || job->input[kind].path;
}

/* Number of a conditioning task among them; UINT32_MAX: the job has none. */
static inline uint32_t find(const struct plan *plan, enum plan_condition_what what, uint32_t index)
{
    const uint32_t task = plan_find_condition(plan, what, index);
    return task == UINT32_MAX ? UINT32_MAX : task - plan->predict_count - plan->segment_count;
}

/* Pixel frames of the picture's latents: what a whole encode runs over. */
static inline uint32_t encode_frames(const struct plan *plan)
{
    return plan->clips.count ? plan->clips.params.clip_frames
                             : 4 * ((uint32_t)plan->latent_frames - plan->lead - 1) + 1;
}

/* -- cut_window.c ------------------------------------------------------------------------------ */

/* The latents of some frames: a list, or `first` and so on when it is NULL. */
void cut_add_latents(struct knife *knife, const uint32_t *frame, uint32_t first, uint32_t count,
                     const uint32_t *channels);
/* Everything else that window w is fed; `negative`: with the negative text. */
void cut_add_window(struct knife *knife, uint32_t w, const struct window *window, bool negative);
/* The frame is given and stays as it is. */
bool cut_is_clean(const struct plan *plan, const struct job *job, uint32_t frame);
/* Rows of the audio embedding. */
uint32_t cut_audio_rows(const struct job *job);
