/* If swapping broke, a forward would compute with another block's weights, or a card of 16 GB would
 * run out of memory, or stand still for every copy. Walks over a model whose every byte names its
 * tensor; times are those of a virtual clock. */
#include "tests/worker/block_file.h"
#include "worker/device_private.h"
#include "worker/weights/store_private.h"

#include <stdlib.h>

enum { BLOCKS = 6, ROWS = 8 };

static const enum store_order orders[] = {STORE_ORDER_TAIL, STORE_ORDER_SPREAD};

static struct device *open_device(struct device_params params)
{
    struct lt_error error;
    struct device *device;
    assert_ok(device_create_host(&params, &device, &error));
    return device;
}

/* 1 byte a microsecond. */
static struct device *open_virtual(void)
{
    return open_device(
        (struct device_params){.virtual_clock = true, .copy_bytes_per_second = 1000 * 1000});
}

static struct store *open_store(const struct block_file *model, const struct store_params *params)
{
    struct lt_error error;
    struct store *store;
    assert_ok(store_open(model->file, NULL, NULL, params, &store, &error));
    return store;
}

static struct store_stats stats_of(const struct store *store)
{
    struct store_stats stats;
    store_stats(store, &stats);
    return stats;
}

/* When nothing is under way. */
static struct store_stats settled_stats_of(const struct store *store)
{
    for (size_t i = 0; i < store->slot_count; i++)
        assert_int_equal(device_wait(store->device, store->slot[i].fetched, NULL), LT_OK);
    return stats_of(store);
}

static uint64_t slab_bytes(const struct block_file *model)
{
    struct lt_error error;
    struct layout layout;
    assert_ok(layout_build(model->file, NULL, NULL, NULL, &layout, &error));
    const uint64_t bytes = layout.slab_bytes[0];
    layout_fini(&layout);
    return bytes;
}

static void check_nothing_taken(struct device *device)
{
    struct device_stats stats;
    device_stats(device, &stats);
    for (int kind = 0; kind < DEVICE_MEMORY_COUNT; kind++)
        assert_int_equal(stats.used_bytes[kind], 0);
}

/* Every count of swapped blocks, prefetch, order, tier and kind of device. */
static void test_g4_3_every_placement_gives_the_same_bytes(void **state)
{
    (void)state;
    struct block_file model = block_file_open(BLOCKS, ROWS);
    for (int kind = 0; kind < 6; kind++)
        for (size_t swapped = 0; swapped <= BLOCKS + 1; swapped++)
            for (size_t on_disk = 0; on_disk <= swapped; on_disk += 2)
                for (size_t prefetch = 0; prefetch <= BLOCKS; prefetch += prefetch + 1)
                    for (size_t o = 0; o < LT_COUNT(orders); o++) {
                        struct device *device =
                            open_device((struct device_params){.staged = kind % 2});
                        const struct store_params params = {.device = device,
                                                            .blocks_to_swap = swapped,
                                                            .disk_blocks = on_disk,
                                                            .prefetch = prefetch,
                                                            .order = orders[o],
                                                            .group_tier =
                                                                (enum store_tier)(kind / 2)};
                        struct store *store = open_store(&model, &params);
                        for (int forward = 0; forward < 2; forward++)
                            block_file_forward(store, device, 0);
                        block_file_check(store, "head.head.weight");
                        store_destroy(&store);
                        check_nothing_taken(device);
                        device_destroy(&device);
                    }
    block_file_close(&model);
}

/* A fuser lies with the block it follows, however far apart fusers stand; the groups apart. */
static void fusers_lie_with_their_block(void **state)
{
    (void)state;
    static const struct {
        size_t blocks, fusers, every;
    } cases[] = {{40, 8, 5}, {4, 2, 2}, {6, 6, 1}, {7, 2, 5}, {7, 3, 0}, {3, 0, 0}};
    static const struct shaped tensors[] = {
        {"face_adapter.fuser_blocks.0.linear2.weight", LT_TYPE_F32, 1, {16}},
        {"face_adapter.fuser_blocks.1.linear2.weight", LT_TYPE_F32, 1, {16}},
        {"blocks.0.norm3.bias", LT_TYPE_F32, 1, {16}},
        {"blocks.3.norm3.bias", LT_TYPE_F32, 1, {16}},
        {"motion_encoder.x", LT_TYPE_F32, 1, {16}},
        {"time_embedding.0.bias", LT_TYPE_F32, 1, {16}},
        {"head.head.bias", LT_TYPE_F32, 1, {16}}};
    static const size_t slabs[] = {
        0, 2, 0, 3, 4 + STORE_GROUP_PROMPT, 4 + STORE_GROUP_TIME, 4 + STORE_GROUP_REST};
    struct lt_error error;
    struct tensor_file *file;
    struct layout layout;
    char path[64];
    for (size_t i = 0; i < LT_COUNT(cases); i++)
        assert_int_equal(layout_fuser_every(cases[i].fusers, cases[i].blocks), cases[i].every);
    struct bytes bytes = gguf_of(tensors, LT_COUNT(tensors), "");
    const int fd = lend_path(bytes.data, bytes.count, path);
    free(bytes.data);
    assert_ok(tensor_file_open(path, &file, &error));
    assert_ok(layout_build(file, NULL, NULL, NULL, &layout, &error));
    for (size_t i = 0; i < LT_COUNT(tensors); i++)
        assert_int_equal(layout_find(&layout, tensors[i].name)->slab, slabs[i]);
    layout_fini(&layout);
    tensor_file_close(&file);
    close(fd);
}

/* What is used once a forward makes room too, and is back in time for the next one. */
static void groups_wait_in_ram_or_on_disk(void **state)
{
    (void)state;
    struct block_file model = block_file_open(BLOCKS, ROWS);
    struct lt_error error;
    for (int tier = STORE_TIER_RAM; tier <= STORE_TIER_DISK; tier++) {
        struct device *device = open_device((struct device_params){0});
        const struct store_params params = {.device = device,
                                            .blocks_to_swap = BLOCKS,
                                            .prefetch = 1,
                                            .group_tier = (enum store_tier)tier};
        struct store *store = open_store(&model, &params);
        struct store_memory plan;
        struct lt_view view;
        assert_ok(store_finish_loading(store, &error)); /* or the look ahead ends early */
        layout_memory(&store->layout, &params, false, &plan);
        assert_int_equal(plan.resident_bytes, store->layout.slab_bytes[BLOCKS]);
        assert_int_equal(plan.slot_count, 2);
        assert_fails(store_tensor(store, "time_projection.1.weight", &view, &error), LT_INTERNAL,
                     "'time_projection.1.weight' is used without its group");
        block_file_forward(store, device, 0);
        const struct store_stats one = settled_stats_of(store);
        assert_int_equal(one.fetch_count, 1 + 1 + BLOCKS + 1); /* the next forward's time group */
        for (size_t block = 0; block < BLOCKS; block++)
            assert_ok(block_file_use(store, block, device, 0, &error));
        assert_ok(store_acquire_group(store, STORE_GROUP_TIME, &error));
        store_release_group(store, STORE_GROUP_TIME);
        for (size_t block = 0; block < BLOCKS; block++)
            assert_ok(block_file_use(store, block, device, 0, &error));
        /* the first forward began without its time group, which goes and comes again */
        assert_int_equal(settled_stats_of(store).copy_bytes - one.copy_bytes, 2 * plan.copy_bytes);
        store_destroy(&store);
        device_destroy(&device);
    }
    block_file_close(&model);
}

/* Residents + min(k + 1, N) slots of the largest block, exactly; that is what is taken, and what
 * the plan says before anything is. A byte less is refused before anything is read. */
static void test_g4_4_memory_is_as_planned(void **state)
{
    (void)state;
    struct block_file model = block_file_open(BLOCKS, ROWS);
    const uint64_t slab = slab_bytes(&model);
    struct lt_error error;
    struct layout layout;
    assert_ok(layout_build(model.file, NULL, NULL, NULL, &layout, &error));
    const uint64_t rest = layout_group_bytes(&layout);
    for (size_t swapped = 0; swapped <= BLOCKS; swapped++)
        for (size_t prefetch = 0; prefetch < 4; prefetch++) {
            struct store_params params = {
                .blocks_to_swap = swapped, .disk_blocks = swapped / 2, .prefetch = prefetch};
            struct store_memory plan;
            struct device_stats stats;
            const size_t slots = prefetch + 1 < swapped ? prefetch + 1 : swapped;
            layout_memory(&layout, &params, false, &plan);
            assert_int_equal(plan.device_bytes, rest + (BLOCKS - swapped + slots) * slab);
            assert_int_equal(plan.pinned_bytes, (swapped - swapped / 2) * slab);
            assert_int_equal(plan.copy_bytes, slots == swapped ? 0 : swapped * slab);
            assert_int_equal(plan.disk_bytes, slots == swapped ? 0 : swapped / 2 * slab);

            struct device *device = params.device = open_device(
                (struct device_params){.limit_bytes = {plan.device_bytes, plan.pinned_bytes + 1}});
            struct store *store = open_store(&model, &params);
            block_file_forward(store, device, 0);
            device_stats(device, &stats);
            assert_int_equal(stats.peak_bytes[DEVICE_MEMORY_LOCAL], plan.device_bytes);
            assert_int_equal(stats.peak_bytes[DEVICE_MEMORY_PINNED], plan.pinned_bytes);
            store_destroy(&store);
            device_destroy(&device);

            device = params.device =
                open_device((struct device_params){.limit_bytes = {plan.device_bytes - 1}});
            const uint64_t read = tensor_file_bytes_read(model.file);
            assert_fails(store_open(model.file, NULL, NULL, &params, &store, &error),
                         LT_NO_DEVICE_MEMORY, "do not fit");
            assert_null(store);
            assert_int_equal(tensor_file_bytes_read(model.file), read);
            check_nothing_taken(device);
            device_destroy(&device);
        }
    layout_fini(&layout);
    block_file_close(&model);
}

/* G4.1: masters are read once and never written: what moves is N blocks a forward, one way. */
static void test_g4_1_a_forward_copies_each_swapped_block_once(void **state)
{
    (void)state;
    struct block_file model = block_file_open(BLOCKS, ROWS);
    const uint64_t slab = slab_bytes(&model);
    for (size_t on_disk = 0; on_disk <= 4; on_disk += 2) {
        struct device *device = open_device((struct device_params){0});
        const struct store_params params = {device,           4,    on_disk,          1,
                                            STORE_ORDER_TAIL, NULL, STORE_TIER_DEVICE};
        struct store *store = open_store(&model, &params);
        struct lt_error error;
        assert_ok(store_finish_loading(store, &error));
        const struct store_stats loaded = stats_of(store);
        assert_int_equal(loaded.read_bytes,
                         model.rest_bytes + (BLOCKS - on_disk) * model.block_bytes);
        block_file_forward(store, device, 0);
        const struct store_stats one = settled_stats_of(store);
        assert_int_equal(one.fetch_count, 4 + 1); /* and the first of the next forward */
        for (int i = 0; i < 3; i++)
            block_file_forward(store, device, 0);
        const struct store_stats four = settled_stats_of(store);
        assert_int_equal(four.fetch_count - one.fetch_count, 3 * 4);
        assert_int_equal(four.copy_bytes - one.copy_bytes, 3 * 4 * slab);
        assert_int_equal(four.read_bytes - one.read_bytes, 3 * on_disk * model.block_bytes);
        store_destroy(&store);
        device_destroy(&device);
    }
    block_file_close(&model);
}

/* A device whose compute runs behind its callers, as a GPU's does: it keeps the order in which the
 * copy queue waits and copies. */
struct late {
    struct store *store;
    struct device_event *awaited; /* by the job that runs */
    unsigned copies, early, elsewhere, marks;
};

static void *late_take(struct device *device, enum device_memory kind, size_t bytes)
{
    (void)device;
    (void)kind;
    return aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
}

static void late_give(struct device *device, enum device_memory kind, void *data, size_t bytes)
{
    (void)device;
    (void)kind;
    (void)bytes;
    free(data);
}

static void late_prefault(void *data, size_t bytes)
{
    (void)data;
    (void)bytes;
}

static lt_status late_await(struct device *device, struct device_event *event,
                            struct lt_error *error)
{
    (void)error;
    ((struct late *)device->handle)->awaited = event;
    return LT_OK;
}

static void late_mark(struct device *device, struct device_event *event)
{
    (void)event;
    ((struct late *)device->handle)->marks++;
}

static lt_status late_copy(struct device *device, void *to, const void *from, size_t bytes,
                           struct lt_error *error)
{
    struct late *late = device->handle;
    const struct slot *slot = NULL;
    (void)error;
    for (size_t i = 0; late->store && i < late->store->slot_count; i++)
        if (late->store->slot[i].data == to)
            slot = &late->store->slot[i];
    late->copies++;
    late->elsewhere += !slot;
    late->early += slot && late->awaited != slot->idle;
    memcpy(to, from, bytes);
    return LT_OK;
}

/* G4.2: a slot is written when the compute that last used it has been waited for; nothing is copied
 * anywhere but to a slot, so nothing comes back. */
static void test_g4_2_a_slot_waits_for_the_compute_before_it(void **state)
{
    (void)state;
    static const struct device_ops ops = {.take = late_take,
                                          .give = late_give,
                                          .prefault = late_prefault,
                                          .copy = late_copy,
                                          .await = late_await,
                                          .mark = late_mark};
    struct block_file model = block_file_open(BLOCKS, ROWS);
    for (size_t prefetch = 0; prefetch < 3; prefetch++) {
        struct late late = {0};
        struct lt_error error;
        struct device *device;
        const struct device_params unlimited = {0};
        assert_ok(device_create(&ops, &late, &unlimited, &device, &error));
        const struct store_params params = {
            .device = device, .blocks_to_swap = BLOCKS - 1, .prefetch = prefetch};
        late.store = open_store(&model, &params);
        assert_ok(store_finish_loading(late.store, &error));
        for (int forward = 0; forward < 3; forward++)
            block_file_forward(late.store, device, 0);
        const struct store_stats stats = settled_stats_of(late.store);
        assert_int_equal(late.copies, stats.fetch_count);
        assert_true(late.copies >= 3 * (BLOCKS - 1));
        assert_true(late.marks >= 3 * (BLOCKS - 1));
        assert_int_equal(late.early, 0);
        assert_int_equal(late.elsewhere, 0);
        store_destroy(&late.store);
        device_destroy(&device);
    }
    block_file_close(&model);
}

/* Stall of the last of some forwards, and its length. */
struct times {
    int64_t stall_us, forward_us;
};

static struct times time_forward(const struct block_file *model, struct store_params params,
                                 int64_t compute_us)
{
    struct device *device = params.device = open_virtual();
    struct store *store = open_store(model, &params);
    struct lt_error error;
    struct device_stats before, after;
    assert_ok(store_finish_loading(store, &error));
    block_file_forward(store, device, compute_us);
    block_file_forward(store, device, compute_us);
    device_stats(device, &before);
    const int64_t store_before = stats_of(store).stall_us;
    block_file_forward(store, device, compute_us);
    device_stats(device, &after);
    assert_int_equal(stats_of(store).stall_us - store_before, after.stall_us - before.stall_us);
    store_destroy(&store);
    device_destroy(&device);
    return (struct times){after.stall_us - before.stall_us, after.now_us - before.now_us};
}

static void test_g4_5_no_stall_while_copies_hide_under_compute(void **state)
{
    (void)state;
    struct block_file model = block_file_open(BLOCKS, ROWS);
    const int64_t copy_us = (int64_t)slab_bytes(&model);
    for (size_t swapped = 1; swapped <= BLOCKS; swapped++)
        for (size_t prefetch = 1; prefetch <= 3; prefetch++)
            for (size_t o = 0; o < LT_COUNT(orders); o++) {
                const struct store_params params = {
                    .blocks_to_swap = swapped, .prefetch = prefetch, .order = orders[o]};
                const struct times times = time_forward(&model, params, copy_us);
                assert_int_equal(times.stall_us, 0);
                assert_int_equal(times.forward_us, BLOCKS * copy_us);
            }
    block_file_close(&model);
}

static void test_g4_5_else_a_forward_takes_the_larger_of_both(void **state)
{
    (void)state;
    struct block_file model = block_file_open(BLOCKS, ROWS);
    const int64_t copy_us = (int64_t)slab_bytes(&model), compute_us = copy_us / 2;
    struct store_params all = {.blocks_to_swap = BLOCKS, .prefetch = 1};
    struct times times = time_forward(&model, all, compute_us);
    assert_int_equal(times.forward_us, BLOCKS * copy_us); /* sum of max(copy, compute) */
    assert_int_equal(times.stall_us, BLOCKS * (copy_us - compute_us));
    all.prefetch = 0; /* nothing hides: sum of copy + compute */
    times = time_forward(&model, all, compute_us);
    assert_int_equal(times.forward_us, BLOCKS * (copy_us + compute_us));
    assert_int_equal(times.stall_us, BLOCKS * copy_us);
    block_file_close(&model);
}

/* G4.7: a copy of two blocks' compute hides when every other block stays, not when the last N go.
 */
static void test_g4_7_spread_gives_each_copy_more_time(void **state)
{
    (void)state;
    struct block_file model = block_file_open(BLOCKS, ROWS);
    const int64_t copy_us = (int64_t)slab_bytes(&model);
    struct store_params params = {.blocks_to_swap = BLOCKS / 2, .prefetch = 1};
    params.order = STORE_ORDER_SPREAD;
    assert_int_equal(time_forward(&model, params, copy_us / 2).stall_us, 0);
    params.order = STORE_ORDER_TAIL;
    assert_true(time_forward(&model, params, copy_us / 2).stall_us > 0);
    block_file_close(&model);
}

static void test_g4_6_a_ring_that_holds_all_copies_once(void **state)
{
    (void)state;
    struct block_file model = block_file_open(BLOCKS, ROWS);
    struct device *device = open_device((struct device_params){0});
    const struct store_params params = {device,           3, 1, 5, STORE_ORDER_SPREAD, NULL,
                                        STORE_TIER_DEVICE};
    struct store *store = open_store(&model, &params);
    for (int i = 0; i < 4; i++)
        block_file_forward(store, device, 0);
    assert_int_equal(stats_of(store).fetch_count, 3);
    store_destroy(&store);
    device_destroy(&device);
    block_file_close(&model);
}

/* While blocks are placed the look ahead ends early; what it asks for later takes the empty slot,
 * not that of a block which then had to come twice. */
static void what_is_asked_for_late_takes_an_empty_slot(void **state)
{
    (void)state;
    struct block_file model = block_file_open(BLOCKS, ROWS);
    const struct store_params params = {
        .blocks_to_swap = 2, .prefetch = 1, .order = STORE_ORDER_SPREAD};
    struct store *store = open_store(&model, &params);
    struct lt_error error;
    assert_ok(store_finish_loading(store, &error));
    size_t swapped[2] = {0}, count = 0;
    for (size_t block = 0; block < BLOCKS; block++)
        if (store->slab[block].tier != STORE_TIER_DEVICE)
            swapped[count++] = block;
    assert_true(count == 2 && swapped[0] + 1 < swapped[1]);
    store->slab[swapped[1]].left = 1; /* as if it were not placed yet */
    assert_ok(block_file_use(store, swapped[0], NULL, 0, &error));
    store->slab[swapped[1]].left = 0;
    for (size_t block = swapped[0] + 1; block < BLOCKS; block++)
        assert_ok(block_file_use(store, block, NULL, 0, &error));
    block_file_forward(store, NULL, 0);
    assert_int_equal(settled_stats_of(store).fetch_count, 2);
    store_destroy(&store);
    block_file_close(&model);
}

static void test_g4_6_models_of_30_40_and_48_blocks(void **state)
{
    (void)state;
    static const size_t counts[] = {30, 40, 48};
    for (size_t i = 0; i < LT_COUNT(counts); i++) {
        struct block_file model = block_file_open(counts[i], 1);
        for (size_t swapped = 0; swapped <= counts[i]; swapped += 10)
            for (size_t o = 0; o < LT_COUNT(orders); o++) {
                struct device *device = open_device((struct device_params){0});
                const struct store_params params = {device,    swapped, swapped / 3,      2,
                                                    orders[o], NULL,    STORE_TIER_DEVICE};
                struct store *store = open_store(&model, &params);
                assert_int_equal(store_block_count(store), counts[i]);
                block_file_forward(store, device, 0);
                store_destroy(&store);
                device_destroy(&device);
            }
        block_file_close(&model);
    }
}

/* Skip-layer guidance leaves blocks out; a cancelled forward starts again at block 0. */
static void test_g4_6_skipped_blocks_and_cancelled_forwards(void **state)
{
    (void)state;
    struct block_file model = block_file_open(BLOCKS, ROWS);
    struct lt_error error;
    for (size_t prefetch = 0; prefetch <= 3; prefetch++)
        for (size_t skipped = 0; skipped < BLOCKS; skipped++) {
            struct device *device = open_device((struct device_params){0});
            const struct store_params params = {
                device, 5, 2, prefetch, STORE_ORDER_TAIL, NULL, STORE_TIER_DEVICE};
            struct store *store = open_store(&model, &params);
            for (int forward = 0; forward < 2; forward++) {
                for (size_t block = 0; block < BLOCKS; block++)
                    if (block != skipped)
                        assert_ok(block_file_use(store, block, device, 0, &error));
                for (size_t block = 0; block < skipped; block++) /* cancelled there */
                    assert_ok(block_file_use(store, block, device, 0, &error));
            }
            block_file_forward(store, device, 0);
            store_destroy(&store); /* with fetches under way */
            check_nothing_taken(device);
            device_destroy(&device);
        }
    block_file_close(&model);
}

/* Two blocks held at once need two slots; with one, the second is refused, not waited for. */
static void blocks_held_together_need_slots_of_their_own(void **state)
{
    (void)state;
    struct block_file model = block_file_open(BLOCKS, ROWS);
    struct lt_error error;
    for (size_t prefetch = 0; prefetch < 2; prefetch++) {
        const struct store_params params = {.blocks_to_swap = BLOCKS, .prefetch = prefetch};
        struct store *store = open_store(&model, &params);
        assert_ok(store_acquire(store, 2, &error));
        if (prefetch == 0) {
            assert_fails(store_acquire(store, 4, &error), LT_BUSY, "block 4 needs a slot");
        } else {
            assert_ok(block_file_use(store, 4, NULL, 0, &error));
            assert_ok(block_file_use(store, 5, NULL, 0, &error));
        }
        assert_ok(block_file_use(store, 2, NULL, 0, &error)); /* nested */
        store_release(store, 2);
        assert_ok(block_file_use(store, 4, NULL, 0, &error));
        store_destroy(&store);
    }
    block_file_close(&model);
}

/* Checks need shapes, not bytes: asking for them fetches nothing. */
static void shapes_are_known_without_a_fetch(void **state)
{
    (void)state;
    struct block_file model = block_file_open(BLOCKS, ROWS);
    const struct store_params params = {.blocks_to_swap = BLOCKS, .disk_blocks = BLOCKS};
    struct store *store = open_store(&model, &params);
    struct lt_error error;
    struct lt_view view;
    assert_ok(store_tensor_shaped(store, "blocks.3.ffn.0.weight", 2, (int64_t[]){ROWS, 128}, &view,
                                  &error));
    assert_null(view.data);
    assert_fails(
        store_tensor_shaped(store, "blocks.3.norm3.bias", 1, (int64_t[]){8}, &view, &error),
        LT_BAD_INPUT, "'blocks.3.norm3.bias': expected [8], found [7] of type F32");
    assert_int_equal(stats_of(store).fetch_count, 0);
    assert_int_equal(stats_of(store).read_bytes, model.rest_bytes);
    store_destroy(&store);
    block_file_close(&model);
}

/* The file is cut short while blocks come from it: the block that needs it says so, each time, the
 * others go on, and nothing is left behind. */
static void test_g2_3_a_file_cut_short_in_the_middle_of_a_swap(void **state)
{
    (void)state;
    struct block_file model = block_file_open(BLOCKS, ROWS);
    struct device *device = open_device((struct device_params){0});
    const struct store_params params = {device, 3, 3, 0, STORE_ORDER_TAIL, NULL, STORE_TIER_DEVICE};
    struct store *store = open_store(&model, &params);
    struct lt_error error;
    block_file_forward(store, device, 0);
    assert_int_equal(ftruncate(model.fd, 4096), 0);
    for (int forward = 0; forward < 2; forward++) {
        for (size_t block = 0; block < 3; block++)
            assert_ok(block_file_use(store, block, device, 0, &error));
        for (size_t block = 3; block < BLOCKS; block++)
            assert_fails(store_acquire(store, block, &error), LT_CORRUPT, "file changed since");
        assert_non_null(strstr(error.text, "block 5"));
    }
    store_destroy(&store);
    check_nothing_taken(device);
    device_destroy(&device);
    block_file_close(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_g4_3_every_placement_gives_the_same_bytes),
        cmocka_unit_test(fusers_lie_with_their_block),
        cmocka_unit_test(groups_wait_in_ram_or_on_disk),
        cmocka_unit_test(test_g4_4_memory_is_as_planned),
        cmocka_unit_test(test_g4_1_a_forward_copies_each_swapped_block_once),
        cmocka_unit_test(test_g4_2_a_slot_waits_for_the_compute_before_it),
        cmocka_unit_test(test_g4_5_no_stall_while_copies_hide_under_compute),
        cmocka_unit_test(test_g4_5_else_a_forward_takes_the_larger_of_both),
        cmocka_unit_test(test_g4_7_spread_gives_each_copy_more_time),
        cmocka_unit_test(test_g4_6_a_ring_that_holds_all_copies_once),
        cmocka_unit_test(what_is_asked_for_late_takes_an_empty_slot),
        cmocka_unit_test(test_g4_6_models_of_30_40_and_48_blocks),
        cmocka_unit_test(test_g4_6_skipped_blocks_and_cancelled_forwards),
        cmocka_unit_test(blocks_held_together_need_slots_of_their_own),
        cmocka_unit_test(shapes_are_known_without_a_fetch),
        cmocka_unit_test(test_g2_3_a_file_cut_short_in_the_middle_of_a_swap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
