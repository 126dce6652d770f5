/* Links over ZeroMQ: a coordinator binds two ROUTER sockets, a worker connects two DEALER sockets,
 * one pair for control and one for bulk, so that beats never queue behind chunks.
 *
 * Endpoints are those of control: "ipc:///path" (bulk: path + ".bulk") or "tcp://host:port" (bulk:
 * port + 1). ipc and loopback addresses may be in the clear; any other needs CURVE keys or
 * `insecure`. A link is used by one thread, but for wake. */
#pragma once

#include "proto/link.h"

struct lt_zmq_params {
    const char *endpoint;
    const char *key_file;        /* own secret key; NULL: in the clear */
    const char *server_key_file; /* worker: the coordinator's public key (its .pub file) */
    const char
        *authorized_file; /* coordinator: public keys of workers, one a line, text behind a
                           * blank ignored, lines of '# ' too; who is not listed is refused */
    bool insecure;        /* in the clear on any address */
    struct lt_peer peer;  /* worker: its routing id */
};

/* LT_USAGE explains what is missing; LT_BUSY: the address is taken. */
lt_status lt_zmq_bind(const struct lt_zmq_params *params, struct lt_link **link_out,
                      struct lt_error *error);
lt_status lt_zmq_connect(const struct lt_zmq_params *params, struct lt_link **link_out,
                         struct lt_error *error);

/* Packets that were refused since the link was made (damaged, unknown, of the wrong side). */
uint64_t lt_zmq_rejected(const struct lt_link *link);

/* A new CURVE key pair: `path` holds the secret (mode 0600), `path`.pub the public key. An existing
 * file is LT_CONFLICT. */
lt_status lt_keygen(const char *path, struct lt_error *error);
