/* If a shape took a variant that does not serve it, a device would round where it must not, or run
 * the longest op without tensor cores. */
#include "tests/test.h"

#include "kernels/cuda/pick.h"

#include "common/status.h"

static void attention(void **state)
{
    static const struct {
        const char *what;
        bool bf16;
        int64_t queries, width;
        bool relative;
        enum attention_variant want;
    } rows[] = {
        {"self-attention", true, 32760, 128, false, ATTENTION_MMA_128},
        {"just over a small block", true, 65, 128, false, ATTENTION_MMA_128},
        {"a small block", true, 64, 128, false, ATTENTION_MMA_64},
        {"one query", true, 1, 128, false, ATTENTION_MMA_64},
        {"f32, or exact", false, 32760, 128, false, ATTENTION_ROWS},
        {"the text encoder's bias", true, 512, 128, true, ATTENTION_ROWS},
        {"heads of 64", true, 512, 64, false, ATTENTION_ROWS},
        {"heads of 80", true, 257, 80, false, ATTENTION_ROWS},
    };
    (void)state;
    for (size_t i = 0; i < LT_COUNT(rows); i++)
        if (attention_pick(rows[i].bf16, rows[i].queries, rows[i].width, rows[i].relative) !=
            rows[i].want)
            fail_msg("%s", rows[i].what);
}

static void rms_norm(void **state)
{
    (void)state;
    assert_int_equal(rms_norm_pick(5120), RMS_NORM_ROW_PAIRS);
    assert_int_equal(rms_norm_pick(1535), RMS_NORM_ROW);
    assert_int_equal(rms_norm_pick(514), RMS_NORM_ROW_PAIRS);
    assert_int_equal(rms_norm_pick(512), RMS_NORM_HEAD_PAIRS);
    assert_int_equal(rms_norm_pick(128), RMS_NORM_HEAD_PAIRS);
    assert_int_equal(rms_norm_pick(1), RMS_NORM_HEAD);
}

static void conv(void **state)
{
    (void)state;
    assert_int_equal(conv_pick(true, false), CONV_MMA);
    assert_int_equal(conv_pick(true, true), CONV_F32);
    assert_int_equal(conv_pick(false, false), CONV_F32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(attention), cmocka_unit_test(rms_norm),
                                       cmocka_unit_test(conv)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
