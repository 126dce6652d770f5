#include "coordinator/blend.h"

#include <math.h>

/* Weights that must not be 0 upstream: "overlap-linear" and "hann" start at this instead. */
static const float weight_floor = 1e-37f;

/* Element i of torch.linspace(first, last, count) in f32, to the bit: it counts from the nearer
 * end, with one rounding. */
static float linspace(float first, float last, uint32_t count, uint32_t i)
{
    if (count == 1)
        return first;
    const float step = (last - first) / (float)(count - 1);
    return i < count / 2 ? fmaf(step, (float)i, first) : fmaf(-step, (float)(count - 1 - i), last);
}

static float pyramid(uint32_t count, uint32_t i, bool divided)
{
    const uint32_t peak = (count + 1) / 2;
    const uint32_t height = i + 1 < count - i ? i + 1 : count - i;
    return divided ? (float)height / (float)peak : (float)height;
}

/* f against the middle of the window's ends, as upstream also for windows that wrap (weights above
 * 1). */
static float relative(const uint32_t *frame, uint32_t count, uint32_t i)
{
    const double first = frame[0], last = frame[count - 1];
    const double distance = fabs((double)frame[i] - (first + last) / 2);
    const double weight = 1 - distance / ((last - first + 0.01) / 2);
    return (float)fmax(0.01, weight);
}

static float gaussian(uint32_t count, uint32_t i)
{
    const double x = ((double)i - (double)(count - 1) / 2) / ((double)count / 4);
    return (float)exp(-0.5 * x * x);
}

/* Rises from 0 to 1 over `overlap` frames. */
static float hann(uint32_t overlap, uint32_t j)
{
    if (overlap == 1)
        return weight_floor;
    const float rise = (float)(0.5 * (1 - cos(M_PI * (double)j / (double)(overlap - 1))));
    return rise > weight_floor ? rise : weight_floor;
}

static float floored(float weight)
{
    return weight > weight_floor ? weight : weight_floor;
}

/* The ends of a window that have a neighbour. */
struct ends {
    bool left, right;
};

static struct ends find_ends(const struct window_params *params, const uint32_t *frame,
                             uint32_t count)
{
    uint32_t min = frame[0], max = frame[0];
    for (uint32_t i = 1; i < count; i++) {
        min = frame[i] < min ? frame[i] : min;
        max = frame[i] > max ? frame[i] : max;
    }
    const uint32_t last = params->frame_count - 1;
    const bool looped =
        window_schedule_is_looped(params->schedule) && params->fuse != WINDOW_FUSE_OVERLAP_LINEAR;
    return (struct ends){.left = min > 0 || (looped && max == last),
                         .right = max < last || (looped && min == 0)};
}

/* Ramps over the nominal overlap at the ends that have a neighbour; where they meet, the right one
 * wins. */
static void ramp_weights(const struct window_params *params, const uint32_t *frame, uint32_t count,
                         float *weight)
{
    const struct ends ends = find_ends(params, frame, count);
    const uint32_t overlap = params->overlap < count ? params->overlap : count;
    for (uint32_t j = 0; j < overlap && ends.left; j++)
        switch (params->fuse) {
        case WINDOW_FUSE_HANN:
            weight[j] = hann(overlap, j);
            break;
        case WINDOW_FUSE_OVERLAP_LINEAR:
            weight[j] = floored(linspace(0, 1, overlap, j));
            break;
        default:
            weight[j] = linspace(0, 1, overlap, j);
        }
    for (uint32_t j = 0; j < overlap && ends.right; j++) {
        float *to = &weight[count - overlap + j];
        switch (params->fuse) {
        case WINDOW_FUSE_HANN: /* the mirror of one that rises from 0: a lone frame keeps its weight
                                */
            *to = overlap == 1 ? 1 : hann(overlap, overlap - 1 - j);
            break;
        case WINDOW_FUSE_OVERLAP_LINEAR:
            *to = floored(linspace(1, 0, overlap, j));
            break;
        default:
            *to = linspace(1, 0, overlap, j);
        }
    }
}

/* The wrapper lifts the outer ends of the first and the last window, which have no neighbour. */
static void pyramid_weights(const struct window_params *params, const uint32_t *frame,
                            uint32_t count, float *weight)
{
    for (uint32_t i = 0; i < count; i++)
        weight[i] = pyramid(count, i, true);
    if (window_schedule_is_looped(params->schedule))
        return;
    const struct ends ends = find_ends(params, frame, count);
    const uint32_t overlap = params->overlap < count ? params->overlap : count;
    for (uint32_t j = 0; j < overlap; j++) {
        if (!ends.left)
            weight[j] = fmaxf(weight[j], linspace(0, 1, overlap, j));
        float *right = &weight[count - overlap + j];
        if (!ends.right)
            *right = fmaxf(*right, linspace(1, 0, overlap, j));
    }
}

void blend_weights(const struct window_params *params, const uint32_t *frame, uint32_t count,
                   float *weight_out)
{
    for (uint32_t i = 0; i < count; i++)
        weight_out[i] = 1;
    if (window_schedule_is_batched(params->schedule))
        return;
    switch (params->fuse) {
    case WINDOW_FUSE_LINEAR:
    case WINDOW_FUSE_OVERLAP_LINEAR:
    case WINDOW_FUSE_HANN:
        ramp_weights(params, frame, count, weight_out);
        return;
    case WINDOW_FUSE_PYRAMID:
        pyramid_weights(params, frame, count, weight_out);
        return;
    case WINDOW_FUSE_PYRAMID_COMFY:
        for (uint32_t i = 0; i < count; i++)
            weight_out[i] = pyramid(count, i, false);
        return;
    case WINDOW_FUSE_RELATIVE:
        for (uint32_t i = 0; i < count; i++)
            weight_out[i] = relative(frame, count, i);
        return;
    case WINDOW_FUSE_GAUSSIAN:
        for (uint32_t i = 0; i < count; i++)
            weight_out[i] = gaussian(count, i);
        return;
    case WINDOW_FUSE_FLAT:
        return;
    }
}

bool blend_is_finite(const float *value, size_t count, size_t *index_out)
{
    for (size_t i = 0; i < count; i++)
        if (!isfinite(value[i])) {
            *index_out = i;
            return false;
        }
    return true;
}

lt_status blend_frame(const struct blend_source *source, size_t source_count, size_t channel_count,
                      size_t plane_values, float *frame_out, struct lt_error *error)
{
    float total = 0;
    for (size_t k = 0; k < source_count; k++) {
        total += source[k].weight;
        for (size_t c = 0; c < channel_count; c++) {
            size_t index;
            if (!blend_is_finite(source[k].first + c * source[k].channel_stride, plane_values,
                                 &index))
                return lt_fail(error, LT_BAD_INPUT,
                               "prediction %zu: channel %zu, element %zu is not a finite number", k,
                               c, index);
        }
    }
    if (!(total > 0))
        return lt_fail(error, LT_BAD_INPUT, "no window gives this latent frame a weight above 0");
    for (size_t c = 0; c < channel_count; c++) {
        float *out = frame_out + c * plane_values;
        for (size_t i = 0; i < plane_values; i++)
            out[i] = 0;
        for (size_t k = 0; k < source_count; k++) {
            const float *in = source[k].first + c * source[k].channel_stride;
            const float weight = source[k].weight;
            for (size_t i = 0; i < plane_values; i++)
                out[i] += weight * in[i];
        }
        for (size_t i = 0; i < plane_values; i++)
            out[i] /= total;
    }
    return LT_OK;
}
