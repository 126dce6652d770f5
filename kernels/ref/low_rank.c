#include "kernels/ref/ref.h"

/* hidden[:] = scale · (a · in), or scale · in without `a`; rounded as an input of the second
 * product. */
static void reduce(struct lt_exec *exec, const struct lt_low_rank_args *args, const float *in,
                   float *row, float *hidden)
{
    const int64_t k = args->in.dim[1], rank = args->b.dim[1];
    for (int64_t r = 0; r < rank; r++) {
        double sum = 0;
        if (args->a.data) {
            const struct lt_view one = lt_view_rows(&args->a, r, 1);
            lt_dequantize_row(one.type, one.data, row, k);
            for (int64_t i = 0; i < k; i++)
                sum += args->exact
                           ? (double)in[i] * (double)row[i]
                           : (double)ref_round(exec, in[i]) * (double)ref_round(exec, row[i]);
        } else {
            sum = in[r];
        }
        hidden[r] = (float)sum * ((const float *)args->scale.data)[r];
        if (!args->exact)
            hidden[r] = ref_round(exec, hidden[r]);
    }
}

lt_status ref_low_rank(struct lt_exec *exec, const struct lt_low_rank_args *args,
                       struct lt_error *error)
{
    const int64_t rows = args->in.dim[0], n = args->b.dim[0], k = args->in.dim[1],
                  rank = args->b.dim[1];
    float *row = malloc((size_t)(k > rank ? k : rank) * sizeof *row),
          *hidden = malloc((size_t)rank * sizeof *hidden), *bias = ref_weights(&args->bias);
    const bool have = row && hidden && (bias || !args->bias.data);
    for (int64_t l = 0; l < rows && have; l++) {
        float *out = ref_row(&args->out, l);
        reduce(exec, args, ref_row(&args->in, l), row, hidden);
        for (int64_t j = 0; j < n; j++) {
            const struct lt_view one = lt_view_rows(&args->b, j, 1);
            double sum = (double)out[j] + (bias ? (double)bias[j] : 0);
            lt_dequantize_row(one.type, one.data, row, rank);
            for (int64_t r = 0; r < rank; r++)
                sum += (double)hidden[r] * (double)(args->exact ? row[r] : ref_round(exec, row[r]));
            out[j] = (float)ref_activation(args->activation, sum);
        }
    }
    free(row);
    free(hidden);
    free(bias);
    return have ? LT_OK : lt_fail(error, LT_NO_MEMORY, "op low_rank: no memory");
}
