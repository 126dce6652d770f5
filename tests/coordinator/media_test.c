/* If a frame were skipped, the pose would leave the picture; if a file could crash the coordinator,
 * one bad upload would stop everybody's jobs. */
#include "tests/test.h"

#include "common/file.h"
#include "common/safetensors.h"
#include "coordinator/media/media.h"
#include "tests/coordinator/media_file.h"

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

/* A path in the test's folder, good until the eighth call after. */
static const char *in_dir(const char *name)
{
    static char path[8][300];
    static int next;
    next = (next + 1) % 8;
    snprintf(path[next], sizeof path[next], "%s/%s", dir, name);
    return path[next];
}

static const char *file_with(const char *name, const void *data, size_t bytes)
{
    const char *path = in_dir(name);
    assert_ok(lt_file_write(path, data, bytes, false, &error));
    return path;
}

enum { WIDTH = 64, HEIGHT = 48 };

/* The number of a frame by the grey of its lower right corner, or -1. */
static int number_of(const uint8_t *rgb, uint32_t width, uint32_t height)
{
    const uint8_t *p = rgb + 3 * ((size_t)width * height - 3 - 3 * width);
    const int number = (int)lrint((p[0] - 16) / 8.0);
    return abs(p[0] - 16 - 8 * number) <= 3 && abs(p[0] - p[2]) <= 6 ? number : -1;
}

/* Reads all frames and returns how many; their numbers in `found`. */
static int read_numbers(const char *path, double fps, int *found, int capacity)
{
    struct video *video;
    bool end = false;
    int count = 0;
    assert_ok(video_open(&(struct media_source){.path = path}, fps, &video, &error));
    uint8_t *rgb = malloc((size_t)3 * video_width(video) * video_height(video));
    for (;;) {
        assert_ok(video_read(video, rgb, &end, &error));
        if (end)
            break;
        assert_true(count < capacity);
        found[count++] = number_of(rgb, video_width(video), video_height(video));
    }
    assert_ok(video_read(video, rgb, &end, &error)); /* the end stays the end */
    assert_true(end);
    free(rgb);
    video_close(&video);
    return count;
}

static const struct media_file videos[] = {
    {.path = "a.mp4", .video = "libx264", .sound = "aac"},
    {.path = "b.mkv", .video = "ffv1", .sound = "flac"},
    {.path = "c.webm", .video = "libvpx-vp9", .sound = "libopus"},
    {.path = "d.gif", .video = "gif"},
    {.path = "e.avi", .video = "mjpeg", .sound = "libmp3lame"},
    {.path = "f.mov", .video = "png", .sound = "pcm_s16le"},
};

static struct media_file video_file(size_t i)
{
    struct media_file m = videos[i];
    m.path = in_dir(m.path);
    m.width = WIDTH;
    m.height = HEIGHT;
    m.frames = 20;
    m.fps = (AVRational){25, 1};
    m.rate = 48000;
    m.channels = 2;
    m.seconds = 0.8;
    return m;
}

static void every_video_gives_every_frame(void **state)
{
    (void)state;
    for (size_t i = 0; i < LT_COUNT(videos); i++) {
        const struct media_file m = video_file(i);
        struct media_info info;
        int found[64];
        media_file_make(&m);
        assert_ok(media_probe(&(struct media_source){.path = m.path}, &info, &error));
        assert_int_equal(info.kind, MEDIA_VIDEO);
        assert_int_equal(info.width, WIDTH);
        assert_int_equal(info.has_sound, m.sound != NULL);
        assert_true(fabs(info.fps - 25) < 0.01);
        assert_int_equal(read_numbers(m.path, 0, found, 64), 20);
        for (int f = 0; f < 20; f++)
            assert_int_equal(found[f], f);
    }
}

static void every_image_is_read(void **state)
{
    (void)state;
    static const struct media_file images[] = {{.path = "a.png", .video = "png"},
                                               {.path = "b.jpg", .video = "mjpeg"},
                                               {.path = "c.bmp", .video = "bmp"},
                                               {.path = "d.webp", .video = "libwebp"}};
    for (size_t i = 0; i < LT_COUNT(images); i++) {
        struct media_file m = images[i];
        struct media_info info;
        uint8_t *rgb;
        uint32_t width, height;
        m.path = in_dir(m.path);
        m.container = "image2";
        m.width = 61; /* odd, and not a multiple of any block */
        m.height = 35;
        m.frames = 1;
        m.fps = (AVRational){25, 1};
        media_file_make(&m);
        assert_ok(media_probe(&(struct media_source){.path = m.path}, &info, &error));
        assert_int_equal(info.kind, MEDIA_IMAGE);
        assert_true(info.fps == 0);
        assert_ok(
            image_read(&(struct media_source){.path = m.path}, &rgb, &width, &height, &error));
        assert_int_equal(width, 61);
        assert_int_equal(height, 35);
        const uint8_t *corner = rgb, *far = rgb + 3 * (61 * 35 - 1);
        assert_true(abs(corner[0] - 230) <= 4 && abs(corner[1] - 20) <= 4);
        assert_true(abs(far[0] - 16) <= 3 && abs(far[2] - 16) <= 3);
        free(rgb);
        /* the same bytes under a wrong name, and out of memory */
        void *data;
        size_t bytes;
        assert_ok(lt_file_read(m.path, 1 << 20, &data, &bytes, &error));
        const char *wrong = file_with("wrong.mp3", data, bytes);
        assert_ok(media_probe(&(struct media_source){.path = wrong}, &info, &error));
        assert_int_equal(info.kind, MEDIA_IMAGE);
        assert_ok(image_read(&(struct media_source){.path = "upload", .data = data, .bytes = bytes},
                             &rgb, &width, &height, &error));
        assert_int_equal(width, 61);
        free(rgb);
        free(data);
    }
}

/* encoders.md 10.1, as numpy computes it: index = round(k / out · in), int(n / in · out) frames. */
static void frames_at_another_rate(void **state)
{
    (void)state;
    static const struct {
        AVRational in;
        double out;
        int frames;
    } cases[] = {{{25, 1}, 30, 20}, {{16, 1}, 30, 7},        {{60, 1}, 30, 21}, {{60, 1}, 30, 3},
                 {{24, 1}, 25, 25}, {{30000, 1001}, 30, 20}, {{30, 1}, 30, 11}, {{50, 1}, 16, 27},
                 {{25, 1}, 16, 1},  {{25, 1}, 1, 26}};
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        struct media_file m = video_file(1);
        int found[64];
        m.sound = NULL;
        m.fps = cases[i].in;
        m.frames = cases[i].frames;
        media_file_make(&m);
        struct video *video;
        assert_ok(video_open(&(struct media_source){.path = m.path}, 0, &video, &error));
        const double in = video_source_fps(video), out = cases[i].out;
        video_close(&video);
        assert_true(fabs(in - av_q2d(cases[i].in)) < 0.01);
        const int count = read_numbers(m.path, out, found, 64);
        assert_int_equal(count, in == out ? m.frames : (int)(m.frames / in * out));
        for (int k = 0; k < count; k++) {
            const int index = (int)rint(k / out * in);
            assert_int_equal(found[k], index < m.frames ? index : m.frames - 1);
        }
    }
}

static void a_folder_in_the_order_of_names(void **state)
{
    (void)state;
    const char *folder = in_dir("frames");
    int found[16];
    assert_ok(lt_dir_create(folder, &error));
    for (int f = 0; f < 12; f++) {
        char path[400];
        struct media_file m = {.video = "png",
                               .container = "image2",
                               .width = WIDTH,
                               .height = HEIGHT,
                               .frames = f + 1,
                               .fps = {25, 1},
                               .path = path};
        snprintf(path, sizeof path, "%s/frame_%d.png", folder, f);
        media_file_make(&m); /* the last of f + 1 frames stays in the file */
    }
    assert_int_equal(read_numbers(folder, 25, found, 16), 12);
    for (int f = 0; f < 12; f++)
        assert_int_equal(found[f], f);
    /* one of another size, then one that is no image */
    struct media_file other = {.video = "png",
                               .container = "image2",
                               .width = 32,
                               .height = 32,
                               .frames = 1,
                               .fps = {25, 1},
                               .path = in_dir("frames/frame_12.png")};
    media_file_make(&other);
    struct video *video;
    bool end;
    uint8_t *rgb = malloc(3 * WIDTH * HEIGHT);
    for (int turn = 0; turn < 2; turn++) {
        assert_ok(video_open(&(struct media_source){.path = folder}, 0, &video, &error));
        for (int f = 0; f < 12; f++)
            assert_ok(video_read(video, rgb, &end, &error));
        assert_fails(video_read(video, rgb, &end, &error), turn ? LT_UNSUPPORTED : LT_BAD_INPUT,
                     "frame_12.png");
        video_close(&video);
        file_with("frames/frame_12.png", "not a picture", 13);
    }
    free(rgb);
    const char *empty = in_dir("empty");
    assert_ok(lt_dir_create(empty, &error));
    assert_fails(video_open(&(struct media_source){.path = empty}, 0, &video, &error), LT_BAD_INPUT,
                 "no images");
}

/* The red block of media_frame is at the top left of what is stored; here is where it must be seen.
 */
static void pictures_are_upright_and_square(void **state)
{
    (void)state;
    static const struct {
        int rotation;
        AVRational aspect;
        uint32_t width, height;
        int red_x, red_y; /* the half it is in */
    } cases[] = {
        {0, {0, 1}, 64, 48, 0, 0},   {90, {0, 1}, 48, 64, 1, 0}, {180, {0, 1}, 64, 48, 1, 1},
        {270, {0, 1}, 48, 64, 0, 1}, {0, {2, 1}, 128, 48, 0, 0}, {0, {1, 2}, 64, 96, 0, 0},
        {90, {2, 1}, 48, 128, 1, 0}, {0, {4, 3}, 85, 48, 0, 0},
    };
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        struct media_file m = video_file(5);
        uint8_t *rgb;
        uint32_t width, height;
        m.path = in_dir("turned.mov");
        m.sound = NULL;
        m.rotation = cases[i].rotation;
        m.sample_aspect = cases[i].aspect;
        m.frames = 1;
        media_file_make(&m);
        assert_ok(
            image_read(&(struct media_source){.path = m.path}, &rgb, &width, &height, &error));
        assert_int_equal(width, cases[i].width);
        assert_int_equal(height, cases[i].height);
        for (int y = 0; y < 2; y++)
            for (int x = 0; x < 2; x++) {
                const uint32_t at_x = width / 4 + (x ? width / 2 : 0);
                const uint32_t at_y = height / 4 + (y ? height / 2 : 0);
                const bool red = rgb[3 * (at_y * width + at_x)] > 200;
                assert_int_equal(red, x == cases[i].red_x && y == cases[i].red_y);
            }
        free(rgb);
    }
}

/* -- sound ------------------------------------------------------------------------------------- */

static void every_sound_is_a_voice(void **state)
{
    (void)state;
    static const struct {
        struct media_file file;
        double tolerance; /* of the loudest sample; lossy codecs have 96 kbit/s a channel */
        int slack;        /* samples at 16 kHz a codec may pad */
    } cases[] = {{{.path = "a.wav", .sound = "pcm_s16le", .rate = 16000}, 1e-4, 0},
                 {{.path = "b.wav", .sound = "pcm_s16le", .rate = 44100}, 2e-3, 1},
                 {{.path = "c.flac", .sound = "flac", .rate = 48000}, 2e-3, 1},
                 {{.path = "d.mp3", .sound = "libmp3lame", .rate = 44100}, 5e-2, 1200},
                 {{.path = "e.m4a", .sound = "aac", .rate = 48000}, 5e-2, 400},
                 {{.path = "f.ogg", .sound = "libvorbis", .rate = 44100}, 5e-2, 1200},
                 {{.path = "g.aac", .sound = "aac", .rate = 48000, .container = "adts"}, 5e-2, 800},
                 {{.path = "h.mp4", .sound = "aac", .rate = 48000, .video = "libx264"}, 5e-2, 400}};
    for (size_t i = 0; i < LT_COUNT(cases); i++)
        for (int channels = 1; channels <= 2; channels++) {
            struct media_file m = cases[i].file;
            float *voice;
            size_t count;
            m.path = in_dir(m.path);
            m.channels = channels;
            m.seconds = 1.5;
            m.width = WIDTH;
            m.height = HEIGHT;
            m.frames = 10;
            m.fps = (AVRational){25, 1};
            media_file_make(&m);
            assert_ok(sound_read_voice(&(struct media_source){.path = m.path}, 0, &voice, &count,
                                       &error));
            if (labs((long)count - 24000) > cases[i].slack)
                fail_msg("%s: %zu samples", m.path, count);
            /* away from the ends, where codecs have their ramps; shift: an adts file keeps its
             * encoder's delay of 1024 samples at 48 kHz */
            const int shift = strcmp(cases[i].file.path, "g.aac") == 0 ? 1024 : 0;
            double worst = 0;
            for (int k = 4000; k < 20000; k++) {
                const double t = k / 16000.0 - shift / 48000.0;
                double expected = 0;
                for (int c = 0; c < channels; c++)
                    expected += (double)media_tone(c, t) / channels;
                worst = fmax(worst, fabs(voice[k] - expected));
            }
            if (worst > cases[i].tolerance)
                fail_msg("%s: %g off", m.path, worst);
            free(voice);
        }
}

/* librosa's resampler to 24 bits: what the audio encoder of the originals is fed. */
static void a_voice_is_librosas(void **state)
{
    (void)state;
    static const int rates[] = {22050, 44100, 48000};
    struct lt_safetensors *goldens;
    assert_ok(lt_safetensors_open(LT_SOURCE_DIR "/tests/golden/media/media.safetensors", &goldens,
                                  &error));
    for (size_t i = 0; i < LT_COUNT(rates); i++) {
        const struct media_file m = {.path = in_dir("voice.wav"),
                                     .sound = "pcm_f32le",
                                     .rate = rates[i],
                                     .channels = 2,
                                     .seconds = 0.2};
        struct lt_view want;
        float *voice;
        size_t count;
        char name[32];
        snprintf(name, sizeof name, "voice.%d", rates[i]);
        assert_ok(lt_safetensors_read_f32(goldens, name, &want, &error));
        media_file_make(&m);
        assert_ok(
            sound_read_voice(&(struct media_source){.path = m.path}, 0, &voice, &count, &error));
        assert_int_equal(count, lt_view_count(&want));
        double worst = 0;
        for (size_t k = 0; k < count; k++)
            worst = fmax(worst, fabs((double)voice[k] - (double)((const float *)want.data)[k]));
        if (worst > 1e-6)
            fail_msg("%s: off by %g", name, worst);
        free(want.data);
        free(voice);
    }
    lt_safetensors_close(&goldens);
}

static void sound_as_it_is(void **state)
{
    (void)state;
    struct media_file m = {.path = in_dir("own.wav"),
                           .sound = "pcm_s16le",
                           .rate = 22050,
                           .channels = 2,
                           .seconds = 0.5};
    struct sound *sound;
    float samples[2 * 700];
    size_t count, total = 0;
    media_file_make(&m);
    assert_ok(sound_open(&(struct media_source){.path = m.path}, &(struct sound_format){0}, &sound,
                         &error));
    assert_int_equal(sound_rate(sound), 22050);
    assert_int_equal(sound_channels(sound), 2);
    do {
        assert_ok(sound_read(sound, samples, 700, &count, &error));
        for (size_t k = 0; k < count; k++)
            for (int c = 0; c < 2; c++)
                assert_true(fabsf(samples[2 * k + c] - media_tone(c, (double)(total + k) / 22050)) <
                            1e-4);
        total += count;
    } while (count);
    assert_int_equal(total, 11025);
    sound_close(&sound);
    float *voice;
    assert_ok(
        sound_read_voice(&(struct media_source){.path = m.path}, 0.25, &voice, &count, &error));
    assert_int_equal(count, 4000);
    free(voice);
}

/* Every short length, to a lower and a higher rate and the same, read in odd pieces: resamplers
 * have their trouble at the ends. */
static void short_sounds_end_well(void **state)
{
    (void)state;
    static const uint32_t rates[] = {8000, 16000, 48000};
    for (int length = 1; length <= 6000; length += length < 40 ? 13 : 593)
        for (size_t i = 0; i < LT_COUNT(rates); i++) {
            const struct media_file m = {.path = in_dir("short.wav"),
                                         .sound = "pcm_s16le",
                                         .rate = 16000,
                                         .channels = 1 + length % 2,
                                         .seconds = length / 16000.0};
            struct sound *sound;
            float samples[2 * 777];
            size_t count, total = 0;
            media_file_make(&m);
            assert_ok(sound_open(&(struct media_source){.path = m.path},
                                 &(struct sound_format){rates[i], 2}, &sound, &error));
            do {
                assert_ok(sound_read(sound, samples, 777, &count, &error));
                total += count;
            } while (count);
            const double expected = (double)length * rates[i] / 16000;
            assert_true(fabs((double)total - expected) <= 1);
            sound_close(&sound);
        }
}

/* Ten channels that stand nowhere: their mean, on one side or on both. */
static void channels_without_a_place(void **state)
{
    (void)state;
    const struct media_file m = {.path = in_dir("ten.wav"),
                                 .sound = "pcm_f32le",
                                 .rate = 16000,
                                 .channels = 10,
                                 .seconds = 0.1};
    media_file_make(&m);
    for (uint32_t channels = 1; channels <= 2; channels++) {
        struct sound *sound;
        float samples[2 * 1600];
        size_t count;
        assert_ok(sound_open(&(struct media_source){.path = m.path},
                             &(struct sound_format){16000, channels}, &sound, &error));
        assert_ok(sound_read(sound, samples, 1600, &count, &error));
        assert_int_equal(count, 1600);
        for (size_t i = 0; i < 1600 * channels; i++) {
            double mean = 0;
            for (int c = 0; c < 10; c++)
                mean += (double)media_tone(c, (double)(i / channels) / 16000) / 10;
            assert_true(fabs((double)samples[i] - mean) < 1e-5);
        }
        sound_close(&sound);
    }
}

/* -- hostile ----------------------------------------------------------------------------------- */

/* Whatever is in it, a file is read or refused; all three ways in are tried. Returns the last
 * refusal. */
static lt_status read_hostile(const char *path, const struct media_limits *limits, int *frames_out)
{
    const struct media_source source = {.path = path, .limits = limits};
    struct video *video;
    float *voice;
    size_t count;
    bool end = false;
    lt_status status = sound_read_voice(&source, 0, &voice, &count, &error);
    if (status == LT_OK)
        free(voice);
    status = video_open(&source, 30, &video, &error);
    if (status == LT_OK) {
        uint8_t *rgb = malloc((size_t)3 * video_width(video) * video_height(video));
        while (status == LT_OK && !end)
            if ((status = video_read(video, rgb, &end, &error)) == LT_OK)
                *frames_out += !end;
        free(rgb);
        video_close(&video);
    }
    return status;
}

static void what_is_no_media_is_named(void **state)
{
    (void)state;
    static const char script[] =
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n"
        "#EXT-X-ENDLIST\n";
    static const char concat[] = "ffconcat version 1.0\nfile /etc/passwd\n";
    static const char text[] = "Dear all,\nplease find the video attached.\n";
    uint8_t noise[4096];
    struct media_info info;
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (uint8_t)(i * i * 31 + i * 7);
    const struct {
        const char *path;
        lt_status status;
        const char *part;
    } cases[] = {
        {in_dir("missing.mp4"), LT_NOT_FOUND, "missing.mp4"},
        {file_with("empty.mp4", "", 0), LT_BAD_INPUT, "empty"},
        {file_with("list.mp4", script, sizeof script - 1), LT_UNSUPPORTED, "HTTP Live Streaming"},
        {file_with("list.mkv", concat, sizeof concat - 1), LT_UNSUPPORTED, "concat"},
        {file_with("text.mp4", text, sizeof text - 1), LT_UNSUPPORTED, "expected an image"},
        {file_with("noise.mp4", noise, sizeof noise), LT_UNSUPPORTED, "noise.mp4"},
    };
    int frames = 0;
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        assert_fails(media_probe(&(struct media_source){.path = cases[i].path}, &info, &error),
                     cases[i].status, cases[i].part);
        assert_int_equal(read_hostile(cases[i].path, NULL, &frames), cases[i].status);
    }
    assert_fails(media_probe(&(struct media_source){.path = dir}, &info, &error), LT_BAD_INPUT,
                 "found a folder");
}

static void what_is_not_in_it_is_named(void **state)
{
    (void)state;
    struct media_file sound_only = {.path = in_dir("only.wav"),
                                    .sound = "pcm_s16le",
                                    .rate = 8000,
                                    .channels = 1,
                                    .seconds = 0.1};
    struct media_file silent = video_file(1);
    struct video *video;
    float *voice;
    size_t count;
    silent.sound = NULL;
    media_file_make(&sound_only);
    media_file_make(&silent);
    assert_fails(video_open(&(struct media_source){.path = sound_only.path}, 0, &video, &error),
                 LT_BAD_INPUT, "only.wav: expected a picture, found only sound (WAV");
    assert_fails(
        sound_read_voice(&(struct media_source){.path = silent.path}, 0, &voice, &count, &error),
        LT_BAD_INPUT, "b.mkv: expected sound, found a picture without any");
    assert_fails(video_open(&(struct media_source){.path = silent.path}, 1e6, &video, &error),
                 LT_BAD_INPUT, "1e+06 frames a second");
}

static void limits_hold(void **state)
{
    (void)state;
    const struct media_file m = video_file(0);
    struct media_limits limits = media_limits_default;
    int frames = 0;
    media_file_make(&m);
    limits.side = 63;
    assert_int_equal(read_hostile(m.path, &limits, &frames), LT_BAD_INPUT);
    assert_non_null(strstr(error.text, "frames of 64x48"));
    limits = media_limits_default;
    limits.frame_pixels = WIDTH * HEIGHT - 1;
    assert_int_equal(read_hostile(m.path, &limits, &frames), LT_BAD_INPUT);
    limits = media_limits_default;
    limits.frame_count = 19;
    assert_int_equal(read_hostile(m.path, &limits, &frames), LT_BAD_INPUT);
    assert_non_null(strstr(error.text, "more than 19 frames"));
    limits = media_limits_default;
    limits.file_bytes = 100;
    assert_int_equal(read_hostile(m.path, &limits, &frames), LT_BAD_INPUT);
    limits = media_limits_default;
    limits.seconds = 0.5;
    float *voice;
    size_t count;
    assert_fails(sound_read_voice(&(struct media_source){.path = m.path, .limits = &limits}, 0,
                                  &voice, &count, &error),
                 LT_BAD_INPUT, "more than 0.5 seconds");
    /* a PNG that says it is 65535 x 65535, and a BMP */
    uint8_t png[] = {0x89, 'P', 'N', 'G', 13,  10,   26,   10,   0,    0, 0,    13,
                     'I',  'H', 'D', 'R', 0,   0,    0xff, 0xff, 0,    0, 0xff, 0xff,
                     8,    2,   0,   0,   0,   0xa9, 0x31, 0x2d, 0xbd, 0, 0,    0,
                     0,    'I', 'D', 'A', 'T', 0x35, 0xaf, 0x06, 0x1e};
    assert_true(read_hostile(file_with("huge.png", png, sizeof png), NULL, &frames) != LT_OK);
}

/* Every container, cut at many places: refused, or nearly whole. A GIF does not tell its length and
 * an AVI without its index is not held to it, so there what is there is all there is. */
static void cut_files_survive(void **state)
{
    (void)state;
    int refused = 0;
    for (size_t i = 0; i < LT_COUNT(videos); i++) {
        struct media_file m = video_file(i);
        void *data;
        size_t bytes;
        m.frames = 60;
        m.fps = (AVRational){30, 1};
        m.seconds = 2;
        media_file_make(&m);
        assert_ok(lt_file_read(m.path, 1 << 24, &data, &bytes, &error));
        for (size_t part = 1; part < 12; part++) {
            const char *cut = file_with("cut.bin", data, bytes * part / 12);
            int frames = 0;
            const lt_status status = read_hostile(cut, NULL, &frames);
            refused += status != LT_OK;
            if (status == LT_OK && i != 3 && i != 4 && frames < 48)
                fail_msg("%s cut to %zu/12: %d of 60 frames pass for all", m.path, part, frames);
            assert_true(status == LT_OK || strstr(error.text, "cut.bin"));
        }
        free(data);
    }
    assert_true(refused >= 44);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_video_gives_every_frame),
        cmocka_unit_test(every_image_is_read),
        cmocka_unit_test(frames_at_another_rate),
        cmocka_unit_test(a_folder_in_the_order_of_names),
        cmocka_unit_test(pictures_are_upright_and_square),
        cmocka_unit_test(every_sound_is_a_voice),
        cmocka_unit_test(a_voice_is_librosas),
        cmocka_unit_test(sound_as_it_is),
        cmocka_unit_test(short_sounds_end_well),
        cmocka_unit_test(channels_without_a_place),
        cmocka_unit_test(what_is_no_media_is_named),
        cmocka_unit_test(what_is_not_in_it_is_named),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(cut_files_survive),
    };
    av_log_set_level(AV_LOG_QUIET);
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
