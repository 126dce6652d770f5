#include "worker/model/normalize.h"

#include "worker/model/utf8.h"

static const char SPACE[] = "\xe2\x96\x81", UNKNOWN[] = "\xef\xbf\xbd"; /* U+2581, U+FFFD */

struct unit { /* what one step of the input becomes */
    const char *text;
    size_t bytes, taken;
};

struct longest {
    const struct vocabulary *vocabulary;
    size_t bytes;
};

static void keep_symbol(void *context, int32_t id, size_t bytes)
{
    struct longest *longest = context;
    if (vocabulary_piece(longest->vocabulary, id)->type == PIECE_USER_DEFINED)
        longest->bytes = bytes;
}

/* A symbol of the user stays as it is; then the character map; then the character itself. */
static struct unit take(const struct vocabulary *v, const char *text, size_t bytes)
{
    struct unit unit;
    struct longest symbol = {.vocabulary = v};
    uint32_t code;
    bool valid;
    if (vocabulary_rules(v)->has_user_defined)
        vocabulary_match(v, text, bytes, keep_symbol, &symbol);
    if (symbol.bytes > 0)
        return (struct unit){text, symbol.bytes, symbol.bytes};
    unit.taken = vocabulary_map(v, text, bytes, &unit.text, &unit.bytes);
    if (unit.taken > 0)
        return unit;
    unit.taken = utf8_take(text, bytes, &code, &valid);
    unit.text = valid ? text : UNKNOWN;
    unit.bytes = valid ? unit.taken : sizeof UNKNOWN - 1;
    return unit;
}

static void add_escaped(struct text_buffer *to, const struct unit *unit, bool escape)
{
    for (size_t i = 0; i < unit->bytes; i++)
        if (escape && unit->text[i] == ' ')
            text_buffer_add(to, SPACE, sizeof SPACE - 1);
        else
            text_buffer_add(to, unit->text + i, 1);
}

static bool ends_with(const struct text_buffer *text, const char *end, size_t bytes)
{
    return text->bytes >= bytes && memcmp(text->data + text->bytes - bytes, end, bytes) == 0;
}

void normalize_text(const struct vocabulary *vocabulary, const char *text, size_t bytes,
                    struct text_buffer *to)
{
    const struct vocabulary_rules *rules = vocabulary_rules(vocabulary);
    const char *end = text + bytes;
    const char *space = rules->escape_whitespaces ? SPACE : " ";
    while (rules->remove_extra_whitespaces && text < end) {
        const struct unit unit = take(vocabulary, text, (size_t)(end - text));
        if (unit.bytes != 1 || unit.text[0] != ' ')
            break;
        text += unit.taken;
    }
    if (text == end)
        return;
    if (rules->dummy_prefix)
        text_buffer_add(to, space, strlen(space));
    for (bool after_space = rules->remove_extra_whitespaces; text < end;) {
        struct unit unit = take(vocabulary, text, (size_t)(end - text));
        text += unit.taken;
        for (; after_space && unit.bytes > 0 && unit.text[0] == ' '; unit.text++)
            unit.bytes--;
        if (unit.bytes == 0)
            continue;
        add_escaped(to, &unit, rules->escape_whitespaces);
        after_space = rules->remove_extra_whitespaces && unit.text[unit.bytes - 1] == ' ';
    }
    while (rules->remove_extra_whitespaces && ends_with(to, space, strlen(space)))
        to->bytes -= strlen(space);
}

void normalize_characters(const struct vocabulary *vocabulary, const char *text, size_t bytes,
                          struct text_buffer *to)
{
    for (size_t at = 0; at < bytes;) {
        const struct unit unit = take(vocabulary, text + at, bytes - at);
        text_buffer_add(to, unit.text, unit.bytes);
        at += unit.taken;
    }
}
