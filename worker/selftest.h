/* The inside of `longtake-worker selftest`: selftest.c is the command and its report, one file per
 * part fills rows. A row passes or fails by what was computed, never by how fast. */
#pragma once

#include "kernels/exec.h"
#include "kernels/kernels.h"
#include "worker/device.h"

#include <stdio.h>

enum { SELFTEST_ROWS_MAX = 96 };

struct selftest_row {
    char part[16], name[40];
    bool failed, skipped; /* skipped: it does not run on this device, and says so */
    double error, bound; /* root of the mean squared error over that of the reference; bound 0: what
                            was computed has no reference */
    double rate;         /* in `unit`; 0: not measured */
    const char *unit;    /* "GB/s", "TFLOP/s", "%" */
    double share;        /* of the ceiling that this device reached in this run; 0: none */
    char note[200];      /* shapes; why it failed */
};

struct selftest {
    const char *device_name; /* as given: "cuda:0" */
    int thread_count;
    bool quick;     /* small sizes only */
    size_t printed; /* rows */
    struct device *device;
    struct lt_kernels kernels, reference;
    struct lt_exec *exec[2], *host[2]; /* by precision; the reference runs on the host */
    double memory_rate, compute_rate;  /* the ceilings: GB/s, and TFLOP/s of bf16 products */
    struct selftest_row row[SELFTEST_ROWS_MAX];
    size_t row_count;
};

/* The next row, for the caller to fill. */
struct selftest_row *selftest_row(struct selftest *test, const char *part, const char *name);
/* Compares and judges: sqrt(Σ(got - want)² / Σ want²) <= bound. Not finite: failed. */
void selftest_compare(struct selftest_row *row, const float *got, const float *want, size_t count,
                      double bound);
/* A row for what could not be done. */
void selftest_fail(struct selftest *test, const char *part, const char *name,
                   const struct lt_error *error);

/* Prints the rows that are not printed yet: a crash does not take them along. */
void selftest_print(struct selftest *test);

/* selftest_ops.c: the ceilings, then every op against the reference, and how fast it is. */
void selftest_ops(struct selftest *test);
/* selftest_copies.c: what crosses the bus, what of it hides behind compute. */
void selftest_copies(struct selftest *test);
/* selftest_models.c: one small model of each kind, on the host and on the device, as eval runs
 * them, in a folder of its own. */
void selftest_models(struct selftest *test);
