/* The rooms of the transformer, for its own files only:
 *
 *   dit_weights.c   the tensors of a block, found and checked
 *   dit_context.c   what a prompt embeds to, and the keys and values kept of it
 *   dit_embed.c     latents, timesteps and grid to tokens, modulation and rotation; tokens to
 * latents dit.c           the blocks, over a batch */
#pragma once

#include "worker/model/dit.h"
#include "worker/model/net.h"

enum { HEAD_WIDTH = 128, FFN_CHUNK = 2048, IMAGE_DIM = 1280, IMAGE_TOKENS = 257 };

struct dit {
    struct dit_config config;
    struct net net;
};

/* -- weights ----------------------------------------------------------------------------------- */

struct attention_weights {
    struct linear q, k, v, o;
    struct lt_view norm_q, norm_k;
};

struct block {
    struct attention_weights self, cross;
    struct linear k_img, v_img;
    struct lt_view norm_k_img, norm3_weight, norm3_bias, modulation;
    struct linear ffn_in, ffn_out;
};

/* Block n's tensors; their data is there while the block is acquired, their shapes always. */
lt_status dit_find_block(const struct dit *dit, size_t n, struct block *block_out,
                         struct lt_error *error);

/* -- context ----------------------------------------------------------------------------------- */

struct dit_context {
    struct dit *dit;
    struct lt_view text, image; /* [n or n+1, d], [257|514, d] f32 */
    float last_key_bias;        /* ln of how often the last text row counts */
    struct lt_view *cached; /* per block: text k, text v, image k, image v; data NULL: not kept */
    size_t bytes, cache_bytes;
    uint64_t computed;
};

enum dit_tokens { DIT_TOKENS_TEXT, DIT_TOKENS_IMAGE };

/* Keys and values [rows, d] of the context's tokens for block n: kept ones, or computed ones, which
 * live in the arena unless they are kept from now on. */
lt_status dit_context_keys(struct dit_context *context, size_t n, const struct block *block,
                           enum dit_tokens which, struct lt_view *k_out, struct lt_view *v_out,
                           struct lt_error *error);

/* -- one input of a batch ---------------------------------------------------------------------- */

struct pass {
    const struct dit_inputs *inputs;
    int64_t frames, rows, columns, tokens; /* of the patch grid */
    struct lt_view x;                      /* [L, d], the residual stream */
    struct lt_view e, e0;                  /* [G, d], [G, 6·d]: one row per timestep */
    int64_t group_rows;                    /* tokens that share a timestep; 0: all */
    struct lt_view rope_time, rope_row, rope_column;
};

/* Grid and checks; nothing is taken. */
lt_status dit_pass_begin(const struct dit *dit, struct pass *pass, const struct lt_view *v,
                         struct lt_error *error);
/* Timesteps to e and e0, patches to x, rotation tables; from the arena. */
lt_status dit_pass_embed(struct dit *dit, struct pass *pass, struct lt_error *error);

/* -- forward ----------------------------------------------------------------------------------- */

/* A batch under way. The buffers serve one pass after the other; `dit.c` says what they hold. */
struct forward {
    struct dit *dit;
    struct pass *pass;
    size_t count;
    struct lt_view a, q, k, v, hidden; /* for the longest pass */
    struct lt_view stored, modulation; /* [6, d] of the block's file, [6, G, d] of block and pass */
};

/* The buffer's rows of one pass. */
static inline struct lt_view dit_rows(const struct lt_view *buffer, const struct pass *pass)
{
    return lt_view_rows(buffer, 0, pass->tokens);
}

/* out = x with its heads attending to the keys: [L, d], [L, d], [S, d]. */
lt_status dit_attend(struct dit *dit, const struct lt_view *out, const struct lt_view *q,
                     const struct lt_view *k, const struct lt_view *v, float last_key_bias,
                     struct lt_error *error);
lt_status dit_rms(struct dit *dit, const struct lt_view *x, const struct lt_view *weight,
                  struct lt_error *error);
