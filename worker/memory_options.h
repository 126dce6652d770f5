/* The options about memory that `run`, `eval` and `memory` share: a struct for their settings and
 * the rows of their tables. */
#pragma once

#include "common/option.h"
#include "worker/device.h"
#include "worker/memory.h"

#include <stddef.h>

struct memory_settings {
    uint64_t device_memory, ram, copy_bandwidth; /* 0: no limit */
    int64_t blocks_to_swap, prefetch;            /* -1: the plan chooses */
    const char *swap_order;
    bool sync_ops;
};

/* Rows for a settings struct `type` with a struct memory_settings named `member`. */
#define MEMORY_OPTION(type, member, field, kind_, name_, value, default_, ...)                     \
    {                                                                                              \
        .name = name_, .kind = LT_OPTION_##kind_, .offset = offsetof(type, member.field),          \
        .value_name = value, .default_text = default_, __VA_ARGS__                                 \
    }
#define MEMORY_OPTIONS(type, member)                                                               \
    MEMORY_OPTION(type, member, device_memory, SIZE, "device_memory", "SIZE", NULL,                \
                  .help = "limit of the device; on the host, of weights and activations"),         \
        MEMORY_OPTION(type, member, ram, SIZE, "ram", "SIZE", NULL,                                \
                      .help = "limit of main memory; blocks that do not fit are read from disk"),  \
        MEMORY_OPTION(type, member, blocks_to_swap, INT, "blocks_to_swap", "N", "-1", .min = -1,   \
                      .max = 512, .help = "transformer blocks streamed; -1: as few as fit"),       \
        MEMORY_OPTION(type, member, prefetch, INT, "prefetch", "K", "-1", .min = -1, .max = 512,   \
                      .help = "streamed blocks fetched ahead; -1: 1, or 0 where memory is short"), \
        MEMORY_OPTION(type, member, swap_order, TEXT, "swap_order", "ORDER", "spread",             \
                      .choices = "tail|spread",                                                    \
                      .help = "which blocks are streamed: the last, or evenly spread"),            \
        MEMORY_OPTION(type, member, copy_bandwidth, SIZE, "copy_bandwidth", "SIZE", NULL,          \
                      .help = "bytes a second to the device, to try a slower one; none: as it is")

/* For commands that compute. */
#define MEMORY_SYNC_OPTION(type, member)                                                           \
    MEMORY_OPTION(type, member, sync_ops, FLAG, "sync_ops", NULL, NULL,                            \
                  .help = "a card waits for each op, to name the one that failed")

static inline enum store_order memory_swap_order(const struct memory_settings *settings)
{
    return settings->swap_order && settings->swap_order[0] == 't' ? STORE_ORDER_TAIL
                                                                  : STORE_ORDER_SPREAD;
}
