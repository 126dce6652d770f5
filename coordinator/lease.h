/* Leases: the right of one worker to run one task for a while, under an epoch that never comes
 * again. A table without clock or I/O; what follows from an ended lease is decided by lease_rule.
 * One owner. */
#pragma once

#include "proto/link.h"

enum lease_verdict {
    LEASE_RETRY,           /* any worker may try */
    LEASE_RETRY_ELSEWHERE, /* this worker cannot use that model: not there again until it says HELLO
                              anew */
    LEASE_GIVE_UP,         /* the job fails with the reason: no worker would fare better */
};

struct lease_rule {
    enum lease_verdict verdict;
    bool charged; /* counts against the task's attempts */
};

/* What to do with a task whose lease ended with `status`: the one retry table of the farm. */
struct lease_rule lease_rule(lt_status status);

enum { LEASE_NONE = UINT32_MAX, LEASE_BLOBS_MAX = LT_SPEC_BLOBS_MAX };

struct lease {
    uint32_t job, task;
    uint64_t epoch;
    struct lt_peer peer;
    int64_t expires_us;
    int64_t granted_us;                       /* for the time a task takes */
    int64_t assigned_us;                      /* ASSIGN last sent */
    struct lt_blob_ref blob[LEASE_BLOBS_MAX]; /* what its worker may fetch */
    size_t blob_count;
    uint32_t damaged; /* times its result arrived damaged */
    uint32_t next;    /* next lease of the worker, or free entry */
    bool used;
};

struct lease_table {
    struct lease *item;
    uint32_t capacity, count, free_first;
};

void lease_table_init(struct lease_table *table);
void lease_table_fini(struct lease_table *table);
/* Index of a copy of `lease`; pointers into the table are void after it. LT_NO_MEMORY. */
lt_status lease_add(struct lease_table *table, const struct lease *lease, uint32_t *index_out,
                    struct lt_error *error);
void lease_remove(struct lease_table *table, uint32_t index);
struct lease *lease_at(struct lease_table *table, uint32_t index);
/* Used entries in order of index, from `index` on; LEASE_NONE: no more. */
uint32_t lease_next(const struct lease_table *table, uint32_t index);

bool lease_peer_equal(const struct lt_peer *a, const struct lt_peer *b);
