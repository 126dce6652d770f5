/* What nvcc gives to kernels, for a plain C++ compiler: built-in variables, barriers, warp
 * operations, atomics and intrinsics. Included by kernels/cuda/gpu.cuh after NVIDIA's headers,
 * whose types and host functions it completes. */
#pragma once

#include "cuemu/block.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <functional>

#define __launch_bounds__(...) /* a promise to ptxas */
#undef __shared__
#define __shared__ static /* found by the kernel's name: shared.h */

namespace cuemu
{

cudaError_t launch(const void *kernel, dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
                   std::function<void()> body);

inline where here(const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    return {file, line};
}

template <typename To, typename From> inline To bits(From from)
{
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

/* -- cp.async: read and written by the thread that asked, at its wait -------------------------- */

inline void copy_async_16(void *to, const void *from, bool valid)
{
    check_shared("copy_async_16", to, 16);
    if (valid && reinterpret_cast<uintptr_t>(from) % 16 != 0)
        fault("copy_async_16: source %p is not aligned to 16 bytes", from);
    copy_async_queue({to, from, valid});
}

inline void copy_async_wait(int pending)
{
    while (const async_copy *copy = copy_async_take(pending)) {
        uint4 *to = static_cast<uint4 *>(copy->to);
        *to = copy->valid ? *static_cast<const uint4 *>(copy->from) : uint4{0, 0, 0, 0};
    }
}

/* -- shuffles ---------------------------------------------------------------------------------- */

struct alignas(8) shuffled {
    uint64_t value;
    unsigned source, unused;
};

void shuffle_compute(meeting_lane (&lanes)[32], unsigned mask);

template <typename T>
inline T shuffle(const char *operation, unsigned mask, T value, unsigned source, where at)
{
    static_assert(sizeof(T) <= 8, "shuffles move up to 8 bytes");
    shuffled s = {0, source, 0};
    memcpy(&s.value, &value, sizeof value);
    meet(operation, mask, &s, sizeof s, shuffle_compute, false, at);
    memcpy(&value, &s.value, sizeof value);
    return value;
}

uint64_t gather(const char *operation, unsigned mask, uint64_t value, meeting_compute *compute,
                where at);
void ballot_compute(meeting_lane (&lanes)[32], unsigned mask);
void sum_compute(meeting_lane (&lanes)[32], unsigned mask);
void max_compute(meeting_lane (&lanes)[32], unsigned mask);
void min_compute(meeting_lane (&lanes)[32], unsigned mask);

} // namespace cuemu

/* -- barriers ---------------------------------------------------------------------------------- */

inline void __syncthreads(cuemu::where at = cuemu::here())
{
    cuemu::barrier(cuemu::vote::none, 0, at);
}
inline int __syncthreads_count(int predicate, cuemu::where at = cuemu::here())
{
    return cuemu::barrier(cuemu::vote::count, predicate, at);
}
inline int __syncthreads_and(int predicate, cuemu::where at = cuemu::here())
{
    return cuemu::barrier(cuemu::vote::all, predicate, at);
}
inline int __syncthreads_or(int predicate, cuemu::where at = cuemu::here())
{
    return cuemu::barrier(cuemu::vote::any, predicate, at);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, cuemu::where at = cuemu::here())
{
    uint64_t nothing = 0;
    cuemu::meet("__syncwarp", mask, &nothing, sizeof nothing, nullptr, true, at);
}
inline void __threadfence()
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
inline void __threadfence_block()
{
    __threadfence();
}

/* -- warp operations --------------------------------------------------------------------------- */

template <typename T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = warpSize,
                     cuemu::where at = cuemu::here())
{
    const unsigned w = static_cast<unsigned>(width), l = cuemu::lane();
    return cuemu::shuffle("__shfl_sync", mask, value,
                          (l & ~(w - 1)) | (static_cast<unsigned>(source) & (w - 1)), at);
}
template <typename T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                        cuemu::where at = cuemu::here())
{
    const unsigned l = cuemu::lane(), base = l & ~(static_cast<unsigned>(width) - 1);
    return cuemu::shuffle("__shfl_up_sync", mask, value, l - base < delta ? l : l - delta, at);
}
template <typename T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                          cuemu::where at = cuemu::here())
{
    const unsigned w = static_cast<unsigned>(width), l = cuemu::lane();
    return cuemu::shuffle("__shfl_down_sync", mask, value,
                          (l & (w - 1)) + delta >= w ? l : l + delta, at);
}
template <typename T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = warpSize,
                         cuemu::where at = cuemu::here())
{
    const unsigned w = static_cast<unsigned>(width), l = cuemu::lane();
    const unsigned source = l ^ static_cast<unsigned>(bits);
    return cuemu::shuffle("__shfl_xor_sync", mask, value, source >= (l & ~(w - 1)) + w ? l : source,
                          at);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, cuemu::where at = cuemu::here())
{
    return static_cast<unsigned>(
        cuemu::gather("__ballot_sync", mask, predicate != 0, cuemu::ballot_compute, at));
}
inline int __any_sync(unsigned mask, int predicate, cuemu::where at = cuemu::here())
{
    return cuemu::gather("__any_sync", mask, predicate != 0, cuemu::ballot_compute, at) != 0;
}
inline int __all_sync(unsigned mask, int predicate, cuemu::where at = cuemu::here())
{
    return cuemu::gather("__all_sync", mask, predicate != 0, cuemu::ballot_compute, at) == mask;
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned value, cuemu::where at = cuemu::here())
{
    return static_cast<unsigned>(
        cuemu::gather("__reduce_add_sync", mask, value, cuemu::sum_compute, at));
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value, cuemu::where at = cuemu::here())
{
    return static_cast<unsigned>(
        cuemu::gather("__reduce_max_sync", mask, value, cuemu::max_compute, at));
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value, cuemu::where at = cuemu::here())
{
    return static_cast<unsigned>(
        cuemu::gather("__reduce_min_sync", mask, value, cuemu::min_compute, at));
}
/* Only the own lane: legal, and it breaks code that counts on lanes being together. */
inline unsigned __activemask()
{
    return 1u << cuemu::lane();
}

/* -- atomics ----------------------------------------------------------------------------------- */

namespace cuemu
{
template <typename T, typename Change> inline T atomic_change(T *at, Change change)
{
    using word = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
    static_assert(sizeof(T) == sizeof(word));
    word *where = reinterpret_cast<word *>(at);
    word old = __atomic_load_n(where, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(where, &old,
                                        bits<word>(static_cast<T>(change(bits<T>(old)))), false,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    return bits<T>(old);
}
} // namespace cuemu

template <typename T> inline T atomicAdd(T *at, std::common_type_t<T> value)
{
    return cuemu::atomic_change(at, [=](T old) { return old + value; });
}
template <typename T> inline T atomicSub(T *at, std::common_type_t<T> value)
{
    return cuemu::atomic_change(at, [=](T old) { return old - value; });
}
template <typename T> inline T atomicMax(T *at, std::common_type_t<T> value)
{
    return cuemu::atomic_change(at, [=](T old) { return old < value ? value : old; });
}
template <typename T> inline T atomicMin(T *at, std::common_type_t<T> value)
{
    return cuemu::atomic_change(at, [=](T old) { return value < old ? value : old; });
}
template <typename T> inline T atomicOr(T *at, std::common_type_t<T> value)
{
    return cuemu::atomic_change(at, [=](T old) { return old | value; });
}
template <typename T> inline T atomicAnd(T *at, std::common_type_t<T> value)
{
    return cuemu::atomic_change(at, [=](T old) { return old & value; });
}
template <typename T> inline T atomicExch(T *at, std::common_type_t<T> value)
{
    return cuemu::atomic_change(at, [=](T) { return value; });
}
template <typename T>
inline T atomicCAS(T *at, std::common_type_t<T> expected, std::common_type_t<T> value)
{
    return cuemu::atomic_change(at, [=](T old) { return old == expected ? value : old; });
}

/* -- intrinsics -------------------------------------------------------------------------------- */

/* glibc has functions of these names. */
#define __expf   cuemu_expf
#define __logf   cuemu_logf
#define __sinf   cuemu_sinf
#define __cosf   cuemu_cosf
#define __powf   cuemu_powf
#define __exp10f cuemu_exp10f
#define __log2f  cuemu_log2f

// clang-format off
inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return powf(10.0f, x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frsqrt_rn(float x) { return static_cast<float>(1.0 / sqrt(static_cast<double>(x))); }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __saturatef(float x) { return x > 0.0f ? fminf(x, 1.0f) : 0.0f; }
inline float rsqrtf(float x) { return static_cast<float>(1.0 / sqrt(static_cast<double>(x))); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline void sincospif(float x, float *s, float *c) { *s = static_cast<float>(sin(M_PI * static_cast<double>(x))); *c = static_cast<float>(cos(M_PI * static_cast<double>(x))); }
inline void __sincosf(float x, float *s, float *c) { *s = sinf(x); *c = cosf(x); }

inline unsigned __float_as_uint(float x) { return cuemu::bits<unsigned>(x); }
inline int __float_as_int(float x) { return cuemu::bits<int>(x); }
inline float __uint_as_float(unsigned x) { return cuemu::bits<float>(x); }
inline float __int_as_float(int x) { return cuemu::bits<float>(x); }
inline int __float2int_rn(float x) { return static_cast<int>(rintf(x)); }
inline int __float2int_rz(float x) { return static_cast<int>(x); }
inline int __float2int_rd(float x) { return static_cast<int>(floorf(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned x, unsigned y) { return static_cast<unsigned>(uint64_t{x} * y >> 32); }
template <typename T> inline T __ldg(const T *at) { return *at; }
template <typename T> inline T __ldcs(const T *at) { return *at; }
template <typename T> inline T __ldcg(const T *at) { return *at; }
template <typename T> inline void __stcs(T *at, T value) { *at = value; }

inline __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) { return __float2bfloat16(fmaf(__bfloat162float(a), __bfloat162float(b), __bfloat162float(c))); }
inline __half __hfma(__half a, __half b, __half c) { return __float2half(fmaf(__half2float(a), __half2float(b), __half2float(c))); }

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline long min(long a, long b) { return a < b ? a : b; }
inline long max(long a, long b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }
inline unsigned long min(unsigned long a, unsigned long b) { return a < b ? a : b; }
inline unsigned long max(unsigned long a, unsigned long b) { return a > b ? a : b; }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
// clang-format on

/* Byte i of the result is byte (selector >> 4i) & 7 of y:x, or its sign with bit 3. */
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector)
{
    const uint64_t both = uint64_t{y} << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned s = selector >> (4 * i);
        unsigned byte = static_cast<unsigned>(both >> (8 * (s & 7))) & 0xff;
        if (s & 8)
            byte = byte & 0x80 ? 0xff : 0;
        result |= byte << (8 * i);
    }
    return result;
}

/* c + the product of four signed bytes. */
inline int __dp4a(int a, int b, int c)
{
    for (int i = 0; i < 4; i++)
        c += static_cast<int8_t>(a >> (8 * i)) * static_cast<int8_t>(b >> (8 * i));
    return c;
}

[[noreturn]] inline void __trap()
{
    cuemu::fault("__trap()");
}
