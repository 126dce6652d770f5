/* out[l,n,:] = Σ_s softmax_s(scale · q[l,n]·k[s,n] + biases) v[s,n,:], online: logits never leave
 * registers.
 *
 *   tensor cores: 4·L·S·H·K flops; the roof is their bf16 rate (self-attention of 32760 tokens is
 *   22 TFLOP in 1.3 GB of q, k, v, out). Keys and values are rounded to bf16 in scratch first, some
 *   heads at a time: 6·S·H·K bytes each, then read once per 128 queries, from L2.
 *   rows: the same flops in f32 without tensor cores; the roof is f32 arithmetic. For exact and f32
 *   products, other widths than 128, and biases by distance (text, motion): short sequences.
 *
 * tensor cores: a warp holds 16 queries and their sums; a block of 4 or 8 warps shares tiles of 64
 * keys and values, of which the next is on its way while one is used. A row of a tile is 16 pieces
 * of 16 bytes, piece p of row r at p ^ (r % 8), so that the eight rows of a matrix lie in different
 * banks. */
#include "kernels/cuda/op.cuh"

#include <math.h>

enum { WIDTH = 128, KEYS = 64, PIECES = WIDTH / 8, TILE = KEYS * WIDTH };
enum { ROWS_KEYS = WARP, ROWS_QUERIES = BLOCK / WARP, ROWS_WIDTH_MAX = 256 };

/* [rows, heads, width] f32, strides in values. */
struct heads {
    float *data;
    int64_t row, head;
};

struct softmax {
    float scale, last_key_bias;
    int queries, keys;
};

/* -- tensor cores ------------------------------------------------------------------------------ */

/* to[h, s, :] = bf16 of from[s, first + h, :], zeros from `keys` on; a key a warp. */
static __global__ void __launch_bounds__(BLOCK)
    round_keys(uint16_t *to, struct heads from, int first, int keys, int padded)
{
    const int s = (int)(blockIdx.x * (BLOCK / WARP) + threadIdx.x / WARP), h = (int)blockIdx.y;
    const int i = (int)threadIdx.x % WARP * 4;
    if (s >= padded)
        return;
    float v[4] = {0, 0, 0, 0};
    if (s < keys)
        for (int j = 0; j < 4; j++)
            v[j] = from.data[s * from.row + (first + h) * from.head + i + j];
    *(uint2 *)(to + ((int64_t)h * padded + s) * WIDTH + i) =
        make_uint2(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]));
}

/* Piece `piece` of row `row` of a tile. */
static __device__ uint16_t *tile_at(uint16_t *tile, int row, int piece)
{
    return tile + row * WIDTH + (piece ^ row % 8) * 8;
}

template <int THREADS> static __device__ void bring_tile(uint16_t *tile, const uint16_t *from)
{
    for (int i = (int)threadIdx.x; i < KEYS * PIECES; i += THREADS)
        copy_async_16(tile_at(tile, i / PIECES, i % PIECES), from + i * 8);
}

/* The fragments of 16 queries, straight from memory; queries past the last are zeros. */
static __device__ void load_queries(uint32_t (&q)[WIDTH / 16][4], struct heads from, int head,
                                    int first, int queries)
{
    const int g = (int)threadIdx.x % WARP / 4, t = (int)threadIdx.x % 4;
    for (int side = 0; side < 2; side++) {
        const int l = first + g + 8 * side;
        const float *row = from.data + (int64_t)l * from.row + head * from.head + 2 * t;
#pragma unroll
        for (int k = 0; k < WIDTH / 8; k++)
            q[k / 2][k % 2 * 2 + side] = l < queries ? pack_bf16(row[k * 8], row[k * 8 + 1]) : 0;
    }
}

/* s[16, KEYS] = q · kᵀ of one tile. */
static __device__ void multiply_keys(float (&s)[KEYS / 8][4], const uint32_t (&q)[WIDTH / 16][4],
                                     uint16_t *keys)
{
    const int lane = (int)threadIdx.x % WARP, matrix = lane / 8, row = lane % 8;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n += 2) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            s[n][i] = s[n + 1][i] = 0;
#pragma unroll
        for (int k = 0; k < WIDTH / 16; k++) {
            uint32_t b[4];
            load_matrix_x4(b, tile_at(keys, n * 8 + matrix / 2 * 8 + row, k * 2 + matrix % 2));
            mma_bf16(s[n], q[k], {b[0], b[1]});
            mma_bf16(s[n + 1], q[k], {b[2], b[3]});
        }
    }
}

/* out[16, WIDTH] += p · v of one tile; p are the fragments of s. */
static __device__ void multiply_values(float (&out)[WIDTH / 8][4], const float (&p)[KEYS / 8][4],
                                       uint16_t *values)
{
    const int lane = (int)threadIdx.x % WARP, matrix = lane / 8, row = lane % 8;
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++) {
        const uint32_t a[4] = {pack_bf16(p[2 * k][0], p[2 * k][1]),
                               pack_bf16(p[2 * k][2], p[2 * k][3]),
                               pack_bf16(p[2 * k + 1][0], p[2 * k + 1][1]),
                               pack_bf16(p[2 * k + 1][2], p[2 * k + 1][3])};
#pragma unroll
        for (int n = 0; n < WIDTH / 8; n += 2) {
            uint32_t b[4];
            load_matrix_x4_trans(b, tile_at(values, k * 16 + matrix % 2 * 8 + row, n + matrix / 2));
            mma_bf16(out[n], a, {b[0], b[1]});
            mma_bf16(out[n + 1], a, {b[2], b[3]});
        }
    }
}

/* A query is spread over the four lanes of its row. */
static __device__ float quad_max(float value)
{
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
    return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}

static __device__ float quad_sum(float value)
{
    value += __shfl_xor_sync(0xffffffffu, value, 1);
    return value + __shfl_xor_sync(0xffffffffu, value, 2);
}

/* Logits of a tile (in powers of two) to probabilities of the largest logit so far, by which the
 * sums so far are shortened. Every tile has a key that
 * counts, so the largest is finite. */
static __device__ void soften(float (&s)[KEYS / 8][4], float (&out)[WIDTH / 8][4], float (&top)[2],
                              float (&sum)[2], struct softmax m, int first)
{
    const float log2e = 1.4426950408889634f;
    const int t = (int)threadIdx.x % 4;
    float most[2] = {top[0], top[1]}, shorten[2];
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int key = first + n * 8 + 2 * t + i % 2;
            float logit = s[n][i] * (m.scale * log2e);
            if (key >= m.keys - 1)
                logit = key == m.keys - 1 ? logit + m.last_key_bias * log2e : -INFINITY;
            s[n][i] = logit;
            most[i / 2] = fmaxf(most[i / 2], logit);
        }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        most[i] = quad_max(most[i]);
        shorten[i] = exp2_fast(top[i] - most[i]);
        top[i] = most[i];
        sum[i] *= shorten[i];
    }
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            s[n][i] = exp2_fast(s[n][i] - top[i / 2]);
            sum[i / 2] += s[n][i];
        }
#pragma unroll
    for (int n = 0; n < WIDTH / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            out[n][i] *= shorten[i / 2];
}

/* Block: WARPS · 16 queries (x) of a head of this group (y). keys, values: [group, padded, WIDTH].
 */
template <int WARPS>
static __global__ void __launch_bounds__(WARPS *WARP)
    attention_mma(struct heads to, struct heads from, const uint16_t *keys, const uint16_t *values,
                  int first_head, int padded, struct softmax m)
{
    uint16_t *shared = dynamic_shared<uint16_t>(); /* two times a tile of keys and one of values */
    const int head = first_head + (int)blockIdx.y, tiles = padded / KEYS;
    const int l = ((int)blockIdx.x * WARPS + (int)threadIdx.x / WARP) * 16;
    keys += (int64_t)blockIdx.y * padded * WIDTH;
    values += (int64_t)blockIdx.y * padded * WIDTH;
    bring_tile<WARPS * WARP>(shared, keys);
    bring_tile<WARPS * WARP>(shared + TILE, values);
    copy_async_commit();
    uint32_t q[WIDTH / 16][4];
    load_queries(q, from, head, l, m.queries);
    float out[WIDTH / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    for (int tile = 0; tile < tiles; tile++) {
        uint16_t *now = shared + tile % 2 * 2 * TILE, *next = shared + (tile + 1) % 2 * 2 * TILE;
        if (tile + 1 < tiles) {
            bring_tile<WARPS * WARP>(next, keys + (int64_t)(tile + 1) * TILE);
            bring_tile<WARPS * WARP>(next + TILE, values + (int64_t)(tile + 1) * TILE);
        }
        copy_async_commit(); /* empty for the last, so that one rule counts them */
        copy_async_wait<1>();
        __syncthreads();
        float s[KEYS / 8][4];
        multiply_keys(s, q, now);
        soften(s, out, top, sum, m, tile * KEYS);
        multiply_values(out, s, now + TILE);
        __syncthreads(); /* `now` is the next to be filled */
    }
    const int g = (int)threadIdx.x % WARP / 4, t = (int)threadIdx.x % 4;
    for (int side = 0; side < 2; side++) {
        const float share = 1 / quad_sum(sum[side]);
        const int row = l + g + 8 * side;
        float *y = to.data + (int64_t)row * to.row + head * to.head + 2 * t;
        if (row < m.queries)
#pragma unroll
            for (int n = 0; n < WIDTH / 8; n++) {
                y[n * 8] = out[n][2 * side] * share;
                y[n * 8 + 1] = out[n][2 * side + 1] * share;
            }
    }
}

/* -- rows -------------------------------------------------------------------------------------- */

static __device__ float rounded(float value, bool round)
{
    return round ? round_to_bf16(value) : value;
}

static __device__ float warp_max(float value)
{
    for (int step = WARP / 2; step > 0; step /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
    return value;
}

/* A query a warp; of a tile of 32 keys each lane has one for the logits, and every 32nd value of
 * the width for the sums. Shared: queries [8, width], keys [32, width + 1] (other banks). */
static __global__ void __launch_bounds__(BLOCK)
    attention_rows(struct heads to, struct heads from, struct heads keys, struct heads values,
                   const float *relative, int64_t relative_stride, int width, bool round,
                   struct softmax m)
{
    float *const queries = dynamic_shared<float>(), *const tile = queries + ROWS_QUERIES * width;
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int head = (int)blockIdx.y, l = (int)blockIdx.x * ROWS_QUERIES + warp;
    float *const q = queries + warp * width;
    float out[ROWS_WIDTH_MAX / WARP] = {}, top = -INFINITY, sum = 0;
    for (int i = lane; i < width; i += WARP)
        q[i] = l < m.queries ? rounded(from.data[l * from.row + head * from.head + i], round) : 0;
    for (int first = 0; first < m.keys; first += ROWS_KEYS) {
        const int have = m.keys - first < ROWS_KEYS ? m.keys - first : ROWS_KEYS;
        __syncthreads(); /* the last tile has been read */
        for (int i = (int)threadIdx.x; i < have * width; i += BLOCK)
            tile[i / width * (width + 1) + i % width] = rounded(
                keys.data[(first + i / width) * keys.row + head * keys.head + i % width], round);
        __syncthreads();
        const int key = first + lane;
        float logit = -INFINITY;
        if (lane < have) {
            float dot = 0;
            for (int i = 0; i < width; i++)
                dot = fmaf(q[i], tile[lane * (width + 1) + i], dot);
            logit = dot * m.scale + (key == m.keys - 1 ? m.last_key_bias : 0);
            if (relative && l < m.queries)
                logit += relative[head * relative_stride + key - l + m.queries - 1];
        }
        const float most = fmaxf(top, warp_max(logit)), shorten = expf(top - most);
        const float p = expf(logit - most);
        top = most;
        sum = sum * shorten + p;
        for (int i = 0; i < ROWS_WIDTH_MAX / WARP; i++)
            out[i] *= shorten;
        for (int s = 0; s < have; s++) {
            const float share = __shfl_sync(0xffffffffu, p, s);
            const float *v = values.data + (first + s) * values.row + head * values.head;
#pragma unroll
            for (int i = 0; i < ROWS_WIDTH_MAX / WARP; i++)
                if (i * WARP + lane < width)
                    out[i] = fmaf(share, rounded(v[i * WARP + lane], round), out[i]);
        }
    }
    sum = warp_sum(sum);
    if (l < m.queries)
#pragma unroll
        for (int i = 0; i < ROWS_WIDTH_MAX / WARP; i++)
            if (i * WARP + lane < width)
                to.data[l * to.row + head * to.head + i * WARP + lane] = out[i] / sum;
}

/* -- launchers --------------------------------------------------------------------------------- */

static struct heads heads_of(const struct lt_view *view)
{
    return {(float *)view->data, view->stride[0], view->stride[1]};
}

static enum attention_variant variant_of(bool bf16, const struct lt_attention_args *args)
{
    return attention_pick(bf16 && !args->exact, args->q.dim[0], args->q.dim[2],
                          args->relative_bias.data != NULL);
}

static int64_t padded_keys(const struct lt_attention_args *args)
{
    return parts_of(args->k.dim[0], KEYS) * KEYS;
}

/* Keys and values of a head in scratch. */
static size_t head_bytes(const struct lt_attention_args *args)
{
    return (size_t)padded_keys(args) * WIDTH * 2 * sizeof(uint16_t);
}

/* Heads taken at a time: what fits there, at least one. 4096 blocks at 32760 tokens of 14B. */
static constexpr size_t ROOM_BYTES = (size_t)128 << 20;

static int64_t heads_at_a_time(const struct lt_attention_args *args)
{
    const int64_t fit = (int64_t)(ROOM_BYTES / head_bytes(args)), heads = args->q.dim[1];
    return fit < 1 ? 1 : fit < heads ? fit : heads;
}

size_t lt_cuda_scratch_attention(bool bf16, const struct lt_attention_args *args)
{
    if (variant_of(bf16, args) == ATTENTION_ROWS)
        return 0;
    /* fewer keys never take more, however well their heads fill the room */
    const size_t all = (size_t)args->q.dim[1] * head_bytes(args), one = head_bytes(args);
    return all < ROOM_BYTES ? all : one < ROOM_BYTES ? ROOM_BYTES : one;
}

template <int WARPS>
static lt_status run_mma(const struct lt_exec_cuda *cuda, const struct lt_attention_args *args,
                         struct lt_error *error)
{
    const size_t shared = 4 * TILE * sizeof(uint16_t);
    const int64_t at_a_time = heads_at_a_time(args), padded = padded_keys(args);
    const struct softmax m = {args->scale, args->last_key_bias, (int)args->q.dim[0],
                              (int)args->k.dim[0]};
    uint16_t *keys = (uint16_t *)cuda->scratch, *values = keys + at_a_time * padded * WIDTH;
    LT_TRY(scratch_check(cuda, "attention", (size_t)at_a_time * head_bytes(args), error));
    TRY_CUDA(error, "attention", allow_shared(attention_mma<WARPS>, shared));
    for (int64_t first = 0; first < args->q.dim[1]; first += at_a_time) {
        const int64_t left = args->q.dim[1] - first, count = left < at_a_time ? left : at_a_time;
        const dim3 key_grid((unsigned)parts_of(padded, BLOCK / WARP), (unsigned)count);
        TRY_CUDA(error, "attention",
                 launch(round_keys, key_grid, dim3(BLOCK), 0, cuda->stream, keys,
                        heads_of(&args->k), (int)first, m.keys, (int)padded));
        TRY_CUDA(error, "attention",
                 launch(round_keys, key_grid, dim3(BLOCK), 0, cuda->stream, values,
                        heads_of(&args->v), (int)first, m.keys, (int)padded));
        TRY_CUDA(error, "attention",
                 launch(attention_mma<WARPS>,
                        dim3((unsigned)parts_of(m.queries, WARPS * 16), (unsigned)count),
                        dim3(WARPS * WARP), shared, cuda->stream, heads_of(&args->out),
                        heads_of(&args->q), keys, values, (int)first, (int)padded, m));
    }
    return op_end(cuda, "attention", cudaSuccess, error);
}

static lt_status run_rows(const struct lt_exec_cuda *cuda, const struct lt_attention_args *args,
                          struct lt_error *error)
{
    const int64_t width = args->q.dim[2];
    const struct softmax m = {args->scale, args->last_key_bias, (int)args->q.dim[0],
                              (int)args->k.dim[0]};
    if (width > ROWS_WIDTH_MAX)
        return lt_fail(error, LT_UNSUPPORTED,
                       "op attention: heads of at most %d values on CUDA, found %lld",
                       ROWS_WIDTH_MAX, (long long)width);
    const size_t shared = (size_t)(ROWS_QUERIES * width + ROWS_KEYS * (width + 1)) * sizeof(float);
    const cudaError_t code = launch(
        attention_rows, dim3((unsigned)parts_of(m.queries, ROWS_QUERIES), (unsigned)args->q.dim[1]),
        dim3(BLOCK), shared, cuda->stream, heads_of(&args->out), heads_of(&args->q),
        heads_of(&args->k), heads_of(&args->v), (const float *)args->relative_bias.data,
        args->relative_bias.data ? args->relative_bias.stride[0] : 0, (int)width,
        cuda->bf16 && !args->exact, m);
    return op_end(cuda, "attention", code, error);
}

lt_status cuda_attention(struct lt_exec *exec, const struct lt_attention_args *args,
                         struct lt_error *error)
{
    const struct lt_exec_cuda *cuda = lt_exec_cuda_of(exec);
    switch (variant_of(cuda->bf16, args)) {
    case ATTENTION_MMA_64:
        return run_mma<4>(cuda, args, error);
    case ATTENTION_MMA_128:
        return run_mma<8>(cuda, args, error);
    default:
        return run_rows(cuda, args, error);
    }
}
