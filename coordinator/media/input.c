#include "coordinator/media/input.h"

#include <libavutil/avstring.h>

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { IO_BYTES = 1 << 16, PROBE_BYTES = 1 << 20, STREAMS_MAX = 64, SOUND_CHANNELS_MAX = 64 };

/* What people hand in. Whatever else FFmpeg reads (playlists, scripts, subtitles, devices) stays
 * shut: several of those open other files by design. */
static const char formats[] =
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,apng,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,"
    "wav,w64,mp3,flac,aac,ogg";
static const char codecs[] =
    "h264,hevc,vp8,vp9,libdav1d,libaom-av1,av1,mpeg4,mpeg1video,mpeg2video,ffv1,huffyuv,ffvhuff,"
    "utvideo,prores,dnxhd,qtrle,rawvideo,png,apng,mjpeg,webp,bmp,gif,"
    "aac,mp3,mp3float,mp2,mp2float,flac,alac,vorbis,opus,libopus,ac3,eac3,"
    "pcm_u8,pcm_s8,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,pcm_f32be,"
    "pcm_f64le,pcm_f64be,pcm_mulaw,pcm_alaw,adpcm_ms,adpcm_ima_wav";

const struct media_limits media_limits_default = {
    .file_bytes = 64ull << 30,
    .side = 16384,
    .frame_pixels = 40u << 20,
    .frame_count = 1u << 20,
    .seconds = 12 * 3600,
};

static void be_quiet(void)
{
    av_log_set_level(AV_LOG_QUIET);
}

void media_quiet(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, be_quiet);
}

lt_status input_fail(struct lt_error *error, const char *name, const char *what, int code)
{
    char reason[AV_ERROR_MAX_STRING_SIZE];
    av_strerror(code, reason, sizeof reason);
    const lt_status status = code == AVERROR(ENOMEM)                           ? LT_NO_MEMORY
                             : code == AVERROR(EIO) || code == AVERROR(EACCES) ? LT_IO
                                                                               : LT_CORRUPT;
    return lt_fail(error, status, "%s: cannot %s: %s", name, what, reason);
}

/* -- bytes ------------------------------------------------------------------------------------- */

static int read_some(void *context, uint8_t *buffer, int size)
{
    struct input *input = context;
    const uint64_t left = input->bytes - input->position;
    const size_t want = left < (uint64_t)size ? (size_t)left : (size_t)size;
    ssize_t got = (ssize_t)want;
    if (want == 0)
        return AVERROR_EOF;
    if (input->data)
        memcpy(buffer, input->data + input->position, want);
    else
        do
            got = pread(input->file, buffer, want, (off_t)input->position);
        while (got < 0 && errno == EINTR);
    if (got <= 0)
        return got < 0 ? AVERROR(errno) : AVERROR_EOF; /* cut while it was read */
    input->position += (uint64_t)got;
    return (int)got;
}

static int64_t seek_to(void *context, int64_t offset, int whence)
{
    struct input *input = context;
    const int64_t bytes = (int64_t)input->bytes;
    if (whence & AVSEEK_SIZE)
        return bytes;
    whence &= ~AVSEEK_FORCE;
    const int64_t base = whence == SEEK_CUR   ? (int64_t)input->position
                         : whence == SEEK_END ? bytes
                                              : 0;
    if (offset < -base || offset > bytes - base)
        return AVERROR(EINVAL);
    input->position = (uint64_t)(base + offset);
    return base + offset;
}

/* A file that asks for another file (external tracks, playlists) does not get it. */
static int open_nothing(AVFormatContext *format, AVIOContext **io, const char *url, int flags,
                        AVDictionary **options)
{
    (void)format, (void)io, (void)url, (void)flags, (void)options;
    return AVERROR(EACCES);
}

static lt_status open_bytes(struct input *input, const struct media_source *source,
                            struct lt_error *error)
{
    struct stat info;
    input->data = source->data;
    input->bytes = source->bytes;
    if (!source->data) {
        input->file = open(source->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* no wait on a pipe */
        if (input->file < 0)
            return lt_fail(error, errno == ENOENT ? LT_NOT_FOUND : LT_IO, "%s: cannot open: %s",
                           input->name, strerror(errno));
        if (fstat(input->file, &info) != 0)
            return lt_fail(error, LT_IO, "%s: %s", input->name, strerror(errno));
        if (!S_ISREG(info.st_mode))
            return lt_fail(error, LT_BAD_INPUT, "%s: expected a file, found %s", input->name,
                           S_ISDIR(info.st_mode) ? "a folder" : "something else");
        input->bytes = (uint64_t)info.st_size;
    }
    if (input->bytes == 0)
        return lt_fail(error, LT_BAD_INPUT, "%s: the file is empty", input->name);
    if (input->bytes > input->limits.file_bytes)
        return lt_fail(error, LT_BAD_INPUT, "%s: %llu bytes; expected at most %llu", input->name,
                       (unsigned long long)input->bytes,
                       (unsigned long long)input->limits.file_bytes);
    uint8_t *buffer = av_malloc(IO_BYTES);
    input->io =
        buffer ? avio_alloc_context(buffer, IO_BYTES, 0, input, read_some, NULL, seek_to) : NULL;
    if (!input->io) {
        av_free(buffer);
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory", input->name);
    }
    return LT_OK;
}

/* -- format ------------------------------------------------------------------------------------ */

static lt_status open_format(struct input *input, struct lt_error *error)
{
    const AVInputFormat *found = NULL;
    int code = av_probe_input_buffer2(input->io, &found, "", NULL, 0, PROBE_BYTES);
    if (code < 0 || !found)
        return lt_fail(error, LT_UNSUPPORTED,
                       "%s: expected an image, a video or sound; %llu bytes of no kind we know",
                       input->name, (unsigned long long)input->bytes);
    if (av_match_list(found->name, formats, ',') <= 0)
        return lt_fail(error, LT_UNSUPPORTED,
                       "%s: expected an image, a video or sound of a common kind; found %s",
                       input->name, found->long_name ? found->long_name : found->name);
    input->format = avformat_alloc_context();
    if (!input->format)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory", input->name);
    input->format->pb = input->io;
    input->format->io_open = open_nothing;
    input->format->max_streams = STREAMS_MAX;
    input->format->probesize = PROBE_BYTES;
    input->format->flags |= AVFMT_FLAG_CUSTOM_IO;
    input->format->format_whitelist = av_strdup(formats);
    input->format->codec_whitelist = av_strdup(codecs);
    code = avformat_open_input(&input->format, NULL, found, NULL);
    if (code < 0) /* it has freed the context */
        return input_fail(error, input->name, "read it", code);
    const size_t length = strlen(found->name);
    input->is_image = length > 5 && strcmp(found->name + length - 5, "_pipe") == 0;
    return LT_OK;
}

static lt_status check_streams(struct input *input, struct lt_error *error)
{
    const struct media_limits *limits = &input->limits;
    for (unsigned i = 0; i < input->format->nb_streams; i++) {
        const AVStream *stream = input->format->streams[i];
        const AVCodecParameters *p = stream->codecpar;
        if (p->codec_type == AVMEDIA_TYPE_AUDIO && input->sound < 0)
            input->sound = (int)i;
        if (p->codec_type != AVMEDIA_TYPE_VIDEO ||
            stream->disposition & (AV_DISPOSITION_ATTACHED_PIC | AV_DISPOSITION_STILL_IMAGE))
            continue; /* a record's cover is no video */
        if (input->video < 0)
            input->video = (int)i;
        if (p->width < 0 || p->height < 0 || (uint32_t)p->width > limits->side ||
            (uint32_t)p->height > limits->side ||
            (uint64_t)p->width * (uint64_t)p->height > limits->frame_pixels)
            return lt_fail(error, LT_BAD_INPUT,
                           "%s: frames of %dx%d; expected at most %u a side and %llu pixels",
                           input->name, p->width, p->height, limits->side,
                           (unsigned long long)limits->frame_pixels);
    }
    return LT_OK;
}

static lt_status find_streams(struct input *input, struct lt_error *error)
{
    char pixels[32];
    AVDictionary *options[STREAMS_MAX] = {NULL};
    const unsigned count = input->format->nb_streams;
    input->video = input->sound = -1;
    LT_TRY(check_streams(input, error)); /* before any decoder takes memory for a frame */
    snprintf(pixels, sizeof pixels, "%llu", (unsigned long long)input->limits.frame_pixels);
    for (unsigned i = 0; i < count && i < STREAMS_MAX; i++)
        av_dict_set(&options[i], "max_pixels", pixels, 0);
    const int code = avformat_find_stream_info(input->format, count ? options : NULL);
    for (unsigned i = 0; i < count && i < STREAMS_MAX; i++)
        av_dict_free(&options[i]);
    if (code < 0)
        return input_fail(error, input->name, "make out its streams", code);
    input->video = input->sound = -1;
    LT_TRY(check_streams(input, error));
    if (input->video < 0 && input->sound < 0)
        return lt_fail(error, LT_BAD_INPUT, "%s: %s with neither a picture nor sound in it",
                       input->name, input->format->iformat->long_name);
    return LT_OK;
}

lt_status input_open(struct input *input, const struct media_source *source, struct lt_error *error)
{
    const char *path = source->path ? source->path : "(memory)";
    const size_t length = strlen(path);
    *input = (struct input){.file = -1, .video = -1, .sound = -1};
    input->limits = source->limits ? *source->limits : media_limits_default;
    snprintf(input->name, sizeof input->name, "%s",
             length < sizeof input->name ? path : path + length - sizeof input->name + 1);
    media_quiet();
    lt_status status = open_bytes(input, source, error);
    if (status == LT_OK)
        status = open_format(input, error);
    if (status == LT_OK)
        status = find_streams(input, error);
    if (status == LT_OK && !(input->packet = av_packet_alloc()))
        status = lt_fail(error, LT_NO_MEMORY, "%s: no memory", input->name);
    if (status != LT_OK)
        input_close(input);
    return status;
}

void input_close(struct input *input)
{
    avformat_close_input(&input->format);
    if (input->io)
        av_freep(&input->io->buffer);
    avio_context_free(&input->io);
    av_packet_free(&input->packet);
    if (input->file > 0)
        close(input->file);
    input->file = -1;
}

/* -- streams ----------------------------------------------------------------------------------- */

double input_fps(const struct input *input)
{
    if (input->video < 0 || input->is_image)
        return 0;
    const AVStream *stream = input->format->streams[input->video];
    double fps = av_q2d(stream->avg_frame_rate); /* 0/0 is NaN */
    if (!(fps > 0 && isfinite(fps)))
        fps = av_q2d(stream->r_frame_rate);
    return fps > 0 && isfinite(fps) ? fps : 0;
}

void input_info(const struct input *input, struct media_info *info_out)
{
    struct media_info info = {.has_sound = input->sound >= 0};
    const AVFormatContext *format = input->format;
    snprintf(info.format, sizeof info.format, "%.*s", (int)strcspn(format->iformat->name, ","),
             format->iformat->name);
    const AVStream *main = format->streams[input->video >= 0 ? input->video : input->sound];
    snprintf(info.codec, sizeof info.codec, "%s", avcodec_get_name(main->codecpar->codec_id));
    info.kind = input->video < 0 ? MEDIA_SOUND : input->is_image ? MEDIA_IMAGE : MEDIA_VIDEO;
    if (format->duration > 0 && !input->is_image)
        info.seconds = (double)format->duration / AV_TIME_BASE;
    if (input->video >= 0) {
        info.width = (uint32_t)main->codecpar->width;
        info.height = (uint32_t)main->codecpar->height;
        info.fps = input_fps(input);
        info.frame_count = input->is_image ? 1 : main->nb_frames > 0 ? main->nb_frames : 0;
    }
    if (input->sound >= 0) {
        const AVCodecParameters *p = format->streams[input->sound]->codecpar;
        info.sound_rate = p->sample_rate > 0 ? (uint32_t)p->sample_rate : 0;
        info.sound_channels = p->ch_layout.nb_channels > 0 ? (uint32_t)p->ch_layout.nb_channels : 0;
    }
    *info_out = info;
}

lt_status input_decoder(const struct input *input, int stream, AVCodecContext **codec_out,
                        struct lt_error *error)
{
    const AVStream *s = input->format->streams[stream];
    const AVCodec *decoder = avcodec_find_decoder(s->codecpar->codec_id);
    if (!decoder || av_match_list(decoder->name, codecs, ',') <= 0)
        return lt_fail(error, LT_UNSUPPORTED, "%s: its %s stream is %s, which is not read here",
                       input->name, stream == input->video ? "video" : "sound",
                       avcodec_get_name(s->codecpar->codec_id));
    if (stream == input->sound &&
        (s->codecpar->sample_rate < SOUND_RATE_MIN || s->codecpar->sample_rate > SOUND_RATE_MAX ||
         s->codecpar->ch_layout.nb_channels < 1 ||
         s->codecpar->ch_layout.nb_channels > SOUND_CHANNELS_MAX))
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: sound of %d Hz on %d channels; expected %d to %d Hz, 1 to %d channels",
                       input->name, s->codecpar->sample_rate, s->codecpar->ch_layout.nb_channels,
                       SOUND_RATE_MIN, SOUND_RATE_MAX, SOUND_CHANNELS_MAX);
    AVCodecContext *codec = avcodec_alloc_context3(decoder);
    if (!codec)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for a decoder", input->name);
    int code = avcodec_parameters_to_context(codec, s->codecpar);
    codec->max_pixels = (int64_t)input->limits.frame_pixels;
    codec->thread_count = 1;
    codec->pkt_timebase = s->time_base;
    if (code >= 0)
        code = avcodec_open2(codec, decoder, NULL);
    if (code < 0) {
        avcodec_free_context(&codec);
        return input_fail(error, input->name, "open its decoder", code);
    }
    *codec_out = codec;
    return LT_OK;
}

/* How far into the file, in seconds, the packet reaches. */
static void note_time(struct input *input)
{
    const AVPacket *packet = input->packet;
    const int64_t time = packet->pts != AV_NOPTS_VALUE ? packet->pts : packet->dts;
    const AVFormatContext *format = input->format;
    if (time == AV_NOPTS_VALUE)
        return;
    double end = (double)(time + packet->duration) *
                 av_q2d(format->streams[packet->stream_index]->time_base);
    if (format->start_time != AV_NOPTS_VALUE)
        end -= (double)format->start_time / AV_TIME_BASE;
    input->seconds_read = end > input->seconds_read ? end : input->seconds_read;
}

/* A container that knows its length and ends well before it was cut. */
static lt_status check_whole(const struct input *input, struct lt_error *error)
{
    const AVFormatContext *format = input->format;
    const double declared = (double)format->duration / AV_TIME_BASE;
    if (input->is_image || format->duration <= 0 ||
        format->duration_estimation_method == AVFMT_DURATION_FROM_BITRATE ||
        input->seconds_read >= 0.95 * declared - 0.2)
        return LT_OK;
    return lt_fail(error, LT_CORRUPT, "%s: cut off: %.3g of its %.3g seconds are there",
                   input->name, input->seconds_read, declared);
}

lt_status input_feed(struct input *input, int stream, AVCodecContext *codec, struct lt_error *error)
{
    int code;
    do {
        av_packet_unref(input->packet);
        code = input->at_end ? AVERROR_EOF : av_read_frame(input->format, input->packet);
        if (code >= 0)
            note_time(input);
    } while (code >= 0 && input->packet->stream_index != stream);
    if (code == AVERROR_EOF) {
        input->at_end = true;
        LT_TRY(check_whole(input, error));
        code = avcodec_send_packet(codec, NULL);
        return code < 0 && code != AVERROR_EOF ? input_fail(error, input->name, "decode it", code)
                                               : LT_OK;
    }
    if (code < 0)
        return input_fail(error, input->name, "read on", code);
    if (input->packet->flags & AV_PKT_FLAG_CORRUPT)
        return lt_fail(error, LT_CORRUPT, "%s: the file is cut off or damaged at byte %lld",
                       input->name, (long long)input->packet->pos);
    code = avcodec_send_packet(codec, input->packet);
    return code < 0 ? input_fail(error, input->name, "decode it", code) : LT_OK;
}

lt_status media_probe(const struct media_source *source, struct media_info *info_out,
                      struct lt_error *error)
{
    struct input input;
    LT_TRY(input_open(&input, source, error));
    input_info(&input, info_out);
    input_close(&input);
    return LT_OK;
}
