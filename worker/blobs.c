#include "worker/blobs.h"

#include <stdlib.h>
#include <string.h>

enum { DAMAGED_MAX = 3 }; /* a link that damages more is of no use */

struct blob *blobs_find(struct blobs *blobs, const struct lt_digest *digest)
{
    for (int i = 0; i < BLOBS_MAX; i++)
        if (blobs->blob[i].state != BLOB_NONE && lt_digest_equal(&blobs->blob[i].digest, digest))
            return &blobs->blob[i];
    return NULL;
}

struct blob *blobs_by_stream(struct blobs *blobs, uint64_t stream)
{
    for (int i = 0; i < BLOBS_MAX; i++)
        if (blobs->blob[i].state == BLOB_FETCHING && blobs->blob[i].receiver.stream == stream &&
            stream != 0)
            return &blobs->blob[i];
    return NULL;
}

static void drop(struct blobs *blobs, struct blob *blob)
{
    if (blob->state == BLOB_READY || blob->state == BLOB_FETCHING)
        blobs->held_bytes -= blob->bytes;
    free(blob->data);
    lt_stream_receiver_close(&blob->receiver);
    *blob = (struct blob){0};
}

/* Lets unused blobs go, longest unused first, until the rest fits. */
static void shrink(struct blobs *blobs)
{
    while (blobs->held_bytes > blobs->cache_bytes) {
        struct blob *oldest = NULL;
        for (int i = 0; i < BLOBS_MAX; i++) {
            struct blob *blob = &blobs->blob[i];
            if (blob->state != BLOB_NONE && blob->users == 0 &&
                (!oldest || blob->used < oldest->used))
                oldest = blob;
        }
        if (!oldest)
            return; /* all are needed now */
        drop(blobs, oldest);
    }
}

static struct blob *free_slot(struct blobs *blobs)
{
    struct blob *oldest = NULL;
    for (int i = 0; i < BLOBS_MAX; i++) {
        struct blob *blob = &blobs->blob[i];
        if (blob->state == BLOB_NONE)
            return blob;
        if (blob->users == 0 && (!oldest || blob->used < oldest->used))
            oldest = blob;
    }
    if (oldest)
        drop(blobs, oldest);
    return oldest;
}

struct blob *blobs_use(struct blobs *blobs, const struct lt_digest *digest, uint64_t bytes,
                       uint64_t window, struct lt_error *error)
{
    struct blob *blob = blobs_find(blobs, digest);
    if (blob && blob->state == BLOB_FAILED && blob->users == 0) {
        drop(blobs, blob);
        blob = NULL;
    }
    if (blob && blob->bytes != bytes) {
        lt_fail(error, LT_BAD_INPUT, "a blob announced with %llu bytes is known to have %llu",
                (unsigned long long)bytes, (unsigned long long)blob->bytes);
        return NULL;
    }
    if (!blob) {
        blob = free_slot(blobs);
        if (!blob) {
            lt_fail(error, LT_NO_MEMORY, "more than %d blobs are needed at once", BLOBS_MAX);
            return NULL;
        }
        if (lt_stream_receiver_open(&blob->receiver, 0, digest, bytes, window, error) != LT_OK)
            return NULL;
        blob->state = BLOB_FETCHING;
        blob->digest = *digest;
        blob->bytes = bytes;
        blobs->held_bytes += bytes;
    }
    blob->users++;
    blob->used = ++blobs->clock;
    shrink(blobs);
    return blob;
}

void blobs_release(struct blobs *blobs, const struct lt_digest *digest)
{
    struct blob *blob = blobs_find(blobs, digest);
    lt_assert(blob && blob->users > 0);
    blob->users--;
    blob->used = ++blobs->clock;
    if (blob->users == 0 && blob->state != BLOB_READY)
        drop(blobs, blob); /* half a blob serves nobody */
    shrink(blobs);
}

void blobs_complete(struct blobs *blobs, struct blob *blob)
{
    if (lt_stream_receiver_verify(&blob->receiver)) {
        blob->data = lt_stream_receiver_take(&blob->receiver);
        blob->state = BLOB_READY;
        return;
    }
    blob->receiver.offset = 0;
    blobs_damaged(blobs, blob);
}

void blobs_damaged(struct blobs *blobs, struct blob *blob)
{
    blob->receiver.stream = 0;
    if (++blob->damaged < DAMAGED_MAX)
        return;
    lt_stream_receiver_close(&blob->receiver);
    blobs->held_bytes -= blob->bytes;
    blob->state = BLOB_FAILED;
}

void blobs_fini(struct blobs *blobs)
{
    for (int i = 0; i < BLOBS_MAX; i++)
        if (blobs->blob[i].state != BLOB_NONE)
            drop(blobs, &blobs->blob[i]);
}
