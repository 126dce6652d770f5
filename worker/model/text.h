/* The UMT5 text encoder (encoders.md 6): tokens of a prompt to the features that a diffusion
 * transformer attends to. Any size, told by the tensors. One text is used by one thread at a time;
 * weights stay in the store and are acquired block by block, so they may stream. */
#pragma once

#include "kernels/exec.h"
#include "kernels/kernels.h"
#include "kernels/scratch.h"
#include "worker/weights/store.h"

struct text;

struct text_config {
    int64_t layer_count, dim, head_count, head_width, ffn_dim;
    int64_t vocabulary_rows; /* of the embedding: tokens are 0 … rows - 1 */
    int64_t bucket_count;    /* of distances, 32 */
    float epsilon;           /* 1e-6 */
};

/* LT_BAD_INPUT names the tensor that is missing or of a wrong shape, LT_UNSUPPORTED a T5 that is
 * not UMT5. */
lt_status text_config_detect(const struct tensor_file *file, struct text_config *config_out,
                             struct lt_error *error);
/* Which tensors the encoder uses (a store_filter, no context): not a decoder, not a vocabulary. */
bool text_wants(void *context, const char *name);

/* Keeps references to store, kernels and exec. Every missing or wrong tensor is found here. */
lt_status text_create(const struct text_config *config, struct store *store,
                      const struct lt_kernels *kernels, struct lt_exec *exec,
                      struct text **text_out, struct lt_error *error);
void text_destroy(struct text **text);
const struct text_config *text_config(const struct text *text);

/* features: f32 [count, dim], contiguous, the caller's; written on success only. Exact for `count`
 * tokens alone: padding rows change nothing (encoders.md 6.3). No token, or one outside the
 * embedding: LT_BAD_INPUT. The exec's cancel flag ends it with LT_CANCELLED. */
lt_status text_encode(struct text *text, const int32_t *tokens, size_t count,
                      const struct lt_view *features, struct lt_error *error);

/* Bytes of activations that text_encode takes for so many tokens, features not counted; exact. */
size_t text_activation_bytes(const struct text_config *config, size_t tokens);
/* Scratch of the exec that its ops take. */
lt_status text_scratch(const struct text_config *config, enum lt_precision precision, size_t tokens,
                       struct lt_scratch *scratch_out, struct lt_error *error);
/* What text_encode took at most so far, for reports and tests. */
size_t text_activation_peak_bytes(const struct text *text);
