/* For backends: what differs between a GPU and the host. device.c keeps limits, counters, the copy
 * queue's thread and the events. */
#pragma once

#include "worker/device.h"

#include "kernels/exec.h"
#include "kernels/kernels.h"
#include "kernels/scratch.h"

#include <pthread.h>

struct device_ops {
    bool is_ram;
    /* NULL: there is no memory, or the device is broken. */
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
    /* Of the event's handle. NULL: it has none. */
    lt_status (*open_event)(struct device *device, struct device_event *event,
                            struct lt_error *error);
    void (*close_event)(struct device_event *event);
    /* The calling thread works on the device. NULL: nothing to do. LT_DEVICE: it is broken. */
    lt_status (*bind)(struct device *device, struct lt_error *error);
    void (*destroy)(struct device *device); /* of `handle`, and what it took */

    void (*name_class)(const struct device *device, char *text, size_t size);
    lt_status (*kernels)(const struct device *device, const char *selector,
                         struct lt_kernels *table_out, struct lt_error *error);
    lt_status (*create_exec)(struct device *device, const struct lt_exec_params *params,
                             struct lt_exec **exec_out, struct lt_error *error);
    size_t (*scratch_bytes)(const struct device *device, const struct lt_scratch *scratch,
                            int thread_count);
    /* NULL: ops take scratch as they need it. */
    lt_status (*set_scratch)(struct device *device, size_t bytes, struct lt_error *error);
    size_t staging_bytes;
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
