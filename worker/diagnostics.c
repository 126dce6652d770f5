#include "worker/diagnostics.h"

#include "common/clock.h"
#include "common/log.h"

#include <pthread.h>
#include <stdlib.h>

static const struct stage {
    const char *name;
    bool computes;
} stages[MEMORY_STAGE_COUNT] = {
#define MEMORY_STAGE_ROW(name, text, computes) {text, computes},
    MEMORY_STAGE_LIST(MEMORY_STAGE_ROW)
#undef MEMORY_STAGE_ROW
};

struct diagnostics {
    struct lt_memory_probe *probe;
    pthread_mutex_t lock; /* of everything below: readers come from the network thread */
    struct memory_sample *sample;
    size_t count, next, max; /* a ring */
    uint64_t swapping;
};

lt_status diagnostics_create(size_t sample_max, struct diagnostics **diagnostics_out,
                             struct lt_error *error)
{
    struct diagnostics *d = calloc(1, sizeof *d);
    if (d)
        d->sample = calloc(sample_max, sizeof *d->sample);
    if (!d || !d->sample) {
        free(d);
        return lt_fail(error, LT_NO_MEMORY, "no memory for diagnostics");
    }
    pthread_mutex_init(&d->lock, NULL);
    d->max = sample_max;
    const lt_status status = lt_memory_probe_create(&d->probe, error);
    if (status != LT_OK) {
        diagnostics_destroy(&d);
        return status;
    }
    *diagnostics_out = d;
    return LT_OK;
}

void diagnostics_destroy(struct diagnostics **diagnostics)
{
    struct diagnostics *d = *diagnostics;
    if (!d)
        return;
    lt_memory_probe_destroy(&d->probe);
    pthread_mutex_destroy(&d->lock);
    free(d->sample);
    free(d);
    *diagnostics = NULL;
}

/* -- samples ----------------------------------------------------------------------------------- */

static const struct memory_sample *newest(const struct diagnostics *d)
{
    return d->count ? &d->sample[(d->next + d->max - 1) % d->max] : NULL;
}

static void log_sample(const struct memory_sample *s)
{
    lt_log(LT_LOG_DEBUG, "memory.sample",
           "stage=%s task=%llu subject=%s rss_anon=%llu rss_file=%llu peak_rss=%llu cgroup=%llu "
           "weights=%llu swapped=%llu lora=%llu cache=%llu activations=%llu device=%llu "
           "major_faults=%llu",
           stages[s->stage].name, (unsigned long long)s->task, s->subject,
           (unsigned long long)s->process.rss_anon_bytes,
           (unsigned long long)s->process.rss_file_bytes,
           (unsigned long long)s->process.peak_rss_bytes,
           (unsigned long long)s->process.cgroup_bytes,
           (unsigned long long)s->counts.weights_resident_bytes,
           (unsigned long long)s->counts.weights_swapped_bytes,
           (unsigned long long)s->counts.lora_bytes, (unsigned long long)s->counts.cache_bytes,
           (unsigned long long)s->counts.activations_bytes,
           (unsigned long long)s->counts.device_bytes, (unsigned long long)s->process.major_faults);
}

/* Pages of programs and libraries are read once; what comes back during a computation was driven
 * out. */
static void watch(struct diagnostics *d, const struct memory_sample *before,
                  const struct memory_sample *now)
{
    if (!before || !stages[now->stage].computes)
        return;
    const uint64_t faults = now->process.major_faults - before->process.major_faults;
    d->swapping += faults;
    if (faults > 0)
        lt_log(LT_LOG_WARN, "memory.swapping",
               "task=%llu major_faults=%llu rss_anon=%llu swap=%llu: pages were read from disk "
               "while the model computed; lower --ram or give the worker more memory",
               (unsigned long long)now->task, (unsigned long long)faults,
               (unsigned long long)now->process.rss_anon_bytes,
               (unsigned long long)now->process.swap_bytes);
}

void diagnostics_sample(struct diagnostics *d, enum memory_stage stage, uint64_t task,
                        const char *subject, const struct memory_counts *counts)
{
    struct memory_sample sample = {
        .time_us = lt_clock_now_us(), .stage = stage, .task = task, .counts = *counts};
    snprintf(sample.subject, sizeof sample.subject, "%s", subject);
    lt_memory_probe_read(d->probe, &sample.process);
    pthread_mutex_lock(&d->lock);
    watch(d, newest(d), &sample);
    d->sample[d->next] = sample;
    d->next = (d->next + 1) % d->max;
    d->count += d->count < d->max;
    pthread_mutex_unlock(&d->lock);
    log_sample(&sample);
}

void diagnostics_last(struct diagnostics *d, struct memory_sample *sample_out)
{
    pthread_mutex_lock(&d->lock);
    const struct memory_sample *last = newest(d);
    *sample_out = last ? *last : (struct memory_sample){0};
    pthread_mutex_unlock(&d->lock);
}

uint64_t diagnostics_swapping(struct diagnostics *d)
{
    pthread_mutex_lock(&d->lock);
    const uint64_t swapping = d->swapping;
    pthread_mutex_unlock(&d->lock);
    return swapping;
}

/* -- the report -------------------------------------------------------------------------------- */

/* `subject` is a word or a file name of ours: what JSON would escape becomes '?'. */
static void write_text(const char *text, FILE *to)
{
    fputc('"', to);
    for (; *text; text++)
        fputc(*text < ' ' || *text == '"' || *text == '\\' ? '?' : *text, to);
    fputc('"', to);
}

static void write_sample(const struct memory_sample *s, FILE *to)
{
    fprintf(to, "{\"time_us\": %lld, \"stage\": \"%s\", \"task\": %llu, \"subject\": ",
            (long long)s->time_us, stages[s->stage].name, (unsigned long long)s->task);
    write_text(s->subject, to);
#define WRITE_FIELD(field, help)                                                                   \
    fprintf(to, ", \"" #field "_bytes\": %llu", (unsigned long long)s->process.field##_bytes);
    LT_PROCESS_MEMORY_LIST(WRITE_FIELD)
#undef WRITE_FIELD
    fprintf(to, ", \"cgroup_bytes\": %llu, \"cgroup_limit_bytes\": %llu, \"major_faults\": %llu",
            (unsigned long long)s->process.cgroup_bytes,
            (unsigned long long)s->process.cgroup_limit_bytes,
            (unsigned long long)s->process.major_faults);
#define WRITE_COUNT(field, help)                                                                   \
    fprintf(to, ", \"" #field "_bytes\": %llu", (unsigned long long)s->counts.field##_bytes);
    MEMORY_COUNT_LIST(WRITE_COUNT)
#undef WRITE_COUNT
    fprintf(to, ", \"stall_us\": %llu}", (unsigned long long)s->counts.stall_us);
}

void diagnostics_write_json(struct diagnostics *d, FILE *to)
{
    pthread_mutex_lock(&d->lock);
    fputc('[', to);
    for (size_t i = 0; i < d->count; i++) {
        fputs(i ? ",\n " : "", to);
        write_sample(&d->sample[(d->next + d->max - d->count + i) % d->max], to);
    }
    fputc(']', to);
    pthread_mutex_unlock(&d->lock);
}
