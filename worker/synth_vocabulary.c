#include "worker/synth.h"

#include "worker/model/vocabulary.h"

#include <stdio.h>
#include <string.h>

static void add_piece(struct synth_vocabulary *v, const char *text, float score,
                      enum piece_type type)
{
    lt_assert(v->count < SYNTH_PIECES_MAX && strlen(text) < sizeof v->storage[0]);
    strcpy(v->storage[v->count], text);
    v->text[v->count] = v->storage[v->count];
    v->score[v->count] = score;
    v->type[v->count++] = (int32_t)type;
}

static void add_pieces(struct synth_vocabulary *v)
{
    static const char *const words[] = {
        "\u2581a",    "\u2581the", "\u2581of",  "\u2581in",  "\u2581on",   "\u2581and",
        "ing",        "ed",        "\u2581cat", "\u2581dog", "\u2581walk", "\u2581over",
        "\u2581with", "er",        "s",         "\u2581to",
    };
    char text[16];
    add_piece(v, "<pad>", 0, PIECE_CONTROL);
    add_piece(v, "</s>", 0, PIECE_CONTROL);
    add_piece(v, "<s>", 0, PIECE_CONTROL);
    add_piece(v, "<unk>", 0, PIECE_UNKNOWN);
    for (int b = 0; b < 256; b++) {
        snprintf(text, sizeof text, "<0x%02X>", b);
        add_piece(v, text, 0, PIECE_BYTE);
    }
    add_piece(v, "\u2581", -2, PIECE_NORMAL);
    for (size_t i = 0; i < LT_COUNT(words); i++)
        add_piece(v, words[i], -3 - 0.25f * (float)i, PIECE_NORMAL);
    for (char c = '!'; c <= '~'; c++)
        if (c != 's')
            add_piece(v, (char[]){c, 0}, -9 - 0.01f * (float)c, PIECE_NORMAL);
}

/* -- protobuf ---------------------------------------------------------------------------------- */

static void put_byte(struct synth_vocabulary *v, unsigned byte)
{
    lt_assert(v->model_bytes < SYNTH_MODEL_BYTES_MAX && byte < 256);
    v->model[v->model_bytes++] = (uint8_t)byte;
}

/* Field `number` with `bytes` of body, fewer than 128. */
static void put_head(struct synth_vocabulary *v, unsigned number, unsigned bytes)
{
    put_byte(v, number << 3 | 2);
    put_byte(v, bytes);
}

static void put_flag(struct synth_vocabulary *v, unsigned number)
{
    if (number >= 16)
        put_byte(v, (number << 3 & 127) | 128);
    put_byte(v, number >= 16 ? number >> 4 : number << 3);
    put_byte(v, 1);
}

static void put_piece(struct synth_vocabulary *v, size_t i)
{
    const unsigned length = (unsigned)strlen(v->text[i]);
    uint8_t score[4];
    memcpy(score, &v->score[i], 4);
    put_head(v, 1, 2 + length + 5 + 2);
    put_head(v, 1, length);
    for (unsigned b = 0; b < length; b++)
        put_byte(v, (uint8_t)v->text[i][b]);
    put_byte(v, 2 << 3 | 5);
    for (int b = 0; b < 4; b++)
        put_byte(v, score[b]);
    put_byte(v, 3 << 3);
    put_byte(v, (unsigned)v->type[i]);
}

void synth_vocabulary_build(struct synth_vocabulary *vocabulary)
{
    *vocabulary = (struct synth_vocabulary){0};
    add_pieces(vocabulary);
    for (size_t i = 0; i < vocabulary->count; i++)
        put_piece(vocabulary, i);
    put_head(vocabulary, 2, 5);
    put_flag(vocabulary, 3);  /* a unigram model */
    put_flag(vocabulary, 35); /* byte fallback */
    put_head(vocabulary, 3, 6);
    put_flag(vocabulary, 3); /* prefix, white space removed, and escaped */
    put_flag(vocabulary, 4);
    put_flag(vocabulary, 5);
}
