/* The weights of one model, in slabs over three tiers: the device, pinned RAM, disk (layout.h).
 * A block that does not stay on the device is fetched into a slot of a ring by the device's copy
 * queue, ahead of its use; masters are never copied back. The result of a forward does not depend
 * on where blocks live.
 *
 * Model code brackets the use of a block by acquire and release, once for a whole batch of inputs.
 * One thread does that; loading and fetching happen behind it. */
#pragma once

#include "worker/device.h"
#include "worker/weights/layout.h"

struct store;

struct store_stats {
    uint64_t weight_bytes;       /* of all tensors, wherever they are */
    uint64_t device_bytes;       /* taken of the device: residents and slots */
    uint64_t pinned_bytes;       /* taken of pinned RAM */
    uint64_t read_bytes;         /* read from the file since create */
    uint64_t made_bytes;         /* written by extras' fill */
    uint64_t copy_bytes;         /* fetched into slots, from RAM or disk */
    uint64_t fetch_count;        /* slabs fetched into slots */
    uint64_t staging_peak_bytes; /* extra memory while loading */
    int64_t stall_us;            /* acquire stood still for a fetch */
    int64_t load_wait_us;        /* acquire stood still for the first placement */
    double first_block_seconds;  /* until block 0 was placed; 0: it is read when it is used */
    double load_seconds;         /* until everything was placed */
    size_t tensor_count, slab_count;
};

/* Places what stays (device and RAM tiers) as `params` say, which NULL leaves all resident. Memory
 * is taken whole before the first byte is read; it is what layout_memory tells. Returns when the
 * tensors outside the blocks that stay are there; blocks follow in file order behind it, but one
 * that compute waits for goes first. The file may be closed by the caller; the store holds it while
 * it needs it. Reads that fail later are told by store_acquire or store_finish_loading, and tried
 * again by the next call. On failure nothing stays. */
lt_status store_open(struct tensor_file *file, store_filter *wanted, void *context,
                     const struct store_params *params, struct store **store_out,
                     struct lt_error *error);
/* Waits until everything that stays is placed. */
lt_status store_finish_loading(struct store *store, struct lt_error *error);
/* Both, everything resident, strictly in file order. */
lt_status store_load(struct tensor_file *file, store_filter *wanted, void *context,
                     struct store **store_out, struct lt_error *error);
void store_destroy(struct store **store);

size_t store_block_count(const struct store *store);
/* Until the matching release the tensors of block `block` are on the device. */
lt_status store_acquire(struct store *store, size_t block, struct lt_error *error);
void store_release(struct store *store, size_t block);
/* The same for what is used now and then: its tensors are found between the two only, where the
 * group does not stay on the device. */
lt_status store_acquire_group(struct store *store, enum store_group group, struct lt_error *error);
void store_release_group(struct store *store, enum store_group group);

/* View of a tensor with its stored type and dims; of a block that is swapped and not acquired
 * `data` is NULL: enough for checks. Missing: LT_NOT_FOUND naming tensor and file. */
lt_status store_tensor(const struct store *store, const char *name, struct lt_view *view_out,
                       struct lt_error *error);
/* Same, and it must hold exactly these dims by element count (dit.md 1.2: match by count, not by
 * rank); the returned view has the dims asked for. Wrong: LT_BAD_INPUT naming tensor, file,
 * expected, found. */
lt_status store_tensor_shaped(const struct store *store, const char *name, int rank,
                              const int64_t *dim, struct lt_view *view_out, struct lt_error *error);
bool store_has(const struct store *store, const char *name);

/* Has every extra written again where it lies (a LoRA's strength changed); nothing of the file is
 * read now, and only slabs that hold extras are fetched again. No block may be acquired. */
lt_status store_refill(struct store *store, struct lt_error *error);

void store_stats(const struct store *store, struct store_stats *stats_out);
