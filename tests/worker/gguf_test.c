/* Model files come from strangers. If the reader trusted one number of their headers, a download
 * could crash a worker, fill its memory, or read beyond a buffer and put what lies there into a
 * picture. */
#include "tests/test.h"

#include "tests/worker/model_file.h"
#include "worker/weights/gguf.h"

#include <sys/resource.h>

enum { GGUF_U32 = 4, GGUF_I32 = 5, GGUF_F32 = 6, GGUF_STRING = 8, GGUF_ARRAY = 9, GGUF_U64 = 10 };
enum { F32 = LT_TYPE_F32, Q8_0 = LT_TYPE_Q8_0 };

static lt_status open_bytes(const struct bytes *file, struct tensor_file **file_out,
                            struct lt_error *error)
{
    char path[64];
    const int fd = lend_path(file->data, file->count, path);
    const lt_status status = tensor_file_open(path, file_out, error);
    close(fd);
    return status;
}

static void refuse(struct bytes *file, lt_status status, const char *part)
{
    struct lt_error error = {0};
    struct tensor_file *opened = NULL;
    assert_fails(open_bytes(file, &opened, &error), status, part);
    assert_null(opened);
    free(file->data);
    *file = (struct bytes){0};
}

static struct bytes head(uint64_t tensors, uint64_t pairs)
{
    struct bytes file = {0};
    put_head(&file, 3, tensors, pairs);
    return file;
}

/* One tensor and 64 KiB of data behind it. */
static struct bytes one_tensor(const char *name, uint32_t rank, const uint64_t *dim, uint32_t type,
                               uint64_t offset)
{
    struct bytes file = head(1, 0);
    put_info(&file, name, rank, dim, type, offset);
    put_padding(&file, 32);
    for (int i = 0; i < 1 << 14; i++)
        put_u32(&file, 0);
    return file;
}

/* clang-format off */
#define DIMS(...) (sizeof((uint64_t[]){__VA_ARGS__}) / 8), (const uint64_t[]){__VA_ARGS__}
/* clang-format on */

/* The names are those of llama.cpp's list of hand-made files. */
static void bad_heads(void **state)
{
    (void)state;
    struct bytes file = {0};
    put(&file, "GGUX\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24); /* BAD_MAGIC */
    refuse(&file, LT_BAD_INPUT, "safetensors");
    static const struct {
        uint32_t version;
        lt_status status;
        const char *part;
    } versions[] = {
        {0, LT_UNSUPPORTED, "version 0"},         {1, LT_UNSUPPORTED, "version 1"},
        {4, LT_UNSUPPORTED, "version 4"},         {0x03000000, LT_BAD_INPUT, "big-endian"},
        {0x02000000, LT_BAD_INPUT, "big-endian"},
    };
    for (size_t i = 0; i < LT_COUNT(versions); i++) {
        put_head(&file, versions[i].version, 0, 0);
        put_u64(&file, 0);
        refuse(&file, versions[i].status, versions[i].part);
    }
    static const uint64_t counts[] = {UINT64_MAX, (uint64_t)1 << 63, (uint64_t)1 << 32, 1000};
    for (size_t i = 0; i < LT_COUNT(counts); i++) {
        file = head(counts[i], 0); /* BAD_N_TENSORS */
        put_u64(&file, 0);
        refuse(&file, LT_BAD_INPUT, "tensors do not fit");
        file = head(0, counts[i]); /* BAD_N_KV */
        put_u64(&file, 0);
        refuse(&file, LT_BAD_INPUT, "pairs do not fit");
    }
}

static void bad_metadata(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {UINT64_MAX, (uint64_t)1 << 63, 4096};
    struct bytes file;
    for (size_t i = 0; i < LT_COUNT(lengths); i++) {
        file = head(0, 1); /* KV_BAD_KEY_SIZE */
        put_u64(&file, lengths[i]);
        put_u64(&file, 0);
        refuse(&file, LT_BAD_INPUT, "metadata key");
        file = head(0, 1); /* a text that is longer than the file */
        put_text(&file, "key");
        put_u32(&file, GGUF_STRING);
        put_u64(&file, lengths[i] == 4096 ? 1 << 20 : lengths[i]);
        refuse(&file, LT_BAD_INPUT, "end of the file");
    }
    file = head(0, 1); /* EMPTY_KEY */
    put_pair_u32(&file, "", 1);
    refuse(&file, LT_BAD_INPUT, "empty metadata key");
    file = head(0, 1); /* BAD_TYPE */
    put_text(&file, "key");
    put_u32(&file, 13);
    put_u64(&file, 0);
    refuse(&file, LT_BAD_INPUT, "unknown type 13");
    file = head(0, 2); /* DUPLICATE_KEY */
    put_pair_u32(&file, "key", 1);
    put_pair_u32(&file, "key", 1);
    refuse(&file, LT_BAD_INPUT, "'key' is there twice");
    file = head(0, 1); /* a zero byte in a key */
    put_u64(&file, 3);
    put(&file, "a\0b", 3);
    put_u32(&file, GGUF_U32);
    put_u32(&file, 0);
    refuse(&file, LT_BAD_INPUT, "zero byte");
}

static void bad_arrays(void **state)
{
    (void)state;
    static const struct {
        uint32_t type;
        uint64_t count;
    } cases[] = {
        {GGUF_U64, UINT64_MAX / 8 + 2}, /* times 8 wraps to a small number */
        {GGUF_U64, UINT64_MAX},
        {GGUF_STRING, (uint64_t)1 << 61},
        {GGUF_ARRAY, (uint64_t)1 << 60},
        {GGUF_U32, 1000},
        {13, 1},
    };
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        struct bytes file = head(0, 1);
        put_text(&file, "key");
        put_u32(&file, GGUF_ARRAY);
        put_u32(&file, cases[i].type);
        put_u64(&file, cases[i].count);
        put_u64(&file, 0);
        refuse(&file, LT_BAD_INPUT, "array");
    }
    struct bytes file = head(0, 1); /* arrays of arrays of arrays … */
    put_text(&file, "key");
    put_u32(&file, GGUF_ARRAY);
    for (int depth = 0; depth < 100000; depth++) {
        put_u32(&file, GGUF_ARRAY);
        put_u64(&file, 1);
    }
    refuse(&file, LT_BAD_INPUT, "nested too deeply");
}

static void bad_alignments(void **state)
{
    (void)state;
    static const uint32_t values[] = {0, 3, 48, UINT32_MAX};
    for (size_t i = 0; i < LT_COUNT(values); i++) {
        struct bytes file = head(0, 1); /* BAD_ALIGN */
        put_pair_u32(&file, "general.alignment", values[i]);
        refuse(&file, LT_BAD_INPUT, "power of two");
    }
    static const uint32_t types[] = {GGUF_I32, GGUF_U64, GGUF_F32, GGUF_STRING, GGUF_ARRAY};
    for (size_t i = 0; i < LT_COUNT(types); i++) {
        struct bytes file = head(0, 1); /* WRONG_TYPE_ALIGN */
        put_text(&file, "general.alignment");
        put_u32(&file, types[i]);
        put_u64(&file, 32);
        put_u64(&file, 0);
        refuse(&file, LT_BAD_INPUT, "general.alignment");
    }
}

static void bad_tensors(void **state)
{
    (void)state;
    struct bytes file = head(1, 0); /* TENSORS_BAD_NAME_SIZE */
    put_u64(&file, (uint64_t)1 << 63);
    put(&file, (uint8_t[64]){0}, 64);
    refuse(&file, LT_BAD_INPUT, "tensor name");
    file = one_tensor("", DIMS(4), F32, 0);
    refuse(&file, LT_BAD_INPUT, "without a name");
    /* BAD_N_DIMS: five are right, six are not */
    file = one_tensor("t", DIMS(1, 1, 1, 1, 1, 1), F32, 0);
    refuse(&file, LT_BAD_INPUT, "6 dimensions");
    file = one_tensor("t", DIMS(33), Q8_0, 0); /* BAD_SHAPE */
    refuse(&file, LT_BAD_INPUT, "whole Q8_0 blocks");
    file = one_tensor("t", DIMS(16, 2), Q8_0, 0); /* 32 values, but in rows of 16 */
    refuse(&file, LT_BAD_INPUT, "whole Q8_0 blocks");
    file = one_tensor("t", DIMS(4, 0), F32, 0); /* ZERO_DIM */
    refuse(&file, LT_BAD_INPUT, "'t'");
    file = one_tensor("t", DIMS(4, (uint64_t)1 << 63), F32, 0);
    refuse(&file, LT_BAD_INPUT, "negative");
    file = one_tensor("t", DIMS((uint64_t)1 << 40, (uint64_t)1 << 40), F32, 0); /* NE_TOO_BIG */
    refuse(&file, LT_BAD_INPUT, "not possible");
    /* NBYTES_TOO_BIG: times 4 wraps */
    file = one_tensor("t", DIMS((uint64_t)1 << 31, (uint64_t)1 << 31), F32, 0);
    refuse(&file, LT_BAD_INPUT, "'t'");
    file = one_tensor("t", DIMS(((uint64_t)1 << 42) + 1), F32, 0);
    refuse(&file, LT_CORRUPT, "cut short");
    file = one_tensor("t", DIMS(4), 4, 0); /* BAD_TYPE: an id that was removed */
    refuse(&file, LT_UNSUPPORTED, "type 4");
    file = one_tensor("t", DIMS(4), UINT32_MAX, 0);
    refuse(&file, LT_UNSUPPORTED, "'t'");
    file = one_tensor("t", DIMS(4), LT_TYPE_U8, 0); /* our own ids are not those of files */
    refuse(&file, LT_UNSUPPORTED, "200");
    file = one_tensor("blocks.0.ffn.0.weight", DIMS(256), 20, 0);
    refuse(&file, LT_UNSUPPORTED, "IQ4_NL");
}

static void bad_places(void **state)
{
    (void)state;
    static const uint64_t offsets[] = {1, 31, UINT64_MAX};
    struct bytes file;
    for (size_t i = 0; i < LT_COUNT(offsets); i++) {
        file = one_tensor("t", DIMS(4), F32, offsets[i]); /* BAD_OFFSET */
        refuse(&file, LT_BAD_INPUT, "multiple of the alignment");
    }
    static const uint64_t beyond[] = {65536, (uint64_t)1 << 40, UINT64_MAX - 31,
                                      UINT64_MAX / 32 * 32 - 32};
    for (size_t i = 0; i < LT_COUNT(beyond); i++) {
        file = one_tensor("t", DIMS(4), F32, beyond[i]); /* NOT_ENOUGH_DATA, and sums that wrap */
        refuse(&file, LT_CORRUPT, "cut short");
    }
    file = one_tensor("t", DIMS(65536 / 4 + 1), F32, 0);
    refuse(&file, LT_CORRUPT, "cut short");
    file = head(2, 0);
    put_info(&file, "a", DIMS(16), F32, 0);
    put_info(&file, "b", DIMS(16), F32, 32);
    put_padding(&file, 32);
    put(&file, (uint8_t[256]){0}, 256);
    refuse(&file, LT_BAD_INPUT, "'a' and 'b' overlap");
    file = head(2, 0); /* DUPLICATE_NAME */
    put_info(&file, "a", DIMS(8), F32, 0);
    put_info(&file, "a", DIMS(8), F32, 32);
    put_padding(&file, 32);
    put(&file, (uint8_t[64]){0}, 64);
    refuse(&file, LT_BAD_INPUT, "'a' is there twice");
    file = head(1, 1); /* INCONSISTENT_ALIGN */
    put_pair_u32(&file, "general.alignment", 64);
    put_info(&file, "a", DIMS(8), F32, 32);
    put_padding(&file, 64);
    put(&file, (uint8_t[64]){0}, 64);
    refuse(&file, LT_BAD_INPUT, "alignment 64");
}

static void bad_shapes_of_origin(void **state)
{
    (void)state;
    static const struct {
        uint32_t type;
        uint64_t count;
        int32_t dim[3];
        lt_status status;
        const char *part;
    } cases[] = {
        {GGUF_U32, 2, {4, 16}, LT_BAD_INPUT, "orig_shape"},
        {GGUF_I32, 6, {0}, LT_BAD_INPUT, "orig_shape"},
        {GGUF_I32, 2, {-4, -16}, LT_BAD_INPUT, "orig_shape"},
        {GGUF_I32, 2, {4, 15}, LT_BAD_INPUT, "60 values"},
        {GGUF_I32, 2, {4, 16}, LT_UNSUPPORTED, "whole Q8_0"},
    };
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        struct bytes file = head(1, 1);
        put_text(&file, "comfy.gguf.orig_shape.w");
        put_u32(&file, GGUF_ARRAY);
        put_u32(&file, cases[i].type);
        put_u64(&file, cases[i].count);
        for (uint64_t d = 0; d < cases[i].count; d++)
            put_u32(&file, (uint32_t)cases[i].dim[d % 3]);
        put_info(&file, "w", DIMS(64), Q8_0, 0);
        put_padding(&file, 32);
        put(&file, (uint8_t[96]){0}, 96);
        refuse(&file, cases[i].status, cases[i].part);
    }
}

static struct bytes good_file(uint32_t version)
{
    struct bytes file = {0};
    put_head(&file, version, 4, 7);
    put_pair_text(&file, "general.architecture", "wan");
    put_pair_u32(&file, "general.quantization_version", 2);
    put_pair_u32(&file, "general.alignment", 64);
    put_text(&file, "tokens");
    put_u32(&file, GGUF_ARRAY);
    put_u32(&file, GGUF_STRING);
    put_u64(&file, 3);
    for (int i = 0; i < 3; i++)
        put_text(&file, "token");
    put_text(&file, "comfy.gguf.orig_shape.shaped");
    put_u32(&file, GGUF_ARRAY);
    put_u32(&file, GGUF_I32);
    put_u64(&file, 3);
    for (uint32_t i = 0; i < 3; i++)
        put_u32(&file, (const uint32_t[]){2, 3, 4}[i]);
    put_text(&file, "half");
    put_u32(&file, GGUF_F32);
    put_u32(&file, 0x3f000000);
    char *notes = calloc(1, 100001); /* longer than what is kept */
    memset(notes, 'n', 100000);
    put_pair_text(&file, "notes", notes);
    free(notes);
    char name[1025] = {0};
    memset(name, 'x', 1024);
    put_info(&file, "patch_embedding.weight", DIMS(2, 2, 1, 3, 2), F32, 192);
    put_info(&file, name, DIMS(256, 1), LT_TYPE_Q6_K, 320);
    put_info(&file, "shaped", DIMS(24), F32, 0);
    put_info(&file, "scalar", 0, NULL, F32, 128);
    put_padding(&file, 64);
    for (int i = 0; i < 576; i++)
        put(&file, &(uint8_t){(uint8_t)i}, 1);
    return file;
}

static void what_is_right_is_read(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        struct lt_error error;
        struct tensor_file *opened = NULL;
        struct bytes file = good_file(version);
        char path[64];
        const int fd = lend_path(file.data, file.count, path);
        assert_ok(tensor_file_open(path, &opened, &error));
        assert_string_equal(tensor_file_format(opened), version == 2 ? "gguf v2" : "gguf v3");
        assert_string_equal(tensor_file_metadata(opened, "general.architecture"), "wan");
        assert_string_equal(tensor_file_metadata(opened, "general.quantization_version"), "2");
        assert_string_equal(tensor_file_metadata(opened, "half"), "0.5");
        assert_null(tensor_file_metadata(opened, "notes"));
        assert_null(tensor_file_metadata(opened, "absent"));
        assert_int_equal(tensor_file_count(opened), 4);
        assert_string_equal(tensor_file_at(opened, 0)->name, "shaped"); /* file order */
        assert_string_equal(tensor_file_at(opened, 1)->name, "scalar");
        const struct tensor_info *patch = tensor_file_find(opened, "patch_embedding.weight");
        assert_non_null(patch);
        assert_int_equal(patch->rank, 5);
        const int64_t dims[] = {2, 3, 1, 2, 2};
        assert_memory_equal(patch->dim, dims, sizeof dims);
        const struct tensor_info *shaped = tensor_file_find(opened, "shaped");
        const int64_t original[] = {2, 3, 4};
        assert_int_equal(shaped->rank, 3);
        assert_memory_equal(shaped->dim, original, sizeof original);
        uint8_t bytes[96];
        assert_int_equal(patch->bytes, 96);
        assert_ok(tensor_file_read(opened, patch, bytes, &error));
        for (int i = 0; i < 96; i++)
            assert_int_equal(bytes[i], (uint8_t)(192 + i));
        tensor_file_close(&opened);
        close(fd);
        free(file.data);
    }
}

/* Cut at every byte up to the last tensor's end: never accepted. (Padding behind it may be
 * missing.) */
static void every_truncation_is_refused(void **state)
{
    (void)state;
    static const struct shaped tensors[] = {
        {"blocks.0.modulation", LT_TYPE_F32, 3, {1, 6, 16}},
        {"blocks.0.ffn.0.weight", LT_TYPE_Q4_K, 2, {4, 256}},
        {"head.head.bias", LT_TYPE_BF16, 1, {64}},
        {"head.modulation", LT_TYPE_F32, 3, {1, 2, 40}},
    };
    struct bytes file = gguf_of(tensors, LT_COUNT(tensors), "");
    assert_in_range(file.count, 1536, 4096);
    for (size_t cut = 0; cut < file.count; cut++) {
        struct lt_error error = {0};
        struct tensor_file *opened = NULL;
        const struct bytes part = {.data = file.data, .count = cut};
        const lt_status status = open_bytes(&part, &opened, &error);
        if (status != LT_BAD_INPUT && status != LT_CORRUPT)
            fail_msg("cut at byte %zu of %zu: %s", cut, file.count, lt_status_name(status));
        assert_null(opened);
    }
    free(file.data);
}

/* Every byte of the header changed to every kind of other value: an error or an index, never a
 * crash. Counts how many are refused, so that the loop cannot silently stop meaning something. */
static void damaged_headers_do_no_harm(void **state)
{
    (void)state;
    static const struct shaped tensors[] = {{"blocks.0.ffn.0.weight", LT_TYPE_Q8_0, 2, {2, 64}},
                                            {"head.head.bias", LT_TYPE_F32, 1, {8}}};
    static const uint8_t masks[] = {0x01, 0x80, 0xff, 0x20};
    struct bytes file = gguf_of(tensors, LT_COUNT(tensors), "");
    const size_t header = file.count - 136 - 24 - 32;
    size_t refused = 0;
    for (size_t i = 0; i < header; i++)
        for (size_t m = 0; m < LT_COUNT(masks); m++) {
            struct lt_error error = {0};
            struct tensor_file *opened = NULL;
            file.data[i] ^= masks[m];
            if (open_bytes(&file, &opened, &error) != LT_OK) {
                assert_true(error.text[0] != 0);
                refused++;
            }
            tensor_file_close(&opened);
            file.data[i] ^= masks[m];
        }
    assert_true(refused > 2 * header); /* names and texts may change freely: 60 of some 230 bytes */
    free(file.data);
}

/* A terabyte of holes: the index costs what the header costs, and absurd counts that "fit" are
 * refused. */
static void sparse_files_cost_nothing(void **state)
{
    (void)state;
    struct rusage before, after;
    static const uint64_t counts[] = {1000000000, 65537};
    getrusage(RUSAGE_SELF, &before);
    for (size_t i = 0; i < LT_COUNT(counts) + 2; i++) {
        struct lt_error error = {0};
        struct tensor_file *opened = NULL;
        struct bytes file = i < LT_COUNT(counts) ? head(counts[i], 0) : head(0, 1);
        char path[64];
        if (i >= LT_COUNT(counts)) { /* 10^11 empty texts */
            put_text(&file, "key");
            put_u32(&file, i == LT_COUNT(counts) ? GGUF_ARRAY : GGUF_STRING);
            if (i == LT_COUNT(counts))
                put_u32(&file, GGUF_STRING);
            put_u64(&file, i == LT_COUNT(counts) ? 100000000000 : (uint64_t)1 << 39);
        }
        const int fd = lend_path(file.data, file.count, path);
        if (ftruncate(fd, (off_t)1 << 40) != 0)
            skip(); /* this system's memfd cannot be that large */
        assert_fails(tensor_file_open(path, &opened, &error), LT_BAD_INPUT,
                     i < LT_COUNT(counts) ? "tensors do not fit" : "256 MiB");
        close(fd);
        free(file.data);
    }
    getrusage(RUSAGE_SELF, &after);
    assert_true(after.ru_maxrss - before.ru_maxrss < 64 * 1024); /* KiB */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_heads),
        cmocka_unit_test(bad_metadata),
        cmocka_unit_test(bad_arrays),
        cmocka_unit_test(bad_alignments),
        cmocka_unit_test(bad_tensors),
        cmocka_unit_test(bad_places),
        cmocka_unit_test(bad_shapes_of_origin),
        cmocka_unit_test(what_is_right_is_read),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(damaged_headers_do_no_harm),
        cmocka_unit_test(sparse_files_cost_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
