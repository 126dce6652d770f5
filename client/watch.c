#include "client/watch.h"

#include "client/commands.h"
#include "common/clock.h"
#include "common/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct settings {
    const char *url, *token_file;
};

static const struct lt_option options[] = {API_OPTIONS(struct settings)};
static const struct lt_command command = {
    .program = "longtake watch",
    .usage = "JOB [options]",
    .summary = "Shows how far a job is until it has ended. The exit code tells how: 0 completed, "
               "12 cancelled, else why\n"
               "it failed. Leaving does not disturb the job.",
    .examples = "  longtake watch 3\n  longtake watch 3 && longtake get 3 --output take.mp4",
    .options = options,
    .option_count = LT_COUNT(options),
    .operand_min = 1,
    .operand_max = 1,
};

enum { POLL_US = 300000 };
static const int64_t AWAY_US_MAX = 300000000; /* a coordinator that restarts is back within this */

static const char *text_of(const json_t *job, const char *name)
{
    const char *text = json_string_value(json_object_get(job, name));
    return text ? text : "";
}

static int number_of(const json_t *progress, const char *name)
{
    return (int)json_integer_value(json_object_get(progress, name));
}

static void show(struct lt_progress_bar *bar, const json_t *job)
{
    const json_t *p = json_object_get(job, "progress"), *eta = json_object_get(job, "eta_seconds");
    const char *reason = text_of(job, "reason");
    char text[256];
    if (reason[0])
        snprintf(text, sizeof text, "%.200s", reason);
    else if (number_of(p, "predictions_done") < number_of(p, "predictions"))
        snprintf(text, sizeof text, "%s  step %d/%d  windows %d/%d", text_of(job, "state"),
                 number_of(p, "step") + 1, number_of(p, "steps"), number_of(p, "predictions_done"),
                 number_of(p, "predictions"));
    else
        snprintf(text, sizeof text, "%s  decoding %d/%d", text_of(job, "state"),
                 number_of(p, "decodes_done"), number_of(p, "decodes"));
    lt_progress_show(bar, lt_clock_now_us(), json_number_value(json_object_get(job, "fraction")),
                     json_is_number(eta) ? json_number_value(eta) : -1, text);
}

static lt_status status_named(const char *name)
{
    for (int status = 1; status < LT_STATUS_COUNT; status++)
        if (strcmp(name, lt_status_name((lt_status)status)) == 0)
            return (lt_status)status;
    return LT_INTERNAL;
}

/* True when the job has ended: *status_out says how. */
static bool has_ended(const json_t *job, uint32_t number, lt_status *status_out,
                      struct lt_error *error)
{
    const char *state = text_of(job, "state"), *reason = text_of(job, "reason");
    if (strcmp(state, "completed") == 0)
        *status_out = LT_OK;
    else if (strcmp(state, "canceled") == 0)
        *status_out = lt_fail(error, LT_CANCELLED, "job %u was cancelled", number);
    else if (strcmp(state, "failed") == 0)
        *status_out = lt_fail(error, status_named(text_of(job, "status")), "job %u failed: %s",
                              number, reason);
    else
        return false;
    return true;
}

lt_status watch_job(struct api *api, uint32_t number, struct lt_error *error)
{
    struct lt_progress_bar bar;
    char path[64];
    int64_t heard_us = lt_clock_now_us();
    lt_status status = LT_OK;
    snprintf(path, sizeof path, "/v1/jobs/%u", number);
    lt_progress_begin(&bar, stderr, heard_us);
    for (bool ended = false; !ended && status == LT_OK;) {
        json_t *job;
        status = api_json(api, path, NULL, 0, NULL, &job, error);
        if (status == LT_OK) {
            heard_us = lt_clock_now_us();
            ended = has_ended(job, number, &status, error);
            if (!ended)
                show(&bar, job);
            json_decref(job);
        } else if (status == LT_LINK && lt_clock_now_us() - heard_us < AWAY_US_MAX) {
            lt_progress_show(&bar, lt_clock_now_us(), 0, -1,
                             "the coordinator does not answer; waiting for it");
            status = LT_OK;
        }
        if (!ended && status == LT_OK)
            usleep(POLL_US);
    }
    lt_progress_end(&bar);
    return status;
}

static lt_status run(const char *text, const struct settings *s, struct lt_error *error)
{
    struct api *api;
    uint32_t job;
    LT_TRY(api_job_number(text, &job, error));
    LT_TRY(api_open(s->url, s->token_file, &api, error));
    const lt_status status = watch_job(api, job, error);
    api_close(&api);
    return status;
}

static lt_status start(void *context, const void *settings, const struct lt_operands *operands,
                       struct lt_error *error)
{
    (void)context;
    return run(operands->item[0], settings, error);
}

int client_watch(int argc, char **argv)
{
    return lt_command_main(&command, argc, argv, sizeof(struct settings), start, NULL);
}
