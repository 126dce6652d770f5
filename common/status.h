/* Status codes and the error that explains one.
 *
 * The code is for the program (retry or give up, exit code); the text is for the operator: it names
 * the file, the field, what was expected and what was found. An lt_error belongs to the caller and
 * may be NULL. Outputs of a failing call are left untouched. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*   name, text, process exit code (docs/configuration.md lists them) */
#define LT_STATUS_LIST(X)                                                                          \
    X(OK, "ok", 0)                                                                                 \
    X(INTERNAL, "an error of longtake itself", 1)                                                  \
    X(USAGE, "the command line is not right", 2)                                                   \
    X(BAD_INPUT, "the input is not acceptable", 3)                                                 \
    X(NOT_FOUND, "not found", 4)                                                                   \
    X(UNSUPPORTED, "not supported", 5)                                                             \
    X(NO_MEMORY, "out of memory", 6)                                                               \
    X(NO_DEVICE_MEMORY, "out of device memory", 7)                                                 \
    X(IO, "reading or writing failed", 8)                                                          \
    X(DEVICE, "the device or its driver failed", 9)                                                \
    X(LINK, "a peer is gone or silent", 10)                                                        \
    X(TIMEOUT, "it took too long", 11)                                                             \
    X(CANCELLED, "cancelled", 12)                                                                  \
    X(CORRUPT, "stored data is damaged", 13)                                                       \
    X(CONFLICT, "it contradicts what is already there", 14)                                        \
    X(BUSY, "it is in use", 15)

typedef enum lt_status {
#define LT_STATUS_ENUM(name, text, exit_code) LT_##name,
    LT_STATUS_LIST(LT_STATUS_ENUM)
#undef LT_STATUS_ENUM
        LT_STATUS_COUNT
} lt_status;

struct lt_error {
    lt_status code;
    char text[1024]; /* always terminated */
};

/* "BAD_INPUT": stable, for logs and JSON. */
const char *lt_status_name(lt_status status);
/* "the input is not acceptable": for people. */
const char *lt_status_text(lt_status status);
int lt_status_exit_code(lt_status status);

/* Records `status` and the text, and returns `status`: `return lt_fail(error, LT_IO, "%s: …",
 * path);`. A NULL error is allowed. */
lt_status lt_fail(struct lt_error *error, lt_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "context: " before a text already recorded, and returns the error's code. */
lt_status lt_error_prefix(struct lt_error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Leaves the function with the status of `call` if it is not LT_OK. */
#define LT_TRY(call)                                                                               \
    do {                                                                                           \
        const lt_status lt_try_ = (call);                                                          \
        if (lt_try_ != LT_OK)                                                                      \
            return lt_try_;                                                                        \
    } while (0)

/* Stores the status of `call` in a local named `status`; goes to `label` if it is not LT_OK. */
#define LT_TRY_OR(call, label)                                                                     \
    do {                                                                                           \
        status = (call);                                                                           \
        if (status != LT_OK)                                                                       \
            goto label;                                                                            \
    } while (0)

/* Our own mistakes end the process, in release builds too: the lease expires, another worker takes
 * over. */
#define lt_assert(condition)                                                                       \
    ((condition) ? (void)0 : lt_assert_failed(#condition, __FILE__, __LINE__))
void lt_assert_failed(const char *condition, const char *file, int line) __attribute__((noreturn));

#define LT_COUNT(array) (sizeof(array) / sizeof((array)[0]))
