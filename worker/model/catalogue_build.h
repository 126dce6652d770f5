/* How catalogues are filled. Used by catalogue.c and catalogue_encoders.c only. */
#pragma once

#include "worker/model/catalogue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A catalogue being filled: the first failure is kept and looked at once, at the end. */
struct builder {
    struct catalogue catalogue;
    bool failed;
};

static inline void add_named(struct builder *b, const char *name, int rank, const int64_t *dim)
{
    struct catalogue *c = &b->catalogue;
    if (c->count == c->room) {
        const size_t room = c->room ? 2 * c->room : 256;
        struct catalogue_entry *grown = realloc(c->entry, room * sizeof *grown);
        if (!grown) {
            b->failed = true;
            return;
        }
        c->entry = grown;
        c->room = room;
    }
    struct catalogue_entry *entry = &c->entry[c->count++];
    *entry = (struct catalogue_entry){.name = lt_arena_text(&c->arena, name), .rank = rank};
    memcpy(entry->dim, dim, (size_t)rank * sizeof *dim);
    b->failed = b->failed || !entry->name;
}

/* ADD(b, prefix, "q.weight", d, d): the numbers are the dims. */
#define ADD(b, prefix, name, ...)                                                                  \
    add(b, prefix, name, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                \
        (int64_t[]){__VA_ARGS__})

static inline void add(struct builder *b, const char *prefix, const char *name, int rank,
                       const int64_t *dim)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    add_named(b, full, rank, dim);
}

/* A Linear: weight [out, in] and bias [out]. */
static inline void add_linear(struct builder *b, const char *prefix, const char *name, int64_t out,
                              int64_t in)
{
    char full[256];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    ADD(b, full, ".weight", out, in);
    ADD(b, full, ".bias", out);
}

static inline void add_norm(struct builder *b, const char *prefix, const char *name, int64_t width)
{
    char full[256];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    ADD(b, full, ".weight", width);
    ADD(b, full, ".bias", width);
}

static inline void begin(struct builder *b)
{
    *b = (struct builder){0};
    lt_arena_init(&b->catalogue.arena, 0);
}

static inline lt_status finish(struct builder *b, struct catalogue *catalogue_out,
                               struct lt_error *error)
{
    if (b->failed) {
        catalogue_fini(&b->catalogue);
        return lt_fail(error, LT_NO_MEMORY, "no memory for the list of tensors");
    }
    *catalogue_out = b->catalogue;
    return LT_OK;
}
