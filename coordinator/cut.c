#include "coordinator/cut.h"

#include "coordinator/cut_private.h"
#include "coordinator/plan_skips.h"
#include "coordinator/skip.h"

#include <string.h>

/* -- encodes ----------------------------------------------------------------------------------- */

static void add_pictures(struct knife *knife, const enum job_input_kind *kind, uint32_t count,
                         const void *name)
{
    struct cut_cell *cell =
        begin(knife, LT_BLOB_PIXELS, picture_bytes(knife->job), count, one_channel, 1, name);
    for (uint32_t i = 0; cell && i < count; i++)
        cell[i] = (struct cut_cell){.source = CUT_INPUT, .index = kind[i], .frame_count = 1};
}

/* The frames of a clip (or of the whole take) of a video, back and forth beyond its end. */
static void add_video(struct knife *knife, enum job_input_kind kind, uint32_t clip,
                      const void *name)
{
    const struct plan *plan = knife->plan;
    const uint32_t count = encode_frames(plan);
    const int64_t start = plan->clips.count ? clips_at(&plan->clips, clip).pixel_start : 0;
    struct cut_cell *cell =
        begin(knife, LT_BLOB_PIXELS, picture_bytes(knife->job), count, one_channel, 1, name);
    for (uint32_t i = 0; cell && i < count; i++)
        cell[i] = (struct cut_cell){
            .source = CUT_INPUT,
            .index = kind,
            .frame = (uint32_t)pingpong_index(start + i, knife->job->input[kind].shape[0]),
            .frame_count = 1,
        };
}

/* InfiniteTalk: picture `clip` of a video, its last one again beyond its end. */
static void add_clip_picture(struct knife *knife, uint32_t clip, const void *name)
{
    const bool video = is_given(knife->job, JOB_INPUT_VIDEO_FRAMES);
    const uint32_t count = video ? knife->job->input[JOB_INPUT_VIDEO_FRAMES].shape[0] : 1;
    struct cut_cell *cell =
        begin(knife, LT_BLOB_PIXELS, picture_bytes(knife->job), 1, one_channel, 1, name);
    if (cell)
        *cell = (struct cut_cell){.source = CUT_INPUT,
                                  .index = video ? JOB_INPUT_VIDEO_FRAMES : JOB_INPUT_IMAGE,
                                  .frame = clip < count ? clip : count - 1,
                                  .frame_count = 1};
}

static void add_times(struct knife *knife, uint32_t expert, const void *name)
{
    const struct plan_steps steps = plan_expert_steps(knife->plan, expert);
    struct cut_cell *cell =
        begin(knife, LT_BLOB_TIMES, sizeof(double), steps.count, one_channel, 1, name);
    for (uint32_t i = 0; cell && i < steps.count; i++)
        cell[i] =
            (struct cut_cell){.source = CUT_TIMES, .index = steps.first + i, .frame_count = 1};
}

static enum job_input_kind clip_image(const struct job *job, uint32_t index)
{
    const enum job_input_kind original = index ? JOB_INPUT_END_CLIP_IMAGE : JOB_INPUT_CLIP_IMAGE;
    if (is_given(job, original))
        return original;
    return index ? JOB_INPUT_END_IMAGE : JOB_INPUT_IMAGE;
}

static void cut_condition(struct knife *knife, const struct plan_condition *condition)
{
    static const enum job_input_kind images[] = {JOB_INPUT_IMAGE, JOB_INPUT_END_IMAGE};
    const struct job *job = knife->job;
    size_t bytes;
    switch (condition->what) {
    case PLAN_CONDITION_TEXT:
        cut_prompt(job->prompt, condition->index, &bytes);
        add_whole(knife, LT_BLOB_PROMPT, bytes, CUT_PROMPT, condition->index, condition);
        break;
    case PLAN_CONDITION_NEGATIVE:
        add_whole(knife, LT_BLOB_PROMPT, strlen(job->prompt_negative), CUT_PROMPT,
                  CUT_PROMPT_NEGATIVE, condition);
        break;
    case PLAN_CONDITION_AUDIO: {
        const enum job_input_kind kind = condition->index ? JOB_INPUT_VOICE_2 : JOB_INPUT_VOICE;
        add_whole(knife, LT_BLOB_SAMPLES, 4 * (uint64_t)job->input[kind].shape[3], CUT_INPUT, kind,
                  condition);
        break;
    }
    case PLAN_CONDITION_TIMES:
        add_times(knife, condition->index, condition);
        break;
    case PLAN_CONDITION_CLIP: {
        const enum job_input_kind kind = clip_image(job, condition->index);
        const uint32_t *shape = job->input[kind].shape;
        add_whole(knife, LT_BLOB_PIXELS, 3 * (uint64_t)shape[1] * shape[2], CUT_INPUT, kind,
                  condition);
        break;
    }
    case PLAN_CONDITION_Y:
        if (job->kind == JOB_IMAGE_TO_VIDEO)
            add_pictures(knife, images, is_given(job, JOB_INPUT_END_IMAGE) ? 2 : 1, condition);
        if (job->kind == JOB_TALK)
            add_clip_picture(knife, condition->index, condition);
        if (is_given(job, JOB_INPUT_BACKGROUND))
            add_video(knife, JOB_INPUT_BACKGROUND, 0, condition);
        break;
    case PLAN_CONDITION_FIRST:
        add_pictures(knife, images, 1, condition);
        break;
    case PLAN_CONDITION_POSE:
        add_video(knife, JOB_INPUT_POSE_FRAMES, condition->index, condition);
        break;
    }
}

/* -- tasks ------------------------------------------------------------------------------------- */

lt_status cut_task(const struct job *job, const struct plan *plan, uint32_t task,
                   const uint64_t text_bytes[2], struct lt_arena *arena,
                   struct cut cuts_out[CUTS_MAX], size_t *count_out, struct lt_error *error)
{
    struct knife knife = {
        .job = job, .plan = plan, .arena = arena, .cut = cuts_out, .text_bytes = text_bytes};
    uint32_t *channels = lt_arena_take_array(arena, 1, sizeof *channels);
    uint32_t index, w;
    if (!channels)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the blobs of a task");
    *channels = (uint32_t)plan->latent_channels;
    switch (plan_task(plan, task, &index, &w)) {
    case PLAN_PREDICT: {
        const struct window *window = &plan->step[index].window[w];
        cut_add_latents(&knife, window->frame, 0, window->frame_count, channels);
        cut_add_window(&knife, w, window,
                       plan->step[index].guidance != 1 || job->guide.nag_scale > 0);
        break;
    }
    case PLAN_DECODE:
        cut_add_latents(&knife, NULL, plan->segment[index].frame_first,
                        plan->segment[index].frame_count, channels);
        if (is_given(job, JOB_INPUT_BACKGROUND) && index + 1 < plan->clips.count)
            add_video(&knife, JOB_INPUT_BACKGROUND, index + 1, &plan->segment[index]);
        if (job->match != LT_MATCH_NONE)
            add_whole(&knife, LT_BLOB_REFERENCE, picture_bytes(job), CUT_INPUT, JOB_INPUT_IMAGE,
                      &job->match);
        break;
    default:
        cut_condition(&knife, &plan->condition[index]);
        break;
    }
    *count_out = knife.count;
    return knife.failed ? lt_fail(error, LT_NO_MEMORY, "no memory for the blobs of a task") : LT_OK;
}

lt_status cut_latents(const struct job *job, const struct plan *plan, struct lt_arena *arena,
                      struct cut *cut_out, struct lt_error *error)
{
    struct knife knife = {.job = job, .plan = plan, .arena = arena, .cut = cut_out};
    uint32_t *channels = lt_arena_take_array(arena, 1, sizeof *channels);
    if (channels) {
        *channels = (uint32_t)plan->latent_channels;
        cut_add_latents(&knife, NULL, 0, (uint32_t)plan->latent_frames, channels);
    }
    return channels && !knife.failed ? LT_OK
                                     : lt_fail(error, LT_NO_MEMORY, "no memory for the latents");
}

uint64_t cut_bytes(const struct cut *cut)
{
    uint64_t channels = 0;
    for (uint32_t g = 0; g < cut->group_count; g++)
        channels += cut->channels[g];
    return channels * cut->slot_count * cut->plane_bytes;
}

static void set_shape(struct lt_task_spec *spec, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    const uint64_t dim[4] = {a, b, c, d};
    for (int i = 0; i < 4; i++)
        spec->shape[i] = (uint32_t)dim[i];
}

static void encode_spec(const struct job *job, const struct plan *plan, uint32_t frames,
                        struct lt_task_spec *spec)
{
    spec->kind = LT_TASK_VAE_ENCODE;
    set_shape(spec, 3, frames, (uint64_t)job->height, (uint64_t)job->width);
    spec->result_bytes = plan->frame_bytes * ((frames - 1) / 4 + 1);
}

static void condition_spec(const struct job *job, const struct plan *plan,
                           const struct plan_condition *condition, struct lt_task_spec *spec)
{
    const uint32_t frames = encode_frames(plan);
    switch (condition->what) {
    case PLAN_CONDITION_TEXT:
    case PLAN_CONDITION_NEGATIVE:
        spec->kind = LT_TASK_ENCODE_TEXT;
        spec->text_style = job->text_style;
        set_shape(spec, (uint64_t)job->text_len, (uint64_t)job->text_width, 1, 1);
        spec->result_bytes = 4 * (uint64_t)job->text_len * (uint64_t)job->text_width;
        break;
    case PLAN_CONDITION_CLIP: {
        const uint32_t *shape = job->input[clip_image(job, condition->index)].shape;
        spec->kind = LT_TASK_ENCODE_IMAGE;
        set_shape(spec, 3, 1, shape[1], shape[2]);
        spec->result_bytes = 4 * CLIP_ROWS * CLIP_WIDTH;
        break;
    }
    case PLAN_CONDITION_AUDIO: {
        const enum job_input_kind kind = condition->index ? JOB_INPUT_VOICE_2 : JOB_INPUT_VOICE;
        const uint64_t rows = cut_audio_rows(job);
        spec->kind = LT_TASK_ENCODE_AUDIO;
        set_shape(spec, rows, (uint64_t)job->audio_layers, (uint64_t)job->audio_width,
                  job->input[kind].shape[3]);
        spec->result_bytes = 4 * rows * (uint64_t)job->audio_layers * (uint64_t)job->audio_width;
        break;
    }
    case PLAN_CONDITION_TIMES: { /* asks for the memory that the predictions will */
        const struct plan_steps steps = plan_expert_steps(plan, condition->index);
        const struct plan_step *step = &plan->step[steps.first];
        spec->kind = LT_TASK_COMPARE_TIMES;
        set_shape(spec, (uint64_t)plan->latent_channels, step->window[0].frame_count,
                  (uint64_t)plan->latent_height, (uint64_t)plan->latent_width);
        spec->guidance = step->guidance;
        spec->time_projected = job->cache.curve != SKIP_CURVE_E;
        spec->result_bytes = sizeof(float) * (uint64_t)steps.count * steps.count;
        break;
    }
    case PLAN_CONDITION_Y:
        encode_spec(job, plan, frames, spec);
        if (job->kind != JOB_ANIMATE)
            spec->frame_at[spec->frame_at_count++] = 0;
        if (is_given(job, JOB_INPUT_END_IMAGE))
            spec->frame_at[spec->frame_at_count++] = frames - 1;
        break;
    case PLAN_CONDITION_FIRST:
        encode_spec(job, plan, 1, spec);
        break;
    case PLAN_CONDITION_POSE:
        encode_spec(job, plan, frames, spec);
        break;
    }
}

static void guide_spec(const struct job *job, const struct plan *plan, uint32_t s,
                       struct lt_task_spec *spec)
{
    const struct job_guide *guide = &job->guide;
    const double share = (double)s / (double)plan->step_count;
    spec->guide = guide->zero_star ? LT_GUIDE_ZERO_STAR : LT_GUIDE_CFG;
    spec->no_velocity = s < (uint32_t)guide->zero_steps;
    if (guide->nag_scale > 0) {
        const double nag[LT_SPEC_NAG] = {guide->nag_scale, guide->nag_tau, guide->nag_alpha};
        memcpy(spec->nag, nag, sizeof nag);
        spec->nag_count = LT_SPEC_NAG;
    }
    if (guide->skip_start <= share && share <= guide->skip_end)
        for (size_t i = 0; i < guide->skip_layer_count; i++)
            spec->skip_layer[spec->skip_layer_count++] = (uint32_t)guide->skip_layer[i];
    if (guide->riflex > 0) {
        spec->riflex_index = (uint32_t)guide->riflex;
        spec->riflex_frames = (uint32_t)plan->latent_frames;
    }
    if (job->pose_strength != 1 || job->face_strength != 1) {
        spec->strength[0] = job->pose_strength;
        spec->strength[1] = job->face_strength;
        spec->strength_count = LT_SPEC_STRENGTHS;
    }
}

/* Key and plan; docs/caches.md. */
static void cache_spec(const struct job *job, const struct plan *plan, uint32_t s,
                       struct lt_task_spec *spec)
{
    if (job->cache.kind == JOB_CACHE_NONE)
        return;
    spec->cache = job->cache.kind == JOB_CACHE_EASYCACHE ? LT_CACHE_EASY : LT_CACHE_PLANNED;
    spec->cache_step = s;
    spec->cache_threshold = plan_threshold(job, plan, s);
    for (uint32_t which = 0; plan->step[s].skip && which < LT_SPEC_PREDICTIONS; which++)
        spec->reuse[spec->reuse_count++] = plan_reuse(plan, s, which);
}

static void predict_spec(const struct job *job, const struct plan *plan,
                         const struct plan_step *step, const struct window *window,
                         struct lt_task_spec *spec)
{
    spec->kind = LT_TASK_PREDICT;
    set_shape(spec, (uint64_t)plan->latent_channels, window->frame_count,
              (uint64_t)plan->latent_height, (uint64_t)plan->latent_width);
    spec->timestep = step->timestep;
    spec->guidance = step->guidance;
    spec->result_bytes = plan->frame_bytes * window->frame_count;
    guide_spec(job, plan, (uint32_t)(step - plan->step), spec);
    cache_spec(job, plan, (uint32_t)(step - plan->step), spec);
    if (job->kind == JOB_TALK) {
        spec->audio_guidance = job->audio_guidance;
        spec->audio_formula = job->audio_formula;
    }
    for (uint32_t k = 0; k < window->frame_count; k++)
        if (cut_is_clean(plan, job, window->frame[k]) && spec->clean_slot_count < LT_SPEC_SLOTS_MAX)
            spec->clean_slot[spec->clean_slot_count++] = k;
}

static void decode_spec(const struct job *job, const struct plan *plan, uint32_t index,
                        struct lt_task_spec *spec)
{
    const struct plan_segment *segment = &plan->segment[index];
    spec->kind = LT_TASK_VAE_DECODE;
    set_shape(spec, (uint64_t)plan->latent_channels, segment->frame_count,
              (uint64_t)plan->latent_height, (uint64_t)plan->latent_width);
    spec->drop_frames = segment->drop_frames;
    spec->match = (uint32_t)job->match;
    spec->match_strength = job->match_strength;
    spec->tile = (uint32_t)(job->decode_tile / plan->scale);
    spec->tile_stride =
        spec->tile ? (uint32_t)((job->decode_tile - job->decode_overlap) / plan->scale) : 0;
    const uint64_t frames = 4 * ((uint64_t)segment->frame_count - 1) + 1 - segment->drop_frames;
    spec->result_bytes = frames * picture_bytes(job);
    if (plan->clips.count && index + 1 < plan->clips.count) {
        const bool alone = job->kind == JOB_TALK && job->talk_variant == JOB_TALK_INFINITETALK;
        spec->handoff_frames = plan->clips.params.overlap_frames;
        spec->handoff_length = alone ? spec->handoff_frames : plan->clips.params.clip_frames;
        spec->result_bytes += plan->frame_bytes * ((spec->handoff_length - 1) / 4 + 1);
    }
}

void cut_spec(const struct job *job, const struct plan *plan, uint32_t task,
              struct lt_task_spec *spec)
{
    uint32_t index, w;
    spec->guidance = 1;
    switch (plan_task(plan, task, &index, &w)) {
    case PLAN_PREDICT:
        predict_spec(job, plan, &plan->step[index], &plan->step[index].window[w], spec);
        break;
    case PLAN_DECODE:
        decode_spec(job, plan, index, spec);
        break;
    default:
        condition_spec(job, plan, &plan->condition[index], spec);
        break;
    }
}

const char *cut_prompt(const char *prompts, uint32_t index, size_t *bytes_out)
{
    while (index-- > 0 && strchr(prompts, '|'))
        prompts = strchr(prompts, '|') + 1;
    size_t bytes = strcspn(prompts, "|");
    while (bytes > 0 && *prompts == ' ')
        prompts++, bytes--;
    while (bytes > 0 && prompts[bytes - 1] == ' ')
        bytes--;
    *bytes_out = bytes;
    return prompts;
}

static bool is_conditioning(const struct cut *cut)
{
    return cut->role != LT_BLOB_LATENTS && cut->role != LT_BLOB_TEXT &&
           cut->role != LT_BLOB_TEXT_NEGATIVE;
}

static lt_status count_down(const struct job *job, const struct plan *plan, uint32_t task,
                            uint64_t *bytes, struct lt_error *error)
{
    static const uint64_t text_bytes[2] = {0, 0};
    struct cut cuts[CUTS_MAX];
    struct lt_arena arena;
    size_t count;
    lt_arena_init(&arena, 0);
    const lt_status status = cut_task(job, plan, task, text_bytes, &arena, cuts, &count, error);
    for (size_t i = 0; status == LT_OK && i < count; i++)
        if (is_conditioning(&cuts[i]))
            *bytes += cut_bytes(&cuts[i]);
    lt_arena_fini(&arena);
    return status;
}

lt_status cut_wire(const struct job *job, const struct plan *plan, uint64_t *down_out,
                   uint64_t *up_out, struct lt_error *error)
{
    const uint32_t decodes = plan->predict_count, encodes = decodes + plan->segment_count;
    struct job known = *job;
    uint64_t down = 0, up = 0;
    for (size_t i = 0; i < JOB_INPUT_COUNT; i++)
        for (size_t d = 0; known.input[i].path && d < JOB_INPUT_RANK; d++)
            known.input[i].shape[d] = 1;
    for (uint32_t w = 0; w < plan->step[0].window_count; w++)
        LT_TRY(count_down(&known, plan, plan->step[0].task_first + w, &down, error));
    for (uint32_t task = decodes; task < plan->task_count; task++) {
        struct lt_task_spec spec = {0};
        LT_TRY(count_down(&known, plan, task, &down, error));
        cut_spec(&known, plan, task, &spec);
        if (task >= encodes)
            up += spec.result_bytes;
        else if (spec.handoff_length)
            up += plan->frame_bytes * ((spec.handoff_length - 1) / 4 + 1);
    }
    *down_out = down;
    *up_out = up;
    return LT_OK;
}
