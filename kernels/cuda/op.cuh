/* What the ops of this folder share: loads of any float type, sums over a warp or a block, and how
 * a launcher ends. Contraction to fma is written, never left to the compiler (-fmad=false), so that
 * the same source gives the same bits wherever it runs. */
#pragma once

#include "kernels/cuda/gpu.cuh"

extern "C" {
#include "kernels/cuda/exec_cuda.h"
#include "kernels/cuda/pick.h"
#define CUDA_PROTOTYPE(op)                                                                         \
    lt_status cuda_##op(struct lt_exec *exec, const struct lt_##op##_args *args,                   \
                        struct lt_error *error);
LT_KERNEL_LIST(CUDA_PROTOTYPE)
#undef CUDA_PROTOTYPE
}

enum { WARP = 32, BLOCK = 256 };

/* Rows of f32 values. */
struct rows {
    float *data;
    int64_t stride;
};

static inline struct rows rows_of(const struct lt_view *view)
{
    return {(float *)view->data, view->stride[0]};
}

/* A vector of any float type, or none. */
struct values {
    const void *data;
    enum lt_type type;
};

static inline struct values values_of(const struct lt_view *view)
{
    return {view->data, view->type};
}

static inline bool is_float_type(enum lt_type type)
{
    return type == LT_TYPE_F32 || type == LT_TYPE_F16 || type == LT_TYPE_BF16 ||
           type == LT_TYPE_F8_E4M3 || type == LT_TYPE_F8_E5M2;
}

static inline int64_t parts_of(int64_t count, int64_t size)
{
    return (count + size - 1) / size;
}

/* 16-byte accesses where every row starts on one and holds whole ones. */
static inline bool in_fours(const struct lt_view *view)
{
    return !view->data || ((uintptr_t)view->data % 16 == 0 && view->dim[view->rank - 1] % 4 == 0 &&
                           (view->rank == 1 || view->stride[0] % 4 == 0));
}

/* -- device ------------------------------------------------------------------------------------ */

static __device__ __forceinline__ float half_of(uint16_t bits)
{
    __half_raw raw;
    raw.x = bits;
    return __half2float(__half(raw));
}

static __device__ __forceinline__ float bf16_of(uint16_t bits)
{
    __nv_bfloat16_raw raw;
    raw.x = bits;
    return __bfloat162float(__nv_bfloat16(raw));
}

static __device__ __forceinline__ uint16_t to_bf16(float value)
{
    return __nv_bfloat16_raw(__float2bfloat16_rn(value)).x;
}

static __device__ __forceinline__ uint16_t to_half(float value)
{
    return __half_raw(__float2half_rn(value)).x;
}

static __device__ __forceinline__ float round_to_bf16(float value)
{
    return bf16_of(to_bf16(value));
}

/* Sign, exponent with bias 7, three bits; exponent 0 counts in 2^-9; all ones is the only NaN. */
static __device__ __forceinline__ float e4m3_of(uint8_t bits)
{
    const int exponent = bits >> 3 & 15, mantissa = bits & 7;
    const float size =
        exponent ? ldexpf((float)(8 + mantissa), exponent - 10) : (float)mantissa * 0.001953125f;
    return copysignf((bits & 127) == 127 ? nanf("") : size, bits & 128 ? -1.0f : 1.0f);
}

static __device__ __forceinline__ float value_at(enum lt_type type, const void *data, int64_t i)
{
    switch (type) {
    case LT_TYPE_F32:
        return ((const float *)data)[i];
    case LT_TYPE_F16:
        return half_of(((const uint16_t *)data)[i]);
    case LT_TYPE_BF16:
        return bf16_of(((const uint16_t *)data)[i]);
    case LT_TYPE_F8_E4M3:
        return e4m3_of(((const uint8_t *)data)[i]);
    default:
        return half_of((uint16_t)(((const uint8_t *)data)[i] << 8));
    }
}

static __device__ __forceinline__ float value_or(const struct values from, int64_t i,
                                                 float otherwise)
{
    return from.data ? value_at(from.type, from.data, i) : otherwise;
}

/* F32 or BF16. */
static __device__ __forceinline__ void put_value(enum lt_type type, void *data, int64_t i,
                                                 float value)
{
    if (type == LT_TYPE_F32)
        ((float *)data)[i] = value;
    else
        ((uint16_t *)data)[i] = to_bf16(value);
}

/* V values that stand side by side; in one access where V is 4. */
template <int V> struct pack {
    float at[V];
};

template <int V> static __device__ __forceinline__ pack<V> load_pack(const float *from)
{
    pack<V> p;
    if (V == 4) {
        const float4 x = *(const float4 *)from;
        p.at[0] = x.x, p.at[1 % V] = x.y, p.at[2 % V] = x.z, p.at[3 % V] = x.w;
    } else {
        p.at[0] = *from;
    }
    return p;
}

template <int V> static __device__ __forceinline__ void store_pack(float *to, const pack<V> p)
{
    if (V == 4)
        *(float4 *)to = make_float4(p.at[0], p.at[1 % V], p.at[2 % V], p.at[3 % V]);
    else
        *to = p.at[0];
}

static __device__ __forceinline__ float activated(enum lt_activation activation, float x)
{
    switch (activation) {
    case LT_ACTIVATION_SILU:
        return x / (1 + expf(-x));
    case LT_ACTIVATION_GELU_TANH:
        return 0.5f * x * (1 + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
    case LT_ACTIVATION_GELU_ERF:
        return 0.5f * x * (1 + erff(x * 0.7071067811865476f));
    case LT_ACTIVATION_RELU:
        return x > 0 ? x : 0;
    case LT_ACTIVATION_LEAKY_RELU:
        return x > 0 ? x : 0.2f * x;
    default:
        return x;
    }
}

/* Every lane gets the sum over its warp. */
static __device__ __forceinline__ float warp_sum(float value)
{
    for (int step = WARP / 2; step > 0; step /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}

/* Every thread gets the sum over THREADS of them: its warp, or the block. */
template <int THREADS> static __device__ __forceinline__ float group_sum(float value)
{
    __shared__ float part[BLOCK / WARP];
    value = warp_sum(value);
    if (THREADS == WARP)
        return value;
    __syncthreads(); /* the last sum has been read */
    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = value;
    __syncthreads();
    value = 0;
    for (int i = 0; i < THREADS / WARP; i++)
        value += part[i];
    return value;
}

/* -- launchers --------------------------------------------------------------------------------- */

static inline lt_status cuda_failed(struct lt_error *error, const char *op, cudaError_t code)
{
    cudaGetLastError();
    return lt_fail(error, LT_DEVICE, "op %s: %s: %s", op, cudaGetErrorName(code),
                   cudaGetErrorString(code));
}

#define TRY_CUDA(error, op, call)                                                                  \
    do {                                                                                           \
        const cudaError_t code_ = (call);                                                          \
        if (code_ != cudaSuccess)                                                                  \
            return cuda_failed(error, op, code_);                                                  \
    } while (0)

/* The last launch of an op. */
static inline lt_status op_end(const struct lt_exec_cuda *cuda, const char *op, cudaError_t code,
                               struct lt_error *error)
{
    TRY_CUDA(error, op, code);
    if (cuda->sync)
        TRY_CUDA(error, op, cudaStreamSynchronize(cuda->stream));
    return LT_OK;
}

static inline lt_status scratch_check(const struct lt_exec_cuda *cuda, const char *op, size_t bytes,
                                      struct lt_error *error)
{
    if (bytes <= cuda->scratch_bytes)
        return LT_OK;
    return lt_fail(error, LT_INTERNAL, "op %s: takes %zu bytes of scratch, %zu were planned", op,
                   bytes, cuda->scratch_bytes);
}
