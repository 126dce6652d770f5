#include "common/digest.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static const uint32_t round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t x, int by)
{
    return x >> by | x << (32 - by);
}

static void compress_plain(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    for (; blocks > 0; blocks--, data += 64) {
        uint32_t w[64], s[8];
        for (int i = 0; i < 16; i++)
            w[i] = (uint32_t)data[4 * i] << 24 | (uint32_t)data[4 * i + 1] << 16 |
                   (uint32_t)data[4 * i + 2] << 8 | data[4 * i + 3];
        for (int i = 16; i < 64; i++) {
            const uint32_t a = w[i - 15], b = w[i - 2];
            w[i] = w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[i - 7] +
                   (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
        }
        memcpy(s, state, sizeof s);
        for (int i = 0; i < 64; i++) {
            const uint32_t e = s[4], a = s[0];
            const uint32_t t1 = s[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) +
                                ((e & s[5]) ^ (~e & s[6])) + round_constants[i] + w[i];
            const uint32_t t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) +
                                ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
            memmove(s + 1, s, 7 * sizeof s[0]);
            s[4] += t1;
            s[0] = t1 + t2;
        }
        for (int i = 0; i < 8; i++)
            state[i] += s[i];
    }
}

#if defined(__x86_64__)
/* The processor's own SHA-256 rounds: about eight times the plain speed, so digests of latents cost
 * little. */
__attribute__((target("sha,sse4.1,ssse3"))) static void
compress_sha_ni(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bll, 0x0405060700010203ll);
    const __m128i low = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xB1);
    const __m128i high = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1B);
    __m128i abef = _mm_alignr_epi8(low, high, 8);
    __m128i cdgh = _mm_blend_epi16(high, low, 0xF0);
    for (; blocks > 0; blocks--, data += 64) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4];
        for (int i = 0; i < 4; i++)
            w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(data + 16 * i)), swap);
        for (int i = 0; i < 16; i++) {
            const __m128i k = _mm_loadu_si128((const __m128i *)(round_constants + 4 * i));
            const __m128i sum = _mm_add_epi32(w[i & 3], k);
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0E));
            if (i < 12) {
                const __m128i middle = _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4);
                const __m128i partial =
                    _mm_add_epi32(_mm_sha256msg1_epu32(w[i & 3], w[(i + 1) & 3]), middle);
                w[i & 3] = _mm_sha256msg2_epu32(partial, w[(i + 3) & 3]);
            }
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    const __m128i feba = _mm_shuffle_epi32(abef, 0x1B);
    const __m128i dchg = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(feba, dchg, 0xF0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

static bool has_sha_ni(void)
{
    unsigned a = 7, b = 0, c = 0, d = 0;
    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return (b >> 29 & 1) && __builtin_cpu_supports("sse4.1");
}
#endif

static void compress(uint32_t state[8], const uint8_t *data, size_t blocks)
{
#if defined(__x86_64__)
    static _Atomic int known; /* 0: not asked yet, 1: no, 2: yes; a race only asks twice */
    if (known == 0)
        known = has_sha_ni() ? 2 : 1;
    if (known == 2) {
        compress_sha_ni(state, data, blocks);
        return;
    }
#endif
    compress_plain(state, data, blocks);
}

void lt_sha256_begin(struct lt_sha256 *hash)
{
    *hash = (struct lt_sha256){.state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f,
                                         0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
}

void lt_sha256_add(struct lt_sha256 *hash, const void *data, size_t bytes)
{
    const uint8_t *from = data;
    const size_t held = hash->bytes % 64;
    hash->bytes += bytes;
    if (held) {
        const size_t part = bytes < 64 - held ? bytes : 64 - held;
        memcpy(hash->block + held, from, part);
        from += part;
        bytes -= part;
        if (held + part < 64)
            return;
        compress(hash->state, hash->block, 1);
    }
    if (bytes >= 64)
        compress(hash->state, from, bytes / 64);
    if (bytes % 64)
        memcpy(hash->block, from + bytes / 64 * 64, bytes % 64);
}

struct lt_digest lt_sha256_end(struct lt_sha256 *hash)
{
    const uint64_t bits = hash->bytes * 8;
    uint8_t tail[72] = {0x80};
    const size_t held = hash->bytes % 64;
    const size_t padding = (held < 56 ? 56 : 120) - held;
    for (int i = 0; i < 8; i++)
        tail[padding + i] = (uint8_t)(bits >> (56 - 8 * i));
    lt_sha256_add(hash, tail, padding + 8);
    struct lt_digest digest;
    for (int i = 0; i < 32; i++)
        digest.byte[i] = (uint8_t)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
    return digest;
}

struct lt_digest lt_sha256(const void *data, size_t bytes)
{
    struct lt_sha256 hash;
    lt_sha256_begin(&hash);
    lt_sha256_add(&hash, data, bytes);
    return lt_sha256_end(&hash);
}

bool lt_digest_equal(const struct lt_digest *a, const struct lt_digest *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

bool lt_digest_is_zero(const struct lt_digest *digest)
{
    return lt_digest_equal(digest, &(struct lt_digest){{0}});
}

void lt_digest_format(const struct lt_digest *digest, char hex_out[LT_DIGEST_HEX])
{
    for (int i = 0; i < LT_DIGEST_BYTES; i++) {
        hex_out[2 * i] = "0123456789abcdef"[digest->byte[i] >> 4];
        hex_out[2 * i + 1] = "0123456789abcdef"[digest->byte[i] & 15];
    }
    hex_out[2 * LT_DIGEST_BYTES] = 0;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

bool lt_digest_parse(const char *hex, struct lt_digest *digest_out)
{
    struct lt_digest digest;
    if (strnlen(hex, LT_DIGEST_HEX) != 2 * LT_DIGEST_BYTES)
        return false;
    for (int i = 0; i < LT_DIGEST_BYTES; i++) {
        const int high = hex_value(hex[2 * i]), low = hex_value(hex[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        digest.byte[i] = (uint8_t)(high << 4 | low);
    }
    *digest_out = digest;
    return true;
}

static uint32_t crc32c_plain(uint32_t crc, const uint8_t *data, size_t bytes)
{
    for (; bytes > 0; bytes--) {
        crc ^= *data++;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0x82F63B78u & (0u - (crc & 1)));
    }
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const uint8_t *data,
                                                               size_t bytes)
{
    uint64_t wide = crc;
    for (; bytes >= 8; bytes -= 8, data += 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        wide = _mm_crc32_u64(wide, word);
    }
    crc = (uint32_t)wide;
    for (; bytes > 0; bytes--)
        crc = _mm_crc32_u8(crc, *data++);
    return crc;
}
#endif

uint32_t lt_crc32c(uint32_t crc, const void *data, size_t bytes)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return ~crc32c_sse42(~crc, data, bytes);
#endif
    return ~crc32c_plain(~crc, data, bytes);
}
