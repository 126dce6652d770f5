#include "common/json_scan.h"

#include <string.h>

void lt_json_begin(struct lt_json_scan *scan, const char *text, size_t bytes)
{
    *scan = (struct lt_json_scan){text, text + bytes, 0};
}

char lt_json_peek(struct lt_json_scan *scan)
{
    while (scan->at < scan->end &&
           (*scan->at == ' ' || *scan->at == '\n' || *scan->at == '\t' || *scan->at == '\r'))
        scan->at++;
    return scan->at < scan->end ? *scan->at : 0;
}

bool lt_json_take(struct lt_json_scan *scan, char c)
{
    if (lt_json_peek(scan) != c || c == 0)
        return false;
    scan->at++;
    return true;
}

static bool hex4(struct lt_json_scan *scan, uint32_t *value_out)
{
    uint32_t value = 0;
    if (scan->end - scan->at < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        const char c = *scan->at++;
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0)
            return false;
        value = value << 4 | (uint32_t)digit;
    }
    *value_out = value;
    return true;
}

static size_t utf8(uint32_t code, char out[4])
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    const size_t extra = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    for (size_t i = extra; i > 0; i--, code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3F));
    out[0] = (char)((0xF00 >> extra & 0xFF) | code);
    return extra + 1;
}

/* After a backslash: the characters it stands for; 0 when it is not an escape. */
static size_t escape(struct lt_json_scan *scan, char out[4])
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (scan->at >= scan->end)
        return 0;
    const char c = *scan->at++;
    const char *known = c ? strchr(from, c) : NULL;
    if (known) {
        out[0] = to[known - from];
        return 1;
    }
    uint32_t code, low;
    if (c != 'u' || !hex4(scan, &code))
        return 0;
    if (code >= 0xD800 && code < 0xDC00) {
        if (scan->end - scan->at < 6 || scan->at[0] != '\\' || scan->at[1] != 'u')
            return 0;
        scan->at += 2;
        if (!hex4(scan, &low) || low < 0xDC00 || low > 0xDFFF)
            return 0;
        code = 0x10000 + ((code - 0xD800) << 10 | (low - 0xDC00));
    } else if (code == 0 || (code >= 0xDC00 && code < 0xE000)) {
        return 0; /* a NUL would cut names short */
    }
    return utf8(code, out);
}

bool lt_json_string(struct lt_json_scan *scan, char *buffer, size_t size)
{
    size_t length = 0;
    if (!lt_json_take(scan, '"'))
        return false;
    while (scan->at < scan->end) {
        char piece[4];
        size_t bytes = 1;
        piece[0] = *scan->at++;
        if (piece[0] == '"') {
            buffer[length] = 0;
            return true;
        }
        if ((unsigned char)piece[0] < 0x20)
            return false;
        if (piece[0] == '\\' && (bytes = escape(scan, piece)) == 0)
            return false;
        if (length + bytes >= size)
            return false;
        memcpy(buffer + length, piece, bytes);
        length += bytes;
    }
    return false;
}

bool lt_json_u63(struct lt_json_scan *scan, uint64_t *value_out)
{
    uint64_t value = 0;
    const char *first = (lt_json_peek(scan), scan->at);
    while (scan->at < scan->end && *scan->at >= '0' && *scan->at <= '9') {
        const uint64_t digit = (uint64_t)(*scan->at++ - '0');
        if (value > (INT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    if (scan->at == first || (scan->at - first > 1 && *first == '0'))
        return false;
    if (scan->at < scan->end && (*scan->at == '.' || *scan->at == 'e' || *scan->at == 'E'))
        return false;
    *value_out = value;
    return true;
}

static bool skip_string(struct lt_json_scan *scan)
{
    if (!lt_json_take(scan, '"'))
        return false;
    while (scan->at < scan->end) {
        const char c = *scan->at++;
        if (c == '"')
            return true;
        if (c == '\\' && scan->at < scan->end)
            scan->at++;
    }
    return false;
}

static bool skip_members(struct lt_json_scan *scan, char open, char close)
{
    lt_json_take(scan, open);
    if (lt_json_take(scan, close))
        return true;
    do {
        if (open == '{' && (lt_json_peek(scan), !(skip_string(scan) && lt_json_take(scan, ':'))))
            return false;
        if (!lt_json_skip(scan))
            return false;
    } while (lt_json_take(scan, ','));
    return lt_json_take(scan, close);
}

bool lt_json_skip(struct lt_json_scan *scan)
{
    const char c = lt_json_peek(scan);
    if (c == '"')
        return skip_string(scan);
    if (c == '{' || c == '[') {
        if (scan->depth >= LT_JSON_DEPTH_MAX)
            return false;
        scan->depth++;
        const bool whole = skip_members(scan, c, c == '{' ? '}' : ']');
        scan->depth--;
        return whole;
    }
    const char *first = scan->at;
    while (scan->at < scan->end && strchr("+-.0123456789eEaflnrstu", *scan->at) && *scan->at)
        scan->at++;
    return scan->at > first;
}
