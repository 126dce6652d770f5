/* Loop mode: a long video as a chain of clips, each of which starts on the last frames of the one
 * before (pipeline.md 2.3 WanAnimate, 2.4 MultiTalk and InfiniteTalk). Pure arithmetic: no memory,
 * no files. Every frame of the take comes from exactly one clip, and the take has exactly the
 * frames that were asked for, which the originals do not all promise.
 *
 *   take frames   0 ......................... clip_frames
 *   clip 0        [===========================]
 *   clip 1                             [mmm=======================]      m: overlap, dropped
 *   clip 2                                                    [mmm====xxxxx]   x: beyond the take
 *
 * Pixel frames and latent frames of a clip of 4k+1 pixel frames: 1 + k latents. */
#pragma once

#include "common/status.h"

#include <stdbool.h>

enum clips_mode {
    CLIPS_ANIMATE,      /* 77 frames, 1 (or 5) handed on; latent 0 is the reference image */
    CLIPS_MULTITALK,    /* 81 frames, 25 handed on; motion latents noised again at every step */
    CLIPS_INFINITETALK, /* 81 frames, 9 handed on; motion latents written clean */
};

struct clips_params {
    enum clips_mode mode;
    int64_t frame_count;     /* F, of the take: any number from 1 */
    uint32_t clip_frames;    /* 4k+1; 0: the mode's own (77, 81) */
    uint32_t overlap_frames; /* 4k+1, less than clip_frames; 0: the mode's own (1, 25, 9) */
};

struct clips {
    struct clips_params params; /* with the defaults filled in */
    uint32_t count;             /* 1 + ⌈(F - clip_frames) / advance⌉, at least 1 */
    uint32_t advance;           /* clip_frames - overlap_frames: pixel frames from clip to clip */
    int64_t target_frames;      /* what all clips span, ≥ F: pose, face, background, audio are
                                   extended to it; also the untrimmed length of the originals */
    int64_t target_latents;     /* (target_frames - 1)/4 + 1: masks are extended to it */
};

struct clip {
    uint32_t index;
    bool last;
    int64_t pixel_start;   /* frame of the (extended) inputs and of the take at its first frame */
    uint32_t pixel_count;  /* = clip_frames */
    int64_t latent_start;  /* pixel_start / 4: where its slice of a mask in latent frames begins */
    uint32_t latent_count; /* denoised: Animate 1 (reference) + 20, talk 21 */
    uint32_t latent_drop_front; /* not decoded: Animate 1 (the reference), talk 0 */
    uint32_t motion_frames;     /* taken over from the clip before: 0 for the first */
    uint32_t motion_latents;    /* 1 + (motion_frames - 1)/4, 0 for the first clip */
    uint32_t drop_front;        /* decoded frames that the clip before has given: motion_frames */
    uint32_t keep_count;        /* decoded frames after those that belong to the take, ≥ 1 */
    int64_t take_start;         /* = pixel_start + drop_front: where the kept frames go */
};

/* Fills in the mode's numbers and counts. LT_BAD_INPUT names what is out of range. */
lt_status clips_plan(const struct clips_params *params, struct clips *clips_out,
                     struct lt_error *error);
/* Clip `index` < clips->count. */
struct clip clips_at(const struct clips *clips, uint32_t index);

/* Frame i of a sequence of `count` ≥ 1 frames played there and back, end frames not doubled:
 * 0 1 2 3 2 1 0 1 … (pipeline.md 2.3: five frames to ten are 0 1 2 3 4 3 2 1 0 1). */
int64_t pingpong_index(int64_t i, int64_t count);

/* Rows of an audio embedding of `audio_frames` rows for the five taps (-2 … +2) of the clip's
 * frame `i`, `stride` rows a frame (pipeline.md 2.4.2, 2.4.10): clamped to the embedding; on a last
 * clip other than the first the embedding is first extended by its own tail backwards. */
void clip_audio_rows(const struct clip *clip, uint32_t i, uint32_t stride, int64_t audio_frames,
                     int64_t row_out[5]);
