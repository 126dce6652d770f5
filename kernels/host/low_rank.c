/* out = activation(out + (scale · (in · aᵀ)) · bᵀ + bias): two linears over as many rows at a time
 * as `hidden` has.
 *
 *   bytes: a and b once per chunk, in and out once; 2·L·R·(K + N) flops, 1/27 of the linear it is
 * added to for R 64 and K = N = 5120. */
#include "kernels/host/host.h"

/* hidden = scale · hidden, or scale · in without `a`. */
static void scale_rows(const struct lt_low_rank_args *args, const struct lt_view *in,
                       const struct lt_view *hidden)
{
    const float *scale = args->scale.data;
    const int64_t rank = hidden->dim[1];
    for (int64_t l = 0; l < hidden->dim[0]; l++) {
        float *row = (float *)hidden->data + l * rank;
        const float *from = (const float *)in->data + l * in->stride[0];
        for (int64_t r = 0; r < rank; r++)
            row[r] = (args->a.data ? row[r] : from[r]) * scale[r];
    }
}

lt_status host_low_rank(struct lt_exec *exec, const struct lt_low_rank_args *args,
                        struct lt_error *error)
{
    const int64_t rows = args->in.dim[0], room = args->hidden.dim[0];
    for (int64_t first = 0; first < rows; first += room) {
        const int64_t count = rows - first < room ? rows - first : room;
        const struct lt_view in = lt_view_rows(&args->in, first, count),
                             hidden = lt_view_rows(&args->hidden, 0, count);
        if (args->a.data)
            LT_TRY(
                host_linear(exec,
                            &(struct lt_linear_args){
                                .out = hidden, .in = in, .weight = args->a, .exact = args->exact},
                            error));
        scale_rows(args, &in, &hidden);
        LT_TRY(host_linear(exec,
                           &(struct lt_linear_args){.out = lt_view_rows(&args->out, first, count),
                                                    .in = hidden,
                                                    .weight = args->b,
                                                    .bias = args->bias,
                                                    .activation = args->activation,
                                                    .accumulate = true,
                                                    .exact = args->exact},
                           error));
    }
    return LT_OK;
}
