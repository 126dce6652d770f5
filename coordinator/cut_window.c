/* What a window is fed, slot by slot of its index list (pipeline.md 1.8, 2.3, 2.4). */
#include "coordinator/cut_private.h"
#include "coordinator/slices.h"

static const uint32_t pose_channels[] = {16};

/* Frame 0 of a 48-channel image-to-video take is the image itself, clean at every step
 * (encoders.md 5.3). */
bool cut_is_clean(const struct plan *plan, const struct job *job, uint32_t frame)
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

void cut_add_latents(struct knife *knife, const uint32_t *frame, uint32_t first, uint32_t count,
                     const uint32_t *channels)
{
    struct cut_cell *cell =
        begin(knife, LT_BLOB_LATENTS, latent_plane(knife->plan), count, channels, 1, NULL);
    for (uint32_t k = 0; cell && k < count; k++) {
        const uint32_t f = frame ? frame[k] : first + k;
        cell[k] = (struct cut_cell){.source = CUT_LATENTS, .frame = f, .frame_count = 1};
        if (!motion_cell(knife, f, &cell[k]) && cut_is_clean(knife->plan, knife->job, f))
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

uint32_t cut_audio_rows(const struct job *job)
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
    const uint32_t rows = cut_audio_rows(job), speakers = speaker_count(job);
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

void cut_add_window(struct knife *knife, uint32_t w, const struct window *window, bool negative)
{
    add_texts(knife, w, window, negative);
    add_clip(knife);
    add_y(knife, w, window);
    add_pose(knife, w, window);
    add_face(knife, w, window);
    add_audio(knife, w, window);
    add_speaker_masks(knife);
}
