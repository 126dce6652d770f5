/* What run.c and run_blobs.c share: the run itself. */
#pragma once

#include "common/lru.h"
#include "coordinator/collect.h"
#include "coordinator/cut.h"
#include "coordinator/run.h"

struct run {
    uint32_t id;
    struct lt_arena arena;
    struct job job;
    struct job_model model[RUN_MODELS];
    uint64_t text_bytes[2]; /* of the features: positive, negative */
    struct lt_digest text[2];
    struct lt_lru *digests; /* of cuts that do not change, by name and role */
    struct plan plan;
    struct sampler sampler;
    struct noise *noise;
    struct graph *graph;
    struct latents latents;
    struct collect collect;
    struct journal *journal;
    struct objects *store;
    struct run_task *task;
    uint32_t *frames; /* those a commit completes: [frames of the largest window] */
    struct run_recovered *recovered;
    size_t recovered_count;
    uint32_t done[PLAN_KINDS], leased_count; /* committed, by kind */
    struct lt_peer *holder;                  /* of each window, with a cache; else NULL */
    bool skips_known;                        /* TeaCache's steps are marked in the plan */
};

/* run_blobs.c */
lt_status run_blobs_init(struct run *run, struct lt_error *error);
void run_blobs_fini(struct run *run);
/* "segments/3", "results/0", "predictions/17": where the result of a task lies. */
void run_result_name(const struct run *run, uint32_t task, char name_out[32]);

/* run_skips.c */
lt_status run_skips_init(struct run *run, struct lt_error *error);
/* Before a prediction's spec is made: TeaCache's steps, from what the workers found of the time
 * embeddings. */
lt_status run_know_skips(struct run *run, struct lt_error *error);
/* Names what the windows of this job keep on their workers. */
struct lt_digest run_cache_key(const struct run *run, uint32_t window);
