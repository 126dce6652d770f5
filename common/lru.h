/* A cache that forgets what was longest unused, bounded in entries and in bytes (pipeline.md G8).
 *
 *   G8.1 taking an entry makes it the most recent
 *   G8.2 a value is freed exactly once: when it is neither kept nor taken any more
 *   G8.3 a value larger than the whole budget is handed out and not kept
 *   G8.4 taking and evicting cost O(1)
 *   G8.5 threads that miss the same key at the same time make it once; other keys go on meanwhile
 *
 * Any thread may take and release. */
#pragma once

#include "common/status.h"

struct lt_lru;
struct lt_lru_entry;

struct lt_lru_params {
    size_t key_bytes, entries_max;
    uint64_t bytes_max;
    void (*free_value)(void *value);
};

lt_status lt_lru_create(const struct lt_lru_params *params, struct lt_lru **lru_out,
                        struct lt_error *error);
/* Every entry was released. */
void lt_lru_destroy(struct lt_lru **lru);

/* Makes the value of a key that is not kept; called without the cache's lock. */
typedef lt_status lt_lru_make(void *context, const void *key, void **value_out, uint64_t *bytes_out,
                              struct lt_error *error);
/* The entry of a key, made when it is missing. It stays valid until lt_lru_release, kept or not. A
 * failure of `make` is that caller's; others who waited for it try for themselves. */
lt_status lt_lru_take(struct lt_lru *lru, const void *key, lt_lru_make *make, void *context,
                      struct lt_lru_entry **entry_out, struct lt_error *error);
void *lt_lru_value(const struct lt_lru_entry *entry);
void lt_lru_release(struct lt_lru *lru, struct lt_lru_entry *entry);
/* Keeps nothing of what was kept. */
void lt_lru_clear(struct lt_lru *lru);

struct lt_lru_stats {
    size_t entries;
    uint64_t bytes, hits, misses, evictions;
};
void lt_lru_stats(struct lt_lru *lru, struct lt_lru_stats *stats_out);
