/* The Wan 2.1 VAE (encoders.md 1): latents [z, T, h, w] <-> pixels, F = 4T - 3 frames of 8h x 8w.
 * All widths come from the tensors, so pruned files work too.
 *
 * Both directions stream one frame at a time with exact carried history, so memory does not grow
 * with T; the result is that of the whole sequence, bit for bit. Activations are f32, or bf16 when
 * the exec's precision is bf16. */
#pragma once

#include "kernels/exec.h"
#include "kernels/kernels.h"
#include "worker/weights/store.h"

#include <stdatomic.h>

enum { VAE_SCALE = 8 };

struct vae;

/* Which half of a file to load: a store_filter, context is an enum vae_part. */
enum vae_part { VAE_DECODER, VAE_ENCODER };
bool vae_wants(void *part, const char *name);

lt_status vae_create(enum vae_part part, struct store *store, const struct lt_kernels *kernels,
                     struct lt_exec *exec, struct vae **vae_out, struct lt_error *error);
void vae_destroy(struct vae **vae);
int64_t vae_latent_channels(const struct vae *vae);
/* Highest bytes of activations and history of the last call, weights not counted. */
size_t vae_peak_bytes(const struct vae *vae);

/* One decoded frame, f32 [H, W, 3] in [-1, 1], valid during the call. Not LT_OK ends the decode
 * with that status. */
typedef lt_status vae_frame(void *context, int64_t index, const float *rgb, struct lt_error *error);

/* latents: f32 [z, T, h, w], normalised as the transformer sees them. `done` counts latent frames;
 * NULL allowed. */
lt_status vae_decode(struct vae *vae, const struct lt_view *latents, vae_frame *on_frame,
                     void *context, atomic_uint *done, struct lt_error *error);

/* pixels: f32 [3, F, H, W] in [-1, 1], H and W multiples of 8; frames beyond 4n+1 are ignored.
 * latents: f32 [z, T, H/8, W/8], T = (F-1)/4 + 1; the mean, normalised. */
lt_status vae_encode(struct vae *vae, const struct lt_view *pixels, struct lt_view *latents,
                     atomic_uint *done, struct lt_error *error);
