/* If a digest were wrong, two workers would take different bytes for the same blob, and a damaged
 * frame for a whole one. */
#include "tests/test.h"

#include "common/digest.h"

#include <stdlib.h>

static void sha256_published_vectors(void **state)
{
    (void)state;
    static const struct {
        const char *text, *hex;
    } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        char hex[LT_DIGEST_HEX];
        const struct lt_digest digest = lt_sha256(cases[i].text, strlen(cases[i].text));
        lt_digest_format(&digest, hex);
        assert_string_equal(hex, cases[i].hex);
        struct lt_digest back;
        assert_true(lt_digest_parse(hex, &back));
        assert_true(lt_digest_equal(&back, &digest));
    }
}

static void sha256_of_a_million_a_in_pieces(void **state)
{
    (void)state;
    char *text = malloc(1000000);
    memset(text, 'a', 1000000);
    struct lt_sha256 hash;
    lt_sha256_begin(&hash);
    for (size_t at = 0, size = 1; at < 1000000; at += size, size = (size * 7 + 3) % 997 + 1)
        lt_sha256_add(&hash, text + at, size < 1000000 - at ? size : 1000000 - at);
    const struct lt_digest digest = lt_sha256_end(&hash);
    char hex[LT_DIGEST_HEX];
    lt_digest_format(&digest, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(text);
}

static void crc32c_published_vectors(void **state)
{
    (void)state;
    uint8_t bytes[32];
    assert_int_equal(lt_crc32c(0, "123456789", 9), 0xE3069283);
    memset(bytes, 0, 32);
    assert_int_equal(lt_crc32c(0, bytes, 32), 0x8A9136AA);
    memset(bytes, 0xFF, 32);
    assert_int_equal(lt_crc32c(0, bytes, 32), 0x62A8AB43);
    assert_int_equal(lt_crc32c(lt_crc32c(0, "1234", 4), "56789", 5), 0xE3069283);
}

static void bad_hex_is_refused(void **state)
{
    (void)state;
    struct lt_digest digest;
    assert_false(lt_digest_parse("", &digest));
    assert_false(lt_digest_parse("e3b0", &digest));
    assert_false(lt_digest_parse("g3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                                 &digest));
    assert_false(lt_digest_parse(
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8550", &digest));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_published_vectors),
        cmocka_unit_test(sha256_of_a_million_a_in_pieces),
        cmocka_unit_test(crc32c_published_vectors),
        cmocka_unit_test(bad_hex_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
