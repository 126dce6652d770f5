/* LoRA files on top of one model's weights, at run time (dit.md 5, pipeline.md 4.3). Base weights
 * are never changed: what the files add lies beside them and is applied when a tensor is used.
 *
 *   linear      y = W x + b becomes  y = gain·(W x) + b + Σ B (s · (A x))
 *                 one pair A [R, in], B [out, R] for all LoRAs, their ranks side by side; s [R] is
 *                 strength · alpha/r in f32, so a change of strength reads nothing
 *   dense diff  another term with A the identity and B the difference
 *   DoRA        W' = W + s·(W1·m/‖W‖ - W) row by row: `gain` on W x, m/‖W‖ folded into B
 *   vectors     norms, biases, modulation: t + Σ s·diff
 *
 * A set gives its tensors to the store as extras (layout.h): they lie in the slab of their block
 * and move with it. They are written one tensor at a time, from the file through one piece of at
 * most 1 MiB straight to their place, so the f32 and the bf16 form of more than a piece never
 * coexist. With blocks on disk the slots of a ring could hold many ranks at once; a *streamed* set
 * keeps nothing in slabs and reads the pair of one linear from the LoRA files when it is used: the
 * bytes are those a spill file would have, without a second copy on disk and without the writes.
 *
 * One thread uses a set (find, terms, strengths); the store's copy queue calls the fill. */
#pragma once

#include "kernels/scratch.h"
#include "worker/weights/lora_names.h"
#include "worker/weights/store.h"

enum { LORA_SOURCES_MAX = 64, LORA_NAMES_SHOWN = 5 };
enum { LORA_HIDDEN_BYTES = 4 << 20 }; /* rows of scale · (A x) at a time, in all */

struct lora_source {
    const char *path;
    const float *strength;   /* one per sampling step; the last one holds from there on */
    size_t strength_count;   /* 0: 1 for all steps */
    enum lora_expert expert; /* of a file with both; ANY: such a file is an error */
    bool plain_peft;         /* PEFT files without alpha: scale 1 instead of sqrt(r) (dit.md 5.3) */
};

struct lora_params {
    const struct lora_source *source;
    size_t count;
    enum lt_type type; /* of pairs and dense differences: F32, or BF16 for bf16 products */
    bool streamed;
};

struct lora_set;

/* Opens the files and matches their keys with the tensors of `model`; of the model only DoRA
 * patches are read (row norms). A key of a kind that is not built is LT_UNSUPPORTED naming it; a
 * file of which no key matches is LT_BAD_INPUT with the first names; what is left over is a warning
 * in the log and in the report. The set keeps the LoRA files open and nothing of `model`. */
lt_status lora_set_create(const struct lora_params *params, struct tensor_file *model,
                          struct lora_set **set_out, struct lt_error *error);
void lora_set_destroy(struct lora_set **set);

/* From now on streamed: before a store has the set's extras, when the plan turns out to keep blocks
 * on disk. */
void lora_set_stream(struct lora_set *set);
bool lora_set_is_streamed(const struct lora_set *set);
/* For store_params; NULL for a streamed set. Lives as long as the set, which outlives the store. */
const struct store_extras *lora_set_extras(const struct lora_set *set);

/* Other strengths for the same files in the same order; reads nothing. */
lt_status lora_set_strengths(struct lora_set *set, const struct lora_source *source, size_t count,
                             struct lt_error *error);
/* The sampling step whose strengths count from now on; 0 at first. */
void lora_set_step(struct lora_set *set, size_t step);
/* Names the strengths of now: results kept for other ones are stale. */
struct lt_digest lora_set_state(const struct lora_set *set);

/* -- reports ----------------------------------------------------------------------------------- */

struct lora_report {
    const char *path;
    struct lt_digest fingerprint;
    enum lora_form form; /* of the first key that matched */
    size_t key_count, matched_count;
    size_t mismatched_count;            /* of the rest: the tensor is there with another shape */
    size_t patch_count, dora_count;     /* tensors patched */
    int64_t rank_min, rank_max;         /* 0 without pairs */
    const char *left[LORA_NAMES_SHOWN]; /* first keys that found no tensor; NULL behind the last */
};
size_t lora_set_count(const struct lora_set *set);
const struct lora_report *lora_set_report(const struct lora_set *set, size_t index);

struct lora_stats {
    uint64_t read_bytes;   /* of LoRA tensors, since create */
    uint64_t base_bytes;   /* read of the model, for DoRA */
    uint64_t extra_bytes;  /* of all extras, placed or streamed */
    uint64_t term_bytes;   /* the largest term: buffer of a streamed set */
    uint64_t buffer_bytes; /* piece, gains and stream buffer: memory beside index and slabs */
};
void lora_set_stats(const struct lora_set *set, struct lora_stats *stats_out);
/* What a model with this set takes beside its slabs while it runs: hidden rows and factors of one
 * linear, patched vectors of one block; of a streamed set also the largest term. */
uint64_t lora_set_use_bytes(const struct lora_set *set);
/* `most` becomes what serves its products of at most `rows` rows too. */
lt_status lora_set_scratch(const struct lora_set *set, enum lt_precision precision, int64_t rows,
                           struct lt_scratch *most, struct lt_error *error);

/* -- use --------------------------------------------------------------------------------------- */

struct lora_target; /* a tensor of the model that is patched */

/* NULL: nothing patches this tensor. */
const struct lora_target *lora_find(const struct lora_set *set, const char *name);
bool lora_target_is_matrix(const struct lora_target *target);
size_t lora_term_count(const struct lora_target *target);
/* Values of a term's scale: R of a pair, `in` of a dense difference, the length of a vector. */
int64_t lora_term_rank(const struct lora_target *target, size_t index);
/* Writes them; false when all are zero: the term adds nothing at this step. */
bool lora_term_scale(const struct lora_set *set, const struct lora_target *target, size_t index,
                     float *scale);
/* a [R, in] (data NULL: the identity), b [out, R]; of a vector only b [length] f32. Valid while
 * the block is acquired; of a streamed set in RAM, and until the next call. */
lt_status lora_term_views(struct lora_set *set, const struct lora_target *target, size_t index,
                          const struct store *store, struct lt_view *a_out, struct lt_view *b_out,
                          struct lt_error *error);
/* gain - 1 of every row of a matrix, or of every value of a vector (a tensor that is replaced:
 * -strength); false when there is none at this step. */
bool lora_target_gain(const struct lora_set *set, const struct lora_target *target, float *gain);
/* False: no term and no gain at this step; the tensor is what the model has. */
bool lora_target_active(const struct lora_set *set, const struct lora_target *target);
