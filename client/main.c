/* longtake: the client and the coordinator. One table of commands; each command lives in its own
 * file. */
#include "client/commands.h"

#include "common/status.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
#define CLIENT_COMMAND_ROW(name, function, summary) {name, function, summary},
    CLIENT_COMMAND_LIST(CLIENT_COMMAND_ROW)
#undef CLIENT_COMMAND_ROW
};

static void print_help(FILE *to)
{
    fprintf(to, "longtake %s: renders long AI video on many GPUs\n\nCommands:\n", LT_VERSION);
    for (size_t i = 0; i < LT_COUNT(commands); i++)
        fprintf(to, "  %-12s %s\n", commands[i].name, commands[i].summary);
    fprintf(to, "\n'longtake COMMAND --help' explains one. Start with: longtake render JOB.json "
                "--workers 2 "
                "--output take.mp4\n");
}

int main(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        print_help(argc < 2 ? stderr : stdout);
        return argc < 2 ? lt_status_exit_code(LT_USAGE) : 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("longtake %s\n", LT_VERSION);
        return 0;
    }
    for (size_t i = 0; i < LT_COUNT(commands); i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "longtake: no command '%s'\n\n", argv[1]);
    print_help(stderr);
    return lt_status_exit_code(LT_USAGE);
}
