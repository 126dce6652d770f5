/* encode-image and encode-audio: what image attention sees, f32 [257, 1280], and what a voice says,
 * f32 [frames, layers, width] at 25 frames a second (encoders.md 8, 9). */
#include "worker/engine_private.h"
#include "worker/model/image.h"

#include <stdlib.h>

/* [3, H, W] in [0, 1]; data is the caller's to free. */
static lt_status make_pixels(const struct engine_task *task, struct lt_view *pixels_out,
                             struct lt_error *error)
{
    const struct engine_blob *blob = engine_find_blob(task, LT_BLOB_PIXELS);
    struct lt_view shape;
    LT_TRY(engine_shape(task->spec->shape, &shape, error));
    const int64_t plane = shape.dim[2] * shape.dim[3];
    if (!blob || shape.dim[0] != 3 || shape.dim[1] != 1 || blob->bytes != (size_t)(3 * plane))
        return lt_fail(error, LT_BAD_INPUT, "task: a picture of %zu bytes, expected %lld",
                       blob ? blob->bytes : 0, (long long)(3 * plane));
    float *values = malloc((size_t)(3 * plane) * sizeof *values);
    if (!values)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a picture");
    for (int64_t c = 0; c < 3; c++)
        for (int64_t i = 0; i < plane; i++)
            values[c * plane + i] = (float)((const uint8_t *)blob->data)[3 * i + c] / 255.0f;
    *pixels_out = lt_view_3d(values, LT_TYPE_F32, 3, shape.dim[2], shape.dim[3]);
    return LT_OK;
}

static lt_status encode_image(const struct engine_task *task, struct resident *resident,
                              const struct lt_view *pixels, float *values, struct lt_error *error)
{
    const struct vision_config *config = &resident->vision_config;
    const int64_t size = vision_image_size(config);
    struct lt_view clip =
        lt_view_2d(values, LT_TYPE_F32, vision_token_count(config), config->width);
    struct lt_view prepared =
        lt_view_3d(malloc((size_t)(3 * size * size) * sizeof(float)), LT_TYPE_F32, 3, size, size);
    if (!prepared.data)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a picture");
    engine_begin(task, 1);
    lt_status status = image_prepare(IMAGE_PREPARE_WAN, pixels, &prepared, error);
    if (status == LT_OK)
        status = vision_encode(resident->vision, &prepared, &clip, error);
    free(prepared.data);
    if (status != LT_OK)
        return status;
    return engine_check_finite(values, lt_view_count(&clip), "image feature", error);
}

lt_status engine_encode_image(const struct engine_task *task, void **result_out,
                              struct lt_error *error)
{
    struct resident *resident;
    struct lt_view pixels;
    LT_TRY(engine_load(task, ENGINE_VISION, &resident, error));
    const struct vision_config *config = &resident->vision_config;
    LT_TRY(engine_check_result_bytes(
        task, 4 * (uint64_t)(vision_token_count(config) * config->width), error));
    LT_TRY(make_pixels(task, &pixels, error));
    float *values = malloc((size_t)task->spec->result_bytes);
    const lt_status status = values ? encode_image(task, resident, &pixels, values, error)
                                    : lt_fail(error, LT_NO_MEMORY, "no memory for image features");
    free(pixels.data);
    if (status != LT_OK) {
        free(values);
        return status;
    }
    *result_out = values;
    return LT_OK;
}

lt_status engine_encode_audio(const struct engine_task *task, void **result_out,
                              struct lt_error *error)
{
    const struct engine_blob *blob = engine_find_blob(task, LT_BLOB_SAMPLES);
    const uint32_t *shape = task->spec->shape;
    struct resident *resident;
    if (!blob || blob->bytes != 4 * (uint64_t)shape[3])
        return lt_fail(error, LT_BAD_INPUT, "task: a voice of %zu bytes, expected %llu",
                       blob ? blob->bytes : 0, (unsigned long long)(4 * (uint64_t)shape[3]));
    LT_TRY(engine_load(task, ENGINE_AUDIO, &resident, error));
    const struct audio_config *config = &resident->audio_config;
    const struct audio_inputs inputs = {
        .samples = blob->data, .count = shape[3], .loudness = AUDIO_LOUDNESS};
    if (audio_frame_count(inputs.count) != shape[0] || config->layer_count != shape[1] ||
        config->width != shape[2])
        return lt_fail(error, LT_BAD_INPUT,
                       "%s gives [%lld, %lld, %lld], the job says [%u, %u, %u] "
                       "(model.audio_layers, model.audio_width)",
                       task->spec->model.name, (long long)audio_frame_count(inputs.count),
                       (long long)config->layer_count, (long long)config->width, shape[0], shape[1],
                       shape[2]);
    const int64_t dim[3] = {shape[0], shape[1], shape[2]};
    const int64_t count = dim[0] * dim[1] * dim[2];
    LT_TRY(engine_check_result_bytes(task, 4 * (uint64_t)count, error));
    float *values = malloc((size_t)count * sizeof *values);
    if (!values)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the features of a voice");
    struct lt_view out = lt_view_make(values, LT_TYPE_F32, 3, dim);
    engine_begin(task, 1);
    lt_status status = audio_encode(resident->audio, &inputs, &out, error);
    if (status == LT_OK)
        status = engine_check_finite(values, count, "audio feature", error);
    if (status != LT_OK) {
        free(values);
        return status;
    }
    *result_out = values;
    return LT_OK;
}
