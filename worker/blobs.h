/* Content-addressed blobs of a worker: being fetched, needed by a task, or kept for later within a
 * byte budget (least recently used go first). Fetched once, verified by SHA-256. Pure state; the
 * core sends what it says. */
#pragma once

#include "proto/stream.h"

enum { BLOBS_MAX = 512 };

enum blob_state { BLOB_NONE, BLOB_FETCHING, BLOB_READY, BLOB_FAILED };

struct blob {
    enum blob_state state;
    struct lt_digest digest;
    uint64_t bytes;
    uint8_t *data;                      /* READY */
    struct lt_stream_receiver receiver; /* FETCHING */
    int users;                          /* tasks that need it */
    int damaged;                        /* times a chunk or the whole was damaged */
    int64_t asked_us;                   /* last FETCH or progress */
    uint64_t used;
};

struct blobs {
    struct blob blob[BLOBS_MAX];
    uint64_t cache_bytes, held_bytes, clock;
};

/* The blob of a digest, one more user; a new one is FETCHING and has no stream yet (receiver.stream
 * 0). NULL with error: no room, or a size that contradicts what is known. */
struct blob *blobs_use(struct blobs *blobs, const struct lt_digest *digest, uint64_t bytes,
                       uint64_t window, struct lt_error *error);
void blobs_release(struct blobs *blobs, const struct lt_digest *digest);
struct blob *blobs_find(struct blobs *blobs, const struct lt_digest *digest);
struct blob *blobs_by_stream(struct blobs *blobs, uint64_t stream); /* FETCHING only */
/* All bytes are here: READY, or FETCHING from the start once more, or FAILED when it was damaged
 * too often. */
void blobs_complete(struct blobs *blobs, struct blob *blob);
/* A chunk was damaged: still FETCHING, from where it was whole, or FAILED. */
void blobs_damaged(struct blobs *blobs, struct blob *blob);
void blobs_fini(struct blobs *blobs);
