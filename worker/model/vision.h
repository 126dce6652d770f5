/* The image encoder: the visual tower of CLIP ViT-H/14 up to its last block but one (encoders.md
 * 8), any size by its tensors. Files of three spellings are one by then (worker/weights/names.h).
 *
 * One vision is used by one thread at a time. Weights stay in the store. */
#pragma once

#include "kernels/scratch.h"
#include "worker/model/net.h"

struct vision_config {
    int64_t width, ffn_dim, layer_count; /* all layers of the file; the last is not run */
    int64_t head_count;                  /* not told by tensors: 16 */
    int64_t patch, grid;                 /* pixels a side of a patch, patches a side of an image */
    bool fused;                          /* q, k and v are rows of one matrix */
};

/* LT_BAD_INPUT names what is missing. */
lt_status vision_config_detect(const struct tensor_file *file, struct vision_config *config_out,
                               struct lt_error *error);
/* ViT-H/14 as ComfyUI's clip_vision_h.safetensors has it. */
struct vision_config vision_config_default(void);

/* A store_filter: takes what the encoder needs, `config` a struct vision_config. */
bool vision_wants(void *config, const char *name);

struct vision;

/* Keeps references to all three. Every missing or wrong tensor is told before any work. */
lt_status vision_create(const struct vision_config *config, struct store *store,
                        const struct lt_kernels *kernels, struct lt_exec *exec,
                        struct vision **vision_out, struct lt_error *error);
void vision_destroy(struct vision **vision);

static inline int64_t vision_image_size(const struct vision_config *config)
{
    return config->patch * config->grid; /* 224 */
}

static inline int64_t vision_token_count(const struct vision_config *config)
{
    return config->grid * config->grid + 1; /* 257: the class token, then patches row by row */
}

/* pixels: f32 [3, size, size], prepared (image.h); clip: f32 [tokens, width], written on success
 * only. The exec's cancel flag ends it between steps. */
lt_status vision_encode(struct vision *vision, const struct lt_view *pixels, struct lt_view *clip,
                        struct lt_error *error);

/* Bytes of activations vision_encode takes, beside the exec's scratch. */
size_t vision_activation_bytes(const struct vision_config *config);
/* Scratch of the exec that its ops take at most. */
lt_status vision_scratch(const struct vision_config *config, enum lt_precision precision,
                         struct lt_scratch *scratch_out, struct lt_error *error);
/* The most that activations have taken so far. */
size_t vision_peak_bytes(const struct vision *vision);
