/* Small helpers of the emulator's tests. */
#pragma once

extern "C" {
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants these first */
#include <cmocka.h>
}

#include <cstdio>
#include <cstdlib>
#include <cuda_runtime_api.h>

#define assert_cuda(call) assert_int_equal(call, cudaSuccess)

/* For children too, in which cmocka's asserts would go on with the parent's tests. */
inline void require_cuda(cudaError_t error)
{
    if (error != cudaSuccess) {
        fprintf(stderr, "%s\n", cudaGetErrorString(error));
        abort();
    }
}

/* Device memory with `n` elements of `from` in it. */
template <typename T> inline T *to_device(const T *from, size_t n)
{
    void *at = nullptr;
    require_cuda(cudaMalloc(&at, n * sizeof(T)));
    require_cuda(cudaMemcpy(at, from, n * sizeof(T), cudaMemcpyHostToDevice));
    return static_cast<T *>(at);
}

template <typename T> inline void from_device(T *to, const T *from, size_t n)
{
    require_cuda(cudaMemcpy(to, from, n * sizeof(T), cudaMemcpyDeviceToHost));
}

/* Small whole numbers: sums of their products are exact in f32 in any order. */
inline void fill_whole(float *x, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = static_cast<float>(static_cast<int>(seed >> 28) - 8);
    }
}
