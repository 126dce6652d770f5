/* Frames in, a file people can play out: mp4 (H.264, AAC) or a folder of PNG or OpenEXR files, by
 * the FFmpeg libraries. Nothing stands under the final name before close succeeded; equal frames
 * and sounds give equal bytes. */
#pragma once

#include "common/status.h"

struct mux;

/* A file with sound, a video's too; several are added up. What it has before `start_seconds` is
 * left out; the track is cut, or padded with silence, to exactly the picture's length. */
struct mux_sound {
    const char *path;
    double start_seconds;
};
enum { MUX_SOUNDS_MAX = 8 };

struct mux_params {
    const char *path; /* "take.mp4"; "frames/" for frame_00000.png and so on; "take.exr/" for
                         frame_00000.exr: half floats, linear light, ZIP */
    int width, height;
    double fps;
    int quality;                   /* x264 CRF, 0 … 51; lower is better and larger */
    bool overwrite;                /* an existing file or folder is LT_CONFLICT otherwise */
    const struct mux_sound *sound; /* for mp4; pictures have none */
    size_t sound_count;
};

enum mux_kind { MUX_NONE, MUX_MP4, MUX_PNG, MUX_EXR };
/* By the name's end; MUX_NONE: no format we write. */
enum mux_kind mux_kind_of(const char *path);

lt_status mux_open(const struct mux_params *params, struct mux **mux_out, struct lt_error *error);
/* The next frame, [height, width, 3] u8 RGB. */
lt_status mux_frame(struct mux *mux, const uint8_t *rgb, struct lt_error *error);
/* Finishes and gives the file its name. On success and failure the mux is gone. */
lt_status mux_close(struct mux **mux, struct lt_error *error);
void mux_abort(struct mux **mux); /* leaves nothing; accepts NULL */
