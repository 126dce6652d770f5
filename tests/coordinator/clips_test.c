/* If the loop arithmetic were off by one, the take would be a frame short, repeat a frame at every
 * seam, or the pose would run ahead of the picture by a frame a clip. */
#include "tests/test.h"

#include "coordinator/clips.h"

static struct lt_error error;

static struct clips plan(enum clips_mode mode, int64_t frame_count, uint32_t overlap)
{
    struct clips clips;
    assert_ok(clips_plan(
        &(struct clips_params){.mode = mode, .frame_count = frame_count, .overlap_frames = overlap},
        &clips, &error));
    return clips;
}

/* pipeline.md 2.3.12 and 2.4.1: frames asked, clips, frames that the originals return untrimmed. */
static void goldens_of_the_originals(void **state)
{
    (void)state;
    static const struct {
        enum clips_mode mode;
        int64_t frames;
        uint32_t count;
        int64_t untrimmed;
    } cases[] = {
        {CLIPS_ANIMATE, 77, 1, 77},        {CLIPS_ANIMATE, 97, 2, 153},
        {CLIPS_ANIMATE, 153, 2, 153},      {CLIPS_ANIMATE, 229, 3, 229},
        {CLIPS_ANIMATE, 297, 4, 305},      {CLIPS_ANIMATE, 497, 7, 533},
        {CLIPS_ANIMATE, 897, 12, 913},     {CLIPS_ANIMATE, 1797, 24, 1825},
        {CLIPS_MULTITALK, 81, 1, 81},      {CLIPS_MULTITALK, 82, 2, 137},
        {CLIPS_MULTITALK, 137, 2, 137},    {CLIPS_MULTITALK, 138, 3, 193},
        {CLIPS_MULTITALK, 1000, 18, 1033}, {CLIPS_INFINITETALK, 153, 2, 153},
        {CLIPS_INFINITETALK, 154, 3, 225}, {CLIPS_INFINITETALK, 1000, 14, 1017},
    };
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        const struct clips clips = plan(cases[i].mode, cases[i].frames, 0);
        assert_int_equal(clips.count, cases[i].count);
        assert_int_equal(clips.target_frames, cases[i].untrimmed);
    }
    /* A window of 81 with the Animate hand-off of one frame: 97 become 161 untrimmed. */
    struct clips clips;
    assert_ok(clips_plan(
        &(struct clips_params){.mode = CLIPS_ANIMATE, .frame_count = 97, .clip_frames = 81}, &clips,
        &error));
    assert_int_equal(clips.target_frames, 161);
}

/* The originals' own loops, frame by frame, beside the closed forms. */
static void counts_agree_with_the_loops(void **state)
{
    (void)state;
    for (int64_t frames = 2; frames <= 700; frames++) {
        uint32_t count = 0;
        for (int64_t start = 0; start + 1 < frames; start += 76)
            count++;
        assert_int_equal(plan(CLIPS_ANIMATE, frames, 0).count, count);
        const int64_t last = (frames - 1) % 76;
        assert_int_equal(plan(CLIPS_ANIMATE, frames, 0).target_frames,
                         frames + (last ? 76 - last : 0));
        for (int mode = CLIPS_MULTITALK; mode <= CLIPS_INFINITETALK; mode++) {
            const int64_t m = mode == CLIPS_MULTITALK ? 25 : 9;
            count = 1;
            for (int64_t a = 0; a + 81 < frames; a += 81 - m) /* ends when a + 81 ≥ A */
                count++;
            assert_int_equal(plan((enum clips_mode)mode, frames, 0).count, count);
        }
    }
}

/* Every residue of F mod 76, 56 and 72, from one frame on, and the other hand-offs in use. */
static void every_frame_comes_once(void **state)
{
    (void)state;
    static const struct {
        enum clips_mode mode;
        uint32_t overlap;
    } cases[] = {{CLIPS_ANIMATE, 1},
                 {CLIPS_ANIMATE, 5},
                 {CLIPS_MULTITALK, 25},
                 {CLIPS_INFINITETALK, 9},
                 {CLIPS_INFINITETALK, 25}};
    for (size_t c = 0; c < LT_COUNT(cases); c++)
        for (int64_t frames = 1; frames <= 400; frames++) {
            const struct clips clips = plan(cases[c].mode, frames, cases[c].overlap);
            int64_t done = 0;
            for (uint32_t i = 0; i < clips.count; i++) {
                const struct clip clip = clips_at(&clips, i);
                assert_int_equal(clip.take_start, done);
                assert_int_equal(clip.take_start, clip.pixel_start + clip.drop_front);
                assert_true(clip.keep_count >= 1);
                assert_true(clip.drop_front + clip.keep_count <= clip.pixel_count);
                assert_int_equal(clip.drop_front, i ? cases[c].overlap : 0);
                assert_int_equal(clip.last, i + 1 == clips.count);
                assert_int_equal(4 * clip.latent_start, clip.pixel_start);
                /* what is handed on exists whole in the clip before */
                assert_true(i == 0 || done >= clip.motion_frames);
                done += clip.keep_count;
            }
            assert_int_equal(done, frames);
        }
}

static void latents_of_a_clip(void **state)
{
    (void)state;
    const struct clips animate = plan(CLIPS_ANIMATE, 200, 0);
    const struct clip second = clips_at(&animate, 1);
    assert_int_equal(second.latent_count, 21); /* the reference and 20 */
    assert_int_equal(second.latent_drop_front, 1);
    assert_int_equal(second.latent_start, 19); /* masks move 19 latents, pose and face 76 frames */
    assert_int_equal(second.pixel_start, 76);
    assert_int_equal(second.motion_latents, 1);
    assert_int_equal(animate.target_latents, 58);
    const struct clips talk = plan(CLIPS_MULTITALK, 200, 0);
    assert_int_equal(clips_at(&talk, 0).latent_count, 21);
    assert_int_equal(clips_at(&talk, 0).motion_latents, 0);
    assert_int_equal(clips_at(&talk, 1).motion_latents, 7);
    const struct clips infinite = plan(CLIPS_INFINITETALK, 200, 0);
    assert_int_equal(clips_at(&infinite, 1).motion_latents, 3);
    const struct clips five = plan(CLIPS_ANIMATE, 200, 5);
    assert_int_equal(clips_at(&five, 1).motion_latents, 2);
    assert_int_equal(clips_at(&five, 1).latent_start, 18);
}

static void ping_pong(void **state)
{
    (void)state;
    static const int64_t five[] = {0, 1, 2, 3, 4, 3, 2, 1, 0, 1};
    for (int64_t i = 0; i < 10; i++)
        assert_int_equal(pingpong_index(i, 5), five[i]);
    for (int64_t i = 0; i < 10; i++) {
        assert_int_equal(pingpong_index(i, 1), 0);
        assert_int_equal(pingpong_index(i, 2), i % 2);
    }
}

static void assert_rows(const struct clip *clip, uint32_t i, int64_t audio, int64_t a, int64_t b,
                        int64_t c, int64_t d, int64_t e)
{
    const int64_t expected[5] = {a, b, c, d, e};
    int64_t row[5];
    clip_audio_rows(clip, i, 1, audio, row);
    assert_memory_equal(row, expected, sizeof row);
}

static void audio_rows(void **state)
{
    (void)state;
    const struct clips clips = plan(CLIPS_MULTITALK, 100, 0);
    const struct clip first = clips_at(&clips, 0), last = clips_at(&clips, 1);
    assert_rows(&first, 0, 100, 0, 0, 0, 1, 2);
    assert_rows(&first, 80, 100, 78, 79, 80, 81, 82);
    assert_rows(&first, 80, 60, 59, 59, 59, 59, 59); /* one clip: clamped, not extended */
    assert_rows(&last, 0, 100, 54, 55, 56, 57, 58);
    /* frame 99 is the last with a voice; from 100 on the tail runs backwards: 99, 98, … */
    assert_rows(&last, 43, 100, 97, 98, 99, 99, 98);
    assert_rows(&last, 80, 100, 65, 64, 63, 62, 61);
    int64_t row[5];
    clip_audio_rows(&first, 3, 2, 200, row);
    assert_int_equal(row[2], 6);
    clip_audio_rows(&last, 80, 1, 1, row); /* a voice of one row: stays on it */
    assert_int_equal(row[4], 0);
}

static void mistakes_are_explained(void **state)
{
    (void)state;
    struct clips clips;
    struct clips_params p = {.mode = CLIPS_ANIMATE};
    assert_fails(clips_plan(&p, &clips, &error), LT_BAD_INPUT, "animate: 0 frames");
    p.frame_count = 10;
    p.clip_frames = 80;
    assert_fails(clips_plan(&p, &clips, &error), LT_BAD_INPUT, "clips of 80 frames");
    p.clip_frames = 25;
    p.overlap_frames = 25;
    assert_fails(clips_plan(&p, &clips, &error), LT_BAD_INPUT, "share 25");
    p.overlap_frames = 2;
    assert_fails(clips_plan(&p, &clips, &error), LT_BAD_INPUT, "share 2");
    p.frame_count = INT64_MAX;
    p.overlap_frames = 0;
    assert_fails(clips_plan(&p, &clips, &error), LT_BAD_INPUT, "9223372036854775807");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goldens_of_the_originals),
        cmocka_unit_test(counts_agree_with_the_loops),
        cmocka_unit_test(every_frame_comes_once),
        cmocka_unit_test(latents_of_a_clip),
        cmocka_unit_test(ping_pong),
        cmocka_unit_test(audio_rows),
        cmocka_unit_test(mistakes_are_explained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
