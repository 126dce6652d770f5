/* GGUF: magic, version, tensor count, pair count, pairs, tensor infos, padding, data. All little
 * endian.
 *
 * Files are hostile until proven otherwise: every count is held against the bytes that are left,
 * every product is checked, every offset lies inside the file, names are unique, ranges do not
 * overlap. */
#include "worker/weights/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    NAME_BYTES_MAX = 1024,
    VALUE_BYTES_MAX = 64 * 1024, /* longer metadata texts are passed over */
    ARRAY_DEPTH_MAX = 4,
    BUFFER_BYTES = 64 * 1024,
    HEADER_BYTES_MAX = 256 << 20, /* bounds the time that a sparse file of any size can take */
    PAIR_COUNT_MAX = 8192,
    TENSOR_COUNT_MAX = 65536,
};

enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPE_COUNT
};

static const uint8_t type_bytes[GGUF_TYPE_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

struct shape { /* comfy.gguf.orig_shape.<tensor> */
    const char *tensor;
    int rank;
    int64_t dim[LT_RANK_MAX];
    struct shape *next;
};

struct reader {
    gguf_read *read;
    void *context;
    const char *path;
    uint64_t at, end; /* position and size of the file */
    uint8_t buffer[BUFFER_BYTES];
    uint64_t buffered_at;
    size_t buffered;
    struct lt_arena *arena;
    struct shape *shapes;
    uint64_t alignment;
    bool has_alignment;
};

static lt_status bad(struct reader *r, struct lt_error *error, const char *what)
{
    return lt_fail(error, LT_BAD_INPUT, "%s: %s (byte %llu)", r->path, what,
                   (unsigned long long)r->at);
}

static lt_status no_memory(struct reader *r, struct lt_error *error)
{
    return lt_fail(error, LT_NO_MEMORY, "%s: no memory for its index", r->path);
}

static lt_status check_header(struct reader *r, struct lt_error *error)
{
    if (r->at > HEADER_BYTES_MAX)
        return lt_fail(error, LT_BAD_INPUT, "%s: a header of more than %d MiB", r->path,
                       HEADER_BYTES_MAX >> 20);
    return LT_OK;
}

static lt_status take(struct reader *r, void *data, uint64_t bytes, struct lt_error *error)
{
    uint8_t *to = data;
    if (bytes > r->end - r->at)
        return lt_fail(error, LT_CORRUPT,
                       "%s: the header ends at byte %llu of %llu: the file is cut short or damaged",
                       r->path, (unsigned long long)r->at, (unsigned long long)r->end);
    while (bytes > 0) {
        if (r->at < r->buffered_at || r->at >= r->buffered_at + r->buffered) {
            const uint64_t left = r->end - r->at;
            r->buffered_at = r->at;
            r->buffered = left < BUFFER_BYTES ? (size_t)left : BUFFER_BYTES;
            LT_TRY(r->read(r->context, r->at, r->buffer, r->buffered, error));
        }
        const size_t skip = (size_t)(r->at - r->buffered_at), have = r->buffered - skip;
        const size_t part = bytes < have ? (size_t)bytes : have;
        memcpy(to, r->buffer + skip, part);
        to += part;
        r->at += part;
        bytes -= part;
    }
    return check_header(r, error);
}

static lt_status skip(struct reader *r, uint64_t bytes, struct lt_error *error)
{
    if (bytes > r->end - r->at)
        return bad(r, error, "a metadata value reaches beyond the end of the file");
    r->at += bytes;
    return check_header(r, error);
}

static lt_status take_u32(struct reader *r, uint32_t *value, struct lt_error *error)
{
    return take(r, value, 4, error);
}

static lt_status take_u64(struct reader *r, uint64_t *value, struct lt_error *error)
{
    return take(r, value, 8, error);
}

/* A string of at most `bytes_max` without NUL bytes, terminated, in the arena. */
static lt_status take_string(struct reader *r, uint64_t bytes_max, const char *what,
                             char **text_out, struct lt_error *error)
{
    uint64_t bytes;
    LT_TRY(take_u64(r, &bytes, error));
    if (bytes > bytes_max || bytes > r->end - r->at)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: %s of %llu bytes, at most %llu allowed (byte %llu)", r->path, what,
                       (unsigned long long)bytes, (unsigned long long)bytes_max,
                       (unsigned long long)r->at);
    char *text = lt_arena_take(r->arena, (size_t)bytes + 1);
    if (!text)
        return no_memory(r, error);
    LT_TRY(take(r, text, bytes, error));
    text[bytes] = 0;
    if (memchr(text, 0, (size_t)bytes))
        return lt_fail(error, LT_BAD_INPUT, "%s: %s holds a zero byte", r->path, what);
    *text_out = text;
    return LT_OK;
}

/* A metadata text; one that is too long to keep is passed over, and *text_out stays NULL. */
static lt_status take_text(struct reader *r, char **text_out, struct lt_error *error)
{
    uint64_t bytes;
    LT_TRY(take_u64(r, &bytes, error));
    if (bytes > VALUE_BYTES_MAX)
        return skip(r, bytes, error);
    char *text = lt_arena_take(r->arena, (size_t)bytes + 1);
    if (!text)
        return no_memory(r, error);
    LT_TRY(take(r, text, bytes, error));
    text[bytes] = 0;
    *text_out = text;
    return LT_OK;
}

/* -- metadata ---------------------------------------------------------------------------------- */

static lt_status skip_array(struct reader *r, int depth, uint64_t *count_out, uint32_t *type_out,
                            struct lt_error *error)
{
    uint32_t type;
    uint64_t count;
    LT_TRY(take_u32(r, &type, error));
    LT_TRY(take_u64(r, &count, error));
    if (type >= GGUF_TYPE_COUNT)
        return bad(r, error, "an array of an unknown type");
    const uint64_t least = type == GGUF_STRING ? 8 : type == GGUF_ARRAY ? 12 : type_bytes[type];
    if (count > (r->end - r->at) / least)
        return bad(r, error, "an array with more elements than the file has room for");
    *count_out = count;
    *type_out = type;
    if (type_bytes[type])
        return skip(r, count * type_bytes[type], error);
    if (type == GGUF_ARRAY && depth >= ARRAY_DEPTH_MAX)
        return bad(r, error, "arrays nested too deeply");
    for (uint64_t i = 0; i < count; i++) {
        uint64_t inner;
        uint32_t inner_type;
        if (type == GGUF_ARRAY) {
            LT_TRY(skip_array(r, depth + 1, &inner, &inner_type, error));
        } else {
            LT_TRY(take_u64(r, &inner, error));
            LT_TRY(skip(r, inner, error));
        }
    }
    return LT_OK;
}

static lt_status take_shape(struct reader *r, const char *tensor, struct lt_error *error)
{
    uint32_t type;
    uint64_t count;
    LT_TRY(take_u32(r, &type, error));
    LT_TRY(take_u64(r, &count, error));
    if (type != GGUF_I32 || count < 1 || count > LT_RANK_MAX)
        return lt_fail(error, LT_BAD_INPUT, "%s: orig_shape of '%s': expected 1 to %d 32-bit sizes",
                       r->path, tensor, LT_RANK_MAX);
    struct shape *shape = lt_arena_take_zeroed(r->arena, sizeof *shape);
    if (!shape)
        return no_memory(r, error);
    shape->tensor = tensor;
    shape->rank = (int)count;
    for (uint64_t i = 0; i < count; i++) {
        int32_t dim;
        LT_TRY(take(r, &dim, 4, error));
        if (dim < 1)
            return lt_fail(error, LT_BAD_INPUT, "%s: orig_shape of '%s': size %d", r->path, tensor,
                           dim);
        shape->dim[i] = dim;
    }
    shape->next = r->shapes;
    r->shapes = shape;
    return LT_OK;
}

static lt_status take_alignment(struct reader *r, uint32_t type, struct lt_error *error)
{
    uint32_t alignment;
    if (type != GGUF_U32)
        return bad(r, error, "general.alignment is not an unsigned 32-bit number");
    LT_TRY(take_u32(r, &alignment, error));
    if (alignment < 1 || alignment > 1 << 20 || (alignment & (alignment - 1)) != 0)
        return lt_fail(error, LT_BAD_INPUT, "%s: general.alignment is %u, expected a power of two",
                       r->path, alignment);
    r->alignment = alignment;
    r->has_alignment = true;
    return LT_OK;
}

/* A scalar as text. */
static lt_status take_scalar(struct reader *r, uint32_t type, char text[48], struct lt_error *error)
{
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        float f32;
        uint64_t u64;
        int64_t i64;
        double f64;
    } v = {0};
    LT_TRY(take(r, &v, type_bytes[type], error));
    switch ((enum gguf_type)type) {
    case GGUF_U8:
    case GGUF_BOOL:
        snprintf(text, 48, "%u", v.u8);
        break;
    case GGUF_I8:
        snprintf(text, 48, "%d", v.i8);
        break;
    case GGUF_U16:
        snprintf(text, 48, "%u", v.u16);
        break;
    case GGUF_I16:
        snprintf(text, 48, "%d", v.i16);
        break;
    case GGUF_U32:
        snprintf(text, 48, "%u", v.u32);
        break;
    case GGUF_I32:
        snprintf(text, 48, "%d", v.i32);
        break;
    case GGUF_F32:
        snprintf(text, 48, "%g", (double)v.f32);
        break;
    case GGUF_I64:
        snprintf(text, 48, "%lld", (long long)v.i64);
        break;
    case GGUF_F64:
        snprintf(text, 48, "%g", v.f64);
        break;
    default:
        snprintf(text, 48, "%llu", (unsigned long long)v.u64);
        break;
    }
    return LT_OK;
}

/* Its place is kept: vocabularies are read later, by who needs them. */
static lt_status pass_array(struct reader *r, const char *key, struct gguf_index *index,
                            uint64_t *count_out, struct lt_error *error)
{
    static const enum lt_type types[GGUF_TYPE_COUNT] = {
        [GGUF_U8] = LT_TYPE_U8,   [GGUF_I8] = LT_TYPE_I8,   [GGUF_U16] = LT_TYPE_I16,
        [GGUF_I16] = LT_TYPE_I16, [GGUF_U32] = LT_TYPE_I32, [GGUF_I32] = LT_TYPE_I32,
        [GGUF_F32] = LT_TYPE_F32, [GGUF_BOOL] = LT_TYPE_U8, [GGUF_U64] = LT_TYPE_I64,
        [GGUF_I64] = LT_TYPE_I64, [GGUF_F64] = LT_TYPE_F64,
    };
    const uint64_t start = r->at + 12; /* type and count stand before the elements */
    uint32_t type;
    LT_TRY(skip_array(r, 0, count_out, &type, error));
    if (type == GGUF_ARRAY)
        return LT_OK;
    struct gguf_array *array = lt_arena_take(r->arena, sizeof *array);
    if (!array)
        return no_memory(r, error);
    *array = (struct gguf_array){
        key, {type == GGUF_STRING, types[type], *count_out, start, r->at - start}, index->arrays};
    index->arrays = array;
    return LT_OK;
}

static lt_status take_value(struct reader *r, const char *key, struct gguf_index *index,
                            char **text_out, struct lt_error *error)
{
    static const char shape_prefix[] = "comfy.gguf.orig_shape.";
    uint32_t type;
    char text[48] = "";
    LT_TRY(take_u32(r, &type, error));
    if (type >= GGUF_TYPE_COUNT)
        return lt_fail(error, LT_BAD_INPUT, "%s: metadata '%s' has unknown type %u", r->path, key,
                       type);
    if (strcmp(key, "general.alignment") == 0) {
        LT_TRY(take_alignment(r, type, error));
        snprintf(text, sizeof text, "%llu", (unsigned long long)r->alignment);
    } else if (type == GGUF_STRING) {
        return take_text(r, text_out, error);
    } else if (type == GGUF_ARRAY && strncmp(key, shape_prefix, sizeof shape_prefix - 1) == 0) {
        LT_TRY(take_shape(r, key + sizeof shape_prefix - 1, error));
    } else if (type == GGUF_ARRAY) {
        uint64_t count;
        LT_TRY(pass_array(r, key, index, &count, error));
        snprintf(text, sizeof text, "[%llu]", (unsigned long long)count);
    } else {
        LT_TRY(take_scalar(r, type, text, error));
    }
    *text_out = lt_arena_text(r->arena, text);
    return *text_out ? LT_OK : no_memory(r, error);
}

static lt_status take_pairs(struct reader *r, uint64_t count, struct gguf_index *index,
                            struct lt_error *error)
{
    if (count > PAIR_COUNT_MAX || count > (r->end - r->at) / 13) /* key length, one letter, type */
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: %llu metadata pairs do not fit in the file, or are more than %d",
                       r->path, (unsigned long long)count, PAIR_COUNT_MAX);
    for (uint64_t i = 0; i < count; i++) {
        char *key, *value = NULL;
        LT_TRY(take_string(r, NAME_BYTES_MAX, "a metadata key", &key, error));
        if (!*key)
            return bad(r, error, "an empty metadata key");
        for (const struct gguf_pair *pair = index->metadata; pair; pair = pair->next)
            if (strcmp(pair->key, key) == 0)
                return lt_fail(error, LT_BAD_INPUT, "%s: metadata '%s' is there twice", r->path,
                               key);
        LT_TRY(take_value(r, key, index, &value, error));
        struct gguf_pair *pair = lt_arena_take(r->arena, sizeof *pair);
        if (!pair)
            return no_memory(r, error);
        *pair = (struct gguf_pair){key, value, index->metadata};
        index->metadata = pair;
    }
    return LT_OK;
}

/* -- tensors ----------------------------------------------------------------------------------- */

/* Types that exist in other files of this format. */
static const char *foreign_type(uint32_t type)
{
    static const struct {
        uint32_t id;
        const char *name;
    } known[] = {
        {9, "Q8_1"},   {15, "Q8_K"},   {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"},
        {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"},   {22, "IQ2_S"},  {23, "IQ4_XS"},
        {29, "IQ1_M"}, {34, "TQ1_0"},  {35, "TQ2_0"},   {39, "MXFP4"},
    };
    for (size_t i = 0; i < LT_COUNT(known); i++)
        if (known[i].id == type)
            return known[i].name;
    return "unknown";
}

static lt_status tensor_bytes(struct reader *r, struct tensor_info *tensor, uint32_t type,
                              struct lt_error *error)
{
    const struct lt_type_info *info = type < 200 ? lt_type_info((enum lt_type)type) : NULL;
    uint64_t count = 1;
    if (!info)
        return lt_fail(error, LT_UNSUPPORTED,
                       "%s: tensor '%s' has ggml type %u (%s), which is not supported (F32, "
                       "F16, BF16, Q4_0 to Q8_0 and Q2_K to Q6_K are)",
                       r->path, tensor->name, type, foreign_type(type));
    tensor->type = info->type;
    for (int i = 0; i < tensor->rank; i++)
        if (tensor->dim[i] < 1 || __builtin_mul_overflow(count, (uint64_t)tensor->dim[i], &count) ||
            count > (uint64_t)INT64_MAX / 8)
            return lt_fail(error, LT_BAD_INPUT,
                           "%s: tensor '%s': size %lld of dimension %d is not possible", r->path,
                           tensor->name, (long long)tensor->dim[i], i);
    if (tensor->rank && (uint64_t)tensor->dim[tensor->rank - 1] % info->block_values != 0)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: tensor '%s': rows of %lld values are not whole %s blocks of %u",
                       r->path, tensor->name, (long long)tensor->dim[tensor->rank - 1], info->name,
                       info->block_values);
    if (!lt_type_bytes(info->type, count, &tensor->bytes))
        return lt_fail(error, LT_BAD_INPUT, "%s: tensor '%s': its size overflows", r->path,
                       tensor->name);
    return LT_OK;
}

static lt_status take_tensor(struct reader *r, struct tensor_info *tensor, struct lt_error *error)
{
    uint32_t rank, type;
    char *name;
    uint64_t dim[LT_RANK_MAX];
    LT_TRY(take_string(r, NAME_BYTES_MAX, "a tensor name", &name, error));
    *tensor = (struct tensor_info){.name = name};
    if (!*name)
        return bad(r, error, "a tensor without a name");
    LT_TRY(take_u32(r, &rank, error));
    if (rank > LT_RANK_MAX)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: tensor '%s' has %u dimensions, at most %d are possible", r->path, name,
                       rank, LT_RANK_MAX);
    for (uint32_t i = 0; i < rank; i++) {
        LT_TRY(take_u64(r, &dim[i], error));
        if (dim[i] > INT64_MAX)
            return lt_fail(error, LT_BAD_INPUT, "%s: tensor '%s': dimension %u is negative",
                           r->path, name, i);
    }
    LT_TRY(take_u32(r, &type, error));
    LT_TRY(take_u64(r, &tensor->offset, error));
    tensor->rank = (int)rank;
    for (uint32_t i = 0; i < rank; i++) /* the file counts from the innermost */
        tensor->dim[i] = (int64_t)dim[rank - 1 - i];
    return tensor_bytes(r, tensor, type, error);
}

static lt_status apply_shapes(struct reader *r, struct gguf_index *index, struct lt_error *error)
{
    for (const struct shape *shape = r->shapes; shape; shape = shape->next)
        for (size_t i = 0; i < index->count; i++) {
            struct tensor_info *tensor = &index->tensor[i];
            int64_t have = 1, want = 1;
            if (strcmp(tensor->name, shape->tensor) != 0)
                continue;
            for (int d = 0; d < tensor->rank; d++)
                have *= tensor->dim[d];
            for (int d = 0; d < shape->rank; d++)
                if (__builtin_mul_overflow(want, shape->dim[d], &want))
                    want = -1;
            if (have != want)
                return lt_fail(error, LT_BAD_INPUT,
                               "%s: orig_shape of '%s' has %lld values, the tensor %lld", r->path,
                               tensor->name, (long long)want, (long long)have);
            if (shape->dim[shape->rank - 1] % lt_type_info(tensor->type)->block_values != 0)
                return lt_fail(error, LT_UNSUPPORTED,
                               "%s: orig_shape of '%s': its rows of %lld values are not whole %s "
                               "blocks",
                               r->path, tensor->name, (long long)shape->dim[shape->rank - 1],
                               lt_type_info(tensor->type)->name);
            tensor->rank = shape->rank;
            memcpy(tensor->dim, shape->dim, sizeof tensor->dim);
        }
    return LT_OK;
}

static lt_status place_tensors(struct reader *r, struct gguf_index *index, struct lt_error *error)
{
    const uint64_t mask = r->alignment - 1;
    index->data_offset = (r->at + mask) & ~mask;
    for (size_t i = 0; i < index->count; i++) {
        struct tensor_info *tensor = &index->tensor[i];
        if (tensor->offset & mask)
            return lt_fail(error, LT_BAD_INPUT,
                           "%s: tensor '%s': offset %llu is not a multiple of the alignment %llu",
                           r->path, tensor->name, (unsigned long long)tensor->offset,
                           (unsigned long long)r->alignment);
        if (index->data_offset > r->end || tensor->offset > r->end - index->data_offset ||
            tensor->bytes > r->end - index->data_offset - tensor->offset)
            return lt_fail(
                error, LT_CORRUPT,
                "%s: tensor '%s' needs bytes %llu to %llu, the file has %llu: it is cut short "
                "or damaged",
                r->path, tensor->name, (unsigned long long)(index->data_offset + tensor->offset),
                (unsigned long long)(index->data_offset + tensor->offset + tensor->bytes),
                (unsigned long long)r->end);
        tensor->offset += index->data_offset;
    }
    return LT_OK;
}

static lt_status parse(struct reader *r, struct gguf_index *index, struct lt_error *error)
{
    char magic[4];
    uint64_t tensors, pairs;
    LT_TRY(take(r, magic, 4, error));
    LT_TRY(take_u32(r, &index->version, error));
    if (memcmp(magic, "GGUF", 4) != 0)
        return bad(r, error, "not a GGUF file (wrong magic)");
    if (index->version >= 1 << 16)
        return bad(r, error, "a big-endian GGUF file; only little-endian files are read");
    if (index->version != 2 && index->version != 3)
        return lt_fail(error, LT_UNSUPPORTED, "%s: GGUF version %u; versions 2 and 3 are read",
                       r->path, index->version);
    LT_TRY(take_u64(r, &tensors, error));
    LT_TRY(take_u64(r, &pairs, error));
    LT_TRY(take_pairs(r, pairs, index, error));
    if (tensors > TENSOR_COUNT_MAX ||
        tensors > (r->end - r->at) / 25) /* name length, letter, rank, type, offset */
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: %llu tensors do not fit in the file, or are more than %d", r->path,
                       (unsigned long long)tensors, TENSOR_COUNT_MAX);
    index->count = (size_t)tensors;
    index->tensor = lt_arena_take_array(r->arena, index->count, sizeof *index->tensor);
    if (!index->tensor)
        return no_memory(r, error);
    for (size_t i = 0; i < index->count; i++)
        LT_TRY(take_tensor(r, &index->tensor[i], error));
    LT_TRY(apply_shapes(r, index, error));
    return place_tensors(r, index, error);
}

lt_status gguf_parse(gguf_read *read, void *context, uint64_t file_bytes, const char *path,
                     struct lt_arena *arena, struct gguf_index *index_out, struct lt_error *error)
{
    struct gguf_index index = {0};
    struct reader *r = malloc(sizeof *r);
    if (!r)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for its index", path);
    *r = (struct reader){.read = read,
                         .context = context,
                         .path = path,
                         .end = file_bytes,
                         .arena = arena,
                         .alignment = 32};
    const lt_status status = parse(r, &index, error);
    free(r);
    if (status == LT_OK)
        *index_out = index;
    return status;
}
