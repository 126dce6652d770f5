/* oneDNN behind few calls: a primitive by key, kept per thread, its execution on plain pointers,
 * and products of packed matrices. */
#pragma once

#include "kernels/host/host.h"
#include "kernels/host/simd.h"

#include <oneapi/dnnl/dnnl.h>

enum host_primitive_kind { HOST_PRODUCT = 1, HOST_CONV = 2, HOST_REORDER = 3 };

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
                         host_make_primitive *make, const void *context,
                         struct host_place *place_out, struct lt_error *error);
dnnl_status_t host_run(const struct host_place *place, const struct host_memory *memory, int count);
lt_status host_dnnl_failed(const char *what, dnnl_status_t status, struct lt_error *error);

/* How oneDNN wants weights [n, k] to lie: [n / block][k / unit][block][unit], with k padded by
 * zeros to k_padded and unit 2 for bf16 and 1 for f32; block 0: plain rows. The right operand is
 * packed by us, straight from its quantised or strided form, so nothing is reordered inside a
 * product. */
struct host_layout {
    dnnl_memory_desc_t desc;
    bool bf16;
    int64_t n, k, k_padded, block, block_stride, unit;
    size_t bytes; /* of one packed operand, a multiple of 64 */
};

enum { HOST_BLOCK_ROWS = 256, HOST_PACK_ROWS = 16 };

lt_status host_layout_choose(struct host_layout *layout_out, bool bf16, int64_t n, int64_t k,
                             struct lt_error *error);

/* Packs sixteen rows n … n+15, values [k, k+count) of each (row i at rows + i·stride values, in the
 * product's type) into `to`. n is a multiple of 16; k, count and stride are even. Rows past the
 * last must be zeros, and the values from layout->k to k_padded too. */
void host_pack(const struct simd *simd, const struct host_layout *layout, int64_t n, int64_t k,
               const void *rows, int64_t stride, int64_t count, void *to);

/* c[m, n] = a[m, k] · b[n, k]ᵀ, all dense, c f32; `accumulate` adds to c. One thread; k is never
 * split. */
lt_status host_product(struct lt_exec *exec, int thread, const struct host_layout *layout,
                       int64_t m, const void *a, const void *b, float *c, bool accumulate,
                       struct lt_error *error);
