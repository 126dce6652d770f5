/* vae-encode: pixel frames -> latents, f32, normalised as the transformer sees them. What is not
 * given is grey: 0 in [-1, 1] (encoders.md 5.2). Frames become f32 a few at a time, so memory does
 * not grow with their number beyond the u8 that came. */
#include "worker/engine_private.h"

#include <stdlib.h>
#include <string.h>

enum { SLICE_LATENTS = 4 }; /* latent frames encoded at a time */

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

/* -- slices ------------------------------------------------------------------------------------ */

/* Pixel frames [first, first + count) of the sequence, then their latents to their places. */
static lt_status encode_slice(struct vae *vae, const struct engine_frames *frames, int64_t first,
                              int64_t count, float *pixels, float *slice, const int64_t dim[4],
                              float *values, atomic_uint *done, struct lt_error *error)
{
    const int64_t latents = first ? count / 4 : (count - 1) / 4 + 1;
    const int64_t at = first ? (first - 1) / 4 + 1 : 0, plane = dim[2] * dim[3];
    const struct lt_view in =
        lt_view_4d(pixels, LT_TYPE_F32, 3, count, frames->rows, frames->columns);
    struct lt_view out = lt_view_4d(slice, LT_TYPE_F32, dim[0], latents, dim[2], dim[3]);
    memset(pixels, 0, (size_t)lt_view_count(&in) * sizeof *pixels);
    for (int64_t f = 0; f < count; f++)
        frames->fill(frames->context, first + f, count, f, pixels);
    LT_TRY(vae_encode_slice(vae, &in, &out, done, error));
    for (int64_t c = 0; c < dim[0]; c++)
        memcpy(values + (c * dim[1] + at) * plane, slice + c * latents * plane,
               (size_t)(latents * plane) * sizeof *values);
    return LT_OK;
}

static lt_status encode_slices(struct vae *vae, const struct engine_frames *frames,
                               const int64_t dim[4], float *values, atomic_uint *done,
                               struct lt_error *error)
{
    const int64_t most = 4 * SLICE_LATENTS, plane = frames->rows * frames->columns;
    float *pixels = malloc((size_t)(3 * most * plane) * sizeof *pixels);
    float *slice = malloc((size_t)(dim[0] * SLICE_LATENTS * dim[2] * dim[3]) * sizeof *slice);
    lt_status status =
        pixels && slice
            ? LT_OK
            : lt_fail(error, LT_NO_MEMORY, "no memory for %lld pixel frames", (long long)most);
    for (int64_t at = 0; at < frames->count && status == LT_OK;) {
        const int64_t left = (frames->count - at) / 4 * 4 + (at == 0); /* 4n + 1, then 4n */
        const int64_t part = at == 0 ? most - 3 : most;
        const int64_t count = left < part ? left : part;
        if (count == 0)
            break; /* frames beyond 4n + 1 */
        status = encode_slice(vae, frames, at, count, pixels, slice, dim, values, done, error);
        at += count;
    }
    vae_forget(vae);
    free(pixels);
    free(slice);
    return status;
}

lt_status engine_encode_frames(const struct engine_task *task, const struct engine_frames *frames,
                               float *values, int64_t count, struct lt_error *error)
{
    struct resident *resident;
    struct engine_task sized = *task;
    sized.pixels[0] = (uint32_t)frames->count;
    sized.pixels[1] = (uint32_t)frames->rows;
    sized.pixels[2] = (uint32_t)frames->columns;
    LT_TRY(engine_load(&sized, ENGINE_VAE_ENCODER, &resident, error));
    const int64_t scale = vae_scale(resident->vae);
    const int64_t dim[4] = {vae_latent_channels(resident->vae), (frames->count - 1) / 4 + 1,
                            frames->rows / scale, frames->columns / scale};
    if (dim[0] * dim[1] * dim[2] * dim[3] != count)
        return lt_fail(error, LT_BAD_INPUT,
                       "task: latents of %lld values are expected, this VAE gives [%lld, %lld, "
                       "%lld, %lld]",
                       (long long)count, (long long)dim[0], (long long)dim[1], (long long)dim[2],
                       (long long)dim[3]);
    LT_TRY(encode_slices(resident->vae, frames, dim, values, &task->progress->done, error));
    return engine_check_finite(values, count, "encoded latent", error);
}

/* -- the task ---------------------------------------------------------------------------------- */

struct given {
    const struct lt_task_spec *spec;
    const uint8_t *rgb;
    size_t count;
    int64_t plane;
};

static void fill_given(void *context, int64_t frame, int64_t frames, int64_t slot, float *to)
{
    const struct given *given = context;
    size_t at = (size_t)frame;
    if (given->spec->frame_at_count)
        for (at = 0; at < given->count && given->spec->frame_at[at] != frame;)
            at++;
    if (at < given->count)
        engine_pixels(given->rgb + at * 3 * (size_t)given->plane, frames, slot, given->plane, to);
}

static lt_status find_given(const struct engine_task *task, const struct lt_view *shape,
                            struct given *given_out, struct lt_error *error)
{
    const struct engine_blob *blob = engine_find_blob(task, LT_BLOB_PIXELS);
    const struct lt_task_spec *spec = task->spec;
    const int64_t frames = shape->dim[1], plane = shape->dim[2] * shape->dim[3];
    const size_t bytes = 3 * (size_t)plane, count = blob ? blob->bytes / bytes : 0;
    if (shape->dim[0] != 3 || (blob && blob->bytes % bytes != 0))
        return lt_fail(error, LT_BAD_INPUT, "task: pixels of %zu bytes, expected frames of %zu",
                       blob ? blob->bytes : 0, bytes);
    if (spec->frame_at_count ? spec->frame_at_count != count
                             : count != 0 && (int64_t)count != frames)
        return lt_fail(error, LT_BAD_INPUT, "task: %zu frames are given for %zu places", count,
                       spec->frame_at_count ? spec->frame_at_count : (size_t)frames);
    for (size_t i = 0; i < spec->frame_at_count; i++)
        if (spec->frame_at[i] >= frames)
            return lt_fail(error, LT_BAD_INPUT, "task: frame %u of %lld", spec->frame_at[i],
                           (long long)frames);
    *given_out = (struct given){spec, blob ? blob->data : NULL, count, plane};
    return LT_OK;
}

lt_status engine_vae_encode(const struct engine_task *task, void **result_out,
                            struct lt_error *error)
{
    const uint64_t count = task->spec->result_bytes / sizeof(float);
    struct lt_view shape;
    struct given given;
    LT_TRY(engine_shape(task->spec->shape, &shape, error));
    LT_TRY(find_given(task, &shape, &given, error));
    float *values = count <= ENGINE_VALUES_MAX ? malloc((size_t)count * sizeof *values) : NULL;
    if (!values)
        return lt_fail(error, LT_NO_MEMORY, "no memory for %llu latent values",
                       (unsigned long long)count);
    engine_begin(task, (unsigned)((shape.dim[1] - 1) / 4 + 1));
    const struct engine_frames frames = {.count = shape.dim[1],
                                         .rows = shape.dim[2],
                                         .columns = shape.dim[3],
                                         .fill = fill_given,
                                         .context = &given};
    const lt_status status = engine_encode_frames(task, &frames, values, (int64_t)count, error);
    if (status != LT_OK) {
        free(values);
        return status;
    }
    *result_out = values;
    return LT_OK;
}
