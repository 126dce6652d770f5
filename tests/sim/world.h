/* A whole farm in one process under a virtual clock. One seed decides everything: jobs, workers,
 * loss, delay, repetition, order, damage, full queues, partitions, crashes and pauses of workers
 * and coordinator, slow and failing machines. Faults stop after a while; then every job must end.
 * What is checked all along stands in world_check.c. */
#pragma once

#include "coordinator/core_private.h"
#include "proto/link_memory.h"
#include "worker/core.h"

#include <stdio.h>

enum { WORLD_WORKERS_MAX = 6, WORLD_JOBS_MAX = 3, WORLD_EPOCHS_MAX = 128, WORLD_TASKS_MAX = 512 };

/* What a schedule may do, drawn from its seed. */
struct world_plan {
    uint32_t worker_count, job_count;
    int64_t delay_us_max;  /* of a packet */
    uint32_t drop, repeat; /* packets of 1000 */
    bool reorder;          /* delays are drawn anew for each packet */
    uint32_t full;         /* sends of 1000 that find the queue full */
    uint32_t damage;       /* chunks of 1000 that lose a bit on the way */
    bool liar;             /* every chunk from and to worker 1 is damaged, to the end */
    bool only_liar;        /* and every other machine is well */
    bool fix_crc;          /* … in a way that only the digest of the whole shows */
    uint32_t worker_crash, coordinator_crash, partition, drain, freeze,
        stall;          /* each per 1000 fault rounds */
    uint32_t drain_all; /* the coordinator drains and starts again, likewise */
    uint32_t
        engine_failure; /* tasks of 1000 that end with an error or a result that is not finite */
    uint32_t slow;      /* workers of 1000 that take 20 times as long */
    bool mixed_models;  /* workers other than the first may lack a model */
    bool two_classes;   /* of kernels */
    uint32_t batch_max; /* tasks that odd workers compute at once */
    uint64_t blob_cache_bytes, upload_bytes_max, credit_bytes;
    bool heavy;      /* the first job's blobs and results are of several chunks */
    int64_t calm_us; /* faults end here */
    bool cancel;     /* the last job is cancelled on the way */
};

struct world_worker {
    struct world *world;
    struct worker_core *core; /* NULL: it is down */
    struct lt_link *link;
    struct lt_peer peer;
    char name[8];
    uint32_t boots;
    bool slow, reconnect, exited;
    int64_t up_us;           /* when it starts again */
    int64_t cut_until_us;    /* partitioned */
    int64_t frozen_until_us; /* stopped, and continued then */
    /* the batch it computes */
    bool busy, cancelled;
    int64_t done_us;
    struct engine_work work[ENGINE_BATCH_MAX];
    size_t work_count;
};

/* What world_check.c remembers of a task across crashes. */
struct world_task {
    struct lt_peer owner[WORLD_EPOCHS_MAX]; /* who was told this epoch */
    bool told[WORLD_EPOCHS_MAX];
    uint64_t committed_epoch; /* 0: not yet */
};

struct world_job {
    uint32_t id, kind; /* of the table of jobs */
    int64_t due_us;    /* when it is submitted */
    struct objects *store;
    bool removed, finalizing, cancel_asked;
    enum job_state state;             /* as last flushed */
    uint32_t completions;             /* told to the listener */
    struct lt_digest latents, frames; /* when it was finalizing */
    struct world_task task[WORLD_TASKS_MAX];
};

struct world {
    uint64_t seed, random;
    struct world_plan plan;
    bool calm; /* no faults: the reference run */
    int64_t now_us, fault_us, tick_us;
    struct lt_hub *hub;
    struct lt_link *link;
    struct core *core;
    struct journal *journal;
    bool deaf; /* the coordinator's packets are lost: it is about to crash */
    int64_t stalled_until_us, restart_us;  /* of the coordinator; restart 0: it is not leaving */
    int64_t lane_us[WORLD_WORKERS_MAX][2]; /* in-order delivery per worker and direction */
    struct world_worker worker[WORLD_WORKERS_MAX];
    uint32_t job_count; /* submitted */
    struct world_job job[WORLD_JOBS_MAX];
    bool failed;
    char failure[512];
    uint64_t events, crashes, retries;
    uint32_t sent[LT_MESSAGE_COUNT], received[LT_MESSAGE_COUNT], task_count,
        conditioned_count; /* of the coordinator; of the last job: its tasks, and the
                              blobs of conditioning its windows are fed */
};

/* The reference: what each kind of job gives on one worker without faults. */
struct world_reference {
    struct lt_digest latents, frames;
};
uint32_t world_job_kinds(void);
lt_status world_reference(uint32_t kind, struct world_reference *reference_out, char *text,
                          size_t size);

/* Runs one schedule. False: `world->failure` says what broke. */
bool world_run(uint64_t seed, const struct world_reference *reference, struct world *world,
               bool verbose);

/* -- shared by the parts ----------------------------------------------------------------------- */
uint32_t world_draw(struct world *world, uint32_t bound); /* 0 … bound-1 */
bool world_chance(struct world *world, uint32_t of_thousand);
bool world_is_faulty(const struct world *world);
void world_fail(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));
struct world_job *world_find_job(struct world *world, uint32_t id);

/* world_faults.c */
void faults_draw_plan(struct world *world);
lt_fault faults_of_packet;
/* Sends for a worker or the coordinator (peer of the packet, index of the worker), or loses or
 * damages the packet. */
lt_status faults_send(struct world *world, struct lt_link *link, uint32_t worker,
                      const struct lt_packet *packet, struct lt_error *error);
void faults_make(struct world *world);

/* world_coordinator.c */
uint32_t coordinator_job_kinds(void);
uint32_t coordinator_heavy_kind(void); /* the last of them */
lt_status coordinator_start(struct world *world, struct lt_error *error);
void coordinator_crash(struct world *world);
void coordinator_submit(struct world *world, uint32_t kind);
void coordinator_cancel(struct world *world, struct world_job *job);
void coordinator_turn(struct world *world);

/* world_worker.c */
void worker_boot(struct world *world, uint32_t index);
void worker_kill(struct world *world, uint32_t index);
void worker_freeze(struct world *world, uint32_t index, int64_t us);
void worker_run_due(struct world *world, uint32_t index);
int64_t worker_next_us(const struct world *world, uint32_t index);

/* world_check.c */
void check_sent(struct world *world, const struct lt_packet *packet);
void check_quiet(struct world *world);
void check_state(struct world *world);
void check_final(struct world *world, const struct world_reference *reference);
