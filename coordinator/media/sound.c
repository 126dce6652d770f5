/* Sound: decode, mix down, resample. */
#include "coordinator/media/input.h"

#include <libavutil/channel_layout.h>
#include <libavutil/opt.h>
#include <libswresample/swresample.h>

#include <stdlib.h>
#include <string.h>

enum { VOICE_RATE = 16000, CHANNELS_MAX = 64, PIECE = 1024, SOXR_HQ_BITS = 20, ROOM_EXTRA = 64 };

struct sound {
    struct input input;
    AVCodecContext *codec;
    SwrContext *resample;
    AVFrame *frame;
    uint32_t rate, channels;
    int source_rate, source_channels, source_format; /* of the first frame, and of every other */
    int64_t decoded_count;                           /* samples at the source's rate */
    int fed;                                         /* of the frame's samples */
    float *ready; /* [ready_room, channels]: resampled, not yet read */
    size_t ready_room, ready_at, ready_count;
    bool decoded_all, drained;
};

/* One row of weights an output channel: the mean of all (librosa), one channel to both sides, or,
 * where the file does not say where its channels stand, their mean on both. Else FFmpeg's downmix
 * of a surround layout. */
static int set_mix(struct sound *sound, const AVChannelLayout *in)
{
    double matrix[2 * CHANNELS_MAX];
    const uint32_t from = (uint32_t)sound->source_channels;
    const bool placed = in->order == AV_CHANNEL_ORDER_NATIVE;
    if (sound->channels == from || (sound->channels == 2 && from != 1 && placed))
        return 0;
    for (uint32_t i = 0; i < sound->channels * from; i++)
        matrix[i] = 1.0 / from;
    return swr_set_matrix(sound->resample, matrix, (int)from);
}

/* A context of its own for each engine: one that failed to open with soxr does not survive a second
 * try. */
static int init_resampler(struct sound *sound, AVChannelLayout *in, enum SwrEngine engine)
{
    AVChannelLayout out = {0};
    av_channel_layout_default(&out, (int)sound->channels);
    swr_free(&sound->resample);
    int code = swr_alloc_set_opts2(&sound->resample, &out, AV_SAMPLE_FMT_FLT, (int)sound->rate, in,
                                   sound->frame->format, sound->frame->sample_rate, 0, NULL);
    if (code < 0)
        return code;
    av_opt_set_int(sound->resample, "resampler", engine, 0);
    if (engine == SWR_ENGINE_SOXR)
        av_opt_set_double(sound->resample, "precision", SOXR_HQ_BITS, 0);
    else
        av_opt_set_int(sound->resample, "filter_size", 64, 0);
    code = set_mix(sound, in);
    return code < 0 ? code : swr_init(sound->resample);
}

static lt_status open_resampler(struct sound *sound, struct lt_error *error)
{
    AVChannelLayout in = {0};
    av_channel_layout_copy(&in, &sound->frame->ch_layout);
    if (in.order == AV_CHANNEL_ORDER_UNSPEC) {
        av_channel_layout_uninit(&in);
        av_channel_layout_default(&in, sound->source_channels);
    }
    int code = init_resampler(sound, &in, SWR_ENGINE_SOXR);
    if (code < 0) /* an FFmpeg without soxr: its own filter, a little longer than usual */
        code = init_resampler(sound, &in, SWR_ENGINE_SWR);
    av_channel_layout_uninit(&in);
    return code < 0 ? input_fail(error, sound->input.name, "prepare a resampler", code) : LT_OK;
}

/* The next frame into sound->frame, or decoded_all. */
static lt_status decode(struct sound *sound, struct lt_error *error)
{
    int code;
    while ((code = avcodec_receive_frame(sound->codec, sound->frame)) == AVERROR(EAGAIN))
        LT_TRY(input_feed(&sound->input, sound->input.sound, sound->codec, error));
    if (code == AVERROR_EOF) {
        sound->decoded_all = true;
        return LT_OK;
    }
    if (code < 0)
        return input_fail(error, sound->input.name, "decode its sound", code);
    if (sound->decoded_count == 0) {
        sound->source_rate = sound->frame->sample_rate;
        sound->source_channels = sound->frame->ch_layout.nb_channels;
        sound->source_format = sound->frame->format;
    } else if (sound->source_rate != sound->frame->sample_rate ||
               sound->source_channels != sound->frame->ch_layout.nb_channels ||
               sound->source_format != sound->frame->format)
        return lt_fail(error, LT_UNSUPPORTED,
                       "%s: its sound goes from %d Hz, %d channels to %d Hz, %d channels",
                       sound->input.name, sound->source_rate, sound->source_channels,
                       sound->frame->sample_rate, sound->frame->ch_layout.nb_channels);
    sound->decoded_count += sound->frame->nb_samples;
    if ((double)sound->decoded_count > sound->input.limits.seconds * sound->source_rate)
        return lt_fail(error, LT_BAD_INPUT, "%s: more than %g seconds of sound", sound->input.name,
                       sound->input.limits.seconds);
    return LT_OK;
}

static lt_status open_source(struct sound *sound, const struct media_source *source,
                             const struct sound_format *format, struct lt_error *error)
{
    LT_TRY(input_open(&sound->input, source, error));
    struct input *input = &sound->input;
    if (input->sound < 0)
        return lt_fail(error, LT_BAD_INPUT, "%s: expected sound, found a picture without any (%s)",
                       input->name, input->format->iformat->long_name);
    LT_TRY(input_decoder(input, input->sound, &sound->codec, error));
    if (!(sound->frame = av_frame_alloc()))
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory", input->name);
    LT_TRY(decode(sound, error));
    if (sound->decoded_all)
        return lt_fail(error, LT_CORRUPT, "%s: not one sample of sound in it", input->name);
    if (sound->source_channels < 1 || sound->source_channels > CHANNELS_MAX ||
        sound->source_rate < SOUND_RATE_MIN)
        return lt_fail(error, LT_BAD_INPUT, "%s: sound of %d Hz on %d channels", input->name,
                       sound->source_rate, sound->source_channels);
    sound->rate = format->rate ? format->rate : (uint32_t)sound->source_rate;
    sound->channels = format->channels ? format->channels : (sound->source_channels > 1 ? 2u : 1u);
    lt_assert(sound->channels <= 2);
    sound->ready_room = (size_t)PIECE * sound->rate / (size_t)sound->source_rate + ROOM_EXTRA;
    sound->ready = malloc(sound->ready_room * sound->channels * sizeof *sound->ready);
    if (!sound->ready)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory", input->name);
    return open_resampler(sound, error);
}

lt_status sound_open(const struct media_source *source, const struct sound_format *format,
                     struct sound **sound_out, struct lt_error *error)
{
    struct sound *sound = calloc(1, sizeof *sound);
    if (!sound)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory", source->path);
    sound->input.file = -1;
    const lt_status status = open_source(sound, source, format, error);
    if (status != LT_OK)
        sound_close(&sound);
    else
        *sound_out = sound;
    return status;
}

void sound_close(struct sound **sound)
{
    struct sound *s = *sound;
    if (!s)
        return;
    swr_free(&s->resample);
    free(s->ready);
    av_frame_free(&s->frame);
    avcodec_free_context(&s->codec);
    input_close(&s->input);
    free(s);
    *sound = NULL;
}

/* The next piece of the decoded frame, as swresample wants it: a pointer a plane. */
static int take_piece(struct sound *sound, const uint8_t *plane[CHANNELS_MAX])
{
    const enum AVSampleFormat format = sound->frame->format;
    const bool planar = av_sample_fmt_is_planar(format);
    const size_t step =
        (size_t)av_get_bytes_per_sample(format) * (planar ? 1 : (size_t)sound->source_channels);
    const int left = sound->frame->nb_samples - sound->fed;
    const int count = left < PIECE ? left : PIECE;
    for (int c = 0; c < (planar ? sound->source_channels : 1); c++)
        plane[c] = sound->frame->extended_data[c] + (size_t)sound->fed * step;
    sound->fed += count;
    return count;
}

/* Resamples a piece into `ready`, which has room for all it can give: swresample then keeps no
 * input back, which it would hand to soxr after the end, where soxr does not survive it. */
static lt_status refill(struct sound *sound, struct lt_error *error)
{
    const uint8_t *plane[CHANNELS_MAX] = {NULL};
    int count = 0;
    if (!sound->decoded_all && sound->fed == sound->frame->nb_samples) {
        LT_TRY(decode(sound, error));
        sound->fed = 0;
    }
    if (!sound->decoded_all)
        count = take_piece(sound, plane);
    uint8_t *out = (uint8_t *)sound->ready;
    const int got = swr_convert(sound->resample, &out, (int)sound->ready_room,
                                sound->decoded_all ? NULL : plane, count);
    if (got < 0)
        return input_fail(error, sound->input.name, "resample its sound", got);
    sound->ready_at = 0;
    sound->ready_count = (size_t)got;
    sound->drained = sound->decoded_all && got == 0;
    return LT_OK;
}

lt_status sound_read(struct sound *sound, float *samples, size_t capacity, size_t *count_out,
                     struct lt_error *error)
{
    const size_t channels = sound->channels;
    size_t count = 0;
    while (count < capacity && !sound->drained) {
        if (sound->ready_count == 0)
            LT_TRY(refill(sound, error));
        const size_t room = capacity - count;
        const size_t take = room < sound->ready_count ? room : sound->ready_count;
        memcpy(samples + count * channels, sound->ready + sound->ready_at * channels,
               take * channels * sizeof *samples);
        sound->ready_at += take;
        sound->ready_count -= take;
        count += take;
    }
    *count_out = count;
    return LT_OK;
}

uint32_t sound_rate(const struct sound *sound)
{
    return sound->rate;
}

uint32_t sound_channels(const struct sound *sound)
{
    return sound->channels;
}

lt_status sound_read_voice(const struct media_source *source, double seconds_max,
                           float **samples_out, size_t *count_out, struct lt_error *error)
{
    struct sound *sound;
    float *samples = NULL;
    size_t count = 0, capacity = 0, got = 1;
    LT_TRY(sound_open(source, &(struct sound_format){VOICE_RATE, 1}, &sound, error));
    const double limit = sound->input.limits.seconds;
    const double seconds = seconds_max > 0 && seconds_max < limit ? seconds_max : limit;
    const size_t count_max = (size_t)(seconds * VOICE_RATE);
    lt_status status = LT_OK;
    while (status == LT_OK && got > 0 && count < count_max) {
        if (count == capacity) {
            capacity = capacity ? 2 * capacity : 64 * PIECE;
            capacity = capacity < count_max ? capacity : count_max;
            float *const grown = realloc(samples, capacity * sizeof *samples);
            if (!grown)
                status = lt_fail(error, LT_NO_MEMORY, "%s: no memory for %zu samples",
                                 sound->input.name, capacity);
            samples = grown ? grown : samples;
        }
        if (status == LT_OK)
            status = sound_read(sound, samples + count, capacity - count, &got, error);
        count += status == LT_OK ? got : 0;
    }
    if (status == LT_OK) {
        *samples_out = samples;
        *count_out = count;
    } else
        free(samples);
    sound_close(&sound);
    return status;
}
