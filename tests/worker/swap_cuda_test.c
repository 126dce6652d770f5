/* If a slot of a card were refilled while a kernel that was only queued still reads it, a forward
 * would compute with another block's weights, now and then, and on no other machine. Block swap as
 * it is on the host, on the emulated card: compute queues copies of what it reads and waits for
 * nothing, so in lazy order they run as late as the events allow. */
#include "tests/worker/block_file.h"

#include "kernels/exec.h"
#include "kernels/kernels.h"
#include "worker/weights/store_private.h"

#include <stdlib.h>

enum { BLOCKS = 5, ROWS = 4, FORWARDS = 2, TENSOR_BYTES_MAX = ROWS * 256 };

struct rig {
    struct device *device;
    struct lt_exec *exec;
    struct lt_kernels kernels;
    char *seen; /* of the device: what compute read, a piece for each tensor */
    size_t bytes;
};

static struct rig open_rig(void)
{
    struct lt_error error;
    struct rig rig = {.bytes = (size_t)FORWARDS * BLOCKS * BLOCK_FILE_TENSORS * TENSOR_BYTES_MAX};
    void *seen;
    assert_ok(device_create_cuda(0, &(struct device_params){0}, &rig.device, &error));
    assert_ok(device_exec_create(rig.device, &(struct lt_exec_params){0}, &rig.exec, &error));
    assert_ok(device_kernels(rig.device, "best", &rig.kernels, &error));
    assert_ok(lt_exec_take(rig.exec, rig.bytes, &seen, &error));
    rig.seen = seen;
    return rig;
}

static void close_rig(struct rig *rig)
{
    lt_exec_give(rig->exec, rig->seen, rig->bytes);
    lt_exec_destroy(&rig->exec);
    device_destroy(&rig->device);
}

static char *piece_of(char *base, int forward, size_t block, int tensor)
{
    return base + (((size_t)forward * BLOCKS + block) * BLOCK_FILE_TENSORS + (size_t)tensor) *
                      TENSOR_BYTES_MAX;
}

static size_t tensor_bytes(const struct lt_view *view)
{
    uint64_t bytes = 0;
    lt_assert(lt_type_bytes(view->type, (uint64_t)lt_view_count(view), &bytes));
    return (size_t)bytes;
}

/* Queues a copy of each tensor's bytes, as f32 that are never looked at. */
static void use_block(struct rig *rig, struct store *store, int forward, size_t block)
{
    struct lt_error error;
    assert_ok(store_acquire(store, block, &error));
    for (int t = 0; t < BLOCK_FILE_TENSORS; t++) {
        char name[64];
        struct lt_view view;
        block_file_name(name, block, t);
        assert_ok(store_tensor(store, name, &view, &error));
        const int64_t count = (int64_t)(tensor_bytes(&view) / sizeof(float));
        assert_ok(
            LT_OP(convert, &rig->kernels, rig->exec, &error,
                  .out = lt_view_1d(piece_of(rig->seen, forward, block, t), LT_TYPE_F32, count),
                  .in = lt_view_1d(view.data, LT_TYPE_F32, count)));
    }
    store_release(store, block);
}

static void check_seen(struct rig *rig, const struct store *store)
{
    struct lt_error error;
    char *seen = malloc(rig->bytes);
    assert_non_null(seen);
    assert_ok(lt_exec_download(rig->exec, seen, rig->seen, rig->bytes, &error));
    for (int f = 0; f < FORWARDS; f++)
        for (size_t block = 0; block < BLOCKS; block++)
            for (int t = 0; t < BLOCK_FILE_TENSORS; t++) {
                char name[64];
                block_file_name(name, block, t);
                const struct layout_tensor *tensor = layout_find(&store->layout, name);
                const unsigned char *at = (const unsigned char *)piece_of(seen, f, block, t);
                for (size_t i = 0; i < tensor->bytes; i++)
                    if (at[i] != block_file_byte(name, i))
                        fail_msg("forward %d: %s: byte %zu is of another tensor", f, name, i);
            }
    free(seen);
}

static void forward_and_check(const struct block_file *model, struct rig *rig,
                              struct store_params params)
{
    struct lt_error error;
    struct store *store;
    struct device_stats before, after;
    struct store_memory plan;
    device_stats(rig->device, &before);
    params.device = rig->device;
    assert_ok(store_open(model->file, NULL, NULL, &params, &store, &error));
    layout_memory(&store->layout, &params, true, &plan);
    device_stats(rig->device, &after);
    assert_int_equal(after.used_bytes[DEVICE_MEMORY_LOCAL] - before.used_bytes[DEVICE_MEMORY_LOCAL],
                     plan.device_bytes);
    assert_int_equal(after.used_bytes[DEVICE_MEMORY_PINNED] -
                         before.used_bytes[DEVICE_MEMORY_PINNED],
                     plan.pinned_bytes);
    for (int f = 0; f < FORWARDS; f++) {
        for (int group = STORE_GROUP_COUNT - 1; group > STORE_GROUP_REST; group--) {
            assert_ok(store_acquire_group(store, (enum store_group)group, &error));
            store_release_group(store, (enum store_group)group);
        }
        for (size_t block = 0; block < BLOCKS; block++)
            use_block(rig, store, f, block);
    }
    check_seen(rig, store);
    store_destroy(&store);
    device_stats(rig->device, &after);
    assert_int_equal(after.used_bytes[DEVICE_MEMORY_LOCAL], before.used_bytes[DEVICE_MEMORY_LOCAL]);
}

static void every_placement_computes_on_its_own_bytes(void **state)
{
    static const char *const orders[] = {"lazy", "eager", "1", "2", "3"};
    (void)state;
    struct block_file model = block_file_open(BLOCKS, ROWS);
    for (size_t o = 0; o < LT_COUNT(orders); o++) {
        setenv("CUEMU_WHEN", orders[o], 1);
        struct rig rig = open_rig();
        for (size_t swapped = 0; swapped <= BLOCKS; swapped++)
            for (size_t on_disk = 0; on_disk <= swapped; on_disk += 3)
                for (size_t prefetch = 0; prefetch <= swapped; prefetch += prefetch + 1)
                    forward_and_check(&model, &rig,
                                      (struct store_params){.blocks_to_swap = swapped,
                                                            .disk_blocks = on_disk,
                                                            .prefetch = prefetch,
                                                            .order = STORE_ORDER_SPREAD});
        close_rig(&rig);
    }
    unsetenv("CUEMU_WHEN");
    block_file_close(&model);
}

int main(void)
{
    setenv("CUEMU_PROTECT", "1", 1);
    setenv("CUEMU_LEAKS", "1", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_placement_computes_on_its_own_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
