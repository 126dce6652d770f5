/* If the audio parts differed from the original, lips would move, but not to these words, or the
 * wrong person's would. Numbers: dit.md 8.6, made by the original PyTorch code in f64. */
#include "tests/test.h"

#include "common/file.h"
#include "tests/worker/fill.h"
#include "worker/model/dit_parts.h"
#include "worker/model/talk.h"

#include <math.h>

enum {
    AUDIO_FRAMES = 30,
    FEATURES = 12 * 8,
    FRAMES = 3,
    HEARD = TALK_FIRST_FRAMES + TALK_FRAMES * (FRAMES - 1),
    TOKENS = 4,
    DIM = 24,
    WIDTH = 256,
    ROWS = 3,
    COLUMNS = 4,
    CELLS = ROWS * COLUMNS,
    LENGTH = FRAMES * CELLS
};

static char dir[] = "/tmp/longtake-test-XXXXXX";
static char path[256];

static int make_dir(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof path, "%s/talk.safetensors", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    return lt_dir_remove(dir, NULL) != LT_OK;
}

struct run {
    struct tensor_file *file;
    struct store *store;
    struct lt_kernels kernels;
    struct lt_exec *exec;
    struct dit dit;
};

static void begin(struct run *run, const char *kernels)
{
    const struct dit_config config = {
        .variant = DIT_VARIANT_TALK_ADDON,
        .dim = WIDTH,
        .head_count = 2,
        .layer_count = 1,
        .talk = {.features = FEATURES, .hidden = 16, .tokens = TOKENS, .dim = DIM},
        .epsilon = 1e-6f};
    struct catalogue catalogue;
    struct dit_config found;
    struct lt_error error;
    memset(run, 0, sizeof *run);
    assert_ok(catalogue_of_dit(&config, &catalogue, &error));
    assert_ok(fill_file(path, &catalogue, fill_like_golden, NULL, &error));
    catalogue_fini(&catalogue);
    assert_ok(tensor_file_open(path, &run->file, &error));
    assert_ok(dit_config_detect(run->file, &found, &error));
    assert_memory_equal(&found.talk, &config.talk, sizeof found.talk);
    assert_ok(store_load(run->file, NULL, NULL, &run->store, &error));
    assert_ok(lt_kernels_select(&run->kernels, lt_caps_detect(), kernels, &error));
    assert_ok(lt_exec_create(&(struct lt_exec_params){2, LT_PRECISION_F32}, &run->exec, &error));
    run->dit.config = config;
    run->dit.net = (struct net){.store = run->store, .kernels = &run->kernels, .exec = run->exec};
    net_init(&run->dit.net);
}

static void end(struct run *run)
{
    net_fini(&run->dit.net);
    lt_exec_destroy(&run->exec);
    store_destroy(&run->store);
    tensor_file_close(&run->file);
}

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 2e-4 * fmax(1, fabs(want))))
        fail_msg("got %.9g, expected %.9g", got, want);
}

static void sums(const float *values, size_t count, double *sum, double *magnitude)
{
    *sum = *magnitude = 0;
    for (size_t i = 0; i < count; i++) {
        *sum += (double)values[i];
        *magnitude += fabs((double)values[i]);
    }
}

/* What three latent frames hear from video frame 0 on. */
static void hear(const char *name, float to[HEARD * FEATURES])
{
    static float audio[AUDIO_FRAMES * FEATURES];
    static const int frames[HEARD] = {0, 0, 0, 1, 2, 0, 0, 1, 2, 3, 4,
                                      5, 6, 3, 4, 5, 6, 7, 8, 9, 10};
    fill_values(name, audio, LT_COUNT(audio));
    for (int i = 0; i < HEARD; i++)
        memcpy(to + i * FEATURES, audio + frames[i] * FEATURES, FEATURES * sizeof *to);
}

static void audio_is_projected(void **state)
{
    (void)state;
    for (int best = 0; best < 2; best++) {
        struct run run;
        struct lt_error error;
        float speech[HEARD * FEATURES], tokens[FRAMES * TOKENS * DIM];
        double sum, magnitude;
        begin(&run, best ? "best" : "ref");
        hear("input.audio1", speech);
        const struct lt_view in = lt_view_2d(speech, LT_TYPE_F32, HEARD, FEATURES),
                             out = lt_view_3d(tokens, LT_TYPE_F32, FRAMES, TOKENS, DIM);
        assert_ok(talk_project(&run.dit, &in, &out, &error));
        near(tokens[0], -0.840166809);
        near(tokens[1], -1.090302569);
        near(tokens[2], -0.244199277);
        near(tokens[LT_COUNT(tokens) - 1], 0.715491110);
        sums(tokens, LT_COUNT(tokens), &sum, &magnitude);
        near(sum, 5.369975525);
        near(magnitude, 246.631566553);
        end(&run);
    }
}

/* Cells 0, 1, 4, 5: one person; 2, 3, 6, 7: the other; the rest: nobody. */
static const float masks[3 * CELLS] = {1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, /* 1 */
                                       0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, /* 2 */
                                       0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1};

static struct talk_context *listen(struct run *run, int speakers, size_t cache_bytes)
{
    static float speech[2][HEARD * FEATURES];
    struct talk_context *context;
    struct lt_error error;
    hear("input.audio1", speech[0]);
    hear("input.audio2", speech[1]);
    const struct talk_window window = {
        .audio = lt_view_3d(speech, LT_TYPE_F32, speakers, HEARD, FEATURES),
        .masks = lt_view_3d(speakers > 1 ? (void *)masks : NULL, LT_TYPE_F32, 3, ROWS, COLUMNS)};
    assert_ok(talk_context_create(&run->dit, &window, cache_bytes, &context, &error));
    return context;
}

static void attend(struct run *run, struct talk_context *context, const struct lt_view *position,
                   float out[LENGTH * WIDTH])
{
    static float in[LENGTH * WIDTH], room[LENGTH * WIDTH];
    struct lt_error error;
    fill_values("input.tokens36", in, LT_COUNT(in));
    const struct lt_view x = lt_view_2d(in, LT_TYPE_F32, LENGTH, WIDTH),
                         r = lt_view_2d(room, LT_TYPE_F32, LENGTH, WIDTH),
                         o = lt_view_2d(out, LT_TYPE_F32, LENGTH, WIDTH);
    assert_ok(talk_attend(&run->dit, context, 0, &x, position, &r, &o, &error));
}

static void one_speaker_is_heard(void **state)
{
    (void)state;
    for (int best = 0; best < 2; best++) {
        struct run run;
        static float out[LENGTH * WIDTH], again[LENGTH * WIDTH];
        double sum, magnitude;
        begin(&run, best ? "best" : "ref");
        struct talk_context *context = listen(&run, 1, 0);
        attend(&run, context, &(struct lt_view){0}, out);
        near(out[0], -0.132013760);
        near(out[1], -0.458395469);
        near(out[2], 0.155061169);
        near(out[LENGTH * WIDTH - 1], 0.076671544);
        sums(out, LENGTH * WIDTH, &sum, &magnitude);
        near(sum, 85.366075388);
        talk_context_destroy(&context);
        /* The same bytes when keys are kept, and then they are made once. */
        context = listen(&run, 1, 1 << 20);
        attend(&run, context, &(struct lt_view){0}, again);
        attend(&run, context, &(struct lt_view){0}, again);
        assert_memory_equal(out, again, sizeof out);
        assert_int_equal(talk_context_computed(context), 2); /* tokens, keys of the one block */
        talk_context_destroy(&context);
        end(&run);
    }
}

static void two_speakers_are_told_apart(void **state)
{
    (void)state;
    static const int person[] = {0, 2, 0, 1, 1, 2, 1, 1, 1, 2, 2, 2, 0, 2, 1, 1, 2, 1};
    for (int best = 0; best < 2; best++) {
        struct run run;
        struct lt_error error;
        static float q[LENGTH * WIDTH], k[LENGTH * WIDTH], room[LENGTH * WIDTH],
            out[LENGTH * WIDTH];
        float maps[3 * LENGTH], at[LENGTH];
        double sum, magnitude;
        begin(&run, best ? "best" : "ref");
        fill_values("input.q36", q, LT_COUNT(q));
        fill_values("input.k36", k, LT_COUNT(k));
        for (size_t i = 0; i < LT_COUNT(q); i++) {
            q[i] *= 3;
            k[i] *= 3;
        }
        const struct lt_view queries = lt_view_3d(q, LT_TYPE_F32, LENGTH, 2, 128),
                             keys = lt_view_3d(k, LT_TYPE_F32, CELLS, 2, 128),
                             r = lt_view_3d(room, LT_TYPE_F32, LENGTH, 2, 128),
                             m = lt_view_2d(maps, LT_TYPE_F32, 3, LENGTH),
                             position = lt_view_1d(at, LT_TYPE_F32, LENGTH);
        struct talk_context *context = listen(&run, 2, 0);
        assert_ok(talk_route(context, &queries, &keys, &r, &m, &position, &error));
        near(maps[0], 0.089296829);
        near(maps[1], 0.007689906);
        near(maps[2], 0.226834673);
        near(maps[3 * LENGTH - 1], 0.128377900);
        for (size_t l = 0; l < LT_COUNT(person); l++)
            assert_int_equal(at[l] < 5 ? 0 : at[l] > 19 ? 1 : 2, person[l]);
        attend(&run, context, &position, out);
        near(out[0], -0.074410249);
        near(out[1], -0.411855579);
        near(out[2], 0.079933471);
        near(out[LENGTH * WIDTH - 1], 0.045309223);
        sums(out, LENGTH * WIDTH, &sum, &magnitude);
        near(sum, 84.840250709);
        near(magnitude, 1200.801838432);
        talk_context_destroy(&context);
        end(&run);
    }
}

static void wrong_speech_is_refused(void **state)
{
    (void)state;
    struct run run;
    struct talk_context *context;
    struct lt_error error;
    static float speech[2 * HEARD * FEATURES];
    begin(&run, "best");
    struct talk_window window = {.audio = lt_view_3d(speech, LT_TYPE_F32, 2, HEARD, FEATURES)};
    assert_fails(talk_context_create(&run.dit, &window, 0, &context, &error), LT_BAD_INPUT,
                 "need a mask each");
    window.audio = lt_view_3d(speech, LT_TYPE_F32, 1, HEARD - 1, FEATURES);
    assert_fails(talk_context_create(&run.dit, &window, 0, &context, &error), LT_BAD_INPUT,
                 "5 + 8");
    window.audio = lt_view_3d(speech, LT_TYPE_F32, 1, HEARD, FEATURES);
    window.masks = lt_view_3d(speech, LT_TYPE_F32, 3, ROWS, COLUMNS);
    assert_fails(talk_context_create(&run.dit, &window, 0, &context, &error), LT_BAD_INPUT,
                 "expected [2, h/2, w/2], found [3");
    end(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(audio_is_projected),
        cmocka_unit_test(one_speaker_is_heard),
        cmocka_unit_test(two_speakers_are_told_apart),
        cmocka_unit_test(wrong_speech_is_refused),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
