/* The state of every latent frame: x and what the sampler remembers, in one object of the job's
 * store.
 *
 *   frame f: [ even steps: x h0 h1 h2 | odd steps: x h0 h1 h2 ]     each [C, h, w] f32
 *
 * A frame at step s lives in the half of s's parity, so that writing s + 1 never touches it: until
 * the journal says s + 1, a crash finds s whole. Memory stays bounded however long the take is. One
 * owner; see run.h for readers. */
#pragma once

#include "coordinator/sampler.h"
#include "coordinator/objects.h"

struct latents {
    struct objects *store; /* borrowed */
    uint32_t frame_count, history_count;
    size_t frame_bytes; /* of x */
    uint8_t *unsaved;   /* [frame_count]: advanced since the last latents_committed */
    bool dirty;         /* written since the last latents_sync */
};

lt_status latents_init(struct latents *latents, struct objects *store, uint32_t frame_count,
                       uint32_t history_count, size_t frame_bytes, struct lt_error *error);
void latents_fini(struct latents *latents);

/* State of `frame` at `step`; at step 0 there is no history. */
lt_status latents_read(struct latents *latents, uint32_t frame, uint32_t step,
                       const struct sampler_frame *state, struct lt_error *error);
/* The frame must stand at step - 1 and must not have moved since latents_committed. */
lt_status latents_write(struct latents *latents, uint32_t frame, uint32_t step,
                        const struct sampler_frame *state, struct lt_error *error);
/* Bytes of x alone. */
lt_status latents_read_part(struct latents *latents, uint32_t frame, uint32_t step, uint64_t offset,
                            void *data, size_t bytes, struct lt_error *error);
/* What was written is durable. */
lt_status latents_sync(struct latents *latents, struct lt_error *error);
/* The journal knows every frame's step. */
void latents_committed(struct latents *latents);
