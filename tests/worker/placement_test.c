/* If loading broke, a worker would start on half a model, hold it twice, or wait for all of it
 * before the first block. pread and mmap are wrapped: reads are recorded, and made to fail at every
 * call in turn. */
#include "tests/worker/block_file.h"
#include "worker/weights/store_private.h"

#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { BLOCKS = 5, ROWS = 8, READS_MAX = 4096 };

/* -- what the system is asked ------------------------------------------------------------------ */

static off_t read_offset[READS_MAX];
static size_t read_size[READS_MAX];
static atomic_int read_count, map_count;
static atomic_int fail_read = -1, fail_map = -1; /* the call that fails; -1: none */

ssize_t __real_pread(int fd, void *data, size_t bytes, off_t offset);
ssize_t __wrap_pread(int fd, void *data, size_t bytes, off_t offset);
void *__real_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);

ssize_t __wrap_pread(int fd, void *data, size_t bytes, off_t offset)
{
    const int n = atomic_fetch_add(&read_count, 1);
    if (n < READS_MAX) {
        read_offset[n] = offset;
        read_size[n] = bytes;
    }
    if (n == fail_read) {
        errno = EIO;
        return -1;
    }
    return __real_pread(fd, data, bytes, offset);
}

void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    if (atomic_fetch_add(&map_count, 1) == fail_map) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return __real_mmap(at, bytes, protection, flags, fd, offset);
}

static void forget_calls(void)
{
    read_count = map_count = 0;
    fail_read = fail_map = -1;
}

/* -- tests ------------------------------------------------------------------------------------- */

static struct device *open_device(struct device_params params)
{
    struct lt_error error;
    struct device *device;
    assert_ok(device_create_host(&params, &device, &error));
    return device;
}

static void check_nothing_taken(struct device *device)
{
    struct device_stats stats;
    device_stats(device, &stats);
    for (int kind = 0; kind < DEVICE_MEMORY_COUNT; kind++)
        assert_int_equal(stats.used_bytes[kind], 0);
}

/* G1.3, G1.5: one read a tensor, each byte once, from the front of the file to its end. */
static void test_g1_5_tensors_are_read_once_in_file_order(void **state)
{
    (void)state;
    struct block_file model = block_file_open(BLOCKS, ROWS);
    struct lt_error error;
    struct store *store;
    forget_calls();
    assert_ok(store_load(model.file, NULL, NULL, &store, &error));
    assert_int_equal(read_count, BLOCKS * BLOCK_FILE_TENSORS + BLOCK_FILE_REST);
    uint64_t total = 0;
    for (int i = 0; i < read_count; i++) {
        if (i > 0)
            assert_true(read_offset[i] >= read_offset[i - 1] + (off_t)read_size[i - 1]);
        total += read_size[i];
    }
    assert_int_equal(total, model.rest_bytes + BLOCKS * model.block_bytes);
    assert_int_equal(tensor_file_bytes_read(model.file), total);
    block_file_forward(store, NULL, 0);
    assert_int_equal(read_count, BLOCKS * BLOCK_FILE_TENSORS + BLOCK_FILE_REST);
    store_destroy(&store);
    block_file_close(&model);
}

/* G1.1: whatever the file holds, what is taken of the system is the placed slabs: no second copy,
 * no staging. */
static void test_g1_1_loading_takes_the_placed_slabs_and_no_more(void **state)
{
    (void)state;
    struct block_file model = block_file_open(BLOCKS, ROWS);
    struct device *device = open_device((struct device_params){0});
    const struct store_params params = {.device = device};
    struct lt_error error;
    struct store *store;
    struct store_stats stats;
    struct device_stats memory;
    forget_calls();
    assert_ok(store_open(model.file, NULL, NULL, &params, &store, &error));
    assert_ok(store_finish_loading(store, &error));
    assert_int_equal(map_count, BLOCKS + STORE_GROUP_COUNT); /* one a slab */
    store_stats(store, &stats);
    device_stats(device, &memory);
    assert_int_equal(memory.peak_bytes[DEVICE_MEMORY_LOCAL], stats.device_bytes);
    assert_int_equal(memory.peak_bytes[DEVICE_MEMORY_PINNED], 0);
    /* G6.1: within 1 % of the tensors; here padding to 64 of a 28-byte bias */
    assert_int_equal(stats.device_bytes - stats.weight_bytes, BLOCKS * (64 - 28));
    store_destroy(&store);
    check_nothing_taken(device);
    device_destroy(&device);
    block_file_close(&model);
}

/* G1.2, G9.3: each read, each piece of memory fails in turn. Nothing half-loaded stays; the file's
 * index is as good as new, and the next load succeeds. */
static void test_g1_2_a_failure_at_any_call_leaves_nothing(void **state)
{
    (void)state;
    struct block_file model = block_file_open(BLOCKS, ROWS);
    for (int staged = 0; staged < 2; staged++)
        for (int what = 0; what < 2; what++) {
            int failures = 0;
            for (int call = 0;; call++) {
                struct device *device = open_device((struct device_params){.staged = staged});
                const struct store_params params = {
                    device, 3, 1, 1, STORE_ORDER_TAIL, NULL, STORE_TIER_DEVICE};
                struct lt_error error = {0};
                struct store *store = NULL;
                forget_calls();
                *(what ? &fail_map : &fail_read) = call;
                lt_status status = store_open(model.file, NULL, NULL, &params, &store, &error);
                if (status == LT_OK)
                    status = store_finish_loading(store, &error);
                for (size_t block = 0; block < BLOCKS && status == LT_OK; block++)
                    status = block_file_use(store, block, device, 0, &error);
                store_destroy(&store);
                const bool reached = call < *(what ? &map_count : &read_count);
                forget_calls();
                check_nothing_taken(device);
                device_destroy(&device);
                if (!reached)
                    break;
                if (status != LT_OK) {
                    failures++;
                    assert_true(what ? status == LT_NO_DEVICE_MEMORY || status == LT_NO_MEMORY
                                     : status == LT_IO);
                    assert_true(error.text[0] != 0);
                }
            }
            assert_true(failures > 4);
        }
    block_file_close(&model);
}

/* A read that failed is tried again where it stopped: what was placed is not read twice. */
static void a_load_goes_on_where_it_stopped(void **state)
{
    (void)state;
    struct block_file model = block_file_open(BLOCKS, ROWS);
    const struct store_params params = {0};
    struct lt_error error;
    struct store *store;
    struct store_stats stats;
    forget_calls();
    fail_read = BLOCK_FILE_REST + 5;
    assert_ok(store_open(model.file, NULL, NULL, &params, &store, &error));
    lt_status status = LT_OK;
    int failed = 0;
    for (size_t block = 0; block < BLOCKS; block++) {
        status = block_file_use(store, block, NULL, 0, &error);
        failed += status != LT_OK;
        if (status != LT_OK) {
            assert_int_equal(status, LT_IO);
            assert_non_null(strstr(error.text, "tensor 'blocks."));
            block--;
        }
    }
    assert_in_range(failed, 0, 1);
    assert_ok(store_finish_loading(store, &error));
    store_stats(store, &stats);
    assert_int_equal(stats.read_bytes, model.rest_bytes + BLOCKS * model.block_bytes);
    store_destroy(&store);
    forget_calls();
    block_file_close(&model);
}

/* -- extras, and loading behind compute -------------------------------------------------------- */

struct maker {
    sem_t gate; /* block 1's extra waits here */
    atomic_int gated;
    atomic_uchar value;
    atomic_int fills;
};

static lt_status fill(void *context, size_t index, void *data, size_t bytes, struct lt_error *error)
{
    (void)error;
    struct maker *maker = context;
    if (index == 1 && maker->gated)
        sem_wait(&maker->gate);
    maker->fills++;
    memset(data, maker->value + (int)index, bytes);
    return LT_OK;
}

static const struct store_extra extra[] = {{"blocks.0.x.lora_down", LT_TYPE_BF16, 2, {4, 33}},
                                           {"blocks.1.x.lora_down", LT_TYPE_BF16, 2, {4, 33}},
                                           {"blocks.4.x.lora_down", LT_TYPE_BF16, 2, {4, 33}},
                                           {"head.lora_up", LT_TYPE_BF16, 2, {3, 1}}};

static void begin_maker(struct maker *maker, struct store_extras *extras)
{
    *maker = (struct maker){.value = 7};
    sem_init(&maker->gate, 0, 0);
    *extras = (struct store_extras){extra, LT_COUNT(extra), fill, maker};
}

static void check_extra(struct store *store, size_t index, uint8_t value)
{
    struct lt_error error;
    struct lt_view view;
    uint64_t bytes;
    assert_ok(store_tensor(store, extra[index].name, &view, &error));
    assert_true(lt_type_bytes(view.type, (uint64_t)lt_view_count(&view), &bytes));
    for (uint64_t i = 0; i < bytes; i++)
        assert_int_equal(((uint8_t *)view.data)[i], (uint8_t)(value + index));
}

/* Cold start: compute is on block 0 while block 1 cannot be there yet. */
static void compute_begins_while_the_next_block_loads(void **state)
{
    (void)state;
    struct block_file model = block_file_open(BLOCKS, ROWS);
    struct maker maker;
    struct store_extras extras;
    begin_maker(&maker, &extras);
    maker.gated = 1;
    const struct store_params params = {.extras = &extras};
    struct lt_error error;
    struct store *store;
    struct store_stats stats;
    assert_ok(store_open(model.file, NULL, NULL, &params, &store, &error));
    assert_ok(block_file_use(store, 0, NULL, 0, &error));
    block_file_check(store, "head.head.weight"); /* the rest came first */
    check_extra(store, 3, 7);
    store_stats(store, &stats);
    assert_true(stats.read_bytes <= model.rest_bytes + 2 * model.block_bytes);
    maker.gated = 0;
    sem_post(&maker.gate);
    for (size_t block = 1; block < BLOCKS; block++)
        assert_ok(block_file_use(store, block, NULL, 0, &error));
    store_destroy(&store);
    sem_destroy(&maker.gate);
    block_file_close(&model);
}

static void *use_block_4(void *context)
{
    struct lt_error error;
    assert_ok(block_file_use(context, 4, NULL, 0, &error));
    return NULL;
}

/* What compute waits for overtakes the file's order; the rest of the order stays. */
static void the_block_compute_waits_for_goes_first(void **state)
{
    (void)state;
    struct block_file model = block_file_open(BLOCKS, ROWS);
    struct maker maker;
    struct store_extras extras;
    begin_maker(&maker, &extras);
    maker.gated = 1;
    const struct store_params params = {.extras = &extras};
    struct lt_error error;
    struct store *store;
    pthread_t thread;
    assert_ok(store_open(model.file, NULL, NULL, &params, &store, &error));
    assert_ok(block_file_use(store, 0, NULL, 0, &error)); /* loading is at the gate of block 1 */
    forget_calls();
    assert_int_equal(pthread_create(&thread, NULL, use_block_4, store), 0);
    for (bool asked = false; !asked;) {
        pthread_mutex_lock(&store->lock);
        asked = store->demand == 4;
        pthread_mutex_unlock(&store->lock);
        sched_yield();
    }
    maker.gated = 0;
    sem_post(&maker.gate);
    pthread_join(thread, NULL);
    assert_ok(store_finish_loading(store, &error));
    const int first = read_count - 3 * BLOCK_FILE_TENSORS; /* blocks 4, 2, 3 */
    assert_true(first >= 0 && first <= BLOCK_FILE_TENSORS);
    assert_true(read_offset[first] > read_offset[first + BLOCK_FILE_TENSORS]);
    for (int i = first + BLOCK_FILE_TENSORS + 1; i < read_count; i++)
        assert_true(read_offset[i] > read_offset[i - 1]);
    store_destroy(&store);
    sem_destroy(&maker.gate);
    block_file_close(&model);
}

/* G3.2 and the second level of G5: what a LoRA adds lies in its block's slab on every tier, and is
 * written anew without a byte of the file. */
static void extras_move_with_their_block_and_are_refilled_alone(void **state)
{
    (void)state;
    struct block_file model = block_file_open(BLOCKS, ROWS);
    for (int staged = 0; staged < 2; staged++)
        for (size_t swapped = 0; swapped <= BLOCKS; swapped++)
            for (size_t on_disk = 0; on_disk <= swapped; on_disk++) {
                struct maker maker;
                struct store_extras extras;
                struct device *device = open_device((struct device_params){.staged = staged});
                begin_maker(&maker, &extras);
                const struct store_params params = {device,           swapped, on_disk,          1,
                                                    STORE_ORDER_TAIL, &extras, STORE_TIER_DEVICE};
                struct lt_error error;
                struct store *store;
                struct store_stats before, after;
                uint64_t made = 0;
                assert_ok(store_open(model.file, NULL, NULL, &params, &store, &error));
                for (uint8_t value = 7; value < 9; value++) {
                    for (size_t block = 0; block < BLOCKS; block++) {
                        assert_ok(block_file_use(store, block, device, 0, &error));
                        assert_ok(store_acquire(store, block, &error));
                        for (size_t i = 0; i < 3; i++)
                            if (extra[i].name[7] == '0' + (char)block)
                                check_extra(store, i, value);
                        store_release(store, block);
                    }
                    check_extra(store, 3, value);
                    maker.value++;
                    store_stats(store, &before);
                    assert_ok(store_refill(store, &error));
                    store_stats(store, &after);
                    made = after.made_bytes - before.made_bytes;
                    if (on_disk == 0) /* else fetches under way may end in between */
                        assert_int_equal(after.read_bytes, before.read_bytes);
                }
                if (on_disk == 0)
                    assert_int_equal(made, 3 * 4 * 33 * 2 + 3 * 2);
                store_destroy(&store);
                check_nothing_taken(device);
                device_destroy(&device);
                sem_destroy(&maker.gate);
            }
    block_file_close(&model);
}

/* G2.3: the index stays, the descriptor goes; opening again parses nothing and knows the file. */
static void test_g2_3_reading_on_after_a_pause_parses_nothing(void **state)
{
    (void)state;
    struct block_file model = block_file_open(BLOCKS, ROWS);
    const struct tensor_info *info = tensor_file_find(model.file, "blocks.2.norm3.bias");
    struct lt_error error;
    uint8_t data[28];
    tensor_file_suspend(model.file);
    tensor_file_suspend(model.file);
    forget_calls();
    assert_ok(tensor_file_read(model.file, info, data, &error));
    assert_int_equal(read_count, 1);
    assert_int_equal(data[1], block_file_byte(info->name, 1));
    tensor_file_suspend(model.file);
    assert_int_equal(ftruncate(model.fd, 4096), 0);
    assert_fails(tensor_file_read(model.file, info, data, &error), LT_CORRUPT, "file changed");
    block_file_close(&model);
}

/* G6.2: ten loads and releases end where the first did, to the byte. */
static void test_g6_2_load_and_release_ten_times(void **state)
{
    (void)state;
    struct block_file model = block_file_open(BLOCKS, ROWS);
    struct device *device = open_device((struct device_params){0});
    struct device_stats stats;
    uint64_t peak = 0;
    for (int cycle = 0; cycle < 10; cycle++) {
        const struct store_params params = {device,           3, 1, 1, STORE_ORDER_SPREAD, NULL,
                                            STORE_TIER_DEVICE};
        struct lt_error error;
        struct store *store;
        assert_ok(store_open(model.file, NULL, NULL, &params, &store, &error));
        block_file_forward(store, device, 0);
        store_destroy(&store);
        check_nothing_taken(device);
        device_stats(device, &stats);
        peak = peak ? peak : stats.peak_bytes[DEVICE_MEMORY_LOCAL];
        assert_int_equal(stats.peak_bytes[DEVICE_MEMORY_LOCAL], peak);
    }
    device_destroy(&device);
    block_file_close(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_g1_5_tensors_are_read_once_in_file_order),
        cmocka_unit_test(test_g1_1_loading_takes_the_placed_slabs_and_no_more),
        cmocka_unit_test(test_g1_2_a_failure_at_any_call_leaves_nothing),
        cmocka_unit_test(a_load_goes_on_where_it_stopped),
        cmocka_unit_test(compute_begins_while_the_next_block_loads),
        cmocka_unit_test(the_block_compute_waits_for_goes_first),
        cmocka_unit_test(extras_move_with_their_block_and_are_refilled_alone),
        cmocka_unit_test(test_g2_3_reading_on_after_a_pause_parses_nothing),
        cmocka_unit_test(test_g6_2_load_and_release_ten_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
