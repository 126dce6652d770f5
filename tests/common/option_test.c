/* If options were misread, a farm would run with settings nobody chose. */
#include "tests/test.h"

#include "common/option.h"

#include <stdlib.h>

struct settings {
    int64_t workers;
    double shift;
    uint64_t block_cache;
    const char *device;
    struct lt_text_list models;
    bool json;
};

static const struct lt_option options[] = {
    LT_OPTION(struct settings, workers, INT, "N", "2", .min = 1, .max = 256,
              .help = "worker processes"),
    LT_OPTION(struct settings, shift, REAL, "S", "5", .help = "shift"),
    LT_OPTION(struct settings, block_cache, SIZE, "SIZE", "1GiB", .help = "cache"),
    LT_OPTION(struct settings, device, TEXT, "NAME", "host", .choices = "host|cuda:0",
              .help = "where"),
    LT_OPTION(struct settings, models, LIST, "DIR", NULL, .help = "folders"),
    LT_OPTION(struct settings, json, FLAG, NULL, NULL, .help = "for scripts"),
};
static const struct lt_command command = {"longtake test", "JOB [options]",   "Tests.", NULL,
                                          options,         LT_COUNT(options), 1,        2};

static struct settings got;
static struct lt_operands operands;
static struct lt_error error;

static lt_status parse(int argc, char **argv)
{
    bool help;
    return lt_options_parse(&command, argc, argv, &got, sizeof got, &operands, &help, &error);
}
#define PARSE(...)                                                                                 \
    parse((int)LT_COUNT(((char *[]){"test", __VA_ARGS__})), (char *[]){"test", __VA_ARGS__})

static void all_kinds_are_read(void **state)
{
    (void)state;
    assert_ok(PARSE("job.json", "--workers=3", "--block-cache", "1.5GiB", "--models", "a", "--json",
                    "--models", "b", "--", "--odd-name"));
    assert_int_equal(got.workers, 3);
    assert_true(got.shift == 5.0);
    assert_int_equal(got.block_cache, 1610612736);
    assert_string_equal(got.device, "host");
    assert_int_equal(got.models.count, 2);
    assert_string_equal(got.models.item[1], "b");
    assert_true(got.json);
    assert_int_equal(operands.count, 2);
    assert_string_equal(operands.item[1], "--odd-name");
    lt_options_free(&command, &got, &operands);
}

static void environment_stands_behind_the_command_line(void **state)
{
    (void)state;
    setenv("LONGTAKE_WORKERS", "7", 1);
    setenv("LONGTAKE_JSON", "yes", 1);
    assert_ok(PARSE("job.json", "--no-json"));
    assert_int_equal(got.workers, 7);
    assert_false(got.json);
    lt_options_free(&command, &got, &operands);
    setenv("LONGTAKE_WORKERS", "x", 1);
    assert_fails(PARSE("job.json"), LT_USAGE, "environment LONGTAKE_WORKERS");
    unsetenv("LONGTAKE_WORKERS");
    unsetenv("LONGTAKE_JSON");
}

static void mistakes_are_explained(void **state)
{
    (void)state;
    assert_fails(PARSE("job.json", "--worker", "3"), LT_USAGE, "did you mean --workers?");
    assert_fails(PARSE("job.json", "--workers", "0"), LT_USAGE, "from 1 to 256");
    assert_fails(PARSE("job.json", "--workers", "3x"), LT_USAGE, "whole number");
    assert_fails(PARSE("job.json", "--workers"), LT_USAGE, "needs a value");
    assert_fails(PARSE("job.json", "--device", "cuda"), LT_USAGE, "host|cuda:0");
    assert_fails(PARSE("job.json", "--block-cache", "-1"), LT_USAGE, "size");
    assert_fails(PARSE("--json"), LT_USAGE, "usage:");
    assert_fails(PARSE("a", "b", "c"), LT_USAGE, "too many");
}

static void sizes(void **state)
{
    (void)state;
    uint64_t bytes;
    char text[32];
    assert_true(lt_size_parse("0", &bytes) && bytes == 0);
    assert_true(lt_size_parse("16 gib", &bytes) && bytes == 17179869184);
    assert_true(lt_size_parse("1MB", &bytes) && bytes == 1000000);
    assert_false(lt_size_parse("1e30", &bytes));
    assert_false(lt_size_parse("nan", &bytes));
    assert_false(lt_size_parse("5 apples", &bytes));
    assert_string_equal(lt_size_format(1610612736, text), "1.50 GiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_kinds_are_read),
        cmocka_unit_test(environment_stands_behind_the_command_line),
        cmocka_unit_test(mistakes_are_explained),
        cmocka_unit_test(sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
