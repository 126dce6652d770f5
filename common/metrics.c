#include "common/metrics.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct lt_series {
    struct lt_metric *metric;
    struct lt_series *_Atomic next;
    const char *values[LT_METRIC_LABELS_MAX];
    _Atomic uint64_t value_bits; /* a double: value, or a histogram's sum */
    _Atomic uint64_t touched;    /* whether "other" is worth a line */
    _Atomic uint64_t buckets[];  /* histogram: bound_count + 1 */
};

struct lt_metric {
    struct lt_metric_spec spec;
    int label_count;
    struct lt_metrics *metrics;
    struct lt_metric *next;
    struct lt_series *_Atomic first;
    struct lt_series *last; /* under the mutex */
    int series_count;       /* under the mutex */
    struct lt_series *other;
};

struct lt_metrics {
    pthread_mutex_t mutex; /* new series */
    struct lt_metric *first, *last;
};

static double from_bits(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint64_t to_bits(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

struct lt_metrics *lt_metrics_create(void)
{
    struct lt_metrics *metrics = calloc(1, sizeof *metrics);
    if (metrics)
        pthread_mutex_init(&metrics->mutex, NULL);
    return metrics;
}

static void free_metric(struct lt_metric *metric)
{
    for (struct lt_series *series = atomic_load(&metric->first); series;) {
        struct lt_series *next = atomic_load(&series->next);
        free(series);
        series = next;
    }
    free(metric->other);
    free(metric);
}

void lt_metrics_destroy(struct lt_metrics **metrics)
{
    if (!*metrics)
        return;
    for (struct lt_metric *metric = (*metrics)->first; metric;) {
        struct lt_metric *next = metric->next;
        free_metric(metric);
        metric = next;
    }
    pthread_mutex_destroy(&(*metrics)->mutex);
    free(*metrics);
    *metrics = NULL;
}

/* [a-zA-Z_][a-zA-Z0-9_]*; the colon is left to recording rules. */
static bool name_is_good(const char *name)
{
    if (!*name || (*name >= '0' && *name <= '9'))
        return false;
    for (; *name; name++)
        if (*name != '_' && !(*name >= '0' && *name <= '9') && !(*name >= 'a' && *name <= 'z') &&
            !(*name >= 'A' && *name <= 'Z'))
            return false;
    return true;
}

static lt_status check_spec(const struct lt_metrics *metrics, const struct lt_metric_spec *spec,
                            struct lt_error *error)
{
    if (!name_is_good(spec->name))
        return lt_fail(error, LT_BAD_INPUT, "'%s' cannot name a metric", spec->name);
    for (const struct lt_metric *metric = metrics->first; metric; metric = metric->next)
        if (strcmp(metric->spec.name, spec->name) == 0)
            return lt_fail(error, LT_CONFLICT, "metric %s is there already", spec->name);
    for (int i = 0; i < LT_METRIC_LABELS_MAX && spec->labels[i]; i++)
        if (!name_is_good(spec->labels[i]) || strcmp(spec->labels[i], "le") == 0)
            return lt_fail(error, LT_BAD_INPUT, "metric %s: '%s' cannot name a label", spec->name,
                           spec->labels[i]);
    if (spec->bound_count < 0 || spec->bound_count > LT_METRIC_BOUNDS_MAX ||
        (spec->bound_count > 0) != (spec->kind == LT_METRIC_HISTOGRAM))
        return lt_fail(error, LT_BAD_INPUT,
                       "metric %s: %d bounds; a histogram has 1 to %d, others none", spec->name,
                       spec->bound_count, LT_METRIC_BOUNDS_MAX);
    for (int i = 0; i < spec->bound_count; i++)
        if (!isfinite(spec->bounds[i]) || (i > 0 && spec->bounds[i] <= spec->bounds[i - 1]))
            return lt_fail(error, LT_BAD_INPUT, "metric %s: bound %d does not rise", spec->name, i);
    return LT_OK;
}

/* The values' texts stand behind the buckets, so a series is one allocation. */
static struct lt_series *new_series(struct lt_metric *metric, const char *const *values)
{
    const size_t buckets = metric->spec.bound_count ? (size_t)metric->spec.bound_count + 1 : 0;
    size_t text_bytes = 0;
    for (int i = 0; i < metric->label_count; i++)
        text_bytes += strlen(values[i]) + 1;
    const size_t head = sizeof(struct lt_series) + buckets * sizeof(uint64_t);
    struct lt_series *series = calloc(1, head + text_bytes);
    if (!series)
        return NULL;
    series->metric = metric;
    char *text = (char *)series + head;
    for (int i = 0; i < metric->label_count; i++) {
        const size_t bytes = strlen(values[i]) + 1;
        series->values[i] = memcpy(text, values[i], bytes);
        text += bytes;
    }
    return series;
}

lt_status lt_metrics_add(struct lt_metrics *metrics, const struct lt_metric_spec *spec,
                         struct lt_metric **metric_out, struct lt_error *error)
{
    static const char *const other[LT_METRIC_LABELS_MAX] = {"other", "other", "other", "other"};
    LT_TRY(check_spec(metrics, spec, error));
    struct lt_metric *metric = calloc(1, sizeof *metric);
    if (metric) {
        metric->spec = *spec;
        metric->metrics = metrics;
        while (metric->label_count < LT_METRIC_LABELS_MAX && spec->labels[metric->label_count])
            metric->label_count++;
        metric->other = new_series(metric, other);
    }
    if (!metric || !metric->other) {
        free(metric);
        return lt_fail(error, LT_NO_MEMORY, "metric %s: out of memory", spec->name);
    }
    if (metrics->last)
        metrics->last->next = metric;
    else
        metrics->first = metric;
    metrics->last = metric;
    *metric_out = metric;
    return LT_OK;
}

static struct lt_series *find(struct lt_metric *metric, const char *const *values)
{
    struct lt_series *series = atomic_load_explicit(&metric->first, memory_order_acquire);
    while (series) {
        int same = 0;
        while (same < metric->label_count && strcmp(series->values[same], values[same]) == 0)
            same++;
        if (same == metric->label_count)
            return series;
        series = atomic_load_explicit(&series->next, memory_order_acquire);
    }
    return NULL;
}

/* Under the mutex. Readers see the series whole or not at all. */
static struct lt_series *append(struct lt_metric *metric, const char *const *values)
{
    if (metric->series_count == LT_METRIC_SERIES_MAX)
        return NULL;
    struct lt_series *series = new_series(metric, values);
    if (!series)
        return NULL;
    struct lt_series *_Atomic *place = metric->last ? &metric->last->next : &metric->first;
    atomic_store_explicit(place, series, memory_order_release);
    metric->last = series;
    metric->series_count++;
    return series;
}

struct lt_series *lt_metric_series(struct lt_metric *metric, const char *const *values)
{
    struct lt_series *series = find(metric, values);
    if (series)
        return series;
    pthread_mutex_lock(&metric->metrics->mutex);
    series = find(metric, values); /* another thread may have been quicker */
    if (!series)
        series = append(metric, values);
    pthread_mutex_unlock(&metric->metrics->mutex);
    return series ? series : metric->other;
}

static void touch(struct lt_series *series)
{
    if (!atomic_load_explicit(&series->touched, memory_order_relaxed))
        atomic_store_explicit(&series->touched, 1, memory_order_relaxed);
}

static void add_double(_Atomic uint64_t *bits, double amount)
{
    uint64_t old = atomic_load_explicit(bits, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(bits, &old, to_bits(from_bits(old) + amount),
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

void lt_series_add(struct lt_series *series, double amount)
{
    lt_assert(series->metric->spec.kind == LT_METRIC_GAUGE ||
              (series->metric->spec.kind == LT_METRIC_COUNTER && amount >= 0));
    add_double(&series->value_bits, amount);
    touch(series);
}

void lt_series_set(struct lt_series *series, double value)
{
    lt_assert(series->metric->spec.kind == LT_METRIC_GAUGE);
    atomic_store_explicit(&series->value_bits, to_bits(value), memory_order_relaxed);
    touch(series);
}

void lt_series_observe(struct lt_series *series, double value)
{
    const struct lt_metric_spec *spec = &series->metric->spec;
    lt_assert(spec->kind == LT_METRIC_HISTOGRAM);
    int bucket = 0;
    while (bucket < spec->bound_count && !(value <= spec->bounds[bucket]))
        bucket++;
    atomic_fetch_add_explicit(&series->buckets[bucket], 1, memory_order_relaxed);
    if (!isnan(value))
        add_double(&series->value_bits, value);
    touch(series);
}

double lt_series_value(const struct lt_series *series)
{
    const struct lt_metric_spec *spec = &series->metric->spec;
    if (spec->kind != LT_METRIC_HISTOGRAM)
        return from_bits(atomic_load_explicit(&series->value_bits, memory_order_relaxed));
    uint64_t count = 0;
    for (int i = 0; i <= spec->bound_count; i++)
        count += atomic_load_explicit(&series->buckets[i], memory_order_relaxed);
    return (double)count;
}

double lt_series_sum(const struct lt_series *series)
{
    lt_assert(series->metric->spec.kind == LT_METRIC_HISTOGRAM);
    return from_bits(atomic_load_explicit(&series->value_bits, memory_order_relaxed));
}

/* -- writing --------------------------------------------------------------------------------------
 */

/* Backslash and line feed are escaped everywhere, the quote in label values only. */
static void write_escaped(const char *text, bool quoted, FILE *to)
{
    for (; *text; text++) {
        if (*text == '\n')
            fputs("\\n", to);
        else if (*text == '\\' || (quoted && *text == '"'))
            fprintf(to, "\\%c", *text);
        else
            fputc(*text, to);
    }
}

/* The shortest text that reads back as the same number. */
static void write_number(double value, FILE *to)
{
    char text[32];
    if (isnan(value))
        snprintf(text, sizeof text, "NaN");
    else if (isinf(value))
        snprintf(text, sizeof text, "%cInf", value > 0 ? '+' : '-');
    else
        for (int digits = 15; digits <= 17; digits++) {
            snprintf(text, sizeof text, "%.*g", digits, value);
            if (strtod(text, NULL) == value)
                break;
        }
    fputs(text, to);
}

/* name_suffix{a="b",le="0.5"} without the value; `le` NULL: none. */
static void write_name(const struct lt_series *series, const char *suffix, const double *le,
                       FILE *to)
{
    const struct lt_metric *metric = series->metric;
    fprintf(to, "%s%s", metric->spec.name, suffix);
    for (int i = 0; i < metric->label_count; i++) {
        fprintf(to, "%c%s=\"", i ? ',' : '{', metric->spec.labels[i]);
        write_escaped(series->values[i], true, to);
        fputc('"', to);
    }
    if (le) {
        fprintf(to, "%cle=\"", metric->label_count ? ',' : '{');
        write_number(*le, to);
        fputc('"', to);
    }
    fputs(metric->label_count || le ? "} " : " ", to);
}

static void write_series(const struct lt_series *series, FILE *to)
{
    const struct lt_metric_spec *spec = &series->metric->spec;
    if (spec->kind != LT_METRIC_HISTOGRAM) {
        write_name(series, "", NULL, to);
        write_number(lt_series_value(series), to);
        fputc('\n', to);
        return;
    }
    uint64_t count = 0;
    for (int i = 0; i <= spec->bound_count; i++) {
        const double bound = i < spec->bound_count ? spec->bounds[i] : INFINITY;
        count += atomic_load_explicit(&series->buckets[i], memory_order_relaxed);
        write_name(series, "_bucket", &bound, to);
        fprintf(to, "%" PRIu64 "\n", count);
    }
    write_name(series, "_sum", NULL, to);
    write_number(lt_series_sum(series), to);
    fputc('\n', to);
    write_name(series, "_count", NULL, to);
    fprintf(to, "%" PRIu64 "\n", count);
}

void lt_metrics_write(const struct lt_metrics *metrics, FILE *to)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    for (const struct lt_metric *metric = metrics->first; metric; metric = metric->next) {
        fprintf(to, "# HELP %s ", metric->spec.name);
        write_escaped(metric->spec.help, false, to);
        fprintf(to, "\n# TYPE %s %s\n", metric->spec.name, kinds[metric->spec.kind]);
        for (struct lt_series *series = atomic_load_explicit(&metric->first, memory_order_acquire);
             series; series = atomic_load_explicit(&series->next, memory_order_acquire))
            write_series(series, to);
        if (atomic_load_explicit(&metric->other->touched, memory_order_relaxed))
            write_series(metric->other, to);
    }
}
