/* Prompt to tokens (encoders.md 7): a unigram tokenizer that gives the ids of libsentencepiece
 * (`comfy`: what ComfyUI and llama.cpp run) or those of the original Wan (`wan`: cleaning, one word
 * at a time, no bytes for unknown characters, 512 ids). */
#pragma once

#include "worker/model/vocabulary.h"

enum tokenizer_style {
    TOKENIZER_WAN,
    TOKENIZER_COMFY,
};

enum { TOKENIZER_WAN_TOKENS_MAX = 512, TOKENIZER_PROMPT_BYTES_MAX = 64 * 1024 };

/* "wan" or "comfy"; LT_USAGE otherwise. */
lt_status tokenizer_style_parse(const char *text, enum tokenizer_style *style_out,
                                struct lt_error *error);

/* malloc'ed ids, `</s>` last: never fewer than one. The prompt is any bytes; malformed UTF-8
 * becomes U+FFFD. LT_BAD_INPUT: a prompt of more than TOKENIZER_PROMPT_BYTES_MAX. */
lt_status tokenizer_encode(const struct vocabulary *vocabulary, const char *prompt, size_t bytes,
                           enum tokenizer_style style, int32_t **tokens_out, size_t *count_out,
                           struct lt_error *error);
