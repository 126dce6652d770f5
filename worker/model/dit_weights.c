#include "worker/model/dit_parts.h"

#include <stdio.h>

static lt_status find_attention(const struct dit *dit, struct attention_weights *weights, size_t n,
                                const char *kind, struct lt_error *error)
{
    static const char letters[] = "qkvo";
    struct linear *const linears[] = {&weights->q, &weights->k, &weights->v, &weights->o};
    const struct net *net = &dit->net;
    const int64_t d = dit->config.dim;
    for (int i = 0; i < 4; i++) {
        char name[96];
        snprintf(name, sizeof name, "blocks.%zu.%s.%c", n, kind, letters[i]);
        LT_TRY(net_linear(net, linears[i], d, d, error, name));
    }
    LT_TRY(net_tensor(net, &weights->norm_q, 1, &d, error, "blocks.%zu.%s.norm_q.weight", n, kind));
    return net_tensor(net, &weights->norm_k, 1, &d, error, "blocks.%zu.%s.norm_k.weight", n, kind);
}

static lt_status find_image_attention(const struct dit *dit, size_t n, struct block *block,
                                      struct lt_error *error)
{
    const int64_t d = dit->config.dim;
    char name[96];
    snprintf(name, sizeof name, "blocks.%zu.cross_attn.k_img", n);
    LT_TRY(net_linear(&dit->net, &block->k_img, d, d, error, name));
    snprintf(name, sizeof name, "blocks.%zu.cross_attn.v_img", n);
    LT_TRY(net_linear(&dit->net, &block->v_img, d, d, error, name));
    return net_tensor(&dit->net, &block->norm_k_img, 1, &d, error,
                      "blocks.%zu.cross_attn.norm_k_img.weight", n);
}

lt_status dit_find_block(const struct dit *dit, size_t n, struct block *block_out,
                         struct lt_error *error)
{
    const struct dit_config *c = &dit->config;
    const struct net *net = &dit->net;
    const int64_t d = c->dim;
    struct block block = {0};
    char name[96];
    LT_TRY(find_attention(dit, &block.self, n, "self_attn", error));
    LT_TRY(find_attention(dit, &block.cross, n, "cross_attn", error));
    LT_TRY(net_tensor(net, &block.norm3_weight, 1, &d, error, "blocks.%zu.norm3.weight", n));
    LT_TRY(net_tensor(net, &block.norm3_bias, 1, &d, error, "blocks.%zu.norm3.bias", n));
    LT_TRY(net_tensor(net, &block.modulation, 2, (int64_t[]){6, d}, error, "blocks.%zu.modulation",
                      n));
    snprintf(name, sizeof name, "blocks.%zu.ffn.0", n);
    LT_TRY(net_linear(net, &block.ffn_in, c->ffn_dim, d, error, name));
    snprintf(name, sizeof name, "blocks.%zu.ffn.2", n);
    LT_TRY(net_linear(net, &block.ffn_out, d, c->ffn_dim, error, name));
    if (c->image_attention)
        LT_TRY(find_image_attention(dit, n, &block, error));
    *block_out = block;
    return LT_OK;
}
