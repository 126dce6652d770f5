/* Any bytes as the body of any message: refused with a text, or a message within the limits of the
 * wire that encodes and decodes again to the same body. The first byte chooses the kind. */
#include "proto/message.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lt_error error = {0};
    struct lt_arena arena;
    struct lt_message message, again;
    uint8_t *body, *second;
    size_t body_bytes, second_bytes;
    if (size == 0 || data[0] <= LT_MESSAGE_NONE ||
        data[0] >= LT_MESSAGE_COUNT) /* the frame's check */
        return 0;
    lt_arena_init(&arena, 16 << 20);
    if (lt_message_decode((enum lt_message_kind)data[0], data + 1, size - 1, &arena, &message,
                          &error) != LT_OK) {
        lt_assert(error.text[0] != 0);
    } else {
        lt_assert(message.kind == (enum lt_message_kind)data[0] &&
                  lt_message_name(message.kind)[0] != 0);
        lt_assert(lt_message_encode(&message, &arena, &body, &body_bytes, &error) == LT_OK);
        lt_assert(lt_message_decode(message.kind, body, body_bytes, &arena, &again, &error) ==
                  LT_OK);
        lt_assert(lt_message_encode(&again, &arena, &second, &second_bytes, &error) == LT_OK);
        lt_assert(body_bytes == second_bytes &&
                  (body_bytes == 0 || memcmp(body, second, body_bytes) == 0));
    }
    lt_arena_fini(&arena);
    return 0;
}
