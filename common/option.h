/* One table of options per command: flags, environment names, defaults, --help and docs come from
 * it.
 *
 *   struct settings { int64_t workers; const char *output; bool json; };
 *   static const struct lt_option options[] = {
 *       LT_OPTION(struct settings, workers, INT, "N", "2", .min = 1, .max = 256,
 *                 .help = "worker processes to start"),
 *       ...
 *   };
 *
 * Order: command line, environment (LONGTAKE_<NAME> with '-' as '_', upper case), default. Unknown
 * options are LT_USAGE errors that name the nearest known one. Sizes take B, KiB, MiB, GiB, K, M,
 * G. */
#pragma once

#include "common/status.h"

#include <stdio.h>

enum lt_option_kind {
    LT_OPTION_FLAG, /* bool; --name or --no-name */
    LT_OPTION_INT,  /* int64_t */
    LT_OPTION_REAL, /* double */
    LT_OPTION_SIZE, /* uint64_t bytes */
    LT_OPTION_TEXT, /* const char * (borrowed from argv, environment or the table) */
    LT_OPTION_LIST, /* struct lt_text_list: may be given many times */
};

struct lt_text_list {
    const char **item; /* freed by lt_options_free */
    size_t count;
};

struct lt_option {
    const char *name; /* without dashes; '_' of a field name is shown as '-' */
    enum lt_option_kind kind;
    size_t offset;
    const char *value_name;   /* shown in --help: "N", "FILE" */
    const char *default_text; /* NULL: unset (zero, NULL) */
    double min, max;          /* numbers: checked when max > min */
    const char *choices;      /* text: "a|b|c", NULL = anything */
    const char *help;
};

#define LT_OPTION(type, field, kind_, value, default_, ...)                                        \
    {                                                                                              \
        .name = #field, .kind = LT_OPTION_##kind_, .offset = offsetof(type, field),                \
        .value_name = value, .default_text = default_, __VA_ARGS__                                 \
    }

struct lt_command {
    const char *program;  /* "longtake render" */
    const char *usage;    /* "JOB.json [options]" */
    const char *summary;  /* what it does, a few sentences that teach */
    const char *examples; /* NULL or lines shown under "Examples:" */
    const struct lt_option *options;
    size_t option_count;
    size_t operand_min, operand_max;
};

struct lt_operands {
    const char *const *item;
    size_t count;
};

/* Fills `settings` (zeroed by this call) from defaults, environment and argv[1..]. With --help
 * prints it to stdout and sets *help_out; the caller then exits 0. The operands array belongs to
 * `settings`' lists: free both by lt_options_free. */
lt_status lt_options_parse(const struct lt_command *command, int argc, char **argv, void *settings,
                           size_t settings_bytes, struct lt_operands *operands_out, bool *help_out,
                           struct lt_error *error);
void lt_options_free(const struct lt_command *command, void *settings,
                     struct lt_operands *operands);
void lt_options_help(const struct lt_command *command, FILE *to);

/* The whole of a command: parses, prints --help, runs, prints "program: error" to stderr. Gives the
 * exit code. `settings` is the struct of `settings_bytes` that the options name. */
typedef lt_status lt_command_run(void *context, const void *settings,
                                 const struct lt_operands *operands, struct lt_error *error);
int lt_command_main(const struct lt_command *command, int argc, char **argv, size_t settings_bytes,
                    lt_command_run *run, void *context);

/* "1.5GiB" -> bytes; "12" -> 12. */
bool lt_size_parse(const char *text, uint64_t *bytes_out);
/* "1.5 GiB" in a buffer. */
const char *lt_size_format(uint64_t bytes, char buffer[32]);

/* Insertions, deletions and replacements from `a` to a known name `b` of at most 64 bytes: "did you
 * mean". */
size_t lt_edit_distance(const char *a, size_t a_length, const char *b);
