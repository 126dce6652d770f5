/* What a transformer file is, told by its tensors only (dit.md 1.6), and the table of known
 * variants (1.5). */
#pragma once

#include "worker/weights/tensor_file.h"

enum dit_variant {
    DIT_VARIANT_T2V,     /* 2.1 T2V and both 2.2 experts: the same tensors */
    DIT_VARIANT_I2V_21,  /* image cross-attention */
    DIT_VARIANT_FLF2V,   /* image cross-attention and img_emb.emb_pos */
    DIT_VARIANT_I2V_22,  /* in_dim 36, no image cross-attention */
    DIT_VARIANT_TI2V_5B, /* 48 channels, per-frame timesteps */
    DIT_VARIANT_ANIMATE,
    DIT_VARIANT_TALK_ADDON, /* to be merged onto I2V_21 */
};

/* Animate's face parts: motion encoder, face encoder and fuser blocks (dit.md 3). */
enum { FACE_LEVELS_MAX = 8 };
struct face_config {
    int64_t size; /* rows and columns of a face, 512; 0: the file has no such parts */
    int64_t channels[FACE_LEVELS_MAX + 1]; /* of the motion encoder at size, size/2, …, 4 */
    int64_t motion_dim, motion_basis;      /* 512, 20 */
    int64_t dim, heads;                    /* of the face encoder: 1024, 4 */
    int64_t every;                         /* a fuser after blocks 0, 5, 10, …: 5 */
};

/* Of the MultiTalk / InfiniteTalk add-on (dit.md 4.1); all 0: the file has none. */
struct talk_config {
    int64_t features; /* values of a video frame: 12 hidden layers of 768 */
    int64_t hidden;   /* 512 */
    int64_t tokens;   /* of a latent frame and speaker: 32 */
    int64_t dim;      /* of a token: 768 */
};

struct dit_config {
    enum dit_variant variant;
    int64_t dim, ffn_dim, head_count,
        layer_count; /* head width = dim / head_count, 128 in every Wan */
    int64_t in_channels, out_channels;
    int64_t text_dim, freq_dim; /* from text_embedding.0.weight and time_embedding.0.weight */
    int64_t text_len;           /* 512; small test models override it (--set text_len=8) */
    int64_t pose_channels;      /* of pose_patch_embedding: 16; 0: the file has none */
    struct face_config face;
    struct talk_config talk;
    bool image_attention, image_positions;
    float epsilon; /* 1e-6 */
};

/* LT_UNSUPPORTED names the variant of files we know but do not run; LT_BAD_INPUT names what is
 * missing. */
lt_status dit_config_detect(const struct tensor_file *file, struct dit_config *config_out,
                            struct lt_error *error);
const char *dit_variant_name(enum dit_variant variant); /* "t2v", "i2v-2.1", … */

/* A named row of dit.md 1.5 for synth: "t2v-1.3b", "t2v-14b", "i2v-14b", "flf2v-14b", "i2v-a14b",
 * "ti2v-5b", "animate-14b", "talk-addon". */
lt_status dit_config_named(const char *name, struct dit_config *config_out, struct lt_error *error);
