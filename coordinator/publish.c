#include "coordinator/publish.h"

#include "common/safetensors.h"

#include <stdlib.h>

enum { OUTPUTS_MAX = 16 };

static lt_status write_latents(struct run *run, const char *path, struct lt_error *error)
{
    const struct plan *plan = run_plan(run);
    const size_t bytes = (size_t)plan->latent_frames * plan->frame_bytes;
    float *x = malloc(bytes);
    char hex[LT_DIGEST_HEX];
    struct lt_digest digest;
    if (!x)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for %zu bytes of latents", path, bytes);
    lt_status status = run_read_latents(run, x, error);
    if (status == LT_OK)
        status = job_digest(run_job(run), &digest, error);
    if (status == LT_OK) {
        const struct lt_named_view tensor = {
            "latents", lt_view_4d(x, LT_TYPE_F32, plan->latent_channels, plan->latent_frames,
                                  plan->latent_height, plan->latent_width)};
        lt_digest_format(&digest, hex);
        const char *const pairs[] = {"job", hex, "program", "longtake " LT_VERSION};
        status = lt_safetensors_write(path, &tensor, 1, pairs, 2, error);
    }
    free(x);
    return status;
}

static lt_status write_frames(struct run *run, const struct publish_params *params,
                              struct mux **mux, struct publish_result *result,
                              struct lt_error *error)
{
    const uint32_t count = (uint32_t)run_job(run)->frame_count;
    const size_t bytes = (size_t)run_frame_width(run) * run_frame_height(run) * 3;
    struct lt_sha256 hash;
    lt_status status = LT_OK;
    uint8_t *rgb = malloc(bytes);
    if (!rgb)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a frame");
    lt_sha256_begin(&hash);
    for (uint32_t i = 0; i < count && status == LT_OK; i++) {
        status = run_read_frame(run, i, rgb, error);
        lt_sha256_add(&hash, rgb, bytes);
        for (size_t o = 0; o < params->output_count && status == LT_OK; o++)
            status = mux_frame(mux[o], rgb, error);
        if (status == LT_OK && params->progress && !params->progress(params->context, i + 1, count))
            status = lt_fail(error, LT_CANCELLED, "stopped while frames were written");
    }
    result->frames = lt_sha256_end(&hash);
    result->frame_count = count;
    free(rgb);
    return status;
}

lt_status publish_take(struct run *run, const struct publish_params *params,
                       struct publish_result *result_out, struct lt_error *error)
{
    struct mux *mux[OUTPUTS_MAX] = {NULL};
    struct publish_result result = {0};
    lt_status status = LT_OK;
    if (params->output_count > OUTPUTS_MAX)
        return lt_fail(error, LT_USAGE, "at most %d outputs", OUTPUTS_MAX);
    for (size_t i = 0; i < params->output_count && status == LT_OK; i++)
        status = mux_open(&(struct mux_params){.path = params->output[i],
                                               .width = (int)run_frame_width(run),
                                               .height = (int)run_frame_height(run),
                                               .fps = run_job(run)->fps,
                                               .quality = params->quality,
                                               .overwrite = params->overwrite,
                                               .sound = params->sound,
                                               .sound_count = params->sound_count},
                          &mux[i], error);
    if (status == LT_OK)
        status = run_latents_digest(run, &result.latents, error);
    if (status == LT_OK)
        status = write_frames(run, params, mux, &result, error);
    if (status == LT_OK && params->latents)
        status = write_latents(run, params->latents, error);
    for (size_t i = 0; i < params->output_count && status == LT_OK; i++)
        status = mux_close(&mux[i], error);
    for (size_t i = 0; i < params->output_count; i++)
        mux_abort(&mux[i]);
    if (status == LT_OK)
        *result_out = result;
    return status;
}
