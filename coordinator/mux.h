/* Frames in, a file people can play out: mp4 (H.264) or a folder of PNG files, by the FFmpeg
 * libraries. Nothing stands under the final name before close succeeded; equal frames give equal
 * bytes. */
#pragma once

#include "common/status.h"

struct mux;

struct mux_params {
    const char *path; /* "take.mp4", or "frames/" for frame_00000.png and so on */
    int width, height;
    double fps;
    int quality;    /* x264 CRF, 0 … 51; lower is better and larger */
    bool overwrite; /* an existing file or folder is LT_CONFLICT otherwise */
};

enum mux_kind { MUX_NONE, MUX_MP4, MUX_PNG };
/* By the name's end; MUX_NONE: no format we write. */
enum mux_kind mux_kind_of(const char *path);

lt_status mux_open(const struct mux_params *params, struct mux **mux_out, struct lt_error *error);
/* The next frame, [height, width, 3] u8 RGB. */
lt_status mux_frame(struct mux *mux, const uint8_t *rgb, struct lt_error *error);
/* Finishes and gives the file its name. On success and failure the mux is gone. */
lt_status mux_close(struct mux **mux, struct lt_error *error);
void mux_abort(struct mux **mux); /* leaves nothing; accepts NULL */
