/* Every head of row l turned by position[l]: the interleaved pair j by position · 10000^(-2j/K).
 *
 *   bytes: 8·L·H·K; 3·L·H·K flops and L·K/2 sines. The roof is memory.
 *
 * A pair of a row a thread, for all heads: angles are in f64 (positions reach hundreds), so their
 * sines must be few. */
#include "kernels/cuda/op.cuh"

struct heads {
    float *data;
    int64_t row, head; /* strides */
};

static __global__ void __launch_bounds__(BLOCK)
    rotate_pairs(struct heads out, struct heads in, const float *position, int64_t rows, int heads,
                 int width)
{
    const int pairs = width / 2;
    const int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x, l = i / pairs;
    if (l >= rows)
        return;
    const int j = (int)(i % pairs) * 2;
    const double angle = (double)position[l] * pow(10000.0, -(double)j / (double)width);
    const float c = (float)cos(angle), s = (float)sin(angle);
    for (int h = 0; h < heads; h++) {
        const float *x = in.data + l * in.row + h * in.head + j;
        float *y = out.data + l * out.row + h * out.head + j;
        const float a = x[0], b = x[1];
        y[0] = a * c - b * s;
        y[1] = a * s + b * c;
    }
}

lt_status cuda_rotate(struct lt_exec *exec, const struct lt_rotate_args *args,
                      struct lt_error *error)
{
    const struct lt_exec_cuda *cuda = lt_exec_cuda_of(exec);
    const struct heads out = {(float *)args->out.data, args->out.stride[0], args->out.stride[1]},
                       in = {(float *)args->in.data, args->in.stride[0], args->in.stride[1]};
    const int64_t rows = args->in.dim[0], width = args->in.dim[2];
    const cudaError_t code =
        launch(rotate_pairs, dim3((unsigned)parts_of(rows * (width / 2), BLOCK)), dim3(BLOCK), 0,
               cuda->stream, out, in, (const float *)args->position.data, rows,
               (int)args->in.dim[1], (int)width);
    return op_end(cuda, "rotate", code, error);
}
