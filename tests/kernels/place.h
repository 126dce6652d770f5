/* Where the checked ops run, and memory that both they and the reference may touch: the host
 * (place_host.c) or a CUDA device (place_cuda.c). */
#pragma once

#include "kernels/exec.h"
#include "kernels/kernels.h"

void place_kernels_init(struct lt_kernels *best);
lt_status place_exec_create(int threads, enum lt_precision precision, struct lt_exec **exec_out,
                            struct lt_error *error);
void place_exec_destroy(struct lt_exec **exec);

/* 64-byte aligned; NULL when out of memory. */
void *place_allocate(size_t bytes);
void place_free(void *data);
