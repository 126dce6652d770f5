/* Which mask each token looks at most, as a position.
 *
 *   bytes: 4·L·H·C in sectors of 32, that is 32·L·H, then 8·L·C; sums in f64, L·H·C of them. The roof
 *   is memory. Three launches: means of heads, ranges (a block a mask), positions. */
#include "kernels/cuda/op.cuh"

static __global__ void __launch_bounds__(BLOCK)
    mean_of_heads(float *maps, const float *looks, int64_t row_stride, int64_t head_stride,
                  int64_t heads, const float *size, int64_t count)
{
    const int64_t l = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    const int c = (int)blockIdx.y;
    if (l >= count)
        return;
    double sum = 0;
    for (int64_t h = 0; h < heads; h++)
        sum += (double)looks[l * row_stride + h * head_stride + c];
    maps[c * count + l] = size[c] > 0 ? (float)(sum / (double)heads / (double)size[c]) : 0;
}

static __global__ void __launch_bounds__(BLOCK)
    find_range(float *range, const float *maps, int64_t count)
{
    __shared__ float lows[BLOCK / WARP], highs[BLOCK / WARP];
    const float *map = maps + blockIdx.x * count;
    float low = map[0], high = map[0];
    for (int64_t l = threadIdx.x; l < count; l += BLOCK) {
        low = fminf(low, map[l]);
        high = fmaxf(high, map[l]);
    }
    for (int step = WARP / 2; step > 0; step /= 2) {
        low = fminf(low, __shfl_xor_sync(0xffffffffu, low, step));
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, step));
    }
    if (threadIdx.x % WARP == 0) {
        lows[threadIdx.x / WARP] = low;
        highs[threadIdx.x / WARP] = high;
    }
    __syncthreads();
    if (threadIdx.x != 0)
        return;
    for (int i = 1; i < BLOCK / WARP; i++) {
        low = fminf(low, lows[i]);
        high = fmaxf(high, highs[i]);
    }
    range[2 * blockIdx.x] = low;
    range[2 * blockIdx.x + 1] = high;
}

static __global__ void __launch_bounds__(BLOCK)
    choose_positions(float *position, const float *maps, const float *range, const float *first,
                     int last, int64_t count, float width)
{
    const int64_t l = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    if (l >= count)
        return;
    int best = 0;
    float most = maps[l];
    for (int c = 1; c <= last; c++)
        if (maps[c * count + l] > most) {
            most = maps[c * count + l];
            best = c;
        }
    double at = (double)first[best];
    if (best < last) {
        const double low = (double)range[2 * best], high = (double)range[2 * best + 1];
        at += (double)width * ((double)most - low) / (high - low + 1e-8);
    }
    position[l] = (float)at;
}

lt_status cuda_route(struct lt_exec *exec, const struct lt_route_args *args, struct lt_error *error)
{
    const struct lt_exec_cuda *cuda = lt_exec_cuda_of(exec);
    const int masks = (int)args->maps.dim[0];
    const int64_t count = args->maps.dim[1];
    const unsigned parts = (unsigned)parts_of(count, BLOCK);
    float *maps = (float *)args->maps.data, *range = (float *)args->range.data;
    const float *first = (const float *)args->first.data;
    TRY_CUDA(error, "route",
             launch(mean_of_heads, dim3(parts, (unsigned)masks), dim3(BLOCK), 0, cuda->stream, maps,
                    (const float *)args->looks.data, args->looks.stride[0], args->looks.stride[1],
                    args->looks.dim[1], (const float *)args->size.data, count));
    if (masks > 1)
        TRY_CUDA(error, "route",
                 launch(find_range, dim3((unsigned)(masks - 1)), dim3(BLOCK), 0, cuda->stream,
                        range, maps, count));
    return op_end(cuda, "route",
                  launch(choose_positions, dim3(parts), dim3(BLOCK), 0, cuda->stream,
                         (float *)args->position.data, maps, range, first, masks - 1, count,
                         args->width),
                  error);
}
