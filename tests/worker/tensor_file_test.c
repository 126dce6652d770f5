/* If model files were read wrongly, a worker would compute with half of an old model and half of a
 * new one, hold gigabytes of page cache that its neighbours need, or fault when a file is replaced.
 */
#include "tests/test.h"

#include "common/file.h"
#include "common/safetensors.h"
#include "tests/worker/model_file.h"
#include "worker/weights/store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

static const struct shaped tensors[] = {
    {"patch_embedding.weight", LT_TYPE_F32, 5, {4, 16, 1, 2, 2}},
    {"blocks.0.ffn.0.weight", LT_TYPE_Q4_0, 2, {64, 64}},
    {"blocks.0.ffn.0.bias", LT_TYPE_F32, 1, {64}},
};
enum { COUNT = sizeof tensors / sizeof tensors[0] };

static int make_folder(void **state)
{
    static char folder[64];
    snprintf(folder, sizeof folder, "tensor_file_test.%ld", (long)getpid());
    *state = folder;
    return mkdir(folder, 0700);
}

static int remove_folder(void **state)
{
    return lt_dir_remove(*state, NULL) == LT_OK ? 0 : -1;
}

/* "<folder>/model", written anew. */
static const char *write_model(void **state, const char *name, const char *prefix,
                               uint8_t last_byte)
{
    static char path[128];
    struct lt_error error;
    struct bytes file = gguf_of(tensors, COUNT, prefix);
    file.data[file.count - 1] = last_byte;
    snprintf(path, sizeof path, "%s/%s", (const char *)*state, name);
    assert_ok(lt_file_write(path, file.data, file.count, false, &error));
    free(file.data);
    return path;
}

static void test_g1_4_prefixes_are_stripped_only_where_they_hide_a_model(void **state)
{
    static const struct {
        const char *prefix;
        bool stripped;
    } cases[] = {
        {"", true},
        {"model.diffusion_model.", true},
        {"diffusion_model.", true},
        {"model.", true},
        {"net.", true},
        {"transformer.", false},
    };
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        struct lt_error error;
        struct tensor_file *file = NULL;
        assert_ok(tensor_file_open(write_model(state, "model", cases[i].prefix, 0), &file, &error));
        assert_int_equal(tensor_file_find(file, "blocks.0.ffn.0.bias") != NULL, cases[i].stripped);
        assert_int_equal(tensor_file_count(file), COUNT);
        tensor_file_close(&file);
    }
    /* "net." is stripped only when all names have it, and nothing is when the model stands there
     * without */
    static const struct shaped mixed[] = {{"net.patch_embedding.weight", LT_TYPE_F32, 1, {4}},
                                          {"other", LT_TYPE_F32, 1, {4}}};
    static const struct shaped both[] = {{"patch_embedding.weight", LT_TYPE_F32, 1, {4}},
                                         {"model.patch_embedding.weight", LT_TYPE_F32, 1, {4}}};
    for (int i = 0; i < 2; i++) {
        struct lt_error error;
        struct tensor_file *file = NULL;
        char path[64];
        struct bytes bytes = gguf_of(i ? both : mixed, 2, "");
        const int fd = lend_path(bytes.data, bytes.count, path);
        assert_ok(tensor_file_open(path, &file, &error));
        assert_non_null(tensor_file_find(file, i ? both[1].name : mixed[0].name));
        tensor_file_close(&file);
        close(fd);
        free(bytes.data);
    }
}

static void test_g2_3_a_changed_file_is_noticed(void **state)
{
    enum change { TOUCHED, GROWN, REPLACED, REMOVED, CHANGE_COUNT };
    for (int change = 0; change < CHANGE_COUNT; change++) {
        struct lt_error error;
        struct tensor_file *file = NULL;
        struct lt_digest digest;
        uint8_t data[65536];
        const char *path = write_model(state, "model", "", 0);
        assert_ok(tensor_file_open(path, &file, &error));
        const struct tensor_info *info = tensor_file_find(file, "blocks.0.ffn.0.bias");
        assert_ok(tensor_file_read(file, info, data, &error));
        if (change == TOUCHED) {
            const struct timespec times[2] = {{0, UTIME_OMIT}, {12345, 6789}};
            assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
        } else if (change == GROWN) {
            struct stat info_before;
            assert_int_equal(stat(path, &info_before), 0);
            const struct timespec times[2] = {{0, UTIME_OMIT}, info_before.st_mtim};
            assert_int_equal(truncate(path, info_before.st_size + 4096), 0);
            assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0); /* the size alone tells */
        } else if (change == REPLACED) {
            write_model(state, "model", "",
                        0); /* equal bytes under the same name, but another file */
        } else {
            assert_int_equal(unlink(path), 0);
        }
        assert_fails(tensor_file_read(file, info, data, &error), LT_CORRUPT,
                     "changed since it was opened");
        assert_fails(tensor_file_fingerprint(file, &digest, &error), LT_CORRUPT, "changed");
        tensor_file_close(&file);
    }
}

/* G2.2: nothing that was read points into the file: it may be cut to nothing and closed. */
static void test_g2_2_what_was_read_outlives_the_file(void **state)
{
    struct lt_error error;
    struct tensor_file *file = NULL;
    struct store *store;
    struct lt_view view;
    const char *path = write_model(state, "model", "", 7);
    assert_ok(tensor_file_open(path, &file, &error));
    const struct tensor_info *info = tensor_file_at(file, tensor_file_count(file) - 1);
    char name[128];
    snprintf(name, sizeof name, "%s", info->name);
    uint8_t *want = malloc(info->bytes);
    const size_t bytes = info->bytes;
    assert_ok(tensor_file_read(file, info, want, &error));
    assert_ok(store_load(file, NULL, NULL, &store, &error));
    tensor_file_close(&file);
    assert_int_equal(truncate(path, 0), 0);
    assert_ok(store_tensor(store, name, &view, &error));
    assert_memory_equal(view.data, want, bytes);
    assert_int_equal(want[bytes - 1], 7);
    store_destroy(&store);
    free(want);
}

static struct lt_digest fingerprint_of(const char *path)
{
    struct lt_error error;
    struct tensor_file *file = NULL;
    struct lt_digest digest;
    assert_ok(tensor_file_open(path, &file, &error));
    assert_ok(tensor_file_fingerprint(file, &digest, &error));
    tensor_file_close(&file);
    return digest;
}

static void fingerprints_tell_files_apart(void **state)
{
    const struct lt_digest a = fingerprint_of(write_model(state, "a", "", 0));
    const struct lt_digest same = fingerprint_of(write_model(state, "b", "", 0));
    const struct lt_digest last_byte = fingerprint_of(write_model(state, "c", "", 1));
    const struct lt_digest names = fingerprint_of(write_model(state, "d", "model.", 0));
    assert_true(lt_digest_equal(&a, &same));
    assert_false(lt_digest_equal(&a, &last_byte));
    assert_false(lt_digest_equal(&a, &names));
}

/* G2.3: on request all bytes tell, as sha256sum would. */
static void test_g2_3_the_hash_is_of_every_byte(void **state)
{
    struct lt_error error;
    struct tensor_file *file = NULL;
    struct lt_digest got;
    void *bytes;
    size_t count;
    const char *path = write_model(state, "hashed", "", 3);
    assert_ok(tensor_file_open(path, &file, &error));
    assert_ok(tensor_file_hash(file, &got, &error));
    assert_ok(lt_file_read(path, 1 << 20, &bytes, &count, &error));
    for (int flip = 0; flip < 2; flip++) {
        ((uint8_t *)bytes)[count - 1] ^= (uint8_t)flip;
        const struct lt_digest want = lt_sha256(bytes, count);
        assert_int_equal(lt_digest_equal(&got, &want), !flip);
    }
    free(bytes);
    assert_int_equal(tensor_file_bytes_read(file), 0);
    assert_int_equal(truncate(path, (off_t)count - 1), 0);
    assert_fails(tensor_file_hash(file, &got, &error), LT_CORRUPT, "changed");
    tensor_file_close(&file);
}

/* G2.1, G2.4: while and after reading, nothing of the file is mapped; behind the reader its pages
 * are dropped. */
static void test_g2_1_nothing_is_mapped_and_the_cache_stays_small(void **state)
{
    static const struct shaped large[] = {{"a", LT_TYPE_F32, 2, {1024, 1024}},
                                          {"b", LT_TYPE_F32, 1, {1000}},
                                          {"c", LT_TYPE_F32, 2, {3000, 1024}}};
    struct lt_error error;
    struct tensor_file *file = NULL;
    char path[128], line[1024];
    struct bytes bytes = gguf_of(large, LT_COUNT(large), "");
    snprintf(path, sizeof path, "%s/large-model-file", (const char *)*state);
    assert_ok(lt_file_write(path, bytes.data, bytes.count, true,
                            &error)); /* on disk: clean pages can be dropped */
    free(bytes.data);
    assert_ok(tensor_file_open(path, &file, &error));
    uint8_t *data = malloc(3000 * 4096);
    uint64_t total = 0;
    for (size_t i = 0; i < tensor_file_count(file); i++) {
        const struct tensor_info *info = tensor_file_at(file, i);
        assert_ok(tensor_file_read(file, info, data, &error));
        assert_int_equal(data[info->bytes - 1], i + 1);
        total += info->bytes;
        assert_int_equal(tensor_file_bytes_read(file), total); /* each byte once */
        FILE *maps = fopen("/proc/self/maps", "r");
        while (fgets(line, sizeof line, maps))
            assert_null(strstr(line, "large-model-file"));
        fclose(maps);
    }
    free(data);
    tensor_file_close(&file);

    const int fd = open(path, O_RDONLY);
    const size_t pages = (total + 8191) / 4096;
    unsigned char *resident = calloc(pages, 1);
    void *map = mmap(NULL, pages * 4096, PROT_READ, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(map, MAP_FAILED);
    assert_int_equal(mincore(map, pages * 4096, resident), 0);
    size_t kept = 0;
    for (size_t i = 0; i < pages; i++)
        kept += resident[i] & 1;
    munmap(map, pages * 4096);
    close(fd);
    free(resident);
    if (kept == pages)
        print_message("    this file system does not drop its pages: nothing to see\n");
    else
        assert_in_range(kept, 0, 64); /* the header's pages and what read-ahead brought */
}

static void safetensors_are_read_alike(void **state)
{
    struct lt_error error;
    struct tensor_file *file = NULL;
    char path[128];
    float weight[6] = {1, 2, 3, 4, 5, 6}, read[6];
    const struct lt_named_view views[] = {
        {"model.decoder.conv1.weight", lt_view_2d(weight, LT_TYPE_F32, 2, 3)},
        {"model.decoder.conv1.bias", lt_view_1d(weight, LT_TYPE_F32, 2)},
    };
    snprintf(path, sizeof path, "%s/vae.safetensors", (const char *)*state);
    assert_ok(
        lt_safetensors_write(path, views, 2, (const char *const[]){"format", "pt"}, 1, &error));
    assert_ok(tensor_file_open(path, &file, &error));
    assert_string_equal(tensor_file_format(file), "safetensors");
    assert_string_equal(tensor_file_metadata(file, "format"), "pt");
    const struct tensor_info *info = tensor_file_find(file, "decoder.conv1.weight");
    assert_non_null(info);
    assert_int_equal(info->dim[1], 3);
    assert_ok(tensor_file_read(file, info, read, &error));
    assert_memory_equal(read, weight, sizeof weight);
    tensor_file_close(&file);
}

static void what_is_no_model_file_is_refused(void **state)
{
    static const struct {
        const char *name, *bytes;
        size_t count;
        lt_status status;
        const char *part;
    } cases[] = {
        {"empty", "", 0, LT_CORRUPT, "empty"},
        {"short", "GGU", 3, LT_CORRUPT, "short"},
        {"archive", "PK\3\4rest of an archive", 22, LT_UNSUPPORTED, "pickle"},
        {"model.pth", "anything at all", 15, LT_UNSUPPORTED, "pickle"},
        {"old", "\x80\2\x8a\nl\xfc\x9c", 7, LT_UNSUPPORTED, "save_file"},
        {"text", "just some text, long enough to be looked at", 43, LT_BAD_INPUT, "text"},
    };
    struct lt_error error;
    struct tensor_file *file = NULL;
    char path[128];
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        snprintf(path, sizeof path, "%s/%s", (const char *)*state, cases[i].name);
        assert_ok(lt_file_write(path, cases[i].bytes, cases[i].count, false, &error));
        assert_fails(tensor_file_open(path, &file, &error), cases[i].status, cases[i].part);
    }
    assert_fails(tensor_file_open("no-such-file", &file, &error), LT_NOT_FOUND, "no-such-file");
    assert_fails(tensor_file_open(*state, &file, &error), LT_BAD_INPUT, "not a regular file");
    assert_null(file);
}

/* dit.md 4: an add-on's tensors stand behind those of its base and are read from their own file. */
static void an_addition_is_read_from_its_own_file(void **state)
{
    static const struct shaped added[] = {{"blocks.0.norm_x.weight", LT_TYPE_F32, 1, {8}},
                                          {"audio_proj.proj1.weight", LT_TYPE_F32, 2, {2, 4}}};
    struct lt_error error;
    struct tensor_file *file, *addition, *again;
    float values[8], expected[8];
    char path[128];
    struct bytes bytes = gguf_of(added, LT_COUNT(added), "");
    snprintf(path, sizeof path, "%s/addition", (const char *)*state);
    assert_ok(lt_file_write(path, bytes.data, bytes.count, false, &error));
    free(bytes.data);
    assert_ok(tensor_file_open(write_model(state, "model", "", 3), &file, &error));
    assert_ok(tensor_file_open(path, &addition, &error));
    assert_ok(tensor_file_join(file, &addition, &error));
    assert_null(addition);
    assert_int_equal(tensor_file_count(file), COUNT + LT_COUNT(added));
    const struct tensor_info *info = tensor_file_find(file, "blocks.0.norm_x.weight");
    assert_non_null(info);
    memset(expected, 1, sizeof expected);
    assert_ok(tensor_file_read(file, info, values, &error));
    assert_memory_equal(values, expected, sizeof values);
    assert_int_equal(tensor_file_bytes_read(file), sizeof values);
    assert_non_null(tensor_file_find(file, "blocks.0.ffn.0.bias"));
    tensor_file_suspend(file); /* and again from where it lies */
    assert_ok(tensor_file_read(file, info, values, &error));
    assert_ok(tensor_file_open(path, &again, &error));
    tensor_file_close(&file);
    assert_ok(tensor_file_open(path, &addition, &error));
    assert_fails(tensor_file_join(again, &addition, &error), LT_CONFLICT, "both have a tensor '");
    assert_non_null(addition);
    assert_int_equal(tensor_file_count(again), LT_COUNT(added)); /* nothing changed */
    tensor_file_close(&addition);
    tensor_file_close(&again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_g1_4_prefixes_are_stripped_only_where_they_hide_a_model),
        cmocka_unit_test(test_g2_2_what_was_read_outlives_the_file),
        cmocka_unit_test(test_g2_3_a_changed_file_is_noticed),
        cmocka_unit_test(fingerprints_tell_files_apart),
        cmocka_unit_test(test_g2_3_the_hash_is_of_every_byte),
        cmocka_unit_test(test_g2_1_nothing_is_mapped_and_the_cache_stays_small),
        cmocka_unit_test(safetensors_are_read_alike),
        cmocka_unit_test(an_addition_is_read_from_its_own_file),
        cmocka_unit_test(what_is_no_model_file_is_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
