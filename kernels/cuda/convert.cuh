/* Dequantisation, for the ops that multiply with weights as well. */
#pragma once

#include "kernels/cuda/op.cuh"

/* Queues out[i] = in[i] for `count` values, `out` of F32, F16 or BF16 and aligned to 16 bytes, `in`
 * any float or quantised type. LT_UNSUPPORTED for integer types. */
lt_status convert_values(const struct lt_exec_cuda *cuda, const char *op, enum lt_type in_type,
                         const void *in, enum lt_type out_type, void *out, int64_t count,
                         struct lt_error *error);
