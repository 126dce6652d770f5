/* What the files of LoRA sets share: lora.c opens, lora_match.c finds the tensors, lora_fill.c
 * brings values to their place, lora_use.c answers while a model runs. */
#pragma once

#include "worker/weights/lora.h"

#include "common/arena.h"

/* What one file has for one tensor (or for half of its rows). */
struct lora_patch {
    uint32_t source;
    uint32_t target;
    int64_t row_first, row_count; /* of the target */
    const struct tensor_info *info[LORA_ROLE_COUNT];
    int64_t rank; /* 0: no pair */
    float factor; /* alpha / r */
    float *gain;  /* DoRA: m/‖W‖ - 1, [row_count]; NULL: none. malloc'ed */
};

/* Terms of a target: its pair if it has a rank, then one for each patch with a difference or a
 * replacement. */
struct lora_target {
    const char *name; /* in the model */
    bool matrix;
    int64_t rows, columns; /* a vector: 1, length */
    int64_t rank;          /* of the pair, all patches together */
    size_t term_count;
    uint32_t patch_first, patch_count; /* by source */
    uint32_t extra_first;              /* in the set's list */
};

struct lora_extra { /* beside store_extra, same index */
    uint32_t target, term;
    bool is_a; /* A of the pair; else B, or the difference */
};

struct lora_file {
    struct tensor_file *file;
    struct lora_report report;
    float *strength;
    size_t strength_count;
    enum lora_expert expert;
    bool plain_peft;
    bool peft_ranked;      /* a raw PEFT file: without alpha the scale is sqrt(r) */
    double metadata_alpha; /* of diffusers' metadata; 0: none */
    bool metadata_rslora;
};

struct lora_set {
    struct lt_arena arena; /* index */
    struct lora_file *source;
    size_t count;
    enum lt_type type;
    bool streamed;
    struct lora_patch *patch; /* sorted by target, then source */
    size_t patch_count;
    struct lora_target *target; /* sorted by name */
    size_t target_count;
    struct store_extras extras;
    struct lora_extra *extra;
    size_t step;
    float *piece; /* [piece_values] */
    int64_t piece_values;
    void *stream; /* one term of a streamed set */
    size_t stream_bytes;
    struct lora_stats stats;      /* but for read_bytes */
    _Atomic(uint64_t) read_bytes; /* the copy queue counts while others ask */
};

enum { LORA_NAME_BYTES = 200 }; /* shown of a key */

int64_t lora_values(const struct tensor_info *info);
bool lora_ends_with(const char *text, const char *end);
/* Fills patches, targets and extras from the opened files; counts in their reports. */
lt_status lora_match(struct lora_set *set, const struct tensor_file *model, struct lt_error *error);
/* The patch of a dense or vector term; NULL for the pair. */
const struct lora_patch *lora_term_patch(const struct lora_set *set,
                                         const struct lora_target *target, size_t term);
/* Factor of a patch at the step of now. */
float lora_strength(const struct lora_set *set, const struct lora_patch *patch);

/* Values [first, first + count) of a tensor of a LoRA file as f32, count at most piece_values. */
lt_status lora_read_values(struct lora_set *set, uint32_t source, const struct tensor_info *info,
                           int64_t first, int64_t count, float *to, struct lt_error *error);
/* store_extras.fill of a set. */
lt_status lora_fill(void *set, size_t extra, void *data, size_t bytes, struct lt_error *error);
/* Row norms of the model for the DoRA patches. */
lt_status lora_measure_gains(struct lora_set *set, struct tensor_file *model,
                             struct lt_error *error);
