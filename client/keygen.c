#include "client/commands.h"

#include "common/option.h"
#include "proto/link_zmq.h"

#include <stdio.h>
#include <string.h>

struct settings {
    const char *output;
};

static const struct lt_option options[] = {
    LT_OPTION(struct settings, output, TEXT, "FILE", NULL,
              .help = "where the secret key goes; FILE.pub is the public one"),
};
static const struct lt_command command = {
    .program = "longtake keygen",
    .usage = "--output FILE",
    .summary = "Makes a CURVE key pair: FILE (secret, readable by you only) and FILE.pub (to be "
               "shown to others).\n"
               "A farm on a network needs one for the coordinator and one for each worker; the "
               "coordinator's --authorized\n"
               "file lists the workers' public keys, one a line.",
    .examples = "  longtake keygen --output farm.key\n"
                "  longtake keygen --output w1.key && cat w1.key.pub >> authorized",
    .options = options,
    .option_count = LT_COUNT(options),
};

static lt_status start(void *context, const void *settings, const struct lt_operands *operands,
                       struct lt_error *error)
{
    const char *output = ((const struct settings *)settings)->output;
    (void)context;
    (void)operands;
    if (!output)
        return lt_fail(error, LT_USAGE, "--output is needed");
    LT_TRY(lt_keygen(output, error));
    printf("%s (secret) and %s.pub (public)\n", output, output);
    return LT_OK;
}

int client_keygen(int argc, char **argv)
{
    return lt_command_main(&command, argc, argv, sizeof(struct settings), start, NULL);
}
