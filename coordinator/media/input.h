/* A demuxer over one file or one piece of memory, closed to everything else. Private to media/ and
 * mux.c. */
#pragma once

#include "coordinator/media/media.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>

enum { SOUND_RATE_MIN = 1000, SOUND_RATE_MAX = 768000 }; /* samples a second */

struct input {
    char name[256]; /* the source's path for messages; its end when it is long */
    struct media_limits limits;
    int file; /* descriptor, or -1 */
    const uint8_t *data;
    uint64_t bytes, position;
    AVIOContext *io;
    AVFormatContext *format;
    AVPacket *packet;
    bool is_image;    /* one picture without a rate */
    int video, sound; /* stream numbers; -1: none */
    bool at_end;
    double seconds_read; /* where the latest packet ends */
};

/* `input` may be zero or stale memory; after a failure there is nothing to close. */
lt_status input_open(struct input *input, const struct media_source *source,
                     struct lt_error *error);
void input_close(struct input *input); /* accepts a zeroed or closed one */

/* What is known of the streams, without decoding. */
void input_info(const struct input *input, struct media_info *info_out);
double input_fps(const struct input *input); /* of the video stream; 0: none or absurd */

/* A decoder for one of the streams; the caller frees it with avcodec_free_context. */
lt_status input_decoder(const struct input *input, int stream, AVCodecContext **codec_out,
                        struct lt_error *error);
/* Gives `codec` the next packet of `stream`, or the end. LT_CORRUPT when the file is cut off. */
lt_status input_feed(struct input *input, int stream, AVCodecContext *codec,
                     struct lt_error *error);

lt_status input_fail(struct lt_error *error, const char *name, const char *what, int code);

/* FFmpeg's own messages, which a hostile file can make without end, are off from here on. */
void media_quiet(void);
