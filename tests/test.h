/* What every test includes: cmocka with its own includes in order, and checks for our status codes.
 */
#pragma once

#include "common/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* 1 under a sanitizer: it keeps what was freed, and takes its time. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LT_SANITIZED 1
#else
#define LT_SANITIZED 0
#endif

/* The call must succeed; prints the error's text otherwise. `error` is a struct lt_error in scope.
 */
#define assert_ok(call)                                                                            \
    do {                                                                                           \
        const lt_status test_status_ = (call);                                                     \
        if (test_status_ != LT_OK)                                                                 \
            fail_msg("%s: %s: %s", #call, lt_status_name(test_status_), error.text);               \
    } while (0)

/* The call must fail with `status`, and the text must hold `part`. */
#define assert_fails(call, status, part)                                                           \
    do {                                                                                           \
        const lt_status test_status_ = (call);                                                     \
        if (test_status_ != (status))                                                              \
            fail_msg("%s: expected %s, got %s: %s", #call, lt_status_name(status),                 \
                     lt_status_name(test_status_), error.text);                                    \
        if (!strstr(error.text, part))                                                             \
            fail_msg("%s: '%s' is not in: %s", #call, part, error.text);                           \
    } while (0)
