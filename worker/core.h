/* The worker's side of the protocol as a state machine: (state, event, now) -> actions. No sockets,
 * no clock, no threads: worker.c and the simulator perform the actions. docs/wire.md tells the
 * story.
 *
 *   connect -> HELLO -> WELCOME -> { ASSIGN, fetch blobs, compute, OFFER, send, COMMITTED }* -> BYE
 *
 * A worker that hears nothing for a lease time reconnects (a new session, new streams) and offers
 * again what it has finished; it keeps results until COMMITTED says what became of them, or ten
 * minutes pass unheard. */
#pragma once

#include "proto/link.h"
#include "worker/engine.h"

/* While some tasks run, as many wait with their blobs on the way. */
enum { WORKER_SLOTS_PER_TASK = 2 };

struct worker_params {
    const char *name, *build, *device, *kernel_class; /* outlive the core */
    const struct lt_model_file *model;                /* outlive the core */
    size_t model_count;
    uint64_t boot_nonce, memory_bytes;
    uint64_t blob_cache_bytes; /* of blobs no task needs now */
    uint64_t jitter_seed;
};

enum worker_action_kind {
    WORKER_SEND,      /* packet */
    WORKER_RECONNECT, /* a new connection; then worker_core_connected */
    WORKER_START,     /* compute `work` in one batch; then worker_core_finished for each */
    WORKER_CANCEL,    /* the running batch should end soon */
    WORKER_EXIT,      /* leave with `status` and `text` */
};

struct worker_action {
    enum worker_action_kind kind;
    struct lt_packet packet;        /* SEND: payload stays valid until the next call of the core */
    const struct engine_work *work; /* START: specs and blobs are valid until finished */
    size_t work_count;
    lt_status status;
    char text[256];
};

/* Performs one action at once; must not call the core. */
typedef void worker_act(void *context, const struct worker_action *action);

struct worker_core;
lt_status worker_core_create(const struct worker_params *params, worker_act *act, void *context,
                             int64_t now_us, struct worker_core **core_out, struct lt_error *error);
void worker_core_destroy(struct worker_core **core);

/* Events. Each may act. */
void worker_core_connected(struct worker_core *core, int64_t now_us);
void worker_core_receive(struct worker_core *core, const struct lt_packet *packet, int64_t now_us);
void worker_core_tick(struct worker_core *core, int64_t now_us);
/* A started task ended: `result` is malloc'ed and becomes the core's (NULL unless status is LT_OK).
 * The next batch starts when all of this one have. */
void worker_core_finished(struct worker_core *core, uint64_t task, lt_status status,
                          const char *text, void *result, int64_t now_us);
void worker_core_drain(struct worker_core *core, int64_t now_us);

/* What the running batch has done, for the next beat. */
void worker_core_progress(struct worker_core *core, uint32_t phase, uint32_t done, uint32_t total);
/* What memory looks like, for the next beat. */
void worker_core_memory(struct worker_core *core, const struct lt_beat_memory *memory);
/* Which transformer is loaded, for the next beat: tasks of it come here first. */
void worker_core_resident(struct worker_core *core, const struct lt_digest *fingerprint);
/* So many tasks may be computed at once from now on (1 … ENGINE_BATCH_MAX; 1 at first): a worker
 * that streams its weights asks for more, and the coordinator hears of it with the next beat. */
void worker_core_batch(struct worker_core *core, uint32_t batch_max);
/* When tick wants to be called at the latest. */
int64_t worker_core_deadline_us(const struct worker_core *core);
bool worker_core_is_idle(const struct worker_core *core); /* nothing runs, waits or is unsent */

struct worker_core_stats {
    uint64_t tasks_committed, tasks_failed, blobs_fetched, bytes_in, bytes_out, sessions;
};
void worker_core_stats(const struct worker_core *core, struct worker_core_stats *stats_out);
