/* A pool of threads that sleep between ops. A call of lt_exec_parallel posts one job: threads take
 * indices from a shared counter; the caller works too and returns when all parts are done. */
#include "kernels/exec.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/exec_cuda.h"
#include "kernels/host/host.h"
#include "kernels/scratch.h"

struct scratch {
    void *data;
    size_t bytes;
};

struct lt_exec {
    int thread_count;
    enum lt_precision precision;
    pthread_t *thread; /* thread_count - 1: the caller is thread 0 */
    int started;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    uint64_t generation; /* of the posted job */
    int busy;            /* threads still in it */
    bool stop;
    lt_exec_part *part;
    void *context;
    int64_t count;
    atomic_llong next;
    struct scratch *scratch; /* thread_count, then the caller's shared one */
    const _Atomic int *cancel;
    struct host_cache **cache;           /* one per thread, made by the host kernels */
    struct lt_exec_cuda *cuda;           /* not ours; NULL: work runs on the host */
    const struct lt_exec_memory *memory; /* not ours; NULL: RAM */
};

struct start {
    struct lt_exec *exec;
    int thread;
};

static void run_parts(struct lt_exec *exec, int thread)
{
    for (;;) {
        const int64_t index = atomic_fetch_add(&exec->next, 1);
        if (index >= exec->count || lt_exec_cancelled(exec))
            return;
        exec->part(exec->context, index, thread);
    }
}

static void *thread_main(void *context)
{
    const struct start start = *(struct start *)context;
    struct lt_exec *exec = start.exec;
    uint64_t seen = 0;
    free(context);
    host_thread_begin();
    pthread_mutex_lock(&exec->lock);
    for (;;) {
        while (!exec->stop && exec->generation == seen)
            pthread_cond_wait(&exec->work, &exec->lock);
        if (exec->stop)
            break;
        seen = exec->generation;
        pthread_mutex_unlock(&exec->lock);
        run_parts(exec, start.thread);
        pthread_mutex_lock(&exec->lock);
        if (--exec->busy == 0)
            pthread_cond_signal(&exec->done);
    }
    pthread_mutex_unlock(&exec->lock);
    return NULL;
}

static int processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    return 1;
}

lt_status lt_exec_create(const struct lt_exec_params *params, struct lt_exec **exec_out,
                         struct lt_error *error)
{
    struct lt_exec *exec = calloc(1, sizeof *exec);
    if (!exec)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the thread pool");
    exec->thread_count = params->thread_count > 0 ? params->thread_count : processors();
    exec->precision = params->precision;
    pthread_mutex_init(&exec->lock, NULL);
    pthread_cond_init(&exec->work, NULL);
    pthread_cond_init(&exec->done, NULL);
    const size_t count = (size_t)exec->thread_count;
    exec->thread = calloc(count, sizeof *exec->thread);
    exec->scratch = calloc(count + 1, sizeof *exec->scratch);
    exec->cache = calloc(count, sizeof(struct host_cache *));
    if (!exec->thread || !exec->scratch || !exec->cache) {
        lt_exec_destroy(&exec);
        return lt_fail(error, LT_NO_MEMORY, "no memory for the thread pool");
    }
    host_thread_begin();
    for (int i = 1; i < exec->thread_count; i++) {
        struct start *start = malloc(sizeof *start);
        if (start)
            *start = (struct start){exec, i};
        if (!start || pthread_create(&exec->thread[i - 1], NULL, thread_main, start) != 0) {
            free(start);
            lt_exec_destroy(&exec);
            return lt_fail(error, LT_NO_MEMORY, "cannot start thread %d of %d", i + 1,
                           params->thread_count);
        }
        exec->started++;
    }
    *exec_out = exec;
    return LT_OK;
}

void lt_exec_destroy(struct lt_exec **exec)
{
    struct lt_exec *e = *exec;
    if (!e)
        return;
    pthread_mutex_lock(&e->lock);
    e->stop = true;
    pthread_cond_broadcast(&e->work);
    pthread_mutex_unlock(&e->lock);
    for (int i = 0; i < e->started; i++)
        pthread_join(e->thread[i], NULL);
    for (int i = 0; e->scratch && i <= e->thread_count; i++)
        free(e->scratch[i].data);
    for (int i = 0; e->cache && i < e->thread_count; i++)
        host_cache_destroy(&e->cache[i]);
    pthread_cond_destroy(&e->work);
    pthread_cond_destroy(&e->done);
    pthread_mutex_destroy(&e->lock);
    free(e->thread);
    free(e->scratch);
    free(e->cache);
    free(e);
    *exec = NULL;
}

int lt_exec_thread_count(const struct lt_exec *exec)
{
    return exec->thread_count;
}

enum lt_precision lt_exec_precision(const struct lt_exec *exec)
{
    return exec->precision;
}

void lt_exec_parallel(struct lt_exec *exec, int64_t count, lt_exec_part *part, void *context)
{
    exec->part = part;
    exec->context = context;
    exec->count = count;
    atomic_store(&exec->next, 0);
    if (exec->thread_count == 1 || count <= 1) {
        run_parts(exec, 0);
        return;
    }
    pthread_mutex_lock(&exec->lock);
    exec->generation++;
    exec->busy = exec->thread_count - 1;
    pthread_cond_broadcast(&exec->work);
    pthread_mutex_unlock(&exec->lock);
    run_parts(exec, 0);
    pthread_mutex_lock(&exec->lock);
    while (exec->busy > 0)
        pthread_cond_wait(&exec->done, &exec->lock);
    pthread_mutex_unlock(&exec->lock);
}

static size_t rounded(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

void *lt_exec_scratch(struct lt_exec *exec, int thread, size_t bytes)
{
    struct scratch *scratch = &exec->scratch[thread < 0 ? exec->thread_count : thread];
    if (scratch->bytes < bytes) {
        const size_t size = rounded(bytes);
        free(scratch->data);
        scratch->data = aligned_alloc(64, size);
        scratch->bytes = scratch->data ? size : 0;
    }
    return scratch->data;
}

size_t lt_exec_scratch_bytes(const struct lt_exec *exec)
{
    size_t bytes = 0;
    for (int i = 0; i <= exec->thread_count; i++)
        bytes += exec->scratch[i].bytes;
    return bytes;
}

void lt_exec_set_cancel(struct lt_exec *exec, const _Atomic int *flag)
{
    exec->cancel = flag;
}

bool lt_exec_cancelled(const struct lt_exec *exec)
{
    return exec->cancel && atomic_load(exec->cancel) != 0;
}

struct host_cache **lt_exec_host_cache(struct lt_exec *exec, int thread)
{
    return &exec->cache[thread];
}

struct lt_exec_cuda *lt_exec_cuda_of(const struct lt_exec *exec)
{
    return exec->cuda;
}

void lt_exec_set_cuda(struct lt_exec *exec, struct lt_exec_cuda *cuda)
{
    exec->cuda = cuda;
}

/* -- memory ------------------------------------------------------------------------------------ */

void lt_exec_set_memory(struct lt_exec *exec, const struct lt_exec_memory *memory)
{
    exec->memory = memory;
}

bool lt_exec_is_host(const struct lt_exec *exec)
{
    return !exec->memory;
}

lt_status lt_exec_take(struct lt_exec *exec, size_t bytes, void **data_out, struct lt_error *error)
{
    if (exec->memory)
        return exec->memory->take(exec->memory->context, bytes, data_out, error);
    *data_out = bytes > SIZE_MAX / 2 ? NULL : aligned_alloc(64, rounded(bytes ? bytes : 1));
    return *data_out ? LT_OK : lt_fail(error, LT_NO_MEMORY, "no memory for %zu bytes", bytes);
}

void lt_exec_give(struct lt_exec *exec, void *data, size_t bytes)
{
    if (data && exec->memory)
        exec->memory->give(exec->memory->context, data, bytes);
    else
        free(data);
}

lt_status lt_exec_upload(struct lt_exec *exec, void *to, const void *from, size_t bytes,
                         struct lt_error *error)
{
    if (exec->memory)
        return exec->memory->upload(exec->memory->context, to, from, bytes, error);
    memcpy(to, from, bytes);
    return LT_OK;
}

lt_status lt_exec_download(struct lt_exec *exec, void *to, const void *from, size_t bytes,
                           struct lt_error *error)
{
    if (exec->memory)
        return exec->memory->download(exec->memory->context, to, from, bytes, error);
    memcpy(to, from, bytes);
    return LT_OK;
}

lt_status lt_exec_zero(struct lt_exec *exec, void *to, size_t bytes, struct lt_error *error)
{
    if (exec->memory)
        return exec->memory->zero(exec->memory->context, to, bytes, error);
    memset(to, 0, bytes);
    return LT_OK;
}

static void *arena_take(void *context, size_t bytes)
{
    void *data = NULL;
    return lt_exec_take(context, bytes, &data, NULL) == LT_OK ? data : NULL;
}

static void arena_give(void *context, void *data, size_t bytes)
{
    lt_exec_give(context, data, bytes);
}

void lt_exec_arena_init(struct lt_exec *exec, struct lt_arena *arena)
{
    lt_arena_init(arena, 0);
    if (exec->memory)
        lt_arena_init_from(arena, &(struct lt_arena_source){arena_take, arena_give, exec});
}

/* -- scratch ----------------------------------------------------------------------------------- */

void lt_scratch_join(struct lt_scratch *most, const struct lt_scratch *other)
{
    most->shared = other->shared > most->shared ? other->shared : most->shared;
    most->thread = other->thread > most->thread ? other->thread : most->thread;
    most->cuda = other->cuda > most->cuda ? other->cuda : most->cuda;
}

size_t lt_scratch_bytes(const struct lt_scratch *scratch, int thread_count)
{
    return rounded(scratch->shared) + (size_t)thread_count * rounded(scratch->thread);
}
