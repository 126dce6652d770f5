/* Each channel filtered by [1 3 3 1]/8 along rows and columns, every `stride`-th place kept.
 *
 *   bytes: 4·(in + out) if neighbours meet in L1, which holds the four rows of a block's channels;
 *   40 flops a value. The roof is memory. A value a thread, channels fastest. */
#include "kernels/cuda/op.cuh"

struct frames {
    int rows, columns, channels;
};

static __device__ float tap(int i)
{
    return i == 0 || i == 3 ? 0.125f : 0.375f;
}

static __global__ void __launch_bounds__(BLOCK)
    blur_values(float *out, const float *in, struct frames to, struct frames from, int pad,
                int stride, int64_t count)
{
    const int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    if (i >= count)
        return;
    const int c = (int)(i % to.channels);
    const int64_t place = i / to.channels, t = place / to.columns / to.rows;
    const int left = (int)(place % to.columns) * stride - pad,
              top = (int)(place / to.columns % to.rows) * stride - pad;
    float sum = 0;
    for (int a = 0; a < 4; a++) {
        float row = 0;
        if (top + a < 0 || top + a >= from.rows)
            continue;
        for (int b = 0; b < 4; b++)
            if (left + b >= 0 && left + b < from.columns)
                row +=
                    tap(b) *
                    in[((t * from.rows + top + a) * from.columns + left + b) * from.channels + c];
        sum += tap(a) * row;
    }
    out[i] = sum;
}

static struct frames frames_of(const struct lt_view *view)
{
    return {(int)view->dim[1], (int)view->dim[2], (int)view->dim[3]};
}

lt_status cuda_blur(struct lt_exec *exec, const struct lt_blur_args *args, struct lt_error *error)
{
    const struct lt_exec_cuda *cuda = lt_exec_cuda_of(exec);
    const int64_t count = lt_view_count(&args->out);
    const cudaError_t code =
        launch(blur_values, dim3((unsigned)parts_of(count, BLOCK)), dim3(BLOCK), 0, cuda->stream,
               (float *)args->out.data, (const float *)args->in.data, frames_of(&args->out),
               frames_of(&args->in), args->pad, args->stride, count);
    return op_end(cuda, "blur", code, error);
}
