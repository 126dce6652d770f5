/* Text as the pieces of a vocabulary expect it (encoders.md 7.2): its character map, its rules for
 * white space, spaces as U+2581. As libsentencepiece does. */
#pragma once

#include "worker/model/text_buffer.h"
#include "worker/model/vocabulary.h"

void normalize_text(const struct vocabulary *vocabulary, const char *text, size_t bytes,
                    struct text_buffer *to);
/* Characters only: no prefix, white space as it is. */
void normalize_characters(const struct vocabulary *vocabulary, const char *text, size_t bytes,
                          struct text_buffer *to);
