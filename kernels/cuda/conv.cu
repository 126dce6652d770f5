/* Channels-last convolution as an implicit product: places [To·Yo·Xo] by taps and channels
 * [kt·ky·kx·Ci], times weights, with causal history, stride, nearest upsampling and a residual.
 *
 *   2·To·Yo·Xo·Co·kt·ky·kx·Ci flops; bytes: frames and `out` once from DRAM, since the taps of a
 *   place and the 64 channels of a block meet in L2. The roof is the tensor cores' bf16 rate (f32
 *   arithmetic in the exact variant) from about 64 channels on, memory below.
 *
 * Weights are laid out in scratch first: [Co up to 64, taps, Ci up to 32], so that both sides of
 * the product are read along channels. A block makes 64 places of 64 channels, 32 (16 in f32)
 * channels of a tap at a time; the next are read while these are multiplied. Sums go over taps and
 * channels in one order whatever the cut in frames: histories give the bits of the whole. */
#include "kernels/cuda/op.cuh"

enum { PLACES = 64, CHANNELS = 64, DEPTH = 32, DEPTH_F32 = 16 };
enum { STRIDE = DEPTH + 8 }; /* of a row in shared memory: eight rows lie in different banks */
enum { MMA_THREADS = 128 };

struct frames {
    const void *data;
    int64_t frame, row, column; /* strides */
    int count;
};

struct conv {
    struct frames past, in; /* before them `zeros` zero frames */
    enum lt_type type;
    int zeros, rows, columns, up; /* of the input; up: 2 counts every pixel twice */
    bool vectors;                 /* 16 channels are four 16-byte pieces, or two in bf16 */
    int ci, ci_padded, kt, ky, kx;
    int stride_time, stride_space, pad_top, pad_left;
};

struct result {
    void *data;
    const void *add;
    enum lt_type type;
    int64_t frame, row, column, add_frame, add_row, add_column; /* strides */
    struct values bias;
    int rows, columns, channels, places;
};

/* to[o, tap, c] = weight[o, c, tap], zeros where there is none. */
static __global__ void __launch_bounds__(BLOCK)
    conv_weights(void *to, enum lt_type to_type, struct values weight, int co, int ci, int taps,
                 int ci_padded, int64_t count)
{
    const int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    if (i >= count)
        return;
    const int c = (int)(i % ci_padded), tap = (int)(i / ci_padded % taps);
    const int64_t o = i / ci_padded / taps;
    const bool have = o < co && c < ci;
    put_value(to_type, to, i,
              have ? value_at(weight.type, weight.data, (o * ci + c) * taps + tap) : 0);
}

struct place {
    int t, y, x; /* t < 0: none */
};

static __device__ __forceinline__ struct place place_of(const struct result &out, int index)
{
    if (index >= out.places)
        return {-1, 0, 0};
    return {index / out.columns / out.rows, index / out.columns % out.rows, index % out.columns};
}

/* COUNT channels from `c` on of what tap `tap` of a place sees; zeros outside. */
template <int COUNT>
static __device__ __forceinline__ void gather(float (&v)[COUNT], const struct conv &k,
                                              struct place at, int tap, int c)
{
    const int dx = tap % k.kx, dy = tap / k.kx % k.ky, dt = tap / k.kx / k.ky;
    const int y = at.y * k.stride_space + dy - k.pad_top,
              x = at.x * k.stride_space + dx - k.pad_left;
    int frame = at.t * k.stride_time + dt - k.zeros;
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        v[i] = 0;
    if (at.t < 0 || frame < 0 || y < 0 || x < 0 || y >= k.rows * k.up || x >= k.columns * k.up)
        return;
    const bool old = frame < k.past.count;
    frame -= old ? 0 : k.past.count;
    const void *const from = old ? k.past.data : k.in.data;
    const int64_t base = frame * (old ? k.past.frame : k.in.frame) +
                         y / k.up * (old ? k.past.row : k.in.row) +
                         x / k.up * (old ? k.past.column : k.in.column) + c;
    if (!k.vectors) {
        for (int i = 0; i < COUNT; i++)
            if (c + i < k.ci)
                v[i] = value_at(k.type, from, base + i);
        return;
    }
    if (c >= k.ci)
        return;
    if (k.type == LT_TYPE_F32) {
#pragma unroll
        for (int i = 0; i < COUNT; i += 4) {
            const float4 p = *(const float4 *)((const float *)from + base + i);
            v[i] = p.x, v[i + 1] = p.y, v[i + 2] = p.z, v[i + 3] = p.w;
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < COUNT; i += 4) {
        const uint2 p = *(const uint2 *)((const uint16_t *)from + base + i);
        v[i] = bf16_of((uint16_t)p.x), v[i + 1] = bf16_of((uint16_t)(p.x >> 16));
        v[i + 2] = bf16_of((uint16_t)p.y), v[i + 3] = bf16_of((uint16_t)(p.y >> 16));
    }
}

static __device__ __forceinline__ void put(const struct result &out, struct place at, int channel,
                                           float sum)
{
    if (at.t < 0 || channel >= out.channels)
        return;
    const int64_t i = at.t * out.frame + at.y * out.row + at.x * out.column + channel;
    sum += value_or(out.bias, channel, 0);
    if (out.add)
        sum +=
            value_at(out.type, out.add,
                     at.t * out.add_frame + at.y * out.add_row + at.x * out.add_column + channel);
    put_value(out.type, out.data, i, sum);
}

/* Sums of a block, on their way out: written as the product left them, read along channels. */
struct sums {
    float at[PLACES][CHANNELS + 4];
};

template <int THREADS>
static __device__ __forceinline__ void put_sums(const struct result &out, const struct sums &sums)
{
    __syncthreads();
    for (int i = (int)threadIdx.x; i < PLACES * CHANNELS; i += THREADS)
        put(out, place_of(out, (int)blockIdx.x * PLACES + i / CHANNELS),
            (int)blockIdx.y * CHANNELS + i % CHANNELS, sums.at[i / CHANNELS][i % CHANNELS]);
}

/* -- tensor cores: four warps, each 32 places by 32 channels -------------------------------------
 */

struct stage {
    uint16_t places[PLACES * STRIDE], weights[CHANNELS * STRIDE];
};
union mma_shared {
    struct stage stage[2];
    struct sums sums; /* afterwards */
};

static __device__ void bring_weights(uint16_t *to, const uint16_t *weights, int64_t row_values)
{
    for (int i = (int)threadIdx.x; i < CHANNELS * DEPTH / 8; i += MMA_THREADS) {
        const int row = i / (DEPTH / 8), piece = i % (DEPTH / 8);
        copy_async_16(to + row * STRIDE + piece * 8, weights + row * row_values + piece * 8);
    }
}

static __device__ void store_places(uint16_t *to, const float (&v)[16])
{
    uint4 *row = (uint4 *)(to + (int)threadIdx.x / 2 * STRIDE + (int)threadIdx.x % 2 * 16);
    row[0] = make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]),
                        pack_bf16(v[6], v[7]));
    row[1] = make_uint4(pack_bf16(v[8], v[9]), pack_bf16(v[10], v[11]), pack_bf16(v[12], v[13]),
                        pack_bf16(v[14], v[15]));
}

static __device__ void multiply_stage(float (&sum)[2][4][4], const struct stage &s)
{
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int place = warp / 2 * 32, channel = warp % 2 * 32, matrix = lane / 8, row = lane % 8;
#pragma unroll
    for (int k = 0; k < DEPTH; k += 16) {
        uint32_t a[2][4], b[4];
        for (int m = 0; m < 2; m++)
            load_matrix_x4(a[m],
                           s.places + (place + m * 16 + lane % 16) * STRIDE + k + lane / 16 * 8);
#pragma unroll
        for (int n = 0; n < 4; n += 2) {
            load_matrix_x4(b, s.weights + (channel + n * 8 + matrix / 2 * 8 + row) * STRIDE + k +
                                  matrix % 2 * 8);
#pragma unroll
            for (int m = 0; m < 2; m++) {
                mma_bf16(sum[m][n], a[m], {b[0], b[1]});
                mma_bf16(sum[m][n + 1], a[m], {b[2], b[3]});
            }
        }
    }
}

static __global__ void __launch_bounds__(MMA_THREADS)
    conv_mma(struct result out, struct conv k, const uint16_t *weights)
{
    __shared__ __align__(16) union mma_shared shared;
    struct stage *const stage = shared.stage;
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int first = (int)blockIdx.x * PLACES;
    const int64_t row_values = (int64_t)k.kt * k.ky * k.kx * k.ci_padded;
    const struct place mine = place_of(out, first + (int)threadIdx.x / 2);
    const int steps = (int)(row_values / DEPTH), per_tap = k.ci_padded / DEPTH;
    float sum[2][4][4] = {}, v[16];
    weights += (int64_t)blockIdx.y * CHANNELS * row_values;
    bring_weights(stage[0].weights, weights, row_values);
    copy_async_commit();
    gather(v, k, mine, 0, (int)threadIdx.x % 2 * 16);
    store_places(stage[0].places, v);
    copy_async_wait<0>();
    __syncthreads();
    for (int step = 0; step < steps; step++) {
        const int next = step + 1;
        if (next < steps) {
            bring_weights(stage[next % 2].weights, weights + (int64_t)next * DEPTH, row_values);
            copy_async_commit();
            gather(v, k, mine, next / per_tap, next % per_tap * DEPTH + (int)threadIdx.x % 2 * 16);
        }
        multiply_stage(sum, stage[step % 2]);
        if (next < steps)
            store_places(stage[next % 2].places, v);
        copy_async_wait<0>();
        __syncthreads();
    }
    const int place = warp / 2 * 32 + lane / 4, channel = warp % 2 * 32 + lane % 4 * 2;
#pragma unroll
    for (int m = 0; m < 4; m++)
#pragma unroll
        for (int n = 0; n < 8; n++)
            shared.sums.at[place + m * 8][channel + n / 2 * 8 + n % 2] =
                sum[m / 2][n / 2][m % 2 * 2 + n % 2];
    put_sums<MMA_THREADS>(out, shared.sums);
}

/* -- f32: 256 threads, each four places by four channels -----------------------------------------
 */

union f32_shared {
    struct {
        float places[DEPTH_F32][PLACES + 4], channels[DEPTH_F32][CHANNELS + 4];
    } tile;
    struct sums sums; /* afterwards */
};

static __global__ void __launch_bounds__(BLOCK)
    conv_f32(struct result out, struct conv k, const float *weights)
{
    __shared__ __align__(16) union f32_shared shared;
    const int row = (int)threadIdx.x / 4, depth = (int)threadIdx.x % 4 * 4;
    const int place = (int)threadIdx.x / 16 * 4, channel = (int)threadIdx.x % 16 * 4;
    const int first = (int)blockIdx.x * PLACES;
    const int64_t row_values = (int64_t)k.kt * k.ky * k.kx * k.ci_padded;
    const struct place mine = place_of(out, first + row);
    const int steps = (int)(row_values / DEPTH_F32), per_tap = k.ci_padded / DEPTH_F32;
    const float *weight = weights + ((int64_t)blockIdx.y * CHANNELS + row) * row_values + depth;
    float sum[4][4] = {}, v[4];
    for (int step = 0; step < steps; step++) {
        gather(v, k, mine, step / per_tap, step % per_tap * DEPTH_F32 + depth);
        const float4 w = *(const float4 *)(weight + (int64_t)step * DEPTH_F32);
        __syncthreads(); /* the last tile has been read */
        for (int i = 0; i < 4; i++)
            shared.tile.places[depth + i][row] = v[i];
        shared.tile.channels[depth][row] = w.x, shared.tile.channels[depth + 1][row] = w.y;
        shared.tile.channels[depth + 2][row] = w.z, shared.tile.channels[depth + 3][row] = w.w;
        __syncthreads();
#pragma unroll
        for (int d = 0; d < DEPTH_F32; d++) {
            const float4 p = *(const float4 *)&shared.tile.places[d][place],
                         c = *(const float4 *)&shared.tile.channels[d][channel];
            const float a[4] = {p.x, p.y, p.z, p.w}, b[4] = {c.x, c.y, c.z, c.w};
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    sum[i][j] = fmaf(a[i], b[j], sum[i][j]);
        }
    }
    __syncthreads(); /* the last tile has been read */
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            shared.sums.at[place + i][channel + j] = sum[i][j];
    put_sums<BLOCK>(out, shared.sums);
}

/* -- launcher ------------------------------------------------------------------------------------
 */

static struct frames frames_of(const struct lt_view *view)
{
    if (!view->data)
        return {};
    return {view->data, view->stride[0], view->stride[1], view->stride[2], (int)view->dim[0]};
}

static bool in_vectors(const struct lt_view *view)
{
    return !view->data ||
           ((uintptr_t)view->data % 16 == 0 && view->dim[3] % 16 == 0 && view->stride[0] % 8 == 0 &&
            view->stride[1] % 8 == 0 && view->stride[2] % 8 == 0);
}

static struct conv conv_of(const struct lt_conv_args *args)
{
    const int w = args->weight.rank;
    struct conv k = {};
    k.past = frames_of(&args->past);
    k.in = frames_of(&args->in);
    k.type = args->in.type;
    k.rows = (int)args->in.dim[1];
    k.columns = (int)args->in.dim[2];
    k.up = args->upsample ? 2 : 1;
    k.vectors = in_vectors(&args->in) && in_vectors(&args->past);
    k.ci = (int)args->weight.dim[1];
    k.ci_padded = (int)parts_of(k.ci, DEPTH) * DEPTH;
    k.kt = w == 5 ? (int)args->weight.dim[2] : 1;
    k.ky = (int)args->weight.dim[w - 2];
    k.kx = (int)args->weight.dim[w - 1];
    k.stride_time = args->stride_time;
    k.stride_space = args->stride_space;
    k.pad_top = args->pad_top;
    k.pad_left = args->pad_left;
    k.zeros = (int)((args->out.dim[0] - 1) * args->stride_time) + k.kt - k.in.count - k.past.count;
    return k;
}

static struct result result_of(const struct lt_conv_args *args)
{
    const struct lt_view *out = &args->out, *add = &args->add;
    struct result result = {};
    result.data = out->data;
    result.type = out->type;
    result.frame = out->stride[0], result.row = out->stride[1], result.column = out->stride[2];
    result.add = add->data;
    result.add_frame = add->stride[0], result.add_row = add->stride[1];
    result.add_column = add->stride[2];
    result.bias = values_of(&args->bias);
    result.rows = (int)out->dim[1], result.columns = (int)out->dim[2];
    result.channels = (int)out->dim[3];
    result.places = (int)(out->dim[0] * out->dim[1] * out->dim[2]);
    return result;
}

static int64_t packed_values(const struct lt_conv_args *args)
{
    const int64_t co = args->weight.dim[0], ci = args->weight.dim[1];
    return parts_of(co, CHANNELS) * CHANNELS * (lt_view_count(&args->weight) / co / ci) *
           parts_of(ci, DEPTH) * DEPTH;
}

size_t lt_cuda_scratch_conv(bool bf16, const struct lt_conv_args *args)
{
    return (size_t)packed_values(args) * (conv_pick(bf16, args->exact) == CONV_MMA ? 2 : 4);
}

lt_status cuda_conv(struct lt_exec *exec, const struct lt_conv_args *args, struct lt_error *error)
{
    const struct lt_exec_cuda *cuda = lt_exec_cuda_of(exec);
    const struct conv k = conv_of(args);
    const struct result out = result_of(args);
    const bool mma = conv_pick(cuda->bf16, args->exact) == CONV_MMA;
    const int64_t packed = packed_values(args);
    const dim3 grid((unsigned)parts_of(out.places, PLACES),
                    (unsigned)parts_of(out.channels, CHANNELS));
    if (args->out.dim[0] * args->out.dim[1] * args->out.dim[2] > INT32_MAX - PLACES)
        return lt_fail(error, LT_UNSUPPORTED, "op conv: more than 2^31 places in one call");
    LT_TRY(scratch_check(cuda, "conv", lt_cuda_scratch_conv(cuda->bf16, args), error));
    if (!is_float_type(args->weight.type))
        return lt_fail(error, LT_UNSUPPORTED, "op conv: weights of type %s",
                       lt_type_info(args->weight.type)->name);
    TRY_CUDA(error, "conv",
             launch(conv_weights, dim3((unsigned)parts_of(packed, BLOCK)), dim3(BLOCK), 0,
                    cuda->stream, cuda->scratch, mma ? LT_TYPE_BF16 : LT_TYPE_F32,
                    values_of(&args->weight), out.channels, k.ci, k.kt * k.ky * k.kx, k.ci_padded,
                    packed));
    const cudaError_t code = mma ? launch(conv_mma, grid, dim3(MMA_THREADS), 0, cuda->stream, out,
                                          k, (const uint16_t *)cuda->scratch)
                                 : launch(conv_f32, grid, dim3(BLOCK), 0, cuda->stream, out, k,
                                          (const float *)cuda->scratch);
    return op_end(cuda, "conv", code, error);
}
