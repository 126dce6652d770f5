/* eval preview: the tiny decoder. */
#include "worker/eval.h"

#include "common/clock.h"
#include "worker/model/tae.h"

static lt_status decode(struct eval *eval, struct tae *tae, const struct lt_view *latents,
                        struct lt_error *error)
{
    struct lt_view pixels;
    const int64_t scale = tae_scale(tae);
    if (latents->dim[1] < 1)
        return lt_fail(error, LT_BAD_INPUT, "%s: tensor 'latents': at least one frame",
                       eval_inputs_path(eval));
    struct lt_scratch scratch;
    LT_TRY(tae_scratch(tae, latents->dim[2], latents->dim[3], &scratch, error));
    eval_tell(eval, 0, &scratch);
    LT_TRY(device_set_scratch(eval->device, eval->scratch_bytes, error));
    const int64_t dim[] = {3, tae_frames(tae, latents->dim[1]), scale * latents->dim[2],
                           scale * latents->dim[3]};
    LT_TRY(eval_output(eval, "pixels", LT_TYPE_F32, 4, dim, &pixels, error));
    return tae_decode(tae, latents, eval_place_frame, &pixels, error);
}

static lt_status run(struct eval *eval, struct lt_error *error)
{
    struct tae *tae = NULL;
    struct lt_view latents;
    LT_TRY(eval_input(eval, "latents", 4, &latents, error));
    LT_TRY(eval_load(eval, 0, tae_wants, NULL, error));
    LT_TRY(tae_create(eval->store[0], &eval->kernels, eval->exec, &tae, error));
    const int64_t start = lt_clock_now_us();
    const lt_status status = decode(eval, tae, &latents, error);
    eval->seconds = (double)(lt_clock_now_us() - start) * 1e-6;
    tae_destroy(&tae);
    return status;
}

const struct eval_component eval_preview = {
    .name = "preview",
    .summary = "latents [z,T,h,w] normalised -> pixels [3,4T-3,H,W] in [-1,1], by taew2_1 or "
               "taew2_2",
    .inputs = (const char *const[]){"latents", NULL},
    .keys = (const char *const[]){NULL},
    .model_min = 1,
    .model_max = 1,
    .run = run,
};
