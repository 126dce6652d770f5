/* The place where host ops run: a thread pool, per-thread scratch, a precision.
 *
 * Work is cut into parts whose shape does not depend on the number of threads, so results do not
 * either. One exec is used by one caller at a time. */
#pragma once

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
