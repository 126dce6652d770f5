#include "worker/weights/gguf_write.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ALIGNMENT = 32, VERSION = 3 };
enum { PAIR_U32 = 4, PAIR_I32 = 5, PAIR_F32 = 6, PAIR_FLAG = 7, PAIR_TEXT = 8, PAIR_ARRAY = 9 };

struct extent {
    uint64_t offset, bytes; /* absolute */
};

struct gguf_writer {
    int fd;
    char *path, *temporary; /* temporary is empty once renamed */
    struct extent *extent;
    size_t count;
};

/* -- header ------------------------------------------------------------------------------------ */

/* Grows; a failure is looked at once, at the end. */
struct header {
    uint8_t *data;
    size_t bytes, room;
    bool failed;
};

static void put(struct header *header, const void *data, size_t bytes)
{
    if (header->bytes + bytes > header->room && !header->failed) {
        const size_t room = 2 * (header->bytes + bytes) + 4096;
        uint8_t *grown = realloc(header->data, room);
        header->failed = !grown;
        if (grown) {
            header->data = grown;
            header->room = room;
        }
    }
    if (header->failed || bytes == 0)
        return;
    memcpy(header->data + header->bytes, data, bytes);
    header->bytes += bytes;
}

static void put_number(struct header *header, uint64_t value, size_t bytes)
{
    uint8_t byte[8];
    for (size_t i = 0; i < bytes; i++)
        byte[i] = (uint8_t)(value >> (8 * i));
    put(header, byte, bytes);
}

static void put_text(struct header *header, const char *text)
{
    put_number(header, strlen(text), 8);
    put(header, text, strlen(text));
}

static void put_array(struct header *header, const struct gguf_writer_pair *pair)
{
    put_number(header, PAIR_ARRAY, 4);
    put_number(header, pair->texts ? PAIR_TEXT : pair->floats ? PAIR_F32 : PAIR_I32, 4);
    put_number(header, pair->count, 8);
    for (size_t i = 0; pair->texts && i < pair->count; i++)
        put_text(header, pair->texts[i]);
    if (pair->floats)
        put(header, pair->floats, pair->count * sizeof *pair->floats);
    if (pair->numbers)
        put(header, pair->numbers, pair->count * sizeof *pair->numbers);
}

static void put_pair(struct header *header, const struct gguf_writer_pair *pair)
{
    put_text(header, pair->key);
    if (pair->texts || pair->floats || pair->numbers) {
        put_array(header, pair);
        return;
    }
    if (pair->flag) {
        put_number(header, PAIR_FLAG, 4);
        put_number(header, pair->number, 1);
        return;
    }
    put_number(header, pair->text ? PAIR_TEXT : PAIR_U32, 4);
    if (pair->text)
        put_text(header, pair->text);
    else
        put_number(header, pair->number, 4);
}

static uint64_t aligned(uint64_t offset)
{
    return (offset + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Extents are relative to the data's start until the header's size is known. */
static lt_status build_header(struct gguf_writer *writer, const struct gguf_writer_tensor *tensors,
                              const struct gguf_writer_pair *pairs, size_t pair_count,
                              struct header *header, struct lt_error *error)
{
    uint64_t offset = 0;
    put(header, "GGUF", 4);
    put_number(header, VERSION, 4);
    put_number(header, writer->count, 8);
    put_number(header, pair_count, 8);
    for (size_t i = 0; i < pair_count; i++)
        put_pair(header, &pairs[i]);
    for (size_t i = 0; i < writer->count; i++) {
        const struct gguf_writer_tensor *tensor = &tensors[i];
        uint64_t values = 1;
        put_text(header, tensor->name);
        put_number(header, (uint64_t)tensor->rank, 4);
        for (int d = tensor->rank - 1; d >= 0; d--) { /* innermost first */
            put_number(header, (uint64_t)tensor->dim[d], 8);
            values *= (uint64_t)tensor->dim[d];
        }
        put_number(header, (uint64_t)tensor->type, 4);
        put_number(header, offset, 8);
        writer->extent[i].offset = offset;
        if (tensor->type >= LT_TYPE_U8 ||
            !lt_type_bytes(tensor->type, values, &writer->extent[i].bytes))
            return lt_fail(error, LT_UNSUPPORTED,
                           "%s: tensor '%s': %llu values cannot be stored as type %d", writer->path,
                           tensor->name, (unsigned long long)values, (int)tensor->type);
        offset = aligned(offset + writer->extent[i].bytes);
    }
    while (!header->failed && header->bytes % ALIGNMENT != 0)
        put_number(header, 0, 1);
    if (header->failed)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for the header", writer->path);
    for (size_t i = 0; i < writer->count; i++)
        writer->extent[i].offset += header->bytes;
    return LT_OK;
}

/* -- file -------------------------------------------------------------------------------------- */

static lt_status write_at(const struct gguf_writer *writer, uint64_t offset, const void *data,
                          size_t bytes, struct lt_error *error)
{
    const uint8_t *from = data;
    while (bytes > 0) {
        const ssize_t written = pwrite(writer->fd, from, bytes, (off_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return lt_fail(error, LT_IO, "%s: cannot write: %s", writer->path, strerror(errno));
        from += written;
        offset += (uint64_t)written;
        bytes -= (size_t)written;
    }
    return LT_OK;
}

static lt_status open_file(struct gguf_writer *writer, const struct header *header,
                           struct lt_error *error)
{
    const struct extent *last = writer->extent + (writer->count ? writer->count - 1 : 0);
    const uint64_t end = writer->count > 0 ? aligned(last->offset + last->bytes) : header->bytes;
    writer->fd = open(writer->temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (writer->fd < 0)
        return lt_fail(error, LT_IO, "%s: cannot create: %s", writer->temporary, strerror(errno));
    /* a full disk is known now, not after ten minutes */
    const int reserved = posix_fallocate(writer->fd, 0, (off_t)end);
    if (reserved != 0)
        return lt_fail(error, LT_IO, "%s: cannot reserve %llu bytes: %s", writer->path,
                       (unsigned long long)end, strerror(reserved));
    return write_at(writer, 0, header->data, header->bytes, error);
}

lt_status gguf_writer_begin(const char *path, const struct gguf_writer_tensor *tensors,
                            size_t count, const struct gguf_writer_pair *pairs, size_t pair_count,
                            struct gguf_writer **writer_out, struct lt_error *error)
{
    struct gguf_writer *writer = calloc(1, sizeof *writer);
    struct header header = {0};
    lt_status status = LT_OK;
    if (!writer)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory", path);
    writer->fd = -1;
    writer->count = count;
    writer->path = strdup(path);
    writer->extent = calloc(count + 1, sizeof *writer->extent);
    if (asprintf(&writer->temporary, "%s.tmp.%ld", path, (long)getpid()) < 0)
        writer->temporary = NULL;
    if (!writer->path || !writer->extent || !writer->temporary)
        status = lt_fail(error, LT_NO_MEMORY, "%s: no memory", path);
    if (status == LT_OK)
        status = build_header(writer, tensors, pairs, pair_count, &header, error);
    if (status == LT_OK)
        status = open_file(writer, &header, error);
    free(header.data);
    if (status != LT_OK) {
        gguf_writer_abort(&writer);
        return status;
    }
    *writer_out = writer;
    return LT_OK;
}

lt_status gguf_writer_put(struct gguf_writer *writer, size_t tensor, uint64_t offset,
                          const void *data, size_t bytes, struct lt_error *error)
{
    lt_assert(tensor < writer->count && offset <= writer->extent[tensor].bytes &&
              bytes <= writer->extent[tensor].bytes - offset);
    return write_at(writer, writer->extent[tensor].offset + offset, data, bytes, error);
}

lt_status gguf_writer_end(struct gguf_writer **writer, struct lt_error *error)
{
    struct gguf_writer *w = *writer;
    lt_status status = LT_OK;
    if (fsync(w->fd) != 0 || rename(w->temporary, w->path) != 0)
        status = lt_fail(error, LT_IO, "%s: cannot finish: %s", w->path, strerror(errno));
    else
        *w->temporary = 0;
    gguf_writer_abort(writer);
    return status;
}

void gguf_writer_abort(struct gguf_writer **writer)
{
    struct gguf_writer *w = *writer;
    if (!w)
        return;
    if (w->fd >= 0) {
        close(w->fd);
        if (*w->temporary)
            unlink(w->temporary);
    }
    free(w->path);
    free(w->temporary);
    free(w->extent);
    free(w);
    *writer = NULL;
}
