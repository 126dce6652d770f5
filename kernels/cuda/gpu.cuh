/* The one header of every .cu file. nvcc builds the sources for GPUs; a plain C++17 compiler builds
 * the same sources against tests/cuemu, which executes them on the CPU. The difference between the
 * two stands in this file and nowhere else: kernels hold no asm and no #ifdef, and are launched by
 * launch().
 *
 * Fragments of tensor cores are 32-bit registers that hold two bf16 values, the lower index in the
 * lower half. Layouts are those of the PTX manual, "Matrix fragments for mma.m16n8k16": lane l has
 * g = l / 4 and t = l % 4. */
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#ifdef __CUDACC__
#define LT_GPU_NATIVE 1
#else
#define LT_GPU_NATIVE 0
#include <cuemu/device.h> /* threadIdx, __syncthreads, __shfl_sync … as functions */
#include <cuemu/tensor.h> /* the twins of the instructions below */
#endif

/* -- launching --------------------------------------------------------------------------------- */

/* Queues kernel(args…) on `stream`; arguments are converted to the kernel's parameter types.
 * `shared` is dynamic shared memory in bytes. Returns what the launch itself reports; faults of the
 * kernel come with a later wait. */
template <typename... P>
cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
                   std::common_type_t<P>... args)
{
#if LT_GPU_NATIVE
    void *pointers[] = {static_cast<void *>(&args)..., nullptr};
    return cudaLaunchKernel(reinterpret_cast<const void *>(kernel), grid, block, pointers, shared,
                            stream);
#else
    return cuemu::launch(reinterpret_cast<const void *>(kernel), grid, block, shared, stream,
                         [=] { kernel(args...); });
#endif
}

/* Lets `kernel` use up to `bytes` of dynamic shared memory; needed above 48 KiB. */
template <typename... P> cudaError_t allow_shared(void (*kernel)(P...), size_t bytes)
{
    return cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                                cudaFuncAttributeMaxDynamicSharedMemorySize,
                                static_cast<int>(bytes));
}

/* The block's dynamic shared memory, aligned to 16 bytes; the same bytes whatever the type. */
template <typename T> __device__ __forceinline__ T *dynamic_shared()
{
#if LT_GPU_NATIVE
    extern __shared__ __align__(16) unsigned char lt_dynamic_shared[];
    return reinterpret_cast<T *>(lt_dynamic_shared);
#else
    return static_cast<T *>(cuemu::dynamic_shared());
#endif
}

/* -- 16-byte copies from global to shared memory that run behind the arithmetic -----------------
 */

/* Copies 16 bytes; both addresses aligned to 16. When not `valid` the target becomes zeros and
 * `global` is not read. The bytes may be read after copy_async_wait() and a barrier. */
__device__ __forceinline__ void copy_async_16(void *shared, const void *global, bool valid = true)
{
#if LT_GPU_NATIVE
    const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(global),
                 "r"(bytes)
                 : "memory");
#else
    cuemu::copy_async_16(shared, global, valid);
#endif
}

/* Closes the group of this thread's copies so far. */
__device__ __forceinline__ void copy_async_commit()
{
#if LT_GPU_NATIVE
    asm volatile("cp.async.commit_group;\n" ::: "memory");
#else
    cuemu::copy_async_commit();
#endif
}

/* Waits until at most `pending` of this thread's youngest groups are still running. */
template <int pending> __device__ __forceinline__ void copy_async_wait()
{
#if LT_GPU_NATIVE
    asm volatile("cp.async.wait_group %0;\n" ::"n"(pending) : "memory");
#else
    cuemu::copy_async_wait(pending);
#endif
}

/* -- tensor cores: all 32 lanes of a warp take part ---------------------------------------------
 */

/* Four 8x8 matrices of 16-bit values from shared memory. Lane l names row l % 8 of matrix l / 8 (16
 * bytes, aligned to 16); register m of lane l receives columns 2t, 2t + 1 of row g of matrix m. */
__device__ __forceinline__ void load_matrix_x4(uint32_t (&r)[4], const void *row)
{
#if LT_GPU_NATIVE
    const uint32_t from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
#else
    cuemu::load_matrix(r, 4, row, false);
#endif
}

/* As load_matrix_x4, each matrix transposed: the lane receives rows 2t, 2t + 1 of column g. */
__device__ __forceinline__ void load_matrix_x4_trans(uint32_t (&r)[4], const void *row)
{
#if LT_GPU_NATIVE
    const uint32_t from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
#else
    cuemu::load_matrix(r, 4, row, true);
#endif
}

/* Two matrices: lanes 0 … 15 name the rows, the addresses of the others are not used. */
__device__ __forceinline__ void load_matrix_x2(uint32_t (&r)[2], const void *row)
{
#if LT_GPU_NATIVE
    const uint32_t from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];\n"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(from)
                 : "memory");
#else
    cuemu::load_matrix(r, 2, row, false);
#endif
}

__device__ __forceinline__ void load_matrix_x2_trans(uint32_t (&r)[2], const void *row)
{
#if LT_GPU_NATIVE
    const uint32_t from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];\n"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(from)
                 : "memory");
#else
    cuemu::load_matrix(r, 2, row, true);
#endif
}

/* d[16,8] += a[16,16] · b[16,8], bf16 with f32 sums. a: rows g, g + 8, g, g + 8 at columns 2t, 2t,
 * 2t
 * + 8, 2t + 8 (and the next one); b: column g at rows 2t and 2t + 8 (and the next one); d: row g at
 * columns 2t, 2t + 1, then row g + 8. So load_matrix_x4 of a row-major tile gives a, load_matrix_x2
 * of b stored [8 columns][16 rows] gives b, and load_matrix_x2_trans of b stored [16 rows][8]. */
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4],
                                         const uint32_t (&b)[2])
{
#if LT_GPU_NATIVE
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    cuemu::mma_m16n8k16_bf16(d, a, b);
#endif
}

/* -- small things ------------------------------------------------------------------------------ */

/* Two floats rounded to bf16 (to nearest, ties to even), `low` in the lower half. */
__device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
#if LT_GPU_NATIVE
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
#else
    return cuemu::pack_bf16(low, high);
#endif
}

/* 2^x, as good as the hardware's ex2.approx (2 ulp); -inf gives 0. */
__device__ __forceinline__ float exp2_fast(float x)
{
#if LT_GPU_NATIVE
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}

/* 16 bytes that nobody else will read again: not kept in L1. `from` aligned to 16, and not written
 * while the kernel runs. */
__device__ __forceinline__ uint4 load_stream_16(const void *from)
{
#if LT_GPU_NATIVE
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from));
    return v;
#else
    return *static_cast<const uint4 *>(from);
#endif
}
