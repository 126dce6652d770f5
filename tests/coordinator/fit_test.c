/* If a picture came in a row too low, a mask a latent too early or a voice from the wrong side, the
 * model would follow it faithfully. */
#include "tests/test.h"

#include "common/safetensors.h"
#include "coordinator/media/mask.h"
#include "coordinator/slices.h"
#include "tests/coordinator/picture.h"

static struct lt_error error;
static struct lt_safetensors *goldens;

static int open_goldens(void **state)
{
    (void)state;
    return lt_safetensors_open(LT_SOURCE_DIR "/tests/golden/media/media.safetensors", &goldens,
                               &error);
}

static int close_goldens(void **state)
{
    (void)state;
    lt_safetensors_close(&goldens);
    return 0;
}

/* `data`, of `bytes`, is the golden of that name. */
static void assert_golden(const char *name, const void *data, size_t bytes)
{
    const struct lt_safetensor *const tensor = lt_safetensors_find(goldens, name);
    assert_non_null(tensor);
    assert_int_equal(tensor->bytes, bytes);
    uint8_t *const want = malloc(bytes);
    assert_ok(lt_safetensors_read(goldens, tensor, want, &error));
    for (size_t i = 0; i < bytes; i++)
        if (want[i] != ((const uint8_t *)data)[i])
            fail_msg("%s: byte %zu of %zu differs", name, i, bytes);
    free(want);
}

static void sizes_are_the_originals(void **state)
{
    (void)state;
    static const struct frame_size images[] = {{1280, 720}, {720, 1280}, {1920, 1080}, {1000, 1000},
                                               {640, 481},  {333, 777},  {4000, 1000}, {512, 768},
                                               {1023, 577}, {2, 3}};
    struct frame_size found[LT_COUNT(images)][4];
    for (size_t i = 0; i < LT_COUNT(images); i++) {
        found[i][0] = size_image_to_video(images[i], 480 * 832);
        found[i][1] = size_image_to_video(images[i], 720 * 1280);
        found[i][2] = size_best_output(images[i], 704 * 1280, 32);
        found[i][3] = size_by_area(images[i], 720 * 1280);
    }
    assert_golden("sizes", found, sizeof found);
    static const struct {
        struct frame_size image, small, large;
    } buckets[] = {{{1920, 1080}, {896, 448}, {1280, 704}},
                   {{1000, 1000}, {640, 640}, {960, 960}},
                   {{720, 1280}, {448, 832}, {704, 1280}},
                   {{100, 900}, {320, 1280}, {512, 1920}},
                   {{900, 100}, {1216, 320}, {2048, 448}}};
    for (size_t i = 0; i < LT_COUNT(buckets); i++) {
        const struct frame_size small = size_talk_bucket(buckets[i].image, false);
        const struct frame_size large = size_talk_bucket(buckets[i].image, true);
        assert_memory_equal(&small, &buckets[i].small, sizeof small);
        assert_memory_equal(&large, &buckets[i].large, sizeof large);
    }
    /* too long for a width of 64, too small for one: still a size of whole latents */
    const struct frame_size odd = size_by_area((struct frame_size){1, 1000}, 64 * 64);
    assert_true(odd.width == 16 && odd.height % 16 == 0 && odd.height > 0);
    const struct frame_size tiny = size_image_to_video((struct frame_size){1, 100000}, 480 * 832);
    assert_true(tiny.width == 16 && tiny.height % 16 == 0);
}

static void pictures_are_the_originals(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        struct frame_size size;
        int seed;
    } pictures[] = {{"wide", {90, 40}, 2}, {"high", {31, 70}, 3}};
    const struct frame_size square = {48, 48}, small = {29, 27}, talk = {33, 28};
    for (size_t i = 0; i < LT_COUNT(pictures); i++) {
        const struct frame_size from = pictures[i].size;
        uint8_t *const in = picture_fill((int)from.width, (int)from.height, pictures[i].seed);
        uint8_t out[48 * 48 * 3];
        char name[64];
        assert_ok(fit_letterbox(LT_RESIZE_CV_LINEAR, in, from, out, square, &error));
        snprintf(name, sizeof name, "letterbox.linear.%s", pictures[i].name);
        assert_golden(name, out, 48 * 48 * 3);
        assert_int_equal(letterbox_kernel(from, small), LT_RESIZE_CV_AREA);
        assert_int_equal(letterbox_kernel(small, from), LT_RESIZE_CV_LINEAR);
        assert_ok(fit_letterbox(LT_RESIZE_CV_AREA, in, from, out, small, &error));
        snprintf(name, sizeof name, "letterbox.area.%s", pictures[i].name);
        assert_golden(name, out, 29 * 27 * 3);
        assert_ok(fit_cover(FIT_TALK, in, from, out, talk, &error));
        snprintf(name, sizeof name, "cover.talk.%s", pictures[i].name);
        assert_golden(name, out, 33 * 28 * 3);
        assert_ok(fit_cover(FIT_IMAGE, in, from, out, talk, &error));
        snprintf(name, sizeof name, "cover.image.%s", pictures[i].name);
        assert_golden(name, out, 33 * 28 * 3);
        free(in);
    }
}

static void crops(void **state)
{
    (void)state;
    const struct frame_size from = {90, 40}, to = {64, 64};
    uint8_t *const in = picture_fill(90, 40, 2);
    uint8_t *const out = malloc(64 * 64 * 3), *const whole = malloc(64 * 64 * 3);
    assert_ok(fit_crop(in, from, (struct frame_box){40, 5, 81, 31}, out, to, &error));
    assert_golden("crop", out, 64 * 64 * 3);
    assert_ok(fit_crop(in, from, (struct frame_box){-9, -9, 900, 900}, out, to, &error));
    assert_ok(fit_crop(in, from, (struct frame_box){0, 0, 90, 40}, whole, to, &error));
    assert_memory_equal(out, whole, 64 * 64 * 3);
    assert_fails(fit_crop(in, from, (struct frame_box){90, 0, 95, 9}, out, to, &error),
                 LT_BAD_INPUT, "[90, 95)");
    float pixels[3 * 2 * 2];
    const uint8_t rgb[] = {0, 255, 51, 255, 0, 0};
    frame_to_pixels(rgb, (struct frame_size){2, 1}, pixels + 2, 4); /* frame 1 of 2, 2 x 1 */
    assert_true(pixels[2] == -1 && pixels[3] == 1 && pixels[6] == 1 && pixels[7] == -1);
    assert_true(pixels[10] > -0.6001f && pixels[10] < -0.5999f);
    free(in);
    free(out);
    free(whole);
}

static void masks_are_the_originals(void **state)
{
    (void)state;
    float mask[9 * 6], packed[12 * 6];
    for (int f = 0; f < 9; f++)
        for (int i = 0; i < 6; i++)
            mask[f * 6 + i] = (float)(f * 10 + i);
    mask_pack(mask, 9, 6, packed);
    assert_golden("packed", packed, sizeof packed);

    uint8_t *const rgb = picture_fill(50, 40, 0);
    float background[35];
    assert_ok(mask_background(rgb, (struct frame_size){50, 40}, 128, (struct frame_size){7, 5},
                              background, &error));
    assert_golden("background", background, sizeof background);
    uint8_t *const frame = picture_fill(50, 40, 9);
    mask_black_out(frame, rgb, (struct frame_size){50, 40}, 128);
    int black = 0;
    for (int i = 0; i < 2000; i++) {
        assert_true(rgb[3 * i] < 128 || frame[3 * i] + frame[3 * i + 1] + frame[3 * i + 2] == 0);
        black += rgb[3 * i] >= 128;
    }
    assert_true(black > 100 && black < 1900);
    free(rgb);
    free(frame);
}

static void every_speaker_has_a_place(void **state)
{
    (void)state;
    const struct frame_size size = {97, 51}, picture = {64, 48}, grid = {8, 6};
    const size_t plane = 97 * 51;
    float *const masks = malloc(3 * plane * sizeof *masks);
    float fitted[3 * 48];
    speaker_masks_halves(size, 0.10, masks);
    assert_golden("halves.wide", masks, 3 * plane * sizeof *masks);
    speaker_masks_halves(size, 0.05, masks);
    assert_golden("halves", masks, 3 * plane * sizeof *masks);
    assert_ok(speaker_masks_fit(masks, 3, size, picture, grid, fitted, &error));
    assert_golden("halves.fit", fitted, sizeof fitted);
    const struct frame_box box[2] = {{-5, 2, 10, 20}, {50, 0, 200, 51}};
    assert_ok(speaker_masks_boxes(size, box, 2, masks, &error));
    double sum[3] = {0};
    for (size_t i = 0; i < 3 * plane; i++)
        sum[i / plane] += (double)masks[i];
    assert_true(sum[0] == 10 * 18 && sum[1] == 47 * 51 && sum[2] == 97 * 51 - 180 - 2397);
    const struct frame_box none = {10, 10, 10, 20};
    assert_fails(speaker_masks_boxes(size, &none, 1, masks, &error), LT_BAD_INPUT, "speaker 0");
    speaker_masks_one(size, masks);
    for (size_t i = 0; i < 3 * plane; i++)
        assert_true(masks[i] == 1);
    free(masks);
}

/* -- slices ------------------------------------------------------------------------------------ */

static void plain_windows_are_the_originals(void **state)
{
    (void)state;
    for (uint32_t first = 0; first < 40; first += 13) {
        uint32_t latent[21];
        int64_t frame[81], rows[81 * 5], pose[20], face[80];
        for (uint32_t i = 0; i < 21; i++)
            latent[i] = first + i;
        slice_frames(latent, 21, 200, frame);
        slice_audio(latent, 21, 1, 200, rows);
        slice_pose_latents(latent, 21, 50, pose);
        slice_face_frames(latent, 21, 197, face);
        for (int i = 0; i <= 80; i++) { /* 4c[0] … 4c[-1] inclusive, clamped */
            const int64_t f = 4 * (int64_t)first + i;
            assert_int_equal(frame[i], f < 200 ? f : 199);
            for (int tap = 0; tap < 5; tap++) {
                const int64_t r = f + tap - 2;
                assert_int_equal(rows[5 * i + tap], r < 0 ? 0 : r < 200 ? r : 199);
            }
        }
        for (int i = 0; i < 20; i++) /* c[0] … c[-1]-1 */
            assert_int_equal(pose[i], first + i < 50 ? first + i : 49);
        for (int i = 0; i < 80; i++) /* 4c[0] … 4c[-1]-1 */
            assert_int_equal(face[i], 4 * first + i < 197 ? 4 * first + i : 196);
    }
}

/* Where the originals' ends give a wrong or a negative range: a stride of 2, a loop. */
static void strided_and_wrapped_windows(void **state)
{
    (void)state;
    const uint32_t strided[] = {3, 5, 7}, wrapped[] = {9, 0, 1};
    static const int64_t strided_frames[] = {12, 17, 18, 19, 20, 25, 26, 27, 28};
    static const int64_t wrapped_frames[] = {36, 0, 0, 0, 0, 1, 2, 3, 4};
    static const int64_t strided_faces[] = {16, 17, 18, 19, 24, 25, 26, 27};
    int64_t frame[9], face[8], pose[2];
    slice_frames(strided, 3, 100, frame);
    assert_memory_equal(frame, strided_frames, sizeof frame);
    slice_frames(wrapped, 3, 37, frame);
    assert_memory_equal(frame, wrapped_frames, sizeof frame);
    slice_face_frames(strided, 3, 100, face);
    assert_memory_equal(face, strided_faces, sizeof face);
    slice_pose_latents(wrapped, 3, 10, pose);
    assert_true(pose[0] == 0 && pose[1] == 0); /* latent 0 in a later slot: clamped */
    slice_frames(strided, 1, 5, frame);
    assert_int_equal(frame[0], 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_the_originals),
        cmocka_unit_test(pictures_are_the_originals),
        cmocka_unit_test(crops),
        cmocka_unit_test(masks_are_the_originals),
        cmocka_unit_test(every_speaker_has_a_place),
        cmocka_unit_test(plain_windows_are_the_originals),
        cmocka_unit_test(strided_and_wrapped_windows),
    };
    return cmocka_run_group_tests(tests, open_goldens, close_goldens);
}
