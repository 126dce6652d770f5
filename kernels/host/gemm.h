/* oneDNN behind two calls: a primitive by key, kept per thread, and its execution on plain pointers. */
#pragma once

#include "kernels/host/host.h"

#include <oneapi/dnnl/dnnl.h>

enum host_primitive_kind { HOST_GEMM = 1, HOST_CONV = 2, HOST_REORDER = 3 };

struct host_key { /* what a primitive depends on; the first word names the kind */
    int64_t word[12];
};

struct host_place {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t primitive;
};

struct host_memory {
    int arg; /* DNNL_ARG_… */
    const dnnl_memory_desc_t *desc;
    const void *data;
};

typedef dnnl_status_t host_make_primitive(dnnl_engine_t engine, const void *context,
                                          dnnl_primitive_t *made);

lt_status host_primitive(struct lt_exec *exec, int thread, const struct host_key *key,
                         host_make_primitive *make, const void *context, struct host_place *place_out,
                         struct lt_error *error);
dnnl_status_t host_run(const struct host_place *place, const struct host_memory *memory, int count);
lt_status host_dnnl_failed(const char *what, dnnl_status_t status, struct lt_error *error);

/* c[M,N] f32 (row stride ldc) = a[M,K] (row stride lda) · b[N,K]ᵀ (row stride ldb) + bias[N]; a and b both f32 or
 * both bf16; bias may be NULL; `accumulate` adds to c. One thread; K is never split. */
lt_status host_gemm(struct lt_exec *exec, int thread, bool bf16, int64_t m, int64_t n, int64_t k,
                    const void *a, int64_t lda, const void *b, int64_t ldb, float *c, int64_t ldc,
                    const float *bias, bool accumulate, struct lt_error *error);
