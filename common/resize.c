/* Every kernel but OpenCV's linear one is a table of taps for each axis, applied first along rows,
 * then along columns:
 *
 *   in [H, W, C] ─ horizontal taps ─▶ [H, W', C] ─ vertical taps ─▶ out [H', W', C]
 *
 * What differs is the tables, and the arithmetic: Pillow's 22-bit integers, OpenCV's f32, torch's
 * f32 with the sums here in f64. */
#include "common/resize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Output i is the sum of weight[i][k] · in[first[i] + k], k < taps; indices are clamped. */
struct axis {
    uint32_t in, out, taps;
    int32_t *first;
    double *weight;
};

static void axis_fini(struct axis *axis)
{
    free(axis->first);
    free(axis->weight);
}

static bool axis_init(struct axis *axis, uint32_t in, uint32_t out, uint32_t taps)
{
    *axis = (struct axis){in, out, taps, calloc(out, sizeof(int32_t)),
                          calloc((size_t)out * taps, sizeof(double))};
    return axis->first && axis->weight;
}

static uint32_t clamp_index(int64_t i, uint32_t count)
{
    return i < 0 ? 0 : i >= count ? count - 1 : (uint32_t)i;
}

/* -- kernels ----------------------------------------------------------------------------------- */

static double triangle(double x)
{
    x = fabs(x);
    return x < 1 ? 1 - x : 0;
}

static double keys(double x, double a)
{
    x = fabs(x);
    if (x < 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

static double keys_half(double x)
{
    return keys(x, -0.5);
}

static double sinc(double x)
{
    return x == 0 ? 1 : sin(M_PI * x) / (M_PI * x);
}

static double lanczos3(double x)
{
    return x > -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

/* Pillow's windows: the kernel stretched by the shrink factor, cut at the borders, normalised. */
static bool axis_windowed(struct axis *axis, uint32_t in, uint32_t out, double (*kernel)(double),
                          double support)
{
    const double scale = (double)in / out, stretch = scale > 1 ? scale : 1;
    const double reach = support * stretch;
    if (!axis_init(axis, in, out, (uint32_t)ceil(reach) * 2 + 1))
        return false;
    for (uint32_t i = 0; i < out; i++) {
        const double center = (i + 0.5) * scale;
        const int32_t begin = (int32_t)fmax(center - reach + 0.5, 0);
        const int32_t end = (int32_t)fmin(center + reach + 0.5, in);
        double *const weight = axis->weight + (size_t)i * axis->taps, sum = 0;
        for (int32_t k = 0; k < end - begin; k++)
            sum += weight[k] = kernel((k + begin - center + 0.5) * (1 / stretch));
        for (int32_t k = 0; k < end - begin && sum != 0; k++)
            weight[k] /= sum;
        axis->first[i] = begin;
    }
    return true;
}

/* torch without antialias: 2 taps of a triangle or 4 of Keys' kernel around s. */
static bool axis_torch(struct axis *axis, uint32_t in, uint32_t out, uint32_t taps)
{
    if (!axis_init(axis, in, out, taps))
        return false;
    const float scale = (float)in / (float)out;
    for (uint32_t i = 0; i < out; i++) {
        float s = scale * ((float)i + 0.5f) - 0.5f;
        if (taps == 2 && s < 0)
            s = 0;
        const double floor_s = floor((double)s), t = (double)s - floor_s;
        axis->first[i] = (int32_t)floor_s - (taps == 4);
        for (uint32_t k = 0; k < taps; k++) {
            const double x = (double)k - (taps == 4) - t;
            axis->weight[(size_t)i * taps + k] = taps == 4 ? keys(x, -0.75) : triangle(x);
        }
    }
    return true;
}

static bool axis_nearest(struct axis *axis, uint32_t in, uint32_t out, float offset)
{
    if (!axis_init(axis, in, out, 1))
        return false;
    const float scale = (float)in / (float)out;
    for (uint32_t i = 0; i < out; i++) {
        axis->first[i] = (int32_t)clamp_index((int64_t)floorf(((float)i + offset) * scale), in);
        axis->weight[i] = 1;
    }
    return true;
}

static bool axis_adaptive(struct axis *axis, uint32_t in, uint32_t out)
{
    if (!axis_init(axis, in, out, (in + out - 1) / out + 1))
        return false;
    for (uint64_t i = 0; i < out; i++) {
        const uint64_t begin = i * in / out, end = ((i + 1) * in + out - 1) / out;
        axis->first[i] = (int32_t)begin;
        for (uint64_t k = 0; k < end - begin; k++)
            axis->weight[i * axis->taps + k] = 1.0 / (double)(end - begin);
    }
    return true;
}

/* OpenCV's area: whole cells and the two parts of cells at the ends, in f32. */
static bool axis_area(struct axis *axis, uint32_t in, uint32_t out)
{
    const double scale = (double)in / out;
    if (!axis_init(axis, in, out, (uint32_t)ceil(scale) + 2))
        return false;
    for (uint32_t i = 0; i < out; i++) {
        const double from = i * scale, to = from + scale, cell = fmin(scale, in - from);
        const int32_t whole_end = (int32_t)fmin(floor(to), in - 1.0);
        const int32_t whole = (int32_t)fmin(ceil(from), whole_end);
        double *weight = axis->weight + (size_t)i * axis->taps;
        axis->first[i] = whole;
        if (whole - from > 1e-3) {
            axis->first[i] = whole - 1;
            *weight++ = (double)(float)((whole - from) / cell);
        }
        for (int32_t k = whole; k < whole_end; k++)
            *weight++ = (double)(float)(1 / cell);
        if (to - whole_end > 1e-3)
            *weight = (double)(float)(fmin(fmin(to - whole_end, 1), cell) / cell);
    }
    return true;
}

/* -- Pillow ------------------------------------------------------------------------------------ */

enum { PIL_BITS = 22 };

static uint8_t clip8(int32_t sum)
{
    const int32_t value = sum >> PIL_BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* One pass over `lines` of pixels; stride: values between the taps, `pixels` wide blocks. */
static bool pil_pass(const struct axis *axis, const uint8_t *in, uint8_t *out, size_t lines,
                     size_t block)
{
    const size_t count = (size_t)axis->out * axis->taps;
    int32_t *const weight = malloc(count * sizeof *weight);
    if (!weight)
        return false;
    for (size_t i = 0; i < count; i++) {
        const double w = axis->weight[i] * (1 << PIL_BITS);
        weight[i] = (int32_t)(w < 0 ? w - 0.5 : w + 0.5);
    }
    for (size_t line = 0; line < lines; line++, in += axis->in * block)
        for (uint32_t i = 0; i < axis->out; i++)
            for (size_t c = 0; c < block; c++) {
                const int32_t *const w = weight + (size_t)i * axis->taps;
                int32_t sum = 1 << (PIL_BITS - 1);
                for (uint32_t k = 0; k < axis->taps; k++)
                    if (w[k] != 0)
                        sum += w[k] * in[(size_t)(axis->first[i] + (int32_t)k) * block + c];
                *out++ = clip8(sum);
            }
    free(weight);
    return true;
}

static bool pil(const struct axis *x, const struct axis *y, const uint8_t *in, uint32_t channels,
                uint8_t *out)
{
    uint8_t *const rows = malloc((size_t)y->in * x->out * channels);
    const bool good = rows && pil_pass(x, in, rows, y->in, channels) &&
                      pil_pass(y, rows, out, 1, (size_t)x->out * channels);
    free(rows);
    return good;
}

/* -- OpenCV ------------------------------------------------------------------------------------ */

static uint8_t saturate(double value)
{
    value = rint(value);
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* Whole ratios: one sum of integers, times 1/n in f32; 2 × 2 by shifting. */
static void cv_area_whole(const uint8_t *in, uint32_t in_width, uint32_t channels, uint8_t *out,
                          uint32_t out_width, uint32_t out_height, uint32_t rx, uint32_t ry)
{
    for (uint32_t y = 0; y < out_height; y++)
        for (uint32_t x = 0; x < out_width; x++)
            for (uint32_t c = 0; c < channels; c++) {
                uint32_t sum = 0;
                for (uint32_t j = 0; j < ry; j++)
                    for (uint32_t i = 0; i < rx; i++)
                        sum += in[((size_t)(y * ry + j) * in_width + x * rx + i) * channels + c];
                *out++ = rx == 2 && ry == 2
                             ? (uint8_t)((sum + 2) >> 2)
                             : saturate((double)((float)sum * (1.0f / (float)(rx * ry))));
            }
}

static bool cv_area(const struct axis *x, const struct axis *y, const uint8_t *in,
                    uint32_t channels, uint8_t *out)
{
    const size_t row = (size_t)x->out * channels;
    float *const line = malloc(2 * row * sizeof *line), *const sum = line + row;
    if (!line)
        return false;
    for (uint32_t i = 0; i < y->out; i++, out += row) {
        memset(sum, 0, row * sizeof *sum);
        for (uint32_t k = 0; k < y->taps; k++) {
            const float beta = (float)y->weight[(size_t)i * y->taps + k];
            if (beta == 0)
                continue;
            const uint8_t *const from = in + (size_t)(y->first[i] + (int32_t)k) * x->in * channels;
            memset(line, 0, row * sizeof *line);
            for (uint32_t j = 0; j < x->out; j++)
                for (uint32_t n = 0; n < x->taps; n++) {
                    const float alpha = (float)x->weight[(size_t)j * x->taps + n];
                    for (uint32_t c = 0; c < channels && alpha != 0; c++)
                        line[j * channels + c] +=
                            (float)from[(size_t)(x->first[j] + (int32_t)n) * channels + c] * alpha;
                }
            for (size_t j = 0; j < row; j++)
                sum[j] += beta * line[j];
        }
        for (size_t j = 0; j < row; j++)
            out[j] = saturate((double)sum[j]);
    }
    free(line);
    return true;
}

/* Position and 11-bit weights of the two taps. */
static uint32_t cv_tap(uint32_t i, uint32_t in, uint32_t out, bool vertical, int32_t weight_out[2],
                       uint32_t *next_out)
{
    const double scale = 1.0 / ((double)out / in);
    float f = (float)((i + 0.5) * scale - 0.5);
    int64_t s = (int64_t)floorf(f);
    f -= (float)s;
    if (!vertical && s < 0) /* columns are pinned at the ends, rows only clamped */
        s = 0, f = 0;
    if (!vertical && s >= (int64_t)in - 1)
        s = (int64_t)in - 1, f = 0;
    weight_out[0] = (int32_t)lrintf((1.0f - f) * 2048);
    weight_out[1] = (int32_t)lrintf(f * 2048);
    *next_out = clamp_index(s + 1, in);
    return clamp_index(s, in);
}

static bool cv_linear(const uint8_t *in, uint32_t in_width, uint32_t in_height, uint32_t channels,
                      uint8_t *out, uint32_t out_width, uint32_t out_height)
{
    struct column {
        uint32_t at, next;
        int32_t weight[2];
    } *const column = malloc(out_width * sizeof *column);
    const size_t stride = (size_t)in_width * channels;
    if (!column)
        return false;
    for (uint32_t x = 0; x < out_width; x++)
        column[x].at = cv_tap(x, in_width, out_width, false, column[x].weight, &column[x].next);
    for (uint32_t y = 0; y < out_height; y++) {
        int32_t beta[2];
        uint32_t next;
        const uint32_t at = cv_tap(y, in_height, out_height, true, beta, &next);
        const uint8_t *const row[2] = {in + at * stride, in + next * stride};
        for (uint32_t x = 0; x < out_width; x++)
            for (uint32_t c = 0; c < channels; c++) {
                const struct column *const t = &column[x];
                int32_t value[2];
                for (int r = 0; r < 2; r++)
                    value[r] = row[r][(size_t)t->at * channels + c] * t->weight[0] +
                               row[r][(size_t)t->next * channels + c] * t->weight[1];
                const int32_t sum =
                    ((beta[0] * (value[0] >> 4)) >> 16) + ((beta[1] * (value[1] >> 4)) >> 16);
                *out++ = (uint8_t)((sum + 2) >> 2);
            }
    }
    free(column);
    return true;
}

/* -- the two entries --------------------------------------------------------------------------- */

static bool windowed_u8(enum lt_resize_u8 kernel, struct axis *axis, uint32_t in, uint32_t out)
{
    switch (kernel) {
    case LT_RESIZE_PIL_BILINEAR:
        return axis_windowed(axis, in, out, triangle, 1);
    case LT_RESIZE_PIL_BICUBIC:
        return axis_windowed(axis, in, out, keys_half, 2);
    case LT_RESIZE_PIL_LANCZOS:
        return axis_windowed(axis, in, out, lanczos3, 3);
    default:
        return axis_area(axis, in, out);
    }
}

lt_status lt_resize_u8(enum lt_resize_u8 kernel, const uint8_t *in, uint32_t in_width,
                       uint32_t in_height, uint32_t channels, uint8_t *out, uint32_t out_width,
                       uint32_t out_height, struct lt_error *error)
{
    struct axis x = {0}, y = {0};
    bool good;
    lt_assert(in_width && in_height && channels && out_width && out_height);
    const bool whole = in_width % out_width == 0 && in_height % out_height == 0;
    const uint32_t rx = in_width / out_width, ry = in_height / out_height;
    if (in_width == out_width && in_height == out_height) {
        memcpy(out, in, (size_t)in_width * in_height * channels);
        return LT_OK;
    }
    if (kernel == LT_RESIZE_CV_LINEAR && whole && rx == 2 && ry == 2)
        kernel = LT_RESIZE_CV_AREA; /* OpenCV does so too */
    if (kernel == LT_RESIZE_CV_LINEAR)
        good = cv_linear(in, in_width, in_height, channels, out, out_width, out_height);
    else if (kernel == LT_RESIZE_CV_AREA && whole) {
        cv_area_whole(in, in_width, channels, out, out_width, out_height, rx, ry);
        good = true;
    } else {
        lt_assert(kernel != LT_RESIZE_CV_AREA ||
                  (out_width <= in_width && out_height <= in_height));
        good = windowed_u8(kernel, &x, in_width, out_width) &&
               windowed_u8(kernel, &y, in_height, out_height) &&
               (kernel == LT_RESIZE_CV_AREA ? cv_area(&x, &y, in, channels, out)
                                            : pil(&x, &y, in, channels, out));
    }
    axis_fini(&x);
    axis_fini(&y);
    return good ? LT_OK
                : lt_fail(error, LT_NO_MEMORY, "no memory to resize to %ux%u", out_width,
                          out_height);
}

static bool axis_f32(enum lt_resize_f32 kernel, struct axis *axis, uint32_t in, uint32_t out)
{
    switch (kernel) {
    case LT_RESIZE_NEAREST:
        return axis_nearest(axis, in, out, 0);
    case LT_RESIZE_NEAREST_EXACT:
        return axis_nearest(axis, in, out, 0.5f);
    case LT_RESIZE_BILINEAR:
        return axis_torch(axis, in, out, 2);
    case LT_RESIZE_BICUBIC:
        return axis_torch(axis, in, out, 4);
    case LT_RESIZE_BICUBIC_ANTIALIAS:
        return axis_windowed(axis, in, out, keys_half, 2);
    default:
        return axis_adaptive(axis, in, out);
    }
}

/* `lines` lines of axis->in steps, each step a block of values. */
static void pass_f32(const struct axis *axis, const float *in, float *out, size_t lines,
                     size_t block)
{
    for (size_t line = 0; line < lines; line++, in += axis->in * block)
        for (uint32_t i = 0; i < axis->out; i++)
            for (size_t c = 0; c < block; c++) {
                const double *const weight = axis->weight + (size_t)i * axis->taps;
                double sum = 0;
                for (uint32_t k = 0; k < axis->taps; k++)
                    if (weight[k] != 0)
                        sum +=
                            weight[k] *
                            (double)
                                in[clamp_index(axis->first[i] + (int64_t)k, axis->in) * block + c];
                *out++ = (float)sum;
            }
}

lt_status lt_resize_f32(enum lt_resize_f32 kernel, const float *in, uint32_t in_width,
                        uint32_t in_height, uint32_t channels, float *out, uint32_t out_width,
                        uint32_t out_height, struct lt_error *error)
{
    struct axis x = {0}, y = {0};
    lt_assert(in_width && in_height && channels && out_width && out_height);
    float *const rows = malloc((size_t)channels * in_height * out_width * sizeof *rows);
    const bool good = rows && axis_f32(kernel, &x, in_width, out_width) &&
                      axis_f32(kernel, &y, in_height, out_height);
    if (good) {
        pass_f32(&x, in, rows, (size_t)channels * in_height, 1);
        pass_f32(&y, rows, out, channels, out_width);
    }
    axis_fini(&x);
    axis_fini(&y);
    free(rows);
    return good ? LT_OK
                : lt_fail(error, LT_NO_MEMORY, "no memory to resize to %ux%u", out_width,
                          out_height);
}
