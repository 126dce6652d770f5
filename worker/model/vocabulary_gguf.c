/* The vocabulary in the metadata of a GGUF: arrays of texts, scores and types (encoders.md 7.1). */
#include "worker/model/vocabulary_parts.h"

#include <stdlib.h>
#include <string.h>

static lt_status read_array(struct tensor_file *file, const char *key, size_t count,
                            enum lt_type type, bool text, uint8_t **data_out, uint64_t *bytes_out,
                            struct lt_error *error)
{
    struct tensor_file_array array;
    if (!tensor_file_array(file, key, &array) || array.text != text ||
        (!text && array.type != type) || (count && array.count != count) || array.count < 1 ||
        array.count > PIECES_MAX || array.bytes > MODEL_BYTES_MAX)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: metadata '%s' is missing, or not an array of the type and length of a "
                       "vocabulary",
                       tensor_file_path(file), key);
    uint8_t *data = malloc((size_t)array.bytes);
    if (!data)
        return vocabulary_no_memory(tensor_file_path(file), error);
    const lt_status status = tensor_file_read_array(file, &array, data, error);
    if (status != LT_OK) {
        free(data);
        return status;
    }
    *data_out = data;
    *bytes_out = array.bytes;
    return LT_OK;
}

static lt_status add_texts(struct vocabulary *v, uint64_t bytes, const float *score,
                           const int32_t *type, size_t count, struct lt_error *error)
{
    uint64_t at = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t length;
        if (bytes - at < 8)
            return vocabulary_bad(v, error, "its texts end early");
        memcpy(&length, v->data + at, 8);
        at += 8;
        if (length > bytes - at)
            return vocabulary_bad(v, error, "a text reaches beyond its array");
        struct piece piece = {.text = (const char *)v->data + at,
                              .bytes = length <= UINT32_MAX ? (uint32_t)length : UINT32_MAX,
                              .score = score[i],
                              .type = type[i] >= PIECE_NORMAL && type[i] <= PIECE_BYTE
                                          ? (enum piece_type)type[i]
                                          : 0};
        LT_TRY(vocabulary_add_piece(v, &piece, error));
        at += length;
    }
    return LT_OK;
}

static bool flag_of(const struct tensor_file *file, const char *key, bool usual)
{
    const char *value = tensor_file_metadata(file, key);
    return value ? strcmp(value, "0") != 0 : usual;
}

static lt_status read_map(struct tensor_file *file, struct vocabulary *v, struct lt_error *error)
{
    static const char key[] = "tokenizer.ggml.precompiled_charsmap";
    struct tensor_file_array array;
    uint64_t bytes;
    if (!tensor_file_array(file, key, &array) || array.count == 0)
        return LT_OK;
    if (array.type == LT_TYPE_I8)
        LT_TRY(read_array(file, key, 0, LT_TYPE_I8, false, &v->map_data, &bytes, error));
    else
        LT_TRY(read_array(file, key, 0, LT_TYPE_U8, false, &v->map_data, &bytes, error));
    return vocabulary_set_map(v, v->map_data, (size_t)bytes, error);
}

/* Pieces of the byte type are there or not: the format has no flag for it (encoders.md 7.1). */
lt_status vocabulary_read_gguf(struct tensor_file *file, struct vocabulary *v,
                               struct lt_error *error)
{
    struct tensor_file_array texts;
    uint8_t *score = NULL, *type = NULL;
    uint64_t bytes, score_bytes, type_bytes;
    lt_status status;
    const size_t count =
        tensor_file_array(file, "tokenizer.ggml.tokens", &texts) ? (size_t)texts.count : 0;
    LT_TRY(read_array(file, "tokenizer.ggml.tokens", count, 0, true, &v->data, &bytes, error));
    LT_TRY_OR(read_array(file, "tokenizer.ggml.scores", count, LT_TYPE_F32, false, &score,
                         &score_bytes, error),
              out);
    LT_TRY_OR(read_array(file, "tokenizer.ggml.token_type", count, LT_TYPE_I32, false, &type,
                         &type_bytes, error),
              out);
    LT_TRY_OR(add_texts(v, bytes, (const float *)(const void *)score,
                        (const int32_t *)(const void *)type, count, error),
              out);
    v->rules.dummy_prefix = flag_of(file, "tokenizer.ggml.add_space_prefix", true);
    v->rules.remove_extra_whitespaces =
        flag_of(file, "tokenizer.ggml.remove_extra_whitespaces", true);
    LT_TRY_OR(read_map(file, v, error), out);
    status = vocabulary_finish(v, true, error);
out:
    free(score);
    free(type);
    return status;
}
