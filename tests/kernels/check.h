/* What the op checks share: seeded values, buffers with canaries that start as NaN, and comparisons
 * with a reason. */
#pragma once

#include "kernels/exec.h"
#include "kernels/kernels.h"

struct check_bound {
    double nmse;     /* mean squared error over mean square of the reference */
    double abs, rel; /* each element: |got - want| <= abs + rel * |want| */
    const char *why;
};

struct check {
    const struct lt_kernels *ref, *best;
    struct lt_exec *exec, *other; /* equal but for the number of threads */
    uint64_t seed;
    uint64_t drawn;
    bool bf16;
    int failures, comparisons;
    int64_t ref_us, best_us; /* of the cases of an op */
    const char *op;
    char what[160]; /* the shapes of the case, for messages */
};

/* Uniform in [low, high], inclusive. */
int64_t check_int(struct check *check, int64_t low, int64_t high);
/* A float buffer of NaN between canaries; freed by check_release, which also checks the canaries.
 */
float *check_buffer(struct check *check, int64_t count);
void check_fill(struct check *check, float *data, int64_t count, float scale);
/* `data` as weights of `type` (malloc'ed, freed by check_release). */
void *check_weights(struct check *check, enum lt_type type, int64_t count, float scale);
void check_close(struct check *check, const float *got, const float *want, int64_t count,
                 struct check_bound bound);
void check_same(struct check *check, const void *a, const void *b, size_t bytes, const char *what);
void check_status(struct check *check, lt_status status, const struct lt_error *error);
void check_release(struct check *check);

/* One random case of each op. */
#define CHECK_PROTOTYPE(op) void check_##op(struct check *check);
LT_KERNEL_LIST(CHECK_PROTOTYPE)
#undef CHECK_PROTOTYPE
