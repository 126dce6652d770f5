/* encoders.md 8.2, on X [tokens, width], pre-norm blocks, the exact GELU:
 *
 *   X = LN([class; patches · W] + positions)
 *   X += proj(attention(q, k, v of LN1(X))) ; X += w2·gelu(w1·LN2(X))
 *
 * Nothing behind the last block but one: no norm, no projection. Buffers [tokens, width]: X; A
 * normed input, then the attention's output; Q, K, V, Q also what is added. */
#include "worker/model/vision.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const float EPSILON = 1e-5f;

struct norm {
    struct lt_view weight, bias;
};

struct block {
    struct norm norm_1, norm_2;
    struct linear q, k, v, out, mlp_in, mlp_out;
};

struct vision {
    struct vision_config config;
    struct net net;
};

/* -- weights ----------------------------------------------------------------------------------- */

static lt_status find_norm(const struct vision *vision, struct norm *norm, const char *name,
                           struct lt_error *error)
{
    const int64_t width = vision->config.width;
    LT_TRY(net_tensor(&vision->net, &norm->weight, 1, &width, error, "%s.weight", name));
    return net_tensor(&vision->net, &norm->bias, 1, &width, error, "%s.bias", name);
}

/* Of a block that is not at hand (a check of shapes) there are no rows to point at. */
static struct linear rows_of(const struct linear *linear, int64_t first, int64_t count)
{
    struct linear part = *linear;
    if (part.weight.data) {
        part.weight = lt_view_rows(&linear->weight, first, count);
        part.bias = lt_view_rows(&linear->bias, first, count);
    }
    return part;
}

static lt_status find_attention(const struct vision *vision, size_t n, struct block *block,
                                struct lt_error *error)
{
    static const char letters[] = "qkv";
    struct linear *const linears[] = {&block->q, &block->k, &block->v};
    const int64_t d = vision->config.width;
    char name[64];
    if (vision->config.fused) {
        struct linear qkv;
        snprintf(name, sizeof name, "blocks.%zu.attn.to_qkv", n);
        LT_TRY(net_linear(&vision->net, &qkv, 3 * d, d, error, name));
        for (int i = 0; i < 3; i++)
            *linears[i] = rows_of(&qkv, i * d, d);
    }
    for (int i = 0; !vision->config.fused && i < 3; i++) {
        snprintf(name, sizeof name, "blocks.%zu.attn.%c", n, letters[i]);
        LT_TRY(net_linear(&vision->net, linears[i], d, d, error, name));
    }
    snprintf(name, sizeof name, "blocks.%zu.attn.proj", n);
    return net_linear(&vision->net, &block->out, d, d, error, name);
}

static lt_status find_block(const struct vision *vision, size_t n, struct block *block,
                            struct lt_error *error)
{
    const struct vision_config *c = &vision->config;
    char name[64];
    snprintf(name, sizeof name, "blocks.%zu.norm1", n);
    LT_TRY(find_norm(vision, &block->norm_1, name, error));
    snprintf(name, sizeof name, "blocks.%zu.norm2", n);
    LT_TRY(find_norm(vision, &block->norm_2, name, error));
    LT_TRY(find_attention(vision, n, block, error));
    snprintf(name, sizeof name, "blocks.%zu.mlp.0", n);
    LT_TRY(net_linear(&vision->net, &block->mlp_in, c->ffn_dim, c->width, error, name));
    snprintf(name, sizeof name, "blocks.%zu.mlp.2", n);
    return net_linear(&vision->net, &block->mlp_out, c->width, c->ffn_dim, error, name);
}

struct embedding {
    struct linear patch; /* no bias */
    struct lt_view class_token, positions;
    struct norm norm;
};

static lt_status find_embedding(const struct vision *vision, struct embedding *e,
                                struct lt_error *error)
{
    const struct vision_config *c = &vision->config;
    *e = (struct embedding){0};
    LT_TRY(net_tensor(&vision->net, &e->patch.weight, 2,
                      (int64_t[]){c->width, 3 * c->patch * c->patch}, error,
                      "visual.patch_embedding.weight"));
    LT_TRY(net_tensor(&vision->net, &e->class_token, 1, &c->width, error, "visual.cls_embedding"));
    LT_TRY(net_tensor(&vision->net, &e->positions, 2, (int64_t[]){vision_token_count(c), c->width},
                      error, "visual.pos_embedding"));
    return find_norm(vision, &e->norm, "visual.pre_norm", error);
}

static lt_status check(const struct vision *vision, struct lt_error *error)
{
    const struct vision_config *c = &vision->config;
    struct embedding embedding;
    if (c->head_count < 1 || c->width % c->head_count != 0)
        return lt_fail(error, LT_BAD_INPUT, "a width of %lld cannot have %lld heads",
                       (long long)c->width, (long long)c->head_count);
    LT_TRY(find_embedding(vision, &embedding, error));
    for (size_t n = 0; n + 1 < (size_t)c->layer_count; n++) {
        struct block block;
        LT_TRY(find_block(vision, n, &block, error)); /* shapes: nothing is fetched */
    }
    return LT_OK;
}

lt_status vision_create(const struct vision_config *config, struct store *store,
                        const struct lt_kernels *kernels, struct lt_exec *exec,
                        struct vision **vision_out, struct lt_error *error)
{
    const struct vision made = {*config, {.store = store, .kernels = kernels, .exec = exec}};
    LT_TRY(check(&made, error));
    struct vision *vision = malloc(sizeof *vision);
    if (!vision)
        return lt_fail(error, LT_NO_MEMORY, "no memory for an image encoder");
    *vision = made;
    net_init(&vision->net);
    *vision_out = vision;
    return LT_OK;
}

void vision_destroy(struct vision **vision)
{
    if (!*vision)
        return;
    net_fini(&(*vision)->net);
    free(*vision);
    *vision = NULL;
}

/* -- steps ------------------------------------------------------------------------------------- */

static lt_status apply_norm(struct vision *vision, const struct norm *norm,
                            const struct lt_view *in, const struct lt_view *out,
                            struct lt_error *error)
{
    return LT_OP(layer_norm, vision->net.kernels, vision->net.exec, error, .out = *out, .in = *in,
                 .weight = norm->weight, .bias = norm->bias, .epsilon = EPSILON);
}

static lt_status add(struct vision *vision, const struct lt_view *x, const struct lt_view *in,
                     struct lt_error *error)
{
    return LT_OP(gated_add, vision->net.kernels, vision->net.exec, error, .out = *x, .residual = *x,
                 .in = *in);
}

/* rows[(i·grid + j), (c·patch + y)·patch + x] = pixels[c, i·patch + y, j·patch + x]: a convolution
 * whose stride is its size. */
static void cut_patches(const struct vision_config *c, const float *pixels, float *rows)
{
    const int64_t p = c->patch, size = vision_image_size(c);
    for (int64_t i = 0; i < c->grid; i++)
        for (int64_t j = 0; j < c->grid; j++)
            for (int64_t line = 0; line < 3 * p; line++, rows += p)
                memcpy(rows, pixels + (line / p * size + i * p + line % p) * size + j * p,
                       (size_t)p * sizeof *rows);
}

static lt_status embed(struct vision *vision, const struct lt_view *pixels, const struct lt_view *x,
                       struct lt_error *error)
{
    const struct vision_config *c = &vision->config;
    struct net *net = &vision->net;
    const int64_t patches = c->grid * c->grid;
    const struct lt_view first = lt_view_rows(x, 0, 1), others = lt_view_rows(x, 1, patches);
    struct embedding e;
    struct lt_view rows, positions;
    float *cut;
    LT_TRY(find_embedding(vision, &e, error));
    const struct net_mark mark = net_mark(net);
    LT_TRY(net_take(net, &rows, patches, 3 * c->patch * c->patch, error));
    LT_TRY(net_take(net, &positions, patches + 1, c->width, error));
    LT_TRY(net_open(net, &rows, &cut, error));
    cut_patches(c, pixels->data, cut);
    LT_TRY(net_close(net, &rows, cut, error));
    LT_TRY(LT_OP(convert, net->kernels, net->exec, error, .out = first, .in = e.class_token));
    LT_TRY(net_apply(net, &e.patch, &rows, &others, LT_ACTIVATION_NONE, true, error));
    LT_TRY(LT_OP(convert, net->kernels, net->exec, error, .out = positions, .in = e.positions));
    LT_TRY(add(vision, x, &positions, error));
    net_rewind(net, mark);
    return apply_norm(vision, &e.norm, x, x, error);
}

struct buffers {
    struct lt_view a, q, k, v; /* [tokens, width] */
    struct lt_view hidden;     /* [tokens, ffn] */
};

static lt_status take_buffers(struct vision *vision, struct buffers *b, struct lt_error *error)
{
    const int64_t tokens = vision_token_count(&vision->config);
    struct lt_view *const wide[] = {&b->a, &b->q, &b->k, &b->v};
    for (size_t i = 0; i < LT_COUNT(wide); i++)
        LT_TRY(net_take(&vision->net, wide[i], tokens, vision->config.width, error));
    return net_take(&vision->net, &b->hidden, tokens, vision->config.ffn_dim, error);
}

static struct lt_view heads(const struct vision *vision, const struct lt_view *x)
{
    const int64_t count = vision->config.head_count;
    return lt_view_reshape(x, 3, (int64_t[]){x->dim[0], count, x->dim[1] / count});
}

static lt_status run_block(struct vision *vision, size_t n, const struct lt_view *x,
                           struct buffers *b, struct lt_error *error)
{
    struct net *net = &vision->net;
    const float width = (float)(vision->config.width / vision->config.head_count);
    struct block w;
    LT_TRY(find_block(vision, n, &w, error));
    LT_TRY(apply_norm(vision, &w.norm_1, x, &b->a, error));
    LT_TRY(net_apply(net, &w.q, &b->a, &b->q, LT_ACTIVATION_NONE, false, error));
    LT_TRY(net_apply(net, &w.k, &b->a, &b->k, LT_ACTIVATION_NONE, false, error));
    LT_TRY(net_apply(net, &w.v, &b->a, &b->v, LT_ACTIVATION_NONE, false, error));
    LT_TRY(LT_OP(attention, net->kernels, net->exec, error, .out = heads(vision, &b->a),
                 .q = heads(vision, &b->q), .k = heads(vision, &b->k), .v = heads(vision, &b->v),
                 .scale = 1.0f / sqrtf(width)));
    LT_TRY(net_apply(net, &w.out, &b->a, &b->q, LT_ACTIVATION_NONE, false, error));
    LT_TRY(add(vision, x, &b->q, error));
    LT_TRY(apply_norm(vision, &w.norm_2, x, &b->a, error));
    LT_TRY(net_apply(net, &w.mlp_in, &b->a, &b->hidden, LT_ACTIVATION_GELU_ERF, false, error));
    LT_TRY(net_apply(net, &w.mlp_out, &b->hidden, &b->q, LT_ACTIVATION_NONE, false, error));
    return add(vision, x, &b->q, error);
}

static lt_status encode(struct vision *vision, const struct lt_view *pixels,
                        const struct lt_view *x, struct lt_error *error)
{
    struct buffers b;
    LT_TRY(embed(vision, pixels, x, error));
    LT_TRY(take_buffers(vision, &b, error));
    for (size_t n = 0; n + 1 < (size_t)vision->config.layer_count; n++) {
        LT_TRY(store_acquire(vision->net.store, n, error));
        const lt_status status = run_block(vision, n, x, &b, error);
        store_release(vision->net.store, n);
        LT_TRY(status);
    }
    return LT_OK;
}

lt_status vision_encode(struct vision *vision, const struct lt_view *pixels, struct lt_view *clip,
                        struct lt_error *error)
{
    const struct vision_config *c = &vision->config;
    const int64_t size = vision_image_size(c), tokens = vision_token_count(c);
    struct lt_view x;
    lt_status status;
    if (pixels->rank != 3 || pixels->dim[0] != 3 || pixels->dim[1] != size ||
        pixels->dim[2] != size)
        return lt_fail(error, LT_BAD_INPUT,
                       "pixels: this model takes [3, %lld, %lld], found [%lld, %lld, %lld]",
                       (long long)size, (long long)size, (long long)pixels->dim[0],
                       (long long)pixels->dim[1], (long long)pixels->dim[2]);
    lt_assert(clip->rank == 2 && clip->dim[0] == tokens && clip->dim[1] == c->width);
    const struct net_mark mark = net_mark(&vision->net);
    LT_TRY_OR(net_take(&vision->net, &x, tokens, c->width, error), out);
    LT_TRY_OR(encode(vision, pixels, &x, error), out);
    LT_TRY_OR(net_get(&vision->net, &x, clip->data, error), out);
out:
    net_rewind(&vision->net, mark);
    return status;
}

static size_t room(int64_t values)
{
    return ((size_t)values * sizeof(float) + 63) / 64 * 64;
}

size_t vision_activation_bytes(const struct vision_config *config)
{
    const int64_t patches = config->grid * config->grid, tokens = patches + 1;
    const size_t wide = room(tokens * config->width);
    const size_t embed = room(patches * 3 * config->patch * config->patch) + wide;
    const size_t block = 4 * wide + room(tokens * config->ffn_dim);
    return wide + (embed > block ? embed : block);
}

size_t vision_peak_bytes(const struct vision *vision)
{
    return vision->net.arena.peak_bytes;
}

lt_status vision_scratch(const struct vision_config *config, enum lt_precision precision,
                         struct lt_scratch *scratch_out, struct lt_error *error)
{
    const int64_t d = config->width, ffn = config->ffn_dim, tokens = vision_token_count(config);
    struct lt_scratch most, one;
    LT_TRY(lt_scratch_attention(precision, tokens, config->head_count, d / config->head_count,
                                &most, error));
    LT_TRY(lt_scratch_linear(precision, tokens - 1, 3 * config->patch * config->patch, d, true,
                             &one, error));
    lt_scratch_join(&most, &one);
    const int64_t shapes[][2] = {{d, d}, {d, ffn}, {ffn, d}};
    for (size_t i = 0; i < LT_COUNT(shapes); i++) {
        LT_TRY(
            lt_scratch_linear(precision, tokens, shapes[i][0], shapes[i][1], false, &one, error));
        lt_scratch_join(&most, &one);
    }
    *scratch_out = most;
    return LT_OK;
}
