/* If a device broke, a worker would promise memory it has not, or compute on weights that are still
 * on their way. */
#include "tests/test.h"

#include "worker/device.h"

#include <stdatomic.h>

enum { MIB = 1 << 20 };

static struct device *open_device(struct device_params params)
{
    struct lt_error error;
    struct device *device;
    assert_ok(device_create_host(&params, &device, &error));
    return device;
}

static void memory_is_counted_to_the_byte_and_bounded(void **state)
{
    (void)state;
    struct device *device = open_device((struct device_params){
        .limit_bytes = {[DEVICE_MEMORY_LOCAL] = 3 * MIB, [DEVICE_MEMORY_PINNED] = MIB}});
    struct lt_error error;
    struct device_stats stats;
    void *a, *b, *c = NULL;
    assert_ok(device_take(device, DEVICE_MEMORY_LOCAL, 2 * MIB + 1, "a", &a, &error));
    assert_fails(device_take(device, DEVICE_MEMORY_LOCAL, MIB, "block 7", &c, &error),
                 LT_NO_DEVICE_MEMORY,
                 "block 7: 1.00 MiB of device memory do not fit: 2.00 MiB in use, the limit is "
                 "3.00 MiB");
    assert_null(c);
    assert_ok(device_take(device, DEVICE_MEMORY_LOCAL, MIB - 1, "b", &b, &error));
    assert_ok(device_take(device, DEVICE_MEMORY_PINNED, MIB, "c", &c, &error));
    assert_fails(device_take(device, DEVICE_MEMORY_PINNED, SIZE_MAX, "d", &c, &error), LT_NO_MEMORY,
                 "pinned RAM");
    ((char *)a)[2 * MIB] = 1;
    device_give(device, DEVICE_MEMORY_LOCAL, a, 2 * MIB + 1);
    device_give(device, DEVICE_MEMORY_LOCAL, NULL, 5);
    device_stats(device, &stats);
    assert_int_equal(stats.used_bytes[DEVICE_MEMORY_LOCAL], MIB - 1);
    assert_int_equal(stats.peak_bytes[DEVICE_MEMORY_LOCAL], 3 * MIB);
    assert_int_equal(stats.peak_bytes[DEVICE_MEMORY_PINNED], MIB);
    assert_int_equal(stats.limit_bytes[DEVICE_MEMORY_LOCAL], 3 * MIB);
    device_give(device, DEVICE_MEMORY_LOCAL, b, MIB - 1);
    device_give(device, DEVICE_MEMORY_PINNED, c, MIB);
    device_destroy(&device);
    assert_null(device);
}

struct work {
    struct device *device;
    char *to, *from;
    size_t bytes;
    atomic_int *turn;
    int number, seen;
    bool fails;
};

static lt_status copy_work(void *context, struct lt_error *error)
{
    struct work *work = context;
    if (work->turn)
        work->seen = atomic_fetch_add(work->turn, 1);
    if (work->fails)
        return lt_fail(error, LT_IO, "work %d: no luck", work->number);
    return work->bytes ? device_copy(work->device, work->to, work->from, work->bytes, error)
                       : LT_OK;
}

/* Work runs in order, each after the event it names; its error comes out where it is waited for. */
static void work_runs_in_order_and_tells_its_end(void **state)
{
    (void)state;
    enum { COUNT = 20 };
    struct device *device = open_device((struct device_params){0});
    struct device_event *event[COUNT], *gate;
    struct device_job job[COUNT];
    struct work work[COUNT];
    struct lt_error error;
    struct device_stats stats;
    atomic_int turn = 0;
    char from[COUNT], to[COUNT] = {0};
    assert_ok(device_event_create(device, &gate, &error));
    for (int i = 0; i < COUNT; i++) {
        assert_ok(device_event_create(device, &event[i], &error));
        assert_true(device_event_is_done(event[i]));
        from[i] = (char)(i + 1);
        work[i] = (struct work){.device = device,
                                .to = &to[i],
                                .from = &from[i],
                                .bytes = 1,
                                .turn = &turn,
                                .number = i,
                                .fails = i == 7};
        job[i] = (struct device_job){
            .run = copy_work, .context = &work[i], .after = gate, .done = event[i]};
        device_submit(device, &job[i]);
    }
    assert_ok(device_wait(device, event[COUNT - 1], &error));
    for (int i = 0; i < COUNT; i++) {
        assert_true(device_event_is_done(event[i]));
        assert_int_equal(work[i].seen, i);
        assert_int_equal(to[i], i == 7 ? 0 : i + 1);
    }
    assert_fails(device_wait(device, event[7], &error), LT_IO, "work 7: no luck");
    device_stats(device, &stats);
    assert_int_equal(stats.copy_bytes, COUNT - 1);
    assert_int_equal(stats.copy_count, COUNT - 1);
    for (int i = 0; i < COUNT; i++)
        device_event_destroy(&event[i]);
    device_event_destroy(&gate);
    device_destroy(&device);
}

/* Copies of 1000 us beside compute: both queues keep their own time, and meet at events. */
static void virtual_time_passes_in_copies_and_compute_only(void **state)
{
    (void)state;
    struct device *device = open_device(
        (struct device_params){.virtual_clock = true, .copy_bytes_per_second = 1000 * 1000});
    struct lt_error error;
    struct device_stats stats;
    struct device_event *fetched, *idle;
    char from[1000] = {1}, to[1000];
    struct work work = {.device = device, .to = to, .from = from, .bytes = sizeof to};
    assert_ok(device_event_create(device, &fetched, &error));
    assert_ok(device_event_create(device, &idle, &error));
    struct device_job job = {.run = copy_work, .context = &work, .after = idle, .done = fetched};

    device_submit(device, &job); /* issued at 0, done at 1000 */
    device_compute_for(device, 400);
    assert_ok(device_wait(device, fetched, &error));
    device_stats(device, &stats);
    assert_int_equal(stats.stall_us, 600);
    assert_int_equal(stats.now_us, 1000);

    device_submit(device, &job); /* 1000 … 2000, under 1500 of compute */
    device_compute_for(device, 1500);
    assert_ok(device_wait(device, fetched, &error));
    device_stats(device, &stats);
    assert_int_equal(stats.stall_us, 600);
    assert_int_equal(stats.now_us, 2500);

    device_mark(device, idle); /* at 2500: the copy may not start before */
    device_submit(device, &job);
    assert_ok(device_wait(device, fetched, &error));
    device_stats(device, &stats);
    assert_int_equal(stats.stall_us, 1600);
    assert_int_equal(stats.now_us, 3500);
    device_event_destroy(&fetched);
    device_event_destroy(&idle);
    device_destroy(&device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_counted_to_the_byte_and_bounded),
        cmocka_unit_test(work_runs_in_order_and_tells_its_end),
        cmocka_unit_test(virtual_time_passes_in_copies_and_compute_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
