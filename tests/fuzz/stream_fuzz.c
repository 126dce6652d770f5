/* A sender that says what it likes: chunks of any offset, size and checksum. The receiver keeps
 * inside its blob and its credit, and calls only the right bytes right. Input: a list of
 * [what][offset 2][size 2]. */
#include "common/digest.h"
#include "proto/stream.h"

#include <string.h>

enum { BLOB_BYTES = 5000, WINDOW = 2000 };

static uint8_t blob[BLOB_BYTES];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lt_error error = {0};
    struct lt_stream_receiver receiver;
    uint64_t offset, credit;
    for (size_t i = 0; i < sizeof blob; i++)
        blob[i] = (uint8_t)(i * 31 + (i >> 8));
    const struct lt_digest digest = lt_sha256(blob, sizeof blob);
    lt_assert(lt_stream_receiver_open(&receiver, 1, &digest, sizeof blob, WINDOW, &error) == LT_OK);
    lt_stream_receiver_reopen(&receiver, 1, &offset, &credit);
    bool lied = false, open = true;
    for (size_t i = 0; open && i + 5 <= size; i += 5) {
        const size_t at = data[i + 1] | (size_t)data[i + 2] << 8,
                     bytes = (data[i + 3] | (size_t)data[i + 4] << 8) % 8192;
        uint8_t payload[8192] = {0};
        const bool inside = at <= sizeof blob && bytes <= sizeof blob - at;
        if (inside)
            memcpy(payload, blob + at, bytes);
        if (data[i] & 1 && bytes > 0)
            payload[bytes / 2] ^= 1;
        struct lt_chunk chunk = {.stream = data[i] & 2 ? 2 : 1,
                                 .offset = data[i] & 4 ? UINT64_MAX - at : at,
                                 .crc32c = lt_crc32c(0, payload, bytes) ^ (data[i] & 8 ? 1u : 0u)};
        if (data[i] & 16)
            chunk.offset = receiver.offset;
        const uint64_t before = receiver.offset;
        if (lt_stream_receiver_chunk(&receiver, &chunk, payload, bytes, &credit, &error) != LT_OK)
            open = false;
        lt_assert(receiver.offset >= before && receiver.offset <= sizeof blob &&
                  receiver.offset <= receiver.granted);
        lied |= receiver.offset > before &&
                memcmp(receiver.data + before, blob + before, receiver.offset - before) != 0;
    }
    if (lt_stream_receiver_done(&receiver))
        lt_assert(lt_stream_receiver_verify(&receiver) == !lied);
    lt_stream_receiver_close(&receiver);
    return 0;
}
