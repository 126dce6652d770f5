/* Masks: which pixels are given, and who speaks where. Values are 0 and 1 in f32; 1 = known, kept
 * (the official polarity; ComfyUI's is the other way). */
#pragma once

#include "coordinator/media/fit.h"

/* A mask on the latent grid by pixel frame, [F, h, w] of F = 4k+1 frames, into the four channels
 * the model takes, [4, T, h, w], T = k+1: out[j][t] = in'[4t + j] with in' = in[0] three times more
 * at the front (encoders.md 5.1). `plane` = h·w. */
void mask_pack(const float *mask, uint32_t frame_count, size_t plane, float *out);

/* A frame of a white-on-black mask video (white: the person to replace) as "background is known" on
 * the latent grid: nearest, 1 where the first channel is below `threshold` (128), else 0
 * (encoders.md 10.2: 1 - mask). A threshold instead of grey values: a lossy file has no clean
 * edges. [grid.height, grid.width]. */
lt_status mask_background(const uint8_t *rgb, struct frame_size size, uint8_t threshold,
                          struct frame_size grid, float *out, struct lt_error *error);
/* Black where the mask is white: the background video of replacement mode. In place, both of one
 * size. */
void mask_black_out(uint8_t *rgb, const uint8_t *mask_rgb, struct frame_size size,
                    uint8_t threshold);

/* The two speakers' places in the picture, left and right halves shrunk by `margin` on each side
 * (official 0.05, ComfyUI wrapper 0.10), and the background: [3, height, width]
 * (encoders.md 10.3, pipeline.md 2.4). */
void speaker_masks_halves(struct frame_size size, double margin, float *out);
/* The same from a box for each of `count` speakers: [count + 1, height, width], background last.
 * Boxes are clipped; LT_BAD_INPUT names one that is empty. */
lt_status speaker_masks_boxes(struct frame_size size, const struct frame_box *box, uint32_t count,
                              float *out, struct lt_error *error);
/* One speaker: all of the picture, three times. */
void speaker_masks_one(struct frame_size size, float *out);

/* [count, height, width] of the input picture to the token grid: nearest to cover `picture` and cut
 * from the middle as FIT_TALK does with the image, nearest to `grid` (h/2 × w/2 latents), > 0. */
lt_status speaker_masks_fit(const float *masks, uint32_t count, struct frame_size from,
                            struct frame_size picture, struct frame_size grid, float *out,
                            struct lt_error *error);
