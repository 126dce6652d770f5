/* What GET /metrics tells: jobs, workers, tasks, lost leases, bytes on the wire. */
#pragma once

#include "coordinator/coordinator.h"

#include <stdio.h>

struct http_metrics;

lt_status http_metrics_create(struct http_metrics **metrics_out, struct lt_error *error);
void http_metrics_destroy(struct http_metrics **metrics);
/* Brings the series up to date and writes them; on the loop's thread. */
void http_metrics_write(struct http_metrics *metrics, struct coordinator *coordinator,
                        const struct lt_link *link, FILE *to);
