/* Audio [speakers, 5 + 8·(F-1), 12·768] -> projection, the first frame's and the others' -> tokens
 * [F, speakers·32, 768] -> per block keys and values [F·speakers·32, 2d] -> attention of a frame's
 * picture tokens to that frame's audio tokens. No norms and no gate; queries and keys are turned by
 * speaker when there are several. */
#include "worker/model/talk.h"

#include "worker/model/dit_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* dit.md 4.5: positions of two speakers lie at the ends of a range of 24, of more side by side; a
 * speaker's own range is 4 wide, its keys stand in the middle, nobody stands at 12. */
enum { CLASS_WIDTH = 4, CLASS_RANGE = 24, NOBODY = 12 };

static double first_position(int64_t speaker, int64_t speakers)
{
    return speakers == 2 && speaker == 1 ? CLASS_RANGE - CLASS_WIDTH
                                         : (double)(CLASS_WIDTH * speaker);
}

/* Audio tokens of a latent frame. */
static int64_t tokens_per_frame(const struct talk_context *context)
{
    return context->speakers * context->dit->config.talk.tokens;
}

/* -- weights ----------------------------------------------------------------------------------- */

struct audio_attention {
    struct linear q, kv, out;
    struct lt_view norm_weight, norm_bias;
};

static lt_status find_attention(const struct dit *dit, size_t n, struct audio_attention *a,
                                struct lt_error *error)
{
    const struct net *net = &dit->net;
    const int64_t d = dit->config.dim;
    char name[96];
    snprintf(name, sizeof name, "blocks.%zu.audio_cross_attn.q_linear", n);
    LT_TRY(net_linear(net, &a->q, d, d, error, name));
    snprintf(name, sizeof name, "blocks.%zu.audio_cross_attn.kv_linear", n);
    LT_TRY(net_linear(net, &a->kv, 2 * d, dit->config.talk.dim, error, name));
    snprintf(name, sizeof name, "blocks.%zu.audio_cross_attn.proj", n);
    LT_TRY(net_linear(net, &a->out, d, d, error, name));
    LT_TRY(net_tensor(net, &a->norm_weight, 1, &d, error, "blocks.%zu.norm_x.weight", n));
    return net_tensor(net, &a->norm_bias, 1, &d, error, "blocks.%zu.norm_x.bias", n);
}

struct projection {
    struct linear first, others, second, third;
    struct lt_view norm_weight, norm_bias;
};

static lt_status find_projection(const struct dit *dit, struct projection *p,
                                 struct lt_error *error)
{
    const struct net *net = &dit->net;
    const struct talk_config *c = &dit->config.talk;
    const char *prefix = store_has(net->store, "multitalk_audio_proj.proj1.weight")
                             ? "multitalk_audio_proj"
                             : "audio_proj";
    const struct {
        const char *name;
        struct linear *linear;
        int64_t out, in;
    } parts[] = {
        {"proj1", &p->first, c->hidden, TALK_FIRST_FRAMES * c->features},
        {"proj1_vf", &p->others, c->hidden, TALK_FRAMES * c->features},
        {"proj2", &p->second, c->hidden, c->hidden},
        {"proj3", &p->third, c->tokens * c->dim, c->hidden},
    };
    for (size_t i = 0; i < LT_COUNT(parts); i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.%s", prefix, parts[i].name);
        LT_TRY(net_linear(net, parts[i].linear, parts[i].out, parts[i].in, error, name));
    }
    LT_TRY(net_tensor(net, &p->norm_weight, 1, &c->dim, error, "%s.norm.weight", prefix));
    return net_tensor(net, &p->norm_bias, 1, &c->dim, error, "%s.norm.bias", prefix);
}

lt_status talk_check(const struct dit *dit, struct lt_error *error)
{
    struct projection projection;
    struct audio_attention attention;
    if (dit->config.talk.tokens == 0)
        return LT_OK;
    LT_TRY(find_projection(dit, &projection, error));
    for (size_t n = 0; n < (size_t)dit->config.layer_count; n++)
        LT_TRY(find_attention(dit, n, &attention, error));
    return LT_OK;
}

/* -- tokens (dit.md 4.2) ----------------------------------------------------------------------- */

lt_status talk_project(struct dit *dit, const struct lt_view *audio, const struct lt_view *tokens,
                       struct lt_error *error)
{
    struct net *net = &dit->net;
    const struct talk_config *c = &dit->config.talk;
    const int64_t frames = tokens->dim[0];
    struct projection p;
    struct lt_view hidden, second;
    LT_TRY(find_projection(dit, &p, error));
    LT_TRY(net_take(net, &hidden, frames, c->hidden, error));
    LT_TRY(net_take(net, &second, frames, c->hidden, error));
    const struct lt_view first =
        lt_view_2d(audio->data, LT_TYPE_F32, 1, TALK_FIRST_FRAMES * c->features);
    const struct lt_view first_hidden = lt_view_rows(&hidden, 0, 1);
    LT_TRY(net_apply(net, &p.first, &first, &first_hidden, LT_ACTIVATION_RELU, true, error));
    if (frames > 1) {
        const struct lt_view others =
            lt_view_2d((float *)audio->data + TALK_FIRST_FRAMES * c->features, LT_TYPE_F32,
                       frames - 1, TALK_FRAMES * c->features);
        const struct lt_view others_hidden = lt_view_rows(&hidden, 1, frames - 1);
        LT_TRY(net_apply(net, &p.others, &others, &others_hidden, LT_ACTIVATION_RELU, true, error));
    }
    LT_TRY(net_apply(net, &p.second, &hidden, &second, LT_ACTIVATION_RELU, true, error));
    const struct lt_view wide = lt_view_reshape(tokens, 2, (int64_t[]){frames, c->tokens * c->dim});
    LT_TRY(net_apply(net, &p.third, &second, &wide, LT_ACTIVATION_NONE, true, error));
    const struct lt_view rows = lt_view_reshape(tokens, 2, (int64_t[]){frames * c->tokens, c->dim});
    return LT_OP(layer_norm, net->kernels, net->exec, error, .out = rows, .in = rows,
                 .weight = p.norm_weight, .bias = p.norm_bias, .epsilon = 1e-5f);
}

/* A frame holds the speakers' tokens one after another. */
static lt_status make_tokens(struct talk_context *context, const struct lt_view *audio,
                             struct lt_error *error)
{
    struct dit *dit = context->dit;
    const struct talk_config *c = &dit->config.talk;
    const int64_t frames = context->frames, block = c->tokens * c->dim;
    struct lt_view one, speech;
    context->cache.computed++;
    LT_TRY(dit_cache_keep(&context->cache, &context->tokens, frames * tokens_per_frame(context),
                          c->dim, error));
    LT_TRY(net_take(&dit->net, &one, frames, block, error));
    const struct lt_view tokens = lt_view_reshape(&one, 3, (int64_t[]){frames, c->tokens, c->dim});
    for (int64_t s = 0; s < context->speakers; s++) {
        speech = lt_view_2d((float *)audio->data + s * audio->stride[0], LT_TYPE_F32, audio->dim[1],
                            audio->dim[2]);
        LT_TRY(net_input(&dit->net, &speech, &speech, error));
        LT_TRY(talk_project(dit, &speech, &tokens, error));
        for (int64_t f = 0; f < frames; f++) {
            const struct lt_view from = lt_view_rows(&one, f, 1),
                                 to = lt_view_2d((float *)context->tokens.data +
                                                     (f * context->speakers + s) * block,
                                                 LT_TYPE_F32, 1, block);
            LT_TRY(net_copy(&dit->net, &to, &from, error));
        }
    }
    return LT_OK;
}

/* -- life -------------------------------------------------------------------------------------- */

static lt_status check_window(const struct dit_config *c, const struct talk_window *window,
                              struct lt_error *error)
{
    const struct lt_view *audio = &window->audio, *masks = &window->masks;
    const int64_t speakers = audio->dim[0], others = audio->dim[1] - TALK_FIRST_FRAMES;
    if (audio->rank != 3 || speakers < 1 || speakers > TALK_SPEAKERS_MAX || others < 0 ||
        others % TALK_FRAMES != 0 || audio->dim[2] != c->talk.features)
        return lt_fail(error, LT_BAD_INPUT,
                       "audio: expected [1…%d, 5 + 8·(F-1), %lld], found [%lld, %lld, %lld]",
                       TALK_SPEAKERS_MAX, (long long)c->talk.features, (long long)audio->dim[0],
                       (long long)audio->dim[1], (long long)audio->dim[2]);
    if (speakers > 1 && !masks->data)
        return lt_fail(error, LT_BAD_INPUT,
                       "speaker_masks: %lld speakers need a mask each and one of the background",
                       (long long)speakers);
    if (masks->data && (masks->rank != 3 || masks->dim[0] != speakers + 1))
        return lt_fail(error, LT_BAD_INPUT,
                       "speaker_masks: expected [%lld, h/2, w/2], found [%lld, …]",
                       (long long)speakers + 1, (long long)masks->dim[0]);
    return LT_OK;
}

/* Values of RAM, kept. */
static lt_status keep(struct talk_context *context, struct lt_view *slot,
                      const struct lt_view *values, struct lt_error *error)
{
    LT_TRY(dit_cache_keep(&context->cache, slot, values->dim[0], values->dim[1], error));
    return lt_exec_upload(context->cache.exec, slot->data, values->data,
                          (size_t)lt_view_count(values) * sizeof(float), error);
}

/* Ones and zeros, a column of a head each: values that attention can gather. And of each mask how
 * much it covers, and where its speaker's positions begin. */
static lt_status keep_masks(struct talk_context *context, const struct lt_view *masks,
                            struct lt_error *error)
{
    struct net *net = &context->dit->net;
    const int64_t count = masks->dim[1] * masks->dim[2], columns = masks->dim[0];
    struct lt_view column, classes;
    context->mask_rows = masks->dim[1];
    context->mask_columns = masks->dim[2];
    LT_TRY(net_host(net, &column, count, HEAD_WIDTH, error));
    LT_TRY(net_host(net, &classes, 2, columns, error));
    float *size = classes.data, *first = size + columns;
    memset(column.data, 0, (size_t)(count * HEAD_WIDTH) * sizeof(float));
    for (int64_t c = 0; c < columns; c++) {
        size[c] = 0;
        first[c] = (float)(c < context->speakers ? first_position(c, context->speakers) : NOBODY);
        for (int64_t s = 0; s < count; s++) {
            const bool covered = ((const float *)masks->data)[c * count + s] > 0;
            ((float *)column.data)[s * HEAD_WIDTH + c] = covered;
            size[c] += covered;
        }
    }
    LT_TRY(keep(context, &context->masks, &column, error));
    return keep(context, &context->classes, &classes, error);
}

static lt_status fill(struct talk_context *context, const struct talk_window *window,
                      struct lt_error *error)
{
    struct net *net = &context->dit->net;
    const struct net_mark mark = net_mark(net);
    lt_status status = LT_OK;
    if (context->speakers > 1)
        status = keep_masks(context, &window->masks, error);
    if (status == LT_OK)
        status = make_tokens(context, &window->audio, error);
    net_rewind(net, mark);
    return status;
}

lt_status talk_context_create(struct dit *dit, const struct talk_window *window, size_t cache_bytes,
                              struct talk_context **context_out, struct lt_error *error)
{
    *context_out = NULL;
    if (!window->audio.data || dit->config.talk.tokens == 0)
        return LT_OK;
    LT_TRY(check_window(&dit->config, window, error));
    struct talk_context *context = calloc(1, sizeof *context);
    if (context)
        context->keys = calloc((size_t)dit->config.layer_count, sizeof *context->keys);
    if (!context || !context->keys) {
        free(context);
        return lt_fail(error, LT_NO_MEMORY, "no memory for a window's speech");
    }
    context->dit = dit;
    context->cache = (struct dit_cache){.exec = dit->net.exec, .bytes_max = cache_bytes};
    context->speakers = window->audio.dim[0];
    context->frames = (window->audio.dim[1] - TALK_FIRST_FRAMES) / TALK_FRAMES + 1;
    const lt_status status = fill(context, window, error);
    if (status != LT_OK) {
        talk_context_destroy(&context);
        return status;
    }
    *context_out = context;
    return LT_OK;
}

void talk_context_destroy(struct talk_context **context)
{
    struct talk_context *c = *context;
    if (!c)
        return;
    for (int64_t n = 0; n < c->dit->config.layer_count; n++)
        dit_cache_drop(&c->cache, &c->keys[n]);
    dit_cache_drop(&c->cache, &c->tokens);
    dit_cache_drop(&c->cache, &c->masks);
    dit_cache_drop(&c->cache, &c->classes);
    free(c->keys);
    free(c);
    *context = NULL;
}

size_t talk_context_bytes(const struct talk_context *context)
{
    return context->cache.bytes;
}

uint64_t talk_context_computed(const struct talk_context *context)
{
    return context->cache.computed;
}

lt_status talk_begin(const struct pass *pass, struct lt_error *error)
{
    const struct talk_context *context = pass->inputs->talk;
    const struct lt_view *x = &pass->inputs->x;
    if (!context)
        return LT_OK;
    if (context->frames != x->dim[1])
        return lt_fail(error, LT_BAD_INPUT, "audio: speaks in %lld latent frames, x has %lld",
                       (long long)context->frames, (long long)x->dim[1]);
    if (context->speakers > 1 &&
        (context->mask_rows != x->dim[2] / 2 || context->mask_columns != x->dim[3] / 2))
        return lt_fail(error, LT_BAD_INPUT,
                       "speaker_masks: expected [%lld, %lld, %lld], found [%lld, %lld, %lld]",
                       (long long)context->speakers + 1, (long long)x->dim[2] / 2,
                       (long long)x->dim[3] / 2, (long long)context->speakers + 1,
                       (long long)context->mask_rows, (long long)context->mask_columns);
    return LT_OK;
}

/* -- who is meant (dit.md 4.5) ----------------------------------------------------------------- */

lt_status talk_route(struct talk_context *context, const struct lt_view *q, const struct lt_view *k,
                     const struct lt_view *room, const struct lt_view *maps_out,
                     const struct lt_view *position_out, struct lt_error *error)
{
    struct net *net = &context->dit->net;
    const struct lt_view *masks = &context->masks, *classes = &context->classes;
    const int64_t count = context->speakers + 1;
    const struct lt_view size = lt_view_rows(classes, 0, 1), first = lt_view_rows(classes, 1, 1);
    struct lt_view range;
    LT_TRY(net_take(net, &range, context->speakers, 2, error));
    /* Attention whose values are the masks, the same for all heads, gathers what each query gives
     * to each mask. */
    struct lt_view v = lt_view_3d(masks->data, LT_TYPE_F32, masks->dim[0], k->dim[1], HEAD_WIDTH);
    v.stride[0] = HEAD_WIDTH;
    v.stride[1] = 0;
    LT_TRY(LT_OP(attention, net->kernels, net->exec, error, .out = *room, .q = *q, .k = *k, .v = v,
                 .scale = 1.0f / sqrtf(HEAD_WIDTH)));
    return LT_OP(route, net->kernels, net->exec, error, .position = *position_out,
                 .maps = *maps_out, .range = range, .looks = *room,
                 .size = lt_view_1d(size.data, LT_TYPE_F32, count),
                 .first = lt_view_1d(first.data, LT_TYPE_F32, count), .width = CLASS_WIDTH);
}

/* Rows [first, first + count) of [L, d] or [L, 2d] from `column` on, as [count, H, 128]. */
static struct lt_view heads_at(const struct dit *dit, const struct lt_view *view, int64_t first,
                               int64_t count, int64_t column)
{
    float *data = (float *)view->data + first * view->stride[0] + column;
    struct lt_view heads = lt_view_3d(data, LT_TYPE_F32, count, dit->config.head_count, HEAD_WIDTH);
    heads.stride[0] = view->stride[0];
    return heads;
}

lt_status talk_look(struct forward *f, const struct pass *pass, struct lt_error *error)
{
    struct talk_context *context = pass->inputs->talk;
    if (!context || context->speakers < 2)
        return LT_OK;
    const struct lt_view q = heads_at(f->dit, &f->q, 0, pass->tokens, 0),
                         k = heads_at(f->dit, &f->k, 0, pass->rows * pass->columns, 0),
                         room = heads_at(f->dit, &f->a, 0, pass->tokens, 0),
                         position = lt_view_1d(f->position.data, LT_TYPE_F32, pass->tokens);
    struct lt_view maps;
    const struct net_mark mark = net_mark(&f->dit->net);
    LT_TRY(net_take(&f->dit->net, &maps, context->speakers + 1, pass->tokens, error));
    LT_TRY(talk_route(context, &q, &k, &room, &maps, &position, error));
    net_rewind(&f->dit->net, mark);
    return LT_OK;
}

/* -- attention (dit.md 4.3, 4.4) --------------------------------------------------------------- */

/* Keys of a speaker stand in the middle of its range. */
static lt_status turn_keys(struct talk_context *context, const struct lt_view *both,
                           struct lt_error *error)
{
    struct dit *dit = context->dit;
    const int64_t rows = both->dim[0], each = dit->config.talk.tokens;
    struct lt_view position;
    LT_TRY(net_host(&dit->net, &position, 1, rows, error));
    for (int64_t i = 0; i < rows; i++)
        ((float *)position.data)[i] =
            (float)(first_position(i / each % context->speakers, context->speakers) +
                    CLASS_WIDTH / 2.0);
    LT_TRY(net_input(&dit->net, &position, &position, error));
    const struct lt_view k = heads_at(dit, both, 0, rows, 0);
    return LT_OP(rotate, dit->net.kernels, dit->net.exec, error, .out = k, .in = k,
                 .position = lt_view_1d(position.data, LT_TYPE_F32, rows));
}

/* [F·tokens, 2d]: keys in the first d columns, values in the others. */
static lt_status take_keys(struct talk_context *context, size_t n,
                           const struct audio_attention *weights, struct lt_view *both_out,
                           struct lt_error *error)
{
    struct dit *dit = context->dit;
    bool fresh;
    LT_TRY(dit_cache_take(&context->cache, &dit->net, &context->keys[n], context->tokens.dim[0],
                          2 * dit->config.dim, both_out, &fresh, error));
    if (!fresh)
        return LT_OK;
    lt_status status = net_apply(&dit->net, &weights->kv, &context->tokens, both_out,
                                 LT_ACTIVATION_NONE, false, error);
    if (status == LT_OK && context->speakers > 1)
        status = turn_keys(context, both_out, error);
    if (status != LT_OK) /* half-made values must not be found later */
        dit_cache_drop(&context->cache, &context->keys[n]);
    return status;
}

lt_status talk_attend(struct dit *dit, struct talk_context *context, size_t n,
                      const struct lt_view *in, const struct lt_view *position,
                      const struct lt_view *room, const struct lt_view *out, struct lt_error *error)
{
    struct net *net = &dit->net;
    const int64_t frame = in->dim[0] / context->frames, each = tokens_per_frame(context);
    struct audio_attention weights;
    struct lt_view both;
    LT_TRY(find_attention(dit, n, &weights, error));
    LT_TRY(net_apply(net, &weights.q, in, room, LT_ACTIVATION_NONE, false, error));
    if (position->data) {
        const struct lt_view q = heads_at(dit, room, 0, in->dim[0], 0);
        LT_TRY(LT_OP(rotate, net->kernels, net->exec, error, .out = q, .in = q,
                     .position = *position));
    }
    LT_TRY(take_keys(context, n, &weights, &both, error));
    for (int64_t t = 0; t < context->frames; t++)
        LT_TRY(LT_OP(attention, net->kernels, net->exec, error,
                     .out = heads_at(dit, in, t * frame, frame, 0),
                     .q = heads_at(dit, room, t * frame, frame, 0),
                     .k = heads_at(dit, &both, t * each, each, 0),
                     .v = heads_at(dit, &both, t * each, each, dit->config.dim),
                     .scale = 1.0f / sqrtf(HEAD_WIDTH)));
    return net_apply(net, &weights.out, in, out, LT_ACTIVATION_NONE, false, error);
}

lt_status talk_listen(struct forward *f, const struct pass *pass, size_t n, struct lt_error *error)
{
    struct talk_context *context = pass->inputs->talk;
    struct dit *dit = f->dit;
    if (!context || pass->options->audio_scale == 0)
        return LT_OK;
    const struct lt_view a = dit_rows(&f->a, pass), q = dit_rows(&f->q, pass),
                         k = dit_rows(&f->k, pass);
    const struct lt_view position = context->speakers > 1
                                        ? lt_view_1d(f->position.data, LT_TYPE_F32, pass->tokens)
                                        : (struct lt_view){0};
    struct audio_attention weights;
    const struct net_mark mark = net_mark(&dit->net);
    LT_TRY(find_attention(dit, n, &weights, error));
    LT_TRY(LT_OP(layer_norm, dit->net.kernels, dit->net.exec, error, .out = a, .in = pass->x,
                 .weight = weights.norm_weight, .bias = weights.norm_bias,
                 .epsilon = dit->config.epsilon));
    LT_TRY(talk_attend(dit, context, n, &a, &position, &q, &k, error));
    LT_TRY(dit_add_scaled(dit, &pass->x, &k, pass->options->audio_scale, error));
    net_rewind(&dit->net, mark);
    return LT_OK;
}
