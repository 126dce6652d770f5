/* If the take lost or gained a frame, sound and picture would drift apart; if half a file stood
 * under the final name, somebody would send it to a client. */
#include "tests/test.h"

#include "common/digest.h"
#include "common/file.h"
#include "coordinator/mux.h"

#include <libavformat/avformat.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/longtake-test-XXXXXX";
static struct lt_error error;

static int make_dir(void **state)
{
    (void)state;
    return !mkdtemp(dir);
}

static int remove_dir(void **state)
{
    (void)state;
    return lt_dir_remove(dir, NULL) != LT_OK;
}

enum { WIDTH = 64, HEIGHT = 48 };

static void add_frames(struct mux *mux, int count)
{
    uint8_t rgb[WIDTH * HEIGHT * 3];
    for (int f = 0; f < count; f++) {
        for (int i = 0; i < WIDTH * HEIGHT * 3; i++)
            rgb[i] = (uint8_t)(i * 7 + f * 5);
        assert_ok(mux_frame(mux, rgb, &error));
    }
}

static void write_take(const char *path, int count, double fps)
{
    struct mux *mux;
    assert_ok(mux_open(&(struct mux_params){path, WIDTH, HEIGHT, fps, 20, true}, &mux, &error));
    assert_int_not_equal(access(path, F_OK), 0); /* nothing under the name while it grows */
    add_frames(mux, count);
    assert_ok(mux_close(&mux, &error));
}

static void mp4_has_exactly_the_frames(void **state)
{
    (void)state;
    char path[300];
    for (int count = 1; count <= 33; count += 8) {
        AVFormatContext *format = NULL;
        AVPacket *packet = av_packet_alloc();
        int found = 0;
        snprintf(path, sizeof path, "%s/take%d.mp4", dir, count);
        write_take(path, count, 23.976);
        assert_int_equal(avformat_open_input(&format, path, NULL, NULL), 0);
        assert_true(avformat_find_stream_info(format, NULL) >= 0);
        const AVStream *stream = format->streams[0];
        assert_int_equal(stream->codecpar->width, WIDTH);
        assert_int_equal(stream->codecpar->height, HEIGHT);
        assert_int_equal(stream->codecpar->codec_id, AV_CODEC_ID_H264);
        assert_true(fabs(av_q2d(stream->avg_frame_rate) - 23.976) < 0.01 || count == 1);
        while (av_read_frame(format, packet) >= 0) {
            found++;
            av_packet_unref(packet);
        }
        assert_int_equal(found, count);
        avformat_close_input(&format);
        av_packet_free(&packet);
    }
}

static void equal_frames_give_equal_bytes(void **state)
{
    (void)state;
    struct lt_digest digest[2];
    for (int i = 0; i < 2; i++) {
        char path[300];
        void *data;
        size_t bytes;
        snprintf(path, sizeof path, "%s/equal%d.mp4", dir, i);
        write_take(path, 20, 16);
        assert_ok(lt_file_read(path, 1 << 24, &data, &bytes, &error));
        digest[i] = lt_sha256(data, bytes);
        free(data);
    }
    assert_true(lt_digest_equal(&digest[0], &digest[1]));
}

static void png_folder(void **state)
{
    (void)state;
    char path[300], file[400];
    snprintf(path, sizeof path, "%s/frames/", dir);
    write_take(path, 3, 16);
    for (int i = 0; i < 4; i++) {
        snprintf(file, sizeof file, "%sframe_%05d.png", path, i);
        assert_int_equal(access(file, F_OK) == 0, i < 3);
    }
}

static void an_aborted_take_leaves_nothing(void **state)
{
    (void)state;
    char path[300], command[400];
    struct mux *mux;
    snprintf(path, sizeof path, "%s/half.mp4", dir);
    assert_ok(mux_open(&(struct mux_params){path, WIDTH, HEIGHT, 16, 20, false}, &mux, &error));
    add_frames(mux, 5);
    mux_abort(&mux);
    snprintf(command, sizeof command, "test -z \"$(ls %s | grep half)\"", dir);
    assert_int_equal(system(command), 0);
}

static void mistakes_are_explained(void **state)
{
    (void)state;
    char path[300];
    struct mux *mux;
    snprintf(path, sizeof path, "%s/there.mp4", dir);
    write_take(path, 1, 16);
    assert_fails(mux_open(&(struct mux_params){path, WIDTH, HEIGHT, 16, 20, false}, &mux, &error),
                 LT_CONFLICT, "--overwrite");
    assert_fails(
        mux_open(&(struct mux_params){"x.avi", WIDTH, HEIGHT, 16, 20, false}, &mux, &error),
        LT_USAGE, ".mp4");
    assert_fails(mux_open(&(struct mux_params){"x.mp4", 63, HEIGHT, 16, 20, false}, &mux, &error),
                 LT_BAD_INPUT, "63x48");
    assert_fails(mux_open(&(struct mux_params){"/nowhere/x.mp4", WIDTH, HEIGHT, 16, 20, false},
                          &mux, &error),
                 LT_IO, "/nowhere/x.mp4");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mp4_has_exactly_the_frames),
        cmocka_unit_test(equal_frames_give_equal_bytes),
        cmocka_unit_test(png_folder),
        cmocka_unit_test(an_aborted_take_leaves_nothing),
        cmocka_unit_test(mistakes_are_explained),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
