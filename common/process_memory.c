/* /proc/self/status for the process, memory.current and memory.max (cgroup v2) or
 * memory.usage_in_bytes and memory.limit_in_bytes (v1) for its group. */
#include "common/process_memory.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { STATUS_BYTES = 8192 };
static const uint64_t no_limit = (uint64_t)1 << 60; /* v1 says "none" by a number near 2^63 */

struct lt_memory_probe {
    int status, cgroup_current, cgroup_limit; /* file descriptors; -1: not there */
};

/* "VmRSS:	    1748 kB" -> bytes; 0 when the line is not there. */
static uint64_t status_line(const char *text, const char *name)
{
    const size_t length = strlen(name);
    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, length) == 0 && line[length] == ':')
            return strtoull(line + length + 1, NULL, 10) * 1024;
    }
    return 0;
}

static uint64_t read_number(int fd)
{
    char text[64];
    const ssize_t count = fd < 0 ? -1 : pread(fd, text, sizeof text - 1, 0);
    if (count <= 0)
        return 0;
    text[count] = 0;
    const uint64_t number = strtoull(text, NULL, 10); /* "max" gives 0 */
    return number < no_limit ? number : 0;
}

/* A group's folder may be mounted as the root of its namespace: then the path of /proc/self/cgroup
 * does not exist below the mount, and the mount itself is the group. */
static int open_in_group(const char *mount, const char *group, const char *file)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s%s/%s", mount, group, file);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        return fd;
    snprintf(path, sizeof path, "%s/%s", mount, file);
    return open(path, O_RDONLY | O_CLOEXEC);
}

/* Lines of /proc/self/cgroup: "0::/path" (v2), "4:memory:/path" (v1). */
static void open_cgroup(struct lt_memory_probe *probe)
{
    char line[PATH_MAX];
    FILE *file = fopen("/proc/self/cgroup", "r");
    while (file && probe->cgroup_current < 0 && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        const char *v1 = strstr(line, ":memory:");
        if (v1) {
            const char *group = v1 + strlen(":memory:");
            probe->cgroup_current =
                open_in_group("/sys/fs/cgroup/memory", group, "memory.usage_in_bytes");
            probe->cgroup_limit =
                open_in_group("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes");
        } else if (strncmp(line, "0::", 3) == 0) {
            probe->cgroup_current = open_in_group("/sys/fs/cgroup", line + 3, "memory.current");
            probe->cgroup_limit = open_in_group("/sys/fs/cgroup", line + 3, "memory.max");
        }
    }
    if (file)
        fclose(file);
}

lt_status lt_memory_probe_create(struct lt_memory_probe **probe_out, struct lt_error *error)
{
    struct lt_memory_probe *probe = malloc(sizeof *probe);
    if (!probe)
        return lt_fail(error, LT_NO_MEMORY, "no memory for diagnostics");
    *probe = (struct lt_memory_probe){-1, -1, -1};
    probe->status = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    if (probe->status < 0) {
        free(probe);
        return lt_fail(error, LT_IO, "/proc/self/status: cannot open");
    }
    open_cgroup(probe);
    *probe_out = probe;
    return LT_OK;
}

void lt_memory_probe_destroy(struct lt_memory_probe **probe)
{
    if (!*probe)
        return;
    const int fds[] = {(*probe)->status, (*probe)->cgroup_current, (*probe)->cgroup_limit};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    free(*probe);
    *probe = NULL;
}

void lt_memory_probe_read(struct lt_memory_probe *probe, struct lt_process_memory *memory_out)
{
    char text[STATUS_BYTES];
    struct rusage usage;
    const ssize_t count = pread(probe->status, text, sizeof text - 1, 0);
    text[count > 0 ? count : 0] = 0;
    const uint64_t pinned = status_line(text, "VmPin"), locked = status_line(text, "VmLck");
    getrusage(RUSAGE_SELF, &usage);
    *memory_out = (struct lt_process_memory){
        .rss_anon_bytes = status_line(text, "RssAnon"),
        .rss_file_bytes = status_line(text, "RssFile"),
        .rss_shmem_bytes = status_line(text, "RssShmem"),
        .vms_bytes = status_line(text, "VmSize"),
        .peak_rss_bytes = status_line(text, "VmHWM"),
        .swap_bytes = status_line(text, "VmSwap"),
        .locked_bytes = pinned > locked ? pinned : locked,
        .cgroup_bytes = read_number(probe->cgroup_current),
        .cgroup_limit_bytes = read_number(probe->cgroup_limit),
        .major_faults = (uint64_t)usage.ru_majflt,
    };
}

uint64_t lt_memory_limit(void)
{
    struct lt_memory_probe *probe;
    struct lt_process_memory memory = {0};
    uint64_t limit = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (lt_memory_probe_create(&probe, NULL) == LT_OK) {
        lt_memory_probe_read(probe, &memory);
        lt_memory_probe_destroy(&probe);
    }
    if (memory.cgroup_limit_bytes && memory.cgroup_limit_bytes < limit)
        limit = memory.cgroup_limit_bytes;
    return limit;
}
