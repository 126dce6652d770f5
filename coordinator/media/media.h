/* Media in: any common image (PNG, JPEG, WebP, BMP), video (mp4, mkv, webm, gif, avi, a folder of
 * images) and sound (wav, mp3, flac, aac, ogg, opus; also that of a video), by the FFmpeg
 * libraries. Frames come one by one and sound in blocks: memory does not grow with the length.
 *
 * Files are hostile until read. What a file is is told by its bytes, never by its name; only the
 * containers and codecs listed in input.c are opened; no file can make us open another one or a
 * network address; sizes, counts and durations are bounded before memory is taken. Errors name the
 * file and what was found in it: LT_NOT_FOUND, LT_UNSUPPORTED (not media, or a kind we do not
 * read), LT_BAD_INPUT (beyond a limit, or without what was asked for), LT_CORRUPT (cut off or
 * damaged). One object is used by one thread at a time; objects are independent. */
#pragma once

#include "common/status.h"

#include <stdbool.h>
#include <stddef.h>

struct media_limits {
    uint64_t file_bytes;
    uint32_t side;         /* of width and of height, in pixels */
    uint64_t frame_pixels; /* width × height */
    uint64_t frame_count;  /* read from one video */
    double seconds;        /* of sound */
};

/* 64 GiB, 16384, 40 Mi pixels (8K video), 2^20 frames, 12 hours. */
extern const struct media_limits media_limits_default;

struct media_source {
    const char *path; /* a file; for video also a folder of images, taken in the order of names */
    const void *data; /* not NULL: read these bytes (borrowed) instead; path is a name for errors */
    size_t bytes;
    const struct media_limits *limits; /* NULL: the default */
};

enum media_kind { MEDIA_IMAGE, MEDIA_VIDEO, MEDIA_SOUND };

struct media_info {
    enum media_kind kind;   /* MEDIA_SOUND: no picture at all */
    char format[32];        /* FFmpeg's name of the container, "mov", "png_pipe", "folder" */
    char codec[32];         /* of the picture, or else of the sound */
    uint32_t width, height; /* as stored: before rotation and before pixels are made square */
    double fps;             /* 0: it has no rate (an image, a folder of images) */
    int64_t frame_count;    /* as the container declares; 0: it does not tell */
    double seconds;         /* as the container declares; 0: it does not tell */
    bool has_sound;
    uint32_t sound_rate, sound_channels; /* 0 without sound */
};

/* What a file is, without decoding it. */
lt_status media_probe(const struct media_source *source, struct media_info *info_out,
                      struct lt_error *error);

/* -- pictures ---------------------------------------------------------------------------------- */

struct video;

/* Opens an image, a video or a folder and decodes the first frame. `fps` > 0 gives the frames as at
 * that rate (encoders.md 10.1): frame k is the source's round(k / fps · source_fps), of
 * int(n / source_fps · fps) frames; what has no rate of its own is taken to be at `fps`. 0 gives
 * every frame. The frames are upright (display matrix, EXIF orientation) and of square pixels.
 * A file with only sound is LT_BAD_INPUT. */
lt_status video_open(const struct media_source *source, double fps, struct video **video_out,
                     struct lt_error *error);
/* Width and height of what video_read gives; the source's rate, or 0. */
uint32_t video_width(const struct video *video);
uint32_t video_height(const struct video *video);
double video_source_fps(const struct video *video);
/* The next frame, [height, width, 3] u8 RGB; alpha is dropped. *end_out true: there was none, and
 * `rgb` is untouched. A stream that ends before the container says is LT_CORRUPT. */
lt_status video_read(struct video *video, uint8_t *rgb, bool *end_out, struct lt_error *error);
void video_close(struct video **video); /* accepts NULL inside */

/* One image (or the first frame of a video) whole, malloc'ed [height, width, 3] u8 RGB. */
lt_status image_read(const struct media_source *source, uint8_t **rgb_out, uint32_t *width_out,
                     uint32_t *height_out, struct lt_error *error);

/* -- sound ------------------------------------------------------------------------------------- */

struct sound;

struct sound_format {
    uint32_t rate;     /* samples a second; 0: the source's */
    uint32_t channels; /* 1: the mean of all (as librosa), 2: stereo; 0: the source's, 2 at most */
};

/* Opens the first sound stream of a file. Resampling is soxr's high quality, as the originals'. */
lt_status sound_open(const struct media_source *source, const struct sound_format *format,
                     struct sound **sound_out, struct lt_error *error);
uint32_t sound_rate(const struct sound *sound);
uint32_t sound_channels(const struct sound *sound);
/* Up to `capacity` samples a channel into [n, channels] f32 in about [-1, 1]; *count_out 0: the
 * end. */
lt_status sound_read(struct sound *sound, float *samples, size_t capacity, size_t *count_out,
                     struct lt_error *error);
void sound_close(struct sound **sound); /* accepts NULL inside */

/* A voice for the audio encoder: mono f32 at 16 kHz, the first `seconds_max` of it (0: the limit's
 * seconds), malloc'ed [n]. */
lt_status sound_read_voice(const struct media_source *source, double seconds_max,
                           float **samples_out, size_t *count_out, struct lt_error *error);
