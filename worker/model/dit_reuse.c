/* A step that hardly differs from an earlier one: what the blocks added then is added again
 * (pipeline.md 5.1 to 5.3), and what tells in advance how much steps differ. */
#include "worker/model/dit_parts.h"

#include <math.h>

static lt_status check(const struct forward *f, const struct pass *pass, struct lt_error *error)
{
    const struct lt_view *added = &pass->inputs->added;
    if (!added->data || added->rank != 2 || added->dim[0] != pass->tokens ||
        added->dim[1] != f->dit->config.dim)
        return lt_fail(error, LT_BAD_INPUT, "added: expected [%lld, %lld]", (long long)pass->tokens,
                       (long long)f->dit->config.dim);
    return LT_OK;
}

/* X += what was added before. */
static lt_status add(struct forward *f, const struct pass *pass, struct lt_error *error)
{
    struct net *net = &f->dit->net;
    struct lt_view added = pass->inputs->added;
    if (added.type != LT_TYPE_F32) {
        const struct lt_view q = dit_rows(&f->q, pass);
        LT_TRY(LT_OP(convert, net->kernels, net->exec, error, .out = q, .in = added));
        added = q;
    }
    return LT_OP(gated_add, net->kernels, net->exec, error, .out = pass->x, .residual = pass->x,
                 .in = added);
}

lt_status dit_reuse_begin(struct forward *f, struct pass *pass, struct lt_error *error)
{
    struct net *net = &f->dit->net;
    if (pass->inputs->reuse == DIT_REUSE_NONE)
        return LT_OK;
    LT_TRY(check(f, pass, error));
    if (pass->inputs->reuse == DIT_REUSE_ADD)
        return add(f, pass, error);
    LT_TRY(net_take(net, &pass->before, pass->tokens, f->dit->config.dim, error));
    return LT_OP(convert, net->kernels, net->exec, error, .out = pass->before, .in = pass->x);
}

/* added = X - before: the product with -1 is exact. */
lt_status dit_reuse_end(struct forward *f, const struct pass *pass, struct lt_error *error)
{
    struct net *net = &f->dit->net;
    const struct lt_view a = dit_rows(&f->a, pass);
    struct lt_view minus;
    if (pass->inputs->reuse != DIT_REUSE_KEEP)
        return LT_OK;
    const struct net_mark mark = net_mark(net);
    LT_TRY(net_host(net, &minus, 1, f->dit->config.dim, error));
    for (int64_t i = 0; i < f->dit->config.dim; i++)
        ((float *)minus.data)[i] = -1;
    LT_TRY(net_input(net, &minus, &minus, error));
    LT_TRY(LT_OP(gated_add, net->kernels, net->exec, error, .out = a, .residual = pass->x,
                 .in = pass->before, .gate = minus));
    net_rewind(net, mark);
    return LT_OP(convert, net->kernels, net->exec, error, .out = pass->inputs->added, .in = a);
}

/* -- times ------------------------------------------------------------------------------------- */

static double mean_change(const float *a, const float *b, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += fabs((double)a[i] - (b ? (double)b[i] : 0));
    return sum / (double)count;
}

/* Column by column, of what both steps' rows are. */
static void compare_rows(const float *rows, int64_t width, size_t count, float *distance_out)
{
    for (size_t j = 0; j < count; j++) {
        const float *of = rows + (int64_t)j * width;
        const double size = mean_change(of, NULL, width);
        for (size_t i = 0; i < count; i++)
            distance_out[i * count + j] =
                (float)(mean_change(rows + (int64_t)i * width, of, width) / size);
    }
}

lt_status dit_compare_times(struct dit *dit, const double *timestep, size_t count, bool projected,
                            float *distance_out, struct lt_error *error)
{
    const struct net_mark mark = net_mark(&dit->net);
    const struct lt_mark patched = lt_arena_mark(&dit->patched);
    struct lt_view e, e0;
    const float *rows = NULL;
    lt_status status = dit_embed_times(dit, timestep, (int64_t)count, &e, &e0, error);
    if (status == LT_OK)
        status = net_values(&dit->net, projected ? &e0 : &e, &rows, error);
    if (status == LT_OK)
        compare_rows(rows, projected ? e0.dim[1] : e.dim[1], count, distance_out);
    net_rewind(&dit->net, mark);
    lt_arena_rewind(&dit->patched, patched);
    return status;
}
