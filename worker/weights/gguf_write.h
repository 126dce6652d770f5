/* Writes a GGUF v3 file whose tensors come in pieces, from several threads. Only a successful end
 * gives the file its name; until then it is PATH.tmp.<pid>, and abort removes it. */
#pragma once

#include "worker/weights/tensor_file.h"

struct gguf_writer;

struct gguf_writer_tensor {
    const char *name;
    enum lt_type type; /* of the GGUF ids */
    int rank;
    int64_t dim[LT_RANK_MAX]; /* PyTorch order */
};

/* One of: a text; an array of `count` texts, floats, or numbers; else `number`, as u32. */
struct gguf_writer_pair {
    const char *key;
    const char *text;
    const char *const *texts;
    const float *floats;
    const int32_t *numbers;
    size_t count;
    uint32_t number;
    bool flag; /* `number` is a truth value */
};

/* The whole header is written and the data's room reserved. Names and pairs are not kept. */
lt_status gguf_writer_begin(const char *path, const struct gguf_writer_tensor *tensors,
                            size_t count, const struct gguf_writer_pair *pairs, size_t pair_count,
                            struct gguf_writer **writer_out, struct lt_error *error);
/* Bytes [offset, offset + bytes) of a tensor. Safe from several threads for ranges that do not
 * overlap. */
lt_status gguf_writer_put(struct gguf_writer *writer, size_t tensor, uint64_t offset,
                          const void *data, size_t bytes, struct lt_error *error);
/* Both free the writer and leave NULL; end syncs and renames, or fails and removes. */
lt_status gguf_writer_end(struct gguf_writer **writer, struct lt_error *error);
void gguf_writer_abort(struct gguf_writer **writer);
