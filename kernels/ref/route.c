#include "kernels/ref/ref.h"

#include <math.h>

static void mean_of_heads(const struct lt_route_args *args)
{
    const struct lt_view *looks = &args->looks;
    const int64_t heads = looks->dim[1], count = looks->dim[0];
    for (int64_t c = 0; c < args->maps.dim[0]; c++) {
        const double size = (double)((const float *)args->size.data)[c];
        for (int64_t l = 0; l < count; l++) {
            const float *row = (const float *)looks->data + l * looks->stride[0] + c;
            double sum = 0;
            for (int64_t h = 0; h < heads; h++)
                sum += (double)row[h * looks->stride[1]];
            ((float *)args->maps.data)[c * count + l] =
                size > 0 ? (float)(sum / (double)heads / size) : 0;
        }
    }
}

static void find_range(const float *map, int64_t count, float *range)
{
    range[0] = range[1] = map[0];
    for (int64_t l = 1; l < count; l++) {
        range[0] = fminf(range[0], map[l]);
        range[1] = fmaxf(range[1], map[l]);
    }
}

lt_status ref_route(struct lt_exec *exec, const struct lt_route_args *args, struct lt_error *error)
{
    (void)exec;
    (void)error;
    const int64_t last = args->maps.dim[0] - 1, count = args->maps.dim[1];
    const float *map = args->maps.data, *first = args->first.data;
    float *range = args->range.data;
    mean_of_heads(args);
    for (int64_t c = 0; c < last; c++)
        find_range(map + c * count, count, range + 2 * c);
    for (int64_t l = 0; l < count; l++) {
        int64_t best = 0;
        for (int64_t c = 1; c <= last; c++)
            if (map[c * count + l] > map[best * count + l])
                best = c;
        double at = (double)first[best];
        if (best < last)
            at += (double)args->width * ((double)map[best * count + l] - (double)range[2 * best]) /
                  ((double)range[2 * best + 1] - (double)range[2 * best] + 1e-8);
        ((float *)args->position.data)[l] = (float)at;
    }
    return LT_OK;
}
