/* dit.md 2.7, per block on X [L, d], all activations f32 (GEMM inputs are rounded inside the ops):
 *
 *   A = LN(X)·(1 + scale1) + shift1 ; q, k, v of A ; q, k = rope(rms(q, k))
 *   X += gate1 · o(attention)
 *   A = LN(X; norm3) ; q = rms(q of A)
 *   X += o(attention(q, text) [guided away from attention(q, nag)] [+ attention(q, image)])
 *   X += talk's audio attention
 *   A = LN(X)·(1 + scale2) + shift2
 *   X += gate2 · ffn(A), chunked over tokens
 *   X += Animate's fuser, after every fifth block
 *
 * Every pass of a batch goes through a block before the next block is acquired. A pass keeps its X
 * for the whole forward; the buffers are shared: A normed input, then attention output; Q query,
 * then output projection; K, V keys and values of self-attention, K also NAG and image attention;
 * hidden [chunk, ffn]. */
#include "worker/model/dit_parts.h"

#include <math.h>
#include <stdlib.h>

lt_status dit_create(const struct dit_config *config, struct store *store,
                     const struct lt_kernels *kernels, struct lt_exec *exec, struct dit **dit_out,
                     struct lt_error *error)
{
    struct dit dit = {.config = *config, .net = {.store = store, .kernels = kernels, .exec = exec}};
    if (config->variant == DIT_VARIANT_TALK_ADDON)
        return lt_fail(error, LT_UNSUPPORTED,
                       "a %s file adds to a transformer: it is loaded together with its base",
                       dit_variant_name(config->variant));
    for (size_t n = 0; n < (size_t)config->layer_count;
         n++) { /* every missing or wrong tensor, before any work */
        struct block block;
        LT_TRY(dit_find_block(&dit, n, &block, error));
    }
    LT_TRY(animate_check(&dit, error));
    LT_TRY(talk_check(&dit, error));
    *dit_out = malloc(sizeof dit);
    if (!*dit_out)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a transformer");
    **dit_out = dit;
    net_init(&(*dit_out)->net);
    lt_exec_arena_init(exec, &(*dit_out)->patched);
    (*dit_out)->net.patched = &(*dit_out)->patched;
    return LT_OK;
}

void dit_destroy(struct dit **dit)
{
    if (!*dit)
        return;
    net_fini(&(*dit)->net);
    lt_arena_fini(&(*dit)->patched);
    free(*dit);
    *dit = NULL;
}

const struct dit_config *dit_config(const struct dit *dit)
{
    return &dit->config;
}

void dit_set_lora(struct dit *dit, struct lora_set *lora)
{
    dit->net.lora = lora;
}

/* -- small steps ------------------------------------------------------------------------------- */

lt_status dit_rms(struct dit *dit, const struct lt_view *x, const struct lt_view *weight,
                  struct lt_error *error)
{
    return LT_OP(rms_norm, dit->net.kernels, dit->net.exec, error, .out = *x, .in = *x,
                 .weight = *weight, .epsilon = dit->config.epsilon);
}

lt_status dit_add_scaled(struct dit *dit, const struct lt_view *x, const struct lt_view *in,
                         double strength, struct lt_error *error)
{
    struct lt_view gate = {0};
    if (strength != 1) {
        LT_TRY(net_host(&dit->net, &gate, 1, dit->config.dim, error));
        for (int64_t i = 0; i < dit->config.dim; i++)
            ((float *)gate.data)[i] = (float)strength;
        LT_TRY(net_input(&dit->net, &gate, &gate, error));
    }
    return LT_OP(gated_add, dit->net.kernels, dit->net.exec, error, .out = *x, .residual = *x,
                 .in = *in, .gate = gate);
}

/* [L, d] as [L, H, 128]. */
static struct lt_view heads(const struct dit *dit, const struct lt_view *x)
{
    return lt_view_reshape(x, 3, (int64_t[]){x->dim[0], dit->config.head_count, HEAD_WIDTH});
}

lt_status dit_attend(struct dit *dit, const struct lt_view *out, const struct lt_view *q,
                     const struct lt_view *k, const struct lt_view *v, float last_key_bias,
                     struct lt_error *error)
{
    return LT_OP(attention, dit->net.kernels, dit->net.exec, error, .out = heads(dit, out),
                 .q = heads(dit, q), .k = heads(dit, k), .v = heads(dit, v),
                 .scale = 1.0f / sqrtf(HEAD_WIDTH), .last_key_bias = last_key_bias);
}

/* Chunk `m` of the modulation, a row per timestep: [G, d]. */
static struct lt_view chunk(const struct forward *f, const struct pass *pass, int64_t m)
{
    return lt_view_rows(&f->modulation, m * pass->groups, pass->groups);
}

/* modulation[m, g] = stored[m] + e[g, m], m < chunks, or e[g] when it has one chunk for all: chunks
 * outermost, so that each is a [G, d] of its own. */
static lt_status modulate(struct forward *f, const struct lt_view *e, int64_t chunks,
                          struct lt_error *error)
{
    const int64_t d = f->dit->config.dim, groups = e->dim[0];
    const struct lt_view stored = lt_view_rows(&f->stored, 0, chunks);
    for (int64_t g = 0; g < groups; g++) {
        struct lt_view in = lt_view_2d((float *)e->data + g * e->stride[0], LT_TYPE_F32, chunks, d);
        struct lt_view out = in;
        in.stride[0] = e->dim[1] == d ? 0 : d;
        out.data = (float *)f->modulation.data + g * d;
        out.stride[0] = groups * d;
        LT_TRY(LT_OP(gated_add, f->dit->net.kernels, f->dit->net.exec, error, .out = out,
                     .residual = stored, .in = in));
    }
    return LT_OK;
}

static lt_status modulated_norm(struct forward *f, const struct pass *pass, int shift, int scale,
                                const struct lt_view *out, struct lt_error *error)
{
    return LT_OP(layer_norm, f->dit->net.kernels, f->dit->net.exec, error, .out = *out,
                 .in = pass->x, .scale = chunk(f, pass, scale), .shift = chunk(f, pass, shift),
                 .group_rows = pass->group_rows, .epsilon = f->dit->config.epsilon);
}

/* X += in, times the gate if there is one. */
static lt_status add_gated(struct forward *f, const struct pass *pass, const struct lt_view *in,
                           int gate, struct lt_error *error)
{
    struct lt_view factor = {0};
    if (gate >= 0)
        factor = chunk(f, pass, gate);
    return LT_OP(gated_add, f->dit->net.kernels, f->dit->net.exec, error, .out = pass->x,
                 .residual = pass->x, .in = *in, .gate = factor, .group_rows = pass->group_rows);
}

static lt_status rotated_norm(struct forward *f, const struct pass *pass, const struct lt_view *x,
                              const struct lt_view *weight, struct lt_error *error)
{
    return LT_OP(rms_norm, f->dit->net.kernels, f->dit->net.exec, error, .out = *x, .in = *x,
                 .weight = *weight, .epsilon = f->dit->config.epsilon, .head_width = HEAD_WIDTH,
                 .time = pass->rope_time, .row = pass->rope_row, .column = pass->rope_column);
}

/* -- block ------------------------------------------------------------------------------------- */

static lt_status self_attention(struct forward *f, const struct pass *pass,
                                const struct attention_weights *w, struct lt_error *error)
{
    struct net *net = &f->dit->net;
    const struct lt_view a = dit_rows(&f->a, pass), q = dit_rows(&f->q, pass),
                         k = dit_rows(&f->k, pass), v = dit_rows(&f->v, pass);
    LT_TRY(modulated_norm(f, pass, 0, 1, &a, error));
    LT_TRY(net_apply(net, &w->q, &a, &q, LT_ACTIVATION_NONE, false, error));
    LT_TRY(net_apply(net, &w->k, &a, &k, LT_ACTIVATION_NONE, false, error));
    LT_TRY(net_apply(net, &w->v, &a, &v, LT_ACTIVATION_NONE, false, error));
    LT_TRY(rotated_norm(f, pass, &q, &w->norm_q, error));
    LT_TRY(rotated_norm(f, pass, &k, &w->norm_k, error));
    LT_TRY(talk_look(f, pass, error));
    LT_TRY(dit_attend(f->dit, &a, &q, &k, &v, 0, error));
    LT_TRY(net_apply(net, &w->o, &a, &q, LT_ACTIVATION_NONE, false, error));
    return add_gated(f, pass, &q, 2, error);
}

/* out = Q attending to one kind of the context's tokens. */
static lt_status attend_tokens(struct forward *f, const struct pass *pass, size_t n,
                               const struct block *block, enum dit_tokens which,
                               const struct lt_view *out, struct lt_error *error)
{
    struct dit_context *context = pass->inputs->context;
    const struct lt_view q = dit_rows(&f->q, pass);
    struct lt_view k, v;
    LT_TRY(dit_context_keys(context, n, block, which, &k, &v, error));
    return dit_attend(f->dit, out, &q, &k, &v, context->last_key_bias[which], error);
}

static lt_status cross_attention(struct forward *f, const struct pass *pass, size_t n,
                                 const struct block *block, struct lt_error *error)
{
    struct dit *dit = f->dit;
    struct net *net = &dit->net;
    const struct dit_context *context = pass->inputs->context;
    const struct attention_weights *w = &block->cross;
    const struct lt_view a = dit_rows(&f->a, pass), q = dit_rows(&f->q, pass),
                         other = dit_rows(&f->k, pass);
    const struct net_mark mark = net_mark(net);
    LT_TRY(LT_OP(layer_norm, net->kernels, net->exec, error, .out = a, .in = pass->x,
                 .weight = block->norm3_weight, .bias = block->norm3_bias,
                 .epsilon = dit->config.epsilon));
    LT_TRY(net_apply(net, &w->q, &a, &q, LT_ACTIVATION_NONE, false, error));
    LT_TRY(dit_rms(dit, &q, &w->norm_q, error));
    LT_TRY(attend_tokens(f, pass, n, block, DIT_TOKENS_TEXT, &a, error));
    if (context->tokens[DIT_TOKENS_NAG].data) {
        const struct dit_options *o = pass->options;
        LT_TRY(attend_tokens(f, pass, n, block, DIT_TOKENS_NAG, &other, error));
        LT_TRY(LT_OP(nag, net->kernels, net->exec, error, .out = a, .positive = a,
                     .negative = other, .scale = (float)o->nag_scale, .tau = (float)o->nag_tau,
                     .alpha = (float)o->nag_alpha));
    }
    if (context->tokens[DIT_TOKENS_IMAGE].data) {
        /* its own softmax, summed before the output projection (dit.md 2.9) */
        LT_TRY(attend_tokens(f, pass, n, block, DIT_TOKENS_IMAGE, &other, error));
        LT_TRY(
            LT_OP(gated_add, net->kernels, net->exec, error, .out = a, .residual = a, .in = other));
    }
    LT_TRY(net_apply(net, &w->o, &a, &q, LT_ACTIVATION_NONE, false, error));
    net_rewind(net, mark);
    return add_gated(f, pass, &q, -1, error);
}

static lt_status feed_forward(struct forward *f, const struct pass *pass, const struct block *block,
                              struct lt_error *error)
{
    struct net *net = &f->dit->net;
    const struct lt_view a = dit_rows(&f->a, pass), q = dit_rows(&f->q, pass);
    LT_TRY(modulated_norm(f, pass, 3, 4, &a, error));
    for (int64_t first = 0; first < pass->tokens; first += FFN_CHUNK) {
        const int64_t left = pass->tokens - first, count = left < FFN_CHUNK ? left : FFN_CHUNK;
        const struct lt_view in = lt_view_rows(&a, first, count),
                             out = lt_view_rows(&q, first, count),
                             hidden = lt_view_rows(&f->hidden, 0, count);
        LT_TRY(net_apply(net, &block->ffn_in, &in, &hidden, LT_ACTIVATION_GELU_TANH, false, error));
        LT_TRY(net_apply(net, &block->ffn_out, &hidden, &out, LT_ACTIVATION_NONE, false, error));
    }
    return add_gated(f, pass, &q, 5, error);
}

/* The order of dit.md 2.7. */
static lt_status run_block(struct forward *f, const struct pass *pass, size_t n,
                           const struct block *block, struct lt_error *error)
{
    LT_TRY(modulate(f, &pass->e0, 6, error));
    LT_TRY(self_attention(f, pass, &block->self, error));
    LT_TRY(cross_attention(f, pass, n, block, error));
    LT_TRY(talk_listen(f, pass, n, error));
    LT_TRY(feed_forward(f, pass, block, error));
    return animate_fuse(f, pass, n, error);
}

static bool skips(const struct pass *pass, size_t n)
{
    for (size_t i = 0; i < pass->options->skip_count; i++)
        if (pass->options->skip_layers[i] == (int64_t)n)
            return true;
    return false;
}

/* One block for the whole batch; it is acquired. */
static lt_status run_batch(struct forward *f, size_t n, struct lt_error *error)
{
    struct block block;
    LT_TRY(dit_find_block(f->dit, n, &block, error));
    LT_TRY(LT_OP(convert, f->dit->net.kernels, f->dit->net.exec, error, .out = f->stored,
                 .in = block.modulation));
    for (size_t i = 0; i < f->count; i++) {
        const struct pass *pass = &f->pass[i];
        if (pass->inputs->reuse != DIT_REUSE_ADD && !skips(pass, n))
            LT_TRY(run_block(f, pass, n, &block, error));
        if (pass->inputs->done)
            atomic_fetch_add(pass->inputs->done, 1);
    }
    return LT_OK;
}

/* Where every input reuses what it has, no weights are fetched. */
static bool computes(const struct forward *f)
{
    for (size_t i = 0; i < f->count; i++)
        if (f->pass[i].inputs->reuse != DIT_REUSE_ADD)
            return true;
    return false;
}

static lt_status run_blocks(struct forward *f, struct lt_error *error)
{
    struct store *store = f->dit->net.store;
    for (size_t i = 0; !computes(f) && i < f->count; i++)
        if (f->pass[i].inputs->done)
            atomic_fetch_add(f->pass[i].inputs->done, (unsigned)f->dit->config.layer_count);
    for (size_t n = 0; computes(f) && n < (size_t)f->dit->config.layer_count; n++) {
        LT_TRY(store_acquire(store, n, error));
        const struct lt_mark patched = lt_arena_mark(&f->dit->patched);
        const lt_status status = run_batch(f, n, error);
        lt_arena_rewind(&f->dit->patched, patched);
        store_release(store, n);
        LT_TRY(status);
    }
    return LT_OK;
}

/* dit.md 2.10: modulated by e (not e0), f32, channel fastest in the rows. */
static lt_status head(struct forward *f, const struct pass *pass, const struct lt_view *v,
                      struct lt_error *error)
{
    struct net *net = &f->dit->net;
    const struct dit_config *c = &f->dit->config;
    const struct lt_view a = dit_rows(&f->a, pass);
    struct linear last;
    struct lt_view stored, rows, out;
    LT_TRY(net_linear(net, &last, 4 * c->out_channels, c->dim, error, "head.head"));
    LT_TRY(net_tensor(net, &stored, 2, (int64_t[]){2, c->dim}, error, "head.modulation"));
    const struct net_mark mark = net_mark(net);
    LT_TRY(LT_OP(convert, net->kernels, net->exec, error, .out = lt_view_rows(&f->stored, 0, 2),
                 .in = stored));
    LT_TRY(modulate(f, &pass->e, 2, error));
    LT_TRY(modulated_norm(f, pass, 0, 1, &a, error));
    LT_TRY(net_take(net, &rows, pass->tokens, 4 * c->out_channels, error));
    LT_TRY(net_apply(net, &last, &a, &rows, LT_ACTIVATION_NONE, true, error));
    LT_TRY(net_output(net, v, &out, error));
    LT_TRY(LT_OP(unpatchify, net->kernels, net->exec, error, .out = out, .in = rows));
    LT_TRY(net_get(net, &out, v->data, error));
    net_rewind(net, mark);
    return LT_OK;
}

static lt_status take_buffers(struct forward *f, struct lt_error *error)
{
    struct net *net = &f->dit->net;
    const int64_t d = f->dit->config.dim;
    int64_t tokens = 0, groups = 0;
    for (size_t i = 0; i < f->count; i++) {
        const struct pass *pass = &f->pass[i];
        tokens = pass->tokens > tokens ? pass->tokens : tokens;
        groups = pass->groups > groups ? pass->groups : groups;
    }
    struct lt_view *const wide[] = {&f->a, &f->q, &f->k, &f->v};
    for (size_t i = 0; i < LT_COUNT(wide); i++)
        LT_TRY(net_take(net, wide[i], tokens, d, error));
    LT_TRY(net_take(net, &f->hidden, tokens < FFN_CHUNK ? tokens : FFN_CHUNK,
                    f->dit->config.ffn_dim, error));
    LT_TRY(net_take(net, &f->stored, 6, d, error));
    if (f->dit->config.talk.tokens > 0)
        LT_TRY(net_take(net, &f->position, 1, tokens, error));
    return net_take(net, &f->modulation, 6 * groups, d, error);
}

static lt_status forward(struct forward *f, struct lt_view *v, struct lt_error *error)
{
    for (size_t i = 0; i < f->count; i++)
        LT_TRY(dit_pass_embed(f->dit, &f->pass[i], error));
    LT_TRY(take_buffers(f, error));
    for (size_t i = 0; i < f->count; i++)
        LT_TRY(animate_add_pose(f, &f->pass[i], error));
    for (size_t i = 0; i < f->count; i++)
        LT_TRY(dit_reuse_begin(f, &f->pass[i], error));
    LT_TRY(run_blocks(f, error));
    for (size_t i = 0; i < f->count; i++)
        LT_TRY(dit_reuse_end(f, &f->pass[i], error));
    for (size_t i = 0; i < f->count; i++)
        LT_TRY(head(f, &f->pass[i], &v[i], error));
    return LT_OK;
}

lt_status dit_forward(struct dit *dit, const struct dit_inputs *inputs, size_t count,
                      struct lt_view *v, struct lt_error *error)
{
    const struct net_mark mark = net_mark(&dit->net);
    const struct lt_mark patched = lt_arena_mark(&dit->patched);
    struct forward f = {.dit = dit,
                        .pass = lt_arena_take_array(&dit->net.host, count, sizeof *f.pass),
                        .count = count};
    lt_status status =
        f.pass ? LT_OK : lt_fail(error, LT_NO_MEMORY, "no memory for a batch of %zu", count);
    for (size_t i = 0; i < count && status == LT_OK; i++) {
        f.pass[i] = (struct pass){.inputs = &inputs[i]};
        status = dit_pass_begin(dit, &f.pass[i], &v[i], error);
    }
    if (status == LT_OK)
        status = forward(&f, v, error);
    net_rewind(&dit->net, mark);
    lt_arena_rewind(&dit->patched, patched);
    return status;
}
