/* What the tests of the encoders share: files with the weights of their golden scripts, in any
 * published form, and comparison with what the original gave. */
#pragma once

#include "tests/worker/fill.h"
#include "worker/weights/names.h"

#include <math.h>
#include <stdatomic.h>

static inline bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* weight() of tests/golden/vision/make.py and audio/make.py; `name` as transformers has it. */
static inline void fill_scaled(const char *name, int rank, size_t rows, float *to, size_t count)
{
    float centre = 0, scale = sqrtf(3.0f / (float)(count / rows));
    if (ends_with(name, ".original0") || (ends_with(name, ".weight") && strstr(name, "norm"))) {
        centre = 1;
        scale = 0.3f;
    } else if (ends_with(name, ".bias")) {
        scale = 0.1f;
    } else if (rank == 1) {
        scale = 1;
    }
    fill_values(name, to, count);
    for (size_t i = 0; i < count; i++)
        to[i] = centre + scale * to[i];
}

/* The values of a tensor of the one form: those of its name in `origin`; of a matrix that holds
 * three, one after another. */
static inline void fill_one(const struct catalogue_entry *entry, enum names_form origin, float *to)
{
    char name[256], published[256];
    const char *fused = strstr(entry->name, "to_qkv");
    const size_t parts = fused ? 3 : 1, count = (size_t)catalogue_values(entry) / parts;
    for (size_t i = 0; i < parts; i++) {
        snprintf(name, sizeof name, "%s", entry->name);
        if (fused)
            snprintf(name + (fused - entry->name), sizeof name - (size_t)(fused - entry->name),
                     "%c%s", "qkv"[i], fused + 6);
        names_in_form(origin, name, published, sizeof published);
        fill_scaled(published, entry->rank, (size_t)entry->dim[0] / parts, to + i * count, count);
    }
}

/* A file in `form`, its names behind `prefix`; the values are those of `origin`. One tensor, NULL:
 * none, is left out. */
static inline void write_encoder(const char *path, const struct catalogue *catalogue,
                                 enum names_form origin, enum names_form form, const char *prefix,
                                 const char *without)
{
    struct lt_error error;
    struct lt_named_view *tensors = calloc(catalogue->count, sizeof *tensors);
    char(*names)[256] = calloc(catalogue->count, sizeof *names);
    size_t kept = 0;
    lt_assert(tensors && names);
    for (size_t i = 0; i < catalogue->count; i++) {
        const struct catalogue_entry *entry = &catalogue->entry[i];
        char name[256];
        if (without && strcmp(entry->name, without) == 0)
            continue;
        float *data = malloc((size_t)catalogue_values(entry) * sizeof *data);
        lt_assert(data);
        fill_one(entry, origin, data);
        names_in_form(form, entry->name, name, sizeof name);
        snprintf(names[kept], sizeof *names, "%s%.200s", prefix, name);
        tensors[kept] = (struct lt_named_view){
            names[kept], lt_view_make(data, LT_TYPE_F32, entry->rank, entry->dim)};
        kept++;
    }
    lt_assert(lt_safetensors_write(path, tensors, kept, NULL, 0, &error) == LT_OK);
    for (size_t i = 0; i < kept; i++)
        free(tensors[i].view.data);
    free(tensors);
    free(names);
}

struct distance {
    double relative, worst, cosine; /* of norms; of the largest element */
};

static inline struct distance distance_of(const float *got, const float *want, int64_t count)
{
    double dot = 0, aa = 0, bb = 0, dd = 0, worst = 0, largest = 0;
    for (int64_t i = 0; i < count; i++) {
        const double a = (double)want[i], b = (double)got[i], d = b - a;
        dot += a * b;
        aa += a * a;
        bb += b * b;
        dd += d * d;
        worst = isnan(d) ? INFINITY : fmax(worst, fabs(d));
        largest = fmax(largest, fabs(a));
    }
    return (struct distance){sqrt(dd / aa), worst / largest, dot / sqrt(aa * bb)};
}

/* One tensor through `longtake-worker eval`: `inputs` under `in_name` to `out_name`. */
static inline lt_status eval_through_the_command(const char *dir, const char *arguments,
                                                 const char *in_name, const struct lt_view *input,
                                                 const char *out_name, struct lt_view *out,
                                                 struct lt_error *error)
{
    char path[300], line[1024];
    struct lt_safetensors *file;
    const struct lt_named_view named = {in_name, *input};
    snprintf(path, sizeof path, "%s/in.safetensors", dir);
    LT_TRY(lt_safetensors_write(path, &named, 1, NULL, 0, error));
    snprintf(line, sizeof line,
             "cd %s && %s/longtake-worker eval %s --inputs in.safetensors --output out.safetensors "
             "--precision f32 >out.txt 2>&1",
             dir, LT_BINARY_DIR, arguments);
    if (system(line) != 0)
        return lt_fail(error, LT_INTERNAL, "eval %s failed; see %s/out.txt", arguments, dir);
    snprintf(path, sizeof path, "%s/out.safetensors", dir);
    LT_TRY(lt_safetensors_open(path, &file, error));
    const lt_status status = lt_safetensors_read_f32(file, out_name, out, error);
    lt_safetensors_close(&file);
    return status;
}
