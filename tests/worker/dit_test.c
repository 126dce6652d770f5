/* If the transformer differed from the original, every picture would be wrong. Numbers: dit.md 8.2
 * to 8.4, made by the original PyTorch code in f64; f32 code must meet them to 2e-4 of their size.
 */
#include "tests/test.h"

#include "common/file.h"
#include "tests/worker/fill.h"
#include "worker/model/dit.h"

#include <math.h>

static char dir[] = "/tmp/longtake-test-XXXXXX";
static char path[256];

static int make_dir(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof path, "%s/tiny.safetensors", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    return lt_dir_remove(dir, NULL) != LT_OK;
}

struct run {
    struct dit_config config;
    struct tensor_file *file;
    struct store *store;
    struct lt_kernels kernels;
    struct lt_exec *exec;
    struct dit *dit;
};

static void begin_shape(struct run *run, const struct dit_config *config, size_t tensor_count,
                        const char *kernels, enum lt_precision precision)
{
    struct lt_error error;
    struct catalogue catalogue;
    memset(run, 0, sizeof *run);
    assert_ok(catalogue_of_dit(config, &catalogue, &error));
    assert_int_equal(catalogue.count, tensor_count);
    assert_ok(fill_file(path, &catalogue, fill_like_golden, NULL, &error));
    catalogue_fini(&catalogue);
    assert_ok(tensor_file_open(path, &run->file, &error));
    assert_ok(dit_config_detect(run->file, &run->config, &error));
    run->config.text_len = config->text_len;
    assert_memory_equal(&run->config, config, sizeof *config);
    assert_ok(store_load(run->file, NULL, NULL, &run->store, &error));
    assert_ok(lt_kernels_select(&run->kernels, lt_caps_detect(), kernels, &error));
    assert_ok(lt_exec_create(&(struct lt_exec_params){2, precision}, &run->exec, &error));
    assert_ok(dit_create(&run->config, run->store, &run->kernels, run->exec, &run->dit, &error));
}

static void begin(struct run *run, bool image, const char *kernels, enum lt_precision precision)
{
    const struct dit_config config = {.variant = image ? DIT_VARIANT_I2V_21 : DIT_VARIANT_T2V,
                                      .dim = 256,
                                      .ffn_dim = 512,
                                      .head_count = 2,
                                      .layer_count = 2,
                                      .in_channels = image ? 36 : 16,
                                      .out_channels = 16,
                                      .text_dim = 48,
                                      .freq_dim = 256,
                                      .text_len = 8,
                                      .image_attention = image,
                                      .epsilon = 1e-6f};
    begin_shape(run, &config, image ? 87 : 69, kernels, precision);
}

static void end(struct run *run)
{
    dit_destroy(&run->dit);
    lt_exec_destroy(&run->exec);
    store_destroy(&run->store);
    tensor_file_close(&run->file);
}

enum { LATENT = 16 * 2 * 4 * 6 };

static void forward(struct run *run, bool image, size_t cache_bytes, float out[LATENT],
                    uint64_t *computed)
{
    struct lt_error error;
    float x[LATENT], y[20 * 2 * 4 * 6], text[5 * 48];
    float *clip = malloc(257 * 1280 * sizeof *clip);
    fill_values("input.x", x, LT_COUNT(x));
    fill_values("input.y", y, LT_COUNT(y));
    fill_values("input.context", text, LT_COUNT(text));
    fill_values("input.clip", clip, 257 * 1280);
    const struct dit_prompt prompt = {.text = lt_view_2d(text, LT_TYPE_F32, 5, 48),
                                      .clip =
                                          lt_view_2d(image ? clip : NULL, LT_TYPE_F32, 257, 1280)};
    struct dit_context *context;
    assert_ok(dit_context_create(run->dit, &prompt, cache_bytes, &context, &error));
    const struct dit_inputs inputs = {.x = lt_view_4d(x, LT_TYPE_F32, 16, 2, 4, 6),
                                      .y = lt_view_4d(image ? y : NULL, LT_TYPE_F32, 20, 2, 4, 6),
                                      .timestep = 937,
                                      .context = context};
    struct lt_view v = lt_view_4d(out, LT_TYPE_F32, 16, 2, 4, 6);
    assert_ok(dit_forward(run->dit, &inputs, 1, &v, &error));
    assert_ok(dit_forward(run->dit, &inputs, 1, &v, &error)); /* again, now with what was kept */
    if (computed)
        *computed = dit_context_computed(context);
    dit_context_destroy(&context);
    free(clip);
}

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 2e-4 * fmax(1, fabs(want))))
        fail_msg("got %.9g, expected %.9g", got, want);
}

static void sums(const float *out, double *sum, double *magnitude)
{
    *sum = *magnitude = 0;
    for (int i = 0; i < LATENT; i++) {
        *sum += out[i];
        *magnitude += fabs(out[i]);
    }
}

static void fill_agrees_with_its_check_values(void **state)
{
    (void)state;
    float *x = malloc(5000 * sizeof *x);
    fill_weights("blocks.0.self_attn.q.weight", x, 5000);
    assert_true(fabs(x[0] + 0.044529193128) < 1e-8 && fabs(x[1] - 0.092022996303) < 1e-8);
    assert_true(fabs(x[2] - 0.025134336437) < 1e-8 && fabs(x[4999] + 0.002000003867) < 1e-8);
    free(x);
}

/* dit.md 8.2. */
static void nag_is_the_published_formula(void **state)
{
    (void)state;
    static const char *const names[] = {"ref", "best"};
    for (size_t i = 0; i < LT_COUNT(names); i++) {
        struct lt_kernels kernels;
        struct lt_exec *exec;
        struct lt_error error;
        float positive[64], negative[64], out[64];
        double sum = 0;
        fill_values("input.nagp", positive, 64);
        fill_values("input.nagn", negative, 64);
        assert_ok(lt_kernels_select(&kernels, lt_caps_detect(), names[i], &error));
        assert_ok(lt_exec_create(&(struct lt_exec_params){1, LT_PRECISION_F32}, &exec, &error));
        assert_ok(LT_OP(nag, &kernels, exec, &error, .out = lt_view_2d(out, LT_TYPE_F32, 2, 32),
                        .positive = lt_view_2d(positive, LT_TYPE_F32, 2, 32),
                        .negative = lt_view_2d(negative, LT_TYPE_F32, 2, 32), .scale = 11,
                        .tau = 2.5f, .alpha = 0.25f));
        lt_exec_destroy(&exec);
        for (int j = 0; j < 64; j++)
            sum += out[j];
        assert_true(fabs(out[0] - 0.033659619) < 1e-6 && fabs(out[1] + 0.026466773) < 1e-6);
        assert_true(fabs(out[2] - 0.501253444) < 1e-6 && fabs(out[63] + 0.236517892) < 1e-6);
        assert_true(fabs(sum + 0.671186400) < 1e-5);
    }
}

static void tiny_text_to_video_model(void **state)
{
    (void)state;
    static const char *const kernels[] = {"ref", "best"};
    for (size_t i = 0; i < LT_COUNT(kernels); i++) {
        struct run run;
        float out[LATENT];
        double sum, magnitude;
        begin(&run, false, kernels[i], LT_PRECISION_F32);
        forward(&run, false, 1 << 20, out, NULL);
        near(out[0], 0.529953995);
        near(out[1], 2.995117169);
        near(out[2], 1.476360105);
        near(out[3], -1.030938421);
        near(out[((7 * 2 + 1) * 4 + 2) * 6 + 3], 0.791979276);
        sums(out, &sum, &magnitude);
        near(sum, 78.787030495);
        near(magnitude, 643.498361131);
        end(&run);
    }
}

static void tiny_image_to_video_model(void **state)
{
    (void)state;
    struct run run;
    float out[LATENT];
    double sum, magnitude;
    begin(&run, true, "best", LT_PRECISION_F32);
    forward(&run, true, 1 << 24, out, NULL);
    near(out[0], 0.445998262);
    near(out[1], -0.299975507);
    near(out[2], 0.443592255);
    near(out[3], 0.357753705);
    near(out[((7 * 2 + 1) * 4 + 2) * 6 + 3], 1.827790578);
    sums(out, &sum, &magnitude);
    near(sum, -36.546744924);
    near(magnitude, 621.065885788);
    end(&run);
}

/* bf16 inputs: relative error 2e-2 of the whole prediction and cosine 0.9995. */
static void bf16_is_close(void **state)
{
    (void)state;
    struct run exact, rounded;
    float want[LATENT], got[LATENT];
    double dot = 0, aa = 0, bb = 0, dd = 0;
    begin(&exact, false, "best", LT_PRECISION_F32);
    forward(&exact, false, 0, want, NULL);
    end(&exact);
    begin(&rounded, false, "best", LT_PRECISION_BF16);
    forward(&rounded, false, 0, got, NULL);
    end(&rounded);
    for (int i = 0; i < LATENT; i++) {
        dot += (double)want[i] * got[i];
        aa += (double)want[i] * want[i];
        bb += (double)got[i] * got[i];
        dd += ((double)want[i] - got[i]) * ((double)want[i] - got[i]);
    }
    printf("    bf16: relative error %.2e, cosine %.6f\n", sqrt(dd / aa), dot / sqrt(aa * bb));
    assert_true(sqrt(dd / aa) <= 2e-2 && dot / sqrt(aa * bb) >= 0.9995);
}

/* What is constant over the steps is computed once per prompt, and the same bytes come out with the
 * cache off. */
static void kept_keys_change_nothing(void **state)
{
    (void)state;
    struct run run;
    float kept[LATENT], fresh[LATENT];
    uint64_t with, without;
    begin(&run, false, "best", LT_PRECISION_F32);
    forward(&run, false, 1 << 20, kept, &with);
    forward(&run, false, 0, fresh, &without);
    assert_int_equal(with, 2);    /* one per block */
    assert_int_equal(without, 4); /* one per block and forward */
    assert_memory_equal(kept, fresh, sizeof kept);
    end(&run);
}

/* One forward of the tiny model with what its blocks add kept, taken, or left alone. */
static void forward_reusing(struct run *run, const struct dit_options *options,
                            enum dit_reuse reuse, const struct lt_view *added, float out[LATENT])
{
    struct lt_error error;
    float x[LATENT], text[5 * 48];
    struct dit_context *context;
    atomic_uint done = 0;
    fill_values("input.x", x, LT_COUNT(x));
    fill_values("input.context", text, LT_COUNT(text));
    const struct dit_prompt prompt = {.text = lt_view_2d(text, LT_TYPE_F32, 5, 48)};
    assert_ok(dit_context_create(run->dit, &prompt, 0, &context, &error));
    struct dit_inputs inputs = {.x = lt_view_4d(x, LT_TYPE_F32, 16, 2, 4, 6),
                                .timestep = 937,
                                .context = context,
                                .options = options,
                                .done = &done,
                                .reuse = reuse};
    if (added)
        inputs.added = *added;
    struct lt_view v = lt_view_4d(out, LT_TYPE_F32, 16, 2, 4, 6);
    assert_ok(dit_forward(run->dit, &inputs, 1, &v, &error));
    assert_int_equal(done, 2); /* blocks run or not */
    dit_context_destroy(&context);
}

/* A step reuses another's sum over the blocks: X + nothing is the model without its blocks, to the
 * bit; X + its own sum is the step itself but for rounding; keeping the sum changes no bit. */
static void what_blocks_add_can_be_added_again(void **state)
{
    (void)state;
    enum { TOKENS = 2 * 2 * 3, DIM = 256 };
    static const int64_t every[] = {0, 1};
    struct dit_options none = dit_options_default;
    none.skip_layers = every;
    none.skip_count = 2;
    float want[LATENT], got[LATENT];
    static float values[TOKENS * DIM];
    struct run run;
    begin(&run, false, "best", LT_PRECISION_F32);
    struct lt_view added = lt_view_2d(values, LT_TYPE_F32, TOKENS, DIM);
    memset(values, 0, sizeof values);
    forward_reusing(&run, &none, DIT_REUSE_NONE, NULL, want);
    forward_reusing(&run, NULL, DIT_REUSE_ADD, &added, got);
    assert_memory_equal(got, want, sizeof want);
    forward_reusing(&run, NULL, DIT_REUSE_NONE, NULL, want);
    forward_reusing(&run, NULL, DIT_REUSE_KEEP, &added, got);
    assert_memory_equal(got, want, sizeof want);
    forward_reusing(&run, NULL, DIT_REUSE_ADD, &added, got);
    for (int i = 0; i < LATENT; i++)
        assert_true(fabsf(got[i] - want[i]) <= 1e-5f * fmaxf(1, fabsf(want[i])));
    added = lt_view_2d(values, LT_TYPE_BF16, TOKENS, DIM); /* half the memory */
    forward_reusing(&run, NULL, DIT_REUSE_KEEP, &added, got);
    assert_memory_equal(got, want, sizeof want);
    forward_reusing(&run, NULL, DIT_REUSE_ADD, &added, got);
    for (int i = 0; i < LATENT; i++)
        assert_true(fabsf(got[i] - want[i]) <= 2e-2f * fmaxf(1, fabsf(want[i])));
    end(&run);
}

/* e = W2 silu(W0 s + b0) + b2 of the fill's weights, s the 256 cosines and sines (dit.md 2.3). */
static void embed_plainly(double timestep, double e[256])
{
    static float w0[256 * 256], w2[256 * 256], b0[256], b2[256];
    double s[256], hidden[256];
    fill_weights("time_embedding.0.weight", w0, LT_COUNT(w0));
    fill_weights("time_embedding.0.bias", b0, 256);
    fill_weights("time_embedding.2.weight", w2, LT_COUNT(w2));
    fill_weights("time_embedding.2.bias", b2, 256);
    for (int i = 0; i < 128; i++) {
        s[i] = cos(timestep * pow(10000, -i / 128.0));
        s[128 + i] = sin(timestep * pow(10000, -i / 128.0));
    }
    for (int i = 0; i < 256; i++) {
        double sum = (double)b0[i];
        for (int k = 0; k < 256; k++)
            sum += (double)w0[i * 256 + k] * s[k];
        hidden[i] = sum / (1 + exp(-sum));
    }
    for (int i = 0; i < 256; i++) {
        e[i] = (double)b2[i];
        for (int k = 0; k < 256; k++)
            e[i] += (double)w2[i * 256 + k] * hidden[k];
    }
}

static void times_are_compared_by_their_embeddings(void **state)
{
    (void)state;
    enum { STEPS = 5 };
    static const double time[STEPS] = {999, 937, 936, 500, 0};
    static double e[STEPS][256];
    float got[STEPS * STEPS], projected[STEPS * STEPS];
    struct lt_error error;
    struct run run;
    begin(&run, false, "best", LT_PRECISION_BF16); /* embeddings of time are exact all the same */
    assert_ok(dit_compare_times(run.dit, time, STEPS, false, got, &error));
    assert_ok(dit_compare_times(run.dit, time, STEPS, true, projected, &error));
    for (int i = 0; i < STEPS; i++)
        embed_plainly(time[i], e[i]);
    for (int i = 0; i < STEPS; i++)
        for (int j = 0; j < STEPS; j++) {
            double change = 0, size = 0;
            for (int k = 0; k < 256; k++) {
                change += fabs(e[i][k] - e[j][k]);
                size += fabs(e[j][k]);
            }
            assert_true(fabs((double)got[i * STEPS + j] - change / size) < 1e-4);
            assert_true(i == j ? projected[i * STEPS + j] == 0 : projected[i * STEPS + j] > 0);
        }
    assert_true(got[1 * STEPS + 2] < got[1 * STEPS + 3]); /* neighbours differ less */
    end(&run);
}

/* Windows and guidance halves of a batch, of different sizes too, get the bits they get alone. */
static void a_batch_is_its_inputs_alone(void **state)
{
    (void)state;
    enum { COUNT = 3 };
    static const int64_t shape[COUNT][4] = {{16, 2, 4, 6}, {16, 3, 2, 6}, {16, 2, 4, 6}};
    static const double timestep[COUNT] = {937, 250, 1};
    static const int64_t rows[COUNT] = {5, 8, 1};
    struct run run;
    struct lt_error error;
    struct lt_view v[COUNT];
    struct dit_inputs inputs[COUNT];
    struct dit_context *context[COUNT];
    float x[LATENT], text[8 * 48], alone[COUNT][LATENT], batch[COUNT][LATENT];
    atomic_uint done = 0;
    begin(&run, false, "best", LT_PRECISION_F32);
    fill_values("input.x", x, LT_COUNT(x));
    fill_values("input.context", text, LT_COUNT(text));
    for (int i = 0; i < COUNT; i++) {
        const struct dit_prompt prompt = {.text = lt_view_2d(text, LT_TYPE_F32, rows[i], 48)};
        assert_ok(dit_context_create(run.dit, &prompt, 1 << 20, &context[i], &error));
        inputs[i] = (struct dit_inputs){.x = lt_view_make(x, LT_TYPE_F32, 4, shape[i]),
                                        .timestep = timestep[i],
                                        .context = context[i],
                                        .done = &done};
        v[i] = lt_view_make(alone[i], LT_TYPE_F32, 4, shape[i]);
        assert_ok(dit_forward(run.dit, &inputs[i], 1, &v[i], &error));
        v[i].data = batch[i];
    }
    assert_int_equal(done, COUNT * 2);
    assert_ok(dit_forward(run.dit, inputs, COUNT, v, &error));
    assert_int_equal(done, 2 * COUNT * 2);
    for (int i = 0; i < COUNT; i++) {
        assert_memory_equal(alone[i], batch[i], (size_t)lt_view_count(&v[i]) * sizeof(float));
        dit_context_destroy(&context[i]);
    }
    end(&run);
}

/* What a worker that swaps gains by holding four windows of a step: each block comes once for all
 * of them, a quarter of the bytes a window. From RAM and from disk. */
static void test_g4_a_batch_of_four_moves_a_quarter_a_window(void **state)
{
    (void)state;
    enum { COUNT = 4 };
    for (size_t on_disk = 0; on_disk <= 2; on_disk += 2) {
        const struct store_params params = {.blocks_to_swap = 2,
                                            .disk_blocks = on_disk,
                                            .group_tier =
                                                on_disk ? STORE_TIER_DISK : STORE_TIER_RAM};
        struct run run;
        struct lt_error error;
        struct store_stats start, alone, batch;
        struct dit_context *context;
        struct dit_inputs inputs[COUNT];
        struct lt_view v[COUNT];
        float x[LATENT], text[8 * 48], out[COUNT][LATENT], together[COUNT][LATENT];
        begin(&run, false, "best", LT_PRECISION_F32);
        dit_destroy(&run.dit);
        store_destroy(&run.store);
        assert_ok(store_open(run.file, NULL, NULL, &params, &run.store, &error));
        assert_ok(dit_create(&run.config, run.store, &run.kernels, run.exec, &run.dit, &error));
        fill_values("input.x", x, LT_COUNT(x));
        fill_values("input.context", text, LT_COUNT(text));
        const struct dit_prompt prompt = {.text = lt_view_2d(text, LT_TYPE_F32, 8, 48)};
        assert_ok(dit_context_create(run.dit, &prompt, 1 << 20, &context, &error));
        assert_ok(store_finish_loading(run.store, &error));
        store_stats(run.store, &start);
        for (int i = 0; i < COUNT; i++) {
            inputs[i] = (struct dit_inputs){.x = lt_view_4d(x, LT_TYPE_F32, 16, 2, 4, 6),
                                            .timestep = 100 * i,
                                            .context = context};
            v[i] = lt_view_4d(out[i], LT_TYPE_F32, 16, 2, 4, 6);
            assert_ok(dit_forward(run.dit, &inputs[i], 1, &v[i], &error));
            v[i].data = together[i];
        }
        store_stats(run.store, &alone);
        assert_ok(dit_forward(run.dit, inputs, COUNT, v, &error));
        store_stats(run.store, &batch);
        assert_memory_equal(out, together, sizeof out);
        assert_int_equal(batch.fetch_count - alone.fetch_count, 3); /* and the time group */
        assert_int_equal(alone.fetch_count - start.fetch_count, COUNT * 3);
        assert_int_equal(COUNT * (batch.copy_bytes - alone.copy_bytes),
                         alone.copy_bytes - start.copy_bytes);
        assert_int_equal(COUNT * (batch.read_bytes - alone.read_bytes),
                         on_disk ? alone.read_bytes - start.read_bytes : 0);
        dit_context_destroy(&context);
        end(&run);
    }
}

/* One timestep said for each frame is one timestep; without memory frames an offset says nothing
 * (pipeline.md 4.9). */
static void sayings_without_effect_change_nothing(void **state)
{
    (void)state;
    struct run run;
    struct lt_error error;
    float x[LATENT], text[5 * 48], out[3][LATENT];
    const double timesteps[] = {500, 500};
    struct dit_options options = dit_options_default;
    begin(&run, false, "best", LT_PRECISION_F32);
    fill_values("input.x", x, LT_COUNT(x));
    fill_values("input.context", text, LT_COUNT(text));
    const struct dit_prompt prompt = {.text = lt_view_2d(text, LT_TYPE_F32, 5, 48)};
    struct dit_inputs inputs[3] = {{.x = lt_view_4d(x, LT_TYPE_F32, 16, 2, 4, 6), .timestep = 500}};
    struct lt_view v[3];
    assert_ok(dit_context_create(run.dit, &prompt, 0, &inputs[0].context, &error));
    inputs[1] = inputs[2] = inputs[0];
    inputs[1].timesteps = timesteps;
    inputs[2].options = &options;
    options.rope_negative_offset = 5;
    for (int i = 0; i < 3; i++)
        v[i] = lt_view_4d(out[i], LT_TYPE_F32, 16, 2, 4, 6);
    assert_ok(dit_forward(run.dit, inputs, 3, v, &error));
    assert_memory_equal(out[0], out[1], sizeof out[0]);
    assert_memory_equal(out[0], out[2], sizeof out[0]);
    dit_context_destroy(&inputs[0].context);
    end(&run);
}

static void wrong_inputs_are_refused(void **state)
{
    (void)state;
    struct run run;
    struct lt_error error;
    float x[LATENT] = {0}, text[9 * 48] = {0};
    struct dit_context *context = NULL;
    begin(&run, false, "best", LT_PRECISION_F32);
    struct dit_prompt prompt = {.text = lt_view_2d(text, LT_TYPE_F32, 9, 48)};
    assert_fails(dit_context_create(run.dit, &prompt, 0, &context, &error), LT_BAD_INPUT,
                 "[1…8, 48]");
    prompt.text.dim[0] = 5;
    assert_ok(dit_context_create(run.dit, &prompt, 0, &context, &error));
    struct lt_view v = lt_view_4d(x, LT_TYPE_F32, 16, 2, 4, 6);
    struct dit_inputs inputs = {
        .x = lt_view_4d(x, LT_TYPE_F32, 16, 2, 4, 6), .timestep = 1001, .context = context};
    assert_fails(dit_forward(run.dit, &inputs, 1, &v, &error), LT_BAD_INPUT, "timestep");
    inputs.x = lt_view_4d(x, LT_TYPE_F32, 16, 2, 3, 8);
    assert_fails(dit_forward(run.dit, &inputs, 1, &v, &error), LT_BAD_INPUT, "even");
    inputs = (struct dit_inputs){.x = v, .context = context};
    struct dit_options options = dit_options_default;
    const double timesteps[] = {0, 1000.5};
    const int64_t beyond = 2;
    inputs.timesteps = timesteps;
    assert_fails(dit_forward(run.dit, &inputs, 1, &v, &error), LT_BAD_INPUT, "1000.5");
    inputs.timesteps = NULL;
    inputs.options = &options;
    options.riflex_index = 23;
    assert_fails(dit_forward(run.dit, &inputs, 1, &v, &error), LT_BAD_INPUT, "riflex");
    options = dit_options_default;
    options.memory_frames = 3;
    assert_fails(dit_forward(run.dit, &inputs, 1, &v, &error), LT_BAD_INPUT, "memory_frames");
    options = dit_options_default;
    options.skip_layers = &beyond;
    options.skip_count = 1;
    assert_fails(dit_forward(run.dit, &inputs, 1, &v, &error), LT_BAD_INPUT, "blocks 0 to 1");
    atomic_int cancel = 1;
    inputs = (struct dit_inputs){.x = v, .timestep = 1, .context = context};
    lt_exec_set_cancel(run.exec, &cancel);
    assert_fails(dit_forward(run.dit, &inputs, 1, &v, &error), LT_CANCELLED, "cancelled");
    dit_context_destroy(&context);
    end(&run);
}

/* Twelve tokens, and what the prompt and the picture take. */
static void a_forward_takes_the_scratch_it_told(void **state)
{
    (void)state;
    for (int image = 0; image < 2; image++)
        for (int precision = LT_PRECISION_F32; precision <= LT_PRECISION_BF16; precision++) {
            struct run run;
            struct lt_scratch told;
            struct lt_error error;
            float out[LATENT];
            begin(&run, image, "best", (enum lt_precision)precision);
            forward(&run, image, 0, out, NULL);
            assert_ok(dit_scratch(&run.config, (enum lt_precision)precision, 12, &told, &error));
            assert_true(lt_exec_scratch_bytes(run.exec) <= lt_scratch_bytes(&told, 2));
            assert_true(lt_exec_scratch_bytes(run.exec) >= lt_scratch_bytes(&told, 1));
            end(&run);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_forward_takes_the_scratch_it_told),
        cmocka_unit_test(fill_agrees_with_its_check_values),
        cmocka_unit_test(nag_is_the_published_formula),
        cmocka_unit_test(tiny_text_to_video_model),
        cmocka_unit_test(tiny_image_to_video_model),
        cmocka_unit_test(bf16_is_close),
        cmocka_unit_test(kept_keys_change_nothing),
        cmocka_unit_test(what_blocks_add_can_be_added_again),
        cmocka_unit_test(times_are_compared_by_their_embeddings),
        cmocka_unit_test(a_batch_is_its_inputs_alone),
        cmocka_unit_test(test_g4_a_batch_of_four_moves_a_quarter_a_window),
        cmocka_unit_test(sayings_without_effect_change_nothing),
        cmocka_unit_test(wrong_inputs_are_refused),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
