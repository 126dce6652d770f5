#include "coordinator/skip.h"

#include "coordinator/skip_tables.h"

#include <math.h>

enum { COMPAT_STEPS = 50 }; /* what the wrapper takes every run to have */

static bool is_in_question(const struct skip_params *params, uint32_t step)
{
    return step >= params->start && step <= params->end;
}

/* -- MagCache ---------------------------------------------------------------------------------- */

/* The nearest of the measured steps, of the half's own list. */
static double ratio_at(const struct skip_params *params, uint32_t half, uint32_t step,
                       uint32_t step_count)
{
    const struct skip_ratios *table = &skip_ratios[params->model];
    const uint32_t pairs = table->count / 2;
    if (params->compat) {
        const uint32_t index = step * pairs / COMPAT_STEPS;
        return table->ratio[index < table->count ? index : table->count - 1];
    }
    const double at = step_count > 1 ? (double)step * (pairs - 1) / (step_count - 1) : 0;
    return table->ratio[2 * (uint32_t)nearbyint(at) + half];
}

void skip_magcache(const struct skip_params *params, uint32_t half, uint32_t first, uint32_t end,
                   uint32_t step_count, bool *skip_out)
{
    double ratio = 1, error = 0;
    uint32_t skips = 0;
    bool kept = false; /* there is something to add */
    for (uint32_t s = first; s < end; s++) {
        skip_out[s] = false;
        if (!is_in_question(params, s))
            continue;
        if (kept) {
            ratio *= ratio_at(params, half, s, step_count);
            error += fabs(1 - ratio);
            skips++;
            skip_out[s] = error <= params->threshold && skips <= params->skips_max;
        }
        if (!skip_out[s]) {
            ratio = 1;
            error = 0;
            skips = 0;
        }
        kept = true;
    }
}

/* -- TeaCache ---------------------------------------------------------------------------------- */

double skip_teacache_change(enum skip_model model, enum skip_curve curve, double distance)
{
    double change = 0;
    if (curve == SKIP_CURVE_PLAIN)
        return distance;
    for (int i = 0; i < SKIP_COEFFICIENTS; i++)
        change = change * distance + skip_coefficients[model][curve][i];
    return change;
}

void skip_teacache(const struct skip_params *params, uint32_t first, uint32_t end,
                   const float *distance, bool *skip_out)
{
    const uint32_t count = end - first;
    uint32_t computed = UINT32_MAX; /* the last step in question that was */
    double sum = 0;
    for (uint32_t s = first; s < end; s++) {
        skip_out[s] = false;
        if (!is_in_question(params, s))
            continue;
        const uint32_t other = params->neighbours ? s - 1 : computed;
        if (params->neighbours ? s > first : computed != UINT32_MAX) {
            const double d = (double)distance[(s - first) * count + (other - first)];
            const double change = skip_teacache_change(params->model, params->curve, d);
            /* the polynomials go below zero, which would skip for ever */
            sum += params->compat || change > 0 ? change : 0;
            skip_out[s] = sum < params->threshold;
        }
        if (!skip_out[s]) {
            sum = 0;
            computed = s;
        }
    }
}
