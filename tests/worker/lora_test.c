/* If LoRAs were applied wrongly, a distilled model would give noise in four steps, or a style would
 * silently be missing. Goldens by diffusers, PEFT and torch; guarantees G3.2 to G3.6 of pipeline.md
 * 4.3 by count. */
#include "tests/worker/lora_file.h"

#include "common/file.h"
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

static void everything_merged_in_torch(void **state)
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(diffusers_own_loader),
        cmocka_unit_test(everything_merged_in_torch),
        cmocka_unit_test(dora_as_comfyui_and_as_peft),
        cmocka_unit_test(every_key_form_gives_the_same_bytes),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
