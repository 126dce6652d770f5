/* Flash attention on the host: queries in blocks of 128, keys in tiles of 256, online softmax in
 * f32. Logits exist for one tile only. Keys and values are packed once a head into oneDNN's own
 * layout; products in bf16 or f32.
 *
 *   flops 4·L·S·K a head; bytes: K and V of a head are read once per query block from the cache
 * they fit in. */
#include "kernels/cuda/exec_cuda.h"
#include "kernels/host/gemm.h"
#include "kernels/scratch.h"

#include <math.h>
#include <string.h>

enum { QUERY_BLOCK = 128, KEY_TILE = 256, WIDTH_MAX = 1024 };

struct attention {
    struct lt_exec *exec;
    const struct lt_attention_args *args;
    const struct simd *simd;
    bool bf16, round;
    int64_t keys, width, heads, tiles;
    /* [256 keys, K] and [K, 256 keys]; of the last tile, which holds fewer keys, the next multiple
     * of 64. */
    struct host_layout keys_layout[2], values_layout[2];
    char *k, *v;  /* [heads][tiles] of the first of each */
    size_t value; /* bytes of a value there */
    struct host_failure failure;
};

/* A row of `count` values in the product's type. */
static void put_row(const struct attention *a, void *to, const float *from, int64_t count)
{
    uint16_t half[WIDTH_MAX];
    if (a->bf16) {
        a->simd->to_bf16(from, to, count);
    } else if (a->round) {
        a->simd->to_bf16(from, half, count);
        a->simd->from_bf16(half, to, count);
    } else if (to != from) {
        memcpy(to, from, (size_t)count * sizeof *from);
    }
}

/* 1 for the last tile, 0 for the others. */
static int is_last(const struct attention *a, int64_t tile)
{
    return tile + 1 == a->tiles;
}

static const float *key_row(const struct lt_view *view, int64_t s, int64_t head)
{
    return (const float *)view->data + s * view->stride[0] + head * view->stride[1];
}

/* Sixteen keys at a time; keys past the last are zeros. */
static void pack_keys(const struct attention *a, const struct host_layout *layout, int64_t head,
                      int64_t first, char *rows, char *to)
{
    const int64_t wide = layout->k_padded, count = a->keys - first;
    for (int64_t n = 0; n < layout->n; n += HOST_PACK_ROWS) {
        memset(rows, 0, (size_t)(HOST_PACK_ROWS * wide) * a->value);
        for (int64_t i = 0; i < HOST_PACK_ROWS && n + i < count; i++)
            put_row(a, rows + (size_t)(i * wide) * a->value,
                    key_row(&a->args->k, first + n + i, head), a->width);
        host_pack(a->simd, layout, n, 0, rows, wide, wide, to);
    }
}

/* Values stand with their keys along the summed dimension: two rows side by side make the pairs of
 * bf16. */
static void pack_values(const struct attention *a, const struct host_layout *layout, int64_t head,
                        int64_t first, char *rows, char *to)
{
    const int64_t count = a->keys - first < layout->k ? a->keys - first : layout->k;
    const int64_t unit = layout->unit, block = layout->block;
    char *second = rows + (size_t)a->width * a->value;
    memset(to, 0, layout->bytes);
    for (int64_t s = 0; s < count; s += unit) {
        put_row(a, rows, key_row(&a->args->v, first + s, head), a->width);
        if (unit == 2 && s + 1 < count)
            put_row(a, second, key_row(&a->args->v, first + s + 1, head), a->width);
        else
            memset(second, 0, (size_t)a->width * a->value);
        for (int64_t n = 0; n < a->width; n += block) {
            const int64_t few = a->width - n < block ? a->width - n : block;
            char *at = to + (size_t)(n / block * layout->block_stride + s * block) * a->value;
            if (unit == 2)
                a->simd->zip((uint16_t *)(void *)rows + n, (uint16_t *)(void *)second + n,
                             (uint16_t *)(void *)at, few);
            else
                memcpy(at, rows + (size_t)n * a->value, (size_t)few * a->value);
        }
    }
}

/* Plain rows of the values' layout: a transpose. */
static void transpose_values(const struct attention *a, const struct host_layout *layout,
                             int64_t head, int64_t first, char *row, char *to)
{
    const int64_t count = a->keys - first < layout->k ? a->keys - first : layout->k;
    memset(to, 0, layout->bytes);
    for (int64_t s = 0; s < count; s++) {
        put_row(a, row, key_row(&a->args->v, first + s, head), a->width);
        for (int64_t i = 0; i < a->width; i++)
            memcpy(to + (size_t)(i * layout->k + s) * a->value, row + (size_t)i * a->value,
                   a->value);
    }
}

static size_t pack_bytes(const struct attention *a)
{
    const int64_t wide = a->keys_layout[0].k_padded; /* the same for the last tile */
    return (size_t)(HOST_PACK_ROWS * (wide + 16)) * a->value;
}

static void pack_part(void *context, int64_t index, int thread)
{
    struct attention *a = context;
    struct lt_error error;
    const int64_t head = index / a->tiles, tile = index % a->tiles, first = tile * KEY_TILE;
    const struct host_layout *keys = &a->keys_layout[is_last(a, tile)],
                             *values = &a->values_layout[is_last(a, tile)];
    char *rows = lt_exec_scratch(a->exec, thread, pack_bytes(a));
    if (!rows) {
        lt_fail(&error, LT_NO_MEMORY, "op attention: no scratch memory");
        host_failure_note(&a->failure, &error);
        return;
    }
    pack_keys(a, keys, head, first, rows, a->k + (size_t)index * a->keys_layout[0].bytes);
    char *to = a->v + (size_t)index * a->values_layout[0].bytes;
    if (values->block)
        pack_values(a, values, head, first, rows, to);
    else
        transpose_values(a, values, head, first, rows, to);
}

struct block {            /* one query block of one head, in thread scratch */
    char *q, *p;          /* product type: [128, K], [128, 256] */
    float *logit, *sum_v; /* [128, 256], [128, K] */
    float top[QUERY_BLOCK], sum[QUERY_BLOCK];
    int64_t first, rows, padded; /* padded: products take rows by sixteen */
};

static void add_scaled(float *to, const float *from, float scale, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        to[i] += from[i] * scale;
}

static lt_status add_tile(struct attention *a, struct block *b, int64_t head, int64_t tile,
                          int thread, struct lt_error *error)
{
    const struct host_layout *keys = &a->keys_layout[is_last(a, tile)],
                             *values = &a->values_layout[is_last(a, tile)];
    const int64_t first = tile * KEY_TILE,
                  count = a->keys - first < KEY_TILE ? a->keys - first : KEY_TILE;
    const size_t index = (size_t)(head * a->tiles + tile);
    LT_TRY(host_product(a->exec, thread, keys, b->padded, b->q,
                        a->k + index * a->keys_layout[0].bytes, b->logit, false, error));
    const struct lt_view *relative = &a->args->relative_bias;
    const bool has_last = is_last(a, tile) && a->args->last_key_bias != 0;
    for (int64_t i = 0; i < b->rows; i++) {
        float *logit = b->logit + i * keys->n;
        if (relative->data) /* neighbouring keys have neighbouring distances */
            add_scaled(logit,
                       key_row(relative, head, 0) + first - (b->first + i) + a->args->q.dim[0] - 1,
                       1 / a->args->scale, count);
        if (has_last)
            logit[count - 1] += a->args->last_key_bias / a->args->scale;
        const float tile_top = a->simd->max_row(logit, count) * a->args->scale;
        const float top = tile_top > b->top[i] ? tile_top : b->top[i];
        const float keep = expf(b->top[i] - top); /* 0 at the first tile */
        b->sum[i] = b->sum[i] * keep + a->simd->exp_row(logit, a->args->scale, top, count);
        b->top[i] = top;
        if (keep != 1.0f)
            a->simd->scale_row(b->sum_v + i * a->width, keep, a->width);
        memset(logit + count, 0, (size_t)(keys->n - count) * sizeof *logit);
        put_row(a, b->p + (size_t)(i * keys->n) * a->value, logit, keys->n);
    }
    return host_product(a->exec, thread, values, b->padded, b->p,
                        a->v + index * a->values_layout[0].bytes, b->sum_v, true, error);
}

/* Of q and p of a block; their f32 sums follow. */
static size_t q_bytes_of(const struct attention *a)
{
    return ((size_t)(QUERY_BLOCK * a->width) * a->value + 63) / 64 * 64;
}

static size_t p_bytes_of(const struct attention *a)
{
    return (size_t)(QUERY_BLOCK * KEY_TILE) * a->value;
}

static size_t block_bytes(const struct attention *a)
{
    return q_bytes_of(a) + p_bytes_of(a) + (size_t)(QUERY_BLOCK * (KEY_TILE + a->width)) * 4;
}

static bool take_block(struct attention *a, struct block *b, int64_t head, int64_t first,
                       int thread)
{
    const struct lt_view *q = &a->args->q;
    const size_t q_bytes = q_bytes_of(a), p_bytes = p_bytes_of(a);
    b->q = lt_exec_scratch(a->exec, thread, block_bytes(a));
    if (!b->q)
        return false;
    b->p = b->q + q_bytes;
    b->logit = (float *)(void *)(b->p + p_bytes);
    b->sum_v = b->logit + QUERY_BLOCK * KEY_TILE;
    b->first = first;
    b->rows = first + QUERY_BLOCK < q->dim[0] ? QUERY_BLOCK : q->dim[0] - first;
    b->padded = (b->rows + HOST_PACK_ROWS - 1) / HOST_PACK_ROWS * HOST_PACK_ROWS;
    memset(b->sum_v, 0, (size_t)(QUERY_BLOCK * a->width) * sizeof *b->sum_v);
    memset(b->q, 0, q_bytes);
    memset(b->p, 0, p_bytes);
    for (int64_t i = 0; i < b->rows; i++) {
        put_row(a, b->q + (size_t)(i * a->width) * a->value, key_row(q, first + i, head), a->width);
        b->top[i] = -INFINITY;
        b->sum[i] = 0;
    }
    return true;
}

/* Blocks of one head follow each other, so its keys and values stay in cache. */
static void query_part(void *context, int64_t index, int thread)
{
    struct attention *a = context;
    struct lt_error error;
    struct block b = {0};
    const struct lt_view *out = &a->args->out;
    const int64_t blocks = (a->args->q.dim[0] + QUERY_BLOCK - 1) / QUERY_BLOCK;
    const int64_t head = index / blocks, first = index % blocks * QUERY_BLOCK;
    lt_status status = take_block(a, &b, head, first, thread)
                           ? LT_OK
                           : lt_fail(&error, LT_NO_MEMORY, "op attention: no scratch memory");
    for (int64_t tile = 0; tile < a->tiles && status == LT_OK; tile++)
        status = add_tile(a, &b, head, tile, thread, &error);
    if (status != LT_OK) {
        host_failure_note(&a->failure, &error);
        return;
    }
    for (int64_t i = 0; i < b.rows; i++) {
        float *to = (float *)out->data + (first + i) * out->stride[0] + head * out->stride[1];
        memcpy(to, b.sum_v + i * a->width, (size_t)a->width * sizeof *to);
        a->simd->scale_row(to, 1.0f / b.sum[i], a->width);
    }
}

/* Everything that follows from precision and sizes. */
static lt_status choose_tiles(struct attention *a, enum lt_precision precision,
                              struct lt_error *error)
{
    const bool bf16 = precision == LT_PRECISION_BF16;
    if (a->width > WIDTH_MAX)
        return lt_fail(error, LT_UNSUPPORTED, "op attention: head width %lld, at most %d",
                       (long long)a->width, WIDTH_MAX);
    a->bf16 = bf16 && host_has_bf16();
    a->round = bf16 && !host_has_bf16();
    a->value = a->bf16 ? 2 : 4;
    a->tiles = (a->keys + KEY_TILE - 1) / KEY_TILE;
    const int64_t last = (a->keys - (a->tiles - 1) * KEY_TILE + 63) / 64 * 64;
    for (int i = 0; i < 2; i++) {
        const int64_t tile = i ? last : KEY_TILE;
        LT_TRY(host_layout_choose(&a->keys_layout[i], a->bf16, tile, a->width, error));
        LT_TRY(host_layout_choose(&a->values_layout[i], a->bf16, a->width, tile, error));
    }
    return LT_OK;
}

static size_t keys_bytes(const struct attention *a)
{
    return (size_t)(a->heads * a->tiles) * a->keys_layout[0].bytes;
}

static struct lt_scratch scratch_of(const struct attention *a)
{
    const size_t pack = pack_bytes(a), block = block_bytes(a);
    return (struct lt_scratch){.shared = keys_bytes(a) +
                                         (size_t)(a->heads * a->tiles) * a->values_layout[0].bytes,
                               .thread = pack > block ? pack : block};
}

lt_status lt_scratch_attention(enum lt_precision precision, int64_t keys, int64_t heads,
                               int64_t width, struct lt_scratch *scratch_out,
                               struct lt_error *error)
{
    struct attention a = {.keys = keys, .heads = heads, .width = width};
    LT_TRY(choose_tiles(&a, precision, error));
    *scratch_out = scratch_of(&a);
    const struct lt_attention_args args = {.q = lt_view_3d(NULL, LT_TYPE_F32, 1, heads, width),
                                           .k = lt_view_3d(NULL, LT_TYPE_F32, keys, heads, width)};
    scratch_out->cuda = lt_cuda_scratch_attention(precision == LT_PRECISION_BF16, &args);
    return LT_OK;
}

lt_status host_attention(struct lt_exec *exec, const struct lt_attention_args *args,
                         struct lt_error *error)
{
    struct attention a = {.exec = exec,
                          .args = args,
                          .simd = simd_best(),
                          .keys = args->k.dim[0],
                          .width = args->q.dim[2],
                          .heads = args->q.dim[1]};
    LT_TRY(choose_tiles(&a, args->exact ? LT_PRECISION_F32 : lt_exec_precision(exec), error));
    a.k = lt_exec_scratch(exec, -1, scratch_of(&a).shared);
    if (!a.k)
        return lt_fail(error, LT_NO_MEMORY, "op attention: no scratch memory");
    a.v = a.k + keys_bytes(&a);
    lt_exec_parallel(exec, a.heads * a.tiles, pack_part, &a);
    LT_TRY(host_failure_give(&a.failure, error));
    lt_exec_parallel(exec, a.heads * ((args->q.dim[0] + QUERY_BLOCK - 1) / QUERY_BLOCK), query_part,
                     &a);
    return host_failure_give(&a.failure, error);
}
