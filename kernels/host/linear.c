/* out = activation(in · weightᵀ + bias [+ out]). Rows are taken in chunks, converted once to the
 * product's type; each part dequantises one tile of weight rows straight into oneDNN's layout and
 * multiplies it with the chunk, block of rows by block of rows, so that a block's results are still
 * in cache when bias and activation are applied.
 *
 *   bytes: weights once per chunk of 24 MiB, in and out once; 2·L·N·K flops; bound by the product
 * from about 100 rows on, by dequantisation below. Up to four rows are plain dot products: packing
 * would not pay. */
#include "kernels/cuda/exec_cuda.h"
#include "kernels/host/gemm.h"
#include "kernels/quant.h"
#include "kernels/scratch.h"

#include <string.h>

enum { CHUNK_BYTES = 24 << 20, CONVERT_ROWS = 64, PIECE = 256, DOT_ROWS = 4 };

struct linear {
    struct lt_exec *exec;
    const struct lt_linear_args *args;
    const struct simd *simd;
    bool bf16;  /* the product's type */
    bool round; /* an f32 product on values rounded to bf16 */
    size_t value;
    struct host_layout layout; /* of one tile */
    char *a;                   /* [rows, K] */
    int64_t row, rows, tile, row_bytes;
    const float *bias;
    float scale; /* of all weights: 8-bit files */
    struct host_failure failure;
};

static void round_values(const struct simd *simd, float *x, int64_t count)
{
    uint16_t half[PIECE];
    for (int64_t i = 0; i < count; i += PIECE) {
        const int64_t piece = count - i < PIECE ? count - i : PIECE;
        simd->to_bf16(x + i, half, piece);
        simd->from_bf16(half, x + i, piece);
    }
}

static int64_t up_to(int64_t count, int64_t multiple)
{
    return (count + multiple - 1) / multiple * multiple;
}

static void convert_part(void *context, int64_t index, int thread)
{
    (void)thread;
    struct linear *l = context;
    const int64_t first = index * CONVERT_ROWS, k = l->args->weight.dim[1],
                  rows = up_to(l->rows, HOST_PACK_ROWS);
    const int64_t last = first + CONVERT_ROWS < rows ? first + CONVERT_ROWS : rows;
    for (int64_t i = first; i < last; i++) {
        const float *in = (const float *)l->args->in.data + (l->row + i) * l->args->in.stride[0];
        char *to = l->a + (size_t)(i * k) * l->value;
        if (i >= l->rows) {
            memset(to, 0, (size_t)k * l->value);
        } else if (l->bf16) {
            l->simd->to_bf16(in, (uint16_t *)(void *)to, k);
        } else {
            memcpy(to, in, (size_t)k * sizeof *in);
            if (l->round)
                round_values(l->simd, (float *)(void *)to, k);
        }
    }
}

/* Values [k, k+count) of weight row n in f32 … */
static void weight_piece(const struct linear *l, int64_t n, int64_t k, int64_t count, float *to)
{
    const struct lt_type_info *type = lt_type_info(l->args->weight.type);
    const char *from = (const char *)l->args->weight.data + n * l->row_bytes;
    l->simd->dequantize(type->type, from + k / type->block_values * type->block_bytes, to, count);
    if (l->round)
        round_values(l->simd, to, count);
}

/* … and sixteen rows packed: rows past the last and values past K are zeros. */
static void pack_rows(const struct linear *l, int64_t n, int64_t n_in_tile, char *tile)
{
    const int64_t k = l->args->weight.dim[1], width = l->args->weight.dim[0];
    _Alignas(64) float piece[HOST_PACK_ROWS * PIECE];
    _Alignas(64) uint16_t half[HOST_PACK_ROWS * PIECE];
    for (int64_t first = 0; first < l->layout.k_padded; first += PIECE) {
        const int64_t left = k - first, padded = l->layout.k_padded - first < PIECE
                                                     ? l->layout.k_padded - first
                                                     : PIECE;
        const int64_t count = left < PIECE ? left : PIECE;
        for (int64_t i = 0; i < HOST_PACK_ROWS; i++) {
            float *row = piece + i * PIECE;
            const int64_t have = n + i < width ? count : 0;
            memset(row + have, 0, (size_t)(padded - have) * sizeof *row);
            if (have)
                weight_piece(l, n + i, first, count, row);
            if (l->bf16)
                l->simd->to_bf16(row, half + i * PIECE, padded);
        }
        host_pack(l->simd, &l->layout, n_in_tile, first, l->bf16 ? (const void *)half : piece,
                  PIECE, padded, tile);
    }
}

static void store_block(const struct linear *l, int64_t n, int64_t count, int64_t first,
                        int64_t rows, float *c)
{
    for (int64_t i = 0; i < rows; i++, c += l->tile) {
        float *out = (float *)l->args->out.data + (l->row + first + i) * l->args->out.stride[0] + n;
        if (l->scale != 1)
            l->simd->scale_row(c, l->scale, count);
        if (l->args->accumulate)
            l->simd->gated_add(out, out, c, NULL, count);
        if (l->bias)
            l->simd->gated_add(out, l->args->accumulate ? out : c, l->bias + n, NULL, count);
        else if (!l->args->accumulate)
            memcpy(out, c, (size_t)count * sizeof *out);
        if (l->args->activation != LT_ACTIVATION_NONE)
            l->simd->activate(l->args->activation, out, count);
    }
}

static void multiply_part(void *context, int64_t index, int thread)
{
    struct linear *l = context;
    struct lt_error error;
    const int64_t n = index * l->tile, k = l->args->weight.dim[1], width = l->args->weight.dim[0];
    const int64_t count = n + l->tile < width ? l->tile : width - n;
    char *tile = lt_exec_scratch(
        l->exec, thread, l->layout.bytes + (size_t)(HOST_BLOCK_ROWS * l->tile) * sizeof(float));
    lt_status status = tile ? LT_OK : lt_fail(&error, LT_NO_MEMORY, "op linear: no scratch memory");
    if (status == LT_OK)
        for (int64_t i = 0; i < l->tile; i += HOST_PACK_ROWS)
            pack_rows(l, n + i, i, tile);
    for (int64_t first = 0; first < l->rows && status == LT_OK; first += HOST_BLOCK_ROWS) {
        float *c = (float *)(void *)(tile + l->layout.bytes);
        const int64_t rows = l->rows - first < HOST_BLOCK_ROWS ? l->rows - first : HOST_BLOCK_ROWS;
        status = host_product(l->exec, thread, &l->layout, up_to(rows, HOST_PACK_ROWS),
                              l->a + (size_t)(first * k) * l->value, tile, c, false, &error);
        if (status == LT_OK)
            store_block(l, n, count, first, rows, c);
    }
    if (status != LT_OK)
        host_failure_note(&l->failure, &error);
}

/* Few rows: each weight row is dequantised and dotted with all of them. */
static void dot_part(void *context, int64_t index, int thread)
{
    struct linear *l = context;
    struct lt_error error;
    const int64_t n = index * l->tile, k = l->args->weight.dim[1], width = l->args->weight.dim[0];
    float *weight = lt_exec_scratch(l->exec, thread, (size_t)k * sizeof *weight);
    if (!weight) {
        lt_fail(&error, LT_NO_MEMORY, "op linear: no scratch memory");
        host_failure_note(&l->failure, &error);
        return;
    }
    for (int64_t i = n; i < n + l->tile && i < width; i++) {
        weight_piece(l, i, 0, k, weight);
        for (int64_t r = 0; r < l->rows; r++) {
            float *out = (float *)l->args->out.data + r * l->args->out.stride[0] + i;
            *out = (l->args->accumulate ? *out : 0) +
                   l->simd->dot((const float *)(const void *)l->a + r * k, weight, k) * l->scale +
                   (l->bias ? l->bias[i] : 0);
            if (l->args->activation != LT_ACTIVATION_NONE)
                l->simd->activate(l->args->activation, out, 1);
        }
    }
}

/* How an op is cut, and the scratch that takes. */
struct cut {
    bool few, bf16, round;
    int64_t tile, chunk; /* weight rows a part, input rows at a time */
    struct host_layout layout;
    size_t bias_bytes;
    struct lt_scratch scratch;
};

static lt_status choose_cut(enum lt_precision precision, int64_t rows, int64_t k, int64_t n,
                            bool exact, struct cut *cut, struct lt_error *error)
{
    const bool rounded = precision == LT_PRECISION_BF16 && !exact;
    *cut = (struct cut){.few = rows <= DOT_ROWS, .tile = n >= 4096 ? 128 : 64};
    cut->bf16 = rounded && host_has_bf16() && !cut->few;
    cut->round = rounded && !cut->bf16;
    const int64_t value = cut->bf16 ? 2 : 4;
    const int64_t fit = CHUNK_BYTES / (k * value) / HOST_BLOCK_ROWS * HOST_BLOCK_ROWS;
    const int64_t most = fit > HOST_BLOCK_ROWS ? fit : HOST_BLOCK_ROWS;
    cut->chunk = rows < most ? rows : most;
    cut->bias_bytes = ((size_t)n * 4 + 63) / 64 * 64;
    cut->scratch.shared = cut->bias_bytes + (size_t)(up_to(cut->chunk, HOST_PACK_ROWS) * k * value);
    cut->scratch.thread = (size_t)k * sizeof(float);
    if (cut->few)
        return LT_OK;
    LT_TRY(host_layout_choose(&cut->layout, cut->bf16, cut->tile, k, error));
    cut->scratch.thread = cut->layout.bytes + (size_t)(HOST_BLOCK_ROWS * cut->tile) * sizeof(float);
    return LT_OK;
}

lt_status lt_scratch_linear(enum lt_precision precision, int64_t rows, int64_t k, int64_t n,
                            bool exact, struct lt_scratch *scratch_out, struct lt_error *error)
{
    struct cut cut;
    LT_TRY(choose_cut(precision, rows, k, n, exact, &cut, error));
    *scratch_out = cut.scratch;
    /* at most: of a type that is never multiplied as it is */
    const struct lt_linear_args args = {.in = lt_view_2d(NULL, LT_TYPE_F32, rows, k),
                                        .weight = lt_view_2d(NULL, LT_TYPE_F16, n, k),
                                        .exact = exact};
    scratch_out->cuda = lt_cuda_scratch_linear(precision == LT_PRECISION_BF16, &args);
    return LT_OK;
}

lt_status host_linear(struct lt_exec *exec, const struct lt_linear_args *args,
                      struct lt_error *error)
{
    const int64_t rows = args->in.dim[0], k = args->weight.dim[1], n = args->weight.dim[0];
    struct cut cut;
    LT_TRY(choose_cut(lt_exec_precision(exec), rows, k, n, args->exact, &cut, error));
    struct linear l = {.exec = exec,
                       .args = args,
                       .simd = simd_best(),
                       .bf16 = cut.bf16,
                       .round = cut.round,
                       .value = cut.bf16 ? 2 : 4,
                       .scale =
                           args->weight_scale.data ? *(const float *)args->weight_scale.data : 1,
                       .layout = cut.layout,
                       .tile = cut.tile};
    uint64_t row_bytes = 0;
    lt_type_bytes(args->weight.type, (uint64_t)k, &row_bytes);
    l.row_bytes = (int64_t)row_bytes;
    char *shared = lt_exec_scratch(exec, -1, cut.scratch.shared);
    if (!shared)
        return lt_fail(error, LT_NO_MEMORY, "op linear: no scratch memory");
    if (args->bias.data) {
        lt_dequantize_row(args->bias.type, args->bias.data, (float *)(void *)shared, n);
        l.bias = (const float *)(const void *)shared;
    }
    l.a = shared + cut.bias_bytes;
    for (l.row = 0; l.row < rows; l.row += cut.chunk) {
        l.rows = rows - l.row < cut.chunk ? rows - l.row : cut.chunk;
        lt_exec_parallel(exec, (up_to(l.rows, HOST_PACK_ROWS) + CONVERT_ROWS - 1) / CONVERT_ROWS,
                         convert_part, &l);
        lt_exec_parallel(exec, (n + l.tile - 1) / l.tile, cut.few ? dot_part : multiply_part, &l);
        LT_TRY(host_failure_give(&l.failure, error));
    }
    return LT_OK;
}
