/* The Wan VAEs (encoders.md 1, 2): latents [z, T, h, w] <-> pixels, F = 4T - 3 frames. That of Wan
 * 2.1 has z = 16 and pixels of 8h x 8w; that of Wan 2.2 TI2V-5B has z = 48 and 16h x 16w. All
 * widths come from the tensors, so pruned files work too.
 *
 * Both directions stream one frame at a time with exact carried history, so memory does not grow
 * with T; the result is that of the whole sequence, bit for bit, also when the sequence comes in
 * slices over several calls. Activations are f32, or bf16 when the exec's precision is bf16. */
#pragma once

#include "kernels/exec.h"
#include "kernels/kernels.h"
#include "kernels/scratch.h"
#include "worker/weights/store.h"

#include <stdatomic.h>

struct vae;

/* Which half of a file to load: a store_filter, context is an enum vae_part. */
enum vae_part { VAE_DECODER, VAE_ENCODER };
bool vae_wants(void *part, const char *name);

/* `store` stays the caller's and outlives the VAE. */
lt_status vae_create(enum vae_part part, struct store *store, const struct lt_kernels *kernels,
                     struct lt_exec *exec, struct vae **vae_out, struct lt_error *error);
void vae_destroy(struct vae **vae);
int64_t vae_latent_channels(const struct vae *vae);
/* Pixels of one latent, in both directions: 8 or 16. */
int64_t vae_scale(const struct vae *vae);

/* Highest bytes of activations and history since the last call began, weights and the scratch of
 * the ops not counted. */
size_t vae_peak_bytes(const struct vae *vae);
/* What vae_peak_bytes will say of a call with so many latent frames of rows x columns latents: the
 * same walk, on shapes only. Reads nothing of the file but its index. */
lt_status vae_bytes(enum vae_part part, const struct tensor_file *file, enum lt_precision precision,
                    int64_t frames, int64_t rows, int64_t columns, size_t *bytes_out,
                    struct lt_error *error);

/* And what its ops take of each exec's scratch beside that. */
lt_status vae_scratch(enum vae_part part, const struct tensor_file *file,
                      enum lt_precision precision, int64_t rows, int64_t columns,
                      struct lt_scratch *scratch_out, struct lt_error *error);

/* vae_scale of a file, from its index. */
lt_status vae_file_scale(enum vae_part part, const struct tensor_file *file, int64_t *scale_out,
                         struct lt_error *error);

/* One decoded frame, f32 [H, W, 3] in [-1, 1], valid during the call. Not LT_OK ends the decode
 * with that status. */
typedef lt_status vae_frame(void *context, int64_t index, const float *rgb, struct lt_error *error);

/* latents: f32 [z, T, h, w], normalised as the transformer sees them. `done` counts latent frames;
 * NULL allowed. */
lt_status vae_decode(struct vae *vae, const struct lt_view *latents, vae_frame *on_frame,
                     void *context, atomic_uint *done, struct lt_error *error);

/* pixels: f32 [3, F, H, W] in [-1, 1], H and W multiples of the scale; frames beyond 4n+1 are
 * ignored. latents: f32 [z, T, h, w], T = (F-1)/4 + 1; the mean, normalised. */
lt_status vae_encode(struct vae *vae, const struct lt_view *pixels, struct lt_view *latents,
                     atomic_uint *done, struct lt_error *error);

/* The same on a slice of a longer sequence: the history of the slices before it is used and kept.
 * Decoded frames go on counting. Pixels come as 4n+1 frames in the first slice, as 4n in later
 * ones, and give n+1 or n latent frames. vae_forget ends the sequence; after an error it is ended.
 */
lt_status vae_decode_slice(struct vae *vae, const struct lt_view *latents, vae_frame *on_frame,
                           void *context, atomic_uint *done, struct lt_error *error);
lt_status vae_encode_slice(struct vae *vae, const struct lt_view *pixels, struct lt_view *latents,
                           atomic_uint *done, struct lt_error *error);
void vae_forget(struct vae *vae);

/* Spatial tiles, in latents, overlapping by size - stride (encoders.md 3.1). Less memory, but not
 * the untiled result: the attention sees one tile, convolutions see zeros behind its borders. Only
 * for those who ask. */
struct vae_tiling {
    int64_t rows, columns, row_stride, column_stride; /* 1 <= stride <= size */
};
/* Tiles of a picture of rows x columns latents: each counts all its latent frames in `done`. */
int64_t vae_tile_count(const struct vae_tiling *tiling, int64_t rows, int64_t columns);
/* vae_bytes of a decode in tiles, and what it holds in RAM beside that. */
lt_status vae_decode_tiled_bytes(const struct tensor_file *file, enum lt_precision precision,
                                 const struct vae_tiling *tiling, int64_t frames, int64_t rows,
                                 int64_t columns, size_t *bytes_out, size_t *held_bytes_out,
                                 struct lt_error *error);
/* All frames of a tile, then the next tile. Holds the sum of all frames, f32. */
lt_status vae_decode_tiled(struct vae *vae, const struct vae_tiling *tiling,
                           const struct lt_view *latents, vae_frame *on_frame, void *context,
                           atomic_uint *done, struct lt_error *error);
lt_status vae_encode_tiled(struct vae *vae, const struct vae_tiling *tiling,
                           const struct lt_view *pixels, struct lt_view *latents, atomic_uint *done,
                           struct lt_error *error);
