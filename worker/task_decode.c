/* vae-decode: latents -> pixel frames, u8. */
#include "worker/engine_private.h"

#include <math.h>
#include <stdlib.h>

struct pixels {
    uint8_t *rgb;
    int64_t drop, frame_values;
};

static lt_status keep_frame(void *context, int64_t index, const float *rgb, struct lt_error *error)
{
    (void)error;
    const struct pixels *to = context;
    if (index < to->drop) /* warm-up */
        return LT_OK;
    uint8_t *out = to->rgb + (index - to->drop) * to->frame_values;
    for (int64_t i = 0; i < to->frame_values; i++)
        out[i] = (uint8_t)lrintf((rgb[i] + 1.0f) * 127.5f);
    return LT_OK;
}

lt_status engine_vae_decode(const struct engine_task *task, void **result_out,
                            struct lt_error *error)
{
    const struct lt_task_spec *spec = task->spec;
    struct resident *resident;
    struct lt_view latents;
    LT_TRY(engine_slice(task, LT_BLOB_LATENTS, &latents, error));
    struct pixels pixels = {.drop = spec->drop_frames,
                            .frame_values =
                                latents.dim[2] * latents.dim[3] * VAE_SCALE * VAE_SCALE * 3};
    const int64_t frames = 4 * latents.dim[1] - 3 - pixels.drop;
    if (frames < 1)
        return lt_fail(error, LT_BAD_INPUT, "task: drops %u of %lld frames", spec->drop_frames,
                       (long long)(4 * latents.dim[1] - 3));
    LT_TRY(
        engine_check_result_bytes(task, (uint64_t)frames * (uint64_t)pixels.frame_values, error));
    LT_TRY(engine_load(task, ENGINE_VAE_DECODER, &resident, error));
    if (!(pixels.rgb = malloc((size_t)spec->result_bytes)))
        return lt_fail(error, LT_NO_MEMORY, "no memory for %lld decoded frames", (long long)frames);
    engine_begin(task, (unsigned)latents.dim[1]);
    const lt_status status =
        vae_decode(resident->vae, &latents, keep_frame, &pixels, &task->progress->done, error);
    if (status != LT_OK) {
        free(pixels.rgb);
        return status;
    }
    *result_out = pixels.rgb;
    return LT_OK;
}
