/* out[l,:] = ((in[l,:] - mean) / sqrt(variance + eps)) · weight + bias, · (1 + scale[g,:]) +
 * shift[g,:].
 *
 *   bytes: 8·L·D (the row is read three times, from L1 after the first: 20 KiB at D = 5120), the
 *   vectors of D stay in L2; about 10·L·D flops. The roof is memory.
 *
 * A row a block, so that a row of one and of 5120 values take the same path; the variance is of
 * differences from the mean, never of squares. */
#include "kernels/cuda/op.cuh"

struct modulation {
    struct values weight, bias;
    const float *scale, *shift; /* [G, D] or NULL */
    int64_t group_rows;
    float epsilon;
};

template <int V>
static __global__ void __launch_bounds__(BLOCK)
    layer_norm_rows(struct rows out, struct rows in, struct modulation m, int width)
{
    const int64_t row = blockIdx.x, group = m.group_rows > 0 ? row / m.group_rows : 0;
    const float *x = in.data + row * in.stride;
    float *y = out.data + row * out.stride;
    const int first = (int)threadIdx.x * V;
    float sum = 0, squares = 0;
    for (int i = first; i < width; i += BLOCK * V) {
        const pack<V> p = load_pack<V>(x + i);
        for (int j = 0; j < V; j++)
            sum += p.at[j];
    }
    const float mean = group_sum<BLOCK>(sum) / (float)width;
    for (int i = first; i < width; i += BLOCK * V) {
        const pack<V> p = load_pack<V>(x + i);
        for (int j = 0; j < V; j++)
            squares += (p.at[j] - mean) * (p.at[j] - mean);
    }
    const float scale = 1 / sqrtf(group_sum<BLOCK>(squares) / (float)width + m.epsilon);
    for (int i = first; i < width; i += BLOCK * V) {
        pack<V> p = load_pack<V>(x + i);
        for (int j = 0; j < V; j++) {
            float value = (p.at[j] - mean) * scale;
            value = value * value_or(m.weight, i + j, 1) + value_or(m.bias, i + j, 0);
            if (m.scale)
                value *= 1 + m.scale[group * width + i + j];
            if (m.shift)
                value += m.shift[group * width + i + j];
            p.at[j] = value;
        }
        store_pack<V>(y + i, p);
    }
}

lt_status cuda_layer_norm(struct lt_exec *exec, const struct lt_layer_norm_args *args,
                          struct lt_error *error)
{
    const struct lt_exec_cuda *cuda = lt_exec_cuda_of(exec);
    const bool fours = in_fours(&args->in) && in_fours(&args->out);
    const struct modulation m = {
        values_of(&args->weight),        values_of(&args->bias), (const float *)args->scale.data,
        (const float *)args->shift.data, args->group_rows,       args->epsilon};
    const cudaError_t code =
        launch(fours ? layer_norm_rows<4> : layer_norm_rows<1>, dim3((unsigned)args->in.dim[0]),
               dim3(BLOCK), 0, cuda->stream, rows_of(&args->out), rows_of(&args->in), m,
               (int)args->in.dim[1]);
    return op_end(cuda, "layer_norm", code, error);
}
