/* What every device does alike: limits and counters, the copy queue's thread, events. With the
 * virtual clock both queues carry a time of their own: work starts when it was issued and what it
 * waits for is done, copies take bytes / bandwidth, and compute that waits jumps to the event. */
#include "worker/device_private.h"

#include "common/clock.h"
#include "common/option.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static int64_t max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* -- the copy queue ---------------------------------------------------------------------------- */

static struct device_job *next_job(struct device *device)
{
    struct device_job *job;
    while (!(job = device->first) && !device->closing)
        pthread_cond_wait(&device->changed, &device->lock);
    if (!job)
        return NULL;
    device->first = job->next;
    if (!device->first)
        device->last = &device->first;
    while (job->after && !job->after->done)
        pthread_cond_wait(&device->changed, &device->lock);
    device->copy_us = max(device->copy_us, job->issued_us);
    if (job->after)
        device->copy_us = max(device->copy_us, job->after->at_us);
    return job;
}

static void *run_jobs(void *context)
{
    struct device *device = context;
    struct device_job *job;
    pthread_mutex_lock(&device->lock);
    while ((job = next_job(device))) {
        struct device_event *done = job->done;
        struct lt_error error = {0};
        lt_status status = LT_OK;
        pthread_mutex_unlock(&device->lock);
        if (job->after && device->ops->await)
            status = device->ops->await(device, job->after, &error);
        if (status == LT_OK)
            status = job->run(job->context, &error);
        pthread_mutex_lock(&device->lock);
        if (done) { /* the job is its submitter's again */
            done->done = true;
            done->status = status;
            done->error = error;
            done->at_us = device->copy_us;
        }
        pthread_cond_broadcast(&device->changed);
    }
    pthread_mutex_unlock(&device->lock);
    return NULL;
}

void device_submit(struct device *device, struct device_job *job)
{
    pthread_mutex_lock(&device->lock);
    lt_assert(!device->closing);
    if (job->done)
        job->done->done = false;
    job->next = NULL;
    job->issued_us = device->compute_us;
    *device->last = job;
    device->last = &job->next;
    pthread_cond_broadcast(&device->changed);
    pthread_mutex_unlock(&device->lock);
}

void device_landed(struct device *device, size_t bytes)
{
    const uint64_t rate = device->params.copy_bytes_per_second;
    const int64_t cost_us = rate ? (int64_t)((double)bytes * 1e6 / (double)rate) : 0;
    pthread_mutex_lock(&device->lock);
    device->copy_bytes += bytes;
    device->copy_count++;
    device->copy_us += cost_us;
    pthread_mutex_unlock(&device->lock);
    if (!rate || device->params.virtual_clock)
        return;
    const int64_t now = lt_clock_now_us();
    device->paced_us = max(device->paced_us, now - cost_us) + cost_us; /* the copy took time too */
    const int64_t left = device->paced_us - now;
    if (left > 0)
        nanosleep(&(struct timespec){left / 1000000, left % 1000000 * 1000}, NULL);
}

lt_status device_copy(struct device *device, void *to, const void *from, size_t bytes,
                      struct lt_error *error)
{
    LT_TRY(device->ops->copy(device, to, from, bytes, error));
    device_landed(device, bytes);
    return LT_OK;
}

/* -- the compute queue ------------------------------------------------------------------------- */

void device_mark(struct device *device, struct device_event *event)
{
    if (device->ops->mark)
        device->ops->mark(device, event);
    pthread_mutex_lock(&device->lock);
    event->done = true;
    event->status = LT_OK;
    event->at_us = device->compute_us;
    pthread_cond_broadcast(&device->changed);
    pthread_mutex_unlock(&device->lock);
}

lt_status device_wait(struct device *device, struct device_event *event, struct lt_error *error)
{
    const int64_t start = lt_clock_now_us();
    pthread_mutex_lock(&device->lock);
    const bool waits = !event->done;
    while (!event->done)
        pthread_cond_wait(&device->changed, &device->lock);
    if (device->params.virtual_clock) {
        device->stall_us += max(event->at_us - device->compute_us, 0);
        device->compute_us = max(device->compute_us, event->at_us);
    } else if (waits) {
        device->stall_us += lt_clock_now_us() - start;
    }
    const lt_status status = event->status;
    if (status != LT_OK && error)
        *error = event->error;
    pthread_mutex_unlock(&device->lock);
    return status;
}

void device_compute_for(struct device *device, int64_t us)
{
    lt_assert(device->params.virtual_clock && us >= 0);
    pthread_mutex_lock(&device->lock);
    device->compute_us += us;
    pthread_mutex_unlock(&device->lock);
}

/* -- events ------------------------------------------------------------------------------------ */

lt_status device_event_create(struct device *device, struct device_event **event_out,
                              struct lt_error *error)
{
    struct device_event *event = calloc(1, sizeof *event);
    if (!event)
        return lt_fail(error, LT_NO_MEMORY, "no memory for an event");
    event->device = device;
    event->done = true;
    const lt_status status =
        device->ops->open_event ? device->ops->open_event(device, event, error) : LT_OK;
    if (status != LT_OK) {
        free(event);
        return status;
    }
    *event_out = event;
    return LT_OK;
}

void device_event_destroy(struct device_event **event)
{
    if (*event && (*event)->device->ops->close_event)
        (*event)->device->ops->close_event(*event);
    free(*event);
    *event = NULL;
}

bool device_event_is_done(struct device_event *event)
{
    pthread_mutex_lock(&event->device->lock);
    const bool done = event->done;
    pthread_mutex_unlock(&event->device->lock);
    return done;
}

/* -- memory ------------------------------------------------------------------------------------ */

static bool is_allowed(const struct device *device, enum device_memory kind, size_t bytes)
{
    const uint64_t limit = device->params.limit_bytes[kind];
    return !limit || (bytes <= limit && device->used_bytes[kind] <= limit - bytes);
}

static lt_status refuse(struct device *device, enum device_memory kind, size_t bytes,
                        const char *what, struct lt_error *error)
{
    char need[32], used[32], limit[32];
    const bool local = kind == DEVICE_MEMORY_LOCAL;
    const char *name = local ? "device memory" : "pinned RAM";
    lt_size_format(bytes, need);
    lt_size_format(device->used_bytes[kind], used);
    if (is_allowed(device, kind, bytes))
        return lt_fail(error, local ? LT_NO_DEVICE_MEMORY : LT_NO_MEMORY,
                       "%s: the system has no %s of %s beside the %s in use", what, name, need,
                       used);
    lt_size_format(device->params.limit_bytes[kind], limit);
    return lt_fail(error, local ? LT_NO_DEVICE_MEMORY : LT_NO_MEMORY,
                   "%s: %s of %s do not fit: %s in use, the limit is %s", what, need, name, used,
                   limit);
}

lt_status device_take(struct device *device, enum device_memory kind, size_t bytes,
                      const char *what, void **data_out, struct lt_error *error)
{
    void *data = NULL;
    LT_TRY(device_bind(device, error));
    pthread_mutex_lock(&device->lock);
    if (is_allowed(device, kind, bytes))
        data = device->ops->take(device, kind, bytes);
    if (!data) {
        const lt_status status = refuse(device, kind, bytes, what, error);
        pthread_mutex_unlock(&device->lock);
        return status;
    }
    device->used_bytes[kind] += bytes;
    if (device->used_bytes[kind] > device->peak_bytes[kind])
        device->peak_bytes[kind] = device->used_bytes[kind];
    pthread_mutex_unlock(&device->lock);
    *data_out = data;
    return LT_OK;
}

void device_give(struct device *device, enum device_memory kind, void *data, size_t bytes)
{
    if (!data)
        return;
    pthread_mutex_lock(&device->lock);
    lt_assert(device->used_bytes[kind] >= bytes);
    device->used_bytes[kind] -= bytes;
    device->ops->give(device, kind, data, bytes);
    pthread_mutex_unlock(&device->lock);
}

void device_prefault(struct device *device, void *data, size_t bytes)
{
    if (device->ops->prefault)
        device->ops->prefault(data, bytes);
}

/* -- ops --------------------------------------------------------------------------------------- */

void device_class(const struct device *device, char *text, size_t size)
{
    device->ops->name_class(device, text, size);
}

lt_status device_kernels(const struct device *device, const char *selector,
                         struct lt_kernels *table_out, struct lt_error *error)
{
    return device->ops->kernels(device, selector, table_out, error);
}

lt_status device_exec_create(struct device *device, const struct lt_exec_params *params,
                             struct lt_exec **exec_out, struct lt_error *error)
{
    return device->ops->create_exec(device, params, exec_out, error);
}

lt_status device_bind(struct device *device, struct lt_error *error)
{
    return device->ops->bind ? device->ops->bind(device, error) : LT_OK;
}

size_t device_scratch_bytes(const struct device *device, const struct lt_scratch *scratch,
                            int thread_count)
{
    return device->ops->scratch_bytes(device, scratch, thread_count);
}

lt_status device_set_scratch(struct device *device, size_t bytes, struct lt_error *error)
{
    return device->ops->set_scratch ? device->ops->set_scratch(device, bytes, error) : LT_OK;
}

size_t device_staging_bytes(const struct device *device)
{
    return device->ops->staging_bytes;
}

/* -- life -------------------------------------------------------------------------------------- */

lt_status device_open(const char *name, const struct device_params *params,
                      struct device **device_out, struct lt_error *error)
{
    char *end = NULL;
    if (strcmp(name, "host") == 0)
        return device_create_host(params, device_out, error);
    const long index = strncmp(name, "cuda:", 5) == 0 && name[5] >= '0' && name[5] <= '9'
                           ? strtol(name + 5, &end, 10)
                           : -1;
    if (!end || *end || index > 1023)
        return lt_fail(error, LT_USAGE, "--device %s: expected host or cuda:N", name);
    return device_create_cuda((int)index, params, device_out, error);
}

lt_status device_create(const struct device_ops *ops, void *handle,
                        const struct device_params *params, struct device **device_out,
                        struct lt_error *error)
{
    struct device *device = calloc(1, sizeof *device);
    if (!device)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a device");
    device->ops = ops;
    device->handle = handle;
    device->params = *params;
    device->last = &device->first;
    pthread_mutex_init(&device->lock, NULL);
    pthread_cond_init(&device->changed, NULL);
    if (pthread_create(&device->thread, NULL, run_jobs, device) != 0) {
        pthread_cond_destroy(&device->changed);
        pthread_mutex_destroy(&device->lock);
        free(device);
        return lt_fail(error, LT_NO_MEMORY, "cannot start the copy queue's thread");
    }
    *device_out = device;
    return LT_OK;
}

void device_destroy(struct device **device)
{
    struct device *d = *device;
    if (!d)
        return;
    pthread_mutex_lock(&d->lock);
    d->closing = true;
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
    pthread_join(d->thread, NULL);
    if (d->ops->destroy)
        d->ops->destroy(d);
    for (int kind = 0; kind < DEVICE_MEMORY_COUNT; kind++)
        lt_assert(d->used_bytes[kind] == 0);
    pthread_cond_destroy(&d->changed);
    pthread_mutex_destroy(&d->lock);
    free(d);
    *device = NULL;
}

bool device_is_staged(const struct device *device)
{
    return device->params.staged;
}

bool device_is_ram(const struct device *device)
{
    return device->ops->is_ram;
}

void device_stats(struct device *device, struct device_stats *stats_out)
{
    pthread_mutex_lock(&device->lock);
    struct device_stats stats = {.copy_bytes = device->copy_bytes,
                                 .copy_count = device->copy_count,
                                 .stall_us = device->stall_us,
                                 .now_us = device->compute_us};
    for (int kind = 0; kind < DEVICE_MEMORY_COUNT; kind++) {
        stats.used_bytes[kind] = device->used_bytes[kind];
        stats.peak_bytes[kind] = device->peak_bytes[kind];
        stats.limit_bytes[kind] = device->params.limit_bytes[kind];
    }
    pthread_mutex_unlock(&device->lock);
    *stats_out = stats;
}
