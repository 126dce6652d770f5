/* A small forward scanner for JSON that other programs wrote (the headers of safetensors files): no
 * tree, no allocation, bounded depth. The caller walks the text and skips what it does not know. */
#pragma once

#include "common/status.h"

struct lt_json_scan {
    const char *at, *end;
    int depth;
};

enum { LT_JSON_DEPTH_MAX = 32 };

void lt_json_begin(struct lt_json_scan *scan, const char *text, size_t bytes);
/* Skips white space; the next character, or 0 at the end. */
char lt_json_peek(struct lt_json_scan *scan);
/* Takes `c` if it comes next. */
bool lt_json_take(struct lt_json_scan *scan, char c);
/* A string, unescaped to UTF-8 into `buffer` with a NUL. False: no string here, bad escape, or
 * longer than size-1. */
bool lt_json_string(struct lt_json_scan *scan, char *buffer, size_t size);
/* A number that is a non-negative integer below 2^63. */
bool lt_json_u63(struct lt_json_scan *scan, uint64_t *value_out);
/* Any one value. */
bool lt_json_skip(struct lt_json_scan *scan);
