/* The weights of one model, resident in slabs: one slab per transformer block (all its tensors,
 * quantised and F32), one for the rest. Today every slab is placed in RAM at load; tiers and
 * swapping come behind this same interface, so model code always brackets the use of a block by
 * acquire and release. */
#pragma once

#include "worker/weights/tensor_file.h"

struct store;

struct store_stats {
    uint64_t weight_bytes;       /* placed now */
    uint64_t read_bytes;         /* read from the file since create */
    uint64_t staging_peak_bytes; /* extra memory while loading */
    double load_seconds;
    size_t tensor_count, slab_count;
};

/* Loads every tensor of `file` whose name `wanted` accepts (NULL: all), in file order, one in
 * flight. Tensors named "blocks.<n>.…" go to slab n. On success the store owns nothing of the file
 * (the caller may close it); on failure nothing stays. */
typedef bool store_filter(void *context, const char *name);
lt_status store_load(struct tensor_file *file, store_filter *wanted, void *context,
                     struct store **store_out, struct lt_error *error);
void store_destroy(struct store **store);

size_t store_block_count(const struct store *store);
/* Until the matching release the views of block `block` are valid and resident. */
lt_status store_acquire(struct store *store, size_t block, struct lt_error *error);
void store_release(struct store *store, size_t block);

/* View of a tensor with its stored type and dims. Missing: LT_NOT_FOUND naming tensor and file. */
lt_status store_tensor(const struct store *store, const char *name, struct lt_view *view_out,
                       struct lt_error *error);
/* Same, and it must hold exactly these dims by element count (dit.md 1.2: match by count, not by
 * rank); the returned view has the dims asked for. Wrong: LT_BAD_INPUT naming tensor, file,
 * expected, found. */
lt_status store_tensor_shaped(const struct store *store, const char *name, int rank,
                              const int64_t *dim, struct lt_view *view_out, struct lt_error *error);
bool store_has(const struct store *store, const char *name);

void store_stats(const struct store *store, struct store_stats *stats_out);
