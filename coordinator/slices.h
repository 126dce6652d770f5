/* Which frames and rows of the conditioning a context window needs, slot by slot from its list of
 * latent indices (pipeline.md 1.8). Only lists, never the window's ends: a strided or wrapped
 * window asks for what its own latents stand for, where the originals take a wrong range. `latent`
 * has n ≥ 1 entries in the window's order; every result is clamped into [0, count - 1]. For a plain
 * window c … c+n-1 the results are the originals'. */
#pragma once

#include "common/status.h"

/* Frames behind pictures of a window whose latent 0 is the take's first frame: 4(n-1)+1 of them;
 * slot 0 gives frame 4·latent[0], every other slot its four frames 4·latent - 3 … 4·latent. For
 * talk audio and for control videos. */
void slice_frames(const uint32_t *latent, uint32_t n, int64_t frame_count, int64_t *frame_out);

/* The same with the five taps -2 … +2 of each frame, `stride` rows of the embedding apart:
 * row_out[4(n-1)+1][5]. */
void slice_audio(const uint32_t *latent, uint32_t n, uint32_t stride, int64_t row_count,
                 int64_t *row_out);

/* WanAnimate: latent 0 of the take is the reference image, so latent l shows pose latent l - 1 and
 * is driven by face frames 4(l-1) … 4(l-1)+3. Slot 0 of a window has neither: n - 1 and 4(n-1)
 * entries for slots 1 … n-1. */
void slice_pose_latents(const uint32_t *latent, uint32_t n, int64_t pose_latent_count,
                        int64_t *index_out);
void slice_face_frames(const uint32_t *latent, uint32_t n, int64_t frame_count, int64_t *frame_out);
