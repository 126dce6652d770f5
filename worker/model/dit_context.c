/* dit.md 2.4, 2.5, 2.13. */
#include "worker/model/dit_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static lt_status keep(struct dit_context *context, struct lt_view *view, int64_t rows,
                      struct lt_error *error)
{
    const size_t bytes = (size_t)(rows * context->dit->config.dim) * sizeof(float);
    void *data = malloc(bytes);
    if (!data)
        return lt_fail(error, LT_NO_MEMORY, "no memory for %zu bytes of conditioning", bytes);
    *view = lt_view_2d(data, LT_TYPE_F32, rows, context->dit->config.dim);
    context->bytes += bytes;
    return LT_OK;
}

/* dit.md 2.4: rows beyond n are the same constant, so one stands for all of them, weighted by its
 * logit. */
static lt_status embed_text(struct dit_context *context, const struct lt_view *text,
                            struct lt_error *error)
{
    struct net *net = &context->dit->net;
    const struct dit_config *c = &context->dit->config;
    const int64_t n = text->dim[0], rows = n < c->text_len ? n + 1 : n;
    struct linear first, second;
    struct lt_view padded, hidden;
    LT_TRY(net_linear(net, &first, c->dim, c->text_dim, error, "text_embedding.0"));
    LT_TRY(net_linear(net, &second, c->dim, c->dim, error, "text_embedding.2"));
    LT_TRY(net_take(net, &padded, rows, c->text_dim, error));
    LT_TRY(net_take(net, &hidden, rows, c->dim, error));
    LT_TRY(keep(context, &context->text, rows, error));
    memset(padded.data, 0, (size_t)(rows * c->text_dim) * sizeof(float));
    memcpy(padded.data, text->data, (size_t)(n * c->text_dim) * sizeof(float));
    LT_TRY(net_apply(net, &first, &padded, &hidden, LT_ACTIVATION_GELU_TANH, false, error));
    context->last_key_bias = rows > n ? logf((float)(c->text_len - n)) : 0;
    return net_apply(net, &second, &hidden, &context->text, LT_ACTIVATION_NONE, false, error);
}

static lt_status image_norm(struct net *net, const char *name, const struct lt_view *x,
                            struct lt_error *error)
{
    struct lt_view weight, bias;
    const int64_t width = x->dim[1];
    LT_TRY(net_tensor(net, &weight, 1, &width, error, "%s.weight", name));
    LT_TRY(net_tensor(net, &bias, 1, &width, error, "%s.bias", name));
    return LT_OP(layer_norm, net->kernels, net->exec, error, .out = *x, .in = *x, .weight = weight,
                 .bias = bias, .epsilon = 1e-5f);
}

/* dit.md 2.5; eps 1e-5 and the exact GELU here only. */
static lt_status embed_image(struct dit_context *context, const struct lt_view *clip,
                             struct lt_error *error)
{
    struct net *net = &context->dit->net;
    const struct dit_config *c = &context->dit->config;
    const int64_t rows = clip->dim[0];
    struct linear first, second;
    struct lt_view z, hidden, positions, wide;
    LT_TRY(net_linear(net, &first, IMAGE_DIM, IMAGE_DIM, error, "img_emb.proj.1"));
    LT_TRY(net_linear(net, &second, c->dim, IMAGE_DIM, error, "img_emb.proj.3"));
    LT_TRY(net_take(net, &z, rows, IMAGE_DIM, error));
    LT_TRY(net_take(net, &hidden, rows, IMAGE_DIM, error));
    memcpy(z.data, clip->data, (size_t)(rows * IMAGE_DIM) * sizeof(float));
    if (c->image_positions) {
        LT_TRY(
            net_tensor(net, &positions, 2, (int64_t[]){rows, IMAGE_DIM}, error, "img_emb.emb_pos"));
        LT_TRY(net_take(net, &wide, rows, IMAGE_DIM, error));
        LT_TRY(LT_OP(convert, net->kernels, net->exec, error, .out = wide, .in = positions));
        LT_TRY(
            LT_OP(gated_add, net->kernels, net->exec, error, .out = z, .residual = z, .in = wide));
    }
    LT_TRY(image_norm(net, "img_emb.proj.0", &z, error));
    LT_TRY(net_apply(net, &first, &z, &hidden, LT_ACTIVATION_GELU_ERF, false, error));
    LT_TRY(keep(context, &context->image, rows, error));
    LT_TRY(net_apply(net, &second, &hidden, &context->image, LT_ACTIVATION_NONE, false, error));
    return image_norm(net, "img_emb.proj.4", &context->image, error);
}

static lt_status check_context(const struct dit_config *c, const struct lt_view *text,
                               const struct lt_view *clip, struct lt_error *error)
{
    if (text->rank != 2 || text->dim[1] != c->text_dim || text->dim[0] < 1 ||
        text->dim[0] > c->text_len)
        return lt_fail(error, LT_BAD_INPUT, "text: expected [1…%lld, %lld], found [%lld, %lld]",
                       (long long)c->text_len, (long long)c->text_dim, (long long)text->dim[0],
                       (long long)(text->rank == 2 ? text->dim[1] : 0));
    const int64_t rows = c->image_positions ? 514 : 257;
    if (clip->data && (clip->rank != 2 || clip->dim[0] != rows || clip->dim[1] != IMAGE_DIM))
        return lt_fail(error, LT_BAD_INPUT, "clip: expected [%lld, %d], found [%lld, %lld]",
                       (long long)rows, IMAGE_DIM, (long long)clip->dim[0],
                       (long long)(clip->rank == 2 ? clip->dim[1] : 0));
    return LT_OK;
}

lt_status dit_context_create(struct dit *dit, const struct lt_view *text,
                             const struct lt_view *clip, size_t cache_bytes,
                             struct dit_context **context_out, struct lt_error *error)
{
    LT_TRY(check_context(&dit->config, text, clip, error));
    struct dit_context *context = calloc(1, sizeof *context);
    if (context)
        context->cached = calloc((size_t)dit->config.layer_count * 4, sizeof *context->cached);
    if (!context || !context->cached) {
        free(context);
        return lt_fail(error, LT_NO_MEMORY, "no memory for conditioning");
    }
    context->dit = dit;
    context->cache_bytes = cache_bytes;
    const struct lt_mark mark = lt_arena_mark(&dit->net.arena);
    lt_status status = embed_text(context, text, error);
    /* Models without image tensors ignore clip features (dit.md trap 11). */
    if (status == LT_OK && clip->data && dit->config.image_attention)
        status = embed_image(context, clip, error);
    lt_arena_rewind(&dit->net.arena, mark);
    if (status != LT_OK) {
        dit_context_destroy(&context);
        return status;
    }
    *context_out = context;
    return LT_OK;
}

void dit_context_destroy(struct dit_context **context)
{
    struct dit_context *c = *context;
    if (!c)
        return;
    for (int64_t i = 0; i < c->dit->config.layer_count * 4; i++)
        free(c->cached[i].data);
    free(c->cached);
    free(c->text.data);
    free(c->image.data);
    free(c);
    *context = NULL;
}

size_t dit_context_bytes(const struct dit_context *context)
{
    return context->bytes;
}

uint64_t dit_context_computed(const struct dit_context *context)
{
    return context->computed;
}

lt_status dit_context_keys(struct dit_context *context, size_t n, const struct block *block,
                           enum dit_tokens which, struct lt_view *k_out, struct lt_view *v_out,
                           struct lt_error *error)
{
    struct dit *dit = context->dit;
    const bool text = which == DIT_TOKENS_TEXT;
    const struct lt_view *tokens = text ? &context->text : &context->image;
    const struct linear *k_weights = text ? &block->cross.k : &block->k_img,
                        *v_weights = text ? &block->cross.v : &block->v_img;
    struct lt_view *cached = &context->cached[n * 4 + (text ? 0 : 2)];
    const size_t bytes = 2 * (size_t)lt_view_count(tokens) * sizeof(float);
    if (!cached[0].data) {
        const bool fits = context->bytes + bytes <= context->cache_bytes;
        if (fits) {
            LT_TRY(keep(context, k_out, tokens->dim[0], error));
            cached[0] = *k_out; /* owned from here on, also when what follows fails */
            LT_TRY(keep(context, v_out, tokens->dim[0], error));
            cached[1] = *v_out;
        } else {
            LT_TRY(net_take(&dit->net, k_out, tokens->dim[0], dit->config.dim, error));
            LT_TRY(net_take(&dit->net, v_out, tokens->dim[0], dit->config.dim, error));
        }
        context->computed++;
        lt_status status =
            net_apply(&dit->net, k_weights, tokens, k_out, LT_ACTIVATION_NONE, false, error);
        if (status == LT_OK)
            status = dit_rms(dit, k_out, text ? &block->cross.norm_k : &block->norm_k_img, error);
        if (status == LT_OK)
            status =
                net_apply(&dit->net, v_weights, tokens, v_out, LT_ACTIVATION_NONE, false, error);
        if (status != LT_OK && fits) { /* half-made values must not be found later */
            free(cached[0].data);
            free(cached[1].data);
            cached[0].data = cached[1].data = NULL;
            context->bytes -= bytes;
        }
        return status;
    }
    *k_out = cached[0];
    *v_out = cached[1];
    return LT_OK;
}
