/* The sound of a take: files mixed, cut or padded to the picture's length, as one AAC track.
 * Private to mux.c. */
#pragma once

#include "coordinator/mux.h"

#include <libavformat/avformat.h>

struct mux_track;

/* Opens the sources and adds a stream to `format`, whose header is not written yet. The rate is the
 * only source's own where AAC has it, else 48 kHz; stereo if any source is. */
lt_status mux_track_open(AVFormatContext *format, const struct mux_sound *sound, size_t count,
                         struct mux_track **track_out, struct lt_error *error);
/* Writes whole blocks of sound up to `seconds` into the take. */
lt_status mux_track_write(struct mux_track *track, double seconds, struct lt_error *error);
/* Writes the rest: the track has exactly round(seconds · rate) samples. */
lt_status mux_track_finish(struct mux_track *track, double seconds, struct lt_error *error);
void mux_track_close(struct mux_track **track); /* accepts NULL inside */
