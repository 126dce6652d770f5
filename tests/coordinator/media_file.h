/* Makes the media files that tests read: any container and codec FFmpeg writes, moving pictures
 * and sound that can be recognised frame by frame. */
#pragma once

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/channel_layout.h>
#include <libavutil/opt.h>
#include <libavutil/samplefmt.h>
#include <libswscale/swscale.h>

#include <math.h>

struct media_file {
    const char *path, *container; /* NULL container: by the name */
    const char *video;            /* encoder; NULL: no picture */
    int width, height, frames;
    AVRational fps, sample_aspect; /* sample_aspect 0/0: square */
    int rotation;                  /* degrees clockwise a player should turn it; 0: none */
    const char *sound;             /* encoder; NULL: no sound */
    int rate, channels;
    double seconds;
};

/* Frame f: a grey level of its own (a step of 8), with a red block in the top left quarter. */
static inline void media_frame(uint8_t *rgb, int width, int height, int f)
{
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            uint8_t *p = rgb + 3 * (y * width + x);
            p[0] = p[1] = p[2] = (uint8_t)(16 + f * 8 % 224);
            if (x < width / 2 && y < height / 2) {
                p[0] = 230;
                p[1] = p[2] = 20;
            }
        }
}

/* Channel c at time t: a tone of (c + 1) · 440 Hz. */
static inline float media_tone(int channel, double t)
{
    return (float)(0.5 * sin(2 * M_PI * 440 * (channel + 1) * t));
}

static inline void media_must(int code, const char *what)
{
    if (code < 0)
        fail_msg("%s: %s", what, av_err2str(code));
}

static inline void media_drain(AVFormatContext *format, AVCodecContext *codec, AVStream *stream,
                               const AVFrame *frame)
{
    AVPacket *packet = av_packet_alloc();
    media_must(avcodec_send_frame(codec, frame), "send a frame");
    while (avcodec_receive_packet(codec, packet) >= 0) {
        if (packet->duration == 0 && codec->codec_type == AVMEDIA_TYPE_VIDEO)
            packet->duration = 1;
        av_packet_rescale_ts(packet, codec->time_base, stream->time_base);
        packet->stream_index = stream->index;
        media_must(av_interleaved_write_frame(format, packet), "write a packet");
    }
    av_packet_free(&packet);
}

static inline AVCodecContext *media_encoder(AVFormatContext *format, const struct media_file *m,
                                            bool video, AVStream **stream_out)
{
    const AVCodec *encoder = avcodec_find_encoder_by_name(video ? m->video : m->sound);
    assert_non_null(encoder);
    AVCodecContext *c = avcodec_alloc_context3(encoder);
    if (video) {
        c->width = m->width;
        c->height = m->height;
        c->time_base = av_inv_q(m->fps);
        c->framerate = m->fps;
        c->sample_aspect_ratio = m->sample_aspect;
        c->pix_fmt = encoder->pix_fmts ? encoder->pix_fmts[0] : AV_PIX_FMT_RGB24;
        if (strcmp(m->video, "gif") == 0)
            c->pix_fmt = AV_PIX_FMT_GRAY8;
        if (strcmp(m->video, "png") == 0 || strcmp(m->video, "apng") == 0)
            c->pix_fmt = AV_PIX_FMT_RGB24;
        if (strcmp(m->video, "mjpeg") == 0)
            c->pix_fmt = AV_PIX_FMT_YUVJ444P;
        if (strcmp(m->video, "ffv1") == 0)
            c->pix_fmt = AV_PIX_FMT_YUV444P;
        if (strcmp(m->video, "libx264") == 0)
            c->pix_fmt = AV_PIX_FMT_YUV444P;
        if (strcmp(m->video, "libwebp") == 0)
            av_opt_set_int(c->priv_data, "lossless", 1, 0);
        c->strict_std_compliance = FF_COMPLIANCE_UNOFFICIAL;
        av_opt_set_int(c->priv_data, "crf", 4, 0);
    } else {
        c->sample_rate = m->rate;
        c->time_base = (AVRational){1, m->rate};
        c->sample_fmt = encoder->sample_fmts[0];
        av_channel_layout_default(&c->ch_layout, m->channels);
        c->bit_rate = 96000 * m->channels;
    }
    if (format->oformat->flags & AVFMT_GLOBALHEADER)
        c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    media_must(avcodec_open2(c, encoder, NULL), encoder->name);
    AVStream *s = *stream_out = avformat_new_stream(format, NULL);
    s->time_base = c->time_base;
    if (video)
        s->avg_frame_rate = m->fps;
    s->sample_aspect_ratio = video ? m->sample_aspect : (AVRational){0, 1};
    media_must(avcodec_parameters_from_context(s->codecpar, c), "take the parameters");
    return c;
}

static inline void media_write_pictures(AVFormatContext *format, AVCodecContext *c, AVStream *s,
                                        const struct media_file *m)
{
    uint8_t *rgb = malloc((size_t)3 * m->width * m->height + 64);
    const int stride = 3 * m->width;
    struct SwsContext *scale =
        sws_getContext(m->width, m->height, AV_PIX_FMT_RGB24, m->width, m->height, c->pix_fmt,
                       SWS_POINT | SWS_ACCURATE_RND, NULL, NULL, NULL);
    AVFrame *frame = av_frame_alloc();
    frame->format = c->pix_fmt;
    frame->width = m->width;
    frame->height = m->height;
    media_must(av_frame_get_buffer(frame, 0), "take a frame");
    for (int f = 0; f < m->frames; f++) {
        media_frame(rgb, m->width, m->height, f);
        media_must(av_frame_make_writable(frame), "write a frame");
        sws_scale(scale, (const uint8_t *const *)&rgb, &stride, 0, m->height, frame->data,
                  frame->linesize);
        frame->pts = f;
        media_drain(format, c, s, frame);
    }
    media_drain(format, c, s, NULL);
    av_frame_free(&frame);
    sws_freeContext(scale);
    free(rgb);
}

static inline void media_put_sample(const AVFrame *frame, int channels, int i, int channel,
                                    float value)
{
    const enum AVSampleFormat format = frame->format;
    const bool planar = av_sample_fmt_is_planar(format);
    uint8_t *plane = frame->extended_data[planar ? channel : 0];
    const int at = planar ? i : i * channels + channel;
    switch (av_get_packed_sample_fmt(format)) {
    case AV_SAMPLE_FMT_S16:
        ((int16_t *)(void *)plane)[at] = (int16_t)lrintf(value * 32767);
        break;
    case AV_SAMPLE_FMT_S32:
        ((int32_t *)(void *)plane)[at] = (int32_t)lrint((double)value * 2147483000.0);
        break;
    default:
        ((float *)(void *)plane)[at] = value;
    }
}

static inline void media_write_sound(AVFormatContext *format, AVCodecContext *c, AVStream *s,
                                     const struct media_file *m)
{
    const int total = (int)lrint(m->seconds * m->rate);
    const int block = c->frame_size > 0 ? c->frame_size : 1024;
    for (int at = 0; at < total; at += block) {
        AVFrame *frame = av_frame_alloc();
        frame->format = c->sample_fmt;
        frame->nb_samples = total - at < block ? total - at : block;
        frame->sample_rate = m->rate;
        av_channel_layout_copy(&frame->ch_layout, &c->ch_layout);
        media_must(av_frame_get_buffer(frame, 0), "take a block");
        for (int i = 0; i < frame->nb_samples; i++)
            for (int k = 0; k < m->channels; k++)
                media_put_sample(frame, m->channels, i, k,
                                 media_tone(k, (double)(at + i) / m->rate));
        frame->pts = at;
        media_drain(format, c, s, frame);
        av_frame_free(&frame);
    }
    media_drain(format, c, s, NULL);
}

static inline void media_file_make(const struct media_file *m)
{
    AVFormatContext *format = NULL;
    AVCodecContext *video = NULL, *sound = NULL;
    AVStream *video_stream = NULL, *sound_stream = NULL;
    media_must(avformat_alloc_output_context2(&format, NULL, m->container, m->path), m->path);
    format->flags |= AVFMT_FLAG_BITEXACT;
    if (strcmp(format->oformat->name, "image2") == 0)
        av_opt_set_int(format->priv_data, "update", 1, 0);
    if (m->video)
        video = media_encoder(format, m, true, &video_stream);
    if (m->sound)
        sound = media_encoder(format, m, false, &sound_stream);
    if (m->rotation) {
        int32_t *matrix = (int32_t *)(void *)av_stream_new_side_data(
            video_stream, AV_PKT_DATA_DISPLAYMATRIX, 9 * sizeof(int32_t));
        const double a = m->rotation * M_PI / 180;
        memset(matrix, 0, 9 * sizeof(int32_t));
        matrix[0] = matrix[4] = (int32_t)lrint(cos(a) * 65536);
        matrix[1] = (int32_t)lrint(sin(a) * 65536);
        matrix[3] = -matrix[1];
        matrix[8] = 1 << 30;
    }
    if (!(format->oformat->flags & AVFMT_NOFILE))
        media_must(avio_open(&format->pb, m->path, AVIO_FLAG_WRITE), m->path);
    media_must(avformat_write_header(format, NULL), m->path);
    if (video)
        media_write_pictures(format, video, video_stream, m);
    if (sound)
        media_write_sound(format, sound, sound_stream, m);
    media_must(av_write_trailer(format), m->path);
    if (!(format->oformat->flags & AVFMT_NOFILE))
        avio_closep(&format->pb);
    avcodec_free_context(&video);
    avcodec_free_context(&sound);
    avformat_free_context(format);
}
