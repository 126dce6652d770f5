/* A job file as the client reads it: parsed for its own use, and where relative paths begin. */
#pragma once

#include "coordinator/job.h"

struct job_file {
    char *json;
    size_t bytes;
    char dir[4096]; /* the folder of the file */
    struct lt_arena arena;
    struct job job;
};

lt_status job_file_read(const char *path, struct job_file *file_out, struct lt_error *error);
void job_file_fini(struct job_file *file); /* accepts a zeroed one */
