/* Samples are what an operator has when a worker is slow or dies: they must be those of the stage
 * they name, cost next to nothing, and tell swapping from computing. */
#include "tests/test.h"

#include "common/log.h"
#include "worker/diagnostics.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* -- what a sample asks of the system ---------------------------------------------------------- */

static struct calls {
    int opens, reads, pieces;
} calls;

#define WRAP(type, name, ...)                                                                      \
    type __real_##name(__VA_ARGS__);                                                               \
    type __wrap_##name(__VA_ARGS__);                                                               \
    type __wrap_##name(__VA_ARGS__)

WRAP(int, open, const char *path, int flags, mode_t mode)
{
    calls.opens++;
    return __real_open(path, flags, mode);
}

WRAP(ssize_t, pread, int fd, void *data, size_t bytes, off_t offset)
{
    calls.reads++;
    return __real_pread(fd, data, bytes, offset);
}

WRAP(void *, malloc, size_t bytes)
{
    calls.pieces++;
    return __real_malloc(bytes);
}

WRAP(void *, calloc, size_t count, size_t bytes)
{
    calls.pieces++;
    return __real_calloc(count, bytes);
}

/* -- tests ------------------------------------------------------------------------------------- */

static struct diagnostics *make(size_t max)
{
    struct diagnostics *d;
    struct lt_error error;
    assert_ok(diagnostics_create(max, &d, &error));
    return d;
}

static json_t *report(struct diagnostics *d)
{
    char *text;
    size_t size;
    FILE *file = open_memstream(&text, &size);
    diagnostics_write_json(d, file);
    fclose(file);
    json_t *root = json_loads(text, 0, NULL);
    assert_non_null(root);
    free(text);
    return root;
}

static int64_t number(const json_t *sample, const char *key)
{
    const json_t *value = json_object_get(sample, key);
    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

static void g7_2_counts_come_out_as_they_went_in(void **state)
{
    (void)state;
    struct diagnostics *d = make(4);
    const struct memory_counts counts = {.weights_resident_bytes = 11,
                                         .weights_swapped_bytes = 12,
                                         .lora_bytes = 13,
                                         .cache_bytes = 14,
                                         .activations_bytes = 15,
                                         .scratch_bytes = 16,
                                         .latents_bytes = 17,
                                         .device_bytes = 18,
                                         .device_peak_bytes = 19,
                                         .read_bytes = 20,
                                         .copied_bytes = 21,
                                         .stall_us = 22};
    diagnostics_sample(d, MEMORY_STAGE_LOAD_END, 7, "a \"name\"", &counts);
    json_t *root = report(d);
    const json_t *sample = json_array_get(root, 0);
    assert_int_equal(json_array_size(root), 1);
    assert_string_equal(json_string_value(json_object_get(sample, "stage")), "load-end");
    assert_string_equal(json_string_value(json_object_get(sample, "subject")), "a ?name?");
    assert_int_equal(number(sample, "task"), 7);
    assert_int_equal(number(sample, "weights_resident_bytes"), 11);
    assert_int_equal(number(sample, "copied_bytes"), 21);
    assert_int_equal(number(sample, "stall_us"), 22);
    assert_true(number(sample, "rss_anon_bytes") > 0);
    json_decref(root);
    diagnostics_destroy(&d);
    assert_null(d);
}

static void the_ring_keeps_the_newest(void **state)
{
    (void)state;
    struct diagnostics *d = make(3);
    struct memory_sample last;
    diagnostics_last(d, &last);
    assert_int_equal(last.time_us, 0);
    for (uint64_t task = 1; task <= 5; task++)
        diagnostics_sample(d, MEMORY_STAGE_TASK_BEGIN, task, "predict", &(struct memory_counts){0});
    diagnostics_last(d, &last);
    assert_int_equal(last.task, 5);
    json_t *root = report(d);
    assert_int_equal(json_array_size(root), 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(number(json_array_get(root, i), "task"), 3 + i);
    json_decref(root);
    diagnostics_destroy(&d);
}

static int warnings;

static void count_warnings(void *context, enum lt_log_level level, const char *id, const char *text)
{
    (void)context;
    (void)text;
    warnings += level == LT_LOG_WARN && strcmp(id, "memory.swapping") == 0;
}

/* A page of a file that is not in the page cache costs a major fault. */
static void cause_a_major_fault(void)
{
    char path[] = "longtake-fault-XXXXXX";
    const size_t bytes = 8 << 20;
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    char *page = malloc(bytes);
    memset(page, 1, bytes);
    assert_int_equal(write(fd, page, bytes), bytes);
    fsync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    const volatile char *map = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    assert_true(map != MAP_FAILED);
    (void)map[bytes / 2];
    munmap((void *)map, bytes);
    close(fd);
    free(page);
}

static void g7_4_major_faults_while_computing_raise_the_alarm(void **state)
{
    (void)state;
    struct diagnostics *d = make(8);
    struct lt_process_memory before, after;
    struct lt_memory_probe *probe;
    struct lt_error error;
    warnings = 0;
    lt_log_set_sink(count_warnings, NULL);
    assert_ok(lt_memory_probe_create(&probe, &error));
    diagnostics_sample(d, MEMORY_STAGE_LOAD_BEGIN, 1, "predict", &(struct memory_counts){0});
    cause_a_major_fault(); /* while loading: as it should be */
    diagnostics_sample(d, MEMORY_STAGE_TASK_BEGIN, 1, "predict", &(struct memory_counts){0});
    assert_int_equal(warnings, 0);
    assert_int_equal(diagnostics_swapping(d), 0);
    lt_memory_probe_read(probe, &before);
    cause_a_major_fault();
    lt_memory_probe_read(probe, &after);
    diagnostics_sample(d, MEMORY_STAGE_TASK_END, 1, "predict", &(struct memory_counts){0});
    const uint64_t faults = after.major_faults - before.major_faults;
    lt_log_set_sink(NULL, NULL);
    lt_memory_probe_destroy(&probe);
    assert_true(diagnostics_swapping(d) >= faults);
    diagnostics_destroy(&d);
    if (faults == 0)
        skip(); /* the file system keeps everything in memory */
    assert_int_equal(warnings, 1);
}

/* G7.1: some microseconds, as it is three short reads of files that stay open, and nothing else. */
static void g7_1_a_sample_is_three_reads(void **state)
{
    (void)state;
    struct diagnostics *d = make(2);
    diagnostics_sample(d, MEMORY_STAGE_TASK_BEGIN, 1, "predict", &(struct memory_counts){0});
    calls = (struct calls){0};
    for (int i = 0; i < 10; i++)
        diagnostics_sample(d, MEMORY_STAGE_TASK_BEGIN, 1, "predict", &(struct memory_counts){0});
    assert_int_equal(calls.opens, 0);
    assert_int_equal(calls.pieces, 0);
    assert_in_range(calls.reads, 10, 30); /* no cgroup: one */
    diagnostics_destroy(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(g7_1_a_sample_is_three_reads),
        cmocka_unit_test(g7_2_counts_come_out_as_they_went_in),
        cmocka_unit_test(the_ring_keeps_the_newest),
        cmocka_unit_test(g7_4_major_faults_while_computing_raise_the_alarm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
