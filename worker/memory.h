/* Where the bytes of a worker go, decided before the first is read (pipeline.md 4.0, 4.4, 4.7).
 *
 * A worker has two places: the device (a GPU's memory, or a bounded part of main memory on the
 * host) and main memory. The plan is one sum of named lines; it chooses how many transformer blocks
 * are streamed, from where, and through how many slots, and refuses with the sum when no choice
 * fits. Pure: it reads no file and asks no device. */
#pragma once

#include "worker/weights/layout.h"

#include <stdio.h>

/*   line, text, of the device */
#define MEMORY_LINE_LIST(X)                                                                        \
    X(WEIGHTS_REST, "weights outside the blocks", 1)                                               \
    X(BLOCKS_RESIDENT, "resident blocks", 1)                                                       \
    X(SLOTS, "slots for streamed blocks", 1)                                                       \
    X(ACTIVATIONS, "activations of a forward", 1)                                                  \
    X(SCRATCH, "scratch of the kernels", 1)                                                        \
    X(CACHE, "conditioning kept over the steps", 1)                                                \
    X(DECODER, "VAE: weights, frames, history", 1)                                                 \
    X(BLOCKS_RAM, "streamed blocks kept in main memory", 0)                                        \
    X(STAGING, "staging for what is read from disk", 0)                                            \
    X(LATENTS, "latents, prompts and results", 0)                                                  \
    X(RUNTIME, "program and libraries", 0)

enum memory_line {
#define MEMORY_LINE_ENUM(name, text, device) MEMORY_##name,
    MEMORY_LINE_LIST(MEMORY_LINE_ENUM)
#undef MEMORY_LINE_ENUM
        MEMORY_LINE_COUNT
};

const char *memory_line_text(enum memory_line line);
bool memory_line_is_device(enum memory_line line);

struct memory_request {
    const struct layout *layout; /* of the model, LoRA pairs with their blocks */
    /* the work */
    uint64_t activation_bytes, scratch_bytes, cache_bytes, latent_bytes, runtime_bytes;
    uint64_t decoder_bytes; /* all of a VAE at work on the device; 0: none is planned */
    /* the machine; a limit of 0: none */
    bool device_is_ram; /* host: bytes of the device count in `ram_limit` too, nothing is staged */
    uint64_t device_limit, ram_limit;
    /* wishes; -1: the plan chooses */
    int64_t blocks_to_swap, prefetch;
    enum store_order order;
};

struct memory_plan {
    struct store_params store;   /* tiers and ring; its device is for the caller to set */
    struct store_memory weights; /* what they take */
    size_t block_count;
    bool exchange; /* transformer and VAE take turns: each goes before the other comes */
    uint64_t line[MEMORY_LINE_COUNT];
    uint64_t device_bytes, ram_bytes; /* peaks; on the host `ram_bytes` holds the device's too */
};

/* The plan with the fewest streamed blocks that fits, the VAE beside the transformer if that is
 * possible with any number of them. LT_NO_DEVICE_MEMORY or LT_NO_MEMORY: the text
 * holds the sum, the limit, and the setting that would fit, or that none does. */
lt_status memory_plan_make(const struct memory_request *request, struct memory_plan *plan_out,
                           struct lt_error *error);

/* What came of a plan with LoRA pairs in the slabs: whether they are to be streamed instead, as the
 * slots of a ring over blocks on disk would hold the pairs of all LoRAs at once. */
bool memory_plan_pairs_are_too_much(lt_status status, const struct memory_plan *plan);

/* The program before it has loaded anything (call it then), and what libraries will take of their
 * own when they first work: code that oneDNN makes, its lists of primitives, stacks. */
uint64_t memory_program_bytes(void);

/* The sum as a table. */
void memory_plan_print(const struct memory_plan *plan, const struct memory_request *request,
                       FILE *to);
/* {"swap_blocks": 8, …, "lines": {"resident_blocks": …}}, without a line end; the second one
 * without the outer braces, for an object with more. */
void memory_plan_write_json(const struct memory_plan *plan, FILE *to);
void memory_plan_write_members(const struct memory_plan *plan, FILE *to);
