#include "kernels/ref/ref.h"

lt_status ref_attention(struct lt_exec *exec, const struct lt_attention_args *args,
                        struct lt_error *error)
{
    const int64_t keys = args->k.dim[0], width = args->q.dim[2];
    double *p = malloc((size_t)keys * sizeof *p);
    if (!p)
        return lt_fail(error, LT_NO_MEMORY, "op attention: no memory for %lld logits",
                       (long long)keys);
    for (int64_t l = 0; l < args->q.dim[0]; l++)
        for (int64_t h = 0; h < args->q.dim[1]; h++) {
            const float *q = ref_row(&args->q, l) + h * args->q.stride[1];
            double top = -INFINITY, sum = 0;
            for (int64_t s = 0; s < keys; s++) {
                const float *k = ref_row(&args->k, s) + h * args->k.stride[1];
                double dot = 0;
                for (int64_t i = 0; i < width; i++)
                    dot += args->exact ? (double)q[i] * k[i]
                                       : (double)ref_round(exec, q[i]) * ref_round(exec, k[i]);
                p[s] = dot * args->scale + (s == keys - 1 ? args->last_key_bias : 0);
                if (args->relative_bias.data)
                    p[s] += ref_row(&args->relative_bias, h)[s - l + args->q.dim[0] - 1];
                top = p[s] > top ? p[s] : top;
            }
            for (int64_t s = 0; s < keys; s++)
                sum += p[s] = exp(p[s] - top);
            float *out = ref_row(&args->out, l) + h * args->out.stride[1];
            for (int64_t i = 0; i < width; i++) {
                double value = 0;
                for (int64_t s = 0; s < keys; s++) {
                    const float v = (ref_row(&args->v, s) + h * args->v.stride[1])[i];
                    value += p[s] * (args->exact ? v : ref_round(exec, v));
                }
                out[i] = (float)(value / sum);
            }
        }
    free(p);
    return LT_OK;
}
