#include "common/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(pointer, bytes)   ((void)(pointer), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(pointer, bytes) ((void)(pointer), (void)(bytes))
#endif

enum { ALIGNMENT = 64, CHUNK_BYTES_MIN = 64 * 1024 };

struct lt_arena_chunk {
    struct lt_arena_chunk *next;
    size_t size_bytes, used_bytes;
    unsigned char *data; /* behind the header, or the source's */
    _Alignas(64) unsigned char own[];
};

void lt_arena_init(struct lt_arena *arena, size_t limit_bytes)
{
    *arena = (struct lt_arena){.limit_bytes = limit_bytes};
}

void lt_arena_init_from(struct lt_arena *arena, const struct lt_arena_source *source)
{
    *arena = (struct lt_arena){.source = *source};
}

/* Only RAM of our own is poisoned: the program cannot reach a source's memory, or not safely. */
static void forbid(const struct lt_arena_chunk *chunk, size_t from)
{
    if (chunk->data == chunk->own)
        ASAN_POISON_MEMORY_REGION(chunk->data + from, chunk->size_bytes - from);
}

static void allow(const struct lt_arena_chunk *chunk, const void *data, size_t bytes)
{
    if (chunk->data == chunk->own)
        ASAN_UNPOISON_MEMORY_REGION(data, bytes);
}

void lt_arena_fini(struct lt_arena *arena)
{
    for (struct lt_arena_chunk *chunk = arena->first; chunk;) {
        struct lt_arena_chunk *next = chunk->next;
        allow(chunk, chunk->data, chunk->size_bytes);
        if (chunk->data != chunk->own)
            arena->source.give(arena->source.context, chunk->data, chunk->size_bytes);
        free(chunk);
        chunk = next;
    }
    *arena = (struct lt_arena){.limit_bytes = arena->limit_bytes, .source = arena->source};
}

static struct lt_arena_chunk *make_chunk(const struct lt_arena_source *source, size_t size)
{
    const size_t own = source->take ? 0 : size;
    struct lt_arena_chunk *chunk =
        aligned_alloc(ALIGNMENT, (sizeof *chunk + own + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    if (!chunk)
        return NULL;
    chunk->data = source->take ? source->take(source->context, size) : chunk->own;
    if (chunk->data)
        return chunk;
    free(chunk);
    return NULL;
}

/* Gives a chunk with `bytes` free behind the current one: a kept one when it is large enough, else
 * new. */
static struct lt_arena_chunk *next_chunk(struct lt_arena *arena, size_t bytes)
{
    struct lt_arena_chunk *kept = arena->current ? arena->current->next : arena->first;
    if (kept && kept->size_bytes >= bytes) {
        kept->used_bytes = 0;
        return kept;
    }
    const size_t size = bytes > CHUNK_BYTES_MIN ? bytes : CHUNK_BYTES_MIN;
    struct lt_arena_chunk *chunk = make_chunk(&arena->source, size);
    if (!chunk)
        return NULL;
    chunk->size_bytes = size;
    chunk->used_bytes = 0;
    chunk->next = kept;
    if (arena->current)
        arena->current->next = chunk;
    else
        arena->first = chunk;
    arena->reserved_bytes += size;
    forbid(chunk, 0);
    return chunk;
}

void *lt_arena_take(struct lt_arena *arena, size_t bytes)
{
    if (bytes > SIZE_MAX / 2)
        return NULL;
    const size_t size = (bytes ? bytes + ALIGNMENT - 1 : ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    if (arena->limit_bytes && size > arena->limit_bytes - arena->used_bytes)
        return NULL;
    struct lt_arena_chunk *chunk = arena->current;
    if (!chunk || chunk->size_bytes - chunk->used_bytes < size) {
        chunk = next_chunk(arena, size);
        if (!chunk)
            return NULL;
        arena->current = chunk;
    }
    void *pointer = chunk->data + chunk->used_bytes;
    chunk->used_bytes += size;
    arena->used_bytes += size;
    if (arena->used_bytes > arena->peak_bytes)
        arena->peak_bytes = arena->used_bytes;
    allow(chunk, pointer, bytes);
    return pointer;
}

void *lt_arena_take_zeroed(struct lt_arena *arena, size_t bytes)
{
    void *pointer = lt_arena_take(arena, bytes);
    return pointer ? memset(pointer, 0, bytes) : NULL;
}

void *lt_arena_take_array(struct lt_arena *arena, size_t count, size_t bytes)
{
    size_t total;
    return __builtin_mul_overflow(count, bytes, &total) ? NULL : lt_arena_take(arena, total);
}

char *lt_arena_text(struct lt_arena *arena, const char *text)
{
    const size_t bytes = strlen(text) + 1;
    char *copy = lt_arena_take(arena, bytes);
    return copy ? memcpy(copy, text, bytes) : NULL;
}

struct lt_mark lt_arena_mark(const struct lt_arena *arena)
{
    return (struct lt_mark){arena->current, arena->current ? arena->current->used_bytes : 0,
                            arena->used_bytes};
}

void lt_arena_rewind(struct lt_arena *arena, struct lt_mark mark)
{
    for (struct lt_arena_chunk *chunk = mark.chunk ? mark.chunk : arena->first; chunk;
         chunk = chunk->next) {
        const size_t keep = chunk == mark.chunk ? mark.chunk_used : 0;
        forbid(chunk, keep);
        chunk->used_bytes = keep;
        if (chunk == arena->current)
            break;
    }
    arena->current = mark.chunk;
    arena->used_bytes = mark.used_bytes;
}
