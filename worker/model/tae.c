/* Three levels of three memory blocks, each level followed by a growth in time (1×1 convolution,
 * one block of channels per frame) and a doubling in space. The growth of the original stands after
 * the doubling; a 1×1 convolution and nearest-neighbour copies commute, so here it stands before,
 * where it costs a quarter, and the doubling is part of the next convolution. */
#include "worker/model/tae.h"

#include "worker/model/frames.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEVELS = 3, BLOCKS = 3, LAYERS = LEVELS * (BLOCKS + 2) + 2, FIRST_BLOCK = 3, PER_LEVEL = 6 };

enum layer_kind {
    CONV,   /* first, then ReLU where `relu` */
    MEMORY, /* relu(x + third(relu(second(relu(first(x, x before)))))) */
    GROW,   /* first [n·frames, n]: one frame becomes `grown` */
};

struct conv {
    struct lt_view weight, bias; /* [Co, Ci, 3, 3]; of a memory block's first [Co, Ci, 2, 3, 3] */
};

struct layer {
    enum layer_kind kind;
    struct conv first, second, third;
    bool relu, doubles;
    int64_t grown;
    void *made; /* rearranged weights, ours, in the exec's memory */
    size_t made_bytes;
    struct lt_view before;
};

struct tae {
    const struct store *store;
    const struct lt_kernels *kernels;
    struct lt_exec *exec;
    enum lt_type type;
    int64_t latent_channels, grown, fold; /* fold: pixels of an output value, 1 or 2 */
    struct layer layer[LAYERS];
    int layer_count;
    struct frames frames;
};

struct sink {
    vae_frame *on_frame;
    void *context;
    int64_t index, drop; /* frames so far, and how many of them nobody sees */
    float *rgb;
};

/* -- building ---------------------------------------------------------------------------------- */

bool tae_wants(void *unused, const char *name)
{
    (void)unused;
    return strncmp(name, "decoder.", 8) == 0;
}

/* [out, in, k, k] from `in` channels; *out_channels 0: whatever the file has. */
static lt_status find_conv(const struct tae *tae, struct conv *conv, const char *name, int64_t in,
                           int64_t *out_channels, int64_t kernel, bool has_bias,
                           struct lt_error *error)
{
    char full[96];
    struct lt_view found;
    snprintf(full, sizeof full, "%s.weight", name);
    LT_TRY(store_tensor(tae->store, full, &found, error));
    const int64_t per_output = in * kernel * kernel, count = lt_view_count(&found);
    if (count == 0 || count % per_output != 0 ||
        (*out_channels && count / per_output != *out_channels))
        return lt_fail(error, LT_BAD_INPUT,
                       "tensor '%s': %lld values are not a %lldx%lld convolution from %lld to %lld "
                       "channels",
                       full, (long long)count, (long long)kernel, (long long)kernel, (long long)in,
                       (long long)(*out_channels ? *out_channels : count / per_output));
    *out_channels = count / per_output;
    conv->weight = lt_view_4d(found.data, found.type, *out_channels, in, kernel, kernel);
    if (!has_bias)
        return LT_OK;
    snprintf(full, sizeof full, "%s.bias", name);
    return store_tensor_shaped(tae->store, full, 1, out_channels, &conv->bias, error);
}

/* The block's first convolution sees [x, x before] side by side as 2n channels: the same as a
 * convolution over two frames, [n, n, 2, 3, 3] with the earlier frame first. */
static void sort_memory(const char *from, int64_t n, size_t plane, char *to)
{
    for (int64_t out = 0; out < n; out++)
        for (int64_t in = 0; in < n; in++)
            for (int64_t tap = 0; tap < 2; tap++, to += plane)
                memcpy(to, from + (size_t)(out * 2 * n + in + (tap == 0 ? n : 0)) * plane, plane);
}

static lt_status make_memory(const struct tae *tae, struct layer *layer, int64_t n,
                             struct lt_error *error)
{
    const struct lt_view *weight = &layer->first.weight;
    const struct lt_type_info *type = lt_type_info(weight->type);
    if (type->block_values != 1)
        return lt_fail(error, LT_UNSUPPORTED, "a preview decoder in %s: float types only",
                       type->name);
    const size_t plane = 9 * type->block_bytes, bytes = (size_t)(n * n * 2) * plane;
    char *from = malloc(bytes), *to = malloc(bytes);
    lt_status status = LT_NO_MEMORY;
    if (!from || !to) {
        lt_fail(error, LT_NO_MEMORY, "no memory for a preview decoder");
        goto out;
    }
    LT_TRY_OR(lt_exec_download(tae->exec, from, weight->data, bytes, error), out);
    sort_memory(from, n, plane, to);
    layer->made_bytes = bytes;
    LT_TRY_OR(lt_exec_take(tae->exec, bytes, &layer->made, error), out);
    LT_TRY_OR(lt_exec_upload(tae->exec, layer->made, to, bytes, error), out);
    layer->first.weight = lt_view_make(layer->made, weight->type, 5, (int64_t[]){n, n, 2, 3, 3});
out:
    free(from);
    free(to);
    return status;
}

static lt_status add_memory(struct tae *tae, int index, int64_t n, struct lt_error *error)
{
    struct layer *layer = &tae->layer[tae->layer_count++];
    char name[64];
    layer->kind = MEMORY;
    snprintf(name, sizeof name, "decoder.%d.conv.0", index);
    LT_TRY(find_conv(tae, &layer->first, name, 2 * n, &n, 3, true, error));
    snprintf(name, sizeof name, "decoder.%d.conv.2", index);
    LT_TRY(find_conv(tae, &layer->second, name, n, &n, 3, true, error));
    snprintf(name, sizeof name, "decoder.%d.conv.4", index);
    LT_TRY(find_conv(tae, &layer->third, name, n, &n, 3, true, error));
    return make_memory(tae, layer, n, error);
}

static lt_status add_conv(struct tae *tae, int index, int64_t *width, bool has_bias, bool relu,
                          bool doubles, struct lt_error *error)
{
    struct layer *layer = &tae->layer[tae->layer_count++];
    char name[64];
    int64_t out = 0;
    *layer = (struct layer){.kind = CONV, .relu = relu, .doubles = doubles};
    snprintf(name, sizeof name, "decoder.%d", index);
    LT_TRY(find_conv(tae, &layer->first, name, *width, &out, 3, has_bias, error));
    *width = out;
    return LT_OK;
}

static lt_status add_grow(struct tae *tae, int index, int64_t width, struct lt_error *error)
{
    struct layer *layer = &tae->layer[tae->layer_count++];
    char name[64];
    int64_t out = 0;
    layer->kind = GROW;
    snprintf(name, sizeof name, "decoder.%d.conv", index);
    LT_TRY(find_conv(tae, &layer->first, name, width, &out, 1, false, error));
    layer->grown = out / width;
    if (out % width != 0 || layer->grown > 4)
        return lt_fail(error, LT_BAD_INPUT, "layer '%s': %lld channels become %lld", name,
                       (long long)width, (long long)out);
    tae->grown *= layer->grown;
    return LT_OK;
}

static lt_status build(struct tae *tae, struct lt_error *error)
{
    struct lt_view bias, weight;
    LT_TRY(store_tensor(tae->store, "decoder.1.bias", &bias, error));
    LT_TRY(store_tensor(tae->store, "decoder.1.weight", &weight, error));
    const int64_t first = lt_view_count(&bias);
    int64_t width = first ? lt_view_count(&weight) / (9 * first) : 0;
    tae->latent_channels = width;
    tae->grown = 1;
    LT_TRY(add_conv(tae, 1, &width, true, true, false, error));
    for (int level = 0; level < LEVELS; level++) {
        const int index = FIRST_BLOCK + PER_LEVEL * level;
        const bool last = level == LEVELS - 1;
        for (int block = 0; block < BLOCKS; block++)
            LT_TRY(add_memory(tae, index + block, width, error));
        LT_TRY(add_grow(tae, index + BLOCKS + 1, width, error));
        LT_TRY(add_conv(tae, index + BLOCKS + 2, &width, false, last, true, error));
    }
    LT_TRY(add_conv(tae, FIRST_BLOCK + PER_LEVEL * LEVELS + 1, &width, true, false, false, error));
    if (width != 3 && width != 12)
        return lt_fail(error, LT_BAD_INPUT,
                       "a preview decoder that gives %lld channels, expected 3 or 12",
                       (long long)width);
    tae->fold = width == 12 ? 2 : 1;
    return LT_OK;
}

lt_status tae_create(const struct store *store, const struct lt_kernels *kernels,
                     struct lt_exec *exec, struct tae **tae_out, struct lt_error *error)
{
    struct tae *tae = calloc(1, sizeof *tae);
    if (!tae)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a preview decoder");
    tae->store = store;
    tae->kernels = kernels;
    tae->exec = tae->frames.exec = exec;
    tae->type = lt_exec_precision(exec) == LT_PRECISION_BF16 ? LT_TYPE_BF16 : LT_TYPE_F32;
    const lt_status status = build(tae, error);
    if (status != LT_OK) {
        tae_destroy(&tae);
        return status;
    }
    *tae_out = tae;
    return LT_OK;
}

static void forget(struct tae *tae)
{
    for (int i = 0; i < tae->layer_count; i++)
        tae->layer[i].before = (struct lt_view){0};
    frames_give_all(&tae->frames);
}

void tae_destroy(struct tae **tae)
{
    if (!*tae)
        return;
    forget(*tae);
    for (int i = 0; i < (*tae)->layer_count; i++)
        lt_exec_give((*tae)->exec, (*tae)->layer[i].made, (*tae)->layer[i].made_bytes);
    free(*tae);
    *tae = NULL;
}

int64_t tae_latent_channels(const struct tae *tae)
{
    return tae->latent_channels;
}

int64_t tae_scale(const struct tae *tae)
{
    return 8 * tae->fold;
}

int64_t tae_frames(const struct tae *tae, int64_t latent_frames)
{
    return tae->grown * (latent_frames - 1) + 1;
}

size_t tae_peak_bytes(const struct tae *tae)
{
    return tae->frames.peak_bytes;
}

/* -- scratch ----------------------------------------------------------------------------------- */

static lt_status join_conv(const struct tae *tae, const struct lt_view *weight, bool has_bias,
                           bool has_past, bool has_add, int64_t rows, int64_t columns, int up,
                           struct lt_scratch *most, struct lt_error *error)
{
    static char hollow[1]; /* only whether there is data counts */
    const int64_t co = weight->dim[0], ci = weight->dim[1];
    const int pad = (int)(weight->dim[weight->rank - 1] - 1) / 2;
    const struct lt_view in = lt_view_4d(hollow, tae->type, 1, rows, columns, ci),
                         out = lt_view_4d(hollow, tae->type, 1, up * rows, up * columns, co),
                         bias = lt_view_1d(hollow, LT_TYPE_F32, co), none = {0};
    const struct lt_conv_args args = {.out = out,
                                      .in = in,
                                      .past = has_past ? in : none,
                                      .weight = *weight,
                                      .bias = has_bias ? bias : none,
                                      .add = has_add ? out : none,
                                      .stride_time = 1,
                                      .stride_space = 1,
                                      .pad_top = pad,
                                      .pad_bottom = pad,
                                      .pad_left = pad,
                                      .pad_right = pad,
                                      .upsample = up == 2};
    struct lt_scratch one;
    LT_TRY(lt_scratch_conv_of(lt_exec_precision(tae->exec), &args, &one, error));
    lt_scratch_join(most, &one);
    return LT_OK;
}

lt_status tae_scratch(const struct tae *tae, int64_t rows, int64_t columns,
                      struct lt_scratch *scratch_out, struct lt_error *error)
{
    struct lt_scratch most = {0};
    for (int i = 0; i < tae->layer_count; i++) {
        const struct layer *layer = &tae->layer[i];
        struct lt_view first = layer->first.weight;
        const int up = layer->doubles ? 2 : 1;
        if (layer->kind == GROW) /* a frame at a time */
            first = lt_view_rows(&first, 0, first.dim[1]);
        LT_TRY(join_conv(tae, &first, layer->first.bias.data != NULL, layer->kind == MEMORY, false,
                         rows, columns, up, &most, error));
        if (layer->kind == MEMORY) {
            LT_TRY(join_conv(tae, &layer->second.weight, true, false, false, rows, columns, 1,
                             &most, error));
            LT_TRY(join_conv(tae, &layer->third.weight, true, false, true, rows, columns, 1, &most,
                             error));
        }
        rows *= up;
        columns *= up;
    }
    *scratch_out = most;
    return LT_OK;
}

/* -- one frame --------------------------------------------------------------------------------- */

static lt_status run_conv(struct tae *tae, const struct conv *conv, const struct lt_view *in,
                          const struct lt_view *past, const struct lt_view *add, bool doubles,
                          struct lt_view *out, struct lt_error *error)
{
    const int pad = (int)(conv->weight.dim[conv->weight.rank - 1] - 1) / 2, up = doubles ? 2 : 1;
    if (!out->data)
        LT_TRY(frames_take(&tae->frames, tae->type, up * in->dim[1], up * in->dim[2],
                           conv->weight.dim[0], out, error));
    return LT_OP(conv, tae->kernels, tae->exec, error, .out = *out, .in = *in, .past = *past,
                 .weight = conv->weight, .bias = conv->bias, .add = *add, .stride_time = 1,
                 .stride_space = 1, .pad_top = pad, .pad_bottom = pad, .pad_left = pad,
                 .pad_right = pad, .upsample = doubles);
}

static lt_status relu(struct tae *tae, const struct lt_view *frame, struct lt_error *error)
{
    return LT_OP(activate, tae->kernels, tae->exec, error, .out = *frame, .in = *frame,
                 .activation = LT_ACTIVATION_RELU);
}

/* The frame stays, as what the block remembers; its result takes its place. */
static lt_status run_memory(struct tae *tae, struct layer *layer, struct lt_view *frame,
                            struct lt_error *error)
{
    const struct lt_view nothing = {0};
    struct lt_view a = {0}, b = {0};
    LT_TRY(run_conv(tae, &layer->first, frame, &layer->before, &nothing, false, &a, error));
    frames_give(&tae->frames, &layer->before);
    LT_TRY(relu(tae, &a, error));
    LT_TRY(run_conv(tae, &layer->second, &a, &nothing, &nothing, false, &b, error));
    LT_TRY(relu(tae, &b, error));
    LT_TRY(run_conv(tae, &layer->third, &b, &nothing, frame, false, &a, error));
    LT_TRY(relu(tae, &a, error));
    frames_give(&tae->frames, &b);
    layer->before = *frame;
    *frame = a;
    return LT_OK;
}

static lt_status give(struct tae *tae, struct sink *sink, const struct lt_view *frame,
                      struct lt_error *error)
{
    const int64_t fold = tae->fold, columns = fold * frame->dim[2], channels = frame->dim[3];
    struct lt_view values;
    if (sink->index++ < sink->drop)
        return LT_OK;
    LT_TRY(frames_values(&tae->frames, frame, &values, error));
    for (int64_t y = 0; y < fold * frame->dim[1]; y++)
        for (int64_t x = 0; x < columns; x++)
            for (int64_t c = 0; c < 3; c++) { /* the row of a block is slower than the column */
                const int64_t pixel = y / fold * frame->dim[2] + x / fold;
                const int64_t channel = (c * fold + y % fold) * fold + x % fold;
                const float value = frame_get(&values, pixel * channels + channel);
                sink->rgb[(y * columns + x) * 3 + c] = 2 * (value < 0   ? 0
                                                            : value > 1 ? 1
                                                                        : value) -
                                                       1;
            }
    return sink->on_frame(sink->context, sink->index - 1 - sink->drop, sink->rgb, error);
}

/* Consumes the frame. */
static lt_status push(struct tae *tae, int index, struct lt_view *frame, struct sink *sink,
                      struct lt_error *error)
{
    const struct lt_view nothing = {0};
    for (; index < tae->layer_count; index++) {
        struct layer *layer = &tae->layer[index];
        struct lt_view out = {0};
        if (layer->kind == MEMORY) {
            LT_TRY(run_memory(tae, layer, frame, error));
            continue;
        }
        if (layer->kind == GROW)
            break;
        LT_TRY(
            run_conv(tae, &layer->first, frame, &nothing, &nothing, layer->doubles, &out, error));
        if (layer->relu)
            LT_TRY(relu(tae, &out, error));
        frames_give(&tae->frames, frame);
        *frame = out;
    }
    if (index == tae->layer_count) {
        LT_TRY(give(tae, sink, frame, error));
        frames_give(&tae->frames, frame);
        return LT_OK;
    }
    const struct layer *grow = &tae->layer[index];
    const int64_t width = frame->dim[3];
    for (int64_t i = 0; i < grow->grown; i++) {
        const struct conv part = {.weight = lt_view_rows(&grow->first.weight, i * width, width)};
        struct lt_view out = {0};
        LT_TRY(run_conv(tae, &part, frame, &nothing, &nothing, false, &out, error));
        LT_TRY(push(tae, index + 1, &out, sink, error));
    }
    frames_give(&tae->frames, frame);
    return LT_OK;
}

/* -- decode ------------------------------------------------------------------------------------ */

/* Latents softly clamped to ±3. */
static lt_status load_frame(const struct tae *tae, const struct lt_view *from, int64_t t,
                            const struct lt_view *frame, struct lt_error *error)
{
    struct lt_view values;
    LT_TRY(frames_open(&tae->frames, frame, &values, error));
    const int64_t channels = from->dim[0], area = from->dim[2] * from->dim[3];
    for (int64_t c = 0; c < channels; c++) {
        const float *plane = (const float *)from->data + (c * from->dim[1] + t) * area;
        for (int64_t i = 0; i < area; i++)
            frame_put(&values, i * channels + c, 3 * tanhf(plane[i] / 3));
    }
    return frames_close(&tae->frames, frame, error);
}

lt_status tae_decode(struct tae *tae, const struct lt_view *latents, vae_frame *on_frame,
                     void *context, struct lt_error *error)
{
    const int64_t scale = tae_scale(tae);
    lt_status status = LT_OK;
    if (latents->rank != 4 || latents->dim[0] != tae->latent_channels || latents->dim[1] < 1 ||
        latents->dim[2] < 1 || latents->dim[3] < 1)
        return lt_fail(error, LT_BAD_INPUT, "latents: expected [%lld, T, h, w], found [%lld, …]",
                       (long long)tae->latent_channels, (long long)latents->dim[0]);
    struct sink sink = {.on_frame = on_frame, .context = context, .drop = tae->grown - 1};
    sink.rgb =
        malloc((size_t)(latents->dim[2] * latents->dim[3] * scale * scale * 3) * sizeof *sink.rgb);
    if (!sink.rgb)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a preview frame");
    forget(tae);
    tae->frames.peak_bytes = 0;
    for (int64_t t = 0; t < latents->dim[1] && status == LT_OK; t++) {
        struct lt_view frame;
        status = frames_take(&tae->frames, tae->type, latents->dim[2], latents->dim[3],
                             latents->dim[0], &frame, error);
        if (status != LT_OK)
            break;
        status = load_frame(tae, latents, t, &frame, error);
        if (status == LT_OK)
            status = push(tae, 0, &frame, &sink, error);
    }
    forget(tae);
    free(sink.rgb);
    return status;
}
