#include "worker/processes.h"

#include "common/log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* -- devices ----------------------------------------------------------------------------------- */

static bool is_number(const char *text)
{
    return text[0] && strspn(text, "0123456789") == strlen(text);
}

lt_status process_devices_parse(const char *text, struct process_devices *devices_out,
                                struct lt_error *error)
{
    struct process_devices *to = devices_out;
    to->count = 0;
    for (const char *at = text;; at++) {
        const size_t length = strcspn(at, ",");
        char item[PROCESS_DEVICE_BYTES - 5]; /* "cuda:" may come before it */
        if (to->count == PROCESS_DEVICES_MAX)
            return lt_fail(error, LT_USAGE, "--device %s: at most %d devices", text,
                           PROCESS_DEVICES_MAX);
        if (length == 0 || length >= sizeof item)
            return lt_fail(error, LT_USAGE, "--device %s: expected host, cuda:N or a list of them",
                           text);
        snprintf(item, sizeof item, "%.*s", (int)length, at);
        const bool more = to->count > 0 && strncmp(to->name[to->count - 1], "cuda:", 5) == 0;
        snprintf(to->name[to->count], sizeof to->name[0], "%s%s",
                 more && is_number(item) ? "cuda:" : "", item);
        for (size_t i = 0; i < to->count && strcmp(to->name[to->count], "host") != 0; i++)
            if (strcmp(to->name[i], to->name[to->count]) == 0)
                return lt_fail(error, LT_USAGE, "--device %s: %s stands there twice", text,
                               to->name[i]);
        to->count++;
        at += length;
        if (!*at)
            return LT_OK;
    }
}

/* -- processes --------------------------------------------------------------------------------- */

static volatile pid_t child[PROCESS_DEVICES_MAX]; /* 0: ended */

static void hand_on(int number)
{
    const int before = errno;
    (void)number;
    for (size_t i = 0; i < PROCESS_DEVICES_MAX; i++)
        if (child[i] > 0)
            kill(child[i], SIGTERM);
    errno = before;
}

/* What a process of ours said by its end. */
static lt_status meaning(int how, const char *device, struct lt_error *error)
{
    if (WIFEXITED(how) && WEXITSTATUS(how) == 0)
        return LT_OK;
    for (int status = 1; WIFEXITED(how) && status < LT_STATUS_COUNT; status++)
        if (lt_status_exit_code((lt_status)status) == WEXITSTATUS(how))
            return lt_fail(error, (lt_status)status,
                           "the worker on %s ended: see its message above", device);
    return lt_fail(error, LT_INTERNAL, "the worker on %s was ended by signal %d", device,
                   WIFSIGNALED(how) ? WTERMSIG(how) : 0);
}

static size_t index_of(pid_t pid)
{
    size_t i = 0;
    while (i < PROCESS_DEVICES_MAX && child[i] != pid)
        i++;
    return i;
}

static lt_status wait_for_all(const struct process_devices *devices, struct lt_error *error)
{
    lt_status first = LT_OK;
    for (size_t left = devices->count; left > 0;) {
        int how;
        struct lt_error one = {0};
        const pid_t pid = waitpid(-1, &how, 0);
        if (pid < 0 && errno == EINTR)
            continue;
        if (pid < 0)
            return lt_fail(error, LT_INTERNAL, "the workers are lost: %s", strerror(errno));
        const size_t i = index_of(pid);
        if (i == PROCESS_DEVICES_MAX) /* not ours: of the program that became this one by exec */
            continue;
        child[i] = 0;
        left--;
        const lt_status status = meaning(how, devices->name[i], &one);
        if (status == LT_OK)
            continue;
        lt_log(LT_LOG_WARN, "worker.process.end", "device=%s status=%s left=%zu", devices->name[i],
               lt_status_name(status), left);
        if (first == LT_OK && error)
            *error = one;
        first = first == LT_OK ? status : first;
    }
    return first;
}

lt_status processes_run(const struct process_devices *devices,
                        lt_status (*work)(void *context, size_t index, struct lt_error *error),
                        void *context, struct lt_error *error)
{
    const pid_t parent = getpid();
    const struct sigaction action = {.sa_handler = hand_on};
    sigset_t stops, before;
    sigemptyset(&stops);
    sigaddset(&stops, SIGTERM);
    sigaddset(&stops, SIGINT);
    sigprocmask(SIG_BLOCK, &stops, &before); /* one that comes now waits until all can hear it */
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    fflush(NULL); /* or each would say it again */
    for (size_t i = 0; i < devices->count; i++) {
        const pid_t pid = fork();
        if (pid == 0) {
            for (size_t j = 0; j < i; j++)
                child[j] = 0;         /* not its own */
            signal(SIGTERM, SIG_DFL); /* until `work` has its own way of leaving */
            signal(SIGINT, SIG_DFL);
            sigprocmask(SIG_SETMASK, &before, NULL);
            setpgid(0, 0); /* Ctrl-C comes once, through us */
            prctl(PR_SET_PDEATHSIG, SIGTERM);
            if (getppid() != parent) /* it went before that was said */
                return lt_fail(error, LT_CANCELLED, "the starting process ended");
            return work(context, i, error);
        }
        if (pid < 0) {
            sigprocmask(SIG_SETMASK, &before, NULL);
            hand_on(SIGTERM);
            return lt_fail(error, LT_NO_MEMORY, "cannot start a worker for %s: %s",
                           devices->name[i], strerror(errno));
        }
        child[i] = pid;
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    return wait_for_all(devices, error);
}
