/* For the two files of a CUDA device: device_cuda.c is what the weights see of it (memory, copies,
 * events), device_cuda_exec.c what ops need. */
#pragma once

#include "worker/device_private.h"

#include "kernels/cuda/exec_cuda.h"

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

enum { CUDA_RING_COUNT = 4, CUDA_RING_BYTES = 1 << 20 };

/* Pinned pieces that uploads go through, so that their source is free at once. */
struct cuda_ring {
    char *data;                         /* CUDA_RING_COUNT pieces */
    cudaEvent_t freed[CUDA_RING_COUNT]; /* the copy out of the piece is done */
    unsigned next;
};

struct cuda {
    struct device *device;
    int index, major;
    char card[96]; /* its class: versions, architecture, name */
    cudaStream_t compute, copy;
    pthread_mutex_t lock;
    struct lt_error broken; /* under the lock: what broke it; code LT_OK: nothing did */

    /* device_cuda_exec.c; made with the first exec */
    bool computes;
    cublasHandle_t blas;
    void *workspace; /* of cuBLAS */
    float *zero_one;
    void *scratch;
    size_t scratch_bytes;
    struct cuda_ring ring;
    struct lt_exec_cuda exec[2]; /* by precision */
    struct lt_exec_memory memory;
};

/* LT_DEVICE, and nothing works from now on; LT_NO_DEVICE_MEMORY when that is all. `what`: the call.
 */
lt_status cuda_fail(struct cuda *cuda, const char *what, cudaError_t code, struct lt_error *error);
#define TRY_CUDA(cuda, error, call)                                                                \
    do {                                                                                           \
        const cudaError_t code_ = (call);                                                          \
        if (code_ != cudaSuccess)                                                                  \
            return cuda_fail(cuda, #call, code_, error);                                           \
    } while (0)

/* The calling thread works on the card. LT_DEVICE: it is broken. */
lt_status cuda_bind(struct cuda *cuda, struct lt_error *error);

lt_status cuda_kernels(const struct device *device, const char *selector,
                       struct lt_kernels *table_out, struct lt_error *error);
lt_status cuda_create_exec(struct device *device, const struct lt_exec_params *params,
                           struct lt_exec **exec_out, struct lt_error *error);
size_t cuda_scratch_bytes(const struct device *device, const struct lt_scratch *scratch,
                          int thread_count);
lt_status cuda_set_scratch(struct device *device, size_t bytes, struct lt_error *error);
/* Gives back what the ops needed. */
void cuda_close_execs(struct cuda *cuda);
