/* The rooms of the transformer, for its own files only:
 *
 *   dit_weights.c   the tensors of a block, found and checked
 *   dit_context.c   what a prompt embeds to, and the keys and values kept of it
 *   dit_embed.c     latents to tokens, timesteps to modulation, the grid to rotation
 *   dit.c           the blocks, over a batch; tokens to latents
 *   dit_reuse.c     what the blocks added, kept for a later step or taken from an earlier one
 *   dit_memory.c    what a forward takes
 *   animate.c       Animate's pose and face (with motion.c)
 *   talk.c          speech of MultiTalk and InfiniteTalk */
#pragma once

#include "worker/model/dit.h"
#include "worker/model/net.h"

enum {
    HEAD_WIDTH = 128,
    SPACE_PAIRS =
        HEAD_WIDTH / 6, /* of a head's 64 pairs 21 turn with the row, 21 with the column */
    TIME_PAIRS = HEAD_WIDTH / 2 - 2 * SPACE_PAIRS, /* and 22 with the frame */
    FFN_CHUNK = 2048,
    IMAGE_DIM = 1280,
    IMAGE_TOKENS = 257
};

struct dit {
    struct dit_config config;
    struct net net;
    struct lt_arena patched; /* net.patched */
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

/* -- cache ------------------------------------------------------------------------------------- */

/* Values that stay the same over steps, kept in the exec's memory while they fit. */
struct dit_cache {
    struct lt_exec *exec;
    size_t bytes, bytes_max;
    uint64_t computed; /* how often values were asked for and not there */
};

/* *slot, or with *fresh_out room [rows, columns] f32 that the caller fills: it is *slot's from now
 * on when it fits the cache, else of the arena. */
lt_status dit_cache_take(struct dit_cache *cache, struct net *net, struct lt_view *slot,
                         int64_t rows, int64_t columns, struct lt_view *view_out, bool *fresh_out,
                         struct lt_error *error);
/* Is it there, or is there room for it? */
bool dit_cache_fits(const struct dit_cache *cache, const struct lt_view *slot, int64_t rows,
                    int64_t columns);
/* Empties a slot: at the end, or because filling it failed. */
void dit_cache_drop(struct dit_cache *cache, struct lt_view *slot);
/* Fills a slot whatever the budget: for what is small or always needed. */
lt_status dit_cache_keep(struct dit_cache *cache, struct lt_view *slot, int64_t rows,
                         int64_t columns, struct lt_error *error);

/* -- context ----------------------------------------------------------------------------------- */

enum dit_tokens { DIT_TOKENS_TEXT, DIT_TOKENS_NAG, DIT_TOKENS_IMAGE, DIT_TOKENS_COUNT };

struct dit_context {
    struct dit *dit;
    struct lt_view tokens[DIT_TOKENS_COUNT];  /* [n, d] f32; data NULL: not given */
    float last_key_bias[DIT_TOKENS_COUNT];    /* ln of how often the last row counts */
    struct lt_view (*keys)[DIT_TOKENS_COUNT]; /* per block: keys, then values, [2·n, d] */
    struct dit_cache cache;
};

/* Keys and values [n, d] of the context's tokens for block n. */
lt_status dit_context_keys(struct dit_context *context, size_t n, const struct block *block,
                           enum dit_tokens which, struct lt_view *k_out, struct lt_view *v_out,
                           struct lt_error *error);

/* -- one input of a batch ---------------------------------------------------------------------- */

struct pass {
    const struct dit_inputs *inputs;
    const struct dit_options *options;
    int64_t frames, rows, columns, tokens; /* of the patch grid */
    struct lt_view x;                      /* [L, d], the residual stream */
    int64_t groups, group_rows;            /* timesteps, and tokens that share one; 0: all do */
    struct lt_view e, e0;                  /* [G, d], [G, 6·d]: one row per timestep */
    struct lt_view rope_time, rope_row, rope_column;
    struct lt_view before; /* [L, d]: x before the blocks, where their sum is kept */
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
    struct lt_view position;           /* [L]: which speaker a token belongs to; talk only */
    struct lt_view stored, modulation; /* [6, d] of the block's file, [6, G, d] of block and pass */
};

/* The buffer's rows of one pass. */
static inline struct lt_view dit_rows(const struct lt_view *buffer, const struct pass *pass)
{
    return lt_view_rows(buffer, 0, pass->tokens);
}

/* Before and after the blocks (dit.h, enum dit_reuse). Use buffers A and Q. */
lt_status dit_reuse_begin(struct forward *f, struct pass *pass, struct lt_error *error);
lt_status dit_reuse_end(struct forward *f, const struct pass *pass, struct lt_error *error);

/* e [G, d] and e0 [G, 6·d] of timesteps, from the arena (dit.md 2.3). */
lt_status dit_embed_times(struct dit *dit, const double *timestep, int64_t groups,
                          struct lt_view *e_out, struct lt_view *e0_out, struct lt_error *error);

/* out = x with its heads attending to the keys: [L, d], [L, d], [S, d]. */
lt_status dit_attend(struct dit *dit, const struct lt_view *out, const struct lt_view *q,
                     const struct lt_view *k, const struct lt_view *v, float last_key_bias,
                     struct lt_error *error);
/* X += strength · in. */
lt_status dit_add_scaled(struct dit *dit, const struct lt_view *x, const struct lt_view *in,
                         double strength, struct lt_error *error);
lt_status dit_rms(struct dit *dit, const struct lt_view *x, const struct lt_view *weight,
                  struct lt_error *error);

/* -- animate.c --------------------------------------------------------------------------------- */

struct animate_context {
    struct dit *dit;
    struct lt_view pose;        /* the caller's; data NULL: none */
    struct lt_view pose_tokens; /* [(F-1)·S, d] */
    struct lt_view motion;      /* [F·(heads + 1), d]; data NULL: no face */
    struct lt_view *keys;       /* per fuser */
    struct dit_cache cache;
};

/* motion[P, motion_dim] -> tokens [((P-1)/4 + 2)·(heads + 1), d]: a frame of zeros, then what
 * moves.
 */
lt_status animate_encode_face(struct dit *dit, const struct lt_view *motion,
                              const struct lt_view *tokens, struct lt_error *error);
/* Every tensor of the parts the file has. */
lt_status animate_check(const struct dit *dit, struct lt_error *error);
/* `most` becomes what serves its ops too. */
lt_status animate_scratch(const struct dit_config *config, enum lt_precision precision,
                          struct lt_scratch *most, struct lt_error *error);
/* Do pose and face fit the pass? */
lt_status animate_begin(const struct pass *pass, struct lt_error *error);
/* X of all frames but the first += the pose; before the blocks. Uses buffer Q. */
lt_status animate_add_pose(struct forward *f, const struct pass *pass, struct lt_error *error);
/* After block n: X += its fuser, where there is one. Uses buffers A and Q. */
lt_status animate_fuse(struct forward *f, const struct pass *pass, size_t n,
                       struct lt_error *error);

/* -- talk.c ------------------------------------------------------------------------------------ */

struct talk_context {
    struct dit *dit;
    int64_t speakers, frames;
    struct lt_view tokens;           /* [F·speakers·tokens, dim] */
    struct lt_view masks;            /* several speakers: [S, 128], ones and zeros in speakers + 1
                                        columns, zeros in the others */
    struct lt_view classes;          /* [2, speakers + 1]: sizes of the masks, first positions */
    int64_t mask_rows, mask_columns; /* S = rows · columns */
    struct lt_view *keys;            /* per block: [F·speakers·tokens, 2d] */
    struct dit_cache cache;
};

lt_status talk_check(const struct dit *dit, struct lt_error *error);
/* Speech against the slice; nothing is taken. */
lt_status talk_begin(const struct pass *pass, struct lt_error *error);
/* Between self-attention's queries and keys (in buffers Q and K) and its result: who is meant, into
 * the forward's positions. Uses buffer A. */
lt_status talk_look(struct forward *f, const struct pass *pass, struct lt_error *error);
/* X += audio_scale · block n's audio attention. Uses buffers A, Q and K. */
lt_status talk_listen(struct forward *f, const struct pass *pass, size_t n, struct lt_error *error);
