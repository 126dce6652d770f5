/* encoders.md 6.2, per block on X [n, d], f32 (GEMM inputs are rounded inside the ops):
 *
 *   A = rms(X; norm1) ; X += o(attention(q A, k A, v A) without a scale, with the block's own bias
 *   by distance)
 *   A = rms(X; norm2) ; X += fc2(gelu(gate A) · fc1 A)
 *
 * Attention takes f32 inputs at every precision: it is 2 % of the work at 512 tokens, and logits
 * without a scale feel every rounding. Matrices of 8-bit files are scaled by `….scale_weight`.
 *
 * Buffers: X [n, d]; A [n, d] normed input, then what is added to X; Q K V O [n, inner]; gate and
 * its partner [n, ffn], over Q … O, which are done by then; bias of the block [heads, 2n-1]. */
#include "worker/model/text.h"

#include "worker/model/net.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DISTANCE_MAX = 128, TOKENS_MAX = 65536 };

struct text {
    struct text_config config;
    struct net net;
};

struct block {
    struct lt_view norm1, norm2, distance; /* distance: [buckets, heads] */
    struct linear q, k, v, o, gate, up, down;
};

/* -- configuration ----------------------------------------------------------------------------- */

static lt_status find_info(const struct tensor_file *file, const char *name, int rank,
                           const struct tensor_info **info_out, struct lt_error *error)
{
    const struct tensor_info *info = tensor_file_find(file, name);
    if (!info)
        return lt_fail(error, LT_BAD_INPUT, "%s: not a UMT5 text encoder: tensor '%s' is missing",
                       tensor_file_path(file), name);
    if (info->rank != rank)
        return lt_fail(error, LT_BAD_INPUT, "%s: tensor '%s': expected %d dimensions, found %d",
                       tensor_file_path(file), name, rank, info->rank);
    *info_out = info;
    return LT_OK;
}

static int64_t count_blocks(const struct tensor_file *file)
{
    char name[64];
    int64_t count = 0;
    do
        snprintf(name, sizeof name, "blocks.%lld.norm1.weight", (long long)count++);
    while (tensor_file_find(file, name));
    return count - 1;
}

lt_status text_config_detect(const struct tensor_file *file, struct text_config *config_out,
                             struct lt_error *error)
{
    const struct tensor_info *embedding, *distance, *q, *gate;
    LT_TRY(find_info(file, "token_embedding.weight", 2, &embedding, error));
    LT_TRY(find_info(file, "blocks.0.attn.q.weight", 2, &q, error));
    LT_TRY(find_info(file, "blocks.0.pos_embedding.embedding.weight", 2, &distance, error));
    LT_TRY(find_info(file, "blocks.0.ffn.gate.0.weight", 2, &gate, error));
    struct text_config config = {
        .layer_count = count_blocks(file),
        .dim = embedding->dim[1],
        .head_count = distance->dim[1],
        .ffn_dim = gate->dim[0],
        .vocabulary_rows = embedding->dim[0],
        .bucket_count = distance->dim[0],
        .epsilon = 1e-6f,
    };
    if (config.layer_count > 1 &&
        !tensor_file_find(file, "blocks.1.pos_embedding.embedding.weight"))
        return lt_fail(error, LT_UNSUPPORTED,
                       "%s: a T5 encoder with one table of distances for all its blocks; Wan uses "
                       "UMT5, which has one in each",
                       tensor_file_path(file));
    if (q->dim[0] % config.head_count != 0 || config.bucket_count < 4 ||
        config.bucket_count % 4 != 0)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: %lld heads and %lld buckets of distances do not fit queries of %lld",
                       tensor_file_path(file), (long long)config.head_count,
                       (long long)config.bucket_count, (long long)q->dim[0]);
    config.head_width = q->dim[0] / config.head_count;
    *config_out = config;
    return LT_OK;
}

bool text_wants(void *context, const char *name)
{
    (void)context;
    return strncmp(name, "blocks.", 7) == 0 || strcmp(name, "norm.weight") == 0 ||
           strcmp(name, "token_embedding.weight") == 0;
}

/* -- weights ----------------------------------------------------------------------------------- */

static lt_status find_block(const struct text *text, size_t n, struct block *block,
                            struct lt_error *error)
{
    const struct text_config *c = &text->config;
    const int64_t inner = c->head_count * c->head_width;
    const struct {
        const char *name;
        int64_t out, in;
        struct linear *linear;
    } matrices[] = {
        {"attn.q", inner, c->dim, &block->q},
        {"attn.k", inner, c->dim, &block->k},
        {"attn.v", inner, c->dim, &block->v},
        {"attn.o", c->dim, inner, &block->o},
        {"ffn.gate.0", c->ffn_dim, c->dim, &block->gate},
        {"ffn.fc1", c->ffn_dim, c->dim, &block->up},
        {"ffn.fc2", c->dim, c->ffn_dim, &block->down},
    };
    const struct net *net = &text->net;
    LT_TRY(net_tensor(net, &block->norm1, 1, &c->dim, error, "blocks.%zu.norm1.weight", n));
    LT_TRY(net_tensor(net, &block->norm2, 1, &c->dim, error, "blocks.%zu.norm2.weight", n));
    LT_TRY(net_tensor(net, &block->distance, 2, (int64_t[]){c->bucket_count, c->head_count}, error,
                      "blocks.%zu.pos_embedding.embedding.weight", n));
    for (size_t i = 0; i < LT_COUNT(matrices); i++) {
        char name[96];
        snprintf(name, sizeof name, "blocks.%zu.%s", n, matrices[i].name);
        LT_TRY(net_matrix(net, matrices[i].linear, matrices[i].out, matrices[i].in, error, name));
    }
    return LT_OK;
}

static lt_status find_rest(const struct text *text, struct lt_view *embedding, struct lt_view *norm,
                           struct lt_error *error)
{
    const struct text_config *c = &text->config;
    LT_TRY(store_tensor_shaped(text->net.store, "token_embedding.weight", 2,
                               (int64_t[]){c->vocabulary_rows, c->dim}, embedding, error));
    return store_tensor_shaped(text->net.store, "norm.weight", 1, &c->dim, norm, error);
}

lt_status text_create(const struct text_config *config, struct store *store,
                      const struct lt_kernels *kernels, struct lt_exec *exec,
                      struct text **text_out, struct lt_error *error)
{
    const struct text text = {.config = *config,
                              .net = {.store = store, .kernels = kernels, .exec = exec}};
    struct lt_view embedding, norm;
    LT_TRY(find_rest(&text, &embedding, &norm, error));
    for (size_t n = 0; n < (size_t)config->layer_count; n++) {
        struct block block;
        LT_TRY(find_block(&text, n, &block, error));
    }
    *text_out = malloc(sizeof text);
    if (!*text_out)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a text encoder");
    **text_out = text;
    net_init(&(*text_out)->net);
    return LT_OK;
}

void text_destroy(struct text **text)
{
    if (!*text)
        return;
    net_fini(&(*text)->net);
    free(*text);
    *text = NULL;
}

const struct text_config *text_config(const struct text *text)
{
    return &text->config;
}

/* -- activations ------------------------------------------------------------------------------- */

struct encode {
    struct text *text;
    int64_t tokens;
    struct lt_view x, a, q, k, v, o, gate, up, table, bias;
};

/* Values of each buffer, in the order of the arena; the attention's and the feed-forward's share
 * one place. */
struct sizes {
    size_t x, work, table, bias; /* A as X */
};

static struct sizes measure(const struct text_config *c, size_t tokens)
{
    const size_t inner = (size_t)(c->head_count * c->head_width), ffn = (size_t)c->ffn_dim;
    return (struct sizes){
        .x = tokens * (size_t)c->dim,
        .work = tokens * (4 * inner > 2 * ffn ? 4 * inner : 2 * ffn),
        .table = (size_t)(c->bucket_count * c->head_count),
        .bias = (size_t)c->head_count * (tokens > 0 ? 2 * tokens - 1 : 0),
    };
}

size_t text_activation_bytes(const struct text_config *config, size_t tokens)
{
    const struct sizes s = measure(config, tokens);
    const size_t part[] = {s.x, s.x, s.work, s.table, s.bias};
    size_t bytes = 0;
    for (size_t i = 0; i < LT_COUNT(part); i++) /* the arena's alignment */
        bytes += (part[i] * sizeof(float) + 63) / 64 * 64;
    return bytes;
}

lt_status text_scratch(const struct text_config *config, enum lt_precision precision, size_t tokens,
                       struct lt_scratch *scratch_out, struct lt_error *error)
{
    const int64_t n = (int64_t)tokens, d = config->dim, ffn = config->ffn_dim;
    const int64_t inner = config->head_count * config->head_width;
    const int64_t shapes[][2] = {{d, inner}, {inner, d}, {d, ffn}, {ffn, d}};
    struct lt_scratch most, one;
    LT_TRY(lt_scratch_attention(LT_PRECISION_F32, n, config->head_count, config->head_width, &most,
                                error));
    for (size_t i = 0; i < LT_COUNT(shapes); i++) {
        LT_TRY(lt_scratch_linear(precision, n, shapes[i][0], shapes[i][1], false, &one, error));
        lt_scratch_join(&most, &one);
    }
    *scratch_out = most;
    return LT_OK;
}

size_t text_activation_peak_bytes(const struct text *text)
{
    return text->net.arena.peak_bytes;
}

static lt_status take_buffers(struct encode *e, struct lt_error *error)
{
    struct lt_arena *arena = &e->text->net.arena;
    const struct text_config *c = &e->text->config;
    const int64_t inner = c->head_count * c->head_width;
    const struct sizes s = measure(c, (size_t)e->tokens);
    float *x = lt_arena_take_array(arena, s.x, sizeof *x);
    float *a = lt_arena_take_array(arena, s.x, sizeof *a);
    float *work = lt_arena_take_array(arena, s.work, sizeof *work);
    float *table = lt_arena_take_array(arena, s.table, sizeof *table);
    float *bias = lt_arena_take_array(arena, s.bias, sizeof *bias);
    if (!x || !a || !work || !table || !bias)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the activations of %lld tokens",
                       (long long)e->tokens);
    struct lt_view *const attention[] = {&e->q, &e->k, &e->v, &e->o};
    for (int64_t i = 0; i < 4; i++)
        *attention[i] = lt_view_2d(work + i * e->tokens * inner, LT_TYPE_F32, e->tokens, inner);
    e->gate = lt_view_2d(work, LT_TYPE_F32, e->tokens, c->ffn_dim);
    e->up = lt_view_2d(work + e->tokens * c->ffn_dim, LT_TYPE_F32, e->tokens, c->ffn_dim);
    e->x = lt_view_2d(x, LT_TYPE_F32, e->tokens, c->dim);
    e->a = lt_view_2d(a, LT_TYPE_F32, e->tokens, c->dim);
    e->table = lt_view_2d(table, LT_TYPE_F32, c->bucket_count, c->head_count);
    e->bias = lt_view_2d(bias, LT_TYPE_F32, c->head_count, 2 * e->tokens - 1);
    return LT_OK;
}

/* -- small steps ------------------------------------------------------------------------------- */

static lt_status apply(struct encode *e, const struct linear *linear, const struct lt_view *in,
                       const struct lt_view *out, enum lt_activation activation,
                       struct lt_error *error)
{
    return net_apply(&e->text->net, linear, in, out, activation, false, error);
}

static lt_status norm(struct encode *e, const struct lt_view *weight, const struct lt_view *out,
                      struct lt_error *error)
{
    return LT_OP(rms_norm, e->text->net.kernels, e->text->net.exec, error, .out = *out, .in = e->x,
                 .weight = *weight, .epsilon = e->text->config.epsilon);
}

static lt_status add(struct encode *e, struct lt_error *error)
{
    return LT_OP(gated_add, e->text->net.kernels, e->text->net.exec, error, .out = e->x,
                 .residual = e->x, .in = e->a);
}

static struct lt_view heads(const struct encode *e, const struct lt_view *x)
{
    const struct text_config *c = &e->text->config;
    return lt_view_reshape(x, 3, (int64_t[]){e->tokens, c->head_count, c->head_width});
}

/* Half of the buckets for keys behind the query, half for keys before it; of each half, one a
 * distance up to half of it, then logarithmic up to DISTANCE_MAX. In f32, as the original. */
static int64_t bucket_of(int64_t distance, int64_t buckets)
{
    const int64_t half = buckets / 2, exact = half / 2, size = llabs(distance);
    const int64_t base = distance > 0 ? half : 0;
    if (size < exact)
        return base + size;
    const float ratio = logf((float)size / (float)exact) /
                        (float)log((double)DISTANCE_MAX / (double)exact) * (float)(half - exact);
    const int64_t bucket = exact + (int64_t)ratio;
    return base + (bucket < half ? bucket : half - 1);
}

static void fill_bias(const struct encode *e, const float *table, float *bias)
{
    const struct text_config *c = &e->text->config;
    for (int64_t i = 0; i < 2 * e->tokens - 1; i++) {
        const int64_t bucket = bucket_of(i - (e->tokens - 1), c->bucket_count);
        for (int64_t h = 0; h < c->head_count; h++)
            bias[h * (2 * e->tokens - 1) + i] = table[bucket * c->head_count + h];
    }
}

static lt_status spread_bias(struct encode *e, const struct lt_view *distance,
                             struct lt_error *error)
{
    struct net *net = &e->text->net;
    const struct net_mark mark = net_mark(net);
    const float *table;
    float *bias;
    lt_status status;
    LT_TRY_OR(net_copy(net, &e->table, distance, error), out);
    LT_TRY_OR(net_values(net, &e->table, &table, error), out);
    LT_TRY_OR(net_open(net, &e->bias, &bias, error), out);
    fill_bias(e, table, bias);
    LT_TRY_OR(net_close(net, &e->bias, bias, error), out);
out:
    net_rewind(net, mark);
    return status;
}

/* -- blocks ------------------------------------------------------------------------------------ */

static lt_status attention(struct encode *e, const struct block *block, struct lt_error *error)
{
    LT_TRY(norm(e, &block->norm1, &e->a, error));
    LT_TRY(apply(e, &block->q, &e->a, &e->q, LT_ACTIVATION_NONE, error));
    LT_TRY(apply(e, &block->k, &e->a, &e->k, LT_ACTIVATION_NONE, error));
    LT_TRY(apply(e, &block->v, &e->a, &e->v, LT_ACTIVATION_NONE, error));
    LT_TRY(spread_bias(e, &block->distance, error));
    LT_TRY(LT_OP(attention, e->text->net.kernels, e->text->net.exec, error, .out = heads(e, &e->o),
                 .q = heads(e, &e->q), .k = heads(e, &e->k), .v = heads(e, &e->v), .scale = 1,
                 .exact = true, .relative_bias = e->bias));
    LT_TRY(apply(e, &block->o, &e->o, &e->a, LT_ACTIVATION_NONE, error));
    return add(e, error);
}

static lt_status feed_forward(struct encode *e, const struct block *block, struct lt_error *error)
{
    LT_TRY(norm(e, &block->norm2, &e->a, error));
    LT_TRY(apply(e, &block->gate, &e->a, &e->gate, LT_ACTIVATION_GELU_TANH, error));
    LT_TRY(apply(e, &block->up, &e->a, &e->up, LT_ACTIVATION_NONE, error));
    LT_TRY(LT_OP(multiply, e->text->net.kernels, e->text->net.exec, error, .out = e->gate,
                 .a = e->gate, .b = e->up));
    LT_TRY(apply(e, &block->down, &e->gate, &e->a, LT_ACTIVATION_NONE, error));
    return add(e, error);
}

static lt_status run_block(struct encode *e, size_t n, struct lt_error *error)
{
    struct block block;
    LT_TRY(find_block(e->text, n, &block, error));
    LT_TRY(attention(e, &block, error));
    return feed_forward(e, &block, error);
}

static lt_status run_blocks(struct encode *e, struct lt_error *error)
{
    for (size_t n = 0; n < (size_t)e->text->config.layer_count; n++) {
        LT_TRY(store_acquire(e->text->net.store, n, error));
        const lt_status status = run_block(e, n, error);
        store_release(e->text->net.store, n);
        LT_TRY(status);
    }
    return LT_OK;
}

/* One row of the table a token: the table itself, a gigabyte, is never widened or moved. */
static lt_status embed(struct encode *e, const int32_t *tokens, const struct lt_view *embedding,
                       struct lt_error *error)
{
    for (int64_t i = 0; i < e->tokens; i++)
        LT_TRY(LT_OP(convert, e->text->net.kernels, e->text->net.exec, error,
                     .out = lt_view_rows(&e->x, i, 1),
                     .in = lt_view_rows(embedding, tokens[i], 1)));
    return LT_OK;
}

static lt_status check_tokens(const struct text *text, const int32_t *tokens, size_t count,
                              struct lt_error *error)
{
    if (count < 1 || count > TOKENS_MAX)
        return lt_fail(error, LT_BAD_INPUT, "tokens: expected 1 to %d, found %zu", TOKENS_MAX,
                       count);
    for (size_t i = 0; i < count; i++)
        if (tokens[i] < 0 || tokens[i] >= text->config.vocabulary_rows)
            return lt_fail(error, LT_BAD_INPUT,
                           "token %zu is %d: the encoder's embedding has %lld rows (are tokenizer "
                           "and encoder of one model?)",
                           i, tokens[i], (long long)text->config.vocabulary_rows);
    return LT_OK;
}

lt_status text_encode(struct text *text, const int32_t *tokens, size_t count,
                      const struct lt_view *features, struct lt_error *error)
{
    struct encode e = {.text = text, .tokens = (int64_t)count};
    struct lt_view embedding, last;
    lt_status status;
    LT_TRY(check_tokens(text, tokens, count, error));
    lt_assert(features->type == LT_TYPE_F32 && features->rank == 2 &&
              features->dim[0] == e.tokens && features->dim[1] == text->config.dim &&
              lt_view_is_contiguous(features));
    const struct net_mark mark = net_mark(&text->net);
    LT_TRY_OR(find_rest(text, &embedding, &last, error), out);
    LT_TRY_OR(take_buffers(&e, error), out);
    LT_TRY_OR(embed(&e, tokens, &embedding, error), out);
    LT_TRY_OR(run_blocks(&e, error), out);
    const struct lt_view *to = lt_exec_is_host(text->net.exec) ? features : &e.a;
    LT_TRY_OR(norm(&e, &last, to, error), out);
    LT_TRY_OR(net_get(&text->net, to, features->data, error), out);
out:
    net_rewind(&text->net, mark);
    return status;
}
