/* Shared by the bodies of libcudart, cuBLAS and NCCL. */
#pragma once

#include "cuemu/queue.h"

#include <cuda_runtime_api.h>
#include <functional>

namespace cuemu
{

/* The stream behind a handle in `s_out` (NULL: the legacy stream of the current device); false: no
 * stream of ours. */
bool stream_of(cudaStream_t handle, stream **s_out);
int current_device();
/* True on the n-th call of `name` where CUEMU_FAIL=name:n. */
bool told_to_fail(const char *name);
/* All later calls return this error, as after a fault of a kernel. */
void set_sticky(cudaError_t error);
cudaError_t sticky();

} // namespace cuemu
