/* Objects in memory. An object that was written since its last sync remembers its synced bytes: a
 * crash picks, word by word, what reached the disk. */
#include "coordinator/objects.h"

#include "common/rng.h"

#include <stdlib.h>
#include <string.h>

struct object {
    struct object *next;
    unsigned char *data, *synced; /* synced NULL: as data */
    size_t bytes, synced_bytes;
    char name[];
};

struct memory_store {
    struct objects base;
    struct object *first;
    size_t count;
};

static struct object *find(struct objects *base, const char *name)
{
    for (struct object *o = ((struct memory_store *)base)->first; o; o = o->next)
        if (strcmp(o->name, name) == 0)
            return o;
    return NULL;
}

static lt_status find_or_add(struct objects *base, const char *name, struct object **object_out,
                             struct lt_error *error)
{
    struct memory_store *store = (struct memory_store *)base;
    struct object *object = find(base, name);
    if (!object) {
        object = calloc(1, sizeof *object + strlen(name) + 1);
        if (!object)
            return lt_fail(error, LT_NO_MEMORY, "%s: no memory", name);
        memcpy(object->name, name, strlen(name) + 1);
        object->next = store->first;
        store->first = object;
        store->count++;
    }
    *object_out = object;
    return LT_OK;
}

static lt_status resize(struct object *object, size_t bytes, struct lt_error *error)
{
    if (bytes <= object->bytes)
        return LT_OK;
    unsigned char *data = realloc(object->data, bytes);
    if (!data)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for %zu bytes", object->name, bytes);
    memset(data + object->bytes, 0, bytes - object->bytes);
    object->data = data;
    object->bytes = bytes;
    return LT_OK;
}

static void forget_synced(struct object *object)
{
    free(object->synced);
    object->synced = NULL;
    object->synced_bytes = 0;
}

static lt_status memory_put(struct objects *base, const char *name, const void *data, size_t bytes,
                            struct lt_error *error)
{
    struct object *object;
    LT_TRY(find_or_add(base, name, &object, error));
    LT_TRY(resize(object, bytes ? bytes : 1, error));
    memcpy(object->data, data, bytes);
    object->bytes = bytes;
    forget_synced(object);
    return LT_OK;
}

static lt_status memory_write(struct objects *base, const char *name, uint64_t offset,
                              const void *data, size_t bytes, struct lt_error *error)
{
    struct object *object;
    LT_TRY(find_or_add(base, name, &object, error));
    if (!object->synced) {
        object->synced = malloc(object->bytes + 1);
        if (!object->synced)
            return lt_fail(error, LT_NO_MEMORY, "%s: no memory", name);
        if (object->bytes)
            memcpy(object->synced, object->data, object->bytes);
        object->synced_bytes = object->bytes;
    }
    LT_TRY(resize(object, offset + bytes, error));
    memcpy(object->data + offset, data, bytes);
    return LT_OK;
}

static lt_status memory_sync(struct objects *base, const char *name, struct lt_error *error)
{
    (void)error;
    struct object *object = find(base, name);
    if (object)
        forget_synced(object);
    return LT_OK;
}

static lt_status memory_read(struct objects *base, const char *name, uint64_t offset, void *data,
                             size_t bytes, struct lt_error *error)
{
    const struct object *object = find(base, name);
    if (!object)
        return lt_fail(error, LT_NOT_FOUND, "%s: no such object", name);
    if (offset > object->bytes || bytes > object->bytes - offset)
        return lt_fail(error, LT_CORRUPT, "%s: %zu bytes, expected %llu", name, object->bytes,
                       (unsigned long long)(offset + bytes));
    memcpy(data, object->data + offset, bytes);
    return LT_OK;
}

static lt_status memory_size(struct objects *base, const char *name, uint64_t *bytes_out,
                             struct lt_error *error)
{
    const struct object *object = find(base, name);
    if (!object)
        return lt_fail(error, LT_NOT_FOUND, "%s: no such object", name);
    *bytes_out = object->bytes;
    return LT_OK;
}

static void free_object(struct object *object)
{
    free(object->data);
    free(object->synced);
    free(object);
}

static void memory_remove(struct objects *base, const char *name)
{
    struct memory_store *store = (struct memory_store *)base;
    for (struct object **at = &store->first; *at; at = &(*at)->next)
        if (strcmp((*at)->name, name) == 0) {
            struct object *gone = *at;
            *at = gone->next;
            free_object(gone);
            store->count--;
            return;
        }
}

static void memory_destroy(struct objects *base)
{
    struct memory_store *store = (struct memory_store *)base;
    while (store->first) {
        struct object *gone = store->first;
        store->first = gone->next;
        free_object(gone);
    }
    free(store);
}

static const struct objects_ops memory_ops = {
    .put = memory_put,
    .write = memory_write,
    .sync = memory_sync,
    .read = memory_read,
    .size = memory_size,
    .remove = memory_remove,
    .destroy = memory_destroy,
};

lt_status objects_create_memory(struct objects **store_out, struct lt_error *error)
{
    struct memory_store *store = calloc(1, sizeof *store);
    if (!store)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a store");
    store->base.ops = &memory_ops;
    *store_out = &store->base;
    return LT_OK;
}

void objects_memory_crash(struct objects *base, uint64_t seed)
{
    const struct lt_philox stream = lt_philox_stream(seed, LT_STREAM_TEST, 1, 0);
    uint64_t at = 0;
    for (struct object *o = ((struct memory_store *)base)->first; o; o = o->next) {
        if (!o->synced)
            continue;
        for (size_t i = 0; i < o->bytes; i += 8, at++) {
            uint32_t coin;
            lt_philox_u32(&stream, at, &coin, 1);
            const size_t bytes = o->bytes - i < 8 ? o->bytes - i : 8;
            if (coin & 1)
                continue;
            memset(o->data + i, 0, bytes);
            if (i < o->synced_bytes)
                memcpy(o->data + i, o->synced + i,
                       o->synced_bytes - i < bytes ? o->synced_bytes - i : bytes);
        }
        forget_synced(o);
    }
}

size_t objects_memory_count(const struct objects *base)
{
    return ((const struct memory_store *)base)->count;
}
