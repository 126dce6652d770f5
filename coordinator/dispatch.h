/* Which ready task goes to which worker. Pure: it reads jobs, graphs and fleet, and changes
 * nothing.
 *
 * Jobs: higher priority first, then the one with fewer leases (round robin), then the older. Within
 * a job the lowest step first, so that frames stay close together. Workers: idle ones first, then
 * the one that ran this window or this model last; never the one where the task failed last while
 * another can run it. What a task reuses of its window's earlier steps keeps it waiting for the
 * worker that holds it, as long as that one can run it. A busy worker gets a task to wait with only
 * when there is one for every such worker: otherwise the last tasks of a job would queue behind
 * slow workers while fast ones idle.
 */
#pragma once

#include "coordinator/fleet.h"
#include "coordinator/run.h"

struct dispatch_job {
    struct run *run;
    int32_t priority;
    uint32_t lease_count;
    const char *kernel_class; /* "": the first worker decides */
};

struct dispatch_choice {
    uint32_t job; /* index into the list */
    uint32_t task;
    struct fleet_worker *worker;
};

/* False: nothing can be placed now. */
bool dispatch_pick(const struct fleet *fleet, const struct dispatch_job *job, size_t job_count,
                   int64_t now_us, struct dispatch_choice *choice_out);

/* True: a model of the job, which `text_out` names, is beyond every connected worker (no such file,
 * another one of its name, one they cannot use, another kernel class), so that only other workers
 * help. False with no worker. */
bool dispatch_lacks(const struct fleet *fleet, const struct dispatch_job *job, int64_t now_us,
                    char *text_out, size_t size);

/* Why no ready task of the job is placed now, in one sentence for people. */
void dispatch_explain(const struct fleet *fleet, const struct dispatch_job *job, int64_t now_us,
                      char *text_out, size_t size);
