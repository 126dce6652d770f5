/* The shortcuts without parameters of the Wan 2.2 VAE: means of blocks of pixels and channels
 * (avg_down), and repeats (dup_up). Channels of a block are numbered k = c·time·space² +
 * frame·space²
 * + row·space + column.
 *
 *   bytes: in and out once, out twice where it is added to; a flop a value read. The roof is
 *   memory. A value of `out` a thread. */
#include "kernels/cuda/op.cuh"

struct block_shape {
    int time, space, frame;
    int in_channels, out_channels;
    int in_columns, out_columns;
    bool accumulate;
};

static __device__ void put_sum(enum lt_type type, void *out, int64_t i, float value,
                               bool accumulate)
{
    put_value(type, out, i, accumulate ? value_at(type, out, i) + value : value);
}

static __global__ void __launch_bounds__(BLOCK)
    avg_down_values(void *out, const void *in, enum lt_type type, struct block_shape b,
                    int64_t count)
{
    const int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    if (i >= count)
        return;
    const int area = b.space * b.space, block = b.time * area,
              group = b.in_channels * block / b.out_channels;
    const int o = (int)(i % b.out_channels);
    const int64_t x = i / b.out_channels % b.out_columns, y = i / b.out_channels / b.out_columns;
    float sum = 0;
    for (int k = o * group; k < (o + 1) * group; k++) {
        if (k % block / area != b.frame)
            continue;
        const int64_t row = y * b.space + k % area / b.space, column = x * b.space + k % b.space;
        sum += value_at(type, in, (row * b.in_columns + column) * b.in_channels + k / block);
    }
    put_sum(type, out, i, sum / (float)group, b.accumulate);
}

static __global__ void __launch_bounds__(BLOCK)
    dup_up_values(void *out, const void *in, enum lt_type type, struct block_shape b, int64_t count)
{
    const int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    if (i >= count)
        return;
    const int area = b.space * b.space, block = b.time * area,
              repeats = b.out_channels * block / b.in_channels;
    const int o = (int)(i % b.out_channels);
    const int64_t x = i / b.out_channels % b.out_columns, y = i / b.out_channels / b.out_columns;
    const int k = o * block + b.frame * area + (int)(y % b.space) * b.space + (int)(x % b.space);
    const int64_t at = (y / b.space * b.in_columns + x / b.space) * b.in_channels + k / repeats;
    put_sum(type, out, i, value_at(type, in, at), b.accumulate);
}

lt_status cuda_avg_down(struct lt_exec *exec, const struct lt_avg_down_args *args,
                        struct lt_error *error)
{
    const struct lt_exec_cuda *cuda = lt_exec_cuda_of(exec);
    const int64_t count = lt_view_count(&args->out);
    const struct block_shape shape = {args->time,
                                      args->space,
                                      args->frame,
                                      (int)args->in.dim[3],
                                      (int)args->out.dim[3],
                                      (int)args->in.dim[2],
                                      (int)args->out.dim[2],
                                      args->accumulate};
    const cudaError_t code =
        launch(avg_down_values, dim3((unsigned)parts_of(count, BLOCK)), dim3(BLOCK), 0,
               cuda->stream, args->out.data, args->in.data, args->in.type, shape, count);
    return op_end(cuda, "avg_down", code, error);
}

lt_status cuda_dup_up(struct lt_exec *exec, const struct lt_dup_up_args *args,
                      struct lt_error *error)
{
    const struct lt_exec_cuda *cuda = lt_exec_cuda_of(exec);
    const int64_t count = lt_view_count(&args->out);
    const struct block_shape shape = {args->time,
                                      args->space,
                                      args->frame,
                                      (int)args->in.dim[3],
                                      (int)args->out.dim[3],
                                      (int)args->in.dim[2],
                                      (int)args->out.dim[2],
                                      args->accumulate};
    const cudaError_t code =
        launch(dup_up_values, dim3((unsigned)parts_of(count, BLOCK)), dim3(BLOCK), 0, cuda->stream,
               args->out.data, args->in.data, args->in.type, shape, count);
    return op_end(cuda, "dup_up", code, error);
}
