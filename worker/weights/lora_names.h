/* What the keys of a LoRA file say: which tensor of the model, and which part of a patch
 * (dit.md 5.1, 5.2, 1.7). Spellings differ by tool; all are compared with dots written as
 * underscores, first as they are, then after the diffusers names were put into ours (attn1 is
 * self_attn, attn2 is cross_attn, norm2 is norm3). */
#pragma once

#include "worker/weights/tensor_file.h"

enum lora_form { /* told by the prefix of a key */
                 LORA_FORM_BARE,
                 LORA_FORM_COMFYUI,   /* diffusion_model. */
                 LORA_FORM_DIFFUSERS, /* transformer., transformer_2. */
                 LORA_FORM_PEFT,      /* base_model.model. */
                 LORA_FORM_DIFFSYNTH, /* pipe.dit. */
                 LORA_FORM_KOHYA,     /* lora_unet_ */
                 LORA_FORM_VIDEOX,    /* lora_unet__ */
                 LORA_FORM_LYCORIS,   /* lycoris_ */
                 LORA_FORM_COUNT
};
const char *lora_form_name(enum lora_form form);

enum lora_role {
    LORA_ROLE_DOWN,      /* [r, in] */
    LORA_ROLE_UP,        /* [out, r] */
    LORA_ROLE_ALPHA,     /* one number */
    LORA_ROLE_DORA,      /* [out]: row norms of the result, over those of the weight */
    LORA_ROLE_MAGNITUDE, /* the same of PEFT: over those of the weight with its patch */
    LORA_ROLE_DIFF,      /* added to a tensor */
    LORA_ROLE_SET,       /* in place of a tensor */
    LORA_ROLE_COUNT
};

enum lora_expert { LORA_EXPERT_ANY, LORA_EXPERT_HIGH, LORA_EXPERT_LOW };

enum { LORA_PATH_MAX = 256 };

struct lora_key {
    enum lora_form form;
    enum lora_role role;
    enum lora_expert expert; /* transformer. is the high-noise expert, transformer_2. the low one */
    char path[LORA_PATH_MAX]; /* of the module, without prefix and role, dots as underscores */
    const char *tensor;       /* "_weight", "_bias" or "_modulation": behind the path */
};

/* False: not a key of a LoRA. `*refused_out` is set when it is one of a kind that is not built
 * ("LoKr"), with false too; otherwise NULL. */
bool lora_key_parse(const char *name, struct lora_key *key_out, const char **refused_out);

/* Which rows of the model's tensor a patch is for: files of diffusers name the halves of a fused
 * key and value (dit.md 1.7, Animate). */
enum lora_rows { LORA_ROWS_ALL, LORA_ROWS_FIRST_HALF, LORA_ROWS_SECOND_HALF };

/* The tensors of a model by all their spellings. */
struct lora_names;
lt_status lora_names_create(const struct tensor_file *model, struct lora_names **names_out,
                            struct lt_error *error);
void lora_names_destroy(struct lora_names **names);
/* NULL: the model has no such tensor. */
const struct tensor_info *lora_names_find(const struct lora_names *names,
                                          const struct lora_key *key, enum lora_rows *rows_out);
