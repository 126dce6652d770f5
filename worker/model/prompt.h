/* A prompt as the original Wan cleans it (encoders.md 6.4): ftfy.fix_text, html.unescape twice,
 * white space collapsed. The repair of mojibake is left out: it guesses, and prompts are typed. */
#pragma once

#include "worker/model/text_buffer.h"

/* Malformed UTF-8 becomes U+FFFD. `to` starts empty. */
void prompt_clean(const char *prompt, size_t bytes, struct text_buffer *to);
/* Python's html.unescape: numbers and names of HTML 5, the semicolon often missing. */
void prompt_unescape(const char *text, size_t bytes, struct text_buffer *to);
