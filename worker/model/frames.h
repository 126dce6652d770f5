/* Memory for activations, the exec's: frames [1, Y, X, C] that are taken and given back one by one,
 * in any order. What is out is counted, and its highest point kept. A hollow one hands out frames
 * without memory behind them, so that the same walk over a network tells what it will take. */
#pragma once

#include "common/status.h"
#include "common/view.h"
#include "kernels/exec.h"

struct frame_block;

struct frames {
    struct lt_exec *exec; /* outlives what is out */
    bool hollow;
    struct frame_block *first; /* those that are out */
    size_t used_bytes, peak_bytes;
};

/* Contents undefined. A hollow frame's data must not be touched. */
lt_status frames_take(struct frames *frames, enum lt_type type, int64_t rows, int64_t columns,
                      int64_t channels, struct lt_view *frame_out, struct lt_error *error);
/* Gives the frame back and clears the view; a cleared one is accepted. */
void frames_give(struct frames *frames, struct lt_view *frame);
/* Gives back all that is out. */
void frames_give_all(struct frames *frames);

/* Rows [first, first + count) of a frame. */
struct lt_view frame_rows(const struct lt_view *frame, int64_t first, int64_t count);

/* The frame for this code to write, and its way to where ops see it: itself on the host, else RAM
 * that lives as long as the frame. */
lt_status frames_open(const struct frames *frames, const struct lt_view *frame,
                      struct lt_view *values_out, struct lt_error *error);
lt_status frames_close(const struct frames *frames, const struct lt_view *frame,
                       struct lt_error *error);
/* The frame for this code to read, when the ops so far have run; the same RAM. */
lt_status frames_values(const struct frames *frames, const struct lt_view *frame,
                        struct lt_view *values_out, struct lt_error *error);
/* Of what the above gave. */
float frame_get(const struct lt_view *frame, int64_t index);
void frame_put(const struct lt_view *frame, int64_t index, float value);
