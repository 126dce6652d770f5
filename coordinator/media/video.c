/* Pictures: decode, turn upright, make pixels square, and give them at the wanted rate.
 *
 *   input (one file, or each file of a folder) ─▶ decode ─▶ sws: RGB24, square pixels ─▶ turn
 *
 * Two frames are held for the rate: `held`, which is given out (again and again when the wanted
 * rate is higher), and `latest`, the last one decoded. Whether frame k exists at all, and not only
 * its source frame, needs a look ahead, which never reaches beyond the source frame of k + 1. */
#include "coordinator/media/input.h"

#include <libavutil/display.h>
#include <libavutil/imgutils.h>
#include <libswscale/swscale.h>

#include <dirent.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { SCALE = SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_BITEXACT };
static const double fps_max = 1000;

/* The eight ways to turn a picture upright: first mirrored, then rows and columns exchanged. */
struct turn {
    bool transpose, flip_x, flip_y; /* flips as seen in the upright picture */
};

struct video {
    struct input input;
    AVCodecContext *codec;
    AVFrame *decoded, *rgb;
    struct SwsContext *scale;
    char name[256];
    struct media_limits limits;
    struct dirent **entries; /* of a folder; NULL: one file */
    int entry_count, entry_next;
    struct turn turn;
    uint32_t width, height; /* upright */
    double fps_in, fps_out; /* 0, 0: every frame */
    uint8_t *held, *latest; /* [height, width, 3] */
    int64_t held_index, decoded_count, given_count;
    bool source_ended;
};

/* -- shape ------------------------------------------------------------------------------------- */

/* (x, y) goes to (a x + c y, b x + d y); rotations other than by quarters go to the nearest. */
static struct turn turn_of(const int32_t matrix[9])
{
    const int64_t a = matrix[0], b = matrix[1], c = matrix[3], d = matrix[4];
    if (llabs(b) + llabs(c) > llabs(a) + llabs(d))
        return (struct turn){.transpose = true, .flip_x = c < 0, .flip_y = b < 0};
    return (struct turn){.flip_x = a < 0, .flip_y = d < 0};
}

static struct turn frame_turn(const struct video *video)
{
    const AVFrameSideData *data =
        av_frame_get_side_data(video->decoded, AV_FRAME_DATA_DISPLAYMATRIX);
    if (data && data->size >= 9 * sizeof(int32_t))
        return turn_of((const int32_t *)data->data);
    size_t bytes = 0;
    const uint8_t *matrix = av_stream_get_side_data(
        video->input.format->streams[video->input.video], AV_PKT_DATA_DISPLAYMATRIX, &bytes);
    if (matrix && bytes >= 9 * sizeof(int32_t))
        return turn_of((const int32_t *)(const void *)matrix);
    return (struct turn){0};
}

/* Width and height of the stored picture with its pixels made square. Odd ratios are no ratios. */
static lt_status square_size(const struct video *video, int *width_out, int *height_out,
                             struct lt_error *error)
{
    AVRational ratio = av_guess_sample_aspect_ratio(
        video->input.format, video->input.format->streams[video->input.video], video->decoded);
    const double value = ratio.num > 0 && ratio.den > 0 ? av_q2d(ratio) : 1;
    double width = video->decoded->width, height = video->decoded->height;
    if (value > 1 && value <= 8)
        width = rint(width * value);
    else if (value < 1 && value >= 0.125)
        height = rint(height / value);
    if (width < 1 || height < 1 || width > video->limits.side || height > video->limits.side ||
        width * height > (double)video->limits.frame_pixels)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: frames of %gx%g; expected at most %u a side and %llu pixels",
                       video->name, width, height, video->limits.side,
                       (unsigned long long)video->limits.frame_pixels);
    *width_out = (int)width;
    *height_out = (int)height;
    return LT_OK;
}

/* The colour matrix the file names; what names none is BT.601 as for OpenCV and decord. */
static void set_colours(struct video *video)
{
    const AVFrame *f = video->decoded;
    const bool full = f->color_range == AVCOL_RANGE_JPEG || f->format == AV_PIX_FMT_YUVJ420P ||
                      f->format == AV_PIX_FMT_YUVJ422P || f->format == AV_PIX_FMT_YUVJ444P ||
                      f->format == AV_PIX_FMT_YUVJ440P;
    const int space = f->colorspace == AVCOL_SPC_UNSPECIFIED ? SWS_CS_DEFAULT : f->colorspace;
    sws_setColorspaceDetails(video->scale, sws_getCoefficients(space), full,
                             sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, 1 << 16, 1 << 16);
}

/* The decoded frame as RGB of the size of the first one, stored way round. */
static lt_status convert(struct video *video, struct lt_error *error)
{
    const AVFrame *f = video->decoded;
    if (!video->rgb->buf[0]) {
        LT_TRY(square_size(video, &video->rgb->width, &video->rgb->height, error));
        video->rgb->format = AV_PIX_FMT_RGB24;
        const int code = av_frame_get_buffer(video->rgb, 64);
        if (code < 0)
            return input_fail(error, video->name, "take a frame", code);
    }
    video->scale =
        sws_getCachedContext(video->scale, f->width, f->height, f->format, video->rgb->width,
                             video->rgb->height, AV_PIX_FMT_RGB24, SCALE, NULL, NULL, NULL);
    if (!video->scale)
        return lt_fail(error, LT_UNSUPPORTED, "%s: cannot convert frames of %dx%d, format %d",
                       video->name, f->width, f->height, f->format);
    set_colours(video);
    sws_scale(video->scale, (const uint8_t *const *)f->data, f->linesize, 0, f->height,
              video->rgb->data, video->rgb->linesize);
    return LT_OK;
}

static void turn_into(const struct video *video, uint8_t *out)
{
    const int width = (int)video->width, height = (int)video->height;
    const struct turn t = video->turn;
    const uint8_t *from = video->rgb->data[0];
    const ptrdiff_t row = video->rgb->linesize[0];
    const ptrdiff_t step_x = t.transpose ? row : 3, step_y = t.transpose ? 3 : row;
    for (int y = 0; y < height; y++, out += 3 * (size_t)width) {
        const uint8_t *line = from + step_y * (t.flip_y ? height - 1 - y : y);
        if (step_x == 3 && !t.flip_x) {
            memcpy(out, line, 3 * (size_t)width);
            continue;
        }
        for (int x = 0; x < width; x++)
            memcpy(out + 3 * x, line + step_x * (t.flip_x ? width - 1 - x : x), 3);
    }
}

/* -- frames in stored order -------------------------------------------------------------------- */

static void close_input(struct video *video)
{
    avcodec_free_context(&video->codec);
    input_close(&video->input);
}

static lt_status open_input(struct video *video, const struct media_source *source,
                            struct lt_error *error)
{
    LT_TRY(input_open(&video->input, source, error));
    if (video->input.video < 0)
        return lt_fail(error, LT_BAD_INPUT, "%s: expected a picture, found only sound (%s)",
                       video->input.name, video->input.format->iformat->long_name);
    return input_decoder(&video->input, video->input.video, &video->codec, error);
}

static lt_status open_entry(struct video *video, struct lt_error *error)
{
    char path[PATH_MAX];
    const char *name = video->entries[video->entry_next++]->d_name;
    if (snprintf(path, sizeof path, "%s/%s", video->name, name) >= (int)sizeof path)
        return lt_fail(error, LT_BAD_INPUT, "%s/%s: path too long", video->name, name);
    close_input(video);
    const struct media_source source = {.path = path, .limits = &video->limits};
    LT_TRY(open_input(video, &source, error));
    return video->input.is_image ? LT_OK
                                 : lt_fail(error, LT_BAD_INPUT, "%s: expected an image, found %s",
                                           path, video->input.format->iformat->long_name);
}

static lt_status decode_file(struct video *video, bool *end_out, struct lt_error *error)
{
    int code;
    *end_out = false;
    if (video->input.is_image && !video->entries && video->decoded_count > 0) {
        *end_out = true; /* one picture; what follows it in the file is not ours */
        return LT_OK;
    }
    while ((code = avcodec_receive_frame(video->codec, video->decoded)) == AVERROR(EAGAIN))
        LT_TRY(input_feed(&video->input, video->input.video, video->codec, error));
    if (code == AVERROR_EOF) {
        *end_out = true;
        return video->decoded_count > 0 && !video->entries
                   ? LT_OK
                   : lt_fail(error, LT_CORRUPT, "%s: not one frame in it (%s)", video->input.name,
                             video->input.format->iformat->long_name);
    }
    if (code < 0)
        return input_fail(error, video->input.name, "decode it", code);
    if (video->decoded->flags & AV_FRAME_FLAG_CORRUPT || video->decoded->decode_error_flags)
        return lt_fail(error, LT_CORRUPT, "%s: frame %lld is damaged", video->input.name,
                       (long long)video->decoded_count);
    return LT_OK;
}

/* The next frame into `latest`; *end_out true: there is none. */
static lt_status decode_next(struct video *video, bool *end_out, struct lt_error *error)
{
    if (video->entries && video->entry_next == video->entry_count) {
        *end_out = true;
        return LT_OK;
    }
    if (video->entries)
        LT_TRY(open_entry(video, error));
    LT_TRY(decode_file(video, end_out, error));
    if (*end_out)
        return LT_OK;
    if ((uint64_t)video->decoded_count >= video->limits.frame_count)
        return lt_fail(error, LT_BAD_INPUT, "%s: more than %llu frames", video->name,
                       (unsigned long long)video->limits.frame_count);
    if (video->entries && video->rgb->buf[0]) {
        int width, height;
        LT_TRY(square_size(video, &width, &height, error));
        if (width != video->rgb->width || height != video->rgb->height)
            return lt_fail(error, LT_BAD_INPUT, "%s: %dx%d; the images before it are %dx%d",
                           video->input.name, width, height, video->rgb->width, video->rgb->height);
    }
    LT_TRY(convert(video, error));
    if (video->decoded_count++ == 0) {
        video->turn = frame_turn(video);
        const bool swap = video->turn.transpose;
        video->width = (uint32_t)(swap ? video->rgb->height : video->rgb->width);
        video->height = (uint32_t)(swap ? video->rgb->width : video->rgb->height);
        const size_t bytes = (size_t)3 * video->width * video->height;
        video->held = malloc(bytes);
        video->latest = malloc(bytes);
        if (!video->held || !video->latest)
            return lt_fail(error, LT_NO_MEMORY, "%s: no memory for frames of %ux%u", video->name,
                           video->width, video->height);
    }
    turn_into(video, video->latest);
    av_frame_unref(video->decoded);
    return LT_OK;
}

/* -- opening ----------------------------------------------------------------------------------- */

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static lt_status list_folder(struct video *video, struct lt_error *error)
{
    /* frame_2 before frame_10 */
    video->entry_count = scandir(video->name, &video->entries, is_visible, versionsort);
    if (video->entry_count < 0) {
        video->entries = NULL;
        return lt_fail(error, LT_IO, "%s: cannot list the folder", video->name);
    }
    if (video->entry_count == 0)
        return lt_fail(error, LT_BAD_INPUT, "%s: the folder holds no images", video->name);
    if ((uint64_t)video->entry_count > video->limits.frame_count)
        return lt_fail(error, LT_BAD_INPUT, "%s: %d files; expected at most %llu images",
                       video->name, video->entry_count,
                       (unsigned long long)video->limits.frame_count);
    return LT_OK;
}

static lt_status open_source(struct video *video, const struct media_source *source, double fps,
                             struct lt_error *error)
{
    struct stat info;
    bool end;
    if (fps != 0 && !(fps > 0 && fps <= fps_max))
        return lt_fail(error, LT_BAD_INPUT, "%s: %g frames a second wanted; expected up to %g",
                       source->path, fps, fps_max);
    video->limits = source->limits ? *source->limits : media_limits_default;
    if (snprintf(video->name, sizeof video->name, "%s", source->path ? source->path : "(memory)") >=
        (int)sizeof video->name)
        return lt_fail(error, LT_BAD_INPUT, "%s: path too long", source->path);
    video->decoded = av_frame_alloc();
    video->rgb = av_frame_alloc();
    if (!video->decoded || !video->rgb)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory", video->name);
    if (!source->data && stat(source->path, &info) == 0 && S_ISDIR(info.st_mode))
        LT_TRY(list_folder(video, error));
    else
        LT_TRY(open_input(video, source, error));
    LT_TRY(decode_next(video, &end, error)); /* no frame at all is an error there */
    video->fps_in = video->entries ? 0 : input_fps(&video->input);
    if (fps > 0 && video->fps_in > fps_max)
        return lt_fail(error, LT_BAD_INPUT, "%s: %g frames a second; expected up to %g",
                       video->name, video->fps_in, fps_max);
    video->fps_out = video->fps_in > 0 && video->fps_in != fps ? fps : 0;
    video->held_index = -1;
    return LT_OK;
}

lt_status video_open(const struct media_source *source, double fps, struct video **video_out,
                     struct lt_error *error)
{
    media_quiet();
    struct video *video = calloc(1, sizeof *video);
    if (!video)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory", source->path);
    video->input.file = -1;
    const lt_status status = open_source(video, source, fps, error);
    if (status != LT_OK)
        video_close(&video);
    else
        *video_out = video;
    return status;
}

void video_close(struct video **video)
{
    struct video *v = *video;
    if (!v)
        return;
    close_input(v);
    av_frame_free(&v->decoded);
    av_frame_free(&v->rgb);
    sws_freeContext(v->scale);
    for (int i = 0; v->entries && i < v->entry_count; i++)
        free(v->entries[i]);
    free(v->entries);
    free(v->held);
    free(v->latest);
    free(v);
    *video = NULL;
}

/* -- frames at the wanted rate ----------------------------------------------------------------- */

static lt_status decode_until(struct video *video, int64_t count, struct lt_error *error)
{
    while (!video->source_ended && video->decoded_count < count)
        LT_TRY(decode_next(video, &video->source_ended, error));
    return LT_OK;
}

static void hold_latest(struct video *video, int64_t index)
{
    uint8_t *const swap = video->held;
    video->held = video->latest;
    video->latest = swap;
    video->held_index = index;
}

/* Frames that `count` source frames make at the wanted rate; the original's own expression. */
static int64_t frames_out(const struct video *video, int64_t count)
{
    return (int64_t)((double)count / video->fps_in * video->fps_out);
}

static lt_status read_at_rate(struct video *video, bool *end_out, struct lt_error *error)
{
    const double k = (double)video->given_count;
    const int64_t want = (int64_t)rint(k / video->fps_out * video->fps_in);
    LT_TRY(decode_until(video, want + 1, error));
    const int64_t source = want < video->decoded_count ? want : video->decoded_count - 1;
    if (source != video->held_index) { /* it is the latest: the look ahead goes no further */
        lt_assert(source == video->decoded_count - 1);
        memcpy(video->held, video->latest, (size_t)3 * video->width * video->height);
        video->held_index = source;
    }
    while (!video->source_ended && frames_out(video, video->decoded_count) <= video->given_count)
        LT_TRY(decode_until(video, video->decoded_count + 1, error));
    *end_out = frames_out(video, video->decoded_count) <= video->given_count;
    return LT_OK;
}

static lt_status read_each(struct video *video, bool *end_out, struct lt_error *error)
{
    LT_TRY(decode_until(video, video->given_count + 1, error));
    *end_out = video->decoded_count <= video->given_count;
    if (!*end_out)
        hold_latest(video, video->given_count);
    return LT_OK;
}

lt_status video_read(struct video *video, uint8_t *rgb, bool *end_out, struct lt_error *error)
{
    bool end = false;
    LT_TRY(video->fps_out > 0 ? read_at_rate(video, &end, error) : read_each(video, &end, error));
    if (!end) {
        memcpy(rgb, video->held, (size_t)3 * video->width * video->height);
        video->given_count++;
    }
    *end_out = end;
    return LT_OK;
}

uint32_t video_width(const struct video *video)
{
    return video->width;
}

uint32_t video_height(const struct video *video)
{
    return video->height;
}

double video_source_fps(const struct video *video)
{
    return video->fps_in;
}

lt_status image_read(const struct media_source *source, uint8_t **rgb_out, uint32_t *width_out,
                     uint32_t *height_out, struct lt_error *error)
{
    struct video *video;
    bool end = false;
    LT_TRY(video_open(source, 0, &video, error));
    uint8_t *rgb = malloc((size_t)3 * video->width * video->height);
    lt_status status = rgb ? video_read(video, rgb, &end, error)
                           : lt_fail(error, LT_NO_MEMORY, "%s: no memory", video->name);
    lt_assert(status != LT_OK || !end); /* opening has decoded it */
    if (status == LT_OK) {
        *rgb_out = rgb;
        *width_out = video->width;
        *height_out = video->height;
    } else
        free(rgb);
    video_close(&video);
    return status;
}
