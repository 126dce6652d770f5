#include "proto/frame.h"

#include <string.h>

static void put16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, (uint16_t)value);
    put16(at + 2, (uint16_t)(value >> 16));
}

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)get16(at) | (uint32_t)get16(at + 2) << 16;
}

void lt_frame_encode(const struct lt_frame_header *header, uint8_t out[LT_FRAME_HEADER_BYTES])
{
    out[0] = 'L';
    out[1] = 'T';
    out[2] = header->major;
    out[3] = header->minor;
    put16(out + 4, header->kind);
    put16(out + 6, header->flags);
    put32(out + 8, header->sequence);
    put32(out + 12, header->crc32c);
}

lt_status lt_frame_decode(const uint8_t *data, size_t bytes, struct lt_frame_header *header_out,
                          struct lt_error *error)
{
    if (bytes != LT_FRAME_HEADER_BYTES || data[0] != 'L' || data[1] != 'T')
        return lt_fail(error, LT_BAD_INPUT, "frame: a header of %zu bytes that is not ours", bytes);
    *header_out = (struct lt_frame_header){data[2],         data[3],         get16(data + 4),
                                           get16(data + 6), get32(data + 8), get32(data + 12)};
    if (header_out->major != LT_WIRE_MAJOR)
        return lt_fail(error, LT_UNSUPPORTED, "frame: wire version %u, this program speaks %d",
                       header_out->major, LT_WIRE_MAJOR);
    return LT_OK;
}

lt_status lt_frame_pack(const struct lt_message *message, uint32_t sequence, struct lt_arena *arena,
                        uint8_t header_out[LT_FRAME_HEADER_BYTES], uint8_t **body_out,
                        size_t *body_bytes_out, struct lt_error *error)
{
    LT_TRY(lt_message_encode(message, arena, body_out, body_bytes_out, error));
    const struct lt_frame_header header = {LT_WIRE_MAJOR,
                                           LT_WIRE_MINOR,
                                           (uint16_t)message->kind,
                                           0,
                                           sequence,
                                           lt_crc32c(0, *body_out, *body_bytes_out)};
    lt_frame_encode(&header, header_out);
    return LT_OK;
}

lt_status lt_frame_unpack(const uint8_t *header, size_t header_bytes, const uint8_t *body,
                          size_t body_bytes, size_t payload_bytes, bool from_worker,
                          struct lt_arena *arena, struct lt_message *message_out,
                          struct lt_error *error)
{
    struct lt_frame_header h;
    LT_TRY(lt_frame_decode(header, header_bytes, &h, error));
    if (h.kind == LT_MESSAGE_NONE || h.kind >= LT_MESSAGE_COUNT)
        return lt_fail(error, LT_UNSUPPORTED, "frame: message kind %u is not known", h.kind);
    const enum lt_message_kind kind = (enum lt_message_kind)h.kind;
    if (from_worker ? !lt_message_from_worker(kind) : !lt_message_from_coordinator(kind))
        return lt_fail(error, LT_BAD_INPUT, "frame: %s does not come from this side",
                       lt_message_name(kind));
    if (body_bytes > LT_BODY_BYTES_MAX)
        return lt_fail(error, LT_BAD_INPUT, "frame: %s has a body of %zu bytes, at most %d",
                       lt_message_name(kind), body_bytes, LT_BODY_BYTES_MAX);
    if ((payload_bytes > 0) != (kind == LT_MESSAGE_CHUNK) || payload_bytes > LT_CHUNK_BYTES_MAX)
        return lt_fail(error, LT_BAD_INPUT, "frame: %s with a payload of %zu bytes",
                       lt_message_name(kind), payload_bytes);
    if (lt_crc32c(0, body, body_bytes) != h.crc32c)
        return lt_fail(error, LT_BAD_INPUT, "frame: the body of %s is damaged (CRC)",
                       lt_message_name(kind));
    return lt_message_decode(kind, body, body_bytes, arena, message_out, error);
}
