/* How elementwise ops cut rows: block x is a row and a piece of it, each thread takes V values. */
#pragma once

#include "kernels/cuda/op.cuh"

struct piece {
    int64_t row;
    int column; /* at least the width: nothing to do */
};

template <int V> static __device__ __forceinline__ struct piece piece_of(int pieces)
{
    return {blockIdx.x / pieces, (int)((blockIdx.x % pieces) * BLOCK + threadIdx.x) * V};
}

static inline int pieces_of(int64_t width, bool fours)
{
    return (int)parts_of(width, (int64_t)BLOCK * (fours ? 4 : 1));
}
