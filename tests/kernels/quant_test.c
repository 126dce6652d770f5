/* If a block layout were misread, every weight of a model would be noise; if a quantiser were poor,
 * synthetic files would not stand in for real ones. */
#include "tests/test.h"

#include "common/file.h"
#include "common/rng.h"
#include "kernels/quant.h"

#include <math.h>
#include <stdlib.h>

/* tests/golden/quant/README.md */
static void blocks_dequantise_as_the_gguf_package_does(void **state)
{
    (void)state;
    struct lt_error error;
    void *data;
    size_t bytes;
    int types = 0;
    assert_ok(lt_file_read(LT_SOURCE_DIR "/tests/golden/quant/fixture.bin", 1 << 20, &data, &bytes,
                           &error));
    for (uint8_t *at = data; at < (uint8_t *)data + bytes; types++) {
        uint32_t head[2];
        memcpy(head, at, 8);
        const struct lt_type_info *info = lt_type_info((enum lt_type)head[0]);
        assert_non_null(info);
        const size_t count = head[1] * info->block_values;
        float got[1024], want[1024];
        lt_dequantize_row(info->type, at + 8, got, (int64_t)count);
        memcpy(want, at + 8 + head[1] * info->block_bytes, count * sizeof *want);
        for (size_t i = 0; i < count; i++)
            if (fabsf(got[i] - want[i]) >
                1e-6f * fabsf(want[i]) + 1e-9f) /* order of two f32 products */
                fail_msg("%s value %zu: %.9g, package %.9g", info->name, i, got[i], want[i]);
        at += 8 + head[1] * info->block_bytes + count * sizeof *want;
    }
    assert_int_equal(types, 10);
    free(data);
}

/* Relative RMS error on normal values. Bounds are what was measured plus a tenth. */
static void quantisers_are_close(void **state)
{
    (void)state;
    static const struct {
        enum lt_type type;
        double bound;
    } cases[] = {
        {LT_TYPE_F16, 0.0003}, {LT_TYPE_BF16, 0.002}, {LT_TYPE_Q8_0, 0.0062}, {LT_TYPE_Q6_K, 0.019},
        {LT_TYPE_Q5_K, 0.037}, {LT_TYPE_Q5_1, 0.037}, {LT_TYPE_Q5_0, 0.041},  {LT_TYPE_Q4_K, 0.075},
        {LT_TYPE_Q4_1, 0.075}, {LT_TYPE_Q4_0, 0.085}, {LT_TYPE_Q3_K, 0.165},  {LT_TYPE_Q2_K, 0.31},
    };
    enum { COUNT = 256 * 64 };
    float *x = malloc(COUNT * sizeof *x), *y = malloc(COUNT * sizeof *y);
    void *block = malloc(COUNT * 4);
    const struct lt_philox stream = lt_philox_stream(5, LT_STREAM_TEST, 0, 0);
    lt_philox_normal(&stream, 0, x, COUNT);
    for (size_t c = 0; c < LT_COUNT(cases); c++) {
        struct lt_error error;
        double difference = 0, square = 0;
        assert_ok(lt_quantize_row(cases[c].type, x, block, COUNT, &error));
        lt_dequantize_row(cases[c].type, block, y, COUNT);
        for (int i = 0; i < COUNT; i++) {
            difference += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
            square += (double)x[i] * x[i];
        }
        const double relative = sqrt(difference / square);
        printf("    %-5s relative RMS error %.5f\n", lt_type_info(cases[c].type)->name, relative);
        assert_true(relative <= cases[c].bound);
    }
    free(x);
    free(y);
    free(block);
}

static void constant_and_zero_blocks(void **state)
{
    (void)state;
    static const enum lt_type types[] = {LT_TYPE_Q4_0, LT_TYPE_Q4_1, LT_TYPE_Q5_0, LT_TYPE_Q5_1,
                                         LT_TYPE_Q8_0, LT_TYPE_Q2_K, LT_TYPE_Q3_K, LT_TYPE_Q4_K,
                                         LT_TYPE_Q5_K, LT_TYPE_Q6_K};
    for (size_t t = 0; t < LT_COUNT(types); t++)
        for (int sign = -1; sign <= 1; sign++) {
            struct lt_error error;
            float x[256], y[256];
            uint8_t block[512];
            for (int i = 0; i < 256; i++)
                x[i] = 0.75f * (float)sign;
            assert_ok(lt_quantize_row(types[t], x, block, 256, &error));
            lt_dequantize_row(types[t], block, y, 256);
            for (int i = 0; i < 256; i++)
                assert_true(fabsf(y[i] - x[i]) <= 0.02f);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_dequantise_as_the_gguf_package_does),
        cmocka_unit_test(quantisers_are_close),
        cmocka_unit_test(constant_and_zero_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
