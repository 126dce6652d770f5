/* eval image and audio: what the image-to-video and talk models see and hear. */
#include "worker/eval.h"

#include "common/clock.h"
#include "worker/model/audio.h"
#include "worker/model/image.h"
#include "worker/model/vision.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* -- image ------------------------------------------------------------------------------------- */

static lt_status preparation_of(const struct eval *eval, enum image_preparation *preparation_out,
                                struct lt_error *error)
{
    static const char *const names[] = {"wan", "comfy", "comfy-stretch"};
    const char *text = eval_setting(eval, "prepare");
    for (size_t i = 0; i < LT_COUNT(names); i++)
        if (!text || strcmp(text, names[i]) == 0) {
            *preparation_out = (enum image_preparation)i;
            return LT_OK;
        }
    return lt_fail(error, LT_USAGE, "--set prepare=%s: expected wan, comfy or comfy-stretch", text);
}

static lt_status encode_image(struct eval *eval, struct vision *vision,
                              const struct vision_config *config, const struct lt_view *pixels,
                              enum image_preparation preparation, struct lt_error *error)
{
    const int64_t size = vision_image_size(config),
                  dim[] = {vision_token_count(config), config->width};
    struct lt_view clip, prepared = lt_view_3d(malloc((size_t)(3 * size * size) * sizeof(float)),
                                               LT_TYPE_F32, 3, size, size);
    lt_status status;
    if (!prepared.data)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a picture of %lld x %lld",
                       (long long)size, (long long)size);
    LT_TRY_OR(eval_output(eval, "clip", LT_TYPE_F32, 2, dim, &clip, error), out);
    const int64_t start = lt_clock_now_us();
    LT_TRY_OR(image_prepare(preparation, pixels, &prepared, error), out);
    LT_TRY_OR(vision_encode(vision, &prepared, &clip, error), out);
    eval->seconds = (double)(lt_clock_now_us() - start) * 1e-6;
out:
    free(prepared.data);
    return status;
}

static lt_status run_image(struct eval *eval, struct lt_error *error)
{
    struct vision_config config;
    struct vision *vision = NULL;
    struct lt_scratch scratch;
    struct lt_view pixels;
    enum image_preparation preparation = IMAGE_PREPARE_WAN;
    LT_TRY(preparation_of(eval, &preparation, error));
    LT_TRY(vision_config_detect(eval->file[0], &config, error));
    LT_TRY(eval_setting_int(eval, "heads", 1, 1024, &config.head_count, error));
    LT_TRY(eval_input(eval, "pixels", 3, &pixels, error));
    LT_TRY(vision_scratch(&config, lt_exec_precision(eval->exec), &scratch, error));
    eval_tell(eval, vision_activation_bytes(&config), &scratch);
    LT_TRY(eval_load(eval, 0, vision_wants, &config, error));
    LT_TRY(vision_create(&config, eval->store[0], &eval->kernels, eval->exec, &vision, error));
    const lt_status status = encode_image(eval, vision, &config, &pixels, preparation, error);
    vision_destroy(&vision);
    return status;
}

const struct eval_component eval_image = {
    .name = "image",
    .summary = "pixels [3,H,W] in [0,1] -> clip [257,1280]",
    .inputs = (const char *const[]){"pixels", NULL},
    .keys = (const char *const[]){"prepare", "heads", NULL},
    .model_min = 1,
    .model_max = 1,
    .run = run_image,
};

/* -- audio ------------------------------------------------------------------------------------- */

/* loudness=none leaves the samples as they are. */
static lt_status loudness_of(const struct eval *eval, double *loudness, struct lt_error *error)
{
    const char *text = eval_setting(eval, "loudness");
    *loudness = text && strcmp(text, "none") == 0 ? NAN : AUDIO_LOUDNESS;
    return isnan(*loudness) ? LT_OK : eval_setting_real(eval, "loudness", -70, 0, loudness, error);
}

static lt_status read_audio(struct eval *eval, struct audio_config *config,
                            struct audio_inputs *inputs, struct lt_error *error)
{
    struct lt_view samples;
    int64_t normalize = 0;
    LT_TRY(audio_config_detect(eval->file[0], config, error));
    LT_TRY(eval_setting_int(eval, "heads", 1, 1024, &config->head_count, error));
    LT_TRY(eval_setting_int(eval, "normalize", 0, 1, &normalize, error));
    LT_TRY(loudness_of(eval, &inputs->loudness, error));
    LT_TRY(eval_input(eval, "samples", 1, &samples, error));
    inputs->samples = samples.data;
    inputs->count = samples.dim[0];
    inputs->normalize = normalize != 0;
    return LT_OK;
}

static lt_status run_audio(struct eval *eval, struct lt_error *error)
{
    struct audio_config config;
    struct audio_inputs inputs;
    struct audio *audio = NULL;
    struct lt_scratch scratch;
    struct lt_view out;
    lt_status status;
    LT_TRY(read_audio(eval, &config, &inputs, error));
    const int64_t dim[] = {audio_frame_count(inputs.count), config.layer_count, config.width};
    LT_TRY(audio_scratch(&config, lt_exec_precision(eval->exec), inputs.count, &scratch, error));
    eval_tell(eval, audio_activation_bytes(&config, inputs.count) + audio_prepared_bytes(&config),
              &scratch);
    LT_TRY(eval_load(eval, 0, NULL, NULL, error));
    LT_TRY(audio_create(&config, eval->store[0], &eval->kernels, eval->exec, &audio, error));
    LT_TRY_OR(eval_output(eval, "audio", LT_TYPE_F32, 3, dim, &out, error), out);
    const int64_t start = lt_clock_now_us();
    LT_TRY_OR(audio_encode(audio, &inputs, &out, error), out);
    eval->seconds = (double)(lt_clock_now_us() - start) * 1e-6;
out:
    audio_destroy(&audio);
    return status;
}

const struct eval_component eval_audio = {
    .name = "audio",
    .summary = "samples [n] mono 16 kHz -> audio [frames,12,768] at 25 fps, brought to -23 LUFS "
               "first",
    .inputs = (const char *const[]){"samples", NULL},
    .keys = (const char *const[]){"loudness", "normalize", "heads", NULL},
    .model_min = 1,
    .model_max = 1,
    .run = run_audio,
};
