/* Random tensors of a job, by name: the initial noise of a latent frame, the noise a step adds to
 * one. Any frame of any step at any time gives the same bytes, so a resumed coordinator needs no
 * generator state.
 *
 * "counter": Philox streams named (seed, purpose, step or frame, frame or channel): independent of
 * the take's length. "torch": torch's CPU stream in the order of pipeline.md 3.9: the noise of the
 * whole take [C, T, h, w], the FreeNoise permutations, then one full draw per step. Every number
 * has a fixed place in that stream; at most 4,096 generator states (10 MB) are kept as marks to
 * start from, whatever the length.
 *
 * One owner: reading may add marks. */
#pragma once

#include "coordinator/plan.h"

struct noise;

/* LT_UNSUPPORTED: a torch draw of less than 16 numbers. */
lt_status noise_create(const struct job *job, const struct plan *plan, struct noise **noise_out,
                       struct lt_error *error);
void noise_destroy(struct noise **noise);

/* frame_out [C, h, w]; FreeNoise is applied. */
void noise_initial_frame(struct noise *noise, uint32_t frame, float *frame_out);
/* frame_out [C, h, w]: what dpm++_sde and lcm add at `step` (counted inside the slice). */
void noise_step_frame(struct noise *noise, uint32_t step, uint32_t frame, float *frame_out);

/* plane_out [h, w] of channel `channel`: what a loop's motion latents are noised with before
 * `step`. Counter noise only. */
void noise_motion_plane(struct noise *noise, uint32_t step, uint32_t frame, uint32_t channel,
                        float *plane_out);

/* A random order of 0 .. count-1 for the given chunk; called for chunk 0, 1, 2 … in turn. */
typedef void noise_order(void *context, uint32_t chunk, uint32_t *order_out, uint32_t count);

/* FreeNoise (pipeline.md 1.7): source_out[f] is the frame whose noise frame f gets. */
lt_status noise_freenoise(uint32_t frame_count, uint32_t window_frames, uint32_t overlap,
                          noise_order *order, void *context, uint32_t *source_out,
                          struct lt_error *error);
