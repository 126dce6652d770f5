/* vae-encode: pixel frames -> latents, f32, normalised as the transformer sees them. What is not
 * given is grey: 0 in [-1, 1] (encoders.md 5.2). */
#include "worker/engine_private.h"

#include <stdlib.h>

/* As torchvision's to_tensor and the originals: (u / 255 - 0.5) / 0.5. */
static float unit(uint8_t value)
{
    return ((float)value / 255.0f - 0.5f) / 0.5f;
}

void engine_pixels(const uint8_t *rgb, int64_t frames, int64_t frame, int64_t plane, float *to)
{
    for (int64_t c = 0; c < 3; c++)
        for (int64_t i = 0; i < plane; i++)
            to[(c * frames + frame) * plane + i] = unit(rgb[3 * i + c]);
}

/* Where given frame `i` stands. */
static int64_t place_of(const struct lt_task_spec *spec, size_t i)
{
    return spec->frame_at_count ? spec->frame_at[i] : (int64_t)i;
}

static lt_status check_places(const struct lt_task_spec *spec, size_t given, int64_t frames,
                              struct lt_error *error)
{
    if (spec->frame_at_count ? spec->frame_at_count != given
                             : given != 0 && (int64_t)given != frames)
        return lt_fail(error, LT_BAD_INPUT, "task: %zu frames are given for %zu places", given,
                       spec->frame_at_count ? spec->frame_at_count : (size_t)frames);
    for (size_t i = 0; i < spec->frame_at_count; i++)
        if (spec->frame_at[i] >= frames)
            return lt_fail(error, LT_BAD_INPUT, "task: frame %u of %lld", spec->frame_at[i],
                           (long long)frames);
    return LT_OK;
}

/* [3, F, H, W] of the spec; data is the caller's to free. */
static lt_status make_pixels(const struct engine_task *task, struct lt_view *pixels_out,
                             struct lt_error *error)
{
    const struct engine_blob *blob = engine_find_blob(task, LT_BLOB_PIXELS);
    struct lt_view pixels;
    LT_TRY(engine_shape(task->spec->shape, &pixels, error));
    const int64_t frames = pixels.dim[1], plane = pixels.dim[2] * pixels.dim[3];
    const size_t bytes = 3 * (size_t)plane, given = blob ? blob->bytes / bytes : 0;
    if (pixels.dim[0] != 3 || (blob && blob->bytes % bytes != 0))
        return lt_fail(error, LT_BAD_INPUT, "task: pixels of %zu bytes, expected frames of %zu",
                       blob ? blob->bytes : 0, bytes);
    LT_TRY(check_places(task->spec, given, frames, error));
    float *values = calloc((size_t)lt_view_count(&pixels), sizeof *values);
    if (!values)
        return lt_fail(error, LT_NO_MEMORY, "no memory for %lld pixel frames", (long long)frames);
    for (size_t i = 0; i < given; i++)
        engine_pixels((const uint8_t *)blob->data + i * bytes, frames, place_of(task->spec, i),
                      plane, values);
    pixels.data = values;
    *pixels_out = pixels;
    return LT_OK;
}

lt_status engine_encode_pixels(const struct engine_task *task, const struct lt_view *pixels,
                               float *values, int64_t count, struct lt_error *error)
{
    struct resident *resident;
    LT_TRY(engine_load(task, ENGINE_VAE_ENCODER, &resident, error));
    const int64_t scale = vae_scale(resident->vae);
    const int64_t dim[4] = {vae_latent_channels(resident->vae), (pixels->dim[1] - 1) / 4 + 1,
                            pixels->dim[2] / scale, pixels->dim[3] / scale};
    if (dim[0] * dim[1] * dim[2] * dim[3] != count)
        return lt_fail(error, LT_BAD_INPUT,
                       "task: latents of %lld values are expected, this VAE gives [%lld, %lld, "
                       "%lld, %lld]",
                       (long long)count, (long long)dim[0], (long long)dim[1], (long long)dim[2],
                       (long long)dim[3]);
    struct lt_view latents = lt_view_make(values, LT_TYPE_F32, 4, dim);
    LT_TRY(vae_encode(resident->vae, pixels, &latents, &task->progress->done, error));
    return engine_check_finite(values, count, "encoded latent", error);
}

lt_status engine_vae_encode(const struct engine_task *task, void **result_out,
                            struct lt_error *error)
{
    const uint64_t count = task->spec->result_bytes / sizeof(float);
    struct lt_view pixels;
    LT_TRY(make_pixels(task, &pixels, error));
    float *values = count <= ENGINE_VALUES_MAX ? malloc((size_t)count * sizeof *values) : NULL;
    lt_status status = values ? LT_OK
                              : lt_fail(error, LT_NO_MEMORY, "no memory for %llu latent values",
                                        (unsigned long long)count);
    engine_begin(task, (unsigned)((pixels.dim[1] - 1) / 4 + 1));
    if (status == LT_OK)
        status = engine_encode_pixels(task, &pixels, values, (int64_t)count, error);
    free(pixels.data);
    if (status != LT_OK) {
        free(values);
        return status;
    }
    *result_out = values;
    return LT_OK;
}
