/* eval dit: one forward of the transformer. */
#include "worker/eval.h"

#include "common/clock.h"
#include "worker/model/animate.h"
#include "worker/model/catalogue.h"
#include "worker/model/dit.h"
#include "worker/model/talk.h"

#include <stdlib.h>
#include <string.h>

enum { FRAMES_MAX = 4096, SKIP_MAX = 64 };

struct request {
    struct dit_inputs inputs;
    struct dit_prompt prompt;
    struct animate_window window;
    struct talk_window speech;
    struct dit_options options;
    double timesteps[FRAMES_MAX];
    int64_t skip[SKIP_MAX];
};

/* `timestep`: one value, or one for each latent frame. */
static lt_status read_timesteps(struct eval *eval, struct request *r, struct lt_error *error)
{
    struct lt_view timestep;
    LT_TRY(eval_input(eval, "timestep", 1, &timestep, error));
    const int64_t count = timestep.dim[0], frames = r->inputs.x.dim[1];
    if ((count != 1 && count != frames) || count > FRAMES_MAX)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: timestep: expected one value or %lld, one a frame, found %lld",
                       eval_inputs_path(eval), (long long)frames, (long long)count);
    for (int64_t i = 0; i < count; i++)
        r->timesteps[i] = (double)((float *)timestep.data)[i];
    r->inputs.timestep = r->timesteps[0];
    r->inputs.timesteps = count > 1 ? r->timesteps : NULL;
    return LT_OK;
}

/* --set skip_layers=9,10 */
static lt_status read_skip_layers(const struct eval *eval, struct request *r,
                                  struct lt_error *error)
{
    const char *text = eval_setting(eval, "skip_layers");
    for (const char *at = text; at && *at;) {
        char *end;
        const long number = strtol(at, &end, 10);
        if (end == at || (*end && *end != ',') || r->options.skip_count == SKIP_MAX)
            return lt_fail(error, LT_USAGE, "--set skip_layers=%s: expected numbers: 9,10", text);
        r->skip[r->options.skip_count++] = number;
        at = *end ? end + 1 : end;
    }
    r->options.skip_layers = r->skip;
    return LT_OK;
}

static lt_status read_options(const struct eval *eval, struct request *r, struct lt_error *error)
{
    struct dit_options *o = &r->options;
    *o = dit_options_default;
    LT_TRY(eval_setting_real(eval, "nag_scale", -1e3, 1e3, &o->nag_scale, error));
    LT_TRY(eval_setting_real(eval, "nag_tau", 0, 1e3, &o->nag_tau, error));
    LT_TRY(eval_setting_real(eval, "nag_alpha", 0, 1, &o->nag_alpha, error));
    LT_TRY(eval_setting_int(eval, "riflex_index", 0, 64, &o->riflex_index, error));
    LT_TRY(eval_setting_int(eval, "riflex_frames", 0, 1 << 20, &o->riflex_frames, error));
    LT_TRY(eval_setting_int(eval, "memory_frames", 0, 1 << 20, &o->memory_frames, error));
    LT_TRY(eval_setting_int(eval, "rope_negative_offset", 0, 1 << 20, &o->rope_negative_offset,
                            error));
    LT_TRY(eval_setting_real(eval, "pose_strength", -1e3, 1e3, &o->pose_strength, error));
    LT_TRY(eval_setting_real(eval, "face_strength", -1e3, 1e3, &o->face_strength, error));
    r->inputs.options = o;
    return read_skip_layers(eval, r, error);
}

/* What the latent frames of the slice hear (talk.h) of `audio` [speakers, frames, 12, 768], which
 * begins `start` video frames before the slice does. */
static lt_status gather_speech(struct request *r, const struct lt_view *audio, int64_t start,
                               struct lt_error *error)
{
    const int64_t features = audio->dim[2] * audio->dim[3], frames = audio->dim[1];
    const int64_t heard = TALK_FIRST_FRAMES + TALK_FRAMES * (r->inputs.x.dim[1] - 1);
    float *to = malloc((size_t)(audio->dim[0] * heard * features) * sizeof *to);
    if (!to)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the speech of a slice");
    r->speech.audio = lt_view_3d(to, LT_TYPE_F32, audio->dim[0], heard, features);
    for (int64_t s = 0; s < audio->dim[0]; s++)
        for (int64_t i = 0; i < heard; i++, to += features) {
            /* frames -2 … 2 for the first, then 4j - 5 … 4j + 2 for latent frame j */
            const int64_t j = (i - TALK_FIRST_FRAMES) / TALK_FRAMES + 1,
                          k = (i - TALK_FIRST_FRAMES) % TALK_FRAMES;
            const int64_t at = start + (i < TALK_FIRST_FRAMES ? i - 2 : 4 * j - 5 + k);
            const int64_t frame = at < 0 ? 0 : at < frames ? at : frames - 1;
            memcpy(to, (const float *)audio->data + (s * frames + frame) * features,
                   (size_t)features * sizeof *to);
        }
    return LT_OK;
}

static lt_status read_speech(struct eval *eval, struct request *r, struct lt_error *error)
{
    struct lt_view audio, start;
    LT_TRY(eval_input_optional(eval, "audio", 4, &audio, error));
    LT_TRY(eval_input_optional(eval, "audio_start", 1, &start, error));
    LT_TRY(eval_input_optional(eval, "speaker_masks", 3, &r->speech.masks, error));
    LT_TRY(eval_setting_real(eval, "audio_scale", -1e3, 1e3, &r->options.audio_scale, error));
    if (!audio.data)
        return LT_OK;
    const double first = start.data ? (double)((const float *)start.data)[0] : 0;
    if (audio.dim[1] < 1 || !(first >= 0 && first < 1e9))
        return lt_fail(error, LT_BAD_INPUT, "%s: audio: no frame, or audio_start is %g",
                       eval_inputs_path(eval), first);
    return gather_speech(r, &audio, (int64_t)first, error);
}

static lt_status read_request(struct eval *eval, struct request *r, struct lt_error *error)
{
    LT_TRY(eval_input(eval, "x", 4, &r->inputs.x, error));
    LT_TRY(read_timesteps(eval, r, error));
    LT_TRY(eval_input(eval, "text", 2, &r->prompt.text, error));
    LT_TRY(eval_input_optional(eval, "nag_text", 2, &r->prompt.nag_text, error));
    LT_TRY(eval_input_optional(eval, "y", 4, &r->inputs.y, error));
    LT_TRY(eval_input_optional(eval, "clip", 2, &r->prompt.clip, error));
    LT_TRY(eval_input_optional(eval, "pose", 4, &r->window.pose, error));
    LT_TRY(eval_input_optional(eval, "face", 4, &r->window.face, error));
    LT_TRY(read_options(eval, r, error));
    return read_speech(eval, r, error);
}

static lt_status tell_memory(struct eval *eval, const struct dit_config *config,
                             const struct request *r, struct lt_error *error)
{
    const int64_t *dim = r->inputs.x.dim;
    const int64_t tokens = dim[1] * (dim[2] / 2) * (dim[3] / 2);
    struct dit_config used = *config;
    struct lt_scratch scratch;
    if (!r->window.face.data) /* its encoder does not run */
        used.face = (struct face_config){0};
    LT_TRY(dit_scratch(&used, lt_exec_precision(eval->exec), tokens, &scratch, error));
    uint64_t bytes = dit_activation_bytes(&used, tokens, 1);
    if (!device_is_ram(eval->device))
        bytes += dit_card_bytes(&used, tokens, 1);
    if (eval->lora) {
        bytes += lora_set_use_bytes(eval->lora);
        LT_TRY(
            lora_set_scratch(eval->lora, lt_exec_precision(eval->exec), tokens, &scratch, error));
    }
    eval_tell(eval, bytes, &scratch);
    /* keys and values of the prompt, the padding's row and the pictures' rows */
    const int64_t rows = (r->prompt.text.dim[0] + 1) +
                         (r->prompt.nag_text.data ? r->prompt.nag_text.dim[0] + 1 : 0) +
                         (r->prompt.clip.data ? r->prompt.clip.dim[0] : 0);
    eval->cache_bytes = (uint64_t)(config->layer_count * 2 * config->dim * rows) * sizeof(float);
    return LT_OK;
}

static lt_status run(struct eval *eval, struct lt_error *error)
{
    struct dit_config config;
    struct dit *dit = NULL;
    struct request r = {0};
    struct lt_view v;
    int64_t repeat = 1;
    lt_status status;
    if (eval->file[1]) /* an add-on */
        LT_TRY(tensor_file_join(eval->file[0], &eval->file[1], error));
    LT_TRY(dit_config_detect(eval->file[0], &config, error));
    LT_TRY(catalogue_check_dit(&config, eval->file[0], error));
    LT_TRY(eval_setting_int(eval, "text_len", 1, 65536, &config.text_len, error));
    LT_TRY(eval_setting_int(eval, "repeat", 1, EVAL_REPEAT_MAX, &repeat, error));
    LT_TRY_OR(read_request(eval, &r, error), out);
    LT_TRY_OR(tell_memory(eval, &config, &r, error), out);
    const int64_t opened = lt_clock_now_us();
    LT_TRY_OR(eval_load(eval, 0, NULL, NULL, error), out);
    LT_TRY_OR(dit_create(&config, eval->store[0], &eval->kernels, eval->exec, &dit, error), out);
    dit_set_lora(dit, eval->lora);
    LT_TRY_OR(eval_output(eval, "v", LT_TYPE_F32, 4, r.inputs.x.dim, &v, error), out);
    const int64_t start = lt_clock_now_us();
    LT_TRY_OR(dit_context_create(dit, &r.prompt, 0, &r.inputs.context, error), out);
    LT_TRY_OR(animate_context_create(dit, &r.window, 0, &r.inputs.animate, error), out);
    LT_TRY_OR(talk_context_create(dit, &r.speech, 0, &r.inputs.talk, error), out);
    for (int64_t i = 0; i < repeat; i++) {
        const int64_t from = i == 0 ? opened : lt_clock_now_us();
        LT_TRY_OR(dit_forward(dit, &r.inputs, 1, &v, error), out);
        eval->forward_seconds[eval->forward_count++] = (double)(lt_clock_now_us() - from) * 1e-6;
    }
    eval->seconds = (double)(lt_clock_now_us() - start) * 1e-6;
out:
    talk_context_destroy(&r.inputs.talk);
    free(r.speech.audio.data);
    animate_context_destroy(&r.inputs.animate);
    dit_context_destroy(&r.inputs.context);
    dit_destroy(&dit);
    return status;
}

const struct eval_component eval_dit = {
    .name = "dit",
    .summary = "x [C,F,h,w], timestep [1] or [F], text [n,text_dim], optional nag_text, y, clip, "
               "pose, face, audio -> v [C,F,h,w]",
    .inputs = (const char *const[]){"x", "timestep", "text", "nag_text", "y", "clip", "pose",
                                    "face", "audio", "audio_start", "speaker_masks", NULL},
    .keys = (const char *const[]){"text_len", "nag_scale", "nag_tau", "nag_alpha", "riflex_index",
                                  "riflex_frames", "memory_frames", "rope_negative_offset",
                                  "skip_layers", "pose_strength", "face_strength", "audio_scale",
                                  "lora_expert", "lora_peft", "lora_step", "lora_stream", "repeat",
                                  NULL},
    .model_min = 1,
    .model_max = 2,
    .takes_lora = true,
    .run = run,
};
