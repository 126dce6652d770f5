/* Block-quantised types: their layouts are those of GGUF files (dit.md 1.1, 6.5). Reference
 * conversions; the fast ones of host/ are held to these. */
#pragma once

#include "common/status.h"
#include "common/view.h"

/* `count` values (a multiple of the type's block) to f32. Any float or quantised type of
 * common/view.h. */
void lt_dequantize_row(enum lt_type type, const void *from, float *to, int64_t count);

/* The inverse, for synthetic files: scales that minimise the squared error of each block.
 * LT_UNSUPPORTED for integer types. `to` has lt_type_bytes(type, count) of room. */
lt_status lt_quantize_row(enum lt_type type, const float *from, void *to, int64_t count,
                          struct lt_error *error);
