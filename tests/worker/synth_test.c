/* Demos, benches and most tests run on synthetic files. If these were not like real ones, what
 * passes on them would fail on the first downloaded model; if the golden fill were wrong, no golden
 * value could be reproduced. */
#include "tests/test.h"

#include "common/file.h"
#include "kernels/quant.h"
#include "worker/synth.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static int make_folder(void **state)
{
    static char folder[64];
    snprintf(folder, sizeof folder, "synth_test.%ld", (long)getpid());
    *state = folder;
    return mkdir(folder, 0700);
}

static int remove_folder(void **state)
{
    return lt_dir_remove(*state, NULL) == LT_OK ? 0 : -1;
}

/* dit.md 8.1 */
static void golden_values_are_the_published_ones(void **state)
{
    (void)state;
    const struct synth_params params = {.fill = SYNTH_FILL_GOLDEN};
    const struct catalogue_entry q = {
        .name = "blocks.0.self_attn.q.weight", .rank = 2, .dim = {256, 256}};
    float values[5000], part[7];
    synth_fill_values(&params, &q, 0, values, 5000);
    static const struct {
        int index;
        double value;
    } wanted[] = {
        {0, -0.044529193128}, {1, 0.092022996303}, {2, 0.025134336437}, {4999, -0.002000003867}};
    for (size_t i = 0; i < LT_COUNT(wanted); i++)
        assert_true(fabs(values[wanted[i].index] - wanted[i].value) <
                    1e-8);                                /* f32 of 0.09: half an ulp is 4e-9 */
    for (uint64_t first = 0; first < 4900; first += 61) { /* pieces are cut anywhere */
        synth_fill_values(&params, &q, first, part, 7);
        assert_memory_equal(part, values + first, sizeof part);
    }
    static const char *const ones[] = {"blocks.3.norm3.weight", "blocks.0.self_attn.norm_q.weight",
                                       "img_emb.proj.0.weight", "img_emb.proj.4.weight"};
    static const char *const zeros[] = {"blocks.3.norm3.bias", "img_emb.proj.1.weight",
                                        "blocks.0.modulation"};
    for (size_t i = 0; i < LT_COUNT(ones); i++) {
        synth_fill_values(
            &params, &(struct catalogue_entry){.name = ones[i], .rank = 1, .dim = {7}}, 0, part, 7);
        for (int j = 0; j < 7; j++)
            assert_true(fabsf(part[j] - 1) <= 0.1f);
    }
    for (size_t i = 0; i < LT_COUNT(zeros); i++) {
        synth_fill_values(&params,
                          &(struct catalogue_entry){.name = zeros[i], .rank = 1, .dim = {7}}, 0,
                          part, 7);
        for (int j = 0; j < 7; j++)
            assert_true(fabsf(part[j]) <= 0.1f);
    }
}

static uint64_t stored_bytes(const struct gguf_writer_tensor *tensor)
{
    uint64_t values = 1, bytes = 0;
    for (int d = 0; d < tensor->rank; d++)
        values *= (uint64_t)tensor->dim[d];
    assert_true(lt_type_bytes(tensor->type, values, &bytes));
    return bytes;
}

/* dit.md 6.5: bytes of a block's quantised tensors, of published recipes. Block 20 is behind all
 * early raises. */
static void blocks_have_the_published_bytes(void **state)
{
    (void)state;
    static const struct {
        const char *quant;
        uint64_t t2v, i2v;
    } cases[] = {
        {"bf16", 702545920, 807403520},   {"q8_0", 373227520, 428933120},
        {"q6_k", 288153600, 331161600},   {"q5_k_m", 257863680, 293908480},
        {"q5_k_s", 241500160, 277544960}, {"q4_k_m", 229355520, 258846720},
        {"q4_k_s", 206438400, 235929600}, {"q3_k_m", 167301120, 189829120},
        {"q4_0", 202014720, 231505920},
    };
    for (size_t i = 0; i < 2 * LT_COUNT(cases); i++) {
        struct lt_error error;
        struct synth_layout layout;
        const struct synth_params params = {.variant = i % 2 ? "i2v-14b" : "t2v-14b",
                                            .quant = cases[i / 2].quant};
        uint64_t bytes = 0;
        assert_ok(synth_layout_build(&params, &layout, &error));
        for (size_t t = 0; t < layout.catalogue.count; t++)
            if (strncmp(layout.tensor[t].name, "blocks.20.", 10) == 0 &&
                layout.tensor[t].type != LT_TYPE_F32)
                bytes += stored_bytes(&layout.tensor[t]);
        if (bytes != (i % 2 ? cases[i / 2].i2v : cases[i / 2].t2v))
            fail_msg("%s %s: %llu bytes", params.variant, params.quant, (unsigned long long)bytes);
        synth_layout_fini(&layout);
    }
}

static enum lt_type type_of(const struct synth_layout *layout, const char *name)
{
    for (size_t i = 0; i < layout->catalogue.count; i++)
        if (strcmp(layout->tensor[i].name, name) == 0)
            return layout->tensor[i].type;
    fail_msg("no tensor '%s'", name);
    return LT_TYPE_F32;
}

/* dit.md 1.3 */
static void types_follow_the_recipe(void **state)
{
    (void)state;
    static const struct {
        const char *variant, *quant, *tensor;
        enum lt_type type;
    } cases[] = {
        {"t2v-14b", "q4_k_s", "blocks.1.cross_attn.v.weight", LT_TYPE_Q5_K}, /* the fourth v */
        {"t2v-14b", "q4_k_s", "blocks.2.self_attn.v.weight", LT_TYPE_Q4_K},
        {"t2v-14b", "q3_k_m", "blocks.0.cross_attn.v.weight", LT_TYPE_Q5_K}, /* the second */
        {"t2v-14b", "q3_k_m", "blocks.1.self_attn.v.weight", LT_TYPE_Q4_K},
        {"t2v-14b", "q3_k_l", "blocks.9.ffn.2.weight", LT_TYPE_Q5_K},
        {"t2v-14b", "q2_k", "blocks.9.self_attn.v.weight", LT_TYPE_Q3_K},
        {"t2v-14b", "q5_0", "blocks.9.ffn.2.weight", LT_TYPE_Q5_1},
        {"i2v-14b", "q5_k_m", "blocks.9.cross_attn.v_img.weight", LT_TYPE_Q5_K}, /* not raised */
        {"i2v-14b", "q5_k_m", "blocks.9.cross_attn.v.weight", LT_TYPE_Q6_K},
        {"i2v-14b", "q5_k_m", "img_emb.proj.1.weight", LT_TYPE_F16},
        {"t2v-14b", "q5_k_m", "patch_embedding.weight", LT_TYPE_F32},
        {"t2v-14b", "q5_k_m", "text_embedding.0.weight", LT_TYPE_F16},
        {"t2v-14b", "q5_k_m", "time_projection.1.weight", LT_TYPE_F16},
        {"t2v-14b", "q5_k_m", "head.head.weight", LT_TYPE_F16},
        {"t2v-14b", "bf16", "head.head.weight", LT_TYPE_BF16},
        {"t2v-14b", "q5_k_m", "blocks.0.modulation", LT_TYPE_F32},
        {"t2v-14b", "q5_k_m", "blocks.0.self_attn.norm_q.weight", LT_TYPE_F32},
        {"t2v-14b", "q5_k_m", "blocks.0.ffn.0.bias", LT_TYPE_F32},
        {"animate-14b", "q5_k_m", "motion_encoder.dec.direction.weight",
         LT_TYPE_F16}, /* 20 columns */
        {"animate-14b", "q5_k_m", "motion_encoder.enc.fc.0.weight", LT_TYPE_Q5_K},
        {"animate-14b", "q5_k_m", "face_adapter.fuser_blocks.7.linear1_kv.weight", LT_TYPE_Q5_K},
        {"animate-14b", "q5_k_m", "face_encoder.conv1_local.conv.weight", LT_TYPE_F16},
        {"animate-14b", "q5_k_m", "motion_encoder.enc.net_app.convs.1.conv2.0.kernel", LT_TYPE_F32},
        {"animate-14b", "q5_k_m", "pose_patch_embedding.weight", LT_TYPE_F32},
        {"talk-addon", "q5_k_m", "blocks.3.audio_cross_attn.kv_linear.weight", LT_TYPE_Q5_K},
    };
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        struct lt_error error;
        struct synth_layout layout;
        assert_ok(synth_layout_build(
            &(struct synth_params){.variant = cases[i].variant, .quant = cases[i].quant}, &layout,
            &error));
        if (type_of(&layout, cases[i].tensor) != cases[i].type)
            fail_msg("%s %s %s: type %d", cases[i].variant, cases[i].quant, cases[i].tensor,
                     (int)type_of(&layout, cases[i].tensor));
        synth_layout_fini(&layout);
    }
}

/* What is written is what the engine reads: every name once, 5-D patch embedding, three metadata
 * keys, values close. */
static void files_read_back(void **state)
{
    static const struct {
        const char *quant, *file_type;
        double bound; /* relative RMS of the worst type in the file (quant_test) */
    } cases[] = {{"f32", "0", 0},        {"bf16", "32", 0.002}, {"q8_0", "7", 0.0065},
                 {"q5_k_m", "17", 0.04}, {"q2_k", "10", 0.35},  {"q4_0", "2", 0.09}};
    for (size_t c = 0; c < LT_COUNT(cases); c++) {
        struct lt_error error;
        struct synth_layout layout;
        struct synth_report report;
        struct tensor_file *file = NULL;
        char path[128];
        snprintf(path, sizeof path, "%s/%s.gguf", (const char *)*state, cases[c].quant);
        const struct synth_params params = {.variant = "t2v-1.3b",
                                            .quant = cases[c].quant,
                                            .seed = 7,
                                            .layers = 1,
                                            .dim = 256,
                                            .ffn = 512,
                                            .text_dim = 48,
                                            .path = path};
        assert_ok(synth_write(&params, NULL, NULL, &report, &error));
        assert_ok(synth_layout_build(&params, &layout, &error));
        assert_ok(tensor_file_open(path, &file, &error));
        assert_int_equal(tensor_file_bytes(file), report.file_bytes);
        assert_int_equal(tensor_file_count(file), layout.catalogue.count);
        assert_string_equal(tensor_file_metadata(file, "general.architecture"), "wan");
        assert_string_equal(tensor_file_metadata(file, "general.quantization_version"), "2");
        assert_string_equal(tensor_file_metadata(file, "general.file_type"), cases[c].file_type);
        const struct tensor_info *patch = tensor_file_find(file, "patch_embedding.weight");
        assert_true(patch && patch->rank == 5 && patch->type == LT_TYPE_F32);
        for (size_t i = 0; i < layout.catalogue.count; i++) {
            const struct catalogue_entry *entry = &layout.catalogue.entry[i];
            const struct tensor_info *info = tensor_file_find(file, entry->name);
            const size_t count = (size_t)catalogue_values(entry);
            assert_true(info && info->type == layout.tensor[i].type);
            float *wanted = malloc(count * sizeof *wanted), *got = malloc(count * sizeof *got);
            void *stored = malloc(info->bytes);
            double difference = 0, square = 0;
            assert_ok(tensor_file_read(file, info, stored, &error));
            lt_dequantize_row(info->type, stored, got, (int64_t)count);
            synth_fill_values(&params, entry, 0, wanted, count);
            for (size_t v = 0; v < count; v++) {
                difference += ((double)got[v] - wanted[v]) * ((double)got[v] - wanted[v]);
                square += (double)wanted[v] * wanted[v];
            }
            if (sqrt(difference / square) > cases[c].bound)
                fail_msg("%s '%s': relative RMS %g", cases[c].quant, entry->name,
                         sqrt(difference / square));
            free(wanted);
            free(got);
            free(stored);
        }
        tensor_file_close(&file);
        synth_layout_fini(&layout);
    }
}

static struct lt_digest digest_of(const char *path)
{
    struct lt_error error;
    void *data = NULL;
    size_t bytes = 0;
    assert_ok(lt_file_read(path, 64 << 20, &data, &bytes, &error));
    const struct lt_digest digest = lt_sha256(data, bytes);
    free(data);
    return digest;
}

static void bytes_depend_on_the_seed_only(void **state)
{
    static const struct {
        int threads;
        uint64_t seed;
    } runs[] = {{1, 5}, {3, 5}, {3, 6}};
    struct lt_digest digest[LT_COUNT(runs)];
    for (size_t i = 0; i < LT_COUNT(runs); i++) {
        struct lt_error error;
        struct synth_report report;
        char path[128];
        snprintf(path, sizeof path, "%s/run%zu.gguf", (const char *)*state, i);
        const struct synth_params params = {.variant = "ti2v-5b",
                                            .quant = "q4_k_m",
                                            .seed = runs[i].seed,
                                            .layers = 1,
                                            .dim = 256,
                                            .ffn = 1280,
                                            .threads = runs[i].threads,
                                            .path = path};
        assert_ok(synth_write(&params, NULL, NULL, &report, &error));
        digest[i] = digest_of(path);
    }
    assert_true(lt_digest_equal(&digest[0], &digest[1]));
    assert_false(lt_digest_equal(&digest[1], &digest[2]));
}

static void a_vae_is_written_with_little_memory(void **state)
{
    struct lt_error error;
    struct synth_report report;
    struct tensor_file *file = NULL;
    struct rusage before, after;
    char path[128];
    snprintf(path, sizeof path, "%s/vae.safetensors", (const char *)*state);
    const struct synth_params params = {
        .variant = "vae-z16", .quant = "f32", .dim = 32, .z = 4, .threads = 2, .path = path};
    getrusage(RUSAGE_SELF, &before);
    assert_ok(synth_write(&params, NULL, NULL, &report, &error));
    getrusage(RUSAGE_SELF, &after);
    assert_true(report.file_bytes > 48 << 20);
    assert_true(after.ru_maxrss - before.ru_maxrss <
                16 * 1024); /* KiB: 2 MiB a thread, and libraries */
    assert_ok(tensor_file_open(path, &file, &error));
    assert_int_equal(tensor_file_count(file), 194);
    const struct tensor_info *info = tensor_file_find(file, "decoder.conv1.weight");
    const int64_t dims[] = {128, 4, 3, 3, 3};
    assert_non_null(info);
    assert_memory_equal(info->dim, dims, sizeof dims);
    tensor_file_close(&file);
}

static void a_failure_leaves_no_file(void **state)
{
    struct lt_error error;
    struct synth_report report = {.parameters = 77};
    struct stat info;
    char path[128];
    snprintf(path, sizeof path, "%s/none.gguf", (const char *)*state);
    struct synth_params params = {.variant = "t2v-1.3b", .quant = "q9_k", .path = path};
    assert_fails(synth_write(&params, NULL, NULL, &report, &error), LT_NOT_FOUND, "q5_k_m");
    params.quant = "q8_0";
    params.dim = 100;
    assert_fails(synth_write(&params, NULL, NULL, &report, &error), LT_BAD_INPUT, "--dim is 100");
    params.dim = 0;
    params.variant = "vae-z16";
    assert_fails(synth_write(&params, NULL, NULL, &report, &error), LT_UNSUPPORTED, "VAE");
    params.variant = "t2v-1.3b";
    params.path = "none.safetensors";
    assert_fails(synth_write(&params, NULL, NULL, &report, &error), LT_UNSUPPORTED, "safetensors");
    params.path = "no-such-folder/none.gguf";
    params.layers = 1;
    assert_fails(synth_write(&params, NULL, NULL, &report, &error), LT_IO, "no-such-folder");
    assert_int_equal(report.parameters, 77); /* untouched */
    assert_int_equal(stat(path, &info), -1);

    /* a file that may not grow: the writer fails half-way and takes its temporary file with it */
    struct rlimit limit, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = limit;
    small.rlim_cur = 1 << 20;
    params.path = path;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    const lt_status status = synth_write(&params, NULL, NULL, &report, &error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_int_equal(status, LT_IO);
    assert_int_equal(stat(path, &info), -1);
    snprintf(path + strlen(path), sizeof path - strlen(path), ".tmp.%ld", (long)getpid());
    assert_int_equal(stat(path, &info), -1);
}

/* A large file in a short time: after its first million values a tensor begins anew. */
static void tiled_tensors_repeat(void **state)
{
    enum { PERIOD = 4 * 256 * 1024, EXTRA = 512 };
    char path[300];
    struct lt_error error;
    struct synth_report report;
    struct tensor_file *file;
    snprintf(path, sizeof path, "%s/tiled.gguf", (const char *)*state);
    const struct synth_params params = {.variant = "t2v-1.3b",
                                        .quant = "q8_0",
                                        .fill = SYNTH_FILL_TILED,
                                        .layers = 1,
                                        .dim = 256,
                                        .ffn = 4608,
                                        .text_dim = 32,
                                        .freq_dim = 32,
                                        .path = path};
    assert_ok(synth_write(&params, NULL, NULL, &report, &error));
    assert_ok(tensor_file_open(path, &file, &error));
    const struct tensor_info *info = tensor_file_find(file, "blocks.0.ffn.0.weight");
    const size_t period = PERIOD / 32 * 34, left = (size_t)info->bytes - period;
    char *data = malloc((size_t)info->bytes);
    assert_ok(tensor_file_read(file, info, data, &error));
    assert_true(left > 0 && memcmp(data, data + period, left) == 0);
    assert_true(memcmp(data, data + period / 4, 4096) != 0);
    free(data);
    tensor_file_close(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_values_are_the_published_ones),
        cmocka_unit_test(blocks_have_the_published_bytes),
        cmocka_unit_test(types_follow_the_recipe),
        cmocka_unit_test(tiled_tensors_repeat),
        cmocka_unit_test(files_read_back),
        cmocka_unit_test(bytes_depend_on_the_seed_only),
        cmocka_unit_test(a_vae_is_written_with_little_memory),
        cmocka_unit_test(a_failure_leaves_no_file),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
