#include "client/commands.h"

#include "client/api.h"
#include "client/job_file.h"
#include "client/watch.h"
#include "common/file.h"
#include "coordinator/coordinator.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct settings {
    const char *url, *token_file;
    int64_t priority;
    bool watch, json;
};

static const struct lt_option options[] = {
    API_OPTIONS(struct settings),
    LT_OPTION(struct settings, priority, INT, "N", "0", .min = -1000, .max = 1000,
              .help = "higher goes first"),
    LT_OPTION(struct settings, watch, FLAG, NULL, NULL,
              .help = "and stay until it is done ('longtake watch')"),
    LT_OPTION(struct settings, json, FLAG, NULL, NULL, .help = "print the answer as JSON"),
};
static const struct lt_command command = {
    .program = "longtake submit",
    .usage = "JOB.json [options]",
    .summary = "Gives a job to a farm and prints its number. The prompt's features are sent along; "
               "the models are files\n"
               "that the workers have. The same job given twice is one job.",
    .examples = "  longtake submit take.json\n  longtake submit take.json --priority 10 --watch",
    .options = options,
    .option_count = LT_COUNT(options),
    .operand_min = 1,
    .operand_max = 1,
};

/* Sends the features of text.<which> and puts their digest in its place. */
static lt_status send_text(struct api *api, const struct job_file *file, json_t *text,
                           const char *which, struct lt_error *error)
{
    const char *path = json_string_value(json_object_get(text, which));
    char full[PATH_MAX], name[128];
    void *data;
    size_t bytes;
    json_t *answer;
    const char *digest = NULL;
    if (!path || strncmp(path, "sha256:", 7) == 0)
        return LT_OK;
    LT_TRY(path[0] == '/' ? lt_path_join(full, sizeof full, path, "", error)
                          : lt_path_join(full, sizeof full, file->dir, path, error));
    LT_TRY(coordinator_read_text(path[0] == '/' ? path : full, &data, &bytes, error));
    const lt_status status =
        api_json(api, "/v1/blobs", data, bytes, "application/octet-stream", &answer, error);
    free(data);
    LT_TRY(status);
    json_unpack(answer, "{s:s}", "sha256", &digest);
    snprintf(name, sizeof name, "sha256:%.64s", digest ? digest : "");
    json_object_set_new(text, which, json_string(name));
    json_decref(answer);
    return LT_OK;
}

static lt_status submit(struct api *api, const struct settings *s, const char *path,
                        uint32_t *job_out, json_t **answer_out, struct lt_error *error)
{
    struct job_file file;
    char request[64], *body = NULL;
    LT_TRY(job_file_read(path, &file,
                         error)); /* what is wrong with it is said before anything is sent */
    json_t *json = json_loadb(file.json, file.bytes, 0, NULL),
           *text = json_object_get(json, "text");
    lt_status status = json ? LT_OK : lt_fail(error, LT_BAD_INPUT, "%s: not JSON", path);
    if (status == LT_OK)
        status = send_text(api, &file, text, "positive", error);
    if (status == LT_OK)
        status = send_text(api, &file, text, "negative", error);
    if (status == LT_OK && !(body = json_dumps(json, JSON_COMPACT)))
        status = lt_fail(error, LT_NO_MEMORY, "no memory");
    snprintf(request, sizeof request, "/v1/jobs?priority=%lld", (long long)s->priority);
    if (status == LT_OK)
        status = api_json(api, request, body, strlen(body), "application/json", answer_out, error);
    if (status == LT_OK)
        *job_out = (uint32_t)json_integer_value(json_object_get(*answer_out, "id"));
    free(body);
    json_decref(json);
    job_file_fini(&file);
    return status;
}

static lt_status run(const char *path, const struct settings *s, struct lt_error *error)
{
    struct api *api;
    json_t *answer;
    uint32_t job = 0;
    LT_TRY(api_open(s->url, s->token_file, &api, error));
    lt_status status = submit(api, s, path, &job, &answer, error);
    if (status == LT_OK) {
        if (s->json)
            json_dumpf(answer, stdout, JSON_COMPACT), putchar('\n');
        else
            printf("job %u%s\n", job,
                   json_is_true(json_object_get(answer, "existed")) ? " (it was there already)"
                                                                    : "");
        fflush(stdout);
        json_decref(answer);
        if (s->watch)
            status = watch_job(api, job, error);
    }
    api_close(&api);
    return status;
}

static lt_status start(void *context, const void *settings, const struct lt_operands *operands,
                       struct lt_error *error)
{
    (void)context;
    return run(operands->item[0], settings, error);
}

int client_submit(int argc, char **argv)
{
    return lt_command_main(&command, argc, argv, sizeof(struct settings), start, NULL);
}
