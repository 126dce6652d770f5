/* One name for one tensor: the forms in which UMT5 text encoders are published (encoders.md 6.1)
 * become those of the original Wan files, `blocks.<n>.attn.q.weight`, so that store, inspect and
 * model know a single form. */
#pragma once

#include "common/arena.h"
#include "worker/weights/tensor_file.h"

enum names_form { /* in which text encoders are published, besides the original's */
                  NAMES_TRANSFORMERS, /* also ComfyUI's */
                  NAMES_GGUF,
};

/* The other way, for synthetic files: "blocks.0.attn.q.weight" as that form calls it. */
void names_in_form(enum names_form form, const char *name, char *to, size_t size);

/* Renames the tensors of a text encoder in place; any other file is left alone. What has no
 * counterpart there (a decoder, a second copy of the embedding) keeps its name. */
lt_status names_of_text_encoder(struct tensor_info *tensors, size_t count, const char *path,
                                struct lt_arena *arena, struct lt_error *error);
/* The same for the VAEs of diffusers (encoders.md 1.7), which become `decoder.upsamples.3.…` and so
 * on; names_vae.c. */
lt_status names_of_vae(struct tensor_info *tensors, size_t count, const char *path,
                       struct lt_arena *arena, struct lt_error *error);
