#include "client/crew.h"

#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

lt_status crew_find_program(const char *wanted, char *path_out, size_t size, struct lt_error *error)
{
    char own[PATH_MAX];
    if (wanted) {
        snprintf(path_out, size, "%s", wanted);
    } else {
        const ssize_t length = readlink("/proc/self/exe", own, sizeof own - 1);
        own[length > 0 ? length : 0] = 0;
        snprintf(path_out, size, "%.4000s/longtake-worker", dirname(own));
    }
    if (access(path_out, X_OK) != 0)
        return lt_fail(error, LT_NOT_FOUND,
                       "%s: no worker program there; name it with --worker-program", path_out);
    return LT_OK;
}

static void exec_worker(const struct crew *crew, int index)
{
    enum { FIXED = 14 };
    const char *argv[FIXED + 2 * 64 + 1];
    char name[32], threads[16], ram[32], log[PATH_MAX];
    size_t count = 0;
    snprintf(name, sizeof name, "worker-%d", index + 1);
    snprintf(threads, sizeof threads, "%d", crew->params.thread_count);
    snprintf(ram, sizeof ram, "%llu", (unsigned long long)crew->params.ram_bytes);
    snprintf(log, sizeof log, "%.3900s/%s.log", crew->params.log_dir, name);
    const int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (fd >= 0) {
        dup2(fd, STDOUT_FILENO);
        dup2(fd, STDERR_FILENO);
    }
    setsid(); /* Ctrl-C in the terminal is for the coordinator, which drains its workers */
    const char *const fixed[] = {crew->program, "run", "--coordinator",     crew->params.endpoint,
                                 "--name",      name,  "--threads",         threads,
                                 "--ram",       ram,   "--exit-with-parent"};
    for (size_t i = 0; i < LT_COUNT(fixed); i++)
        argv[count++] = fixed[i];
    for (size_t i = 0; i < crew->params.model_count && i < 64; i++) {
        argv[count++] = "--models";
        argv[count++] = crew->params.models[i];
    }
    argv[count] = NULL;
    execv(crew->program, (char *const *)argv);
    fprintf(stderr, "cannot start %s: %s\n", crew->program, strerror(errno));
    _exit(127);
}

static lt_status start_one(struct crew *crew, int index, struct lt_error *error)
{
    const pid_t pid = fork();
    if (pid < 0)
        return lt_fail(error, LT_NO_MEMORY, "cannot start worker %d: %s", index + 1,
                       strerror(errno));
    if (pid == 0)
        exec_worker(crew, index);
    crew->pid[index] = pid;
    return LT_OK;
}

lt_status crew_start(struct crew *crew, const struct crew_params *params, struct lt_error *error)
{
    *crew = (struct crew){.params = *params};
    LT_TRY(crew_find_program(params->program, crew->program, sizeof crew->program, error));
    for (int i = 0; i < params->worker_count; i++)
        LT_TRY(start_one(crew, i, error));
    return LT_OK;
}

lt_status crew_watch(struct crew *crew, struct lt_error *error)
{
    for (int i = 0; i < crew->params.worker_count; i++) {
        int how;
        if (crew->pid[i] <= 0 || waitpid(crew->pid[i], &how, WNOHANG) != crew->pid[i])
            continue;
        crew->pid[i] = 0;
        if (crew->closing)
            continue;
        crew->deaths++;
        lt_log(LT_LOG_WARN, "worker.died", "worker=%d %s=%d", i + 1,
               WIFSIGNALED(how) ? "signal" : "exit",
               WIFSIGNALED(how) ? WTERMSIG(how) : WEXITSTATUS(how));
        if (++crew->restarts[i] > CREW_RESTARTS_MAX)
            return lt_fail(error, LT_LINK, "worker %d died %d times; its log: %s/worker-%d.log",
                           i + 1, crew->restarts[i], crew->params.log_dir, i + 1);
        LT_TRY(start_one(crew, i, error));
    }
    return LT_OK;
}

int crew_alive(struct crew *crew)
{
    int alive = 0;
    for (int i = 0; i < crew->params.worker_count; i++)
        alive += crew->pid[i] > 0;
    return alive;
}

void crew_close(struct crew *crew)
{
    crew->closing = true;
}

void crew_signal(struct crew *crew, int signal)
{
    for (int i = 0; i < crew->params.worker_count; i++)
        if (crew->pid[i] > 0)
            kill(crew->pid[i], signal);
}
