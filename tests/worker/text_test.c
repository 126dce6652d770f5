/* If the text encoder differed from the original, every picture would follow another prompt than
 * the one that was written: it looks fine and is wrong. Goldens: transformers' UMT5EncoderModel in
 * three random shapes (tests/golden/text/make.py), f64; f32 code must meet them to 2e-4 of their
 * size, bf16 to 2e-2. */
#include "tests/test.h"

#include "common/file.h"
#include "kernels/quant.h"
#include "tests/worker/fill.h"
#include "worker/model/text.h"
#include "worker/weights/gguf_write.h"

#include <math.h>

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

/* weight() of make.py. */
static int64_t head_width;

static void fill_as_script(const struct catalogue_entry *entry, float *to, size_t count)
{
    const bool is_norm = strstr(entry->name, "norm"), is_table = strstr(entry->name, "embedding");
    fill_values(entry->name, to, count);
    float scale = sqrtf(6.0f / (float)entry->dim[entry->rank - 1]);
    if (strstr(entry->name, ".q."))
        scale /= sqrtf((float)head_width);
    for (size_t i = 0; i < count; i++)
        to[i] = is_norm ? 1 + 0.5f * to[i] : is_table ? to[i] : scale * to[i];
}

/* -- golden ------------------------------------------------------------------------------------ */

struct golden {
    struct text_config config;
    int32_t tokens[512];
    size_t count;
    struct lt_view text; /* [count, dim] */
};

static void read_golden(int index, struct golden *golden)
{
    struct lt_safetensors *file;
    struct lt_error error;
    struct lt_view shape, tokens;
    char name[32];
    assert_ok(
        lt_safetensors_open(LT_SOURCE_DIR "/tests/golden/text/text.safetensors", &file, &error));
    snprintf(name, sizeof name, "random-%d.shape", index);
    assert_ok(lt_safetensors_read_f32(file, name, &shape, &error));
    snprintf(name, sizeof name, "random-%d.tokens", index);
    assert_ok(lt_safetensors_read_f32(file, name, &tokens, &error));
    snprintf(name, sizeof name, "random-%d.text", index);
    assert_ok(lt_safetensors_read_f32(file, name, &golden->text, &error));
    const float *s = shape.data;
    golden->config = (struct text_config){.layer_count = (int64_t)s[0],
                                          .dim = (int64_t)s[1],
                                          .head_count = (int64_t)s[2],
                                          .head_width = (int64_t)s[3],
                                          .ffn_dim = (int64_t)s[4],
                                          .vocabulary_rows = (int64_t)s[5],
                                          .bucket_count = (int64_t)s[6],
                                          .epsilon = 1e-6f};
    head_width = golden->config.head_width;
    golden->count = (size_t)tokens.dim[0];
    for (size_t i = 0; i < golden->count; i++)
        golden->tokens[i] = (int32_t)((float *)tokens.data)[i];
    free(shape.data);
    free(tokens.data);
    lt_safetensors_close(&file);
}

/* -- runs -------------------------------------------------------------------------------------- */

struct run {
    struct tensor_file *file;
    struct store *store;
    struct lt_kernels kernels;
    struct lt_exec *exec;
    struct text *text;
};

static void begin(struct run *run, const char *path, const char *kernels,
                  enum lt_precision precision)
{
    struct lt_error error;
    struct text_config config;
    memset(run, 0, sizeof *run);
    assert_ok(tensor_file_open(path, &run->file, &error));
    assert_ok(text_config_detect(run->file, &config, &error));
    assert_ok(store_load(run->file, text_wants, NULL, &run->store, &error));
    assert_ok(lt_kernels_select(&run->kernels, lt_caps_detect(), kernels, &error));
    assert_ok(lt_exec_create(&(struct lt_exec_params){2, precision}, &run->exec, &error));
    assert_ok(text_create(&config, run->store, &run->kernels, run->exec, &run->text, &error));
}

static void end(struct run *run)
{
    text_destroy(&run->text);
    lt_exec_destroy(&run->exec);
    store_destroy(&run->store);
    tensor_file_close(&run->file);
}

/* Features of the golden's tokens, malloc'ed; each slab must be free again afterwards. */
static float *encode(struct run *run, const struct golden *golden)
{
    struct lt_error error;
    const int64_t rows = (int64_t)golden->count, dim = golden->config.dim;
    float *features = malloc((size_t)(rows * dim) * sizeof *features);
    const struct lt_view view = lt_view_2d(features, LT_TYPE_F32, rows, dim);
    assert_ok(text_encode(run->text, golden->tokens, golden->count, &view, &error));
    assert_int_equal(text_activation_peak_bytes(run->text),
                     text_activation_bytes(&golden->config, golden->count));
    struct lt_scratch scratch;
    assert_ok(text_scratch(&golden->config, lt_exec_precision(run->exec), golden->count, &scratch,
                           &error));
    assert_true(lt_exec_scratch_bytes(run->exec) <= lt_scratch_bytes(&scratch, 2));
    return features;
}

static float *encode_file(const char *path, const struct golden *golden)
{
    struct run run;
    begin(&run, path, "best", LT_PRECISION_F32);
    assert_memory_equal(text_config(run.text), &golden->config,
                        offsetof(struct text_config, epsilon));
    float *features = encode(&run, golden);
    end(&run);
    return features;
}

static const char *write_model(const struct text_config *config, fill_entry *fill)
{
    static char path[256];
    struct catalogue catalogue;
    struct lt_error error;
    snprintf(path, sizeof path, "%s/text.safetensors", dir);
    assert_ok(catalogue_of_umt5(config, &catalogue, &error));
    assert_ok(fill_file(path, &catalogue, fill, NULL, &error));
    catalogue_fini(&catalogue);
    return path;
}

/* -- tests ------------------------------------------------------------------------------------- */

static void hold(const char *what, const float *got, const struct lt_view *want, double bound)
{
    const float *w = want->data;
    double top = 0, worst = 0, dot = 0, squares = 0, wanted = 0;
    for (int64_t i = 0; i < lt_view_count(want); i++) {
        top = fmax(top, fabs(w[i]));
        worst = fmax(worst, fabs((double)got[i] - w[i]));
        dot += (double)got[i] * w[i];
        squares += (double)got[i] * got[i];
        wanted += (double)w[i] * w[i];
    }
    const double cosine = dot / sqrt(squares * wanted), relative = worst / top;
    double rms = 0;
    for (int64_t i = 0; i < lt_view_count(want); i++)
        rms += ((double)got[i] - w[i]) * ((double)got[i] - w[i]);
    rms = sqrt(rms / wanted);
    printf("    %-16s worst %.2e of the largest, rms %.2e, cosine %.8f\n", what, relative, rms,
           cosine);
    if (!(rms <= bound && cosine >= 0.9995))
        fail_msg("%s: relative error %.3g, bound %.3g, cosine %.6f", what, rms, bound, cosine);
}

static void random_shapes_meet_transformers(void **state)
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
        struct golden golden;
        read_golden(index, &golden);
        const char *path = write_model(&golden.config, fill_as_script);
        for (size_t w = 0; w < LT_COUNT(ways); w++) {
            struct run run;
            char what[64];
            begin(&run, path, ways[w].kernels, ways[w].precision);
            float *features = encode(&run, &golden);
            snprintf(what, sizeof what, "%d %s %s", index, ways[w].kernels,
                     ways[w].precision == LT_PRECISION_F32 ? "f32" : "bf16");
            hold(what, features, &golden.text, ways[w].bound);
            free(features);
            end(&run);
        }
        free(golden.text.data);
    }
}

/* -- published forms --------------------------------------------------------------------------- */

static const struct {
    const char *ours, *transformers, *gguf;
} names[] = {
    {"token_embedding.", "shared.", "token_embd."},
    {"norm.", "encoder.final_layer_norm.", "enc.output_norm."},
    {"norm1.", "layer.0.layer_norm.", "attn_norm."},
    {"attn.", "layer.0.SelfAttention.", "attn_"},
    {"pos_embedding.embedding.", "layer.0.SelfAttention.relative_attention_bias.", "attn_rel_b."},
    {"norm2.", "layer.1.layer_norm.", "ffn_norm."},
    {"ffn.gate.0.", "layer.1.DenseReluDense.wi_0.", "ffn_gate."},
    {"ffn.fc1.", "layer.1.DenseReluDense.wi_1.", "ffn_up."},
    {"ffn.fc2.", "layer.1.DenseReluDense.wo.", "ffn_down."},
};

static void foreign_name(const char *ours, bool gguf, char to[256])
{
    int block = 0, used = 0;
    if (sscanf(ours, "blocks.%d.%n", &block, &used) == 1 && used > 0)
        snprintf(to, 256, gguf ? "enc.blk.%d." : "encoder.block.%d.", block);
    else
        to[0] = 0;
    for (size_t i = 0; i < LT_COUNT(names); i++) {
        const size_t length = strlen(names[i].ours);
        if (strncmp(ours + used, names[i].ours, length) != 0)
            continue;
        const size_t at = strlen(to);
        snprintf(to + at, 256 - at, "%s%s", gguf ? names[i].gguf : names[i].transformers,
                 ours + used + length);
        return;
    }
    fail_msg("no other name of %s", ours);
}

/* The golden's weights under other names; a decoder's tensor and a second copy of the embedding
 * stand beside them, as in published files. */
static const char *write_foreign(const struct text_config *config, bool gguf)
{
    static char path[256];
    struct catalogue catalogue;
    struct lt_error error;
    assert_ok(catalogue_of_umt5(config, &catalogue, &error));
    const size_t count = catalogue.count + 2;
    struct lt_named_view *views = calloc(count, sizeof *views);
    struct gguf_writer_tensor *tensors = calloc(count, sizeof *tensors);
    char(*name)[256] = calloc(count, sizeof *name);
    for (size_t i = 0; i < count; i++) {
        const struct catalogue_entry *entry = &catalogue.entry[i < catalogue.count ? i : 0];
        const size_t values = (size_t)catalogue_values(entry);
        float *data = malloc(values * sizeof *data);
        fill_as_script(entry, data, values);
        if (i < catalogue.count)
            foreign_name(entry->name, gguf, name[i]);
        else if (i == catalogue.count)
            snprintf(name[i], sizeof name[i], "%s",
                     gguf ? "dec.blk.0.attn_q.weight" : "decoder.block.0.layer.0.x.weight");
        else
            snprintf(name[i], sizeof name[i], "encoder.embed_tokens.weight");
        views[i] = (struct lt_named_view){name[i],
                                          lt_view_make(data, LT_TYPE_F32, entry->rank, entry->dim)};
        tensors[i] = (struct gguf_writer_tensor){name[i], LT_TYPE_F32, entry->rank, {0}};
        memcpy(tensors[i].dim, entry->dim, sizeof entry->dim);
    }
    snprintf(path, sizeof path, "%s/foreign", dir);
    if (gguf) {
        struct gguf_writer *writer;
        const struct gguf_writer_pair pair = {.key = "general.architecture", .text = "t5encoder"};
        assert_ok(gguf_writer_begin(path, tensors, count, &pair, 1, &writer, &error));
        for (size_t i = 0; i < count; i++)
            assert_ok(gguf_writer_put(writer, i, 0, views[i].view.data,
                                      (size_t)lt_view_count(&views[i].view) * 4, &error));
        assert_ok(gguf_writer_end(&writer, &error));
    } else {
        assert_ok(lt_safetensors_write(path, views, count, NULL, 0, &error));
    }
    for (size_t i = 0; i < count; i++)
        free(views[i].view.data);
    free(views);
    free(tensors);
    free(name);
    catalogue_fini(&catalogue);
    return path;
}

static void names_of_every_form_are_one_model(void **state)
{
    (void)state;
    struct golden golden;
    read_golden(2, &golden);
    const size_t bytes = (size_t)lt_view_count(&golden.text) * sizeof(float);
    float *want = encode_file(write_model(&golden.config, fill_as_script), &golden);
    for (int gguf = 0; gguf < 2; gguf++) {
        float *got = encode_file(write_foreign(&golden.config, gguf), &golden);
        assert_memory_equal(got, want, bytes);
        free(got);
    }
    free(want);
    free(golden.text.data);
}

/* -- 8-bit files ------------------------------------------------------------------------------- */

static bool is_matrix(const struct catalogue_entry *entry)
{
    return strstr(entry->name, "attn.") || strstr(entry->name, "ffn.");
}

static void quantize(const struct catalogue_entry *entry, uint8_t *to, size_t count)
{
    struct lt_error error;
    float *values = malloc(count * sizeof *values);
    fill_as_script(entry, values, count);
    assert_ok(lt_quantize_row(LT_TYPE_F8_E4M3, values, to, (int64_t)count, &error));
    free(values);
}

static const float SCALE = 0.5f; /* a power of two, so that the order of products does not matter */

static void fill_dequantized(const struct catalogue_entry *entry, float *to, size_t count)
{
    if (!is_matrix(entry)) {
        fill_as_script(entry, to, count);
        return;
    }
    uint8_t *bytes = malloc(count);
    quantize(entry, bytes, count);
    lt_dequantize_row(LT_TYPE_F8_E4M3, bytes, to, (int64_t)count);
    for (size_t i = 0; i < count; i++)
        to[i] *= SCALE;
    free(bytes);
}

/* As ComfyUI packs it: bytes, a scale beside each matrix, and a marker without values. */
static const char *write_scaled(const struct text_config *config)
{
    static char path[256];
    struct catalogue catalogue;
    struct lt_error error;
    assert_ok(catalogue_of_umt5(config, &catalogue, &error));
    struct lt_named_view *views = calloc(2 * catalogue.count + 1, sizeof *views);
    char(*name)[256] = calloc(2 * catalogue.count, sizeof *name);
    size_t kept = 0;
    float scale = SCALE;
    for (size_t i = 0; i < catalogue.count; i++) {
        const struct catalogue_entry *entry = &catalogue.entry[i];
        const size_t values = (size_t)catalogue_values(entry);
        float *data = malloc(values * sizeof *data);
        foreign_name(entry->name, false, name[kept]);
        if (is_matrix(entry))
            quantize(entry, (uint8_t *)(void *)data, values);
        else
            fill_as_script(entry, data, values);
        views[kept] = (struct lt_named_view){
            name[kept], lt_view_make(data, is_matrix(entry) ? LT_TYPE_F8_E4M3 : LT_TYPE_F32,
                                     entry->rank, entry->dim)};
        kept++;
        if (!is_matrix(entry))
            continue;
        memcpy(name[kept], name[kept - 1], sizeof *name);
        strcpy(name[kept] + strlen(name[kept]) - strlen("weight"), "scale_weight");
        views[kept] =
            (struct lt_named_view){name[kept], lt_view_make(&scale, LT_TYPE_F32, 0, NULL)};
        kept++;
    }
    views[kept++] = (struct lt_named_view){"scaled_fp8", lt_view_1d(&scale, LT_TYPE_F8_E4M3, 0)};
    snprintf(path, sizeof path, "%s/scaled.safetensors", dir);
    assert_ok(lt_safetensors_write(path, views, kept, NULL, 0, &error));
    for (size_t i = 0; i < kept; i++)
        if (views[i].view.data != &scale)
            free(views[i].view.data);
    free(views);
    free(name);
    catalogue_fini(&catalogue);
    return path;
}

static void scales_of_8_bit_files_count(void **state)
{
    (void)state;
    struct golden golden;
    read_golden(0, &golden);
    float *want = encode_file(write_model(&golden.config, fill_dequantized), &golden);
    float *got = encode_file(write_scaled(&golden.config), &golden);
    assert_memory_equal(got, want, (size_t)lt_view_count(&golden.text) * sizeof *got);
    free(got);
    free(want);
    free(golden.text.data);
}

/* -- refusals ---------------------------------------------------------------------------------- */

static void what_cannot_be_encoded_is_refused(void **state)
{
    (void)state;
    struct golden golden;
    struct lt_error error;
    struct run run;
    read_golden(1, &golden);
    begin(&run, write_model(&golden.config, fill_as_script), "best", LT_PRECISION_F32);
    const struct lt_view view = lt_view_2d(golden.text.data, LT_TYPE_F32, 1, golden.config.dim);
    const int32_t beyond = (int32_t)golden.config.vocabulary_rows, negative = -1, good = 0;
    assert_fails(text_encode(run.text, &beyond, 1, &view, &error), LT_BAD_INPUT, "127 rows");
    assert_fails(text_encode(run.text, &negative, 1, &view, &error), LT_BAD_INPUT, "-1");
    assert_fails(text_encode(run.text, &good, 0, &view, &error), LT_BAD_INPUT, "found 0");
    const float before = *(float *)golden.text.data;
    _Atomic int cancel = 1;
    lt_exec_set_cancel(run.exec, &cancel);
    assert_fails(text_encode(run.text, &good, 1, &view, &error), LT_CANCELLED, "cancelled");
    assert_true(*(float *)golden.text.data == before); /* nothing written */
    lt_exec_set_cancel(run.exec, NULL);
    assert_ok(text_encode(run.text, &good, 1, &view, &error));
    assert_true(*(float *)golden.text.data != before);
    end(&run);
    free(golden.text.data);
}

static bool without_later_tables(const char *name)
{
    return !strstr(name, "pos_embedding") || strstr(name, "blocks.0.");
}

static bool without_a_matrix(const char *name)
{
    return strcmp(name, "blocks.2.ffn.fc1.weight") != 0;
}

static void files_of_other_models_are_refused(void **state)
{
    (void)state;
    struct golden golden;
    struct lt_error error;
    struct text_config config;
    struct catalogue catalogue;
    struct tensor_file *file;
    char path[256];
    read_golden(0, &golden);
    snprintf(path, sizeof path, "%s/wrong.safetensors", dir);
    assert_ok(catalogue_of_umt5(&golden.config, &catalogue, &error));
    assert_ok(fill_file(path, &catalogue, fill_as_script, without_later_tables, &error));
    assert_ok(tensor_file_open(path, &file, &error));
    assert_fails(text_config_detect(file, &config, &error), LT_UNSUPPORTED, "UMT5");
    tensor_file_close(&file);
    assert_ok(fill_file(path, &catalogue, fill_as_script, without_a_matrix, &error));
    assert_ok(tensor_file_open(path, &file, &error));
    assert_ok(text_config_detect(file, &config, &error));
    struct store *store;
    struct text *text = NULL;
    assert_ok(store_load(file, text_wants, NULL, &store, &error));
    assert_fails(text_create(&config, store, NULL, NULL, &text, &error), LT_NOT_FOUND,
                 "blocks.2.ffn.fc1.weight");
    assert_null(text);
    store_destroy(&store);
    tensor_file_close(&file);
    catalogue_fini(&catalogue);
    free(golden.text.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_shapes_meet_transformers),
        cmocka_unit_test(names_of_every_form_are_one_model),
        cmocka_unit_test(scales_of_8_bit_files_count),
        cmocka_unit_test(what_cannot_be_encoded_is_refused),
        cmocka_unit_test(files_of_other_models_are_refused),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
