/* The files of one job: few objects with names such as "latents" or "predictions/17". Two kinds: a folder
 * (store_open_dir), and memory (store_create_memory) for tests and the simulator, which forgets what was not
 * synced when it is told to crash. One owner; reading objects that nobody writes is safe from other threads. */
#pragma once

#include "common/status.h"

struct store;

struct store_ops {
    /* The whole object or nothing, durable on return. */
    lt_status (*put)(struct store *store, const char *name, const void *data, size_t bytes,
                     struct lt_error *error);
    /* At `offset` of an object, which grows (with zeros) as needed. Durable after `sync`. */
    lt_status (*write)(struct store *store, const char *name, uint64_t offset, const void *data,
                       size_t bytes, struct lt_error *error);
    lt_status (*sync)(struct store *store, const char *name, struct lt_error *error);
    /* Exactly `bytes`. LT_NOT_FOUND: no such object; LT_CORRUPT: it is shorter. */
    lt_status (*read)(struct store *store, const char *name, uint64_t offset, void *data,
                      size_t bytes, struct lt_error *error);
    bool (*exists)(struct store *store, const char *name);
    /* A missing object is fine. */
    void (*remove)(struct store *store, const char *name);
    void (*destroy)(struct store *store); /* keeps the objects of a folder */
};

struct store {
    const struct store_ops *ops;
};

static inline lt_status store_put(struct store *store, const char *name, const void *data,
                                  size_t bytes, struct lt_error *error)
{
    return store->ops->put(store, name, data, bytes, error);
}

static inline lt_status store_read(struct store *store, const char *name, uint64_t offset,
                                   void *data, size_t bytes, struct lt_error *error)
{
    return store->ops->read(store, name, offset, data, bytes, error);
}

static inline lt_status store_write(struct store *store, const char *name, uint64_t offset,
                                    const void *data, size_t bytes, struct lt_error *error)
{
    return store->ops->write(store, name, offset, data, bytes, error);
}

static inline lt_status store_sync(struct store *store, const char *name, struct lt_error *error)
{
    return store->ops->sync(store, name, error);
}

static inline bool store_exists(struct store *store, const char *name)
{
    return store->ops->exists(store, name);
}

static inline void store_remove(struct store *store, const char *name)
{
    store->ops->remove(store, name);
}

void store_destroy(struct store **store);

/* Objects are files below `dir`, which is created. */
lt_status store_open_dir(const char *dir, struct store **store_out, struct lt_error *error);

lt_status store_create_memory(struct store **store_out, struct lt_error *error);
/* As if the power failed: objects put or synced stay, later writes are lost or torn (seeded). */
void store_memory_crash(struct store *store, uint64_t seed);
/* Objects held now. */
size_t store_memory_count(const struct store *store);
