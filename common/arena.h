/* A bump allocator for things that die together (a task, a step, a parse).
 *
 *   chunk: [ header | aaaa bbb cccccc ....free.... ] -> next chunk
 *
 * Allocations are 64-byte aligned and zeroed on request. mark/rewind give back everything taken
 * since the mark; chunks stay for reuse until fini. A limit (bytes, 0 = none) makes the arena
 * refuse with NULL. Memory comes from the system, or from a source of its own: a device's. Not
 * thread-safe: one arena has one owner. */
#pragma once

#include <stddef.h>

struct lt_arena_chunk;

/* Where chunks come from; 64-byte aligned or NULL. The arena never touches what they hold. */
struct lt_arena_source {
    void *(*take)(void *context, size_t bytes);
    void (*give)(void *context, void *data, size_t bytes);
    void *context;
};

struct lt_arena {
    struct lt_arena_chunk *first, *current;
    struct lt_arena_source source; /* take NULL: the system's RAM */
    size_t limit_bytes;            /* 0: no limit */
    size_t used_bytes;             /* handed out now */
    size_t peak_bytes;             /* highest used_bytes */
    size_t reserved_bytes;         /* held from the system */
};

struct lt_mark {
    struct lt_arena_chunk *chunk;
    size_t chunk_used, used_bytes;
};

void lt_arena_init(struct lt_arena *arena, size_t limit_bytes);
void lt_arena_init_from(struct lt_arena *arena, const struct lt_arena_source *source);
void lt_arena_fini(struct lt_arena *arena); /* accepts a zeroed arena */

/* NULL when the limit or the source refuses. Size 0 gives a valid pointer. */
void *lt_arena_take(struct lt_arena *arena, size_t bytes);
/* Of RAM only, as lt_arena_text. */
void *lt_arena_take_zeroed(struct lt_arena *arena, size_t bytes);
/* count * bytes with overflow check. */
void *lt_arena_take_array(struct lt_arena *arena, size_t count, size_t bytes);
char *lt_arena_text(struct lt_arena *arena, const char *text);

struct lt_mark lt_arena_mark(const struct lt_arena *arena);
void lt_arena_rewind(struct lt_arena *arena, struct lt_mark mark);
