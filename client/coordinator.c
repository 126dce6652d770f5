/* longtake coordinator: the farm's centre on a network. Workers come by ZeroMQ, people and programs
 * by HTTP. It may be killed at any moment: the state folder has everything. */
#include "client/commands.h"

#include "common/file.h"
#include "common/log.h"
#include "common/option.h"
#include "coordinator/http/server.h"
#include "coordinator/publisher.h"
#include "proto/link_zmq.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct settings {
    const char *state, *listen, *http, *key, *authorized, *token_file, *log_level;
    bool insecure;
    int64_t lease_ms, quality;
};

static const struct lt_option options[] = {
    LT_OPTION(struct settings, state, TEXT, "DIR", NULL,
              .help = "the state folder: jobs, journal, takes"),
    LT_OPTION(struct settings, listen, TEXT, "ADDRESS", "tcp://127.0.0.1:7701",
              .help = "where workers connect; the port after it carries the data"),
    LT_OPTION(struct settings, http, TEXT, "HOST:PORT", "127.0.0.1:7700",
              .help = "where the API answers"),
    LT_OPTION(struct settings, key, TEXT, "FILE", NULL,
              .help = "own secret key ('longtake keygen'): workers are encrypted"),
    LT_OPTION(struct settings, authorized, TEXT, "FILE", NULL,
              .help =
                  "public keys of workers that may join, one a line; read again when it changes"),
    LT_OPTION(struct settings, token_file, TEXT, "FILE", NULL,
              .help = "the token that the API asks for"),
    LT_OPTION(struct settings, insecure, FLAG, NULL, NULL,
              .help = "allow other than local addresses without keys and token"),
    LT_OPTION(struct settings, lease_ms, INT, "MS", "30000", .min = 100, .max = 3600000,
              .help = "a worker that is silent for so long loses its task"),
    LT_OPTION(struct settings, quality, INT, "CRF", "17", .min = 0, .max = 51,
              .help = "of takes: lower is better, larger"),
    LT_OPTION(struct settings, log_level, TEXT, "LEVEL", "info",
              .choices = "debug|info|warn|error|off", .help = "least level that is logged"),
};
static const struct lt_command command = {
    .program = "longtake coordinator",
    .usage = "--state DIR [options]",
    .summary = "Runs a farm: takes jobs over HTTP, leases their tasks to the workers that connect, "
               "writes the takes.\n"
               "It may be killed and started again at any time: it goes on with what its state "
               "folder says.",
    .examples = "  longtake coordinator --state farm/\n"
                "  longtake coordinator --state farm/ --listen tcp://0.0.0.0:7701 --key farm.key "
                "--authorized workers \\\n"
                "      --http 0.0.0.0:7700 --token-file token",
    .options = options,
    .option_count = LT_COUNT(options),
};

enum { STEP_MS = 200, TOKEN_BYTES_MAX = 1024 };

struct farm {
    char outputs[PATH_MAX];
    char *token;
    struct lt_link *link;
    struct coordinator *coordinator;
    struct publisher *publisher;
    struct http_server *http;
};

static volatile sig_atomic_t stop_signals;

static void on_signal(int number)
{
    (void)number;
    stop_signals++;
}

static lt_status read_token(const char *path, char **token_out, struct lt_error *error)
{
    void *data;
    size_t bytes;
    LT_TRY(lt_file_read(path, TOKEN_BYTES_MAX, &data, &bytes, error));
    char *token = data;
    token[strcspn(token, "\r\n")] = 0;
    if (strlen(token) < 16) {
        free(data);
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: expected a token of at least 16 characters on the first line", path);
    }
    *token_out = token;
    return LT_OK;
}

static lt_status begin(struct farm *farm, const struct settings *s, struct lt_error *error)
{
    LT_TRY(lt_path_join(farm->outputs, sizeof farm->outputs, s->state, "outputs", error));
    if (s->token_file)
        LT_TRY(read_token(s->token_file, &farm->token, error));
    const struct lt_zmq_params link = {.endpoint = s->listen,
                                       .key_file = s->key,
                                       .authorized_file = s->authorized,
                                       .insecure = s->insecure};
    LT_TRY(lt_dir_create(s->state, error));
    LT_TRY(lt_zmq_bind(&link, &farm->link, error));
    LT_TRY(publisher_create(
        &(struct publisher_params){.outputs = farm->outputs, .quality = (int)s->quality},
        &farm->publisher, error));
    const struct coordinator_params params = {.state_dir = s->state,
                                              .link = farm->link,
                                              .lease_ms = s->lease_ms,
                                              .heartbeat_ms =
                                                  s->lease_ms / 5 < 2000 ? s->lease_ms / 5 : 2000,
                                              .restart_grace_ms = -1,
                                              .listener = publisher_listen,
                                              .listener_context = farm->publisher};
    LT_TRY(coordinator_create(&params, &farm->coordinator, error));
    publisher_attach(farm->publisher, farm->coordinator);
    const struct http_params http = {.address = s->http,
                                     .token = farm->token,
                                     .insecure = s->insecure,
                                     .outputs = farm->outputs,
                                     .coordinator = farm->coordinator,
                                     .link = farm->link};
    return http_server_start(&http, &farm->http, error);
}

static void end(struct farm *farm)
{
    if (farm->coordinator)
        coordinator_close_calls(farm->coordinator);
    http_server_stop(&farm->http);
    publisher_destroy(&farm->publisher);
    coordinator_destroy(&farm->coordinator);
    if (farm->link)
        farm->link->ops->destroy(farm->link);
    if (farm->token)
        explicit_bzero(farm->token, strlen(farm->token));
    free(farm->token);
}

static lt_status run(const struct settings *settings, struct lt_error *error)
{
    struct farm farm = {0};
    enum lt_log_level level;
    if (!settings->state)
        return lt_fail(error, LT_USAGE,
                       "--state is needed: the folder where jobs and takes are kept");
    if (lt_log_level_parse(settings->log_level, &level))
        lt_log_set_level(level);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    signal(SIGPIPE, SIG_IGN);
    lt_status status = begin(&farm, settings, error);
    if (status == LT_OK)
        lt_log(LT_LOG_INFO, "coordinator.start", "state=%s workers=%s http=%s", settings->state,
               settings->listen, settings->http);
    while (status == LT_OK && !stop_signals)
        status = coordinator_step(farm.coordinator, STEP_MS, error);
    if (status == LT_OK)
        lt_log(LT_LOG_INFO, "coordinator.stop",
               "workers keep their tasks; start it again to go on");
    end(&farm);
    return status;
}

static lt_status start(void *context, const void *settings, const struct lt_operands *operands,
                       struct lt_error *error)
{
    (void)context;
    (void)operands;
    return run(settings, error);
}

int client_coordinator(int argc, char **argv)
{
    return lt_command_main(&command, argc, argv, sizeof(struct settings), start, NULL);
}
