/* out = activation(in · weightᵀ + bias). Rows are taken in chunks; each part dequantises one tile of weight rows to the
 * GEMM's type once and multiplies it with the whole chunk.
 *
 *   bytes: weights once per chunk of 2,048 rows, in and out once; 2·L·N·K flops; bound by the GEMM from about
 *   100 rows on, by dequantisation below. */
#include "kernels/host/gemm.h"
#include "kernels/host/simd.h"
#include "kernels/quant.h"

#include <string.h>

enum { CHUNK_ROWS = 2048, CONVERT_ROWS = 64 };

struct linear {
    struct lt_exec *exec;
    const struct lt_linear_args *args;
    const struct simd *simd;
    bool bf16;        /* the GEMM's type */
    bool round;       /* f32 GEMM on values rounded to bf16 */
    const void *a;    /* [rows, K], converted or the input itself */
    void *converted;
    int64_t lda, row, rows, tile;
    const float *bias;
    struct host_failure failure;
};

static void convert_part(void *context, int64_t index, int thread)
{
    (void)thread;
    struct linear *l = context;
    const int64_t first = index * CONVERT_ROWS, k = l->args->weight.dim[1];
    const int64_t last = first + CONVERT_ROWS < l->rows ? first + CONVERT_ROWS : l->rows;
    for (int64_t i = first; i < last; i++) {
        const float *in = (const float *)l->args->in.data + (l->row + i) * l->args->in.stride[0];
        if (l->bf16) {
            l->simd->to_bf16(in, (uint16_t *)l->converted + i * k, k);
        } else {
            float *out = (float *)l->converted + i * k;
            uint16_t *half = (uint16_t *)(void *)out + k; /* the upper half of the row, then widened in place */
            l->simd->to_bf16(in, half, k);
            for (int64_t j = 0; j < k; j++) { /* reads at or after what it writes */
                const uint32_t bits = (uint32_t)half[j] << 16;
                memcpy(&out[j], &bits, 4);
            }
        }
    }
}

/* Weight rows [n, n+count) in the GEMM's type: the tensor itself where it already has it. */
static const void *weight_tile(struct linear *l, int64_t n, int64_t count, int thread)
{
    const int64_t k = l->args->weight.dim[1];
    const struct lt_view rows = lt_view_rows(&l->args->weight, n, count);
    if ((l->bf16 && rows.type == LT_TYPE_BF16) || (!l->bf16 && !l->round && rows.type == LT_TYPE_F32))
        return rows.data;
    const size_t value = l->bf16 ? 2 : 4;
    const size_t tile_bytes = (size_t)(l->tile * k) * value;
    char *tile = lt_exec_scratch(l->exec, thread, tile_bytes + (size_t)k * 6 + 64);
    if (!tile)
        return NULL;
    float *wide = (float *)(void *)(tile + (tile_bytes + 63) / 64 * 64);
    uint16_t *half = (uint16_t *)(void *)(wide + k);
    uint64_t row_bytes = 0;
    lt_type_bytes(rows.type, (uint64_t)k, &row_bytes);
    for (int64_t i = 0; i < count; i++) {
        const char *from = (const char *)rows.data + (uint64_t)i * row_bytes;
        float *to = l->bf16 ? wide : (float *)(void *)tile + i * k;
        l->simd->dequantize(rows.type, from, to, k);
        if (l->bf16) {
            l->simd->to_bf16(wide, (uint16_t *)(void *)tile + i * k, k);
        } else if (l->round) {
            l->simd->to_bf16(to, half, k);
            l->simd->from_bf16(half, to, k);
        }
    }
    return tile;
}

static void multiply_part(void *context, int64_t index, int thread)
{
    struct linear *l = context;
    struct lt_error error;
    const int64_t n = index * l->tile, k = l->args->weight.dim[1], width = l->args->weight.dim[0];
    const int64_t count = n + l->tile < width ? l->tile : width - n;
    const void *weight = weight_tile(l, n, count, thread);
    float *out = (float *)l->args->out.data + l->row * l->args->out.stride[0] + n;
    lt_status status = weight ? LT_OK : lt_fail(&error, LT_NO_MEMORY, "op linear: no scratch memory");
    if (status == LT_OK)
        status = host_gemm(l->exec, thread, l->bf16, l->rows, count, k, l->a, l->lda, weight, k, out,
                           l->args->out.stride[0], l->bias ? l->bias + n : NULL, false, &error);
    if (status != LT_OK) {
        host_failure_note(&l->failure, &error);
        return;
    }
    if (l->args->activation != LT_ACTIVATION_NONE)
        for (int64_t i = 0; i < l->rows; i++)
            l->simd->activate(l->args->activation, out + i * l->args->out.stride[0], count);
}

lt_status host_linear(struct lt_exec *exec, const struct lt_linear_args *args, struct lt_error *error)
{
    const bool bf16 = lt_exec_precision(exec) == LT_PRECISION_BF16 && !args->exact;
    struct linear l = {.exec = exec, .args = args, .simd = simd_best(), .bf16 = bf16 && host_has_bf16(),
                       .round = bf16 && !host_has_bf16()};
    const int64_t rows = args->in.dim[0], k = args->weight.dim[1], n = args->weight.dim[0];
    l.tile = n >= 4096 ? 128 : 64;
    const int64_t chunk = rows < CHUNK_ROWS ? rows : CHUNK_ROWS;
    const size_t bias_bytes = ((size_t)n * 4 + 63) / 64 * 64;
    char *shared = lt_exec_scratch(exec, -1, bias_bytes + (bf16 ? (size_t)(chunk * k) * (l.bf16 ? 2 : 4) : 0));
    if (!shared)
        return lt_fail(error, LT_NO_MEMORY, "op linear: no scratch memory");
    if (args->bias.data) {
        lt_dequantize_row(args->bias.type, args->bias.data, (float *)(void *)shared, n);
        l.bias = (const float *)(const void *)shared;
    }
    l.converted = shared + bias_bytes;
    for (l.row = 0; l.row < rows; l.row += CHUNK_ROWS) {
        l.rows = rows - l.row < CHUNK_ROWS ? rows - l.row : CHUNK_ROWS;
        if (bf16) {
            lt_exec_parallel(exec, (l.rows + CONVERT_ROWS - 1) / CONVERT_ROWS, convert_part, &l);
            l.a = l.converted;
            l.lda = k;
        } else {
            l.a = (const float *)args->in.data + l.row * args->in.stride[0];
            l.lda = args->in.stride[0];
        }
        lt_exec_parallel(exec, (n + l.tile - 1) / l.tile, multiply_part, &l);
        LT_TRY(host_failure_give(&l.failure, error));
    }
    return LT_OK;
}
