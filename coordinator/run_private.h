/* What run.c and run_blobs.c share: the run itself. */
#pragma once

#include "coordinator/collect.h"
#include "coordinator/run.h"

struct run {
    uint32_t id;
    struct lt_arena arena;
    struct job job;
    struct job_model model[RUN_MODELS];
    struct run_text text[2]; /* positive, negative */
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
    uint32_t predict_done, decode_done, leased_count;
};
