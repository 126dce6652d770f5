/* What a CUDA device adds to an exec: the stream its ops are queued on, the cuBLAS handle bound to
 * it, and scratch that was planned before. Ops only queue: they neither allocate nor wait, and
 * views point into device memory. Whoever owns the device makes and frees what stands here. */
#pragma once

#include "kernels/kernels.h"

struct CUstream_st;
struct cublasContext;

struct lt_exec_cuda {
    struct CUstream_st *stream;
    struct cublasContext *blas; /* on `stream`, scalars by device pointer */
    const float *zero_one;      /* [2] = 0, 1 in device memory: those scalars */
    void *scratch;              /* device memory, 256-byte aligned */
    size_t scratch_bytes;
    bool bf16; /* products of bf16 inputs, as LT_PRECISION_BF16 */
    bool sync; /* wait after each op, to name the one that failed */
};

/* NULL for an exec of the host. The exec keeps the pointer; `cuda` must outlive it. */
struct lt_exec_cuda *lt_exec_cuda_of(const struct lt_exec *exec);
void lt_exec_set_cuda(struct lt_exec *exec, struct lt_exec_cuda *cuda);

/* Takes over every op of the table; does nothing in a build without CUDA (stub.c). */
void lt_kernels_init_cuda(struct lt_kernels *table);

/* Bytes of scratch an op takes, to be planned; of `data` only whether it is NULL counts. Ops not
 * named here take none. An exec needs the most of what its ops take. */
size_t lt_cuda_scratch_linear(bool bf16, const struct lt_linear_args *args);
size_t lt_cuda_scratch_low_rank(bool bf16, const struct lt_low_rank_args *args);
size_t lt_cuda_scratch_attention(bool bf16, const struct lt_attention_args *args);
size_t lt_cuda_scratch_conv(bool bf16, const struct lt_conv_args *args);
