/* out = activation(in), f32 or bf16.
 *
 *   bytes: 8 a value (4 in bf16); up to 20 flops and one exponential. The roof is memory. */
#include "kernels/cuda/op.cuh"

template <int V>
static __global__ void __launch_bounds__(BLOCK)
    activate_f32(float *out, const float *in, int64_t count, enum lt_activation activation)
{
    const int64_t i = ((int64_t)blockIdx.x * BLOCK + threadIdx.x) * V;
    if (i >= count)
        return;
    pack<V> x = load_pack<V>(in + i);
    for (int j = 0; j < V; j++)
        x.at[j] = activated(activation, x.at[j]);
    store_pack<V>(out + i, x);
}

static __global__ void __launch_bounds__(BLOCK)
    activate_bf16(uint16_t *out, const uint16_t *in, int64_t count, enum lt_activation activation)
{
    const int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    if (i < count)
        out[i] = to_bf16(activated(activation, bf16_of(in[i])));
}

lt_status cuda_activate(struct lt_exec *exec, const struct lt_activate_args *args,
                        struct lt_error *error)
{
    const struct lt_exec_cuda *cuda = lt_exec_cuda_of(exec);
    const int64_t count = lt_view_count(&args->in);
    const bool fours =
        count % 4 == 0 && (uintptr_t)args->in.data % 16 == 0 && (uintptr_t)args->out.data % 16 == 0;
    if (count == 0)
        return LT_OK;
    const dim3 grid((unsigned)parts_of(count, BLOCK));
    cudaError_t code;
    if (args->in.type == LT_TYPE_BF16)
        code = launch(activate_bf16, grid, dim3(BLOCK), 0, cuda->stream, (uint16_t *)args->out.data,
                      (const uint16_t *)args->in.data, count, args->activation);
    else
        code = launch(fours ? activate_f32<4> : activate_f32<1>,
                      fours ? dim3((unsigned)parts_of(count / 4, BLOCK)) : grid, dim3(BLOCK), 0,
                      cuda->stream, (float *)args->out.data, (const float *)args->in.data, count,
                      args->activation);
    return op_end(cuda, "activate", code, error);
}
