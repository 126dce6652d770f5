/* A finished job's take, written where the user wants it: every output whole under its name, or
 * none of them. */
#pragma once

#include "coordinator/mux.h"
#include "coordinator/run.h"

struct publish_params {
    const char *const *output; /* .mp4 files, PNG and EXR folders (mux.h) */
    size_t output_count;
    const struct mux_sound *sound; /* of the mp4 files, cut or padded to the take's length */
    size_t sound_count;
    const char *latents; /* safetensors file for the latents [C, T, h, w]; NULL: none */
    int quality;
    bool overwrite;
    /* After each frame; false stops with LT_CANCELLED. NULL allowed. */
    bool (*progress)(void *context, uint32_t done, uint32_t total);
    void *context;
};

struct publish_result {
    struct lt_digest latents,
        frames; /* SHA-256 of the f32 latents, and of all RGB frames in order */
    uint32_t frame_count;
};

lt_status publish_take(struct run *run, const struct publish_params *params,
                       struct publish_result *result_out, struct lt_error *error);
