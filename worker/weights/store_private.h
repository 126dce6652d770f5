/* The rooms of the store, for its own files only:
 *
 *   store.c    life, tensors, acquire and release
 *   place.c    the first placement: file order, one tensor in flight
 *   swap.c     the ring of slots */
#pragma once

#include "worker/weights/store.h"

#include <pthread.h>

enum { SLAB_NONE = -1, SLAB_GROUPS = -2 /* all beside the blocks */ };

struct slab {
    enum store_tier tier;
    void *data;  /* its place (device), its master (RAM), or NULL (disk) */
    size_t left; /* tensors still to be placed there; under the lock */
    int users;   /* acquired and not released */
};

struct slot {
    struct store *store;
    void *data;
    int64_t slab;                        /* what it holds or will hold; SLAB_NONE */
    struct device_event *fetched, *idle; /* the copy queue's, the compute queue's */
    struct device_job job;
};

struct store {
    char *path; /* for messages */
    struct device *device;
    struct device *own_device; /* NULL: the caller's */
    struct store_params params;
    struct layout layout;
    struct tensor_file *file; /* held while there is something to read; the copy queue's */
    bool reads_on;            /* also when everything is placed: there are blocks on disk */
    struct slab *slab;        /* blocks, then groups */
    struct slot *slot;
    size_t slot_count, slot_bytes;
    void *staging; /* of a staged device; used by the copy queue */
    size_t staging_bytes;

    pthread_mutex_t lock;
    pthread_cond_t placed;
    struct device_job load_job;
    bool loading; /* the load job is queued or runs */
    bool stopping;
    lt_status load_status; /* why it stopped early */
    struct lt_error load_error;
    int64_t demand;  /* the slab that goes first; SLAB_NONE */
    bool *is_placed; /* [tensor], by the copy queue only */
    size_t cursor;   /* in layout.order: all before it are placed */
    size_t left;     /* tensors to place in all */
    int64_t opened_us;

    pthread_t prefault_thread;
    bool prefaults;

    struct store_stats stats; /* under the lock */
};

/* -- place.c ----------------------------------------------------------------------------------- */

/* Writes tensor `tensor` at its offset of the slab memory at `slab`, which is the device's or RAM.
 * On the copy queue. */
lt_status place_tensor(struct store *store, const struct layout_tensor *tensor, void *slab,
                       bool on_device, struct lt_error *error);
/* Brings the tensors of slab `s`, which is not on disk, to its place now. On the copy queue. */
lt_status place_slab(struct store *store, size_t s, struct lt_error *error);
/* Starts to place all in the background: `first` first (SLAB_NONE: as the file has it). */
void place_start(struct store *store, int64_t first);
/* Waits for slab `s`, which goes first from now on; or for the groups that stay (SLAB_GROUPS), or
 * for all (SLAB_NONE). */
lt_status place_wait(struct store *store, int64_t s, struct lt_error *error);
/* Nothing is read after it returns. */
void place_stop(struct store *store);

/* -- swap.c ------------------------------------------------------------------------------------ */

lt_status swap_create(struct store *store, const struct store_memory *memory,
                      struct lt_error *error);
void swap_destroy(struct store *store);
/* Slab `s` is used now: it is brought to a slot if it is swapped, and the next ones are asked for.
 */
lt_status swap_use(struct store *store, size_t s, struct lt_error *error);
/* Compute on it is issued. */
void swap_leave(struct store *store, size_t s);
/* Its slot's memory, when it is in one; else NULL. */
void *swap_data(const struct store *store, size_t s);
/* Waits for what is under way; slabs that `stale` says are fetched anew at their next use. */
void swap_forget(struct store *store, bool (*stale)(const struct store *store, size_t s));
