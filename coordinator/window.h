/* Context windows: which latent frames one model evaluation sees, step by step (pipeline.md 1.2
 * to 1.5).
 *
 *   T latent frames, windows of n frames, neighbours share o of them, hop = n - o
 *   |------- window 0 -------|
 *                    |------- window 1 -------|       ... and the last one ends at T - 1
 *
 * Pure: lists live in the caller's arena and depend on the arguments only. */
#pragma once

#include "coordinator/plan.h"

struct window_params {
    enum window_schedule schedule;
    enum window_fuse fuse;
    uint32_t frame_count;           /* T: latent frames of the take */
    uint32_t size, overlap, stride; /* n, o, d: latent frames; o < n, d >= 1 */
};

struct window_list {
    const struct window *window; /* in blending order */
    uint32_t count;
};

/* The schedule ignores the step: one list serves the whole job, and caches may be kept by window.
 */
bool window_schedule_is_static(enum window_schedule schedule);
/* The windows wrap round the end of the take (which alters the ends of the weights). */
bool window_schedule_is_looped(enum window_schedule schedule);
/* No frame is seen twice: weights are 1. */
bool window_schedule_is_batched(enum window_schedule schedule);

/* Bit reversal of `index` over 2^64: 0, .5, .25, .75, .125 … (pipeline.md 1.2). */
double window_ordered_halving(uint64_t index);

/* The windows of step `step` (counted inside the sliced schedule) with their weights; one window
 * with weight 1 when T <= n. Unlike upstream, a window inserted by the uniform schedules starts at
 * T - n at the latest, a window that still leaves [0, T) is dropped, and static windows are
 * appended for frames without weight (pipeline.md 1.5). A frame may stand twice in a strided window
 * of a short take. LT_BAD_INPUT: size 0, overlap >= size, or no frame. */
lt_status window_list_build(const struct window_params *params, uint32_t step,
                            struct lt_arena *arena, struct window_list *list_out,
                            struct lt_error *error);
