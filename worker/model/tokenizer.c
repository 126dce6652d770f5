/* The best cut of a text into pieces by Viterbi's algorithm over the scores (encoders.md 7.3), and
 * the two ways in which a prompt comes to it (7.4). */
#include "worker/model/tokenizer.h"

#include "worker/model/normalize.h"
#include "worker/model/prompt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const float UNKNOWN_PENALTY = 10.0f;
static const char SPACE[] = "\xe2\x96\x81"; /* U+2581 */
enum { SPACE_BYTES = 3, SENTINELS = 300 };

struct tokens {
    const struct vocabulary *vocabulary;
    const struct vocabulary_rules *rules;
    bool original; /* `wan`: sums in f64, unknown characters fused, never bytes */
    int32_t *id;
    size_t count, room;
    bool failed; /* out of memory; looked at once, at the end */
};

static void add(struct tokens *tokens, int32_t id)
{
    if (tokens->count == tokens->room) {
        const size_t room = tokens->room ? 2 * tokens->room : 64;
        int32_t *grown = realloc(tokens->id, room * sizeof *grown);
        if (!grown) {
            tokens->failed = true;
            return;
        }
        tokens->id = grown;
        tokens->room = room;
    }
    tokens->id[tokens->count++] = id;
}

/* -- Viterbi ----------------------------------------------------------------------------------- */

struct node { /* the best way to a position of the text */
    double score;
    int32_t id; /* of the last piece; -1: an unknown character */
    uint32_t start;
    bool reached;
};

struct lattice {
    const struct tokens *tokens;
    struct node *node;
    size_t at, character; /* where pieces start, and the bytes of the character there */
    bool whole;           /* a piece of exactly that character was met */
};

/* libsentencepiece adds in f64 and keeps f32. */
static void offer(struct lattice *lattice, size_t end, double score, int32_t id)
{
    struct node *node = &lattice->node[end];
    if (node->reached && !(score > node->score))
        return;
    *node = (struct node){lattice->tokens->original ? score : (double)(float)score, id,
                          (uint32_t)lattice->at, true};
}

static void offer_piece(void *context, int32_t id, size_t bytes)
{
    struct lattice *lattice = context;
    const struct piece *piece = vocabulary_piece(lattice->tokens->vocabulary, id);
    /* the original's tokenizer has lost the types: "<0x41>" typed in a prompt is that piece */
    if (piece->type != PIECE_NORMAL && piece->type != PIECE_USER_DEFINED &&
        !lattice->tokens->original)
        return;
    /* symbols of the user win over any sum of scores there */
    const bool symbol = piece->type == PIECE_USER_DEFINED && !lattice->tokens->original;
    offer(lattice, lattice->at + bytes,
          lattice->node[lattice->at].score + (symbol ? -0.1 : (double)piece->score), id);
    lattice->whole = lattice->whole || bytes == lattice->character;
}

static size_t character_bytes(const char *text, size_t left)
{
    const uint8_t lead = (uint8_t)*text;
    const size_t bytes = lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    return bytes < left ? bytes : left;
}

static void add_unknown(struct tokens *tokens, const char *text, size_t bytes, bool fuse)
{
    if (!tokens->original && tokens->rules->byte_fallback) {
        for (size_t i = 0; i < bytes; i++)
            add(tokens, tokens->rules->byte[(uint8_t)text[i]]);
        return;
    }
    if (!fuse)
        add(tokens, tokens->rules->unknown);
}

/* Nodes lead backwards; they are turned around in place. Each is at the end of its piece. */
static void walk(struct tokens *tokens, struct node *node, const char *text, size_t bytes)
{
    size_t end = bytes, next = 0;
    while (end > 0) { /* `start` becomes the end of the next piece, 0 at the last */
        const size_t start = node[end].start;
        node[end].start = (uint32_t)next;
        next = end;
        end = start;
    }
    bool was_unknown = false;
    for (size_t start = 0, at = next; at != 0; start = at, at = node[at].start) {
        const bool unknown = node[at].id < 0;
        if (unknown)
            add_unknown(tokens, text + start, at - start, was_unknown);
        else
            add(tokens, node[at].id);
        was_unknown = unknown;
    }
}

static void cut(struct tokens *tokens, const char *text, size_t bytes)
{
    struct lattice lattice = {.tokens = tokens};
    if (bytes == 0)
        return;
    lattice.node = calloc(bytes + 1, sizeof *lattice.node);
    if (!lattice.node) {
        tokens->failed = true;
        return;
    }
    const double unknown = tokens->rules->score_min - UNKNOWN_PENALTY;
    while (lattice.at < bytes) {
        lattice.character = character_bytes(text + lattice.at, bytes - lattice.at);
        lattice.whole = false;
        vocabulary_match(tokens->vocabulary, text + lattice.at, bytes - lattice.at, offer_piece,
                         &lattice);
        if (!lattice.whole)
            offer(&lattice, lattice.at + lattice.character,
                  lattice.node[lattice.at].score + unknown, -1);
        lattice.at += lattice.character;
    }
    walk(tokens, lattice.node, text, bytes);
    free(lattice.node);
}

/* -- as libsentencepiece ----------------------------------------------------------------------- */

static lt_status encode_whole(struct tokens *tokens, const char *prompt, size_t bytes,
                              struct lt_error *error)
{
    struct text_buffer text = {0};
    normalize_text(tokens->vocabulary, prompt, bytes, &text);
    if (!text.failed)
        cut(tokens, text.data, text.bytes);
    const bool failed = text.failed || tokens->failed;
    text_buffer_fini(&text);
    return failed ? lt_fail(error, LT_NO_MEMORY, "no memory for a prompt's tokens") : LT_OK;
}

/* -- as the original --------------------------------------------------------------------------- */

struct special {
    const struct vocabulary *vocabulary;
    size_t bytes;
    int32_t id;
};

static void keep_special(void *context, int32_t id, size_t bytes)
{
    struct special *special = context;
    const enum piece_type type = vocabulary_piece(special->vocabulary, id)->type;
    if (type != PIECE_CONTROL && type != PIECE_UNKNOWN && type != PIECE_USER_DEFINED)
        return;
    special->bytes = bytes;
    special->id = id;
}

/* The longest name of a control piece, of <unk> or of a user's symbol that the text begins with. */
static size_t special_at(const struct tokens *tokens, const char *text, size_t bytes,
                         int32_t *id_out)
{
    struct special special = {.vocabulary = tokens->vocabulary};
    vocabulary_match(tokens->vocabulary, text, bytes, keep_special, &special);
    *id_out = special.id;
    return special.bytes;
}

/* <extra_id_299> … <extra_id_0> stand behind the last piece of a sentencepiece model. */
static size_t sentinel_at(const struct tokens *tokens, const char *text, size_t bytes,
                          int32_t *id_out)
{
    char copy[20] = "";
    int number, length = 0;
    memcpy(copy, text, bytes < sizeof copy - 1 ? bytes : sizeof copy - 1);
    if (sscanf(copy, "<extra_id_%3d>%n", &number, &length) != 1 || length == 0 || number < 0 ||
        number >= SENTINELS)
        return 0;
    const int32_t id = vocabulary_find(tokens->vocabulary, text, (size_t)length);
    *id_out = id >= 0 ? id : (int32_t)vocabulary_count(tokens->vocabulary) + SENTINELS - 1 - number;
    return (size_t)length;
}

/* A word gets its space in front, and is cut where another stands in it. */
static void encode_word(struct tokens *tokens, const char *word, size_t bytes)
{
    struct text_buffer text = {0};
    if (bytes < SPACE_BYTES || memcmp(word, SPACE, SPACE_BYTES) != 0)
        text_buffer_add(&text, SPACE, SPACE_BYTES);
    normalize_characters(tokens->vocabulary, word, bytes, &text);
    for (size_t start = 0; !text.failed && start < text.bytes;) {
        const char *next =
            start + 1 < text.bytes
                ? memmem(text.data + start + 1, text.bytes - start - 1, SPACE, SPACE_BYTES)
                : NULL;
        const size_t end = next ? (size_t)(next - text.data) : text.bytes;
        cut(tokens, text.data + start, end - start);
        start = end;
    }
    tokens->failed = tokens->failed || text.failed;
    text_buffer_fini(&text);
}

static void encode_words(struct tokens *tokens, const char *text, size_t bytes)
{
    size_t word = 0;
    for (size_t i = 0; i <= bytes; i++) {
        if (i < bytes && text[i] != ' ')
            continue;
        if (i > word)
            encode_word(tokens, text + word, i - word);
        word = i + 1;
    }
}

static lt_status encode_original(struct tokens *tokens, const char *prompt, size_t bytes,
                                 struct lt_error *error)
{
    struct text_buffer text = {0};
    size_t start = 0, at = 0;
    prompt_clean(prompt, bytes, &text);
    while (!text.failed && at < text.bytes) {
        int32_t id = 0;
        size_t length = special_at(tokens, text.data + at, text.bytes - at, &id);
        if (length == 0)
            length = sentinel_at(tokens, text.data + at, text.bytes - at, &id);
        if (length == 0) {
            at++;
            continue;
        }
        encode_words(tokens, text.data + start, at - start);
        add(tokens, id);
        start = at += length;
    }
    if (!text.failed && start < text.bytes) /* a prompt of nothing has no data at all */
        encode_words(tokens, text.data + start, text.bytes - start);
    const bool failed = text.failed || tokens->failed;
    text_buffer_fini(&text);
    if (tokens->count > TOKENIZER_WAN_TOKENS_MAX - 1)
        tokens->count = TOKENIZER_WAN_TOKENS_MAX - 1;
    return failed ? lt_fail(error, LT_NO_MEMORY, "no memory for a prompt's tokens") : LT_OK;
}

/* -- encoding ---------------------------------------------------------------------------------- */

lt_status tokenizer_style_parse(const char *text, enum tokenizer_style *style_out,
                                struct lt_error *error)
{
    if (strcmp(text, "wan") != 0 && strcmp(text, "comfy") != 0)
        return lt_fail(error, LT_USAGE, "'%s': a prompt is read as wan or comfy does", text);
    *style_out = text[0] == 'w' ? TOKENIZER_WAN : TOKENIZER_COMFY;
    return LT_OK;
}

lt_status tokenizer_encode(const struct vocabulary *vocabulary, const char *prompt, size_t bytes,
                           enum tokenizer_style style, int32_t **tokens_out, size_t *count_out,
                           struct lt_error *error)
{
    struct tokens tokens = {.vocabulary = vocabulary,
                            .rules = vocabulary_rules(vocabulary),
                            .original = style == TOKENIZER_WAN};
    if (bytes > TOKENIZER_PROMPT_BYTES_MAX)
        return lt_fail(error, LT_BAD_INPUT, "a prompt of %zu bytes; at most %d are possible", bytes,
                       TOKENIZER_PROMPT_BYTES_MAX);
    lt_status status = tokens.original ? encode_original(&tokens, prompt, bytes, error)
                                       : encode_whole(&tokens, prompt, bytes, error);
    if (status == LT_OK) {
        add(&tokens, tokens.rules->end);
        if (tokens.failed)
            status = lt_fail(error, LT_NO_MEMORY, "no memory for a prompt's tokens");
    }
    if (status != LT_OK) {
        free(tokens.id);
        return status;
    }
    *tokens_out = tokens.id;
    *count_out = tokens.count;
    return LT_OK;
}
