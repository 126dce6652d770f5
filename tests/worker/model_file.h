/* Builds small GGUF files in memory, right and wrong ones, and lends them a path (memfd). */
#pragma once

#include "common/view.h"
#include "worker/weights/tensor_file.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct bytes {
    uint8_t *data;
    size_t count, room;
};

static inline void put(struct bytes *to, const void *data, size_t count)
{
    if (to->count + count > to->room) {
        to->room = 2 * (to->count + count);
        to->data = realloc(to->data, to->room);
        lt_assert(to->data);
    }
    if (count)
        memcpy(to->data + to->count, data, count);
    to->count += count;
}

static inline void put_u32(struct bytes *to, uint32_t value)
{
    put(to, &value, sizeof value);
}

static inline void put_u64(struct bytes *to, uint64_t value)
{
    put(to, &value, sizeof value);
}

static inline void put_text(struct bytes *to, const char *text)
{
    put_u64(to, strlen(text));
    put(to, text, strlen(text));
}

static inline void put_padding(struct bytes *to, size_t alignment)
{
    while (to->count % alignment != 0)
        put(to, "", 1);
}

static inline void put_head(struct bytes *to, uint32_t version, uint64_t tensors, uint64_t pairs)
{
    put(to, "GGUF", 4);
    put_u32(to, version);
    put_u64(to, tensors);
    put_u64(to, pairs);
}

static inline void put_pair_u32(struct bytes *to, const char *key, uint32_t value)
{
    put_text(to, key);
    put_u32(to, 4);
    put_u32(to, value);
}

static inline void put_pair_text(struct bytes *to, const char *key, const char *value)
{
    put_text(to, key);
    put_u32(to, 8);
    put_text(to, value);
}

/* `dim` innermost first, as in the file. */
static inline void put_info(struct bytes *to, const char *name, uint32_t rank, const uint64_t *dim,
                            uint32_t type, uint64_t offset)
{
    put_text(to, name);
    put_u32(to, rank);
    for (uint32_t i = 0; i < rank; i++)
        put_u64(to, dim[i]);
    put_u32(to, type);
    put_u64(to, offset);
}

struct shaped {
    const char *name;
    enum lt_type type;
    int rank;
    int64_t dim[LT_RANK_MAX]; /* PyTorch order */
};

static inline uint64_t shaped_bytes(const struct shaped *tensor)
{
    uint64_t count = 1, bytes = 0;
    for (int i = 0; i < tensor->rank; i++)
        count *= (uint64_t)tensor->dim[i];
    lt_assert(lt_type_bytes(tensor->type, count, &bytes));
    return bytes;
}

/* A right file: tensor i is filled with the byte i + 1. */
static inline struct bytes gguf_of(const struct shaped *tensor, size_t count, const char *prefix)
{
    struct bytes file = {0};
    uint64_t offset = 0;
    put_head(&file, 3, count, 1);
    put_pair_text(&file, "general.architecture", "wan");
    for (size_t i = 0; i < count; i++) {
        uint64_t dim[LT_RANK_MAX];
        char name[256];
        for (int d = 0; d < tensor[i].rank; d++)
            dim[d] = (uint64_t)tensor[i].dim[tensor[i].rank - 1 - d];
        snprintf(name, sizeof name, "%s%s", prefix, tensor[i].name);
        put_info(&file, name, (uint32_t)tensor[i].rank, dim, tensor[i].type, offset);
        offset += (shaped_bytes(&tensor[i]) + 31) / 32 * 32;
    }
    put_padding(&file, 32);
    for (size_t i = 0; i < count; i++) {
        const uint8_t byte = (uint8_t)(i + 1);
        for (uint64_t b = 0; b < shaped_bytes(&tensor[i]); b++)
            put(&file, &byte, 1);
        put_padding(&file, 32);
    }
    return file;
}

/* A path under which the bytes can be opened; the descriptor closes it. */
static inline int lend_path(const void *data, size_t count, char path[64])
{
    const int fd = memfd_create("model", MFD_CLOEXEC);
    lt_assert(fd >= 0 && write(fd, data, count) == (ssize_t)count);
    snprintf(path, 64, "/proc/self/fd/%d", fd);
    return fd;
}
