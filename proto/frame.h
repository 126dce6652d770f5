/* One packet as parts on the wire: [header, 16 bytes][body][payload]. Checked before anything is
 * parsed.
 *
 *   0 magic "LT" · 2 major · 3 minor · 4 kind u16 · 6 flags u16 · 8 sequence u32 · 12 crc32c(body)
 * u32, little endian */
#pragma once

#include "proto/message.h"

enum { LT_FRAME_HEADER_BYTES = 16 };

struct lt_frame_header {
    uint8_t major, minor;
    uint16_t kind, flags;
    uint32_t sequence, crc32c;
};

void lt_frame_encode(const struct lt_frame_header *header, uint8_t out[LT_FRAME_HEADER_BYTES]);
/* LT_BAD_INPUT: not ours; LT_UNSUPPORTED: another major version (header_out is filled, so that it
 * can be answered). */
lt_status lt_frame_decode(const uint8_t *data, size_t bytes, struct lt_frame_header *header_out,
                          struct lt_error *error);

/* Parts of a message: the header is written to `header_out`, the body to the arena. */
lt_status lt_frame_pack(const struct lt_message *message, uint32_t sequence, struct lt_arena *arena,
                        uint8_t header_out[LT_FRAME_HEADER_BYTES], uint8_t **body_out,
                        size_t *body_bytes_out, struct lt_error *error);
/* A message from its parts, for the side that `from_worker` names. Checks sizes, CRC, kind and
 * direction, and that only CHUNK has a payload. */
lt_status lt_frame_unpack(const uint8_t *header, size_t header_bytes, const uint8_t *body,
                          size_t body_bytes, size_t payload_bytes, bool from_worker,
                          struct lt_arena *arena, struct lt_message *message_out,
                          struct lt_error *error);
