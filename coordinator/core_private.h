/* What the parts of the core share: core.c (life, jobs, flush), core_lease.c (control messages),
 * core_bulk.c (streams). */
#pragma once

#include "coordinator/core.h"
#include "coordinator/dispatch.h"
#include "coordinator/fleet.h"
#include "proto/stream.h"

struct core_job {
    uint32_t id;
    struct lt_digest digest;
    char *json;
    char name[128];
    enum job_state state;
    int32_t priority;
    int64_t created_us, started_us, finished_us;
    lt_status status;
    char reason[512];
    char kernel_class[FLEET_TEXT_BYTES];
    struct lt_digest pin[RUN_MODELS];
    struct objects *store; /* both NULL once it has ended */
    struct run *run;
    uint32_t lease_count;
    uint64_t retry_count;
    int64_t first_lease_us; /* of this process, for the estimate; 0: none yet */
    struct {
        uint32_t count;
        int64_t spent_us;
    } timed[PLAN_KINDS]; /* by enum plan_task_kind: results of this process and the time on them */
    bool ended;          /* files go after the next commit */
};

struct upload { /* a result on its way in */
    struct lt_peer peer;
    uint32_t job, task;
    uint64_t epoch;
    struct lt_stream_receiver receiver;
    int64_t heard_us;
};

struct download { /* a blob on its way out; its bytes are read as they are sent */
    struct lt_peer peer;
    uint64_t stream;
    uint32_t job, task;
    struct lt_digest digest;
    uint64_t bytes, offset, credit;
    int64_t heard_us;
};

struct core {
    struct core_params params;
    struct core_totals totals;
    struct core_job **job; /* by id */
    size_t job_count, job_capacity;
    struct lease_table leases;
    struct fleet fleet;
    struct upload *upload;
    size_t upload_count, upload_capacity;
    struct download *download;
    size_t download_count, download_capacity;
    uint8_t *chunk;                 /* LT_CHUNK_BYTES_MAX */
    struct dispatch_job *candidate; /* [job_capacity] scratch of dispatch */
    struct lt_packet *out;
    size_t out_count, out_capacity;
    struct lt_arena arena; /* of what `out` points to */
    struct coordinator_event *event;
    size_t event_count, event_capacity;
    uint64_t event_sequence;
    int64_t grace_end_us;
    bool draining, sending;
    lt_status broken; /* a journal write failed: flush reports it */
    struct lt_error broken_error;
};

static inline uint64_t core_task_number(uint32_t job, uint32_t task)
{
    return (uint64_t)job << 32 | task;
}

/* core.c */
struct core_job *core_find_job(const struct core *core, uint64_t id);
void core_queue(struct core *core, const struct lt_peer *peer, const struct lt_message *message);
void core_tell(struct core *core, enum coordinator_event_kind kind, const struct core_job *job,
               const char *text);
void core_put_job(struct core *core, const struct core_job *job);
void core_put_task(struct core *core, const struct core_job *job, uint32_t task);
void core_set_state(struct core *core, struct core_job *job, enum job_state state);
void core_end_job(struct core *core, struct core_job *job, enum job_state state, lt_status status,
                  const char *reason);
/* Memory for `capacity` items; ends the process without (no state is lost by that). */
void *core_grow(void *list, size_t *capacity, size_t count, size_t item_bytes);

/* core_lease.c */
/* Grants `task` (READY) to the peer under a new epoch, or again under the present one
 * (`same_epoch`). */
uint32_t core_grant(struct core *core, struct core_job *job, uint32_t task,
                    const struct lt_peer *peer, bool same_epoch, int64_t now_us);
/* The lease that (task, epoch) of this peer names now; LEASE_NONE: none. */
uint32_t core_find_lease(struct core *core, const struct lt_peer *peer, uint64_t number,
                         uint64_t epoch);
/* Ends a lease; the task is READY again unless it was committed. */
void core_end_lease(struct core *core, uint32_t lease);
lt_status core_send_assign(struct core *core, uint32_t lease, int64_t now_us);
/* A charged failure of a task's lease; may end the job. */
void core_fail_lease(struct core *core, uint32_t lease, struct fleet_worker *worker,
                     lt_status status, const char *text, int64_t now_us);
void core_control(struct core *core, const struct lt_packet *packet, int64_t now_us);
void core_expire(struct core *core, int64_t now_us);
void core_dispatch(struct core *core, int64_t now_us);

/* core_bulk.c */
void core_bulk(struct core *core, const struct lt_packet *packet, int64_t now_us);
void core_drop_streams(struct core *core, const struct lt_peer *peer,
                       uint32_t job); /* peer NULL: any; job 0: any */
void core_expire_streams(struct core *core, int64_t now_us);
void core_pump(struct core *core, core_send *send, void *context);
void core_finish_if_done(struct core *core, struct core_job *job);
