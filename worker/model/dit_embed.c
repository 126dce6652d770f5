/* dit.md 2.1 to 2.3 and 2.6: an input becomes tokens, modulation and rotation. */
#include "worker/model/dit_parts.h"

#include <math.h>
#include <string.h>

lt_status dit_pass_begin(const struct dit *dit, struct pass *pass, const struct lt_view *v,
                         struct lt_error *error)
{
    const struct dit_config *c = &dit->config;
    const struct dit_inputs *inputs = pass->inputs;
    const struct lt_view *x = &inputs->x, *y = &inputs->y;
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
    if (!(inputs->timestep >= 0 && inputs->timestep <= 1000))
        return lt_fail(error, LT_BAD_INPUT, "timestep: expected 0 to 1000, found %g",
                       inputs->timestep);
    lt_assert(v->rank == 4 && lt_view_count(v) == lt_view_count(x) && inputs->context->dit == dit);
    pass->frames = x->dim[1];
    pass->rows = x->dim[2] / 2;
    pass->columns = x->dim[3] / 2;
    pass->tokens = pass->frames * pass->rows * pass->columns;
    return LT_OK;
}

/* cos and sin of position · 10000^(-2p/D), D = 2 · pairs of the axis; f64 angles, f32 table.
 * dit.md 2.6. */
static lt_status rope_axis(struct net *net, int64_t positions, int64_t pairs, struct lt_view *axis,
                           struct lt_error *error)
{
    float *table = lt_arena_take_array(&net->arena, (size_t)(positions * pairs * 2), sizeof *table);
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

/* 64 pairs of a head: 22 turn with the frame, 21 with the row, 21 with the column. */
static lt_status make_rotation(struct net *net, struct pass *pass, struct lt_error *error)
{
    const int64_t pairs = HEAD_WIDTH / 2, space = HEAD_WIDTH / 6;
    LT_TRY(rope_axis(net, pass->frames, pairs - 2 * space, &pass->rope_time, error));
    LT_TRY(rope_axis(net, pass->rows, space, &pass->rope_row, error));
    return rope_axis(net, pass->columns, space, &pass->rope_column, error);
}

/* dit.md 2.3: cosines first; e for the head, e0 for the blocks. */
static lt_status embed_time(struct dit *dit, struct pass *pass, struct lt_error *error)
{
    struct net *net = &dit->net;
    const struct dit_config *c = &dit->config;
    struct linear first, second, projection;
    struct lt_view wave, hidden, activated;
    LT_TRY(net_linear(net, &first, c->dim, c->freq_dim, error, "time_embedding.0"));
    LT_TRY(net_linear(net, &second, c->dim, c->dim, error, "time_embedding.2"));
    LT_TRY(net_linear(net, &projection, 6 * c->dim, c->dim, error, "time_projection.1"));
    LT_TRY(net_take(net, &wave, 1, c->freq_dim, error));
    LT_TRY(net_take(net, &hidden, 1, c->dim, error));
    LT_TRY(net_take(net, &activated, 1, c->dim, error));
    LT_TRY(net_take(net, &pass->e, 1, c->dim, error));
    LT_TRY(net_take(net, &pass->e0, 1, 6 * c->dim, error));
    const int64_t half = c->freq_dim / 2;
    for (int64_t i = 0; i < half; i++) {
        const double angle = pass->inputs->timestep * pow(10000.0, -(double)i / (double)half);
        ((float *)wave.data)[i] = (float)cos(angle);
        ((float *)wave.data)[half + i] = (float)sin(angle);
    }
    LT_TRY(net_apply(net, &first, &wave, &hidden, LT_ACTIVATION_SILU, true, error));
    LT_TRY(net_apply(net, &second, &hidden, &pass->e, LT_ACTIVATION_NONE, true, error));
    LT_TRY(LT_OP(activate, net->kernels, net->exec, error, .out = activated, .in = pass->e,
                 .activation = LT_ACTIVATION_SILU));
    return net_apply(net, &projection, &activated, &pass->e0, LT_ACTIVATION_NONE, true, error);
}

/* dit.md 2.1, 2.2: channels [x, y], patches to tokens; f32. */
static lt_status embed_patches(struct dit *dit, struct pass *pass, struct lt_error *error)
{
    struct net *net = &dit->net;
    const struct dit_config *c = &dit->config;
    const struct lt_view *x = &pass->inputs->x, *y = &pass->inputs->y;
    struct linear patch;
    struct lt_view input = *x, patches;
    LT_TRY(net_linear(net, &patch, c->dim, 4 * c->in_channels, error, "patch_embedding"));
    LT_TRY(net_take(net, &pass->x, pass->tokens, c->dim, error));
    const struct lt_mark mark = lt_arena_mark(&net->arena);
    if (y->data) {
        const size_t x_bytes = (size_t)lt_view_count(x) * sizeof(float);
        char *joined =
            lt_arena_take(&net->arena, x_bytes + (size_t)lt_view_count(y) * sizeof(float));
        if (!joined)
            return lt_fail(error, LT_NO_MEMORY, "no memory for the joined input");
        memcpy(joined, x->data, x_bytes);
        memcpy(joined + x_bytes, y->data, (size_t)lt_view_count(y) * sizeof(float));
        input = lt_view_4d(joined, LT_TYPE_F32, c->in_channels, x->dim[1], x->dim[2], x->dim[3]);
    }
    LT_TRY(net_take(net, &patches, pass->tokens, 4 * c->in_channels, error));
    LT_TRY(LT_OP(patchify, net->kernels, net->exec, error, .out = patches, .in = input));
    LT_TRY(net_apply(net, &patch, &patches, &pass->x, LT_ACTIVATION_NONE, true, error));
    lt_arena_rewind(&net->arena, mark);
    return LT_OK;
}

lt_status dit_pass_embed(struct dit *dit, struct pass *pass, struct lt_error *error)
{
    LT_TRY(make_rotation(&dit->net, pass, error));
    LT_TRY(embed_time(dit, pass, error));
    return embed_patches(dit, pass, error);
}
