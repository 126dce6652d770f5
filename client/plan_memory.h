/* What a job's transformer would take of a worker: asked of the worker program, which alone reads
 * model files. */
#pragma once

#include "client/job_file.h"
#include "coordinator/plan.h"

/* Texts as the worker's options take them; NULL: not given. */
struct plan_memory {
    const char *worker_program; /* NULL: beside this program */
    const char *device, *device_memory, *ram, *blocks_to_swap, *prefetch;
};

/* The file of the job's transformer, found as the job names it or beside the job file; false: it is
 * not on this machine. */
bool plan_memory_model(const struct job_file *file, char *path_out, size_t size);

/* The worker's table on standard output. LT_NO_MEMORY, LT_NO_DEVICE_MEMORY: it does not fit; the
 * worker has said why. */
lt_status plan_memory_print(const struct plan_memory *ask, const struct job *job,
                            const struct plan *plan, const char *model, struct lt_error *error);
/* The same as one JSON object; the caller frees it. */
lt_status plan_memory_json(const struct plan_memory *ask, const struct job *job,
                           const struct plan *plan, const char *model, char **json_out,
                           struct lt_error *error);
