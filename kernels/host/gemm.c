/* Matrix products by oneDNN, one thread each, with the primitives of a thread kept for reuse. */
#include "kernels/host/gemm.h"

#include "kernels/host/simd.h"

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

/* Of the OpenMP runtime that oneDNN's library is linked to (libgomp). Declared here because clang's
 * omp.h belongs to another runtime, which oneDNN would not hear. */
void omp_set_num_threads(int count);

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
    if (made &&
        (dnnl_engine_create(&made->engine, dnnl_cpu, 0) != dnnl_success ||
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

/* The primitive of a key: a kept one, or made by `make` in the place of the longest unused of its
 * set of four. */
lt_status host_primitive(struct lt_exec *exec, int thread, const struct host_key *key,
                         host_make_primitive *make, const void *context,
                         struct host_place *place_out, struct lt_error *error)
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
        status = dnnl_memory_create(&object, memory[made].desc, place->engine,
                                    (void *)memory[made].data);
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

/* -- products ---------------------------------------------------------------------------------- */

struct product {
    dnnl_memory_desc_t a, b, c;
    bool accumulate;
};

/* An inner product: of oneDNN's two ways to multiply matrices the one that keeps its speed for
 * narrow tiles. */
static dnnl_status_t make_product_pd(dnnl_engine_t engine, const struct product *p,
                                     dnnl_primitive_desc_t *pd)
{
    dnnl_inner_product_desc_t desc;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t status = dnnl_inner_product_forward_desc_init(&desc, dnnl_forward_inference,
                                                                &p->a, &p->b, NULL, &p->c);
    if (status == dnnl_success && p->accumulate) {
        dnnl_post_ops_t ops = NULL;
        dnnl_primitive_attr_create(&attr);
        dnnl_post_ops_create(&ops);
        dnnl_post_ops_append_sum(ops, 1.0f);
        dnnl_primitive_attr_set_post_ops(attr, ops);
        dnnl_post_ops_destroy(ops);
    }
    if (status == dnnl_success)
        status = dnnl_primitive_desc_create(pd, &desc, attr, engine, NULL);
    if (attr)
        dnnl_primitive_attr_destroy(attr);
    return status;
}

static dnnl_status_t make_product(dnnl_engine_t engine, const void *context, dnnl_primitive_t *made)
{
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t status = make_product_pd(engine, context, &pd);
    if (status == dnnl_success)
        status = dnnl_primitive_create(made, pd);
    if (pd)
        dnnl_primitive_desc_destroy(pd);
    return status;
}

static void describe(struct product *p, bool bf16, int64_t m, int64_t n, int64_t k)
{
    const dnnl_data_type_t type = bf16 ? dnnl_bf16 : dnnl_f32;
    dnnl_memory_desc_init_by_tag(&p->a, 2, (dnnl_dims_t){m, k}, type, dnnl_nc);
    dnnl_memory_desc_init_by_tag(&p->c, 2, (dnnl_dims_t){m, n}, dnnl_f32, dnnl_nc);
}

/* Reads [n / block][k / unit][block][unit] out of a descriptor; false when it is something else. */
static bool read_layout(struct host_layout *layout)
{
    const dnnl_blocking_desc_t *b = &layout->desc.format_desc.blocking;
    const dnnl_dim_t *inner = b->inner_blks, *of = b->inner_idxs;
    const int64_t unit = layout->unit;
    int64_t k_block = 1;
    if (layout->desc.format_kind != dnnl_blocked)
        return false;
    if (b->inner_nblks == 0 && unit == 1 && b->strides[0] == 1) {
        layout->block = layout->n;
    } else if (b->inner_nblks == 1 && unit == 1 && of[0] == 0) {
        layout->block = inner[0];
    } else if (b->inner_nblks == 2 && unit == 1 && of[0] == 1 && of[1] == 0) {
        k_block = inner[0];
        layout->block = inner[1];
    } else if (b->inner_nblks == 3 && of[0] == 1 && of[1] == 0 && of[2] == 1 && inner[2] == unit) {
        k_block = inner[0] * unit;
        layout->block = inner[1];
    } else {
        return false;
    }
    layout->block_stride = b->inner_nblks ? b->strides[0] : layout->n * layout->k;
    return b->strides[1] == k_block * layout->block;
}

lt_status host_layout_choose(struct host_layout *layout_out, bool bf16, int64_t n, int64_t k,
                             struct lt_error *error)
{
    const dnnl_data_type_t type = bf16 ? dnnl_bf16 : dnnl_f32;
    struct product product = {.accumulate = true};
    struct host_layout layout = {.n = n, .k = k, .bf16 = bf16, .unit = bf16 ? 2 : 1};
    dnnl_engine_t engine = NULL;
    dnnl_primitive_desc_t pd = NULL;
    describe(&product, bf16, HOST_BLOCK_ROWS, n, k);
    dnnl_memory_desc_init_by_tag(&product.b, 2, (dnnl_dims_t){n, k}, type, dnnl_format_tag_any);
    dnnl_status_t status = dnnl_engine_create(&engine, dnnl_cpu, 0);
    if (status == dnnl_success)
        status = make_product_pd(engine, &product, &pd);
    if (status == dnnl_success)
        layout.desc = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    if (pd)
        dnnl_primitive_desc_destroy(pd);
    if (engine)
        dnnl_engine_destroy(engine);
    if (status != dnnl_success)
        return host_dnnl_failed("choosing a product", status, error);
    if (!read_layout(&layout)) { /* plain rows work everywhere */
        layout.block = 0;
        dnnl_memory_desc_init_by_tag(&layout.desc, 2, (dnnl_dims_t){n, k}, type, dnnl_oi);
    }
    layout.k_padded = layout.desc.padded_dims[1];
    layout.bytes = (dnnl_memory_desc_get_size(&layout.desc) + 63) / 64 * 64;
    *layout_out = layout;
    return LT_OK;
}

void host_pack(const struct simd *simd, const struct host_layout *layout, int64_t n, int64_t k,
               const void *rows, int64_t stride, int64_t count, void *to)
{
    const int64_t unit = layout->unit;
    if (layout->block == 0) {
        const size_t value = layout->bf16 ? 2 : 4;
        const int64_t length = k + count < layout->k ? count : layout->k - k;
        for (int64_t i = 0; i < HOST_PACK_ROWS && n + i < layout->n; i++)
            memcpy((char *)to + (size_t)((n + i) * layout->k + k) * value,
                   (const char *)rows + (size_t)(i * stride) * value, (size_t)length * value);
        return;
    }
    const int64_t padded = layout->desc.padded_dims[0];
    for (int64_t i = 0; i < HOST_PACK_ROWS && n + i < padded;) {
        const int64_t column = (n + i) % layout->block, room = layout->block - column;
        const int64_t few = room < HOST_PACK_ROWS - i ? room : HOST_PACK_ROWS - i;
        /* Both kinds of unit are 32 bits: a float, or two bf16. */
        simd->transpose(
            (const uint32_t *)rows + i * stride / unit, stride / unit, few, count / unit,
            (uint32_t *)to +
                ((n + i) / layout->block * layout->block_stride + k * layout->block) / unit +
                column,
            layout->block);
        i += few;
    }
}

lt_status host_product(struct lt_exec *exec, int thread, const struct host_layout *layout,
                       int64_t m, const void *a, const void *b, float *c, bool accumulate,
                       struct lt_error *error)
{
    struct product product = {.b = layout->desc, .accumulate = accumulate};
    const struct host_key key = {{HOST_PRODUCT | (layout->bf16 ? 16 : 0) | (accumulate ? 32 : 0), m,
                                  layout->n, layout->k, layout->block}};
    struct host_place place;
    describe(&product, layout->bf16, m, layout->n, layout->k);
    LT_TRY(host_primitive(exec, thread, &key, make_product, &product, &place, error));
    const struct host_memory memory[] = {{DNNL_ARG_SRC, &product.a, a},
                                         {DNNL_ARG_WEIGHTS, &product.b, b},
                                         {DNNL_ARG_DST, &product.c, c}};
    const dnnl_status_t status = host_run(&place, memory, 3);
    return status == dnnl_success ? LT_OK : host_dnnl_failed("matrix product", status, error);
}
