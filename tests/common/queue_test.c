/* If a queue between threads lost or doubled an item, a finished take would never be written, or a
 * task would run twice. */
#include "tests/test.h"

#include "common/queue.h"

#include <pthread.h>
#include <stdlib.h>

static struct lt_error error;

static void order_bounds_and_closing(void **state)
{
    (void)state;
    struct lt_queue *queue;
    assert_ok(lt_queue_create(3, sizeof(int), &queue, &error));
    int item;
    assert_int_equal(lt_queue_pop(queue, &item, 0), LT_TIMEOUT);
    for (int round = 0; round < 5; round++) { /* around the ring */
        for (int i = 0; i < 3; i++)
            assert_int_equal(lt_queue_push(queue, &i, 0), LT_OK);
        item = 9;
        assert_int_equal(lt_queue_push(queue, &item, 0), LT_TIMEOUT);
        assert_int_equal(lt_queue_push(queue, &item, 1), LT_TIMEOUT);
        assert_int_equal(lt_queue_count(queue), 3);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(lt_queue_pop(queue, &item, 0), LT_OK);
            assert_int_equal(item, i);
        }
    }
    item = 7;
    assert_int_equal(lt_queue_push(queue, &item, -1), LT_OK);
    lt_queue_close(queue);
    assert_int_equal(lt_queue_push(queue, &item, -1), LT_CANCELLED);
    item = 0;
    assert_int_equal(lt_queue_pop(queue, &item, -1), LT_OK); /* what was in it comes out */
    assert_int_equal(item, 7);
    assert_int_equal(lt_queue_pop(queue, &item, -1), LT_CANCELLED);
    lt_queue_destroy(&queue);
    assert_fails(lt_queue_create(SIZE_MAX / 2, 4, &queue, &error), LT_NO_MEMORY, "queue");
}

enum { THREADS = 3, ITEMS = 2000 };

static void *push_all(void *context)
{
    for (int i = 0; i < ITEMS; i++)
        lt_assert(lt_queue_push(context, &i, -1) == LT_OK);
    return NULL;
}

struct popper {
    struct lt_queue *queue;
    int seen[ITEMS];
};

static void *pop_all(void *context)
{
    struct popper *popper = context;
    int item;
    while (lt_queue_pop(popper->queue, &item, -1) == LT_OK)
        popper->seen[item]++;
    return NULL;
}

static void every_item_once(void **state)
{
    (void)state;
    struct lt_queue *queue;
    pthread_t pushing[THREADS], popping[THREADS];
    struct popper *popper = calloc(THREADS, sizeof *popper);
    assert_ok(lt_queue_create(5, sizeof(int), &queue, &error));
    for (int i = 0; i < THREADS; i++) {
        popper[i].queue = queue;
        pthread_create(&pushing[i], NULL, push_all, queue);
        pthread_create(&popping[i], NULL, pop_all, &popper[i]);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(pushing[i], NULL);
    lt_queue_close(queue);
    for (int i = 0; i < THREADS; i++)
        pthread_join(popping[i], NULL);
    for (int item = 0; item < ITEMS; item++) {
        int seen = 0;
        for (int i = 0; i < THREADS; i++)
            seen += popper[i].seen[item];
        assert_int_equal(seen, THREADS);
    }
    free(popper);
    lt_queue_destroy(&queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_bounds_and_closing),
        cmocka_unit_test(every_item_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
