/* Windows come from window.c, levels from sigma.c; here they become numbered tasks with their
 * bytes. Static schedules share one window list over all steps; the uniform ones keep a list per
 * step. */
#include "coordinator/plan.h"

#include "coordinator/plan_skips.h"
#include "coordinator/sigma.h"
#include "coordinator/window.h"

#include <math.h>

/* Limits of one job, so that a plan and its graph stay within a few hundred MB. A slot is a
 * (window, frame) pair of a stored list, 8 bytes; a window itself costs as much as 16 of them. */
enum { TASKS_MAX = 4 << 20, SLOTS_MAX = 32 << 20, SLOTS_PER_WINDOW = 16 };

static lt_status no_memory(struct lt_error *error)
{
    return lt_fail(error, LT_NO_MEMORY, "no memory for the plan");
}

static enum clips_mode clips_mode(const struct job *job)
{
    if (job->kind == JOB_ANIMATE)
        return CLIPS_ANIMATE;
    return job->talk_variant == JOB_TALK_MULTITALK ? CLIPS_MULTITALK : CLIPS_INFINITETALK;
}

/* Bytes and shapes that follow from the job alone. */
static lt_status measure(const struct job *job, struct plan *plan, struct lt_error *error)
{
    if (job->frame_count < 1 || job->frame_count > JOB_FRAMES_MAX)
        return lt_fail(error, LT_BAD_INPUT, "%lld frames: expected 1 to %d",
                       (long long)job->frame_count, JOB_FRAMES_MAX);
    if (job->width < 16 || job->height < 16 || job->latent_channels < 1)
        return lt_fail(
            error, LT_BAD_INPUT, "a video of %lldx%lld with %lld latent channels is empty",
            (long long)job->width, (long long)job->height, (long long)job->latent_channels);
    plan->latent_channels = job->latent_channels;
    plan->scale = job->latent_channels == 48 ? 16 : 8;
    plan->lead = job->kind == JOB_ANIMATE;
    plan->latent_height = job->height / (2 * plan->scale) * 2; /* patches are 2 x 2 */
    plan->latent_width = job->width / (2 * plan->scale) * 2;
    plan->latent_frames = plan->lead + (job->frame_count_padded - 1) / 4 + 1;
    if (job->mode == JOB_MODE_LOOP) {
        const struct clips_params clips = {.mode = clips_mode(job),
                                           .frame_count = job->frame_count,
                                           .clip_frames = (uint32_t)job->clip_frames,
                                           .overlap_frames = (uint32_t)job->clip_overlap};
        LT_TRY(clips_plan(&clips, &plan->clips, error));
        plan->latent_frames = (int64_t)plan->clips.count * clips_at(&plan->clips, 0).latent_count;
    }
    plan->frame_bytes = 4 * (uint64_t)plan->latent_channels * (uint64_t)plan->latent_height *
                        (uint64_t)plan->latent_width;
    return LT_OK;
}

static uint64_t count_slots(const struct window_list *list)
{
    uint64_t slots = 0;
    for (uint32_t w = 0; w < list->count; w++)
        slots += list->window[w].frame_count;
    return slots;
}

static lt_status too_large(struct lt_error *error)
{
    return lt_fail(
        error, LT_UNSUPPORTED,
        "the job would have over %d tasks or %d window slots: raise the hop (window frames less "
        "overlap) or use fewer steps",
        TASKS_MAX, SLOTS_MAX);
}

/* Before anything is built: every schedule has at least the windows of stride 1. */
static bool job_is_too_large(const struct window_params *params, uint64_t step_count)
{
    if (params->overlap >= params->size || params->size >= params->frame_count)
        return false;
    const bool batched = window_schedule_is_batched(params->schedule);
    const uint64_t hop = batched ? params->size : params->size - params->overlap;
    const uint64_t windows = (params->frame_count - params->size) / hop + 1;
    const uint64_t lists = window_schedule_is_static(params->schedule) ? 1 : step_count;
    return windows * step_count > TASKS_MAX ||
           windows * lists * (params->size + SLOTS_PER_WINDOW) > SLOTS_MAX;
}

/* The last value goes on; what is 1 but for rounding is 1, so that one prediction suffices. */
static double step_guidance(const struct job *job, uint32_t step)
{
    if (job->guidance_count == 0)
        return 1;
    const size_t last = job->guidance_count - 1;
    const double guidance = job->guidance[step < last ? step : last];
    return fabs(guidance - 1) <= 1e-9 ? 1 : guidance;
}

/* A loop's windows: the latent frames of each clip, side by side in one array; each stands alone.
 */
static lt_status clip_windows(const struct plan *plan, struct lt_arena *arena,
                              struct window_list *list_out, struct lt_error *error)
{
    const uint32_t size = clips_at(&plan->clips, 0).latent_count, count = plan->clips.count;
    struct window *window = lt_arena_take_array(arena, count, sizeof *window);
    uint32_t *frame = lt_arena_take_array(arena, (size_t)count * size, sizeof *frame);
    float *weight = lt_arena_take_array(arena, size, sizeof *weight);
    if (!window || !frame || !weight)
        return no_memory(error);
    for (uint32_t k = 0; k < size; k++)
        weight[k] = 1;
    for (uint32_t f = 0; f < count * size; f++)
        frame[f] = f;
    for (uint32_t c = 0; c < count; c++)
        window[c] = (struct window){frame + (size_t)c * size, weight, size};
    *list_out = (struct window_list){.window = window, .count = count};
    return LT_OK;
}

static lt_status plan_steps(const struct job *job, struct lt_arena *arena, struct plan *plan,
                            struct lt_error *error)
{
    struct sigma_list levels;
    LT_TRY(sigma_list_build(job, arena, &levels, error));
    const struct window_params params = {
        .schedule = job->schedule,
        .fuse = job->fuse,
        .frame_count = (uint32_t)plan->latent_frames,
        .size = (uint32_t)job->window_frames,
        .overlap = (uint32_t)job->window_overlap,
        .stride = (uint32_t)(job->window_stride > 1 ? job->window_stride : 1),
    };
    struct plan_step *steps = lt_arena_take_array(arena, levels.count, sizeof *steps);
    if (!steps)
        return no_memory(error);
    const bool loop = job->mode == JOB_MODE_LOOP;
    if (!loop && job_is_too_large(&params, levels.count))
        return too_large(error);
    struct window_list list = {0};
    uint64_t task_count = 0, stored_slots = 0;
    for (uint32_t s = 0; s < levels.count; s++) {
        if (s == 0 || (!loop && !window_schedule_is_static(job->schedule))) {
            LT_TRY(loop ? clip_windows(plan, arena, &list, error)
                        : window_list_build(&params, s, arena, &list, error));
            stored_slots += count_slots(&list) + (uint64_t)list.count * SLOTS_PER_WINDOW;
        }
        if (task_count + list.count > TASKS_MAX || stored_slots > SLOTS_MAX)
            return too_large(error);
        steps[s] = (struct plan_step){
            .window = list.window,
            .window_count = list.count,
            .task_first = (uint32_t)task_count,
            .sigma = levels.sigma[s],
            .sigma_next = levels.sigma[s + 1],
            .timestep = levels.timestep[s],
            .guidance = step_guidance(job, s),
            .low_expert =
                job->transformer_low.name && sigma_low_expert(levels.timestep[s], job->boundary),
        };
        task_count += list.count;
        const uint64_t bytes = plan->frame_bytes * count_slots(&list);
        plan->wire_bytes_down += bytes;
        plan->wire_bytes_up += bytes;
    }
    plan->step = steps;
    plan->step_count = levels.count;
    plan->predict_count = (uint32_t)task_count;
    return LT_OK;
}

/* Latent 0 holds pixel frame 0 and latent k >= 1 holds 4k-3 .. 4k of the take; a run that starts at
 * any latent gives 1 frame for its first and 4 for each other, so the first latent of a later run
 * is always warm-up. */
static struct plan_segment make_segment(const struct job *job, uint32_t latent_frames,
                                        uint32_t first, uint32_t count)
{
    const uint32_t warmup = job->decode_warmup < first ? (uint32_t)job->decode_warmup : first;
    const uint32_t run_first = first - warmup;
    const uint32_t pixel_first = first ? 4 * first - 3 : 0;
    uint32_t pixel_end = 4 * (first + count - 1) + 1; /* `first` counts from the picture's first */
    if (first + count == latent_frames && pixel_end > job->frame_count)
        pixel_end = (uint32_t)job->frame_count;
    return (struct plan_segment){
        .frame_first = run_first,
        .frame_count = warmup + count,
        .drop_frames = warmup ? 4 * warmup - 3 : 0,
        .pixel_first = pixel_first,
        .pixel_count = pixel_end - pixel_first,
    };
}

/* A loop decodes each clip as a video of its own. */
static struct plan_segment clip_segment(const struct plan *plan, uint32_t index)
{
    const struct clip clip = clips_at(&plan->clips, index);
    return (struct plan_segment){
        .frame_first = index * clip.latent_count + clip.latent_drop_front,
        .frame_count = clip.latent_count - clip.latent_drop_front,
        .drop_frames = clip.drop_front,
        .pixel_first = (uint32_t)clip.take_start,
        .pixel_count = clip.keep_count,
    };
}

static lt_status plan_segments(const struct job *job, struct lt_arena *arena, struct plan *plan,
                               struct lt_error *error)
{
    const bool loop = job->mode == JOB_MODE_LOOP;
    const uint32_t frames = (uint32_t)plan->latent_frames - plan->lead;
    const uint32_t size = job->decode_segment > 0 && job->decode_segment < frames
                              ? (uint32_t)job->decode_segment
                              : frames;
    if (!loop && size < frames && job->decode_warmup < 1)
        return lt_fail(
            error, LT_BAD_INPUT,
            "decode warm-up must be at least 1 latent frame: the first latent of a run gives only "
            "one of its four frames");
    const uint32_t count = loop ? plan->clips.count : (frames + size - 1) / size;
    struct plan_segment *segment = lt_arena_take_array(arena, count, sizeof *segment);
    if (!segment)
        return no_memory(error);
    const uint64_t pixel_bytes = 3 * (uint64_t)plan->scale * plan->scale *
                                 (uint64_t)plan->latent_height * (uint64_t)plan->latent_width;
    for (uint32_t k = 0; k < count; k++) {
        const uint32_t first = k * size;
        segment[k] =
            loop ? clip_segment(plan, k)
                 : make_segment(job, frames, first, frames - first < size ? frames - first : size);
        segment[k].frame_first += loop ? 0 : plan->lead;
        plan->wire_bytes_down += plan->frame_bytes * segment[k].frame_count;
        plan->wire_bytes_up += pixel_bytes * segment[k].pixel_count;
    }
    plan->segment = segment;
    plan->segment_count = count;
    return LT_OK;
}

/* -- conditioning ------------------------------------------------------------------------------ */

uint32_t plan_find_condition(const struct plan *plan, enum plan_condition_what what, uint32_t index)
{
    for (uint32_t i = 0; i < plan->condition_count; i++)
        if (plan->condition[i].what == what && plan->condition[i].index == index)
            return plan->predict_count + plan->segment_count + i;
    return UINT32_MAX;
}

static void add_condition(struct plan *plan, enum plan_condition_what what, uint32_t index)
{
    plan->condition[plan->condition_count++] = (struct plan_condition){what, index};
}

static uint32_t count_prompts(const struct job *job)
{
    uint32_t count = 1;
    for (const char *c = job->prompt ? job->prompt : ""; *c; c++)
        count += *c == '|';
    return count;
}

static bool is_given(const struct job *job, enum job_input_kind kind)
{
    return job->input[kind].path || job->input[kind].uploaded;
}

/* InfiniteTalk's loop: every clip is conditioned on a picture, and its first latents are those of
 * the frames handed on (pipeline.md 2.4). */
static bool takes_clean_motion(const struct job *job)
{
    return job->kind == JOB_TALK && job->mode == JOB_MODE_LOOP &&
           job->talk_variant == JOB_TALK_INFINITETALK;
}

/* What must be computed before the windows; in a loop the pose of every clip is a task of its own,
 * so that later clips are encoded while earlier ones are denoised. */
static void list_conditions(const struct job *job, struct plan *plan)
{
    bool guided = job->guide.nag_scale > 0;
    for (uint32_t s = 0; s < plan->step_count; s++)
        guided |= plan->step[s].guidance != 1;
    for (uint32_t p = 0; job->prompt && p < plan->prompt_count; p++)
        add_condition(plan, PLAN_CONDITION_TEXT, p);
    if (guided && job->prompt_negative)
        add_condition(plan, PLAN_CONDITION_NEGATIVE, 0);
    if (job->vision.name && !is_given(job, JOB_INPUT_CLIP)) {
        add_condition(plan, PLAN_CONDITION_CLIP, 0);
        if (is_given(job, JOB_INPUT_END_IMAGE))
            add_condition(plan, PLAN_CONDITION_CLIP, 1);
    }
    if (is_given(job, JOB_INPUT_IMAGE) &&
        (job->kind == JOB_ANIMATE || plan->scale == 16 || takes_clean_motion(job)))
        add_condition(plan, PLAN_CONDITION_FIRST, 0);
    if ((job->kind == JOB_IMAGE_TO_VIDEO && plan->scale == 8 && !is_given(job, JOB_INPUT_Y)) ||
        job->kind == JOB_ANIMATE || job->kind == JOB_TALK)
        for (uint32_t c = 0; c < (takes_clean_motion(job) ? plan->clips.count : 1); c++)
            add_condition(plan, PLAN_CONDITION_Y, c);
    if (job->kind == JOB_TALK && !is_given(job, JOB_INPUT_AUDIO)) {
        add_condition(plan, PLAN_CONDITION_AUDIO, 0);
        if (is_given(job, JOB_INPUT_VOICE_2))
            add_condition(plan, PLAN_CONDITION_AUDIO, 1);
    }
    for (uint32_t expert = 0; job->cache.kind == JOB_CACHE_TEACACHE && expert < 2; expert++)
        if (plan_expert_steps(plan, expert).count > 0)
            add_condition(plan, PLAN_CONDITION_TIMES, expert);
    if (is_given(job, JOB_INPUT_POSE_FRAMES) && !is_given(job, JOB_INPUT_POSE))
        for (uint32_t c = 0; c < (plan->clips.count ? plan->clips.count : 1); c++)
            add_condition(plan, PLAN_CONDITION_POSE, c);
}

/* The windows of the first step wait; later steps wait for those. Of a loop's clips each waits for
 * its own, and for the decode of the clip before, which hands on its last frames. */
static lt_status list_edges(struct plan *plan, struct lt_arena *arena, struct lt_error *error)
{
    const uint32_t windows = plan->step[0].window_count, first = plan->predict_count;
    const size_t room = (size_t)windows * (plan->condition_count + 1);
    struct plan_edge *edge = lt_arena_take_array(arena, room ? room : 1, sizeof *edge);
    uint32_t count = 0;
    if (!edge)
        return no_memory(error);
    for (uint32_t w = 0; w < windows; w++) {
        for (uint32_t i = 0; i < plan->condition_count; i++) {
            const struct plan_condition *condition = &plan->condition[i];
            const bool of_clip =
                condition->what == PLAN_CONDITION_POSE || condition->what == PLAN_CONDITION_Y;
            const bool other_clip = plan->clips.count > 0 && of_clip && condition->index != w;
            if (!other_clip)
                edge[count++] = (struct plan_edge){first + plan->segment_count + i, w};
        }
        if (plan->clips.count > 0 && w > 0)
            edge[count++] = (struct plan_edge){first + w - 1, w};
    }
    plan->edge = edge;
    plan->edge_count = count;
    return LT_OK;
}

static lt_status plan_conditions(const struct job *job, struct lt_arena *arena, struct plan *plan,
                                 struct lt_error *error)
{
    plan->prompt_count = count_prompts(job);
    const size_t room = plan->prompt_count + plan->clips.count + 12;
    plan->condition = lt_arena_take_array(arena, room, sizeof *plan->condition);
    if (!plan->condition)
        return no_memory(error);
    list_conditions(job, plan);
    lt_assert(plan->condition_count <= room);
    plan->task_count = plan->predict_count + plan->segment_count + plan->condition_count;
    return list_edges(plan, arena, error);
}

lt_status plan_build(const struct job *job, struct lt_arena *arena, struct plan *plan_out,
                     struct lt_error *error)
{
    struct plan plan = {0};
    LT_TRY(measure(job, &plan, error));
    LT_TRY(plan_steps(job, arena, &plan, error));
    LT_TRY(plan_segments(job, arena, &plan, error));
    LT_TRY(plan_conditions(job, arena, &plan, error));
    plan_skips(job, &plan);
    *plan_out = plan;
    return LT_OK;
}

enum plan_task_kind plan_task(const struct plan *plan, uint32_t task, uint32_t *step_or_segment_out,
                              uint32_t *window_out)
{
    lt_assert(task < plan->task_count);
    if (task >= plan->predict_count + plan->segment_count) {
        *step_or_segment_out = task - plan->predict_count - plan->segment_count;
        *window_out = 0;
        return PLAN_CONDITION;
    }
    if (task >= plan->predict_count) {
        *step_or_segment_out = task - plan->predict_count;
        *window_out = 0;
        return PLAN_DECODE;
    }
    uint32_t low = 0, high = plan->step_count; /* the last step whose first task is not beyond it */
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        if (plan->step[middle].task_first <= task)
            low = middle;
        else
            high = middle;
    }
    *step_or_segment_out = low;
    *window_out = task - plan->step[low].task_first;
    return PLAN_PREDICT;
}
