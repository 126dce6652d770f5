/* A job whose keys are each right may still contradict itself: here the pairs are looked at. */
#include "coordinator/job_private.h"
#include "coordinator/job_schema.h"
#include "coordinator/sigma.h"
#include "coordinator/skip.h"
#include "coordinator/window.h"

#include <math.h>
#include <string.h>

static lt_status check_conditioning(const struct job_reader *reader, const char *key,
                                    const char *text)
{
    struct lt_digest digest;
    if (text && strncmp(text, "sha256:", 7) == 0 && !lt_digest_parse(text + 7, &digest))
        return job_fail_at(reader, "text", key, LT_BAD_INPUT,
                           "sha256: must be followed by 64 hexadecimal digits");
    return LT_OK;
}

/* Exactly one of features and prompt; a prompt needs its encoder. */
static lt_status check_text_source(const struct job_reader *reader, const char *key,
                                   const char *text, const char *prompt_key, const char *prompt)
{
    if (text && prompt)
        return job_fail_at(reader, "text", prompt_key, LT_BAD_INPUT,
                           "contradicts %s: give one of them", key);
    if (prompt && !reader->job->text_encoder.name)
        return job_fail_at(reader, "model", "text_encoder", LT_BAD_INPUT, "needed for /text/%s",
                           prompt_key);
    for (const char *part = prompt; part; part = strchr(part, '|') ? strchr(part, '|') + 1 : NULL)
        if (part[strspn(part, " ")] == '|' || part[strspn(part, " ")] == 0)
            return job_fail_at(reader, "text", prompt_key, LT_BAD_INPUT,
                               "one of its parts between | is blank");
    return LT_OK;
}

static bool has_input(const struct job *job, enum job_input_kind kind)
{
    return job->input[kind].path || job->input[kind].uploaded;
}

/* Uploaded bytes have the shape that the job's size asks for; 0 in a row stands for any. */
static lt_status check_shape(const struct job_reader *reader, const struct job_field *field,
                             size_t kind, const struct job_input *input)
{
    const struct job *job = reader->job;
    const int64_t w = job->width, h = job->height, side = job->face_side;
    const int64_t scale = job->latent_channels == 48 ? 16 : 8;
    const int64_t expected[JOB_INPUT_COUNT][JOB_INPUT_RANK] = {
        [JOB_INPUT_IMAGE] = {1, h, w, 3},
        [JOB_INPUT_END_IMAGE] = {1, h, w, 3},
        [JOB_INPUT_CLIP_IMAGE] = {1, 0, 0, 3},
        [JOB_INPUT_END_CLIP_IMAGE] = {1, 0, 0, 3},
        [JOB_INPUT_POSE_FRAMES] = {0, h, w, 3},
        [JOB_INPUT_FACE_FRAMES] = {0, side, side, 3},
        [JOB_INPUT_BACKGROUND] = {0, h, w, 3},
        [JOB_INPUT_MASK] = {0, 1, h / scale, w / scale},
        [JOB_INPUT_CLIP] = {1, 1, 0, 1280},
        [JOB_INPUT_Y] = {0, (job->frame_count_padded - 1) / 4 + 1, h / scale, w / scale},
        [JOB_INPUT_POSE] = {0, 0, h / scale, w / scale},
        [JOB_INPUT_VIDEO_FRAMES] = {0, h, w, 3},
        [JOB_INPUT_VOICE] = {1, 1, 1, 0},
        [JOB_INPUT_VOICE_2] = {1, 1, 1, 0},
        [JOB_INPUT_AUDIO] = {0, 0, job->audio_layers, job->audio_width},
        [JOB_INPUT_SPEAKER_MASKS] = {1, 3, h / scale / 2, w / scale / 2},
    };
    for (size_t i = 0; input->uploaded && i < JOB_INPUT_RANK; i++)
        if (expected[kind][i] && input->shape[i] != expected[kind][i])
            return job_fail_at(reader, field->section, field->key, LT_BAD_INPUT,
                               "dim %zu of its shape is %u, expected %lld", i, input->shape[i],
                               (long long)expected[kind][i]);
    return LT_OK;
}

static lt_status check_talk(const struct job_reader *reader)
{
    const struct job *job = reader->job;
    if (!job->talk.name)
        return job_fail_at(reader, "model", "talk", LT_BAD_INPUT, "missing: the add-on");
    if (!has_input(job, JOB_INPUT_IMAGE))
        return job_fail_at(reader, "media", "image", LT_BAD_INPUT, "missing");
    if (has_input(job, JOB_INPUT_VIDEO_FRAMES) &&
        (job->mode != JOB_MODE_LOOP || job->talk_variant != JOB_TALK_INFINITETALK))
        return job_fail_at(reader, "media", "video", LT_BAD_INPUT,
                           "only InfiniteTalk's loop takes a picture for each clip");
    if (!has_input(job, JOB_INPUT_AUDIO) && !has_input(job, JOB_INPUT_VOICE))
        return job_fail_at(reader, "media", "voice", LT_BAD_INPUT, "missing");
    if (!has_input(job, JOB_INPUT_AUDIO) && !job->audio_encoder.name)
        return job_fail_at(reader, "model", "audio_encoder", LT_BAD_INPUT,
                           "needed for /media/voice");
    if (has_input(job, JOB_INPUT_VOICE_2) && !has_input(job, JOB_INPUT_VOICE))
        return job_fail_at(reader, "media", "voice_2", LT_BAD_INPUT, "there is no first voice");
    const struct job_input *voice = &job->input[JOB_INPUT_VOICE],
                           *second = &job->input[JOB_INPUT_VOICE_2];
    if (voice->uploaded && second->uploaded && voice->shape[3] != second->shape[3])
        return job_fail_at(reader, "media", "voice_2", LT_BAD_INPUT,
                           "%u samples, but the first voice has %u", second->shape[3],
                           voice->shape[3]);
    return LT_OK;
}

/* The pictures of a kind, and none that it has no use for. */
static lt_status check_inputs(const struct job_reader *reader)
{
#define JOB_INPUT_BIT(name) (1u << JOB_INPUT_##name)
    static const unsigned allowed[] = {
        [JOB_TEXT_TO_VIDEO] = 0,
        [JOB_IMAGE_TO_VIDEO] = JOB_INPUT_BIT(IMAGE) | JOB_INPUT_BIT(END_IMAGE) |
                               JOB_INPUT_BIT(CLIP_IMAGE) | JOB_INPUT_BIT(END_CLIP_IMAGE) |
                               JOB_INPUT_BIT(CLIP) | JOB_INPUT_BIT(Y),
        [JOB_ANIMATE] = JOB_INPUT_BIT(BACKGROUND) | JOB_INPUT_BIT(MASK) | JOB_INPUT_BIT(IMAGE) |
                        JOB_INPUT_BIT(CLIP_IMAGE) | JOB_INPUT_BIT(POSE_FRAMES) |
                        JOB_INPUT_BIT(FACE_FRAMES) | JOB_INPUT_BIT(CLIP) | JOB_INPUT_BIT(POSE),
        [JOB_TALK] = JOB_INPUT_BIT(IMAGE) | JOB_INPUT_BIT(CLIP_IMAGE) |
                     JOB_INPUT_BIT(VIDEO_FRAMES) | JOB_INPUT_BIT(VOICE) | JOB_INPUT_BIT(VOICE_2) |
                     JOB_INPUT_BIT(CLIP) | JOB_INPUT_BIT(AUDIO) | JOB_INPUT_BIT(SPEAKER_MASKS),
    };
    const struct job *job = reader->job;
    for (size_t i = 0; i < job_field_count; i++) {
        const struct job_field *field = &job_fields[i];
        if (field->kind != JOB_FIELD_INPUT)
            continue;
        const size_t kind = (field->offset - offsetof(struct job, input)) / sizeof *job->input;
        if (has_input(job, (enum job_input_kind)kind) && !(allowed[job->kind] & 1u << kind))
            return job_fail_at(reader, field->section, field->key, LT_BAD_INPUT,
                               "%s jobs have no use for it", job_kind_words[job->kind]);
        LT_TRY(check_shape(reader, field, kind, &job->input[kind]));
    }
    if (job->match && !has_input(job, JOB_INPUT_IMAGE))
        return job_fail_at(reader, "colour", "match", LT_BAD_INPUT,
                           "there is no /media/image to match");
    if (job->kind == JOB_IMAGE_TO_VIDEO && !has_input(job, JOB_INPUT_IMAGE) &&
        !has_input(job, JOB_INPUT_Y))
        return job_fail_at(reader, "media", "image", LT_BAD_INPUT, "missing");
    if (job->kind == JOB_ANIMATE && !has_input(job, JOB_INPUT_IMAGE))
        return job_fail_at(reader, "media", "image", LT_BAD_INPUT, "missing: the reference");
    if (has_input(job, JOB_INPUT_MASK) && !has_input(job, JOB_INPUT_BACKGROUND))
        return job_fail_at(reader, "media", "mask", LT_BAD_INPUT,
                           "there is no /media/background it keeps");
    if (job->kind == JOB_TALK)
        LT_TRY(check_talk(reader));
    if (job->mode == JOB_MODE_LOOP && job->noise == NOISE_TORCH)
        return job_fail_at(reader, "", "noise", LT_UNSUPPORTED,
                           "torch draws anew for each clip of a loop: use counter");
    if (job->mode == JOB_MODE_LOOP && has_input(job, JOB_INPUT_POSE))
        return job_fail_at(reader, "conditioning", "pose", LT_BAD_INPUT,
                           "a loop encodes each clip's pose by itself: give /media/pose");
    if (job->kind != JOB_ANIMATE && job->kind != JOB_TALK && job->mode == JOB_MODE_LOOP)
        return job_fail_at(reader, "", "mode", LT_BAD_INPUT, "%s jobs have no loop mode",
                           job_kind_words[job->kind]);
    return LT_OK;
}

static lt_status check_guide(const struct job_reader *reader)
{
    const struct job *job = reader->job;
    if (job->guide.nag_scale > 0 && !job->text_negative && !job->prompt_negative)
        return job_fail_at(reader, "text", "negative", LT_BAD_INPUT,
                           "needed, because /guide/nag_scale leads away from it");
    if (job->guide.skip_start > job->guide.skip_end)
        return job_fail_at(reader, "guide", "skip_start", LT_BAD_INPUT, "%g is behind skip_end %g",
                           job->guide.skip_start, job->guide.skip_end);
    if (job->guide.zero_steps > 0 && !job->guide.zero_star)
        return job_fail_at(reader, "guide", "zero_steps", LT_BAD_INPUT, "only with zero_star");
    return LT_OK;
}

/* A cache needs windows that stay, and numbers of the model; its other keys are its own. */
static lt_status check_cache(const struct job_reader *reader)
{
    const struct job *job = reader->job;
    const struct job_cache *cache = &job->cache;
    const bool tea = cache->kind == JOB_CACHE_TEACACHE, mag = cache->kind == JOB_CACHE_MAGCACHE;
    const struct {
        const char *key;
        bool given, allowed;
    } keys[] = {
        {"model", cache->model != SKIP_MODEL_NONE,
         mag || (tea && cache->curve != SKIP_CURVE_PLAIN)},
        {"threshold", cache->threshold > 0, cache->kind != JOB_CACHE_NONE},
        {"start", cache->start >= 0, cache->kind != JOB_CACHE_NONE},
        {"end", cache->end >= 0, cache->kind != JOB_CACHE_NONE},
        {"skips", cache->skips != 4, mag},
        {"curve", cache->curve != SKIP_CURVE_E, tea},
        {"neighbours", cache->neighbours, tea},
        {"compat", cache->compat, tea || mag},
    };
    for (size_t i = 0; i < LT_COUNT(keys); i++)
        if (keys[i].given && !keys[i].allowed)
            return job_fail_at(reader, "cache", keys[i].key, LT_BAD_INPUT,
                               "means nothing for this kind of cache");
    if (keys[0].allowed && !keys[0].given)
        return job_fail_at(reader, "cache", "model", LT_BAD_INPUT,
                           "needed: whose published numbers to go by");
    if (cache->kind != JOB_CACHE_NONE && job->mode == JOB_MODE_WINDOWS &&
        !window_schedule_is_static(job->schedule))
        return job_fail_at(reader, "cache", "kind", LT_BAD_INPUT,
                           "the windows of /window/schedule change with every step: nothing of an "
                           "earlier one can be used again");
    return LT_OK;
}

static lt_status check_tiles(const struct job_reader *reader)
{
    struct job *job = reader->job;
    if (job->decode_tile == 0)
        return job->decode_overlap < 0
                   ? LT_OK
                   : job_fail_at(reader, "decode", "overlap", LT_BAD_INPUT,
                                 "of tiles, and /decode/tile is 0: the picture is decoded whole");
    if (job->decode_tile % 16 || job->decode_tile < 64)
        return job_fail_at(reader, "decode", "tile", LT_BAD_INPUT,
                           "expected 0 or a multiple of 16 from 64 on, found %lld",
                           (long long)job->decode_tile);
    if (job->decode_overlap < 0)
        job->decode_overlap = job->decode_tile / 2 / 16 * 16;
    if (job->decode_overlap % 16 || job->decode_overlap >= job->decode_tile)
        return job_fail_at(
            reader, "decode", "overlap", LT_BAD_INPUT,
            "expected a multiple of 16 below /decode/tile, which is %lld, found %lld",
            (long long)job->decode_tile, (long long)job->decode_overlap);
    return LT_OK;
}

lt_status job_check(const struct job_reader *reader)
{
    struct job *job = reader->job;
    job->frame_count_padded = (job->frame_count + 2) / 4 * 4 + 1;
    job->window_stride = job->window_stride > 1 ? job->window_stride : 1;
    if (job->latent_channels == 48) { /* its VAE divides by 16, and the patches by 2 */
        job->width = job->width / 32 * 32;
        job->height = job->height / 32 * 32;
        if (job->width == 0 || job->height == 0)
            return job_fail_at(reader, "", "size", LT_BAD_INPUT, "at least 32x32 with 48 channels");
    }
    if (!job->text && !job->prompt)
        return job_fail_at(reader, "text", "positive", LT_BAD_INPUT, "missing (or a prompt)");
    LT_TRY(check_text_source(reader, "positive", job->text, "prompt", job->prompt));
    LT_TRY(check_text_source(reader, "negative", job->text_negative, "negative_prompt",
                             job->prompt_negative));
    LT_TRY(check_inputs(reader));
    for (size_t i = 0; i < job->lora_count; i++)
        if (job->lora[i].on != JOB_EXPERT_BOTH && !job->transformer_low.name)
            return job_fail_at(reader, "", "lora", LT_BAD_INPUT,
                               "'on' names one of two experts, and there is one transformer");
    if (job->window_overlap >= job->window_frames)
        return job_fail_at(reader, "window", "overlap", LT_BAD_INPUT,
                           "%lld is not below latent_frames %lld: the windows would not advance",
                           (long long)job->window_overlap, (long long)job->window_frames);
    if (job->decode_segment > 0 && job->decode_warmup < 1)
        return job_fail_at(
            reader, "decode", "warmup", LT_BAD_INPUT,
            "at least 1: the first latent frame of a run gives one of its four frames only");
    if (job->official_sigmas && job->sampler != SAMPLER_UNIPC && job->sampler != SAMPLER_DPMPP &&
        job->sampler != SAMPLER_DPMPP_SDE)
        return job_fail_at(reader, "sampler", "official", LT_BAD_INPUT,
                           "only for unipc, dpm++ and dpm++_sde");
    LT_TRY(check_conditioning(reader, "positive", job->text));
    LT_TRY(check_conditioning(reader, "negative", job->text_negative));
    for (size_t i = 0; i < job->guidance_count && !job->text_negative && !job->prompt_negative; i++)
        if (fabs(job->guidance[i] - 1) > 1e-9)
            return job_fail_at(reader, "text", "negative", LT_BAD_INPUT,
                               "needed, because guidance is %g; or set guidance to 1",
                               job->guidance[i]);
    LT_TRY(check_guide(reader));
    LT_TRY(check_cache(reader));
    LT_TRY(check_tiles(reader));
    struct sigma_list list;
    const struct lt_mark mark = lt_arena_mark(reader->arena);
    const lt_status status = sigma_list_build(job, reader->arena, &list, reader->error);
    lt_arena_rewind(reader->arena, mark);
    return status == LT_OK ? LT_OK : lt_error_prefix(reader->error, "%s: /sampler", reader->origin);
}
