#include "worker/model/net.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* -- memory ------------------------------------------------------------------------------------ */

void net_init(struct net *net)
{
    lt_exec_arena_init(net->exec, &net->arena);
    lt_arena_init(&net->host, 0);
}

void net_fini(struct net *net)
{
    lt_arena_fini(&net->arena);
    lt_arena_fini(&net->host);
}

struct net_mark net_mark(const struct net *net)
{
    return (struct net_mark){lt_arena_mark(&net->arena), lt_arena_mark(&net->host)};
}

void net_rewind(struct net *net, struct net_mark mark)
{
    lt_arena_rewind(&net->arena, mark.arena);
    lt_arena_rewind(&net->host, mark.host);
}

static size_t bytes_of(const struct lt_view *view)
{
    uint64_t bytes = 0;
    lt_type_bytes(view->type, (uint64_t)lt_view_count(view), &bytes);
    return (size_t)bytes;
}

/* A contiguous view of RAM where ops take it: itself on the host, else a copy in the arena. */
static lt_status place(const struct net *net, struct lt_arena *arena, const struct lt_view *values,
                       struct lt_view *view_out, struct lt_error *error)
{
    const void *from = values->data; /* the view out may be the view in */
    const size_t bytes = bytes_of(values);
    lt_assert(lt_view_is_contiguous(values));
    *view_out = *values;
    if (!from || lt_exec_is_host(net->exec))
        return LT_OK;
    if (!(view_out->data = lt_arena_take(arena, bytes)))
        return lt_fail(error, LT_NO_DEVICE_MEMORY, "no memory for %zu bytes of input", bytes);
    return lt_exec_upload(net->exec, view_out->data, from, bytes, error);
}

lt_status net_host(struct net *net, struct lt_view *view_out, int64_t rows, int64_t columns,
                   struct lt_error *error)
{
    float *data = lt_arena_take_array(&net->host, (size_t)(rows * columns), sizeof *data);
    if (!data)
        return lt_fail(error, LT_NO_MEMORY, "no memory for [%lld, %lld] values", (long long)rows,
                       (long long)columns);
    *view_out = lt_view_2d(data, LT_TYPE_F32, rows, columns);
    return LT_OK;
}

lt_status net_values(struct net *net, const struct lt_view *view, const float **values_out,
                     struct lt_error *error)
{
    struct lt_view copy;
    *values_out = view->data;
    if (lt_exec_is_host(net->exec))
        return LT_OK;
    LT_TRY(net_host(net, &copy, 1, lt_view_count(view), error));
    *values_out = copy.data;
    return net_get(net, view, copy.data, error);
}

lt_status net_open(struct net *net, const struct lt_view *view, float **values_out,
                   struct lt_error *error)
{
    struct lt_view room;
    lt_assert(lt_view_is_contiguous(view) && view->type == LT_TYPE_F32);
    *values_out = view->data;
    if (lt_exec_is_host(net->exec))
        return LT_OK;
    LT_TRY(net_host(net, &room, 1, lt_view_count(view), error));
    *values_out = room.data;
    return LT_OK;
}

lt_status net_close(struct net *net, const struct lt_view *view, const float *values,
                    struct lt_error *error)
{
    if (view->data == values)
        return LT_OK;
    return lt_exec_upload(net->exec, view->data, values, bytes_of(view), error);
}

lt_status net_put(struct net *net, struct lt_view *view_out, int64_t rows, int64_t columns,
                  const float *values, struct lt_error *error)
{
    LT_TRY(net_take(net, view_out, rows, columns, error));
    return lt_exec_upload(net->exec, view_out->data, values, bytes_of(view_out), error);
}

lt_status net_get(struct net *net, const struct lt_view *view, float *values_out,
                  struct lt_error *error)
{
    lt_assert(lt_view_is_contiguous(view) && view->type == LT_TYPE_F32);
    if (view->data == values_out)
        return LT_OK; /* net_output on the host */
    return lt_exec_download(net->exec, values_out, view->data, bytes_of(view), error);
}

lt_status net_zero(struct net *net, const struct lt_view *view, struct lt_error *error)
{
    lt_assert(lt_view_is_contiguous(view));
    return lt_exec_zero(net->exec, view->data, bytes_of(view), error);
}

lt_status net_copy(struct net *net, const struct lt_view *to, const struct lt_view *from,
                   struct lt_error *error)
{
    return LT_OP(convert, net->kernels, net->exec, error, .out = *to, .in = *from);
}

lt_status net_input(struct net *net, const struct lt_view *values, struct lt_view *view_out,
                    struct lt_error *error)
{
    return place(net, &net->arena, values, view_out, error);
}

lt_status net_output(struct net *net, const struct lt_view *values, struct lt_view *view_out,
                     struct lt_error *error)
{
    struct lt_view flat;
    *view_out = *values;
    if (lt_exec_is_host(net->exec))
        return LT_OK;
    lt_assert(lt_view_is_contiguous(values) && values->type == LT_TYPE_F32);
    LT_TRY(net_take(net, &flat, 1, lt_view_count(values), error));
    view_out->data = flat.data;
    return LT_OK;
}

/* -- LoRA -------------------------------------------------------------------------------------- */

/* A streamed set reads its terms into RAM. */
static lt_status find_term(const struct net *net, struct lt_arena *arena,
                           const struct lora_target *target, size_t index, struct lt_view *a_out,
                           struct lt_view *b_out, struct lt_error *error)
{
    LT_TRY(lora_term_views(net->lora, target, index, net->store, a_out, b_out, error));
    if (!lora_set_is_streamed(net->lora))
        return LT_OK;
    LT_TRY(place(net, arena, a_out, a_out, error));
    return place(net, arena, b_out, b_out, error);
}

/* to += in · gate; the gate is of RAM. */
static lt_status add_gated(const struct net *net, struct lt_arena *arena, const struct lt_view *to,
                           const struct lt_view *in, const struct lt_view *gate,
                           struct lt_error *error)
{
    struct lt_view placed;
    LT_TRY(place(net, arena, gate, &placed, error));
    return LT_OP(gated_add, net->kernels, net->exec, error, .out = *to, .residual = *to, .in = *in,
                 .gate = placed);
}

static lt_status add_differences(const struct net *net, const struct lora_target *target,
                                 const struct lt_view *sum, const struct lt_view *factor,
                                 struct lt_error *error)
{
    if (lora_target_gain(net->lora, target, factor->data))
        LT_TRY(add_gated(net, net->patched, sum, sum, factor, error));
    for (size_t i = 0; i < lora_term_count(target); i++) {
        struct lt_view none, difference;
        if (!lora_term_scale(net->lora, target, i, factor->data))
            continue;
        LT_TRY(find_term(net, net->patched, target, i, &none, &difference, error));
        difference = lt_view_reshape(&difference, 2, sum->dim);
        LT_TRY(add_gated(net, net->patched, sum, &difference, factor, error));
    }
    return LT_OK;
}

/* view = view + Σ strength · difference, in f32. */
static lt_status patch_vector(const struct net *net, const struct lora_target *target,
                              struct lt_view *view, struct lt_error *error)
{
    const int64_t count = lt_view_count(view);
    float *values = lt_arena_take_array(net->patched, (size_t)count, sizeof *values);
    float *room = malloc((size_t)count * sizeof *room);
    const struct lt_view sum = lt_view_2d(values, LT_TYPE_F32, 1, count),
                         factor = lt_view_2d(room, LT_TYPE_F32, 1, count);
    const struct lt_mark mark = lt_arena_mark(net->patched);
    lt_status status =
        values && room ? LT_OK : lt_fail(error, LT_NO_MEMORY, "no memory for LoRA factors");
    if (status == LT_OK)
        status = LT_OP(convert, net->kernels, net->exec, error, .out = sum,
                       .in = lt_view_reshape(view, 2, sum.dim));
    if (status == LT_OK)
        status = add_differences(net, target, &sum, &factor, error);
    free(room);
    lt_arena_rewind(net->patched, mark);
    *view = lt_view_make(values, LT_TYPE_F32, view->rank, view->dim);
    return status;
}

static lt_status find_vector(const struct net *net, const char *name, struct lt_view *view,
                             struct lt_error *error)
{
    const struct lora_target *target = net->lora ? lora_find(net->lora, name) : NULL;
    if (!target || lora_target_is_matrix(target) || !lora_target_active(net->lora, target))
        return LT_OK;
    return patch_vector(net, target, view, error);
}

/* One term onto what the base gave. */
static lt_status add_term(struct net *net, const struct linear *linear, size_t index,
                          const struct lt_view *in, const struct lt_view *out,
                          const struct lt_view *bias, enum lt_activation activation, bool exact,
                          struct lt_error *error)
{
    const int64_t rank = lora_term_rank(linear->lora, index), rows = in->dim[0];
    const int64_t fit = LORA_HIDDEN_BYTES / (rank * (int64_t)sizeof(float));
    const int64_t room = fit < 1 ? 1 : fit < rows ? fit : rows;
    struct lt_view a, b, hidden, scale;
    LT_TRY(net_take(net, &hidden, room, rank, error));
    LT_TRY(net_host(net, &scale, 1, rank, error));
    lora_term_scale(net->lora, linear->lora, index, scale.data);
    LT_TRY(net_input(net, &scale, &scale, error));
    LT_TRY(find_term(net, &net->arena, linear->lora, index, &a, &b, error));
    return LT_OP(low_rank, net->kernels, net->exec, error, .out = *out, .in = *in, .a = a, .b = b,
                 .scale = lt_view_1d(scale.data, LT_TYPE_F32, rank), .bias = *bias,
                 .hidden = hidden, .activation = activation, .exact = exact);
}

static lt_status apply_plain(struct net *net, const struct linear *linear, const struct lt_view *in,
                             const struct lt_view *out, enum lt_activation activation, bool exact,
                             struct lt_error *error)
{
    return LT_OP(linear, net->kernels, net->exec, error, .out = *out, .in = *in,
                 .weight = linear->weight, .weight_scale = linear->scale, .bias = linear->bias,
                 .activation = activation, .exact = exact);
}

/* gain · (W x), then the terms; the bias comes behind the gain, the activation behind the last. */
static lt_status apply_patched(struct net *net, const struct linear *linear,
                               const struct lt_view *in, const struct lt_view *out,
                               enum lt_activation activation, bool exact, struct lt_error *error)
{
    const size_t terms = lora_term_count(linear->lora);
    const struct lt_view none = {0};
    struct lt_view factor;
    int64_t most = out->dim[1];
    size_t last = terms;
    for (size_t i = 0; i < terms; i++)
        most = lora_term_rank(linear->lora, i) > most ? lora_term_rank(linear->lora, i) : most;
    LT_TRY(net_host(net, &factor, 1, most, error));
    for (size_t i = 0; i < terms; i++)
        if (lora_term_scale(net->lora, linear->lora, i, factor.data))
            last = i;
    if (last == terms)
        return apply_plain(net, linear, in, out, activation, exact, error);
    bool gained = lora_target_gain(net->lora, linear->lora, factor.data);
    factor = lt_view_2d(factor.data, LT_TYPE_F32, 1, out->dim[1]);
    LT_TRY(LT_OP(linear, net->kernels, net->exec, error, .out = *out, .in = *in,
                 .weight = linear->weight, .weight_scale = linear->scale,
                 .bias = gained ? none : linear->bias, .exact = exact));
    if (gained)
        LT_TRY(add_gated(net, &net->arena, out, out, &factor, error));
    for (size_t i = 0; i < terms; i++) {
        if (!lora_term_scale(net->lora, linear->lora, i, factor.data))
            continue;
        LT_TRY(add_term(net, linear, i, in, out, gained ? &linear->bias : &none,
                        i == last ? activation : LT_ACTIVATION_NONE, exact, error));
        gained = false;
    }
    return LT_OK;
}

/* -- weights ----------------------------------------------------------------------------------- */

lt_status net_tensor(const struct net *net, struct lt_view *view_out, int rank, const int64_t *dim,
                     struct lt_error *error, const char *format, ...)
{
    char name[128];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    LT_TRY(store_tensor_shaped(net->store, name, rank, dim, view_out, error));
    return find_vector(net, name, view_out, error);
}

lt_status net_matrix(const struct net *net, struct linear *linear_out, int64_t out, int64_t in,
                     struct lt_error *error, const char *name)
{
    char scale[128];
    const int64_t one = 1;
    *linear_out = (struct linear){0};
    LT_TRY(net_tensor(net, &linear_out->weight, 2, (int64_t[]){out, in}, error, "%s.weight", name));
    if (net->lora) {
        snprintf(scale, sizeof scale, "%s.weight", name);
        linear_out->lora = lora_find(net->lora, scale);
    }
    snprintf(scale, sizeof scale, "%s.scale_weight", name);
    if (!store_has(net->store, scale))
        return LT_OK;
    LT_TRY(store_tensor_shaped(net->store, scale, 1, &one, &linear_out->scale, error));
    return linear_out->scale.type == LT_TYPE_F32
               ? LT_OK
               : lt_fail(error, LT_UNSUPPORTED, "tensor '%s': expected type F32, found %s", scale,
                         lt_type_info(linear_out->scale.type)->name);
}

lt_status net_linear(const struct net *net, struct linear *linear_out, int64_t out, int64_t in,
                     struct lt_error *error, const char *name)
{
    LT_TRY(net_matrix(net, linear_out, out, in, error, name));
    return net_tensor(net, &linear_out->bias, 1, &out, error, "%s.bias", name);
}

lt_status net_take(struct net *net, struct lt_view *view_out, int64_t rows, int64_t columns,
                   struct lt_error *error)
{
    float *data = lt_arena_take_array(&net->arena, (size_t)(rows * columns), sizeof *data);
    if (!data)
        return lt_fail(error, LT_NO_MEMORY, "no memory for [%lld, %lld] activations",
                       (long long)rows, (long long)columns);
    *view_out = lt_view_2d(data, LT_TYPE_F32, rows, columns);
    return LT_OK;
}

lt_status net_apply(struct net *net, const struct linear *linear, const struct lt_view *in,
                    const struct lt_view *out, enum lt_activation activation, bool exact,
                    struct lt_error *error)
{
    if (linear->lora && lora_target_active(net->lora, linear->lora)) {
        const struct net_mark mark = net_mark(net);
        const lt_status status = apply_patched(net, linear, in, out, activation, exact, error);
        net_rewind(net, mark);
        return status;
    }
    return apply_plain(net, linear, in, out, activation, exact, error);
}
