/* The coordinator: one loop that owns jobs, leases and latents, and talks to workers over a link.
 * `longtake coordinator` and `longtake render` (embedded) both run it.
 *
 *   other threads --coordinator_call--> queue --+
 *   link --packets-----------------------------> loop: decide -> write files, journal commit ->
 * send clock --------------------------------------+
 *
 * One thread creates it and calls everything here, except coordinator_call and coordinator_wake,
 * which any thread may use. A state folder has one coordinator at a time (a lock on it). What a
 * state folder holds: docs/operations.md. */
#pragma once

#include "coordinator/core.h"

static const int64_t COORDINATOR_BLOB_BYTES_MAX = INT64_C(1) << 31;

struct coordinator;

struct coordinator_params {
    const char *state_dir;          /* created when missing */
    struct lt_link *link;           /* borrowed; outlives the coordinator */
    int64_t lease_ms;               /* 0: 30,000 */
    int64_t heartbeat_ms;           /* 0: 2,000 */
    int64_t restart_grace_ms;       /* no lease of before the start expires sooner; negative:
                                       max(lease_ms, 60,000) */
    uint64_t credit_bytes;          /* 0: LT_CREDIT_BYTES_DEFAULT */
    uint32_t attempts_max;          /* 0: 5 */
    coordinator_listener *listener; /* may be NULL */
    void *listener_context;
};

/* Locks and opens the state folder, replays the journal. LT_BUSY: another coordinator has it.
 * LT_CORRUPT, LT_UNSUPPORTED: the journal is damaged or of another version; nothing was changed. */
lt_status coordinator_create(const struct coordinator_params *params,
                             struct coordinator **coordinator_out, struct lt_error *error);
void coordinator_destroy(struct coordinator **coordinator);

/* Waits at most `timeout_ms` for packets, timers and calls, and handles what is there. An error is
 * not repairable here (journal or disk): stop the process; a restart recovers. */
lt_status coordinator_step(struct coordinator *coordinator, int timeout_ms, struct lt_error *error);
void coordinator_wake(struct coordinator *coordinator);

/* Runs `work` on the loop's thread, between two batches, and waits for it. From the loop's thread
 * itself it runs at once. LT_CANCELLED: the coordinator is being destroyed. */
typedef void coordinator_work(struct coordinator *coordinator, void *context);
lt_status coordinator_call(struct coordinator *coordinator, coordinator_work *work, void *context);
/* From now on every call gets LT_CANCELLED, the waiting ones too: for the loop's thread before it
 * joins threads that call. */
void coordinator_close_calls(struct coordinator *coordinator);

/* Adds a job. What it names beside its models ("sha256:<hex>" and the like) was given by
 * coordinator_put_blob before: this process opens no file a job names. Durable on return. A job of
 * equal content that is not failed or cancelled is the same job: its id comes back and *existed_out
 * is true. */
struct coordinator_submit {
    const char *json;
    size_t json_bytes;
    const char *origin; /* for messages */
    int priority;       /* higher first */
};
lt_status coordinator_add_job(struct coordinator *coordinator,
                              const struct coordinator_submit *submit, uint32_t *id_out,
                              bool *existed_out, struct lt_error *error);
/* Keeps bytes for jobs to name by digest. */
lt_status coordinator_put_blob(struct coordinator *coordinator, const void *data, size_t bytes,
                               struct lt_digest *digest_out, struct lt_error *error);
lt_status coordinator_cancel(struct coordinator *coordinator, uint32_t job, struct lt_error *error);
/* The publisher's report on a FINALIZING job. LT_OK: completed, intermediate files go; else failed
 * with the text. */
lt_status coordinator_published(struct coordinator *coordinator, uint32_t job, lt_status outcome,
                                const char *text, struct lt_error *error);
/* No new leases; workers are told to finish what they run. */
void coordinator_drain(struct coordinator *coordinator);

/* LT_NOT_FOUND when there is no such job. */
lt_status coordinator_job_status(struct coordinator *coordinator, uint32_t job,
                                 struct coordinator_job_status *status_out, struct lt_error *error);
/* Ids in order of arrival, at most `max`; returns how many there are in all. */
size_t coordinator_jobs(struct coordinator *coordinator, uint32_t *id_out, size_t max);
/* The canonical JSON; lives as long as the job. */
const char *coordinator_job_json(struct coordinator *coordinator, uint32_t job);
/* NULL: no such job, or a finished one whose files are gone. */
struct run *coordinator_job_run(struct coordinator *coordinator, uint32_t job);

size_t coordinator_workers(struct coordinator *coordinator,
                           struct coordinator_worker_status *status_out, size_t max);
const struct core_totals *coordinator_totals(const struct coordinator *coordinator);
