#include "common/color.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

static const char *const names[] = {
    [LT_COLOR_NONE] = "none", [LT_COLOR_REINHARD] = "reinhard", [LT_COLOR_MKL] = "mkl"};

bool lt_color_method_by_name(const char *name, enum lt_color_method *method_out)
{
    for (size_t i = 0; i < LT_COUNT(names); i++)
        if (strcmp(name, names[i]) == 0) {
            *method_out = (enum lt_color_method)i;
            return true;
        }
    return false;
}

const char *lt_color_method_name(enum lt_color_method method)
{
    return names[method];
}

/* -- CIE Lab ----------------------------------------------------------------------------------- */

static const double to_xyz[3][3] = {
    {0.412453, 0.357580, 0.180423}, {0.212671, 0.715160, 0.072169}, {0.019334, 0.119193, 0.950227}};
static const double to_rgb[3][3] = {
    {3.2404813432005266, -1.5371515162713185, -0.49853632616888777},
    {-0.96925494999656817, 1.8759900014898907, 0.041555926558292808},
    {0.055646639135177163, -0.20404133836651123, 1.0573110696453443}};
static const double white[3] = {0.95047, 1, 1.08883};

static void multiply(const double m[3][3], const double v[3], double out[3])
{
    for (int i = 0; i < 3; i++)
        out[i] = m[i][0] * v[0] + m[i][1] * v[1] + m[i][2] * v[2];
}

/* sRGB to linear light by straight lines between 4,097 points: within 2e-8 of the power, and a
 * frame has a million of them. */
enum { GAMMA_STEPS = 4096 };
struct gamma {
    float point[GAMMA_STEPS + 2];
};

static double linear_of(double v)
{
    return v > 0.04045 ? pow((v + 0.055) / 1.055, 2.4) : v / 12.92;
}

static void gamma_init(struct gamma *gamma)
{
    for (int i = 0; i < GAMMA_STEPS + 2; i++)
        gamma->point[i] = (float)linear_of((double)i / GAMMA_STEPS);
}

static double gamma_at(const struct gamma *gamma, double v)
{
    if (!(v >= 0 && v <= 1))
        return linear_of(v);
    const double at = v * GAMMA_STEPS;
    const int i = (int)at;
    const double low = (double)gamma->point[i];
    return low + (at - i) * ((double)gamma->point[i + 1] - low);
}

static void lab_from_rgb(const struct gamma *gamma, const double rgb[3], double lab[3])
{
    const double linear[3] = {gamma_at(gamma, rgb[0]), gamma_at(gamma, rgb[1]),
                              gamma_at(gamma, rgb[2])};
    double f[3];
    multiply(to_xyz, linear, f);
    for (int c = 0; c < 3; c++) {
        f[c] /= white[c];
        f[c] = f[c] > 0.008856 ? (double)cbrtf((float)f[c]) : 7.787 * f[c] + 16.0 / 116;
    }
    lab[0] = 116 * f[1] - 16;
    lab[1] = 500 * (f[0] - f[1]);
    lab[2] = 200 * (f[1] - f[2]);
}

static void rgb_from_lab(const double lab[3], double rgb[3])
{
    const double y = (lab[0] + 16) / 116;
    double xyz[3] = {y + lab[1] / 500, y, fmax(y - lab[2] / 200, 0)};
    for (int c = 0; c < 3; c++)
        xyz[c] = white[c] *
                 (xyz[c] > 0.2068966 ? xyz[c] * xyz[c] * xyz[c] : (xyz[c] - 16.0 / 116) / 7.787);
    multiply(to_rgb, xyz, rgb);
    for (int c = 0; c < 3; c++)
        rgb[c] = rgb[c] > 0.0031308 ? 1.055 * (double)powf((float)rgb[c], 1 / 2.4f) - 0.055
                                    : 12.92 * rgb[c];
}

/* -- statistics -------------------------------------------------------------------------------- */

/* Pixel `rgb` in the method's colours; `gamma` for Lab only. */
static void load(enum lt_color_method method, const struct gamma *gamma, const float *rgb,
                 size_t stride, double out[3])
{
    const double value[3] = {(double)rgb[0], (double)rgb[stride], (double)rgb[2 * stride]};
    if (method == LT_COLOR_REINHARD)
        lab_from_rgb(gamma, value, out);
    else
        memcpy(out, value, sizeof value);
}

/* One pass: sums of the distances from the first pixel, which is near enough to the mean for
 * nothing to cancel in f64. */
static struct lt_color_stats measure(enum lt_color_method method, const struct gamma *gamma,
                                     const float *rgb, size_t count, size_t pixel_stride,
                                     size_t channel_stride)
{
    struct lt_color_stats stats = {.method = method};
    double first[3], value[3], sum[3] = {0};
    load(method, gamma, rgb, channel_stride, first);
    for (size_t i = 0; i < count; i++) {
        load(method, gamma, rgb + i * pixel_stride, channel_stride, value);
        for (int c = 0; c < 3; c++)
            value[c] -= first[c];
        for (int c = 0; c < 3; c++) {
            sum[c] += value[c];
            for (int d = 0; d <= c; d++)
                stats.covariance[c][d] += value[c] * value[d];
        }
    }
    /* numpy's cov divides by n - 1, the deviation of Lab by n */
    const double n = (double)count, divisor = n - (method == LT_COLOR_MKL && count > 1);
    for (int c = 0; c < 3; c++) {
        stats.mean[c] = first[c] + sum[c] / n;
        for (int d = 0; d <= c; d++)
            stats.covariance[d][c] = stats.covariance[c][d] =
                (stats.covariance[c][d] - sum[c] * sum[d] / n) / divisor;
    }
    for (int c = 0; c < 3; c++)
        stats.covariance[c][c] = fmax(stats.covariance[c][c], 0);
    return stats;
}

struct lt_color_stats lt_color_measure(enum lt_color_method method, const float *rgb, size_t count,
                                       size_t pixel_stride, size_t channel_stride)
{
    struct gamma gamma;
    lt_assert(count > 0);
    if (method == LT_COLOR_NONE)
        return (struct lt_color_stats){.method = method};
    gamma_init(&gamma);
    return measure(method, &gamma, rgb, count, pixel_stride, channel_stride);
}

/* -- Monge-Kantorovich ------------------------------------------------------------------------- */

/* Eigenvectors in the columns of `vector`, by Jacobi's rotations. */
static void eigen(double a[3][3], double value[3], double vector[3][3])
{
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            vector[i][j] = i == j;
    for (int sweep = 0; sweep < 32; sweep++)
        for (int p = 0; p < 2; p++)
            for (int q = p + 1; q < 3; q++) {
                if (fabs(a[p][q]) <= 1e-300)
                    continue;
                const double theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
                const double t = copysign(1 / (fabs(theta) + hypot(theta, 1)), theta);
                const double c = 1 / hypot(t, 1), s = t * c;
                for (int k = 0; k < 3; k++) {
                    const double kp = a[k][p], kq = a[k][q];
                    a[k][p] = c * kp - s * kq;
                    a[k][q] = s * kp + c * kq;
                }
                for (int k = 0; k < 3; k++) {
                    const double pk = a[p][k], qk = a[q][k];
                    a[p][k] = c * pk - s * qk;
                    a[q][k] = s * pk + c * qk;
                    const double vp = vector[k][p], vq = vector[k][q];
                    vector[k][p] = c * vp - s * vq;
                    vector[k][q] = s * vp + c * vq;
                }
            }
    for (int i = 0; i < 3; i++)
        value[i] = a[i][i];
}

static void product(const double a[3][3], const double b[3][3], double out[3][3])
{
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            out[i][j] = a[i][0] * b[0][j] + a[i][1] * b[1][j] + a[i][2] * b[2][j];
}

/* V f(λ) Vᵀ of a symmetric matrix: its root, or the inverse of its root; what does not vary by more
 * than rounding in f32 has none, so that a flat picture takes the reference's mean. */
static void root(const double m[3][3], bool inverse, double out[3][3])
{
    double a[3][3], value[3], vector[3][3];
    memcpy(a, m, sizeof a);
    eigen(a, value, vector);
    for (int i = 0; i < 3; i++) {
        value[i] = sqrt(fmax(value[i], 0));
        value[i] = !inverse ? value[i] : value[i] > 1e-8 ? 1 / value[i] : 0;
    }
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            out[i][j] = 0;
            for (int k = 0; k < 3; k++)
                out[i][j] += vector[i][k] * value[k] * vector[j][k];
        }
}

/* T = Σs^-½ (Σs^½ Σr Σs^½)^½ Σs^-½, the one symmetric map that takes Σs to Σr. */
static void transport(const double source[3][3], const double reference[3][3], double out[3][3])
{
    double half[3][3], inverse[3][3], a[3][3], b[3][3];
    root(source, false, half);
    root(source, true, inverse);
    product(half, reference, a);
    product(a, half, b);
    for (int i = 0; i < 3; i++) /* symmetric but for rounding; eigen expects it exactly */
        for (int j = 0; j < i; j++)
            b[i][j] = b[j][i] = (b[i][j] + b[j][i]) / 2;
    root(b, false, a);
    product(inverse, a, b);
    product(b, inverse, out);
}

/* -- matching ---------------------------------------------------------------------------------- */

void lt_color_match(const struct lt_color_stats *reference, double strength, float *rgb,
                    size_t count, size_t pixel_stride, size_t channel_stride)
{
    const enum lt_color_method method = reference->method;
    double map[3][3] = {{0}};
    struct gamma gamma;
    if (method == LT_COLOR_NONE || strength == 0)
        return;
    gamma_init(&gamma);
    const struct lt_color_stats own =
        measure(method, &gamma, rgb, count, pixel_stride, channel_stride);
    if (method == LT_COLOR_MKL)
        transport(own.covariance, reference->covariance, map);
    else
        for (int c = 0; c < 3; c++)
            map[c][c] = sqrt(reference->covariance[c][c]) / fmax(sqrt(own.covariance[c][c]), 1e-6);
    for (size_t i = 0; i < count; i++) {
        float *const pixel = rgb + i * pixel_stride;
        double value[3], out[3];
        load(method, &gamma, pixel, channel_stride, value);
        for (int c = 0; c < 3; c++)
            value[c] -= own.mean[c];
        multiply(map, value, out);
        for (int c = 0; c < 3; c++)
            out[c] += reference->mean[c];
        if (method == LT_COLOR_REINHARD) {
            memcpy(value, out, sizeof value);
            rgb_from_lab(value, out);
        }
        for (int c = 0; c < 3; c++) {
            float *const p = pixel + (size_t)c * channel_stride;
            const double mixed = (1 - strength) * (double)*p + strength * fmin(fmax(out[c], 0), 1);
            *p = (float)fmin(fmax(mixed, 0), 1);
        }
    }
}
