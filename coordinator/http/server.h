/* The coordinator's HTTP API (docs/operations.md lists the requests). libmicrohttpd answers in a
 * thread of its own; every question about jobs goes to the loop through coordinator_call. */
#pragma once

#include "coordinator/coordinator.h"

struct http_server;

struct http_params {
    const char *address; /* "127.0.0.1:7700", "[::1]:7700", "0.0.0.0:7700" */
    const char *token;   /* NULL: none asked for; only loopback addresses may go without */
    bool insecure;       /* other addresses may too */
    const char *outputs; /* where the publisher writes takes */
    struct coordinator *coordinator;
    struct lt_link *link; /* for the traffic counters; read on the loop's thread */
};

/* LT_USAGE: not an address, or one that needs a token. LT_BUSY: the port is taken. */
lt_status http_server_start(const struct http_params *params, struct http_server **server_out,
                            struct lt_error *error);
/* After coordinator_close_calls. */
void http_server_stop(struct http_server **server);
