/* What a LoRA file is, told without its model: whose keys it has, of what rank, and what else. */
#pragma once

#include "worker/weights/lora_names.h"

struct lora_description {
    size_t key_count; /* tensors with a key that is known */
    size_t form_keys[LORA_FORM_COUNT];
    enum lora_form form;                                    /* of most keys */
    size_t pair_count, alpha_count, dora_count, diff_count; /* diff: of whole tensors */
    size_t half_count;          /* down matrices without their up, and the other way round */
    int64_t rank_min, rank_max; /* 0 without pairs */
    double alpha_min, alpha_max;
    bool both_experts;
    const char *refused_kind, *refused_key; /* the first of a kind that is not built; NULL: none */
};

/* False: the file is no LoRA (most of its tensors have other names). Reads alphas only. */
lt_status lora_describe(struct tensor_file *file, bool *is_lora_out,
                        struct lora_description *description_out, struct lt_error *error);
