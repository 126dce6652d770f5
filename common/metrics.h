/* Counters, gauges and histograms with labels, written as Prometheus text (exposition format
 * 0.0.4).
 *
 *   metrics: family longtake_tasks_total -> series {kind="predict",outcome="done"}, {kind=…}, …
 *
 * Families are added at the start by one thread. Everything else is safe from any thread: a change
 * to a series is one atomic operation, finding a series walks a list without a lock, and only a new
 * label combination takes the registry's mutex. Whoever is hot keeps the series: it lives as long
 * as the registry.
 *
 * A family holds at most LT_METRIC_SERIES_MAX label combinations; what comes after is counted in
 * one more series whose labels all read "other", so sums stay right and memory stays bounded. */
#pragma once

#include "common/status.h"

#include <stdio.h>

enum { LT_METRIC_LABELS_MAX = 4, LT_METRIC_BOUNDS_MAX = 24, LT_METRIC_SERIES_MAX = 512 };

enum lt_metric_kind { LT_METRIC_COUNTER, LT_METRIC_GAUGE, LT_METRIC_HISTOGRAM };

struct lt_metric_spec {
    const char *name, *help;
    enum lt_metric_kind kind;
    const char *labels[LT_METRIC_LABELS_MAX]; /* names; the first NULL ends them */
    double
        bounds[LT_METRIC_BOUNDS_MAX]; /* histogram: upper bounds, strictly rising; +Inf is added */
    int bound_count;
};

struct lt_metrics;
struct lt_metric;
struct lt_series;

/* NULL when memory is out. */
struct lt_metrics *lt_metrics_create(void);
void lt_metrics_destroy(struct lt_metrics **metrics);

/* A family. The spec is copied, its texts are not: they are literals. BAD_INPUT: a name Prometheus
 * does not take, bounds that do not rise, bounds on what is no histogram; CONFLICT: the name is
 * there already. */
lt_status lt_metrics_add(struct lt_metrics *metrics, const struct lt_metric_spec *spec,
                         struct lt_metric **metric_out, struct lt_error *error);

/* The series of these label values (as many as the family has names; copied; NULL for a family
 * without labels), made when it is new. Never NULL: "other" when the family is full or memory is
 * out. */
struct lt_series *lt_metric_series(struct lt_metric *metric, const char *const *values);

/* Counter (amount >= 0) or gauge. Integers up to 2^53 add exactly, in any order, from any number of
 * threads. */
void lt_series_add(struct lt_series *series, double amount);
/* Gauge. */
void lt_series_set(struct lt_series *series, double value);
/* Histogram: counted in the first bucket whose bound is >= value; NaN in +Inf, and left out of the
 * sum. */
void lt_series_observe(struct lt_series *series, double value);

/* Of a counter or gauge its value; of a histogram the number of observations. */
double lt_series_value(const struct lt_series *series);
/* Of a histogram. */
double lt_series_sum(const struct lt_series *series);

/* The whole registry in the order of adding, series in the order they came. A histogram's count is
 * the sum of the buckets written beside it, whatever other threads do meanwhile. */
void lt_metrics_write(const struct lt_metrics *metrics, FILE *to);
