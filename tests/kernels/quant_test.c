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

/* Against torch 2.13.0 (float8_e4m3fn, float8_e5m2): a wrong exponent bias would double every
 * weight of an 8-bit file. */
static void bytes_convert_as_torch_does(void **state)
{
    (void)state;
    static const float in[] = {0.0009765625f, 0.00146484375f, 0.002f, 17, 18, 19,
                               0.3f,          -0.0151f,       440,    449};
    static const uint8_t e4m3[] = {0, 1, 1, 88, 89, 90, 42, 136, 126, 126};
    static const uint8_t e5m2[] = {20, 22, 24, 76, 76, 77, 53, 164, 95, 95};
    static const struct {
        enum lt_type type;
        uint8_t byte;
        float value;
    } known[] = {
        {LT_TYPE_F8_E4M3, 1, 0x1p-9f},  {LT_TYPE_F8_E4M3, 19, 0.04296875f},
        {LT_TYPE_F8_E4M3, 126, 448},    {LT_TYPE_F8_E4M3, 123, 352},
        {LT_TYPE_F8_E5M2, 1, 0x1p-16f}, {LT_TYPE_F8_E5M2, 19, 0.0008544921875f},
        {LT_TYPE_F8_E5M2, 123, 57344},  {LT_TYPE_F8_E4M3, 136, -0.015625f},
    };
    uint8_t out[LT_COUNT(in)];
    struct lt_error error;
    float value;
    assert_ok(lt_quantize_row(LT_TYPE_F8_E4M3, in, out, LT_COUNT(in), &error));
    assert_memory_equal(out, e4m3, sizeof out);
    assert_ok(lt_quantize_row(LT_TYPE_F8_E5M2, in, out, LT_COUNT(in), &error));
    assert_memory_equal(out, e5m2, sizeof out);
    for (size_t i = 0; i < LT_COUNT(known); i++) {
        lt_dequantize_row(known[i].type, &known[i].byte, &value, 1);
        assert_true(value == known[i].value);
    }
    for (int type = LT_TYPE_F8_E4M3; type <= LT_TYPE_F8_E5M2; type++)
        for (int byte = 0; byte < 256; byte++) {
            lt_dequantize_row((enum lt_type)type, &(uint8_t){(uint8_t)byte}, &value, 1);
            if (!isfinite(value))
                continue;
            assert_ok(lt_quantize_row((enum lt_type)type, &value, out, 1, &error));
            assert_int_equal(out[0], byte);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_dequantise_as_the_gguf_package_does),
        cmocka_unit_test(quantisers_are_close),
        cmocka_unit_test(constant_and_zero_blocks),
        cmocka_unit_test(bytes_convert_as_torch_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
