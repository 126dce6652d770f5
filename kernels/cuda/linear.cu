/* out = activation(in · (weight · weight_scale)ᵀ + bias [+ out]): weights dequantised to planned
 * scratch, inputs rounded to bf16 some rows at a time, cuBLAS with f32 sums, then bias and
 * activation in place.
 *
 *   2·L·N·K flops on tensor cores, and that is the roof from about 300 rows on; below, the bytes
 *   of weights: as stored, then twice as bf16. Dequantising [5120, 5120] of Q5_K moves 70 MB, 1.4 %
 *   of its product with 32760 rows. In f32 (exact) the same by f32 arithmetic. The epilogue moves
 *   8·L·N bytes, if there is a bias or an activation. */
#include "kernels/cuda/linear.cuh"

#include "kernels/cuda/convert.cuh"
#include "kernels/cuda/elementwise.cuh"

#include <cublas_v2.h>

enum { ALIGN = 256, INPUT_BYTES = 64 << 20 };

/* to[row, :] = bf16 of in[row, :]. */
static __global__ void __launch_bounds__(BLOCK)
    round_rows(uint16_t *to, struct rows in, int width, int pieces)
{
    const struct piece at = piece_of<1>(pieces);
    if (at.column < width)
        to[at.row * width + at.column] = to_bf16(in.data[at.row * in.stride + at.column]);
}

static __global__ void __launch_bounds__(BLOCK)
    finish_rows(struct rows out, struct values bias, enum lt_activation activation, int width,
                int pieces)
{
    const struct piece at = piece_of<1>(pieces);
    float *y = out.data + at.row * out.stride + at.column;
    if (at.column < width)
        *y = activated(activation, *y + value_or(bias, at.column, 0));
}

/* How a product is cut, and where its parts lie in scratch: weights (unless they can be used where
 * they are), then rounded inputs. */
struct cut {
    bool bf16;
    enum lt_type type; /* of the product */
    size_t weight_bytes, input_bytes;
    int64_t rows; /* at a time */
};

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static struct cut cut_of(bool bf16, const struct lt_linear_args *args)
{
    const int64_t rows = args->in.dim[0], k = args->weight.dim[1];
    struct cut cut = {};
    cut.bf16 = bf16 && !args->exact;
    cut.type = cut.bf16 ? LT_TYPE_BF16 : LT_TYPE_F32;
    cut.rows = rows;
    if (args->weight.type != cut.type)
        cut.weight_bytes = aligned((size_t)lt_view_count(&args->weight) * (cut.bf16 ? 2 : 4));
    if (cut.bf16) {
        const int64_t fit = INPUT_BYTES / (2 * k);
        cut.rows = fit < 1 ? 1 : fit < rows ? fit : rows;
        cut.input_bytes = aligned((size_t)(cut.rows * k * 2));
    }
    return cut;
}

size_t lt_cuda_scratch_linear(bool bf16, const struct lt_linear_args *args)
{
    const struct cut cut = cut_of(bf16, args);
    return cut.weight_bytes + cut.input_bytes;
}

/* cuBLAS counts columns first: out[L,N] is its [N,L], so weights come first, transposed. `out` and
 * its stride as those of `in`. */
static lt_status multiply(const struct lt_exec_cuda *cuda, const char *op, const struct cut *cut,
                          const struct lt_linear_args *args, int64_t rows, const void *weight,
                          const void *in, int64_t in_stride, float *out, int64_t out_stride,
                          struct lt_error *error)
{
    const cudaDataType_t type = cut->bf16 ? CUDA_R_16BF : CUDA_R_32F;
    const int n = (int)args->weight.dim[0], k = (int)args->weight.dim[1];
    const void *alpha = args->weight_scale.data ? args->weight_scale.data : cuda->zero_one + 1,
               *beta = cuda->zero_one + (args->accumulate ? 1 : 0);
    const cublasStatus_t code =
        cublasGemmEx(cuda->blas, CUBLAS_OP_T, CUBLAS_OP_N, n, (int)rows, k, alpha, weight, type, k,
                     in, type, (int)in_stride, beta, out, CUDA_R_32F, (int)out_stride,
                     CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    if (code != CUBLAS_STATUS_SUCCESS)
        return lt_fail(error, LT_DEVICE, "op %s: cuBLAS: %s for %lldx%dx%d", op,
                       cublasGetStatusString(code), (long long)rows, n, k);
    return LT_OK;
}

/* The product of rows as they lie. Rows that overlap (a convolution over time: the next window
 * begins before the last one ends) are no matrix to cuBLAS, but every `apart`-th of them are. */
static lt_status multiply_rows(const struct lt_exec_cuda *cuda, const char *op,
                               const struct cut *cut, const struct lt_linear_args *args,
                               const void *weight, struct rows in, float *out,
                               struct lt_error *error)
{
    const int64_t k = args->weight.dim[1], rows = args->in.dim[0], to = args->out.stride[0];
    const int64_t apart = in.stride > 0 && in.stride < k ? (k + in.stride - 1) / in.stride : 1;
    for (int64_t i = 0; i < apart && i < rows; i++)
        LT_TRY(multiply(cuda, op, cut, args, (rows - i + apart - 1) / apart, weight,
                        in.data + i * in.stride, apart * in.stride, out + i * to, apart * to,
                        error));
    return LT_OK;
}

static lt_status finish(const struct lt_exec_cuda *cuda, const char *op,
                        const struct lt_linear_args *args, int64_t rows, float *out,
                        struct lt_error *error)
{
    const int width = (int)args->out.dim[1], pieces = pieces_of(width, false);
    const struct rows to = {out, args->out.stride[0]};
    if (args->bias.data || args->activation != LT_ACTIVATION_NONE)
        TRY_CUDA(error, op,
                 launch(finish_rows, dim3((unsigned)(rows * pieces)), dim3(BLOCK), 0, cuda->stream,
                        to, values_of(&args->bias), args->activation, width, pieces));
    return LT_OK;
}

lt_status linear_queue(const struct lt_exec_cuda *cuda, const char *op,
                       const struct lt_linear_args *args, struct lt_error *error)
{
    const struct cut cut = cut_of(cuda->bf16, args);
    const int64_t k = args->weight.dim[1], pieces = pieces_of(k, false);
    char *scratch = (char *)cuda->scratch;
    const void *weight = cut.weight_bytes ? scratch : args->weight.data;
    uint16_t *rounded = (uint16_t *)(scratch + cut.weight_bytes);
    LT_TRY(scratch_check(cuda, op, cut.weight_bytes + cut.input_bytes, error));
    if (cut.weight_bytes)
        LT_TRY(convert_values(cuda, op, args->weight.type, args->weight.data, cut.type, scratch,
                              lt_view_count(&args->weight), error));
    for (int64_t row = 0; row < args->in.dim[0]; row += cut.rows) {
        const int64_t left = args->in.dim[0] - row, rows = left < cut.rows ? left : cut.rows;
        struct rows in = rows_of(&args->in);
        float *out = (float *)args->out.data + row * args->out.stride[0];
        in.data += row * in.stride;
        if (cut.bf16)
            TRY_CUDA(error, op,
                     launch(round_rows, dim3((unsigned)(rows * pieces)), dim3(BLOCK), 0,
                            cuda->stream, rounded, in, (int)k, (int)pieces));
        LT_TRY(cut.bf16 ? multiply(cuda, op, &cut, args, rows, weight, rounded, k, out,
                                   args->out.stride[0], error)
                        : multiply_rows(cuda, op, &cut, args, weight, in, out, error));
        LT_TRY(finish(cuda, op, args, rows, out, error));
    }
    return LT_OK;
}

lt_status cuda_linear(struct lt_exec *exec, const struct lt_linear_args *args,
                      struct lt_error *error)
{
    const struct lt_exec_cuda *cuda = lt_exec_cuda_of(exec);
    LT_TRY(linear_queue(cuda, "linear", args, error));
    return op_end(cuda, "linear", cudaSuccess, error);
}
