#include "worker/easycache.h"

#include <math.h>
#include <string.h>

/* mean|a - b|, b NULL: mean|a| */
static double distance(const float *a, const float *b, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += fabs((double)a[i] - (b ? (double)b[i] : 0));
    return sum / (double)count;
}

static void copy(float *to, const float *from, int64_t count)
{
    memcpy(to, from, (size_t)count * sizeof *to);
}

/* The gain is known from two computed steps on. */
bool easycache_decide(struct easycache *cache, const float *x, uint32_t step, double threshold)
{
    bool skip = false;
    if (cache->after != step) { /* a stranger's step lies between: what is known is of no use */
        cache->computed_after = 0;
        cache->gain = 0;
    }
    if (!(threshold > 0) || cache->computed_after == 0) {
        cache->sum = 0;
    } else if (cache->gain > 0) {
        cache->sum += cache->gain * distance(x, cache->seen, cache->count) /
                      distance(cache->v, NULL, cache->count);
        skip = cache->sum < threshold;
        cache->sum = skip ? cache->sum : 0;
    }
    copy(cache->seen, x, cache->count);
    cache->after = step + 1;
    return skip;
}

void easycache_predict(const struct easycache *cache, const float *x, float *v_out)
{
    for (int64_t i = 0; i < cache->count; i++)
        v_out[i] = x[i] + (cache->v[i] - cache->x[i]);
}

void easycache_record(struct easycache *cache, const float *x, const float *v, uint32_t step)
{
    if (cache->computed_after > 0) {
        const double moved = distance(x, cache->x, cache->count);
        cache->gain = moved > 0 ? distance(v, cache->v, cache->count) / moved : 0;
    }
    copy(cache->x, x, cache->count);
    copy(cache->v, v, cache->count);
    cache->after = step + 1;
    cache->computed_after = step + 1;
}
