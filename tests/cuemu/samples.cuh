/* Kernels as the project writes them, and the same ones with one thing left out. */
#pragma once

#include "kernels/cuda/gpu.cuh"

/* What a faulty twin lacks. */
enum lacks { NOTHING, FIRST_BARRIER, SECOND_BARRIER, WAIT };

/* c[n,n] = a · b with 16x16 tiles; n a multiple of 16. */
template <lacks fault> __global__ void matmul_tiled(float *c, const float *a, const float *b, int n)
{
    __shared__ float tile_a[16][16];
    __shared__ float tile_b[16][16];
    const int x = threadIdx.x, y = threadIdx.y;
    const int row = blockIdx.y * 16 + y, column = blockIdx.x * 16 + x;
    float sum = 0.0f;
    for (int k = 0; k < n; k += 16) {
        tile_a[y][x] = a[row * n + k + x];
        tile_b[y][x] = b[(k + y) * n + column];
        if (fault != FIRST_BARRIER)
            __syncthreads();
        for (int i = 0; i < 16; i++)
            sum += tile_a[y][i] * tile_b[i][x];
        if (fault != SECOND_BARRIER)
            __syncthreads();
    }
    c[row * n + column] = sum;
}

/* out[block] = sum of the block's 256 values, by halves in shared memory. */
template <lacks fault> __global__ void sum_halves(float *out, const float *in)
{
    float *partial = dynamic_shared<float>();
    const unsigned t = threadIdx.x;
    partial[t] = in[blockIdx.x * 256 + t];
    __syncthreads();
    for (unsigned step = 128; step > 0; step /= 2) {
        if (t < step)
            partial[t] += partial[t + step];
        if (fault != FIRST_BARRIER)
            __syncthreads();
    }
    if (t == 0)
        out[blockIdx.x] = partial[0];
}

/* out = in turned round within each block of 64. */
template <lacks fault> __global__ void reverse(float *out, const float *in)
{
    __shared__ float held[64];
    const unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    held[t] = in[i];
    if (fault != FIRST_BARRIER)
        __syncthreads();
    out[i] = held[63 - t];
}

/* Sum of n values by shuffles, one atomic a warp. Blocks of whole warps. */
inline __global__ void sum_shuffled(float *out, const float *in, int n)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    float sum = i < n ? in[i] : 0.0f;
    for (int step = 16; step > 0; step /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (threadIdx.x % 32 == 0)
        atomicAdd(out, sum);
}

/* c[16,8] += a[16,k] · b[8,k]ᵀ in bf16, one warp; tiles of 16 columns arrive by cp.async, the next
 * while this one is multiplied. k a multiple of 16. */
template <lacks fault>
__global__ void gemm_mma(float *c, const __nv_bfloat16 *a, const __nv_bfloat16 *b, int k)
{
    __shared__ __align__(16) __nv_bfloat16 tiles[2][24][16]; /* 16 rows of a, then 8 of b */
    const int l = threadIdx.x;
    auto fetch = [&](int tile) {
        for (int piece = l; piece < 48; piece += 32) {
            const int row = piece / 2, at = piece % 2 * 8;
            const __nv_bfloat16 *from = row < 16 ? a + row * k : b + (row - 16) * k;
            copy_async_16(&tiles[tile % 2][row][at], from + tile * 16 + at);
        }
        copy_async_commit();
    };
    float sum[4] = {};
    fetch(0);
    for (int tile = 0; tile < k / 16; tile++) {
        if (tile + 1 < k / 16)
            fetch(tile + 1);
        else
            copy_async_commit();
        if (fault != WAIT)
            copy_async_wait<1>();
        __syncthreads();
        uint32_t fragment_a[4], fragment_b[2];
        load_matrix_x4(fragment_a, &tiles[tile % 2][l % 16][l / 16 * 8]);
        load_matrix_x2(fragment_b, &tiles[tile % 2][16 + l % 8][l / 8 % 2 * 8]);
        mma_bf16(sum, fragment_a, fragment_b);
        __syncthreads();
    }
    const int row = l / 4, column = l % 4 * 2;
    for (int i = 0; i < 4; i++)
        c[(row + i / 2 * 8) * 8 + column + i % 2] = sum[i];
}

inline __global__ void add_one(float *x, int n)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        x[i] += 1.0f;
}

inline __global__ void scale_by(float *x, int n, float factor)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        x[i] *= factor;
}
