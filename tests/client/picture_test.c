/* If key points were drawn a frame late or squeezed, the character would dance beside the music. */
#include "tests/test.h"

#include "client/picture.h"
#include "common/file.h"
#include "coordinator/media/pose.h"

#include <stdlib.h>
#include <unistd.h>

static struct lt_error error;

/* A file of `count` frames of a nose alone, at (10 · (i + 1), 30) of 100 x 60. */
static void write_points(const char *path, int count)
{
    char *const text = malloc(64 + (size_t)count * 399 * 4), *end = text;
    end += sprintf(end, "{\"width\":100,\"height\":60,\"frames\":[");
    for (int i = 0; i < count; i++) {
        end += sprintf(end, "%s[%d,30,1", i ? "," : "", 10 * (i + 1));
        for (int k = 3; k < 3 * POSE_POINTS; k++)
            end += sprintf(end, ",0");
        end += sprintf(end, "]");
    }
    end += sprintf(end, "]}");
    assert_ok(lt_file_write(path, text, (size_t)(end - text), false, &error));
    free(text);
}

static void assert_nose(const uint8_t *rgb, int width, int height, int x, int y)
{
    int drawn = 0;
    for (int i = 0; i < width * height; i++)
        if (rgb[3 * i] > 60) {
            drawn++;
            assert_true(abs(i % width - x) <= 2 && abs(i / width - y) <= 2);
        }
    assert_true(drawn >= 1 && drawn <= 25);
}

static void points_become_frames(void **state)
{
    (void)state;
    char path[] = "/tmp/longtake-test-XXXXXX";
    uint8_t *rgb;
    uint32_t count;
    close(mkstemp(path));
    write_points(path, 5);
    /* the same shape: drawn at the take's size */
    assert_ok(picture_read_poses(path, 100, JOB_FIT_LETTERBOX, 200, 120, &rgb, &count, &error));
    assert_int_equal(count, 5);
    for (int i = 0; i < 5; i++)
        assert_nose(rgb + (size_t)i * 200 * 120 * 3, 200, 120, 20 * (i + 1), 60);
    free(rgb);
    /* another shape: fitted, with bars above and below; no more frames than asked */
    assert_ok(picture_read_poses(path, 2, JOB_FIT_LETTERBOX, 100, 100, &rgb, &count, &error));
    assert_int_equal(count, 2);
    assert_nose(rgb, 100, 100, 10, 50);
    free(rgb);
    assert_ok(lt_file_write(path, "{}", 2, false, &error));
    assert_fails(picture_read_poses(path, 2, JOB_FIT_CROP, 100, 100, &rgb, &count, &error),
                 LT_BAD_INPUT, path);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(points_become_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
