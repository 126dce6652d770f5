/* A link carries packets between a coordinator and its workers: ZeroMQ (link_zmq.h) or memory
 * (link_memory.h). A packet is one message, its peer, and for chunks the payload. Links deliver in
 * order per (peer, channel), may lose or repeat packets when a connection breaks, and never block:
 * the sessions above repair. */
#pragma once

#include "proto/message.h"

struct lt_peer {
    uint8_t id[16]; /* 8 bytes of worker key or name hash, 8 bytes of boot nonce */
};

struct lt_packet {
    struct lt_peer peer; /* on a worker's link: ignored on send, zero on receive */
    struct lt_message message;
    const void *payload; /* CHUNK only */
    size_t payload_bytes;
};

struct lt_link;

struct lt_link_ops {
    /* Copies what it needs. LT_LINK: the peer is not reachable now; LT_BUSY: its queue is full, try
     * later. */
    lt_status (*send)(struct lt_link *link, const struct lt_packet *packet, struct lt_error *error);
    /* Waits until `timeout_ms` (-1: for ever, 0: not at all). *got_out false: nothing came. The
     * packet's strings, arrays and payload live until the next receive. A packet that cannot be
     * decoded is dropped, counted and logged (`wire.rejected`); it is never an error of this call.
     */
    lt_status (*receive)(struct lt_link *link, int timeout_ms, struct lt_packet *packet_out,
                         bool *got_out, struct lt_error *error);
    /* Makes a waiting receive return at once; the only call that other threads may make. */
    void (*wake)(struct lt_link *link);
    void (*destroy)(struct lt_link *link);
};

/* What one channel carried: whole packets, and the chunks' payload in them. */
struct lt_traffic {
    uint64_t sent_bytes, sent_payload_bytes, received_bytes, received_payload_bytes;
};

struct lt_link {
    const struct lt_link_ops *ops;
    struct lt_traffic
        traffic[2]; /* by enum lt_channel; read by the thread that sends and receives */
};
