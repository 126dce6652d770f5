#include "common/safetensors.h"

#include "common/arena.h"
#include "common/file.h"
#include "common/json_scan.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER_BYTES_MAX = 100 << 20, NAME_BYTES_MAX = 1024, METADATA_BYTES_MAX = 64 * 1024 };

struct pair {
    const char *key, *value;
    struct pair *next;
};

struct lt_safetensors {
    int fd;
    char *path;
    uint64_t file_bytes, data_offset;
    struct lt_arena arena;        /* names, index */
    struct lt_safetensor *tensor; /* in file order */
    uint32_t *by_name;            /* indices sorted by name */
    size_t count, room;
    struct pair *metadata;
};

static const struct {
    const char *name;
    enum lt_type type;
} dtypes[] = {
    {"F64", LT_TYPE_F64},   {"F32", LT_TYPE_F32},         {"F16", LT_TYPE_F16},
    {"BF16", LT_TYPE_BF16}, {"I64", LT_TYPE_I64},         {"I32", LT_TYPE_I32},
    {"I16", LT_TYPE_I16},   {"I8", LT_TYPE_I8},           {"U8", LT_TYPE_U8},
    {"BOOL", LT_TYPE_BOOL}, {"F8_E4M3", LT_TYPE_F8_E4M3}, {"F8_E5M2", LT_TYPE_F8_E5M2},
};

/* -- header ------------------------------------------------------------------------------------ */

struct entry {
    struct lt_safetensor tensor;
    bool has_dtype, has_shape, has_offsets;
};

static lt_status parse_dtype(struct lt_json_scan *scan, const struct lt_safetensors *file,
                             struct entry *entry, struct lt_error *error)
{
    char name[32];
    if (!lt_json_string(scan, name, sizeof name))
        return lt_fail(error, LT_BAD_INPUT, "%s: tensor '%s': dtype is not a short string",
                       file->path, entry->tensor.name);
    for (size_t i = 0; i < LT_COUNT(dtypes); i++)
        if (strcmp(dtypes[i].name, name) == 0) {
            entry->tensor.type = dtypes[i].type;
            entry->has_dtype = true;
            return LT_OK;
        }
    return lt_fail(error, LT_UNSUPPORTED,
                   "%s: tensor '%s': dtype %s is not supported (F32, F16, BF16 and integers are)",
                   file->path, entry->tensor.name, name);
}

static lt_status parse_shape(struct lt_json_scan *scan, const struct lt_safetensors *file,
                             struct entry *entry, struct lt_error *error)
{
    struct lt_safetensor *tensor = &entry->tensor;
    if (!lt_json_take(scan, '['))
        goto bad;
    if (!lt_json_take(scan, ']')) {
        do {
            uint64_t dim;
            if (!lt_json_u63(scan, &dim))
                goto bad;
            if (tensor->rank == LT_RANK_MAX)
                return lt_fail(error, LT_UNSUPPORTED, "%s: tensor '%s': more than %d dimensions",
                               file->path, tensor->name, LT_RANK_MAX);
            tensor->dim[tensor->rank++] = (int64_t)dim;
        } while (lt_json_take(scan, ','));
        if (!lt_json_take(scan, ']'))
            goto bad;
    }
    entry->has_shape = true;
    return LT_OK;
bad:
    return lt_fail(error, LT_BAD_INPUT, "%s: tensor '%s': shape is not a list of sizes", file->path,
                   tensor->name);
}

static lt_status parse_offsets(struct lt_json_scan *scan, const struct lt_safetensors *file,
                               struct entry *entry, struct lt_error *error)
{
    uint64_t first, last;
    if (!lt_json_take(scan, '[') || !lt_json_u63(scan, &first) || !lt_json_take(scan, ',') ||
        !lt_json_u63(scan, &last) || !lt_json_take(scan, ']'))
        return lt_fail(error, LT_BAD_INPUT, "%s: tensor '%s': data_offsets is not [begin, end]",
                       file->path, entry->tensor.name);
    const uint64_t data_bytes = file->file_bytes - file->data_offset;
    if (first > last || last > data_bytes)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: tensor '%s': data_offsets [%llu, %llu] outside the %llu data bytes",
                       file->path, entry->tensor.name, (unsigned long long)first,
                       (unsigned long long)last, (unsigned long long)data_bytes);
    entry->tensor.offset = file->data_offset + first;
    entry->tensor.bytes = last - first;
    entry->has_offsets = true;
    return LT_OK;
}

static lt_status check_entry(const struct lt_safetensors *file, const struct entry *entry,
                             struct lt_error *error)
{
    const struct lt_safetensor *tensor = &entry->tensor;
    uint64_t count = 1, bytes = 0;
    if (!entry->has_dtype || !entry->has_shape || !entry->has_offsets)
        return lt_fail(error, LT_BAD_INPUT, "%s: tensor '%s': %s is missing", file->path,
                       tensor->name,
                       !entry->has_dtype   ? "dtype"
                       : !entry->has_shape ? "shape"
                                           : "data_offsets");
    bool fits = true;
    for (int i = 0; i < tensor->rank; i++)
        fits = fits && !__builtin_mul_overflow(count, (uint64_t)tensor->dim[i], &count);
    if (!fits || !lt_type_bytes(tensor->type, count, &bytes) || bytes != tensor->bytes)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: tensor '%s': shape and dtype need %llu bytes, data_offsets hold %llu",
                       file->path, tensor->name, (unsigned long long)bytes,
                       (unsigned long long)tensor->bytes);
    return LT_OK;
}

static lt_status add_tensor(struct lt_safetensors *file, const struct lt_safetensor *tensor,
                            struct lt_error *error)
{
    if (file->count == file->room) {
        const size_t room = file->room ? 2 * file->room : 256;
        struct lt_safetensor *grown = realloc(file->tensor, room * sizeof *grown);
        if (!grown)
            return lt_fail(error, LT_NO_MEMORY, "%s: no memory for its index", file->path);
        file->tensor = grown;
        file->room = room;
    }
    file->tensor[file->count++] = *tensor;
    return LT_OK;
}

static lt_status parse_tensor(struct lt_json_scan *scan, struct lt_safetensors *file,
                              const char *name, struct lt_error *error)
{
    struct entry entry = {.tensor.name = lt_arena_text(&file->arena, name)};
    if (!entry.tensor.name)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for its index", file->path);
    if (!lt_json_take(scan, '{'))
        goto bad;
    do {
        char key[64];
        if (!lt_json_string(scan, key, sizeof key) || !lt_json_take(scan, ':'))
            goto bad;
        if (strcmp(key, "dtype") == 0)
            LT_TRY(parse_dtype(scan, file, &entry, error));
        else if (strcmp(key, "shape") == 0 && !entry.has_shape)
            LT_TRY(parse_shape(scan, file, &entry, error));
        else if (strcmp(key, "data_offsets") == 0)
            LT_TRY(parse_offsets(scan, file, &entry, error));
        else
            goto bad;
    } while (lt_json_take(scan, ','));
    if (!lt_json_take(scan, '}'))
        goto bad;
    LT_TRY(check_entry(file, &entry, error));
    return add_tensor(file, &entry.tensor, error);
bad:
    return lt_fail(error, LT_BAD_INPUT,
                   "%s: tensor '%s': expected an object with dtype, shape and data_offsets",
                   file->path, name);
}

static lt_status parse_metadata(struct lt_json_scan *scan, struct lt_safetensors *file,
                                struct lt_error *error)
{
    lt_status status = LT_OK;
    char *value = malloc(METADATA_BYTES_MAX);
    if (!value)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for its metadata", file->path);
    bool whole = lt_json_take(scan, '{');
    if (whole && !lt_json_take(scan, '}')) {
        do {
            char key[NAME_BYTES_MAX];
            whole = lt_json_string(scan, key, sizeof key) && lt_json_take(scan, ':') &&
                    lt_json_string(scan, value, METADATA_BYTES_MAX);
            if (!whole)
                break;
            struct pair *pair = lt_arena_take(&file->arena, sizeof *pair);
            if (pair)
                *pair = (struct pair){lt_arena_text(&file->arena, key),
                                      lt_arena_text(&file->arena, value), file->metadata};
            if (!pair || !pair->key || !pair->value) {
                status = lt_fail(error, LT_NO_MEMORY, "%s: no memory for its metadata", file->path);
                break;
            }
            file->metadata = pair;
        } while (lt_json_take(scan, ','));
        whole = whole && lt_json_take(scan, '}');
    }
    free(value);
    if (status == LT_OK && !whole)
        status = lt_fail(error, LT_BAD_INPUT, "%s: __metadata__ is not an object of strings",
                         file->path);
    return status;
}

static lt_status parse_header(struct lt_safetensors *file, const char *text, size_t bytes,
                              struct lt_error *error)
{
    struct lt_json_scan scan;
    lt_json_begin(&scan, text, bytes);
    if (!lt_json_take(&scan, '{'))
        goto bad;
    if (!lt_json_take(&scan, '}')) {
        do {
            char name[NAME_BYTES_MAX];
            if (!lt_json_string(&scan, name, sizeof name) || !lt_json_take(&scan, ':'))
                goto bad;
            if (strcmp(name, "__metadata__") == 0)
                LT_TRY(parse_metadata(&scan, file, error));
            else
                LT_TRY(parse_tensor(&scan, file, name, error));
        } while (lt_json_take(&scan, ','));
        if (!lt_json_take(&scan, '}'))
            goto bad;
    }
    if (lt_json_peek(&scan) == 0)
        return LT_OK;
bad:
    return lt_fail(error, LT_BAD_INPUT,
                   "%s: header is not the JSON of a safetensors file (byte %zu)", file->path,
                   (size_t)(scan.at - text) + 8);
}

/* -- index ------------------------------------------------------------------------------------- */

static int by_offset(const void *a, const void *b)
{
    const struct lt_safetensor *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static int by_name(const void *a, const void *b, void *context)
{
    const struct lt_safetensor *tensor = context;
    return strcmp(tensor[*(const uint32_t *)a].name, tensor[*(const uint32_t *)b].name);
}

static lt_status build_index(struct lt_safetensors *file, struct lt_error *error)
{
    if (file->count == 0)
        return LT_OK;
    qsort(file->tensor, file->count, sizeof *file->tensor, by_offset);
    for (size_t i = 1; i < file->count; i++) {
        const struct lt_safetensor *before = &file->tensor[i - 1], *tensor = &file->tensor[i];
        if (before->offset + before->bytes > tensor->offset)
            return lt_fail(error, LT_BAD_INPUT, "%s: the bytes of '%s' and '%s' overlap",
                           file->path, before->name, tensor->name);
    }
    file->by_name = malloc(file->count * sizeof *file->by_name);
    if (!file->by_name)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for its index", file->path);
    for (size_t i = 0; i < file->count; i++)
        file->by_name[i] = (uint32_t)i;
    qsort_r(file->by_name, file->count, sizeof *file->by_name, by_name, file->tensor);
    for (size_t i = 1; i < file->count; i++)
        if (by_name(&file->by_name[i - 1], &file->by_name[i], file->tensor) == 0)
            return lt_fail(error, LT_BAD_INPUT, "%s: tensor '%s' is there twice", file->path,
                           file->tensor[file->by_name[i]].name);
    return LT_OK;
}

static lt_status read_header(struct lt_safetensors *file, struct lt_error *error)
{
    uint8_t size[8];
    LT_TRY(lt_file_read_at(file->fd, file->path, 0, size, 8, error));
    uint64_t bytes = 0;
    for (int i = 7; i >= 0; i--)
        bytes = bytes << 8 | size[i];
    if (bytes > HEADER_BYTES_MAX || bytes > file->file_bytes - 8)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: header of %llu bytes in a file of %llu (is it a safetensors file?)",
                       file->path, (unsigned long long)bytes, (unsigned long long)file->file_bytes);
    file->data_offset = 8 + bytes;
    char *text = malloc((size_t)bytes + 1);
    if (!text)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for its header", file->path);
    lt_status status = lt_file_read_at(file->fd, file->path, 8, text, (size_t)bytes, error);
    if (status == LT_OK)
        status = parse_header(file, text, (size_t)bytes, error);
    free(text);
    return status == LT_OK ? build_index(file, error) : status;
}

lt_status lt_safetensors_open(const char *path, struct lt_safetensors **file_out,
                              struct lt_error *error)
{
    struct lt_safetensors *file = calloc(1, sizeof *file);
    if (!file)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory", path);
    lt_status status = LT_OK;
    struct stat info;
    lt_arena_init(&file->arena, 0);
    file->path = strdup(path);
    file->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (!file->path)
        status = lt_fail(error, LT_NO_MEMORY, "%s: no memory", path);
    else if (file->fd < 0 || fstat(file->fd, &info) != 0)
        status = lt_fail(error, errno == ENOENT ? LT_NOT_FOUND : LT_IO, "%s: cannot open: %s", path,
                         strerror(errno));
    else if (!S_ISREG(info.st_mode) || info.st_size < 8)
        status = lt_fail(error, LT_BAD_INPUT, "%s: not a safetensors file", path);
    if (status == LT_OK) {
        file->file_bytes = (uint64_t)info.st_size;
        status = read_header(file, error);
    }
    if (status != LT_OK) {
        lt_safetensors_close(&file);
        return status;
    }
    *file_out = file;
    return LT_OK;
}

void lt_safetensors_close(struct lt_safetensors **file)
{
    if (!*file)
        return;
    if ((*file)->fd >= 0)
        close((*file)->fd);
    lt_arena_fini(&(*file)->arena);
    free((*file)->tensor);
    free((*file)->by_name);
    free((*file)->path);
    free(*file);
    *file = NULL;
}

/* -- reading ----------------------------------------------------------------------------------- */

size_t lt_safetensors_count(const struct lt_safetensors *file)
{
    return file->count;
}

const struct lt_safetensor *lt_safetensors_at(const struct lt_safetensors *file, size_t index)
{
    return index < file->count ? &file->tensor[index] : NULL;
}

const struct lt_safetensor *lt_safetensors_find(const struct lt_safetensors *file, const char *name)
{
    size_t low = 0, high = file->count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        const struct lt_safetensor *tensor = &file->tensor[file->by_name[middle]];
        const int order = strcmp(name, tensor->name);
        if (order == 0)
            return tensor;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const char *lt_safetensors_metadata(const struct lt_safetensors *file, const char *key)
{
    for (const struct pair *pair = file->metadata; pair; pair = pair->next)
        if (strcmp(pair->key, key) == 0)
            return pair->value;
    return NULL;
}

lt_status lt_safetensors_read(struct lt_safetensors *file, const struct lt_safetensor *tensor,
                              void *data, struct lt_error *error)
{
    const lt_status status =
        lt_file_read_at(file->fd, file->path, tensor->offset, data, tensor->bytes, error);
    return status == LT_OK ? LT_OK : lt_error_prefix(error, "tensor '%s'", tensor->name);
}

static float value_f32(enum lt_type type, const void *data, size_t i)
{
    switch (type) {
    case LT_TYPE_F64:
        return (float)((const double *)data)[i];
    case LT_TYPE_F32:
        return ((const float *)data)[i];
    case LT_TYPE_F16:
        return lt_f16_to_f32(((const uint16_t *)data)[i]);
    case LT_TYPE_BF16:
        return lt_bf16_to_f32(((const uint16_t *)data)[i]);
    case LT_TYPE_I64:
        return (float)((const int64_t *)data)[i];
    case LT_TYPE_I32:
        return (float)((const int32_t *)data)[i];
    case LT_TYPE_I16:
        return (float)((const int16_t *)data)[i];
    case LT_TYPE_I8:
        return (float)((const int8_t *)data)[i];
    default:
        return (float)((const uint8_t *)data)[i];
    }
}

lt_status lt_safetensors_read_f32(struct lt_safetensors *file, const char *name,
                                  struct lt_view *view_out, struct lt_error *error)
{
    const struct lt_safetensor *tensor = lt_safetensors_find(file, name);
    if (!tensor) {
        char known[256] = "";
        for (size_t i = 0; i < file->count && strlen(known) < 200; i++) {
            strncat(known, i ? ", " : "", sizeof known - strlen(known) - 1);
            strncat(known, file->tensor[i].name, sizeof known - strlen(known) - 1);
        }
        return lt_fail(error, LT_NOT_FOUND, "%s: no tensor '%s'; it has: %s", file->path, name,
                       file->count ? known : "none");
    }
    if (tensor->type == LT_TYPE_F8_E4M3 || tensor->type == LT_TYPE_F8_E5M2)
        return lt_fail(error, LT_UNSUPPORTED,
                       "%s: tensor '%s': 8-bit floats are read as weights only", file->path, name);
    struct lt_view view = lt_view_make(NULL, LT_TYPE_F32, tensor->rank, tensor->dim);
    const size_t count = (size_t)lt_view_count(&view);
    void *raw = malloc(tensor->bytes ? tensor->bytes : 1);
    float *data = malloc(count ? count * sizeof *data : 1);
    lt_status status = raw && data ? lt_safetensors_read(file, tensor, raw, error)
                                   : lt_fail(error, LT_NO_MEMORY, "%s: no memory for tensor '%s'",
                                             file->path, name);
    for (size_t i = 0; status == LT_OK && i < count; i++)
        data[i] = value_f32(tensor->type, raw, i);
    free(raw);
    if (status != LT_OK) {
        free(data);
        return status;
    }
    view.data = data;
    *view_out = view;
    return LT_OK;
}

/* -- 16-bit floats ----------------------------------------------------------------------------- */

float lt_f16_to_f32(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31;
    uint32_t mantissa = half & 0x3FF, bits;
    if (exponent == 31) {
        bits = sign | 0x7F800000u | mantissa << 13;
    } else if (exponent) {
        bits = sign | (exponent + 112) << 23 | mantissa << 13;
    } else { /* zero or subnormal: mantissa * 2^-24 exactly */
        const float magnitude = (float)mantissa * 0x1p-24f;
        memcpy(&bits, &magnitude, 4);
        bits |= sign;
    }
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

uint16_t lt_f32_to_f16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    bits &= 0x7FFFFFFFu;
    if (bits >= 0x7F800000u) /* infinity, or a quiet NaN */
        return (uint16_t)(sign | 0x7C00 | (bits > 0x7F800000u ? 0x200 : 0));
    if (bits >= 0x477FF000u) /* rounds to 65536 or more */
        return (uint16_t)(sign | 0x7C00);
    if (bits < 0x38800000u) { /* below the smallest normal half: adding 0.5 rounds at 2^-24 */
        float magnitude;
        memcpy(&magnitude, &bits, 4);
        magnitude += 0.5f;
        uint32_t rounded;
        memcpy(&rounded, &magnitude, 4);
        return (uint16_t)(sign | (rounded - 0x3F000000u));
    }
    const uint32_t rounded = bits + 0xFFF + (bits >> 13 & 1) - 0x38000000u;
    return (uint16_t)(sign | rounded >> 13);
}

float lt_bf16_to_f32(uint16_t value)
{
    const uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, 4);
    return result;
}

uint16_t lt_f32_to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
