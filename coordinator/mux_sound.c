#include "coordinator/mux_sound.h"

#include "coordinator/media/input.h"

#include <libavutil/channel_layout.h>
#include <libavutil/opt.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 1024, RATE = 48000, CHANNEL_BITS = 96000 };

struct mux_track {
    struct sound *source[MUX_SOUNDS_MAX];
    size_t source_count;
    const char *name; /* of the take, for messages */
    AVFormatContext *format;
    AVCodecContext *codec;
    AVStream *stream;
    AVFrame *frame;
    AVPacket *packet;
    float *mixed, *part; /* [BLOCK, channels] */
    int64_t written;     /* samples a channel */
};

static bool aac_has(const AVCodec *encoder, uint32_t rate)
{
    for (const int *r = encoder->supported_samplerates; r && *r; r++)
        if ((uint32_t)*r == rate)
            return true;
    return false;
}

static lt_status open_sources(struct mux_track *track, const AVCodec *encoder,
                              const struct mux_sound *sound, size_t count,
                              struct sound_format *format_out, struct lt_error *error)
{
    struct sound_format format = {.rate = RATE, .channels = 1};
    for (size_t i = 0; i < count; i++) { /* first what they are, then as the track needs them */
        const struct media_source source = {.path = sound[i].path};
        struct media_info info;
        LT_TRY(media_probe(&source, &info, error));
        if (count == 1 && aac_has(encoder, info.sound_rate))
            format.rate = info.sound_rate;
        if (info.sound_channels > 1)
            format.channels = 2;
    }
    for (size_t i = 0; i < count; i++) {
        const struct media_source source = {.path = sound[i].path};
        LT_TRY(sound_open(&source, &format, &track->source[track->source_count], error));
        track->source_count++;
    }
    *format_out = format;
    return LT_OK;
}

static lt_status open_encoder(struct mux_track *track, const AVCodec *encoder,
                              const struct sound_format *format, struct lt_error *error)
{
    AVCodecContext *const c = track->codec = avcodec_alloc_context3(encoder);
    track->frame = av_frame_alloc();
    track->packet = av_packet_alloc();
    track->mixed = malloc(2 * BLOCK * 2 * sizeof *track->mixed);
    if (!c || !track->frame || !track->packet || !track->mixed)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for a sound track", track->name);
    track->part = track->mixed + 2 * BLOCK;
    c->sample_rate = (int)format->rate;
    c->time_base = (AVRational){1, c->sample_rate};
    c->sample_fmt = AV_SAMPLE_FMT_FLTP;
    c->bit_rate = (int64_t)CHANNEL_BITS * format->channels;
    c->flags |= AV_CODEC_FLAG_BITEXACT | AV_CODEC_FLAG_GLOBAL_HEADER;
    c->thread_count = 1;
    av_channel_layout_default(&c->ch_layout, (int)format->channels);
    int code = avcodec_open2(c, encoder, NULL);
    if (code < 0)
        return input_fail(error, track->name, "open the AAC encoder", code);
    lt_assert(c->frame_size == BLOCK);
    track->stream = avformat_new_stream(track->format, NULL);
    if (!track->stream)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for a stream", track->name);
    track->stream->time_base = c->time_base;
    code = avcodec_parameters_from_context(track->stream->codecpar, c);
    return code < 0 ? input_fail(error, track->name, "describe its sound", code) : LT_OK;
}

/* Reads past what lies before the start of a source. */
static lt_status skip(struct mux_track *track, struct sound *source, double seconds,
                      struct lt_error *error)
{
    int64_t left = (int64_t)llrint(seconds * track->codec->sample_rate);
    size_t got = 1;
    while (left > 0 && got > 0) {
        LT_TRY(sound_read(source, track->part, (size_t)(left < BLOCK ? left : BLOCK), &got, error));
        left -= (int64_t)got;
    }
    return LT_OK;
}

static lt_status open_track(struct mux_track *track, const struct mux_sound *sound, size_t count,
                            struct lt_error *error)
{
    struct sound_format format;
    const AVCodec *const encoder = avcodec_find_encoder_by_name("aac");
    if (!encoder)
        return lt_fail(error, LT_UNSUPPORTED, "%s: this FFmpeg has no AAC encoder", track->name);
    if (count > MUX_SOUNDS_MAX)
        return lt_fail(error, LT_BAD_INPUT, "%s: %zu sounds; expected at most %d", track->name,
                       count, MUX_SOUNDS_MAX);
    LT_TRY(open_sources(track, encoder, sound, count, &format, error));
    LT_TRY(open_encoder(track, encoder, &format, error));
    for (size_t i = 0; i < count; i++)
        LT_TRY(skip(track, track->source[i], sound[i].start_seconds, error));
    return LT_OK;
}

lt_status mux_track_open(AVFormatContext *format, const struct mux_sound *sound, size_t count,
                         struct mux_track **track_out, struct lt_error *error)
{
    struct mux_track *track = calloc(1, sizeof *track);
    if (!track)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory", format->url);
    track->format = format;
    track->name = format->url;
    const lt_status status = open_track(track, sound, count, error);
    if (status != LT_OK)
        mux_track_close(&track);
    else
        *track_out = track;
    return status;
}

/* -- samples ----------------------------------------------------------------------------------- */

/* The sum of the next `count` samples of every source; one that has ended is silent. */
static lt_status mix(struct mux_track *track, size_t count, struct lt_error *error)
{
    const size_t channels = (size_t)track->codec->ch_layout.nb_channels;
    memset(track->mixed, 0, count * channels * sizeof *track->mixed);
    for (size_t i = 0; i < track->source_count; i++) {
        size_t got;
        LT_TRY(sound_read(track->source[i], track->part, count, &got, error));
        for (size_t k = 0; k < got * channels; k++)
            track->mixed[k] += track->part[k];
    }
    return LT_OK;
}

static lt_status encode(struct mux_track *track, const AVFrame *frame, struct lt_error *error)
{
    int code = avcodec_send_frame(track->codec, frame);
    while (code >= 0) {
        code = avcodec_receive_packet(track->codec, track->packet);
        if (code < 0)
            break;
        av_packet_rescale_ts(track->packet, track->codec->time_base, track->stream->time_base);
        track->packet->stream_index = track->stream->index;
        code = av_interleaved_write_frame(track->format, track->packet);
        if (code < 0)
            return input_fail(error, track->name, "write its sound", code);
    }
    return code == AVERROR(EAGAIN) || code == AVERROR_EOF
               ? LT_OK
               : input_fail(error, track->name, "encode its sound", code);
}

static lt_status write_block(struct mux_track *track, int count, struct lt_error *error)
{
    const int channels = track->codec->ch_layout.nb_channels;
    AVFrame *const frame = track->frame;
    LT_TRY(mix(track, (size_t)count, error));
    frame->format = track->codec->sample_fmt;
    frame->nb_samples = count;
    frame->sample_rate = track->codec->sample_rate;
    frame->pts = track->written;
    int code = av_channel_layout_copy(&frame->ch_layout, &track->codec->ch_layout);
    if (code >= 0)
        code = av_frame_get_buffer(frame, 0);
    if (code < 0)
        return input_fail(error, track->name, "take a block of sound", code);
    for (int c = 0; c < channels; c++)
        for (int i = 0; i < count; i++)
            ((float *)(void *)frame->extended_data[c])[i] =
                fminf(fmaxf(track->mixed[i * channels + c], -1), 1);
    const lt_status status = encode(track, frame, error);
    av_frame_unref(frame);
    track->written += count;
    return status;
}

static lt_status write_until(struct mux_track *track, int64_t samples, int least,
                             struct lt_error *error)
{
    while (samples - track->written >= least) {
        const int64_t left = samples - track->written;
        LT_TRY(write_block(track, left < BLOCK ? (int)left : BLOCK, error));
    }
    return LT_OK;
}

lt_status mux_track_write(struct mux_track *track, double seconds, struct lt_error *error)
{
    return write_until(track, (int64_t)(seconds * track->codec->sample_rate), BLOCK, error);
}

lt_status mux_track_finish(struct mux_track *track, double seconds, struct lt_error *error)
{
    LT_TRY(write_until(track, (int64_t)llrint(seconds * track->codec->sample_rate), 1, error));
    return encode(track, NULL, error);
}

void mux_track_close(struct mux_track **track)
{
    struct mux_track *const t = *track;
    if (!t)
        return;
    for (size_t i = 0; i < t->source_count; i++)
        sound_close(&t->source[i]);
    avcodec_free_context(&t->codec);
    av_frame_free(&t->frame);
    av_packet_free(&t->packet);
    free(t->mixed);
    free(t);
    *track = NULL;
}
