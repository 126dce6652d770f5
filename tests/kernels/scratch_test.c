/* A memory plan adds up what ops say they will take. If an op took more than it said, a job would
 * be accepted and then fall over the limit it was planned within. */
#include "tests/test.h"

#include "kernels/kernels.h"
#include "kernels/scratch.h"

#include <stdlib.h>

static void *zeros(int64_t count)
{
    void *data = calloc((size_t)count, sizeof(float));
    assert_non_null(data);
    return data;
}

static void run_linear(enum lt_precision precision, int64_t rows, int64_t k, int64_t n)
{
    struct lt_kernels kernels;
    struct lt_exec *exec;
    struct lt_scratch need;
    struct lt_error error;
    void *in = zeros(rows * k), *weight = zeros(n * k), *out = zeros(rows * n);
    lt_kernels_init(&kernels, lt_caps_detect());
    assert_ok(lt_exec_create(&(struct lt_exec_params){2, precision}, &exec, &error));
    assert_ok(LT_OP(linear, &kernels, exec, &error, .out = lt_view_2d(out, LT_TYPE_F32, rows, n),
                    .in = lt_view_2d(in, LT_TYPE_F32, rows, k),
                    .weight = lt_view_2d(weight, LT_TYPE_F32, n, k)));
    assert_ok(lt_scratch_linear(precision, rows, k, n, false, &need, &error));
    const size_t most = lt_scratch_bytes(&need, 2), least = lt_scratch_bytes(&need, 1);
    assert_true(lt_exec_scratch_bytes(exec) <= most);
    assert_true(lt_exec_scratch_bytes(exec) >= least); /* a thread may have had no part */
    lt_exec_destroy(&exec);
    free(in);
    free(weight);
    free(out);
}

static void linear_takes_what_it_says(void **state)
{
    (void)state;
    for (int precision = LT_PRECISION_F32; precision <= LT_PRECISION_BF16; precision++) {
        run_linear((enum lt_precision)precision, 1, 70, 130);
        run_linear((enum lt_precision)precision, 4, 256, 64);
        run_linear((enum lt_precision)precision, 37, 300, 201);
        run_linear((enum lt_precision)precision, 700, 128, 4100);
    }
}

static void run_attention(enum lt_precision precision, int64_t rows, int64_t keys, int64_t heads)
{
    const int64_t width = 128;
    struct lt_kernels kernels;
    struct lt_exec *exec;
    struct lt_scratch need;
    struct lt_error error;
    void *q = zeros(rows * heads * width), *k = zeros(keys * heads * width),
         *v = zeros(keys * heads * width), *out = zeros(rows * heads * width);
    lt_kernels_init(&kernels, lt_caps_detect());
    assert_ok(lt_exec_create(&(struct lt_exec_params){2, precision}, &exec, &error));
    assert_ok(LT_OP(attention, &kernels, exec, &error,
                    .out = lt_view_3d(out, LT_TYPE_F32, rows, heads, width),
                    .q = lt_view_3d(q, LT_TYPE_F32, rows, heads, width),
                    .k = lt_view_3d(k, LT_TYPE_F32, keys, heads, width),
                    .v = lt_view_3d(v, LT_TYPE_F32, keys, heads, width), .scale = 0.1f));
    assert_ok(lt_scratch_attention(precision, keys, heads, width, &need, &error));
    assert_true(lt_exec_scratch_bytes(exec) <= lt_scratch_bytes(&need, 2));
    assert_true(lt_exec_scratch_bytes(exec) >= lt_scratch_bytes(&need, 1));
    lt_exec_destroy(&exec);
    free(q);
    free(k);
    free(v);
    free(out);
}

static void attention_takes_what_it_says(void **state)
{
    (void)state;
    for (int precision = LT_PRECISION_F32; precision <= LT_PRECISION_BF16; precision++) {
        run_attention((enum lt_precision)precision, 1, 1, 1);
        run_attention((enum lt_precision)precision, 130, 257, 3);
        run_attention((enum lt_precision)precision, 300, 600, 2);
    }
}

static void the_most_of_both_serves_both(void **state)
{
    (void)state;
    struct lt_scratch most = {.shared = 100, .thread = 10, .cuda = 7};
    lt_scratch_join(&most, &(struct lt_scratch){.shared = 50, .thread = 65, .cuda = 8});
    assert_int_equal(most.cuda, 8);
    assert_int_equal(most.shared, 100);
    assert_int_equal(most.thread, 65);
    assert_int_equal(lt_scratch_bytes(&most, 3), 128 + 3 * 128); /* whole cache lines */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_takes_what_it_says),
        cmocka_unit_test(attention_takes_what_it_says),
        cmocka_unit_test(the_most_of_both_serves_both),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
