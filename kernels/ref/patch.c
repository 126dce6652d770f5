#include "kernels/ref/ref.h"

lt_status ref_patchify(struct lt_exec *exec, const struct lt_patchify_args *args,
                       struct lt_error *error)
{
    (void)exec;
    (void)error;
    const int64_t channels = args->in.dim[0], frames = args->in.dim[1], h = args->in.dim[2],
                  w = args->in.dim[3];
    const float *in = args->in.data;
    float *out = args->out.data;
    for (int64_t f = 0; f < frames; f++)
        for (int64_t i = 0; i < h / 2; i++)
            for (int64_t j = 0; j < w / 2; j++)
                for (int64_t c = 0; c < channels; c++)
                    for (int64_t dy = 0; dy < 2; dy++)
                        for (int64_t dx = 0; dx < 2; dx++)
                            *out++ = in[((c * frames + f) * h + 2 * i + dy) * w + 2 * j + dx];
    return LT_OK;
}

lt_status ref_unpatchify(struct lt_exec *exec, const struct lt_unpatchify_args *args,
                         struct lt_error *error)
{
    (void)exec;
    (void)error;
    const int64_t channels = args->out.dim[0], frames = args->out.dim[1], h = args->out.dim[2],
                  w = args->out.dim[3];
    const float *in = args->in.data;
    float *out = args->out.data;
    for (int64_t f = 0; f < frames; f++)
        for (int64_t i = 0; i < h / 2; i++)
            for (int64_t j = 0; j < w / 2; j++)
                for (int64_t dy = 0; dy < 2; dy++)
                    for (int64_t dx = 0; dx < 2; dx++)
                        for (int64_t c = 0; c < channels; c++)
                            out[((c * frames + f) * h + 2 * i + dy) * w + 2 * j + dx] = *in++;
    return LT_OK;
}
