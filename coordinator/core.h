/* The coordinator as a state machine: (event, now) -> journal rows, files, packets. No sockets, no
 * clock, no threads: coordinator.c and the simulator own those. Docs: docs/architecture.md,
 * docs/wire.md.
 *
 *   core_receive / core_tick / core_add_job …   change the state in memory and write rows into the
 * open transaction core_flush                                  gives out ready tasks, makes files
 * and journal durable, and only then sends what was queued and tells the listener
 *
 * A crash anywhere before the commit inside core_flush leaves what the last commit said, and nobody
 * has heard otherwise. */
#pragma once

#include "coordinator/run.h"
#include "proto/link.h"

/*   name, terminal */
#define JOB_STATE_LIST(X)                                                                          \
    X(QUEUED, 0)     /* accepted, planned, nothing leased yet */                                   \
    X(RUNNING, 0)    /* tasks are leased or done */                                                \
    X(FINALIZING, 0) /* every task is in: the take is being published */                           \
    X(COMPLETED, 1)                                                                                \
    X(FAILED, 1)                                                                                   \
    X(CANCELED, 1)

enum job_state {
#define JOB_STATE_ENUM(name, terminal) JOB_STATE_##name,
    JOB_STATE_LIST(JOB_STATE_ENUM)
#undef JOB_STATE_ENUM
        JOB_STATE_COUNT
};

const char *job_state_name(enum job_state state); /* "running" */
bool job_state_is_terminal(enum job_state state);
/* The table of docs/architecture.md: which edges a job may take. */
bool job_state_may_follow(enum job_state from, enum job_state to);

enum coordinator_event_kind {
    COORDINATOR_JOB_STATE,    /* `state` is new; FINALIZING: somebody must publish (again after a
                                 restart) */
    COORDINATOR_JOB_PROGRESS, /* tasks were committed */
    COORDINATOR_WORKER_JOINED,
    COORDINATOR_WORKER_LEFT,
    COORDINATOR_TASK_FAILED, /* a worker reported failure; `text` says what */
};

struct coordinator_event {
    uint64_t sequence; /* 1, 2, 3 … since the start of the process */
    enum coordinator_event_kind kind;
    uint32_t job; /* 0: none */
    enum job_state state;
    const char *text; /* worker name or reason; may be "" */
};

/* Called from the loop, after the journal's commit. It may call the functions below. */
typedef void coordinator_listener(void *context, const struct coordinator_event *event);

struct coordinator_job_status {
    uint32_t id;
    struct lt_digest digest; /* of the canonical job */
    char name[128];
    enum job_state state;
    int priority;
    struct run_progress progress;
    double fraction;                             /* 0..1 of the tasks */
    double eta_seconds;                          /* negative: not known yet */
    uint64_t retry_count;                        /* leases that ended without a result */
    int64_t created_us, started_us, finished_us; /* wall clock; 0: not yet */
    lt_status status;                            /* why it failed */
    char reason[512]; /* why it failed, or why it does not run now; "" when it runs */
    bool nobody_can;  /* one of its models is beyond every connected worker: `reason` says which */
    char kernel_class[128];
};

struct coordinator_worker_status {
    char name[128], device[128], kernel_class[128];
    const char *state; /* idle busy suspect draining */
    uint32_t slot_count, lease_count, model_count;
    uint64_t memory_bytes;
    struct lt_beat_memory memory; /* of its last beat */
    uint64_t tasks_done, tasks_failed;
    int64_t silent_ms;   /* since it was last heard */
    double busy_seconds; /* from a lease, or the result before it, to its result */
    uint32_t task_job, task_index, task_done, task_total; /* of its first lease; job 0: none */
};

/* Where the files of jobs are. */
struct core_files {
    void *context;
    lt_status (*open)(void *context, uint32_t job, bool fresh, struct objects **store_out,
                      struct lt_error *error);
    void (*close)(void *context, uint32_t job, struct objects *store);
    void (*remove)(void *context, uint32_t job); /* everything of a job that has ended */
};

struct core_params {
    int64_t lease_us, heartbeat_us;
    int64_t
        grace_us; /* leases found in the journal do not expire sooner than this after the start */
    uint64_t credit_bytes;
    uint64_t upload_bytes_max; /* results under way in memory; one is always let in */
    uint32_t attempts_max;
    struct journal *journal; /* borrowed */
    struct core_files files;
    int64_t (*wall_us)(void);       /* for records only */
    coordinator_listener *listener; /* may be NULL */
    void *listener_context;
};

struct core;

/* Replays the journal. A job that cannot be recovered ends as failed with the reason; damage to the
 * journal itself is an error. */
lt_status core_create(const struct core_params *params, int64_t now_us, struct core **core_out,
                      struct lt_error *error);
/* Nothing is said to anybody and nothing is written: the journal has it all. */
void core_destroy(struct core **core);

void core_receive(struct core *core, const struct lt_packet *packet, int64_t now_us);
void core_tick(struct core *core, int64_t now_us); /* expiry, suspects */

/* LT_BUSY and LT_LINK of `send` are no errors: what was lost is repaired by beats and offers. */
typedef lt_status core_send(void *context, const struct lt_packet *packet, struct lt_error *error);
/* A failure is not repairable: journal or disk. */
lt_status core_flush(struct core *core, int64_t now_us, core_send *send, void *context,
                     struct lt_error *error);
/* Chunks wait for room in the link's queues: flush again soon. */
bool core_is_sending(const struct core *core);

struct core_submit {
    const char *json; /* canonical, texts named by digest */
    size_t json_bytes;
    struct lt_digest digest;
    int priority;
    const struct core_blob {
        struct lt_digest digest; /* of the bytes */
        const void *data;
        size_t bytes;
    } * blob; /* every one the job names */
    size_t blob_count;
};
/* Durable after the next core_flush. A live or completed job of the same digest is the same job. */
lt_status core_add_job(struct core *core, const struct core_submit *submit, int64_t now_us,
                       uint32_t *id_out, bool *existed_out, struct lt_error *error);
lt_status core_cancel(struct core *core, uint32_t job, struct lt_error *error);
lt_status core_published(struct core *core, uint32_t job, lt_status outcome, const char *text,
                         struct lt_error *error);
void core_drain(struct core *core);

lt_status core_job_status(struct core *core, uint32_t job, int64_t now_us,
                          struct coordinator_job_status *status_out, struct lt_error *error);
size_t core_jobs(const struct core *core, uint32_t *id_out, size_t max);
const char *core_job_json(const struct core *core, uint32_t job);
struct run *core_job_run(const struct core *core, uint32_t job);
size_t core_workers(const struct core *core, int64_t now_us,
                    struct coordinator_worker_status *status_out, size_t max);
/* Since the start of the process. */
struct core_totals {
    uint64_t tasks[PLAN_KINDS];  /* results, by enum plan_task_kind */
    int64_t task_us[PLAN_KINDS]; /* the time on them */
    uint64_t failures, leases_lost;
};
const struct core_totals *core_totals(const struct core *core);

/* "LEASED task 3 epoch 7" and so on, for every row a restart must give back: the simulator compares
 * two of them. */
lt_status core_state_digest(struct core *core, struct lt_digest *digest_out,
                            struct lt_error *error);
