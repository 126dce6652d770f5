/* Which tensor lies where, worked out from a file's index alone: nothing is read, nothing placed.
 * Pure, so a planner can ask what any choice of tiers would take before the first byte moves.
 *
 * A slab holds one transformer block: the file's tensors in file order, then the extras that name
 * the block, each at a multiple of 64. Behind the blocks' slabs come the rest, which stays, and two
 * groups that are used now and then and can make room. */
#pragma once

#include "common/arena.h"
#include "worker/weights/tensor_file.h"

/* A tensor that is made instead of read: low-rank pairs and differences of LoRAs. Its name says
 * which slab it lies in ("blocks.3.self_attn.q.lora_down"), so it moves with its block. */
struct store_extra {
    const char *name;
    enum lt_type type;
    int rank;
    int64_t dim[LT_RANK_MAX];
};

struct store_extras {
    const struct store_extra *tensor;
    size_t count;
    /* Writes extra `index`, `bytes` whole, each time its slab is placed: once for a resident or
     * RAM block, once a fetch for a block on disk, once more per store_refill. Runs on the copy
     * queue's thread; one call at a time. */
    lt_status (*fill)(void *context, size_t index, void *data, size_t bytes,
                      struct lt_error *error);
    void *context;
};

typedef bool store_filter(void *context, const char *name);

/* Slabs beside the blocks: slab block_count + group. */
enum store_group {
    STORE_GROUP_REST,   /* at hand all the time */
    STORE_GROUP_TIME,   /* time_embedding, time_projection: once a forward */
    STORE_GROUP_PROMPT, /* text, image and face encoders: once a prompt or window */
    STORE_GROUP_COUNT,
};

struct layout_tensor {
    const char *name;
    struct lt_view view; /* data NULL: stored type and dims */
    size_t slab;
    uint64_t offset, bytes;  /* in the slab */
    struct tensor_info info; /* where in the file; of an extra only name, type and dims */
    bool made;               /* an extra: `extra` is its index */
    size_t extra;
};

struct layout {
    struct lt_arena arena;
    struct layout_tensor *tensor; /* by name */
    uint32_t *order;              /* to place: file order, a slab's extras behind its last tensor */
    size_t count;
    uint64_t *slab_bytes; /* [block_count + STORE_GROUP_COUNT] */
    size_t block_count;
    size_t fuser_every;          /* blocks between two face fusers */
    uint64_t weight_bytes;       /* of the tensors, without padding */
    uint64_t largest_bytes;      /* of one tensor */
    uint64_t largest_made_bytes; /* of one extra */
};

/* `wanted` NULL: all; `extras` NULL: none. On success the caller calls fini; the layout keeps
 * nothing of file or extras. */
lt_status layout_build(const struct tensor_file *file, store_filter *wanted, void *context,
                       const struct store_extras *extras, struct layout *layout_out,
                       struct lt_error *error);
void layout_fini(struct layout *layout);
/* Animate's fuser k of `fusers` runs behind block k·every: 5 as published, unless their number says
 * otherwise; 0 when it cannot be told. */
size_t layout_fuser_every(size_t fusers, size_t blocks);
size_t layout_slab_count(const struct layout *layout);
/* Of all groups together. */
uint64_t layout_group_bytes(const struct layout *layout);
const struct layout_tensor *layout_find(const struct layout *layout, const char *name);

/* -- tiers ------------------------------------------------------------------------------------- */

enum store_tier {
    STORE_TIER_DEVICE, /* resident */
    STORE_TIER_RAM,    /* master in pinned memory, copied to a slot for use */
    STORE_TIER_DISK,   /* read from the file to a slot for use */
};

enum store_order {
    STORE_ORDER_TAIL,   /* the last blocks swap */
    STORE_ORDER_SPREAD, /* evenly spread: a copy has the time of several blocks */
};

/* Zeroed: everything resident. */
struct store_params {
    struct device *device; /* NULL: a host device of the store's own, without limits */
    size_t blocks_to_swap; /* 0 … block_count; more counts as block_count */
    size_t disk_blocks;    /* how many of those have no master in RAM */
    size_t prefetch;       /* blocks fetched ahead, k; the ring has min(k + 1, swapped) slots */
    enum store_order order;
    const struct store_extras *extras; /* must outlive the store; NULL: none */
    enum store_tier group_tier;        /* of the groups but the rest, which stays */
};

/* What a store of this layout takes under these params: exactly, the store asserts it. */
struct store_memory {
    uint64_t resident_bytes; /* of the device: slabs that stay */
    uint64_t slot_bytes;     /* of one slot: the largest swapped slab */
    size_t slot_count;
    uint64_t device_bytes;  /* resident + slots */
    uint64_t staging_bytes; /* of pinned RAM, where the host cannot write the device */
    uint64_t pinned_bytes;  /* masters in RAM + staging */
    uint64_t copy_bytes;    /* to the device per forward, once the ring turns */
    uint64_t disk_bytes;    /* of those, read from disk each time */
};
void layout_memory(const struct layout *layout, const struct store_params *params, bool staged,
                   struct store_memory *memory_out);
/* The tier of every slab: tier[block_count + STORE_GROUP_COUNT]. */
void layout_tiers(const struct layout *layout, const struct store_params *params,
                  enum store_tier *tier_out);
