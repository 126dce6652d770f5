#include "coordinator/mux.h"

#include "common/file.h"
#include "coordinator/media/input.h"
#include "coordinator/mux_sound.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/opt.h>
#include <libswscale/swscale.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { X264_THREADS = 4 }; /* fixed: the bitstream depends on it */

struct mux {
    enum mux_kind kind;
    char path[PATH_MAX], temporary[PATH_MAX];
    int width, height;
    double fps;
    int64_t count;
    AVFormatContext *format;
    struct mux_track *track; /* NULL: silent */
    AVCodecContext *codec;
    AVStream *stream;
    struct SwsContext *scale;
    AVFrame *frame;
    AVPacket *packet;
};

enum mux_kind mux_kind_of(const char *path)
{
    const size_t length = strlen(path);
    if (length > 4 && strcmp(path + length - 4, ".mp4") == 0)
        return MUX_MP4;
    if (length > 5 && strcmp(path + length - 5, ".exr/") == 0)
        return MUX_EXR;
    return length > 1 && path[length - 1] == '/' ? MUX_PNG : MUX_NONE;
}

static lt_status fail_av(struct lt_error *error, const struct mux *mux, const char *what, int code)
{
    char reason[AV_ERROR_MAX_STRING_SIZE];
    av_strerror(code, reason, sizeof reason);
    return lt_fail(error, code == AVERROR(ENOMEM) ? LT_NO_MEMORY : LT_IO, "%s: cannot %s: %s",
                   mux->path, what, reason);
}

/* -- opening ----------------------------------------------------------------------------------- */

static lt_status check(const struct mux_params *params, struct lt_error *error)
{
    struct stat info;
    if (mux_kind_of(params->path) == MUX_NONE)
        return lt_fail(
            error, LT_USAGE,
            "%s: the output's name should end in .mp4, or in / for a folder of PNG files "
            "(.exr/: OpenEXR)",
            params->path);
    if (params->width < 2 || params->height < 2 || params->width > 16384 ||
        params->height > 16384 || params->width % 2 || params->height % 2)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: frames of %dx%d cannot be written; sizes are even, 2 to 16384",
                       params->path, params->width, params->height);
    if (!(params->fps > 0 && params->fps <= 1000))
        return lt_fail(error, LT_BAD_INPUT, "%s: %g frames a second", params->path, params->fps);
    if (!params->overwrite && stat(params->path, &info) == 0)
        return lt_fail(error, LT_CONFLICT,
                       "%s: it exists already; give --overwrite or another name", params->path);
    return LT_OK;
}

static const struct {
    const char *encoder, *name, *suffix;
    enum AVPixelFormat format;
} kinds[] = {
    [MUX_MP4] = {"libx264", "H.264 (libx264)", "mp4", AV_PIX_FMT_YUV420P},
    [MUX_PNG] = {"png", "PNG", "png", AV_PIX_FMT_RGB24},
    [MUX_EXR] = {"exr", "OpenEXR", "exr", AV_PIX_FMT_GBRPF32},
};

static void set_mp4(AVCodecContext *c, int quality)
{
    c->thread_count = X264_THREADS;
    c->colorspace = AVCOL_SPC_BT709;
    c->color_primaries = AVCOL_PRI_BT709;
    c->color_trc = AVCOL_TRC_BT709;
    c->color_range = AVCOL_RANGE_MPEG;
    c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    av_opt_set_int(c->priv_data, "crf", quality, 0);
    av_opt_set(c->priv_data, "preset", "medium", 0);
}

static lt_status open_codec(struct mux *mux, const struct mux_params *params,
                            struct lt_error *error)
{
    const AVCodec *codec = avcodec_find_encoder_by_name(kinds[mux->kind].encoder);
    if (!codec)
        return lt_fail(error, LT_UNSUPPORTED,
                       "%s: this FFmpeg has no %s encoder; write PNG files instead (a name that "
                       "ends in /)",
                       params->path, kinds[mux->kind].name);
    AVCodecContext *c = mux->codec = avcodec_alloc_context3(codec);
    if (!c)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for an encoder", params->path);
    const AVRational rate = av_d2q(params->fps, 1001000);
    c->width = params->width;
    c->height = params->height;
    c->framerate = rate;
    c->time_base = av_inv_q(rate);
    c->pix_fmt = kinds[mux->kind].format;
    c->flags |= AV_CODEC_FLAG_BITEXACT;
    c->thread_count = 1;
    if (mux->kind == MUX_MP4)
        set_mp4(c, params->quality);
    if (mux->kind == MUX_EXR) {
        av_opt_set(c->priv_data, "format", "half", 0);
        av_opt_set(c->priv_data, "compression", "zip16", 0);
    }
    const int code = avcodec_open2(c, codec, NULL);
    return code < 0 ? fail_av(error, mux, "open the encoder", code) : LT_OK;
}

static lt_status open_file(struct mux *mux, const struct mux_params *params, struct lt_error *error)
{
    int code = avformat_alloc_output_context2(&mux->format, NULL, "mp4", mux->temporary);
    if (code < 0)
        return fail_av(error, mux, "make an mp4 file", code);
    mux->format->flags |= AVFMT_FLAG_BITEXACT;
    mux->stream = avformat_new_stream(mux->format, NULL);
    if (!mux->stream)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for a stream", mux->path);
    mux->stream->time_base = mux->codec->time_base;
    mux->stream->avg_frame_rate = mux->codec->framerate;
    if (params->sound_count > 0)
        LT_TRY(mux_track_open(mux->format, params->sound, params->sound_count, &mux->track, error));
    code = avcodec_parameters_from_context(mux->stream->codecpar, mux->codec);
    if (code >= 0)
        code = avio_open(&mux->format->pb, mux->temporary, AVIO_FLAG_WRITE);
    if (code < 0)
        return fail_av(error, mux, "create it", code);
    AVDictionary *options = NULL;
    av_dict_set(&options, "movflags", "+faststart", 0);
    if (mux->track) /* lengths to the sample; the usual millisecond would cut some */
        av_dict_set_int(&options, "movie_timescale", mux->format->streams[1]->time_base.den, 0);
    code = avformat_write_header(mux->format, &options);
    av_dict_free(&options);
    return code < 0 ? fail_av(error, mux, "write its header", code) : LT_OK;
}

static lt_status open_frame(struct mux *mux, struct lt_error *error)
{
    mux->packet = av_packet_alloc();
    mux->frame = av_frame_alloc();
    if (!mux->packet || !mux->frame)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for a frame", mux->path);
    mux->frame->format = mux->codec->pix_fmt;
    mux->frame->width = mux->width;
    mux->frame->height = mux->height;
    const int code = av_frame_get_buffer(mux->frame, 0);
    if (code < 0)
        return fail_av(error, mux, "take a frame", code);
    if (mux->kind == MUX_EXR)
        return LT_OK;
    mux->scale = sws_getContext(mux->width, mux->height, AV_PIX_FMT_RGB24, mux->width, mux->height,
                                mux->codec->pix_fmt, SWS_BICUBIC | SWS_ACCURATE_RND | SWS_BITEXACT,
                                NULL, NULL, NULL);
    if (!mux->scale)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for colour conversion", mux->path);
    sws_setColorspaceDetails(mux->scale, sws_getCoefficients(SWS_CS_ITU709), 1,
                             sws_getCoefficients(SWS_CS_ITU709), 0, 0, 1 << 16, 1 << 16);
    return LT_OK;
}

lt_status mux_open(const struct mux_params *params, struct mux **mux_out, struct lt_error *error)
{
    LT_TRY(check(params, error));
    media_quiet();
    struct mux *mux = calloc(1, sizeof *mux);
    if (!mux)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory", params->path);
    mux->kind = mux_kind_of(params->path);
    mux->width = params->width;
    mux->height = params->height;
    mux->fps = params->fps;
    size_t length = strlen(params->path);
    while (mux->kind != MUX_MP4 && length > 1 && params->path[length - 1] == '/')
        length--;
    snprintf(mux->path, sizeof mux->path, "%.*s", (int)length, params->path);
    lt_status status = LT_OK;
    if (snprintf(mux->temporary, sizeof mux->temporary, "%.*s.tmp.%ld", (int)length, params->path,
                 (long)getpid()) >= (int)sizeof mux->temporary)
        status = lt_fail(error, LT_BAD_INPUT, "%s: path too long", params->path);
    if (status == LT_OK)
        status = open_codec(mux, params, error);
    if (status == LT_OK)
        status = mux->kind == MUX_MP4 ? open_file(mux, params, error)
                                      : lt_dir_create(mux->temporary, error);
    if (status == LT_OK)
        status = open_frame(mux, error);
    if (status != LT_OK) {
        mux_abort(&mux);
        return status;
    }
    *mux_out = mux;
    return LT_OK;
}

/* -- frames ------------------------------------------------------------------------------------ */

static lt_status store_packet(struct mux *mux, int64_t number, struct lt_error *error)
{
    if (mux->kind != MUX_MP4) {
        char path[PATH_MAX + 32];
        snprintf(path, sizeof path, "%s/frame_%05lld.%s", mux->temporary, (long long)number,
                 kinds[mux->kind].suffix);
        const lt_status status =
            lt_file_write(path, mux->packet->data, (size_t)mux->packet->size, false, error);
        av_packet_unref(mux->packet);
        return status;
    }
    av_packet_rescale_ts(mux->packet, mux->codec->time_base, mux->stream->time_base);
    mux->packet->stream_index = mux->stream->index;
    const int code = av_interleaved_write_frame(mux->format, mux->packet);
    return code < 0 ? fail_av(error, mux, "write a frame", code) : LT_OK;
}

/* Sends a frame (NULL: the end) and stores what the encoder gives back. */
static lt_status encode(struct mux *mux, const AVFrame *frame, struct lt_error *error)
{
    int code = avcodec_send_frame(mux->codec, frame);
    while (code >= 0) {
        code = avcodec_receive_packet(mux->codec, mux->packet);
        if (code >= 0)
            LT_TRY(store_packet(mux, mux->packet->pts, error));
    }
    return code == AVERROR(EAGAIN) || code == AVERROR_EOF
               ? LT_OK
               : fail_av(error, mux, "encode a frame", code);
}

/* sRGB to linear light, planes G, B, R: what OpenEXR files hold. */
static void store_linear(struct mux *mux, const uint8_t *rgb)
{
    static const int plane[3] = {2, 0, 1};
    float linear[256];
    for (int i = 0; i < 256; i++) {
        const double v = i / 255.0;
        linear[i] = (float)(v <= 0.04045 ? v / 12.92 : pow((v + 0.055) / 1.055, 2.4));
    }
    for (int y = 0; y < mux->height; y++)
        for (int c = 0; c < 3; c++) {
            float *const row = (float *)(void *)(mux->frame->data[plane[c]] +
                                                 (ptrdiff_t)y * mux->frame->linesize[plane[c]]);
            for (int x = 0; x < mux->width; x++)
                row[x] = linear[rgb[3 * ((size_t)y * mux->width + x) + c]];
        }
}

lt_status mux_frame(struct mux *mux, const uint8_t *rgb, struct lt_error *error)
{
    const int stride = 3 * mux->width;
    const int code = av_frame_make_writable(mux->frame);
    if (code < 0)
        return fail_av(error, mux, "take a frame", code);
    if (mux->kind == MUX_EXR)
        store_linear(mux, rgb);
    else
        sws_scale(mux->scale, &rgb, &stride, 0, mux->height, mux->frame->data,
                  mux->frame->linesize);
    mux->frame->pts = mux->count++;
    LT_TRY(encode(mux, mux->frame, error));
    return mux->track ? mux_track_write(mux->track, (double)mux->count / mux->fps, error) : LT_OK;
}

/* -- closing ----------------------------------------------------------------------------------- */

static lt_status sync_file(const char *path, struct lt_error *error)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const bool failed = fd < 0 || fsync(fd) != 0;
    if (fd >= 0)
        close(fd);
    return failed ? lt_fail(error, LT_IO, "%s: cannot sync: %s", path, strerror(errno)) : LT_OK;
}

static lt_status finish(struct mux *mux, struct lt_error *error)
{
    LT_TRY(encode(mux, NULL, error));
    if (mux->track)
        LT_TRY(mux_track_finish(mux->track, (double)mux->count / mux->fps, error));
    if (mux->kind == MUX_MP4) {
        int code = av_write_trailer(mux->format);
        if (code >= 0)
            code = avio_closep(&mux->format->pb);
        if (code < 0)
            return fail_av(error, mux, "finish it", code);
        LT_TRY(sync_file(mux->temporary, error));
    } else {
        LT_TRY(lt_dir_sync(mux->temporary, error));
        LT_TRY(lt_dir_remove(mux->path, error)); /* overwrite was allowed */
    }
    if (rename(mux->temporary, mux->path) != 0)
        return lt_fail(error, LT_IO, "%s: cannot give it its name: %s", mux->path, strerror(errno));
    *mux->temporary = 0;
    return LT_OK;
}

lt_status mux_close(struct mux **mux, struct lt_error *error)
{
    const lt_status status = finish(*mux, error);
    mux_abort(mux);
    return status;
}

void mux_abort(struct mux **mux)
{
    struct mux *m = *mux;
    if (!m)
        return;
    mux_track_close(&m->track);
    if (m->format && m->format->pb)
        avio_closep(&m->format->pb);
    avformat_free_context(m->format);
    avcodec_free_context(&m->codec);
    av_frame_free(&m->frame);
    av_packet_free(&m->packet);
    sws_freeContext(m->scale);
    if (*m->temporary)
        lt_dir_remove(m->temporary, NULL); /* a file or a folder */
    free(m);
    *mux = NULL;
}
