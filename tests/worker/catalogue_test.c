/* If the catalogue were wrong, synthetic files would not look like real ones, and inspect would
 * call good files damaged. */
#include "tests/test.h"

#include "tests/worker/model_file.h"
#include "worker/model/catalogue.h"

static int64_t parameters(const struct catalogue *catalogue)
{
    int64_t count = 0;
    for (size_t i = 0; i < catalogue->count; i++)
        count += catalogue_values(&catalogue->entry[i]);
    return count;
}

/* Tensor counts of dit.md 1.4, parameters (rounded to a million) of 1.5. */
static void transformers_have_the_published_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t tensors;
        int64_t millions;
    } cases[] = {
        {"t2v-1.3b", 825, 1419},      {"t2v-14b", 1095, 14288},  {"i2v-14b", 1303, 16395},
        {"flf2v-14b", 1304, 16396},   {"i2v-a14b", 1095, 14289}, {"ti2v-5b", 825, 5000},
        {"animate-14b", 1441, 17275}, {"talk-addon", 330, 2487},
    };
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        struct lt_error error;
        struct dit_config config;
        struct catalogue catalogue;
        assert_ok(dit_config_named(cases[i].name, &config, &error));
        assert_ok(catalogue_of_dit(&config, &catalogue, &error));
        const int64_t millions = (parameters(&catalogue) + 500000) / 1000000;
        if (catalogue.count != cases[i].tensors || millions != cases[i].millions)
            fail_msg("%s: %zu tensors, %lld M parameters; expected %zu, %lld", cases[i].name,
                     catalogue.count, (long long)millions, cases[i].tensors,
                     (long long)cases[i].millions);
        catalogue_fini(&catalogue);
    }
}

/* encoders.md 1.1: 194 tensors, 126,892,531 parameters; 2: 196 tensors, 704,688,668 parameters. */
static void vaes_have_the_published_sizes(void **state)
{
    (void)state;
    struct lt_error error;
    struct catalogue catalogue;
    assert_ok(
        catalogue_of_vae(&(struct catalogue_vae){.dim = 96, .channels = 16}, &catalogue, &error));
    assert_int_equal(catalogue.count, 194);
    assert_int_equal(parameters(&catalogue), 126892531);
    catalogue_fini(&catalogue);
    const struct catalogue_vae z48 = {
        .grouped = true, .dim = 160, .decoder_dim = 256, .channels = 48};
    assert_ok(catalogue_of_vae(&z48, &catalogue, &error));
    assert_int_equal(catalogue.count, 196);
    assert_int_equal(parameters(&catalogue), 704688668);
    catalogue_fini(&catalogue);
}

enum fault { MISSING, WRONG_SHAPE, TRANSPOSED, WRONG_TYPE, EXTRA, NO_FAULT, FAULT_COUNT };

/* A tiny T2V file with one thing wrong. */
static struct tensor_file *faulty(const struct catalogue *catalogue, enum fault fault, int *fd_out)
{
    struct shaped *tensors = calloc(catalogue->count + 1, sizeof *tensors);
    struct tensor_file *file;
    struct lt_error error;
    size_t count = 0;
    char path[64];
    assert_non_null(tensors);
    for (size_t i = 0; i < catalogue->count; i++) {
        const struct catalogue_entry *entry = &catalogue->entry[i];
        struct shaped *tensor = &tensors[count++];
        *tensor = (struct shaped){.name = entry->name, .type = LT_TYPE_F16, .rank = entry->rank};
        memcpy(tensor->dim, entry->dim, sizeof tensor->dim);
        if (strcmp(entry->name, "blocks.0.norm3.bias") == 0) {
            tensor->dim[0] -= fault == WRONG_SHAPE;
            tensor->type = fault == WRONG_TYPE ? LT_TYPE_I32 : LT_TYPE_F16;
            count -= fault == MISSING;
        }
        if (strcmp(entry->name, "blocks.0.ffn.2.weight") == 0 && fault == TRANSPOSED) {
            tensor->dim[0] = entry->dim[1];
            tensor->dim[1] = entry->dim[0];
        }
    }
    if (fault == EXTRA)
        tensors[count++] = (struct shaped){"blocks.0.\033[2Jodd", LT_TYPE_F32, 1, {1}};
    struct bytes bytes = gguf_of(tensors, count, "");
    *fd_out = lend_path(bytes.data, bytes.count, path);
    free(bytes.data);
    free(tensors);
    assert_ok(tensor_file_open(path, &file, &error));
    return file;
}

/* Found before a byte of a tensor is read: a model that would run half-initialised never loads. */
static void test_g1_2_missing_extra_and_wrong_tensors_are_named(void **state)
{
    (void)state;
    static const char *const wanted[NO_FAULT] = {
        "tensor 'blocks.0.norm3.bias' [128] is missing",
        "tensor 'blocks.0.norm3.bias': expected [128], found [127]",
        "tensor 'blocks.0.ffn.2.weight': expected [128, 8], found [8, 128]",
        "tensor 'blocks.0.norm3.bias': expected a float or quantised type, found I32",
        "tensor 'blocks.0.?[2Jodd' is not part of this variant",
    };
    struct lt_error error;
    struct dit_config config;
    struct catalogue catalogue;
    assert_ok(dit_config_named("t2v-1.3b", &config, &error));
    config.dim = 128;
    config.ffn_dim = 8;
    config.text_dim = 4;
    config.layer_count = 1;
    assert_ok(catalogue_of_dit(&config, &catalogue, &error));
    for (int fault = 0; fault < FAULT_COUNT; fault++) {
        int fd;
        struct tensor_file *file = faulty(&catalogue, (enum fault)fault, &fd);
        if (fault == NO_FAULT) {
            assert_ok(catalogue_check_dit(&config, file, &error));
        } else {
            assert_fails(catalogue_check_dit(&config, file, &error), LT_BAD_INPUT, wanted[fault]);
            assert_int_equal(strncmp(error.text, "/proc/self/fd/", 14), 0); /* and the file */
        }
        assert_int_equal(tensor_file_bytes_read(file), 0);
        tensor_file_close(&file);
        close(fd);
    }
    catalogue_fini(&catalogue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transformers_have_the_published_sizes),
        cmocka_unit_test(test_g1_2_missing_extra_and_wrong_tensors_are_named),
        cmocka_unit_test(vaes_have_the_published_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
