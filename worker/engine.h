/* The engine computes tasks: a pure function of a spec and its blobs. It keeps the last transformer
 * and the last VAE it used resident, keyed by fingerprint. One task at a time; the network thread
 * watches progress and cancels through atomics. The simulator and protocol tests put a fake engine
 * behind the same calls. */
#pragma once

#include "kernels/exec.h"
#include "proto/message.h"
#include "worker/memory_options.h"

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
    const char *device;          /* device_open: "cuda:0"; NULL: the host */
    struct memory_settings memory;
    bool verify;          /* all bytes of a model file are hashed whenever it is opened */
    uint64_t reuse_bytes; /* at most, of what steps leave for later ones; 0: nothing is kept */
    uint64_t blob_bytes;  /* of blobs and results the caller keeps: part of the plan */
};

struct engine;
lt_status engine_create(const struct engine_params *params, struct engine **engine_out,
                        struct lt_error *error);
void engine_destroy(struct engine **engine);

/* What its memory is like, for beats. Any thread. */
void engine_memory(struct engine *engine, struct lt_beat_memory *memory_out);
/* How many predictions are worth computing at once now: more than 1 when weights are streamed. Any
 * thread. */
uint32_t engine_batch_max(const struct engine *engine);

/* The model files found, with fingerprints (for HELLO); valid until destroy. */
const struct lt_model_file *engine_models(const struct engine *engine, size_t *count_out);
/* Names what must be equal for equal bits: "host avx512_bf16 onednn-2.6.3" and so on. */
const char *engine_kernel_class(const struct engine *engine);

enum { ENGINE_LORAS_MAX = 64 };

/* A LoRA file of the model folders, by name and fingerprint (zero: any). */
struct engine_lora {
    struct lt_model_file file;
    const float *strength; /* by sampling step; the last one goes on */
    size_t strength_count; /* 0: 1 */
    uint32_t expert;       /* of a file with both: 1 high noise, 2 low noise; 0: has one */
    bool plain_peft;       /* docs/lora.md: files of PEFT without alpha */
};

/* One task to compute, and what became of it. */
struct engine_work {
    uint64_t task, epoch; /* the caller's names for it */
    const struct lt_task_spec *spec;
    const struct engine_lora *lora; /* predict: on its model */
    size_t lora_count;
    uint32_t step; /* of the sampler: picks the strengths */
    struct engine_blob blob[LT_SPEC_BLOBS_MAX];
    size_t blob_count;
    /* written by engine_run */
    lt_status status;
    struct lt_error error;
    void *result; /* malloc'ed for the caller, exactly spec->result_bytes; NULL unless LT_OK */
};

enum { ENGINE_BATCH_MAX = 8 };

/* Names the weights of the transformer that is resident: model, LoRAs with their strengths,
 * kernels, device, memory settings (pipeline.md 4.5). Zero: none. Equal names: a task of it reads
 * nothing. Any thread. */
struct lt_digest engine_signature(struct engine *engine);
/* The fingerprint of the file that the resident transformer is from, for beats. Zero: none. Any
 * thread. */
struct lt_digest engine_resident(struct engine *engine);

/* Whether two tasks may be computed in one batch: predictions of one model, in one precision; their
 * LoRAs, strengths and steps must be the same too. */
bool engine_same_loras(const struct engine_work *a, const struct engine_work *b);
bool engine_may_join(const struct lt_task_spec *a, const struct lt_task_spec *b);

/* Computes `count` <= ENGINE_BATCH_MAX tasks that may join each other: a block's weights are
 * fetched once for all of them, and each gets the bits it would get alone. Statuses: LT_BAD_INPUT:
 * the spec or a blob is wrong (do not retry); LT_NOT_FOUND: no such model here; others are worth a
 * retry elsewhere. Non-finite predictions are LT_BAD_INPUT naming the first element. */
void engine_run(struct engine *engine, struct engine_work *work, size_t count,
                struct engine_progress *progress);
