/* Any bytes as a prompt: what comes out is valid UTF-8 without white space at its ends or twice in
 * a row. */
#include "worker/model/prompt.h"
#include "worker/model/utf8.h"

#include "common/status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct text_buffer clean = {0};
    prompt_clean((const char *)data, size, &clean);
    lt_assert(!clean.failed);
    for (size_t at = 0; at < clean.bytes;) {
        uint32_t code;
        bool valid;
        const size_t bytes = utf8_take(clean.data + at, clean.bytes - at, &code, &valid);
        lt_assert(valid);
        if (code == ' ')
            lt_assert(at > 0 && at + 1 < clean.bytes && clean.data[at + 1] != ' ');
        at += bytes;
    }
    text_buffer_fini(&clean);
    return 0;
}
