/* A chain of layers; a frame is pushed into the first, and each layer pushes what it makes into the
 * next at once. So only one frame is alive at every level, and only convolutions over time remember
 * anything.
 *
 *   up    the first frame passes, every later one gives two            (encoders.md 1.4, rule 2)
 *   down  the first frame passes, every second later one gives one                       (rule 3)
 */
#include "worker/model/vae_parts.h"

#include <stdlib.h>
#include <string.h>

enum { BAND_PIXELS = 16384 };

lt_status vae_create(enum vae_part part, struct store *store, const struct lt_kernels *kernels,
                     struct lt_exec *exec, struct vae **vae_out, struct lt_error *error)
{
    const struct vae_source source = {.store = store};
    return vae_create_from(part, &source, kernels, exec, vae_out, error);
}

lt_status vae_create_from(enum vae_part part, const struct vae_source *source,
                          const struct lt_kernels *kernels, struct lt_exec *exec,
                          struct vae **vae_out, struct lt_error *error)
{
    struct vae *vae = calloc(1, sizeof *vae);
    if (!vae)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a VAE");
    vae->part = part;
    vae->kernels = kernels;
    vae->exec = exec;
    vae->type = lt_exec_precision(exec) == LT_PRECISION_BF16 ? LT_TYPE_BF16 : LT_TYPE_F32;
    vae->band_pixels = BAND_PIXELS;
    vae->frames.exec = exec;
    vae->frames.hollow = source->store == NULL;
    const lt_status status = vae_build(vae, source, error);
    if (status != LT_OK) {
        vae_destroy(&vae);
        return status;
    }
    *vae_out = vae;
    return LT_OK;
}

void vae_forget(struct vae *vae)
{
    for (int i = 0; i < vae->layer_count; i++) {
        struct vae_layer *layer = &vae->layer[i];
        struct vae_conv *const convs[] = {&layer->first, &layer->second, &layer->time};
        for (size_t j = 0; j < LT_COUNT(convs); j++) {
            convs[j]->past_count = 0;
            memset(convs[j]->past, 0, sizeof convs[j]->past);
        }
        memset(layer->partial, 0, sizeof layer->partial);
        layer->kept = (struct lt_view){0};
        layer->frames = 0;
    }
    frames_give_all(&vae->frames); /* and with them all of the above */
    vae->given = 0;
}

void vae_destroy(struct vae **vae)
{
    if (!*vae)
        return;
    vae_forget(*vae);
    vae_build_undo(*vae);
    free(*vae);
    *vae = NULL;
}

int64_t vae_latent_channels(const struct vae *vae)
{
    return vae->latent_channels;
}

int64_t vae_scale(const struct vae *vae)
{
    return vae->grouped ? 16 : 8;
}

size_t vae_peak_bytes(const struct vae *vae)
{
    return vae->frames.peak_bytes;
}

/* -- up and down ------------------------------------------------------------------------------- */

/* Consumes the frame. */
static lt_status push(struct vae *vae, int index, struct lt_view *frame, struct vae_sink *sink,
                      struct lt_error *error);

/* Nearest x2 and the spatial convolution, then on to the next layer. */
static lt_status push_upsampled(struct vae *vae, int index, struct lt_view *frame,
                                struct vae_sink *sink, struct lt_error *error)
{
    const struct vae_conv *conv = &vae->layer[index].first;
    struct lt_view out;
    LT_TRY(frames_take(&vae->frames, vae->type, 2 * frame->dim[1], 2 * frame->dim[2], conv->out,
                       &out, error));
    LT_TRY(LT_OP(conv, vae->kernels, vae->exec, error, .out = out, .in = *frame,
                 .weight = conv->weight, .bias = conv->bias, .stride_time = 1, .stride_space = 1,
                 .pad_top = 1, .pad_bottom = 1, .pad_left = 1, .pad_right = 1, .upsample = true));
    frames_give(&vae->frames, frame);
    return push(vae, index + 1, &out, sink, error);
}

/* The oldest of two goes, `frame` becomes the newest. */
static void remember(struct vae *vae, struct vae_conv *conv, struct lt_view *frame)
{
    if (conv->past_count == 2) {
        frames_give(&vae->frames, &conv->past[0]);
        conv->past[0] = conv->past[1];
        conv->past_count = 1;
    }
    conv->past[conv->past_count++] = *frame;
    frame->data = NULL;
}

static lt_status push_up(struct vae *vae, int index, struct lt_view *frame, struct vae_sink *sink,
                         struct lt_error *error)
{
    struct vae_layer *layer = &vae->layer[index];
    struct vae_conv *time = &layer->time;
    if (!time->weight.data || layer->frames++ == 0) /* the first never enters the history */
        return push_upsampled(vae, index, frame, sink, error);
    const int64_t half = time->out / 2;
    for (int64_t i = 0; i < 2; i++) { /* channels 0…C-1 are the earlier frame */
        struct lt_view part;
        LT_TRY(
            frames_take(&vae->frames, vae->type, frame->dim[1], frame->dim[2], half, &part, error));
        LT_TRY(LT_OP(conv, vae->kernels, vae->exec, error, .out = part, .in = *frame,
                     .past = vae_past_rows(time, 0, frame->dim[1]),
                     .weight = lt_view_rows(&time->weight, i * half, half),
                     .bias = lt_view_rows(&time->bias, i * half, half), .stride_time = 1,
                     .stride_space = 1));
        LT_TRY(push_upsampled(vae, index, &part, sink, error));
    }
    remember(vae, time, frame);
    return LT_OK;
}

static lt_status push_copy(struct vae *vae, int index, const struct lt_view *frame,
                           struct vae_sink *sink, struct lt_error *error)
{
    struct lt_view copy;
    LT_TRY(frames_take(&vae->frames, frame->type, frame->dim[1], frame->dim[2], frame->dim[3],
                       &copy, error));
    LT_TRY(LT_OP(convert, vae->kernels, vae->exec, error, .out = copy, .in = *frame));
    return push(vae, index, &copy, sink, error);
}

static lt_status push_down(struct vae *vae, int index, struct lt_view *frame, struct vae_sink *sink,
                           struct lt_error *error)
{
    struct vae_layer *layer = &vae->layer[index];
    struct vae_conv *time = &layer->time;
    struct lt_view small, out;
    LT_TRY(frames_take(&vae->frames, vae->type, frame->dim[1] / 2, frame->dim[2] / 2,
                       layer->first.out, &small, error));
    LT_TRY(LT_OP(conv, vae->kernels, vae->exec, error, .out = small, .in = *frame,
                 .weight = layer->first.weight, .bias = layer->first.bias, .stride_time = 1,
                 .stride_space = 2, .pad_bottom = 1, .pad_right = 1));
    frames_give(&vae->frames, frame);
    const int64_t number = layer->frames++;
    if (!time->weight.data || (number == 0 && vae->single))
        return push(vae, index + 1, &small, sink, error);
    if (number % 2 == 1) {
        remember(vae, time, &small);
        return LT_OK;
    }
    if (number == 0) {
        remember(vae, time, &small);
        return push_copy(vae, index + 1, &time->past[0], sink, error);
    }
    LT_TRY(
        frames_take(&vae->frames, vae->type, small.dim[1], small.dim[2], time->out, &out, error));
    LT_TRY(LT_OP(conv, vae->kernels, vae->exec, error, .out = out, .in = small,
                 .past = vae_past_rows(time, 0, small.dim[1]), .weight = time->weight,
                 .bias = time->bias, .stride_time = 1, .stride_space = 1));
    frames_give(&vae->frames, &time->past[0]);
    frames_give(&vae->frames, &time->past[1]);
    time->past_count = 0;
    remember(vae, time, &small); /* the next window begins with it */
    return push(vae, index + 1, &out, sink, error);
}

/* -- shortcuts of groups ----------------------------------------------------------------------- */

/* Which frame of a block of `time` frame `number` is: the first is the last of its block, what
 * stands before it is zero (encoders.md 2.2). */
static int frame_of_block(int64_t number, int time)
{
    return (int)((number + time - 1) % time);
}

static lt_status keep(struct vae *vae, struct vae_layer *layer, const struct lt_view *frame,
                      struct lt_error *error)
{
    if (vae->part == VAE_DECODER) { /* what the merges will repeat */
        LT_TRY(frames_take(&vae->frames, vae->type, frame->dim[1], frame->dim[2], frame->dim[3],
                           &layer->kept, error));
        return LT_OP(convert, vae->kernels, vae->exec, error, .out = layer->kept, .in = *frame);
    }
    const int of_block = frame_of_block(layer->frames++, layer->group_time);
    const bool begun = layer->kept.data != NULL;
    if (!begun)
        LT_TRY(frames_take(&vae->frames, vae->type, frame->dim[1] / layer->group_space,
                           frame->dim[2] / layer->group_space, layer->group_width, &layer->kept,
                           error));
    return LT_OP(avg_down, vae->kernels, vae->exec, error, .out = layer->kept, .in = *frame,
                 .time = layer->group_time, .space = layer->group_space, .frame = of_block,
                 .accumulate = begun);
}

static lt_status merge(struct vae *vae, struct vae_layer *layer, const struct lt_view *frame,
                       struct lt_error *error)
{
    struct lt_view *kept = &vae->layer[layer->keep].kept;
    if (vae->part == VAE_ENCODER) {
        LT_TRY(LT_OP(avg_down, vae->kernels, vae->exec, error, .out = *frame, .in = *kept,
                     .time = 1, .space = 1, .accumulate = true));
        frames_give(&vae->frames, kept);
        return LT_OK;
    }
    const int of_block = frame_of_block(layer->frames++, layer->group_time);
    LT_TRY(LT_OP(dup_up, vae->kernels, vae->exec, error, .out = *frame, .in = *kept,
                 .time = layer->group_time, .space = layer->group_space, .frame = of_block,
                 .accumulate = true));
    if (of_block == layer->group_time - 1)
        frames_give(&vae->frames, kept);
    return LT_OK;
}

/* -- the chain --------------------------------------------------------------------------------- */

static lt_status run_layer(struct vae *vae, struct vae_layer *layer, struct lt_view *frame,
                           struct lt_error *error)
{
    switch (layer->kind) {
    case VAE_RESIDUAL:
        return vae_run_residual(vae, layer, frame, error);
    case VAE_ATTENTION:
        return vae_run_attention(vae, layer, frame, error);
    case VAE_HEAD:
        return vae_run_head(vae, layer, frame, error);
    case VAE_KEEP:
        return keep(vae, layer, frame, error);
    case VAE_MERGE:
        return merge(vae, layer, frame, error);
    default:
        return vae_run_conv(vae, layer, frame, error);
    }
}

static lt_status push(struct vae *vae, int index, struct lt_view *frame, struct vae_sink *sink,
                      struct lt_error *error)
{
    for (; index < vae->layer_count; index++) {
        struct vae_layer *layer = &vae->layer[index];
        if (layer->kind == VAE_UP)
            return push_up(vae, index, frame, sink, error);
        if (layer->kind == VAE_DOWN)
            return push_down(vae, index, frame, sink, error);
        LT_TRY(run_layer(vae, layer, frame, error));
    }
    if (sink->take)
        LT_TRY(sink->take(vae, sink, frame, error));
    vae->given++;
    frames_give(&vae->frames, frame);
    return LT_OK;
}

lt_status vae_stream(struct vae *vae, const struct lt_view *from, int64_t frames,
                     struct vae_sink *sink, atomic_uint *done, struct lt_error *error)
{
    const int64_t fold = vae->part == VAE_ENCODER && vae->grouped ? 2 : 1;
    lt_status status = LT_OK;
    sink->first = vae->given;
    for (int64_t t = 0; t < frames && status == LT_OK; t++) {
        struct lt_view frame;
        status = frames_take(&vae->frames, vae->type, from->dim[2] / fold, from->dim[3] / fold,
                             vae_input_channels(vae), &frame, error);
        if (status != LT_OK)
            break;
        if (from->data)
            status = vae_load_frame(vae, from, t, &frame, error);
        if (status == LT_OK)
            status = push(vae, 0, &frame, sink, error);
        if (done)
            atomic_fetch_add(done, 1);
    }
    if (status != LT_OK)
        vae_forget(vae);
    return status;
}

/* -- decode and encode ------------------------------------------------------------------------- */

static void begin(struct vae *vae, int64_t frames)
{
    vae_forget(vae);
    vae->frames.peak_bytes = 0;
    vae->single = frames == 1;
}

/* After a sequence of one frame nothing is remembered, so the next call begins anew in any case. */
static void end(struct vae *vae)
{
    vae_forget(vae);
    vae->single = false;
}

static lt_status decode(struct vae *vae, const struct lt_view *latents, vae_frame *on_frame,
                        void *context, atomic_uint *done, struct lt_error *error)
{
    struct vae_sink sink = {.take = vae_take_pixels, .on_frame = on_frame, .context = context};
    return vae_stream(vae, latents, latents->dim[1], &sink, done, error);
}

lt_status vae_decode(struct vae *vae, const struct lt_view *latents, vae_frame *on_frame,
                     void *context, atomic_uint *done, struct lt_error *error)
{
    LT_TRY(vae_check_latents(vae, latents, error));
    begin(vae, latents->dim[1]);
    const lt_status status = decode(vae, latents, on_frame, context, done, error);
    end(vae);
    return status;
}

lt_status vae_decode_slice(struct vae *vae, const struct lt_view *latents, vae_frame *on_frame,
                           void *context, atomic_uint *done, struct lt_error *error)
{
    LT_TRY(vae_check_latents(vae, latents, error));
    return decode(vae, latents, on_frame, context, done, error);
}

static lt_status encode(struct vae *vae, const struct lt_view *pixels, struct lt_view *latents,
                        atomic_uint *done, struct lt_error *error)
{
    const int64_t before = vae->given,
                  begun = before > 0 ? 0 : 1; /* the first frame stands alone */
    const int64_t frames = (pixels->dim[1] - begun) / 4 * 4 + begun;
    struct vae_sink sink = {.take = vae_take_latent, .latents = *latents};
    if (latents->rank != 4 || latents->dim[0] != vae->latent_channels ||
        latents->dim[1] != (frames - begun) / 4 + begun ||
        latents->dim[2] * vae_scale(vae) != pixels->dim[2] ||
        latents->dim[3] * vae_scale(vae) != pixels->dim[3])
        return lt_fail(error, LT_INTERNAL, "VAE encode: latents of another shape than the pixels");
    return vae_stream(vae, pixels, frames, &sink, done, error);
}

lt_status vae_encode(struct vae *vae, const struct lt_view *pixels, struct lt_view *latents,
                     atomic_uint *done, struct lt_error *error)
{
    LT_TRY(vae_check_pixels(vae, pixels, error));
    begin(vae, (pixels->dim[1] - 1) / 4 + 1);
    const lt_status status = encode(vae, pixels, latents, done, error);
    end(vae);
    return status;
}

lt_status vae_encode_slice(struct vae *vae, const struct lt_view *pixels, struct lt_view *latents,
                           atomic_uint *done, struct lt_error *error)
{
    LT_TRY(vae_check_pixels(vae, pixels, error));
    return encode(vae, pixels, latents, done, error);
}
