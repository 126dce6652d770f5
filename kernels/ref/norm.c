#include "kernels/ref/ref.h"

lt_status ref_layer_norm(struct lt_exec *exec, const struct lt_layer_norm_args *args,
                         struct lt_error *error)
{
    (void)exec;
    const int64_t width = args->in.dim[1];
    float *weight = ref_weights(&args->weight), *bias = ref_weights(&args->bias);
    if ((args->weight.data && !weight) || (args->bias.data && !bias)) {
        free(weight);
        free(bias);
        return lt_fail(error, LT_NO_MEMORY, "op layer_norm: no memory");
    }
    for (int64_t l = 0; l < args->in.dim[0]; l++) {
        const float *in = ref_row(&args->in, l);
        const int64_t group = args->group_rows > 0 ? l / args->group_rows : 0;
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < width; i++)
            mean += in[i];
        mean /= (double)width;
        for (int64_t i = 0; i < width; i++)
            variance += (in[i] - mean) * (in[i] - mean);
        const double scale = 1 / sqrt(variance / (double)width + args->epsilon);
        for (int64_t i = 0; i < width; i++) {
            double x = (in[i] - mean) * scale;
            x = x * (weight ? weight[i] : 1) + (bias ? bias[i] : 0);
            if (args->scale.data)
                x *= 1 + (double)((float *)args->scale.data)[group * width + i];
            if (args->shift.data)
                x += ((float *)args->shift.data)[group * width + i];
            ref_row(&args->out, l)[i] = (float)x;
        }
    }
    free(weight);
    free(bias);
    return LT_OK;
}

/* Rotates the pairs of one head by one axis' angles; gives the first value behind them. */
static float *rotate(float *x, const struct lt_view *axis, int64_t position)
{
    const float *angle = (const float *)axis->data + position * axis->stride[0];
    for (int64_t p = 0; p < axis->dim[1]; p++, x += 2) {
        const double c = angle[2 * p], s = angle[2 * p + 1], a = x[0], b = x[1];
        x[0] = (float)(a * c - b * s);
        x[1] = (float)(a * s + b * c);
    }
    return x;
}

lt_status ref_rms_norm(struct lt_exec *exec, const struct lt_rms_norm_args *args,
                       struct lt_error *error)
{
    (void)exec;
    const int64_t width = args->in.dim[1], group = lt_view_count(&args->weight);
    float *weight = ref_weights(&args->weight);
    if (!weight)
        return lt_fail(error, LT_NO_MEMORY, "op rms_norm: no memory");
    for (int64_t l = 0; l < args->in.dim[0]; l++) {
        float *out = ref_row(&args->out, l);
        for (int64_t first = 0; first < width; first += group) {
            const float *in = ref_row(&args->in, l) + first;
            double sum = 0;
            for (int64_t i = 0; i < group; i++)
                sum += (double)in[i] * in[i];
            const double scale = 1 / sqrt(sum / (double)group + args->epsilon);
            for (int64_t i = 0; i < group; i++)
                out[first + i] = (float)(in[i] * scale * weight[i]);
        }
        if (!args->time.data)
            continue;
        const int64_t column = l % args->column.dim[0],
                      row = l / args->column.dim[0] % args->row.dim[0];
        const int64_t time = l / (args->column.dim[0] * args->row.dim[0]);
        for (float *head = out; head < out + width;)
            head = rotate(rotate(rotate(head, &args->time, time), &args->row, row), &args->column,
                          column);
    }
    free(weight);
    return LT_OK;
}

lt_status ref_gated_add(struct lt_exec *exec, const struct lt_gated_add_args *args,
                        struct lt_error *error)
{
    (void)exec;
    (void)error;
    const int64_t width = args->in.dim[1];
    for (int64_t l = 0; l < args->in.dim[0]; l++) {
        const int64_t group = args->group_rows > 0 ? l / args->group_rows : 0;
        for (int64_t i = 0; i < width; i++) {
            const double gate = args->gate.data ? ((float *)args->gate.data)[group * width + i] : 1;
            ref_row(&args->out, l)[i] =
                (float)(ref_row(&args->residual, l)[i] + gate * ref_row(&args->in, l)[i]);
        }
    }
    return LT_OK;
}

lt_status ref_multiply(struct lt_exec *exec, const struct lt_multiply_args *args,
                       struct lt_error *error)
{
    (void)exec;
    (void)error;
    for (int64_t l = 0; l < args->out.dim[0]; l++)
        for (int64_t i = 0; i < args->out.dim[1]; i++)
            ref_row(&args->out, l)[i] = ref_row(&args->a, l)[i] * ref_row(&args->b, l)[i];
    return LT_OK;
}

lt_status ref_scale(struct lt_exec *exec, const struct lt_scale_args *args, struct lt_error *error)
{
    (void)exec;
    (void)error;
    const float *in = args->in.data;
    for (int64_t i = 0; i < lt_view_count(&args->in); i++)
        ((float *)args->out.data)[i] = (float)(in[i] * args->factor);
    return LT_OK;
}

lt_status ref_channel_norm(struct lt_exec *exec, const struct lt_channel_norm_args *args,
                           struct lt_error *error)
{
    (void)exec;
    const int64_t channels = lt_view_count(&args->gamma), count = lt_view_count(&args->in);
    float *gamma = ref_weights(&args->gamma);
    if (!gamma)
        return lt_fail(error, LT_NO_MEMORY, "op channel_norm: no memory");
    for (int64_t first = 0; first < count; first += channels) {
        double sum = 0;
        for (int64_t i = 0; i < channels; i++)
            sum += (double)ref_get(&args->in, first + i) * ref_get(&args->in, first + i);
        const double norm = sqrt(sum) > 1e-12 ? sqrt(sum) : 1e-12,
                     scale = sqrt((double)channels) / norm;
        for (int64_t i = 0; i < channels; i++)
            ref_put(
                &args->out, first + i,
                ref_activation(args->activation, ref_get(&args->in, first + i) * scale * gamma[i]));
    }
    free(gamma);
    return LT_OK;
}

lt_status ref_nag(struct lt_exec *exec, const struct lt_nag_args *args, struct lt_error *error)
{
    (void)exec;
    (void)error;
    const double scale = args->scale, tau = args->tau, alpha = args->alpha;
    for (int64_t l = 0; l < args->out.dim[0]; l++) {
        const float *positive = ref_row(&args->positive, l),
                    *negative = ref_row(&args->negative, l);
        double before = 0, after = 0, shorten = 1;
        for (int64_t i = 0; i < args->out.dim[1]; i++) {
            before += fabs((double)positive[i]);
            after += fabs(scale * positive[i] - (scale - 1) * negative[i]);
        }
        if (!(after / before <= tau)) /* 0/0 too */
            shorten = before * tau / (after + 1e-7);
        for (int64_t i = 0; i < args->out.dim[1]; i++) {
            const double guided = shorten * (scale * positive[i] - (scale - 1) * negative[i]);
            ref_row(&args->out, l)[i] = (float)(alpha * guided + (1 - alpha) * positive[i]);
        }
    }
    return LT_OK;
}

lt_status ref_rotate(struct lt_exec *exec, const struct lt_rotate_args *args,
                     struct lt_error *error)
{
    (void)exec;
    (void)error;
    const int64_t width = args->in.dim[2];
    for (int64_t l = 0; l < args->in.dim[0]; l++)
        for (int64_t h = 0; h < args->in.dim[1]; h++) {
            const float *in = ref_row(&args->in, l) + h * args->in.stride[1];
            float *out = ref_row(&args->out, l) + h * args->out.stride[1];
            for (int64_t j = 0; j < width; j += 2) {
                const double angle = ((const float *)args->position.data)[l] *
                                     pow(10000.0, -(double)j / (double)width);
                const double a = in[j], b = in[j + 1];
                out[j] = (float)(a * cos(angle) - b * sin(angle));
                out[j + 1] = (float)(a * sin(angle) + b * cos(angle));
            }
        }
    return LT_OK;
}
