#include "client/commands.h"

#include "common/option.h"
#include "proto/link_zmq.h"

#include <stdio.h>
#include <string.h>

struct settings {
    const char *output;
};

static const struct lt_option options[] = {
    LT_OPTION(struct settings, output, TEXT, "FILE", NULL, .help = "where the secret key goes; FILE.pub is the public one"),
};
static const struct lt_command command = {
    .program = "longtake keygen",
    .usage = "--output FILE",
    .summary = "Makes a CURVE key pair: FILE (secret, readable by you only) and FILE.pub (to be shown to others).\n"
               "A farm on a network needs one for the coordinator and one for each worker; the coordinator's --authorized\n"
               "file lists the workers' public keys, one a line.",
    .examples = "  longtake keygen --output farm.key\n"
                "  longtake keygen --output w1.key && cat w1.key.pub >> authorized",
    .options = options,
    .option_count = LT_COUNT(options),
};

int client_keygen(int argc, char **argv)
{
    struct settings settings;
    struct lt_operands operands;
    struct lt_error error;
    bool help;
    lt_status status = lt_options_parse(&command, argc, argv, &settings, sizeof settings, &operands, &help, &error);
    if (status == LT_OK && !help && !settings.output)
        status = lt_fail(&error, LT_USAGE, "--output is needed");
    if (status == LT_OK && !help)
        status = lt_keygen(settings.output, &error);
    if (status == LT_OK && !help)
        printf("%s (secret) and %s.pub (public)\n", settings.output, settings.output);
    if (status != LT_OK)
        fprintf(stderr, "longtake keygen: %s\n", error.text);
    lt_options_free(&command, &settings, &operands);
    return lt_status_exit_code(status);
}
