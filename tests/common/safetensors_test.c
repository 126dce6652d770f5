/* If this reader trusted a file, a hostile one would crash a worker; if the writer left parts, a
 * resumed job would take half a latent for a whole one. */
#include "tests/test.h"

#include "common/file.h"
#include "common/safetensors.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

static char dir[] = "/tmp/longtake-test-XXXXXX";
static char path[256];

static int make_dir(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof path, "%s/x.safetensors", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    return lt_dir_remove(dir, NULL) != LT_OK;
}

static void put_raw(const char *header, size_t header_bytes, const void *data, size_t bytes)
{
    struct lt_error error;
    uint8_t *all = malloc(8 + header_bytes + bytes);
    for (int i = 0; i < 8; i++)
        all[i] = (uint8_t)((uint64_t)header_bytes >> (8 * i));
    memcpy(all + 8, header, header_bytes);
    memcpy(all + 8 + header_bytes, data, bytes);
    assert_ok(lt_file_write(path, all, 8 + header_bytes + bytes, false, &error));
    free(all);
}

static void written_tensors_read_back(void **state)
{
    (void)state;
    struct lt_error error;
    float a[6] = {1, -2, 3.5f, 0, 1e-8f, 65504};
    uint16_t b[3] = {lt_f32_to_bf16(1.5f), lt_f32_to_bf16(-3), lt_f32_to_bf16(0)};
    const struct lt_named_view tensors[] = {
        {"a \"quoted\"\n", lt_view_2d(a, LT_TYPE_F32, 2, 3)},
        {"b", lt_view_1d(b, LT_TYPE_BF16, 3)},
    };
    const char *const pairs[] = {"job", "x\\y"};
    assert_ok(lt_safetensors_write(path, tensors, 2, pairs, 1, &error));
    struct lt_safetensors *file = NULL;
    assert_ok(lt_safetensors_open(path, &file, &error));
    assert_int_equal(lt_safetensors_count(file), 2);
    assert_string_equal(lt_safetensors_metadata(file, "job"), "x\\y");
    struct lt_view view;
    assert_ok(lt_safetensors_read_f32(file, "a \"quoted\"\n", &view, &error));
    assert_int_equal(view.dim[1], 3);
    assert_memory_equal(view.data, a, sizeof a);
    free(view.data);
    assert_ok(lt_safetensors_read_f32(file, "b", &view, &error));
    assert_true(((float *)view.data)[1] == -3);
    free(view.data);
    assert_fails(lt_safetensors_read_f32(file, "c", &view, &error), LT_NOT_FOUND, "no tensor 'c'");
    lt_safetensors_close(&file);
}

static void an_aborted_writer_leaves_nothing(void **state)
{
    (void)state;
    struct lt_error error;
    float a[4] = {0};
    const struct lt_named_view tensor = {"a", lt_view_1d(a, LT_TYPE_F32, 4)};
    struct lt_safetensors_writer *writer;
    unlink(path);
    assert_ok(lt_safetensors_writer_begin(path, &tensor, 1, &writer, &error));
    assert_ok(lt_safetensors_writer_put(writer, 0, 4, a, 8, &error));
    lt_safetensors_writer_abort(&writer);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(rmdir(dir), 0); /* not even a temporary file */
    assert_ok(lt_dir_create(dir, &error));
}

static void hostile_headers_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *header, *part;
        lt_status status;
    } cases[] = {
        {"", "header is not", LT_BAD_INPUT},
        {"[]", "header is not", LT_BAD_INPUT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}", "header is not",
         LT_BAD_INPUT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,17]}}", "data_offsets",
         LT_BAD_INPUT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,16]}}", "need 12 bytes",
         LT_BAD_INPUT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-4],\"data_offsets\":[0,16]}}", "shape",
         LT_BAD_INPUT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,16]}}",
         "need", LT_BAD_INPUT},
        {"{\"a\":{\"dtype\":\"F8_E8M0\",\"shape\":[16],\"data_offsets\":[0,16]}}", "F8_E8M0",
         LT_UNSUPPORTED},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,4],\"data_offsets\":[0,16]}}",
         "dimensions", LT_UNSUPPORTED},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4]}}", "data_offsets is missing", LT_BAD_INPUT},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[9],\"data_offsets\":[0,9]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[9],\"data_offsets\":[7,16]}}",
         "overlap", LT_BAD_INPUT},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]},"
         "\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[8,16]}}",
         "twice", LT_BAD_INPUT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,99999999999999999999]}}",
         "data_offsets", LT_BAD_INPUT},
        {"{\"__metadata__\":{\"a\":1}}", "__metadata__", LT_BAD_INPUT},
        {"{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}",
         "header is not", LT_BAD_INPUT},
    };
    struct lt_error error;
    const uint8_t data[16] = {0};
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        struct lt_safetensors *file = NULL;
        put_raw(cases[i].header, strlen(cases[i].header), data, sizeof data);
        assert_fails(lt_safetensors_open(path, &file, &error), cases[i].status, cases[i].part);
        assert_non_null(strstr(error.text, path));
        assert_null(file);
    }
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    struct lt_error error;
    float a[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    const struct lt_named_view tensor = {"weights", lt_view_2d(a, LT_TYPE_F32, 2, 4)};
    void *whole;
    size_t bytes;
    assert_ok(lt_safetensors_write(path, &tensor, 1, NULL, 0, &error));
    assert_ok(lt_file_read(path, 1 << 20, &whole, &bytes, &error));
    for (size_t cut = 0; cut < bytes; cut++) {
        struct lt_safetensors *file = NULL;
        assert_ok(lt_file_write(path, whole, cut, false, &error));
        assert_int_not_equal(lt_safetensors_open(path, &file, &error), LT_OK);
    }
    memset(whole, 0xFF, 8); /* header of 2^64 - 1 bytes */
    assert_ok(lt_file_write(path, whole, bytes, false, &error));
    struct lt_safetensors *file = NULL;
    assert_fails(lt_safetensors_open(path, &file, &error), LT_BAD_INPUT, "header of");
    free(whole);
}

/* Every half converts to f32 and back unchanged; every f32 rounds to the nearest half, ties to
 * even. */
static void sixteen_bit_floats_round_trip(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        const float half = lt_f16_to_f32((uint16_t)bits), brain = lt_bf16_to_f32((uint16_t)bits);
        if (!isnan(half))
            assert_int_equal(lt_f32_to_f16(half), bits);
        if (!isnan(brain))
            assert_int_equal(lt_f32_to_bf16(brain), bits);
    }
    assert_int_equal(lt_f32_to_f16(1.00048828125f), 0x3C00); /* tie to even: down */
    assert_int_equal(lt_f32_to_f16(1.00146484375f), 0x3C02); /* tie to even: up */
    assert_int_equal(lt_f32_to_f16(65520.0f), 0x7C00);       /* overflow */
    assert_int_equal(lt_f32_to_f16(0x1p-25f), 0);            /* tie to zero */
    assert_int_equal(lt_f32_to_f16(0x1.8p-25f), 1);
    assert_int_equal(lt_f32_to_bf16(1.00390625f), 0x3F80);
    assert_true(isnan(lt_f16_to_f32(lt_f32_to_f16(NAN))) &&
                isnan(lt_bf16_to_f32(lt_f32_to_bf16(NAN))));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_tensors_read_back),
        cmocka_unit_test(an_aborted_writer_leaves_nothing),
        cmocka_unit_test(hostile_headers_are_refused),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(sixteen_bit_floats_round_trip),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
