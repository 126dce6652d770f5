/* A chain of layers; a frame is pushed into the first, and each layer pushes what it makes into the
 * next at once. So only one frame is alive at every level, and only convolutions over time remember
 * anything: their last two inputs.
 *
 *   upsample3d   the first frame passes, every later one gives two     (encoders.md 1.4, rule 2)
 *   downsample3d the first frame passes, every second later one gives one              (rule 3) */
#include "worker/model/vae.h"

#include "common/arena.h"
#include "common/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS_MAX = 64, NAME_BYTES = 96 };

enum layer_kind { LAYER_CONV, LAYER_HEAD, LAYER_RESIDUAL, LAYER_ATTENTION, LAYER_UP, LAYER_DOWN };

struct conv {
    struct lt_view weight, bias;
    int64_t in, out, taps;
    void *history; /* up to two frames of input, oldest first */
    int64_t remembered;
    size_t frame_bytes;
};

struct layer {
    enum layer_kind kind;
    struct conv first, second, shortcut, time; /* those the kind uses; weight.data NULL: absent */
    struct lt_view norm_first, norm_second;
    struct lt_view qkv, qkv_bias, proj, proj_bias;
    int64_t frames; /* seen since the start of the sequence */
};

struct vae {
    enum vae_part part;
    struct store *store;
    const struct lt_kernels *kernels;
    struct lt_exec *exec;
    enum lt_type type; /* of activations */
    int64_t latent_channels;
    struct layer layer[LAYERS_MAX];
    int layer_count;
    struct lt_arena arena;
    size_t history_bytes, peak_bytes;
};

/* Where finished frames go. */
struct sink {
    lt_status (*take)(struct sink *sink, const struct lt_view *frame, struct lt_error *error);
    vae_frame *on_frame;
    void *context;
    struct lt_view latents;
    int64_t index;
    float *rgb;
};

static const float latent_mean[16] = {-0.7571f, -0.7089f, -0.9113f, 0.1075f,  -0.1745f, 0.9653f,
                                      -0.1517f, 1.5508f,  0.4134f,  -0.0715f, 0.5517f,  -0.3632f,
                                      -0.1922f, -0.9497f, 0.2503f,  -0.2921f};
static const float latent_std[16] = {2.8184f, 1.4541f, 2.3275f, 2.6558f, 1.2196f, 1.7708f,
                                     2.6052f, 2.0743f, 3.2687f, 2.1526f, 2.8652f, 1.5579f,
                                     1.6382f, 1.1253f, 2.8251f, 1.9160f};

/* -- building ---------------------------------------------------------------------------------- */

bool vae_wants(void *part, const char *name)
{
    const bool decoder = *(const enum vae_part *)part == VAE_DECODER;
    return strncmp(name, decoder ? "decoder." : "encoder.", 8) == 0 ||
           strncmp(name, decoder ? "conv2." : "conv1.", 6) == 0;
}

static lt_status find_conv(struct vae *vae, struct conv *conv, const char *name,
                           struct lt_error *error)
{
    char full[NAME_BYTES + 48];
    *conv = (struct conv){0};
    snprintf(full, sizeof full, "%s.weight", name);
    LT_TRY(store_tensor(vae->store, full, &conv->weight, error));
    if (conv->weight.rank != 4 && conv->weight.rank != 5)
        return lt_fail(error, LT_BAD_INPUT,
                       "tensor '%s': a convolution has 4 or 5 dimensions, found %d", full,
                       conv->weight.rank);
    conv->out = conv->weight.dim[0];
    conv->in = conv->weight.dim[1];
    conv->taps = conv->weight.rank == 5 ? conv->weight.dim[2] : 1;
    snprintf(full, sizeof full, "%s.bias", name);
    return store_tensor_shaped(vae->store, full, 1, &conv->out, &conv->bias, error);
}

static lt_status find_norm(struct vae *vae, struct lt_view *gamma, int64_t channels,
                           const char *name, struct lt_error *error)
{
    return store_tensor_shaped(vae->store, name, 1, &channels, gamma, error);
}

static lt_status check_width(int64_t expected, int64_t found, const char *name,
                             struct lt_error *error)
{
    if (expected == found)
        return LT_OK;
    return lt_fail(error, LT_BAD_INPUT,
                   "layer '%s': takes %lld channels, the layer before gives %lld", name,
                   (long long)found, (long long)expected);
}

static struct layer *add(struct vae *vae, enum layer_kind kind)
{
    lt_assert(vae->layer_count < LAYERS_MAX);
    struct layer *layer = &vae->layer[vae->layer_count++];
    *layer = (struct layer){.kind = kind};
    return layer;
}

static lt_status add_conv(struct vae *vae, const char *name, int64_t *width, struct lt_error *error)
{
    struct layer *layer = add(vae, LAYER_CONV);
    LT_TRY(find_conv(vae, &layer->first, name, error));
    LT_TRY(check_width(*width, layer->first.in, name, error));
    *width = layer->first.out;
    return LT_OK;
}

static lt_status add_head(struct vae *vae, const char *prefix, int64_t *width,
                          struct lt_error *error)
{
    struct layer *layer = add(vae, LAYER_HEAD);
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%s.head.0.gamma", prefix);
    LT_TRY(find_norm(vae, &layer->norm_first, *width, name, error));
    snprintf(name, sizeof name, "%s.head.2", prefix);
    LT_TRY(find_conv(vae, &layer->first, name, error));
    LT_TRY(check_width(*width, layer->first.in, name, error));
    *width = layer->first.out;
    return LT_OK;
}

static lt_status add_residual(struct vae *vae, const char *prefix, int64_t *width,
                              struct lt_error *error)
{
    struct layer *layer = add(vae, LAYER_RESIDUAL);
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%s.residual.0.gamma", prefix);
    LT_TRY(find_norm(vae, &layer->norm_first, *width, name, error));
    snprintf(name, sizeof name, "%s.residual.2", prefix);
    LT_TRY(find_conv(vae, &layer->first, name, error));
    LT_TRY(check_width(*width, layer->first.in, name, error));
    snprintf(name, sizeof name, "%s.residual.3.gamma", prefix);
    LT_TRY(find_norm(vae, &layer->norm_second, layer->first.out, name, error));
    snprintf(name, sizeof name, "%s.residual.6", prefix);
    LT_TRY(find_conv(vae, &layer->second, name, error));
    LT_TRY(check_width(layer->first.out, layer->second.in, name, error));
    if (layer->second.out != *width) {
        snprintf(name, sizeof name, "%s.shortcut", prefix);
        LT_TRY(find_conv(vae, &layer->shortcut, name, error));
    }
    *width = layer->second.out;
    return LT_OK;
}

static lt_status add_attention(struct vae *vae, const char *prefix, int64_t width,
                               struct lt_error *error)
{
    struct layer *layer = add(vae, LAYER_ATTENTION);
    char name[NAME_BYTES + 32];
    const int64_t wide = 3 * width;
    snprintf(name, sizeof name, "%s.norm.gamma", prefix);
    LT_TRY(find_norm(vae, &layer->norm_first, width, name, error));
    snprintf(name, sizeof name, "%s.to_qkv.weight", prefix);
    LT_TRY(store_tensor_shaped(vae->store, name, 2, (int64_t[]){wide, width}, &layer->qkv, error));
    snprintf(name, sizeof name, "%s.to_qkv.bias", prefix);
    LT_TRY(store_tensor_shaped(vae->store, name, 1, &wide, &layer->qkv_bias, error));
    snprintf(name, sizeof name, "%s.proj.weight", prefix);
    LT_TRY(
        store_tensor_shaped(vae->store, name, 2, (int64_t[]){width, width}, &layer->proj, error));
    snprintf(name, sizeof name, "%s.proj.bias", prefix);
    return store_tensor_shaped(vae->store, name, 1, &width, &layer->proj_bias, error);
}

static lt_status add_resample(struct vae *vae, enum layer_kind kind, const char *prefix,
                              int64_t *width, struct lt_error *error)
{
    struct layer *layer = add(vae, kind);
    char name[NAME_BYTES + 32];
    snprintf(name, sizeof name, "%s.resample.1", prefix);
    LT_TRY(find_conv(vae, &layer->first, name, error));
    LT_TRY(check_width(*width, layer->first.in, name, error));
    snprintf(name, sizeof name, "%s.time_conv.weight", prefix);
    if (store_has(vae->store, name)) {
        snprintf(name, sizeof name, "%s.time_conv", prefix);
        LT_TRY(find_conv(vae, &layer->time, name, error));
        const int64_t out = kind == LAYER_UP ? 2 * *width : *width;
        if (layer->time.in != *width || layer->time.out != out || layer->time.taps != 3)
            return lt_fail(error, LT_BAD_INPUT,
                           "layer '%s': expected 3 taps, %lld to %lld channels", name,
                           (long long)*width, (long long)out);
    }
    *width = layer->first.out;
    return LT_OK;
}

static lt_status add_middle(struct vae *vae, const char *prefix, int64_t *width,
                            struct lt_error *error)
{
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%s.middle.0", prefix);
    LT_TRY(add_residual(vae, name, width, error));
    snprintf(name, sizeof name, "%s.middle.1", prefix);
    LT_TRY(add_attention(vae, name, *width, error));
    snprintf(name, sizeof name, "%s.middle.2", prefix);
    return add_residual(vae, name, width, error);
}

/* upsamples.0, .1, … or downsamples.…: what each is shows in its tensors. */
static lt_status add_levels(struct vae *vae, const char *prefix, enum layer_kind resample,
                            int64_t *width, struct lt_error *error)
{
    for (int n = 0;; n++) {
        char name[NAME_BYTES], probe[NAME_BYTES + 32];
        snprintf(name, sizeof name, "%s.%d", prefix, n);
        snprintf(probe, sizeof probe, "%s.residual.2.weight", name);
        if (store_has(vae->store, probe)) {
            LT_TRY(add_residual(vae, name, width, error));
            continue;
        }
        snprintf(probe, sizeof probe, "%s.resample.1.weight", name);
        if (!store_has(vae->store, probe))
            return LT_OK;
        LT_TRY(add_resample(vae, resample, name, width, error));
    }
}

static lt_status build(struct vae *vae, struct lt_error *error)
{
    struct lt_view top;
    int64_t width = 3;
    if (vae->part == VAE_ENCODER) {
        LT_TRY(add_conv(vae, "encoder.conv1", &width, error));
        LT_TRY(add_levels(vae, "encoder.downsamples", LAYER_DOWN, &width, error));
        LT_TRY(add_middle(vae, "encoder", &width, error));
        LT_TRY(add_head(vae, "encoder", &width, error));
        LT_TRY(add_conv(vae, "conv1", &width, error));
        vae->latent_channels = width / 2; /* mean, then log-variance */
        return LT_OK;
    }
    if (store_has(vae->store, "decoder.upsamples.0.upsamples.0.residual.2.weight"))
        return lt_fail(error, LT_UNSUPPORTED,
                       "a Wan 2.2 VAE with 48 channels, which is not built yet");
    LT_TRY(store_tensor(vae->store, "conv2.weight", &top, error));
    vae->latent_channels = width = top.dim[0];
    LT_TRY(add_conv(vae, "conv2", &width, error));
    LT_TRY(add_conv(vae, "decoder.conv1", &width, error));
    LT_TRY(add_middle(vae, "decoder", &width, error));
    LT_TRY(add_levels(vae, "decoder.upsamples", LAYER_UP, &width, error));
    LT_TRY(add_head(vae, "decoder", &width, error));
    return width == 3 ? LT_OK
                      : lt_fail(error, LT_BAD_INPUT, "the decoder gives %lld channels, expected 3",
                                (long long)width);
}

lt_status vae_create(enum vae_part part, struct store *store, const struct lt_kernels *kernels,
                     struct lt_exec *exec, struct vae **vae_out, struct lt_error *error)
{
    struct vae *vae = calloc(1, sizeof *vae);
    if (!vae)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a VAE");
    vae->part = part;
    vae->store = store;
    vae->kernels = kernels;
    vae->exec = exec;
    vae->type = lt_exec_precision(exec) == LT_PRECISION_BF16 ? LT_TYPE_BF16 : LT_TYPE_F32;
    lt_arena_init(&vae->arena, 0);
    const lt_status status = build(vae, error);
    if (status != LT_OK) {
        vae_destroy(&vae);
        return status;
    }
    *vae_out = vae;
    return LT_OK;
}

static void forget(struct vae *vae)
{
    for (int i = 0; i < vae->layer_count; i++) {
        struct conv *const convs[] = {&vae->layer[i].first, &vae->layer[i].second,
                                      &vae->layer[i].time};
        for (size_t j = 0; j < LT_COUNT(convs); j++) {
            free(convs[j]->history);
            convs[j]->history = NULL;
            convs[j]->remembered = 0;
        }
        vae->layer[i].frames = 0;
    }
    vae->history_bytes = 0;
}

void vae_destroy(struct vae **vae)
{
    if (!*vae)
        return;
    forget(*vae);
    lt_arena_fini(&(*vae)->arena);
    free(*vae);
    *vae = NULL;
}

int64_t vae_latent_channels(const struct vae *vae)
{
    return vae->latent_channels;
}

size_t vae_peak_bytes(const struct vae *vae)
{
    return vae->peak_bytes;
}

/* -- steps on one frame [1, Y, X, C] ----------------------------------------------------------- */

static lt_status take_frame(struct vae *vae, struct lt_view *frame, int64_t rows, int64_t columns,
                            int64_t channels, struct lt_error *error)
{
    uint64_t bytes = 0;
    lt_type_bytes(vae->type, (uint64_t)(rows * columns * channels), &bytes);
    void *data = lt_arena_take(&vae->arena, bytes);
    if (!data)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a [%lld, %lld, %lld] frame",
                       (long long)rows, (long long)columns, (long long)channels);
    *frame = lt_view_4d(data, vae->type, 1, rows, columns, channels);
    const size_t now = vae->history_bytes + vae->arena.used_bytes;
    vae->peak_bytes = now > vae->peak_bytes ? now : vae->peak_bytes;
    return LT_OK;
}

static struct lt_view history_view(const struct vae *vae, const struct conv *conv,
                                   const struct lt_view *in)
{
    if (conv->remembered == 0)
        return (struct lt_view){0};
    return lt_view_4d(conv->history, vae->type, conv->remembered, in->dim[1], in->dim[2],
                      in->dim[3]);
}

/* Keeps the frame as the newest of the conv's last two inputs. */
static lt_status remember(struct vae *vae, struct conv *conv, const struct lt_view *in,
                          struct lt_error *error)
{
    uint64_t bytes = 0;
    lt_type_bytes(vae->type, (uint64_t)lt_view_count(in), &bytes);
    if (!conv->history) {
        conv->history = malloc(2 * bytes);
        if (!conv->history)
            return lt_fail(error, LT_NO_MEMORY, "no memory for the history of a convolution");
        conv->frame_bytes = bytes;
        vae->history_bytes += 2 * bytes;
    }
    if (conv->remembered == 2)
        memcpy(conv->history, (char *)conv->history + bytes, bytes);
    else
        conv->remembered++;
    memcpy((char *)conv->history + (size_t)(conv->remembered - 1) * bytes, in->data, bytes);
    return LT_OK;
}

/* A "same" convolution, causal in time; `add` may be absent. Remembers its input when it has
 * temporal taps. */
static lt_status run_conv(struct vae *vae, struct conv *conv, const struct lt_view *in,
                          const struct lt_view *add, const struct lt_view *out,
                          struct lt_error *error)
{
    const int pad = (int)(conv->weight.dim[conv->weight.rank - 1] - 1) / 2;
    const int64_t rank = conv->weight.rank;
    LT_TRY(LT_OP(conv, vae->kernels, vae->exec, error, .out = *out, .in = *in,
                 .past = conv->taps > 1 ? history_view(vae, conv, in) : (struct lt_view){0},
                 .weight = conv->weight, .bias = conv->bias,
                 .add = add ? *add : (struct lt_view){0}, .stride_time = 1, .stride_space = 1,
                 .pad_top = (int)(conv->weight.dim[rank - 2] - 1) / 2,
                 .pad_bottom = (int)(conv->weight.dim[rank - 2] - 1) / 2, .pad_left = pad,
                 .pad_right = pad));
    return conv->taps > 1 ? remember(vae, conv, in, error) : LT_OK;
}

static lt_status norm_silu(struct vae *vae, const struct lt_view *gamma, const struct lt_view *in,
                           const struct lt_view *out, struct lt_error *error)
{
    return LT_OP(channel_norm, vae->kernels, vae->exec, error, .out = *out, .in = *in,
                 .gamma = *gamma, .activation = LT_ACTIVATION_SILU);
}

static lt_status run_residual(struct vae *vae, struct layer *layer, const struct lt_view *in,
                              const struct lt_view *out, struct lt_error *error)
{
    struct lt_view normed, middle, shortcut = *in;
    const int64_t y = in->dim[1], x = in->dim[2];
    LT_TRY(take_frame(vae, &normed, y, x, layer->first.in, error));
    LT_TRY(take_frame(vae, &middle, y, x, layer->first.out, error));
    LT_TRY(norm_silu(vae, &layer->norm_first, in, &normed, error));
    LT_TRY(run_conv(vae, &layer->first, &normed, NULL, &middle, error));
    LT_TRY(norm_silu(vae, &layer->norm_second, &middle, &middle, error));
    if (layer->shortcut.weight.data) {
        LT_TRY(run_conv(vae, &layer->shortcut, in, NULL, out, error));
        shortcut = *out; /* added in place */
    }
    return run_conv(vae, &layer->second, &middle, &shortcut, out, error);
}

/* Single head over all positions of the frame, in f32: the widths are small here. */
static lt_status run_attention(struct vae *vae, struct layer *layer, const struct lt_view *in,
                               const struct lt_view *out, struct lt_error *error)
{
    const int64_t c = in->dim[3], tokens = in->dim[1] * in->dim[2];
    float *memory = lt_arena_take_array(&vae->arena, (size_t)(5 * tokens * c), sizeof *memory);
    if (!memory)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the attention of a frame");
    const struct lt_view normed = lt_view_2d(memory, LT_TYPE_F32, tokens, c);
    const struct lt_view qkv = lt_view_2d(memory + tokens * c, LT_TYPE_F32, tokens, 3 * c);
    const struct lt_view mixed = lt_view_2d(memory + 4 * tokens * c, LT_TYPE_F32, tokens, c);
    struct lt_view part[3];
    for (int i = 0; i < 3; i++) {
        part[i] = lt_view_3d((float *)qkv.data + i * c, LT_TYPE_F32, tokens, 1, c);
        part[i].stride[0] = 3 * c;
    }
    LT_TRY(LT_OP(convert, vae->kernels, vae->exec, error, .out = normed, .in = *in));
    LT_TRY(LT_OP(channel_norm, vae->kernels, vae->exec, error, .out = normed, .in = normed,
                 .gamma = layer->norm_first));
    LT_TRY(LT_OP(linear, vae->kernels, vae->exec, error, .out = qkv, .in = normed,
                 .weight = layer->qkv, .bias = layer->qkv_bias));
    LT_TRY(LT_OP(attention, vae->kernels, vae->exec, error,
                 .out = lt_view_3d(mixed.data, LT_TYPE_F32, tokens, 1, c), .q = part[0],
                 .k = part[1], .v = part[2], .scale = 1.0f / sqrtf((float)c)));
    LT_TRY(LT_OP(linear, vae->kernels, vae->exec, error, .out = normed, .in = mixed,
                 .weight = layer->proj, .bias = layer->proj_bias));
    LT_TRY(LT_OP(convert, vae->kernels, vae->exec, error, .out = mixed, .in = *in));
    LT_TRY(LT_OP(gated_add, vae->kernels, vae->exec, error, .out = mixed, .residual = mixed,
                 .in = normed));
    return LT_OP(convert, vae->kernels, vae->exec, error, .out = *out, .in = mixed);
}

/* -- the chain --------------------------------------------------------------------------------- */

static lt_status push(struct vae *vae, int index, const struct lt_view *in, struct sink *sink,
                      struct lt_error *error);

/* Nearest x2 and the spatial convolution, then on to the next layer. */
static lt_status push_upsampled(struct vae *vae, int index, const struct lt_view *in,
                                struct sink *sink, struct lt_error *error)
{
    struct layer *layer = &vae->layer[index];
    struct lt_view out;
    const struct lt_mark mark = lt_arena_mark(&vae->arena);
    LT_TRY(take_frame(vae, &out, 2 * in->dim[1], 2 * in->dim[2], layer->first.out, error));
    LT_TRY(LT_OP(conv, vae->kernels, vae->exec, error, .out = out, .in = *in,
                 .weight = layer->first.weight, .bias = layer->first.bias, .stride_time = 1,
                 .stride_space = 1, .pad_top = 1, .pad_bottom = 1, .pad_left = 1, .pad_right = 1,
                 .upsample = true));
    const lt_status status = push(vae, index + 1, &out, sink, error);
    lt_arena_rewind(&vae->arena, mark);
    return status;
}

static lt_status run_up(struct vae *vae, int index, const struct lt_view *in, struct sink *sink,
                        struct lt_error *error)
{
    struct layer *layer = &vae->layer[index];
    struct conv *time = &layer->time;
    if (!time->weight.data || layer->frames++ == 0) /* the first frame never enters the history */
        return push_upsampled(vae, index, in, sink, error);
    const int64_t half = time->out / 2;
    for (int64_t i = 0; i < 2; i++) { /* channels 0…C-1 are the earlier frame */
        struct lt_view frame;
        const struct lt_mark mark = lt_arena_mark(&vae->arena);
        LT_TRY(take_frame(vae, &frame, in->dim[1], in->dim[2], half, error));
        LT_TRY(LT_OP(conv, vae->kernels, vae->exec, error, .out = frame, .in = *in,
                     .past = history_view(vae, time, in),
                     .weight = lt_view_rows(&time->weight, i * half, half),
                     .bias = lt_view_rows(&time->bias, i * half, half), .stride_time = 1,
                     .stride_space = 1));
        const lt_status status = push_upsampled(vae, index, &frame, sink, error);
        lt_arena_rewind(&vae->arena, mark);
        LT_TRY(status);
    }
    return remember(vae, time, in, error);
}

static lt_status run_down(struct vae *vae, int index, const struct lt_view *in, struct sink *sink,
                          struct lt_error *error)
{
    struct layer *layer = &vae->layer[index];
    struct conv *time = &layer->time;
    struct lt_view small, out;
    LT_TRY(take_frame(vae, &small, in->dim[1] / 2, in->dim[2] / 2, layer->first.out, error));
    LT_TRY(LT_OP(conv, vae->kernels, vae->exec, error, .out = small, .in = *in,
                 .weight = layer->first.weight, .bias = layer->first.bias, .stride_time = 1,
                 .stride_space = 2, .pad_bottom = 1, .pad_right = 1));
    if (!time->weight.data)
        return push(vae, index + 1, &small, sink, error);
    const int64_t number = layer->frames++;
    if (number == 0)
        LT_TRY(push(vae, index + 1, &small, sink, error));
    if (number == 0 || number % 2 == 1)
        return remember(vae, time, &small, error);
    LT_TRY(take_frame(vae, &out, small.dim[1], small.dim[2], time->out, error));
    LT_TRY(LT_OP(conv, vae->kernels, vae->exec, error, .out = out, .in = small,
                 .past = history_view(vae, time, &small), .weight = time->weight,
                 .bias = time->bias, .stride_time = 1, .stride_space = 1));
    LT_TRY(remember(vae, time, &small, error));
    return push(vae, index + 1, &out, sink, error);
}

static lt_status run_layer(struct vae *vae, int index, const struct lt_view *in, struct sink *sink,
                           struct lt_error *error)
{
    struct layer *layer = &vae->layer[index];
    struct lt_view out, normed;
    const int64_t y = in->dim[1], x = in->dim[2];
    if (layer->kind == LAYER_UP)
        return run_up(vae, index, in, sink, error);
    if (layer->kind == LAYER_DOWN)
        return run_down(vae, index, in, sink, error);
    const int64_t width = layer->kind == LAYER_RESIDUAL    ? layer->second.out
                          : layer->kind == LAYER_ATTENTION ? in->dim[3]
                                                           : layer->first.out;
    LT_TRY(take_frame(vae, &out, y, x, width, error));
    const struct lt_mark mark = lt_arena_mark(&vae->arena);
    switch (layer->kind) {
    case LAYER_RESIDUAL:
        LT_TRY(run_residual(vae, layer, in, &out, error));
        break;
    case LAYER_ATTENTION:
        LT_TRY(run_attention(vae, layer, in, &out, error));
        break;
    case LAYER_HEAD:
        LT_TRY(take_frame(vae, &normed, y, x, in->dim[3], error));
        LT_TRY(norm_silu(vae, &layer->norm_first, in, &normed, error));
        LT_TRY(run_conv(vae, &layer->first, &normed, NULL, &out, error));
        break;
    default:
        LT_TRY(run_conv(vae, &layer->first, in, NULL, &out, error));
        break;
    }
    lt_arena_rewind(&vae->arena, mark);
    return push(vae, index + 1, &out, sink, error);
}

/* Layers pass frames of equal size along by recursion; each level's frame dies with its call. */
static lt_status push(struct vae *vae, int index, const struct lt_view *in, struct sink *sink,
                      struct lt_error *error)
{
    if (index == vae->layer_count)
        return sink->take(sink, in, error);
    const struct lt_mark mark = lt_arena_mark(&vae->arena);
    const lt_status status = run_layer(vae, index, in, sink, error);
    lt_arena_rewind(&vae->arena, mark);
    return status;
}

/* -- decode and encode ------------------------------------------------------------------------- */

static void put_value(const struct lt_view *frame, int64_t index, float value)
{
    if (frame->type == LT_TYPE_F32)
        ((float *)frame->data)[index] = value;
    else
        ((uint16_t *)frame->data)[index] = lt_f32_to_bf16(value);
}

static float get_value(const struct lt_view *frame, int64_t index)
{
    return frame->type == LT_TYPE_F32 ? ((const float *)frame->data)[index]
                                      : lt_bf16_to_f32(((const uint16_t *)frame->data)[index]);
}

static lt_status take_pixels(struct sink *sink, const struct lt_view *frame, struct lt_error *error)
{
    const int64_t count = lt_view_count(frame);
    for (int64_t i = 0; i < count; i++) {
        const float value = get_value(frame, i);
        sink->rgb[i] = value < -1 ? -1 : value > 1 ? 1 : value;
    }
    return sink->on_frame(sink->context, sink->index++, sink->rgb, error);
}

/* Frame `t` of [C, T, H, W] as [1, H, W, C], value · scale[c] + offset[c] where tables are given.
 */
static void load_frame(const struct lt_view *from, int64_t t, const float *scale,
                       const float *offset, const struct lt_view *frame)
{
    const int64_t channels = from->dim[0], area = from->dim[2] * from->dim[3];
    for (int64_t c = 0; c < channels; c++) {
        const float *plane = (const float *)from->data + (c * from->dim[1] + t) * area;
        for (int64_t i = 0; i < area; i++)
            put_value(frame, i * channels + c, scale ? plane[i] * scale[c] + offset[c] : plane[i]);
    }
}

static lt_status run(struct vae *vae, const struct lt_view *from, int64_t frames,
                     const float *scale, const float *offset, struct sink *sink, atomic_uint *done,
                     struct lt_error *error)
{
    lt_status status = LT_OK;
    forget(vae);
    vae->peak_bytes = 0;
    for (int64_t t = 0; t < frames && status == LT_OK; t++) {
        struct lt_view frame;
        const struct lt_mark mark = lt_arena_mark(&vae->arena);
        status = take_frame(vae, &frame, from->dim[2], from->dim[3], from->dim[0], error);
        if (status == LT_OK) {
            load_frame(from, t, scale, offset, &frame);
            status = push(vae, 0, &frame, sink, error);
        }
        lt_arena_rewind(&vae->arena, mark);
        if (done)
            atomic_fetch_add(done, 1);
    }
    forget(vae);
    lt_arena_fini(&vae->arena);
    return status;
}

lt_status vae_decode(struct vae *vae, const struct lt_view *latents, vae_frame *on_frame,
                     void *context, atomic_uint *done, struct lt_error *error)
{
    lt_assert(vae->part == VAE_DECODER);
    if (latents->rank != 4 || latents->dim[0] != vae->latent_channels || latents->dim[1] < 1)
        return lt_fail(error, LT_BAD_INPUT, "latents: expected [%lld, T, h, w], found [%lld, …]",
                       (long long)vae->latent_channels, (long long)latents->dim[0]);
    struct sink sink = {.take = take_pixels, .on_frame = on_frame, .context = context};
    sink.rgb = malloc((size_t)(latents->dim[2] * latents->dim[3] * VAE_SCALE * VAE_SCALE * 3) *
                      sizeof *sink.rgb);
    if (!sink.rgb)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a decoded frame");
    const bool known = vae->latent_channels == 16; /* other files carry no statistics */
    const lt_status status = run(vae, latents, latents->dim[1], known ? latent_std : NULL,
                                 latent_mean, &sink, done, error);
    free(sink.rgb);
    return status;
}

static lt_status take_latent(struct sink *sink, const struct lt_view *frame, struct lt_error *error)
{
    (void)error;
    const struct lt_view *to = &sink->latents;
    const int64_t z = to->dim[0], area = to->dim[2] * to->dim[3];
    lt_assert(sink->index < to->dim[1] && lt_view_count(frame) == 2 * z * area);
    for (int64_t c = 0; c < z; c++)
        for (int64_t i = 0; i < area; i++) {
            const float mean = get_value(frame, i * 2 * z + c);
            ((float *)to->data)[(c * to->dim[1] + sink->index) * area + i] =
                z == 16 ? (mean - latent_mean[c]) * (1.0f / latent_std[c]) : mean;
        }
    sink->index++;
    return LT_OK;
}

lt_status vae_encode(struct vae *vae, const struct lt_view *pixels, struct lt_view *latents,
                     atomic_uint *done, struct lt_error *error)
{
    lt_assert(vae->part == VAE_ENCODER);
    if (pixels->rank != 4 || pixels->dim[0] != 3 || pixels->dim[1] < 1 ||
        pixels->dim[2] % VAE_SCALE || pixels->dim[3] % VAE_SCALE || pixels->dim[2] < 1 ||
        pixels->dim[3] < 1)
        return lt_fail(error, LT_BAD_INPUT,
                       "pixels: expected [3, F, H, W] with H and W multiples of 8, found [%lld, "
                       "%lld, %lld, %lld]",
                       (long long)pixels->dim[0], (long long)pixels->dim[1],
                       (long long)pixels->dim[2], (long long)pixels->dim[3]);
    const int64_t frames = (pixels->dim[1] - 1) / 4 * 4 + 1;
    lt_assert(latents->rank == 4 && latents->dim[0] == vae->latent_channels &&
              latents->dim[1] == (frames - 1) / 4 + 1 &&
              latents->dim[2] == pixels->dim[2] / VAE_SCALE &&
              latents->dim[3] == pixels->dim[3] / VAE_SCALE);
    struct sink sink = {.take = take_latent, .latents = *latents};
    return run(vae, pixels, frames, NULL, NULL, &sink, done, error);
}
