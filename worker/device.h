/* A device as the weights see it: memory with a limit, a copy queue beside the compute queue, and
 * events between the two. The host device does all of it for real: its memory is a bounded share of
 * RAM, its copy queue a thread; the compute queue is whoever calls.
 *
 * One thread computes (submit, wait, mark); work submitted runs on the copy queue's thread in the
 * order of submission. */
#pragma once

#include "common/status.h"

struct device;
struct lt_exec;
struct lt_exec_params;
struct lt_kernels;
struct lt_scratch;

enum device_memory {
    DEVICE_MEMORY_LOCAL,  /* the device's own */
    DEVICE_MEMORY_PINNED, /* RAM it copies from at full speed */
    DEVICE_MEMORY_COUNT,
};

struct device_params {
    uint64_t limit_bytes[DEVICE_MEMORY_COUNT]; /* 0: none */
    uint64_t copy_bytes_per_second;            /* 0: as fast as memory goes */
    bool staged;        /* behave as if the host could not write device memory: all bytes come by
                           device_copy, as on a GPU */
    bool sync_ops;      /* a card waits for each op, to name the one that failed */
    bool virtual_clock; /* for tests: time passes only in copies, at copy_bytes_per_second, and in
                           device_compute_for */
};

lt_status device_create_host(const struct device_params *params, struct device **device_out,
                             struct lt_error *error);
/* Memory that is free on the card now, less a reserve for the driver, bounds local memory whatever
 * the limit says. LT_UNSUPPORTED in a build without CUDA (device_absent.c), without a driver that
 * is new enough, or on a card older than sm_80; LT_NOT_FOUND without such a card. `index`: the N of
 * cuda:N. */
lt_status device_create_cuda(int index, const struct device_params *params,
                             struct device **device_out, struct lt_error *error);
/* "host" or "cuda:N", as users name it. LT_USAGE for another name. */
lt_status device_open(const char *name, const struct device_params *params,
                      struct device **device_out, struct lt_error *error);
/* Everything taken must be given back, every job done, every exec destroyed. */
void device_destroy(struct device **device);
/* Whether reads must go to pinned memory first. */
bool device_is_staged(const struct device *device);
/* Whether local memory is main memory: the host. */
bool device_is_ram(const struct device *device);

/* -- ops ---------------------------------------------------------------------------------------
 */

/* Ops of kernels.h on this device, by execs of its own. A call that fails on a card with LT_DEVICE
 * has broken it for this process: every later call fails at once, with the first one's text. */

/* Names what must be equal for equal bits. */
void device_class(const struct device *device, char *text, size_t size);
/* The table that its execs take; lt_kernels_select says what `selector` is. LT_USAGE for ops that
 * cannot reach its memory. */
lt_status device_kernels(const struct device *device, const char *selector,
                         struct lt_kernels *table_out, struct lt_error *error);
/* An exec whose memory is the device's, taken through device_take; on a card all execs share one
 * stream and one scratch. Ends by lt_exec_destroy, before the device does. */
lt_status device_exec_create(struct device *device, const struct lt_exec_params *params,
                             struct lt_exec **exec_out, struct lt_error *error);
/* The calling thread is the one that computes from now on. LT_DEVICE: the card is broken. */
lt_status device_bind(struct device *device, struct lt_error *error);
/* What ops that were told to take `scratch` take of the device, with what execs hold of their own:
 * for a plan. */
size_t device_scratch_bytes(const struct device *device, const struct lt_scratch *scratch,
                            int thread_count);
/* So much, as device_scratch_bytes told, is for the execs from now on: on a card it is taken here,
 * and ops take no more. 0: what execs hold of their own. */
lt_status device_set_scratch(struct device *device, size_t bytes, struct lt_error *error);
/* Pinned RAM that execs hold for what they upload. */
size_t device_staging_bytes(const struct device *device);

/* -- memory ------------------------------------------------------------------------------------ */

/* On the host page-aligned and zeroed, on a card aligned to 256 and undefined; exactly `bytes` are
 * counted. LT_NO_DEVICE_MEMORY (local) or LT_NO_MEMORY
 * (pinned) says `what`, what is in use and the limit. Any thread. */
lt_status device_take(struct device *device, enum device_memory kind, size_t bytes,
                      const char *what, void **data_out, struct lt_error *error);
/* NULL is fine. */
void device_give(struct device *device, enum device_memory kind, void *data, size_t bytes);
/* Brings the memory in from the system now, so that a read into it does not have to. A wish. */
void device_prefault(struct device *device, void *data, size_t bytes);

struct device_stats {
    uint64_t used_bytes[DEVICE_MEMORY_COUNT], peak_bytes[DEVICE_MEMORY_COUNT];
    uint64_t limit_bytes[DEVICE_MEMORY_COUNT];
    uint64_t copy_bytes, copy_count; /* to the device */
    int64_t stall_us;                /* the compute queue stood still for an event */
    int64_t now_us;                  /* of the compute queue; virtual clock only */
};
void device_stats(struct device *device, struct device_stats *stats_out);

/* -- the two queues ---------------------------------------------------------------------------- */

/* Either side's "done up to here", to be waited for by the other. */
struct device_event;
lt_status device_event_create(struct device *device, struct device_event **event_out,
                              struct lt_error *error);
void device_event_destroy(struct device_event **event);
bool device_event_is_done(struct device_event *event);

typedef lt_status device_work(void *context, struct lt_error *error);

/* Belongs to the submitter until `done` is. */
struct device_job {
    device_work *run;
    void *context;
    struct device_event *after; /* it starts when this is done; NULL: at once */
    struct device_event *done;  /* carries the work's status and error; NULL: nobody asks */
    struct device_job *next;    /* the queue's */
    int64_t issued_us;          /* the queue's */
};

/* Queues the work; from the compute thread or from work itself. */
void device_submit(struct device *device, struct device_job *job);
/* Inside work only: copies to the device. */
lt_status device_copy(struct device *device, void *to, const void *from, size_t bytes,
                      struct lt_error *error);
/* Inside work only: `bytes` came to device memory by another way (a read straight into it); they
 * count, and take the time of a copy. */
void device_landed(struct device *device, size_t bytes);

/* The event is done when all compute issued so far is. */
void device_mark(struct device *device, struct device_event *event);
/* Compute issued from here on runs after the event; gives the status and error of its work. */
lt_status device_wait(struct device *device, struct device_event *event, struct lt_error *error);
/* Virtual clock only: compute that takes this long. */
void device_compute_for(struct device *device, int64_t us);
