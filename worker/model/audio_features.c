/* Samples to features at the video's frames (encoders.md 9.2, steps 1 and 2).
 *
 *   samples ─ conv 10/5 ─ norm over the clip ─ gelu ─ conv 3/2 ─ gelu ─ … ─ conv 2/2 ─ gelu ─ lerp
 *
 * A convolution over time is a product: with the channel fastest, the `taps` steps that an output
 * sees are consecutive values, so its input is a view whose rows overlap (row stride · channels)
 * and nothing is copied or unrolled.
 *
 * The norm behind the first convolution is per channel over the whole clip, 3,200 steps a second.
 * Those steps need not exist to be averaged: y = w·x is linear in the window x, so its mean is
 * w·E[x] and its variance w·Cov[x]·wᵀ, and E and Cov are 10 and 10 × 10 numbers of the samples. The
 * norm is then folded into the first convolution's weights, and the clip goes through all seven in
 * pieces. */
#include "worker/model/audio_parts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PIECE_FEATURES = 128, MOMENT_STEPS = 1 << 16, TAPS_MAX = 64 };

static const int64_t strides[AUDIO_CONVS] = {5, 2, 2, 2, 2, 2, 2};
static const double EPSILON = 1e-5;

int64_t audio_conv_steps(const struct audio_config *config, int conv, int64_t count)
{
    return count < config->conv_taps[conv] ? 0
                                           : (count - config->conv_taps[conv]) / strides[conv] + 1;
}

int64_t audio_feature_count(const struct audio_config *config, int64_t count)
{
    for (int i = 0; i < AUDIO_CONVS; i++)
        count = audio_conv_steps(config, i, count);
    return count;
}

/* -- weights ----------------------------------------------------------------------------------- */

lt_status audio_prepared(struct lt_arena *arena, struct lt_view *view_out, int64_t rows,
                         int64_t columns, struct lt_error *error)
{
    float *data = lt_arena_take_array(arena, (size_t)(rows * columns), sizeof *data);
    if (!data)
        return lt_fail(error, LT_NO_MEMORY, "no memory for [%lld, %lld] weights", (long long)rows,
                       (long long)columns);
    *view_out = lt_view_2d(data, LT_TYPE_F32, rows, columns);
    return LT_OK;
}

/* A small tensor as f32. */
static lt_status prepare_vector(struct audio *audio, const char *name, int64_t count,
                                struct lt_view *view, struct lt_error *error)
{
    struct lt_view stored;
    LT_TRY(net_tensor(&audio->net, &stored, 1, &count, error, "%s", name));
    LT_TRY(audio_prepared(&audio->prepared, view, 1, count, error));
    return net_copy(&audio->net, view, &stored, error);
}

/* The same for this code to read. */
static lt_status read_vector(struct audio *audio, const char *name, int64_t count,
                             struct lt_view *view, struct lt_error *error)
{
    struct net *net = &audio->net;
    const struct net_mark mark = net_mark(net);
    struct lt_view stored, plain;
    LT_TRY(net_tensor(net, &stored, 1, &count, error, "%s", name));
    LT_TRY(audio_prepared(&audio->read, view, 1, count, error));
    LT_TRY(net_take(net, &plain, 1, count, error));
    LT_TRY(net_copy(net, &plain, &stored, error));
    LT_TRY(net_get(net, &plain, view->data, error));
    net_rewind(net, mark);
    return LT_OK;
}

/* [out, in, taps] to [out, taps, in]. */
static void turn_taps(const float *from, int64_t out, int64_t in, int64_t taps, float *to)
{
    for (int64_t o = 0; o < out; o++, from += in * taps)
        for (int64_t k = 0; k < taps; k++)
            for (int64_t i = 0; i < in; i++)
                *to++ = from[i * taps + k];
}

/* As stored to f32 with the channel fastest. */
static lt_status prepare_conv(struct audio *audio, int conv, struct lt_error *error)
{
    const struct audio_config *c = &audio->config;
    struct net *net = &audio->net;
    const int64_t out = c->conv_width[conv], taps = c->conv_taps[conv],
                  in = conv > 0 ? c->conv_width[conv - 1] : 1;
    struct lt_view stored, plain, *view = &audio->conv[conv];
    const float *from;
    float *to;
    char name[80];
    LT_TRY(net_tensor(net, &stored, 3, (int64_t[]){out, in, taps}, error,
                      "feature_extractor.conv_layers.%d.conv.weight", conv));
    LT_TRY(audio_prepared(conv ? &audio->prepared : &audio->read, view, out, taps * in, error));
    const struct net_mark mark = net_mark(net);
    LT_TRY(net_take(net, &plain, out, in * taps, error));
    LT_TRY(net_copy(net, &plain, &stored, error));
    LT_TRY(net_values(net, &plain, &from, error));
    if (conv == 0) {
        turn_taps(from, out, in, taps, view->data);
    } else {
        LT_TRY(net_open(net, view, &to, error));
        turn_taps(from, out, in, taps, to);
        LT_TRY(net_close(net, view, to, error));
    }
    net_rewind(net, mark);
    snprintf(name, sizeof name, "feature_extractor.conv_layers.%d.conv.bias", conv);
    return store_has(net->store, name)
               ? prepare_vector(audio, name, out, &audio->conv_bias[conv], error)
               : LT_OK;
}

lt_status audio_prepare_features(struct audio *audio, struct lt_error *error)
{
    static const char norm[] = "feature_extractor.conv_layers.0.layer_norm.";
    char name[80];
    if (audio->config.conv_taps[0] > TAPS_MAX)
        return lt_fail(error, LT_UNSUPPORTED, "a first convolution of %lld taps; %d are supported",
                       (long long)audio->config.conv_taps[0], TAPS_MAX);
    for (int conv = 0; conv < AUDIO_CONVS; conv++)
        LT_TRY(prepare_conv(audio, conv, error));
    snprintf(name, sizeof name, "%sweight", norm);
    LT_TRY(read_vector(audio, name, audio->config.conv_width[0], &audio->norm_weight, error));
    snprintf(name, sizeof name, "%sbias", norm);
    return read_vector(audio, name, audio->config.conv_width[0], &audio->norm_bias, error);
}

/* -- the norm over the clip -------------------------------------------------------------------- */

struct moments { /* of the windows of the first convolution */
    double mean[TAPS_MAX], covariance[TAPS_MAX][TAPS_MAX];
};

static lt_status measure(struct audio *audio, const struct audio_inputs *inputs,
                         struct audio_level level, struct moments *m, struct lt_error *error)
{
    const int64_t taps = audio->config.conv_taps[0],
                  steps = audio_conv_steps(&audio->config, 0, inputs->count);
    memset(m, 0, sizeof *m);
    for (int64_t step = 0; step < steps; step++) {
        const float *x = inputs->samples + step * strides[0];
        double window[TAPS_MAX];
        if (step % MOMENT_STEPS == 0 && lt_exec_cancelled(audio->net.exec))
            return lt_fail(error, LT_CANCELLED, "cancelled");
        for (int64_t i = 0; i < taps; i++)
            window[i] = (float)(level.gain * x[i] + level.offset);
        for (int64_t i = 0; i < taps; i++) {
            m->mean[i] += window[i];
            for (int64_t j = 0; j <= i; j++)
                m->covariance[i][j] += window[i] * window[j];
        }
    }
    for (int64_t i = 0; i < taps; i++)
        m->mean[i] /= (double)steps;
    for (int64_t i = 0; i < taps; i++)
        for (int64_t j = 0; j <= i; j++)
            m->covariance[j][i] = m->covariance[i][j] =
                m->covariance[i][j] / (double)steps - m->mean[i] * m->mean[j];
    return LT_OK;
}

/* norm(w·x + bias) = (w·s)·x + (b - w·E[x]·s), s = gamma / √(variance + eps): a bias of the
 * convolution itself goes out with the mean. */
static void fold_norm(const struct audio *audio, const struct moments *m, float *weight,
                      float *bias)
{
    const int64_t taps = audio->config.conv_taps[0];
    const float *gamma = audio->norm_weight.data, *beta = audio->norm_bias.data;
    for (int64_t o = 0; o < audio->config.conv_width[0]; o++) {
        const float *w = (const float *)audio->conv[0].data + o * taps;
        float *to = weight + o * taps;
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < taps; i++) {
            mean += (double)w[i] * m->mean[i];
            for (int64_t j = 0; j < taps; j++)
                variance += (double)w[i] * (double)w[j] * m->covariance[i][j];
        }
        const double scale = gamma[o] / sqrt(fmax(variance, 0) + EPSILON);
        for (int64_t i = 0; i < taps; i++)
            to[i] = (float)(w[i] * scale);
        bias[o] = (float)(beta[o] - mean * scale);
    }
}

static lt_status make_first(struct audio *audio, const struct moments *m, struct linear *folded,
                            struct lt_error *error)
{
    const struct audio_config *c = &audio->config;
    struct net *net = &audio->net;
    float *weight, *bias;
    LT_TRY(net_take(net, &folded->weight, c->conv_width[0], c->conv_taps[0], error));
    LT_TRY(net_take(net, &folded->bias, 1, c->conv_width[0], error));
    LT_TRY(net_open(net, &folded->weight, &weight, error));
    LT_TRY(net_open(net, &folded->bias, &bias, error));
    fold_norm(audio, m, weight, bias);
    LT_TRY(net_close(net, &folded->weight, weight, error));
    return net_close(net, &folded->bias, bias, error);
}

/* -- pieces ------------------------------------------------------------------------------------ */

/* What features [first, first + count) need: steps [first[i], first[i] + count[i]) of the input of
 * convolution i; entry AUDIO_CONVS: the features themselves. */
struct piece {
    int64_t first[AUDIO_CONVS + 1], count[AUDIO_CONVS + 1];
};

static struct piece piece_of(const struct audio_config *config, int64_t first, int64_t count)
{
    struct piece p;
    p.first[AUDIO_CONVS] = first;
    p.count[AUDIO_CONVS] = count;
    for (int i = AUDIO_CONVS - 1; i >= 0; i--) {
        p.first[i] = p.first[i + 1] * strides[i];
        p.count[i] = (p.count[i + 1] - 1) * strides[i] + config->conv_taps[i];
    }
    return p;
}

/* Steps [steps, channels] as the overlapping windows that a convolution multiplies. */
static struct lt_view windows(const struct audio_config *config, int conv, float *steps,
                              int64_t channels, int64_t rows)
{
    struct lt_view view = lt_view_2d(steps, LT_TYPE_F32, rows, config->conv_taps[conv] * channels);
    view.stride[0] = strides[conv] * channels;
    return view;
}

/* The features of a piece, from the arena. */
static lt_status run_piece(struct audio *audio, const struct audio_inputs *inputs,
                           struct audio_level level, const struct linear *first,
                           const struct piece *p, struct lt_view *features_out,
                           struct lt_error *error)
{
    const struct audio_config *c = &audio->config;
    struct lt_view at;
    float *samples;
    LT_TRY(net_take(&audio->net, &at, p->count[0], 1, error));
    LT_TRY(net_open(&audio->net, &at, &samples, error));
    for (int64_t i = 0; i < p->count[0]; i++)
        samples[i] = (float)(level.gain * inputs->samples[p->first[0] + i] + level.offset);
    LT_TRY(net_close(&audio->net, &at, samples, error));
    for (int i = 0; i < AUDIO_CONVS; i++) {
        const struct lt_view in = windows(c, i, at.data, at.dim[1], p->count[i + 1]);
        const struct linear conv = {.weight = audio->conv[i], .bias = audio->conv_bias[i]};
        struct lt_view out;
        LT_TRY(net_take(&audio->net, &out, p->count[i + 1], c->conv_width[i], error));
        /* samples in bf16 would be noise 48 dB below the voice */
        LT_TRY(net_apply(&audio->net, i ? &conv : first, &in, &out, LT_ACTIVATION_GELU_ERF, i == 0,
                         error));
        at = out;
    }
    *features_out = at;
    return LT_OK;
}

/* torch's linear interpolation with align_corners, its rounding included: position i · (in - 1) /
 * (out - 1) in f32. */
struct lerp {
    int64_t low, high;
    float weight; /* of high */
};

static struct lerp lerp_at(int64_t i, int64_t in, int64_t out)
{
    const float ratio = out > 1 ? (float)(in - 1) / (float)(out - 1) : 0;
    const float position = in == out ? (float)i : ratio * (float)i;
    int64_t low = (int64_t)position;
    low = low < in - 1 ? low : in - 1;
    const float weight = position - (float)low;
    return (struct lerp){low, low < in - 1 ? low + 1 : low, fminf(fmaxf(weight, 0), 1)};
}

static void mix(const float *low, const float *high, float weight, float *to, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        to[i] = (1 - weight) * low[i] + weight * high[i];
}

/* Piece after piece; each begins at the first feature that the next frame needs. */
static lt_status run_pieces(struct audio *audio, const struct audio_inputs *inputs,
                            struct audio_level level, const struct linear *first,
                            const struct lt_view *features, float *to, struct lt_error *error)
{
    const int64_t total = audio_feature_count(&audio->config, inputs->count),
                  frames = features->dim[0], width = features->dim[1];
    for (int64_t frame = 0; frame < frames;) {
        const int64_t begin = lerp_at(frame, total, frames).low;
        const int64_t count = total - begin < PIECE_FEATURES ? total - begin : PIECE_FEATURES;
        const struct piece piece = piece_of(&audio->config, begin, count);
        const struct net_mark mark = net_mark(&audio->net);
        struct lt_view made;
        const float *from;
        LT_TRY(run_piece(audio, inputs, level, first, &piece, &made, error));
        LT_TRY(net_values(&audio->net, &made, &from, error));
        for (; frame < frames; frame++) {
            const struct lerp at = lerp_at(frame, total, frames);
            if (at.high >= begin + count)
                break;
            mix(from + (at.low - begin) * width, from + (at.high - begin) * width, at.weight,
                to + frame * width, width);
        }
        net_rewind(&audio->net, mark);
    }
    return LT_OK;
}

lt_status audio_features(struct audio *audio, const struct audio_inputs *inputs,
                         struct audio_level level, const struct lt_view *features,
                         struct lt_error *error)
{
    struct moments moments;
    struct linear first = {0};
    float *values;
    LT_TRY(measure(audio, inputs, level, &moments, error));
    LT_TRY(make_first(audio, &moments, &first, error));
    LT_TRY(net_open(&audio->net, features, &values, error));
    LT_TRY(run_pieces(audio, inputs, level, &first, features, values, error));
    return net_close(&audio->net, features, values, error);
}

size_t audio_features_bytes(const struct audio_config *config, int64_t count)
{
    const int64_t total = audio_feature_count(config, count);
    const struct piece piece = piece_of(config, 0, total < PIECE_FEATURES ? total : PIECE_FEATURES);
    size_t bytes = audio_room(config->conv_width[0] * config->conv_taps[0]) +
                   audio_room(config->conv_width[0]) + audio_room(piece.count[0]);
    for (int i = 0; i < AUDIO_CONVS; i++)
        bytes += audio_room(piece.count[i + 1] * config->conv_width[i]);
    return bytes;
}

lt_status audio_features_scratch(const struct audio_config *config, enum lt_precision precision,
                                 int64_t count, struct lt_scratch *most, struct lt_error *error)
{
    const int64_t total = audio_feature_count(config, count);
    const struct piece piece = piece_of(config, 0, total < PIECE_FEATURES ? total : PIECE_FEATURES);
    for (int i = 0; i < AUDIO_CONVS; i++) {
        const int64_t in = i > 0 ? config->conv_width[i - 1] : 1;
        struct lt_scratch one;
        LT_TRY(lt_scratch_linear(precision, piece.count[i + 1], config->conv_taps[i] * in,
                                 config->conv_width[i], i == 0, &one, error));
        lt_scratch_join(most, &one);
    }
    return LT_OK;
}
