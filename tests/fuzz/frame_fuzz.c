/* Any bytes as the parts of a packet, at both ends. Input: [flags][header 16][body]. Bit 0 of
 * flags: which side sent it; bit 1: with a payload; bit 2: the CRC is mended first, so that bodies
 * behind it are reached. */
#include "common/digest.h"
#include "proto/frame.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lt_error error = {0};
    struct lt_arena arena;
    struct lt_message message;
    uint8_t header[LT_FRAME_HEADER_BYTES] = {0};
    if (size == 0)
        return 0;
    const uint8_t flags = data[0];
    const size_t header_bytes = size - 1 < sizeof header ? size - 1 : sizeof header;
    const uint8_t *body = data + 1 + header_bytes;
    const size_t body_bytes = size - 1 - header_bytes;
    memcpy(header, data + 1, header_bytes);
    if (flags & 4) {
        const uint32_t crc = lt_crc32c(0, body, body_bytes);
        for (int i = 0; i < 4; i++)
            header[12 + i] = (uint8_t)(crc >> 8 * i);
    }
    lt_arena_init(&arena, 16 << 20);
    const bool from_worker = flags & 1;
    const size_t payload_bytes = flags & 2 ? 64 : 0;
    const lt_status status = lt_frame_unpack(header, header_bytes, body, body_bytes, payload_bytes,
                                             from_worker, &arena, &message, &error);
    if (status != LT_OK) {
        lt_assert(error.text[0] != 0);
    } else {
        lt_assert(from_worker ? lt_message_from_worker(message.kind)
                              : lt_message_from_coordinator(message.kind));
        lt_assert(payload_bytes == 0 || message.kind == LT_MESSAGE_CHUNK);
    }
    lt_arena_fini(&arena);
    return 0;
}
