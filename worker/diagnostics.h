/* What a worker's memory looked like at every stage (pipeline.md 4.7): samples with a tag, taken
 * from the system and from the engine's own counters, kept for the report, written to the log, and
 * watched: a page that had to be read from disk while a model computes means that the machine
 * swaps, which is the first thing to know when a take becomes slow.
 *
 * One thread samples; others may read `diagnostics_last`. A sample costs well under 100 us. */
#pragma once

#include "common/process_memory.h"

#include <stdio.h>

/*   field, help */
#define MEMORY_COUNT_LIST(X)                                                                       \
    X(weights_resident, "weights on the device")                                                   \
    X(weights_swapped, "streamed weights kept in main memory")                                     \
    X(lora, "LoRA pairs, wherever they are")                                                       \
    X(cache, "conditioning kept over the steps")                                                   \
    X(activations, "activations of the running model")                                             \
    X(scratch, "scratch of the kernels")                                                           \
    X(latents, "inputs and results of tasks")                                                      \
    X(device, "of the device, by our own allocations")                                             \
    X(device_peak, "most of the device so far")                                                    \
    X(read, "read from model files so far")                                                        \
    X(copied, "copied to the device so far")

/* Exact, from our own allocators. */
struct memory_counts {
#define MEMORY_COUNT_FIELD(field, help) uint64_t field##_bytes;
    MEMORY_COUNT_LIST(MEMORY_COUNT_FIELD)
#undef MEMORY_COUNT_FIELD
    uint64_t stall_us; /* the model waited for copies so long so far */
};

/*   stage, name, the model computes since the sample before */
#define MEMORY_STAGE_LIST(X)                                                                       \
    X(START, "start", 0)                                                                           \
    X(LOAD_BEGIN, "load-begin", 0)                                                                 \
    X(LOAD_END, "load-end", 0)                                                                     \
    X(TASK_BEGIN, "task-begin", 0)                                                                 \
    X(TASK_END, "task-end", 1)                                                                     \
    X(RELEASE, "release", 0)                                                                       \
    X(CLEANUP, "cleanup", 0)

enum memory_stage {
#define MEMORY_STAGE_ENUM(name, text, computes) MEMORY_STAGE_##name,
    MEMORY_STAGE_LIST(MEMORY_STAGE_ENUM)
#undef MEMORY_STAGE_ENUM
        MEMORY_STAGE_COUNT
};

struct memory_sample {
    int64_t time_us; /* monotonic */
    enum memory_stage stage;
    uint64_t task;    /* 0: none */
    char subject[64]; /* "predict", a model's name … */
    struct lt_process_memory process;
    struct memory_counts counts;
};

struct diagnostics;

/* Keeps the last `sample_max` samples. */
lt_status diagnostics_create(size_t sample_max, struct diagnostics **diagnostics_out,
                             struct lt_error *error);
void diagnostics_destroy(struct diagnostics **diagnostics);

void diagnostics_sample(struct diagnostics *diagnostics, enum memory_stage stage, uint64_t task,
                        const char *subject, const struct memory_counts *counts);
/* Any thread; all zero before the first. */
void diagnostics_last(struct diagnostics *diagnostics, struct memory_sample *sample_out);
/* Major faults while a model computed, since the start. */
uint64_t diagnostics_swapping(struct diagnostics *diagnostics);

/* [{"time_us": …, "stage": …}, …], oldest first, for reports. */
void diagnostics_write_json(struct diagnostics *diagnostics, FILE *to);
