/* If a list of devices were read wrongly, two workers would fight over one card; if one that breaks
 * took the others along, or went unnoticed, a node of eight cards would stand still or lie. */
#include "tests/test.h"

#include "worker/processes.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void lists_are_read(void **state)
{
    (void)state;
    struct lt_error error;
    struct process_devices devices;
    assert_ok(process_devices_parse("host", &devices, &error));
    assert_int_equal(devices.count, 1);
    assert_string_equal(devices.name[0], "host");
    assert_ok(process_devices_parse("cuda:0,2,cuda:11,host,host", &devices, &error));
    assert_int_equal(devices.count, 5);
    assert_string_equal(devices.name[1], "cuda:2");
    assert_string_equal(devices.name[2], "cuda:11");
    assert_string_equal(devices.name[4], "host");
    static const char *const bad[] = {"",
                                      "cuda:0,",
                                      ",host",
                                      "cuda:0,0",
                                      "cuda:1,cuda:1",
                                      "cuda:0,,1",
                                      "a name that is much too long for a device"};
    for (size_t i = 0; i < LT_COUNT(bad); i++)
        assert_fails(process_devices_parse(bad[i], &devices, &error), LT_USAGE, "--device");
    char many[300] = "host";
    for (int i = 0; i < 50; i++)
        strcat(many, ",host");
    assert_ok(process_devices_parse(many, &devices, &error));
    assert_int_equal(devices.count, 51);
}

/* -- processes --------------------------------------------------------------------------------- */

static int pipes[2];

/* The first breaks, the second is killed, the others work and wait to be told to leave. */
static lt_status act(void *context, size_t index, struct lt_error *error)
{
    (void)context;
    const char letter = (char)('a' + index);
    sigset_t term;
    int got;
    if (index == 0)
        return lt_fail(error, LT_DEVICE, "broken");
    if (index == 1)
        raise(SIGKILL);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
    assert_int_equal(write(pipes[1], &letter, 1), 1);
    sigwait(&term, &got);
    return LT_OK;
}

static void run_four(void)
{
    struct lt_error error = {0};
    struct process_devices devices;
    const pid_t parent = getpid();
    if (process_devices_parse("cuda:0,1,2,3", &devices, &error) != LT_OK)
        _exit(100);
    const lt_status status = processes_run(&devices, act, NULL, &error);
    if (getpid() != parent)
        _exit(lt_status_exit_code(status));
    const bool named = strstr(error.text, "cuda:0") || strstr(error.text, "cuda:1");
    _exit(status != LT_OK && named ? 42 : 101);
}

static void one_that_breaks_leaves_the_others_at_work(void **state)
{
    (void)state;
    char letter[2];
    int how;
    assert_int_equal(pipe(pipes), 0);
    const pid_t pid = fork();
    if (pid == 0)
        run_four();
    for (int i = 0; i < 2; i++) /* both are at work, whatever became of the others */
        assert_int_equal(read(pipes[0], &letter[i], 1), 1);
    assert_int_equal(letter[0] + letter[1], 'c' + 'd');
    assert_int_equal(kill(pid, SIGTERM), 0);
    assert_int_equal(waitpid(pid, &how, 0), pid);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), 42);
    close(pipes[0]);
    close(pipes[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_are_read),
        cmocka_unit_test(one_that_breaks_leaves_the_others_at_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
