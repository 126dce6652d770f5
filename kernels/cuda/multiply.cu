/* out[l,:] = a[l,:] · b[l,:].
 *
 *   bytes: 12·L·D; L·D flops. The roof is memory. */
#include "kernels/cuda/elementwise.cuh"

template <int V>
static __global__ void __launch_bounds__(BLOCK)
    multiply_pieces(struct rows out, struct rows a, struct rows b, int width, int pieces)
{
    const struct piece at = piece_of<V>(pieces);
    if (at.column >= width)
        return;
    pack<V> x = load_pack<V>(a.data + at.row * a.stride + at.column);
    const pack<V> y = load_pack<V>(b.data + at.row * b.stride + at.column);
    for (int j = 0; j < V; j++)
        x.at[j] *= y.at[j];
    store_pack<V>(out.data + at.row * out.stride + at.column, x);
}

lt_status cuda_multiply(struct lt_exec *exec, const struct lt_multiply_args *args,
                        struct lt_error *error)
{
    const struct lt_exec_cuda *cuda = lt_exec_cuda_of(exec);
    const bool fours = in_fours(&args->a) && in_fours(&args->b) && in_fours(&args->out);
    const int width = (int)args->a.dim[1], pieces = pieces_of(width, fours);
    const cudaError_t code =
        launch(fours ? multiply_pieces<4> : multiply_pieces<1>,
               dim3((unsigned)(args->a.dim[0] * pieces)), dim3(BLOCK), 0, cuda->stream,
               rows_of(&args->out), rows_of(&args->a), rows_of(&args->b), width, pieces);
    return op_end(cuda, "multiply", code, error);
}
