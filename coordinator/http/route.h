/* A request as the server read it, and what a route answers. */
#pragma once

#include "coordinator/http/metrics.h"
#include "coordinator/http/server.h"

#include <jansson.h>

struct http_request {
    const struct http_params *server;
    struct http_metrics *metrics;
    const char *body;
    size_t body_bytes;
    uint32_t job;         /* of a path with /# */
    const char *priority; /* query parameter; NULL: not given */
};

/* One of json, text and file is set by a route that returns LT_OK; otherwise the error is sent as
 * JSON. */
struct http_response {
    unsigned status; /* 0: 200 */
    json_t *json;    /* released by the server */
    char *text;      /* freed by the server */
    const char *text_type;
    int file; /* descriptor, closed by the server; -1: none */
    const char *file_type;
};

typedef lt_status http_handler(const struct http_request *request, struct http_response *response,
                               struct lt_error *error);

struct http_route {
    const char *method, *path; /* '#' stands for a job's number */
    const char *body_type;     /* Content-Type that is asked for; NULL: no body */
    size_t body_max;
    bool open; /* answered without a token */
    http_handler *handle;
};

/* NULL: none has this path; *path_known_out tells whether another method has it. */
const struct http_route *http_route_find(const char *method, const char *path, uint32_t *job_out,
                                         bool *path_known_out);

/* {"error": {"status": "NOT_FOUND", "text": …}} and its HTTP code. */
json_t *http_error_json(const struct lt_error *error);
unsigned http_error_code(lt_status status);
