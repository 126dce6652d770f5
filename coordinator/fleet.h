/* The workers we know, by peer id. Bookkeeping only: who is there, what they can do, when they were
 * last heard. A worker that starts anew has a new peer id and is a new worker. One owner. */
#pragma once

#include "coordinator/lease.h"

enum { FLEET_TEXT_BYTES = 128 };

struct fleet_model {
    char name[FLEET_TEXT_BYTES]; /* file name without folders */
    struct lt_digest fingerprint;
    lt_status refused; /* LT_OK, or why this worker cannot use it */
};

struct fleet_worker {
    struct lt_peer peer;
    char name[FLEET_TEXT_BYTES], device[FLEET_TEXT_BYTES], kernel_class[FLEET_TEXT_BYTES];
    struct fleet_model *model;
    size_t model_count;
    uint64_t session, memory_bytes;
    struct lt_beat_memory memory; /* of its last beat */
    struct lt_digest resident;    /* the transformer it holds, of its last beat; zero: none */
    uint32_t slot_count, version_minor;
    uint32_t lease_first, lease_count; /* list through the lease table */
    bool suspect;                      /* silent for a while: nothing new for it */
    bool draining;
    int64_t heard_us;
    int64_t hold_until_us; /* it failed lately: nothing new until then */
    uint32_t failure_streak;
    uint32_t last_job, last_window, last_model; /* what it ran last: it has those bytes at hand */
    uint64_t tasks_done, tasks_failed;
    int64_t busy_us, result_us;  /* result_us: when its last result was in */
    struct lt_progress progress; /* of its first lease */
};

struct fleet {
    struct fleet_worker **worker; /* ordered by peer id */
    size_t count, capacity;
    uint64_t session_last;
};

void fleet_fini(struct fleet *fleet); /* accepts a zeroed one */
struct fleet_worker *fleet_find(const struct fleet *fleet,
                                const struct lt_peer *peer); /* NULL: unknown */
/* The worker of a HELLO: a new one, or a known one brought up to date (its leases stay).
 * LT_BAD_INPUT when a text is missing. */
lt_status fleet_join(struct fleet *fleet, const struct lt_peer *peer, const struct lt_hello *hello,
                     int64_t now_us, struct fleet_worker **worker_out, struct lt_error *error);
/* Tasks it wants at a time; 0: as before. */
void fleet_set_slots(struct fleet_worker *worker, uint32_t count);
/* It must have no leases. */
void fleet_remove(struct fleet *fleet, struct fleet_worker *worker);

void fleet_attach(struct fleet_worker *worker, struct lease_table *leases, uint32_t lease);
void fleet_detach(struct fleet_worker *worker, struct lease_table *leases, uint32_t lease);

/* The model of the worker that a job means: by fingerprint when it has one, else by file name.
 * NULL: it has none. */
struct fleet_model *fleet_model(const struct fleet_worker *worker, const char *name,
                                const struct lt_digest *fingerprint);
const char *fleet_base_name(const char *path);
const char *fleet_state(const struct fleet_worker *worker); /* "idle" … */
