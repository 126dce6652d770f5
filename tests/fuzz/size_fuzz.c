/* Any text as a size ("1.5GiB"): refused and the output untouched, or a number that its own shown
 * form is near to. */
#include "common/option.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[256], shown[32];
    if (size >= sizeof text)
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    const uint64_t untouched = 0x0123456789abcdef;
    uint64_t bytes = untouched, again = 0;
    if (!lt_size_parse(text, &bytes)) {
        lt_assert(bytes == untouched);
        return 0;
    }
    lt_size_format(bytes, shown);
    lt_assert(lt_size_parse(shown, &again));
    const uint64_t difference = again > bytes ? again - bytes : bytes - again;
    lt_assert(difference <= bytes / 10);
    return 0;
}
