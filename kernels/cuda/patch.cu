/* Latents to tokens and back: out[l, (c·2 + dy)·2 + dx] = in[c, f, 2i+dy, 2j+dx], and
 * out[c, f, 2i+dy, 2j+dx] = in[l, (dy·2 + dx)·C + c].
 *
 *   bytes: 8·C·F·h·w, no flops. The roof is memory; one side of the transposition goes in pieces of
 *   8 bytes, which is 0.02 % of a prediction's time at most. A value a thread, in the order of
 *   `out`. */
#include "kernels/cuda/op.cuh"

struct latent {
    int channels, frames, height, width;
};

static __global__ void __launch_bounds__(BLOCK)
    patchify_values(float *out, const float *in, struct latent size, int64_t count)
{
    const int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    if (i >= count)
        return;
    const int dx = (int)(i % 2), dy = (int)(i / 2 % 2), c = (int)(i / 4 % size.channels);
    const int64_t l = i / 4 / size.channels;
    const int column = (int)(l % (size.width / 2)),
              row = (int)(l / (size.width / 2) % (size.height / 2));
    const int64_t f = l / (size.width / 2) / (size.height / 2);
    out[i] =
        in[((c * size.frames + f) * size.height + 2 * row + dy) * size.width + 2 * column + dx];
}

static __global__ void __launch_bounds__(BLOCK)
    unpatchify_values(float *out, const float *in, struct latent size, int64_t count)
{
    const int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    if (i >= count)
        return;
    const int x = (int)(i % size.width), y = (int)(i / size.width % size.height);
    const int64_t frame = i / size.width / size.height, f = frame % size.frames,
                  c = frame / size.frames;
    const int64_t l = (f * (size.height / 2) + y / 2) * (size.width / 2) + x / 2;
    out[i] = in[(l * 4 + y % 2 * 2 + x % 2) * size.channels + c];
}

static struct latent latent_of(const struct lt_view *view)
{
    return {(int)view->dim[0], (int)view->dim[1], (int)view->dim[2], (int)view->dim[3]};
}

lt_status cuda_patchify(struct lt_exec *exec, const struct lt_patchify_args *args,
                        struct lt_error *error)
{
    const struct lt_exec_cuda *cuda = lt_exec_cuda_of(exec);
    const int64_t count = lt_view_count(&args->in);
    const cudaError_t code = launch(patchify_values, dim3((unsigned)parts_of(count, BLOCK)),
                                    dim3(BLOCK), 0, cuda->stream, (float *)args->out.data,
                                    (const float *)args->in.data, latent_of(&args->in), count);
    return op_end(cuda, "patchify", code, error);
}

lt_status cuda_unpatchify(struct lt_exec *exec, const struct lt_unpatchify_args *args,
                          struct lt_error *error)
{
    const struct lt_exec_cuda *cuda = lt_exec_cuda_of(exec);
    const int64_t count = lt_view_count(&args->out);
    const cudaError_t code = launch(unpatchify_values, dim3((unsigned)parts_of(count, BLOCK)),
                                    dim3(BLOCK), 0, cuda->stream, (float *)args->out.data,
                                    (const float *)args->in.data, latent_of(&args->out), count);
    return op_end(cuda, "unpatchify", code, error);
}
