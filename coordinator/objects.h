/* The files of one job: few objects with names such as "latents" or "predictions/17". Two kinds: a
 * folder (objects_open_dir), and memory (objects_create_memory) for tests and the simulator, which
 * forgets what was not synced when it is told to crash. One owner; reading objects that nobody
 * writes is safe from other threads. */
#pragma once

#include "common/status.h"

struct objects;

struct objects_ops {
    /* The whole object or nothing, durable on return. */
    lt_status (*put)(struct objects *store, const char *name, const void *data, size_t bytes,
                     struct lt_error *error);
    /* At `offset` of an object, which grows (with zeros) as needed. Durable after `sync`. */
    lt_status (*write)(struct objects *store, const char *name, uint64_t offset, const void *data,
                       size_t bytes, struct lt_error *error);
    lt_status (*sync)(struct objects *store, const char *name, struct lt_error *error);
    /* Exactly `bytes`. LT_NOT_FOUND: no such object; LT_CORRUPT: it is shorter. */
    lt_status (*read)(struct objects *store, const char *name, uint64_t offset, void *data,
                      size_t bytes, struct lt_error *error);
    /* LT_NOT_FOUND: no such object. */
    lt_status (*size)(struct objects *store, const char *name, uint64_t *bytes_out,
                      struct lt_error *error);
    /* A missing object is fine. */
    void (*remove)(struct objects *store, const char *name);
    void (*destroy)(struct objects *store); /* keeps the objects of a folder */
};

struct objects {
    const struct objects_ops *ops;
};

static inline lt_status objects_put(struct objects *store, const char *name, const void *data,
                                    size_t bytes, struct lt_error *error)
{
    return store->ops->put(store, name, data, bytes, error);
}

static inline lt_status objects_read(struct objects *store, const char *name, uint64_t offset,
                                     void *data, size_t bytes, struct lt_error *error)
{
    return store->ops->read(store, name, offset, data, bytes, error);
}

static inline lt_status objects_write(struct objects *store, const char *name, uint64_t offset,
                                      const void *data, size_t bytes, struct lt_error *error)
{
    return store->ops->write(store, name, offset, data, bytes, error);
}

static inline lt_status objects_sync(struct objects *store, const char *name,
                                     struct lt_error *error)
{
    return store->ops->sync(store, name, error);
}

static inline lt_status objects_size(struct objects *store, const char *name, uint64_t *bytes_out,
                                     struct lt_error *error)
{
    return store->ops->size(store, name, bytes_out, error);
}

static inline void objects_remove(struct objects *store, const char *name)
{
    store->ops->remove(store, name);
}

void objects_destroy(struct objects **store);

/* Objects are files below `dir`, which is created. */
lt_status objects_open_dir(const char *dir, struct objects **store_out, struct lt_error *error);

lt_status objects_create_memory(struct objects **store_out, struct lt_error *error);
/* As if the power failed: objects put or synced stay, later writes are lost or torn (seeded). */
void objects_memory_crash(struct objects *store, uint64_t seed);
/* Objects held now. */
size_t objects_memory_count(const struct objects *store);
