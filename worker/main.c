/* longtake-worker: the engine of the farm. One table of commands; each command lives in its own
 * file. */
#include "worker/commands.h"

#include "common/status.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
#define WORKER_COMMAND_ROW(name, function, summary) {name, function, summary},
    WORKER_COMMAND_LIST(WORKER_COMMAND_ROW)
#undef WORKER_COMMAND_ROW
        {NULL, NULL, NULL},
};

static void print_help(FILE *to)
{
    fprintf(to, "longtake-worker %s: computes the tasks of a longtake farm\n\nCommands:\n",
            LT_VERSION);
    for (size_t i = 0; commands[i].name; i++)
        fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fprintf(to, "\n'longtake-worker COMMAND --help' explains one.\n");
}

int main(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        print_help(argc < 2 ? stderr : stdout);
        return argc < 2 ? lt_status_exit_code(LT_USAGE) : 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("longtake-worker %s\n", LT_VERSION);
        return 0;
    }
    for (size_t i = 0; commands[i].name; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "longtake-worker: no command '%s'\n\n", argv[1]);
    print_help(stderr);
    return lt_status_exit_code(LT_USAGE);
}
