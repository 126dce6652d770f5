/* One slab a transformer block, one for the rest: [ tensor | pad to 64 | tensor | … ]. Loading
 * reads every tensor once, in file order, straight to its place: the extra memory is what pread
 * itself needs. */
#include "worker/weights/store.h"

#include "common/arena.h"
#include "common/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { BLOCKS_MAX = 512, ALIGNMENT = 64 };

struct placed {
    const char *name;
    struct lt_view view;
};

struct slab {
    void *data;
    size_t bytes;
    int users;
};

struct store {
    char *path; /* for messages */
    struct lt_arena arena;
    struct placed *tensor; /* sorted by name */
    size_t count;
    struct slab *slab; /* blocks, then the rest */
    size_t block_count;
    struct store_stats stats;
};

/* "blocks.<n>.…" -> n; anything else -> -1. */
static int64_t block_of(const char *name)
{
    char *end;
    if (strncmp(name, "blocks.", 7) != 0 || name[7] < '0' || name[7] > '9')
        return -1;
    const long number = strtol(name + 7, &end, 10);
    return end > name + 7 && *end == '.' && number >= 0 && number < BLOCKS_MAX ? number : -1;
}

static size_t padded(uint64_t bytes)
{
    return (size_t)((bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct placed *)a)->name, ((const struct placed *)b)->name);
}

static struct slab *slab_of(struct store *store, const char *name)
{
    const int64_t block = block_of(name);
    return &store->slab[block < 0 ? (int64_t)store->block_count : block];
}

static lt_status reserve_slabs(struct store *store, const struct tensor_file *file,
                               store_filter *wanted, void *context, struct lt_error *error)
{
    for (size_t i = 0; i < tensor_file_count(file); i++) {
        const int64_t block = block_of(tensor_file_at(file, i)->name);
        if (block >= (int64_t)store->block_count)
            store->block_count = (size_t)block + 1;
    }
    store->slab = calloc(store->block_count + 1, sizeof *store->slab);
    if (!store->slab)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for %zu slabs", store->path,
                       store->block_count + 1);
    for (size_t i = 0; i < tensor_file_count(file); i++) {
        const struct tensor_info *info = tensor_file_at(file, i);
        if (wanted && !wanted(context, info->name))
            continue;
        slab_of(store, info->name)->bytes += padded(info->bytes);
        store->count++;
    }
    for (size_t i = 0; i <= store->block_count; i++) {
        struct slab *slab = &store->slab[i];
        if (slab->bytes == 0)
            continue;
        /* not malloc: what is unmapped goes back to the system at once */
        void *data =
            mmap(NULL, slab->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        slab->data = data == MAP_FAILED ? NULL : data;
        if (slab->data)
            madvise(slab->data, slab->bytes,
                    MADV_HUGEPAGE); /* fewer faults and TLB misses; a wish, not a need */
        if (!slab->data)
            return lt_fail(error, LT_NO_MEMORY, "%s: no memory for a slab of %zu bytes",
                           store->path, slab->bytes);
        store->stats.slab_count++;
    }
    store->tensor = lt_arena_take_array(&store->arena, store->count + 1, sizeof *store->tensor);
    return store->tensor ? LT_OK
                         : lt_fail(error, LT_NO_MEMORY, "%s: no memory for its index", store->path);
}

static lt_status read_tensors(struct store *store, struct tensor_file *file, store_filter *wanted,
                              void *context, struct lt_error *error)
{
    size_t *used = calloc(store->block_count + 1, sizeof *used);
    lt_status status = used ? LT_OK : lt_fail(error, LT_NO_MEMORY, "%s: no memory", store->path);
    size_t n = 0;
    for (size_t i = 0; i < tensor_file_count(file) && status == LT_OK; i++) {
        const struct tensor_info *info = tensor_file_at(file, i);
        if (wanted && !wanted(context, info->name))
            continue;
        struct slab *slab = slab_of(store, info->name);
        size_t *at = &used[slab - store->slab];
        struct placed *tensor = &store->tensor[n++];
        tensor->name = lt_arena_text(&store->arena, info->name);
        tensor->view = lt_view_make((char *)slab->data + *at, info->type, info->rank, info->dim);
        *at += padded(info->bytes);
        store->stats.weight_bytes += info->bytes;
        status = tensor->name ? tensor_file_read(file, info, tensor->view.data, error)
                              : lt_fail(error, LT_NO_MEMORY, "%s: no memory", store->path);
    }
    free(used);
    return status;
}

lt_status store_load(struct tensor_file *file, store_filter *wanted, void *context,
                     struct store **store_out, struct lt_error *error)
{
    const int64_t start = lt_clock_now_us();
    const uint64_t read_before = tensor_file_bytes_read(file);
    struct store *store = calloc(1, sizeof *store);
    if (!store)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory", tensor_file_path(file));
    lt_arena_init(&store->arena, 0);
    store->path = strdup(tensor_file_path(file));
    lt_status status = store->path
                           ? reserve_slabs(store, file, wanted, context, error)
                           : lt_fail(error, LT_NO_MEMORY, "%s: no memory", tensor_file_path(file));
    if (status == LT_OK)
        status = read_tensors(store, file, wanted, context, error);
    if (status != LT_OK) {
        store_destroy(&store);
        return status;
    }
    qsort(store->tensor, store->count, sizeof *store->tensor, by_name);
    store->stats.tensor_count = store->count;
    store->stats.read_bytes = tensor_file_bytes_read(file) - read_before;
    store->stats.load_seconds = (double)(lt_clock_now_us() - start) * 1e-6;
    *store_out = store;
    return LT_OK;
}

void store_destroy(struct store **store)
{
    struct store *s = *store;
    if (!s)
        return;
    for (size_t i = 0; s->slab && i <= s->block_count; i++) {
        lt_assert(s->slab[i].users == 0);
        if (s->slab[i].data)
            munmap(s->slab[i].data, s->slab[i].bytes);
    }
    free(s->slab);
    free(s->path);
    lt_arena_fini(&s->arena);
    free(s);
    *store = NULL;
}

size_t store_block_count(const struct store *store)
{
    return store->block_count;
}

lt_status store_acquire(struct store *store, size_t block, struct lt_error *error)
{
    (void)error; /* every slab is resident today */
    lt_assert(block < store->block_count);
    store->slab[block].users++;
    return LT_OK;
}

void store_release(struct store *store, size_t block)
{
    lt_assert(block < store->block_count && store->slab[block].users > 0);
    store->slab[block].users--;
}

static const struct placed *find(const struct store *store, const char *name)
{
    return bsearch(&(struct placed){.name = name}, store->tensor, store->count,
                   sizeof *store->tensor, by_name);
}

bool store_has(const struct store *store, const char *name)
{
    return find(store, name) != NULL;
}

lt_status store_tensor(const struct store *store, const char *name, struct lt_view *view_out,
                       struct lt_error *error)
{
    const struct placed *tensor = find(store, name);
    if (!tensor)
        return lt_fail(error, LT_NOT_FOUND, "%s: tensor '%s' is missing", store->path, name);
    *view_out = tensor->view;
    return LT_OK;
}

static void format_dims(char *text, size_t size, int rank, const int64_t *dim)
{
    size_t used = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < rank && used < size; i++)
        used +=
            (size_t)snprintf(text + used, size - used, "%s%lld", i ? ", " : "", (long long)dim[i]);
    if (used < size)
        snprintf(text + used, size - used, "]");
}

lt_status store_tensor_shaped(const struct store *store, const char *name, int rank,
                              const int64_t *dim, struct lt_view *view_out, struct lt_error *error)
{
    struct lt_view view;
    int64_t count = 1;
    LT_TRY(store_tensor(store, name, &view, error));
    for (int i = 0; i < rank; i++)
        count *= dim[i];
    const struct lt_type_info *type = lt_type_info(view.type);
    if (count != lt_view_count(&view) || (rank > 0 && dim[rank - 1] % type->block_values != 0)) {
        char expected[128], found[128];
        format_dims(expected, sizeof expected, rank, dim);
        format_dims(found, sizeof found, view.rank, view.dim);
        return lt_fail(error, LT_BAD_INPUT, "%s: tensor '%s': expected %s, found %s of type %s",
                       store->path, name, expected, found, type->name);
    }
    *view_out = lt_view_make(view.data, view.type, rank, dim);
    return LT_OK;
}

void store_stats(const struct store *store, struct store_stats *stats_out)
{
    *stats_out = store->stats;
}
