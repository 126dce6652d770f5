#include "common/option.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_MAX_BYTES = 64 };

/* Field names have '_' where people write '-'. */
static void shown_name(const struct lt_option *option, char name[NAME_MAX_BYTES])
{
    snprintf(name, NAME_MAX_BYTES, "%s", option->name);
    for (char *c = name; *c; c++)
        if (*c == '_')
            *c = '-';
}

static void environment_name(const struct lt_option *option, char name[NAME_MAX_BYTES])
{
    snprintf(name, NAME_MAX_BYTES, "LONGTAKE_%s", option->name);
    for (char *c = name; *c; c++)
        *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
}

bool lt_size_parse(const char *text, uint64_t *bytes_out)
{
    static const struct {
        const char *name;
        double factor;
    } units[] = {{"", 1},        {"B", 1},         {"K", 1024},       {"KiB", 1024},
                 {"M", 1048576}, {"MiB", 1048576}, {"G", 1073741824}, {"GiB", 1073741824},
                 {"T", 0x1p40},  {"TiB", 0x1p40},  {"KB", 1e3},       {"MB", 1e6},
                 {"GB", 1e9},    {"TB", 1e12}};
    char *end;
    if (!isdigit((unsigned char)text[0]))
        return false;
    errno = 0;
    const double number = strtod(text, &end);
    while (*end == ' ')
        end++;
    for (size_t i = 0; i < LT_COUNT(units); i++)
        if (strcasecmp(end, units[i].name) == 0) {
            const double bytes = number * units[i].factor;
            if (errno || !(bytes >= 0 && bytes < 9e18))
                return false;
            *bytes_out = (uint64_t)bytes;
            return true;
        }
    return false;
}

const char *lt_size_format(uint64_t bytes, char buffer[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < LT_COUNT(units)) {
        value /= 1024;
        unit++;
    }
    snprintf(buffer, 32,
             unit == 0    ? "%.0f %s"
             : value < 10 ? "%.2f %s"
                          : "%.1f %s",
             value, units[unit]);
    return buffer;
}

/* -- values ------------------------------------------------------------------------------------ */

static bool choice_allowed(const char *choices, const char *value)
{
    const size_t length = strlen(value);
    for (const char *c = choices; c; c = strchr(c, '|') ? strchr(c, '|') + 1 : NULL)
        if (strncmp(c, value, length) == 0 && (c[length] == '|' || c[length] == 0))
            return true;
    return false;
}

static lt_status bad_value(const struct lt_option *option, const char *value, const char *expected,
                           struct lt_error *error)
{
    char name[NAME_MAX_BYTES];
    shown_name(option, name);
    return lt_fail(error, LT_USAGE, "--%s: expected %s, got '%s'", name, expected, value);
}

static lt_status check_range(const struct lt_option *option, double number, const char *value,
                             struct lt_error *error)
{
    char expected[96];
    if (option->max <= option->min || (number >= option->min && number <= option->max))
        return LT_OK;
    snprintf(expected, sizeof expected, "a value from %g to %g", option->min, option->max);
    return bad_value(option, value, expected, error);
}

static lt_status add_to_list(struct lt_text_list *list, const char *value, struct lt_error *error)
{
    const char **grown = realloc(list->item, (list->count + 1) * sizeof *grown);
    if (!grown)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the options");
    grown[list->count++] = value;
    list->item = grown;
    return LT_OK;
}

static lt_status set_value(const struct lt_option *option, const char *value, void *settings,
                           struct lt_error *error)
{
    void *field = (char *)settings + option->offset;
    char *end;
    errno = 0;
    switch (option->kind) {
    case LT_OPTION_FLAG:
        if (!choice_allowed("1|0|true|false|yes|no", value))
            return bad_value(option, value, "true or false", error);
        *(bool *)field = strchr("1ty", value[0]) != NULL;
        return LT_OK;
    case LT_OPTION_INT: {
        const long long number = strtoll(value, &end, 10);
        if (errno || end == value || *end)
            return bad_value(option, value, "a whole number", error);
        LT_TRY(check_range(option, (double)number, value, error));
        *(int64_t *)field = number;
        return LT_OK;
    }
    case LT_OPTION_REAL: {
        const double number = strtod(value, &end);
        if (errno || end == value || *end || !isfinite(number))
            return bad_value(option, value, "a number", error);
        LT_TRY(check_range(option, number, value, error));
        *(double *)field = number;
        return LT_OK;
    }
    case LT_OPTION_SIZE: {
        uint64_t bytes;
        if (!lt_size_parse(value, &bytes))
            return bad_value(option, value, "a size such as 512MiB or 6GiB", error);
        LT_TRY(check_range(option, (double)bytes, value, error));
        *(uint64_t *)field = bytes;
        return LT_OK;
    }
    case LT_OPTION_TEXT:
        if (option->choices && !choice_allowed(option->choices, value))
            return bad_value(option, value, option->choices, error);
        *(const char **)field = value;
        return LT_OK;
    case LT_OPTION_LIST:
        return add_to_list(field, value, error);
    }
    return LT_INTERNAL;
}

/* -- names ------------------------------------------------------------------------------------- */

static const struct lt_option *find(const struct lt_command *command, const char *name,
                                    size_t length)
{
    for (size_t i = 0; i < command->option_count; i++) {
        char shown[NAME_MAX_BYTES];
        shown_name(&command->options[i], shown);
        if (strlen(shown) == length && strncmp(shown, name, length) == 0)
            return &command->options[i];
    }
    return NULL;
}

size_t lt_edit_distance(const char *a, size_t a_length, const char *b)
{
    size_t row[NAME_MAX_BYTES + 1];
    const size_t b_length = strlen(b);
    lt_assert(b_length <= NAME_MAX_BYTES);
    for (size_t j = 0; j <= b_length; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            const size_t above = row[j];
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            best = above + 1 < best ? above + 1 : best;
            row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            diagonal = above;
        }
    }
    return row[b_length];
}

static lt_status unknown_option(const struct lt_command *command, const char *name, size_t length,
                                struct lt_error *error)
{
    char nearest[NAME_MAX_BYTES] = "";
    size_t best = 4;
    for (size_t i = 0; i < command->option_count && length < NAME_MAX_BYTES; i++) {
        char shown[NAME_MAX_BYTES];
        shown_name(&command->options[i], shown);
        const size_t distance = lt_edit_distance(name, length, shown);
        if (distance < best) {
            best = distance;
            snprintf(nearest, sizeof nearest, "%s", shown);
        }
    }
    if (nearest[0])
        return lt_fail(error, LT_USAGE, "no option --%.*s; did you mean --%s?", (int)length, name,
                       nearest);
    return lt_fail(error, LT_USAGE, "no option --%.*s; '%s --help' lists them", (int)length, name,
                   command->program);
}

/* -- parsing ----------------------------------------------------------------------------------- */

static lt_status set_defaults(const struct lt_command *command, void *settings,
                              struct lt_error *error)
{
    for (size_t i = 0; i < command->option_count; i++) {
        char name[NAME_MAX_BYTES];
        const struct lt_option *option = &command->options[i];
        environment_name(option, name);
        const char *value = getenv(name);
        if (value && *value) {
            if (set_value(option, value, settings, error) != LT_OK)
                return lt_error_prefix(error, "environment %s", name);
        } else if (option->default_text) {
            LT_TRY(set_value(option, option->default_text, settings, error));
        }
    }
    return LT_OK;
}

/* One "--name[=value]" at argv[*index]; takes the next argument when it needs one. */
static lt_status parse_option(const struct lt_command *command, int argc, char **argv, int *index,
                              void *settings, struct lt_error *error)
{
    const char *name = argv[*index] + 2;
    const char *equals = strchr(name, '=');
    const size_t length = equals ? (size_t)(equals - name) : strlen(name);
    const struct lt_option *option = find(command, name, length);
    if (!option && length > 3 && strncmp(name, "no-", 3) == 0) {
        option = find(command, name + 3, length - 3);
        if (option && option->kind == LT_OPTION_FLAG && !equals)
            return set_value(option, "false", settings, error);
        option = NULL;
    }
    if (!option)
        return unknown_option(command, name, length, error);
    if (equals)
        return set_value(option, equals + 1, settings, error);
    if (option->kind == LT_OPTION_FLAG)
        return set_value(option, "true", settings, error);
    if (*index + 1 >= argc)
        return lt_fail(error, LT_USAGE, "--%s needs a value (%s)", name, option->value_name);
    return set_value(option, argv[++*index], settings, error);
}

static lt_status check_operands(const struct lt_command *command, size_t count,
                                struct lt_error *error)
{
    if (count < command->operand_min)
        return lt_fail(error, LT_USAGE, "usage: %s %s", command->program, command->usage);
    if (count > command->operand_max)
        return lt_fail(error, LT_USAGE, "too many arguments; usage: %s %s", command->program,
                       command->usage);
    return LT_OK;
}

lt_status lt_options_parse(const struct lt_command *command, int argc, char **argv, void *settings,
                           size_t settings_bytes, struct lt_operands *operands_out, bool *help_out,
                           struct lt_error *error)
{
    struct lt_text_list operands = {0};
    bool options_end = false;
    memset(settings, 0, settings_bytes);
    *help_out = false;
    *operands_out = (struct lt_operands){0};
    lt_status status = set_defaults(command, settings, error);
    for (int i = 1; i < argc && status == LT_OK; i++) {
        if (!options_end && (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)) {
            lt_options_help(command, stdout);
            *help_out = true;
            break;
        }
        if (!options_end && strcmp(argv[i], "--") == 0)
            options_end = true;
        else if (!options_end && strncmp(argv[i], "--", 2) == 0)
            status = parse_option(command, argc, argv, &i, settings, error);
        else if (!options_end && argv[i][0] == '-' && argv[i][1])
            status = lt_fail(error, LT_USAGE, "no option %s; options have two dashes", argv[i]);
        else
            status = add_to_list(&operands, argv[i], error);
    }
    if (status == LT_OK && !*help_out)
        status = check_operands(command, operands.count, error);
    *operands_out = (struct lt_operands){operands.item, operands.count};
    if (status != LT_OK)
        lt_options_free(command, settings, operands_out);
    return status;
}

void lt_options_free(const struct lt_command *command, void *settings, struct lt_operands *operands)
{
    for (size_t i = 0; i < command->option_count; i++)
        if (command->options[i].kind == LT_OPTION_LIST) {
            struct lt_text_list *list =
                (struct lt_text_list *)(void *)((char *)settings + command->options[i].offset);
            free(list->item);
            *list = (struct lt_text_list){0};
        }
    free((void *)operands->item);
    *operands = (struct lt_operands){0};
}

/* -- help -------------------------------------------------------------------------------------- */

static void label(const struct lt_option *option, char *text, size_t size)
{
    char name[NAME_MAX_BYTES];
    shown_name(option, name);
    if (option->kind == LT_OPTION_FLAG)
        snprintf(text, size, "--%s", name);
    else
        snprintf(text, size, "--%s %s", name, option->value_name);
}

void lt_options_help(const struct lt_command *command, FILE *to)
{
    fprintf(to, "usage: %s %s\n\n%s\n", command->program, command->usage, command->summary);
    if (command->option_count)
        fprintf(to, "\nOptions:\n");
    for (size_t i = 0; i < command->option_count; i++) {
        const struct lt_option *option = &command->options[i];
        char left[128];
        label(option, left, sizeof left);
        fprintf(to, "  %-28s %s", left, option->help);
        if (option->choices)
            fprintf(to, " (%s)", option->choices);
        if (option->default_text && option->kind != LT_OPTION_FLAG)
            fprintf(to, " [%s]", option->default_text);
        fprintf(to, "\n");
    }
    if (command->examples)
        fprintf(to, "\nExamples:\n%s\n", command->examples);
}

int lt_command_main(const struct lt_command *command, int argc, char **argv, size_t settings_bytes,
                    lt_command_run *run, void *context)
{
    struct lt_operands operands = {0};
    struct lt_error error = {0};
    bool help = false;
    void *settings = calloc(1, settings_bytes);
    lt_assert(settings);
    lt_status status =
        lt_options_parse(command, argc, argv, settings, settings_bytes, &operands, &help, &error);
    if (status == LT_OK && !help)
        status = run(context, settings, &operands, &error);
    if (status != LT_OK)
        fprintf(stderr, "%s: %s\n", command->program, error.text);
    lt_options_free(command, settings, &operands);
    free(settings);
    return lt_status_exit_code(status);
}
