/* dit.md 2.1 to 2.3 and 2.6: an input becomes tokens, modulation and rotation. */
#include "worker/model/dit_parts.h"

#include <math.h>
#include <string.h>

const struct dit_options dit_options_default = {.nag_scale = 11,
                                                .nag_tau = 2.5,
                                                .nag_alpha = 0.25,
                                                .pose_strength = 1,
                                                .face_strength = 1,
                                                .audio_scale = 1};

/* -- checks ------------------------------------------------------------------------------------ */

static lt_status check_timesteps(const struct dit_inputs *inputs, struct lt_error *error)
{
    const int64_t count = inputs->timesteps ? inputs->x.dim[1] : 1;
    for (int64_t f = 0; f < count; f++) {
        const double timestep = inputs->timesteps ? inputs->timesteps[f] : inputs->timestep;
        if (!(timestep >= 0 && timestep <= 1000))
            return lt_fail(error, LT_BAD_INPUT, "timestep: expected 0 to 1000, found %g", timestep);
    }
    return LT_OK;
}

static lt_status check_options(const struct dit_options *o, int64_t frames, int64_t layers,
                               struct lt_error *error)
{
    if (o->riflex_index < 0 || o->riflex_index > TIME_PAIRS || o->riflex_frames < 0)
        return lt_fail(error, LT_BAD_INPUT,
                       "riflex: expected an index from 0 to %d and a number of frames, found %lld "
                       "and %lld",
                       TIME_PAIRS, (long long)o->riflex_index, (long long)o->riflex_frames);
    if (o->memory_frames < 0 || o->memory_frames > frames || o->rope_negative_offset < 0)
        return lt_fail(error, LT_BAD_INPUT,
                       "memory_frames: expected 0 to %lld and an offset of 0 or more, found %lld "
                       "and %lld",
                       (long long)frames, (long long)o->memory_frames,
                       (long long)o->rope_negative_offset);
    for (size_t i = 0; i < o->skip_count; i++)
        if (o->skip_layers[i] < 0 || o->skip_layers[i] >= layers)
            return lt_fail(error, LT_BAD_INPUT,
                           "skip_layers: this model has blocks 0 to %lld, "
                           "found %lld",
                           (long long)layers - 1, (long long)o->skip_layers[i]);
    return LT_OK;
}

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
    LT_TRY(check_timesteps(inputs, error));
    pass->options = inputs->options ? inputs->options : &dit_options_default;
    LT_TRY(animate_begin(pass, error));
    LT_TRY(talk_begin(pass, error));
    LT_TRY(check_options(pass->options, x->dim[1], c->layer_count, error));
    lt_assert(v->rank == 4 && lt_view_count(v) == lt_view_count(x) && inputs->context->dit == dit);
    pass->frames = x->dim[1];
    pass->rows = x->dim[2] / 2;
    pass->columns = x->dim[3] / 2;
    pass->tokens = pass->frames * pass->rows * pass->columns;
    pass->groups = 1;
    for (int64_t f = 1; inputs->timesteps && f < pass->frames; f++)
        if (inputs->timesteps[f] != inputs->timesteps[0])
            pass->groups = pass->frames;
    pass->group_rows = pass->groups > 1 ? pass->rows * pass->columns : 0;
    return LT_OK;
}

/* -- rotation ---------------------------------------------------------------------------------- */

/* cos and sin of position · frequency: f64 angles, f32 table. dit.md 2.6. */
static lt_status rope_axis(struct net *net, const double *position, int64_t positions,
                           const double *frequency, int64_t pairs, struct lt_view *axis,
                           struct lt_error *error)
{
    struct lt_view rows;
    LT_TRY(net_host(net, &rows, positions, pairs * 2, error));
    float *table = rows.data;
    for (int64_t i = 0; i < positions; i++)
        for (int64_t p = 0; p < pairs; p++) {
            const double angle = position[i] * frequency[p];
            *table++ = (float)cos(angle);
            *table++ = (float)sin(angle);
        }
    rows = lt_view_reshape(&rows, 3, (int64_t[]){positions, pairs, 2});
    return net_input(net, &rows, axis, error);
}

/* 10000^(-2p/D), D = 2 · pairs of the axis. */
static void make_frequencies(double *frequency, int64_t pairs)
{
    for (int64_t p = 0; p < pairs; p++)
        frequency[p] = pow(10000.0, -(double)p / (double)pairs);
}

/* Where a latent frame stands in time: dit.md 2.12, rope_negative_offset. */
static double frame_position(const struct dit_options *options, int64_t frame)
{
    const int64_t memory = options->rope_negative_offset > 0 ? options->memory_frames : 0;
    return (double)(frame < memory ? (frame - memory) * options->rope_negative_offset
                                   : frame - memory);
}

static lt_status make_rotation(struct net *net, struct pass *pass, struct lt_error *error)
{
    const struct dit_options *options = pass->options;
    const int64_t longest = pass->rows > pass->columns ? pass->rows : pass->columns;
    double time[TIME_PAIRS], space[SPACE_PAIRS];
    double *at = lt_arena_take_array(&net->host, (size_t)(pass->frames + longest), sizeof *at);
    if (!at)
        return lt_fail(error, LT_NO_MEMORY, "no memory for positions");
    make_frequencies(time, TIME_PAIRS);
    make_frequencies(space, SPACE_PAIRS);
    if (options->riflex_index > 0) {
        const int64_t frames = options->riflex_frames > 0 ? options->riflex_frames : pass->frames;
        time[options->riflex_index - 1] = 0.9 * 2 * M_PI / (double)frames;
    }
    for (int64_t f = 0; f < pass->frames; f++)
        at[f] = frame_position(options, f);
    LT_TRY(rope_axis(net, at, pass->frames, time, TIME_PAIRS, &pass->rope_time, error));
    for (int64_t i = 0; i < longest; i++)
        at[i] = (double)i;
    LT_TRY(rope_axis(net, at, pass->rows, space, SPACE_PAIRS, &pass->rope_row, error));
    return rope_axis(net, at, pass->columns, space, SPACE_PAIRS, &pass->rope_column, error);
}

/* -- tokens ------------------------------------------------------------------------------------ */

/* dit.md 2.3: cosines first; e for the head, e0 for the blocks. A row per timestep. */
static lt_status embed_times(struct dit *dit, const double *timestep, int64_t groups,
                             struct lt_view *e_out, struct lt_view *e0_out, struct lt_error *error)
{
    struct net *net = &dit->net;
    const struct dit_config *c = &dit->config;
    struct linear first, second, projection;
    struct lt_view wave, hidden, activated;
    LT_TRY(net_linear(net, &first, c->dim, c->freq_dim, error, "time_embedding.0"));
    LT_TRY(net_linear(net, &second, c->dim, c->dim, error, "time_embedding.2"));
    LT_TRY(net_linear(net, &projection, 6 * c->dim, c->dim, error, "time_projection.1"));
    LT_TRY(net_host(net, &wave, groups, c->freq_dim, error));
    LT_TRY(net_take(net, &hidden, groups, c->dim, error));
    LT_TRY(net_take(net, &activated, groups, c->dim, error));
    LT_TRY(net_take(net, e_out, groups, c->dim, error));
    LT_TRY(net_take(net, e0_out, groups, 6 * c->dim, error));
    const int64_t half = c->freq_dim / 2;
    for (int64_t g = 0; g < groups; g++) {
        float *row = (float *)wave.data + g * c->freq_dim;
        for (int64_t i = 0; i < half; i++) {
            const double angle = timestep[g] * pow(10000.0, -(double)i / (double)half);
            row[i] = (float)cos(angle);
            row[half + i] = (float)sin(angle);
        }
    }
    LT_TRY(net_input(net, &wave, &wave, error));
    LT_TRY(net_apply(net, &first, &wave, &hidden, LT_ACTIVATION_SILU, true, error));
    LT_TRY(net_apply(net, &second, &hidden, e_out, LT_ACTIVATION_NONE, true, error));
    LT_TRY(LT_OP(activate, net->kernels, net->exec, error, .out = activated, .in = *e_out,
                 .activation = LT_ACTIVATION_SILU));
    return net_apply(net, &projection, &activated, e0_out, LT_ACTIVATION_NONE, true, error);
}

lt_status dit_embed_times(struct dit *dit, const double *timestep, int64_t groups,
                          struct lt_view *e_out, struct lt_view *e0_out, struct lt_error *error)
{
    LT_TRY(store_acquire_group(dit->net.store, STORE_GROUP_TIME, error));
    const lt_status status = embed_times(dit, timestep, groups, e_out, e0_out, error);
    store_release_group(dit->net.store, STORE_GROUP_TIME);
    return status;
}

/* The channels of x, and of y behind them. */
static lt_status join_channels(struct net *net, const struct lt_view *x, const struct lt_view *y,
                               struct lt_view *joined_out, struct lt_error *error)
{
    const int64_t first = lt_view_count(x), second = lt_view_count(y);
    struct lt_view flat;
    LT_TRY(net_take(net, &flat, 1, first + second, error));
    LT_TRY(lt_exec_upload(net->exec, flat.data, x->data, (size_t)first * sizeof(float), error));
    LT_TRY(lt_exec_upload(net->exec, (float *)flat.data + first, y->data,
                          (size_t)second * sizeof(float), error));
    *joined_out =
        lt_view_4d(flat.data, LT_TYPE_F32, x->dim[0] + y->dim[0], x->dim[1], x->dim[2], x->dim[3]);
    return LT_OK;
}

/* dit.md 2.1, 2.2: channels [x, y], patches to tokens; f32. */
static lt_status embed_patches(struct dit *dit, struct pass *pass, struct lt_error *error)
{
    struct net *net = &dit->net;
    const struct dit_config *c = &dit->config;
    const struct lt_view *x = &pass->inputs->x, *y = &pass->inputs->y;
    struct linear patch;
    struct lt_view input, patches;
    LT_TRY(net_linear(net, &patch, c->dim, 4 * c->in_channels, error, "patch_embedding"));
    LT_TRY(net_take(net, &pass->x, pass->tokens, c->dim, error));
    const struct net_mark mark = net_mark(net);
    if (y->data)
        LT_TRY(join_channels(net, x, y, &input, error));
    else
        LT_TRY(net_input(net, x, &input, error));
    LT_TRY(net_take(net, &patches, pass->tokens, 4 * c->in_channels, error));
    LT_TRY(LT_OP(patchify, net->kernels, net->exec, error, .out = patches, .in = input));
    LT_TRY(net_apply(net, &patch, &patches, &pass->x, LT_ACTIVATION_NONE, true, error));
    net_rewind(net, mark);
    return LT_OK;
}

lt_status dit_pass_embed(struct dit *dit, struct pass *pass, struct lt_error *error)
{
    LT_TRY(make_rotation(&dit->net, pass, error));
    const double *timesteps = pass->inputs->timesteps;
    LT_TRY(dit_embed_times(dit, timesteps ? timesteps : &pass->inputs->timestep, pass->groups,
                           &pass->e, &pass->e0, error));
    return embed_patches(dit, pass, error);
}
