/* For backends: what differs between a GPU and the host. device.c keeps limits, counters, the copy
 * queue's thread and the events. */
#pragma once

#include "worker/device.h"

#include <pthread.h>

struct device_ops {
    /* Page-aligned, zeroed. */
    void *(*take)(struct device *device, enum device_memory kind, size_t bytes);
    void (*give)(struct device *device, enum device_memory kind, void *data, size_t bytes);
    void (*prefault)(void *data, size_t bytes);
    /* On the copy queue's thread: done when it returns. */
    lt_status (*copy)(struct device *device, void *to, const void *from, size_t bytes,
                      struct lt_error *error);
    /* On the copy queue's thread: compute up to the event's mark has ended. NULL: compute is
     * synchronous. */
    lt_status (*await)(struct device *device, struct device_event *event, struct lt_error *error);
    /* On the compute thread: records the end of what is issued. NULL: compute is synchronous. */
    void (*mark)(struct device *device, struct device_event *event);
    void (*destroy)(struct device *device); /* of `handle` */
};

struct device {
    const struct device_ops *ops;
    void *handle; /* the backend's */
    struct device_params params;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    bool closing;
    struct device_job *first, **last;
    uint64_t used_bytes[DEVICE_MEMORY_COUNT], peak_bytes[DEVICE_MEMORY_COUNT];
    uint64_t copy_bytes, copy_count;
    int64_t stall_us;
    int64_t compute_us, copy_us; /* virtual: where either queue is */
    int64_t paced_us;            /* real: the copies so far may not end before */
};

struct device_event {
    struct device *device;
    void *handle; /* the backend's */
    bool done;
    lt_status status;
    struct lt_error error;
    int64_t at_us; /* virtual */
};

lt_status device_create(const struct device_ops *ops, void *handle,
                        const struct device_params *params, struct device **device_out,
                        struct lt_error *error);
