/* A sentencepiece ModelProto (protobuf wire format; field numbers in encoders.md 7.1). Fields that
 * are not asked for are passed over. */
#include "worker/model/vocabulary_parts.h"

#include <string.h>

struct wire {
    const uint8_t *at, *end;
};

struct field {
    uint32_t number;
    uint64_t value;   /* of a varint */
    float real;       /* of 32 bits */
    struct wire body; /* of bytes */
    bool is_body;
};

static bool take_varint(struct wire *w, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 64 && w->at < w->end; shift += 7) {
        const uint8_t byte = *w->at++;
        *value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128)
            return true;
    }
    return false;
}

static bool take_bytes(struct wire *w, uint64_t bytes, struct wire *body)
{
    if (bytes > (uint64_t)(w->end - w->at))
        return false;
    *body = (struct wire){w->at, w->at + bytes};
    w->at += bytes;
    return true;
}

/* False: malformed. */
static bool take_field(struct wire *w, struct field *field)
{
    uint64_t tag, bytes;
    *field = (struct field){0};
    if (!take_varint(w, &tag) || tag >> 3 == 0 || tag >> 3 > 1 << 29)
        return false;
    field->number = (uint32_t)(tag >> 3);
    switch (tag & 7) {
    case 0:
        return take_varint(w, &field->value);
    case 1:
        return take_bytes(w, 8, &field->body);
    case 2:
        field->is_body = true;
        return take_varint(w, &bytes) && take_bytes(w, bytes, &field->body);
    case 5:
        if (!take_bytes(w, 4, &field->body))
            return false;
        memcpy(&field->real, field->body.at, 4);
        return true;
    default: /* groups are gone since protobuf 2 */
        return false;
    }
}

static lt_status parse_piece(struct vocabulary *v, struct wire w, struct lt_error *error)
{
    struct piece piece = {.text = "", .type = PIECE_NORMAL};
    while (w.at < w.end) {
        struct field field;
        if (!take_field(&w, &field))
            return vocabulary_bad(v, error, "a damaged piece");
        if (field.number == 1 && field.is_body) {
            piece.text = (const char *)field.body.at;
            piece.bytes = (uint32_t)(field.body.end - field.body.at);
        } else if (field.number == 2) {
            piece.score = field.real;
        } else if (field.number == 3) {
            piece.type = field.value <= PIECE_BYTE ? (enum piece_type)field.value : 0;
        }
    }
    return vocabulary_add_piece(v, &piece, error);
}

static lt_status parse_trainer(const struct vocabulary *v, struct wire w, bool *byte_fallback,
                               struct lt_error *error)
{
    static const char *const kinds[] = {"?", "unigram", "BPE", "word", "character"};
    while (w.at < w.end) {
        struct field field;
        if (!take_field(&w, &field))
            return vocabulary_bad(v, error, "damaged training parameters");
        if (field.number == 3 && field.value != 1)
            return lt_fail(error, LT_UNSUPPORTED, "%s: a %s model; UMT5 has a unigram one", v->path,
                           field.value < LT_COUNT(kinds) ? kinds[field.value] : "?");
        if (field.number == 24 && field.value)
            return lt_fail(error, LT_UNSUPPORTED, "%s: white space as a suffix is not supported",
                           v->path);
        if (field.number == 35)
            *byte_fallback = field.value != 0;
    }
    return LT_OK;
}

static lt_status parse_normalizer(struct vocabulary *v, struct wire w, struct lt_error *error)
{
    while (w.at < w.end) {
        struct field field;
        if (!take_field(&w, &field))
            return vocabulary_bad(v, error, "damaged rules of normalisation");
        if (field.number == 2 && field.is_body)
            LT_TRY(vocabulary_set_map(v, field.body.at, (size_t)(field.body.end - field.body.at),
                                      error));
        else if (field.number == 3)
            v->rules.dummy_prefix = field.value != 0;
        else if (field.number == 4)
            v->rules.remove_extra_whitespaces = field.value != 0;
        else if (field.number == 5)
            v->rules.escape_whitespaces = field.value != 0;
    }
    return LT_OK;
}

lt_status vocabulary_read_sentencepiece(struct vocabulary *v, size_t bytes, struct lt_error *error)
{
    struct wire w = {v->data, v->data + bytes};
    bool byte_fallback = false;
    while (w.at < w.end) {
        struct field field;
        if (!take_field(&w, &field))
            return vocabulary_bad(v, error, "it is damaged, or no sentencepiece model at all");
        if (field.number == 1 && field.is_body)
            LT_TRY(parse_piece(v, field.body, error));
        else if (field.number == 2 && field.is_body)
            LT_TRY(parse_trainer(v, field.body, &byte_fallback, error));
        else if (field.number == 3 && field.is_body)
            LT_TRY(parse_normalizer(v, field.body, error));
    }
    return vocabulary_finish(v, byte_fallback, error);
}
