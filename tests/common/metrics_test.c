/* If metrics broke, dashboards and alerts would lie: counts lost between threads, a scrape that
 * Prometheus refuses as a whole because of one label, or a coordinator whose memory grows with
 * every worker name. */
#include "tests/test.h"

#include "common/metrics.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static struct lt_error error;

static struct lt_metric *add(struct lt_metrics *metrics, const struct lt_metric_spec *spec)
{
    struct lt_metric *metric = NULL;
    assert_ok(lt_metrics_add(metrics, spec, &metric, &error));
    return metric;
}

static char *text_of(const struct lt_metrics *metrics)
{
    char *text = NULL;
    size_t bytes;
    FILE *to = open_memstream(&text, &bytes);
    assert_non_null(to);
    lt_metrics_write(metrics, to);
    fclose(to);
    return text;
}

static void text_is_exact(void **state)
{
    (void)state;
    struct lt_metrics *metrics = lt_metrics_create();
    struct lt_metric *tasks =
        add(metrics, &(struct lt_metric_spec){.name = "tasks_total",
                                              .help = "Tasks\\by\nkind \"x\".",
                                              .kind = LT_METRIC_COUNTER,
                                              .labels = {"kind", "worker"}});
    struct lt_metric *depth =
        add(metrics,
            &(struct lt_metric_spec){.name = "depth", .help = "Depth.", .kind = LT_METRIC_GAUGE});
    struct lt_metric *seconds = add(metrics, &(struct lt_metric_spec){.name = "seconds",
                                                                      .help = "Time.",
                                                                      .kind = LT_METRIC_HISTOGRAM,
                                                                      .labels = {"kind"},
                                                                      .bounds = {0.5, 1, 2.5},
                                                                      .bound_count = 3});
    lt_series_add(lt_metric_series(tasks, (const char *const[]){"predict", "a\"b\\c\nd"}), 3);
    lt_series_add(lt_metric_series(tasks, (const char *const[]){"decode", "w"}), 0.1);
    lt_series_set(lt_metric_series(depth, NULL), 7);
    lt_series_add(lt_metric_series(depth, NULL), -9);
    struct lt_series *of_predict = lt_metric_series(seconds, (const char *const[]){"predict"});
    const double values[] = {0.25, 0.5, 0.75, 1, 2, 4};
    for (size_t i = 0; i < LT_COUNT(values); i++)
        lt_series_observe(of_predict, values[i]);
    char *text = text_of(metrics);
    assert_string_equal(text, "# HELP tasks_total Tasks\\\\by\\nkind \"x\".\n"
                              "# TYPE tasks_total counter\n"
                              "tasks_total{kind=\"predict\",worker=\"a\\\"b\\\\c\\nd\"} 3\n"
                              "tasks_total{kind=\"decode\",worker=\"w\"} 0.1\n"
                              "# HELP depth Depth.\n"
                              "# TYPE depth gauge\n"
                              "depth -2\n"
                              "# HELP seconds Time.\n"
                              "# TYPE seconds histogram\n"
                              "seconds_bucket{kind=\"predict\",le=\"0.5\"} 2\n"
                              "seconds_bucket{kind=\"predict\",le=\"1\"} 4\n"
                              "seconds_bucket{kind=\"predict\",le=\"2.5\"} 5\n"
                              "seconds_bucket{kind=\"predict\",le=\"+Inf\"} 6\n"
                              "seconds_sum{kind=\"predict\"} 8.5\n"
                              "seconds_count{kind=\"predict\"} 6\n");
    free(text);
    lt_metrics_destroy(&metrics);
    assert_null(metrics);
    lt_metrics_destroy(&metrics);
}

static void numbers_that_are_none_have_their_words(void **state)
{
    (void)state;
    struct lt_metrics *metrics = lt_metrics_create();
    struct lt_metric *gauge =
        add(metrics, &(struct lt_metric_spec){
                         .name = "g", .help = "G", .kind = LT_METRIC_GAUGE, .labels = {"of"}});
    struct lt_metric *times = add(metrics, &(struct lt_metric_spec){.name = "t",
                                                                    .help = "T",
                                                                    .kind = LT_METRIC_HISTOGRAM,
                                                                    .bounds = {1},
                                                                    .bound_count = 1});
    lt_series_set(lt_metric_series(gauge, (const char *const[]){"nan"}), (double)NAN);
    lt_series_set(lt_metric_series(gauge, (const char *const[]){"low"}), -(double)INFINITY);
    lt_series_set(lt_metric_series(gauge, (const char *const[]){"third"}), 1.0 / 3);
    lt_series_set(lt_metric_series(gauge, (const char *const[]){"large"}), 9007199254740992.0);
    lt_series_observe(lt_metric_series(times, NULL), (double)NAN);
    lt_series_observe(lt_metric_series(times, NULL), 2);
    char *text = text_of(metrics);
    assert_non_null(strstr(text, "g{of=\"nan\"} NaN\n"));
    assert_non_null(strstr(text, "g{of=\"low\"} -Inf\n"));
    assert_non_null(strstr(text, "g{of=\"third\"} 0.3333333333333333\n"));
    assert_non_null(strstr(text, "g{of=\"large\"} 9007199254740992\n"));
    assert_non_null(
        strstr(text, "t_bucket{le=\"1\"} 0\nt_bucket{le=\"+Inf\"} 2\nt_sum 2\nt_count 2\n"));
    free(text);
    lt_metrics_destroy(&metrics);
}

static void bad_families_are_refused(void **state)
{
    (void)state;
    struct lt_metrics *metrics = lt_metrics_create();
    struct lt_metric *metric = NULL;
    struct lt_metric_spec spec = {.name = "1x", .help = "", .kind = LT_METRIC_COUNTER};
    assert_fails(lt_metrics_add(metrics, &spec, &metric, &error), LT_BAD_INPUT, "'1x'");
    spec.name = "";
    assert_fails(lt_metrics_add(metrics, &spec, &metric, &error), LT_BAD_INPUT, "''");
    spec = (struct lt_metric_spec){.name = "x", .kind = LT_METRIC_COUNTER, .labels = {"a-b"}};
    assert_fails(lt_metrics_add(metrics, &spec, &metric, &error), LT_BAD_INPUT, "'a-b'");
    spec.labels[0] = "le"; /* would collide with the bucket's own */
    assert_fails(lt_metrics_add(metrics, &spec, &metric, &error), LT_BAD_INPUT, "'le'");
    spec = (struct lt_metric_spec){.name = "x", .kind = LT_METRIC_HISTOGRAM};
    assert_fails(lt_metrics_add(metrics, &spec, &metric, &error), LT_BAD_INPUT, "0 bounds");
    spec.bounds[0] = spec.bounds[1] = 1;
    spec.bound_count = 2;
    assert_fails(lt_metrics_add(metrics, &spec, &metric, &error), LT_BAD_INPUT, "bound 1");
    spec.bound_count = 1;
    spec.kind = LT_METRIC_GAUGE;
    assert_fails(lt_metrics_add(metrics, &spec, &metric, &error), LT_BAD_INPUT, "1 bounds");
    assert_null(metric);
    spec.bound_count = 0;
    assert_ok(lt_metrics_add(metrics, &spec, &metric, &error));
    assert_fails(lt_metrics_add(metrics, &spec, &metric, &error), LT_CONFLICT, "x is there");
    lt_metrics_destroy(&metrics);
}

static void label_values_are_bounded_and_nothing_is_lost(void **state)
{
    (void)state;
    struct lt_metrics *metrics = lt_metrics_create();
    struct lt_metric *metric =
        add(metrics,
            &(struct lt_metric_spec){
                .name = "n_total", .help = "N", .kind = LT_METRIC_COUNTER, .labels = {"worker"}});
    char name[32];
    for (int i = 0; i < LT_METRIC_SERIES_MAX + 100; i++) {
        snprintf(name, sizeof name, "w%d", i);
        lt_series_add(lt_metric_series(metric, (const char *const[]){name}), 1);
    }
    snprintf(name, sizeof name, "w%d",
             LT_METRIC_SERIES_MAX - 1); /* the last with a series of its own */
    lt_series_add(lt_metric_series(metric, (const char *const[]){name}), 1);
    char *text = text_of(metrics);
    int lines = 0;
    for (const char *at = text; (at = strstr(at, "\nn_total{")); at++)
        lines++;
    assert_int_equal(lines, LT_METRIC_SERIES_MAX + 1);
    assert_non_null(strstr(text, "n_total{worker=\"w511\"} 2\n"));
    assert_non_null(strstr(text, "n_total{worker=\"other\"} 100\n"));
    free(text);
    lt_metrics_destroy(&metrics);
}

/* -- threads --------------------------------------------------------------------------------------
 */

enum { THREADS = 4, ROUNDS = 20000, NAMES = 8 };

struct crowd {
    struct lt_metrics *metrics;
    struct lt_metric *count, *times;
    pthread_barrier_t start;
};

/* All threads ask for the same new names at once, so they race for each series. */
static void *work(void *context)
{
    struct crowd *crowd = context;
    pthread_barrier_wait(&crowd->start);
    for (int i = 0; i < ROUNDS; i++) {
        const char name[] = {(char)('a' + i % NAMES), 0};
        lt_series_add(lt_metric_series(crowd->count, (const char *const[]){name}), 3);
        lt_series_observe(lt_metric_series(crowd->times, NULL), i % 4);
    }
    return NULL;
}

/* -1: not there (yet). */
static int number_after(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    int number = -1;
    if (at)
        assert_int_equal(sscanf(at + strlen(name), "%d", &number), 1);
    return number;
}

static void no_count_is_lost_between_threads(void **state)
{
    (void)state;
    struct crowd crowd = {.metrics = lt_metrics_create()};
    crowd.count =
        add(crowd.metrics,
            &(struct lt_metric_spec){
                .name = "c_total", .help = "C", .kind = LT_METRIC_COUNTER, .labels = {"name"}});
    crowd.times = add(crowd.metrics, &(struct lt_metric_spec){.name = "t",
                                                              .help = "T",
                                                              .kind = LT_METRIC_HISTOGRAM,
                                                              .bounds = {0, 1, 2},
                                                              .bound_count = 3});
    pthread_t thread[THREADS];
    assert_int_equal(pthread_barrier_init(&crowd.start, NULL, THREADS + 1), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, work, &crowd), 0);
    pthread_barrier_wait(&crowd.start);
    for (int i = 0; i < 20; i++) { /* a scrape in the middle is whole: +Inf and count agree */
        char *text = text_of(crowd.metrics);
        assert_int_equal(number_after(text, "t_bucket{le=\"+Inf\"} "),
                         number_after(text, "t_count "));
        free(text);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    pthread_barrier_destroy(&crowd.start);
    for (int i = 0; i < NAMES; i++) {
        const char name[] = {(char)('a' + i), 0};
        const struct lt_series *series = lt_metric_series(crowd.count, (const char *const[]){name});
        assert_true(lt_series_value(series) == 3.0 * THREADS * ROUNDS / NAMES);
    }
    const struct lt_series *times = lt_metric_series(crowd.times, NULL);
    assert_true(lt_series_value(times) == (double)THREADS * ROUNDS);
    assert_true(lt_series_sum(times) == (0 + 1 + 2 + 3) / 4.0 * THREADS * ROUNDS);
    lt_metrics_destroy(&crowd.metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_exact),
        cmocka_unit_test(numbers_that_are_none_have_their_words),
        cmocka_unit_test(bad_families_are_refused),
        cmocka_unit_test(label_values_are_bounded_and_nothing_is_lost),
        cmocka_unit_test(no_count_is_lost_between_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
