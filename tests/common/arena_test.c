/* If arenas broke, tasks would overwrite each other's buffers or leak with every step: wrong
 * pictures, or a worker that dies after hours. */
#include "tests/test.h"

#include "common/arena.h"

#include <string.h>

static void rewind_gives_back_the_same_memory(void **state)
{
    (void)state;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    void *kept = lt_arena_take(&arena, 100);
    const struct lt_mark mark = lt_arena_mark(&arena);
    void *first = lt_arena_take(&arena, 3000);
    lt_arena_take(&arena, 1 << 20); /* forces a second chunk */
    const size_t reserved = arena.reserved_bytes;
    lt_arena_rewind(&arena, mark);
    assert_int_equal(arena.used_bytes, 128);
    assert_ptr_equal(lt_arena_take(&arena, 3000), first);
    lt_arena_take(&arena, 1 << 20);
    assert_int_equal(arena.reserved_bytes, reserved);
    memset(kept, 1, 100);
    lt_arena_fini(&arena);
}

static void limit_is_honoured_and_peak_counted(void **state)
{
    (void)state;
    struct lt_arena arena;
    lt_arena_init(&arena, 1024);
    assert_non_null(lt_arena_take(&arena, 1000));
    assert_null(lt_arena_take(&arena, 1));
    assert_null(lt_arena_take_array(&arena, SIZE_MAX / 2, 4));
    assert_int_equal(arena.peak_bytes, 1024);
    lt_arena_fini(&arena);
}

struct lender {
    size_t lent_bytes, count;
};

static void *lend(void *context, size_t bytes)
{
    struct lender *lender = context;
    lender->lent_bytes += bytes;
    lender->count++;
    return (void *)(uintptr_t)(lender->count << 40); /* as a device's: not to be touched */
}

static void get_back(void *context, void *data, size_t bytes)
{
    struct lender *lender = context;
    assert_true((uintptr_t)data >> 40 > 0);
    lender->lent_bytes -= bytes;
}

static void memory_of_a_source_is_never_touched(void **state)
{
    (void)state;
    struct lender lender = {0};
    struct lt_arena arena;
    lt_arena_init_from(&arena, &(struct lt_arena_source){lend, get_back, &lender});
    const struct lt_mark mark = lt_arena_mark(&arena);
    unsigned char *first = lt_arena_take(&arena, 100);
    assert_ptr_equal(lt_arena_take(&arena, 64), first + 128);
    lt_arena_take(&arena, 1 << 20);
    assert_int_equal(lender.count, 2);
    assert_int_equal(lender.lent_bytes, arena.reserved_bytes);
    lt_arena_rewind(&arena, mark);
    assert_ptr_equal(lt_arena_take(&arena, 100), first);
    lt_arena_fini(&arena);
    assert_int_equal(lender.lent_bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rewind_gives_back_the_same_memory),
        cmocka_unit_test(limit_is_honoured_and_peak_counted),
        cmocka_unit_test(memory_of_a_source_is_never_touched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
