#include "common/log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static lt_log_sink *current_sink;
static void *current_context;
static atomic_int current_level = LT_LOG_WARN;

static void write_stderr(enum lt_log_level level, const char *id, const char *text)
{
    struct timespec now;
    struct tm local;
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &local);
    fprintf(stderr, "%02d:%02d:%02d.%03ld %c %s %s\n", local.tm_hour, local.tm_min, local.tm_sec,
            now.tv_nsec / 1000000, "DIWE"[level], id, text);
}

void lt_log(enum lt_log_level level, const char *id, const char *format, ...)
{
    if ((int)level < atomic_load(&current_level) || level >= LT_LOG_OFF)
        return;
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    pthread_mutex_lock(&lock);
    if (current_sink)
        current_sink(current_context, level, id, text);
    else
        write_stderr(level, id, text);
    pthread_mutex_unlock(&lock);
}

void lt_log_set_level(enum lt_log_level level)
{
    atomic_store(&current_level, (int)level);
}

void lt_log_set_sink(lt_log_sink *sink, void *context)
{
    pthread_mutex_lock(&lock);
    current_sink = sink;
    current_context = context;
    pthread_mutex_unlock(&lock);
}

bool lt_log_level_parse(const char *name, enum lt_log_level *level_out)
{
    static const char *const names[] = {"debug", "info", "warn", "error", "off"};
    for (int i = 0; i < 5; i++)
        if (strcmp(name, names[i]) == 0) {
            *level_out = (enum lt_log_level)i;
            return true;
        }
    return false;
}
