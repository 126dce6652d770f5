/* out[l,:] = in[l,:] / sqrt(mean(in²) + eps) · weight over groups of values, then every head
 * rotated by the place of its token: first the pairs of time, then of row, then of column.
 *
 *   bytes: 8·L·D (read twice, the second time from L1), tables and weight stay in L2; about 8·L·D
 *   flops. The roof is memory.
 *
 * A group is a whole row (a block for it) or a head (a warp for it). A thread takes pairs of
 * neighbours: they are what is rotated. */
#include "kernels/cuda/op.cuh"

struct axis {
    const float *angle; /* [positions, pairs, 2] cos, sin */
    int64_t stride;
    int positions, pairs;
};

struct rope {
    struct axis time, row, column; /* time.angle NULL: no rotation */
    int head_width;
};

static __device__ void turn(const struct axis axis, int64_t position, int pair, float *a, float *b)
{
    const float *angle = axis.angle + position * axis.stride + 2 * pair;
    const float x = *a, y = *b;
    *a = x * angle[0] - y * angle[1];
    *b = x * angle[1] + y * angle[0];
}

/* The two values from `i` on of token l. */
static __device__ void rotate_pair(const struct rope rope, int64_t l, int i, float *a, float *b)
{
    int pair = i % rope.head_width / 2;
    if (pair < rope.time.pairs) {
        turn(rope.time, l / ((int64_t)rope.row.positions * rope.column.positions), pair, a, b);
        return;
    }
    pair -= rope.time.pairs;
    if (pair < rope.row.pairs)
        turn(rope.row, l / rope.column.positions % rope.row.positions, pair, a, b);
    else
        turn(rope.column, l % rope.column.positions, pair - rope.row.pairs, a, b);
}

/* A group for THREADS threads; V values at a time, 2 where there is a rotation. */
template <int THREADS, int V>
static __global__ void __launch_bounds__(BLOCK)
    rms_norm_groups(struct rows out, struct rows in, struct values weight, int group, int per_row,
                    int64_t groups, float epsilon, struct rope rope)
{
    const int64_t g = (int64_t)blockIdx.x * (BLOCK / THREADS) + threadIdx.x / THREADS;
    if (g >= groups) /* a whole warp, or nobody */
        return;
    const int64_t l = g / per_row;
    const int base = (int)(g % per_row) * group;
    const float *x = in.data + l * in.stride + base;
    float *y = out.data + l * out.stride + base;
    const int start = (int)threadIdx.x % THREADS * V;
    float sum = 0;
    for (int i = start; i < group; i += THREADS * V)
        for (int j = 0; j < V; j++)
            sum += x[i + j] * x[i + j];
    const float scale = 1 / sqrtf(group_sum<THREADS>(sum) / (float)group + epsilon);
    for (int i = start; i < group; i += THREADS * V) {
        float v[V];
        for (int j = 0; j < V; j++)
            v[j] = x[i + j] * scale * value_at(weight.type, weight.data, i + j);
        if (V == 2 && rope.time.angle)
            rotate_pair(rope, l, base + i, &v[0], &v[V - 1]);
        for (int j = 0; j < V; j++)
            y[i + j] = v[j];
    }
}

static struct axis axis_of(const struct lt_view *view)
{
    return {(const float *)view->data, view->stride[0], (int)view->dim[0], (int)view->dim[1]};
}

lt_status cuda_rms_norm(struct lt_exec *exec, const struct lt_rms_norm_args *args,
                        struct lt_error *error)
{
    static decltype(&rms_norm_groups<WARP, 1>)
        const kernel[] = {rms_norm_groups<BLOCK, 1>, rms_norm_groups<BLOCK, 2>,
                          rms_norm_groups<WARP, 1>, rms_norm_groups<WARP, 2>};
    const struct lt_exec_cuda *cuda = lt_exec_cuda_of(exec);
    const int64_t group = lt_view_count(&args->weight), per_row = args->in.dim[1] / group,
                  groups = args->in.dim[0] * per_row;
    const enum rms_norm_variant variant = rms_norm_pick(group);
    if (args->time.data && group % 2)
        return lt_fail(error, LT_UNSUPPORTED,
                       "op rms_norm: a rotation needs groups of an even width, found %lld",
                       (long long)group);
    struct rope rope = {};
    if (args->time.data)
        rope = {axis_of(&args->time), axis_of(&args->row), axis_of(&args->column),
                (int)args->head_width};
    const int threads = variant == RMS_NORM_ROW || variant == RMS_NORM_ROW_PAIRS ? BLOCK : WARP;
    const cudaError_t code =
        launch(kernel[variant], dim3((unsigned)parts_of(groups * threads, BLOCK)), dim3(BLOCK), 0,
               cuda->stream, rows_of(&args->out), rows_of(&args->in), values_of(&args->weight),
               (int)group, (int)per_row, groups, args->epsilon, rope);
    return op_end(cuda, "rms_norm", code, error);
}
