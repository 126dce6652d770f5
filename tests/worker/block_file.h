/* A model file of `blocks` equal blocks and a few tensors outside them, every byte telling its
 * tensor, and a walk over it that checks each byte: what a forward does to a store, without the
 * arithmetic. */
#pragma once

#include "tests/test.h"
#include "tests/worker/model_file.h"
#include "worker/weights/store.h"

enum { BLOCK_FILE_TENSORS = 3, BLOCK_FILE_REST = 4 };

struct block_file {
    struct tensor_file *file;
    int fd;
    size_t blocks;
    uint64_t block_bytes, rest_bytes; /* without padding */
};

/* By name and position: each tensor its own, no two alike nearby. */
static inline uint8_t block_file_byte(const char *name, uint64_t i)
{
    uint32_t hash = 2166136261u;
    for (const char *c = name; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 16777619u;
    return (uint8_t)(hash ^ (hash >> 11) ^ (uint32_t)(i * 131));
}

static inline void block_file_name(char name[64], size_t block, int tensor)
{
    static const char *const parts[] = {"self_attn.q.weight", "ffn.0.weight", "norm3.bias"};
    snprintf(name, 64, "blocks.%zu.%s", block, parts[tensor]);
}

/* `rows` rows of 256 bytes in the larger tensors. */
static inline struct block_file block_file_open(size_t blocks, int64_t rows)
{
    static const char *const rest[] = {"patch_embedding.weight", "time_projection.1.weight",
                                       "text_embedding.0.weight", "head.head.weight"};
    const size_t count = blocks * BLOCK_FILE_TENSORS + BLOCK_FILE_REST;
    struct shaped *tensor = calloc(count, sizeof *tensor);
    char(*name)[64] = calloc(count, sizeof *name);
    struct block_file made = {.blocks = blocks};
    struct lt_error error;
    char path[64];
    size_t n = 0;
    lt_assert(tensor && name);
    for (size_t i = 0; i < count; i++) {
        const bool outside = i < BLOCK_FILE_REST - 1 || i == count - 1; /* around the blocks */
        const size_t inside = i - (BLOCK_FILE_REST - 1);
        const int part = (int)(inside % BLOCK_FILE_TENSORS);
        if (outside)
            snprintf(name[i], sizeof name[i], "%s", rest[n++]);
        else
            block_file_name(name[i], inside / BLOCK_FILE_TENSORS, part);
        tensor[i] = (struct shaped){name[i], LT_TYPE_F16, 2, {outside ? 3 : rows, 128}};
        if (!outside && part == 2)
            tensor[i] = (struct shaped){name[i], LT_TYPE_F32, 1, {7}};
        *(outside ? &made.rest_bytes : &made.block_bytes) += shaped_bytes(&tensor[i]);
    }
    made.block_bytes /= blocks ? blocks : 1;
    struct bytes bytes = gguf_of(tensor, count, "");
    uint64_t at = bytes.count; /* data ends the file: walk it backwards */
    for (size_t i = count; i-- > 0;) {
        at -= shaped_bytes(&tensor[i]);
        at = at / 32 * 32;
        for (uint64_t b = 0; b < shaped_bytes(&tensor[i]); b++)
            bytes.data[at + b] = block_file_byte(name[i], b);
    }
    made.fd = lend_path(bytes.data, bytes.count, path);
    free(bytes.data);
    free(name);
    free(tensor);
    assert_ok(tensor_file_open(path, &made.file, &error));
    return made;
}

static inline void block_file_close(struct block_file *made)
{
    tensor_file_close(&made->file);
    close(made->fd);
}

static inline void block_file_check(const struct store *store, const char *name)
{
    struct lt_error error;
    struct lt_view view;
    uint64_t bytes = 0;
    assert_ok(store_tensor(store, name, &view, &error));
    assert_non_null(view.data);
    lt_assert(lt_type_bytes(view.type, (uint64_t)lt_view_count(&view), &bytes));
    for (uint64_t i = 0; i < bytes; i++)
        if (((const uint8_t *)view.data)[i] != block_file_byte(name, i))
            fail_msg("%s: byte %llu is of another tensor", name, (unsigned long long)i);
}

/* Uses one block; on the virtual clock its compute takes `compute_us`. */
static inline lt_status block_file_use(struct store *store, size_t block, struct device *device,
                                       int64_t compute_us, struct lt_error *error)
{
    LT_TRY(store_acquire(store, block, error));
    for (int t = 0; t < BLOCK_FILE_TENSORS; t++) {
        char name[64];
        block_file_name(name, block, t);
        block_file_check(store, name);
    }
    if (compute_us)
        device_compute_for(device, compute_us);
    store_release(store, block);
    return LT_OK;
}

static inline void block_file_forward(struct store *store, struct device *device,
                                      int64_t compute_us)
{
    static const char *const names[STORE_GROUP_COUNT] = {
        [STORE_GROUP_TIME] = "time_projection.1.weight",
        [STORE_GROUP_PROMPT] = "text_embedding.0.weight"};
    struct lt_error error;
    for (int group = STORE_GROUP_COUNT - 1; group > STORE_GROUP_REST; group--) {
        assert_ok(store_acquire_group(store, (enum store_group)group, &error));
        block_file_check(store, names[group]);
        store_release_group(store, (enum store_group)group);
    }
    for (size_t block = 0; block < store_block_count(store); block++)
        assert_ok(block_file_use(store, block, device, compute_us, &error));
}
