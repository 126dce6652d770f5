/* The face, from pixels to keys: motion encoder (motion.c) [P, 512] -> face encoder, per head
 * [T, 1024] -> tokens [F, heads + 1, d], the last of a frame learned, frame 0 zeros -> per fuser
 * keys and values [F · (heads + 1), 2d]. Fusers are filed as face_adapter.fuser_blocks.N or, by
 * ComfyUI, as blocks.5N.fuser_block. */
#include "worker/model/animate.h"

#include "worker/model/dit_parts.h"
#include "worker/model/motion.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { TAPS = 3, FACE_ROWS = 256 /* faces of a window, at most, for plans */ };

static int64_t fuser_count(const struct dit *dit)
{
    const int64_t every = dit->config.face.every;
    return every > 0 ? (dit->config.layer_count + every - 1) / every : 0;
}

static int64_t tokens_per_frame(const struct dit *dit)
{
    return dit->config.face.heads + 1;
}

/* -- weights ----------------------------------------------------------------------------------- */

struct fuser {
    struct linear q, kv, out;
    struct lt_view norm_q, norm_k;
};

static lt_status find_fuser(const struct dit *dit, int64_t b, struct fuser *fuser,
                            struct lt_error *error)
{
    static const int64_t head = HEAD_WIDTH;
    const struct net *net = &dit->net;
    const int64_t d = dit->config.dim;
    char name[128], prefix[64];
    snprintf(name, sizeof name, "blocks.%lld.fuser_block.k_norm.weight",
             (long long)(b * dit->config.face.every));
    if (store_has(net->store, name))
        snprintf(prefix, sizeof prefix, "blocks.%lld.fuser_block",
                 (long long)(b * dit->config.face.every));
    else
        snprintf(prefix, sizeof prefix, "face_adapter.fuser_blocks.%lld", (long long)b);
    snprintf(name, sizeof name, "%s.linear1_q", prefix);
    LT_TRY(net_linear(net, &fuser->q, d, d, error, name));
    snprintf(name, sizeof name, "%s.linear1_kv", prefix);
    LT_TRY(net_linear(net, &fuser->kv, 2 * d, d, error, name));
    snprintf(name, sizeof name, "%s.linear2", prefix);
    LT_TRY(net_linear(net, &fuser->out, d, d, error, name));
    LT_TRY(net_tensor(net, &fuser->norm_q, 1, &head, error, "%s.q_norm.weight", prefix));
    return net_tensor(net, &fuser->norm_k, 1, &head, error, "%s.k_norm.weight", prefix);
}

static lt_status find_pose(const struct dit *dit, struct linear *patch, struct lt_error *error)
{
    return net_linear(&dit->net, patch, dit->config.dim, 4 * dit->config.pose_channels, error,
                      "pose_patch_embedding");
}

lt_status animate_check(const struct dit *dit, struct lt_error *error)
{
    struct linear patch;
    struct fuser fuser;
    if (dit->config.pose_channels > 0)
        LT_TRY(find_pose(dit, &patch, error));
    for (int64_t b = 0; dit->config.face.size > 0 && b < fuser_count(dit); b++)
        LT_TRY(find_fuser(dit, b, &fuser, error));
    return LT_OK;
}

/* -- face encoder (dit.md 3.7) ----------------------------------------------------------------- */

/* A convolution over time [T, Ci] -> [(T-1)/stride + 1, Co] that sees no later frame; before the
 * first frame there is the first frame. */
static lt_status causal_conv(struct net *net, const char *name, const struct lt_view *in,
                             int stride, const struct lt_view *out, struct lt_error *error)
{
    const int64_t from = in->dim[1], to = out->dim[1];
    const int64_t used = (out->dim[0] - 1) * stride + 1;
    struct lt_view weight, bias;
    LT_TRY(net_tensor(net, &weight, 5, (int64_t[]){to, from, TAPS, 1, 1}, error,
                      "face_encoder.%s.conv.weight", name));
    LT_TRY(net_tensor(net, &bias, 1, &to, error, "face_encoder.%s.conv.bias", name));
    const struct lt_view frames = lt_view_4d(in->data, LT_TYPE_F32, used, 1, 1, from);
    struct lt_view past = lt_view_4d(in->data, LT_TYPE_F32, TAPS - 1, 1, 1, from);
    past.stride[0] = 0;
    return LT_OP(conv, net->kernels, net->exec, error,
                 .out = lt_view_4d(out->data, LT_TYPE_F32, out->dim[0], 1, 1, to), .in = frames,
                 .past = past, .weight = weight, .bias = bias, .stride_time = stride,
                 .stride_space = 1, .exact = true);
}

static lt_status norm_silu(struct dit *dit, const struct lt_view *in, const struct lt_view *out,
                           struct lt_error *error)
{
    LT_TRY(LT_OP(layer_norm, dit->net.kernels, dit->net.exec, error, .out = *out, .in = *in,
                 .epsilon = dit->config.epsilon));
    return LT_OP(activate, dit->net.kernels, dit->net.exec, error, .out = *out, .in = *out,
                 .activation = LT_ACTIVATION_SILU);
}

/* One head's channels [P, dim] of the first convolution to [T, d], a row of every frame. */
static lt_status encode_head(struct dit *dit, const struct lt_view *local,
                             const struct linear *project, const struct lt_view *out,
                             struct lt_error *error)
{
    struct net *net = &dit->net;
    static const char *const names[] = {"conv2", "conv3"};
    const int64_t width = local->dim[1];
    struct lt_view x, halved;
    LT_TRY(net_take(net, &x, local->dim[0], width, error));
    LT_TRY(norm_silu(dit, local, &x, error));
    for (size_t i = 0; i < LT_COUNT(names); i++) {
        LT_TRY(net_take(net, &halved, (x.dim[0] - 1) / 2 + 1, width, error));
        LT_TRY(causal_conv(net, names[i], &x, 2, &halved, error));
        LT_TRY(norm_silu(dit, &halved, &halved, error));
        x = halved;
    }
    return net_apply(net, project, &x, out, LT_ACTIVATION_NONE, true, error);
}

/* The learned token closes each frame but the first, which is zeros. */
static lt_status place_padding(struct dit *dit, const struct lt_view *tokens,
                               struct lt_error *error)
{
    const int64_t d = dit->config.dim, each = tokens_per_frame(dit);
    struct lt_view padding;
    LT_TRY(net_tensor(&dit->net, &padding, 1, &d, error, "face_encoder.padding_tokens"));
    const struct lt_view first = lt_view_rows(tokens, 0, each);
    LT_TRY(net_zero(&dit->net, &first, error));
    for (int64_t row = 2 * each - 1; row < tokens->dim[0]; row += each) {
        const struct lt_view to = lt_view_1d((float *)tokens->data + row * d, LT_TYPE_F32, d);
        LT_TRY(LT_OP(convert, dit->net.kernels, dit->net.exec, error, .out = to, .in = padding));
    }
    return LT_OK;
}

lt_status animate_encode_face(struct dit *dit, const struct lt_view *motion,
                              const struct lt_view *tokens, struct lt_error *error)
{
    struct net *net = &dit->net;
    const struct face_config *c = &dit->config.face;
    const int64_t d = dit->config.dim, each = tokens_per_frame(dit);
    struct linear project;
    struct lt_view local;
    LT_TRY(net_linear(net, &project, d, c->dim, error, "face_encoder.out_proj"));
    LT_TRY(net_take(net, &local, motion->dim[0], c->heads * c->dim, error));
    LT_TRY(causal_conv(net, "conv1_local", motion, 1, &local, error));
    LT_TRY(place_padding(dit, tokens, error));
    for (int64_t head = 0; head < c->heads; head++) {
        struct lt_view channels = local,
                       out = lt_view_2d((float *)tokens->data + (each + head) * d, LT_TYPE_F32,
                                        tokens->dim[0] / each - 1, d);
        channels.data = (float *)local.data + head * c->dim;
        channels.dim[1] = c->dim;
        out.stride[0] = each * d;
        const struct net_mark mark = net_mark(net);
        LT_TRY(encode_head(dit, &channels, &project, &out, error));
        net_rewind(net, mark);
    }
    return LT_OK;
}

/* -- context ----------------------------------------------------------------------------------- */

static lt_status check_face(const struct face_config *c, const struct lt_view *face,
                            struct lt_error *error)
{
    if (face->rank == 4 && face->dim[0] == 3 && face->dim[1] >= 1 && face->dim[2] == c->size &&
        face->dim[3] == c->size)
        return LT_OK;
    return lt_fail(error, LT_BAD_INPUT,
                   "face: expected [3, P, %lld, %lld], found [%lld, %lld, %lld, %lld]",
                   (long long)c->size, (long long)c->size, (long long)face->dim[0],
                   (long long)face->dim[1], (long long)face->dim[2], (long long)face->dim[3]);
}

/* In arenas of its own: what the pixels take goes back before the blocks run. */
static lt_status watch_face(struct dit *dit, const struct lt_view *face,
                            const struct lt_view *motion, struct lt_error *error)
{
    struct net net = dit->net;
    net_init(&net);
    const lt_status status = motion_encode(&net, &dit->config.face, face, motion, error);
    net_fini(&net);
    return status;
}

static lt_status make_motion(struct animate_context *context, const struct lt_view *face,
                             struct lt_error *error)
{
    struct dit *dit = context->dit;
    struct lt_view motion;
    LT_TRY(check_face(&dit->config.face, face, error));
    const int64_t frames = (face->dim[1] - 1) / 4 + 2;
    LT_TRY(dit_cache_keep(&context->cache, &context->motion, frames * tokens_per_frame(dit),
                          dit->config.dim, error));
    context->cache.computed++;
    LT_TRY(net_take(&dit->net, &motion, face->dim[1], dit->config.face.motion_dim, error));
    LT_TRY(watch_face(dit, face, &motion, error));
    return animate_encode_face(dit, &motion, &context->motion, error);
}

lt_status animate_context_create(struct dit *dit, const struct animate_window *window,
                                 size_t cache_bytes, struct animate_context **context_out,
                                 struct lt_error *error)
{
    struct animate_context *context = calloc(1, sizeof *context);
    if (context)
        context->keys = calloc((size_t)fuser_count(dit) + 1, sizeof *context->keys);
    if (!context || !context->keys) {
        free(context);
        return lt_fail(error, LT_NO_MEMORY, "no memory for a window's conditioning");
    }
    context->dit = dit;
    context->cache = (struct dit_cache){.exec = dit->net.exec, .bytes_max = cache_bytes};
    if (dit->config.pose_channels > 0)
        context->pose = window->pose;
    lt_status status = LT_OK;
    if (window->face.data && dit->config.face.size > 0) {
        const struct net_mark mark = net_mark(&dit->net);
        status = store_acquire_group(dit->net.store, STORE_GROUP_PROMPT, error);
        if (status == LT_OK) {
            status = make_motion(context, &window->face, error);
            store_release_group(dit->net.store, STORE_GROUP_PROMPT);
        }
        net_rewind(&dit->net, mark);
    }
    if (status != LT_OK) {
        animate_context_destroy(&context);
        return status;
    }
    *context_out = context;
    return LT_OK;
}

void animate_context_destroy(struct animate_context **context)
{
    struct animate_context *c = *context;
    if (!c)
        return;
    for (int64_t b = 0; b < fuser_count(c->dit); b++)
        dit_cache_drop(&c->cache, &c->keys[b]);
    dit_cache_drop(&c->cache, &c->motion);
    dit_cache_drop(&c->cache, &c->pose_tokens);
    free(c->keys);
    free(c);
    *context = NULL;
}

size_t animate_context_bytes(const struct animate_context *context)
{
    return context->cache.bytes;
}

uint64_t animate_context_computed(const struct animate_context *context)
{
    return context->cache.computed;
}

lt_status animate_begin(const struct pass *pass, struct lt_error *error)
{
    const struct animate_context *context = pass->inputs->animate;
    if (!context)
        return LT_OK;
    const struct lt_view *pose = &context->pose, *x = &pass->inputs->x;
    const int64_t channels = context->dit->config.pose_channels;
    if (pose->data &&
        (pose->rank != 4 || pose->dim[0] != channels || pose->dim[1] != x->dim[1] - 1 ||
         pose->dim[2] != x->dim[2] || pose->dim[3] != x->dim[3]))
        return lt_fail(error, LT_BAD_INPUT,
                       "pose: expected [%lld, %lld, %lld, %lld], found [%lld, %lld, %lld, %lld]",
                       (long long)channels, (long long)x->dim[1] - 1, (long long)x->dim[2],
                       (long long)x->dim[3], (long long)pose->dim[0], (long long)pose->dim[1],
                       (long long)pose->dim[2], (long long)pose->dim[3]);
    const int64_t frames =
        context->motion.data ? context->motion.dim[0] / tokens_per_frame(context->dit) : x->dim[1];
    if (frames != x->dim[1])
        return lt_fail(error, LT_BAD_INPUT,
                       "face: moves %lld latent frames behind the reference, x has %lld",
                       (long long)frames - 1, (long long)x->dim[1] - 1);
    return LT_OK;
}

/* -- forward ----------------------------------------------------------------------------------- */

static lt_status embed_pose(struct dit *dit, const struct lt_view *pose,
                            const struct lt_view *tokens, struct lt_error *error)
{
    struct net *net = &dit->net;
    struct linear patch;
    struct lt_view input, patches;
    LT_TRY(find_pose(dit, &patch, error));
    LT_TRY(net_input(net, pose, &input, error));
    LT_TRY(net_take(net, &patches, tokens->dim[0], 4 * pose->dim[0], error));
    LT_TRY(LT_OP(patchify, net->kernels, net->exec, error, .out = patches, .in = input));
    return net_apply(net, &patch, &patches, tokens, LT_ACTIVATION_NONE, true, error);
}

/* dit.md 3.5. When the embedding is not kept it passes through buffer Q. */
lt_status animate_add_pose(struct forward *f, const struct pass *pass, struct lt_error *error)
{
    struct animate_context *context = pass->inputs->animate;
    const int64_t frame = pass->rows * pass->columns, rows = pass->tokens - frame;
    if (!context || !context->pose.data || rows == 0 || pass->options->pose_strength == 0)
        return LT_OK;
    struct dit *dit = f->dit;
    struct lt_view tokens = lt_view_rows(&f->q, 0, rows), x = lt_view_rows(&pass->x, frame, rows);
    bool fresh = true;
    const struct net_mark mark = net_mark(&dit->net);
    if (dit_cache_fits(&context->cache, &context->pose_tokens, rows, dit->config.dim))
        LT_TRY(dit_cache_take(&context->cache, &dit->net, &context->pose_tokens, rows,
                              dit->config.dim, &tokens, &fresh, error));
    else
        context->cache.computed++;
    if (fresh) {
        const lt_status status = embed_pose(dit, &context->pose, &tokens, error);
        if (status != LT_OK) {
            dit_cache_drop(&context->cache, &context->pose_tokens);
            return status;
        }
    }
    LT_TRY(dit_add_scaled(dit, &x, &tokens, pass->options->pose_strength, error));
    net_rewind(&dit->net, mark);
    return LT_OK;
}

/* [F·each, 2d]: keys, normed per head, in the first d columns, values in the others. */
static lt_status fuser_keys(struct animate_context *context, int64_t b, const struct fuser *fuser,
                            struct lt_view *both_out, struct lt_error *error)
{
    struct dit *dit = context->dit;
    struct net *net = &dit->net;
    const int64_t d = dit->config.dim, rows = context->motion.dim[0];
    struct lt_view normed;
    bool fresh;
    LT_TRY(dit_cache_take(&context->cache, net, &context->keys[b], rows, 2 * d, both_out, &fresh,
                          error));
    if (!fresh)
        return LT_OK;
    struct lt_view k = *both_out;
    k.dim[1] = d;
    lt_status status = net_take(net, &normed, rows, d, error);
    if (status == LT_OK)
        status = LT_OP(layer_norm, net->kernels, net->exec, error, .out = normed,
                       .in = context->motion, .epsilon = dit->config.epsilon);
    if (status == LT_OK)
        status = net_apply(net, &fuser->kv, &normed, both_out, LT_ACTIVATION_NONE, false, error);
    if (status == LT_OK)
        status = dit_rms(dit, &k, &fuser->norm_k, error);
    if (status != LT_OK)
        dit_cache_drop(&context->cache, &context->keys[b]);
    return status;
}

/* Rows [first, first + count) of `view`, from column `column` on, as [count, H, 128]. */
static struct lt_view heads_at(const struct dit *dit, const struct lt_view *view, int64_t first,
                               int64_t count, int64_t column)
{
    float *data = (float *)view->data + first * view->stride[0] + column;
    struct lt_view heads = lt_view_3d(data, LT_TYPE_F32, count, dit->config.head_count, HEAD_WIDTH);
    heads.stride[0] = view->stride[0];
    return heads;
}

/* dit.md 3.8: a frame's tokens see that frame's motion only. */
static lt_status fuse(struct forward *f, const struct pass *pass, int64_t b, struct lt_error *error)
{
    struct dit *dit = f->dit;
    struct net *net = &dit->net;
    struct animate_context *context = pass->inputs->animate;
    const int64_t frame = pass->rows * pass->columns, each = tokens_per_frame(dit);
    const struct lt_view a = dit_rows(&f->a, pass), q = dit_rows(&f->q, pass);
    struct fuser fuser;
    struct lt_view both;
    LT_TRY(find_fuser(dit, b, &fuser, error));
    LT_TRY(LT_OP(layer_norm, net->kernels, net->exec, error, .out = a, .in = pass->x,
                 .epsilon = dit->config.epsilon));
    LT_TRY(net_apply(net, &fuser.q, &a, &q, LT_ACTIVATION_NONE, false, error));
    LT_TRY(dit_rms(dit, &q, &fuser.norm_q, error));
    LT_TRY(fuser_keys(context, b, &fuser, &both, error));
    for (int64_t t = 0; t < pass->frames; t++)
        LT_TRY(LT_OP(attention, net->kernels, net->exec, error,
                     .out = heads_at(dit, &a, t * frame, frame, 0),
                     .q = heads_at(dit, &q, t * frame, frame, 0),
                     .k = heads_at(dit, &both, t * each, each, 0),
                     .v = heads_at(dit, &both, t * each, each, dit->config.dim),
                     .scale = 1.0f / sqrtf(HEAD_WIDTH)));
    LT_TRY(net_apply(net, &fuser.out, &a, &q, LT_ACTIVATION_NONE, false, error));
    return dit_add_scaled(dit, &pass->x, &q, pass->options->face_strength, error);
}

lt_status animate_fuse(struct forward *f, const struct pass *pass, size_t n, struct lt_error *error)
{
    const struct animate_context *context = pass->inputs->animate;
    if (!context || !context->motion.data || (int64_t)n % f->dit->config.face.every ||
        pass->options->face_strength == 0)
        return LT_OK;
    const struct net_mark mark = net_mark(&f->dit->net);
    LT_TRY(fuse(f, pass, (int64_t)n / f->dit->config.face.every, error));
    net_rewind(&f->dit->net, mark);
    return LT_OK;
}

lt_status animate_scratch(const struct dit_config *config, enum lt_precision precision,
                          struct lt_scratch *most, struct lt_error *error)
{
    const struct face_config *c = &config->face;
    const struct {
        int64_t k, n;
        bool exact;
    } linears[] = {{c->motion_dim, c->motion_dim, true},
                   {c->dim, config->dim, true},
                   {config->dim, 2 * config->dim, false}};
    if (c->size == 0)
        return LT_OK;
    motion_scratch(c, most);
    const struct lt_scratch conv[] = {
        lt_scratch_conv(c->heads * c->dim, c->motion_dim, TAPS, 1, 1, 1),
        lt_scratch_conv(c->dim, c->dim, TAPS, 1, 1, 1)};
    for (size_t i = 0; i < LT_COUNT(conv); i++)
        lt_scratch_join(most, &conv[i]);
    for (size_t i = 0; i < LT_COUNT(linears); i++) {
        struct lt_scratch one;
        LT_TRY(lt_scratch_linear(precision, FACE_ROWS, linears[i].k, linears[i].n, linears[i].exact,
                                 &one, error));
        lt_scratch_join(most, &one);
    }
    return LT_OK;
}
