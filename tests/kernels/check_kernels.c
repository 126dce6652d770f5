/* Holds every fast op to the reference over random shapes. If it failed, a worker would send
 * predictions that no other machine agrees with: texture instead of a picture, or seams where
 * workers change.
 *
 *   check-kernels [--list] [--filter OP] [--seed N] [--repeat N] [--precision f32|bf16|both]
 * [--bench] */
#include "tests/kernels/check.h"

#include "common/option.h"
#include "tests/kernels/place.h"

#include <stdio.h>
#include <string.h>

struct settings {
    bool list, bench;
    const char *filter, *precision;
    int64_t seed, repeat;
};

static const struct lt_option options[] = {
    LT_OPTION(struct settings, list, FLAG, NULL, NULL,
              .help = "list the ops and the variant this machine takes"),
    LT_OPTION(struct settings, filter, TEXT, "OP", NULL, .help = "check this op only"),
    LT_OPTION(struct settings, seed, INT, "N", "1",
              .help = "first seed; a failure prints the one to repeat"),
    LT_OPTION(struct settings, repeat, INT, "N", "20", .min = 1, .max = 1e9,
              .help = "random cases an op"),
    LT_OPTION(struct settings, bench, FLAG, NULL, NULL,
              .help = "also print the time of both variants (small shapes; kernels-bench has the "
                      "large ones)"),
    LT_OPTION(struct settings, precision, TEXT, "P", "both", .choices = "f32|bf16|both",
              .help = "of GEMM inputs"),
};
static const struct lt_command command = {
    "check-kernels",
    "[options]",
    "Compares every op of the best variant with the reference.",
    NULL,
    options,
    LT_COUNT(options),
    0,
    0};

static const struct {
    const char *name;
    void (*run)(struct check *check);
} ops[] = {
#define ROW(op) {#op, check_##op},
    LT_KERNEL_LIST(ROW)
#undef ROW
};

static int run_all(const struct settings *settings, const struct lt_kernels *ref,
                   const struct lt_kernels *best, enum lt_precision precision)
{
    struct lt_error error;
    struct check check = {.ref = ref, .best = best, .bf16 = precision == LT_PRECISION_BF16};
    if (place_exec_create(2, precision, &check.exec, &error) != LT_OK ||
        place_exec_create(3, precision, &check.other, &error) != LT_OK) {
        fprintf(stderr, "check-kernels: %s\n", error.text);
        return 1;
    }
    for (size_t i = 0; i < LT_COUNT(ops); i++) {
        if (settings->filter && strcmp(settings->filter, ops[i].name) != 0)
            continue;
        check.op = ops[i].name;
        check.comparisons = 0;
        check.ref_us = check.best_us = 0;
        const int before = check.failures;
        for (int64_t n = 0; n < settings->repeat; n++) {
            check.seed = (uint64_t)(settings->seed + n);
            check.drawn = 0;
            ops[i].run(&check);
            check_release(&check);
        }
        printf("%-14s %-5s %4d comparisons %s", ops[i].name, check.bf16 ? "bf16" : "f32",
               check.comparisons, check.failures == before ? "ok" : "FAILED");
        if (settings->bench)
            printf("  ref %9.2f ms  best %9.2f ms  %6.1f times faster", (double)check.ref_us * 1e-3,
                   (double)check.best_us * 1e-3,
                   (double)check.ref_us / (double)(check.best_us ? check.best_us : 1));
        printf("\n");
    }
    place_exec_destroy(&check.exec);
    place_exec_destroy(&check.other);
    return check.failures;
}

int main(int argc, char **argv)
{
    struct settings settings;
    struct lt_operands operands;
    struct lt_error error;
    struct lt_kernels ref, best;
    bool help;
    if (lt_options_parse(&command, argc, argv, &settings, sizeof settings, &operands, &help,
                         &error) != LT_OK) {
        fprintf(stderr, "check-kernels: %s\n", error.text);
        return lt_status_exit_code(LT_USAGE);
    }
    lt_kernels_init(&ref, 0);
    place_kernels_init(&best);
    int failures = 0;
    if (settings.list) {
#define LIST(op) printf("%-14s ref %s\n", #op, best.op##_variant);
        LT_KERNEL_LIST(LIST)
#undef LIST
    } else if (!help) {
        if (strcmp(settings.precision, "bf16") != 0)
            failures += run_all(&settings, &ref, &best, LT_PRECISION_F32);
        if (strcmp(settings.precision, "f32") != 0)
            failures += run_all(&settings, &ref, &best, LT_PRECISION_BF16);
        printf("%d failures\n", failures);
    }
    lt_options_free(&command, &settings, &operands);
    return failures != 0;
}
