#include "common/safetensors.h"

#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct lt_safetensors_writer {
    int fd;
    char *path, *temporary;
    uint64_t *offset, *bytes; /* of each tensor, absolute */
    size_t count;
};

/* A growing text; `failed` is looked at once, at the end. */
struct text {
    char *data;
    size_t used, room;
    bool failed;
};

static void add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct text *text, const char *format, ...)
{
    for (int attempt = 0; attempt < 2 && !text->failed; attempt++) {
        va_list args;
        va_start(args, format);
        const int need = vsnprintf(text->data ? text->data + text->used : NULL,
                                   text->room - text->used, format, args);
        va_end(args);
        if (need >= 0 && (size_t)need < text->room - text->used) {
            text->used += (size_t)need;
            return;
        }
        const size_t room = 2 * (text->room + (size_t)(need < 0 ? 0 : need) + 64);
        char *grown = realloc(text->data, room);
        text->failed = need < 0 || !grown;
        if (grown) {
            text->data = grown;
            text->room = room;
        }
    }
}

static void add_string(struct text *text, const char *string)
{
    add(text, "\"");
    for (; *string; string++) {
        const unsigned char c = (unsigned char)*string;
        if (c == '"' || c == '\\')
            add(text, "\\%c", c);
        else if (c < 0x20)
            add(text, "\\u%04x", c);
        else
            add(text, "%c", c);
    }
    add(text, "\"");
}

static const char *dtype_name(enum lt_type type)
{
    const struct lt_type_info *info = lt_type_info(type);
    return info && info->block_values == 1 ? info->name : NULL;
}

static lt_status build_header(struct lt_safetensors_writer *writer,
                              const struct lt_named_view *tensors, const char *const *pairs,
                              size_t pair_count, struct text *text, struct lt_error *error)
{
    uint64_t offset = 0;
    add(text, "{");
    if (pair_count) {
        add(text, "\"__metadata__\":{");
        for (size_t i = 0; i < pair_count; i++) {
            add(text, "%s", i ? "," : "");
            add_string(text, pairs[2 * i]);
            add(text, ":");
            add_string(text, pairs[2 * i + 1]);
        }
        add(text, "}%s", writer->count ? "," : "");
    }
    for (size_t i = 0; i < writer->count; i++) {
        const struct lt_view *view = &tensors[i].view;
        const char *dtype = dtype_name(view->type);
        if (!dtype || !lt_type_bytes(view->type, (uint64_t)lt_view_count(view), &writer->bytes[i]))
            return lt_fail(error, LT_UNSUPPORTED,
                           "%s: tensor '%s': this type has no safetensors name", writer->path,
                           tensors[i].name);
        writer->offset[i] = offset;
        add(text, "%s", i ? "," : "");
        add_string(text, tensors[i].name);
        add(text, ":{\"dtype\":\"%s\",\"shape\":[", dtype);
        for (int d = 0; d < view->rank; d++)
            add(text, "%s%lld", d ? "," : "", (long long)view->dim[d]);
        add(text, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)offset,
            (unsigned long long)(offset + writer->bytes[i]));
        offset += writer->bytes[i]; /* no gaps: the reference reader refuses them */
    }
    add(text, "}");
    while (!text->failed && (text->used + 8) % 64 != 0) /* so that data starts aligned */
        add(text, " ");
    if (text->failed)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for the header", writer->path);
    for (size_t i = 0; i < writer->count; i++)
        writer->offset[i] += text->used + 8;
    return LT_OK;
}

static lt_status write_at(int fd, const char *path, uint64_t offset, const void *data, size_t bytes,
                          struct lt_error *error)
{
    const char *from = data;
    while (bytes > 0) {
        const ssize_t put = pwrite(fd, from, bytes, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return lt_fail(error, LT_IO, "%s: cannot write: %s", path, strerror(errno));
        from += put;
        offset += (uint64_t)put;
        bytes -= (size_t)put;
    }
    return LT_OK;
}

static lt_status begin(const char *path, const struct lt_named_view *tensors, size_t count,
                       const char *const *pairs, size_t pair_count,
                       struct lt_safetensors_writer **writer_out, struct lt_error *error)
{
    struct text text = {0};
    struct lt_safetensors_writer *writer = calloc(1, sizeof *writer);
    lt_status status = LT_OK;
    if (!writer)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory", path);
    writer->fd = -1;
    writer->count = count;
    writer->path = strdup(path);
    writer->offset = calloc(count ? count : 1, sizeof *writer->offset);
    writer->bytes = calloc(count ? count : 1, sizeof *writer->bytes);
    if (asprintf(&writer->temporary, "%s.tmp.%ld", path, (long)getpid()) < 0)
        writer->temporary = NULL;
    if (!writer->path || !writer->offset || !writer->bytes || !writer->temporary) {
        status = lt_fail(error, LT_NO_MEMORY, "%s: no memory", path);
        goto out;
    }
    LT_TRY_OR(build_header(writer, tensors, pairs, pair_count, &text, error), out);
    writer->fd = open(writer->temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (writer->fd < 0) {
        status = lt_fail(error, LT_IO, "%s: cannot create: %s", writer->temporary, strerror(errno));
        goto out;
    }
    uint8_t size[8];
    for (int i = 0; i < 8; i++)
        size[i] = (uint8_t)((uint64_t)text.used >> (8 * i));
    LT_TRY_OR(write_at(writer->fd, path, 0, size, 8, error), out);
    LT_TRY_OR(write_at(writer->fd, path, 8, text.data, text.used, error), out);
    if (count) {
        const uint64_t end = writer->offset[count - 1] + writer->bytes[count - 1];
        if (ftruncate(writer->fd, (off_t)end) != 0)
            status = lt_fail(error, LT_IO, "%s: cannot reserve %llu bytes: %s", path,
                             (unsigned long long)end, strerror(errno));
    }
out:
    free(text.data);
    if (status != LT_OK) {
        lt_safetensors_writer_abort(&writer);
        return status;
    }
    *writer_out = writer;
    return LT_OK;
}

lt_status lt_safetensors_writer_begin(const char *path, const struct lt_named_view *tensors,
                                      size_t count, struct lt_safetensors_writer **writer_out,
                                      struct lt_error *error)
{
    return begin(path, tensors, count, NULL, 0, writer_out, error);
}

lt_status lt_safetensors_writer_put(struct lt_safetensors_writer *writer, size_t tensor,
                                    uint64_t offset, const void *data, size_t bytes,
                                    struct lt_error *error)
{
    lt_assert(tensor < writer->count && offset <= writer->bytes[tensor] &&
              bytes <= writer->bytes[tensor] - offset);
    return write_at(writer->fd, writer->temporary, writer->offset[tensor] + offset, data, bytes,
                    error);
}

lt_status lt_safetensors_writer_end(struct lt_safetensors_writer **writer, struct lt_error *error)
{
    struct lt_safetensors_writer *w = *writer;
    lt_status status = LT_OK;
    if (fsync(w->fd) != 0 || rename(w->temporary, w->path) != 0)
        status = lt_fail(error, LT_IO, "%s: cannot finish: %s", w->path, strerror(errno));
    else
        *w->temporary = 0; /* it has its final name: nothing to remove */
    lt_safetensors_writer_abort(writer);
    return status;
}

void lt_safetensors_writer_abort(struct lt_safetensors_writer **writer)
{
    struct lt_safetensors_writer *w = *writer;
    if (!w)
        return;
    if (w->fd >= 0) {
        close(w->fd);
        if (*w->temporary)
            unlink(w->temporary);
    }
    free(w->path);
    free(w->temporary);
    free(w->offset);
    free(w->bytes);
    free(w);
    *writer = NULL;
}

lt_status lt_safetensors_write(const char *path, const struct lt_named_view *tensors, size_t count,
                               const char *const *metadata_pairs, size_t metadata_pair_count,
                               struct lt_error *error)
{
    struct lt_safetensors_writer *writer = NULL;
    LT_TRY(begin(path, tensors, count, metadata_pairs, metadata_pair_count, &writer, error));
    for (size_t i = 0; i < count; i++) {
        lt_assert(lt_view_is_contiguous(&tensors[i].view));
        const lt_status status =
            lt_safetensors_writer_put(writer, i, 0, tensors[i].view.data, writer->bytes[i], error);
        if (status != LT_OK) {
            lt_safetensors_writer_abort(&writer);
            return status;
        }
    }
    return lt_safetensors_writer_end(&writer, error);
}
