/* Steps of the cleaning, each from one buffer to the next:
 *
 *   fix_text, line by line until nothing changes: references that end in a semicolon (unless the
 *   text shows markup) → characters of another width or style → line ends, terminal escapes,
 *   controls → NFC
 *   unescape, twice
 *   white space */
#include "worker/model/prompt.h"

#include "worker/model/html_entities.h"
#include "worker/model/utf8.h"

#include <utf8proc.h>

enum { TURNS_MAX = 64 };

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void add_code(struct text_buffer *to, uint32_t code)
{
    char text[4];
    text_buffer_add(to, text, utf8_put(code, text));
}

/* U+0080 … U+009F as the bytes of windows-1252 that they once were; 0: none. */
static uint32_t windows_1252(uint32_t code)
{
    static const uint16_t of[] = {
        0x20AC, 0,      0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160,
        0x2039, 0x0152, 0,      0x017D, 0,      0,      0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
        0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0,      0x017E, 0x0178,
    };
    return code >= 0x80 && code <= 0x9F && of[code - 0x80] ? of[code - 0x80] : 0;
}

/* -- character references ---------------------------------------------------------------------- */

static int by_name(const void *key, const void *entity)
{
    return strcmp(key, ((const struct html_entity *)entity)->name);
}

static const struct html_entity *find_entity(const char *name, size_t bytes)
{
    char key[40];
    if (bytes >= sizeof key || memchr(name, 0, bytes))
        return NULL;
    memcpy(key, name, bytes);
    key[bytes] = 0;
    return bsearch(key, html_entities, COUNT(html_entities), sizeof html_entities[0], by_name);
}

static bool is_digit(char c, int base)
{
    return (c >= '0' && c <= '9') ||
           (base == 16 && ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')));
}

static bool is_not_a_character(uint32_t code)
{
    return (code >= 1 && code <= 8) || code == 0xB || (code >= 0xE && code <= 0x1F) ||
           (code >= 0x7F && code <= 0x9F) || (code >= 0xFDD0 && code <= 0xFDEF) ||
           (code & 0xFFFE) == 0xFFFE;
}

static void add_number(struct text_buffer *to, uint64_t code)
{
    if (code == 0 || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
        add_code(to, 0xFFFD);
    else if (windows_1252((uint32_t)code))
        add_code(to, windows_1252((uint32_t)code));
    else if (code == 0x81 || code == 0x8D || code == 0x8F || code == 0x90 || code == 0x9D ||
             !is_not_a_character((uint32_t)code))
        add_code(to, (uint32_t)code);
}

/* "&#65;" at `text`: adds what it means and gives its length; 0: not a reference. */
static size_t take_number(const char *text, size_t bytes, struct text_buffer *to)
{
    const int base = bytes > 2 && (text[2] == 'x' || text[2] == 'X') ? 16 : 10;
    size_t at = base == 16 ? 3 : 2;
    const size_t start = at;
    uint64_t code = 0;
    for (; at < bytes && is_digit(text[at], base); at++) {
        const int digit = text[at] <= '9' ? text[at] - '0' : (text[at] | 32) - 'a' + 10;
        code = code > 0x10FFFF ? code : code * (uint64_t)base + (uint64_t)digit;
    }
    if (at == start)
        return 0;
    add_number(to, code);
    return at + (at < bytes && text[at] == ';');
}

/* "&amp;", or the longest name that may stand without its semicolon: "&notit" is "¬it". */
static size_t take_name(const char *text, size_t bytes, struct text_buffer *to)
{
    size_t end = 1;
    for (int characters = 0; end < bytes && characters < 32; characters++) {
        uint32_t code;
        bool valid;
        if (strchr("\t\n\f <&#;", text[end]))
            break;
        end += utf8_take(text + end, bytes - end, &code, &valid);
    }
    const struct html_entity *entity = NULL;
    if (end < bytes && text[end] == ';' && (entity = find_entity(text + 1, end - 1))) {
        text_buffer_add(to, entity->text, strlen(entity->text));
        return end + 1;
    }
    for (size_t length = end - 1 < 32 ? end - 1 : 32; length >= 2; length--) {
        entity = find_entity(text + 1, length);
        if (!entity || !entity->bare)
            continue;
        text_buffer_add(to, entity->text, strlen(entity->text));
        return 1 + length;
    }
    return 0;
}

void prompt_unescape(const char *text, size_t bytes, struct text_buffer *to)
{
    for (size_t at = 0; at < bytes;) {
        size_t taken = 0;
        if (text[at] == '&' && at + 1 < bytes)
            taken = text[at + 1] == '#' ? take_number(text + at, bytes - at, to)
                                        : take_name(text + at, bytes - at, to);
        if (taken == 0) {
            text_buffer_add(to, text + at, 1);
            taken = 1;
        }
        at += taken;
    }
}

/* ftfy's: whole references only, and none that would leave a semicolon. */
static size_t take_whole(const char *text, size_t bytes, struct text_buffer *to)
{
    const size_t start = bytes > 1 && text[1] == '#' ? 2 : 1, before = to->bytes;
    size_t end = start;
    while (end < bytes && end - start < 24 &&
           (is_digit(text[end], 10) || ((text[end] | 32) >= 'a' && (text[end] | 32) <= 'z')))
        end++;
    if (end == start || end == bytes || text[end] != ';')
        return 0;
    if (start == 1) {
        const struct html_entity *entity = find_entity(text + 1, end - 1);
        if (!entity)
            return 0;
        text_buffer_add(to, entity->text, strlen(entity->text));
        return end + 1;
    }
    if (take_number(text, end + 1, to) == end + 1 &&
        !(to->bytes == before + 1 && to->data[before] == ';'))
        return end + 1;
    to->bytes = before;
    return 0;
}

static void unescape_whole(const struct text_buffer *from, struct text_buffer *to)
{
    for (size_t at = 0; at < from->bytes;) {
        size_t taken =
            from->data[at] == '&' ? take_whole(from->data + at, from->bytes - at, to) : 0;
        if (taken == 0) {
            text_buffer_add(to, from->data + at, 1);
            taken = 1;
        }
        at += taken;
    }
}

/* -- characters -------------------------------------------------------------------------------- */

static void add_mapped(struct text_buffer *to, const char *text, size_t bytes, int options)
{
    utf8proc_uint8_t *mapped = NULL;
    const utf8proc_ssize_t length =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)bytes, &mapped,
                     (utf8proc_option_t)options);
    if (length < 0) /* the text is valid UTF-8, so what failed is memory */
        to->failed = true;
    else
        text_buffer_add(to, (const char *)mapped, (size_t)length);
    free(mapped);
}

static void add_narrowed(struct text_buffer *to, uint32_t code)
{
    char text[4];
    const size_t bytes = utf8_put(code, text);
    if (code == 0x3000)
        text_buffer_add(to, " ", 1);
    else if (code >= 0xFF01 && code <= 0xFFEF) /* full and half width */
        add_mapped(to, text, bytes, UTF8PROC_STABLE | UTF8PROC_COMPAT | UTF8PROC_COMPOSE);
    else if (code == 0x2BC || (code >= 0x2018 && code <= 0x201B))
        text_buffer_add(to, "'", 1);
    else if (code >= 0x201C && code <= 0x201F)
        text_buffer_add(to, "\"", 1);
    else
        text_buffer_add(to, text, bytes);
}

static const char *ligature(uint32_t code)
{
    static const struct {
        uint32_t code;
        const char *letters;
    } known[] = {
        {0x132, "IJ"},       {0x133, "ij"},  {0x149, "'n"},      {0x1F1, "DZ"},
        {0x1F2, "Dz"},       {0x1F3, "dz"},  {0x1C4, "D\u017d"}, {0x1C5, "D\u017e"},
        {0x1C6, "d\u017e"},  {0x1C7, "LJ"},  {0x1C8, "Lj"},      {0x1C9, "lj"},
        {0x1CA, "NJ"},       {0x1CB, "Nj"},  {0x1CC, "nj"},      {0xFB00, "ff"},
        {0xFB01, "fi"},      {0xFB02, "fl"}, {0xFB03, "ffi"},    {0xFB04, "ffl"},
        {0xFB05, "\u017ft"}, {0xFB06, "st"},
    };
    for (size_t i = 0; i < COUNT(known); i++)
        if (known[i].code == code)
            return known[i].letters;
    return NULL;
}

static void fix_characters(const struct text_buffer *from, struct text_buffer *to)
{
    for (size_t at = 0; at < from->bytes;) {
        uint32_t code;
        bool valid;
        at += utf8_take(from->data + at, from->bytes - at, &code, &valid);
        code = windows_1252(code) ? windows_1252(code) : code;
        const char *letters = ligature(code);
        if (letters)
            text_buffer_add(to, letters, strlen(letters));
        else
            add_narrowed(to, code);
    }
}

/* -- controls ---------------------------------------------------------------------------------- */

/* "ESC [ 31 ; 1 m": its length, or 0. */
static size_t terminal_escape(const char *text, size_t bytes)
{
    size_t at = 2;
    if (bytes < 3 || text[0] != 0x1B || text[1] != '[')
        return 0;
    while (at < bytes && (is_digit(text[at], 10) || text[at] == ';'))
        at++;
    return at < bytes && (text[at] | 32) >= 'a' && (text[at] | 32) <= 'z' ? at + 1 : 0;
}

static bool is_control(uint32_t code)
{
    return code <= 8 || code == 0xB || (code >= 0xE && code <= 0x1F) || code == 0x7F ||
           (code >= 0x206A && code <= 0x206F) || code == 0xFEFF ||
           (code >= 0xFFF9 && code <= 0xFFFC);
}

static void remove_controls(const struct text_buffer *from, struct text_buffer *to)
{
    for (size_t at = 0; at < from->bytes;) {
        const char *text = from->data + at;
        const size_t left = from->bytes - at, escape = terminal_escape(text, left);
        uint32_t code;
        bool valid;
        const size_t bytes = utf8_take(text, left, &code, &valid);
        at += escape ? escape : bytes;
        if (escape || is_control(code) || (code == '\r' && left > 1 && text[1] == '\n'))
            continue;
        if (code == '\r' || code == 0x2028 || code == 0x2029 || code == 0x85)
            text_buffer_add(to, "\n", 1);
        else
            text_buffer_add(to, text, bytes);
    }
}

/* -- the whole --------------------------------------------------------------------------------- */

static void swap(struct text_buffer *a, struct text_buffer *b)
{
    const struct text_buffer kept = *a;
    *a = *b;
    *b = kept;
    b->bytes = 0;
}

/* One line, until nothing changes: a turn peels one level off "&amp;amp;lt;". Nobody writes as many
 * as TURNS_MAX; a prompt made to waste time ends there. */
static void fix_line(const char *line, size_t bytes, bool references, struct text_buffer *to)
{
    struct text_buffer text = {0}, before = {0}, next = {0};
    text_buffer_add(&text, line, bytes);
    int turns = 0;
    do {
        before.bytes = 0;
        text_buffer_add(&before, text.data, text.bytes);
        if (references && memchr(text.data ? text.data : "", '<', text.bytes))
            references = false;
        if (references) {
            unescape_whole(&text, &next);
            swap(&text, &next);
        }
        fix_characters(&text, &next);
        swap(&text, &next);
        remove_controls(&text, &next);
        swap(&text, &next);
        if (text.bytes > 0)
            add_mapped(&next, text.data, text.bytes, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        swap(&text, &next);
        to->failed = to->failed || text.failed || before.failed || next.failed;
    } while (!to->failed && text.bytes > 0 && ++turns < TURNS_MAX &&
             (text.bytes != before.bytes || memcmp(text.data, before.data, text.bytes) != 0));
    text_buffer_add(to, text.data, text.bytes);
    text_buffer_fini(&text);
    text_buffer_fini(&before);
    text_buffer_fini(&next);
}

static void fix_text(const struct text_buffer *from, struct text_buffer *to)
{
    bool references = true; /* markup in a line: nor in those behind it */
    for (size_t at = 0; at < from->bytes && !to->failed;) {
        const char *line = from->data + at, *end = memchr(line, '\n', from->bytes - at);
        const size_t bytes = end ? (size_t)(end - line) + 1 : from->bytes - at;
        references = references && !memchr(line, '<', bytes);
        fix_line(line, bytes, references, to);
        at += bytes;
    }
}

static bool is_space(uint32_t code)
{
    return (code >= 9 && code <= 13) || (code >= 0x1C && code <= 0x20) || code == 0x85 ||
           code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
           code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

static void collapse_spaces(const struct text_buffer *from, struct text_buffer *to)
{
    bool pending = false;
    for (size_t at = 0; at < from->bytes;) {
        uint32_t code;
        bool valid;
        const size_t bytes = utf8_take(from->data + at, from->bytes - at, &code, &valid);
        if (is_space(code)) {
            pending = to->bytes > 0;
        } else {
            text_buffer_add(to, " ", pending ? 1 : 0);
            text_buffer_add(to, from->data + at, bytes);
            pending = false;
        }
        at += bytes;
    }
}

void prompt_clean(const char *prompt, size_t bytes, struct text_buffer *to)
{
    struct text_buffer text = {0}, next = {0};
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        bool valid;
        at += utf8_take(prompt + at, bytes - at, &code, &valid);
        add_code(&text, code);
    }
    fix_text(&text, &next);
    swap(&text, &next);
    for (int turn = 0; turn < 2; turn++) {
        prompt_unescape(text.data, text.bytes, &next);
        swap(&text, &next);
    }
    collapse_spaces(&text, to);
    to->failed = to->failed || text.failed || next.failed;
    text_buffer_fini(&text);
    text_buffer_fini(&next);
}
