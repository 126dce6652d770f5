/* UTF-8, one character at a time. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the character that `text` begins with, its code point in *code. Malformed (cut short,
 * overlong, a surrogate, beyond U+10FFFF): 1 byte and U+FFFD, *valid_out false. bytes >= 1. */
size_t utf8_take(const char *text, size_t bytes, uint32_t *code_out, bool *valid_out);
/* 1 to 4 bytes, no terminator. */
size_t utf8_put(uint32_t code, char to[4]);
