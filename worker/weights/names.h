/* One name for one tensor: the forms in which encoders are published become one, with
 * `blocks.<n>.` in front of what a layer owns, so that store, inspect and model know a single form.
 *
 *   UMT5 (encoders.md 6.1)     the original Wan files: blocks.<n>.attn.q.weight
 *   CLIP vision (8.1)          the original Wan files, their `visual.transformer.<n>.` as blocks
 *   wav2vec2 (9.1)             transformers, its `encoder.layers.<n>.` as blocks */
#pragma once

#include "common/arena.h"
#include "worker/weights/tensor_file.h"

/* Renames the tensors of an encoder in place; any other file is left alone. What has no counterpart
 * (a decoder, a second copy of an embedding, a text tower) keeps its name. */
lt_status names_of_encoder(struct tensor_info *tensors, size_t count, const char *path,
                           struct lt_arena *arena, struct lt_error *error);
/* The same for the VAEs of diffusers (encoders.md 1.7), which become `decoder.upsamples.3.…` and so
 * on; names_vae.c. */
lt_status names_of_vae(struct tensor_info *tensors, size_t count, const char *path,
                       struct lt_arena *arena, struct lt_error *error);

enum names_form {
    NAMES_UMT5_HUGGINGFACE, /* transformers, ComfyUI */
    NAMES_UMT5_GGUF,
    NAMES_VISION_HUGGINGFACE, /* transformers, ComfyUI's clip_vision_h */
    NAMES_VISION_WAN,
    NAMES_VISION_OPEN_CLIP,
    NAMES_AUDIO, /* transformers */
};

/* The other way: how `name` is spelled in a published form, itself where the form has no other. */
void names_in_form(enum names_form form, const char *name, char *to, size_t size);
