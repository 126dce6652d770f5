/* out = activation(out + (scale · (in · aᵀ)) · bᵀ + bias): what LoRAs add to a linear.
 *
 *   2·L·R·(K + N) flops in two products of linear.cu; 4·L·(K + 2·N) bytes. At R = 64 and K = N =
 *   5120 that is 64 flops a byte: the roof is memory. Without `a` the first product is only the
 *   scaling of the input. */
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/linear.cuh"

/* hidden[row, r] = from[row, r] · scale[r]; `from` may be `hidden`. */
static __global__ void __launch_bounds__(BLOCK)
    scale_rows(struct rows hidden, struct rows from, const float *scale, int rank, int pieces)
{
    const struct piece at = piece_of<1>(pieces);
    if (at.column < rank)
        hidden.data[at.row * hidden.stride + at.column] =
            from.data[at.row * from.stride + at.column] * scale[at.column];
}

static struct lt_linear_args first_product(const struct lt_low_rank_args *args, int64_t row,
                                           int64_t rows)
{
    struct lt_linear_args product = {};
    product.out = lt_view_rows(&args->hidden, 0, rows);
    product.in = lt_view_rows(&args->in, row, rows);
    product.weight = args->a;
    product.exact = args->exact;
    return product;
}

static struct lt_linear_args second_product(const struct lt_low_rank_args *args, int64_t row,
                                            int64_t rows)
{
    struct lt_linear_args product = {};
    product.out = lt_view_rows(&args->out, row, rows);
    product.in = lt_view_rows(&args->hidden, 0, rows);
    product.weight = args->b;
    product.bias = args->bias;
    product.activation = args->activation;
    product.accumulate = true;
    product.exact = args->exact;
    return product;
}

static int64_t rows_at_a_time(const struct lt_low_rank_args *args)
{
    const int64_t room = args->hidden.dim[0], rows = args->in.dim[0];
    return room < rows ? room : rows;
}

size_t lt_cuda_scratch_low_rank(bool bf16, const struct lt_low_rank_args *args)
{
    const int64_t rows = rows_at_a_time(args);
    const struct lt_linear_args first = first_product(args, 0, rows),
                                second = second_product(args, 0, rows);
    const size_t a = args->a.data ? lt_cuda_scratch_linear(bf16, &first) : 0,
                 b = lt_cuda_scratch_linear(bf16, &second);
    return a > b ? a : b;
}

lt_status cuda_low_rank(struct lt_exec *exec, const struct lt_low_rank_args *args,
                        struct lt_error *error)
{
    const struct lt_exec_cuda *cuda = lt_exec_cuda_of(exec);
    const int64_t at_a_time = rows_at_a_time(args), rank = args->b.dim[1];
    const int pieces = pieces_of(rank, false);
    for (int64_t row = 0; row < args->in.dim[0]; row += at_a_time) {
        const int64_t left = args->in.dim[0] - row, rows = left < at_a_time ? left : at_a_time;
        const struct lt_linear_args first = first_product(args, row, rows),
                                    second = second_product(args, row, rows);
        if (args->a.data)
            LT_TRY(linear_queue(cuda, "low_rank", &first, error));
        TRY_CUDA(error, "low_rank",
                 launch(scale_rows, dim3((unsigned)(rows * pieces)), dim3(BLOCK), 0, cuda->stream,
                        rows_of(&first.out), rows_of(args->a.data ? &first.out : &first.in),
                        (const float *)args->scale.data, (int)rank, pieces));
        LT_TRY(linear_queue(cuda, "low_rank", &second, error));
    }
    return op_end(cuda, "low_rank", cudaSuccess, error);
}
