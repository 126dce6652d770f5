/* `eval` is how anybody compares us with another implementation: if the command changed numbers on
 * their way from a GGUF file to the output, every comparison would blame the wrong side. Goldens:
 * dit.md 8.3, in f32, from files of `synth`. */
#include "tests/test.h"

#include "common/file.h"
#include "kernels/quant.h"
#include "tests/worker/fill.h"

#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[] = "/tmp/longtake-test-XXXXXX";

static int make_dir(void **state)
{
    (void)state;
    return !mkdtemp(dir);
}

static int remove_dir(void **state)
{
    (void)state;
    return lt_dir_remove(dir, NULL) != LT_OK;
}

/* Runs longtake-worker in the test's folder; gives its exit code. */
static int worker(const char *arguments)
{
    char line[1024];
    snprintf(line, sizeof line, "cd %s && %s/longtake-worker %s >out.txt 2>&1", dir, LT_BINARY_DIR,
             arguments);
    const int how = system(line);
    return WIFEXITED(how) ? WEXITSTATUS(how) : -1;
}

static void write_inputs(int64_t text_rows)
{
    char path[300];
    struct lt_error error;
    static float x[16 * 2 * 4 * 6], text[9 * 48], timestep[1] = {937};
    const int64_t one[] = {1};
    fill_values("input.x", x, LT_COUNT(x));
    fill_values("input.context", text, LT_COUNT(text));
    snprintf(path, sizeof path, "%s/inputs.safetensors", dir);
    const struct lt_named_view tensors[] = {
        {"x", lt_view_4d(x, LT_TYPE_F32, 16, 2, 4, 6)},
        {"text", lt_view_2d(text, LT_TYPE_F32, text_rows, 48)},
        {"timestep", lt_view_make(timestep, LT_TYPE_F32, 1, one)}};
    assert_ok(lt_safetensors_write(path, tensors, 3, NULL, 0, &error));
}

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 2e-4 * fmax(1, fabs(want))))
        fail_msg("got %.9g, expected %.9g", got, want);
}

/* The golden model with so many of its two layers. */
static struct lt_view predict(int layers, const char *model, const char *kernel)
{
    char path[300], line[512];
    struct lt_error error;
    struct lt_safetensors *file;
    struct lt_view v;
    snprintf(line, sizeof line,
             "synth --variant t2v-1.3b --fill golden --dim 256 --ffn 512 --layers %d --text-dim 48 "
             "--quant f32 --output %s",
             layers, model);
    assert_int_equal(worker(line), 0);
    snprintf(line, sizeof line,
             "eval dit --model %s --inputs inputs.safetensors --output v.safetensors --precision "
             "f32 --kernel %s "
             "--set text_len=8 --report report.json",
             model, kernel);
    assert_int_equal(worker(line), 0);
    snprintf(path, sizeof path, "%s/v.safetensors", dir);
    assert_ok(lt_safetensors_open(path, &file, &error));
    assert_ok(lt_safetensors_read_f32(file, "v", &v, &error));
    lt_safetensors_close(&file);
    assert_true(v.rank == 4 && v.dim[0] == 16 && v.dim[1] == 2 && v.dim[2] == 4 && v.dim[3] == 6);
    return v;
}

static double sum(const struct lt_view *v)
{
    double total = 0;
    for (int64_t i = 0; i < lt_view_count(v); i++)
        total += (double)((const float *)v->data)[i];
    return total;
}

static void goldens_from_files_of_synth(void **state)
{
    (void)state;
    static const char *const models[] = {"tiny.gguf", "tiny.safetensors"}, *const kernels[] = {
                                                                               "best", "ref"};
    write_inputs(5);
    for (int i = 0; i < 2; i++) {
        struct lt_view v = predict(2, models[i], kernels[i]);
        const float *out = v.data;
        near(out[0], 0.529953995);
        near(out[1], 2.995117169);
        near(out[2], 1.476360105);
        near(out[3], -1.030938421);
        near(out[((7 * 2 + 1) * 4 + 2) * 6 + 3], 0.791979276);
        near(sum(&v), 78.787030495);
        free(v.data);
        v = predict(1, models[i], kernels[i]);
        out = v.data;
        near(out[0], -0.17725913);
        near(out[1], 3.31844218);
        near(out[2], 0.85192416);
        near(sum(&v), 41.43693565);
        free(v.data);
    }
}

static char *file_of(const char *name, size_t *bytes_out)
{
    char path[300];
    struct lt_error error;
    void *data;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_ok(lt_file_read(path, 1 << 20, &data, bytes_out, &error));
    return data;
}

static uint64_t reported(const char *report, const char *key)
{
    const char *at = strstr(report, key);
    assert_non_null(at);
    return strtoull(at + strlen(key) + 3, NULL, 10); /* key": value */
}

/* G4.3 from file to file: the same bytes wherever the blocks live; the report tells what moved. */
static void test_g4_3_placement_changes_no_output(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",
        "--blocks-to-swap 4 --prefetch 0",
        "--blocks-to-swap 2 --prefetch 1 --swap-order spread",
        "--blocks-to-swap 4 --prefetch 0 --copy-bandwidth 1GiB",
    };
    write_inputs(5);
    assert_int_equal(worker("synth --variant t2v-1.3b --dim 256 --ffn 512 --layers 4 --text-dim 48 "
                            "--quant q8_0 --seed 5 --output four.gguf"),
                     0);
    size_t bytes, first_bytes = 0;
    char *first = NULL;
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        char line[512];
        snprintf(line, sizeof line,
                 "eval dit --model four.gguf --inputs inputs.safetensors --output v.safetensors "
                 "--set text_len=8 --threads 1 --report report.json %s",
                 cases[i]);
        assert_int_equal(worker(line), 0);
        char *report = file_of("report.json", &bytes), *out = file_of("v.safetensors", &bytes);
        if (!first) {
            first = out;
            first_bytes = bytes;
        } else {
            assert_int_equal(bytes, first_bytes);
            assert_memory_equal(out, first, bytes);
            free(out);
        }
        const uint64_t swapped = reported(report, "swapped_weight_bytes");
        assert_int_equal(swapped > 0, i > 0);
        assert_int_equal(reported(report, "copy_bytes"), swapped);
        assert_int_equal(reported(report, "read_bytes"), reported(report, "host_weight_bytes"));
        free(report);
    }
    free(first);
}

/* What stays is read once, however often it is used: the measure of a cold start. */
static void a_forward_again_reads_nothing(void **state)
{
    (void)state;
    size_t bytes;
    write_inputs(5);
    assert_int_equal(worker("synth --variant t2v-1.3b --dim 256 --ffn 512 --layers 4 --text-dim 48 "
                            "--quant q8_0 --seed 5 --output four.gguf"),
                     0);
    char *out[2];
    for (int i = 0; i < 2; i++) {
        char line[512];
        snprintf(line, sizeof line,
                 "eval dit --model four.gguf --inputs inputs.safetensors --output v.safetensors "
                 "--set text_len=8 --set repeat=%d --threads 1 --report report.json",
                 2 * i + 1);
        assert_int_equal(worker(line), 0);
        char *report = file_of("report.json", &bytes), *end;
        assert_int_equal(reported(report, "read_bytes"), reported(report, "host_weight_bytes"));
        const char *at = strstr(report, "\"forward_seconds\": [");
        assert_non_null(at);
        int count = 0;
        for (at = strchr(at, '['); *at != ']'; at = end, count++)
            assert_true(strtod(at + 1, &end) > 0);
        assert_int_equal(count, 2 * i + 1);
        free(report);
        out[i] = file_of("v.safetensors", &bytes);
    }
    assert_memory_equal(out[0], out[1], bytes);
    free(out[0]);
    free(out[1]);
}

struct drawn {
    struct lt_named_view tensor[8];
    size_t count;
};

static void draw(struct drawn *to, const char *name, int rank, const int64_t *dim)
{
    struct lt_view view = lt_view_make(NULL, LT_TYPE_F32, rank, dim);
    const size_t count = (size_t)lt_view_count(&view);
    view.data = malloc(count * sizeof(float));
    assert_non_null(view.data);
    fill_values(name, view.data, count);
    if (strcmp(name, "timestep") == 0)
        for (size_t i = 0; i < count; i++)
            ((float *)view.data)[i] = (float)(i > 0 ? 500 : 0);
    to->tensor[to->count++] = (struct lt_named_view){name, view};
}
#define DRAW(name, ...)                                                                            \
    draw(&drawn, name, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                  \
         (int64_t[]){__VA_ARGS__})

/* Reduced files of every kind of transformer run from GGUF to prediction, with all their inputs. */
static void reduced_files_of_every_kind_run(void **state)
{
    (void)state;
    enum { OPTIONS = 1, EXTRA = 2, IMAGE = 4, ANIMATE = 8 };
    static const struct {
        const char *variant;
        int64_t channels, timesteps;
        int parts;
    } kinds[] = {{"ti2v-5b", 48, 2, OPTIONS},
                 {"i2v-a14b", 16, 1, EXTRA},
                 {"i2v-14b", 16, 1, EXTRA | IMAGE},
                 {"animate-14b", 16, 1, EXTRA | IMAGE | ANIMATE}};
    for (size_t i = 0; i < LT_COUNT(kinds); i++) {
        struct drawn drawn = {0};
        struct lt_error error;
        char path[300], line[512];
        size_t bytes;
        DRAW("x", kinds[i].channels, 2, 4, 6);
        DRAW("timestep", kinds[i].timesteps);
        DRAW("text", 5, 256);
        DRAW("nag_text", 2, 256);
        if (kinds[i].parts & EXTRA)
            DRAW("y", 20, 2, 4, 6);
        if (kinds[i].parts & IMAGE)
            DRAW("clip", 257, 1280);
        if (kinds[i].parts & ANIMATE) {
            DRAW("pose", 16, 1, 4, 6);
            DRAW("face", 3, 1, 512, 512);
        }
        snprintf(path, sizeof path, "%s/kind.safetensors", dir);
        assert_ok(lt_safetensors_write(path, drawn.tensor, drawn.count, NULL, 0, &error));
        while (drawn.count > 0)
            free(drawn.tensor[--drawn.count].view.data);
        snprintf(line, sizeof line,
                 "synth --variant %s --dim 256 --ffn 256 --layers 2 --text-dim 256 --quant q4_0 "
                 "--output kind.gguf",
                 kinds[i].variant);
        assert_int_equal(worker(line), 0);
        snprintf(line, sizeof line,
                 "eval dit --model kind.gguf --inputs kind.safetensors --output v.safetensors %s",
                 kinds[i].parts & OPTIONS
                     ? "--set skip_layers=1 --set nag_scale=5 --set nag_tau=2 --set nag_alpha=0.5 "
                       "--set riflex_index=6 --set memory_frames=1 --set rope_negative_offset=5"
                     : "");
        if (worker(line) != 0)
            fail_msg("%s: %s", kinds[i].variant, file_of("out.txt", &bytes));
        if (!(kinds[i].parts & ANIMATE)) /* has all the parts there are */
            continue;
        char *resident = file_of("v.safetensors", &bytes);
        strcat(line, "--blocks-to-swap 2 --prefetch 0"); /* G4.3: fusers swap with their block */
        assert_int_equal(worker(line), 0);
        char *swapped = file_of("v.safetensors", &bytes);
        assert_memory_equal(resident, swapped, bytes);
        free(resident);
        free(swapped);
    }
    assert_int_equal(worker("eval dit --model kind.gguf --inputs kind.safetensors --output "
                            "v.safetensors --set skip_layers=2"),
                     3);
    assert_int_equal(worker("eval dit --model kind.gguf --inputs kind.safetensors --output "
                            "v.safetensors --set skip_layers=0,x"),
                     2);
}

static void mistakes_have_their_exit_codes(void **state)
{
    (void)state;
    char path[300];
    write_inputs(9); /* more rows than text_len */
    assert_int_equal(
        worker("eval dit --model tiny.gguf --inputs inputs.safetensors --output no.safetensors "
               "--set text_len=8"),
        3);
    assert_int_equal(
        worker("eval dit --model none.gguf --inputs inputs.safetensors --output no.safetensors"),
        4);
    assert_int_equal(
        worker("eval audio --model tiny.gguf --inputs inputs.safetensors --output no.safetensors"),
        5);
    assert_int_equal(worker("eval dit --model tiny.gguf"), 2);
    snprintf(path, sizeof path, "%s/no.safetensors", dir);
    assert_int_not_equal(access(path, F_OK), 0); /* nothing is left under the output's name */
}

/* -- 8-bit files ------------------------------------------------------------------------------- */

static bool is_8_bit(const struct catalogue_entry *entry)
{
    return entry->rank == 2 && strncmp(entry->name, "blocks.", 7) == 0 &&
           strcmp(strrchr(entry->name, '.'), ".weight") == 0;
}

/* The golden fill with its block matrices in 8 bits and a scale beside each, as ComfyUI packs
 * them; or, `plain`, what these stand for in f32. */
static void write_8_bit(const struct catalogue *catalogue, const char *name, bool plain)
{
    char file_path[300];
    struct lt_error error;
    struct lt_named_view *views = calloc(2 * catalogue->count, sizeof *views);
    char(*names)[128] = calloc(catalogue->count, sizeof *names);
    float scale = 0.25f;
    size_t kept = 0;
    for (size_t i = 0; i < catalogue->count; i++) {
        const struct catalogue_entry *entry = &catalogue->entry[i];
        const size_t count = (size_t)catalogue_values(entry);
        float *values = malloc(count * sizeof *values);
        fill_weights(entry->name, values, count);
        views[kept].name = entry->name;
        views[kept].view = lt_view_make(values, LT_TYPE_F32, entry->rank, entry->dim);
        if (is_8_bit(entry)) {
            uint8_t *bytes = malloc(count);
            assert_ok(lt_quantize_row(LT_TYPE_F8_E4M3, values, bytes, (int64_t)count, &error));
            lt_dequantize_row(LT_TYPE_F8_E4M3, bytes, values, (int64_t)count);
            for (size_t v = 0; v < count; v++)
                values[v] *= scale;
            if (!plain) {
                memcpy(values, bytes, count);
                views[kept].view.type = LT_TYPE_F8_E4M3;
                snprintf(names[i], sizeof *names, "%.*sscale_weight",
                         (int)(strlen(entry->name) - strlen("weight")), entry->name);
                views[++kept] =
                    (struct lt_named_view){names[i], lt_view_1d(&scale, LT_TYPE_F32, 1)};
            }
            free(bytes);
        }
        kept++;
    }
    snprintf(file_path, sizeof file_path, "%s/%s", dir, name);
    assert_ok(lt_safetensors_write(file_path, views, kept, NULL, 0, &error));
    for (size_t i = 0; i < kept; i++)
        if (views[i].view.data != &scale)
            free(views[i].view.data);
    free(views);
    free(names);
}

static void a_transformer_in_8_bits(void **state)
{
    (void)state;
    struct lt_error error;
    struct dit_config config;
    struct catalogue catalogue;
    static const char *const models[] = {"scaled.safetensors", "plain.safetensors"};
    char *out[2];
    size_t bytes[2];
    assert_ok(dit_config_named("t2v-1.3b", &config, &error));
    config.dim = 128;
    config.head_count = 1;
    config.ffn_dim = 96;
    config.text_dim = 48;
    config.layer_count = 2;
    assert_ok(catalogue_of_dit(&config, &catalogue, &error));
    write_inputs(5);
    for (int i = 0; i < 2; i++) {
        char line[300];
        write_8_bit(&catalogue, models[i], i == 1);
        snprintf(line, sizeof line,
                 "eval dit --model %s --inputs inputs.safetensors --output v.safetensors "
                 "--precision f32 --set text_len=8",
                 models[i]);
        assert_int_equal(worker(line), 0);
        out[i] = file_of("v.safetensors", &bytes[i]);
    }
    assert_int_equal(bytes[0], bytes[1]);
    assert_memory_equal(out[0], out[1], bytes[0]); /* the scale is a power of two */
    free(out[0]);
    free(out[1]);
    catalogue_fini(&catalogue);
}

/* -- text -------------------------------------------------------------------------------------- */

static const char SMALL[] = "--layers 2 --dim 64 --ffn 96 --tokens 512 --quant f32";

/* The last run's text. */
static bool printed(const char *part)
{
    char text[4096], file_path[300];
    snprintf(file_path, sizeof file_path, "%s/out.txt", dir);
    FILE *file = fopen(file_path, "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    return strstr(text, part) != NULL;
}

static void read_output(struct lt_view *tokens, struct lt_view *text)
{
    char file_path[300];
    struct lt_error error;
    struct lt_safetensors *file;
    snprintf(file_path, sizeof file_path, "%s/text-out.safetensors", dir);
    assert_ok(lt_safetensors_open(file_path, &file, &error));
    assert_int_equal(lt_safetensors_find(file, "tokens")->type, LT_TYPE_I32);
    assert_ok(lt_safetensors_read_f32(file, "tokens", tokens, &error));
    assert_ok(lt_safetensors_read_f32(file, "text", text, &error));
    lt_safetensors_close(&file);
    assert_int_equal(text->dim[0], tokens->dim[0]);
    assert_int_equal(text->dim[1], 64);
}

static void encode(const char *arguments)
{
    char line[700];
    snprintf(line, sizeof line,
             "eval text %s --precision f32 --output text-out.safetensors --report report.json",
             arguments);
    if (worker(line) != 0)
        fail_msg("longtake-worker %s failed", line);
}

static void free_output(struct lt_view *tokens, struct lt_view *text)
{
    free(tokens->data);
    free(text->data);
}

/* A prompt, its tokens, the vocabulary inside or beside the model, safetensors or GGUF, blocks
 * resident or streamed: the same features. */
static void a_prompt_becomes_features(void **state)
{
    (void)state;
    static const char *const ways[] = {
        "--model t.safetensors --set 'prompt=a  cat “walks”'",
        "--model t.gguf --set 'prompt=a cat \"walks\"' --set clean=wan",
        "--model t.gguf --model t.safetensors --set 'prompt=a cat \"walks\"' --set clean=comfy",
        "--model t.gguf --inputs tokens.safetensors",
        "--model t.gguf --inputs tokens.safetensors --blocks-to-swap 1",
    };
    char line[256], file_path[300];
    struct lt_error error;
    struct lt_view tokens, text, again_tokens, again;
    snprintf(line, sizeof line, "synth --variant umt5 %s --output t.safetensors", SMALL);
    assert_int_equal(worker(line), 0);
    snprintf(line, sizeof line, "synth --variant umt5 %s --output t.gguf", SMALL);
    assert_int_equal(worker(line), 0);
    encode(ways[0]);
    read_output(&tokens, &text);
    assert_int_equal(((float *)tokens.data)[tokens.dim[0] - 1], 1); /* </s> */
    int32_t ids[64];
    assert_in_range(tokens.dim[0], 6, 64);
    for (int64_t i = 0; i < tokens.dim[0]; i++)
        ids[i] = (int32_t)((float *)tokens.data)[i];
    snprintf(file_path, sizeof file_path, "%s/tokens.safetensors", dir);
    const struct lt_named_view input = {"tokens", lt_view_1d(ids, LT_TYPE_I32, tokens.dim[0])};
    assert_ok(lt_safetensors_write(file_path, &input, 1, NULL, 0, &error));
    for (size_t w = 1; w < LT_COUNT(ways); w++) {
        encode(ways[w]);
        read_output(&again_tokens, &again);
        assert_int_equal(again.dim[0], text.dim[0]);
        assert_memory_equal(again.data, text.data, (size_t)lt_view_count(&text) * sizeof(float));
        free_output(&again_tokens, &again);
    }
    free_output(&tokens, &text);
}

static void text_says_what_it_needs(void **state)
{
    (void)state;
    assert_int_equal(worker("eval text --model t.gguf --output o.safetensors"), 2);
    assert_true(printed("tokens"));
    assert_int_equal(worker("eval text --model t.gguf --set prompt=a --set clean=x --output o"), 2);
    assert_true(printed("wan or comfy"));
    assert_int_equal(
        worker("eval text --model t.gguf --set prompt=a --inputs tokens.safetensors --output o"),
        2);
    assert_true(printed("not both"));
    assert_int_equal(worker("synth --variant umt5 --dim 12 --output x.gguf"), 3);
    assert_true(printed("--dim"));
    assert_int_equal(worker("synth --variant umt5 --dim 8 --tokens 9 --output x.gguf"), 3);
    assert_true(printed("--tokens"));
}

/* From files of synth to the report: three key forms, a strength of nothing, a refusal. */
static void loras_on_the_command_line(void **state)
{
    (void)state;
    char path[300], line[700];
    size_t bytes;
    struct lt_view v = predict(2, "lora-base.gguf", "best");
    write_inputs(5);
    for (int i = 0; i < 3; i++) {
        static const char *const forms[] = {"comfyui", "kohya", "diffusers"};
        snprintf(line, sizeof line,
                 "synth --variant lora --base t2v-1.3b --layers 2 --dim 256 --ffn 512 --rank 4 "
                 "--form %s --seed 5 --output %s.safetensors",
                 forms[i], forms[i]);
        assert_int_equal(worker(line), 0);
        snprintf(line, sizeof line, "inspect %s.safetensors", forms[i]);
        assert_int_equal(worker(line), 0);
        char *told = file_of("out.txt", &bytes);
        assert_non_null(strstr(told, "kind         lora"));
        assert_non_null(strstr(told, forms[i]));
        assert_non_null(strstr(told, "pairs        20, rank 4 to 4"));
        free(told);
        for (int zero = 0; zero < 2; zero++) {
            struct lt_error error;
            struct lt_safetensors *file;
            struct lt_view got;
            snprintf(line, sizeof line,
                     "eval dit --model lora-base.gguf --lora %s.safetensors%s --inputs "
                     "inputs.safetensors --output got.safetensors --precision f32 --set text_len=8 "
                     "--set lora_step=1 --report report.json",
                     forms[i], zero ? ":1,0" : "");
            assert_int_equal(worker(line), 0);
            snprintf(path, sizeof path, "%s/got.safetensors", dir);
            assert_ok(lt_safetensors_open(path, &file, &error));
            assert_ok(lt_safetensors_read_f32(file, "v", &got, &error));
            lt_safetensors_close(&file);
            const size_t size = (size_t)lt_view_count(&v) * sizeof(float);
            assert_int_equal(memcmp(got.data, v.data, size) == 0, zero);
            free(got.data);
            char *report = file_of("report.json", &bytes);
            snprintf(line, sizeof line, "\"form\": \"%s\"", forms[i]);
            assert_non_null(strstr(report, line));
            assert_int_equal(reported(report, "matched"), i == 1 ? 60 : 40);
            assert_true(reported(report, "lora_read_bytes") > 0);
            free(report);
        }
    }
    free(v.data);
    assert_int_equal(worker("eval dit --model lora-base.gguf --lora lora-base.gguf --inputs "
                            "inputs.safetensors --output no.safetensors --set text_len=8"),
                     3);
    assert_int_equal(worker("eval vae-decode --model lora-base.gguf --lora kohya.safetensors "
                            "--inputs inputs.safetensors --output no.safetensors"),
                     2);
}

static void write_speech(int speakers)
{
    char path[300];
    struct lt_error error;
    static float x[16 * 3 * 4 * 6], y[20 * 3 * 4 * 6], text[5 * 48], audio[2 * 11 * 12 * 768],
        clip[257 * 1280];
    static float timestep[1] = {500}, start[1] = {1};
    static float masks[3 * 2 * 3] = {1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1};
    const int64_t one[] = {1};
    fill_values("input.x", x, LT_COUNT(x));
    fill_values("input.y", y, LT_COUNT(y));
    fill_values("input.context", text, LT_COUNT(text));
    fill_values("input.audio", audio, LT_COUNT(audio));
    fill_values("input.clip", clip, LT_COUNT(clip));
    snprintf(path, sizeof path, "%s/talk.safetensors", dir);
    const struct lt_named_view tensors[] = {
        {"x", lt_view_4d(x, LT_TYPE_F32, 16, 3, 4, 6)},
        {"y", lt_view_4d(y, LT_TYPE_F32, 20, 3, 4, 6)},
        {"text", lt_view_2d(text, LT_TYPE_F32, 5, 48)},
        {"timestep", lt_view_make(timestep, LT_TYPE_F32, 1, one)},
        {"clip", lt_view_2d(clip, LT_TYPE_F32, 257, 1280)},
        {"audio", lt_view_4d(audio, LT_TYPE_F32, speakers, 11, 12, 768)},
        {"audio_start", lt_view_make(start, LT_TYPE_F32, 1, one)},
        {"speaker_masks", lt_view_3d(masks, LT_TYPE_F32, 3, 2, 3)}};
    assert_ok(lt_safetensors_write(path, tensors, speakers > 1 ? 8 : 7, NULL, 0, &error));
}

/* An add-on is merged onto its base, speaks, and streams like any other. */
static void an_add_on_speaks(void **state)
{
    (void)state;
    char line[512];
    assert_int_equal(worker("synth --variant i2v-14b --dim 256 --ffn 256 --layers 2 --text-dim 48 "
                            "--freq-dim 32 --quant f16 --seed 5 --output base.gguf"),
                     0);
    assert_int_equal(worker("synth --variant talk-addon --dim 256 --layers 2 --quant q8_0 --seed 6 "
                            "--output talk.gguf"),
                     0);
    for (int speakers = 1; speakers <= 2; speakers++) {
        static const char *const more[] = {"", "--blocks-to-swap 2 --prefetch 0",
                                           "--set audio_scale=0"};
        char *bytes[LT_COUNT(more)];
        size_t size[LT_COUNT(more)];
        write_speech(speakers);
        for (size_t i = 0; i < LT_COUNT(more); i++) {
            snprintf(line, sizeof line,
                     "eval dit --model base.gguf --model talk.gguf --inputs talk.safetensors "
                     "--output speech.safetensors --precision f32 --set text_len=8 %s",
                     more[i]);
            assert_int_equal(worker(line), 0);
            bytes[i] = file_of("speech.safetensors", &size[i]);
        }
        assert_true(size[0] == size[1] && memcmp(bytes[0], bytes[1], size[0]) == 0);
        assert_true(memcmp(bytes[0], bytes[2], size[0]) != 0); /* it was heard */
        for (size_t i = 0; i < LT_COUNT(more); i++)
            free(bytes[i]);
    }
    assert_int_equal(worker("eval dit --model talk.gguf --inputs talk.safetensors --output "
                            "speech.safetensors --set text_len=8"),
                     5); /* alone it is nothing */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goldens_from_files_of_synth),
        cmocka_unit_test(loras_on_the_command_line),
        cmocka_unit_test(an_add_on_speaks),
        cmocka_unit_test(test_g4_3_placement_changes_no_output),
        cmocka_unit_test(a_forward_again_reads_nothing),
        cmocka_unit_test(reduced_files_of_every_kind_run),
        cmocka_unit_test(mistakes_have_their_exit_codes),
        cmocka_unit_test(a_transformer_in_8_bits),
        cmocka_unit_test(a_prompt_becomes_features),
        cmocka_unit_test(text_says_what_it_needs),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
