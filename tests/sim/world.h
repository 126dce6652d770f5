/* A whole farm in one process under a virtual clock. One seed decides everything: jobs, workers, loss, delay, repetition,
 * order, partitions, crashes of workers and coordinator, slow and failing machines. Faults stop after a while; then every
 * job must end. What is checked all along stands in world_check.c. */
#pragma once

#include "coordinator/core_private.h"
#include "proto/link_memory.h"
#include "worker/core.h"

#include <stdio.h>

enum { WORLD_WORKERS_MAX = 6, WORLD_JOBS_MAX = 3, WORLD_EPOCHS_MAX = 64, WORLD_TASKS_MAX = 512 };

/* What a schedule may do, drawn from its seed. */
struct world_plan {
    uint32_t worker_count, job_count;
    int64_t delay_us_max;        /* of a packet */
    uint32_t drop, repeat;       /* packets of 1000 */
    bool reorder;                /* delays are drawn anew for each packet */
    uint32_t worker_crash, coordinator_crash, partition, drain; /* each per 1000 fault rounds */
    uint32_t engine_failure;     /* tasks of 1000 that end with DEVICE */
    uint32_t slow;               /* workers of 1000 that take 20 times as long */
    int64_t calm_us;             /* faults end here */
    bool cancel;                 /* the last job is cancelled on the way */
};

struct world_worker {
    struct world *world;
    struct worker_core *core; /* NULL: it is down */
    struct lt_link *link;
    struct lt_peer peer;
    char name[8];
    uint32_t boots;
    bool slow, reconnect, exited;
    int64_t up_us;      /* when it starts again */
    int64_t cut_until_us; /* partitioned */
    /* the task it computes */
    bool busy, cancelled;
    int64_t done_us;
    lt_status status;
    void *result;
};

/* What world_check.c remembers of a task across crashes. */
struct world_task {
    struct lt_peer owner[WORLD_EPOCHS_MAX]; /* who was told this epoch */
    bool told[WORLD_EPOCHS_MAX];
    uint64_t committed_epoch; /* 0: not yet */
};

struct world_job {
    uint32_t id, kind; /* of the table of jobs */
    struct objects *store;
    bool removed, finalizing, ended, cancel_asked;
    struct lt_digest latents, frames; /* when it was finalizing */
    struct world_task task[WORLD_TASKS_MAX];
};

struct world {
    uint64_t seed, random;
    struct world_plan plan;
    bool calm; /* no faults: the reference run */
    int64_t now_us, fault_us, last_check_us;
    struct lt_hub *hub;
    struct lt_link *link;
    struct core *core;
    struct journal *journal;
    bool deaf; /* the coordinator's packets are lost: it is about to crash */
    int64_t lane_us[WORLD_WORKERS_MAX + 1][2]; /* in-order delivery per worker and direction */
    struct world_worker worker[WORLD_WORKERS_MAX];
    struct world_job job[WORLD_JOBS_MAX];
    bool failed;
    char failure[512];
    uint64_t events, crashes, retries;
};

/* The reference: what each kind of job gives on one worker without faults. */
struct world_reference {
    struct lt_digest latents, frames;
};
uint32_t world_job_kinds(void);
lt_status world_reference(uint32_t kind, struct world_reference *reference_out, char *text, size_t size);

/* Runs one schedule. False: `text` says what broke. */
bool world_run(uint64_t seed, const struct world_reference *reference, struct world *world, bool verbose);

/* shared by the parts */
uint32_t world_draw(struct world *world, uint32_t bound); /* 0 … bound-1 */
bool world_chance(struct world *world, uint32_t of_thousand);
void world_fail(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));
struct world_job *world_find_job(struct world *world, uint32_t id);

void worker_boot(struct world *world, uint32_t index);
void worker_kill(struct world *world, uint32_t index);
void worker_run_due(struct world *world, uint32_t index);
int64_t worker_next_us(const struct world *world, uint32_t index);

void check_sent(struct world *world, const struct lt_packet *packet);
void check_state(struct world *world);
void check_final(struct world *world, const struct world_reference *reference);
