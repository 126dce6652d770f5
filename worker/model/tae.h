/* The tiny decoder for previews, TAEHV: taew2_1 for latents of 16 channels, taew2_2 for 48
 * (encoders.md 4.2). About a 25th of the work of the VAE; frames are what the VAE would give, a
 * little blurred. Streams one frame at a time: each memory block keeps one frame, so memory does
 * not grow with T. */
#pragma once

#include "worker/model/vae.h"

struct tae;

/* A store_filter: the decoder's tensors. */
bool tae_wants(void *unused, const char *name);

/* Widths and strides come from the tensors. `store` stays the caller's and outlives it. */
lt_status tae_create(const struct store *store, const struct lt_kernels *kernels,
                     struct lt_exec *exec, struct tae **tae_out, struct lt_error *error);
void tae_destroy(struct tae **tae);
int64_t tae_latent_channels(const struct tae *tae);
/* Pixels of one latent, in both directions: 8 or 16. */
int64_t tae_scale(const struct tae *tae);
/* Frames of T latent frames: 4T - 3. */
int64_t tae_frames(const struct tae *tae, int64_t latent_frames);
/* Highest bytes of activations and memory of the last call. */
size_t tae_peak_bytes(const struct tae *tae);

/* What its ops take of an exec's scratch for latents of rows x columns. */
lt_status tae_scratch(const struct tae *tae, int64_t rows, int64_t columns,
                      struct lt_scratch *scratch_out, struct lt_error *error);

/* latents: f32 [z, T, h, w], normalised as the transformer sees them. Frames as the VAE gives them:
 * f32 [H, W, 3] in [-1, 1]. */
lt_status tae_decode(struct tae *tae, const struct lt_view *latents, vae_frame *on_frame,
                     void *context, struct lt_error *error);
