/* inspect is the first thing a user runs on a downloaded file. If it called a good file broken, or
 * a broken one good, an evening of rendering would be lost to it. */
#include "tests/test.h"

#include "common/file.h"
#include "common/json_scan.h"
#include "tests/worker/model_file.h"
#include "worker/inspect.h"
#include "worker/synth.h"

#include <sys/stat.h>

static int make_folder(void **state)
{
    static char folder[64];
    snprintf(folder, sizeof folder, "inspect_test.%ld", (long)getpid());
    *state = folder;
    return mkdir(folder, 0700);
}

static int remove_folder(void **state)
{
    return lt_dir_remove(*state, NULL) == LT_OK ? 0 : -1;
}

static struct tensor_file *synthesise(void **state, const char *variant, const char *quant,
                                      int64_t dim, int64_t layers)
{
    struct lt_error error;
    struct synth_report report;
    struct tensor_file *file = NULL;
    char path[128];
    const bool encoder = strcmp(variant, "clip-vision") == 0 || strcmp(variant, "wav2vec2") == 0;
    snprintf(path, sizeof path, "%s/%s-%s%s", (const char *)*state, variant, quant,
             encoder ? ".safetensors" : "");
    const struct synth_params params = {.variant = variant,
                                        .quant = quant,
                                        .dim = dim,
                                        .layers = layers,
                                        .ffn = 256,
                                        .text_dim = 64,
                                        .z = 4,
                                        .tokens = 512,
                                        .path = path};
    assert_ok(synth_write(&params, NULL, NULL, &report, &error));
    assert_ok(tensor_file_open(path, &file, &error));
    return file;
}

static void good_files_have_no_problems(void **state)
{
    static const struct {
        const char *variant, *quant;
        int64_t dim, layers;
        enum inspect_kind kind;
        size_t blocks;
    } cases[] = {
        {"t2v-1.3b", "q4_k_m", 128, 2, INSPECT_TRANSFORMER, 2},
        {"i2v-14b", "f16", 128, 1, INSPECT_TRANSFORMER, 1},
        {"flf2v-14b", "q8_0", 128, 1, INSPECT_TRANSFORMER, 1},
        {"ti2v-5b", "q3_k_m", 128, 3, INSPECT_TRANSFORMER, 3},
        {"vae-z16", "bf16", 4, 0, INSPECT_VAE_Z16, 0},
        {"vae-z48", "bf16", 5, 0, INSPECT_VAE_Z48, 0},
        {"taew2_1", "f16", 3, 0, INSPECT_TAE, 0},
        {"taew2_2", "f16", 2, 0, INSPECT_TAE, 0},
        {"umt5", "q8_0", 64, 3, INSPECT_TEXT, 3},
        {"clip-vision", "f16", 48, 3, INSPECT_VISION, 3},
        {"wav2vec2", "f16", 48, 2, INSPECT_AUDIO, 2},
    };
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        struct lt_error error;
        struct inspect_report report;
        struct tensor_file *file =
            synthesise(state, cases[i].variant, cases[i].quant, cases[i].dim, cases[i].layers);
        assert_ok(inspect_file(file, &report, &error));
        if (report.problem_count > 0)
            fail_msg("%s: %s", cases[i].variant, report.problem[0]);
        assert_int_equal(report.kind, cases[i].kind);
        assert_int_equal(report.block_count, cases[i].blocks);
        assert_true(report.block_bytes_min <= report.block_bytes_max);
        uint64_t bytes = 0;
        size_t tensors = 0;
        for (size_t t = 0; t < report.type_count; t++) {
            bytes += report.type[t].bytes;
            tensors += report.type[t].tensors;
        }
        assert_int_equal(bytes, report.tensor_bytes);
        assert_int_equal(tensors, tensor_file_count(file));
        inspect_fini(&report);
        tensor_file_close(&file);
    }
}

/* A tiny T2V file by hand, of which tensors are left out, added and changed. */
static void each_problem_is_named(void **state)
{
    (void)state;
    struct lt_error error;
    struct dit_config config;
    struct catalogue catalogue;
    struct tensor_file *file = NULL;
    struct inspect_report report;
    char path[64];
    assert_ok(dit_config_named("t2v-1.3b", &config, &error));
    config.dim = 128;
    config.ffn_dim = 8;
    config.text_dim = 4;
    config.layer_count = 1;
    assert_ok(catalogue_of_dit(&config, &catalogue, &error));
    struct shaped *tensors = calloc(catalogue.count + 1, sizeof *tensors);
    size_t count = 0;
    for (size_t i = 0; i < catalogue.count; i++) {
        const struct catalogue_entry *entry = &catalogue.entry[i];
        struct shaped *tensor = &tensors[count];
        if (strcmp(entry->name, "blocks.0.norm3.bias") == 0)
            continue;
        *tensor = (struct shaped){.name = entry->name, .type = LT_TYPE_F16, .rank = entry->rank};
        memcpy(tensor->dim, entry->dim, sizeof tensor->dim);
        if (strcmp(entry->name, "blocks.0.ffn.2.weight") == 0) { /* transposed: as many values */
            tensor->dim[0] = 8;
            tensor->dim[1] = 128;
        }
        if (strcmp(entry->name, "head.head.bias") == 0)
            tensor->dim[0] = 63;
        if (strcmp(entry->name, "blocks.0.modulation") == 0) { /* leading one trimmed: no problem */
            tensor->rank = 2;
            tensor->dim[0] = 6;
            tensor->dim[1] = 128;
        }
        count++;
    }
    tensors[count++] =
        (struct shaped){.name = "blocks.0.\x1b[2Jodd", .type = LT_TYPE_F32, .rank = 1, .dim = {1}};
    struct bytes bytes = gguf_of(tensors, count, "");
    const int fd = lend_path(bytes.data, bytes.count, path);
    free(bytes.data);
    assert_ok(tensor_file_open(path, &file, &error));
    assert_ok(inspect_file(file, &report, &error));
    static const char *const wanted[] = {
        "tensor 'blocks.0.norm3.bias' [128] is missing",
        "tensor 'blocks.0.ffn.2.weight': expected [128, 8], found [8, 128]",
        "tensor 'head.head.bias': expected [64], found [63]",
        "tensor 'blocks.0.?[2Jodd' is not part of this variant",
    };
    assert_int_equal(report.problem_count, LT_COUNT(wanted));
    for (size_t i = 0; i < LT_COUNT(wanted); i++)
        assert_string_equal(report.problem[i], wanted[i]);

    char *text = NULL;
    size_t length = 0;
    FILE *to = open_memstream(&text, &length);
    inspect_print(file, &report, to);
    fclose(to);
    assert_null(strchr(text, '\x1b')); /* a terminal sees no control bytes of the file */
    assert_non_null(strstr(text, "variant      t2v"));
    free(text);
    inspect_fini(&report);
    tensor_file_close(&file);
    free(tensors);
    catalogue_fini(&catalogue);
    close(fd);
}

static void unknown_files_say_why(void **state)
{
    (void)state;
    static const struct {
        struct shaped tensor;
        enum inspect_kind kind;
        const char *problem;
    } cases[] = {
        {{"anything", LT_TYPE_F32, 1, {1}},
         INSPECT_UNKNOWN,
         "tensor 'patch_embedding.bias' is missing"},
        {{"vace_blocks.0.after_proj.weight", LT_TYPE_F32, 1, {1}}, INSPECT_UNKNOWN, "VACE"},
        {{"decoder.middle.0.residual.0.gamma", LT_TYPE_F32, 1, {1}}, INSPECT_VAE_Z16, "conv2.bias"},
    };
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        struct lt_error error;
        struct tensor_file *file = NULL;
        struct inspect_report report;
        char path[64];
        struct bytes bytes = gguf_of(&cases[i].tensor, 1, "");
        const int fd = lend_path(bytes.data, bytes.count, path);
        free(bytes.data);
        assert_ok(tensor_file_open(path, &file, &error));
        assert_ok(inspect_file(file, &report, &error));
        assert_int_equal(report.kind, cases[i].kind);
        assert_int_equal(report.problem_count, 1);
        assert_non_null(strstr(report.problem[0], cases[i].problem));
        inspect_fini(&report);
        tensor_file_close(&file);
        close(fd);
    }
}

static void json_stays_json_whatever_the_names(void **state)
{
    (void)state;
    static const struct shaped tensors[] = {{"quote\"back\\slash\n\xff", LT_TYPE_F32, 1, {3}}};
    struct lt_error error;
    struct tensor_file *file = NULL;
    struct inspect_report report;
    char path[64], *text = NULL;
    size_t length = 0;
    struct bytes bytes = gguf_of(tensors, 1, "");
    const int fd = lend_path(bytes.data, bytes.count, path);
    free(bytes.data);
    assert_ok(tensor_file_open(path, &file, &error));
    assert_ok(inspect_file(file, &report, &error));
    FILE *to = open_memstream(&text, &length);
    inspect_print_json(file, &report, to);
    fclose(to);
    assert_non_null(strstr(
        text, "\"largest\": {\"name\": \"quote\\\"back\\\\slash\\u000a\\u00ff\", \"bytes\": 12}"));
    for (size_t i = 0; i + 1 < length; i++)
        assert_in_range(text[i], 0x20, 0x7e);
    struct lt_json_scan scan; /* one whole object and nothing behind it */
    lt_json_begin(&scan, text, length);
    assert_true(lt_json_skip(&scan));
    assert_int_equal(lt_json_peek(&scan), 0);
    free(text);
    inspect_fini(&report);
    tensor_file_close(&file);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_files_have_no_problems),
        cmocka_unit_test(each_problem_is_named),
        cmocka_unit_test(unknown_files_say_why),
        cmocka_unit_test(json_stays_json_whatever_the_names),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
