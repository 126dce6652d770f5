/* Between the files that read a job (job.c) and check it (job_check.c). */
#pragma once

#include "coordinator/job.h"

/* One parse. */
struct job_reader {
    const char *origin;
    struct lt_arena *arena;
    struct job *job;
    struct lt_error *error;
};

/* "job.json: /window/overlap: …" */
lt_status job_fail_at(const struct job_reader *reader, const char *section, const char *key,
                      lt_status status, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* What several keys decide together, once each is read; fills what follows from them. */
lt_status job_check(const struct job_reader *reader);
