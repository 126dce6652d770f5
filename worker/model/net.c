#include "worker/model/net.h"

#include <stdarg.h>
#include <stdio.h>

lt_status net_tensor(const struct net *net, struct lt_view *view_out, int rank, const int64_t *dim,
                     struct lt_error *error, const char *format, ...)
{
    char name[128];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    return store_tensor_shaped(net->store, name, rank, dim, view_out, error);
}

lt_status net_matrix(const struct net *net, struct linear *linear_out, int64_t out, int64_t in,
                     struct lt_error *error, const char *name)
{
    char scale[128];
    const int64_t one = 1;
    *linear_out = (struct linear){0};
    LT_TRY(net_tensor(net, &linear_out->weight, 2, (int64_t[]){out, in}, error, "%s.weight", name));
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
    return LT_OP(linear, net->kernels, net->exec, error, .out = *out, .in = *in,
                 .weight = linear->weight, .weight_scale = linear->scale, .bias = linear->bias,
                 .activation = activation, .exact = exact);
}
