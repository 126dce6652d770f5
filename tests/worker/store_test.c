/* If the store broke, a worker would compute with another tensor's bytes, or need twice its memory while loading
 * and be killed by the system. */
#include "tests/test.h"

#include "tests/worker/model_file.h"
#include "worker/weights/store.h"

static const struct shaped tensors[] = {
    {"patch_embedding.weight", LT_TYPE_F32, 5, {256, 16, 1, 2, 2}},
    {"blocks.0.modulation", LT_TYPE_F32, 3, {1, 6, 256}},
    {"blocks.1.ffn.0.weight", LT_TYPE_Q5_K, 2, {512, 256}},
    {"blocks.0.self_attn.q.weight", LT_TYPE_Q8_0, 2, {256, 256}},
    {"blocks.1.ffn.0.bias", LT_TYPE_F16, 1, {7}},
    {"head.modulation", LT_TYPE_BF16, 3, {1, 2, 256}},
};
enum { COUNT = sizeof tensors / sizeof tensors[0] };

struct fixture {
    struct tensor_file *file;
    uint64_t bytes;
    int fd;
};

static struct fixture open_fixture(const char *prefix)
{
    struct lt_error error;
    struct fixture fixture = {0};
    char path[64];
    struct bytes file = gguf_of(tensors, COUNT, prefix);
    fixture.fd = lend_path(file.data, file.count, path);
    free(file.data);
    assert_ok(tensor_file_open(path, &fixture.file, &error));
    for (size_t i = 0; i < COUNT; i++)
        fixture.bytes += shaped_bytes(&tensors[i]);
    return fixture;
}

static void close_fixture(struct fixture *fixture)
{
    tensor_file_close(&fixture->file);
    close(fixture->fd);
}

static void every_tensor_is_read_once_into_its_slab(void **state)
{
    (void)state;
    struct lt_error error;
    struct fixture fixture = open_fixture("");
    struct store *store = NULL;
    struct store_stats stats;
    assert_ok(store_load(fixture.file, NULL, NULL, &store, &error));
    store_stats(store, &stats);
    assert_int_equal(stats.read_bytes, fixture.bytes);
    assert_int_equal(tensor_file_bytes_read(fixture.file), fixture.bytes);
    assert_int_equal(stats.tensor_count, COUNT);
    assert_int_equal(stats.slab_count, 3);
    assert_int_equal(stats.staging_peak_bytes, 0);
    assert_in_range(stats.weight_bytes, fixture.bytes, fixture.bytes + fixture.bytes / 100);
    close_fixture(&fixture); /* the store needs it no longer */

    assert_int_equal(store_block_count(store), 2);
    assert_ok(store_acquire(store, 1, &error));
    for (size_t i = 0; i < COUNT; i++) {
        struct lt_view view;
        assert_ok(store_tensor(store, tensors[i].name, &view, &error));
        assert_int_equal(view.type, tensors[i].type);
        assert_int_equal((uintptr_t)view.data % 64, 0);
        for (uint64_t b = 0; b < shaped_bytes(&tensors[i]); b++)
            assert_int_equal(((const uint8_t *)view.data)[b], i + 1);
    }
    store_release(store, 1);
    store_destroy(&store);
    assert_null(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tensor_is_read_once_into_its_slab),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
