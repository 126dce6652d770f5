/* The worker processes of an embedded farm: started, watched, started again when they die, and
 * ended. */
#pragma once

#include "common/status.h"

#include <sys/types.h>

enum { CREW_MAX = 256, CREW_RESTARTS_MAX = 5 };

struct crew_params {
    const char *program; /* longtake-worker; NULL: beside this program */
    const char *endpoint;
    const char *const *models; /* folders and files */
    size_t model_count;
    const char *log_dir; /* worker-<n>.log */
    int worker_count, thread_count;
    uint64_t ram_bytes; /* limit of each worker; 0: it finds its own */
};

struct crew {
    struct crew_params params;
    char program[4096], log_path[4096];
    pid_t pid[CREW_MAX];
    int restarts[CREW_MAX];
    bool closing; /* no more restarts */
    uint32_t deaths;
};

/* The worker program: the wanted one, or longtake-worker beside this program. */
lt_status crew_find_program(const char *wanted, char *path_out, size_t size,
                            struct lt_error *error);
lt_status crew_start(struct crew *crew, const struct crew_params *params, struct lt_error *error);
/* Notices dead workers and starts them again. LT_LINK: one died too often; the text names its log.
 */
lt_status crew_watch(struct crew *crew, struct lt_error *error);
int crew_alive(struct crew *crew);
void crew_close(struct crew *crew); /* from now on, dead ones stay dead */
void crew_signal(struct crew *crew, int signal);
