/* The rotation of queries and keys against numbers of the original network (dit.md 8.2). If it
 * failed, every token would believe it stands elsewhere: pictures dissolve into repeated texture
 * while all norms still look right. */
#include "kernels/exec.h"
#include "kernels/kernels.h"
#include "tests/test.h"

#include <math.h>

enum { WIDTH = 128, TIMES = 4, ROWS = 5, COLUMNS = 6, TOKENS = TIMES * ROWS * COLUMNS };

/* cos, sin of position · 10000^(-2 pair / width), pairs = width / 2 (dit.md 2.6). */
static struct lt_view angles(float *data, int64_t positions, int64_t pairs)
{
    for (int64_t i = 0; i < positions * pairs; i++) {
        const double angle = (double)(i / pairs) * pow(10000, -(double)(i % pairs) / (double)pairs);
        data[2 * i] = (float)cos(angle);
        data[2 * i + 1] = (float)sin(angle);
    }
    return lt_view_3d(data, LT_TYPE_F32, positions, pairs, 2);
}

static void rotate_head(const struct lt_kernels *kernels, float out[WIDTH])
{
    static float in[TOKENS * WIDTH], rotated[TOKENS * WIDTH], weight[WIDTH];
    static float time[TIMES * 22 * 2], row[ROWS * 21 * 2], column[COLUMNS * 21 * 2];
    struct lt_exec *exec = NULL;
    struct lt_error error;
    double square = 0;
    for (int i = 0; i < WIDTH; i++)
        square += (i + 1.0) * (i + 1.0) / WIDTH / WIDTH / WIDTH;
    for (int i = 0; i < TOKENS * WIDTH; i++) {
        in[i] = (float)(i % WIDTH + 1) / WIDTH;
        weight[i % WIDTH] =
            (float)sqrt(square); /* undoes the norm, so that only the rotation is left */
    }
    assert_ok(lt_exec_create(&(struct lt_exec_params){2, LT_PRECISION_F32}, &exec, &error));
    assert_ok(LT_OP(rms_norm, kernels, exec, &error,
                    .out = lt_view_2d(rotated, LT_TYPE_F32, TOKENS, WIDTH),
                    .in = lt_view_2d(in, LT_TYPE_F32, TOKENS, WIDTH),
                    .weight = lt_view_1d(weight, LT_TYPE_F32, WIDTH), .head_width = WIDTH,
                    .time = angles(time, TIMES, 22), .row = angles(row, ROWS, 21),
                    .column = angles(column, COLUMNS, 21)));
    lt_exec_destroy(&exec);
    /* Token (3, 4, 5) is the last of the grid; token 0 is not rotated at all. */
    for (int i = 0; i < WIDTH; i++) {
        out[i] = rotated[(TOKENS - 1) * WIDTH + i];
        assert_float_equal(rotated[i], in[i], 2e-7);
    }
}

static void rotation_is_the_original_networks(void **state)
{
    (void)state;
    static const struct {
        int index;
        double value;
    } golden[] = {{0, -0.009939317}, {1, -0.014366133}, {43, 0.343903143}, {44, 0.042179311},
                  {85, 0.672286727}, {86, 0.852062081}, {127, 1.000768901}};
    struct lt_kernels kernels[2];
    lt_kernels_init(&kernels[0], 0);
    lt_kernels_init(&kernels[1], lt_caps_detect());
    for (int k = 0; k < 2; k++) {
        float out[WIDTH];
        rotate_head(&kernels[k], out);
        for (size_t i = 0; i < LT_COUNT(golden); i++) /* f32: a norm, a weight and two products */
            assert_float_equal(out[golden[i].index], golden[i].value, 5e-7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rotation_is_the_original_networks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
