/* eval vae-decode and vae-encode. */
#include "worker/eval.h"

#include "common/clock.h"
#include "worker/model/vae.h"

#include <stdio.h>

lt_status eval_place_frame(void *context, int64_t index, const float *rgb, struct lt_error *error)
{
    (void)error;
    const struct lt_view *to = context;
    const int64_t area = to->dim[2] * to->dim[3];
    for (int64_t c = 0; c < 3; c++)
        for (int64_t i = 0; i < area; i++)
            ((float *)to->data)[(c * to->dim[1] + index) * area + i] = rgb[i * 3 + c];
    return LT_OK;
}

/* --set tile=ROWSxCOLUMNS and stride=ROWSxCOLUMNS, in latents; no tile: false. */
static lt_status read_tiling(struct eval *eval, struct vae_tiling *tiling, bool *tiled,
                             struct lt_error *error)
{
    const char *tile = eval_setting(eval, "tile"), *stride = eval_setting(eval, "stride");
    long long rows, columns;
    char rest;
    *tiled = tile != NULL;
    if (!tile && !stride)
        return LT_OK;
    if (!tile || sscanf(tile, "%lldx%lld%c", &rows, &columns, &rest) != 2)
        return lt_fail(error, LT_USAGE, "--set tile=%s: expected ROWSxCOLUMNS in latents",
                       tile ? tile : "");
    *tiling = (struct vae_tiling){rows, columns, rows, columns};
    if (stride && sscanf(stride, "%lldx%lld%c", &rows, &columns, &rest) != 2)
        return lt_fail(error, LT_USAGE, "--set stride=%s: expected ROWSxCOLUMNS in latents",
                       stride);
    tiling->row_stride = stride ? rows : tiling->rows / 2;
    tiling->column_stride = stride ? columns : tiling->columns / 2;
    return LT_OK;
}

static lt_status decode(struct eval *eval, struct vae *vae, const struct lt_view *latents,
                        struct lt_error *error)
{
    const int64_t scale = vae_scale(vae);
    struct vae_tiling tiling;
    struct lt_view pixels;
    bool tiled;
    if (latents->dim[1] < 1)
        return lt_fail(error, LT_BAD_INPUT, "%s: tensor 'latents': at least one frame",
                       eval_inputs_path(eval));
    const int64_t dim[] = {3, 4 * latents->dim[1] - 3, scale * latents->dim[2],
                           scale * latents->dim[3]};
    LT_TRY(read_tiling(eval, &tiling, &tiled, error));
    LT_TRY(eval_output(eval, "pixels", LT_TYPE_F32, 4, dim, &pixels, error));
    return tiled ? vae_decode_tiled(vae, &tiling, latents, eval_place_frame, &pixels, NULL, error)
                 : vae_decode(vae, latents, eval_place_frame, &pixels, NULL, error);
}

static lt_status encode(struct eval *eval, struct vae *vae, const struct lt_view *pixels,
                        struct lt_error *error)
{
    const int64_t scale = vae_scale(vae);
    struct vae_tiling tiling;
    struct lt_view latents;
    bool tiled;
    if (pixels->dim[1] < 1 || pixels->dim[2] < scale || pixels->dim[3] < scale ||
        pixels->dim[2] % scale || pixels->dim[3] % scale)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: tensor 'pixels': at least one frame, sizes multiples of %lld",
                       eval_inputs_path(eval), (long long)scale);
    const int64_t dim[] = {vae_latent_channels(vae), (pixels->dim[1] - 1) / 4 + 1,
                           pixels->dim[2] / scale, pixels->dim[3] / scale};
    LT_TRY(read_tiling(eval, &tiling, &tiled, error));
    LT_TRY(eval_output(eval, "latents", LT_TYPE_F32, 4, dim, &latents, error));
    return tiled ? vae_encode_tiled(vae, &tiling, pixels, &latents, NULL, error)
                 : vae_encode(vae, pixels, &latents, NULL, error);
}

/* Frames, rows and columns in latents. */
static lt_status tell_memory(struct eval *eval, enum vae_part part, const struct lt_view *in,
                             struct lt_error *error)
{
    const enum lt_precision precision = lt_exec_precision(eval->exec);
    int64_t scale = 1, frames = in->dim[1];
    struct lt_scratch scratch;
    struct vae_tiling tiling;
    bool tiled;
    size_t bytes, held = 0;
    LT_TRY(read_tiling(eval, &tiling, &tiled, error));
    if (part == VAE_ENCODER) {
        LT_TRY(vae_file_scale(part, eval->file[0], &scale, error));
        frames = (frames + 3) / 4;
    }
    const int64_t rows = in->dim[2] / scale, columns = in->dim[3] / scale;
    if (frames < 1 || rows < 1 || columns < 1)
        return LT_OK; /* refused later, in words */
    LT_TRY(vae_scratch(part, eval->file[0], precision, rows, columns, &scratch, error));
    if (part == VAE_DECODER && tiled)
        LT_TRY(vae_decode_tiled_bytes(eval->file[0], precision, &tiling, frames, rows, columns,
                                      &bytes, &held, error));
    else
        LT_TRY(vae_bytes(part, eval->file[0], precision, frames, rows, columns, &bytes, error));
    eval->input_bytes += held;
    eval_tell(eval, bytes, &scratch);
    return LT_OK;
}

static lt_status run(struct eval *eval, enum vae_part part, struct lt_error *error)
{
    struct vae *vae = NULL;
    struct lt_view in;
    LT_TRY(eval_input(eval, eval->component->inputs[0], 4, &in, error));
    LT_TRY(tell_memory(eval, part, &in, error));
    LT_TRY(eval_load(eval, 0, vae_wants, &part, error));
    LT_TRY(vae_create(part, eval->store[0], &eval->kernels, eval->exec, &vae, error));
    const int64_t start = lt_clock_now_us();
    const lt_status status =
        part == VAE_DECODER ? decode(eval, vae, &in, error) : encode(eval, vae, &in, error);
    eval->seconds = (double)(lt_clock_now_us() - start) * 1e-6;
    vae_destroy(&vae);
    return status;
}

static lt_status run_decode(struct eval *eval, struct lt_error *error)
{
    return run(eval, VAE_DECODER, error);
}

static lt_status run_encode(struct eval *eval, struct lt_error *error)
{
    return run(eval, VAE_ENCODER, error);
}

const struct eval_component eval_vae_decode = {
    .name = "vae-decode",
    .summary = "latents [z,T,h,w] normalised -> pixels [3,F,H,W] in [-1,1]",
    .inputs = (const char *const[]){"latents", NULL},
    .keys = (const char *const[]){"tile", "stride", NULL},
    .model_min = 1,
    .model_max = 1,
    .run = run_decode,
};

const struct eval_component eval_vae_encode = {
    .name = "vae-encode",
    .summary = "pixels [3,F,H,W] in [-1,1] -> latents [z,T,h,w] normalised",
    .inputs = (const char *const[]){"pixels", NULL},
    .keys = (const char *const[]){"tile", "stride", NULL},
    .model_min = 1,
    .model_max = 1,
    .run = run_encode,
};
