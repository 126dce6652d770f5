#include "coordinator/cut.h"

#include "coordinator/slices.h"

#include <string.h>

enum {
    CLIP_ROWS = 257, /* ViT-H/14 at 224: 16 x 16 patches and the class token */
    CLIP_WIDTH = 1280,
    AUDIO_FPS = 25,
    AUDIO_RATE = 16000,
    AUDIO_TAPS = 5,
    AUDIO_HEARD = 8,   /* rows of a latent frame but the first */
    MASK_CHANNELS = 4, /* one for each pixel frame of a latent frame */
};

static const uint32_t one_channel[] = {1}, pose_channels[] = {16};

/* A task being cut. */
struct knife {
    const struct job *job;
    const struct plan *plan;
    struct lt_arena *arena;
    struct cut *cut;
    size_t count;
    const uint64_t *text_bytes;
    bool failed; /* no memory */
};

static struct cut_cell zero(void)
{
    return (struct cut_cell){.source = CUT_ZERO, .frame_count = 1};
}

static struct cut_cell one(void)
{
    return (struct cut_cell){.source = CUT_ONE, .frame_count = 1};
}

/* Room for the cells of a new blob. NULL: no memory. */
static struct cut_cell *begin(struct knife *knife, enum lt_blob_role role, uint64_t plane_bytes,
                              uint32_t slots, const uint32_t *channels, uint32_t groups,
                              const void *name)
{
    struct cut_cell *cell = lt_arena_take_array(knife->arena, (size_t)groups * slots, sizeof *cell);
    lt_assert(knife->count < CUTS_MAX);
    if (!cell) {
        knife->failed = true;
        return NULL;
    }
    knife->cut[knife->count++] = (struct cut){.role = role,
                                              .plane_bytes = plane_bytes,
                                              .slot_count = slots,
                                              .group_count = groups,
                                              .channels = channels,
                                              .cell = cell,
                                              .name = name};
    return cell;
}

static void add_whole(struct knife *knife, enum lt_blob_role role, uint64_t bytes,
                      enum cut_source source, uint32_t index, const void *name)
{
    struct cut_cell *cell = begin(knife, role, bytes, 1, one_channel, 1, name);
    if (cell)
        *cell = (struct cut_cell){.source = source, .index = index, .frame_count = 1};
}

static uint64_t latent_plane(const struct plan *plan)
{
    return plan->frame_bytes / (uint64_t)plan->latent_channels;
}

static uint64_t picture_bytes(const struct job *job)
{
    return 3 * (uint64_t)job->width * (uint64_t)job->height;
}

static bool is_given(const struct job *job, enum job_input_kind kind)
{
    return job->input[kind].uploaded || job->input[kind].path;
}

/* Number of a conditioning task among them; UINT32_MAX: the job has none. */
static uint32_t find(const struct plan *plan, enum plan_condition_what what, uint32_t index)
{
    const uint32_t task = plan_find_condition(plan, what, index);
    return task == UINT32_MAX ? UINT32_MAX : task - plan->predict_count - plan->segment_count;
}

/* Pixel frames of the picture's latents: what a whole encode runs over. */
static uint32_t encode_frames(const struct plan *plan)
{
    return plan->clips.count ? plan->clips.params.clip_frames
                             : 4 * ((uint32_t)plan->latent_frames - plan->lead - 1) + 1;
}

/* -- windows ----------------------------------------------------------------------------------- */

/* Frame 0 of a 48-channel image-to-video take is the image itself, clean at every step
 * (encoders.md 5.3). */
static bool is_clean(const struct plan *plan, const struct job *job, uint32_t frame)
{
    return plan->scale == 16 && job->kind == JOB_IMAGE_TO_VIDEO && frame == 0;
}

/* The first latents of a talk loop's clip are given at every step: MultiTalk's noised to where the
 * step stands, InfiniteTalk's clean (pipeline.md 2.4.5, 2.4.6). False: the frame is not one. */
static bool motion_cell(const struct knife *knife, uint32_t frame, struct cut_cell *cell)
{
    const struct plan *plan = knife->plan;
    if (knife->job->kind != JOB_TALK || plan->clips.count == 0)
        return false;
    const uint32_t size = clips_at(&plan->clips, 0).latent_count, at = frame % size;
    const struct clip clip = clips_at(&plan->clips, frame / size);
    const bool clean = knife->job->talk_variant == JOB_TALK_INFINITETALK;
    if (at >= (clip.motion_latents ? clip.motion_latents : 1))
        return false;
    const uint32_t whole = (encode_frames(plan) - 1) / 4 + 1; /* latents of a conditioning video */
    struct cut_cell from = {.frame = at, .frame_count = clean ? clip.motion_latents : whole};
    if (clip.index > 0) {
        from.source = CUT_SEGMENT;
        from.index = clip.index - 1;
    } else {
        from.source = CUT_RESULT;
        from.index = find(plan, clean ? PLAN_CONDITION_FIRST : PLAN_CONDITION_Y, 0);
        from.frame_count = clean ? 1 : whole;
    }
    *cell = from;
    if (!clean) {
        cell->source = CUT_MOTION;
        cell->motion_source = from.source;
        cell->at = frame;
    }
    return true;
}

static void add_latents(struct knife *knife, const uint32_t *frame, uint32_t first, uint32_t count,
                        const uint32_t *channels)
{
    struct cut_cell *cell =
        begin(knife, LT_BLOB_LATENTS, latent_plane(knife->plan), count, channels, 1, NULL);
    for (uint32_t k = 0; cell && k < count; k++) {
        const uint32_t f = frame ? frame[k] : first + k;
        cell[k] = (struct cut_cell){.source = CUT_LATENTS, .frame = f, .frame_count = 1};
        if (!motion_cell(knife, f, &cell[k]) && is_clean(knife->plan, knife->job, f))
            cell[k] = (struct cut_cell){.source = CUT_RESULT,
                                        .index = find(knife->plan, PLAN_CONDITION_FIRST, 0),
                                        .frame_count = 1};
    }
}

static uint32_t largest(const struct window *window)
{
    uint32_t frame = 0;
    for (uint32_t k = 0; k < window->frame_count; k++)
        frame = window->frame[k] > frame ? window->frame[k] : frame;
    return frame;
}

/* pipeline.md 1.8, 2.3.10 */
static uint32_t prompt_of(const struct plan *plan, uint32_t w, const struct window *window)
{
    const uint32_t last = plan->prompt_count - 1;
    const double part = (double)plan->latent_frames / plan->prompt_count;
    const uint32_t index = plan->clips.count ? w : (uint32_t)(largest(window) / part);
    return index < last ? index : last;
}

static void add_texts(struct knife *knife, uint32_t w, const struct window *window, bool negative)
{
    const struct job *job = knife->job;
    const uint64_t bytes = 4 * (uint64_t)job->text_len * (uint64_t)job->text_width;
    if (job->prompt) {
        const uint32_t at =
            find(knife->plan, PLAN_CONDITION_TEXT, prompt_of(knife->plan, w, window));
        add_whole(knife, LT_BLOB_TEXT, bytes, CUT_RESULT, at, &knife->plan->condition[at]);
    } else {
        add_whole(knife, LT_BLOB_TEXT, knife->text_bytes[0], CUT_TEXT, 0, &job->text);
    }
    if (!negative)
        return;
    if (job->prompt_negative) {
        const uint32_t at = find(knife->plan, PLAN_CONDITION_NEGATIVE, 0);
        add_whole(knife, LT_BLOB_TEXT_NEGATIVE, bytes, CUT_RESULT, at, &knife->plan->condition[at]);
    } else {
        add_whole(knife, LT_BLOB_TEXT_NEGATIVE, knife->text_bytes[1], CUT_TEXT, 1,
                  &job->text_negative);
    }
}

static void add_clip(struct knife *knife)
{
    const struct job *job = knife->job;
    const uint64_t bytes = 4 * CLIP_ROWS * CLIP_WIDTH;
    if (is_given(job, JOB_INPUT_CLIP)) {
        const uint32_t *shape = job->input[JOB_INPUT_CLIP].shape;
        add_whole(knife, LT_BLOB_CLIP, 4 * (uint64_t)shape[2] * shape[3], CUT_INPUT, JOB_INPUT_CLIP,
                  &job->input[JOB_INPUT_CLIP]);
        return;
    }
    uint32_t at[2] = {find(knife->plan, PLAN_CONDITION_CLIP, 0),
                      find(knife->plan, PLAN_CONDITION_CLIP, 1)};
    if (at[0] == UINT32_MAX)
        return;
    const uint32_t images = at[1] == UINT32_MAX ? 1 : 2;
    struct cut_cell *cell = begin(knife, LT_BLOB_CLIP, bytes, images, one_channel, 1, &job->vision);
    for (uint32_t i = 0; cell && i < images; i++)
        cell[i] = (struct cut_cell){.source = CUT_RESULT, .index = at[i], .frame_count = 1};
}

/* One slot of `y`: four mask channels, then the latents. */
static void fill_y(struct cut_cell *cell, uint32_t slots, uint32_t slot, unsigned known,
                   struct cut_cell latents)
{
    for (uint32_t j = 0; j < MASK_CHANNELS; j++)
        cell[j * slots + slot] = known >> j & 1 ? one() : zero();
    cell[MASK_CHANNELS * slots + slot] = latents;
}

/* The mask of a kept background: channel j of latent frame `at` is of pixel frame 4 at + j - 3
 * (encoders.md 5.1, 10.2), from frame `start` on. */
static void fill_mask(const struct knife *knife, int64_t start, uint32_t at, uint32_t slots,
                      uint32_t slot, struct cut_cell *cell)
{
    const struct job_input *mask = &knife->job->input[JOB_INPUT_MASK];
    for (uint32_t j = 0; j < MASK_CHANNELS && is_given(knife->job, JOB_INPUT_MASK); j++) {
        const int64_t frame = 4 * (int64_t)at + j - 3;
        cell[j * slots + slot] = (struct cut_cell){
            .source = CUT_INPUT,
            .index = JOB_INPUT_MASK,
            .frame = (uint32_t)pingpong_index(start + (frame > 0 ? frame : 0), mask->shape[0]),
            .frame_count = mask->shape[0],
        };
    }
}

/* Image-to-video: latents of image and grey frames; the first pixel frame is known, and the last
 * with an end image (encoders.md 5.1, 5.2). */
static void image_y(const struct knife *knife, uint32_t slot, uint32_t slots, uint32_t frame,
                    struct cut_cell *cell)
{
    const uint32_t frames = (uint32_t)knife->plan->latent_frames;
    const bool end = is_given(knife->job, JOB_INPUT_END_IMAGE) && frame + 1 == frames;
    fill_y(cell, slots, slot,
           frame == 0 ? 0xf
           : end      ? 1u << (MASK_CHANNELS - 1)
                      : 0,
           (struct cut_cell){.source = CUT_RESULT,
                             .index = find(knife->plan, PLAN_CONDITION_Y, 0),
                             .frame = frame,
                             .frame_count = frames});
}

/* Animate: the reference, then grey frames or what the clip before handed on (pipeline.md 2.3). */
static void animate_y(const struct knife *knife, uint32_t w, uint32_t slot, uint32_t slots,
                      uint32_t frame, struct cut_cell *cell)
{
    const struct plan *plan = knife->plan;
    const uint32_t at = frame - plan->lead; /* of the picture's latents */
    const uint32_t frames = (encode_frames(plan) - 1) / 4 + 1;
    if (frame == 0) {
        fill_y(cell, slots, slot, 0xf,
               (struct cut_cell){.source = CUT_RESULT,
                                 .index = find(plan, PLAN_CONDITION_FIRST, 0),
                                 .frame_count = 1});
        return;
    }
    const bool handed = plan->clips.count && w > 0;
    const bool known = handed && at < clips_at(&plan->clips, w).motion_latents;
    const struct cut_cell grey = {.source = CUT_RESULT,
                                  .index = find(plan, PLAN_CONDITION_Y, 0),
                                  .frame = at,
                                  .frame_count = frames};
    const struct cut_cell tail = {
        .source = CUT_SEGMENT, .index = w - 1, .frame = at, .frame_count = frames};
    fill_y(cell, slots, slot, known ? 0xf : 0, handed ? tail : grey);
    if (!known)
        fill_mask(knife, plan->clips.count ? clips_at(&plan->clips, w).pixel_start : 0, at, slots,
                  slot, cell);
}

/* Talk: a picture and grey frames; MultiTalk's later clips begin with the frames handed on
 * (pipeline.md 2.4.4). */
static void talk_y(const struct knife *knife, uint32_t w, uint32_t slot, uint32_t slots,
                   uint32_t frame, struct cut_cell *cell)
{
    const struct plan *plan = knife->plan;
    const bool handed =
        plan->clips.count && w > 0 && knife->job->talk_variant == JOB_TALK_MULTITALK;
    const uint32_t clip = plan->clips.count ? w : 0;
    fill_y(cell, slots, slot, frame == 0 ? 0xf : 0,
           (struct cut_cell){.source = handed ? CUT_SEGMENT : CUT_RESULT,
                             .index = handed ? w - 1 : find(plan, PLAN_CONDITION_Y, clip),
                             .frame = frame,
                             .frame_count = (encode_frames(plan) - 1) / 4 + 1});
}

/* Slot 0 of a window always has the conditioning of the take's first latent frame: the image, or
 * the reference (pipeline.md 1.8). */
static void add_y(struct knife *knife, uint32_t w, const struct window *window)
{
    static const uint32_t image_channels[] = {1, 1, 1, 1, 16};
    const struct job *job = knife->job;
    const struct plan *plan = knife->plan;
    const uint32_t slots = window->frame_count;
    if (is_given(job, JOB_INPUT_Y)) {
        const struct job_input *input = &job->input[JOB_INPUT_Y];
        struct cut_cell *cell =
            begin(knife, LT_BLOB_Y, latent_plane(plan), slots, input->shape, 1, window->frame);
        for (uint32_t k = 0; cell && k < slots; k++)
            cell[k] = (struct cut_cell){.source = CUT_INPUT,
                                        .index = JOB_INPUT_Y,
                                        .frame = k ? window->frame[k] : 0,
                                        .frame_count = input->shape[1]};
        return;
    }
    if (find(plan, PLAN_CONDITION_Y, 0) == UINT32_MAX)
        return;
    struct cut_cell *cell =
        begin(knife, LT_BLOB_Y, latent_plane(plan), slots, image_channels, 5, window->frame);
    for (uint32_t k = 0; cell && k < slots; k++) {
        const uint32_t frame =
            k == 0 ? 0 : window->frame[k] - (plan->clips.count ? window->frame[0] : 0);
        if (job->kind == JOB_ANIMATE)
            animate_y(knife, w, k, slots, frame, cell);
        else if (job->kind == JOB_TALK)
            talk_y(knife, w, k, slots, frame, cell);
        else
            image_y(knife, k, slots, frame, cell);
    }
}

/* Room for the indices of a slice. NULL: no memory. */
static int64_t *take_indices(struct knife *knife, size_t count)
{
    int64_t *index = lt_arena_take_array(knife->arena, count ? count : 1, sizeof *index);
    knife->failed |= !index;
    return index;
}

/* Latents of the pose for slots 1 and on: frame 0 is the reference, which has none. */
static void add_pose(struct knife *knife, uint32_t w, const struct window *window)
{
    const struct job *job = knife->job;
    const struct plan *plan = knife->plan;
    const struct job_input *input = &job->input[JOB_INPUT_POSE];
    const bool given = is_given(job, JOB_INPUT_POSE);
    const uint32_t condition = find(plan, PLAN_CONDITION_POSE, plan->clips.count ? w : 0);
    const uint32_t slots = window->frame_count - 1;
    int64_t *at = take_indices(knife, slots);
    if ((!given && condition == UINT32_MAX) || slots == 0 || !at)
        return;
    const uint32_t frames = given ? input->shape[1] : (encode_frames(plan) - 1) / 4 + 1;
    slice_pose_latents(window->frame, window->frame_count, INT32_MAX, at);
    struct cut_cell *cell =
        begin(knife, LT_BLOB_POSE, latent_plane(plan), slots, pose_channels, 1, window->frame);
    for (uint32_t k = 0; cell && k < slots; k++) {
        const int64_t frame = plan->clips.count ? k : at[k];
        cell[k] = (struct cut_cell){.source = given ? CUT_INPUT : CUT_RESULT,
                                    .index = given ? JOB_INPUT_POSE : condition,
                                    .frame = frame < frames ? (uint32_t)frame : frames - 1,
                                    .frame_count = frames};
    }
}

/* Crops of the face: four for each slot from 1 on; a loop's clip has one for each of its frames.
 * Beyond the end of what was given they go back and forth (pipeline.md 2.3.2). */
static void add_face(struct knife *knife, uint32_t w, const struct window *window)
{
    const struct plan *plan = knife->plan;
    const struct job_input *input = &knife->job->input[JOB_INPUT_FACE_FRAMES];
    const uint64_t side = (uint64_t)knife->job->face_side;
    const bool loop = plan->clips.count > 0;
    const uint32_t count = loop ? plan->clips.params.clip_frames : 4 * (window->frame_count - 1);
    int64_t *at = take_indices(knife, count);
    if (!is_given(knife->job, JOB_INPUT_FACE_FRAMES) || count == 0 || !at)
        return;
    if (!loop)
        slice_face_frames(window->frame, window->frame_count, encode_frames(plan), at);
    for (uint32_t i = 0; loop && i < count; i++)
        at[i] = clips_at(&plan->clips, w).pixel_start + i;
    struct cut_cell *cell =
        begin(knife, LT_BLOB_FACE, 3 * side * side, count, one_channel, 1, window->frame);
    for (uint32_t i = 0; cell && i < count; i++)
        cell[i] = (struct cut_cell){
            .source = CUT_INPUT,
            .index = JOB_INPUT_FACE_FRAMES,
            .frame = (uint32_t)pingpong_index(at[i], input->shape[0]),
            .frame_count = 1, /* a plane is a whole frame */
        };
}

static uint32_t audio_rows(const struct job *job)
{
    if (is_given(job, JOB_INPUT_AUDIO))
        return job->input[JOB_INPUT_AUDIO].shape[1];
    const uint64_t rows = (uint64_t)job->input[JOB_INPUT_VOICE].shape[3] * AUDIO_FPS / AUDIO_RATE;
    return rows ? (uint32_t)rows : 1;
}

static uint32_t speaker_count(const struct job *job)
{
    if (is_given(job, JOB_INPUT_AUDIO))
        return job->input[JOB_INPUT_AUDIO].shape[0];
    return is_given(job, JOB_INPUT_VOICE_2) ? 2 : 1;
}

/* Which of a latent frame's pixel frames and taps its tokens are made of (dit.md 4.2): all five
 * taps of the first frame; of four frames the first three taps of the first, the middle one of the
 * next two, and the last three of the last. `at` has five taps a frame; `row` one entry a heard
 * row. */
static void choose_heard(const int64_t *at, uint32_t latents, int64_t *row)
{
    static const struct {
        uint32_t frame, tap;
    } heard[AUDIO_HEARD] = {{0, 0}, {0, 1}, {0, 2}, {1, 2}, {2, 2}, {3, 2}, {3, 3}, {3, 4}};
    for (uint32_t tap = 0; tap < AUDIO_TAPS; tap++)
        *row++ = at[tap];
    for (uint32_t j = 1; j < latents; j++)
        for (uint32_t k = 0; k < AUDIO_HEARD; k++)
            *row++ = at[(4 * j - 3 + heard[k].frame) * AUDIO_TAPS + heard[k].tap];
}

/* What each latent frame of the window hears of each speaker: rows of the embedding. */
static void add_audio(struct knife *knife, uint32_t w, const struct window *window)
{
    const struct job *job = knife->job;
    const struct plan *plan = knife->plan;
    if (job->kind != JOB_TALK)
        return;
    const uint32_t rows = audio_rows(job), speakers = speaker_count(job);
    const uint32_t frames =
        plan->clips.count ? plan->clips.params.clip_frames : 4 * (window->frame_count - 1) + 1;
    const uint32_t latents = (frames - 1) / 4 + 1, heard = AUDIO_TAPS + AUDIO_HEARD * (latents - 1);
    int64_t *at = take_indices(knife, (size_t)frames * AUDIO_TAPS);
    int64_t *heard_row = take_indices(knife, heard);
    uint32_t *channels = lt_arena_take_array(knife->arena, speakers, sizeof *channels);
    knife->failed |= !channels;
    if (!at || !heard_row || !channels)
        return;
    for (uint32_t s = 0; s < speakers; s++)
        channels[s] = 1;
    if (plan->clips.count) {
        const struct clip clip = clips_at(&plan->clips, w);
        for (uint32_t i = 0; i < frames; i++)
            clip_audio_rows(&clip, i, 1, rows, at + i * AUDIO_TAPS);
    } else {
        slice_audio(window->frame, window->frame_count, 1, rows, at);
    }
    choose_heard(at, latents, heard_row);
    const bool given = is_given(job, JOB_INPUT_AUDIO);
    struct cut_cell *cell =
        begin(knife, LT_BLOB_AUDIO, 4 * (uint64_t)(job->audio_layers * job->audio_width), heard,
              channels, speakers, window->frame);
    for (uint32_t i = 0; cell && i < speakers * heard; i++) {
        const uint32_t speaker = i / heard, row = (uint32_t)heard_row[i % heard];
        cell[i] = given ? (struct cut_cell){.source = CUT_INPUT,
                                            .index = JOB_INPUT_AUDIO,
                                            .frame = speaker * rows + row,
                                            .frame_count = speakers * rows}
                        : (struct cut_cell){.source = CUT_RESULT,
                                            .index = find(plan, PLAN_CONDITION_AUDIO, speaker),
                                            .frame = row,
                                            .frame_count = rows};
    }
}

static void add_speaker_masks(struct knife *knife)
{
    const struct job_input *input = &knife->job->input[JOB_INPUT_SPEAKER_MASKS];
    if (is_given(knife->job, JOB_INPUT_SPEAKER_MASKS) && speaker_count(knife->job) > 1)
        add_whole(knife, LT_BLOB_SPEAKER_MASKS,
                  4 * (uint64_t)input->shape[1] * input->shape[2] * input->shape[3], CUT_INPUT,
                  JOB_INPUT_SPEAKER_MASKS, input);
}

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
        add_latents(&knife, window->frame, 0, window->frame_count, channels);
        add_texts(&knife, w, window, plan->step[index].guidance != 1 || job->guide.nag_scale > 0);
        add_clip(&knife);
        add_y(&knife, w, window);
        add_pose(&knife, w, window);
        add_face(&knife, w, window);
        add_audio(&knife, w, window);
        add_speaker_masks(&knife);
        break;
    }
    case PLAN_DECODE:
        add_latents(&knife, NULL, plan->segment[index].frame_first,
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
        add_latents(&knife, NULL, 0, (uint32_t)plan->latent_frames, channels);
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
        const uint64_t rows = audio_rows(job);
        spec->kind = LT_TASK_ENCODE_AUDIO;
        set_shape(spec, rows, (uint64_t)job->audio_layers, (uint64_t)job->audio_width,
                  job->input[kind].shape[3]);
        spec->result_bytes = 4 * rows * (uint64_t)job->audio_layers * (uint64_t)job->audio_width;
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
    if (job->kind == JOB_TALK) {
        spec->audio_guidance = job->audio_guidance;
        spec->audio_formula = job->audio_formula;
    }
    for (uint32_t k = 0; k < window->frame_count; k++)
        if (is_clean(plan, job, window->frame[k]) && spec->clean_slot_count < LT_SPEC_SLOTS_MAX)
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
