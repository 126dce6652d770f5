/* The parameter-free shortcuts of the Wan 2.2 VAE. */
#include "kernels/ref/ref.h"

lt_status ref_avg_down(struct lt_exec *exec, const struct lt_avg_down_args *args,
                       struct lt_error *error)
{
    (void)exec, (void)error;
    const struct lt_view *out = &args->out, *in = &args->in;
    const int64_t ci = in->dim[3], co = out->dim[3], fs = args->space;
    const int64_t block = args->time * fs * fs, group = ci * block / co;
    for (int64_t y = 0; y < out->dim[1]; y++)
        for (int64_t x = 0; x < out->dim[2]; x++)
            for (int64_t o = 0; o < co; o++) {
                const int64_t at = (y * out->dim[2] + x) * co + o;
                double sum = 0;
                for (int64_t k = o * group; k < (o + 1) * group; k++) {
                    const int64_t c = k / block, frame = k % block / (fs * fs);
                    const int64_t row = k % (fs * fs) / fs, column = k % fs;
                    if (frame == args->frame)
                        sum +=
                            ref_get(in, ((y * fs + row) * in->dim[2] + x * fs + column) * ci + c);
                }
                sum /= (double)group;
                ref_put(out, at, args->accumulate ? ref_get(out, at) + sum : sum);
            }
    return LT_OK;
}

lt_status ref_dup_up(struct lt_exec *exec, const struct lt_dup_up_args *args,
                     struct lt_error *error)
{
    (void)exec, (void)error;
    const struct lt_view *out = &args->out, *in = &args->in;
    const int64_t ci = in->dim[3], co = out->dim[3], fs = args->space;
    const int64_t block = args->time * fs * fs, repeats = co * block / ci;
    for (int64_t y = 0; y < out->dim[1]; y++)
        for (int64_t x = 0; x < out->dim[2]; x++)
            for (int64_t o = 0; o < co; o++) {
                const int64_t at = (y * out->dim[2] + x) * co + o;
                const int64_t k = o * block + args->frame * fs * fs + y % fs * fs + x % fs;
                const float value = ref_get(in, (y / fs * in->dim[2] + x / fs) * ci + k / repeats);
                ref_put(out, at, args->accumulate ? (double)ref_get(out, at) + value : value);
            }
    return LT_OK;
}
