/* longtake-worker selftest: whether this machine computes what it should, and how near it comes to
 * what it can. The first thing to run on a card, and what to send when something looks wrong. */
#include "worker/selftest.h"

#include "common/option.h"
#include "worker/commands.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct settings {
    const char *device, *json, *part;
    int64_t threads;
    bool quick;
};

static const struct lt_option options[] = {
    LT_OPTION(struct settings, device, TEXT, "NAME", "host",
              .help = "what to test: host, or cuda:N"),
    LT_OPTION(struct settings, part, TEXT, "PART", "all", .choices = "all|ops|copies|models",
              .help = "of the test"),
    LT_OPTION(struct settings, quick, FLAG, NULL, NULL,
              .help = "small sizes only: whether it computes, not how fast"),
    LT_OPTION(struct settings, json, TEXT, "FILE", NULL,
              .help = "write the table as JSON too, to be sent with a report"),
    LT_OPTION(struct settings, threads, INT, "N", "0", .min = 0, .max = 1024,
              .help = "of the host; 0: all processors"),
};
static const struct lt_command command = {
    .program = "longtake-worker selftest",
    .usage = "[--device NAME] [--json FILE] [options]",
    .summary =
        "Holds every op to the reference, copies to and from the device, runs one small model of "
        "each kind on the host and on the device, and prints a table: pass or fail, the error "
        "found, and rates against the ceilings that this device reached in the same run. Needs no "
        "model files. Exits with 9 when a row failed; rates fail nothing.",
    .examples = "  longtake-worker selftest --device cuda:0 --json selftest.json",
    .options = options,
    .option_count = LT_COUNT(options),
};

/* -- rows -------------------------------------------------------------------------------------- */

struct selftest_row *selftest_row(struct selftest *test, const char *part, const char *name)
{
    lt_assert(test->row_count < SELFTEST_ROWS_MAX);
    struct selftest_row *row = &test->row[test->row_count++];
    *row = (struct selftest_row){.unit = ""};
    snprintf(row->part, sizeof row->part, "%s", part);
    snprintf(row->name, sizeof row->name, "%s", name);
    return row;
}

void selftest_compare(struct selftest_row *row, const float *got, const float *want, size_t count,
                      double bound)
{
    double difference = 0, square = 0;
    for (size_t i = 0; i < count; i++) {
        const double d = (double)got[i] - (double)want[i];
        difference += d * d;
        square += (double)want[i] * (double)want[i];
    }
    row->error = sqrt(difference / (square > 0 ? square : 1));
    row->bound = bound;
    row->failed = !(row->error <= bound); /* and where it is not a number */
}

void selftest_fail(struct selftest *test, const char *part, const char *name,
                   const struct lt_error *error)
{
    struct selftest_row *row = selftest_row(test, part, name);
    row->failed = true;
    snprintf(row->note, sizeof row->note, "%.190s", error->text);
}

static const char *verdict(const struct selftest_row *row)
{
    return row->failed ? "FAIL" : row->skipped ? "skip" : "pass";
}

static size_t count_failures(const struct selftest *test)
{
    size_t count = 0;
    for (size_t i = 0; i < test->row_count; i++)
        count += test->row[i].failed;
    return count;
}

/* -- the report -------------------------------------------------------------------------------- */

static void print_head(const struct selftest *test)
{
    char kernel_class[128], memory[32];
    struct device_stats stats;
    device_class(test->device, kernel_class, sizeof kernel_class);
    device_stats(test->device, &stats);
    printf("longtake %s, %s: %s", LT_VERSION, test->device_name, kernel_class);
    if (stats.limit_bytes[DEVICE_MEMORY_LOCAL])
        printf(", %s usable", lt_size_format(stats.limit_bytes[DEVICE_MEMORY_LOCAL], memory));
    printf("\n\n%-8s %-26s %-5s %9s %9s %18s %6s\n", "part", "name", "", "error", "bound", "rate",
           "of it");
}

static void print_row(const struct selftest_row *row)
{
    printf("%-8s %-26s %-5s ", row->part, row->name, verdict(row));
    if (row->bound > 0)
        printf("%9.1e %9.1e ", row->error, row->bound);
    else
        printf("%9s %9s ", "", "");
    if (row->rate > 0)
        printf("%10.3f %-7s ", row->rate, row->unit);
    else
        printf("%18s ", "");
    if (row->share > 0)
        printf("%5.0f%%", 100 * row->share);
    else
        printf("%6s", "");
    printf("  %s\n", row->note);
}

void selftest_print(struct selftest *test)
{
    if (test->printed == 0 && test->row_count > 0)
        print_head(test);
    while (test->printed < test->row_count)
        print_row(&test->row[test->printed++]);
    fflush(stdout);
}

static void put_text(FILE *to, const char *text)
{
    fputc('"', to);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', to);
        if ((unsigned char)*text >= ' ')
            fputc(*text, to);
    }
    fputc('"', to);
}

static void write_rows(const struct selftest *test, FILE *to)
{
    for (size_t i = 0; i < test->row_count; i++) {
        const struct selftest_row *row = &test->row[i];
        fprintf(to, "%s\n  {\"part\": ", i ? "," : "");
        put_text(to, row->part);
        fprintf(to, ", \"name\": ");
        put_text(to, row->name);
        fprintf(to, ", \"verdict\": \"%s\"", verdict(row));
        if (row->bound > 0 && isfinite(row->error))
            fprintf(to, ", \"error\": %.3e, \"bound\": %.1e", row->error, row->bound);
        if (row->rate > 0)
            fprintf(to, ", \"rate\": %.4g, \"unit\": \"%s\"", row->rate, row->unit);
        if (row->share > 0)
            fprintf(to, ", \"share\": %.3f", row->share);
        fprintf(to, ", \"note\": ");
        put_text(to, row->note);
        fprintf(to, "}");
    }
}

static lt_status write_json(const struct selftest *test, const char *path, struct lt_error *error)
{
    char kernel_class[128];
    struct device_stats stats;
    FILE *to = fopen(path, "w");
    if (!to)
        return lt_fail(error, LT_IO, "%s: cannot create", path);
    device_class(test->device, kernel_class, sizeof kernel_class);
    device_stats(test->device, &stats);
    fprintf(to, "{\"longtake\": \"%s\", \"device\": ", LT_VERSION);
    put_text(to, test->device_name);
    fprintf(to, ", \"class\": ");
    put_text(to, kernel_class);
    fprintf(to, ", \"memory_bytes\": %llu, \"failed\": %zu, \"rows\": [",
            (unsigned long long)stats.limit_bytes[DEVICE_MEMORY_LOCAL], count_failures(test));
    write_rows(test, to);
    fprintf(to, "\n]}\n");
    return fclose(to) == 0 ? LT_OK : lt_fail(error, LT_IO, "%s: cannot write", path);
}

/* -- the command ------------------------------------------------------------------------------- */

static lt_status open_test(struct selftest *test, struct lt_error *error)
{
    LT_TRY(device_open(test->device_name, &(struct device_params){0}, &test->device, error));
    LT_TRY(device_kernels(test->device, "best", &test->kernels, error));
    LT_TRY(lt_kernels_select(&test->reference, 0, "ref", error));
    for (int precision = 0; precision < 2; precision++) {
        const struct lt_exec_params params = {test->thread_count, (enum lt_precision)precision};
        LT_TRY(device_exec_create(test->device, &params, &test->exec[precision], error));
        LT_TRY(lt_exec_create(&params, &test->host[precision], error));
    }
    return LT_OK;
}

static void close_test(struct selftest *test)
{
    for (int precision = 0; precision < 2; precision++) {
        lt_exec_destroy(&test->exec[precision]);
        lt_exec_destroy(&test->host[precision]);
    }
    device_destroy(&test->device);
}

static bool has_part(const struct settings *settings, const char *part)
{
    return strcmp(settings->part, "all") == 0 || strcmp(settings->part, part) == 0;
}

static lt_status run(const struct settings *settings, struct selftest *test, struct lt_error *error)
{
    LT_TRY(open_test(test, error));
    if (has_part(settings, "copies"))
        selftest_copies(test);
    selftest_print(test);
    if (has_part(settings, "ops"))
        selftest_ops(test);
    (void)device_set_scratch(test->device, 0, NULL); /* eval has a device of its own */
    if (has_part(settings, "models"))
        selftest_models(test);
    printf("\n%zu rows, %zu failed\n", test->row_count, count_failures(test));
    if (settings->json)
        LT_TRY(write_json(test, settings->json, error));
    const size_t failures = count_failures(test);
    return failures == 0 ? LT_OK
                         : lt_fail(error, LT_DEVICE, "%s: %zu of %zu rows failed",
                                   test->device_name, failures, test->row_count);
}

static lt_status start(void *context, const void *settings, const struct lt_operands *operands,
                       struct lt_error *error)
{
    const struct settings *s = settings;
    (void)context;
    (void)operands;
    struct selftest *test = calloc(1, sizeof *test);
    if (!test)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the test");
    test->device_name = s->device;
    test->thread_count = (int)s->threads;
    test->quick = s->quick;
    const lt_status status = run(s, test, error);
    close_test(test);
    free(test);
    return status;
}

int worker_selftest(int argc, char **argv)
{
    return lt_command_main(&command, argc, argv, sizeof(struct settings), start, NULL);
}
