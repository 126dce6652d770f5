#include "proto/stream.h"

#include <stdlib.h>
#include <string.h>

void lt_stream_sender_open(struct lt_stream_sender *sender, uint64_t stream, const void *data,
                           uint64_t bytes, uint64_t offset, uint64_t credit)
{
    *sender =
        (struct lt_stream_sender){stream, data, bytes, offset < bytes ? offset : bytes, credit};
}

void lt_stream_sender_credit(struct lt_stream_sender *sender, uint64_t credit)
{
    if (__builtin_add_overflow(sender->credit, credit, &sender->credit))
        sender->credit = UINT64_MAX;
}

bool lt_stream_sender_next(const struct lt_stream_sender *sender, struct lt_chunk *chunk_out,
                           const void **payload_out, size_t *bytes_out)
{
    uint64_t bytes = sender->bytes - sender->offset;
    bytes = bytes < LT_CHUNK_BYTES_MAX ? bytes : LT_CHUNK_BYTES_MAX;
    if (bytes == 0 || sender->credit < bytes)
        return false;
    const uint8_t *payload = sender->data + sender->offset;
    *chunk_out =
        (struct lt_chunk){sender->stream, sender->offset, lt_crc32c(0, payload, (size_t)bytes)};
    *payload_out = payload;
    *bytes_out = (size_t)bytes;
    return true;
}

void lt_stream_sender_sent(struct lt_stream_sender *sender, size_t bytes)
{
    lt_assert(bytes <= sender->bytes - sender->offset && bytes <= sender->credit);
    sender->offset += bytes;
    sender->credit -= bytes;
}

bool lt_stream_sender_done(const struct lt_stream_sender *sender)
{
    return sender->offset == sender->bytes;
}

lt_status lt_stream_receiver_open(struct lt_stream_receiver *receiver, uint64_t stream,
                                  const struct lt_digest *digest, uint64_t bytes, uint64_t window,
                                  struct lt_error *error)
{
    uint8_t *data = bytes <= SIZE_MAX / 2 ? malloc(bytes ? (size_t)bytes : 1) : NULL;
    if (!data)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a blob of %llu bytes",
                       (unsigned long long)bytes);
    *receiver = (struct lt_stream_receiver){
        .stream = stream,
        .digest = *digest,
        .data = data,
        .bytes = bytes,
        .window = window < LT_CHUNK_BYTES_MAX ? LT_CHUNK_BYTES_MAX : window};
    return LT_OK;
}

void lt_stream_receiver_close(struct lt_stream_receiver *receiver)
{
    free(receiver->data);
    *receiver = (struct lt_stream_receiver){0};
}

void lt_stream_receiver_reopen(struct lt_stream_receiver *receiver, uint64_t stream,
                               uint64_t *offset_out, uint64_t *credit_out)
{
    receiver->stream = stream;
    receiver->granted = receiver->offset + receiver->window;
    *offset_out = receiver->offset;
    *credit_out = receiver->window;
}

lt_status lt_stream_receiver_chunk(struct lt_stream_receiver *receiver,
                                   const struct lt_chunk *chunk, const void *payload, size_t bytes,
                                   uint64_t *credit_out, struct lt_error *error)
{
    *credit_out = 0;
    if (bytes == 0 || bytes > LT_CHUNK_BYTES_MAX || chunk->offset > receiver->bytes ||
        bytes > receiver->bytes - chunk->offset)
        return lt_fail(error, LT_BAD_INPUT,
                       "a chunk of %zu bytes at %llu does not fit a blob of %llu", bytes,
                       (unsigned long long)chunk->offset, (unsigned long long)receiver->bytes);
    if (chunk->offset != receiver->offset)
        return LT_OK;
    if (chunk->offset + bytes > receiver->granted)
        return lt_fail(error, LT_BAD_INPUT, "a chunk reaches %llu, beyond the credit at %llu",
                       (unsigned long long)(chunk->offset + bytes),
                       (unsigned long long)receiver->granted);
    if (lt_crc32c(0, payload, bytes) != chunk->crc32c)
        return lt_fail(error, LT_BAD_INPUT, "a chunk at %llu is damaged (CRC)",
                       (unsigned long long)chunk->offset);
    memcpy(receiver->data + receiver->offset, payload, bytes);
    receiver->offset += bytes;
    /* Top the credit up when half of it is used, so that the sender never runs dry on a fast link.
     */
    if (receiver->granted - receiver->offset <= receiver->window / 2 &&
        receiver->granted < receiver->bytes) {
        *credit_out = receiver->offset + receiver->window - receiver->granted;
        receiver->granted += *credit_out;
    }
    return LT_OK;
}

bool lt_stream_receiver_done(const struct lt_stream_receiver *receiver)
{
    return receiver->data && receiver->offset == receiver->bytes;
}

bool lt_stream_receiver_verify(const struct lt_stream_receiver *receiver)
{
    const struct lt_digest digest = lt_sha256(receiver->data, (size_t)receiver->bytes);
    return lt_stream_receiver_done(receiver) && lt_digest_equal(&digest, &receiver->digest);
}

uint8_t *lt_stream_receiver_take(struct lt_stream_receiver *receiver)
{
    uint8_t *data = receiver->data;
    *receiver = (struct lt_stream_receiver){0};
    return data;
}
