/* Where frames enter the chain and leave it: normalisation of latents (encoders.md 1.5, 2.3), and
 * the fold of two by two pixels into channels (2.1). */
#include "worker/model/vae_parts.h"

struct statistics {
    int64_t channels;
    const float *mean, *std;
};

static const float mean_16[] = {-0.7571f, -0.7089f, -0.9113f, 0.1075f,  -0.1745f, 0.9653f,
                                -0.1517f, 1.5508f,  0.4134f,  -0.0715f, 0.5517f,  -0.3632f,
                                -0.1922f, -0.9497f, 0.2503f,  -0.2921f};
static const float std_16[] = {2.8184f, 1.4541f, 2.3275f, 2.6558f, 1.2196f, 1.7708f,
                               2.6052f, 2.0743f, 3.2687f, 2.1526f, 2.8652f, 1.5579f,
                               1.6382f, 1.1253f, 2.8251f, 1.9160f};
static const float mean_48[] = {
    -0.2289f, -0.0052f, -0.1323f, -0.2339f, -0.2799f, 0.0174f,  0.1838f,  0.1557f,
    -0.1382f, 0.0542f,  0.2813f,  0.0891f,  0.1570f,  -0.0098f, 0.0375f,  -0.1825f,
    -0.2246f, -0.1207f, -0.0698f, 0.5109f,  0.2665f,  -0.2108f, -0.2158f, 0.2502f,
    -0.2055f, -0.0322f, 0.1109f,  0.1567f,  -0.0729f, 0.0899f,  -0.2799f, -0.1230f,
    -0.0313f, -0.1649f, 0.0117f,  0.0723f,  -0.2839f, -0.2083f, -0.0520f, 0.3748f,
    0.0152f,  0.1957f,  0.1433f,  -0.2944f, 0.3573f,  -0.0548f, -0.1681f, -0.0667f};
static const float std_48[] = {
    0.4765f, 1.0364f, 0.4514f, 1.1677f, 0.5313f, 0.4990f, 0.4818f, 0.5013f, 0.8158f, 1.0344f,
    0.5894f, 1.0901f, 0.6885f, 0.6165f, 0.8454f, 0.4978f, 0.5759f, 0.3523f, 0.7135f, 0.6804f,
    0.5833f, 1.4146f, 0.8986f, 0.5659f, 0.7069f, 0.5338f, 0.4889f, 0.4917f, 0.4069f, 0.4999f,
    0.6866f, 0.4093f, 0.5709f, 0.6065f, 0.6415f, 0.4944f, 0.5726f, 1.2042f, 0.5458f, 1.6887f,
    0.3971f, 1.0600f, 0.3943f, 0.5537f, 0.5444f, 0.4089f, 0.7468f, 0.7744f};

/* Files do not carry them; a VAE of another number of channels has latents as they are. */
static struct statistics statistics_of(const struct vae *vae)
{
    if (!vae->grouped && vae->latent_channels == 16)
        return (struct statistics){16, mean_16, std_16};
    if (vae->grouped && vae->latent_channels == 48)
        return (struct statistics){48, mean_48, std_48};
    return (struct statistics){0};
}

int64_t vae_input_channels(const struct vae *vae)
{
    return vae->part == VAE_DECODER ? vae->latent_channels : vae->grouped ? 12 : 3;
}

/* -- in ---------------------------------------------------------------------------------------- */

static void load_latents(const struct vae *vae, const struct lt_view *from, int64_t t,
                         const struct lt_view *frame)
{
    const struct statistics s = statistics_of(vae);
    const int64_t rows = frame->dim[1], columns = frame->dim[2], channels = frame->dim[3];
    for (int64_t c = 0; c < channels; c++)
        for (int64_t y = 0; y < rows; y++) {
            const float *row = (const float *)from->data + c * from->stride[0] +
                               t * from->stride[1] + y * from->stride[2];
            for (int64_t x = 0; x < columns; x++)
                frame_put(frame, (y * columns + x) * channels + c,
                          s.channels ? row[x] * s.std[c] + s.mean[c] : row[x]);
        }
}

/* Folded: channel c·4 + r·2 + q holds column r and row q of a block, the column slower. */
static void load_pixels(const struct vae *vae, const struct lt_view *from, int64_t t,
                        const struct lt_view *frame)
{
    const int64_t fold = vae->grouped ? 2 : 1, rows = from->dim[2], columns = from->dim[3];
    for (int64_t c = 0; c < 3; c++)
        for (int64_t y = 0; y < rows; y++) {
            const float *row = (const float *)from->data + c * from->stride[0] +
                               t * from->stride[1] + y * from->stride[2];
            for (int64_t x = 0; x < columns; x++) {
                const int64_t channel = (c * fold + x % fold) * fold + y % fold;
                const int64_t pixel = y / fold * frame->dim[2] + x / fold;
                frame_put(frame, pixel * frame->dim[3] + channel, row[x]);
            }
        }
}

lt_status vae_load_frame(const struct vae *vae, const struct lt_view *from, int64_t t,
                         const struct lt_view *frame, struct lt_error *error)
{
    struct lt_view values;
    LT_TRY(frames_open(&vae->frames, frame, &values, error));
    vae->part == VAE_DECODER ? load_latents(vae, from, t, &values)
                             : load_pixels(vae, from, t, &values);
    return frames_close(&vae->frames, frame, error);
}

/* -- out --------------------------------------------------------------------------------------- */

static void unfold(const struct lt_view *frame, const struct lt_view *rgb)
{
    const int64_t columns = rgb->dim[2];
    const float *in = frame->data;
    float *out = rgb->data;
    for (int64_t y = 0; y < rgb->dim[1]; y++)
        for (int64_t x = 0; x < columns; x++)
            for (int64_t c = 0; c < 3; c++)
                out[(y * columns + x) * 3 + c] =
                    in[(y / 2 * frame->dim[2] + x / 2) * 12 + (c * 2 + x % 2) * 2 + y % 2];
}

static lt_status give_pixels(struct vae *vae, struct vae_sink *sink, const struct lt_view *frame,
                             const struct lt_view *rgb, struct lt_error *error)
{
    struct lt_view pixels;
    LT_TRY(frames_values(&vae->frames, frame, &pixels, error));
    if (vae->grouped) {
        const struct lt_view folded = pixels;
        LT_TRY(frames_open(&vae->frames, rgb, &pixels, error));
        unfold(&folded, &pixels);
    }
    float *values = pixels.data;
    for (int64_t i = 0; i < lt_view_count(&pixels) && !sink->raw; i++)
        values[i] = values[i] < -1 ? -1 : values[i] > 1 ? 1 : values[i];
    return sink->on_frame(sink->context, vae->given, values, error);
}

/* The head gives f32, so a frame that is not folded is already what the caller gets. */
lt_status vae_take_pixels(struct vae *vae, struct vae_sink *sink, const struct lt_view *frame,
                          struct lt_error *error)
{
    struct lt_view rgb = {0};
    if (vae->grouped)
        LT_TRY(frames_take(&vae->frames, LT_TYPE_F32, 2 * frame->dim[1], 2 * frame->dim[2], 3, &rgb,
                           error));
    if (!vae->frames.hollow)
        LT_TRY(give_pixels(vae, sink, frame, &rgb, error));
    frames_give(&vae->frames, &rgb);
    return LT_OK;
}

lt_status vae_take_latent(struct vae *vae, struct vae_sink *sink, const struct lt_view *frame,
                          struct lt_error *error)
{
    const struct statistics s = statistics_of(vae);
    const struct lt_view *to = &sink->latents;
    struct lt_view values;
    const int64_t z = to->dim[0], t = vae->given - sink->first;
    lt_assert(t < to->dim[1] && lt_view_count(frame) == 2 * z * to->dim[2] * to->dim[3]);
    LT_TRY(frames_values(&vae->frames, frame, &values, error));
    for (int64_t c = 0; c < z; c++)
        for (int64_t y = 0; y < to->dim[2]; y++) {
            float *row =
                (float *)to->data + c * to->stride[0] + t * to->stride[1] + y * to->stride[2];
            for (int64_t x = 0; x < to->dim[3]; x++) {
                const float mean = frame_get(&values, (y * to->dim[3] + x) * 2 * z + c);
                row[x] = s.channels ? (mean - s.mean[c]) * (1.0f / s.std[c]) : mean;
            }
        }
    return LT_OK;
}

/* -- checks ------------------------------------------------------------------------------------ */

lt_status vae_check_latents(const struct vae *vae, const struct lt_view *latents,
                            struct lt_error *error)
{
    lt_assert(vae->part == VAE_DECODER);
    if (latents->rank == 4 && latents->dim[0] == vae->latent_channels && latents->dim[1] >= 1 &&
        latents->dim[2] >= 1 && latents->dim[3] >= 1)
        return LT_OK;
    return lt_fail(error, LT_BAD_INPUT, "latents: expected [%lld, T, h, w], found [%lld, …]",
                   (long long)vae->latent_channels, (long long)latents->dim[0]);
}

lt_status vae_check_pixels(const struct vae *vae, const struct lt_view *pixels,
                           struct lt_error *error)
{
    const int64_t scale = vae_scale(vae);
    lt_assert(vae->part == VAE_ENCODER);
    if (pixels->rank == 4 && pixels->dim[0] == 3 && pixels->dim[1] >= 1 && pixels->dim[2] >= 1 &&
        pixels->dim[3] >= 1 && pixels->dim[2] % scale == 0 && pixels->dim[3] % scale == 0)
        return LT_OK;
    return lt_fail(error, LT_BAD_INPUT,
                   "pixels: expected [3, F, H, W] with H and W multiples of %lld, found [%lld, "
                   "%lld, %lld, %lld]",
                   (long long)scale, (long long)pixels->dim[0], (long long)pixels->dim[1],
                   (long long)pixels->dim[2], (long long)pixels->dim[3]);
}
