/* out[r,:] = activation(in[r,:] / max(‖in[r,:]‖₂, 1e-12) · √C · gamma), the norm of the VAE.
 *
 *   bytes: 8 a value (4 in bf16; the second reading is L1's), gamma stays in L1; about 6 flops a
 *   value and one exponential. The roof is memory.
 *
 * A pixel a warp: C is 96 to 1024, so a lane has 3 to 32 values. */
#include "kernels/cuda/op.cuh"

static __global__ void __launch_bounds__(BLOCK)
    channel_norm_pixels(void *out, const void *in, enum lt_type type, struct values gamma,
                        int channels, int64_t pixels, enum lt_activation activation)
{
    const int64_t pixel = (int64_t)blockIdx.x * (BLOCK / WARP) + threadIdx.x / WARP;
    if (pixel >= pixels) /* a whole warp */
        return;
    const int64_t base = pixel * channels;
    float sum = 0;
    for (int i = (int)threadIdx.x % WARP; i < channels; i += WARP) {
        const float x = value_at(type, in, base + i);
        sum += x * x;
    }
    const float norm = sqrtf(warp_sum(sum)),
                scale = sqrtf((float)channels) / (norm > 1e-12f ? norm : 1e-12f);
    for (int i = (int)threadIdx.x % WARP; i < channels; i += WARP) {
        const float x = value_at(type, in, base + i) * scale * value_at(gamma.type, gamma.data, i);
        put_value(type, out, base + i, activated(activation, x));
    }
}

lt_status cuda_channel_norm(struct lt_exec *exec, const struct lt_channel_norm_args *args,
                            struct lt_error *error)
{
    const struct lt_exec_cuda *cuda = lt_exec_cuda_of(exec);
    const int64_t channels = lt_view_count(&args->gamma),
                  pixels = lt_view_count(&args->in) / channels;
    const cudaError_t code =
        launch(channel_norm_pixels, dim3((unsigned)parts_of(pixels, BLOCK / WARP)), dim3(BLOCK), 0,
               cuda->stream, args->out.data, args->in.data, args->in.type, values_of(&args->gamma),
               (int)channels, pixels, args->activation);
    return op_end(cuda, "channel_norm", code, error);
}
