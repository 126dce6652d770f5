/* Pieces point into the bytes that were read; a hash of their texts finds them. */
#include "worker/model/vocabulary_parts.h"

#include "common/file.h"

#include <fcntl.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

lt_status vocabulary_bad(const struct vocabulary *v, struct lt_error *error, const char *what)
{
    return lt_fail(error, LT_BAD_INPUT, "%s: sentencepiece model: %s", v->path, what);
}

lt_status vocabulary_no_memory(const char *path, struct lt_error *error)
{
    return lt_fail(error, LT_NO_MEMORY, "%s: no memory for a vocabulary", path);
}

/* -- finding ----------------------------------------------------------------------------------- */

static const uint64_t HASH_START = 0xcbf29ce484222325u, HASH_FACTOR = 0x100000001b3u; /* FNV-1a */

static size_t slot_of(const struct vocabulary *v, uint64_t hash)
{
    return (size_t)((hash ^ hash >> 32) & (v->slot_count - 1));
}

static int32_t find_hashed(const struct vocabulary *v, const char *text, size_t bytes,
                           uint64_t hash)
{
    for (size_t s = slot_of(v, hash); v->slot[s]; s = (s + 1) & (v->slot_count - 1)) {
        const struct piece *piece = &v->piece[v->slot[s] - 1];
        if (piece->bytes == bytes && memcmp(piece->text, text, bytes) == 0)
            return (int32_t)(v->slot[s] - 1);
    }
    return -1;
}

int32_t vocabulary_find(const struct vocabulary *vocabulary, const char *text, size_t bytes)
{
    uint64_t hash = HASH_START;
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ (uint8_t)text[i]) * HASH_FACTOR;
    return find_hashed(vocabulary, text, bytes, hash);
}

void vocabulary_match(const struct vocabulary *vocabulary, const char *text, size_t bytes,
                      vocabulary_visit *visit, void *context)
{
    const size_t most = vocabulary->rules.piece_bytes_max;
    uint64_t hash = HASH_START;
    for (size_t i = 0; i < bytes && i < most; i++) {
        hash = (hash ^ (uint8_t)text[i]) * HASH_FACTOR;
        const int32_t id = find_hashed(vocabulary, text, i + 1, hash);
        if (id >= 0)
            visit(context, id, i + 1);
    }
}

static lt_status build_hash(struct vocabulary *v, struct lt_error *error)
{
    v->slot_count = 16;
    while (v->slot_count < 2 * v->count)
        v->slot_count *= 2;
    v->slot = calloc(v->slot_count, sizeof *v->slot);
    if (!v->slot)
        return vocabulary_no_memory(v->path, error);
    for (size_t i = 0; i < v->count; i++) {
        uint64_t hash = HASH_START;
        for (size_t b = 0; b < v->piece[i].bytes; b++)
            hash = (hash ^ (uint8_t)v->piece[i].text[b]) * HASH_FACTOR;
        if (find_hashed(v, v->piece[i].text, v->piece[i].bytes, hash) >= 0)
            continue;
        size_t s = slot_of(v, hash);
        while (v->slot[s])
            s = (s + 1) & (v->slot_count - 1);
        v->slot[s] = (uint32_t)i + 1;
    }
    return LT_OK;
}

/* -- rules ------------------------------------------------------------------------------------- */

static void find_bytes(struct vocabulary *v, bool wanted)
{
    v->rules.byte_fallback = wanted;
    for (int b = 0; b < 256; b++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", b);
        v->rules.byte[b] = vocabulary_find(v, text, 6);
        if (v->rules.byte[b] < 0 || v->piece[v->rules.byte[b]].type != PIECE_BYTE)
            v->rules.byte_fallback = false;
    }
}

lt_status vocabulary_finish(struct vocabulary *v, bool bytes_wanted, struct lt_error *error)
{
    v->rules.unknown = -1;
    v->rules.score_min = FLT_MAX;
    LT_TRY(build_hash(v, error));
    for (size_t i = 0; i < v->count; i++) {
        const struct piece *piece = &v->piece[i];
        if (piece->type == PIECE_UNKNOWN && v->rules.unknown < 0)
            v->rules.unknown = (int32_t)i;
        if (piece->type == PIECE_NORMAL && piece->score < v->rules.score_min)
            v->rules.score_min = piece->score;
        if (piece->type == PIECE_USER_DEFINED)
            v->rules.has_user_defined = true;
        if (piece->bytes > v->rules.piece_bytes_max)
            v->rules.piece_bytes_max = piece->bytes;
    }
    v->rules.end = vocabulary_find(v, "</s>", 4);
    if (v->rules.unknown < 0 || v->rules.end < 0 || v->rules.score_min == FLT_MAX)
        return vocabulary_bad(v, error, "it has no <unk>, no </s>, or no normal piece");
    find_bytes(v, bytes_wanted);
    return LT_OK;
}

/* u32 LE trie bytes, trie of u32 units, texts that end in NUL (encoders.md 7.2). */
lt_status vocabulary_set_map(struct vocabulary *v, const uint8_t *map, size_t bytes,
                             struct lt_error *error)
{
    uint32_t trie_bytes;
    if (bytes == 0)
        return LT_OK;
    if (bytes < 4)
        return vocabulary_bad(v, error, "a character map of less than four bytes");
    memcpy(&trie_bytes, map, 4);
    if (trie_bytes % 4 != 0 || trie_bytes < 4 || trie_bytes >= bytes - 4 || map[bytes - 1] != 0)
        return vocabulary_bad(v, error, "a character map whose parts do not fit in it");
    v->map = map;
    v->map_bytes = bytes;
    v->trie_units = trie_bytes / 4;
    v->texts_at = 4 + (size_t)trie_bytes;
    return LT_OK;
}

lt_status vocabulary_add_piece(struct vocabulary *v, const struct piece *piece,
                               struct lt_error *error)
{
    if (v->count == v->room) {
        const size_t room = v->room ? 2 * v->room : 1024;
        struct piece *grown = realloc(v->piece, room * sizeof *grown);
        if (!grown)
            return vocabulary_no_memory(v->path, error);
        v->piece = grown;
        v->room = room;
    }
    if (v->count == PIECES_MAX || piece->bytes > PIECE_BYTES_MAX)
        return vocabulary_bad(v, error, "too many pieces, or one of more than 1024 bytes");
    if (piece->type < PIECE_NORMAL || piece->type > PIECE_BYTE || !isfinite(piece->score))
        return vocabulary_bad(v, error,
                              "a piece of an unknown type, or with a score that is no number");
    v->piece[v->count++] = *piece;
    return LT_OK;
}

/* -- opening ----------------------------------------------------------------------------------- */

static lt_status create(const char *path, struct vocabulary **vocabulary_out,
                        struct lt_error *error)
{
    struct vocabulary *v = calloc(1, sizeof *v);
    if (v)
        v->path = strdup(path);
    if (!v || !v->path) {
        vocabulary_close(&v);
        return vocabulary_no_memory(path, error);
    }
    v->rules.dummy_prefix = v->rules.remove_extra_whitespaces = v->rules.escape_whitespaces = true;
    *vocabulary_out = v;
    return LT_OK;
}

void vocabulary_close(struct vocabulary **vocabulary)
{
    struct vocabulary *v = *vocabulary;
    if (!v)
        return;
    free(v->path);
    free(v->data);
    free(v->map_data);
    free(v->piece);
    free(v->slot);
    free(v);
    *vocabulary = NULL;
}

/* Takes `data`. */
static lt_status parse_owned(uint8_t *data, size_t bytes, const char *path,
                             struct vocabulary **vocabulary_out, struct lt_error *error)
{
    struct vocabulary *v = NULL;
    lt_status status = create(path, &v, error);
    if (status != LT_OK) {
        free(data);
        return status;
    }
    v->data = data;
    status = vocabulary_read_sentencepiece(v, bytes, error);
    if (status != LT_OK) {
        vocabulary_close(&v);
        return status;
    }
    *vocabulary_out = v;
    return LT_OK;
}

lt_status vocabulary_parse(const void *model, size_t bytes, const char *path,
                           struct vocabulary **vocabulary_out, struct lt_error *error)
{
    uint8_t *data = bytes <= MODEL_BYTES_MAX ? malloc(bytes ? bytes : 1) : NULL;
    if (!data)
        return vocabulary_no_memory(path, error);
    if (bytes)
        memcpy(data, model, bytes);
    return parse_owned(data, bytes, path, vocabulary_out, error);
}

lt_status vocabulary_of_file(struct tensor_file *file, struct vocabulary **vocabulary_out,
                             struct lt_error *error)
{
    const char *path = tensor_file_path(file);
    const struct tensor_info *info = tensor_file_find(file, "spiece_model");
    const char *kind = tensor_file_metadata(file, "tokenizer.ggml.model");
    struct vocabulary *v = NULL;
    if (info) {
        uint8_t *data = info->type == LT_TYPE_U8 && info->bytes <= MODEL_BYTES_MAX
                            ? malloc((size_t)info->bytes + 1)
                            : NULL;
        if (!data)
            return lt_fail(error, LT_BAD_INPUT,
                           "%s: tensor 'spiece_model': expected at most %d "
                           "MiB of type U8",
                           path, MODEL_BYTES_MAX >> 20);
        const lt_status status = tensor_file_read(file, info, data, error);
        if (status == LT_OK)
            return parse_owned(data, (size_t)info->bytes, path, vocabulary_out, error);
        free(data);
        return status;
    }
    if (!kind)
        return lt_fail(error, LT_NOT_FOUND,
                       "%s: it has no vocabulary; give the sentencepiece model (spiece.model) as "
                       "well",
                       path);
    if (strcmp(kind, "t5") != 0)
        return lt_fail(error, LT_UNSUPPORTED, "%s: a vocabulary of the kind '%s'; UMT5 has 't5'",
                       path, kind);
    LT_TRY(create(path, &v, error));
    const lt_status status = vocabulary_read_gguf(file, v, error);
    if (status != LT_OK) {
        vocabulary_close(&v);
        return status;
    }
    *vocabulary_out = v;
    return LT_OK;
}

static lt_status open_model_file(const char *path, struct vocabulary **vocabulary_out,
                                 struct lt_error *error)
{
    struct tensor_file *file;
    LT_TRY(tensor_file_open(path, &file, error));
    const lt_status status = vocabulary_of_file(file, vocabulary_out, error);
    tensor_file_close(&file);
    return status;
}

static lt_status read_whole(const char *path, uint8_t **data_out, size_t *bytes_out,
                            struct lt_error *error)
{
    struct stat info;
    uint8_t *data = NULL;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    lt_status status = LT_OK;
    if (fd < 0 || fstat(fd, &info) != 0)
        status = lt_fail(error, fd < 0 ? LT_NOT_FOUND : LT_IO, "%s: cannot open", path);
    else if (!S_ISREG(info.st_mode) || info.st_size < 16 || info.st_size > MODEL_BYTES_MAX)
        status = lt_fail(error, LT_BAD_INPUT,
                         "%s: not a sentencepiece model: expected a file of 16 bytes to %d MiB",
                         path, MODEL_BYTES_MAX >> 20);
    else if (!(data = malloc((size_t)info.st_size)))
        status = vocabulary_no_memory(path, error);
    else
        status = lt_file_read_at(fd, path, 0, data, (size_t)info.st_size, error);
    if (fd >= 0)
        close(fd);
    if (status != LT_OK) {
        free(data);
        return status;
    }
    *data_out = data;
    *bytes_out = (size_t)info.st_size;
    return LT_OK;
}

lt_status vocabulary_open(const char *path, struct vocabulary **vocabulary_out,
                          struct lt_error *error)
{
    uint8_t head[9] = {0}, *data;
    size_t bytes;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return lt_fail(error, LT_NOT_FOUND, "%s: cannot open", path);
    const lt_status status = lt_file_read_at(fd, path, 0, head, sizeof head, error);
    close(fd);
    LT_TRY(status);
    if (head[0] == '{')
        return lt_fail(error, LT_UNSUPPORTED,
                       "%s: tokenizer.json is not read; give the sentencepiece model "
                       "(spiece.model) of the same model, or a text encoder that holds it",
                       path);
    if (memcmp(head, "GGUF", 4) == 0 || head[8] == '{') /* safetensors: a size, then JSON */
        return open_model_file(path, vocabulary_out, error);
    LT_TRY(read_whole(path, &data, &bytes, error));
    return parse_owned(data, bytes, path, vocabulary_out, error);
}

/* -- questions --------------------------------------------------------------------------------- */

size_t vocabulary_count(const struct vocabulary *vocabulary)
{
    return vocabulary->count;
}

const struct piece *vocabulary_piece(const struct vocabulary *vocabulary, int32_t id)
{
    lt_assert(id >= 0 && (size_t)id < vocabulary->count);
    return &vocabulary->piece[id];
}

const struct vocabulary_rules *vocabulary_rules(const struct vocabulary *vocabulary)
{
    return &vocabulary->rules;
}

static bool unit_at(const struct vocabulary *v, size_t node, uint32_t *unit)
{
    if (node >= v->trie_units)
        return false;
    memcpy(unit, v->map + 4 + 4 * node, 4);
    return true;
}

static size_t offset_of(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & 0x200) >> 6);
}

size_t vocabulary_map(const struct vocabulary *vocabulary, const char *text, size_t bytes,
                      const char **replacement_out, size_t *replacement_bytes_out)
{
    const struct vocabulary *v = vocabulary;
    uint32_t unit;
    size_t length = 0, value = 0;
    if (!v->map || !unit_at(v, 0, &unit))
        return 0;
    size_t node = offset_of(unit);
    for (size_t i = 0; i < bytes; i++) {
        const uint8_t c = (uint8_t)text[i];
        node ^= c;
        if (c == 0 || !unit_at(v, node, &unit) || (unit & 0x800000FF) != c)
            break;
        node ^= offset_of(unit);
        if ((unit >> 8 & 1) == 0)
            continue;
        if (!unit_at(v, node, &unit))
            break;
        length = i + 1;
        value = unit & 0x7FFFFFFF;
    }
    if (length == 0 || value >= v->map_bytes - v->texts_at)
        return 0;
    *replacement_out = (const char *)v->map + v->texts_at + value; /* a NUL ends the last one */
    *replacement_bytes_out = strlen(*replacement_out);
    return length;
}
