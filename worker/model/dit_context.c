/* dit.md 2.4, 2.5, 2.13. */
#include "worker/model/dit_parts.h"

#include <math.h>
#include <stdlib.h>

/* -- cache ------------------------------------------------------------------------------------- */

lt_status dit_cache_keep(struct dit_cache *cache, struct lt_view *slot, int64_t rows,
                         int64_t columns, struct lt_error *error)
{
    const size_t bytes = (size_t)(rows * columns) * sizeof(float);
    void *data;
    LT_TRY(lt_exec_take(cache->exec, bytes, &data, error));
    *slot = lt_view_2d(data, LT_TYPE_F32, rows, columns);
    cache->bytes += bytes;
    return LT_OK;
}

bool dit_cache_fits(const struct dit_cache *cache, const struct lt_view *slot, int64_t rows,
                    int64_t columns)
{
    return slot->data ||
           cache->bytes + (size_t)(rows * columns) * sizeof(float) <= cache->bytes_max;
}

lt_status dit_cache_take(struct dit_cache *cache, struct net *net, struct lt_view *slot,
                         int64_t rows, int64_t columns, struct lt_view *view_out, bool *fresh_out,
                         struct lt_error *error)
{
    *fresh_out = !slot->data;
    if (slot->data) {
        *view_out = *slot;
        return LT_OK;
    }
    cache->computed++;
    if (!dit_cache_fits(cache, slot, rows, columns))
        return net_take(net, view_out, rows, columns, error);
    LT_TRY(dit_cache_keep(cache, slot, rows, columns, error));
    *view_out = *slot;
    return LT_OK;
}

void dit_cache_drop(struct dit_cache *cache, struct lt_view *slot)
{
    const size_t bytes = (size_t)lt_view_count(slot) * sizeof(float);
    if (slot->data)
        cache->bytes -= bytes;
    lt_exec_give(cache->exec, slot->data, bytes);
    *slot = (struct lt_view){0};
}

/* -- tokens ------------------------------------------------------------------------------------ */

/* dit.md 2.4: rows beyond n are the same constant, so one stands for all of them, weighted by its
 * logit. */
static lt_status embed_text(struct dit_context *context, enum dit_tokens which,
                            const struct lt_view *text, struct lt_error *error)
{
    struct net *net = &context->dit->net;
    const struct dit_config *c = &context->dit->config;
    const int64_t n = text->dim[0], rows = n < c->text_len ? n + 1 : n;
    struct linear first, second;
    struct lt_view padded, hidden, *tokens = &context->tokens[which];
    LT_TRY(net_linear(net, &first, c->dim, c->text_dim, error, "text_embedding.0"));
    LT_TRY(net_linear(net, &second, c->dim, c->dim, error, "text_embedding.2"));
    LT_TRY(net_take(net, &padded, rows, c->text_dim, error));
    LT_TRY(net_take(net, &hidden, rows, c->dim, error));
    LT_TRY(dit_cache_keep(&context->cache, tokens, rows, c->dim, error));
    LT_TRY(lt_exec_upload(net->exec, padded.data, text->data,
                          (size_t)(n * c->text_dim) * sizeof(float), error));
    const struct lt_view rest = lt_view_rows(&padded, n, rows - n);
    LT_TRY(net_zero(net, &rest, error));
    LT_TRY(net_apply(net, &first, &padded, &hidden, LT_ACTIVATION_GELU_TANH, false, error));
    context->last_key_bias[which] = rows > n ? logf((float)(c->text_len - n)) : 0;
    return net_apply(net, &second, &hidden, tokens, LT_ACTIVATION_NONE, false, error);
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
    struct lt_view z, hidden, positions, wide, *tokens = &context->tokens[DIT_TOKENS_IMAGE];
    LT_TRY(net_linear(net, &first, IMAGE_DIM, IMAGE_DIM, error, "img_emb.proj.1"));
    LT_TRY(net_linear(net, &second, c->dim, IMAGE_DIM, error, "img_emb.proj.3"));
    LT_TRY(net_put(net, &z, rows, IMAGE_DIM, clip->data, error));
    LT_TRY(net_take(net, &hidden, rows, IMAGE_DIM, error));
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
    LT_TRY(dit_cache_keep(&context->cache, tokens, rows, c->dim, error));
    LT_TRY(net_apply(net, &second, &hidden, tokens, LT_ACTIVATION_NONE, false, error));
    return image_norm(net, "img_emb.proj.4", tokens, error);
}

/* -- life -------------------------------------------------------------------------------------- */

static lt_status check_text(const struct dit_config *c, const char *name,
                            const struct lt_view *text, struct lt_error *error)
{
    if (text->rank == 2 && text->dim[1] == c->text_dim && text->dim[0] >= 1 &&
        text->dim[0] <= c->text_len)
        return LT_OK;
    return lt_fail(error, LT_BAD_INPUT, "%s: expected [1…%lld, %lld], found [%lld, %lld]", name,
                   (long long)c->text_len, (long long)c->text_dim, (long long)text->dim[0],
                   (long long)(text->rank == 2 ? text->dim[1] : 0));
}

static lt_status check_prompt(const struct dit_config *c, const struct dit_prompt *prompt,
                              struct lt_error *error)
{
    const struct lt_view *clip = &prompt->clip;
    const int64_t rows = c->image_positions ? 2 * IMAGE_TOKENS : IMAGE_TOKENS;
    LT_TRY(check_text(c, "text", &prompt->text, error));
    if (prompt->nag_text.data)
        LT_TRY(check_text(c, "nag_text", &prompt->nag_text, error));
    if (clip->data && (clip->rank != 2 || clip->dim[0] != rows || clip->dim[1] != IMAGE_DIM))
        return lt_fail(error, LT_BAD_INPUT, "clip: expected [%lld, %d], found [%lld, %lld]",
                       (long long)rows, IMAGE_DIM, (long long)clip->dim[0],
                       (long long)(clip->rank == 2 ? clip->dim[1] : 0));
    return LT_OK;
}

static lt_status embed(struct dit_context *context, const struct dit_prompt *prompt,
                       struct lt_error *error)
{
    LT_TRY(embed_text(context, DIT_TOKENS_TEXT, &prompt->text, error));
    if (prompt->nag_text.data)
        LT_TRY(embed_text(context, DIT_TOKENS_NAG, &prompt->nag_text, error));
    /* Models without image tensors ignore clip features (dit.md trap 11). */
    if (prompt->clip.data && context->dit->config.image_attention)
        LT_TRY(embed_image(context, &prompt->clip, error));
    return LT_OK;
}

lt_status dit_context_create(struct dit *dit, const struct dit_prompt *prompt, size_t cache_bytes,
                             struct dit_context **context_out, struct lt_error *error)
{
    LT_TRY(check_prompt(&dit->config, prompt, error));
    struct dit_context *context = calloc(1, sizeof *context);
    if (context)
        context->keys = calloc((size_t)dit->config.layer_count, sizeof *context->keys);
    if (!context || !context->keys) {
        free(context);
        return lt_fail(error, LT_NO_MEMORY, "no memory for conditioning");
    }
    context->dit = dit;
    context->cache = (struct dit_cache){.exec = dit->net.exec, .bytes_max = cache_bytes};
    const struct net_mark mark = net_mark(&dit->net);
    const struct lt_mark patched = lt_arena_mark(&dit->patched);
    lt_status status = store_acquire_group(dit->net.store, STORE_GROUP_PROMPT, error);
    if (status == LT_OK) {
        status = embed(context, prompt, error);
        store_release_group(dit->net.store, STORE_GROUP_PROMPT);
    }
    net_rewind(&dit->net, mark);
    lt_arena_rewind(&dit->patched, patched);
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
    for (int which = 0; which < DIT_TOKENS_COUNT; which++) {
        dit_cache_drop(&c->cache, &c->tokens[which]);
        for (int64_t n = 0; n < c->dit->config.layer_count; n++)
            dit_cache_drop(&c->cache, &c->keys[n][which]);
    }
    free(c->keys);
    free(c);
    *context = NULL;
}

size_t dit_context_bytes(const struct dit_context *context)
{
    return context->cache.bytes;
}

uint64_t dit_context_computed(const struct dit_context *context)
{
    return context->cache.computed;
}

/* -- keys and values --------------------------------------------------------------------------- */

static lt_status fill_keys(struct dit *dit, const struct block *block, enum dit_tokens which,
                           const struct lt_view *tokens, const struct lt_view *k,
                           const struct lt_view *v, struct lt_error *error)
{
    const bool image = which == DIT_TOKENS_IMAGE;
    const struct linear *k_weights = image ? &block->k_img : &block->cross.k,
                        *v_weights = image ? &block->v_img : &block->cross.v;
    LT_TRY(net_apply(&dit->net, k_weights, tokens, k, LT_ACTIVATION_NONE, false, error));
    LT_TRY(dit_rms(dit, k, image ? &block->norm_k_img : &block->cross.norm_k, error));
    return net_apply(&dit->net, v_weights, tokens, v, LT_ACTIVATION_NONE, false, error);
}

lt_status dit_context_keys(struct dit_context *context, size_t n, const struct block *block,
                           enum dit_tokens which, struct lt_view *k_out, struct lt_view *v_out,
                           struct lt_error *error)
{
    struct dit *dit = context->dit;
    const struct lt_view *tokens = &context->tokens[which];
    const int64_t rows = tokens->dim[0];
    struct lt_view *slot = &context->keys[n][which], both;
    bool fresh;
    LT_TRY(dit_cache_take(&context->cache, &dit->net, slot, 2 * rows, dit->config.dim, &both,
                          &fresh, error));
    *k_out = lt_view_rows(&both, 0, rows);
    *v_out = lt_view_rows(&both, rows, rows);
    if (!fresh)
        return LT_OK;
    const lt_status status = fill_keys(dit, block, which, tokens, k_out, v_out, error);
    if (status != LT_OK) /* half-made values must not be found later */
        dit_cache_drop(&context->cache, slot);
    return status;
}
