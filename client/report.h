/* What a render tells scripts: seconds, bytes, retries, digests, who was busy. */
#pragma once

#include "coordinator/coordinator.h"
#include "coordinator/publish.h"

struct report {
    double seconds, publish_seconds;
    uint64_t task_failures;
    struct coordinator_job_status job;
    uint64_t planned_down, planned_up;
    struct lt_traffic traffic[2];
    uint32_t windows; /* of the first step */
    struct coordinator_worker_status worker[64];
    size_t worker_count;
};

/* Keeps the workers' latest numbers: they are gone once the workers left. */
void report_sample(struct report *report, struct coordinator *coordinator);
/* `traffic`: of the coordinator's link, by channel. */
void report_job(struct report *report, const struct coordinator_job_status *job,
                const struct plan *plan, const struct lt_traffic traffic[2]);
lt_status report_write(const struct report *report, const char *path,
                       const struct publish_result *published, uint32_t worker_deaths,
                       struct lt_error *error);
