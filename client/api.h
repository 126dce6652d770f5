/* Requests to a coordinator's HTTP API (docs/operations.md). An answer that is an error comes back
 * as that status and text, so the exit code of a command is the coordinator's. One thread. */
#pragma once

#include "common/option.h"

#include <jansson.h>

struct api;

/* The options that every command of a farm has; `struct settings` needs const char *url,
 * *token_file. */
#define API_OPTIONS(type)                                                                          \
    LT_OPTION(type, url, TEXT, "URL", "http://127.0.0.1:7700", .help = "the coordinator's API"),   \
        LT_OPTION(type, token_file, TEXT, "FILE", NULL,                                            \
                  .help = "the API's token, when it asks for one")

lt_status api_open(const char *url, const char *token_file, struct api **api_out,
                   struct lt_error *error);
void api_close(struct api **api);

/* `body` NULL: GET, else POST of that type. json_out is for the caller to release. LT_LINK: no
 * coordinator there. */
lt_status api_json(struct api *api, const char *path, const void *body, size_t bytes,
                   const char *type, json_t **json_out, struct lt_error *error);
/* Writes what the path gives to a file: under a temporary name until it is whole. */
lt_status api_download(struct api *api, const char *path, const char *file, bool overwrite,
                       struct lt_error *error);

/* "17" -> 17, LT_USAGE otherwise. */
lt_status api_job_number(const char *text, uint32_t *job_out, struct lt_error *error);
