/* If the take lost or gained a frame, sound and picture would drift apart; if half a file stood
 * under the final name, somebody would send it to a client. */
#include "tests/test.h"

#include "common/digest.h"
#include "common/file.h"
#include "coordinator/media/media.h"
#include "coordinator/mux.h"
#include "tests/coordinator/media_file.h"

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

static lt_status open_mux(const char *path, double fps, bool overwrite, struct mux **mux)
{
    return mux_open(&(struct mux_params){.path = path,
                                         .width = WIDTH,
                                         .height = HEIGHT,
                                         .fps = fps,
                                         .quality = 20,
                                         .overwrite = overwrite},
                    mux, &error);
}

static void write_take(const char *path, int count, double fps)
{
    struct mux *mux;
    assert_ok(open_mux(path, fps, true, &mux));
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
    assert_ok(open_mux(path, 16, false, &mux));
    add_frames(mux, 5);
    mux_abort(&mux);
    snprintf(command, sizeof command, "test -z \"$(ls %s | grep half)\"", dir);
    assert_int_equal(system(command), 0);
}

/* -- sound ------------------------------------------------------------------------------------- */

static const char *tone_file(const char *name, int rate, int channels, double seconds)
{
    static char path[4][300];
    static int next;
    next = (next + 1) % 4;
    snprintf(path[next], sizeof path[next], "%s/%s", dir, name);
    media_file_make(&(struct media_file){.path = path[next],
                                         .sound = "pcm_s16le",
                                         .rate = rate,
                                         .channels = channels,
                                         .seconds = seconds});
    return path[next];
}

static void write_with_sound(const char *path, int count, double fps, const struct mux_sound *sound,
                             size_t sound_count)
{
    struct mux *mux;
    assert_ok(mux_open(&(struct mux_params){.path = path,
                                            .width = WIDTH,
                                            .height = HEIGHT,
                                            .fps = fps,
                                            .quality = 20,
                                            .overwrite = true,
                                            .sound = sound,
                                            .sound_count = sound_count},
                       &mux, &error));
    add_frames(mux, count);
    assert_ok(mux_close(&mux, &error));
}

/* Frames of the picture, and samples of the sound's track as players show them. */
static void count_both(const char *path, int *frames_out, int64_t *samples_out, int *rate_out)
{
    AVFormatContext *format = NULL;
    AVPacket *packet = av_packet_alloc();
    *frames_out = 0;
    assert_int_equal(avformat_open_input(&format, path, NULL, NULL), 0);
    assert_true(avformat_find_stream_info(format, NULL) >= 0);
    assert_int_equal(format->nb_streams, 2);
    const AVStream *sound = format->streams[1];
    assert_int_equal(sound->codecpar->codec_id, AV_CODEC_ID_AAC);
    while (av_read_frame(format, packet) >= 0) {
        *frames_out += packet->stream_index == 0;
        av_packet_unref(packet);
    }
    *rate_out = sound->codecpar->sample_rate;
    *samples_out = av_rescale_q(sound->duration, sound->time_base, (AVRational){1, *rate_out});
    av_packet_free(&packet);
    avformat_close_input(&format);
}

static void the_sound_is_as_long_as_the_picture(void **state)
{
    (void)state;
    static const struct {
        int count;
        double fps;
        int rate, channels;
        double seconds; /* of the source */
        int track_rate;
    } cases[] = {
        {25, 25, 48000, 2, 3, 48000}, {33, 16, 44100, 1, 0.5, 44100},
        {1, 25, 16000, 1, 1, 16000},  {40, 23.976, 48000, 2, 5, 48000},
        {81, 25, 8000, 1, 4, 8000},   {30, 30, 96000, 2, 0.2, 96000},
        {26, 16, 11111, 1, 2, 48000},
    };
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        const struct mux_sound sound = {
            tone_file("tone.wav", cases[i].rate, cases[i].channels, cases[i].seconds), 0};
        char path[300];
        int frames, rate;
        int64_t samples;
        snprintf(path, sizeof path, "%s/sound%zu.mp4", dir, i);
        write_with_sound(path, cases[i].count, cases[i].fps, &sound, 1);
        count_both(path, &frames, &samples, &rate);
        assert_int_equal(frames, cases[i].count);
        assert_int_equal(rate, cases[i].track_rate);
        assert_int_equal(samples, llrint(cases[i].count / cases[i].fps * rate));
    }
}

/* What is heard at time t is what the source has at start + t, then silence; two sources add up. */
static void the_sound_is_in_time(void **state)
{
    (void)state;
    const char *const left = tone_file("left.wav", 48000, 2, 1.0);
    const char *const right = tone_file("right.wav", 16000, 1, 3.0);
    static const double starts[] = {0, 0.25};
    for (int both = 0; both < 2; both++)
        for (int s = 0; s < 2; s++) {
            const struct mux_sound sound[2] = {{left, starts[s]}, {right, 0}};
            char path[300];
            struct sound *heard;
            snprintf(path, sizeof path, "%s/heard.mp4", dir);
            write_with_sound(path, 50, 25, sound, 1 + both);
            assert_ok(sound_open(&(struct media_source){.path = path}, &(struct sound_format){0},
                                 &heard, &error));
            assert_int_equal(sound_rate(heard), 48000);
            float *const samples = malloc(2 * 97000 * sizeof *samples);
            size_t count;
            assert_ok(sound_read(heard, samples, 97000, &count, &error));
            sound_close(&heard);
            assert_true(count >= 96000 && count < 97000);
            double square = 0;
            for (int k = 4800; k < 91200; k++) {
                const double t = k / 48000.0;
                if (fabs(t + starts[s] - 1) < 0.1)
                    continue; /* the end of the first, where AAC rings */
                for (int c = 0; c < 2; c++) {
                    double want = t + starts[s] < 1 ? (double)media_tone(c, t + starts[s]) : 0;
                    want += both ? (double)media_tone(0, t) : 0;
                    want = fmin(fmax(want, -1), 1);
                    square +=
                        ((double)samples[2 * k + c] - want) * ((double)samples[2 * k + c] - want);
                }
            }
            const double off = sqrt(square / (2 * 86400));
            if (off > 0.03) /* 96 kbit/s a channel; a millisecond late would be off by 0.5 */
                fail_msg("off by %g", off);
            free(samples);
        }
}

static struct lt_digest digest_of(const char *path)
{
    void *data;
    size_t bytes;
    assert_ok(lt_file_read(path, 1 << 24, &data, &bytes, &error));
    const struct lt_digest digest = lt_sha256(data, bytes);
    free(data);
    return digest;
}

static void sound_changes_no_picture(void **state)
{
    (void)state;
    const struct mux_sound sound = {tone_file("same.wav", 48000, 2, 0.3), 0};
    char a[300], b[300];
    struct lt_digest first, second;
    snprintf(a, sizeof a, "%s/same-a.mp4", dir);
    snprintf(b, sizeof b, "%s/same-b.mp4", dir);
    write_with_sound(a, 12, 25, &sound, 1);
    write_with_sound(b, 12, 25, &sound, 1);
    first = digest_of(a);
    second = digest_of(b);
    assert_true(lt_digest_equal(&first, &second));
    snprintf(a, sizeof a, "%s/quiet/", dir);
    snprintf(b, sizeof b, "%s/loud/", dir);
    write_take(a, 2, 25);
    write_with_sound(b, 2, 25, &sound, 1);
    strcat(a, "frame_00001.png");
    strcat(b, "frame_00001.png");
    first = digest_of(a);
    second = digest_of(b);
    assert_true(lt_digest_equal(&first, &second));
}

/* Half floats of linear light, read back by FFmpeg's own decoder. */
static void exr_folder(void **state)
{
    (void)state;
    char path[300];
    void *data;
    size_t bytes;
    snprintf(path, sizeof path, "%s/linear.exr/", dir);
    write_take(path, 3, 16);
    strcat(path, "frame_00002.exr");
    assert_ok(lt_file_read(path, 1 << 20, &data, &bytes, &error));
    AVCodecContext *c = avcodec_alloc_context3(avcodec_find_decoder_by_name("exr"));
    AVPacket *packet = av_packet_alloc();
    AVFrame *frame = av_frame_alloc();
    assert_int_equal(av_new_packet(packet, (int)bytes), 0);
    memcpy(packet->data, data, bytes);
    assert_int_equal(avcodec_open2(c, NULL, NULL), 0);
    assert_int_equal(avcodec_send_packet(c, packet), 0);
    assert_int_equal(avcodec_receive_frame(c, frame), 0);
    assert_int_equal(frame->width, WIDTH);
    assert_int_equal(frame->format, AV_PIX_FMT_GBRPF32);
    static const int plane[] = {2, 0, 1};
    for (int i = 0; i < WIDTH * HEIGHT * 3; i++) {
        const int row = i / (3 * WIDTH), x = i / 3 % WIDTH, p = plane[i % 3];
        const double v = (uint8_t)(i * 7 + 2 * 5) / 255.0;
        const double want = v <= 0.04045 ? v / 12.92 : pow((v + 0.055) / 1.055, 2.4);
        const float got =
            ((float *)(void *)(frame->data[p] + (ptrdiff_t)row * frame->linesize[p]))[x];
        assert_true(fabs((double)got - want) <= want / 1024); /* a half has 11 bits */
    }
    free(data);
    av_frame_free(&frame);
    av_packet_free(&packet);
    avcodec_free_context(&c);
}

static void mistakes_are_explained(void **state)
{
    (void)state;
    char path[300];
    struct mux *mux;
    snprintf(path, sizeof path, "%s/there.mp4", dir);
    write_take(path, 1, 16);
    assert_fails(open_mux(path, 16, false, &mux), LT_CONFLICT, "--overwrite");
    assert_fails(open_mux("x.avi", 16, false, &mux), LT_USAGE, ".mp4");
    assert_fails(
        mux_open(&(struct mux_params){.path = "x.mp4", .width = 63, .height = HEIGHT, .fps = 16},
                 &mux, &error),
        LT_BAD_INPUT, "63x48");
    assert_fails(open_mux("/nowhere/x.mp4", 16, false, &mux), LT_IO, "/nowhere/x.mp4");
    const struct mux_sound missing = {"/nowhere/voice.wav", 0}, silent = {path, 0};
    struct mux_params p = {.path = path,
                           .width = WIDTH,
                           .height = HEIGHT,
                           .fps = 16,
                           .overwrite = true,
                           .sound = &missing,
                           .sound_count = 1};
    assert_fails(mux_open(&p, &mux, &error), LT_NOT_FOUND, "/nowhere/voice.wav");
    p.sound = &silent;
    assert_fails(mux_open(&p, &mux, &error), LT_BAD_INPUT, "expected sound");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mp4_has_exactly_the_frames),
        cmocka_unit_test(equal_frames_give_equal_bytes),
        cmocka_unit_test(png_folder),
        cmocka_unit_test(an_aborted_take_leaves_nothing),
        cmocka_unit_test(the_sound_is_as_long_as_the_picture),
        cmocka_unit_test(the_sound_is_in_time),
        cmocka_unit_test(sound_changes_no_picture),
        cmocka_unit_test(exr_folder),
        cmocka_unit_test(mistakes_are_explained),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
