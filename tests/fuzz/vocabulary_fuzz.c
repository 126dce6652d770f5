/* Any bytes as a sentencepiece model: refused with a text, or a vocabulary with which any text is
 * cut into ids that exist. The text is the end of the input itself. */
#include "worker/model/tokenizer.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lt_error error = {0};
    struct vocabulary *vocabulary = NULL;
    if (vocabulary_parse(data, size, "fuzz", &vocabulary, &error) != LT_OK) {
        lt_assert(error.text[0] != 0 && !vocabulary);
        return 0;
    }
    const size_t bytes = size < 48 ? size : 48;
    for (int style = TOKENIZER_WAN; style <= TOKENIZER_COMFY; style++) {
        int32_t *tokens = NULL;
        size_t count = 0;
        lt_assert(tokenizer_encode(vocabulary, (const char *)data + size - bytes, bytes,
                                   (enum tokenizer_style)style, &tokens, &count, &error) == LT_OK);
        lt_assert(count > 0 && tokens[count - 1] == vocabulary_rules(vocabulary)->end);
        /* sentinels of the original stand behind the pieces */
        for (size_t i = 0; i < count; i++)
            lt_assert(tokens[i] >= 0 && (size_t)tokens[i] < vocabulary_count(vocabulary) + 300);
        free(tokens);
    }
    vocabulary_close(&vocabulary);
    return 0;
}
