/* A view: typed, shaped memory that somebody else owns. Dims are in PyTorch order (outermost
 * first). Strides count elements, for float types; quantised types are contiguous rows of blocks
 * along the last dim. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LT_RANK_MAX = 5 };

/*   name, ggml type id, values per block, bytes per block */
#define LT_TYPE_LIST(X)                                                                            \
    X(F32, 0, 1, 4)                                                                                \
    X(F16, 1, 1, 2)                                                                                \
    X(Q4_0, 2, 32, 18)                                                                             \
    X(Q4_1, 3, 32, 20)                                                                             \
    X(Q5_0, 6, 32, 22)                                                                             \
    X(Q5_1, 7, 32, 24)                                                                             \
    X(Q8_0, 8, 32, 34)                                                                             \
    X(Q2_K, 10, 256, 84)                                                                           \
    X(Q3_K, 11, 256, 110)                                                                          \
    X(Q4_K, 12, 256, 144)                                                                          \
    X(Q5_K, 13, 256, 176)                                                                          \
    X(Q6_K, 14, 256, 210)                                                                          \
    X(I8, 24, 1, 1)                                                                                \
    X(I16, 25, 1, 2)                                                                               \
    X(I32, 26, 1, 4)                                                                               \
    X(I64, 27, 1, 8)                                                                               \
    X(F64, 28, 1, 8)                                                                               \
    X(BF16, 30, 1, 2)                                                                              \
    X(U8, 200, 1, 1) /* ids from 200 are ours: not in GGUF */                                      \
    X(BOOL, 201, 1, 1)                                                                             \
    X(F8_E4M3, 202, 1, 1) /* 1-4-3 bits, largest 448, no infinity */                               \
    X(F8_E5M2, 203, 1, 1) /* the upper half of an F16 */

enum lt_type {
#define LT_TYPE_ENUM(name, id, values, bytes) LT_TYPE_##name = id,
    LT_TYPE_LIST(LT_TYPE_ENUM)
#undef LT_TYPE_ENUM
};

struct lt_type_info {
    enum lt_type type;
    const char *name;      /* "Q5_K" */
    uint32_t block_values; /* 1, 32 or 256 */
    uint32_t block_bytes;
};

/* NULL for an unknown id. */
const struct lt_type_info *lt_type_info(enum lt_type type);
const struct lt_type_info *
lt_type_by_name(const char *name); /* "q5_k", any case; NULL if unknown */

struct lt_view {
    void *data; /* NULL: "not given", where an op allows it */
    enum lt_type type;
    int rank;
    int64_t dim[LT_RANK_MAX];
    int64_t
        stride[LT_RANK_MAX]; /* in elements; for quantised types as if one value were one element */
};

/* A contiguous view. */
struct lt_view lt_view_make(void *data, enum lt_type type, int rank, const int64_t *dim);
struct lt_view lt_view_1d(void *data, enum lt_type type, int64_t d0);
struct lt_view lt_view_2d(void *data, enum lt_type type, int64_t d0, int64_t d1);
struct lt_view lt_view_3d(void *data, enum lt_type type, int64_t d0, int64_t d1, int64_t d2);
struct lt_view lt_view_4d(void *data, enum lt_type type, int64_t d0, int64_t d1, int64_t d2,
                          int64_t d3);

int64_t lt_view_count(const struct lt_view *view);
bool lt_view_is_contiguous(const struct lt_view *view);
/* Bytes of `count` values, count a multiple of the block; false when that is not so or overflows.
 */
bool lt_type_bytes(enum lt_type type, uint64_t count, uint64_t *bytes_out);
/* Rows [first, first+count) of the outermost dim. */
struct lt_view lt_view_rows(const struct lt_view *view, int64_t first, int64_t count);
/* The same memory with other dims; contiguous views only. */
struct lt_view lt_view_reshape(const struct lt_view *view, int rank, const int64_t *dim);
