/* What survives a crash of the coordinator: one SQLite database (WAL, synchronous=FULL). Rows are
 * written inside one transaction per batch of events; nothing leaves the coordinator before
 * journal_commit has returned. One owner. */
#pragma once

#include "coordinator/job.h"
#include "proto/link.h"

enum { JOURNAL_VERSION = 2, JOURNAL_PINS = 16 };

struct journal;

struct journal_job {
    uint32_t id;
    struct lt_digest digest;
    const char *json; /* canonical */
    uint32_t state;   /* enum job_state */
    int32_t priority;
    int64_t created_us, started_us, finished_us;
    uint32_t status; /* lt_status */
    const char *reason, *kernel_class;
    struct lt_digest pin[JOURNAL_PINS]; /* fingerprints of the job's models; zero: not yet */
};

struct journal_task {
    uint32_t task, state; /* enum task_state: READY, LEASED or COMMITTED */
    uint64_t epoch;
    uint32_t attempts;
    struct lt_peer peer; /* of the lease */
};

/* `path` ":memory:" lives and dies with the handle (simulator). LT_CORRUPT: not a database or
 * damaged; LT_UNSUPPORTED: written by another version. */
lt_status journal_open(const char *path, struct journal **journal_out, struct lt_error *error);
void journal_close(struct journal **journal);

/* Begins a transaction when none is open: every put does so by itself. */
lt_status journal_put_job(struct journal *journal, const struct journal_job *job,
                          struct lt_error *error);
lt_status journal_put_task(struct journal *journal, uint32_t job, const struct journal_task *task,
                           struct lt_error *error);
lt_status journal_put_frame(struct journal *journal, uint32_t job, uint32_t frame, uint32_t step,
                            struct lt_error *error);
/* Tasks and frames of a job that has ended. */
lt_status journal_forget_tasks(struct journal *journal, uint32_t job, struct lt_error *error);
/* Durable on return; without an open transaction it does nothing. */
lt_status journal_commit(struct journal *journal, struct lt_error *error);
/* As a crash would: what was not committed is gone. */
void journal_rollback(struct journal *journal);

/* Rows in order of id, task, frame. A callback's failure ends the walk and is returned. */
typedef lt_status journal_job_fn(void *context, const struct journal_job *job,
                                 struct lt_error *error);
typedef lt_status journal_task_fn(void *context, const struct journal_task *task,
                                  struct lt_error *error);
typedef lt_status journal_frame_fn(void *context, uint32_t frame, uint32_t step,
                                   struct lt_error *error);
lt_status journal_each_job(struct journal *journal, journal_job_fn *fn, void *context,
                           struct lt_error *error);
lt_status journal_each_task(struct journal *journal, uint32_t job, journal_task_fn *fn,
                            void *context, struct lt_error *error);
lt_status journal_each_frame(struct journal *journal, uint32_t job, journal_frame_fn *fn,
                             void *context, struct lt_error *error);
