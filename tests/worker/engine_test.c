/* The engine computes tasks within a plan. If streaming, batches or exchanging models changed a
 * result, a take would depend on whose machine it was made on; if they moved more bytes than they
 * should, a small machine would be no use. */
#include "tests/test.h"

#include "common/file.h"
#include "worker/engine_private.h"
#include "worker/guidance.h"
#include "worker/synth.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LAYERS = 6, VALUES = 16 * 3 * 4 * 6, TEXT_ROWS = 5, TEXT_DIM = 32 };

static char dir[] = "/tmp/longtake-test-XXXXXX";

static int make_models(void **state)
{
    (void)state;
    char path[300];
    struct synth_report report;
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof path, "%s/t2v.gguf", dir);
    const struct synth_params dit = {.variant = "t2v-1.3b",
                                     .quant = "q8_0",
                                     .seed = 1,
                                     .layers = LAYERS,
                                     .dim = 256,
                                     .ffn = 512,
                                     .text_dim = TEXT_DIM,
                                     .freq_dim = 64,
                                     .path = path};
    if (synth_write(&dit, NULL, NULL, &report, NULL) != LT_OK)
        return 1;
    const char *const names[] = {"style", "other", "wide"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s.safetensors", dir, names[i]);
        const struct synth_params lora = {.variant = "lora",
                                          .base = "t2v-1.3b",
                                          .form = i ? "kohya" : "diffusers",
                                          .rank = 4,
                                          .seed = 3 + i,
                                          .layers = LAYERS,
                                          .dim = i == 2 ? 384 : 256,
                                          .ffn = i == 2 ? 640 : 512,
                                          .path = path};
        if (synth_write(&lora, NULL, NULL, &report, NULL) != LT_OK)
            return 1;
    }
    snprintf(path, sizeof path, "%s/vae.safetensors", dir);
    const struct synth_params vae = {.variant = "vae-z16", .seed = 2, .dim = 8, .path = path};
    return synth_write(&vae, NULL, NULL, &report, NULL) != LT_OK;
}

static int remove_models(void **state)
{
    (void)state;
    return lt_dir_remove(dir, NULL) != LT_OK;
}

/* -- tasks ------------------------------------------------------------------------------------- */

struct job {
    struct lt_task_spec spec[ENGINE_BATCH_MAX];
    struct engine_work work[ENGINE_BATCH_MAX];
    float x[ENGINE_BATCH_MAX][VALUES];
    float text[2][TEXT_ROWS * TEXT_DIM];
    struct engine_progress progress;
};

/* Windows that differ in latents and timestep. */
static struct job *make_job(double guidance)
{
    struct job *job = calloc(1, sizeof *job);
    assert_non_null(job);
    for (size_t i = 0; i < LT_COUNT(job->text[0]); i++) {
        job->text[0][i] = 0.01f * (float)(i % 17) - 0.05f;
        job->text[1][i] = 0.02f * (float)(i % 11) - 0.1f;
    }
    for (size_t n = 0; n < ENGINE_BATCH_MAX; n++) {
        for (size_t i = 0; i < VALUES; i++)
            job->x[n][i] = 0.1f * (float)((i * (n + 3)) % 19) - 0.9f;
        job->spec[n] = (struct lt_task_spec){.kind = LT_TASK_PREDICT,
                                             .model = {.name = "t2v.gguf"},
                                             .shape = {16, 3, 4, 6},
                                             .timestep = 900 - 10.0 * (double)n,
                                             .guidance = guidance,
                                             .precision = LT_PRECISION_F32,
                                             .text_len = 8,
                                             .result_bytes = sizeof job->x[n]};
        job->work[n] = (struct engine_work){
            .task = n + 1,
            .spec = &job->spec[n],
            .blob = {{LT_BLOB_LATENTS, job->x[n], sizeof job->x[n]},
                     {LT_BLOB_TEXT, job->text[0], sizeof job->text[0]},
                     {LT_BLOB_TEXT_NEGATIVE, job->text[1], sizeof job->text[1]}},
            .blob_count = 3};
    }
    return job;
}

static void free_job(struct job *job)
{
    for (size_t n = 0; n < ENGINE_BATCH_MAX; n++)
        free(job->work[n].result);
    free(job);
}

static void run(struct engine *engine, struct job *job, size_t first, size_t count)
{
    engine_run(engine, job->work + first, count, &job->progress);
    for (size_t n = first; n < first + count; n++)
        if (job->work[n].status != LT_OK)
            fail_msg("task %zu: %s", n, job->work[n].error.text);
}

static struct engine *make_engine_that(const struct memory_settings *memory, bool verifies)
{
    const char *const dirs[] = {dir};
    const struct engine_params params = {.model_dir = dirs,
                                         .model_dir_count = 1,
                                         .thread_count = 2,
                                         .kernel_selector = "best",
                                         .verify = verifies,
                                         .memory = *memory};
    struct engine *engine;
    struct lt_error error;
    assert_ok(engine_create(&params, &engine, &error));
    return engine;
}

static struct engine *make_engine(const struct memory_settings *memory)
{
    return make_engine_that(memory, false);
}

static struct lt_beat_memory memory_of(struct engine *engine)
{
    struct lt_beat_memory memory;
    engine_memory(engine, &memory);
    return memory;
}

static const struct memory_settings resident = {.blocks_to_swap = 0, .prefetch = -1};
static const struct memory_settings streamed = {.blocks_to_swap = LAYERS, .prefetch = 1};
/* Nothing is on its way when a task has ended: its bytes can be counted. */
static const struct memory_settings counted = {.blocks_to_swap = LAYERS, .prefetch = 0};

/* -- tests ------------------------------------------------------------------------------------- */

static void streaming_changes_no_bit(void **state)
{
    (void)state;
    struct job *want = make_job(5), *got = make_job(5);
    struct engine *a = make_engine(&resident);
    run(a, want, 0, 1);
    run(a, want, 1, 1);
    assert_int_equal(memory_of(a).copied_bytes, 0);
    assert_int_equal(engine_batch_max(a), 1);
    engine_destroy(&a);
    for (int64_t swap = 1; swap <= LAYERS; swap++)
        for (int64_t prefetch = 0; prefetch < 3; prefetch++) {
            const struct memory_settings memory = {.blocks_to_swap = swap, .prefetch = prefetch};
            struct engine *b = make_engine(&memory);
            for (size_t n = 0; n < 2; n++) {
                run(b, got, n, 1);
                assert_memory_equal(want->work[n].result, got->work[n].result, sizeof want->x[n]);
                free(got->work[n].result);
            }
            engine_destroy(&b);
        }
    for (size_t n = 0; n < 2; n++)
        got->work[n].result = NULL;
    free_job(want);
    free_job(got);
}

/* Weight bytes per window fall by the number of windows; the bits stay. */
static void g4_a_batch_of_four_moves_a_quarter(void **state)
{
    (void)state;
    struct job *alone = make_job(1), *together = make_job(1);
    struct engine *engine = make_engine(&counted);
    run(engine, alone, 0, 1);
    assert_int_equal(engine_batch_max(engine), ENGINE_BATCH_MAX); /* no limit: as many as may be */
    const uint64_t start = memory_of(engine).copied_bytes;
    for (size_t n = 1; n < 5; n++)
        run(engine, alone, n, 1);
    const uint64_t four = memory_of(engine).copied_bytes - start;
    run(engine, together, 1, 4);
    const uint64_t one = memory_of(engine).copied_bytes - start - four;
    assert_true(one > 0);
    assert_int_equal(four, 4 * one);
    for (size_t n = 1; n < 5; n++)
        assert_memory_equal(alone->work[n].result, together->work[n].result, sizeof alone->x[n]);
    engine_destroy(&engine);
    free_job(alone);
    free_job(together);
}

static void g5_1_what_is_resident_is_not_read_again(void **state)
{
    (void)state;
    struct job *job = make_job(5);
    struct engine *engine = make_engine(&resident);
    run(engine, job, 0, 1);
    const uint64_t read = memory_of(engine).read_bytes;
    assert_true(read > 0);
    run(engine, job, 1, 1);
    run(engine, job, 2, 1);
    assert_int_equal(memory_of(engine).read_bytes, read);
    engine_destroy(&engine);
    free_job(job);
}

/* -- LoRAs ------------------------------------------------------------------------------------- */

/* Task 0 of the job with these LoRAs; its result is the caller's. */
static float *run_with(struct engine *engine, struct job *job, const struct engine_lora *lora,
                       size_t count, uint32_t step)
{
    job->work[0].lora = lora;
    job->work[0].lora_count = count;
    job->work[0].step = step;
    run(engine, job, 0, 1);
    float *result = job->work[0].result;
    job->work[0].result = NULL;
    return result;
}

static void expect_result(struct engine *engine, struct job *job, const struct engine_lora *lora,
                          size_t count, uint32_t step, const float *want, bool same)
{
    float *got = run_with(engine, job, lora, count, step);
    assert_int_equal(memcmp(got, want, VALUES * sizeof *got) == 0, same);
    free(got);
}

static void g5_strengths_and_absence_read_nothing(void **state)
{
    (void)state;
    static const float full = 1, half = 0.5f, fading[] = {1, 0};
    const struct engine_lora style[] = {
        {.file = {.name = "style.safetensors"}, .strength = &full, .strength_count = 1},
        {.file = {.name = "other.safetensors"}, .strength = &half, .strength_count = 1}};
    struct engine_lora weaker[2] = {style[0], style[1]}, steps = style[0];
    weaker[0].strength = &half;
    steps.strength = fading;
    steps.strength_count = 2;
    const struct memory_settings *const places[] = {&resident, &streamed};
    float *bare[2], *styled[2], *both[2];
    for (size_t i = 0; i < 2; i++) {
        struct job *job = make_job(5);
        struct engine *engine = make_engine(places[i]);
        const struct lt_digest none = engine_signature(engine);
        assert_true(lt_digest_is_zero(&none));
        bare[i] = run_with(engine, job, NULL, 0, 0);
        const struct lt_digest plain = engine_signature(engine);
        both[i] = run_with(engine, job, style, 2, 0);
        const struct lt_digest first = engine_signature(engine);
        assert_false(lt_digest_equal(&plain, &first));
        const uint64_t read = memory_of(engine).read_bytes;
        expect_result(engine, job, style, 2, 0, both[i], true); /* G5.1, G3.3 */
        expect_result(engine, job, weaker, 2, 0, both[i], false);
        const struct lt_digest other = engine_signature(engine);
        assert_false(lt_digest_equal(&other, &first));
        expect_result(engine, job, NULL, 0, 0, bare[i], true);
        expect_result(engine, job, style, 2, 0, both[i], true);
        if (i == 0)
            assert_int_equal(memory_of(engine).read_bytes, read);
        const struct lt_digest again = engine_signature(engine);
        assert_true(lt_digest_equal(&again, &first));
        styled[i] = run_with(engine, job, style, 1, 0); /* other files: loaded anew */
        assert_true(memory_of(engine).read_bytes > read);
        expect_result(engine, job, &steps, 1, 0, styled[i], true);
        expect_result(engine, job, &steps, 1, 1, bare[i], true);
        expect_result(engine, job, &steps, 1, 7, bare[i], true);
        engine_destroy(&engine);
        free_job(job);
    }
    /* wherever the blocks live */
    assert_memory_equal(bare[0], bare[1], VALUES * sizeof **bare);
    assert_memory_equal(styled[0], styled[1], VALUES * sizeof **styled);
    assert_memory_equal(both[0], both[1], VALUES * sizeof **both);
    for (size_t i = 0; i < 2; i++) {
        free(bare[i]);
        free(styled[i]);
        free(both[i]);
    }
}

static void g5_3_a_failed_load_clears_the_signature(void **state)
{
    (void)state;
    const struct engine_lora missing = {.file = {.name = "none.safetensors"}},
                             wide = {.file = {.name = "wide.safetensors"}};
    struct job *job = make_job(5);
    struct engine *engine = make_engine(&resident);
    float *want = run_with(engine, job, NULL, 0, 0);
    const uint64_t read = memory_of(engine).read_bytes;
    const struct lt_digest before = engine_signature(engine);
    job->work[0].lora = &missing;
    job->work[0].lora_count = 1;
    engine_run(engine, job->work, 1, &job->progress);
    assert_int_equal(job->work[0].status, LT_NOT_FOUND);
    const struct lt_digest kept = engine_signature(engine); /* nothing was touched */
    assert_true(lt_digest_equal(&kept, &before));
    job->work[0].lora = &wide;
    engine_run(engine, job->work, 1, &job->progress);
    assert_int_equal(job->work[0].status, LT_BAD_INPUT);
    assert_non_null(strstr(job->work[0].error.text, "none of its"));
    const struct lt_digest cleared = engine_signature(engine);
    assert_true(lt_digest_is_zero(&cleared));
    expect_result(engine, job, NULL, 0, 0, want, true);
    assert_int_equal(memory_of(engine).read_bytes, 2 * read);
    free(want);
    engine_destroy(&engine);
    free_job(job);
}

/* However it goes: out of the device for another component, or for good. */
static void g5_4_an_eviction_clears_the_signature(void **state)
{
    (void)state;
    struct job *job = make_job(5);
    struct engine *engine = make_engine(&resident);
    float *want = run_with(engine, job, NULL, 0, 0);
    const struct lt_digest before = engine_signature(engine);
    const uint64_t read = memory_of(engine).read_bytes;
    assert_false(lt_digest_is_zero(&before));
    engine_drop(engine, ENGINE_TRANSFORMER);
    const struct lt_digest whole = engine_signature(engine), base = engine_resident(engine);
    assert_true(lt_digest_is_zero(&whole) && lt_digest_is_zero(&base));
    expect_result(engine, job, NULL, 0, 0, want, true);
    assert_int_equal(memory_of(engine).read_bytes, 2 * read);
    const struct lt_digest after = engine_signature(engine);
    assert_true(lt_digest_equal(&after, &before));
    free(want);
    engine_destroy(&engine);
    free_job(job);
}

/* -- files that change ------------------------------------------------------------------------- */

/* Another last byte, which no sample of the fingerprint has; size, time and inode stay. */
static void flip_last_byte(const char *name)
{
    char path[300];
    struct stat info;
    uint8_t byte;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    const int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &info), 0);
    assert_int_equal(pread(fd, &byte, 1, info.st_size - 1), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, info.st_size - 1), 1);
    const struct timespec times[2] = {{0, UTIME_OMIT}, info.st_mtim};
    assert_int_equal(futimens(fd, times), 0);
    close(fd);
}

/* G2.3, hash on request: a file is opened again for every load. */
static void g2_3_all_bytes_are_verified_on_request(void **state)
{
    (void)state;
    const struct engine_lora style = {.file = {.name = "style.safetensors"}};
    static const char *const names[] = {"t2v.gguf", "style.safetensors"};
    for (size_t changed = 0; changed < LT_COUNT(names); changed++)
        for (int verifies = 0; verifies < 2; verifies++) {
            struct job *job = make_job(1);
            struct engine *engine = make_engine_that(&resident, verifies);
            free(run_with(engine, job, &style, 1, 0));
            engine_drop(engine, ENGINE_TRANSFORMER);
            flip_last_byte(names[changed]);
            engine_run(engine, job->work, 1, &job->progress);
            if (verifies) {
                assert_int_equal(job->work[0].status, LT_CORRUPT);
                assert_non_null(strstr(job->work[0].error.text, names[changed]));
                assert_non_null(strstr(job->work[0].error.text, "the file changed"));
                const struct lt_digest none = engine_signature(engine);
                assert_true(lt_digest_is_zero(&none));
            } else {
                assert_int_equal(job->work[0].status, LT_OK);
            }
            flip_last_byte(names[changed]);
            free(job->work[0].result);
            free(run_with(engine, job, &style, 1, 0)); /* as it was: served again */
            engine_destroy(&engine);
            free_job(job);
        }
}

/* -- pictures ---------------------------------------------------------------------------------- */

enum { SIDE = 12, PICTURE_FRAMES = 5 };

static float picture[16 * 2 * SIDE * SIDE];

/* side x side latents over two frames; the u8 result is the caller's. Tells what of the device was
 * planned. */
static uint64_t decode(struct engine *engine, uint32_t side, uint32_t tile, uint8_t **rgb_out)
{
    for (size_t i = 0; i < LT_COUNT(picture); i++)
        picture[i] = 0.1f * (float)(i * 7 % 23) - 1;
    const size_t count = 16 * 2 * side * side;
    const struct lt_task_spec spec = {.kind = LT_TASK_VAE_DECODE,
                                      .model = {.name = "vae.safetensors"},
                                      .shape = {16, 2, side, side},
                                      .precision = LT_PRECISION_F32,
                                      .tile = tile,
                                      .tile_stride = tile / 2,
                                      .result_bytes = PICTURE_FRAMES * 3 * 64 * side * side};
    struct engine_work work = {.task = 1,
                               .spec = &spec,
                               .blob = {{LT_BLOB_LATENTS, picture, count * sizeof(float)}},
                               .blob_count = 1};
    struct engine_progress progress = {0};
    engine_run(engine, &work, 1, &progress);
    if (work.status != LT_OK)
        fail_msg("%s", work.error.text);
    const unsigned tiles = tile ? 4 : 1; /* 12 latents: from 0 and from 4, with tiles of 8 */
    assert_int_equal(atomic_load(&progress.done), 2 * tiles);
    *rgb_out = work.result;
    return engine->slot[ENGINE_VAE_DECODER].planned_bytes;
}

/* As eval's: what vae_decode_tiled gives, in u8. */
static lt_status compare_frame(void *context, int64_t index, const float *rgb,
                               struct lt_error *error)
{
    const uint8_t *want = (const uint8_t *)context + index * 3 * 64 * SIDE * SIDE;
    (void)error;
    for (size_t i = 0; i < 3 * 64 * SIDE * SIDE; i++)
        assert_int_equal(want[i], lrintf((rgb[i] + 1.0f) * 127.5f));
    return LT_OK;
}

static void a_task_has_the_tiles_of_eval(void **state)
{
    (void)state;
    struct lt_error error;
    struct engine *engine = make_engine(&resident);
    const struct vae_tiling tiling = {8, 8, 4, 4};
    uint8_t *rgb;
    decode(engine, SIDE, 8, &rgb);
    lt_exec_set_cancel(engine->exec[LT_PRECISION_F32], NULL); /* that task's is gone */
    const struct lt_view latents = lt_view_4d(picture, LT_TYPE_F32, 16, 2, SIDE, SIDE);
    assert_ok(vae_decode_tiled(engine->slot[ENGINE_VAE_DECODER].vae, &tiling, &latents,
                               compare_frame, rgb, NULL, &error));
    free(rgb);
    engine_destroy(&engine);
}

static uint64_t decode_alone(uint32_t side, uint32_t tile, uint8_t **rgb_out)
{
    struct engine *engine = make_engine(&resident);
    const uint64_t planned = decode(engine, side, tile, rgb_out);
    engine_destroy(&engine);
    return planned;
}

static void a_larger_picture_is_planned_anew(void **state)
{
    (void)state;
    uint8_t *small, *large, *again, *alone;
    const uint64_t small_bytes = decode_alone(4, 0, &small),
                   large_bytes = decode_alone(SIDE, 0, &alone);
    struct engine *engine = make_engine(&resident);
    assert_true(small_bytes < large_bytes);
    assert_int_equal(decode(engine, 4, 0, &again), small_bytes);
    free(again);
    const uint64_t read = memory_of(engine).read_bytes;
    assert_int_equal(decode(engine, SIDE, 0, &large), large_bytes);
    assert_memory_equal(large, alone, PICTURE_FRAMES * 3 * 64 * SIDE * SIDE);
    assert_int_equal(memory_of(engine).read_bytes, 2 * read);
    assert_int_equal(decode(engine, 4, 0, &again), large_bytes); /* which serves it too */
    assert_int_equal(memory_of(engine).read_bytes, 2 * read);
    assert_memory_equal(again, small, PICTURE_FRAMES * 3 * 64 * 4 * 4);
    free(small);
    free(large);
    free(again);
    free(alone);
    engine_destroy(&engine);
}

/* For who asks: less memory, another picture (vae_memory_test holds it to the wrapper's), the same
 * each time. */
static void tiles_take_less_memory(void **state)
{
    (void)state;
    uint8_t *whole, *tiled, *again;
    const uint64_t whole_bytes = decode_alone(SIDE, 0, &whole),
                   tiled_bytes = decode_alone(SIDE, 8, &tiled);
    const size_t bytes = PICTURE_FRAMES * 3 * 64 * SIDE * SIDE;
    assert_true(tiled_bytes < whole_bytes);
    assert_memory_not_equal(tiled, whole, bytes);
    assert_int_equal(decode_alone(SIDE, 8, &again), tiled_bytes);
    assert_memory_equal(again, tiled, bytes);
    free(whole);
    free(tiled);
    free(again);
}

/* -- refusals ---------------------------------------------------------------------------------- */

static void one_wrong_task_does_not_spoil_its_batch(void **state)
{
    (void)state;
    struct job *job = make_job(5), *want = make_job(5);
    struct engine *engine = make_engine(&streamed);
    job->x[1][7] = 0;
    job->spec[1].result_bytes = 12;
    job->work[2].blob_count = 1; /* no text */
    engine_run(engine, job->work, 4, &job->progress);
    assert_int_equal(job->work[1].status, LT_BAD_INPUT);
    assert_non_null(strstr(job->work[1].error.text, "result of 12 bytes"));
    assert_int_equal(job->work[2].status, LT_BAD_INPUT);
    assert_non_null(strstr(job->work[2].error.text, "text is missing"));
    run(engine, want, 3, 1);
    assert_int_equal(job->work[0].status, LT_OK);
    assert_int_equal(job->work[3].status, LT_OK);
    assert_memory_equal(job->work[3].result, want->work[3].result, sizeof want->x[3]);
    engine_destroy(&engine);
    free_job(job);
    free_job(want);
}

/* The options of a task reach the network, each the half of the guidance it is meant for. */
static void options_of_a_task_have_their_effect(void **state)
{
    (void)state;
    enum { PLAIN, WITHOUT, ZERO_STAR, NOTHING, NAG, SKIP, RIFLEX, ONLY, COUNT };
    struct job *job = make_job(5);
    struct engine *engine = make_engine(&resident);
    const float *out[COUNT];
    for (size_t n = 0; n < COUNT; n++) {
        job->spec[n].timestep = 900;
        job->work[n].blob[0].data = job->x[0];
    }
    job->spec[WITHOUT].guidance = job->spec[ONLY].guidance = 1;
    job->work[WITHOUT].blob[1].data = job->text[1];
    job->spec[ZERO_STAR].guide = LT_GUIDE_ZERO_STAR;
    job->spec[NOTHING].no_velocity = true;
    job->spec[NAG].guidance = 1;
    job->spec[NAG].nag_count = LT_SPEC_NAG;
    memcpy(job->spec[NAG].nag, (const double[]){11, 2.5, 0.25}, sizeof job->spec[NAG].nag);
    job->spec[SKIP].skip_layer_count = 1;
    job->spec[SKIP].skip_layer[0] = 2;
    job->spec[RIFLEX].riflex_index = 6;
    job->spec[RIFLEX].riflex_frames = 40;
    for (size_t n = 0; n < COUNT; n++) {
        run(engine, job, n, 1);
        out[n] = job->work[n].result;
    }
    float star[VALUES];
    memcpy(star, out[ONLY], sizeof star);
    guidance_zero_star(star, out[WITHOUT], VALUES, 5);
    assert_memory_equal(out[ZERO_STAR], star, sizeof star);
    for (size_t i = 0; i < VALUES; i++)
        assert_true(out[NOTHING][i] == 0);
    assert_memory_not_equal(out[NAG], out[ONLY], sizeof star);
    assert_memory_not_equal(out[SKIP], out[PLAIN], sizeof star);
    assert_memory_not_equal(out[RIFLEX], out[PLAIN], sizeof star);

    free(job->work[SKIP].result); /* blocks are left out without the prompt only */
    job->work[SKIP].result = NULL;
    job->spec[SKIP].guidance = 1;
    run(engine, job, SKIP, 1);
    assert_memory_equal(job->work[SKIP].result, out[ONLY], sizeof star);

    free(job->work[NAG].result);
    job->work[NAG].result = NULL;
    job->work[NAG].blob_count = 2;
    engine_run(engine, &job->work[NAG], 1, &job->progress);
    assert_int_equal(job->work[NAG].status, LT_BAD_INPUT);
    assert_non_null(strstr(job->work[NAG].error.text, "negative text is missing"));
    engine_destroy(&engine);
    free_job(job);
}

static void what_does_not_fit_is_refused_with_the_sum(void **state)
{
    (void)state;
    const struct memory_settings tiny = {
        .device_memory = 1 << 20, .blocks_to_swap = -1, .prefetch = -1};
    struct job *job = make_job(5);
    struct engine *engine = make_engine(&tiny);
    engine_run(engine, job->work, 1, &job->progress);
    assert_int_equal(job->work[0].status, LT_NO_DEVICE_MEMORY);
    assert_non_null(strstr(job->work[0].error.text, "--device-memory allows 1.00 MiB"));
    assert_int_equal(memory_of(engine).read_bytes, 0); /* before any work */
    engine_destroy(&engine);
    free_job(job);
}

/* The least limit under which the plan still finds a way: everything streamed, nothing kept. */
static void the_plan_streams_under_a_limit(void **state)
{
    (void)state;
    struct job *want = make_job(5), *got = make_job(5);
    struct engine *a = make_engine(&resident);
    run(a, want, 0, 1);
    const uint64_t weights = memory_of(a).device_bytes;
    engine_destroy(&a);
    const struct memory_settings limit = {
        .device_memory = weights, .blocks_to_swap = -1, .prefetch = -1};
    struct engine *b = make_engine(&limit);
    run(b, got, 0, 1);
    run(b, got, 1, 1);
    assert_memory_equal(want->work[0].result, got->work[0].result, sizeof want->x[0]);
    assert_true(memory_of(b).device_bytes < weights);
    assert_true(memory_of(b).copied_bytes > 0);
    engine_destroy(&b);
    free_job(want);
    free_job(got);
}

/* Ten loads and releases: what the process holds comes back. */
static void g6_2_loads_leave_nothing_behind(void **state)
{
    (void)state;
    uint64_t first = 0;
    if (LT_SANITIZED)
        skip(); /* sanitizers keep what was freed */
    for (int cycle = 0; cycle < 10; cycle++) {
        struct job *job = make_job(1);
        struct engine *engine = make_engine(&resident);
        run(engine, job, 0, 1);
        const struct lt_beat_memory memory = memory_of(engine);
        if (cycle == 1) /* libraries have made what they make once */
            first = memory.rss_bytes;
        if (cycle > 1)
            assert_true(memory.rss_bytes <= first + (1 << 20));
        engine_destroy(&engine);
        free_job(job);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streaming_changes_no_bit),
        cmocka_unit_test(g4_a_batch_of_four_moves_a_quarter),
        cmocka_unit_test(g5_1_what_is_resident_is_not_read_again),
        cmocka_unit_test(g5_strengths_and_absence_read_nothing),
        cmocka_unit_test(g5_3_a_failed_load_clears_the_signature),
        cmocka_unit_test(g5_4_an_eviction_clears_the_signature),
        cmocka_unit_test(g2_3_all_bytes_are_verified_on_request),
        cmocka_unit_test(a_larger_picture_is_planned_anew),
        cmocka_unit_test(tiles_take_less_memory),
        cmocka_unit_test(a_task_has_the_tiles_of_eval),
        cmocka_unit_test(one_wrong_task_does_not_spoil_its_batch),
        cmocka_unit_test(options_of_a_task_have_their_effect),
        cmocka_unit_test(what_does_not_fit_is_refused_with_the_sum),
        cmocka_unit_test(the_plan_streams_under_a_limit),
        cmocka_unit_test(g6_2_loads_leave_nothing_behind),
    };
    return cmocka_run_group_tests(tests, make_models, remove_models);
}
