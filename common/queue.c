#include "common/queue.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct lt_queue {
    pthread_mutex_t mutex;
    pthread_cond_t room, items;
    size_t capacity, item_bytes, first, count;
    bool closed;
    uint8_t data[];
};

lt_status lt_queue_create(size_t capacity, size_t item_bytes, struct lt_queue **queue_out,
                          struct lt_error *error)
{
    size_t bytes;
    pthread_condattr_t monotonic;
    lt_assert(capacity > 0 && item_bytes > 0);
    if (__builtin_mul_overflow(capacity, item_bytes, &bytes) ||
        bytes > SIZE_MAX - sizeof(struct lt_queue))
        return lt_fail(error, LT_NO_MEMORY, "no memory for a queue of %zu items", capacity);
    struct lt_queue *queue = calloc(1, sizeof *queue + bytes);
    if (!queue)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a queue of %zu items", capacity);
    queue->capacity = capacity;
    queue->item_bytes = item_bytes;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&queue->mutex, NULL);
    pthread_cond_init(&queue->room, &monotonic);
    pthread_cond_init(&queue->items, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *queue_out = queue;
    return LT_OK;
}

void lt_queue_destroy(struct lt_queue **queue)
{
    if (!*queue)
        return;
    pthread_cond_destroy(&(*queue)->items);
    pthread_cond_destroy(&(*queue)->room);
    pthread_mutex_destroy(&(*queue)->mutex);
    free(*queue);
    *queue = NULL;
}

static struct timespec deadline_in(int timeout_ms)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += timeout_ms / 1000;
    at.tv_nsec += timeout_ms % 1000 * 1000000l;
    if (at.tv_nsec >= 1000000000l) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000l;
    }
    return at;
}

/* One turn of waiting; false when the time is over. */
static bool wait_until(struct lt_queue *queue, pthread_cond_t *condition, int timeout_ms,
                       const struct timespec *deadline)
{
    if (timeout_ms < 0)
        return pthread_cond_wait(condition, &queue->mutex) == 0;
    return pthread_cond_timedwait(condition, &queue->mutex, deadline) == 0;
}

lt_status lt_queue_push(struct lt_queue *queue, const void *item, int timeout_ms)
{
    const struct timespec deadline = deadline_in(timeout_ms < 0 ? 0 : timeout_ms);
    pthread_mutex_lock(&queue->mutex);
    while (!queue->closed && queue->count == queue->capacity)
        if (!wait_until(queue, &queue->room, timeout_ms, &deadline))
            break;
    lt_status status = queue->closed                     ? LT_CANCELLED
                       : queue->count == queue->capacity ? LT_TIMEOUT
                                                         : LT_OK;
    if (status == LT_OK) {
        const size_t at = (queue->first + queue->count++) % queue->capacity;
        memcpy(queue->data + at * queue->item_bytes, item, queue->item_bytes);
        pthread_cond_signal(&queue->items);
    }
    pthread_mutex_unlock(&queue->mutex);
    return status;
}

lt_status lt_queue_pop(struct lt_queue *queue, void *item_out, int timeout_ms)
{
    const struct timespec deadline = deadline_in(timeout_ms < 0 ? 0 : timeout_ms);
    pthread_mutex_lock(&queue->mutex);
    while (!queue->closed && queue->count == 0)
        if (!wait_until(queue, &queue->items, timeout_ms, &deadline))
            break;
    const lt_status status = queue->count > 0 ? LT_OK : queue->closed ? LT_CANCELLED : LT_TIMEOUT;
    if (status == LT_OK) {
        memcpy(item_out, queue->data + queue->first * queue->item_bytes, queue->item_bytes);
        queue->first = (queue->first + 1) % queue->capacity;
        queue->count--;
        pthread_cond_signal(&queue->room);
    }
    pthread_mutex_unlock(&queue->mutex);
    return status;
}

void lt_queue_close(struct lt_queue *queue)
{
    pthread_mutex_lock(&queue->mutex);
    queue->closed = true;
    pthread_cond_broadcast(&queue->room);
    pthread_cond_broadcast(&queue->items);
    pthread_mutex_unlock(&queue->mutex);
}

size_t lt_queue_count(struct lt_queue *queue)
{
    pthread_mutex_lock(&queue->mutex);
    const size_t count = queue->count;
    pthread_mutex_unlock(&queue->mutex);
    return count;
}
