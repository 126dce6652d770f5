/* If the audio encoder differed from the original, lips would not follow the voice, or follow it a
 * few frames late. Goldens: transformers' Wav2Vec2Model with MultiTalk's interpolation in three
 * random shapes, loudness by pyloudnorm before it (tests/golden/audio/make.py). */
#include "tests/test.h"

#include "common/file.h"
#include "tests/worker/encoder.h"
#include "worker/model/audio.h"

static char dir[] = "/tmp/longtake-test-XXXXXX";
static char path[256];
static struct store_params placement; /* of the next model; zeroed: all resident */

static int make_dir(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof path, "%s/audio.safetensors", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    return lt_dir_remove(dir, NULL) != LT_OK;
}

struct golden {
    struct audio_config config;
    struct lt_view audio; /* [frames, layers, width] */
    float *samples;
    struct audio_inputs inputs;
};

/* tones() of make.py. */
static void fill_samples(const char *name, float *to, size_t count)
{
    fill_values(name, to, count);
    for (size_t i = 0; i < count; i++)
        to[i] = (float)(0.2 * (0.55 + 0.45 * sin((double)i * 0.0004)) * (double)to[i] + 0.01);
}

static void read_golden(int index, struct golden *g)
{
    struct lt_safetensors *file;
    struct lt_error error;
    struct lt_view shape;
    char name[64];
    assert_ok(
        lt_safetensors_open(LT_SOURCE_DIR "/tests/golden/audio/audio.safetensors", &file, &error));
    snprintf(name, sizeof name, "random-%d.shape", index);
    assert_ok(lt_safetensors_read_f32(file, name, &shape, &error));
    snprintf(name, sizeof name, "random-%d.audio", index);
    assert_ok(lt_safetensors_read_f32(file, name, &g->audio, &error));
    const float *s = shape.data;
    g->config = audio_config_default();
    g->config.width = (int64_t)s[0];
    g->config.ffn_dim = (int64_t)s[1];
    g->config.layer_count = (int64_t)s[2];
    g->config.head_count = (int64_t)s[3];
    for (int i = 0; i < AUDIO_CONVS; i++)
        g->config.conv_width[i] = (int64_t)s[4];
    g->config.position_taps = (int64_t)s[5];
    g->config.position_groups = (int64_t)s[6];
    const size_t count = (size_t)s[8];
    g->samples = malloc(count * sizeof *g->samples);
    snprintf(name, sizeof name, "random-%d.samples", index);
    fill_samples(name, g->samples, count);
    g->inputs = (struct audio_inputs){.samples = g->samples,
                                      .count = (int64_t)count,
                                      .loudness = AUDIO_LOUDNESS,
                                      .normalize = s[7] != 0};
    free(shape.data);
    lt_safetensors_close(&file);
}

static void free_golden(struct golden *g)
{
    free(g->audio.data);
    free(g->samples);
}

struct run {
    struct audio_config config;
    struct tensor_file *file;
    struct store *store;
    struct lt_kernels kernels;
    struct lt_exec *exec;
    struct audio *audio;
};

static void write_model(const struct audio_config *config, enum names_form form, const char *prefix,
                        const char *without)
{
    struct lt_error error;
    struct catalogue catalogue;
    assert_ok(catalogue_of_audio(config, &catalogue, &error));
    write_encoder(path, &catalogue, NAMES_AUDIO, form, prefix, without);
    catalogue_fini(&catalogue);
}

static void begin(struct run *run, const struct audio_config *config, const char *kernels,
                  enum lt_precision precision)
{
    struct lt_error error;
    memset(run, 0, sizeof *run);
    assert_ok(tensor_file_open(path, &run->file, &error));
    assert_ok(audio_config_detect(run->file, &run->config, &error));
    run->config.head_count = config->head_count;
    assert_memory_equal(&run->config, config, sizeof *config);
    assert_ok(store_open(run->file, NULL, NULL, &placement, &run->store, &error));
    assert_ok(lt_kernels_select(&run->kernels, lt_caps_detect(), kernels, &error));
    assert_ok(lt_exec_create(&(struct lt_exec_params){2, precision}, &run->exec, &error));
    assert_ok(
        audio_create(&run->config, run->store, &run->kernels, run->exec, &run->audio, &error));
}

static void end(struct run *run)
{
    audio_destroy(&run->audio);
    lt_exec_destroy(&run->exec);
    store_destroy(&run->store);
    tensor_file_close(&run->file);
}

static struct lt_view output_for(const struct audio_config *config, int64_t count)
{
    const int64_t frames = audio_frame_count(count);
    const size_t values = (size_t)(frames * config->layer_count * config->width);
    return lt_view_3d(calloc(values ? values : 1, sizeof(float)), LT_TYPE_F32, frames,
                      config->layer_count, config->width);
}

static void random_shapes_as_transformers_does(void **state)
{
    (void)state;
    static const struct {
        const char *kernels;
        enum lt_precision precision;
        double bound;
    } ways[] = {{"ref", LT_PRECISION_F32, 2e-4},
                {"best", LT_PRECISION_F32, 2e-4},
                {"best", LT_PRECISION_BF16, 2e-2}};
    for (int index = 0; index < 3; index++) {
        struct golden g;
        read_golden(index, &g);
        write_model(&g.config, NAMES_AUDIO, "", NULL);
        for (size_t i = 0; i < LT_COUNT(ways); i++) {
            struct lt_error error;
            struct run run;
            begin(&run, &g.config, ways[i].kernels, ways[i].precision);
            struct lt_view out = output_for(&g.config, g.inputs.count);
            assert_int_equal(out.dim[0], g.audio.dim[0]);
            assert_ok(audio_encode(run.audio, &g.inputs, &out, &error));
            const struct distance d = distance_of(out.data, g.audio.data, lt_view_count(&out));
            print_message("random-%d, %s, bound %g: relative error %.2g, worst element %.2g of the "
                          "largest, cosine %.7f\n",
                          index, ways[i].kernels, ways[i].bound, d.relative, d.worst, d.cosine);
            assert_true(d.relative <= ways[i].bound && d.cosine >= 0.9995);
            assert_true(ways[i].precision == LT_PRECISION_BF16 || d.worst <= ways[i].bound);
            assert_int_equal(audio_peak_bytes(run.audio),
                             audio_activation_bytes(&g.config, g.inputs.count));
            struct lt_scratch scratch;
            assert_ok(
                audio_scratch(&g.config, ways[i].precision, g.inputs.count, &scratch, &error));
            if (strcmp(ways[i].kernels, "best") == 0)
                assert_true(lt_exec_scratch_bytes(run.exec) <= lt_scratch_bytes(&scratch, 2));
            end(&run);
            free(out.data);
        }
        free_golden(&g);
    }
}

/* Behind the prefix of full models, and with either spelling of torch's weight norm. */
static void every_form_of_the_file_is_the_same_model(void **state)
{
    (void)state;
    static const struct {
        enum names_form form; /* one of another encoder leaves the older weight_g and weight_v */
        const char *prefix;
    } files[] = {{NAMES_AUDIO, ""}, {NAMES_AUDIO, "wav2vec2."}, {NAMES_UMT5_GGUF, ""}};
    struct golden g;
    struct lt_error error;
    read_golden(1, &g);
    struct lt_view first = output_for(&g.config, g.inputs.count);
    for (size_t i = 0; i < LT_COUNT(files); i++) {
        struct run run;
        struct lt_view out = output_for(&g.config, g.inputs.count);
        write_model(&g.config, files[i].form, files[i].prefix, NULL);
        begin(&run, &g.config, "best", LT_PRECISION_F32);
        assert_ok(audio_encode(run.audio, &g.inputs, i ? &out : &first, &error));
        if (i)
            assert_memory_equal(out.data, first.data, (size_t)lt_view_count(&out) * sizeof(float));
        end(&run);
        free(out.data);
    }
    free(first.data);
    free_golden(&g);
}

static void placement_changes_no_bits(void **state)
{
    (void)state;
    struct golden g;
    struct lt_error error;
    struct store_stats stats;
    struct lt_view out[2];
    read_golden(1, &g);
    write_model(&g.config, NAMES_AUDIO, "", NULL);
    for (size_t swapped = 0; swapped < 2; swapped++) {
        struct run run;
        out[swapped] = output_for(&g.config, g.inputs.count);
        placement = (struct store_params){.blocks_to_swap = 2 * swapped, .disk_blocks = swapped};
        begin(&run, &g.config, "best", LT_PRECISION_F32);
        assert_ok(audio_encode(run.audio, &g.inputs, &out[swapped], &error));
        store_stats(run.store, &stats);
        assert_int_equal(stats.fetch_count, 2 * swapped);
        end(&run);
    }
    placement = (struct store_params){0};
    assert_memory_equal(out[0].data, out[1].data, (size_t)lt_view_count(&out[0]) * sizeof(float));
    free(out[0].data), free(out[1].data);
    free_golden(&g);
}

static void the_command_gives_the_golden(void **state)
{
    (void)state;
    struct golden g;
    struct lt_error error;
    struct lt_view got;
    read_golden(1, &g);
    write_model(&g.config, NAMES_AUDIO, "", NULL);
    const struct lt_view samples = lt_view_1d(g.samples, LT_TYPE_F32, g.inputs.count);
    assert_ok(eval_through_the_command(
        dir, "audio --model audio.safetensors --set heads=3 --set normalize=1", "samples", &samples,
        "audio", &got, &error));
    assert_true(got.rank == 3 && got.dim[0] == 12 && got.dim[1] == 2 && got.dim[2] == 36);
    assert_true(distance_of(got.data, g.audio.data, lt_view_count(&got)).worst <= 2e-4);
    free(got.data);
    free_golden(&g);
}

/* The planner's sum for an hour: what the convolutions take does not grow with the length. */
static void memory_is_bounded(void **state)
{
    (void)state;
    struct lt_error error;
    struct catalogue catalogue;
    const struct audio_config base = audio_config_default();
    const int64_t hour = 3600LL * AUDIO_RATE, frames = audio_frame_count(hour);
    const size_t wide = (size_t)(frames * base.width) * sizeof(float);
    assert_int_equal(frames, 90000);
    assert_int_equal(audio_activation_bytes(&base, hour),
                     5 * wide + 2048 * (size_t)base.ffn_dim * sizeof(float));
    assert_true(audio_activation_bytes(&base, 10 * AUDIO_RATE) < (size_t)64 << 20);
    assert_int_equal(audio_prepared_bytes(&base),
                     4 * (512 * (10 + 4 * 512 * 3 + 2 * 512 * 2) + 2 * 512 + 768 * 48 * 128));
    int64_t parameters = 768; /* masked_spec_embed, which only training uses */
    assert_ok(catalogue_of_audio(&base, &catalogue, &error));
    for (size_t i = 0; i < catalogue.count; i++)
        parameters += catalogue_values(&catalogue.entry[i]);
    assert_int_equal(parameters, 94371712); /* as published */
    catalogue_fini(&catalogue);
}

static void frames_are_counted_as_the_original_does(void **state)
{
    (void)state;
    static const struct {
        int64_t samples, frames;
    } cases[] = {{0, 0},      {639, 0},          {640, 1},         {16000, 25},
                 {16639, 25}, {16640, 26},       {1600 * 7, 17},   {51840, 81},
                 {51839, 80}, {57600000, 90000}, {57599999, 89999}};
    for (size_t i = 0; i < LT_COUNT(cases); i++)
        assert_int_equal(audio_frame_count(cases[i].samples), cases[i].frames);
}

static void silence_and_short_voices_pass(void **state)
{
    (void)state;
    static const struct {
        float amplitude;
        int64_t count;
    } voices[] = {{0, 16000}, {0.1f, 640}, {0.1f, 6399}, {3, 8000}};
    struct golden g;
    struct run run;
    read_golden(0, &g);
    write_model(&g.config, NAMES_AUDIO, "", NULL);
    begin(&run, &g.config, "best", LT_PRECISION_F32);
    for (size_t i = 0; i < LT_COUNT(voices); i++) {
        struct lt_error error;
        struct lt_view out = output_for(&g.config, voices[i].count);
        fill_values("voice", g.samples, (size_t)voices[i].count);
        for (int64_t j = 0; j < voices[i].count; j++)
            g.samples[j] *= voices[i].amplitude;
        g.inputs.count = voices[i].count;
        assert_ok(audio_encode(run.audio, &g.inputs, &out, &error));
        for (int64_t j = 0; j < lt_view_count(&out); j++)
            assert_true(isfinite(((const float *)out.data)[j]));
        free(out.data);
    }
    end(&run);
    free_golden(&g);
}

/* The level of a voice does not matter once it is normalised. */
static void loudness_comes_first(void **state)
{
    (void)state;
    struct golden g;
    struct run run;
    struct lt_error error;
    read_golden(0, &g);
    write_model(&g.config, NAMES_AUDIO, "", NULL);
    begin(&run, &g.config, "best", LT_PRECISION_F32);
    struct lt_view loud = output_for(&g.config, g.inputs.count),
                   quiet = output_for(&g.config, g.inputs.count),
                   as_is = output_for(&g.config, g.inputs.count);
    assert_ok(audio_encode(run.audio, &g.inputs, &loud, &error));
    for (int64_t i = 0; i < g.inputs.count; i++)
        g.samples[i] *= 0.02f; /* the norm's epsilon is felt, the absolute gate is not */
    assert_ok(audio_encode(run.audio, &g.inputs, &quiet, &error));
    g.inputs.loudness = NAN;
    assert_ok(audio_encode(run.audio, &g.inputs, &as_is, &error));
    const int64_t count = lt_view_count(&loud);
    assert_true(distance_of(quiet.data, loud.data, count).relative < 1e-4);
    assert_true(distance_of(as_is.data, loud.data, count).relative > 1e-2);
    free(loud.data), free(quiet.data), free(as_is.data);
    end(&run);
    free_golden(&g);
}

static void wrong_files_and_inputs_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *without;
    } files[] = {{"feature_extractor.conv_layers.3.conv.weight"},
                 {"feature_projection.projection.weight"},
                 {"encoder.pos_conv_embed.conv.weight_v"},
                 {"blocks.0.ffn.0.weight"}};
    struct golden g;
    struct run run;
    struct lt_error error;
    struct audio_config found;
    read_golden(1, &g);
    for (size_t i = 0; i < LT_COUNT(files); i++) {
        struct tensor_file *file;
        write_model(&g.config, NAMES_AUDIO, "", files[i].without);
        assert_ok(tensor_file_open(path, &file, &error));
        assert_fails(audio_config_detect(file, &found, &error), LT_BAD_INPUT, files[i].without);
        tensor_file_close(&file);
    }
    write_model(&g.config, NAMES_AUDIO, "", NULL);
    begin(&run, &g.config, "best", LT_PRECISION_F32);
    struct lt_view out = output_for(&g.config, g.inputs.count), none = output_for(&g.config, 639);
    atomic_int cancel = 1;
    lt_exec_set_cancel(run.exec, &cancel);
    assert_fails(audio_encode(run.audio, &g.inputs, &out, &error), LT_CANCELLED, "cancelled");
    g.samples[77] = INFINITY;
    assert_fails(audio_encode(run.audio, &g.inputs, &out, &error), LT_BAD_INPUT,
                 "sample 77 is not finite");
    g.inputs.count = 639;
    assert_fails(audio_encode(run.audio, &g.inputs, &none, &error), LT_BAD_INPUT,
                 "shorter than one video frame");
    free(out.data), free(none.data);
    end(&run);
    free_golden(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_shapes_as_transformers_does),
        cmocka_unit_test(every_form_of_the_file_is_the_same_model),
        cmocka_unit_test(placement_changes_no_bits),
        cmocka_unit_test(the_command_gives_the_golden),
        cmocka_unit_test(memory_is_bounded),
        cmocka_unit_test(frames_are_counted_as_the_original_does),
        cmocka_unit_test(silence_and_short_voices_pass),
        cmocka_unit_test(loudness_comes_first),
        cmocka_unit_test(wrong_files_and_inputs_are_refused),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
