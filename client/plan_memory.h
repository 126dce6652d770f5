/* What a job's transformer would take of a worker: asked of the worker program, which alone reads
 * model files. */
#pragma once

#include "client/job_file.h"
#include "coordinator/plan.h"

#include <limits.h>

/* Texts as the worker's options take them; NULL: not given. */
struct plan_memory {
    const char *worker_program; /* NULL: beside this program */
    const char *device, *device_memory, *ram, *blocks_to_swap, *prefetch;
};

/* What lies on the device with the transformer, each found as the job names it or beside the job
 * file. */
struct plan_memory_files {
    char transformer[PATH_MAX], talk[PATH_MAX]; /* talk "": none */
    char lora[JOB_LORAS_MAX][PATH_MAX];
    size_t lora_count;
    bool combined; /* a LoRA file has both experts' */
};
/* NULL, or the name of the first that is not on this machine. */
const char *plan_memory_files(const struct job_file *file, struct plan_memory_files *files_out);

/* The worker's table on standard output. LT_NO_MEMORY, LT_NO_DEVICE_MEMORY: it does not fit; the
 * worker has said why. */
lt_status plan_memory_print(const struct plan_memory *ask, const struct job *job,
                            const struct plan *plan, const struct plan_memory_files *files,
                            struct lt_error *error);
/* The same as one JSON object; the caller frees it. */
lt_status plan_memory_json(const struct plan_memory *ask, const struct job *job,
                           const struct plan *plan, const struct plan_memory_files *files,
                           char **json_out, struct lt_error *error);
