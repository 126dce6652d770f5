/* If a cache grew without bound, freed what is in use, or computed twice, a worker would die after
 * hours or waste its device. The guarantees G8.1 to G8.5 of pipeline.md, by counts. */
#include "tests/test.h"

#include "common/lru.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

static struct lt_error error;
static atomic_int made, freed;

static lt_status make(void *context, const void *key, void **value_out, uint64_t *bytes_out,
                      struct lt_error *e)
{
    (void)e;
    int *value = malloc(sizeof *value);
    *value = *(const int *)key;
    *value_out = value;
    *bytes_out = *(const uint64_t *)context;
    atomic_fetch_add(&made, 1);
    return LT_OK;
}

static void free_value(void *value)
{
    free(value);
    atomic_fetch_add(&freed, 1);
}

static struct lt_lru *create(size_t entries, uint64_t bytes)
{
    struct lt_lru *lru;
    const struct lt_lru_params params = {sizeof(int), entries, bytes, free_value};
    assert_ok(lt_lru_create(&params, &lru, &error));
    made = freed = 0;
    return lru;
}

static void touch(struct lt_lru *lru, int key, uint64_t bytes)
{
    struct lt_lru_entry *entry;
    assert_ok(lt_lru_take(lru, &key, make, &bytes, &entry, &error));
    assert_int_equal(*(int *)lt_lru_value(entry), key);
    lt_lru_release(lru, entry);
}

static void taking_refreshes(void **state)
{
    (void)state;
    struct lt_lru *lru = create(2, 100);
    touch(lru, 'A', 1);
    touch(lru, 'B', 1);
    touch(lru, 'A', 1);
    touch(lru, 'C', 1); /* B goes */
    assert_int_equal(made, 3);
    touch(lru, 'A', 1);
    assert_int_equal(made, 3);
    touch(lru, 'B', 1);
    assert_int_equal(made, 4);
    lt_lru_destroy(&lru);
    assert_int_equal(freed, 4);
}

static void g8_2_freed_once_and_not_in_use(void **state)
{
    (void)state;
    struct lt_lru *lru = create(1, 100);
    struct lt_lru_entry *entry, *again;
    const int key = 1;
    uint64_t bytes = 1;
    assert_ok(lt_lru_take(lru, &key, make, &bytes, &entry, &error));
    touch(lru, 2, 1); /* 1 is not kept any more, but in use */
    assert_int_equal(freed, 0);
    assert_int_equal(*(int *)lt_lru_value(entry), 1);
    assert_ok(lt_lru_take(lru, &key, make, &bytes, &again, &error)); /* another 1 */
    assert_int_equal(made, 3);
    assert_int_equal(freed, 1); /* 2 */
    lt_lru_release(lru, entry);
    assert_int_equal(freed, 2);
    lt_lru_release(lru, again);
    assert_int_equal(freed, 2);
    lt_lru_clear(lru);
    assert_int_equal(freed, 3);
    lt_lru_destroy(&lru);
    assert_int_equal(freed, 3);
}

static void g8_3_bounds_in_entries_and_bytes(void **state)
{
    (void)state;
    struct lt_lru *lru = create(10, 100);
    struct lt_lru_stats stats;
    for (int i = 0; i < 5; i++)
        touch(lru, i, 40);
    lt_lru_stats(lru, &stats);
    assert_int_equal(stats.entries, 2);
    assert_int_equal(stats.bytes, 80);
    assert_int_equal(stats.evictions, 3);
    touch(lru, 9, 101); /* handed out, kept by nobody, and nothing else had to go */
    lt_lru_stats(lru, &stats);
    assert_int_equal(stats.entries, 2);
    assert_int_equal(freed, 4);
    touch(lru, 8, UINT64_MAX);
    touch(lru, 7, 100); /* exactly the budget */
    lt_lru_stats(lru, &stats);
    assert_int_equal(stats.entries, 1);
    assert_int_equal(stats.bytes, 100);
    lt_lru_destroy(&lru);
    assert_int_equal(made, freed);
}

static void g8_4_a_million_inserts_stay_bounded(void **state)
{
    (void)state;
    struct lt_lru *lru = create(1000, UINT64_MAX);
    struct lt_lru_stats stats;
    for (int i = 0; i < 1000000; i++) {
        touch(lru, i, 1);
        if (i % 100000 == 99999) {
            lt_lru_stats(lru, &stats);
            assert_int_equal(stats.entries, 1000);
        }
    }
    assert_int_equal(stats.evictions, 999000);
    lt_lru_destroy(&lru);
    assert_int_equal(freed, 1000000);
}

static lt_status fail_first(void *context, const void *key, void **value_out, uint64_t *bytes_out,
                            struct lt_error *e)
{
    static atomic_int calls;
    uint64_t bytes = 1;
    (void)context;
    if (atomic_fetch_add(&calls, 1) == 0)
        return lt_fail(e, LT_IO, "not today");
    return make(&bytes, key, value_out, bytes_out, e);
}

static void a_failure_is_not_kept(void **state)
{
    (void)state;
    struct lt_lru *lru = create(4, 100);
    struct lt_lru_entry *entry;
    const int key = 5;
    assert_fails(lt_lru_take(lru, &key, fail_first, NULL, &entry, &error), LT_IO, "not today");
    assert_ok(lt_lru_take(lru, &key, fail_first, NULL, &entry, &error));
    lt_lru_release(lru, entry);
    lt_lru_destroy(&lru);
    assert_int_equal(freed, 1);
}

static lt_status make_slowly(void *context, const void *key, void **value_out, uint64_t *bytes_out,
                             struct lt_error *e)
{
    usleep(20000); /* the others come meanwhile */
    return make(context, key, value_out, bytes_out, e);
}

static void *take_many(void *context)
{
    struct lt_lru *lru = context;
    uint64_t bytes = 1;
    for (int key = 0; key < 5; key++) {
        struct lt_lru_entry *entry;
        lt_assert(lt_lru_take(lru, &key, make_slowly, &bytes, &entry, NULL) == LT_OK);
        lt_assert(*(int *)lt_lru_value(entry) == key);
        lt_lru_release(lru, entry);
    }
    return NULL;
}

static void threads_make_a_value_once(void **state)
{
    (void)state;
    enum { THREADS = 8 };
    pthread_t thread[THREADS];
    struct lt_lru *lru = create(10, 100);
    struct lt_lru_stats stats;
    for (int i = 0; i < THREADS; i++)
        pthread_create(&thread[i], NULL, take_many, lru);
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    lt_lru_stats(lru, &stats);
    assert_int_equal(made, 5);
    assert_int_equal(stats.misses, 5);
    assert_int_equal(stats.hits, 5 * THREADS - 5);
    lt_lru_destroy(&lru);
    assert_int_equal(freed, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taking_refreshes),
        cmocka_unit_test(g8_2_freed_once_and_not_in_use),
        cmocka_unit_test(g8_3_bounds_in_entries_and_bytes),
        cmocka_unit_test(g8_4_a_million_inserts_stay_bounded),
        cmocka_unit_test(a_failure_is_not_kept),
        cmocka_unit_test(threads_make_a_value_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
