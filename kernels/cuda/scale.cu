/* out = in · factor, f32; the product is taken in f64 and rounded once.
 *
 *   bytes: 8 a value; one f64 product: 1/64 of the f32 rate on consumer cards, still at the memory's
 *   pace on the others. A few million values a window: weights that are stored unscaled. */
#include "kernels/cuda/op.cuh"

static __global__ void __launch_bounds__(BLOCK)
    scale_values(float *out, const float *in, int64_t count, double factor)
{
    const int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    if (i < count)
        out[i] = (float)((double)in[i] * factor);
}

lt_status cuda_scale(struct lt_exec *exec, const struct lt_scale_args *args, struct lt_error *error)
{
    const struct lt_exec_cuda *cuda = lt_exec_cuda_of(exec);
    const int64_t count = lt_view_count(&args->in);
    if (count == 0)
        return LT_OK;
    const cudaError_t code = launch(scale_values, dim3((unsigned)parts_of(count, BLOCK)),
                                    dim3(BLOCK), 0, cuda->stream, (float *)args->out.data,
                                    (const float *)args->in.data, count, args->factor);
    return op_end(cuda, "scale", code, error);
}
