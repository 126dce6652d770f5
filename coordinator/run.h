/* One job under way: its plan, task graph, latents, predictions and blobs tied together. It says
 * what a task needs, gives the bytes, takes results, and moves latent frames forward when their
 * windows are in.
 *
 *   task -> spec + blobs -> (worker) -> run_accept -> predictions/<task> -> blend -> sampler ->
 * latents -> ready tasks
 *
 * Owned by the coordinator's loop. The readers of finished results (run_read_frame,
 * run_read_latents, run_read_input and the digests) may be called from one other thread once the
 * job is finalizing; nothing else changes the run by then. */
#pragma once

#include "coordinator/graph.h"
#include "coordinator/journal.h"
#include "coordinator/objects.h"
#include "proto/message.h"

struct run;

/* "blobs/<hex>": where bytes that a job came with lie in its store. */
void run_blob_name(const struct lt_digest *digest, char name_out[80]);
/* The digests a job names: its store must hold them before the run is made. At most `max` are
 * written; returns how many there are. */
enum { RUN_BLOBS_MAX = 2 + JOB_INPUT_COUNT };
size_t run_blobs(const struct job *job, struct lt_digest digest_out[RUN_BLOBS_MAX]);

struct run_params {
    uint32_t id;
    const char *json; /* canonical; copied */
    size_t json_bytes;
    struct journal *journal; /* borrowed */
    struct objects *store;   /* borrowed */
};

/* A new job: draws the noise and writes the latents of step 0. A recovered one (`resume`): replays
 * what the journal says; frames whose windows were all in but whose step was not recorded are
 * computed again. */
lt_status run_create(const struct run_params *params, bool resume, struct run **run_out,
                     struct lt_error *error);
void run_destroy(struct run **run);

uint32_t run_id(const struct run *run);
const struct job *run_job(const struct run *run);
const struct plan *run_plan(const struct run *run);
struct graph *run_graph(struct run *run);

/* The models of the job; fingerprints zero until pinned. */
enum run_model_kind {
    RUN_TRANSFORMER,
    RUN_TRANSFORMER_LOW,
    RUN_VAE,
    RUN_TEXT_ENCODER,
    RUN_VISION,
    RUN_AUDIO_ENCODER,
    RUN_TALK,
    RUN_LORA, /* and those that follow */
    RUN_MODELS = JOURNAL_PINS
};
/* What must be at hand beside a model: the add-on and the LoRAs of a transformer. Returns how many
 * were written. */
size_t run_companions(const struct run *run, uint32_t model, uint32_t out[RUN_MODELS]);
const struct job_model *run_model(const struct run *run,
                                  uint32_t index); /* name NULL: the job has none */
void run_pin_model(struct run *run, uint32_t index, const struct lt_digest *fingerprint);
uint32_t run_task_model(const struct run *run, uint32_t task); /* index of the model it needs */
/* The first task after `task` that may need another model. */
uint32_t run_model_end(const struct run *run, uint32_t task);

/* What the leases need of a task, beside its state in the graph. */
struct run_task {
    uint64_t epoch;    /* of the last lease; 0: never leased */
    uint32_t attempts; /* charged to it */
    uint32_t lease;    /* index into the lease table, UINT32_MAX: none */
    struct lt_peer
        failed_on; /* where the last charged failure was; zero: nowhere in this process */
};
struct run_task *run_task(struct run *run, uint32_t task);

/* Whose memory holds what the task would reuse (a job with a cache): the worker that had the
 * window's last step. False: nobody's, or it reuses nothing. */
bool run_holder(const struct run *run, uint32_t task, struct lt_peer *peer_out);
/* The task is leased to this worker. */
void run_set_holder(struct run *run, uint32_t task, const struct lt_peer *peer);

/* READY -> LEASED and back, in graph and counters. */
void run_lease(struct run *run, uint32_t task);
void run_return(struct run *run, uint32_t task);

/* Leases of before a restart: LEASED in the graph, waiting for their worker. Emptied by the call.
 */
struct run_recovered {
    uint32_t task;
    struct lt_peer peer;
};
size_t run_take_recovered(struct run *run,
                          struct run_recovered **recovered_out); /* for the caller to free */

/* Everything a worker needs for a READY or LEASED task. Reads the latents once, for the digest of
 * the slice. */
lt_status run_task_spec(struct run *run, uint32_t task, struct lt_task_spec *spec_out,
                        struct lt_error *error);
uint64_t run_result_bytes(const struct run *run, uint32_t task);
uint64_t run_pixel_bytes(const struct run *run, uint32_t task); /* those of it that are pixels */
/* `bytes` at `offset` of a blob of a LEASED task; LT_NOT_FOUND: the task names no such blob (any
 * more). */
lt_status run_read_blob(struct run *run, uint32_t task, const struct lt_digest *digest,
                        uint64_t offset, void *data, size_t bytes, struct lt_error *error);

/* A verified result of a READY or LEASED task: stored, then every frame that is complete by it is
 * blended, sampled and written. Durable after run_sync and the journal's commit. LT_BAD_INPUT:
 * wrong size or not finite; nothing changed. LT_IO before the result is stored: nothing changed
 * (*stored_out false). */
lt_status run_accept(struct run *run, uint32_t task, const void *data, size_t bytes,
                     bool *stored_out, struct lt_error *error);
/* Before the journal's commit: latents written since the last one reach the disk. */
lt_status run_sync(struct run *run, struct lt_error *error);
/* After it: predictions that nobody needs any more go. */
void run_committed(struct run *run);

/* `bytes` at `offset` of an input that was uploaded. */
lt_status run_read_input(struct run *run, enum job_input_kind kind, uint64_t offset, void *data,
                         size_t bytes, struct lt_error *error);

/* Pixel frame [0, frame_count) of a job whose decode tasks are all in: rgb_out [H, W, 3] u8. */
lt_status run_read_frame(struct run *run, uint32_t frame, uint8_t *rgb_out, struct lt_error *error);
uint32_t run_frame_width(const struct run *run);
uint32_t run_frame_height(const struct run *run);
/* Latent frame [0, T) at the end of the schedule: x_out [C, h, w] f32. */
lt_status run_read_latent_frame(struct run *run, uint32_t frame, float *x_out,
                                struct lt_error *error);
/* The same at the step where the frame stands now. */
lt_status run_read_present_frame(struct run *run, uint32_t frame, float *x_out,
                                 struct lt_error *error);
/* x_out [C, T, h, w] f32. */
lt_status run_read_latents(struct run *run, float *x_out, struct lt_error *error);
/* SHA-256 of the latents [C, T, h, w], and of all pixel frames in order. */
lt_status run_latents_digest(struct run *run, struct lt_digest *digest_out, struct lt_error *error);
lt_status run_frames_digest(struct run *run, struct lt_digest *digest_out, struct lt_error *error);

struct run_progress {
    uint32_t predict_count, predict_done; /* windows x steps */
    uint32_t decode_count, decode_done;
    uint32_t condition_count, condition_done;
    uint32_t ready_count, leased_count;
    uint32_t step_count, step_low,
        step_high; /* the lowest and highest step at which a latent frame stands */
};
void run_progress(const struct run *run, struct run_progress *progress_out);
