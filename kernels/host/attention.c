/* Flash attention on the host: queries in blocks of 64, keys in tiles of 256, online softmax in f32. Logits exist for
 * one tile only. Products by oneDNN, in bf16 or f32.
 *
 *   flops 4·L·S·K a head; bytes: K and V of a head are read once per query block from the cache they fit in. */
#include "kernels/host/gemm.h"
#include "kernels/host/simd.h"

#include <math.h>
#include <string.h>

enum { QUERY_BLOCK = 64, KEY_TILE = 256 };

struct attention {
    struct lt_exec *exec;
    const struct lt_attention_args *args;
    const struct simd *simd;
    bool bf16, round;
    int64_t keys, width, heads, padded; /* padded: keys rounded up to a tile */
    char *k, *v;                        /* [heads][keys, width] and [heads][width, padded], GEMM type */
    size_t value;                       /* bytes of a value there */
    struct host_failure failure;
};

static void put(const struct attention *a, void *to, int64_t index, float x)
{
    uint16_t half;
    if (a->bf16 || a->round)
        a->simd->to_bf16(&x, &half, 1);
    if (a->bf16)
        ((uint16_t *)to)[index] = half;
    else if (a->round)
        a->simd->from_bf16(&half, (float *)to + index, 1);
    else
        ((float *)to)[index] = x;
}

/* A row of `count` values in the GEMM's type. */
static void put_row(const struct attention *a, void *to, const float *from, int64_t count, float *spare)
{
    if (a->bf16) {
        a->simd->to_bf16(from, to, count);
    } else if (a->round) {
        a->simd->to_bf16(from, (uint16_t *)(void *)spare, count);
        a->simd->from_bf16((uint16_t *)(void *)spare, to, count);
    } else {
        memcpy(to, from, (size_t)count * sizeof *from);
    }
}

/* Packs the keys [tile] of one head: K by rows, V transposed. */
static void pack_part(void *context, int64_t index, int thread)
{
    (void)thread;
    struct attention *a = context;
    const struct lt_view *k = &a->args->k, *v = &a->args->v;
    const int64_t head = index % a->heads, first = index / a->heads * KEY_TILE;
    const int64_t last = first + KEY_TILE < a->keys ? first + KEY_TILE : a->keys;
    float spare[1024];
    char *to_k = a->k + (size_t)(head * a->keys * a->width) * a->value;
    char *to_v = a->v + (size_t)(head * a->width * a->padded) * a->value;
    for (int64_t s = first; s < last; s++) {
        const float *from = (const float *)k->data + s * k->stride[0] + head * k->stride[1];
        put_row(a, to_k + (size_t)(s * a->width) * a->value, from, a->width, spare);
        from = (const float *)v->data + s * v->stride[0] + head * v->stride[1];
        for (int64_t i = 0; i < a->width; i++)
            put(a, to_v, i * a->padded + s, from[i]);
    }
}

struct block { /* one query block of one head, in thread scratch */
    char *q, *p;          /* GEMM type: [64, width], [64, 256] */
    float *logit, *sum_v; /* [64, 256], [64, width] */
    float top[QUERY_BLOCK], sum[QUERY_BLOCK];
    int64_t rows;
};

static lt_status add_tile(struct attention *a, struct block *b, int64_t head, int64_t first, int thread,
                          struct lt_error *error)
{
    const int64_t count = first + KEY_TILE < a->keys ? KEY_TILE : a->keys - first;
    const char *k = a->k + (size_t)((head * a->keys + first) * a->width) * a->value;
    const char *v = a->v + (size_t)(head * a->width * a->padded + first) * a->value;
    float spare[KEY_TILE];
    LT_TRY(host_gemm(a->exec, thread, a->bf16, b->rows, count, a->width, b->q, a->width, k, a->width, b->logit,
                     KEY_TILE, NULL, false, error));
    const bool has_last = first + count == a->keys && a->args->last_key_bias != 0;
    for (int64_t i = 0; i < b->rows; i++) {
        float *logit = b->logit + i * KEY_TILE;
        if (has_last)
            logit[count - 1] += a->args->last_key_bias / a->args->scale;
        const float tile_top = a->simd->max_row(logit, count) * a->args->scale;
        const float top = tile_top > b->top[i] ? tile_top : b->top[i];
        const float keep = expf(b->top[i] - top); /* 0 at the first tile */
        b->sum[i] = b->sum[i] * keep + a->simd->exp_row(logit, a->args->scale, top, count);
        b->top[i] = top;
        if (keep != 1.0f)
            a->simd->scale_row(b->sum_v + i * a->width, keep, a->width);
        put_row(a, b->p + (size_t)(i * KEY_TILE) * a->value, logit, count, spare);
    }
    return host_gemm(a->exec, thread, a->bf16, b->rows, a->width, count, b->p, KEY_TILE, v, a->padded, b->sum_v,
                     a->width, NULL, true, error);
}

static void query_part(void *context, int64_t index, int thread)
{
    struct attention *a = context;
    struct lt_error error;
    struct block b;
    const struct lt_view *q = &a->args->q, *out = &a->args->out;
    const int64_t head = index % a->heads, first = index / a->heads * QUERY_BLOCK;
    const size_t q_bytes = (size_t)(QUERY_BLOCK * a->width) * a->value;
    const size_t p_bytes = (size_t)(QUERY_BLOCK * KEY_TILE) * a->value;
    char *scratch = lt_exec_scratch(a->exec, thread,
                                    q_bytes + p_bytes + (size_t)(QUERY_BLOCK * (KEY_TILE + a->width)) * 4);
    lt_status status = scratch ? LT_OK : lt_fail(&error, LT_NO_MEMORY, "op attention: no scratch memory");
    if (status == LT_OK) {
        b.q = scratch;
        b.p = b.q + q_bytes;
        b.logit = (float *)(void *)(b.p + p_bytes);
        b.sum_v = b.logit + QUERY_BLOCK * KEY_TILE;
        b.rows = first + QUERY_BLOCK < q->dim[0] ? QUERY_BLOCK : q->dim[0] - first;
        memset(b.sum_v, 0, (size_t)(QUERY_BLOCK * a->width) * sizeof *b.sum_v);
        float spare[1024];
        for (int64_t i = 0; i < b.rows; i++) {
            put_row(a, b.q + (size_t)(i * a->width) * a->value,
                    (const float *)q->data + (first + i) * q->stride[0] + head * q->stride[1], a->width, spare);
            b.top[i] = -INFINITY;
            b.sum[i] = 0;
        }
        for (int64_t s = 0; s < a->keys && status == LT_OK; s += KEY_TILE)
            status = add_tile(a, &b, head, s, thread, &error);
    }
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

lt_status host_attention(struct lt_exec *exec, const struct lt_attention_args *args, struct lt_error *error)
{
    const bool bf16 = lt_exec_precision(exec) == LT_PRECISION_BF16;
    struct attention a = {.exec = exec, .args = args, .simd = simd_best(), .bf16 = bf16 && host_has_bf16(),
                          .round = bf16 && !host_has_bf16(), .keys = args->k.dim[0], .width = args->q.dim[2],
                          .heads = args->q.dim[1]};
    if (a.width > 1024)
        return lt_fail(error, LT_UNSUPPORTED, "op attention: head width %lld, at most 1024", (long long)a.width);
    a.padded = (a.keys + KEY_TILE - 1) / KEY_TILE * KEY_TILE;
    a.value = a.bf16 ? 2 : 4;
    const size_t k_bytes = ((size_t)(a.heads * a.keys * a.width) * a.value + 63) / 64 * 64;
    a.k = lt_exec_scratch(exec, -1, k_bytes + (size_t)(a.heads * a.width * a.padded) * a.value);
    if (!a.k)
        return lt_fail(error, LT_NO_MEMORY, "op attention: no scratch memory");
    a.v = a.k + k_bytes;
    lt_exec_parallel(exec, a.heads * (a.padded / KEY_TILE), pack_part, &a);
    lt_exec_parallel(exec, a.heads * ((args->q.dim[0] + QUERY_BLOCK - 1) / QUERY_BLOCK), query_part, &a);
    return host_failure_give(&a.failure, error);
}
