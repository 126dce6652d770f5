/* wav2vec2-base as the talk models use it (encoders.md 9.2, steps 3 to 7):
 *
 *   H = linear(LN(features)) ; H = LN(H + gelu(position_conv(H)))
 *   per layer: A = LN(H + o(attention(q, k, v of H))) ; H' = LN(A + w2·gelu(w1·A))
 *
 * H' of layer n is slot n of the output and is read there by layer n + 1. Buffers, all [F, width]:
 * H until the first layer is through; A, Q, K, V of a layer, Q also what is added; the hidden of
 * the feed-forward exists for a chunk of rows. */
#include "worker/model/audio_parts.h"

#include "common/loudness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FFN_CHUNK = 2048 };
static const float EPSILON = 1e-5f;

struct norm {
    struct lt_view weight, bias;
};

struct layer {
    struct linear q, k, v, o, ffn_in, ffn_out;
    struct norm attention_norm, final_norm;
};

/* -- weights ----------------------------------------------------------------------------------- */

static lt_status find_norm(const struct net *net, struct norm *norm, int64_t width,
                           const char *name, struct lt_error *error)
{
    LT_TRY(net_tensor(net, &norm->weight, 1, &width, error, "%s.weight", name));
    return net_tensor(net, &norm->bias, 1, &width, error, "%s.bias", name);
}

static lt_status find_layer(const struct audio *audio, size_t n, struct layer *layer,
                            struct lt_error *error)
{
    const struct net *net = &audio->net;
    const int64_t d = audio->config.width, ffn = audio->config.ffn_dim;
    const struct {
        const char *name;
        struct linear *linear;
        int64_t out, in;
    } linears[] = {
        {"attn.q", &layer->q, d, d},       {"attn.k", &layer->k, d, d},
        {"attn.v", &layer->v, d, d},       {"attn.o", &layer->o, d, d},
        {"ffn.0", &layer->ffn_in, ffn, d}, {"ffn.2", &layer->ffn_out, d, ffn},
    };
    char name[96];
    for (size_t i = 0; i < LT_COUNT(linears); i++) {
        snprintf(name, sizeof name, "blocks.%zu.%s", n, linears[i].name);
        LT_TRY(net_linear(net, linears[i].linear, linears[i].out, linears[i].in, error, name));
    }
    snprintf(name, sizeof name, "blocks.%zu.norm1", n);
    LT_TRY(find_norm(net, &layer->attention_norm, d, name, error));
    snprintf(name, sizeof name, "blocks.%zu.norm2", n);
    return find_norm(net, &layer->final_norm, d, name, error);
}

/* w[o, k, i] = g[k] · v[o, i, k] / ‖v[:, :, k]‖: one norm a tap, over all channels. */
static void normalise_taps(const float *g, const float *v, int64_t rows, int64_t taps, int64_t in,
                           float *to)
{
    for (int64_t k = 0; k < taps; k++) {
        double sum = 0;
        for (int64_t i = 0; i < rows * in; i++)
            sum += (double)v[i * taps + k] * (double)v[i * taps + k];
        const double scale = g[k] / sqrt(sum);
        for (int64_t o = 0; o < rows; o++)
            for (int64_t i = 0; i < in; i++)
                to[(o * taps + k) * in + i] = (float)(scale * v[(o * in + i) * taps + k]);
    }
}

static lt_status prepare_position(struct audio *audio, struct lt_error *error)
{
    const struct audio_config *c = &audio->config;
    struct net *net = &audio->net;
    const int64_t d = c->width, taps = c->position_taps, in = d / c->position_groups;
    struct lt_view stored_g, stored_v, g, v;
    const float *g_values, *v_values;
    float *to;
    LT_TRY(audio_prepared(&audio->prepared, &audio->position, d, taps * in, error));
    LT_TRY(net_tensor(net, &stored_g, 1, &taps, error, "encoder.pos_conv_embed.conv.weight_g"));
    LT_TRY(net_tensor(net, &stored_v, 3, (int64_t[]){d, in, taps}, error,
                      "encoder.pos_conv_embed.conv.weight_v"));
    const struct net_mark mark = net_mark(net);
    LT_TRY(net_take(net, &g, 1, taps, error));
    LT_TRY(net_take(net, &v, d, in * taps, error));
    LT_TRY(LT_OP(convert, net->kernels, net->exec, error, .out = g, .in = stored_g));
    LT_TRY(LT_OP(convert, net->kernels, net->exec, error, .out = v, .in = stored_v));
    LT_TRY(net_values(net, &g, &g_values, error));
    LT_TRY(net_values(net, &v, &v_values, error));
    LT_TRY(net_open(net, &audio->position, &to, error));
    normalise_taps(g_values, v_values, d, taps, in, to);
    LT_TRY(net_close(net, &audio->position, to, error));
    net_rewind(net, mark);
    return LT_OK;
}

static lt_status prepare(struct audio *audio, struct lt_error *error)
{
    const struct audio_config *c = &audio->config;
    struct norm norm;
    LT_TRY(audio_prepare_features(audio, error));
    LT_TRY(prepare_position(audio, error));
    LT_TRY(find_norm(&audio->net, &norm, c->width, "encoder.layer_norm", error));
    LT_TRY(find_norm(&audio->net, &norm, c->conv_width[AUDIO_CONVS - 1],
                     "feature_projection.layer_norm", error));
    for (size_t n = 0; n < (size_t)c->layer_count; n++) {
        struct layer layer;
        LT_TRY(find_layer(audio, n, &layer, error)); /* shapes: nothing is fetched */
    }
    return LT_OK;
}

lt_status audio_create(const struct audio_config *config, struct store *store,
                       const struct lt_kernels *kernels, struct lt_exec *exec,
                       struct audio **audio_out, struct lt_error *error)
{
    if (config->layer_count < 1 || config->head_count < 1 ||
        config->width % config->head_count != 0)
        return lt_fail(error, LT_BAD_INPUT, "%lld layers of width %lld with %lld heads",
                       (long long)config->layer_count, (long long)config->width,
                       (long long)config->head_count);
    struct audio *audio = calloc(1, sizeof *audio);
    if (!audio)
        return lt_fail(error, LT_NO_MEMORY, "no memory for an audio encoder");
    audio->config = *config;
    audio->net = (struct net){.store = store, .kernels = kernels, .exec = exec};
    net_init(&audio->net);
    lt_exec_arena_init(exec, &audio->prepared);
    lt_arena_init(&audio->read, 0);
    const lt_status status = prepare(audio, error);
    if (status != LT_OK) {
        audio_destroy(&audio);
        return status;
    }
    net_fini(&audio->net); /* what preparing took is not needed again */
    net_init(&audio->net);
    *audio_out = audio;
    return LT_OK;
}

void audio_destroy(struct audio **audio)
{
    if (!*audio)
        return;
    net_fini(&(*audio)->net);
    lt_arena_fini(&(*audio)->prepared);
    lt_arena_fini(&(*audio)->read);
    free(*audio);
    *audio = NULL;
}

size_t audio_prepared_bytes(const struct audio_config *config)
{
    const int64_t d = config->width;
    size_t bytes = audio_room(d * config->position_taps * (d / config->position_groups)) +
                   2 * audio_room(config->conv_width[0]);
    for (int i = 0; i < AUDIO_CONVS; i++)
        bytes += audio_room(config->conv_width[i] * config->conv_taps[i] *
                            (i > 0 ? config->conv_width[i - 1] : 1));
    return bytes;
}

/* -- small steps ------------------------------------------------------------------------------- */

static lt_status apply_norm(struct audio *audio, const struct norm *norm, const struct lt_view *in,
                            const struct lt_view *out, struct lt_error *error)
{
    return LT_OP(layer_norm, audio->net.kernels, audio->net.exec, error, .out = *out, .in = *in,
                 .weight = norm->weight, .bias = norm->bias, .epsilon = EPSILON);
}

static lt_status sum(struct audio *audio, const struct lt_view *out, const struct lt_view *a,
                     const struct lt_view *b, struct lt_error *error)
{
    return LT_OP(gated_add, audio->net.kernels, audio->net.exec, error, .out = *out, .residual = *a,
                 .in = *b);
}

/* -- position ---------------------------------------------------------------------------------- */

/* Columns [first, first + count) of a matrix. */
static struct lt_view columns(const struct lt_view *view, int64_t first, int64_t count)
{
    struct lt_view part = *view;
    part.data = (float *)view->data + first;
    part.dim[1] = count;
    return part;
}

/* The channels of one group, between the zeros that the convolution sees beyond the clip: 0 + h is
 * h. */
static lt_status pad_group(struct audio *audio, const struct lt_view *h, int64_t group,
                           int64_t before, const struct lt_view *padded, struct lt_error *error)
{
    const int64_t in = padded->dim[1];
    const struct lt_view rows = lt_view_rows(padded, before, h->dim[0]),
                         part = columns(h, group * in, in);
    LT_TRY(net_zero(&audio->net, padded, error));
    return sum(audio, &rows, &rows, &part, error);
}

/* h = LN(h + gelu(conv(h))): groups of channels, taps around each frame; of an even number of taps
 * one more lies before the frame. */
static lt_status add_position(struct audio *audio, const struct lt_view *h, struct lt_error *error)
{
    const struct audio_config *c = &audio->config;
    struct net *net = &audio->net;
    const int64_t frames = h->dim[0], d = c->width, taps = c->position_taps,
                  in = d / c->position_groups;
    struct lt_view position, padded, bias;
    struct norm norm;
    LT_TRY(net_tensor(net, &bias, 1, &d, error, "encoder.pos_conv_embed.conv.bias"));
    LT_TRY(find_norm(net, &norm, d, "encoder.layer_norm", error));
    LT_TRY(net_take(net, &position, frames, d, error));
    LT_TRY(net_take(net, &padded, frames + taps - 1, in, error));
    for (int64_t group = 0; group < c->position_groups; group++) {
        LT_TRY(pad_group(audio, h, group, taps / 2, &padded, error));
        struct lt_view windows = lt_view_2d(padded.data, LT_TYPE_F32, frames, taps * in);
        windows.stride[0] = in; /* rows overlap: the next one begins a frame later */
        const struct linear conv = {.weight = lt_view_rows(&audio->position, group * in, in),
                                    .bias = lt_view_rows(&bias, group * in, in)};
        const struct lt_view out = columns(&position, group * in, in);
        LT_TRY(net_apply(net, &conv, &windows, &out, LT_ACTIVATION_GELU_ERF, false, error));
    }
    LT_TRY(sum(audio, h, h, &position, error));
    return apply_norm(audio, &norm, h, h, error);
}

/* -- layers ------------------------------------------------------------------------------------ */

struct buffers {
    struct lt_view a, q, k, v; /* [F, width] */
    struct lt_view hidden;     /* [FFN_CHUNK, ffn] */
};

static lt_status take_buffers(struct audio *audio, int64_t frames, struct buffers *b,
                              struct lt_error *error)
{
    struct lt_view *const wide[] = {&b->a, &b->q, &b->k, &b->v};
    for (size_t i = 0; i < LT_COUNT(wide); i++)
        LT_TRY(net_take(&audio->net, wide[i], frames, audio->config.width, error));
    return net_take(&audio->net, &b->hidden, frames < FFN_CHUNK ? frames : FFN_CHUNK,
                    audio->config.ffn_dim, error);
}

static struct lt_view heads(const struct audio *audio, const struct lt_view *x)
{
    const int64_t count = audio->config.head_count;
    return lt_view_reshape(x, 3, (int64_t[]){x->dim[0], count, x->dim[1] / count});
}

static lt_status attend(struct audio *audio, const struct layer *w, const struct lt_view *h,
                        struct buffers *b, struct lt_error *error)
{
    struct net *net = &audio->net;
    const float width = (float)(audio->config.width / audio->config.head_count);
    LT_TRY(net_apply(net, &w->q, h, &b->q, LT_ACTIVATION_NONE, false, error));
    LT_TRY(net_apply(net, &w->k, h, &b->k, LT_ACTIVATION_NONE, false, error));
    LT_TRY(net_apply(net, &w->v, h, &b->v, LT_ACTIVATION_NONE, false, error));
    LT_TRY(LT_OP(attention, net->kernels, net->exec, error, .out = heads(audio, &b->a),
                 .q = heads(audio, &b->q), .k = heads(audio, &b->k), .v = heads(audio, &b->v),
                 .scale = 1.0f / sqrtf(width)));
    LT_TRY(net_apply(net, &w->o, &b->a, &b->q, LT_ACTIVATION_NONE, false, error));
    LT_TRY(sum(audio, &b->a, h, &b->q, error));
    return apply_norm(audio, &w->attention_norm, &b->a, &b->a, error);
}

static lt_status feed_forward(struct audio *audio, const struct layer *w, struct buffers *b,
                              const struct lt_view *out, struct lt_error *error)
{
    for (int64_t first = 0; first < b->a.dim[0]; first += FFN_CHUNK) {
        const int64_t left = b->a.dim[0] - first, count = left < FFN_CHUNK ? left : FFN_CHUNK;
        const struct lt_view in = lt_view_rows(&b->a, first, count),
                             to = lt_view_rows(&b->q, first, count),
                             hidden = lt_view_rows(&b->hidden, 0, count);
        LT_TRY(
            net_apply(&audio->net, &w->ffn_in, &in, &hidden, LT_ACTIVATION_GELU_ERF, false, error));
        LT_TRY(net_apply(&audio->net, &w->ffn_out, &hidden, &to, LT_ACTIVATION_NONE, false, error));
    }
    LT_TRY(sum(audio, &b->a, &b->a, &b->q, error));
    return apply_norm(audio, &w->final_norm, &b->a, out, error);
}

static lt_status run_layer(struct audio *audio, size_t n, const struct lt_view *in,
                           struct buffers *b, const struct lt_view *out, struct lt_error *error)
{
    struct layer layer;
    LT_TRY(find_layer(audio, n, &layer, error));
    LT_TRY(attend(audio, &layer, in, b, error));
    return feed_forward(audio, &layer, b, out, error);
}

/* out[:, n, :] as a matrix whose rows stand layer_count · width apart. */
static struct lt_view slot(const struct lt_view *out, int64_t n)
{
    struct lt_view rows =
        lt_view_2d((float *)out->data + n * out->stride[1], LT_TYPE_F32, out->dim[0], out->dim[2]);
    rows.stride[0] = out->stride[0];
    return rows;
}

/* Brings a layer's result to its slot. */
static lt_status give_layer(struct audio *audio, const struct lt_view *result,
                            const struct lt_view *slot, struct lt_error *error)
{
    struct net *net = &audio->net;
    const struct net_mark mark = net_mark(net);
    const float *values;
    LT_TRY(net_values(net, result, &values, error));
    for (int64_t f = 0; f < slot->dim[0]; f++)
        memcpy((float *)slot->data + f * slot->stride[0], values + f * slot->dim[1],
               (size_t)slot->dim[1] * sizeof *values);
    net_rewind(net, mark);
    return LT_OK;
}

/* On a device a layer's result takes the place of its input. */
static lt_status run_layers(struct audio *audio, const struct lt_view *h, struct lt_view *out,
                            struct lt_error *error)
{
    const bool host = lt_exec_is_host(audio->net.exec);
    struct buffers b;
    struct lt_view in = *h;
    LT_TRY(take_buffers(audio, h->dim[0], &b, error));
    for (int64_t n = 0; n < audio->config.layer_count; n++) {
        const struct lt_view place = slot(out, n), to = host ? place : *h;
        LT_TRY(store_acquire(audio->net.store, (size_t)n, error));
        const lt_status status = run_layer(audio, (size_t)n, &in, &b, &to, error);
        store_release(audio->net.store, (size_t)n);
        LT_TRY(status);
        if (!host)
            LT_TRY(give_layer(audio, &to, &place, error));
        in = to;
    }
    return LT_OK;
}

/* -- a clip ------------------------------------------------------------------------------------ */

int64_t audio_frame_count(int64_t count)
{
    return (int64_t)((double)count / AUDIO_RATE * AUDIO_FPS);
}

static lt_status check_inputs(const struct audio *audio, const struct audio_inputs *inputs,
                              const struct lt_view *out, struct lt_error *error)
{
    const struct audio_config *c = &audio->config;
    const int64_t frames = audio_frame_count(inputs->count);
    if (frames < 1 || audio_feature_count(c, inputs->count) < 1)
        return lt_fail(error, LT_BAD_INPUT,
                       "samples: %lld at %d Hz are shorter than one video frame",
                       (long long)inputs->count, AUDIO_RATE);
    for (int64_t i = 0; i < inputs->count; i++)
        if (!isfinite(inputs->samples[i]))
            return lt_fail(error, LT_BAD_INPUT, "samples: sample %lld is not finite", (long long)i);
    lt_assert(out->rank == 3 && out->dim[0] == frames && out->dim[1] == c->layer_count &&
              out->dim[2] == c->width);
    return LT_OK;
}

/* Loudness first, then mean and variance of what that gave: (x - μ) / √(σ² + 1e-7). */
static lt_status find_level(const struct audio_inputs *inputs, struct audio_level *level,
                            struct lt_error *error)
{
    double lufs = NAN, mean = 0, variance = 0;
    *level = (struct audio_level){.gain = 1};
    if (!isnan(inputs->loudness)) {
        LT_TRY(
            lt_loudness_measure(inputs->samples, (size_t)inputs->count, AUDIO_RATE, &lufs, error));
        level->gain = lt_loudness_gain(lufs, inputs->loudness);
    }
    if (!inputs->normalize)
        return LT_OK;
    for (int64_t i = 0; i < inputs->count; i++)
        mean += inputs->samples[i];
    mean /= (double)inputs->count;
    for (int64_t i = 0; i < inputs->count; i++)
        variance += (inputs->samples[i] - mean) * (inputs->samples[i] - mean);
    variance *= level->gain * level->gain / (double)inputs->count;
    const double scale = 1 / sqrt(variance + 1e-7);
    level->offset = -mean * level->gain * scale;
    level->gain *= scale;
    return LT_OK;
}

static lt_status project(struct audio *audio, const struct audio_inputs *inputs,
                         const struct lt_view *h, struct lt_error *error)
{
    const int64_t width = audio->config.conv_width[AUDIO_CONVS - 1];
    struct audio_level level;
    struct lt_view features;
    struct norm norm;
    struct linear projection;
    LT_TRY(find_norm(&audio->net, &norm, width, "feature_projection.layer_norm", error));
    LT_TRY(net_linear(&audio->net, &projection, audio->config.width, width, error,
                      "feature_projection.projection"));
    LT_TRY(find_level(inputs, &level, error));
    LT_TRY(net_take(&audio->net, &features, h->dim[0], width, error));
    LT_TRY(audio_features(audio, inputs, level, &features, error));
    LT_TRY(apply_norm(audio, &norm, &features, &features, error));
    return net_apply(&audio->net, &projection, &features, h, LT_ACTIVATION_NONE, false, error);
}

static lt_status encode(struct audio *audio, const struct audio_inputs *inputs, struct lt_view *out,
                        struct lt_error *error)
{
    struct lt_view h;
    LT_TRY(net_take(&audio->net, &h, out->dim[0], audio->config.width, error));
    const struct net_mark mark = net_mark(&audio->net);
    LT_TRY(project(audio, inputs, &h, error));
    net_rewind(&audio->net, mark);
    LT_TRY(add_position(audio, &h, error));
    net_rewind(&audio->net, mark);
    return run_layers(audio, &h, out, error);
}

lt_status audio_encode(struct audio *audio, const struct audio_inputs *inputs, struct lt_view *out,
                       struct lt_error *error)
{
    LT_TRY(check_inputs(audio, inputs, out, error));
    const struct net_mark mark = net_mark(&audio->net);
    const lt_status status = encode(audio, inputs, out, error);
    net_rewind(&audio->net, mark);
    return status;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

size_t audio_activation_bytes(const struct audio_config *config, int64_t count)
{
    const int64_t frames = audio_frame_count(count), d = config->width,
                  chunk = frames < FFN_CHUNK ? frames : FFN_CHUNK;
    const size_t wide = audio_room(frames * d);
    const size_t features = audio_room(frames * config->conv_width[AUDIO_CONVS - 1]) +
                            audio_features_bytes(config, count);
    const size_t position =
        wide + audio_room((frames + config->position_taps - 1) * (d / config->position_groups));
    const size_t layers = 4 * wide + audio_room(chunk * config->ffn_dim);
    return wide + larger(features, larger(position, layers));
}

size_t audio_peak_bytes(const struct audio *audio)
{
    return audio->net.arena.peak_bytes;
}

lt_status audio_scratch(const struct audio_config *config, enum lt_precision precision,
                        int64_t count, struct lt_scratch *scratch_out, struct lt_error *error)
{
    const int64_t frames = audio_frame_count(count), d = config->width, ffn = config->ffn_dim,
                  chunk = frames < FFN_CHUNK ? frames : FFN_CHUNK, in = d / config->position_groups;
    const int64_t shapes[][3] = {{frames, config->conv_width[AUDIO_CONVS - 1], d},
                                 {frames, config->position_taps * in, in},
                                 {frames, d, d},
                                 {chunk, d, ffn},
                                 {chunk, ffn, d}};
    struct lt_scratch most, one;
    LT_TRY(lt_scratch_attention(precision, frames, config->head_count, d / config->head_count,
                                &most, error));
    LT_TRY(audio_features_scratch(config, precision, count, &most, error));
    for (size_t i = 0; i < LT_COUNT(shapes); i++) {
        LT_TRY(lt_scratch_linear(precision, shapes[i][0], shapes[i][1], shapes[i][2], false, &one,
                                 error));
        lt_scratch_join(&most, &one);
    }
    *scratch_out = most;
    return LT_OK;
}
