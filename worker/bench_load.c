/* longtake-worker bench-load: what loading a file costs on this machine, beside a plain read of the
 * same file in the same run. Both start with the file out of the page cache. */
#include "worker/commands.h"

#include "common/clock.h"
#include "common/option.h"
#include "common/process_memory.h"
#include "worker/weights/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BUFFER_BYTES = 8 << 20, EXTRA_BYTES = 16 << 20 };

struct settings {
    bool json;
};

static const struct lt_option options[] = {
    LT_OPTION(struct settings, json, FLAG, NULL, NULL, .help = "one JSON object"),
};

static const struct lt_command command = {
    .program = "longtake-worker bench-load",
    .usage = "FILE [--json]",
    .summary = "Loads all of a model file and tells how long it took beside a plain sequential "
               "read of it, what memory it took beside the placed weights, and what of the file "
               "is mapped or cached afterwards. Needs the file's size in free memory.",
    .examples = "  longtake-worker bench-load wan2.2_animate_14B_Q5_K_M.gguf\n",
    .options = options,
    .option_count = LT_COUNT(options),
    .operand_min = 1,
    .operand_max = 1,
};

struct figures {
    uint64_t file_bytes, weight_bytes, placed_bytes, largest_bytes, read_bytes;
    double read_seconds, load_seconds;
    uint64_t extra_bytes;  /* most anonymous memory while loading, over the placed slabs */
    uint64_t mapped_bytes; /* of the file, with the weights loaded */
    uint64_t cache_bytes;  /* of the file in the page cache, after */
    bool cold;             /* the file system dropped the file's pages when asked to */
};

/* -- what the system says ---------------------------------------------------------------------- */

/* The kernel keeps the peak; from now on it is of what follows. */
static void reset_peak(void)
{
    const int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void)!write(fd, "5", 1);
        close(fd);
    }
}

static uint64_t mapped_bytes(const char *path)
{
    char line[4096];
    uint64_t total = 0;
    char *const real = realpath(path, NULL);
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && real && fgets(line, sizeof line, maps)) {
        unsigned long long from, to;
        if (strstr(line, real) && sscanf(line, "%llx-%llx", &from, &to) == 2)
            total += to - from;
    }
    if (maps)
        fclose(maps);
    free(real);
    return total;
}

/* Asked of the kernel through a map that is there for this question only. */
static uint64_t cached_bytes(int fd, uint64_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (bytes + page - 1) / page;
    unsigned char *resident = malloc(pages ? pages : 1);
    void *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    uint64_t cached = 0;
    if (resident && map != MAP_FAILED && mincore(map, bytes, resident) == 0)
        for (size_t i = 0; i < pages; i++)
            cached += (resident[i] & 1) * page;
    if (map != MAP_FAILED)
        munmap(map, bytes);
    free(resident);
    return cached;
}

static void drop_cache(int fd)
{
    fdatasync(fd); /* pages that are not written yet cannot go */
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* -- the two runs ------------------------------------------------------------------------------ */

static lt_status read_plainly(int fd, const char *path, char *buffer, double *seconds_out,
                              struct lt_error *error)
{
    const int64_t start = lt_clock_now_us();
    ssize_t got = 1;
    for (off_t at = 0; got > 0; at += got)
        if ((got = pread(fd, buffer, BUFFER_BYTES, at)) < 0)
            return lt_fail(error, LT_IO, "%s: cannot read: %s", path, strerror(errno));
    *seconds_out = (double)(lt_clock_now_us() - start) * 1e-6;
    return LT_OK;
}

/* The faster of a read before and a read after the load: caches below us get warmer. */
static lt_status measure_read(const char *path, struct figures *f, struct lt_error *error)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *buffer = malloc(BUFFER_BYTES);
    double seconds = 0;
    lt_status status;
    if (fd < 0 || !buffer) {
        status = lt_fail(error, fd < 0 ? LT_IO : LT_NO_MEMORY, "%s: cannot read", path);
    } else {
        memset(buffer, 0, BUFFER_BYTES);
        drop_cache(fd);
        f->cold = cached_bytes(fd, f->file_bytes) <= f->file_bytes / 100;
        status = read_plainly(fd, path, buffer, &seconds, error);
        drop_cache(fd);
        if (status == LT_OK && (f->read_seconds == 0 || seconds < f->read_seconds))
            f->read_seconds = seconds;
    }
    if (fd >= 0)
        close(fd);
    free(buffer);
    return status;
}

static lt_status measure_load(struct tensor_file *file, struct lt_memory_probe *probe,
                              struct figures *f, struct lt_error *error)
{
    const char *path = tensor_file_path(file);
    struct lt_process_memory before, after;
    struct store *store;
    struct store_stats stats;
    lt_memory_probe_read(probe, &before);
    reset_peak();
    LT_TRY(store_load(file, NULL, NULL, &store, error));
    lt_memory_probe_read(probe, &after);
    store_stats(store, &stats);
    const uint64_t rss = before.rss_anon_bytes + before.rss_file_bytes + before.rss_shmem_bytes;
    const uint64_t grown = after.peak_rss_bytes > rss ? after.peak_rss_bytes - rss : 0;
    f->weight_bytes = stats.weight_bytes;
    f->placed_bytes = stats.device_bytes;
    f->read_bytes = stats.read_bytes;
    f->load_seconds = stats.load_seconds;
    f->extra_bytes = grown > f->placed_bytes ? grown - f->placed_bytes : 0;
    f->mapped_bytes = mapped_bytes(path);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        f->cache_bytes = cached_bytes(fd, f->file_bytes);
        close(fd);
    }
    store_destroy(&store);
    return LT_OK;
}

/* -- for people and scripts -------------------------------------------------------------------- */

static void print(const struct figures *f)
{
    char a[32], b[32], c[32];
    printf("file        %s, tensors %s, the largest %s%s\n", lt_size_format(f->file_bytes, a),
           lt_size_format(f->weight_bytes, b), lt_size_format(f->largest_bytes, c),
           f->cold ? "" : "; this file system keeps it in memory");
    printf("plain read  %.2f s, %.2f GB/s\n", f->read_seconds,
           (double)f->file_bytes / f->read_seconds * 1e-9);
    printf("load        %.2f s, %.2f of the plain read\n", f->load_seconds,
           f->load_seconds / f->read_seconds);
    printf("memory      %s placed, %s more while loading (largest tensor + 16 MiB: %s)\n",
           lt_size_format(f->placed_bytes, a), lt_size_format(f->extra_bytes, b),
           lt_size_format(f->largest_bytes + EXTRA_BYTES, c));
    printf("mapped      %llu bytes of the file\n", (unsigned long long)f->mapped_bytes);
    printf("page cache  %s of the file\n", lt_size_format(f->cache_bytes, a));
}

static void print_json(const struct figures *f)
{
    printf("{\"file_bytes\": %llu, \"weight_bytes\": %llu, \"placed_bytes\": %llu, "
           "\"largest_tensor_bytes\": %llu, \"read_bytes\": %llu",
           (unsigned long long)f->file_bytes, (unsigned long long)f->weight_bytes,
           (unsigned long long)f->placed_bytes, (unsigned long long)f->largest_bytes,
           (unsigned long long)f->read_bytes);
    printf(", \"plain_read_seconds\": %.6f, \"load_seconds\": %.6f, \"load_over_read\": %.4f, "
           "\"cold\": %s",
           f->read_seconds, f->load_seconds, f->load_seconds / f->read_seconds,
           f->cold ? "true" : "false");
    printf(", \"extra_bytes\": %llu, \"extra_bound_bytes\": %llu, \"mapped_bytes\": %llu, "
           "\"cache_bytes\": %llu}\n",
           (unsigned long long)f->extra_bytes, (unsigned long long)(f->largest_bytes + EXTRA_BYTES),
           (unsigned long long)f->mapped_bytes, (unsigned long long)f->cache_bytes);
}

static lt_status measure(const char *path, struct figures *f, struct lt_error *error)
{
    struct tensor_file *file = NULL;
    struct lt_memory_probe *probe = NULL;
    lt_status status;
    LT_TRY(tensor_file_open(path, &file, error));
    f->file_bytes = tensor_file_bytes(file);
    for (size_t i = 0; i < tensor_file_count(file); i++)
        if (tensor_file_at(file, i)->bytes > f->largest_bytes)
            f->largest_bytes = tensor_file_at(file, i)->bytes;
    LT_TRY_OR(lt_memory_probe_create(&probe, error), out);
    LT_TRY_OR(measure_read(path, f, error), out);
    LT_TRY_OR(measure_load(file, probe, f, error), out);
    LT_TRY_OR(measure_read(path, f, error), out);
out:
    lt_memory_probe_destroy(&probe);
    tensor_file_close(&file);
    return status;
}

static lt_status start(void *context, const void *settings, const struct lt_operands *operands,
                       struct lt_error *error)
{
    (void)context;
    struct figures figures = {0};
    LT_TRY(measure(operands->item[0], &figures, error));
    ((const struct settings *)settings)->json ? print_json(&figures) : print(&figures);
    return LT_OK;
}

int worker_bench_load(int argc, char **argv)
{
    return lt_command_main(&command, argc, argv, sizeof(struct settings), start, NULL);
}
