/* With lambda(sigma) = ln(1 - sigma) - ln(sigma) and h the difference of two lambdas, every solver
 * is a sum of the sample, predictions of the picture m = x - sigma v, differences of those, and
 * noise. The differences stay differences in f32: near sigma 1 their coefficients are large and
 * nearly cancel. */
#include "coordinator/sampler.h"

#include <math.h>

struct sampler_step {
    float sigma;
    int corrector_order; /* unipc: 0, 1 or 2 */
    /* corrector: x = c_x x_last + c_m1 m1 + c_21 (m2 - m1) + c_01 (m - m1) */
    float c_x, c_m1, c_21, c_01;
    bool second_order; /* the predictor has its difference */
    /* predictor: x' = p_x x + p_m m + p_d (second difference) + p_noise noise; euler: x' = x + p_m
     * v */
    float p_x, p_m, p_d, p_noise;
};

uint32_t sampler_history_count(enum sampler_kind kind)
{
    switch (kind) {
    case SAMPLER_UNIPC:
        return 3; /* the sample before the last predictor, m1, m2 */
    case SAMPLER_DPMPP:
    case SAMPLER_DPMPP_SDE:
        return 1; /* m1 */
    case SAMPLER_EULER:
    case SAMPLER_LCM:
    case SAMPLER_FLOWMATCH_DISTILL:
    case SAMPLER_FLOWMATCH_CAUSVID:
    case SAMPLER_MULTITALK:
        break;
    }
    return 0;
}

static double lambda(double sigma)
{
    return log(1 - sigma) - log(sigma);
}

/* pipeline.md 3.3 (b): p is the order of the predictor that led here. */
static void unipc_corrector(const double *sigma, uint32_t i, int p, struct sampler_step *step)
{
    const double h = lambda(sigma[i]) - lambda(sigma[i - 1]), e = expm1(-h), alpha = 1 - sigma[i];
    step->corrector_order = p;
    step->c_x = (float)(sigma[i] / sigma[i - 1]);
    step->c_m1 = (float)(-alpha * e);
    if (p == 1) {
        step->c_01 = (float)(-alpha * e * 0.5);
        return;
    }
    const double r = (lambda(sigma[i - 2]) - lambda(sigma[i - 1])) / h;
    const double g1 = e / -h - 1, g2 = g1 / -h - 0.5;
    const double b1 = g1 / e, b2 = 2 * g2 / e;
    const double rho0 = (b1 - b2) / (1 - r), rho1 = b1 - rho0;
    step->c_21 = (float)(-alpha * e * rho0 / r);
    step->c_01 = (float)(-alpha * e * rho1);
}

static void unipc_step(const double *sigma, uint32_t count, uint32_t i, struct sampler_step *step)
{
    if (i > 0)
        unipc_corrector(sigma, i, i > 1 ? 2 : 1, step);
    const double next = sigma[i + 1], h = lambda(next) - lambda(sigma[i]);
    const double e = next > 0 ? expm1(-h) : -1;
    step->second_order = i > 0 && i + 1 < count; /* order min(2, N - i, steps done + 1) */
    step->p_x = (float)(next / sigma[i]);
    step->p_m = (float)(-(1 - next) * e);
    if (step->second_order) {
        const double r = (lambda(sigma[i - 1]) - lambda(sigma[i])) / h;
        step->p_d = (float)(-(1 - next) * e * 0.5 / r); /* of m1 - m */
    }
}

/* pipeline.md 3.4; sigma 1 has lambda -inf, which the limits below survive. */
static void dpm_step(const double *sigma, uint32_t count, uint32_t i, bool sde,
                     struct sampler_step *step)
{
    const double next = sigma[i + 1];
    step->second_order = i > 0 && i + 1 < count;
    if (next <= 0) {
        step->p_m = 1;
        return;
    }
    const double h = lambda(next) - lambda(sigma[i]), alpha = 1 - next;
    const double r = i > 0 ? (lambda(sigma[i]) - lambda(sigma[i - 1])) / h : 1;
    const double gain = sde ? -expm1(-2 * h) : -expm1(-h);
    step->p_x = (float)(next / sigma[i] * (sde ? exp(-h) : 1));
    step->p_m = (float)(alpha * gain);
    step->p_noise = sde ? (float)(next * sqrt(gain)) : 0;
    if (step->second_order)
        step->p_d = (float)(alpha * gain * 0.5 / r); /* of m - m1 */
}

static struct sampler_step make_step(enum sampler_kind kind, const double *sigma, uint32_t count,
                                     uint32_t i)
{
    struct sampler_step step = {.sigma = (float)sigma[i]};
    switch (kind) {
    case SAMPLER_UNIPC:
        unipc_step(sigma, count, i, &step);
        break;
    case SAMPLER_DPMPP:
    case SAMPLER_DPMPP_SDE:
        dpm_step(sigma, count, i, kind == SAMPLER_DPMPP_SDE, &step);
        break;
    case SAMPLER_LCM:
        step.p_m = (float)(1 - sigma[i + 1]);
        step.p_noise = (float)sigma[i + 1];
        break;
    case SAMPLER_EULER:
    case SAMPLER_FLOWMATCH_DISTILL:
    case SAMPLER_FLOWMATCH_CAUSVID:
    case SAMPLER_MULTITALK:
        step.p_m = (float)(sigma[i + 1] - sigma[i]);
        break;
    }
    return step;
}

static bool step_is_finite(const struct sampler_step *step)
{
    return isfinite(step->c_x) && isfinite(step->c_m1) && isfinite(step->c_21) &&
           isfinite(step->c_01) && isfinite(step->p_x) && isfinite(step->p_m) &&
           isfinite(step->p_d) && isfinite(step->p_noise);
}

lt_status sampler_build(enum sampler_kind kind, const struct plan *plan, struct lt_arena *arena,
                        struct sampler *sampler_out, struct lt_error *error)
{
    const uint32_t count = plan->step_count;
    struct sampler_step *step = lt_arena_take_array(arena, count, sizeof *step);
    double *sigma = lt_arena_take_array(arena, (size_t)count + 1, sizeof *sigma);
    if (!step || !sigma)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the sampler");
    for (uint32_t i = 0; i < count; i++)
        sigma[i] = plan->step[i].sigma;
    sigma[count] = plan->step[count - 1].sigma_next;
    for (uint32_t i = 0; i < count; i++) {
        step[i] = make_step(kind, sigma, count, i);
        if (!step_is_finite(&step[i]))
            return lt_fail(error, LT_BAD_INPUT,
                           "step %u: the sampler cannot go from sigma %.9g to %.9g: start below 1",
                           i, sigma[i], sigma[i + 1]);
    }
    *sampler_out = (struct sampler){
        .kind = kind,
        .step_count = count,
        .history_count = sampler_history_count(kind),
        .step = step,
    };
    return LT_OK;
}

bool sampler_needs_noise(const struct sampler *sampler, uint32_t step)
{
    lt_assert(step < sampler->step_count);
    return sampler->step[step].p_noise != 0;
}

static void advance_euler(const struct sampler_step *step, size_t count, const float *v,
                          const float *x, float *x_out)
{
    for (size_t i = 0; i < count; i++)
        x_out[i] = x[i] + step->p_m * v[i];
}

static void advance_lcm(const struct sampler_step *step, size_t count, const float *v,
                        const float *noise, const float *x, float *x_out)
{
    for (size_t i = 0; i < count; i++) {
        const float m = x[i] - step->sigma * v[i];
        x_out[i] = step->p_m * m + (noise ? step->p_noise * noise[i] : 0);
    }
}

static void advance_dpm(const struct sampler_step *step, size_t count, const float *v,
                        const float *noise, const struct sampler_frame *from,
                        const struct sampler_frame *to)
{
    for (size_t i = 0; i < count; i++) {
        const float x = from->x[i], m = x - step->sigma * v[i];
        float next = step->p_x * x + step->p_m * m;
        if (step->second_order)
            next += step->p_d * (m - from->history[0][i]);
        if (noise)
            next += step->p_noise * noise[i];
        to->x[i] = next;
        to->history[0][i] = m;
    }
}

/* The corrector works on the sample before the last predictor, with the prediction that sample led
 * to. */
static float unipc_correct(const struct sampler_step *step, float x, float x_last, float m1,
                           float m2, float m)
{
    if (step->corrector_order == 0)
        return x;
    const float corrected = step->c_x * x_last + step->c_m1 * m1;
    if (step->corrector_order == 1)
        return corrected + step->c_01 * (m - m1);
    return corrected + step->c_21 * (m2 - m1) + step->c_01 * (m - m1);
}

static void advance_unipc(const struct sampler_step *step, size_t count, const float *v,
                          const struct sampler_frame *from, const struct sampler_frame *to)
{
    const bool has_history = step->corrector_order > 0;
    for (size_t i = 0; i < count; i++) {
        const float x_last = has_history ? from->history[0][i] : 0;
        const float m1 = has_history ? from->history[1][i] : 0;
        const float m2 = has_history ? from->history[2][i] : 0;
        const float m = from->x[i] - step->sigma * v[i];
        const float x = unipc_correct(step, from->x[i], x_last, m1, m2, m);
        float next = step->p_x * x + step->p_m * m;
        if (step->second_order)
            next += step->p_d * (m1 - m);
        to->x[i] = next;
        to->history[0][i] = x;
        to->history[1][i] = m;
        to->history[2][i] = m1;
    }
}

void sampler_advance(const struct sampler *sampler, uint32_t step, size_t value_count,
                     const float *prediction, const float *noise, const struct sampler_frame *from,
                     const struct sampler_frame *to)
{
    lt_assert(step < sampler->step_count);
    const struct sampler_step *scalars = &sampler->step[step];
    lt_assert(noise || scalars->p_noise == 0);
    const float *used_noise = scalars->p_noise != 0 ? noise : NULL;
    switch (sampler->kind) {
    case SAMPLER_UNIPC:
        advance_unipc(scalars, value_count, prediction, from, to);
        return;
    case SAMPLER_DPMPP:
    case SAMPLER_DPMPP_SDE:
        advance_dpm(scalars, value_count, prediction, used_noise, from, to);
        return;
    case SAMPLER_LCM:
        advance_lcm(scalars, value_count, prediction, used_noise, from->x, to->x);
        return;
    case SAMPLER_EULER:
    case SAMPLER_FLOWMATCH_DISTILL:
    case SAMPLER_FLOWMATCH_CAUSVID:
    case SAMPLER_MULTITALK:
        advance_euler(scalars, value_count, prediction, from->x, to->x);
        return;
    }
}
