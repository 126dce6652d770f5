#include "coordinator/latents.h"

#include <stdlib.h>
#include <string.h>

static const char object[] = "latents";

lt_status latents_init(struct latents *latents, struct objects *store, uint32_t frame_count,
                       uint32_t history_count, size_t frame_bytes, struct lt_error *error)
{
    uint8_t *unsaved = calloc(frame_count, 1);
    if (!unsaved)
        return lt_fail(error, LT_NO_MEMORY, "no memory for %u latent frames", frame_count);
    *latents = (struct latents){
        .store = store,
        .frame_count = frame_count,
        .history_count = history_count,
        .frame_bytes = frame_bytes,
        .unsaved = unsaved,
    };
    return LT_OK;
}

void latents_fini(struct latents *latents)
{
    free(latents->unsaved);
    memset(latents, 0, sizeof *latents);
}

static uint64_t place(const struct latents *latents, uint32_t frame, uint32_t step)
{
    lt_assert(frame < latents->frame_count);
    return ((uint64_t)frame * 2 + step % 2) * (1 + latents->history_count) * latents->frame_bytes;
}

lt_status latents_read(struct latents *latents, uint32_t frame, uint32_t step,
                       const struct sampler_frame *state, struct lt_error *error)
{
    uint64_t at = place(latents, frame, step);
    LT_TRY(objects_read(latents->store, object, at, state->x, latents->frame_bytes, error));
    for (uint32_t i = 0; step > 0 && i < latents->history_count; i++) {
        at += latents->frame_bytes;
        LT_TRY(objects_read(latents->store, object, at, state->history[i], latents->frame_bytes,
                            error));
    }
    return LT_OK;
}

lt_status latents_write(struct latents *latents, uint32_t frame, uint32_t step,
                        const struct sampler_frame *state, struct lt_error *error)
{
    uint64_t at = place(latents, frame, step);
    lt_assert(step == 0 || !latents->unsaved[frame]);
    latents->dirty = true;
    latents->unsaved[frame] = step > 0;
    LT_TRY(objects_write(latents->store, object, at, state->x, latents->frame_bytes, error));
    for (uint32_t i = 0; step > 0 && i < latents->history_count; i++) {
        at += latents->frame_bytes;
        LT_TRY(objects_write(latents->store, object, at, state->history[i], latents->frame_bytes,
                             error));
    }
    return LT_OK;
}

lt_status latents_read_part(struct latents *latents, uint32_t frame, uint32_t step, uint64_t offset,
                            void *data, size_t bytes, struct lt_error *error)
{
    return objects_read(latents->store, object, place(latents, frame, step) + offset, data, bytes,
                        error);
}

lt_status latents_sync(struct latents *latents, struct lt_error *error)
{
    if (!latents->dirty)
        return LT_OK;
    LT_TRY(objects_sync(latents->store, object, error));
    latents->dirty = false;
    return LT_OK;
}

void latents_committed(struct latents *latents)
{
    memset(latents->unsaved, 0, latents->frame_count);
}
