/* vae-encode: pixel frames -> latents, f32, normalised as the transformer sees them. */
#include "worker/engine_private.h"

#include <stdlib.h>

lt_status engine_vae_encode(const struct engine_task *task, void **result_out,
                            struct lt_error *error)
{
    struct resident *resident;
    struct lt_view pixels;
    LT_TRY(engine_slice(task, LT_BLOB_PIXELS, &pixels, error));
    LT_TRY(engine_load(task, ENGINE_VAE_ENCODER, &resident, error));
    const int64_t dim[4] = {vae_latent_channels(resident->vae), (pixels.dim[1] - 1) / 4 + 1,
                            pixels.dim[2] / VAE_SCALE, pixels.dim[3] / VAE_SCALE};
    const int64_t count = dim[0] * dim[1] * dim[2] * dim[3];
    LT_TRY(engine_check_result_bytes(task, (uint64_t)count * sizeof(float), error));
    float *values = malloc((size_t)count * sizeof *values);
    if (!values)
        return lt_fail(error, LT_NO_MEMORY, "no memory for %lld latent values", (long long)count);
    engine_begin(task, (unsigned)dim[1]);
    struct lt_view latents = lt_view_make(values, LT_TYPE_F32, 4, dim);
    lt_status status = vae_encode(resident->vae, &pixels, &latents, &task->progress->done, error);
    if (status == LT_OK)
        status = engine_check_finite(values, count, "encoded latent", error);
    if (status != LT_OK) {
        free(values);
        return status;
    }
    *result_out = values;
    return LT_OK;
}
