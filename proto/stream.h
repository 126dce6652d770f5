/* Credit-based transfer of one blob as chunks, with resume: pure state, no I/O. Both programs use
 * both ends.
 *
 *   receiver                                sender
 *     opens at `offset` with `credit`  --->   sends chunks while credit lasts
 *     <--- CHUNK offset, crc, bytes
 *     CREDIT more, contiguous offset  --->   …
 *
 * Chunks must arrive in order (links deliver in order within a connection); a chunk that does not
 * continue the contiguous offset is ignored, and after a new connection the receiver opens again at
 * its offset. */
#pragma once

#include "proto/message.h"

struct lt_stream_sender {
    uint64_t stream;
    const uint8_t *data; /* the caller's, until the stream ends */
    uint64_t bytes, offset, credit;
};

void lt_stream_sender_open(struct lt_stream_sender *sender, uint64_t stream, const void *data,
                           uint64_t bytes, uint64_t offset, uint64_t credit);
void lt_stream_sender_credit(struct lt_stream_sender *sender, uint64_t credit);
/* The next chunk that credit allows: false when there is none (no credit left, or all sent). The
 * caller sends it and then calls sent. */
bool lt_stream_sender_next(const struct lt_stream_sender *sender, struct lt_chunk *chunk_out,
                           const void **payload_out, size_t *bytes_out);
void lt_stream_sender_sent(struct lt_stream_sender *sender, size_t bytes);
bool lt_stream_sender_done(const struct lt_stream_sender *sender); /* every byte was handed out */

struct lt_stream_receiver {
    uint64_t stream;
    struct lt_digest digest; /* what the whole must hash to */
    uint8_t *data;           /* malloc'ed by open, freed by close unless taken */
    uint64_t bytes, offset;  /* offset: received without a gap */
    uint64_t granted;        /* the sender may send up to here */
    uint64_t window;         /* credit kept outstanding */
};

/* LT_NO_MEMORY when `bytes` cannot be held. */
lt_status lt_stream_receiver_open(struct lt_stream_receiver *receiver, uint64_t stream,
                                  const struct lt_digest *digest, uint64_t bytes, uint64_t window,
                                  struct lt_error *error);
void lt_stream_receiver_close(struct lt_stream_receiver *receiver); /* accepts a zeroed one */
/* A new connection or stream number: what was granted is void; continue at `offset` with fresh
 * credit. Gives what to put in WANT or FETCH. */
void lt_stream_receiver_reopen(struct lt_stream_receiver *receiver, uint64_t stream,
                               uint64_t *offset_out, uint64_t *credit_out);
/* Takes a chunk. LT_BAD_INPUT: it reaches beyond the blob or the credit, or its CRC is wrong: close
 * the stream. A chunk that does not continue the contiguous offset is ignored. `credit_out`: more
 * credit to send now, 0: none yet. */
lt_status lt_stream_receiver_chunk(struct lt_stream_receiver *receiver,
                                   const struct lt_chunk *chunk, const void *payload, size_t bytes,
                                   uint64_t *credit_out, struct lt_error *error);
bool lt_stream_receiver_done(const struct lt_stream_receiver *receiver); /* every byte is here */
/* All bytes hash to the digest. */
bool lt_stream_receiver_verify(const struct lt_stream_receiver *receiver);
/* Gives the bytes away: the caller frees them. */
uint8_t *lt_stream_receiver_take(struct lt_stream_receiver *receiver);
