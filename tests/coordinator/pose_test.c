/* If the skeleton were drawn in other colours or strokes than in training, the model would not know
 * an arm when it sees one. */
#include "tests/test.h"

#include "common/safetensors.h"
#include "coordinator/media/draw.h"
#include "coordinator/media/pose.h"

#include <stdlib.h>

static struct lt_error error;

static const float *tensor(struct lt_safetensors *file, const char *what,
                           const struct frame_size *s, int64_t *count_out)
{
    struct lt_view view;
    char name[64];
    snprintf(name, sizeof name, "%s.%ux%u", what, s->width, s->height);
    assert_ok(lt_safetensors_read_f32(file, name, &view, &error));
    *count_out = lt_view_count(&view);
    return view.data;
}

static struct pose pose_from(const float *points)
{
    struct pose pose;
    for (int i = 0; i < POSE_POINTS; i++) {
        pose.x[i] = points[3 * i];
        pose.y[i] = points[3 * i + 1];
        pose.score[i] = points[3 * i + 2];
    }
    return pose;
}

/* Shapes are OpenCV's but for its fixed-point edges, which may go one pixel another way. */
static void skeletons_are_opencvs(void **state)
{
    (void)state;
    static const struct frame_size sizes[] = {{300, 420}, {640, 620}, {1000, 1010}};
    struct lt_safetensors *file;
    assert_ok(
        lt_safetensors_open(LT_SOURCE_DIR "/tests/golden/pose/pose.safetensors", &file, &error));
    for (size_t k = 0; k < LT_COUNT(sizes); k++) {
        const struct frame_size size = sizes[k];
        const size_t pixels = (size_t)size.width * size.height;
        int64_t count, drawn;
        const float *const points = tensor(file, "points", &size, &count);
        const float *const at = tensor(file, "at", &size, &drawn);
        const float *const rgb = tensor(file, "rgb", &size, &count);
        const float *const face = tensor(file, "face", &size, &count);
        const struct pose pose = pose_from(points);
        struct frame_box box;
        assert_true(pose_face_box(&pose, size, &box));
        assert_true(box.x0 == face[0] && box.y0 == face[1] && box.x1 == face[2] &&
                    box.y1 == face[3]);
        uint8_t *const want = calloc(3, pixels), *const got = malloc(3 * pixels);
        for (int64_t i = 0; i < 3 * drawn; i++)
            want[3 * (size_t)at[i / 3] + (size_t)(i % 3)] = (uint8_t)rgb[i];
        pose_draw(&pose, size, size, got);
        int64_t differ = 0;
        for (size_t i = 0; i < pixels; i++)
            differ += memcmp(want + 3 * i, got + 3 * i, 3) != 0;
        if (differ * 1000 > drawn) /* a pixel in a thousand of what is drawn */
            fail_msg("%ux%u: %lld of %lld pixels differ", size.width, size.height,
                     (long long)differ, (long long)drawn);
        free(want);
        free(got);
        free((void *)points);
        free((void *)at);
        free((void *)rgb);
        free((void *)face);
    }
    lt_safetensors_close(&file);
}

static void nothing_leaves_the_canvas(void **state)
{
    (void)state;
    const struct frame_size size = {40, 30};
    uint8_t *const rgb = malloc(40 * 30 * 3); /* its own allocation: ASan sees a pixel beside it */
    struct pose pose;
    for (int turn = 0; turn < 4; turn++) {
        for (int i = 0; i < POSE_POINTS; i++) {
            pose.x[i] = (float)((i % 2 ? 1 : -1) * (turn == 3 ? 1e6 : 50 * turn));
            pose.y[i] = (float)((i % 3 ? 1 : -1) * (turn == 3 ? 1e6 : 40 * turn));
            pose.score[i] = 1;
        }
        pose_draw(&pose, size, size, rgb);
    }
    memset(&pose, 0, sizeof pose); /* nobody there: black */
    pose_draw(&pose, size, size, rgb);
    for (int i = 0; i < 40 * 30 * 3; i++)
        assert_int_equal(rgb[i], 0);
    struct frame_box box;
    assert_false(pose_face_box(&pose, size, &box));
    free(rgb);
}

/* The same pose in half the size: half the picture, as to where things are. */
static void points_are_scaled(void **state)
{
    (void)state;
    const struct frame_size from = {200, 200}, half = {100, 100};
    struct pose pose = {0};
    uint8_t *const rgb = malloc(100 * 100 * 3);
    pose.x[0] = 120;
    pose.y[0] = 60;
    pose.score[0] = 1;
    pose_draw(&pose, from, half, rgb);
    int drawn = 0;
    for (int i = 0; i < 100 * 100; i++)
        if (rgb[3 * i]) {
            drawn++;
            assert_true(abs(i % 100 - 60) <= 1 && abs(i / 100 - 30) <= 1);
            assert_int_equal(rgb[3 * i], 255); /* the nose is the first joint: red */
        }
    assert_int_equal(drawn, 5);
    free(rgb);
}

/* -- files ------------------------------------------------------------------------------------- */

static char *track_text(int numbers, const char *odd)
{
    char *const text = malloc(64 + (size_t)numbers * 8 + strlen(odd)), *end = text;
    end += sprintf(end, "{\"width\": 64, \"height\": 48, \"frames\": [[%s", odd);
    for (int i = *odd ? 1 : 0; i < numbers; i++)
        end += sprintf(end, "%s%d", i ? "," : "", i % 50);
    sprintf(end, "]]}");
    return text;
}

static void tracks_are_read_or_refused(void **state)
{
    (void)state;
    static const struct {
        int numbers;
        const char *odd, *part;
    } wrong[] = {{398, "", "/frames/0: expected 399 numbers, found 398"},
                 {399, "\"7\"", "/frames/0/0: expected a number"},
                 {399, "1e300", "/frames/0/0"},
                 {399, "null", "/frames/0/0"}};
    struct pose_track track;
    char *text = track_text(399, "");
    assert_ok(pose_track_parse(text, strlen(text), "pose.json", &track, &error));
    assert_int_equal(track.count, 1);
    assert_int_equal(track.size.width, 64);
    assert_true(track.pose[0].x[1] == 3 && track.pose[0].y[1] == 4 && track.pose[0].score[1] == 5);
    pose_track_free(&track);
    for (size_t cut = 0; cut < strlen(text); cut += 7)
        assert_fails(pose_track_parse(text, cut, "pose.json", &track, &error), LT_BAD_INPUT,
                     "pose.json: line");
    free(text);
    for (size_t i = 0; i < LT_COUNT(wrong); i++) {
        text = track_text(wrong[i].numbers, wrong[i].odd);
        assert_fails(pose_track_parse(text, strlen(text), "pose.json", &track, &error),
                     LT_BAD_INPUT, wrong[i].part);
        free(text);
    }
    static const char *const bad[][2] = {
        {"{}", "/width"},
        {"{\"width\": 0, \"height\": 4, \"frames\": [[]]}", "/width"},
        {"{\"width\": 4, \"height\": 4}", "/frames"},
        {"{\"width\": 4, \"height\": 4, \"frames\": 7}", "/frames"},
        {"{\"width\": 4, \"width\": 4, \"height\": 4}", "duplicate"},
        {"[]", "/width"},
    };
    for (size_t i = 0; i < LT_COUNT(bad); i++)
        assert_fails(pose_track_parse(bad[i][0], strlen(bad[i][0]), "pose.json", &track, &error),
                     LT_BAD_INPUT, bad[i][1]);
    assert_fails(pose_track_read("/nowhere/pose.json", &track, &error), error.code,
                 "/nowhere/pose.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(skeletons_are_opencvs),
        cmocka_unit_test(nothing_leaves_the_canvas),
        cmocka_unit_test(points_are_scaled),
        cmocka_unit_test(tracks_are_read_or_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
