#include "client/commands.h"

#include "client/api.h"
#include "client/inputs.h"
#include "client/watch.h"

#include <stdio.h>
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
    .summary = "Gives a job to a farm and prints its number. What it names beside its models is "
               "sent along; "
               "the models are files\n"
               "that the workers have. The same job given twice is one job.",
    .examples = "  longtake submit take.json\n  longtake submit take.json --priority 10 --watch",
    .options = options,
    .option_count = LT_COUNT(options),
    .operand_min = 1,
    .operand_max = 1,
};

static lt_status post_blob(void *context, const void *data, size_t bytes,
                           struct lt_digest *digest_out, struct lt_error *error)
{
    const char *hex = NULL;
    json_t *answer;
    LT_TRY(api_json(context, "/v1/blobs", data, bytes, "application/octet-stream", &answer, error));
    json_unpack(answer, "{s:s}", "sha256", &hex);
    const bool fine = hex && lt_digest_parse(hex, digest_out);
    json_decref(answer);
    return fine ? LT_OK : lt_fail(error, LT_LINK, "the coordinator names no digest of a blob");
}

static lt_status submit(struct api *api, const struct settings *s, const char *path,
                        uint32_t *job_out, json_t **answer_out, struct lt_error *error)
{
    struct job_file file;
    char request[64], *json;
    LT_TRY(job_file_read(path, &file,
                         error)); /* what is wrong with it is said before anything is sent */
    lt_status status = inputs_upload(&file, post_blob, api, error);
    if (status == LT_OK)
        status = job_format(&file.job, &file.arena, &json, error);
    snprintf(request, sizeof request, "/v1/jobs?priority=%lld", (long long)s->priority);
    if (status == LT_OK)
        status = api_json(api, request, json, strlen(json), "application/json", answer_out, error);
    if (status == LT_OK)
        *job_out = (uint32_t)json_integer_value(json_object_get(*answer_out, "id"));
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
