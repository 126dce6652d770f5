/* Log lines: time, level, message id, then key=value pairs. One sink for the process.
 *
 *   lt_log(LT_LOG_INFO, "lease.granted", "task=%u node=%s", task, node);
 *   -> 12:03:04.123 I lease.granted task=7 node=w3
 *
 * Safe from any thread. Tests capture lines by lt_log_set_sink. */
#pragma once

#include <stdarg.h>

enum lt_log_level { LT_LOG_DEBUG, LT_LOG_INFO, LT_LOG_WARN, LT_LOG_ERROR, LT_LOG_OFF };

typedef void lt_log_sink(void *context, enum lt_log_level level, const char *id, const char *text);

void lt_log(enum lt_log_level level, const char *id, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Lines below `level` are dropped. The default is LT_LOG_WARN. */
void lt_log_set_level(enum lt_log_level level);
/* A NULL sink restores standard error. */
void lt_log_set_sink(lt_log_sink *sink, void *context);
/* "debug" … "off"; false when the name is none of them. */
_Bool lt_log_level_parse(const char *name, enum lt_log_level *level_out);
