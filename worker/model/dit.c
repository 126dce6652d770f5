/* dit.md 2.7, per block on X [L, d], all activations f32 (GEMM inputs are rounded inside the ops):
 *
 *   A = LN(X)·(1 + scale1) + shift1 ; q, k, v of A ; q, k = rope(rms(q, k)) ; X += gate1 ·
 * o(attention) A = LN(X; norm3) ; q = rms(q of A) ; X += o(attention(q, text) [+ attention(q,
 * image)]) A = LN(X)·(1 + scale2) + shift2 ; X += gate2 · ffn(A), chunked over tokens
 *
 * Buffers, each [L, d] with written lifetimes: X whole forward; A normed input, then attention
 * output; Q query, then output projection; K, V keys and values of self-attention, K also image
 * attention. H [chunk, ffn] hidden. */
#include "worker/model/dit.h"

#include "common/arena.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD_WIDTH = 128, FFN_CHUNK = 2048, IMAGE_DIM = 1280 };

struct dit {
    struct dit_config config;
    struct store *store;
    const struct lt_kernels *kernels;
    struct lt_exec *exec;
    struct lt_arena arena; /* activations of one forward */
};

struct dit_context {
    struct dit *dit;
    struct lt_view text, image; /* [n or n+1, d], [257|514, d] f32 */
    float last_key_bias;        /* ln of how often the last text row counts */
    struct lt_view *cached; /* per block: text k, text v, image k, image v; data NULL: not kept */
    size_t bytes, cache_bytes;
    uint64_t computed;
};

struct linear {
    struct lt_view weight, bias;
};

struct attention_weights {
    struct linear q, k, v, o;
    struct lt_view norm_q, norm_k;
};

struct block {
    struct attention_weights self, cross;
    struct linear k_img, v_img;
    struct lt_view norm_k_img, norm3_weight, norm3_bias, modulation;
    struct linear ffn_in, ffn_out;
};

/* -- weights ----------------------------------------------------------------------------------- */

static lt_status tensor(const struct dit *dit, struct lt_view *view, int rank, const int64_t *dim,
                        struct lt_error *error, const char *format, ...)
    __attribute__((format(printf, 6, 7)));
static lt_status tensor(const struct dit *dit, struct lt_view *view, int rank, const int64_t *dim,
                        struct lt_error *error, const char *format, ...)
{
    char name[128];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    return store_tensor_shaped(dit->store, name, rank, dim, view, error);
}

static lt_status find_linear(const struct dit *dit, struct linear *linear, int64_t out, int64_t in,
                             struct lt_error *error, const char *name)
{
    LT_TRY(tensor(dit, &linear->weight, 2, (int64_t[]){out, in}, error, "%s.weight", name));
    return tensor(dit, &linear->bias, 1, &out, error, "%s.bias", name);
}

static lt_status find_attention(const struct dit *dit, struct attention_weights *weights, size_t n,
                                const char *kind, struct lt_error *error)
{
    static const char letters[] = "qkvo";
    struct linear *const linears[] = {&weights->q, &weights->k, &weights->v, &weights->o};
    const int64_t d = dit->config.dim;
    for (int i = 0; i < 4; i++) {
        char name[96];
        snprintf(name, sizeof name, "blocks.%zu.%s.%c", n, kind, letters[i]);
        LT_TRY(find_linear(dit, linears[i], d, d, error, name));
    }
    LT_TRY(tensor(dit, &weights->norm_q, 1, &d, error, "blocks.%zu.%s.norm_q.weight", n, kind));
    return tensor(dit, &weights->norm_k, 1, &d, error, "blocks.%zu.%s.norm_k.weight", n, kind);
}

static lt_status find_block(const struct dit *dit, size_t n, struct block *block,
                            struct lt_error *error)
{
    const struct dit_config *c = &dit->config;
    const int64_t d = c->dim;
    char name[96];
    LT_TRY(find_attention(dit, &block->self, n, "self_attn", error));
    LT_TRY(find_attention(dit, &block->cross, n, "cross_attn", error));
    LT_TRY(tensor(dit, &block->norm3_weight, 1, &d, error, "blocks.%zu.norm3.weight", n));
    LT_TRY(tensor(dit, &block->norm3_bias, 1, &d, error, "blocks.%zu.norm3.bias", n));
    LT_TRY(
        tensor(dit, &block->modulation, 2, (int64_t[]){6, d}, error, "blocks.%zu.modulation", n));
    snprintf(name, sizeof name, "blocks.%zu.ffn.0", n);
    LT_TRY(find_linear(dit, &block->ffn_in, c->ffn_dim, d, error, name));
    snprintf(name, sizeof name, "blocks.%zu.ffn.2", n);
    LT_TRY(find_linear(dit, &block->ffn_out, d, c->ffn_dim, error, name));
    if (!c->image_attention)
        return LT_OK;
    snprintf(name, sizeof name, "blocks.%zu.cross_attn.k_img", n);
    LT_TRY(find_linear(dit, &block->k_img, d, d, error, name));
    snprintf(name, sizeof name, "blocks.%zu.cross_attn.v_img", n);
    LT_TRY(find_linear(dit, &block->v_img, d, d, error, name));
    return tensor(dit, &block->norm_k_img, 1, &d, error, "blocks.%zu.cross_attn.norm_k_img.weight",
                  n);
}

lt_status dit_create(const struct dit_config *config, struct store *store,
                     const struct lt_kernels *kernels, struct lt_exec *exec, struct dit **dit_out,
                     struct lt_error *error)
{
    struct dit dit = {*config, store, kernels, exec, {0}};
    if (config->variant == DIT_VARIANT_ANIMATE || config->variant == DIT_VARIANT_TALK_ADDON)
        return lt_fail(error, LT_UNSUPPORTED,
                       "a %s transformer: its face, pose or audio parts are not built yet",
                       dit_variant_name(config->variant));
    for (size_t n = 0; n < (size_t)config->layer_count;
         n++) { /* every missing or wrong tensor, before any work */
        struct block block;
        LT_TRY(store_acquire(store, n, error));
        const lt_status status = find_block(&dit, n, &block, error);
        store_release(store, n);
        LT_TRY(status);
    }
    *dit_out = malloc(sizeof dit);
    if (!*dit_out)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a transformer");
    **dit_out = dit;
    lt_arena_init(&(*dit_out)->arena, 0);
    return LT_OK;
}

void dit_destroy(struct dit **dit)
{
    if (!*dit)
        return;
    lt_arena_fini(&(*dit)->arena);
    free(*dit);
    *dit = NULL;
}

const struct dit_config *dit_config(const struct dit *dit)
{
    return &dit->config;
}

/* -- small steps ------------------------------------------------------------------------------- */

static lt_status take(struct dit *dit, struct lt_view *view, int64_t rows, int64_t columns,
                      struct lt_error *error)
{
    float *data = lt_arena_take_array(&dit->arena, (size_t)(rows * columns), sizeof *data);
    if (!data)
        return lt_fail(error, LT_NO_MEMORY, "no memory for [%lld, %lld] activations",
                       (long long)rows, (long long)columns);
    *view = lt_view_2d(data, LT_TYPE_F32, rows, columns);
    return LT_OK;
}

static lt_status apply(struct dit *dit, const struct linear *linear, const struct lt_view *in,
                       const struct lt_view *out, enum lt_activation activation, bool exact,
                       struct lt_error *error)
{
    return LT_OP(linear, dit->kernels, dit->exec, error, .out = *out, .in = *in,
                 .weight = linear->weight, .bias = linear->bias, .activation = activation,
                 .exact = exact);
}

static lt_status rms(struct dit *dit, const struct lt_view *x, const struct lt_view *weight,
                     struct lt_error *error)
{
    return LT_OP(rms_norm, dit->kernels, dit->exec, error, .out = *x, .in = *x, .weight = *weight,
                 .epsilon = dit->config.epsilon);
}

/* [L, d] as [L, H, 128]. */
static struct lt_view heads(const struct dit *dit, const struct lt_view *x)
{
    return lt_view_reshape(x, 3, (int64_t[]){x->dim[0], dit->config.head_count, HEAD_WIDTH});
}

static lt_status attend(struct dit *dit, const struct lt_view *out, const struct lt_view *q,
                        const struct lt_view *k, const struct lt_view *v, float last_key_bias,
                        struct lt_error *error)
{
    return LT_OP(attention, dit->kernels, dit->exec, error, .out = heads(dit, out),
                 .q = heads(dit, q), .k = heads(dit, k), .v = heads(dit, v),
                 .scale = 1.0f / sqrtf(HEAD_WIDTH), .last_key_bias = last_key_bias);
}

/* Row `i` of a [rows, d] view as [1, d]. */
static struct lt_view one(const struct lt_view *view, int64_t i)
{
    return lt_view_rows(view, i, 1);
}

/* -- context ----------------------------------------------------------------------------------- */

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
    struct dit *dit = context->dit;
    const struct dit_config *c = &dit->config;
    const int64_t n = text->dim[0], rows = n < c->text_len ? n + 1 : n;
    struct linear first, second;
    struct lt_view padded, hidden;
    LT_TRY(find_linear(dit, &first, c->dim, c->text_dim, error, "text_embedding.0"));
    LT_TRY(find_linear(dit, &second, c->dim, c->dim, error, "text_embedding.2"));
    LT_TRY(take(dit, &padded, rows, c->text_dim, error));
    LT_TRY(take(dit, &hidden, rows, c->dim, error));
    LT_TRY(keep(context, &context->text, rows, error));
    memset(padded.data, 0, (size_t)(rows * c->text_dim) * sizeof(float));
    memcpy(padded.data, text->data, (size_t)(n * c->text_dim) * sizeof(float));
    LT_TRY(apply(dit, &first, &padded, &hidden, LT_ACTIVATION_GELU_TANH, false, error));
    context->last_key_bias = rows > n ? logf((float)(c->text_len - n)) : 0;
    return apply(dit, &second, &hidden, &context->text, LT_ACTIVATION_NONE, false, error);
}

static lt_status image_norm(struct dit *dit, const char *name, const struct lt_view *x,
                            struct lt_error *error)
{
    struct lt_view weight, bias;
    const int64_t width = x->dim[1];
    LT_TRY(tensor(dit, &weight, 1, &width, error, "%s.weight", name));
    LT_TRY(tensor(dit, &bias, 1, &width, error, "%s.bias", name));
    return LT_OP(layer_norm, dit->kernels, dit->exec, error, .out = *x, .in = *x, .weight = weight,
                 .bias = bias, .epsilon = 1e-5f);
}

/* dit.md 2.5; eps 1e-5 and the exact GELU here only. */
static lt_status embed_image(struct dit_context *context, const struct lt_view *clip,
                             struct lt_error *error)
{
    struct dit *dit = context->dit;
    const struct dit_config *c = &dit->config;
    const int64_t rows = clip->dim[0];
    struct linear first, second;
    struct lt_view z, hidden, positions, wide;
    LT_TRY(find_linear(dit, &first, IMAGE_DIM, IMAGE_DIM, error, "img_emb.proj.1"));
    LT_TRY(find_linear(dit, &second, c->dim, IMAGE_DIM, error, "img_emb.proj.3"));
    LT_TRY(take(dit, &z, rows, IMAGE_DIM, error));
    LT_TRY(take(dit, &hidden, rows, IMAGE_DIM, error));
    memcpy(z.data, clip->data, (size_t)(rows * IMAGE_DIM) * sizeof(float));
    if (c->image_positions) {
        LT_TRY(tensor(dit, &positions, 2, (int64_t[]){rows, IMAGE_DIM}, error, "img_emb.emb_pos"));
        LT_TRY(take(dit, &wide, rows, IMAGE_DIM, error));
        LT_TRY(LT_OP(convert, dit->kernels, dit->exec, error, .out = wide, .in = positions));
        LT_TRY(
            LT_OP(gated_add, dit->kernels, dit->exec, error, .out = z, .residual = z, .in = wide));
    }
    LT_TRY(image_norm(dit, "img_emb.proj.0", &z, error));
    LT_TRY(apply(dit, &first, &z, &hidden, LT_ACTIVATION_GELU_ERF, false, error));
    LT_TRY(keep(context, &context->image, rows, error));
    LT_TRY(apply(dit, &second, &hidden, &context->image, LT_ACTIVATION_NONE, false, error));
    return image_norm(dit, "img_emb.proj.4", &context->image, error);
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
    const struct lt_mark mark = lt_arena_mark(&dit->arena);
    lt_status status = embed_text(context, text, error);
    /* Models without image tensors ignore clip features (dit.md trap 11). */
    if (status == LT_OK && clip->data && dit->config.image_attention)
        status = embed_image(context, clip, error);
    lt_arena_rewind(&dit->arena, mark);
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

/* Keys and values of `tokens` for one block: from the cache, or computed (and kept while they fit).
 * `slot` 0: text, 2: image. Views that are not kept live in the dit's arena. */
static lt_status keys_values(struct dit_context *context, size_t n, int slot,
                             const struct lt_view *tokens, const struct linear *k_weights,
                             const struct linear *v_weights, const struct lt_view *norm,
                             struct lt_view *k, struct lt_view *v, struct lt_error *error)
{
    struct dit *dit = context->dit;
    struct lt_view *cached = &context->cached[n * 4 + (size_t)slot];
    const size_t bytes = 2 * (size_t)lt_view_count(tokens) * sizeof(float);
    if (!cached[0].data) {
        const bool fits = context->bytes + bytes <= context->cache_bytes;
        if (fits) {
            LT_TRY(keep(context, k, tokens->dim[0], error));
            cached[0] = *k; /* owned from here on, also when what follows fails */
            LT_TRY(keep(context, v, tokens->dim[0], error));
            cached[1] = *v;
        } else {
            LT_TRY(take(dit, k, tokens->dim[0], dit->config.dim, error));
            LT_TRY(take(dit, v, tokens->dim[0], dit->config.dim, error));
        }
        context->computed++;
        lt_status status = apply(dit, k_weights, tokens, k, LT_ACTIVATION_NONE, false, error);
        if (status == LT_OK)
            status = rms(dit, k, norm, error);
        if (status == LT_OK)
            status = apply(dit, v_weights, tokens, v, LT_ACTIVATION_NONE, false, error);
        if (status != LT_OK && fits) { /* half-made values must not be found later */
            free(cached[0].data);
            free(cached[1].data);
            cached[0].data = cached[1].data = NULL;
            context->bytes -= bytes;
        }
        return status;
    }
    *k = cached[0];
    *v = cached[1];
    return LT_OK;
}

/* -- forward ----------------------------------------------------------------------------------- */

struct forward {
    struct dit *dit;
    const struct dit_inputs *inputs;
    int64_t frames, rows, columns, tokens; /* of the patch grid */
    struct lt_view x, a, q, k, v, hidden;  /* activations, see the top */
    struct lt_view e, e0, modulation;      /* [1, d], [6, d], [6, d] */
    struct lt_view rope_time, rope_row, rope_column;
};

static lt_status check_inputs(struct forward *f, const struct lt_view *v, struct lt_error *error)
{
    const struct dit_config *c = &f->dit->config;
    const struct lt_view *x = &f->inputs->x, *y = &f->inputs->y;
    const int64_t extra = c->in_channels - c->out_channels;
    if (x->rank != 4 || x->dim[0] != c->out_channels || x->dim[1] < 1 || x->dim[2] < 2 ||
        x->dim[3] < 2 || x->dim[2] % 2 || x->dim[3] % 2)
        return lt_fail(error, LT_BAD_INPUT,
                       "x: expected [%lld, F, h, w] with even h and w, found [%lld, %lld, %lld, "
                       "%lld]",
                       (long long)c->out_channels, (long long)x->dim[0], (long long)x->dim[1],
                       (long long)x->dim[2], (long long)x->dim[3]);
    if (extra > 0 && !y->data)
        return lt_fail(error, LT_BAD_INPUT,
                       "y: this model takes %lld channels of condition, none given",
                       (long long)extra);
    if (y->data && (y->rank != 4 || y->dim[0] != extra ||
                    memcmp(y->dim + 1, x->dim + 1, 3 * sizeof *x->dim) != 0))
        return lt_fail(error, LT_BAD_INPUT, "y: expected [%lld, %lld, %lld, %lld], found [%lld, …]",
                       (long long)extra, (long long)x->dim[1], (long long)x->dim[2],
                       (long long)x->dim[3], (long long)y->dim[0]);
    if (!(f->inputs->timestep >= 0 && f->inputs->timestep <= 1000))
        return lt_fail(error, LT_BAD_INPUT, "timestep: expected 0 to 1000, found %g",
                       f->inputs->timestep);
    lt_assert(v->rank == 4 && lt_view_count(v) == lt_view_count(x) &&
              f->inputs->context->dit == f->dit);
    f->frames = x->dim[1];
    f->rows = x->dim[2] / 2;
    f->columns = x->dim[3] / 2;
    f->tokens = f->frames * f->rows * f->columns;
    return LT_OK;
}

/* cos and sin of position · 10000^(-2p/D), D = 2 · pairs of the axis; f64 angles, f32 table.
 * dit.md 2.6. */
static lt_status rope_axis(struct dit *dit, int64_t positions, int64_t pairs, struct lt_view *axis,
                           struct lt_error *error)
{
    float *table = lt_arena_take_array(&dit->arena, (size_t)(positions * pairs * 2), sizeof *table);
    if (!table)
        return lt_fail(error, LT_NO_MEMORY, "no memory for rotation angles");
    *axis = lt_view_3d(table, LT_TYPE_F32, positions, pairs, 2);
    for (int64_t i = 0; i < positions; i++)
        for (int64_t p = 0; p < pairs; p++) {
            const double angle = (double)i * pow(10000.0, -(double)p / (double)pairs);
            *table++ = (float)cos(angle);
            *table++ = (float)sin(angle);
        }
    return LT_OK;
}

static lt_status take_buffers(struct forward *f, struct lt_error *error)
{
    struct dit *dit = f->dit;
    const int64_t d = dit->config.dim, chunk = f->tokens < FFN_CHUNK ? f->tokens : FFN_CHUNK;
    struct lt_view *const wide[] = {&f->x, &f->a, &f->q, &f->k, &f->v};
    for (size_t i = 0; i < LT_COUNT(wide); i++)
        LT_TRY(take(dit, wide[i], f->tokens, d, error));
    LT_TRY(take(dit, &f->hidden, chunk, dit->config.ffn_dim, error));
    LT_TRY(take(dit, &f->e, 1, d, error));
    LT_TRY(take(dit, &f->e0, 6, d, error));
    LT_TRY(take(dit, &f->modulation, 6, d, error));
    const int64_t pairs = HEAD_WIDTH / 2, space = HEAD_WIDTH / 6; /* 22, 21, 21 */
    LT_TRY(rope_axis(dit, f->frames, pairs - 2 * space, &f->rope_time, error));
    LT_TRY(rope_axis(dit, f->rows, space, &f->rope_row, error));
    return rope_axis(dit, f->columns, space, &f->rope_column, error);
}

size_t dit_activation_bytes(const struct dit_config *config, int64_t tokens)
{
    const int64_t chunk = tokens < FFN_CHUNK ? tokens : FFN_CHUNK;
    return (size_t)(5 * tokens * config->dim + chunk * config->ffn_dim) * sizeof(float);
}

/* dit.md 2.3: cosines first; e for the head, e0 for the blocks. */
static lt_status embed_time(struct forward *f, struct lt_error *error)
{
    struct dit *dit = f->dit;
    const struct dit_config *c = &dit->config;
    struct linear first, second, projection;
    struct lt_view wave, hidden, activated;
    LT_TRY(find_linear(dit, &first, c->dim, c->freq_dim, error, "time_embedding.0"));
    LT_TRY(find_linear(dit, &second, c->dim, c->dim, error, "time_embedding.2"));
    LT_TRY(find_linear(dit, &projection, 6 * c->dim, c->dim, error, "time_projection.1"));
    LT_TRY(take(dit, &wave, 1, c->freq_dim, error));
    LT_TRY(take(dit, &hidden, 1, c->dim, error));
    LT_TRY(take(dit, &activated, 1, c->dim, error));
    const int64_t half = c->freq_dim / 2;
    for (int64_t i = 0; i < half; i++) {
        const double angle = f->inputs->timestep * pow(10000.0, -(double)i / (double)half);
        ((float *)wave.data)[i] = (float)cos(angle);
        ((float *)wave.data)[half + i] = (float)sin(angle);
    }
    LT_TRY(apply(dit, &first, &wave, &hidden, LT_ACTIVATION_SILU, true, error));
    LT_TRY(apply(dit, &second, &hidden, &f->e, LT_ACTIVATION_NONE, true, error));
    LT_TRY(LT_OP(activate, dit->kernels, dit->exec, error, .out = activated, .in = f->e,
                 .activation = LT_ACTIVATION_SILU));
    const struct lt_view e0 = lt_view_reshape(&f->e0, 2, (int64_t[]){1, 6 * c->dim});
    return apply(dit, &projection, &activated, &e0, LT_ACTIVATION_NONE, true, error);
}

/* dit.md 2.1, 2.2: channels [x, y], patches to tokens; f32. The patch rows use buffer Q, d being at
 * least as wide. */
static lt_status embed_patches(struct forward *f, struct lt_error *error)
{
    struct dit *dit = f->dit;
    const struct dit_config *c = &dit->config;
    const struct lt_view *x = &f->inputs->x, *y = &f->inputs->y;
    struct linear patch;
    struct lt_view input = *x, patches;
    LT_TRY(tensor(dit, &patch.weight, 2, (int64_t[]){c->dim, 4 * c->in_channels}, error,
                  "patch_embedding.weight"));
    LT_TRY(tensor(dit, &patch.bias, 1, &c->dim, error, "patch_embedding.bias"));
    const struct lt_mark mark = lt_arena_mark(&dit->arena);
    if (y->data) {
        const size_t x_bytes = (size_t)lt_view_count(x) * sizeof(float);
        char *joined =
            lt_arena_take(&dit->arena, x_bytes + (size_t)lt_view_count(y) * sizeof(float));
        if (!joined)
            return lt_fail(error, LT_NO_MEMORY, "no memory for the joined input");
        memcpy(joined, x->data, x_bytes);
        memcpy(joined + x_bytes, y->data, (size_t)lt_view_count(y) * sizeof(float));
        input = lt_view_4d(joined, LT_TYPE_F32, c->in_channels, x->dim[1], x->dim[2], x->dim[3]);
    }
    LT_TRY(take(dit, &patches, f->tokens, 4 * c->in_channels, error));
    LT_TRY(LT_OP(patchify, dit->kernels, dit->exec, error, .out = patches, .in = input));
    LT_TRY(apply(dit, &patch, &patches, &f->x, LT_ACTIVATION_NONE, true, error));
    lt_arena_rewind(&dit->arena, mark);
    return LT_OK;
}

static lt_status modulated_norm(struct forward *f, int shift, int scale, struct lt_error *error)
{
    return LT_OP(layer_norm, f->dit->kernels, f->dit->exec, error, .out = f->a, .in = f->x,
                 .scale = one(&f->modulation, scale), .shift = one(&f->modulation, shift),
                 .epsilon = f->dit->config.epsilon);
}

static lt_status add_gated(struct forward *f, const struct lt_view *in, int gate,
                           struct lt_error *error)
{
    struct lt_view factor = {0};
    if (gate >= 0)
        factor = one(&f->modulation, gate);
    return LT_OP(gated_add, f->dit->kernels, f->dit->exec, error, .out = f->x, .residual = f->x,
                 .in = *in, .gate = factor);
}

static lt_status rotated_norm(struct forward *f, const struct lt_view *x,
                              const struct lt_view *weight, struct lt_error *error)
{
    return LT_OP(rms_norm, f->dit->kernels, f->dit->exec, error, .out = *x, .in = *x,
                 .weight = *weight, .epsilon = f->dit->config.epsilon, .head_width = HEAD_WIDTH,
                 .time = f->rope_time, .row = f->rope_row, .column = f->rope_column);
}

static lt_status self_attention(struct forward *f, const struct attention_weights *w,
                                struct lt_error *error)
{
    struct dit *dit = f->dit;
    LT_TRY(modulated_norm(f, 0, 1, error));
    LT_TRY(apply(dit, &w->q, &f->a, &f->q, LT_ACTIVATION_NONE, false, error));
    LT_TRY(apply(dit, &w->k, &f->a, &f->k, LT_ACTIVATION_NONE, false, error));
    LT_TRY(apply(dit, &w->v, &f->a, &f->v, LT_ACTIVATION_NONE, false, error));
    LT_TRY(rotated_norm(f, &f->q, &w->norm_q, error));
    LT_TRY(rotated_norm(f, &f->k, &w->norm_k, error));
    LT_TRY(attend(dit, &f->a, &f->q, &f->k, &f->v, 0, error));
    LT_TRY(apply(dit, &w->o, &f->a, &f->q, LT_ACTIVATION_NONE, false, error));
    return add_gated(f, &f->q, 2, error);
}

static lt_status cross_attention(struct forward *f, size_t n, const struct block *block,
                                 struct lt_error *error)
{
    struct dit *dit = f->dit;
    struct dit_context *context = f->inputs->context;
    const struct attention_weights *w = &block->cross;
    struct lt_view k, v;
    const struct lt_mark mark = lt_arena_mark(&dit->arena);
    LT_TRY(LT_OP(layer_norm, dit->kernels, dit->exec, error, .out = f->a, .in = f->x,
                 .weight = block->norm3_weight, .bias = block->norm3_bias,
                 .epsilon = dit->config.epsilon));
    LT_TRY(apply(dit, &w->q, &f->a, &f->q, LT_ACTIVATION_NONE, false, error));
    LT_TRY(rms(dit, &f->q, &w->norm_q, error));
    LT_TRY(keys_values(context, n, 0, &context->text, &w->k, &w->v, &w->norm_k, &k, &v, error));
    LT_TRY(attend(dit, &f->a, &f->q, &k, &v, context->last_key_bias, error));
    if (context->image
            .data) { /* its own softmax, summed before the output projection (dit.md 2.9) */
        LT_TRY(keys_values(context, n, 2, &context->image, &block->k_img, &block->v_img,
                           &block->norm_k_img, &k, &v, error));
        LT_TRY(attend(dit, &f->k, &f->q, &k, &v, 0, error));
        LT_TRY(LT_OP(gated_add, dit->kernels, dit->exec, error, .out = f->a, .residual = f->a,
                     .in = f->k));
    }
    LT_TRY(apply(dit, &w->o, &f->a, &f->q, LT_ACTIVATION_NONE, false, error));
    lt_arena_rewind(&dit->arena, mark);
    return add_gated(f, &f->q, -1, error);
}

static lt_status feed_forward(struct forward *f, const struct block *block, struct lt_error *error)
{
    LT_TRY(modulated_norm(f, 3, 4, error));
    for (int64_t first = 0; first < f->tokens; first += FFN_CHUNK) {
        const int64_t count = f->tokens - first < FFN_CHUNK ? f->tokens - first : FFN_CHUNK;
        const struct lt_view in = lt_view_rows(&f->a, first, count),
                             out = lt_view_rows(&f->q, first, count);
        const struct lt_view hidden = lt_view_rows(&f->hidden, 0, count);
        LT_TRY(apply(f->dit, &block->ffn_in, &in, &hidden, LT_ACTIVATION_GELU_TANH, false, error));
        LT_TRY(apply(f->dit, &block->ffn_out, &hidden, &out, LT_ACTIVATION_NONE, false, error));
    }
    return add_gated(f, &f->q, 5, error);
}

static lt_status run_block(struct forward *f, size_t n, struct lt_error *error)
{
    struct dit *dit = f->dit;
    struct block block;
    LT_TRY(find_block(dit, n, &block, error));
    LT_TRY(LT_OP(convert, dit->kernels, dit->exec, error, .out = f->modulation,
                 .in = block.modulation));
    LT_TRY(LT_OP(gated_add, dit->kernels, dit->exec, error, .out = f->modulation,
                 .residual = f->modulation, .in = f->e0));
    LT_TRY(self_attention(f, &block.self, error));
    LT_TRY(cross_attention(f, n, &block, error));
    return feed_forward(f, &block, error);
}

/* dit.md 2.10: modulated by e (not e0), f32, channel fastest in the rows. */
static lt_status head(struct forward *f, struct lt_view *v, struct lt_error *error)
{
    struct dit *dit = f->dit;
    const struct dit_config *c = &dit->config;
    struct linear last;
    struct lt_view stored, rows;
    LT_TRY(find_linear(dit, &last, 4 * c->out_channels, c->dim, error, "head.head"));
    LT_TRY(tensor(dit, &stored, 2, (int64_t[]){2, c->dim}, error, "head.modulation"));
    struct lt_view modulation = lt_view_rows(&f->modulation, 0, 2);
    LT_TRY(LT_OP(convert, dit->kernels, dit->exec, error, .out = modulation, .in = stored));
    for (int64_t i = 0; i < 2; i++) {
        const struct lt_view row = one(&modulation, i);
        LT_TRY(LT_OP(gated_add, dit->kernels, dit->exec, error, .out = row, .residual = row,
                     .in = f->e));
    }
    LT_TRY(modulated_norm(f, 0, 1, error));
    LT_TRY(take(dit, &rows, f->tokens, 4 * c->out_channels, error));
    LT_TRY(apply(dit, &last, &f->a, &rows, LT_ACTIVATION_NONE, true, error));
    return LT_OP(unpatchify, dit->kernels, dit->exec, error, .out = *v, .in = rows);
}

static lt_status run_blocks(struct forward *f, struct lt_error *error)
{
    for (size_t n = 0; n < (size_t)f->dit->config.layer_count; n++) {
        LT_TRY(store_acquire(f->dit->store, n, error));
        const lt_status status = run_block(f, n, error);
        store_release(f->dit->store, n);
        LT_TRY(status);
        if (f->inputs->done)
            atomic_fetch_add(f->inputs->done, 1);
    }
    return LT_OK;
}

lt_status dit_forward(struct dit *dit, const struct dit_inputs *inputs, struct lt_view *v,
                      struct lt_error *error)
{
    struct forward f = {.dit = dit, .inputs = inputs};
    lt_status status;
    LT_TRY(check_inputs(&f, v, error));
    const struct lt_mark mark = lt_arena_mark(&dit->arena);
    LT_TRY_OR(take_buffers(&f, error), out);
    LT_TRY_OR(embed_time(&f, error), out);
    LT_TRY_OR(embed_patches(&f, error), out);
    LT_TRY_OR(run_blocks(&f, error), out);
    LT_TRY_OR(head(&f, v, error), out);
out:
    lt_arena_rewind(&dit->arena, mark);
    return status;
}
