/* The header of a GGUF v2/v3 file: metadata and tensor index. Everything is bounded by the file's
 * size before it is allocated. Used by tensor_file.c only. */
#pragma once

#include "common/arena.h"
#include "worker/weights/tensor_file.h"

struct gguf_pair {
    const char *key, *value; /* string form; arrays as "[n]" except orig_shape, which is applied */
    struct gguf_pair *next;
};

struct gguf_array { /* of numbers or of texts; nested ones are passed over */
    const char *key;
    struct tensor_file_array array;
    struct gguf_array *next;
};

struct gguf_index {
    uint32_t version;
    uint64_t data_offset; /* where the header ends, aligned */
    struct tensor_info *tensor;
    size_t count;
    struct gguf_pair *metadata;
    struct gguf_array *arrays;
};

/* Bytes of the file; fails when the range is not inside it. */
typedef lt_status gguf_read(void *context, uint64_t offset, void *data, size_t bytes,
                            struct lt_error *error);

/* Names and index live in `arena`. */
lt_status gguf_parse(gguf_read *read, void *context, uint64_t file_bytes, const char *path,
                     struct lt_arena *arena, struct gguf_index *index_out, struct lt_error *error);
