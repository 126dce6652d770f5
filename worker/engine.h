/* The engine computes tasks: a pure function of a spec and its blobs. It keeps the last transformer
 * and the last VAE it used resident, keyed by fingerprint. One task at a time; the network thread
 * watches progress and cancels through atomics. The simulator and protocol tests put a fake engine
 * behind the same struct. */
#pragma once

#include "kernels/exec.h"
#include "proto/message.h"

#include <stdatomic.h>

struct engine_blob {
    enum lt_blob_role role;
    const void *data;
    size_t bytes;
};

struct engine_progress {
    atomic_uint phase; /* enum lt_phase */
    atomic_uint done, total;
    atomic_int cancel; /* set by others: the task ends soon with LT_CANCELLED */
};

struct engine_params {
    const char *const *model_dir; /* folders (or files) searched for model names */
    size_t model_dir_count;
    int thread_count;            /* 0: all processors */
    const char *kernel_selector; /* lt_kernels_select: "best" */
};

struct engine;
lt_status engine_create(const struct engine_params *params, struct engine **engine_out,
                        struct lt_error *error);
void engine_destroy(struct engine **engine);

/* The model files found, with fingerprints (for HELLO); valid until destroy. */
const struct lt_model_file *engine_models(const struct engine *engine, size_t *count_out);
/* Names what must be equal for equal bits: "host avx512_bf16 onednn-2.6.3" and so on. */
const char *engine_kernel_class(const struct engine *engine);

/* Result bytes are malloc'ed for the caller, exactly spec->result_bytes. LT_BAD_INPUT: the spec or
 * a blob is wrong (do not retry); LT_NOT_FOUND: no such model here; others are worth a retry
 * elsewhere. Non-finite predictions are LT_BAD_INPUT naming the first element. */
lt_status engine_run(struct engine *engine, const struct lt_task_spec *spec,
                     const struct engine_blob *blobs, size_t blob_count,
                     struct engine_progress *progress, void **result_out, struct lt_error *error);
