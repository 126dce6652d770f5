/* If a transformer differed from the original in some shape, its videos would be wrong and nothing
 * would say so. tests/golden/dit: random small shapes by diffusers in f64, of every kind of model
 * and with every option. f32 must meet them to 2e-4 of the prediction, as a whole and in the worst
 * element; bf16 to 2e-2 and a cosine of 0.9995. */
#include "tests/test.h"

#include "common/file.h"
#include "tests/worker/fill.h"
#include "worker/model/animate.h"
#include "worker/model/dit.h"

#include <math.h>

static char dir[] = "/tmp/longtake-test-XXXXXX";
static char path[256];

static int make_dir(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof path, "%s/golden.safetensors", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    return lt_dir_remove(dir, NULL) != LT_OK;
}

/* The motion encoder is filled wider, so that its faces are seen behind the biases. */
static void fill_like_make_py(const struct catalogue_entry *entry, float *to, size_t count)
{
    const size_t length = strlen(entry->name);
    fill_weights(entry->name, to, count);
    if (strncmp(entry->name, "motion_encoder.", 15) == 0 &&
        strcmp(entry->name + length - 7, ".weight") == 0) {
        fill_values(entry->name, to, count);
        for (size_t i = 0; i < count; i++)
            to[i] *= 2.5f;
    }
}

enum kind { PLAIN, IMAGE, BOTH_ENDS, FRAMES, OPTIONS, ANIMATE };

struct golden { /* one case, as make.py wrote it */
    const char *name;
    enum kind kind;
    struct dit_config config;
    int64_t rows, nag_rows, frames, height, width, face_frames, skip;
    double timestep, timesteps[8];
    struct dit_options options;
    float *want;
};

struct inputs {
    float *buffer[8];
    size_t count;
};

static struct lt_view read_golden(struct lt_safetensors *file, const char *name, const char *what)
{
    char full[64];
    struct lt_error error;
    struct lt_view view;
    snprintf(full, sizeof full, "%s.%s", name, what);
    assert_ok(lt_safetensors_read_f32(file, full, &view, &error));
    return view;
}

/* Numbers of the fixture, at most `count` of them. */
static void read_numbers(struct lt_safetensors *file, const char *name, const char *what,
                         double *to, int64_t count)
{
    struct lt_view view = read_golden(file, name, what);
    assert_true(lt_view_count(&view) <= count);
    for (int64_t i = 0; i < lt_view_count(&view); i++)
        to[i] = (double)((float *)view.data)[i];
    free(view.data);
}

static void read_options(struct lt_safetensors *file, struct golden *g)
{
    double o[9];
    read_numbers(file, g->name, "options", o, 9);
    g->nag_rows = (int64_t)o[0];
    g->options.nag_scale = o[1];
    g->options.nag_tau = o[2];
    g->options.nag_alpha = o[3];
    g->options.riflex_index = (int64_t)o[4];
    g->options.riflex_frames = (int64_t)o[5];
    g->options.memory_frames = (int64_t)o[6];
    g->options.rope_negative_offset = (int64_t)o[7];
    g->skip = (int64_t)o[8];
    g->options.skip_layers = &g->skip;
    g->options.skip_count = 1;
}

static void read_face(struct lt_safetensors *file, struct golden *g)
{
    double f[8];
    read_numbers(file, g->name, "face_shape", f, 8);
    g->config.face = (struct face_config){.size = (int64_t)f[0],
                                          .motion_dim = (int64_t)f[3],
                                          .motion_basis = (int64_t)f[4],
                                          .dim = (int64_t)f[5],
                                          .heads = (int64_t)f[6]};
    g->config.face.every = 5;
    for (int i = 0; g->config.face.size >> i >= 4; i++)
        g->config.face.channels[i] = (int64_t)fmin(ldexp(f[1], i), f[2]);
    g->face_frames = (int64_t)f[7];
    g->config.pose_channels = 16;
}

static void read_case(struct lt_safetensors *file, struct golden *g)
{
    static const enum dit_variant variant[] = {DIT_VARIANT_T2V,   DIT_VARIANT_I2V_21,
                                               DIT_VARIANT_FLF2V, DIT_VARIANT_TI2V_5B,
                                               DIT_VARIANT_T2V,   DIT_VARIANT_ANIMATE};
    const bool image = g->kind == IMAGE || g->kind == BOTH_ENDS || g->kind == ANIMATE;
    const int64_t out = g->kind == FRAMES ? 48 : 16;
    double s[11];
    read_numbers(file, g->name, "shape", s, 11);
    memset(&g->config, 0, sizeof g->config);
    g->config.variant = variant[g->kind];
    g->config.dim = 128 * (int64_t)s[0];
    g->config.ffn_dim = (int64_t)s[1];
    g->config.head_count = (int64_t)s[0];
    g->config.layer_count = (int64_t)s[2];
    g->config.in_channels = image ? 36 : out;
    g->config.out_channels = out;
    g->config.text_dim = (int64_t)s[3];
    g->config.freq_dim = (int64_t)s[4];
    g->config.text_len = (int64_t)s[5];
    g->config.image_attention = image;
    g->config.image_positions = g->kind == BOTH_ENDS;
    g->config.epsilon = 1e-6f;
    g->rows = (int64_t)s[6];
    g->frames = (int64_t)s[7];
    g->height = (int64_t)s[8];
    g->width = (int64_t)s[9];
    g->timestep = s[10];
    g->options = dit_options_default;
    if (g->kind == FRAMES)
        read_numbers(file, g->name, "timesteps", g->timesteps, 8);
    if (g->kind == OPTIONS)
        read_options(file, g);
    if (g->kind == ANIMATE)
        read_face(file, g);
    g->want = read_golden(file, g->name, "v").data;
}

static struct lt_view draw(struct inputs *inputs, const struct golden *g, const char *what,
                           int rank, const int64_t *dim)
{
    char full[64];
    struct lt_view view = lt_view_make(NULL, LT_TYPE_F32, rank, dim);
    const size_t count = (size_t)lt_view_count(&view);
    snprintf(full, sizeof full, "%s.%s", g->name, what);
    assert_true(inputs->count < LT_COUNT(inputs->buffer));
    view.data = inputs->buffer[inputs->count++] = malloc(count * sizeof(float));
    assert_non_null(view.data);
    fill_values(full, view.data, count);
    return view;
}
#define DRAW(what, ...)                                                                            \
    draw(&drawn, g, what, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),               \
         (int64_t[]){__VA_ARGS__})

static void hold(const struct golden *g, const char *how, const float *got, int64_t count,
                 bool bf16)
{
    double dd = 0, aa = 0, bb = 0, ab = 0, worst = 0, largest = 0;
    for (int64_t i = 0; i < count; i++) {
        const double a = (double)g->want[i], b = (double)got[i];
        dd += (a - b) * (a - b);
        aa += a * a;
        bb += b * b;
        ab += a * b;
        worst = fmax(worst, fabs(a - b));
        largest = fmax(largest, fabs(a));
    }
    const double relative = sqrt(dd / aa), cosine = ab / sqrt(aa * bb);
    print_message("%s, %s: relative error %.2g, worst element %.2g of the largest, cosine %.7f\n",
                  g->name, how, relative, worst / largest, cosine);
    if (bf16)
        assert_true(relative <= 2e-2 && cosine >= 0.9995);
    else
        assert_true(relative <= 2e-4 && worst <= 2e-4 * largest);
}

static void predict(const struct golden *g, struct dit *dit, const char *how, bool bf16)
{
    struct lt_error error;
    struct inputs drawn = {0};
    const int64_t c = g->config.out_channels, f = g->frames, h = g->height, w = g->width,
                  count = c * f * h * w;
    struct dit_prompt prompt = {.text = DRAW("text", g->rows, g->config.text_dim)};
    struct animate_window window = {0};
    struct dit_inputs inputs = {.x = DRAW("x", c, f, h, w),
                                .timestep = g->timestep,
                                .timesteps = g->kind == FRAMES ? g->timesteps : NULL,
                                .options = &g->options};
    if (g->config.in_channels > c)
        inputs.y = DRAW("y", g->config.in_channels - c, f, h, w);
    if (g->config.image_attention)
        prompt.clip = DRAW("clip", g->config.image_positions ? 514 : 257, 1280);
    if (g->nag_rows)
        prompt.nag_text = DRAW("nag_text", g->nag_rows, g->config.text_dim);
    if (g->kind == ANIMATE) {
        window.pose = DRAW("pose", 16, f - 1, h, w);
        window.face = DRAW("face", 3, g->face_frames, g->config.face.size, g->config.face.size);
        assert_ok(animate_context_create(dit, &window, 1 << 24, &inputs.animate, &error));
    }
    assert_ok(dit_context_create(dit, &prompt, 1 << 24, &inputs.context, &error));
    float *out = malloc((size_t)count * sizeof *out);
    struct lt_view v = lt_view_4d(out, LT_TYPE_F32, c, f, h, w);
    assert_ok(dit_forward(dit, &inputs, 1, &v, &error));
    hold(g, how, out, count, bf16);
    dit_context_destroy(&inputs.context);
    animate_context_destroy(&inputs.animate);
    free(out);
    while (drawn.count > 0)
        free(drawn.buffer[--drawn.count]);
}

static void run_case(struct lt_safetensors *file, const char *name, enum kind kind)
{
    static const struct {
        const char *how, *kernels;
        enum lt_precision precision;
    } ways[] = {{"ref", "ref", LT_PRECISION_F32},
                {"best", "best", LT_PRECISION_F32},
                {"bf16", "best", LT_PRECISION_BF16}};
    struct golden g = {.name = name, .kind = kind};
    struct catalogue catalogue;
    struct tensor_file *model;
    struct store *store;
    struct dit_config config;
    struct lt_error error;
    read_case(file, &g);
    assert_ok(catalogue_of_dit(&g.config, &catalogue, &error));
    assert_ok(fill_file(path, &catalogue, fill_like_make_py, NULL, &error));
    catalogue_fini(&catalogue);
    assert_ok(tensor_file_open(path, &model, &error));
    assert_ok(dit_config_detect(model, &config, &error));
    config.text_len = g.config.text_len;
    assert_memory_equal(&config, &g.config, sizeof config);
    assert_ok(store_load(model, NULL, NULL, &store, &error));
    /* the reference ops take seconds for the picture's 257 rows of 1280; they are held to the
     * others by check-kernels */
    for (size_t i = config.image_attention ? 1 : 0; i < LT_COUNT(ways); i++) {
        struct lt_kernels kernels;
        struct lt_exec *exec;
        struct dit *dit;
        assert_ok(lt_kernels_select(&kernels, lt_caps_detect(), ways[i].kernels, &error));
        assert_ok(lt_exec_create(&(struct lt_exec_params){2, ways[i].precision}, &exec, &error));
        assert_ok(dit_create(&config, store, &kernels, exec, &dit, &error));
        predict(&g, dit, ways[i].how, ways[i].precision == LT_PRECISION_BF16);
        dit_destroy(&dit);
        lt_exec_destroy(&exec);
    }
    store_destroy(&store);
    tensor_file_close(&model);
    free(g.want);
}

static void run_cases(const char *const *name, size_t count, const enum kind *kind)
{
    struct lt_error error;
    struct lt_safetensors *file;
    assert_ok(
        lt_safetensors_open(LT_SOURCE_DIR "/tests/golden/dit/dit.safetensors", &file, &error));
    for (size_t i = 0; i < count; i++)
        run_case(file, name[i], kind[i]);
    lt_safetensors_close(&file);
}

#define CASES(test, a, kind_a, b, kind_b, c, kind_c)                                               \
    static void test(void **state)                                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        run_cases((const char *const[]){a, b, c}, 3, (const enum kind[]){kind_a, kind_b, kind_c}); \
    }
CASES(text_to_video, "random-0", PLAIN, "random-1", PLAIN, "random-2", PLAIN)
CASES(image_to_video, "i2v-0", IMAGE, "i2v-1", IMAGE, "i2v-2", BOTH_ENDS)
CASES(a_timestep_for_each_frame, "ti2v-0", FRAMES, "ti2v-1", FRAMES, "ti2v-2", FRAMES)
CASES(options, "options-0", OPTIONS, "options-1", OPTIONS, "options-2", OPTIONS)
CASES(animate, "animate-0", ANIMATE, "animate-1", ANIMATE, "animate-2", ANIMATE)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_to_video),
        cmocka_unit_test(image_to_video),
        cmocka_unit_test(a_timestep_for_each_frame),
        cmocka_unit_test(options),
        cmocka_unit_test(animate),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
