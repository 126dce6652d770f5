/* out[l,:] = residual[l,:] + in[l,:] · gate[g,:].
 *
 *   bytes: 12·L·D, the gate stays in L2; 2·L·D flops. The roof is memory. */
#include "kernels/cuda/elementwise.cuh"

template <int V>
static __global__ void __launch_bounds__(BLOCK)
    gated_add_pieces(struct rows out, struct rows residual, struct rows in, const float *gate,
                     int64_t group_rows, int width, int pieces)
{
    const struct piece at = piece_of<V>(pieces);
    if (at.column >= width)
        return;
    const int64_t group = group_rows > 0 ? at.row / group_rows : 0;
    const pack<V> x = load_pack<V>(in.data + at.row * in.stride + at.column);
    pack<V> sum = load_pack<V>(residual.data + at.row * residual.stride + at.column);
    for (int j = 0; j < V; j++)
        sum.at[j] += gate ? gate[group * width + at.column + j] * x.at[j] : x.at[j];
    store_pack<V>(out.data + at.row * out.stride + at.column, sum);
}

lt_status cuda_gated_add(struct lt_exec *exec, const struct lt_gated_add_args *args,
                         struct lt_error *error)
{
    const struct lt_exec_cuda *cuda = lt_exec_cuda_of(exec);
    const bool fours = in_fours(&args->in) && in_fours(&args->residual) && in_fours(&args->out);
    const int width = (int)args->in.dim[1], pieces = pieces_of(width, fours);
    const cudaError_t code =
        launch(fours ? gated_add_pieces<4> : gated_add_pieces<1>,
               dim3((unsigned)(args->in.dim[0] * pieces)), dim3(BLOCK), 0, cuda->stream,
               rows_of(&args->out), rows_of(&args->residual), rows_of(&args->in),
               (const float *)args->gate.data, args->group_rows, width, pieces);
    return op_end(cuda, "gated_add", code, error);
}
