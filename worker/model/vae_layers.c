/* Layers that make one frame of one. The frame goes down the chain in place wherever its width
 * stays, and the two convolutions of a residual block run over it side by side in bands of rows:
 *
 *     rows of the frame        y0 ------------- y1
 *     normed, window 1     y0-1 ------------------- y1+1     what conv 1 reads
 *     conv 1, normed again     y0 ------------- y1           into window 2, which has y0-2 too
 *     conv 2 + frame       y0-1 ---------- y1-1              back into the frame
 *
 * So a block needs two bands beside the frame and its history. A convolution over time remembers
 * its last two inputs; the new one takes the place of the oldest, row by row, as soon as no band
 * needs the oldest's rows. */
#include "worker/model/vae_parts.h"

#include <math.h>

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Fixed by the frame's size: results do not depend on the machine. A quarter of a large frame;
 * never so few pixels that packing a convolution's weights for each band would show. */
static int64_t band_rows(const struct vae *vae, int64_t rows, int64_t columns)
{
    const int64_t enough = (vae->band_pixels + columns - 1) / columns;
    return (most(enough, (rows + 3) / 4) + 3) / 4 * 4;
}

struct lt_view vae_past_rows(const struct vae_conv *conv, int64_t first, int64_t rows)
{
    if (conv->past_count == 0)
        return (struct lt_view){0};
    struct lt_view view = frame_rows(&conv->past[0], first, rows);
    const int64_t apart = (int64_t)((intptr_t)conv->past[1].data - (intptr_t)conv->past[0].data);
    view.dim[0] = conv->past_count;
    if (conv->past_count == 2)
        view.stride[0] = apart / (int64_t)lt_type_info(view.type)->block_bytes;
    return view;
}

static lt_status norm_silu(struct vae *vae, const struct lt_view *gamma, const struct lt_view *in,
                           const struct lt_view *out, struct lt_error *error)
{
    return LT_OP(channel_norm, vae->kernels, vae->exec, error, .out = *out, .in = *in,
                 .gamma = *gamma, .activation = LT_ACTIVATION_SILU);
}

/* -- windows ----------------------------------------------------------------------------------- */

/* Rows [begin, end) of a frame that is otherwise not there. */
struct window {
    struct lt_view memory;
    int64_t begin, end;
};

static lt_status window_open(struct vae *vae, struct window *window, int64_t rows, int64_t columns,
                             int64_t channels, struct lt_error *error)
{
    *window = (struct window){0};
    return frames_take(&vae->frames, vae->type, rows, columns, channels, &window->memory, error);
}

static struct lt_view window_rows(const struct window *window, int64_t first, int64_t last)
{
    return frame_rows(&window->memory, first - window->begin, last - first);
}

/* Drops the rows before `begin`. What stays are a band's last rows, never more than two, so they
 * do not overlap their new place. */
static lt_status window_slide(struct vae *vae, struct window *window, int64_t begin,
                              struct lt_error *error)
{
    if (begin == window->begin)
        return LT_OK;
    const struct lt_view from = window_rows(window, begin, window->end);
    window->begin = begin;
    return LT_OP(convert, vae->kernels, vae->exec, error,
                 .out = window_rows(window, begin, window->end), .in = from);
}

/* -- convolutions that remember ---------------------------------------------------------------- */

/* A convolution on its way down a frame: its inputs pass through the window, and on into the place
 * where they will be remembered. */
struct pass {
    struct vae_conv *conv;
    struct window window;
    struct lt_view *to; /* NULL: nothing is remembered */
    int64_t written;    /* rows of `to` */
};

static lt_status pass_begin(struct vae *vae, struct pass *pass, struct vae_conv *conv,
                            const struct lt_view *frame, int64_t band, struct lt_error *error)
{
    const int64_t rows = frame->dim[1], columns = frame->dim[2];
    *pass = (struct pass){.conv = conv};
    LT_TRY(window_open(vae, &pass->window, least(band + 2, rows), columns, conv->in, error));
    if (vae->single)
        return LT_OK;
    pass->to = &conv->past[conv->past_count < 2 ? conv->past_count : 0];
    return conv->past_count < 2
               ? frames_take(&vae->frames, vae->type, rows, columns, conv->in, pass->to, error)
               : LT_OK;
}

/* Output rows [first, last) from the window and the past. */
static lt_status pass_run(struct vae *vae, const struct pass *pass, int64_t first, int64_t last,
                          int64_t rows, const struct lt_view *add, const struct lt_view *out,
                          struct lt_error *error)
{
    const int64_t from = most(first - 1, 0), to = least(last + 1, rows);
    return LT_OP(conv, vae->kernels, vae->exec, error, .out = *out,
                 .in = window_rows(&pass->window, from, to),
                 .past = vae_past_rows(pass->conv, from, to - from), .weight = pass->conv->weight,
                 .bias = pass->conv->bias, .add = *add, .stride_time = 1, .stride_space = 1,
                 .pad_top = first == 0, .pad_bottom = last == rows, .pad_left = 1, .pad_right = 1);
}

/* Remembers the rows before `until`: the oldest frame's are needed no more. */
static lt_status pass_remember(struct vae *vae, struct pass *pass, int64_t until,
                               struct lt_error *error)
{
    if (!pass->to || until <= pass->written)
        return LT_OK;
    const int64_t first = pass->written;
    pass->written = until;
    return LT_OP(convert, vae->kernels, vae->exec, error,
                 .out = frame_rows(pass->to, first, until - first),
                 .in = window_rows(&pass->window, first, until));
}

static void pass_end(struct vae *vae, struct pass *pass)
{
    struct vae_conv *conv = pass->conv;
    frames_give(&vae->frames, &pass->window.memory);
    if (!pass->to)
        return;
    if (conv->past_count < 2) {
        conv->past_count++;
        return;
    }
    const struct lt_view newest = conv->past[0];
    conv->past[0] = conv->past[1];
    conv->past[1] = newest;
}

/* -- layers ------------------------------------------------------------------------------------ */

lt_status vae_run_conv(struct vae *vae, struct vae_layer *layer, struct lt_view *frame,
                       struct lt_error *error)
{
    struct vae_conv *conv = &layer->first;
    const int pad = (int)(conv->weight.dim[3] - 1) / 2;
    const bool remembers = conv->weight.dim[2] > 1;
    struct lt_view out;
    LT_TRY(frames_take(&vae->frames, frame->type, frame->dim[1], frame->dim[2], conv->out, &out,
                       error));
    LT_TRY(LT_OP(conv, vae->kernels, vae->exec, error, .out = out, .in = *frame,
                 .past = vae_past_rows(conv, 0, frame->dim[1]), .weight = conv->weight,
                 .bias = conv->bias, .stride_time = 1, .stride_space = 1, .pad_top = pad,
                 .pad_bottom = pad, .pad_left = pad, .pad_right = pad));
    if (remembers && !vae->single) {
        if (conv->past_count == 2) {
            frames_give(&vae->frames, &conv->past[0]);
            conv->past[0] = conv->past[1];
            conv->past_count = 1;
        }
        conv->past[conv->past_count++] = *frame;
    } else {
        frames_give(&vae->frames, frame);
    }
    *frame = out;
    return LT_OK;
}

/* Rows [first, last) of both convolutions' way: see the picture above. `in` and `out` may be one.
 */
static lt_status residual_band(struct vae *vae, struct vae_layer *layer, struct pass *one,
                               struct pass *two, const struct lt_view *in,
                               const struct lt_view *out, int64_t first, int64_t last,
                               struct lt_error *error)
{
    const int64_t rows = in->dim[1], normed = least(last + 1, rows), from = one->window.end;
    const bool is_last = last == rows;
    const int64_t out_first = most(first - 1, 0), out_last = is_last ? rows : last - 1;
    const struct lt_view nothing = {0}, target = frame_rows(out, out_first, out_last - out_first);
    LT_TRY(window_slide(vae, &one->window, most(first - 1, 0), error));
    one->window.end = normed;
    if (from < normed) {
        const struct lt_view rows_in = frame_rows(in, from, normed - from),
                             rows_out = window_rows(&one->window, from, normed);
        LT_TRY(norm_silu(vae, &layer->norm_first, &rows_in, &rows_out, error));
    }
    LT_TRY(window_slide(vae, &two->window, most(first - 2, 0), error));
    two->window.end = last;
    const struct lt_view middle = window_rows(&two->window, first, last);
    LT_TRY(pass_run(vae, one, first, last, rows, &nothing, &middle, error));
    LT_TRY(pass_remember(vae, one, is_last ? rows : last - 1, error));
    LT_TRY(norm_silu(vae, &layer->norm_second, &middle, &middle, error));
    if (out_first == out_last)
        return LT_OK;
    LT_TRY(pass_run(vae, two, out_first, out_last, rows, &target, &target, error));
    return pass_remember(vae, two, is_last ? rows : out_last - 1, error);
}

lt_status vae_run_residual(struct vae *vae, struct vae_layer *layer, struct lt_view *frame,
                           struct lt_error *error)
{
    const int64_t rows = frame->dim[1], columns = frame->dim[2];
    const int64_t band = band_rows(vae, rows, columns);
    struct pass one, two;
    struct lt_view out = *frame;
    if (layer->shortcut.weight.data) {
        LT_TRY(frames_take(&vae->frames, vae->type, rows, columns, layer->second.out, &out, error));
        LT_TRY(LT_OP(conv, vae->kernels, vae->exec, error, .out = out, .in = *frame,
                     .weight = layer->shortcut.weight, .bias = layer->shortcut.bias,
                     .stride_time = 1, .stride_space = 1));
    }
    LT_TRY(pass_begin(vae, &one, &layer->first, frame, band, error));
    LT_TRY(pass_begin(vae, &two, &layer->second, frame, band, error));
    for (int64_t first = 0; first < rows; first += band)
        LT_TRY(residual_band(vae, layer, &one, &two, frame, &out, first, least(first + band, rows),
                             error));
    pass_end(vae, &one);
    pass_end(vae, &two);
    if (out.data != frame->data)
        frames_give(&vae->frames, frame);
    *frame = out;
    return LT_OK;
}

/* The head narrows to a few channels, so what it remembers is not its inputs but their part of the
 * sums to come: out(t) = w0·x(t-2) + w1·x(t-1) + w2·x(t), added in this order, in f32. */
static lt_status head_band(struct vae *vae, struct vae_layer *layer, struct window *window,
                           const struct lt_view *frame, const struct lt_view sum[3], int64_t first,
                           int64_t last, struct lt_error *error)
{
    const int64_t rows = frame->dim[1], from = most(first - 1, 0), to = least(last + 1, rows);
    const struct lt_view in = frame_rows(frame, from, to - from);
    window->begin = from;
    const struct lt_view normed = window_rows(window, from, to);
    LT_TRY(norm_silu(vae, &layer->norm_first, &in, &normed, error));
    for (int i = 0; i < 3 && sum[i].data; i++) { /* sum i is complete after i more frames */
        const struct lt_view out = frame_rows(&sum[i], first, last - first);
        const bool begun = i < 2 && layer->partial[i].data;
        LT_TRY(LT_OP(
            conv, vae->kernels, vae->exec, error, .out = out, .in = normed,
            .weight = layer->tap[2 - i], .bias = i == 0 ? layer->first.bias : (struct lt_view){0},
            .add = begun ? out : (struct lt_view){0}, .stride_time = 1, .stride_space = 1,
            .pad_top = first == 0, .pad_bottom = last == rows, .pad_left = 1, .pad_right = 1));
    }
    return LT_OK;
}

lt_status vae_run_head(struct vae *vae, struct vae_layer *layer, struct lt_view *frame,
                       struct lt_error *error)
{
    const int64_t rows = frame->dim[1], columns = frame->dim[2];
    const int64_t band = band_rows(vae, rows, columns);
    struct window window;
    struct lt_view sum[3] = {layer->partial[0], layer->partial[1], {0}};
    for (int i = 0; i < (vae->single ? 1 : 3); i++)
        if (!sum[i].data)
            LT_TRY(frames_take(&vae->frames, LT_TYPE_F32, rows, columns, layer->first.out, &sum[i],
                               error));
    LT_TRY(window_open(vae, &window, least(band + 2, rows), columns, layer->first.in, error));
    for (int64_t first = 0; first < rows; first += band)
        LT_TRY(head_band(vae, layer, &window, frame, sum, first, least(first + band, rows), error));
    frames_give(&vae->frames, &window.memory);
    frames_give(&vae->frames, frame);
    *frame = sum[0];
    layer->partial[0] = sum[1];
    layer->partial[1] = sum[2];
    return LT_OK;
}

/* Single head over all positions of the frame, in f32: the widths are small here. */
lt_status vae_run_attention(struct vae *vae, struct vae_layer *layer, struct lt_view *frame,
                            struct lt_error *error)
{
    const int64_t c = frame->dim[3], tokens = frame->dim[1] * frame->dim[2];
    struct lt_view normed, qkv, part[3];
    LT_TRY(frames_take(&vae->frames, LT_TYPE_F32, 1, tokens, c, &normed, error));
    LT_TRY(frames_take(&vae->frames, LT_TYPE_F32, 1, tokens, 3 * c, &qkv, error));
    const struct lt_view row = lt_view_2d(normed.data, LT_TYPE_F32, tokens, c);
    const struct lt_view rows = lt_view_2d(qkv.data, LT_TYPE_F32, tokens, 3 * c);
    const struct lt_view mixed =
        lt_view_2d(qkv.data, LT_TYPE_F32, tokens, c); /* when qkv is done */
    for (int i = 0; i < 3; i++) {
        part[i] = lt_view_3d((float *)qkv.data + i * c, LT_TYPE_F32, tokens, 1, c);
        part[i].stride[0] = 3 * c;
    }
    LT_TRY(LT_OP(convert, vae->kernels, vae->exec, error, .out = row, .in = *frame));
    LT_TRY(LT_OP(channel_norm, vae->kernels, vae->exec, error, .out = row, .in = row,
                 .gamma = layer->norm_first));
    LT_TRY(LT_OP(linear, vae->kernels, vae->exec, error, .out = rows, .in = row,
                 .weight = layer->qkv, .bias = layer->qkv_bias));
    LT_TRY(LT_OP(attention, vae->kernels, vae->exec, error,
                 .out = lt_view_3d(row.data, LT_TYPE_F32, tokens, 1, c), .q = part[0], .k = part[1],
                 .v = part[2], .scale = 1.0f / sqrtf((float)c)));
    LT_TRY(LT_OP(linear, vae->kernels, vae->exec, error, .out = mixed, .in = row,
                 .weight = layer->proj, .bias = layer->proj_bias));
    LT_TRY(LT_OP(convert, vae->kernels, vae->exec, error, .out = row, .in = *frame));
    LT_TRY(
        LT_OP(gated_add, vae->kernels, vae->exec, error, .out = row, .residual = row, .in = mixed));
    LT_TRY(LT_OP(convert, vae->kernels, vae->exec, error, .out = *frame, .in = row));
    frames_give(&vae->frames, &qkv);
    frames_give(&vae->frames, &normed);
    return LT_OK;
}
