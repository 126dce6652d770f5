/* If the encoders or a decoder gave something else on a card than on the host, tasks of one job
 * would not fit together: a seam between windows, another prompt, lips that move late. Whole models
 * on the emulated card, where the host touching device memory is a crash, against the host; each
 * within the scratch and the memory that its plan tells. */
#include "tests/test.h"

#include "common/file.h"
#include "kernels/scratch.h"
#include "tests/worker/encoder.h"
#include "worker/model/audio.h"
#include "worker/model/tae.h"
#include "worker/model/text.h"
#include "worker/model/vae.h"
#include "worker/model/vision.h"

/* Of norms. f32: only the order of sums differs, over some tens of layers. bf16: as the models'
 * goldens, 2^-9 a rounding over some thirty layers. */
static const double bounds[] = {[LT_PRECISION_F32] = 1e-5, [LT_PRECISION_BF16] = 3e-2};

static char dir[] = "/tmp/longtake-test-XXXXXX";
static char path[256];

static int begin_all(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    return 0;
}

static int end_all(void **state)
{
    (void)state;
    return lt_dir_remove(dir, NULL) != LT_OK;
}

/* -- where a model runs ------------------------------------------------------------------------ */

struct place {
    struct device *device;
    struct lt_kernels kernels;
    struct lt_exec *exec;
    struct tensor_file *file;
    struct store *store;
};

static void open_place(struct place *p, bool cuda, enum lt_precision precision)
{
    struct lt_error error;
    const struct device_params params = {.sync_ops = true};
    memset(p, 0, sizeof *p);
    assert_ok(cuda ? device_create_cuda(0, &params, &p->device, &error)
                   : device_create_host(&params, &p->device, &error));
    assert_ok(device_kernels(p->device, "best", &p->kernels, &error));
    assert_ok(device_exec_create(
        p->device, &(struct lt_exec_params){.thread_count = 2, .precision = precision}, &p->exec,
        &error));
    assert_ok(tensor_file_open(path, &p->file, &error));
}

static void open_store(struct place *p, store_filter *wanted, void *context, size_t swapped)
{
    struct lt_error error;
    const struct store_params params = {
        .device = p->device, .blocks_to_swap = swapped, .prefetch = 1};
    assert_ok(store_open(p->file, wanted, context, &params, &p->store, &error));
    assert_ok(store_finish_loading(p->store, &error));
}

static void plan_scratch(struct place *p, const struct lt_scratch *scratch)
{
    struct lt_error error;
    if (!device_is_ram(p->device))
        assert_ok(
            device_set_scratch(p->device, device_scratch_bytes(p->device, scratch, 1), &error));
}

/* Nothing of the model is left on the device. */
static void close_place(struct place *p)
{
    store_destroy(&p->store);
    tensor_file_close(&p->file);
    lt_exec_destroy(&p->exec);
    device_destroy(&p->device);
}

/* -- comparing --------------------------------------------------------------------------------- */

struct result {
    float values[1 << 17];
    int64_t count;
    int64_t frame_values; /* of pixels, for append_frame */
    size_t peak_bytes;
};

static void append(struct result *result, const float *values, int64_t count)
{
    assert_true(result->count + count <= (int64_t)LT_COUNT(result->values));
    memcpy(result->values + result->count, values, (size_t)count * sizeof *values);
    result->count += count;
}

typedef void run_model(struct place *place, struct result *result, const void *context);

static void equal_on_both(const char *what, enum lt_precision precision, run_model *run,
                          const void *context)
{
    static struct result host, card;
    const char *name = precision == LT_PRECISION_BF16 ? "bf16" : "f32";
    struct place place;
    host.count = card.count = 0;
    open_place(&place, false, precision);
    run(&place, &host, context);
    close_place(&place);
    open_place(&place, true, precision);
    run(&place, &card, context);
    close_place(&place);
    assert_int_equal(card.count, host.count);
    assert_int_equal(card.peak_bytes, host.peak_bytes);
    const struct distance d = distance_of(card.values, host.values, host.count);
    print_message("%s, %s: relative error %.2g\n", what, name, d.relative);
    if (!(d.relative <= bounds[precision]))
        fail_msg("%s, %s: relative error %.2g, at most %.2g", what, name, d.relative,
                 bounds[precision]);
}

static void in_both_precisions(const char *what, run_model *run)
{
    equal_on_both(what, LT_PRECISION_F32, run, NULL);
    equal_on_both(what, LT_PRECISION_BF16, run, NULL);
}

static float *values_of(const char *name, int64_t count)
{
    float *values = malloc((size_t)count * sizeof *values);
    lt_assert(values);
    fill_values(name, values, (size_t)count);
    return values;
}

static void write_model(const struct catalogue *catalogue, fill_entry *fill)
{
    struct lt_error error;
    assert_ok(fill_file(path, catalogue, fill, NULL, &error));
}

static void fill_model(const struct catalogue_entry *entry, float *to, size_t count)
{
    fill_scaled(entry->name, entry->rank, (size_t)entry->dim[0], to, count);
}

/* -- text -------------------------------------------------------------------------------------- */

static void run_text(struct place *p, struct result *result, const void *context)
{
    static const int32_t tokens[] = {3, 11, 0, 7, 12, 5, 1, 1, 9, 2, 4, 1, 6};
    const int64_t count = LT_COUNT(tokens);
    struct lt_error error;
    struct text_config config;
    struct lt_scratch scratch;
    struct text *text;
    float features[LT_COUNT(tokens) * 24];
    (void)context;
    assert_ok(text_config_detect(p->file, &config, &error));
    assert_ok(
        text_scratch(&config, lt_exec_precision(p->exec), LT_COUNT(tokens), &scratch, &error));
    plan_scratch(p, &scratch);
    open_store(p, text_wants, NULL, 2);
    assert_ok(text_create(&config, p->store, &p->kernels, p->exec, &text, &error));
    for (int call = 0; call < 2; call++) { /* nothing of a call is left behind */
        const struct lt_view view = lt_view_2d(features, LT_TYPE_F32, count, config.dim);
        assert_ok(text_encode(text, tokens, LT_COUNT(tokens), &view, &error));
        append(result, features, count * config.dim);
    }
    result->peak_bytes = text_activation_peak_bytes(text);
    assert_int_equal(result->peak_bytes, text_activation_bytes(&config, LT_COUNT(tokens)));
    text_destroy(&text);
}

static void fill_text(const struct catalogue_entry *entry, float *to, size_t count)
{
    const bool is_norm = strstr(entry->name, "norm"), is_table = strstr(entry->name, "embedding");
    const float scale =
        sqrtf((strstr(entry->name, ".q.") ? 1.0f : 6.0f) / (float)entry->dim[entry->rank - 1]);
    fill_values(entry->name, to, count);
    for (size_t i = 0; i < count; i++)
        to[i] = is_norm ? 1 + 0.5f * to[i] : is_table ? to[i] : scale * to[i];
}

static void text_encoder(void **state)
{
    (void)state;
    struct lt_error error;
    struct catalogue catalogue;
    const struct text_config config = {.layer_count = 3,
                                       .dim = 24,
                                       .head_count = 3,
                                       .head_width = 16,
                                       .ffn_dim = 40,
                                       .vocabulary_rows = 13,
                                       .bucket_count = 8,
                                       .epsilon = 1e-6f};
    assert_ok(catalogue_of_umt5(&config, &catalogue, &error));
    write_model(&catalogue, fill_text);
    catalogue_fini(&catalogue);
    in_both_precisions("text", run_text);
}

/* -- vision ------------------------------------------------------------------------------------ */

static void run_vision(struct place *p, struct result *result, const void *context)
{
    struct lt_error error;
    struct vision_config config;
    struct lt_scratch scratch;
    struct vision *vision;
    (void)context;
    assert_ok(vision_config_detect(p->file, &config, &error));
    config.head_count = 3;
    assert_ok(vision_scratch(&config, lt_exec_precision(p->exec), &scratch, &error));
    plan_scratch(p, &scratch);
    open_store(p, vision_wants, &config, 1);
    assert_ok(vision_create(&config, p->store, &p->kernels, p->exec, &vision, &error));
    const int64_t size = vision_image_size(&config), tokens = vision_token_count(&config);
    float *pixels = values_of("picture", 3 * size * size), *values = values_of("", tokens * 24);
    const struct lt_view in = lt_view_3d(pixels, LT_TYPE_F32, 3, size, size);
    struct lt_view clip = lt_view_2d(values, LT_TYPE_F32, tokens, config.width);
    assert_ok(vision_encode(vision, &in, &clip, &error));
    append(result, values, tokens * config.width);
    result->peak_bytes = vision_peak_bytes(vision);
    assert_int_equal(result->peak_bytes, vision_activation_bytes(&config));
    vision_destroy(&vision);
    free(pixels);
    free(values);
}

static void vision_encoder(void **state)
{
    (void)state;
    struct lt_error error;
    struct catalogue catalogue;
    const struct vision_config config = {.width = 24,
                                         .ffn_dim = 40,
                                         .layer_count = 3,
                                         .head_count = 3,
                                         .patch = 5,
                                         .grid = 3,
                                         .fused = true};
    assert_ok(catalogue_of_vision(&config, &catalogue, &error));
    write_model(&catalogue, fill_model);
    catalogue_fini(&catalogue);
    in_both_precisions("vision", run_vision);
}

/* -- audio ------------------------------------------------------------------------------------- */

static struct audio_config audio_shape(void)
{
    struct audio_config config = audio_config_default();
    config.width = 24;
    config.ffn_dim = 40;
    config.layer_count = 2;
    config.head_count = 3;
    for (int i = 0; i < AUDIO_CONVS; i++)
        config.conv_width[i] = 12;
    config.position_taps = 6;
    config.position_groups = 4;
    return config;
}

static void run_audio(struct place *p, struct result *result, const void *context)
{
    enum { SAMPLES = 16000 * 3 + 321 }; /* more than one piece */
    struct audio_config config = audio_shape();
    struct lt_error error;
    struct lt_scratch scratch;
    struct audio *audio;
    (void)context;
    float *samples = values_of("voice", SAMPLES);
    const struct audio_inputs inputs = {samples, SAMPLES, AUDIO_LOUDNESS, true};
    assert_ok(audio_scratch(&config, lt_exec_precision(p->exec), SAMPLES, &scratch, &error));
    plan_scratch(p, &scratch);
    open_store(p, NULL, NULL, 1);
    assert_ok(audio_create(&config, p->store, &p->kernels, p->exec, &audio, &error));
    const int64_t frames = audio_frame_count(SAMPLES),
                  count = frames * config.layer_count * config.width;
    float *values = values_of("", count);
    struct lt_view out = lt_view_3d(values, LT_TYPE_F32, frames, config.layer_count, config.width);
    assert_ok(audio_encode(audio, &inputs, &out, &error));
    append(result, values, count);
    result->peak_bytes = audio_peak_bytes(audio);
    assert_int_equal(result->peak_bytes, audio_activation_bytes(&config, SAMPLES));
    audio_destroy(&audio);
    free(samples);
    free(values);
}

static void audio_encoder(void **state)
{
    (void)state;
    struct lt_error error;
    struct catalogue catalogue;
    const struct audio_config config = audio_shape();
    assert_ok(catalogue_of_audio(&config, &catalogue, &error));
    write_model(&catalogue, fill_model);
    catalogue_fini(&catalogue);
    in_both_precisions("audio", run_audio);
}

/* -- VAEs -------------------------------------------------------------------------------------- */

struct vae_case {
    enum vae_part part;
    enum lt_precision precision;
    int64_t frames; /* latent */
    bool tiled;     /* else slice by slice */
};

enum { ROWS = 1, COLUMNS = 2 }; /* latents */

static lt_status append_frame(void *context, int64_t index, const float *rgb,
                              struct lt_error *error)
{
    struct result *result = context;
    (void)index, (void)error;
    append(result, rgb, result->frame_values);
    return LT_OK;
}

static const struct vae_tiling tiling = {1, 1, 1, 1};

static void run_decoder(struct vae *vae, const struct vae_case *c, struct result *result)
{
    struct lt_error error;
    const int64_t z = vae_latent_channels(vae), scale = vae_scale(vae);
    float *values = values_of("latents", z * c->frames * ROWS * COLUMNS);
    const struct lt_view latents = lt_view_4d(values, LT_TYPE_F32, z, c->frames, ROWS, COLUMNS);
    result->frame_values = scale * ROWS * scale * COLUMNS * 3;
    if (c->tiled)
        assert_ok(vae_decode_tiled(vae, &tiling, &latents, append_frame, result, NULL, &error));
    for (int64_t t = 0; !c->tiled && t < c->frames; t++) {
        struct lt_view slice = latents;
        slice.data = values + t * latents.stride[1];
        slice.dim[1] = 1;
        assert_ok(vae_decode_slice(vae, &slice, append_frame, result, NULL, &error));
    }
    free(values);
}

static void run_encoder(struct vae *vae, const struct vae_case *c, struct result *result)
{
    struct lt_error error;
    const int64_t z = vae_latent_channels(vae), scale = vae_scale(vae), area = ROWS * COLUMNS;
    const int64_t frames = 4 * c->frames - 3, count = z * c->frames * area;
    float *values = values_of("pixels", 3 * frames * area * scale * scale),
          *out = values_of("", count);
    const struct lt_view pixels =
        lt_view_4d(values, LT_TYPE_F32, 3, frames, scale * ROWS, scale * COLUMNS);
    struct lt_view latents = lt_view_4d(out, LT_TYPE_F32, z, c->frames, ROWS, COLUMNS);
    if (c->tiled)
        assert_ok(vae_encode_tiled(vae, &tiling, &pixels, &latents, NULL, &error));
    for (int64_t t = 0; !c->tiled && t < c->frames; t++) {
        struct lt_view in = pixels, to = latents;
        in.data = values + (t ? 4 * t - 3 : 0) * pixels.stride[1];
        in.dim[1] = t ? 4 : 1;
        to.data = out + t * latents.stride[1];
        to.dim[1] = 1;
        assert_ok(vae_encode_slice(vae, &in, &to, NULL, &error));
    }
    append(result, out, count);
    free(values);
    free(out);
}

static void run_vae(struct place *p, struct result *result, const void *context)
{
    const struct vae_case *c = context;
    enum vae_part part = c->part;
    const enum lt_precision precision = lt_exec_precision(p->exec);
    struct lt_error error;
    struct lt_scratch scratch;
    struct vae *vae;
    size_t planned;
    assert_ok(vae_scratch(part, p->file, precision, ROWS, COLUMNS, &scratch, &error));
    assert_ok(vae_bytes(part, p->file, precision, c->frames, ROWS, COLUMNS, &planned, &error));
    plan_scratch(p, &scratch);
    open_store(p, vae_wants, &part, 0);
    assert_ok(vae_create(part, p->store, &p->kernels, p->exec, &vae, &error));
    part == VAE_DECODER ? run_decoder(vae, c, result) : run_encoder(vae, c, result);
    result->peak_bytes = vae_peak_bytes(vae);
    if (!c->tiled)
        assert_int_equal(result->peak_bytes, planned);
    vae_destroy(&vae);
}

static void fill_vae(const struct catalogue_entry *entry, float *to, size_t count)
{
    const float scale = sqrtf(3.0f / (float)((int64_t)count / entry->dim[0]));
    fill_values(entry->name, to, count);
    for (size_t i = 0; i < count; i++)
        to[i] = ends_with(entry->name, ".gamma")  ? 1 + 0.1f * to[i]
                : ends_with(entry->name, ".bias") ? 0.1f * to[i]
                                                  : scale * to[i];
}

static void each_vae(const struct catalogue_vae *config, const char *kind,
                     const struct vae_case *cases, size_t count)
{
    struct lt_error error;
    struct catalogue catalogue;
    assert_ok(catalogue_of_vae(config, &catalogue, &error));
    write_model(&catalogue, fill_vae);
    catalogue_fini(&catalogue);
    for (size_t i = 0; i < count; i++) {
        const struct vae_case *c = &cases[i];
        char what[96];
        snprintf(what, sizeof what, "%s %s%s", kind, c->part == VAE_DECODER ? "decoder" : "encoder",
                 c->tiled ? " in tiles" : " in slices");
        equal_on_both(what, c->precision, run_vae, c);
    }
}

static void wan21_vae(void **state)
{
    (void)state;
    static const struct vae_case cases[] = {{VAE_DECODER, LT_PRECISION_F32, 3, false},
                                            {VAE_ENCODER, LT_PRECISION_F32, 3, false},
                                            {VAE_DECODER, LT_PRECISION_BF16, 1, true},
                                            {VAE_ENCODER, LT_PRECISION_BF16, 1, true}};
    each_vae(&(struct catalogue_vae){.dim = 4, .channels = 4}, "Wan 2.1", cases, LT_COUNT(cases));
}

static void wan22_vae(void **state)
{
    (void)state;
    static const struct vae_case cases[] = {{VAE_DECODER, LT_PRECISION_F32, 2, false},
                                            {VAE_ENCODER, LT_PRECISION_F32, 2, false},
                                            {VAE_DECODER, LT_PRECISION_BF16, 2, false},
                                            {VAE_ENCODER, LT_PRECISION_F32, 1, true}};
    each_vae(&(struct catalogue_vae){.grouped = true, .dim = 4, .decoder_dim = 4, .channels = 6},
             "Wan 2.2", cases, LT_COUNT(cases));
}

/* -- preview ----------------------------------------------------------------------------------- */

static void run_preview(struct place *p, struct result *result, const void *context)
{
    enum { FRAMES = 3 };
    struct lt_error error;
    struct lt_scratch scratch;
    struct tae *tae;
    (void)context;
    open_store(p, tae_wants, NULL, 0);
    assert_ok(tae_create(p->store, &p->kernels, p->exec, &tae, &error));
    assert_ok(tae_scratch(tae, ROWS, COLUMNS, &scratch, &error));
    plan_scratch(p, &scratch);
    const int64_t z = tae_latent_channels(tae), scale = tae_scale(tae);
    float *values = values_of("latents", z * FRAMES * ROWS * COLUMNS);
    const struct lt_view latents = lt_view_4d(values, LT_TYPE_F32, z, FRAMES, ROWS, COLUMNS);
    result->frame_values = scale * ROWS * scale * COLUMNS * 3;
    assert_ok(tae_decode(tae, &latents, append_frame, result, &error));
    result->peak_bytes = tae_peak_bytes(tae);
    tae_destroy(&tae);
    free(values);
}

/* As the VAE's, but pixels stay within 0..1. */
static void fill_tae(const struct catalogue_entry *entry, float *to, size_t count)
{
    fill_vae(entry, to, count);
    for (size_t i = 0; i < count; i++)
        if (strcmp(entry->name, "decoder.22.weight") == 0)
            to[i] *= 0.1f;
        else if (strcmp(entry->name, "decoder.22.bias") == 0)
            to[i] += 0.5f;
}

static void preview_decoder(void **state)
{
    (void)state;
    for (int64_t patch = 1; patch <= 2; patch++) {
        struct lt_error error;
        struct catalogue catalogue;
        const struct catalogue_tae config = {6, 5, patch};
        assert_ok(catalogue_of_tae(&config, &catalogue, &error));
        write_model(&catalogue, fill_tae);
        catalogue_fini(&catalogue);
        equal_on_both(patch == 1 ? "preview" : "folded preview",
                      patch == 1 ? LT_PRECISION_F32 : LT_PRECISION_BF16, run_preview, NULL);
    }
}

int main(void)
{
    setenv("CUEMU_PROTECT", "1", 1);
    setenv("CUEMU_LEAKS", "1", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_encoder),  cmocka_unit_test(vision_encoder),
        cmocka_unit_test(audio_encoder), cmocka_unit_test(preview_decoder),
        cmocka_unit_test(wan21_vae),     cmocka_unit_test(wan22_vae),
    };
    return cmocka_run_group_tests(tests, begin_all, end_all);
}
