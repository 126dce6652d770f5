/* The product with weights, for the ops built on it. */
#pragma once

#include "kernels/cuda/op.cuh"

/* Queues what lt_linear says, without its checks; `op` is named in errors. */
lt_status linear_queue(const struct lt_exec_cuda *cuda, const char *op,
                       const struct lt_linear_args *args, struct lt_error *error);
