/* If the catalogue were wrong, synthetic files would not look like real ones, and inspect would
 * call good files damaged. */
#include "tests/test.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transformers_have_the_published_sizes),
        cmocka_unit_test(vaes_have_the_published_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
