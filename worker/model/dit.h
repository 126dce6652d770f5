/* The Wan diffusion transformer (dit.md 2): predicts the velocity noise - x0 of a latent slice.
 *
 * Runs what the file has: text-to-video of every size, image-to-video with `y` (in_channels 36),
 * image cross-attention when its tensors are present, Animate's parts (animate.h), a timestep of
 * its own for each latent frame (2.14). One dit is used by one thread at a time. Weights stay in
 * the store. */
#pragma once

#include "kernels/exec.h"
#include "kernels/kernels.h"
#include "kernels/scratch.h"
#include "worker/model/config.h"
#include "worker/weights/lora.h"
#include "worker/weights/store.h"

#include <stdatomic.h>

struct dit;

/* Keeps references to all three; LT_UNSUPPORTED names parts of the file that are not built yet. */
lt_status dit_create(const struct dit_config *config, struct store *store,
                     const struct lt_kernels *kernels, struct lt_exec *exec, struct dit **dit_out,
                     struct lt_error *error);
void dit_destroy(struct dit **dit);
const struct dit_config *dit_config(const struct dit *dit);

/* From now on with these LoRAs (NULL: without); the set is of the same file and outlives its use.
 * Contexts made before are of other weights, and so are those made at other strengths. */
void dit_set_lora(struct dit *dit, struct lora_set *lora);

/* What is constant over the steps of a prompt: embedded text and image tokens, and every block's
 * cross-attention keys and values, kept as long as they fit `cache_bytes` and recomputed beyond
 * (dit.md 2.13). */
struct dit_context;

struct dit_prompt {          /* f32; data NULL: none, where it is not said otherwise */
    struct lt_view text;     /* [n, text_dim], 1 <= n <= text_len; needed */
    struct lt_view nag_text; /* as text: what normalised attention guidance leads away from */
    struct lt_view clip;     /* [257, 1280], or [514, 1280] with image positions */
};
lt_status dit_context_create(struct dit *dit, const struct dit_prompt *prompt, size_t cache_bytes,
                             struct dit_context **context_out, struct lt_error *error);
void dit_context_destroy(struct dit_context **context);
size_t dit_context_bytes(const struct dit_context *context);
uint64_t
dit_context_computed(const struct dit_context *context); /* key/value pairs computed so far */

/* dit.md 2.12. */
struct animate_context; /* animate.h */
struct talk_context;    /* talk.h */

struct dit_options {
    /* Normalised attention guidance, where the context has a nag_text (give it to the positive half
     * of a guidance only): 11, 2.5, 0.25 as published. */
    double nag_scale, nag_tau, nag_alpha;
    /* RIFLEx: the riflex_index-th frequency of time, from 1, becomes 0.9 · 2π / riflex_frames, the
     * latent frames of the whole run (0: of this slice). riflex_index 0: off. */
    int64_t riflex_index, riflex_frames;
    /* With rope_negative_offset S > 0 the first memory_frames M stand at times -M·S, …, -S and the
     * others at 0, 1, …; 0: all in one row from 0. */
    int64_t memory_frames, rope_negative_offset;
    /* Skip-layer guidance: blocks left out (of the negative half of a guidance). */
    const int64_t *skip_layers;
    size_t skip_count;
    double pose_strength, face_strength; /* Animate: how much of each is added; 1 */
    double audio_scale;                  /* talk: how much of the audio attention is added; 1 */
};
/* NAG as published, Animate's parts in full, everything else off. */
extern const struct dit_options dit_options_default;

/* What the blocks add to the tokens hardly changes from one step to the next (pipeline.md 5). */
enum dit_reuse {
    DIT_REUSE_NONE,
    DIT_REUSE_KEEP, /* written to `added` */
    DIT_REUSE_ADD,  /* `added` is added in place of running the blocks; head and pose run */
};

struct dit_inputs {
    struct lt_view x;        /* [C, F, h, w] f32, h and w even */
    struct lt_view y;        /* [in_channels - C, F, h, w] f32; data NULL: none */
    double timestep;         /* 0 … 1000 */
    const double *timesteps; /* one per latent frame [F], in place of `timestep`; NULL: none */
    struct dit_context *context;
    struct animate_context *animate;   /* NULL: none */
    struct talk_context *talk;         /* NULL: none */
    const struct dit_options *options; /* NULL: the default */
    atomic_uint *done;                 /* counts finished blocks; NULL: nobody watches */
    enum dit_reuse reuse;
    struct lt_view added; /* [L, d] f32 or bf16, of the caller; with reuse only */
};

/* v[i]: [C, F, h, w] f32 for inputs[i], written on success only. All `count` inputs (windows, the
 * halves of a guidance) go through a block before the next block is acquired, so its weights are
 * fetched once for all; each gives the bits it would give alone. The exec's cancel flag ends it
 * between ops. */
lt_status dit_forward(struct dit *dit, const struct dit_inputs *inputs, size_t count,
                      struct lt_view *v, struct lt_error *error);

/* distance_out [count, count] f32: mean|e_i - e_j| / mean|e_j| of the time embeddings of timesteps
 * i and j (row, column), as the head is fed them, or with `projected` as the blocks are. */
lt_status dit_compare_times(struct dit *dit, const double *timestep, size_t count, bool projected,
                            float *distance_out, struct lt_error *error);

/* What a forward of `count` inputs of `tokens` tokens takes, told before it runs: of its arena
 * (small change not counted; with DIT_REUSE_KEEP tokens · dim f32 more for each), on a card of its
 * memory for inputs, outputs and small change, and of an exec's scratch. */
size_t dit_activation_bytes(const struct dit_config *config, int64_t tokens, size_t count);
size_t dit_card_bytes(const struct dit_config *config, int64_t tokens, size_t count);
lt_status dit_scratch(const struct dit_config *config, enum lt_precision precision, int64_t tokens,
                      struct lt_scratch *scratch_out, struct lt_error *error);
