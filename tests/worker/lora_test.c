/* If LoRAs were applied wrongly, a distilled model would give noise in four steps, or a style would
 * silently be missing. Goldens by diffusers, PEFT and torch; guarantees G3.2 to G3.6 of pipeline.md
 * 4.3 by count. */
#include "tests/worker/lora_file.h"

#include "common/file.h"
#include "common/log.h"
#include "worker/model/dit.h"

#include <math.h>

static char dir[] = "/tmp/longtake-test-XXXXXX";
static char model_path[256];

static const char *file_in(const char *name)
{
    static char path[4][300];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
    return path[turn];
}

static const struct dit_config tiny = {.variant = DIT_VARIANT_T2V,
                                       .dim = LORA_DIM,
                                       .ffn_dim = LORA_FFN,
                                       .head_count = 2,
                                       .layer_count = LORA_LAYERS,
                                       .in_channels = 16,
                                       .out_channels = 16,
                                       .text_dim = 40,
                                       .freq_dim = 64,
                                       .text_len = 12,
                                       .epsilon = 1e-6f};

static int make_dir(void **state)
{
    (void)state;
    lt_log_set_level(LT_LOG_OFF); /* what is left over is told in the log too */
    struct lt_error error;
    struct catalogue catalogue;
    if (!mkdtemp(dir))
        return 1;
    snprintf(model_path, sizeof model_path, "%s/model.safetensors", dir);
    const bool made = catalogue_of_dit(&tiny, &catalogue, &error) == LT_OK &&
                      fill_file(model_path, &catalogue, fill_like_golden, NULL, &error) == LT_OK;
    catalogue_fini(&catalogue);
    return !made;
}

static int remove_dir(void **state)
{
    (void)state;
    return lt_dir_remove(dir, NULL) != LT_OK;
}

/* -- a model with LoRAs ------------------------------------------------------------------------ */

enum { LATENT = 16 * 2 * 4 * 6 };

struct run {
    struct tensor_file *file;
    struct lora_set *lora;
    struct store *store;
    struct lt_kernels kernels;
    struct lt_exec *exec;
    struct dit *dit;
};

struct setup {
    const struct lora_source *source;
    size_t count;
    enum lt_precision precision;
    bool streamed, bf16_pairs;
    const char *kernels; /* NULL: best */
    size_t disk_blocks, swapped;
};

static void begin(struct run *run, const struct setup *setup)
{
    struct lt_error error;
    struct dit_config config;
    memset(run, 0, sizeof *run);
    assert_ok(tensor_file_open(model_path, &run->file, &error));
    assert_ok(dit_config_detect(run->file, &config, &error));
    config.text_len = tiny.text_len;
    const bool wide = setup->precision == LT_PRECISION_F32 && !setup->bf16_pairs;
    const struct lora_params params = {setup->source, setup->count,
                                       wide ? LT_TYPE_F32 : LT_TYPE_BF16, setup->streamed};
    if (setup->count)
        assert_ok(lora_set_create(&params, run->file, &run->lora, &error));
    const struct store_params places = {.blocks_to_swap = setup->swapped,
                                        .disk_blocks = setup->disk_blocks,
                                        .extras = run->lora ? lora_set_extras(run->lora) : NULL};
    assert_ok(store_open(run->file, NULL, NULL, &places, &run->store, &error));
    assert_ok(store_finish_loading(run->store, &error));
    assert_ok(lt_kernels_select(&run->kernels, lt_caps_detect(),
                                setup->kernels ? setup->kernels : "best", &error));
    assert_ok(lt_exec_create(&(struct lt_exec_params){2, setup->precision}, &run->exec, &error));
    assert_ok(dit_create(&config, run->store, &run->kernels, run->exec, &run->dit, &error));
    dit_set_lora(run->dit, run->lora);
}

static void end(struct run *run)
{
    dit_destroy(&run->dit);
    lt_exec_destroy(&run->exec);
    store_destroy(&run->store);
    lora_set_destroy(&run->lora);
    tensor_file_close(&run->file);
}

static void predict(struct run *run, float out[LATENT])
{
    struct lt_error error;
    float x[LATENT], text[7 * 40];
    fill_values("lora.x", x, LATENT);
    fill_values("lora.text", text, LT_COUNT(text));
    const struct dit_prompt prompt = {.text = lt_view_2d(text, LT_TYPE_F32, 7, 40)};
    struct dit_context *context;
    assert_ok(dit_context_create(run->dit, &prompt, 0, &context, &error));
    const struct dit_inputs inputs = {
        .x = lt_view_4d(x, LT_TYPE_F32, 16, 2, 4, 6), .timestep = 613, .context = context};
    struct lt_view v = lt_view_4d(out, LT_TYPE_F32, 16, 2, 4, 6);
    assert_ok(dit_forward(run->dit, &inputs, 1, &v, &error));
    dit_context_destroy(&context);
}

static void predict_once(const struct setup *setup, float out[LATENT])
{
    struct run run;
    begin(&run, setup);
    predict(&run, out);
    end(&run);
}

/* Largest difference over the largest value. */
static double error_of(const float *got, const float *want)
{
    double worst = 0, size = 0;
    for (int i = 0; i < LATENT; i++) {
        worst = fmax(worst, fabs((double)got[i] - want[i]));
        size = fmax(size, fabs((double)want[i]));
    }
    return worst / size;
}

static void golden(const char *name, float out[LATENT])
{
    struct lt_error error;
    struct lt_safetensors *file;
    struct lt_view view;
    assert_ok(
        lt_safetensors_open(LT_SOURCE_DIR "/tests/golden/lora/lora.safetensors", &file, &error));
    assert_ok(lt_safetensors_read_f32(file, name, &view, &error));
    assert_int_equal(lt_view_count(&view), LATENT);
    memcpy(out, view.data, LATENT * sizeof *out);
    free(view.data);
    lt_safetensors_close(&file);
}

static void expect_golden(const char *name, const struct setup *setup)
{
    float want[LATENT], got[LATENT];
    golden(name, want);
    predict_once(setup, got);
    const double found = error_of(got, want),
                 bound = setup->precision == LT_PRECISION_F32 ? 1e-5 : 2e-2;
    print_message("%s: %.2e of the largest value (bound %g)\n", name, found, bound);
    if (!(found <= bound))
        fail_msg("%s: off by %g of the largest value, allowed %g", name, found, bound);
}

static void expect_same(const float *a, const float *b)
{
    assert_memory_equal(a, b, LATENT * sizeof *a);
}

/* -- the golden's LoRAs ------------------------------------------------------------------------ */

static void write_pairs(const char *name, enum form form)
{
    struct lora_writer w = {.count = 0};
    lora_add_blocks(&w, form, "one", 0, 4, 0);
    lora_write(&w, file_in(name));
}

/* "one": rank 3 on everything, and differences of what is no matrix. */
static void write_one(const char *name)
{
    static const char *const rest[] = {"text_embedding.0", "time_embedding.2", "time_projection.1",
                                       "head.head", "patch_embedding"};
    struct lora_writer w = {.count = 0};
    char key[100], tensor[100];
    lora_add_blocks(&w, FORM_COMFYUI, "one", 0, 3, 2);
    for (size_t i = 0; i < LT_COUNT(rest); i++)
        lora_add_pair(&w, FORM_COMFYUI, "one", rest[i], 3, 2);
    for (int n = 0; n < LORA_LAYERS; n++) {
        const struct {
            const char *key, *tensor;
            int64_t rows, columns;
        } diffs[] = {{"ffn.0.diff_b", "ffn.0.bias", 1, LORA_FFN},
                     {"self_attn.q.diff_b", "self_attn.q.bias", 1, LORA_DIM},
                     {"norm3.diff", "norm3.weight", 1, LORA_DIM},
                     {"norm3.diff_b", "norm3.bias", 1, LORA_DIM},
                     {"self_attn.norm_q.diff", "self_attn.norm_q.weight", 1, LORA_DIM},
                     {"cross_attn.norm_k.w_norm", "cross_attn.norm_k.weight", 1, LORA_DIM},
                     {"diff_m", "modulation", 6, LORA_DIM}};
        for (size_t i = 0; i < LT_COUNT(diffs); i++) {
            snprintf(key, sizeof key, "diffusion_model.blocks.%d.%s", n, diffs[i].key);
            snprintf(tensor, sizeof tensor, "blocks.%d.%s", n, diffs[i].tensor);
            lora_add_diff(&w, key, "one", tensor, diffs[i].rows, diffs[i].columns, 0.3f);
        }
    }
    lora_add_diff(&w, "diffusion_model.head.modulation.diff", "one", "head.modulation", 2, LORA_DIM,
                  0.3f);
    lora_add_diff(&w, "diffusion_model.head.head.diff_b", "one", "head.head.bias", 1, 64, 0.3f);
    lora_add_diff(&w, "diffusion_model.patch_embedding.diff_b", "one", "patch_embedding.bias", 1,
                  LORA_DIM, 0.3f);
    lora_write(&w, file_in(name));
}

/* "two": rank 5 on cross-attention and feed-forward, a dense difference, a bias. */
static void write_two(const char *name)
{
    struct lora_writer w = {.count = 0};
    lora_add_blocks(&w, FORM_KOHYA, "two", 4, 5, 0);
    lora_add_diff(&w, "lora_unet_blocks_1_self_attn_v.diff", "two", "blocks.1.self_attn.v.weight",
                  LORA_DIM, LORA_DIM, 0.05f);
    lora_add_diff(&w, "lora_unet_blocks_0_ffn_2.diff_b", "two", "blocks.0.ffn.2.bias", 1, LORA_DIM,
                  0.3f);
    lora_write(&w, file_in(name));
}

static void write_dora(const char *name, float alpha, char part)
{
    struct lora_writer w = {.count = 0};
    lora_add_blocks(&w, FORM_DIFFUSERS, "one", 0, 4, alpha);
    for (int n = 0; n < LORA_LAYERS; n++)
        for (size_t i = 0; i < LT_COUNT(lora_linears); i++) {
            char module[100], fill[200];
            int64_t out, in;
            snprintf(module, sizeof module, "blocks.%d.%s", n, lora_linears[i]);
            lora_shape(module, &out, &in);
            snprintf(fill, sizeof fill, "one.%s.magnitude", module);
            float *values = lora_add(&w, lora_key(FORM_DIFFUSERS, module, part), LT_TYPE_F32, 2,
                                     (int64_t[]){out, 1});
            lora_fill_scaled(fill, values, out, 0.5f);
            for (int64_t row = 0; row < out; row++)
                values[row] += 1;
        }
    lora_write(&w, file_in(name));
}

static void diffusers_own_loader(void **state)
{
    (void)state;
    const float strength = 0.8f;
    write_pairs("pairs.safetensors", FORM_DIFFUSERS);
    const struct lora_source source = {file_in("pairs.safetensors"), &strength, 1, 0, false};
    expect_golden("base", &(struct setup){.count = 0});
    expect_golden("pairs", &(struct setup){.source = &source, .count = 1});
    expect_golden("pairs", &(struct setup){.source = &source, .count = 1, .kernels = "ref"});
    expect_golden("pairs", &(struct setup){.source = &source, .count = 1, .streamed = true});
    expect_golden("pairs",
                  &(struct setup){.source = &source, .count = 1, .precision = LT_PRECISION_BF16});
}

static void g3_5_everything_merged_in_torch(void **state)
{
    (void)state;
    const float strength[] = {0.7f, -0.4f};
    write_one("one.safetensors");
    write_two("two.safetensors");
    const struct lora_source source[] = {{file_in("one.safetensors"), &strength[0], 1, 0, false},
                                         {file_in("two.safetensors"), &strength[1], 1, 0, false}};
    expect_golden("all", &(struct setup){.source = source, .count = 2});
    expect_golden("all", &(struct setup){.source = source, .count = 2, .kernels = "ref"});
    expect_golden("all",
                  &(struct setup){.source = source, .count = 2, .precision = LT_PRECISION_BF16});
}

static void dora_as_comfyui_and_as_peft(void **state)
{
    (void)state;
    const float strength = 0.6f;
    write_dora("dora.safetensors", 2, 'd');
    write_dora("magnitude.safetensors", 0, 'm');
    const struct lora_source dora = {file_in("dora.safetensors"), &strength, 1, 0, false},
                             peft = {file_in("magnitude.safetensors"), NULL, 0, 0, false};
    expect_golden("dora", &(struct setup){.source = &dora, .count = 1});
    expect_golden("dora",
                  &(struct setup){.source = &dora, .count = 1, .precision = LT_PRECISION_BF16});
    expect_golden("magnitude", &(struct setup){.source = &peft, .count = 1});
}

static void every_key_form_gives_the_same_bytes(void **state)
{
    (void)state;
    static float first[LATENT], now[LATENT];
    const float strength = 0.8f;
    for (enum form form = 0; form < FORM_COUNT; form++) {
        write_pairs("form.safetensors", form);
        /* a raw PEFT file without alpha would count as rank-stabilised */
        const struct lora_source source = {file_in("form.safetensors"), &strength, 1, 0, true};
        predict_once(&(struct setup){.source = &source, .count = 1}, form == 0 ? first : now);
        if (form > 0)
            expect_same(first, now);
    }
}

/* A tensor in place of another is the other plus their difference; strength is the share. */
static void replaced_tensors(void **state)
{
    (void)state;
    static const char *const tensors[] = {"blocks.1.self_attn.v", "blocks.0.norm3"};
    static const float share = 0.25f;
    static float want[LATENT], got[LATENT];
    struct lora_writer w = {.count = 0};
    for (int set = 0; set < 2; set++) {
        for (int i = 0; i < 2; i++) {
            const int64_t rows = i ? 1 : LORA_DIM, count = rows * LORA_DIM;
            char key[100], weight[100];
            float *base = malloc((size_t)count * sizeof *base);
            snprintf(key, sizeof key, "diffusion_model.%s.%s", tensors[i],
                     set ? "set_weight" : "diff");
            snprintf(weight, sizeof weight, "%s.weight", tensors[i]);
            lora_add_diff(&w, key, "two", weight, rows, LORA_DIM, 0.05f);
            fill_weights(weight, base, (size_t)count);
            for (int64_t n = 0; n < count && set; n++)
                ((float *)w.tensor[i].view.data)[n] += base[n];
            free(base);
        }
        lora_write(&w, file_in(set ? "set.safetensors" : "diff.safetensors"));
    }
    const struct lora_source diff = {file_in("diff.safetensors"), &share, 1, 0, false},
                             set = {file_in("set.safetensors"), &share, 1, 0, false};
    predict_once(&(struct setup){.source = &diff, .count = 1}, want);
    predict_once(&(struct setup){.source = &set, .count = 1}, got);
    assert_true(error_of(got, want) <= 1e-5);
    predict_once(&(struct setup){.count = 0}, got);
    assert_true(error_of(got, want) > 1e-3);
}

/* -- guarantees -------------------------------------------------------------------------------- */

static void write_both(void)
{
    write_one("one.safetensors");
    write_two("two.safetensors");
}

static struct lora_stats stats_of(const struct run *run)
{
    struct lora_stats stats;
    lora_set_stats(run->lora, &stats);
    return stats;
}

static void g3_3_twice_the_same_and_without_the_base(void **state)
{
    (void)state;
    static float base[LATENT], first[LATENT], now[LATENT];
    const float strength = 0.7f;
    struct run run;
    write_both();
    const struct lora_source source[] = {{file_in("one.safetensors"), &strength, 1, 0, false},
                                         {file_in("two.safetensors"), &strength, 1, 0, false}};
    for (int streamed = 0; streamed < 2; streamed++) {
        predict_once(&(struct setup){.count = 0}, base);
        begin(&run, &(struct setup){.source = source, .count = 2, .streamed = streamed});
        predict(&run, first);
        assert_true(error_of(first, base) > 0.1);
        predict(&run, now);
        expect_same(first, now);
        dit_set_lora(run.dit, NULL);
        predict(&run, now);
        expect_same(base, now);
        dit_set_lora(run.dit, run.lora);
        predict(&run, now);
        expect_same(first, now);
        end(&run);
    }
}

/* Per step, and changed: a strength is a factor, no byte of any file moves for it. */
static void strengths_read_nothing(void **state)
{
    (void)state;
    static float base[LATENT], full[LATENT], half[LATENT], now[LATENT];
    static const float fading[] = {1, 0.5f, 0}, weak[] = {0.5f};
    struct lt_error error;
    struct run run;
    write_both();
    struct lora_source source[] = {{file_in("one.safetensors"), NULL, 0, 0, false},
                                   {file_in("two.safetensors"), NULL, 0, 0, false}};
    predict_once(&(struct setup){.count = 0}, base);
    begin(&run, &(struct setup){.source = source, .count = 2});
    predict(&run, full);
    const struct lora_stats placed = stats_of(&run);
    struct store_stats store;
    store_stats(run.store, &store);
    assert_int_equal(store.made_bytes, placed.extra_bytes); /* each once */
    for (int i = 0; i < 2; i++) {
        source[i].strength = weak;
        source[i].strength_count = 1;
    }
    const struct lt_digest before = lora_set_state(run.lora);
    assert_ok(lora_set_strengths(run.lora, source, 2, &error));
    const struct lt_digest after = lora_set_state(run.lora);
    assert_false(lt_digest_equal(&before, &after));
    predict(&run, half);
    assert_true(error_of(half, full) > 0.01);
    for (int i = 0; i < 2; i++) {
        source[i].strength = fading;
        source[i].strength_count = 3;
    }
    assert_ok(lora_set_strengths(run.lora, source, 2, &error));
    const float *const want[] = {full, half, base, base};
    for (size_t step = 0; step < 4; step++) {
        lora_set_step(run.lora, step);
        predict(&run, now);
        expect_same(want[step], now);
    }
    assert_int_equal(stats_of(&run).read_bytes, placed.read_bytes);
    source[1].strength = (const float[]){1, NAN};
    source[1].strength_count = 2;
    assert_fails(lora_set_strengths(run.lora, source, 2, &error), LT_BAD_INPUT, "strength 1");
    end(&run);
}

static void g3_6_the_order_of_files_does_not_matter(void **state)
{
    (void)state;
    static float there[LATENT], back[LATENT];
    write_both();
    const struct lora_source a = {file_in("one.safetensors"), NULL, 0, 0, false},
                             b = {file_in("two.safetensors"), NULL, 0, 0, false};
    predict_once(&(struct setup){.source = (struct lora_source[]){a, b}, .count = 2}, there);
    predict_once(&(struct setup){.source = (struct lora_source[]){b, a}, .count = 2}, back);
    assert_true(error_of(there, back) <= 1e-5); /* G3.6 allows 1e-3 */
}

/* G3.2: with its block, by the same copy. */
static void wherever_blocks_live_the_bytes_are_the_same(void **state)
{
    (void)state;
    static float want[LATENT], now[LATENT];
    struct run run;
    write_both();
    const struct lora_source source[] = {{file_in("one.safetensors"), NULL, 0, 0, false},
                                         {file_in("two.safetensors"), NULL, 0, 0, false}};
    predict_once(&(struct setup){.source = source, .count = 2}, want);
    for (size_t disk = 0; disk <= 2; disk++)
        for (int streamed = 0; streamed < 2; streamed++) {
            struct store_stats start, stop;
            begin(&run, &(struct setup){.source = source,
                                        .count = 2,
                                        .swapped = 2,
                                        .disk_blocks = disk,
                                        .streamed = streamed});
            predict(&run, now);
            expect_same(want, now);
            store_stats(run.store, &start);
            const uint64_t read = stats_of(&run).read_bytes;
            predict(&run, now);
            expect_same(want, now);
            store_stats(run.store, &stop);
            const uint64_t copied = stop.copy_bytes - start.copy_bytes;
            assert_true(copied > 0);
            /* LoRA bytes are read again for blocks on disk only, or when they are streamed */
            assert_int_equal(stats_of(&run).read_bytes > read, disk > 0 || streamed);
            end(&run);
        }
}

/* One linear's pair at a time, whatever the number of files. */
static void a_streamed_set_keeps_one_term(void **state)
{
    (void)state;
    static float want[LATENT], now[LATENT];
    static const float eighth = 0.125f;
    struct lora_source source[8];
    struct run run;
    write_pairs("pairs.safetensors", FORM_KOHYA);
    for (int i = 0; i < 8; i++)
        source[i] = (struct lora_source){file_in("pairs.safetensors"), &eighth, 1, 0, false};
    const struct setup placed = {.source = source, .count = 8, .bf16_pairs = true};
    struct setup streamed = placed;
    streamed.streamed = true;
    predict_once(&placed, want);
    begin(&run, &streamed);
    assert_null(lora_set_extras(run.lora));
    predict(&run, now);
    expect_same(want, now);
    const struct lora_stats stats = stats_of(&run);
    /* rank 8 · 4, of 256 to 256, in bf16; the piece holds the largest tensor in f32 */
    assert_int_equal(stats.term_bytes, 32 * (LORA_DIM + LORA_DIM) * 2);
    assert_int_equal(stats.buffer_bytes, stats.term_bytes + 4 * LORA_DIM * sizeof(float));
    end(&run);
}

/* -- scale ------------------------------------------------------------------------------------- */

static void expect_equal_files(const char *a, bool a_plain, const char *b)
{
    static float x[LATENT], y[LATENT];
    const struct lora_source left = {file_in(a), NULL, 0, 0, a_plain},
                             right = {file_in(b), NULL, 0, 0, false};
    predict_once(&(struct setup){.source = &left, .count = 1}, x);
    predict_once(&(struct setup){.source = &right, .count = 1}, y);
    expect_same(x, y);
}

static void write_scaled(const char *name, enum form form, int64_t rank, float alpha,
                         const char *metadata)
{
    struct lora_writer w = {.count = 0};
    lora_add_blocks(&w, form, "one", 0, rank, alpha);
    lora_write_with(&w, file_in(name), metadata);
}

static void alpha_rules(void **state)
{
    (void)state;
    write_scaled("none.safetensors", FORM_COMFYUI, 4, 0, NULL);
    write_scaled("four.safetensors", FORM_COMFYUI, 4, 4, NULL);
    write_scaled("eight.safetensors", FORM_KOHYA, 4, 8, NULL);
    write_scaled("peft.safetensors", FORM_PEFT, 4, 0, NULL);
    expect_equal_files("none.safetensors", false, "four.safetensors");
    /* the raw form of PEFT: alpha is floor(4 · sqrt 4), unless it is told that it is not */
    struct lora_writer w = {.count = 0};
    lora_add_blocks(&w, FORM_PEFT, "one", 0, 4, 0);
    for (size_t i = 0; i < w.count; i++) {
        char *adapter = strstr(w.name[i], ".default");
        memmove(adapter, adapter + 8, strlen(adapter + 8) + 1);
    }
    lora_write(&w, file_in("raw.safetensors"));
    expect_equal_files("raw.safetensors", false, "eight.safetensors");
    expect_equal_files("raw.safetensors", true, "four.safetensors");
    expect_equal_files("peft.safetensors", false, "four.safetensors"); /* another adapter's name */
    write_scaled("meta.safetensors", FORM_DIFFUSERS, 4, 0,
                 "{\"transformer.r\": 4, \"transformer.lora_alpha\": 8.0, "
                 "\"transformer.use_rslora\": false, \"transformer.alpha_pattern\": {}}");
    expect_equal_files("meta.safetensors", false, "eight.safetensors");
    write_scaled("rslora.safetensors", FORM_DIFFUSERS, 4, 0,
                 "{\"transformer.lora_alpha\": 4, \"transformer.use_rslora\": true}");
    expect_equal_files("rslora.safetensors", false, "eight.safetensors"); /* 4 / sqrt 4 */
}

/* -- what does not match ------------------------------------------------------------------------
 */

static lt_status open_one(const char *name, enum lora_expert expert, struct lora_set **set,
                          struct lt_error *error)
{
    struct tensor_file *model;
    const struct lora_source source = {file_in(name), NULL, 0, expert, false};
    const struct lora_params params = {&source, 1, LT_TYPE_BF16, false};
    if (tensor_file_open(model_path, &model, error) != LT_OK)
        return error->code;
    const lt_status status = lora_set_create(&params, model, set, error);
    tensor_file_close(&model);
    return status;
}

static void g3_4_what_is_left_over_is_told(void **state)
{
    (void)state;
    struct lt_error error;
    struct lora_set *set = NULL;
    struct lora_writer w = {.count = 0};
    lora_add_pair(&w, FORM_COMFYUI, "one", "blocks.0.self_attn.q", 4, 4);
    lora_add_pair(&w, FORM_COMFYUI, "one", "blocks.0.cross_attn.k_img", 4, 0); /* of an I2V model */
    lora_add(&w, "text_encoder.layers.0.lora_A.weight", LT_TYPE_F32, 1, (int64_t[]){2});
    lora_add(&w, "diffusion_model.patch_embedding.diff", LT_TYPE_F32, 2, (int64_t[]){LORA_DIM, 9});
    lora_write(&w, file_in("part.safetensors"));
    assert_ok(open_one("part.safetensors", 0, &set, &error));
    const struct lora_report *report = lora_set_report(set, 0);
    assert_int_equal(report->key_count, 7);
    assert_int_equal(report->matched_count, 3);
    assert_int_equal(report->mismatched_count, 1);
    assert_int_equal(report->patch_count, 1);
    assert_int_equal(report->rank_max, 4);
    assert_int_equal(report->form, LORA_FORM_COMFYUI);
    size_t shown = 0;
    while (shown < LORA_NAMES_SHOWN && report->left[shown])
        shown++;
    assert_int_equal(shown, 4);
    lora_set_destroy(&set);
    lora_add(&w, "bla.lora_A.weight", LT_TYPE_F32, 1, (int64_t[]){2});
    lora_write(&w, file_in("nothing.safetensors"));
    assert_fails(open_one("nothing.safetensors", 0, &set, &error), LT_BAD_INPUT,
                 "none of its 1 keys");
    assert_non_null(strstr(error.text, "bla.lora_A.weight"));
    assert_null(set);
}

static void kinds_that_are_not_built_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *key, *kind;
    } cases[] = {{"lora_unet_blocks_0_ffn_0.hada_w1_a", "LoHa"},
                 {"lycoris_blocks_0_ffn_0.lokr_w1", "LoKr"},
                 {"diffusion_model.blocks.0.ffn.0.lokr_w2_a", "LoKr"},
                 {"lora_unet_blocks_0_ffn_0.oft_blocks", "OFT"},
                 {"diffusion_model.blocks.0.ffn.0.a1.weight", "GLoRA"},
                 {"lora_unet_patch_embedding.lora_mid.weight", "middle"},
                 {"base_model.model.blocks.0.ffn.0.vera_lambda_b", "VeRA"},
                 {"base_model.model.blocks.0.ffn.0.lora_B.bias", "own bias"}};
    struct lt_error error;
    struct lora_set *set = NULL;
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        struct lora_writer w = {.count = 0};
        lora_add_pair(&w, FORM_COMFYUI, "one", "blocks.0.self_attn.q", 4, 0);
        lora_add(&w, cases[i].key, LT_TYPE_F32, 1, (int64_t[]){4});
        lora_write(&w, file_in("refused.safetensors"));
        assert_fails(open_one("refused.safetensors", 0, &set, &error), LT_UNSUPPORTED,
                     cases[i].kind);
        assert_non_null(strstr(error.text, cases[i].key));
    }
}

static void files_that_contradict_themselves(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        enum lt_type type;
        int rank;
        int64_t dim[2];
        lt_status status;
        const char *text;
    } cases[] = {
        {"diffusion_model.blocks.0.ffn.0.lora_A.weight",
         LT_TYPE_F32,
         2,
         {4, 256},
         LT_BAD_INPUT,
         "half of a pair"},
        {"diffusion_model.blocks.0.self_attn.q.lora_up.weight",
         LT_TYPE_F32,
         2,
         {256, 4},
         LT_BAD_INPUT,
         "same tensor"},
        {"lora_unet_blocks_0_self_attn_q.lora_down.weight",
         LT_TYPE_F32,
         2,
         {4, 256},
         LT_BAD_INPUT,
         "same tensor"},
        {"diffusion_model.blocks.0.self_attn.q.alpha",
         LT_TYPE_F32,
         1,
         {2},
         LT_BAD_INPUT,
         "expected one"},
        {"diffusion_model.blocks.0.self_attn.q.dora_scale",
         LT_TYPE_F32,
         1,
         {7},
         LT_BAD_INPUT,
         "one value a row"},
        {"diffusion_model.blocks.0.self_attn.q.dora_scale",
         LT_TYPE_F32,
         2,
         {1, 256},
         LT_UNSUPPORTED,
         "input columns"},
        {"diffusion_model.blocks.1.self_attn.q.dora_scale",
         LT_TYPE_F32,
         1,
         {256},
         LT_BAD_INPUT,
         "no pair"},
        {"diffusion_model.blocks.0.self_attn.q.diff_b",
         LT_TYPE_I32,
         1,
         {256},
         LT_UNSUPPORTED,
         "I32"},
    };
    struct lt_error error;
    struct lora_set *set = NULL;
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        struct lora_writer w = {.count = 0};
        lora_add_pair(&w, FORM_COMFYUI, "one", "blocks.0.self_attn.q", 4, 0);
        lora_add(&w, cases[i].key, cases[i].type, cases[i].rank, cases[i].dim);
        lora_write(&w, file_in("broken.safetensors"));
        assert_fails(open_one("broken.safetensors", 0, &set, &error), cases[i].status,
                     cases[i].text);
    }
    struct lora_writer w = {.count = 0};
    lora_add(&w, "blocks.0.self_attn.q.lora_A.weight", LT_TYPE_F32, 2, (int64_t[]){4, 256});
    lora_add(&w, "blocks.0.self_attn.q.lora_B.weight", LT_TYPE_F32, 2, (int64_t[]){256, 5});
    lora_write(&w, file_in("broken.safetensors"));
    assert_fails(open_one("broken.safetensors", 0, &set, &error), LT_BAD_INPUT, "another rank");
    lora_add_pair(&w, FORM_COMFYUI, "one", "blocks.0.self_attn.q", 4, NAN);
    lora_write(&w, file_in("broken.safetensors"));
    assert_fails(open_one("broken.safetensors", 0, &set, &error), LT_BAD_INPUT, "not a number");
}

static void a_file_of_both_experts_needs_a_choice(void **state)
{
    (void)state;
    struct lt_error error;
    struct lora_set *set = NULL;
    struct lora_writer w = {.count = 0};
    static const char *const keys[] = {"transformer.blocks.0.attn1.to_q.lora_A.weight",
                                       "transformer.blocks.0.attn1.to_q.lora_B.weight",
                                       "transformer_2.blocks.0.attn1.to_q.lora_A.weight",
                                       "transformer_2.blocks.0.attn1.to_q.lora_B.weight",
                                       "transformer_2.blocks.1.ffn.net.0.proj.lora_A.weight",
                                       "transformer_2.blocks.1.ffn.net.0.proj.lora_B.weight"};
    for (size_t i = 0; i < LT_COUNT(keys); i++) {
        const int64_t out = i > 3 ? LORA_FFN : LORA_DIM;
        lora_add(&w, keys[i], LT_TYPE_F32, 2,
                 i % 2 ? (int64_t[]){out, 2} : (int64_t[]){2, LORA_DIM});
    }
    lora_write(&w, file_in("experts.safetensors"));
    assert_fails(open_one("experts.safetensors", LORA_EXPERT_ANY, &set, &error), LT_BAD_INPUT,
                 "both experts");
    assert_ok(open_one("experts.safetensors", LORA_EXPERT_HIGH, &set, &error));
    assert_int_equal(lora_set_report(set, 0)->patch_count, 1);
    lora_set_destroy(&set);
    assert_ok(open_one("experts.safetensors", LORA_EXPERT_LOW, &set, &error));
    assert_int_equal(lora_set_report(set, 0)->patch_count, 2);
    lora_set_destroy(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(diffusers_own_loader),
        cmocka_unit_test(g3_5_everything_merged_in_torch),
        cmocka_unit_test(dora_as_comfyui_and_as_peft),
        cmocka_unit_test(every_key_form_gives_the_same_bytes),
        cmocka_unit_test(replaced_tensors),
        cmocka_unit_test(g3_3_twice_the_same_and_without_the_base),
        cmocka_unit_test(strengths_read_nothing),
        cmocka_unit_test(g3_6_the_order_of_files_does_not_matter),
        cmocka_unit_test(wherever_blocks_live_the_bytes_are_the_same),
        cmocka_unit_test(a_streamed_set_keeps_one_term),
        cmocka_unit_test(alpha_rules),
        cmocka_unit_test(g3_4_what_is_left_over_is_told),
        cmocka_unit_test(kinds_that_are_not_built_are_refused_by_name),
        cmocka_unit_test(files_that_contradict_themselves),
        cmocka_unit_test(a_file_of_both_experts_needs_a_choice),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
