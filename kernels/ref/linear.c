#include "kernels/ref/ref.h"

double ref_activation(enum lt_activation activation, double x)
{
    switch (activation) {
    case LT_ACTIVATION_SILU:
        return x / (1 + exp(-x));
    case LT_ACTIVATION_GELU_TANH:
        return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case LT_ACTIVATION_GELU_ERF:
        return 0.5 * x * (1 + erf(x * 0.7071067811865476));
    case LT_ACTIVATION_RELU:
        return x > 0 ? x : 0;
    case LT_ACTIVATION_LEAKY_RELU:
        return x > 0 ? x : 0.2 * x;
    default:
        return x;
    }
}

lt_status ref_convert(struct lt_exec *exec, const struct lt_convert_args *args,
                      struct lt_error *error)
{
    (void)exec;
    const int64_t count = lt_view_count(&args->in);
    float *values = malloc((size_t)(count ? count : 1) * sizeof *values);
    if (!values)
        return lt_fail(error, LT_NO_MEMORY, "op convert: no memory for %lld values",
                       (long long)count);
    lt_dequantize_row(args->in.type, args->in.data, values, count);
    for (int64_t i = 0; i < count; i++)
        if (args->out.type == LT_TYPE_F16)
            ((uint16_t *)args->out.data)[i] = lt_f32_to_f16(values[i]);
        else
            ref_put(&args->out, i, values[i]);
    free(values);
    return LT_OK;
}

lt_status ref_linear(struct lt_exec *exec, const struct lt_linear_args *args,
                     struct lt_error *error)
{
    const int64_t rows = args->in.dim[0], k = args->weight.dim[1], n = args->weight.dim[0];
    float *weight = malloc((size_t)k * sizeof *weight), *bias = ref_weights(&args->bias);
    if (!weight || (args->bias.data && !bias)) {
        free(weight);
        free(bias);
        return lt_fail(error, LT_NO_MEMORY, "op linear: no memory");
    }
    const double scale = args->weight_scale.data ? *(const float *)args->weight_scale.data : 1;
    for (int64_t j = 0; j < n; j++) {
        const struct lt_view one = lt_view_rows(&args->weight, j, 1);
        lt_dequantize_row(one.type, one.data, weight, k);
        for (int64_t i = 0; i < k && !args->exact; i++)
            weight[i] = ref_round(exec, weight[i]);
        for (int64_t l = 0; l < rows; l++) {
            double sum = 0;
            const float *in = ref_row(&args->in, l);
            for (int64_t i = 0; i < k; i++)
                sum += (double)(args->exact ? in[i] : ref_round(exec, in[i])) * weight[i];
            float *out = ref_row(&args->out, l) + j;
            sum = sum * scale + (bias ? bias[j] : 0) + (args->accumulate ? *out : 0);
            *out = (float)ref_activation(args->activation, sum);
        }
    }
    free(weight);
    free(bias);
    return LT_OK;
}

lt_status ref_activate(struct lt_exec *exec, const struct lt_activate_args *args,
                       struct lt_error *error)
{
    (void)exec;
    (void)error;
    const int64_t count = lt_view_count(&args->in);
    for (int64_t i = 0; i < count; i++)
        ref_put(&args->out, i, ref_activation(args->activation, ref_get(&args->in, i)));
    return LT_OK;
}
