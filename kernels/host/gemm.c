/* Matrix products by oneDNN, one thread each, with the primitives of a thread kept for reuse. */
#include "kernels/host/gemm.h"

#include "kernels/host/simd.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { CACHE_SLOTS = 256 };

struct slot {
    struct host_key key;
    dnnl_primitive_t primitive;
    uint64_t used;
};

struct host_cache {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    struct slot slot[CACHE_SLOTS];
    uint64_t clock;
};

void host_thread_begin(void)
{
    omp_set_num_threads(1);
}

static struct host_cache *cache_of(struct lt_exec *exec, int thread)
{
    struct host_cache **cache = lt_exec_host_cache(exec, thread);
    if (*cache)
        return *cache;
    struct host_cache *made = calloc(1, sizeof *made);
    if (made && (dnnl_engine_create(&made->engine, dnnl_cpu, 0) != dnnl_success ||
                 dnnl_stream_create(&made->stream, made->engine, dnnl_stream_in_order) != dnnl_success))
        host_cache_destroy(&made);
    *cache = made;
    return made;
}

void host_cache_destroy(struct host_cache **cache)
{
    struct host_cache *c = *cache;
    if (!c)
        return;
    for (int i = 0; i < CACHE_SLOTS; i++)
        if (c->slot[i].primitive)
            dnnl_primitive_destroy(c->slot[i].primitive);
    if (c->stream)
        dnnl_stream_destroy(c->stream);
    if (c->engine)
        dnnl_engine_destroy(c->engine);
    free(c);
    *cache = NULL;
}

lt_status host_dnnl_failed(const char *what, dnnl_status_t status, struct lt_error *error)
{
    return lt_fail(error, status == dnnl_out_of_memory ? LT_NO_MEMORY : LT_INTERNAL,
                   "oneDNN: %s failed with status %d", what, (int)status);
}

/* The primitive of a key: a kept one, or made by `make` in the place of the longest unused of its set of four. */
lt_status host_primitive(struct lt_exec *exec, int thread, const struct host_key *key,
                         host_make_primitive *make, const void *context, struct host_place *place_out,
                         struct lt_error *error)
{
    struct host_cache *cache = cache_of(exec, thread);
    if (!cache)
        return lt_fail(error, LT_NO_MEMORY, "oneDNN: no engine for a thread");
    uint64_t hash = 1469598103934665603ull;
    for (size_t i = 0; i < LT_COUNT(key->word); i++)
        hash = (hash ^ (uint64_t)key->word[i]) * 1099511628211ull;
    struct slot *set = &cache->slot[(hash >> 32) % (CACHE_SLOTS / 4) * 4], *slot = set;
    for (int i = 0; i < 4; i++) {
        if (set[i].primitive && memcmp(&set[i].key, key, sizeof *key) == 0) {
            slot = &set[i];
            goto found;
        }
        if (set[i].used < slot->used)
            slot = &set[i];
    }
    dnnl_primitive_t made = NULL;
    const dnnl_status_t status = make(cache->engine, context, &made);
    if (status != dnnl_success)
        return host_dnnl_failed("making a primitive", status, error);
    if (slot->primitive)
        dnnl_primitive_destroy(slot->primitive);
    slot->primitive = made;
    slot->key = *key;
found:
    slot->used = ++cache->clock;
    *place_out = (struct host_place){cache->engine, cache->stream, slot->primitive};
    return LT_OK;
}

dnnl_status_t host_run(const struct host_place *place, const struct host_memory *memory, int count)
{
    dnnl_exec_arg_t args[6] = {{0}};
    dnnl_status_t status = dnnl_success;
    int made = 0;
    for (; made < count && status == dnnl_success; made++) {
        dnnl_memory_t object = NULL;
        status = dnnl_memory_create(&object, memory[made].desc, place->engine, (void *)memory[made].data);
        args[made] = (dnnl_exec_arg_t){memory[made].arg, object};
    }
    if (status == dnnl_success)
        status = dnnl_primitive_execute(place->primitive, place->stream, count, args);
    if (status == dnnl_success)
        status = dnnl_stream_wait(place->stream);
    for (int i = 0; i < made; i++)
        if (args[i].memory)
            dnnl_memory_destroy(args[i].memory);
    return status;
}

/* -- matrix product ---------------------------------------------------------------------------------------- */

struct gemm {
    dnnl_memory_desc_t a, b, c, bias;
    bool has_bias, accumulate;
};

static void describe(struct gemm *g, bool bf16, int64_t m, int64_t n, int64_t k, int64_t lda, int64_t ldb,
                     int64_t ldc)
{
    const dnnl_data_type_t type = bf16 ? dnnl_bf16 : dnnl_f32;
    dnnl_memory_desc_init_by_strides(&g->a, 2, (dnnl_dims_t){m, k}, type, (dnnl_dims_t){lda, 1});
    dnnl_memory_desc_init_by_strides(&g->b, 2, (dnnl_dims_t){k, n}, type, (dnnl_dims_t){1, ldb});
    dnnl_memory_desc_init_by_strides(&g->c, 2, (dnnl_dims_t){m, n}, dnnl_f32, (dnnl_dims_t){ldc, 1});
    dnnl_memory_desc_init_by_strides(&g->bias, 2, (dnnl_dims_t){1, n}, dnnl_f32, (dnnl_dims_t){n, 1});
}

static dnnl_status_t make_gemm(dnnl_engine_t engine, const void *context, dnnl_primitive_t *made)
{
    const struct gemm *g = context;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t status = dnnl_matmul_desc_init(&desc, &g->a, &g->b, g->has_bias ? &g->bias : NULL, &g->c);
    if (status == dnnl_success && g->accumulate) {
        dnnl_post_ops_t ops = NULL;
        dnnl_primitive_attr_create(&attr);
        dnnl_post_ops_create(&ops);
        dnnl_post_ops_append_sum(ops, 1.0f);
        dnnl_primitive_attr_set_post_ops(attr, ops);
        dnnl_post_ops_destroy(ops);
    }
    if (status == dnnl_success)
        status = dnnl_primitive_desc_create(&pd, &desc, attr, engine, NULL);
    if (status == dnnl_success)
        status = dnnl_primitive_create(made, pd);
    if (pd)
        dnnl_primitive_desc_destroy(pd);
    if (attr)
        dnnl_primitive_attr_destroy(attr);
    return status;
}

lt_status host_gemm(struct lt_exec *exec, int thread, bool bf16, int64_t m, int64_t n, int64_t k,
                    const void *a, int64_t lda, const void *b, int64_t ldb, float *c, int64_t ldc,
                    const float *bias, bool accumulate, struct lt_error *error)
{
    struct gemm gemm = {.has_bias = bias != NULL, .accumulate = accumulate};
    const struct host_key key = {{HOST_GEMM | (bf16 ? 16 : 0) | (bias ? 32 : 0) | (accumulate ? 64 : 0), m, n,
                                  k, lda, ldb, ldc}};
    struct host_place place;
    describe(&gemm, bf16, m, n, k, lda, ldb, ldc);
    LT_TRY(host_primitive(exec, thread, &key, make_gemm, &gemm, &place, error));
    const struct host_memory memory[] = {{DNNL_ARG_SRC, &gemm.a, a},
                                         {DNNL_ARG_WEIGHTS, &gemm.b, b},
                                         {DNNL_ARG_DST, &gemm.c, c},
                                         {DNNL_ARG_BIAS, &gemm.bias, bias}};
    const dnnl_status_t status = host_run(&place, memory, bias ? 4 : 3);
    return status == dnnl_success ? LT_OK : host_dnnl_failed("matrix product", status, error);
}
