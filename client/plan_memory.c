#include "client/plan_memory.h"

#include "client/crew.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { JSON_BYTES_MAX = 64 * 1024, ARGUMENTS_MAX = 64 };

static bool find_file(const struct job_file *file, const char *name, char path_out[PATH_MAX])
{
    const int length = name[0] == '/' ? snprintf(path_out, PATH_MAX, "%s", name)
                                      : snprintf(path_out, PATH_MAX, "%s/%s", file->dir, name);
    return length < PATH_MAX && access(path_out, R_OK) == 0;
}

const char *plan_memory_files(const struct job_file *file, struct plan_memory_files *files_out)
{
    const struct job *job = &file->job;
    struct plan_memory_files *f = files_out;
    *f = (struct plan_memory_files){0};
    if (!find_file(file, job->transformer.name, f->transformer))
        return job->transformer.name;
    if (job->talk.name && !find_file(file, job->talk.name, f->talk))
        return job->talk.name;
    for (size_t i = 0; i < job->lora_count; i++) {
        const struct job_lora *lora = &job->lora[i];
        if (lora->on == JOB_EXPERT_LOW) /* the plan is of the other expert */
            continue;
        f->combined |= lora->combined;
        if (!find_file(file, lora->file.name, f->lora[f->lora_count++]))
            return lora->file.name;
    }
    return NULL;
}

struct arguments {
    const char *item[ARGUMENTS_MAX + 1];
    size_t count;
    char size[32], frames[16], text_len[16];
};

static void add(struct arguments *a, const char *option, const char *value)
{
    if (!value)
        return;
    lt_assert(a->count + 2 <= ARGUMENTS_MAX);
    a->item[a->count++] = option;
    if (value[0])
        a->item[a->count++] = value;
}

static bool is_guided(const struct plan *plan)
{
    for (uint32_t s = 0; s < plan->step_count; s++)
        if (plan->step[s].guidance != 1)
            return true;
    return false;
}

static void make_arguments(const struct plan_memory *ask, const struct job *job,
                           const struct plan *plan, const struct plan_memory_files *files,
                           bool json, struct arguments *a)
{
    snprintf(a->size, sizeof a->size, "%lldx%lld", (long long)job->width, (long long)job->height);
    snprintf(a->frames, sizeof a->frames, "%u", plan->step[0].window[0].frame_count);
    snprintf(a->text_len, sizeof a->text_len, "%lld", (long long)job->text_len);
    a->count = 1; /* the program */
    add(a, "memory", files->transformer);
    add(a, "--size", a->size);
    add(a, "--latent-frames", a->frames);
    add(a, "--text-tokens", a->text_len);
    add(a, "--precision", job->precision_bf16 ? "bf16" : "f32");
    add(a, "--device", ask->device);
    add(a, "--device-memory", ask->device_memory);
    add(a, "--ram", ask->ram);
    add(a, "--blocks-to-swap", ask->blocks_to_swap);
    add(a, "--prefetch", ask->prefetch);
    add(a, "--addon", files->talk[0] ? files->talk : NULL);
    for (size_t i = 0; i < files->lora_count; i++)
        add(a, "--lora", files->lora[i]);
    add(a, "--lora-expert", files->combined ? "high" : NULL);
    add(a, "--guided", is_guided(plan) ? "" : NULL);
    add(a, "--json", json ? "" : NULL);
    a->item[a->count] = NULL;
}

/* Runs the worker; with `to` its output goes there (a pipe's end), otherwise to ours. */
static pid_t run_worker(const struct arguments *a, int to)
{
    fflush(stdout);
    const pid_t pid = fork();
    if (pid != 0)
        return pid;
    if (to >= 0)
        dup2(to, STDOUT_FILENO);
    execv(a->item[0], (char *const *)a->item);
    fprintf(stderr, "cannot start %s: %s\n", a->item[0], strerror(errno));
    _exit(127);
}

static lt_status wait_for(pid_t pid, struct lt_error *error)
{
    int how;
    while (waitpid(pid, &how, 0) < 0)
        if (errno != EINTR)
            return lt_fail(error, LT_INTERNAL, "the worker program is lost: %s", strerror(errno));
    if (WIFEXITED(how) && WEXITSTATUS(how) == 0)
        return LT_OK;
    for (int status = 1; WIFEXITED(how) && status < LT_STATUS_COUNT; status++)
        if (lt_status_exit_code((lt_status)status) == WEXITSTATUS(how))
            return lt_fail(error, (lt_status)status,
                           "the memory plan ends here: see the worker's message above");
    return lt_fail(error, LT_INTERNAL, "longtake-worker memory ended badly");
}

lt_status plan_memory_print(const struct plan_memory *ask, const struct job *job,
                            const struct plan *plan, const struct plan_memory_files *files,
                            struct lt_error *error)
{
    char program[PATH_MAX];
    struct arguments a;
    LT_TRY(crew_find_program(ask->worker_program, program, sizeof program, error));
    make_arguments(ask, job, plan, files, false, &a);
    a.item[0] = program;
    const pid_t pid = run_worker(&a, -1);
    return pid < 0 ? lt_fail(error, LT_NO_MEMORY, "cannot start %s: %s", program, strerror(errno))
                   : wait_for(pid, error);
}

static size_t read_all(int from, char *text, size_t size)
{
    size_t count = 0;
    ssize_t got;
    while (count + 1 < size && (got = read(from, text + count, size - count - 1)) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            break;
        count += (size_t)got;
    }
    while (count > 0 && text[count - 1] == '\n')
        count--;
    text[count] = 0;
    return count;
}

lt_status plan_memory_json(const struct plan_memory *ask, const struct job *job,
                           const struct plan *plan, const struct plan_memory_files *files,
                           char **json_out, struct lt_error *error)
{
    char program[PATH_MAX];
    struct arguments a;
    int ends[2];
    LT_TRY(crew_find_program(ask->worker_program, program, sizeof program, error));
    char *json = malloc(JSON_BYTES_MAX);
    if (!json || pipe(ends) != 0) {
        free(json);
        return lt_fail(error, LT_NO_MEMORY, "no pipe to %s", program);
    }
    make_arguments(ask, job, plan, files, true, &a);
    a.item[0] = program;
    const pid_t pid = run_worker(&a, ends[1]);
    close(ends[1]);
    const size_t count = pid < 0 ? 0 : read_all(ends[0], json, JSON_BYTES_MAX);
    close(ends[0]);
    lt_status status =
        pid < 0 ? lt_fail(error, LT_NO_MEMORY, "cannot start %s: %s", program, strerror(errno))
                : wait_for(pid, error);
    if (status == LT_OK && count == 0)
        status = lt_fail(error, LT_INTERNAL, "%s memory said nothing", program);
    if (status != LT_OK) {
        free(json);
        return status;
    }
    *json_out = json;
    return LT_OK;
}
