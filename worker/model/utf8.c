#include "worker/model/utf8.h"

size_t utf8_take(const char *text, size_t bytes, uint32_t *code_out, bool *valid_out)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t lead = (uint8_t)text[0];
    const size_t length = lead < 0x80 ? 1 : lead < 0xC0 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    uint32_t code = length == 1 ? lead : lead & (0xFFu >> (length + 1));
    bool valid = length > 0 && length <= bytes && lead < 0xF8;
    for (size_t i = 1; valid && i < length; i++) {
        valid = ((uint8_t)text[i] & 0xC0) == 0x80;
        code = code << 6 | ((uint8_t)text[i] & 0x3F);
    }
    valid = valid && code >= least[length] && code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
    *code_out = valid ? code : 0xFFFD;
    *valid_out = valid;
    return valid ? length : 1;
}

size_t utf8_put(uint32_t code, char to[4])
{
    if (code < 0x80) {
        to[0] = (char)code;
        return 1;
    }
    const size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--, code >>= 6)
        to[i] = (char)(0x80 | (code & 0x3F));
    to[0] = (char)((0xF00u >> length) | code);
    return length;
}
