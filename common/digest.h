/* SHA-256 (content addresses, identities) and CRC-32C (wire frames). Own code: both are small, need
 * no dependency in a library that has none, and are held to the published vectors. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LT_DIGEST_BYTES = 32, LT_DIGEST_HEX = 65 };

struct lt_digest {
    uint8_t byte[LT_DIGEST_BYTES];
};

struct lt_sha256 {
    uint32_t state[8];
    uint64_t bytes;
    uint8_t block[64];
};

void lt_sha256_begin(struct lt_sha256 *hash);
void lt_sha256_add(struct lt_sha256 *hash, const void *data, size_t bytes);
struct lt_digest lt_sha256_end(struct lt_sha256 *hash);
struct lt_digest lt_sha256(const void *data, size_t bytes);

bool lt_digest_equal(const struct lt_digest *a, const struct lt_digest *b);
bool lt_digest_is_zero(const struct lt_digest *digest);
void lt_digest_format(const struct lt_digest *digest, char hex_out[LT_DIGEST_HEX]);
bool lt_digest_parse(const char *hex, struct lt_digest *digest_out); /* exactly 64 hex digits */

/* CRC-32C (Castagnoli), start with 0; lt_crc32c(lt_crc32c(0, a), b) is the CRC of a then b. */
uint32_t lt_crc32c(uint32_t crc, const void *data, size_t bytes);
