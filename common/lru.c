#include "common/lru.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct lt_lru_entry {
    struct lt_lru_entry *next; /* in its bucket */
    struct lt_lru_entry *newer, *older;
    uint64_t hash, bytes;
    void *value;
    size_t users;
    bool making, kept;
    uint8_t key[];
};

struct lt_lru {
    struct lt_lru_params params;
    pthread_mutex_t mutex;
    pthread_cond_t made;
    struct lt_lru_entry **bucket; /* a power of two of them, at least as many as entries */
    size_t bucket_count, linked;  /* linked: in buckets, with those being made */
    struct lt_lru_entry *newest, *oldest;
    struct lt_lru_stats stats;
};

lt_status lt_lru_create(const struct lt_lru_params *params, struct lt_lru **lru_out,
                        struct lt_error *error)
{
    struct lt_lru *lru = calloc(1, sizeof *lru);
    if (lru)
        lru->bucket = calloc(16, sizeof(struct lt_lru_entry *));
    if (!lru || !lru->bucket) {
        free(lru);
        return lt_fail(error, LT_NO_MEMORY, "no memory for a cache");
    }
    lru->params = *params;
    lru->bucket_count = 16;
    pthread_mutex_init(&lru->mutex, NULL);
    pthread_cond_init(&lru->made, NULL);
    *lru_out = lru;
    return LT_OK;
}

void lt_lru_destroy(struct lt_lru **lru)
{
    if (!*lru)
        return;
    lt_lru_clear(*lru);
    lt_assert((*lru)->linked == 0); /* else somebody still has an entry */
    pthread_cond_destroy(&(*lru)->made);
    pthread_mutex_destroy(&(*lru)->mutex);
    free((*lru)->bucket);
    free(*lru);
    *lru = NULL;
}

/* -- the table and the list: under the lock ---------------------------------------------------- */

static uint64_t hash_of(const uint8_t *key, size_t bytes)
{
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ key[i]) * 1099511628211u;
    return hash ^ hash >> 32;
}

static struct lt_lru_entry *find(const struct lt_lru *lru, const void *key, uint64_t hash)
{
    struct lt_lru_entry *entry = lru->bucket[hash & (lru->bucket_count - 1)];
    while (entry && (entry->hash != hash || memcmp(entry->key, key, lru->params.key_bytes) != 0))
        entry = entry->next;
    return entry;
}

static void grow(struct lt_lru *lru)
{
    struct lt_lru_entry **bucket = calloc(2 * lru->bucket_count, sizeof(struct lt_lru_entry *));
    if (!bucket)
        return; /* longer chains, nothing worse */
    for (size_t i = 0; i < lru->bucket_count; i++)
        for (struct lt_lru_entry *entry = lru->bucket[i], *next; entry; entry = next) {
            struct lt_lru_entry **to = &bucket[entry->hash & (2 * lru->bucket_count - 1)];
            next = entry->next;
            entry->next = *to;
            *to = entry;
        }
    free(lru->bucket);
    lru->bucket = bucket;
    lru->bucket_count *= 2;
}

static void link_entry(struct lt_lru *lru, struct lt_lru_entry *entry)
{
    if (lru->linked++ == lru->bucket_count)
        grow(lru);
    struct lt_lru_entry **to = &lru->bucket[entry->hash & (lru->bucket_count - 1)];
    entry->next = *to;
    *to = entry;
}

static void unlink_entry(struct lt_lru *lru, struct lt_lru_entry *entry)
{
    struct lt_lru_entry **at = &lru->bucket[entry->hash & (lru->bucket_count - 1)];
    while (*at != entry)
        at = &(*at)->next;
    *at = entry->next;
    lru->linked--;
}

static void take_off_list(struct lt_lru *lru, struct lt_lru_entry *entry)
{
    *(entry->newer ? &entry->newer->older : &lru->newest) = entry->older;
    *(entry->older ? &entry->older->newer : &lru->oldest) = entry->newer;
    entry->newer = entry->older = NULL;
}

static void put_newest(struct lt_lru *lru, struct lt_lru_entry *entry)
{
    entry->older = lru->newest;
    *(lru->newest ? &lru->newest->newer : &lru->oldest) = entry;
    lru->newest = entry;
}

/* Not kept any more; the value goes now, or with its last user. */
static void drop(struct lt_lru *lru, struct lt_lru_entry *entry)
{
    take_off_list(lru, entry);
    unlink_entry(lru, entry);
    entry->kept = false;
    lru->stats.entries--;
    lru->stats.bytes -= entry->bytes;
    if (entry->users > 0)
        return;
    lru->params.free_value(entry->value);
    free(entry);
}

static void keep(struct lt_lru *lru, struct lt_lru_entry *entry)
{
    if (entry->bytes > lru->params.bytes_max || lru->params.entries_max == 0) {
        unlink_entry(lru, entry);
        return;
    }
    while (lru->stats.entries >= lru->params.entries_max ||
           lru->stats.bytes > lru->params.bytes_max - entry->bytes) {
        drop(lru, lru->oldest);
        lru->stats.evictions++;
    }
    entry->kept = true;
    put_newest(lru, entry);
    lru->stats.entries++;
    lru->stats.bytes += entry->bytes;
}

/* -- taking ------------------------------------------------------------------------------------ */

static lt_status make_entry(struct lt_lru *lru, const void *key, uint64_t hash, lt_lru_make *make,
                            void *context, struct lt_lru_entry **entry_out, struct lt_error *error)
{
    struct lt_lru_entry *entry = calloc(1, sizeof *entry + lru->params.key_bytes);
    if (!entry)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a cache entry");
    memcpy(entry->key, key, lru->params.key_bytes);
    entry->hash = hash;
    entry->users = 1;
    entry->making = true;
    link_entry(lru, entry);
    lru->stats.misses++;
    pthread_mutex_unlock(&lru->mutex);
    const lt_status status = make(context, key, &entry->value, &entry->bytes, error);
    pthread_mutex_lock(&lru->mutex);
    entry->making = false;
    if (status == LT_OK) {
        keep(lru, entry);
        *entry_out = entry;
    } else {
        unlink_entry(lru, entry);
        free(entry);
    }
    pthread_cond_broadcast(&lru->made);
    return status;
}

lt_status lt_lru_take(struct lt_lru *lru, const void *key, lt_lru_make *make, void *context,
                      struct lt_lru_entry **entry_out, struct lt_error *error)
{
    const uint64_t hash = hash_of(key, lru->params.key_bytes);
    lt_status status = LT_OK;
    pthread_mutex_lock(&lru->mutex);
    struct lt_lru_entry *entry;
    while ((entry = find(lru, key, hash)) != NULL && entry->making)
        pthread_cond_wait(&lru->made, &lru->mutex);
    if (entry) {
        take_off_list(lru, entry);
        put_newest(lru, entry);
        entry->users++;
        lru->stats.hits++;
        *entry_out = entry;
    } else {
        status = make_entry(lru, key, hash, make, context, entry_out, error);
    }
    pthread_mutex_unlock(&lru->mutex);
    return status;
}

void *lt_lru_value(const struct lt_lru_entry *entry)
{
    return entry->value;
}

void lt_lru_release(struct lt_lru *lru, struct lt_lru_entry *entry)
{
    pthread_mutex_lock(&lru->mutex);
    lt_assert(entry->users > 0);
    if (--entry->users == 0 && !entry->kept) {
        lru->params.free_value(entry->value);
        free(entry);
    }
    pthread_mutex_unlock(&lru->mutex);
}

void lt_lru_clear(struct lt_lru *lru)
{
    pthread_mutex_lock(&lru->mutex);
    while (lru->oldest)
        drop(lru, lru->oldest);
    pthread_mutex_unlock(&lru->mutex);
}

void lt_lru_stats(struct lt_lru *lru, struct lt_lru_stats *stats_out)
{
    pthread_mutex_lock(&lru->mutex);
    *stats_out = lru->stats;
    pthread_mutex_unlock(&lru->mutex);
}
