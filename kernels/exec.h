/* The place where host ops run: a thread pool, per-thread scratch, a precision.
 *
 * Work is cut into parts whose shape does not depend on the number of threads, so results do not
 * either. One exec is used by one caller at a time. */
#pragma once

#include "common/arena.h"
#include "common/status.h"

enum lt_precision { LT_PRECISION_F32, LT_PRECISION_BF16 };

struct lt_exec_params {
    int thread_count; /* 0: one per processor this process may use */
    enum lt_precision
        precision; /* of GEMM, convolution and attention inputs; sums are always f32 */
};

struct lt_exec;
lt_status lt_exec_create(const struct lt_exec_params *params, struct lt_exec **exec_out,
                         struct lt_error *error);
void lt_exec_destroy(struct lt_exec **exec);

int lt_exec_thread_count(const struct lt_exec *exec);
enum lt_precision lt_exec_precision(const struct lt_exec *exec);

/* Runs part(context, i, thread) for i in [0, count) on all threads and waits. Parts must not call
 * this. */
typedef void lt_exec_part(void *context, int64_t index, int thread);
void lt_exec_parallel(struct lt_exec *exec, int64_t count, lt_exec_part *part, void *context);

/* Scratch of one thread (index 0 … thread_count-1, or -1 for the caller's own shared scratch), at
 * least `bytes`, 64-byte aligned, contents undefined, kept for the next call: NULL when out of
 * memory. */
void *lt_exec_scratch(struct lt_exec *exec, int thread, size_t bytes);
/* Bytes of scratch held now, for memory reports. */
size_t lt_exec_scratch_bytes(const struct lt_exec *exec);

/* The caller may set a flag that ops poll between parts: they then return LT_CANCELLED soon. NULL:
 * none. */
void lt_exec_set_cancel(struct lt_exec *exec, const _Atomic int *flag);
bool lt_exec_cancelled(const struct lt_exec *exec);

/* -- the memory that ops work on -----------------------------------------------------------------
 */

/* RAM, or what a device sets here. Views given to ops point into it, and nothing else may look at
 * it: on the host these are malloc and memcpy, on a device they are queued behind the ops so far.
 */
struct lt_exec_memory {
    lt_status (*take)(void *context, size_t bytes, void **data_out, struct lt_error *error);
    void (*give)(void *context, void *data, size_t bytes);
    lt_status (*upload)(void *context, void *to, const void *from, size_t bytes,
                        struct lt_error *error);
    lt_status (*download)(void *context, void *to, const void *from, size_t bytes,
                          struct lt_error *error);
    lt_status (*zero)(void *context, void *to, size_t bytes, struct lt_error *error);
    void *context;
};
/* NULL: RAM. The exec keeps the pointer; `memory` must outlive it. */
void lt_exec_set_memory(struct lt_exec *exec, const struct lt_exec_memory *memory);
bool lt_exec_is_host(const struct lt_exec *exec);

/* 64-byte aligned, contents undefined. LT_NO_MEMORY, LT_NO_DEVICE_MEMORY. */
lt_status lt_exec_take(struct lt_exec *exec, size_t bytes, void **data_out, struct lt_error *error);
/* NULL is fine; of the bytes taken. */
void lt_exec_give(struct lt_exec *exec, void *data, size_t bytes);
/* `from` is the caller's again when it returns. */
lt_status lt_exec_upload(struct lt_exec *exec, void *to, const void *from, size_t bytes,
                         struct lt_error *error);
/* Waits for the ops so far. */
lt_status lt_exec_download(struct lt_exec *exec, void *to, const void *from, size_t bytes,
                           struct lt_error *error);
lt_status lt_exec_zero(struct lt_exec *exec, void *to, size_t bytes, struct lt_error *error);
/* An arena of such memory; the exec must outlive it. */
void lt_exec_arena_init(struct lt_exec *exec, struct lt_arena *arena);
