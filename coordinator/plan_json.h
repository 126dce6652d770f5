/* A plan as JSON, for `longtake plan --json` and for comparison with other programs (docs/plan.md
 * tells the fields). */
#pragma once

#include "coordinator/plan.h"

#include <stdio.h>

/* One object, and a line end. `worker_memory`: what a worker says of its memory, JSON; NULL: not
 * known. LT_IO when `to` does not take it. */
lt_status plan_write_json(const struct job *job, const struct plan *plan, const char *worker_memory,
                          FILE *to, struct lt_error *error);
