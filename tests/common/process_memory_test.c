/* Plans are held to what the system says, and a swapping worker is known by its major faults: if
 * these numbers were wrong, both alarms would be silent or false. */
#include "tests/test.h"

#include "common/process_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static struct lt_process_memory sample(void)
{
    struct lt_memory_probe *probe;
    struct lt_process_memory memory;
    struct lt_error error;
    assert_ok(lt_memory_probe_create(&probe, &error));
    lt_memory_probe_read(probe, &memory);
    lt_memory_probe_destroy(&probe);
    assert_null(probe);
    return memory;
}

static void anonymous_memory_is_counted_and_given_back(void **state)
{
    (void)state;
    const size_t bytes = 48 << 20;
    const struct lt_process_memory before = sample();
    char *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(data != MAP_FAILED);
    memset(data, 1, bytes);
    const struct lt_process_memory during = sample();
    munmap(data, bytes);
    const struct lt_process_memory after = sample();
    assert_true(during.rss_anon_bytes >= before.rss_anon_bytes + bytes);
    assert_true(during.vms_bytes >= during.rss_anon_bytes + during.rss_file_bytes);
    assert_true(after.rss_anon_bytes + bytes / 2 < during.rss_anon_bytes);
    assert_true(after.peak_rss_bytes >= bytes); /* the system counts it in batches */
    assert_true(during.rss_file_bytes > 0);     /* this program itself */
}

static void the_limit_is_within_the_machine(void **state)
{
    (void)state;
    const uint64_t limit = lt_memory_limit();
    assert_true(limit > 0);
    const struct lt_process_memory now = sample();
    assert_true(now.cgroup_limit_bytes == 0 || limit <= now.cgroup_limit_bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(anonymous_memory_is_counted_and_given_back),
        cmocka_unit_test(the_limit_is_within_the_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
