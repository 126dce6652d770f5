#include "coordinator/job_schema.h"

#include "common/option.h"
#include "coordinator/skip.h"

#include <string.h>

const char *const job_kind_words[] = {
    [JOB_TEXT_TO_VIDEO] = "text-to-video",
    [JOB_IMAGE_TO_VIDEO] = "image-to-video",
    [JOB_ANIMATE] = "animate",
    [JOB_TALK] = "talk",
    NULL,
};

static const char *const mode_words[] = {
    [JOB_MODE_WINDOWS] = "windows", [JOB_MODE_LOOP] = "loop", NULL};

static const char *const talk_words[] = {
    [JOB_TALK_MULTITALK] = "multitalk", [JOB_TALK_INFINITETALK] = "infinitetalk", NULL};

static const char *const formula_words[] = {"official", "wrapper", NULL};

static const char *const style_words[] = {"wan", "comfy", NULL}; /* enum tokenizer_style */

static const char *const match_words[] = {"none", "reinhard", "mkl", NULL}; /* enum lt_match */

static const char *const fit_words[] = {[JOB_FIT_AUTO] = "auto",
                                        [JOB_FIT_CROP] = "crop",
                                        [JOB_FIT_STRETCH] = "stretch",
                                        [JOB_FIT_LETTERBOX] = "letterbox",
                                        NULL};

static const char *const noise_words[] = {
    [NOISE_TORCH] = "torch", [NOISE_PHILOX] = "counter", NULL};

static const char *const sampler_words[] = {
    [SAMPLER_EULER] = "euler",
    [SAMPLER_UNIPC] = "unipc",
    [SAMPLER_DPMPP] = "dpm++",
    [SAMPLER_DPMPP_SDE] = "dpm++_sde",
    [SAMPLER_LCM] = "lcm",
    [SAMPLER_FLOWMATCH_DISTILL] = "flowmatch_distill",
    [SAMPLER_FLOWMATCH_CAUSVID] = "flowmatch_causvid",
    [SAMPLER_MULTITALK] = "multitalk",
    NULL,
};

static const char *const schedule_words[] = {
    [WINDOW_STATIC_STANDARD] = "static_standard",
    [WINDOW_STATIC_BALANCED] = "static_balanced",
    [WINDOW_UNIFORM_STANDARD] = "uniform_standard",
    [WINDOW_UNIFORM_LOOPED] = "uniform_looped",
    [WINDOW_UNIFORM_STANDARD_COMFY] = "uniform_standard_comfy",
    [WINDOW_UNIFORM_LOOPED_OPEN] = "uniform_looped_open",
    [WINDOW_BATCHED] = "batched",
    [WINDOW_BATCHED_SHIFTED] = "batched_shifted",
    NULL,
};

static const char *const fuse_words[] = {
    [WINDOW_FUSE_LINEAR] = "linear",
    [WINDOW_FUSE_PYRAMID] = "pyramid",
    [WINDOW_FUSE_PYRAMID_COMFY] = "pyramid_comfy",
    [WINDOW_FUSE_FLAT] = "flat",
    [WINDOW_FUSE_OVERLAP_LINEAR] = "overlap_linear",
    [WINDOW_FUSE_RELATIVE] = "relative",
    [WINDOW_FUSE_HANN] = "hann",
    [WINDOW_FUSE_GAUSSIAN] = "gaussian",
    NULL,
};

static const char *const cache_words[] = {[JOB_CACHE_NONE] = "none",
                                          [JOB_CACHE_TEACACHE] = "teacache",
                                          [JOB_CACHE_MAGCACHE] = "magcache",
                                          [JOB_CACHE_EASYCACHE] = "easycache",
                                          NULL};

static const char *const curve_words[] = {
    [SKIP_CURVE_E] = "e", [SKIP_CURVE_E0] = "e0", [SKIP_CURVE_PLAIN] = "plain", NULL};

enum { LATENTS_MAX = (JOB_FRAMES_MAX - 1) / 4 + 2 };

#define INT(section, key, field, min, max)                                                         \
    {                                                                                              \
        section, key, JOB_FIELD_INT, offsetof(struct job, field), min, max, NULL, false            \
    }
#define REAL(section, key, field, min, max)                                                        \
    {                                                                                              \
        section, key, JOB_FIELD_REAL, offsetof(struct job, field), min, max, NULL, false           \
    }
#define BOOL(section, key, field)                                                                  \
    {                                                                                              \
        section, key, JOB_FIELD_BOOL, offsetof(struct job, field), 0, 0, NULL, false               \
    }
#define TEXT(section, key, field, required)                                                        \
    {                                                                                              \
        section, key, JOB_FIELD_TEXT, offsetof(struct job, field), 0, 0, NULL, required            \
    }
#define CHOICE(section, key, field, words)                                                         \
    {                                                                                              \
        section, key, JOB_FIELD_CHOICE, offsetof(struct job, field), 0, 0, words, false            \
    }
#define MODEL(section, key, field, required)                                                       \
    {                                                                                              \
        section, key, JOB_FIELD_MODEL, offsetof(struct job, field), 0, 0, NULL, required           \
    }
#define INPUT(name, section, key)                                                                  \
    {section, key,  JOB_FIELD_INPUT, offsetof(struct job, input[JOB_INPUT_##name]), 0, 0,          \
     NULL,    false},
#define OWN(section, key)                                                                          \
    {                                                                                              \
        section, key, JOB_FIELD_OWN, 0, 0, 0, NULL, false                                          \
    }

const struct job_field job_fields[] = {
    OWN("", "kind"),
    CHOICE("", "mode", mode, mode_words),
    TEXT("", "name", name, false),
    OWN("", "size"),
    INT("", "frames", frame_count, 1, JOB_FRAMES_MAX),
    REAL("", "fps", fps, 0.1, 1000),
    INT("", "seed", seed, 0, 9223372036854775807.0),
    CHOICE("", "noise", noise, noise_words),
    OWN("", "guidance"),
    OWN("", "lora"),
    CHOICE("talk", "variant", talk_variant, talk_words),
    REAL("talk", "audio_guidance", audio_guidance, 0, 100),
    CHOICE("talk", "formula", audio_formula, formula_words),
    MODEL("model", "transformer", transformer, true),
    MODEL("model", "transformer_low", transformer_low, false),
    REAL("model", "boundary", boundary, 0, 1),
    MODEL("model", "vae", vae, true),
    MODEL("model", "text_encoder", text_encoder, false),
    MODEL("model", "vision", vision, false),
    MODEL("model", "audio_encoder", audio_encoder, false),
    MODEL("model", "talk", talk, false),
    INT("model", "audio_layers", audio_layers, 1, 64),
    INT("model", "audio_width", audio_width, 1, 8192),
    INT("model", "latent_channels", latent_channels, 1, 64),
    INT("model", "text_len", text_len, 1, 4096),
    INT("model", "text_width", text_width, 1, 65536),
    INT("model", "face_side", face_side, 8, 4096),
    OWN("model", "precision"),
    TEXT("text", "positive", text, false),
    TEXT("text", "negative", text_negative, false),
    TEXT("text", "prompt", prompt, false),
    TEXT("text", "negative_prompt", prompt_negative, false),
    CHOICE("text", "style", text_style, style_words),
    JOB_INPUT_LIST(INPUT) CHOICE("media", "fit", fit, fit_words),
    CHOICE("colour", "match", match, match_words),
    REAL("colour", "strength", match_strength, 0, 1),
    INT("loop", "frames", clip_frames, 0, 4097),
    INT("loop", "overlap", clip_overlap, 0, 4097),
    {"sampler", "name", JOB_FIELD_OWN, offsetof(struct job, sampler), 0, 0, sampler_words, false},
    BOOL("sampler", "beta", beta_schedule),
    BOOL("sampler", "official", official_sigmas),
    INT("sampler", "steps", step_count, 1, JOB_LIST_MAX),
    REAL("sampler", "shift", shift, 0.01, 1000),
    OWN("sampler", "sigmas"),
    INT("sampler", "start_step", start_step, 0, JOB_LIST_MAX - 1),
    INT("sampler", "end_step", end_step, -1, JOB_LIST_MAX),
    CHOICE("window", "schedule", schedule, schedule_words),
    BOOL("guide", "zero_star", guide.zero_star),
    INT("guide", "zero_steps", guide.zero_steps, 0, JOB_LIST_MAX),
    REAL("guide", "nag_scale", guide.nag_scale, 0, 100),
    REAL("guide", "nag_tau", guide.nag_tau, 0, 100),
    REAL("guide", "nag_alpha", guide.nag_alpha, 0, 1),
    OWN("guide", "skip_layers"),
    REAL("guide", "skip_start", guide.skip_start, 0, 1),
    REAL("guide", "skip_end", guide.skip_end, 0, 1),
    INT("guide", "riflex", guide.riflex, 0, 22),
    CHOICE("cache", "kind", cache.kind, cache_words),
    CHOICE("cache", "model", cache.model, skip_model_words),
    REAL("cache", "threshold", cache.threshold, 0, 100),
    INT("cache", "start", cache.start, -1, JOB_LIST_MAX),
    INT("cache", "end", cache.end, -1, JOB_LIST_MAX),
    INT("cache", "skips", cache.skips, 0, JOB_LIST_MAX),
    CHOICE("cache", "curve", cache.curve, curve_words),
    BOOL("cache", "neighbours", cache.neighbours),
    BOOL("cache", "compat", cache.compat),
    REAL("animate", "pose_strength", pose_strength, 0, 10),
    REAL("animate", "face_strength", face_strength, 0, 10),
    INT("window", "latent_frames", window_frames, 1, LATENTS_MAX),
    INT("window", "overlap", window_overlap, 0, LATENTS_MAX),
    INT("window", "stride", window_stride, 0, 64),
    CHOICE("window", "fuse", fuse, fuse_words),
    BOOL("window", "freenoise", freenoise),
    BOOL("window", "barrier", barrier),
    INT("decode", "segment", decode_segment, 0, LATENTS_MAX),
    INT("decode", "warmup", decode_warmup, 0, LATENTS_MAX),
    INT("decode", "tile", decode_tile, 0, 8192),
    INT("decode", "overlap", decode_overlap, -1, 8191),
};
const size_t job_field_count = LT_COUNT(job_fields);

static const double guidance_default[] = {5.0};

void job_defaults(struct job *job)
{
    *job = (struct job){
        .name = "take",
        .width = 832,
        .height = 480,
        .frame_count = 81,
        .frame_count_padded = 81,
        .fps = 16,
        .seed = 0,
        .noise = NOISE_PHILOX,
        .boundary = 0.875,
        .latent_channels = 16,
        .text_len = 512,
        .text_width = 4096,
        .face_side = 512,
        .audio_layers = 12,
        .audio_width = 768,
        .audio_guidance = 1,
        .match_strength = 1,
        .precision_bf16 = true,
        .sampler = SAMPLER_UNIPC,
        .step_count = 30,
        .shift = 5,
        .end_step = -1,
        .guidance = guidance_default,
        .guidance_count = LT_COUNT(guidance_default),
        .guide = {.nag_tau = 2.5, .nag_alpha = 0.25, .skip_start = 0.1, .skip_end = 1},
        .cache = {.start = -1, .end = -1, .skips = 4},
        .pose_strength = 1,
        .face_strength = 1,
        .schedule = WINDOW_STATIC_BALANCED,
        .fuse = WINDOW_FUSE_LINEAR,
        .window_frames = 21,
        .window_overlap = 4,
        .window_stride = 1,
        .freenoise = true,
        .decode_segment = 32,
        .decode_warmup = 12,
        .decode_overlap = -1,
    };
}

const struct job_field *job_schema_find(const char *section, const char *key)
{
    for (size_t i = 0; i < job_field_count; i++)
        if (strcmp(job_fields[i].section, section) == 0 && strcmp(job_fields[i].key, key) == 0)
            return &job_fields[i];
    return NULL;
}

bool job_schema_is_section(const char *key)
{
    for (size_t i = 0; i < job_field_count; i++)
        if (*key && strcmp(job_fields[i].section, key) == 0)
            return true;
    return false;
}

static void consider(const char *known, const char *key, size_t *best, const char **nearest)
{
    const size_t distance = lt_edit_distance(key, strlen(key), known);
    if (distance < *best) {
        *best = distance;
        *nearest = known;
    }
}

const char *job_schema_nearest(const char *section, const char *key)
{
    const char *nearest = NULL;
    size_t best = 4; /* further away is another word */
    if (strlen(key) > 64)
        return NULL;
    for (size_t i = 0; i < job_field_count; i++) {
        if (strcmp(job_fields[i].section, section) == 0)
            consider(job_fields[i].key, key, &best, &nearest);
        else if (*section == 0)
            consider(job_fields[i].section, key, &best, &nearest);
    }
    return nearest;
}
