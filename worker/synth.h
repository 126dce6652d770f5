/* Synthetic model files: the real names, shapes and types of a variant, filled with weights of a
 * sane scale (or with the deterministic fill of dit.md 8.1), so that everything downstream of a
 * model file can run without one.
 *
 * Every value is a function of (seed, tensor name, index): files do not depend on the number of
 * threads, and a tensor has the same values in each quantisation before it is quantised. */
#pragma once

#include "worker/model/catalogue.h"
#include "worker/weights/gguf_write.h"

enum synth_fill_kind {
    SYNTH_FILL_RANDOM,
    SYNTH_FILL_GOLDEN, /* dit.md 8.1 */
    SYNTH_FILL_TILED,  /* as random, but a tensor repeats its first million values: a file of full
                          size in about the time its bytes take */
};

struct synth_params {
    const char *variant; /* of dit_config_named, or "vae-z16", "vae-z48", "taew2_1", "taew2_2",
                            "clip-vision", "wav2vec2", "umt5", "text", "lora" */
    const char *base;    /* of a LoRA: the transformer it is for; NULL: t2v-14b */
    const char *form;    /* of a LoRA: "comfyui", "kohya", "diffusers"; NULL: comfyui */
    int64_t rank;        /* of a LoRA; 0: 16 */
    const char *quant;   /* "q5_k_m", …; NULL: q5_k_m for transformers, bf16 for a VAE, f16 for
                            encoders and previews */
    enum synth_fill_kind fill;
    uint64_t seed;
    int64_t layers, dim, ffn, text_dim, freq_dim; /* 0: the variant's own */
    int64_t face_size;                            /* pixels a side of Animate's face; 0: 512 */
    int64_t audio_features; /* of the talk add-on: layers x width of a voice; 0: 12 x 768. Others
                               make it small throughout */
    int64_t z;              /* latent channels of a VAE; 0: 16 or 48 */
    int64_t tokens;         /* rows of "text", 0: 32; of the embedding of "umt5", 0: 256384 */
    int threads;            /* 0: all processors */
    const char
        *path; /* ends with .safetensors: that format (f32, f16, bf16 only); otherwise GGUF */
};

/* What a file will hold. Types follow dit.md 1.3, including the raised types of v.weight and
 * ffn.2.weight. */
struct synth_vocabulary;

struct synth_layout {
    struct catalogue catalogue;          /* original shapes and names */
    struct gguf_writer_tensor *tensor;   /* as stored: leading ones trimmed as quantisers do */
    struct synth_vocabulary *vocabulary; /* of a text encoder; NULL: none */
    uint32_t file_type;                  /* general.file_type */
    bool safetensors;
};

/* LT_NOT_FOUND: no such variant or quantisation, with those that exist. */
lt_status synth_layout_build(const struct synth_params *params, struct synth_layout *layout_out,
                             struct lt_error *error);
void synth_layout_fini(struct synth_layout *layout);

/* A small vocabulary that cuts any prompt: single ASCII characters, some words, bytes for the rest.
 * The pieces as a GGUF keeps them, and as a sentencepiece model. */
enum { SYNTH_PIECES_MAX = 512, SYNTH_MODEL_BYTES_MAX = 16 * 1024 };

struct synth_vocabulary {
    size_t count, model_bytes;
    const char *text[SYNTH_PIECES_MAX];
    float score[SYNTH_PIECES_MAX];
    int32_t type[SYNTH_PIECES_MAX];
    char storage[SYNTH_PIECES_MAX][16]; /* of the texts */
    uint8_t model[SYNTH_MODEL_BYTES_MAX];
};

void synth_vocabulary_build(struct synth_vocabulary *vocabulary);

/* Values [first, first + count) of a tensor, row-major. */
void synth_fill_values(const struct synth_params *params, const struct catalogue_entry *entry,
                       uint64_t first, float *out, size_t count);

struct synth_report {
    uint64_t parameters, file_bytes;
    size_t tensor_count;
};

/* synth_lora.c: the tensors of a LoRA file for that transformer. */
lt_status synth_list_lora(const struct synth_params *params, const struct dit_config *config,
                          struct catalogue *catalogue_out, struct lt_error *error);

typedef void synth_progress(void *context, uint64_t done,
                            uint64_t total); /* values; in the caller's thread */

/* Writes the file in pieces of 1 MiB a thread; on failure nothing is left of it. */
lt_status synth_write(const struct synth_params *params, synth_progress *progress, void *context,
                      struct synth_report *report_out, struct lt_error *error);
