/* The deterministic fill of dit.md 8.1: weights and inputs that need no file, the same in every
 * language. */
#pragma once

#include "common/safetensors.h"
#include "worker/model/catalogue.h"

#include <stdlib.h>
#include <string.h>

/* Values 2·(s/2³²) - 1 of a linear congruential generator seeded by FNV-1a of the name. */
static inline void fill_values(const char *name, float *to, size_t count)
{
    uint32_t s = 2166136261u;
    for (const char *c = name; *c; c++)
        s = (s ^ (unsigned char)*c) * 16777619u;
    for (size_t i = 0; i < count; i++) {
        s = s * 1664525u + 1013904223u;
        to[i] = (float)(2.0 * ((double)s / 4294967296.0) - 1.0);
    }
}

static inline void fill_weights(const char *name, float *to, size_t count)
{
    const size_t length = strlen(name);
    const bool norm =
        (length > 7 && strcmp(name + length - 7, ".weight") == 0 && strstr(name, "norm")) ||
        strcmp(name, "img_emb.proj.0.weight") == 0 || strcmp(name, "img_emb.proj.4.weight") == 0;
    fill_values(name, to, count);
    for (size_t i = 0; i < count; i++)
        to[i] = norm ? 1 + 0.1f * to[i] : 0.1f * to[i];
}

/* A model file with every tensor of the catalogue that `wants` takes (NULL: all), as `fill` gives
 * it. */
typedef void fill_entry(const struct catalogue_entry *entry, float *to, size_t count);

static inline void fill_like_golden(const struct catalogue_entry *entry, float *to, size_t count)
{
    fill_weights(entry->name, to, count);
}

static inline lt_status fill_file(const char *path, const struct catalogue *catalogue,
                                  fill_entry *fill, bool (*wants)(const char *name),
                                  struct lt_error *error)
{
    size_t kept = 0;
    struct lt_named_view *tensors = calloc(catalogue->count, sizeof *tensors);
    lt_assert(tensors);
    for (size_t i = 0; i < catalogue->count; i++) {
        const struct catalogue_entry *entry = &catalogue->entry[i];
        const size_t count = (size_t)catalogue_values(entry);
        if (wants && !wants(entry->name))
            continue;
        float *data = malloc(count * sizeof *data);
        lt_assert(data);
        fill(entry, data, count);
        tensors[kept++] = (struct lt_named_view){
            entry->name, lt_view_make(data, LT_TYPE_F32, entry->rank, entry->dim)};
    }
    const lt_status status = lt_safetensors_write(path, tensors, kept, NULL, 0, error);
    for (size_t i = 0; i < kept; i++)
        free(tensors[i].view.data);
    free(tensors);
    return status;
}

/* The same file with zeros for values, which take no room on disk: only its index says something.
 */
static inline lt_status sparse_file(const char *path, const struct catalogue *catalogue,
                                    struct lt_error *error)
{
    struct lt_safetensors_writer *writer = NULL;
    struct lt_named_view *tensors = calloc(catalogue->count, sizeof *tensors);
    lt_assert(tensors);
    for (size_t i = 0; i < catalogue->count; i++)
        tensors[i] = (struct lt_named_view){
            catalogue->entry[i].name,
            lt_view_make(NULL, LT_TYPE_BF16, catalogue->entry[i].rank, catalogue->entry[i].dim)};
    lt_status status = lt_safetensors_writer_begin(path, tensors, catalogue->count, &writer, error);
    free(tensors);
    return status == LT_OK ? lt_safetensors_writer_end(&writer, error) : status;
}
