/* The commands that ask a farm one thing: jobs, show, cancel, get, workers. */
#include "client/commands.h"

#include "client/api.h"
#include "common/progress.h"

#include <stdio.h>
#include <string.h>

struct settings {
    const char *url, *token_file, *output, *latents, *preview;
    bool json, overwrite;
};

static const struct lt_option asking[] = {
    API_OPTIONS(struct settings),
    LT_OPTION(struct settings, json, FLAG, NULL, NULL, .help = "print the answer as JSON"),
};
static const struct lt_option getting[] = {
    API_OPTIONS(struct settings),
    LT_OPTION(struct settings, output, TEXT, "FILE", NULL, .help = "where the mp4 goes"),
    LT_OPTION(struct settings, latents, TEXT, "FILE", NULL,
              .help = "where the latents go, as safetensors"),
    LT_OPTION(struct settings, preview, TEXT, "FILE", NULL,
              .help = "a PNG of up to eight latent frames as they stand now"),
    LT_OPTION(struct settings, overwrite, FLAG, NULL, NULL, .help = "replace files that exist"),
};

typedef lt_status action(struct api *api, const struct settings *settings, uint32_t job,
                         struct lt_error *error);

/* -- printing ---------------------------------------------------------------------------------- */

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

static long long count_of(const json_t *object, const char *name)
{
    return (long long)json_integer_value(json_object_get(object, name));
}

static double real_of(const json_t *object, const char *name)
{
    return json_number_value(json_object_get(object, name));
}

static void print_json(const json_t *json)
{
    json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
}

static void print_jobs(const json_t *answer)
{
    size_t i;
    json_t *job;
    printf("%6s  %-10s %6s  %8s  %s\n", "job", "state", "done", "left", "name");
    json_array_foreach(json_object_get(answer, "jobs"), i, job)
    {
        char left[32] = "";
        if (json_is_number(json_object_get(job, "eta_seconds")))
            lt_duration_format(real_of(job, "eta_seconds"), left);
        printf("%6lld  %-10s %4.0f %%  %8s  %s\n", count_of(job, "id"), text_of(job, "state"),
               100 * real_of(job, "fraction"), left, text_of(job, "name"));
    }
}

static void print_job(const json_t *job)
{
    const json_t *p = json_object_get(job, "progress"), *take = json_object_get(job, "take");
    printf("job          %lld  %s\n", count_of(job, "id"), text_of(job, "name"));
    printf("state        %s%s%s\n", text_of(job, "state"), text_of(job, "reason")[0] ? ": " : "",
           text_of(job, "reason"));
    printf("predictions  %lld of %lld\n", count_of(p, "predictions_done"),
           count_of(p, "predictions"));
    printf("decodes      %lld of %lld\n", count_of(p, "decodes_done"), count_of(p, "decodes"));
    printf("leases lost  %lld\n", count_of(job, "leases_lost"));
    printf("priority     %lld\n", count_of(job, "priority"));
    printf("sha256       job     %s\n", text_of(job, "job_sha256"));
    if (!json_is_object(take))
        return;
    printf("sha256       latents %s\n", text_of(take, "latents_sha256"));
    printf("sha256       frames  %s\n", text_of(take, "frames_sha256"));
    printf("take         %lld frames: longtake get %lld --output take.mp4\n",
           count_of(take, "frames"), count_of(job, "id"));
}

static void print_workers(const json_t *answer)
{
    size_t i;
    json_t *worker;
    printf("%-24s %-9s %-8s %6s %7s %9s  %s\n", "worker", "state", "device", "tasks", "failed",
           "busy", "task");
    json_array_foreach(json_object_get(answer, "workers"), i, worker)
    {
        const json_t *task = json_object_get(worker, "task");
        char busy[32], now[64] = "";
        if (json_is_object(task))
            snprintf(now, sizeof now, "job %lld task %lld  %lld/%lld", count_of(task, "job"),
                     count_of(task, "task"), count_of(task, "done"), count_of(task, "total"));
        printf("%-24s %-9s %-8s %6lld %7lld %9s  %s\n", text_of(worker, "name"),
               text_of(worker, "state"), text_of(worker, "device"), count_of(worker, "tasks_done"),
               count_of(worker, "tasks_failed"),
               lt_duration_format(real_of(worker, "busy_seconds"), busy), now);
    }
}

/* -- asking ------------------------------------------------------------------------------------ */

static lt_status ask(struct api *api, const struct settings *settings, const char *path, bool post,
                     void (*print)(const json_t *answer), struct lt_error *error)
{
    json_t *answer;
    LT_TRY(
        api_json(api, path, post ? "{}" : NULL, post ? 2 : 0, "application/json", &answer, error));
    settings->json ? print_json(answer) : print(answer);
    json_decref(answer);
    return LT_OK;
}

static lt_status list_jobs(struct api *api, const struct settings *settings, uint32_t job,
                           struct lt_error *error)
{
    (void)job;
    return ask(api, settings, "/v1/jobs", false, print_jobs, error);
}

static lt_status list_workers(struct api *api, const struct settings *settings, uint32_t job,
                              struct lt_error *error)
{
    (void)job;
    return ask(api, settings, "/v1/workers", false, print_workers, error);
}

static lt_status show_job(struct api *api, const struct settings *settings, uint32_t job,
                          struct lt_error *error)
{
    char path[64];
    snprintf(path, sizeof path, "/v1/jobs/%u", job);
    return ask(api, settings, path, false, print_job, error);
}

static lt_status cancel_job(struct api *api, const struct settings *settings, uint32_t job,
                            struct lt_error *error)
{
    char path[64];
    snprintf(path, sizeof path, "/v1/jobs/%u/cancel", job);
    return ask(api, settings, path, true, print_job, error);
}

static lt_status get_take(struct api *api, const struct settings *settings, uint32_t job,
                          struct lt_error *error)
{
    char path[64];
    if (!settings->output && !settings->latents && !settings->preview)
        return lt_fail(error, LT_USAGE,
                       "--output (or --latents, --preview) is needed: where should it go?");
    snprintf(path, sizeof path, "/v1/jobs/%u/preview", job);
    if (settings->preview)
        LT_TRY(api_download(api, path, settings->preview, settings->overwrite, error));
    snprintf(path, sizeof path, "/v1/jobs/%u/take", job);
    if (settings->output)
        LT_TRY(api_download(api, path, settings->output, settings->overwrite, error));
    snprintf(path, sizeof path, "/v1/jobs/%u/latents", job);
    if (settings->latents)
        LT_TRY(api_download(api, path, settings->latents, settings->overwrite, error));
    return LT_OK;
}

/* -- commands ---------------------------------------------------------------------------------- */

struct command_act {
    action *act;
};

static lt_status start(void *context, const void *settings, const struct lt_operands *operands,
                       struct lt_error *error)
{
    const struct command_act *command = context;
    const struct settings *s = settings;
    struct api *api;
    uint32_t job = 0;
    if (operands->count)
        LT_TRY(api_job_number(operands->item[0], &job, error));
    LT_TRY(api_open(s->url, s->token_file, &api, error));
    const lt_status status = command->act(api, s, job, error);
    api_close(&api);
    return status;
}

static int run(const struct lt_command *command, int argc, char **argv, action *act)
{
    struct command_act context = {act};
    return lt_command_main(command, argc, argv, sizeof(struct settings), start, &context);
}

int client_jobs(int argc, char **argv)
{
    static const struct lt_command command = {.program = "longtake jobs",
                                              .usage = "[options]",
                                              .summary = "Lists the jobs of a farm.",
                                              .options = asking,
                                              .option_count = LT_COUNT(asking)};
    return run(&command, argc, argv, list_jobs);
}

int client_workers(int argc, char **argv)
{
    static const struct lt_command command = {
        .program = "longtake workers",
        .usage = "[options]",
        .summary = "Lists the workers that are connected, and what they do.",
        .options = asking,
        .option_count = LT_COUNT(asking)};
    return run(&command, argc, argv, list_workers);
}

int client_show(int argc, char **argv)
{
    static const struct lt_command command = {
        .program = "longtake show",
        .usage = "JOB [options]",
        .summary = "Shows one job: how far it is, why it waits or failed, its digests.",
        .options = asking,
        .option_count = LT_COUNT(asking),
        .operand_min = 1,
        .operand_max = 1};
    return run(&command, argc, argv, show_job);
}

int client_cancel(int argc, char **argv)
{
    static const struct lt_command command = {
        .program = "longtake cancel",
        .usage = "JOB [options]",
        .summary = "Ends a job. Its tasks stop at their next block; its files go.",
        .options = asking,
        .option_count = LT_COUNT(asking),
        .operand_min = 1,
        .operand_max = 1};
    return run(&command, argc, argv, cancel_job);
}

int client_get(int argc, char **argv)
{
    static const struct lt_command command = {
        .program = "longtake get",
        .usage = "JOB --output TAKE.mp4 [options]",
        .summary = "Fetches the take of a completed job, whole under its name or not at all; or a "
                   "picture of "
                   "how a running one stands.",
        .examples = "  longtake get 3 --output take.mp4 --latents take.safetensors\n"
                    "  longtake get 3 --preview now.png --overwrite",
        .options = getting,
        .option_count = LT_COUNT(getting),
        .operand_min = 1,
        .operand_max = 1};
    return run(&command, argc, argv, get_take);
}
