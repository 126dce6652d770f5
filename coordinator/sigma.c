#include "coordinator/sigma.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const double sigma_own_max = 1 - 1e-6;

double sigma_shift(double sigma, double shift)
{
    return shift * sigma / (1 + (shift - 1) * sigma);
}

/* Element i of `count` numbers from first to last, in numpy's order of operations: timesteps are
 * truncated, so the last bit matters. */
static double linspace(double first, double last, int64_t count, int64_t i)
{
    if (count == 1)
        return first;
    const double step = (last - first) / (double)(count - 1);
    return i == count - 1 ? last : (double)i * step + first;
}

/* Continued fraction of the regularised incomplete beta function (Lentz), x below the mean. */
static double beta_fraction(double a, double b, double x)
{
    double c = 1, d = 1 / (1 - (a + b) * x / (a + 1)), result = d;
    for (int m = 1; m <= 200; m++) {
        const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        d = 1 / (1 + even * d);
        c = 1 + even / c;
        result *= d * c;
        const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        d = 1 / (1 + odd * d);
        c = 1 + odd / c;
        result *= d * c;
        if (fabs(d * c - 1) < 1e-16)
            break;
    }
    return result;
}

/* I_x(a, a) for x <= 1/2. */
static double beta_cdf_lower(double a, double x)
{
    const double front = pow(x * (1 - x), a) * tgamma(2 * a) / (tgamma(a) * tgamma(a));
    return front * beta_fraction(a, a, x) / a;
}

double sigma_beta_quantile(double p)
{
    const double a = 0.6; /* both parameters: the density is symmetric about 1/2 */
    if (p <= 0)
        return 0;
    if (p >= 1)
        return 1;
    if (p > 0.5)
        return 1 - sigma_beta_quantile(1 - p);
    double low = 0, high = 0.5;
    for (int i = 0; i < 200 && low < high;
         i++) { /* to the last bit: a bisection ends in ~55 rounds */
        const double middle = low + (high - low) / 2;
        if (middle <= low || middle >= high)
            break;
        if (beta_cdf_lower(a, middle) < p)
            low = middle;
        else
            high = middle;
    }
    return low + (high - low) / 2;
}

/* How a sampler makes its list of `count` levels (the final 0 is not among them). */
typedef lt_status list_function(const struct job *job, int64_t count, double *sigma,
                                struct lt_error *error);

/* UniPC and DPM++: the largest level comes from a grid that is shifted once already
 * (pipeline.md 3.2). */
static lt_status list_multistep(const struct job *job, int64_t count, double *sigma,
                                struct lt_error *error)
{
    (void)error;
    const float grid_max = 0.999f, shift = (float)job->shift; /* upstream keeps this grid in f32 */
    const float first =
        job->official_sigmas ? grid_max : shift * grid_max / (1 + (shift - 1) * grid_max);
    const bool whole =
        job->official_sigmas && job->sampler != SAMPLER_UNIPC; /* its own list starts at 1 */
    for (int64_t i = 0; i < count; i++)
        sigma[i] = sigma_shift(linspace(whole ? 1 : first, 0, count + 1, i), job->shift);
    return LT_OK;
}

/* Euler and LCM: a grid from 1 to 0.001, shifted, cut evenly and shifted again. */
static lt_status list_flow_match(const struct job *job, int64_t count, double *sigma,
                                 struct lt_error *error)
{
    (void)error;
    const double last = sigma_shift(0.001, job->shift);
    for (int64_t i = 0; i < count; i++)
        sigma[i] = sigma_shift(linspace(1, last, count, i), job->shift);
    return LT_OK;
}

static lt_status list_distill(const struct job *job, int64_t count, double *sigma,
                              struct lt_error *error)
{
    static const double grid[] = {0.999, 0.75, 0.5, 0.25};
    if (count != (int64_t)LT_COUNT(grid))
        return lt_fail(error, LT_BAD_INPUT,
                       "sampler flowmatch_distill has exactly 4 steps, not %lld", (long long)count);
    for (int64_t i = 0; i < count; i++)
        sigma[i] = sigma_shift(grid[i], job->shift);
    return LT_OK;
}

static lt_status list_causvid(const struct job *job, int64_t count, double *sigma,
                              struct lt_error *error)
{
    (void)job;
    static const double grid[] = {0.999, 0.934, 0.862, 0.756, 0.603, 0.410, 0.250, 0.140, 0.074};
    if (count > (int64_t)LT_COUNT(grid))
        return lt_fail(error, LT_BAD_INPUT,
                       "sampler flowmatch_causvid has at most 9 steps, not %lld", (long long)count);
    for (int64_t i = 0; i < count; i++)
        sigma[i] = grid[i];
    return LT_OK;
}

static lt_status list_multitalk(const struct job *job, int64_t count, double *sigma,
                                struct lt_error *error)
{
    (void)error;
    for (int64_t i = 0; i < count; i++)
        sigma[i] = sigma_shift(linspace(1000, 1, count, i) / 1000, job->shift);
    return LT_OK;
}

static const struct {
    list_function *list;
    bool integer_timesteps;
    bool has_beta;
} samplers[] = {
    [SAMPLER_EULER] = {list_flow_match, false, true},
    [SAMPLER_UNIPC] = {list_multistep, true, true},
    [SAMPLER_DPMPP] = {list_multistep, true, true},
    [SAMPLER_DPMPP_SDE] = {list_multistep, true, true},
    [SAMPLER_LCM] = {list_flow_match, false, true},
    [SAMPLER_FLOWMATCH_DISTILL] = {list_distill, false, false},
    [SAMPLER_FLOWMATCH_CAUSVID] = {list_causvid, false, false},
    [SAMPLER_MULTITALK] = {list_multitalk, false, false},
};

/* Redistributes the levels between the first and the last, which are shifted already. */
static void spread_beta(double *sigma, int64_t count)
{
    const double first = sigma[0], last = sigma[count - 1];
    for (int64_t j = 0; j < count && count > 1; j++)
        sigma[j] = last + (first - last) * sigma_beta_quantile(1 - linspace(0, 1, count, j));
}

static lt_status own_list(const struct job *job, double *sigma, struct lt_error *error)
{
    for (size_t i = 0; i < job->sigma_count; i++) {
        const double before = i ? job->sigma[i - 1] : 2;
        if (!(job->sigma[i] > 0 && job->sigma[i] <= 1 && job->sigma[i] < before))
            return lt_fail(
                error, LT_BAD_INPUT,
                "sigma %zu is %g: levels must lie in (0, 1] and fall from each to the next", i,
                job->sigma[i]);
        sigma[i] = job->sigma[i] < sigma_own_max ? job->sigma[i] : sigma_own_max;
    }
    return LT_OK;
}

lt_status sigma_list_build(const struct job *job, struct lt_arena *arena,
                           struct sigma_list *list_out, struct lt_error *error)
{
    const bool own = job->sigma != NULL;
    const int64_t count = own ? (int64_t)job->sigma_count : job->step_count;
    if (count < 1 || count > JOB_LIST_MAX)
        return lt_fail(error, LT_BAD_INPUT, "%lld steps: expected 1 to %d", (long long)count,
                       JOB_LIST_MAX);
    if ((size_t)job->sampler >= LT_COUNT(samplers))
        return lt_fail(error, LT_BAD_INPUT, "unknown sampler %d", (int)job->sampler);
    if (job->beta_schedule && (own || !samplers[job->sampler].has_beta))
        return lt_fail(error, LT_BAD_INPUT,
                       "this sampler or an own list of sigmas has no beta schedule");
    const int64_t end = job->end_step < 0 ? count : job->end_step;
    if (job->start_step < 0 || end > count || job->start_step >= end)
        return lt_fail(error, LT_BAD_INPUT, "steps %lld to %lld of %lld: none is left",
                       (long long)job->start_step, (long long)end, (long long)count);

    double *sigma = lt_arena_take_array(arena, (size_t)count + 1, sizeof *sigma);
    double *timestep = lt_arena_take_array(arena, (size_t)count, sizeof *timestep);
    if (!sigma || !timestep)
        return lt_fail(error, LT_NO_MEMORY, "no memory for %lld noise levels", (long long)count);
    LT_TRY(own ? own_list(job, sigma, error)
               : samplers[job->sampler].list(job, count, sigma, error));
    if (job->beta_schedule)
        spread_beta(sigma, count);
    sigma[count] = 0;
    for (int64_t i = 0; i < count; i++) {
        timestep[i] = 1000 * sigma[i];
        if (samplers[job->sampler].integer_timesteps)
            timestep[i] = trunc(timestep[i]);
    }
    *list_out = (struct sigma_list){.sigma = sigma + job->start_step,
                                    .timestep = timestep + job->start_step,
                                    .count = (uint32_t)(end - job->start_step)};
    return LT_OK;
}

bool sigma_low_expert(double timestep, double boundary)
{
    return trunc(timestep) <
           1000 * boundary - 1e-9; /* 875 and 900 exactly belong to the high expert */
}

/* As Python's round(value, 2): the decimal nearest to the exact binary value. */
static double round_hundredths(double value)
{
    char text[64];
    snprintf(text, sizeof text, "%.2f", value);
    return strtod(text, NULL);
}

static double ease_in_out(double t, enum guidance_ease ease)
{
    switch (ease) {
    case GUIDANCE_EASE_IN:
        return t * t;
    case GUIDANCE_EASE_OUT:
        return t * (2 - t);
    case GUIDANCE_LINEAR:
        break;
    }
    return t;
}

static uint32_t share_of(double share, uint32_t step_count)
{
    const double step = floor(step_count * share);
    return step < step_count - 1 ? (uint32_t)step : step_count - 1;
}

void sigma_guidance_schedule(double from, double to, double start, double end,
                             enum guidance_ease ease, uint32_t step_count, double *value_out)
{
    const uint32_t first = share_of(start, step_count), last = share_of(end, step_count);
    for (uint32_t j = 0; j < step_count; j++) {
        value_out[j] = 1;
        if (j < first || j > last)
            continue;
        const double t = first == last ? 0 : (double)(j - first) / (double)(last - first);
        value_out[j] = round_hundredths(from + ease_in_out(t, ease) * (to - from));
    }
    if (start > 0)
        value_out[0] = 1;
}
