/* Bytes that grow. A failure is kept and looked at once, at the end. Starts zeroed. */
#pragma once

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct text_buffer {
    char *data; /* not terminated; NULL while empty */
    size_t bytes, room;
    bool failed; /* out of memory, nothing added since */
};

static inline void text_buffer_add(struct text_buffer *to, const char *text, size_t bytes)
{
    if (to->failed || bytes == 0)
        return;
    if (to->room - to->bytes < bytes) {
        const size_t room = 2 * (to->bytes + bytes) + 64;
        char *grown = realloc(to->data, room);
        to->failed = !grown;
        if (!grown)
            return;
        to->data = grown;
        to->room = room;
    }
    memcpy(to->data + to->bytes, text, bytes);
    to->bytes += bytes;
}

static inline void text_buffer_fini(struct text_buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct text_buffer){0};
}
