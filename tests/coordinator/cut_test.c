/* What each task is fed. If an index here is off by one, a pose runs ahead of its picture, a face
 * belongs to another frame, or a clip begins on something else than the one before ended with: the
 * take looks plausible and is wrong. */
#include "coordinator/cut.h"

#include "tests/test.h"

#include <string.h>

static struct lt_arena arena;
static struct lt_error error;
static struct job job;
static struct plan plan;
static struct cut cuts[CUTS_MAX];
static size_t cut_count;

static int begin(void **state)
{
    (void)state;
    lt_arena_init(&arena, 0);
    return 0;
}

static int end(void **state)
{
    (void)state;
    lt_arena_fini(&arena);
    return 0;
}

#define DIGEST            "\"0000000000000000000000000000000000000000000000000000000000000000\""
#define GIVEN(key, shape) "\"" key "\": {\"sha256\": " DIGEST ", \"shape\": " shape "}"
#define JOB(kind, frames, channels, media, more)                                                   \
    "{\"kind\": \"" kind "\", \"size\": [64, 32], \"frames\": " frames ", \"guidance\": 1,"        \
    "\"model\": {\"transformer\": \"t\", \"vae\": \"v\", \"talk\": \"a\", "                        \
    "\"latent_channels\": " channels                                                               \
    ", \"face_side\": 16}, \"text\": {\"positive\": \"p\"}, \"media\": {" media "},"               \
    "\"sampler\": {\"name\": \"euler\", \"steps\": 3}" more "}"

static void make(const char *text)
{
    if (job_parse(text, strlen(text), "job", &arena, &job, &error) != LT_OK ||
        plan_build(&job, &arena, &plan, &error) != LT_OK)
        fail_msg("%s", error.text);
}

/* The blob of a role of a task; NULL: it has none. */
static const struct cut *cut_of(uint32_t task, enum lt_blob_role role)
{
    static const uint64_t text_bytes[2] = {32, 32};
    assert_ok(cut_task(&job, &plan, task, text_bytes, &arena, cuts, &cut_count, &error));
    for (size_t i = 0; i < cut_count; i++)
        if (cuts[i].role == role)
            return &cuts[i];
    return NULL;
}

static struct cut_cell cell(const struct cut *cut, uint32_t group, uint32_t slot)
{
    assert_non_null(cut);
    assert_true(group < cut->group_count && slot < cut->slot_count);
    return cut->cell[group * cut->slot_count + slot];
}

static uint32_t last_window(void)
{
    return plan.step[0].window_count - 1;
}

/* -- image to video ---------------------------------------------------------------------------- */

#define WINDOWS                                                                                    \
    ", \"window\": {\"latent_frames\": 4, \"overlap\": 1, \"schedule\": \"static_standard\"}"

static void every_window_starts_with_the_image(void **state)
{
    (void)state;
    make(JOB("image-to-video", "37", "16",
             GIVEN("image", "[1, 32, 64, 3]") ", " GIVEN("end_image", "[1, 32, 64, 3]"), WINDOWS));
    assert_int_equal(plan.latent_frames, 10);
    assert_int_equal(plan.condition_count, 1);
    for (uint32_t w = 0; w <= last_window(); w++) {
        const struct window *window = &plan.step[0].window[w];
        const struct cut *y = cut_of(plan.step[1].task_first + w, LT_BLOB_Y);
        assert_int_equal(cut_bytes(y), 20 * 4 * plan.frame_bytes / 16);
        for (uint32_t k = 0; k < 4; k++) {
            const uint32_t frame = k ? window->frame[k] : 0;
            assert_int_equal(cell(y, 4, k).source, CUT_RESULT);
            assert_int_equal(cell(y, 4, k).frame, frame);
            assert_int_equal(cell(y, 4, k).frame_count, 10);
            for (uint32_t j = 0; j < 4; j++) /* encoders.md 5.1: pixel frames 0 and 36 are known */
                assert_int_equal(cell(y, j, k).source,
                                 frame == 0 || (frame == 9 && j == 3) ? CUT_ONE : CUT_ZERO);
        }
    }
    struct lt_task_spec spec = {0};
    cut_spec(&job, &plan, plan.task_count - 1, &spec);
    assert_int_equal(spec.kind, LT_TASK_VAE_ENCODE);
    assert_int_equal(spec.shape[1], 37);
    assert_int_equal(spec.frame_at_count, 2);
    assert_int_equal(spec.frame_at[1], 36);
    assert_int_equal(cut_of(plan.task_count - 1, LT_BLOB_PIXELS)->slot_count, 2);
}

/* 48 channels: the image is latent frame 0, clean wherever a window has it, and in the take. */
static void the_first_frame_stays_clean(void **state)
{
    (void)state;
    make(JOB("image-to-video", "37", "48", GIVEN("image", "[1, 32, 64, 3]"),
             ", \"window\": {\"latent_frames\": 4, \"overlap\": 1, \"schedule\": "
             "\"uniform_looped\"}"));
    assert_int_equal(plan.latent_height, 2);
    assert_int_equal(plan.latent_width, 4);
    uint32_t seen = 0;
    for (uint32_t t = 0; t < plan.predict_count; t++) {
        uint32_t step, w;
        struct lt_task_spec spec = {0};
        plan_task(&plan, t, &step, &w);
        cut_spec(&job, &plan, t, &spec);
        const struct window *window = &plan.step[step].window[w];
        const struct cut *x = cut_of(t, LT_BLOB_LATENTS);
        size_t clean = 0;
        for (uint32_t k = 0; k < window->frame_count; k++) {
            const bool first = window->frame[k] == 0;
            assert_int_equal(cell(x, 0, k).source, first ? CUT_RESULT : CUT_LATENTS);
            if (first)
                assert_int_equal(spec.clean_slot[clean++], k);
        }
        assert_int_equal(spec.clean_slot_count, clean);
        seen += clean > 0;
    }
    assert_true(seen >= plan.step_count);
    assert_int_equal(cell(cut_of(plan.predict_count, LT_BLOB_LATENTS), 0, 0).source, CUT_RESULT);
}

#define TILED(channels, more)                                                                      \
    JOB("image-to-video", "9", channels, GIVEN("image", "[1, 32, 64, 3]"), more)

/* In pixels by the job, in latents of its VAE by the task; only decodes have them. */
static void tiles_are_cut_in_latents(void **state)
{
    (void)state;
    static const struct {
        const char *job;
        uint32_t tile, stride;
    } cases[] = {
        {TILED("16", ""), 0, 0},
        {TILED("16", ", \"decode\": {\"tile\": 272, \"overlap\": 128}"), 34, 18},
        {TILED("48", ", \"decode\": {\"tile\": 272, \"overlap\": 128}"), 17, 9},
        {TILED("48", ", \"decode\": {\"tile\": 64}"), 4, 2},
    };
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        uint32_t decodes = 0;
        make(cases[i].job);
        for (uint32_t t = 0; t < plan.task_count; t++) {
            struct lt_task_spec spec = {0};
            cut_spec(&job, &plan, t, &spec);
            const bool decode = spec.kind == LT_TASK_VAE_DECODE;
            assert_int_equal(spec.tile, decode ? cases[i].tile : 0);
            assert_int_equal(spec.tile_stride, decode ? cases[i].stride : 0);
            decodes += decode;
        }
        assert_int_equal(decodes, plan.segment_count);
    }
}

/* -- animate ----------------------------------------------------------------------------------- */

#define ANIMATE                                                                                    \
    GIVEN("image", "[1, 32, 64, 3]")                                                               \
    ", " GIVEN("pose", "[7, 32, 64, 3]") ", " GIVEN("face", "[7, 16, 16, 3]")

/* Windows that wrap around: an index list, never the ends (pipeline.md 1.8). */
static void pose_and_face_follow_each_slot(void **state)
{
    (void)state;
    make(JOB("animate", "37", "16", ANIMATE,
             ", \"window\": {\"latent_frames\": 4, \"overlap\": 1, \"schedule\": "
             "\"uniform_looped\"}"));
    assert_int_equal(plan.latent_frames, 11); /* and the reference */
    bool wrapped = false;
    for (uint32_t t = 0; t < plan.predict_count; t++) {
        uint32_t step, w;
        plan_task(&plan, t, &step, &w);
        const uint32_t *frame = plan.step[step].window[w].frame;
        const struct cut *pose = cut_of(t, LT_BLOB_POSE);
        assert_int_equal(pose->slot_count, 3);
        for (uint32_t k = 1; k < 4; k++)
            assert_int_equal(cell(pose, 0, k - 1).frame, frame[k] ? frame[k] - 1 : 0);
        const struct cut *face = cut_of(t, LT_BLOB_FACE);
        assert_int_equal(face->slot_count, 12);
        for (uint32_t i = 0; i < 12; i++) {
            const uint32_t at = 4 * (frame[1 + i / 4] ? frame[1 + i / 4] - 1 : 0) + i % 4;
            assert_int_equal(cell(face, 0, i).frame, pingpong_index(frame[1 + i / 4] == 0 ? 0
                                                                    : at < 36             ? at
                                                                                          : 36,
                                                                    7));
        }
        const struct cut *y = cut_of(t, LT_BLOB_Y);
        assert_int_equal(cell(y, 0, 0).source, CUT_ONE); /* slot 0: the reference */
        for (uint32_t k = 1; k < 4; k++) {
            assert_int_equal(cell(y, 0, k).source, frame[k] ? CUT_ZERO : CUT_ONE);
            if (frame[k])
                assert_int_equal(cell(y, 4, k).frame, frame[k] - 1);
            wrapped |= frame[k] < frame[k - 1];
        }
    }
    assert_true(wrapped);
}

static void a_clip_starts_on_what_was_handed_on(void **state)
{
    (void)state;
    make(JOB("animate", "20", "16", ANIMATE,
             ", \"mode\": \"loop\", \"loop\": {\"frames\": 9, \"overlap\": 1}"));
    assert_int_equal(plan.clips.count, 3);
    assert_int_equal(plan.latent_frames, 3 * 4);
    assert_int_equal(plan.step[0].window_count, 3);
    for (uint32_t c = 0; c < 3; c++) {
        const struct cut *y = cut_of(plan.step[2].task_first + c, LT_BLOB_Y);
        for (uint32_t k = 0; k < 4; k++) {
            const bool known = k == 0 || (k == 1 && c > 0); /* reference; handed on */
            assert_int_equal(cell(y, 0, k).source, known ? CUT_ONE : CUT_ZERO);
            assert_int_equal(cell(y, 4, k).source, k && c ? CUT_SEGMENT : CUT_RESULT);
            if (k && c) {
                assert_int_equal(cell(y, 4, k).index, c - 1);
                assert_int_equal(cell(y, 4, k).frame, k - 1);
            }
        }
        const struct cut *face = cut_of(c, LT_BLOB_FACE);
        assert_int_equal(face->slot_count, 9);
        for (uint32_t i = 0; i < 9; i++)
            assert_int_equal(cell(face, 0, i).frame, pingpong_index(8 * c + i, 7));
        const uint32_t pose = plan_find_condition(&plan, PLAN_CONDITION_POSE, c);
        const struct cut *frames = cut_of(pose, LT_BLOB_PIXELS);
        for (uint32_t i = 0; i < 9; i++)
            assert_int_equal(cell(frames, 0, i).frame, pingpong_index(8 * c + i, 7));
        struct lt_task_spec spec = {0};
        cut_spec(&job, &plan, plan.predict_count + c, &spec);
        assert_int_equal(spec.shape[1], 3);
        assert_int_equal(spec.drop_frames, c ? 1 : 0);
        assert_int_equal(spec.handoff_frames, c < 2 ? 1 : 0);
        assert_int_equal(spec.handoff_length, c < 2 ? 9 : 0);
        assert_int_equal(spec.result_bytes,
                         (9 - spec.drop_frames) * 32 * 64 * 3 + (c < 2 ? 3 * plan.frame_bytes : 0));
    }
    for (uint32_t i = 0; i < plan.edge_count; i++) { /* what clip w waits for */
        const struct plan_edge *edge = &plan.edge[i];
        uint32_t index, window;
        if (plan_task(&plan, edge->from, &index, &window) == PLAN_DECODE)
            assert_int_equal(edge->to, index + 1);
        else if (plan.condition[index].what == PLAN_CONDITION_POSE)
            assert_int_equal(edge->to, plan.condition[index].index);
    }
}

/* A person put into a video: what is kept of it is known, frame by frame, and the background goes
 * on behind what is handed on (encoders.md 10.2). */
static void a_background_is_kept_where_the_mask_says(void **state)
{
    (void)state;
    make(JOB("animate", "20", "16",
             ANIMATE ", " GIVEN("background", "[7, 32, 64, 3]") ", " GIVEN("mask", "[7, 1, 4, 8]"),
             ", \"mode\": \"loop\", \"loop\": {\"frames\": 9, \"overlap\": 1}"));
    for (uint32_t c = 0; c < 3; c++) {
        const struct cut *y = cut_of(c, LT_BLOB_Y);
        for (uint32_t k = 1; k < 4; k++)
            for (uint32_t j = 0; j < 4; j++) {
                const int32_t frame = 4 * ((int32_t)k - 1) + (int32_t)j - 3;
                if (c > 0 && k == 1) { /* handed on */
                    assert_int_equal(cell(y, j, k).source, CUT_ONE);
                    continue;
                }
                assert_int_equal(cell(y, j, k).source, CUT_INPUT);
                assert_int_equal(cell(y, j, k).frame,
                                 pingpong_index(8 * c + (frame > 0 ? frame : 0), 7));
            }
        const struct cut *behind = cut_of(plan.predict_count + c, LT_BLOB_PIXELS);
        for (uint32_t i = 0; c < 2 && i < 9; i++)
            assert_int_equal(cell(behind, 0, i).frame, pingpong_index(8 * (c + 1) + i, 7));
        if (c == 2)
            assert_null(behind);
    }
    const uint32_t encode = plan_find_condition(&plan, PLAN_CONDITION_Y, 0);
    assert_int_equal(cut_of(encode, LT_BLOB_PIXELS)->slot_count, 9);
}

/* Every frame of the take once, whatever its length: around multiples of what a clip gives. */
static void a_loop_gives_exactly_the_frames(void **state)
{
    (void)state;
    static const char *const modes[] = {
        ", \"mode\": \"loop\"", ", \"mode\": \"loop\", \"loop\": {\"frames\": 9, \"overlap\": 5}"};
    for (size_t m = 0; m < LT_COUNT(modes); m++)
        for (uint32_t frames = 1; frames <= 240; frames++) {
            char text[2048], number[16];
            snprintf(number, sizeof number, "%u", frames);
            snprintf(text, sizeof text, JOB("animate", "%s", "16", ANIMATE, "%s"), number,
                     modes[m]);
            make(text);
            uint32_t next = 0;
            for (uint32_t k = 0; k < plan.segment_count; k++) {
                const struct plan_segment *segment = &plan.segment[k];
                assert_int_equal(segment->pixel_first, next);
                assert_true(segment->pixel_count >= 1);
                assert_true(segment->drop_frames + segment->pixel_count <=
                            4 * segment->frame_count - 3);
                next += segment->pixel_count;
            }
            assert_int_equal(next, frames);
            lt_arena_fini(&arena);
            lt_arena_init(&arena, 0);
        }
}

/* -- talk -------------------------------------------------------------------------------------- */

#define TALK(variant, mode)                                                                        \
    JOB("talk", "21", "16",                                                                        \
        GIVEN("image", "[1, 32, 64, 3]") "}, \"conditioning\": {" GIVEN("audio",                   \
                                                                        "[2, 30, 12, 768]"),       \
        ", \"talk\": {\"variant\": \"" variant "\", \"audio_guidance\": 4}" mode)
#define LOOP ", \"mode\": \"loop\", \"loop\": {\"frames\": 13, \"overlap\": 5}"

/* Clips start at pixel frames 0, 8: rows of the embedding by frame and tap, per speaker. */
static void assert_audio(uint32_t task, uint32_t start)
{
    const struct cut *audio = cut_of(task, LT_BLOB_AUDIO);
    assert_int_equal(audio->group_count, 2);
    assert_int_equal(audio->slot_count, 5 + 8 * 3);
    for (uint32_t i = 0; i < 5 + 8 * 3; i++) {
        /* dit.md 4.2: -2 … 2 of the first, then 4j - 5 … 4j + 2 of latent frame j */
        const int32_t j = (int32_t)(i - 5) / 8 + 1, k = (int32_t)(i - 5) % 8;
        const int32_t row = (int32_t)start + (i < 5 ? (int32_t)i - 2 : 4 * j - 5 + k);
        assert_int_equal(cell(audio, 0, i).frame, row < 0 ? 0 : row);
        assert_int_equal(cell(audio, 1, i).frame, 30 + (row < 0 ? 0 : row));
        assert_int_equal(cell(audio, 0, i).frame_count, 60);
    }
}

static void multitalk_hands_on_noised_motion(void **state)
{
    (void)state;
    make(TALK("multitalk", LOOP)); /* 13 + 8 frames: two clips of four latents */
    assert_int_equal(plan.clips.count, 2);
    for (uint32_t c = 0; c < 2; c++) {
        const uint32_t task = plan.step[1].task_first + c;
        assert_audio(task, 8 * c);
        const struct cut *x = cut_of(task, LT_BLOB_LATENTS), *y;
        for (uint32_t k = 0; k < 4; k++) { /* one motion latent from the image, then two */
            const bool motion = k < 1 + c;
            assert_int_equal(cell(x, 0, k).source, motion ? CUT_MOTION : CUT_LATENTS);
            if (!motion)
                continue;
            assert_int_equal(cell(x, 0, k).motion_source, c ? CUT_SEGMENT : CUT_RESULT);
            assert_int_equal(cell(x, 0, k).frame, k);
            assert_int_equal(cell(x, 0, k).frame_count, 4);
            assert_int_equal(cell(x, 0, k).at, 4 * c + k);
        }
        y = cut_of(task, LT_BLOB_Y);
        for (uint32_t k = 0; k < 4; k++) {
            assert_int_equal(cell(y, 3, k).source, k ? CUT_ZERO : CUT_ONE);
            assert_int_equal(cell(y, 4, k).source, c ? CUT_SEGMENT : CUT_RESULT);
        }
    }
    struct lt_task_spec spec = {0};
    cut_spec(&job, &plan, plan.predict_count, &spec);
    assert_int_equal(spec.handoff_frames, 5);
    assert_int_equal(spec.handoff_length, 13);
    assert_int_equal(cell(cut_of(plan.predict_count + 1, LT_BLOB_LATENTS), 0, 1).source,
                     CUT_MOTION);
}

static void infinitetalk_keeps_motion_clean(void **state)
{
    (void)state;
    make(TALK("infinitetalk", LOOP));
    for (uint32_t c = 0; c < 2; c++) {
        const struct cut *x = cut_of(plan.step[1].task_first + c, LT_BLOB_LATENTS);
        for (uint32_t k = 0; k < 4; k++)
            assert_int_equal(cell(x, 0, k).source, k >= 1 + c ? CUT_LATENTS
                                                   : c        ? CUT_SEGMENT
                                                              : CUT_RESULT);
        if (c)
            assert_int_equal(cell(x, 0, 1).frame_count, 2);
        const struct cut *y = cut_of(plan.step[1].task_first + c, LT_BLOB_Y);
        assert_int_equal(cell(y, 4, 0).source, CUT_RESULT); /* a picture for every clip */
        const uint32_t encode = plan_find_condition(&plan, PLAN_CONDITION_Y, c);
        assert_int_not_equal(encode, UINT32_MAX);
        assert_int_equal(cell(y, 4, 0).index, encode - plan.predict_count - plan.segment_count);
    }
    struct lt_task_spec spec = {0};
    cut_spec(&job, &plan, plan.predict_count, &spec);
    assert_int_equal(spec.handoff_frames, 5);
    assert_int_equal(spec.handoff_length, 5); /* alone, not as the start of a video */
    assert_int_equal(spec.result_bytes, 13 * 32 * 64 * 3 + 2 * plan.frame_bytes);
}

/* -- prompts ----------------------------------------------------------------------------------- */

static void each_part_of_the_take_has_its_prompt(void **state)
{
    (void)state;
    static const char text[] =
        "{\"size\": [64, 32], \"frames\": 37, \"guidance\": 1, \"model\": {\"transformer\": \"t\","
        "\"vae\": \"v\", \"text_encoder\": \"e\", \"text_len\": 8, \"text_width\": 4},"
        "\"text\": {\"prompt\": \"one |two|  three \"}, \"sampler\": {\"steps\": 2}" WINDOWS "}";
    make(text);
    assert_int_equal(plan.condition_count, 3);
    size_t bytes;
    assert_memory_equal(cut_prompt(job.prompt, 0, &bytes), "one", 3);
    assert_int_equal(bytes, 3);
    assert_memory_equal(cut_prompt(job.prompt, 2, &bytes), "three", 5);
    assert_int_equal(bytes, 5);
    for (uint32_t w = 0; w <= last_window(); w++) {
        const uint32_t last = plan.step[0].window[w].frame[3];
        const uint32_t expected = (uint32_t)(last / (10.0 / 3)); /* pipeline.md 1.8 */
        assert_int_equal(cell(cut_of(w, LT_BLOB_TEXT), 0, 0).index, expected < 2 ? expected : 2);
    }
    const struct cut *prompt = cut_of(plan.task_count - 1, LT_BLOB_PROMPT);
    assert_int_equal(cut_bytes(prompt), 5);
    struct lt_task_spec spec = {0};
    cut_spec(&job, &plan, plan.task_count - 1, &spec);
    assert_int_equal(spec.kind, LT_TASK_ENCODE_TEXT);
    assert_int_equal(spec.result_bytes, 8 * 4 * 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_window_starts_with_the_image, begin, end),
        cmocka_unit_test_setup_teardown(the_first_frame_stays_clean, begin, end),
        cmocka_unit_test_setup_teardown(tiles_are_cut_in_latents, begin, end),
        cmocka_unit_test_setup_teardown(pose_and_face_follow_each_slot, begin, end),
        cmocka_unit_test_setup_teardown(a_clip_starts_on_what_was_handed_on, begin, end),
        cmocka_unit_test_setup_teardown(a_background_is_kept_where_the_mask_says, begin, end),
        cmocka_unit_test_setup_teardown(a_loop_gives_exactly_the_frames, begin, end),
        cmocka_unit_test_setup_teardown(multitalk_hands_on_noised_motion, begin, end),
        cmocka_unit_test_setup_teardown(infinitetalk_keeps_motion_clean, begin, end),
        cmocka_unit_test_setup_teardown(each_part_of_the_take_has_its_prompt, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
