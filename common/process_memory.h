/* What the system says of this process's memory, for diagnostics and limits (pipeline.md 4.7). The
 * files of /proc are opened once and read by pread, so a sample costs some tens of microseconds. */
#pragma once

#include "common/status.h"

/*   field, name in reports and metrics, help */
#define LT_PROCESS_MEMORY_LIST(X)                                                                  \
    X(rss_anon, "anonymous memory in RAM")                                                         \
    X(rss_file, "mapped files in RAM")                                                             \
    X(rss_shmem, "shared memory in RAM")                                                           \
    X(vms, "address space")                                                                        \
    X(peak_rss, "most memory in RAM so far")                                                       \
    X(swap, "anonymous memory on a swap device")                                                   \
    X(locked, "memory that may not be swapped")

struct lt_process_memory {
#define LT_PROCESS_MEMORY_FIELD(field, help) uint64_t field##_bytes;
    LT_PROCESS_MEMORY_LIST(LT_PROCESS_MEMORY_FIELD)
#undef LT_PROCESS_MEMORY_FIELD
    uint64_t cgroup_bytes, cgroup_limit_bytes; /* of the nearest memory cgroup; limit 0: none */
    uint64_t major_faults;                     /* pages that had to be read, since the start */
};

struct lt_memory_probe;

/* LT_IO when /proc is not there. A missing cgroup is no error. */
lt_status lt_memory_probe_create(struct lt_memory_probe **probe_out, struct lt_error *error);
void lt_memory_probe_destroy(struct lt_memory_probe **probe);
/* Fields the system does not tell are 0. */
void lt_memory_probe_read(struct lt_memory_probe *probe, struct lt_process_memory *memory_out);

/* What this process may use: the least of the machine's memory and its cgroups' limits, in bytes.
 */
uint64_t lt_memory_limit(void);
