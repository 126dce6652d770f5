/* Publishes finished jobs beside the loop: encoding a long take must not keep other jobs from their
 * workers. One thread; takes go to <outputs>/<job>/take.mp4, latents.safetensors and take.json,
 * each whole or not there. */
#pragma once

#include "coordinator/coordinator.h"

struct publisher;

struct publisher_params {
    const char *outputs; /* a folder, created when missing */
    int quality;         /* of H.264, 0 … 51 */
};

lt_status publisher_create(const struct publisher_params *params, struct publisher **publisher_out,
                           struct lt_error *error);
/* The coordinator whose events come to publisher_listen: it is created with it as listener, so it
 * comes later. */
void publisher_attach(struct publisher *publisher, struct coordinator *coordinator);
/* A coordinator_listener; context is the publisher. */
void publisher_listen(void *publisher, const struct coordinator_event *event);
/* After coordinator_close_calls: a take that is being written is dropped; the next start writes it.
 */
void publisher_destroy(struct publisher **publisher);

/* "<outputs>/<job>/<file>" */
lt_status publisher_path(const char *outputs, uint32_t job, const char *file, char *path_out,
                         size_t size, struct lt_error *error);
