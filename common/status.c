#include "common/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    const char *text;
    int exit_code;
} statuses[] = {
#define LT_STATUS_ROW(name, text, exit_code) {#name, text, exit_code},
    LT_STATUS_LIST(LT_STATUS_ROW)
#undef LT_STATUS_ROW
};

const char *lt_status_name(lt_status status)
{
    return (size_t)status < LT_COUNT(statuses) ? statuses[status].name : "INTERNAL";
}

const char *lt_status_text(lt_status status)
{
    return (size_t)status < LT_COUNT(statuses) ? statuses[status].text : "unknown status";
}

int lt_status_exit_code(lt_status status)
{
    return (size_t)status < LT_COUNT(statuses) ? statuses[status].exit_code : 1;
}

lt_status lt_fail(struct lt_error *error, lt_status status, const char *format, ...)
{
    if (error) {
        char text[sizeof error->text]; /* the arguments may point into error->text */
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        error->code = status;
        memcpy(error->text, text, sizeof text);
    }
    return status;
}

lt_status lt_error_prefix(struct lt_error *error, const char *format, ...)
{
    if (!error)
        return LT_INTERNAL;
    char text[sizeof error->text];
    va_list args;
    va_start(args, format);
    const int prefix = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (prefix >= 0 && (size_t)prefix < sizeof text &&
        snprintf(text + prefix, sizeof text - (size_t)prefix, ": %s", error->text) < 0)
        text[prefix] = 0; /* a long text is cut: that is fine */
    memcpy(error->text, text, sizeof text);
    return error->code;
}

_Noreturn void lt_assert_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "longtake: assertion failed: %s (%s:%d)\n", condition, file, line);
    abort();
}
