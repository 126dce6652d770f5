#include "coordinator/http/metrics.h"

#include "common/metrics.h"

#include <stdlib.h>

enum { JOBS_MAX = 10000, WORKERS_MAX = 1000 };

/*   field, name, kind, help, labels */
#define METRIC_LIST(X)                                                                             \
    X(jobs, "longtake_jobs", GAUGE, "Jobs by state.", "state")                                     \
    X(workers, "longtake_workers", GAUGE, "Workers that are connected.", NULL)                     \
    X(tasks, "longtake_tasks_total", COUNTER, "Task results that were kept.", "kind")              \
    X(seconds, "longtake_task_seconds_total", COUNTER, "Time of workers on them.", "kind")         \
    X(failures, "longtake_task_failures_total", COUNTER, "Tasks that failed on a worker.", NULL)   \
    X(lost, "longtake_leases_lost_total", COUNTER, "Leases that ended without a result.", NULL)    \
    X(rss, "longtake_worker_rss_bytes", GAUGE, "Memory of a worker's process.", "worker")          \
    X(device, "longtake_worker_device_bytes", GAUGE, "Device memory a worker holds.", "worker")    \
    X(read, "longtake_worker_read_bytes", GAUGE, "Read from model files since a worker's start.",  \
      "worker")                                                                                    \
    X(copied, "longtake_worker_copied_bytes", GAUGE,                                               \
      "Weights copied to the device since a worker's start.", "worker")                            \
    X(stall, "longtake_worker_stall_seconds", GAUGE,                                               \
      "Time a worker's model waited for weights since its start.", "worker")                       \
    X(swapping, "longtake_worker_swapping_faults", GAUGE,                                          \
      "Pages read from disk while a worker's model computed: above 0 the machine swaps.",          \
      "worker")                                                                                    \
    X(wire, "longtake_wire_bytes_total", COUNTER,                                                  \
      "Bytes between the coordinator and its workers.", "channel", "direction")

struct http_metrics {
    struct lt_metrics *registry;
#define FIELD(field, name, kind, help, ...) struct lt_metric *field;
    METRIC_LIST(FIELD)
#undef FIELD
};

lt_status http_metrics_create(struct http_metrics **metrics_out, struct lt_error *error)
{
    struct http_metrics *m = calloc(1, sizeof *m);
    if (m)
        m->registry = lt_metrics_create();
    lt_status status = m && m->registry ? LT_OK : lt_fail(error, LT_NO_MEMORY, "no memory");
#define ADD(field, name_, kind_, help_, ...)                                                       \
    if (status == LT_OK)                                                                           \
        status = lt_metrics_add(                                                                   \
            m->registry,                                                                           \
            &(struct lt_metric_spec){                                                              \
                .name = name_, .kind = LT_METRIC_##kind_, .help = help_, .labels = {__VA_ARGS__}}, \
            &m->field, error);
    METRIC_LIST(ADD)
#undef ADD
    if (status != LT_OK) {
        http_metrics_destroy(&m);
        return status;
    }
    *metrics_out = m;
    return LT_OK;
}

void http_metrics_destroy(struct http_metrics **metrics)
{
    if (!*metrics)
        return;
    lt_metrics_destroy(&(*metrics)->registry);
    free(*metrics);
    *metrics = NULL;
}

/* A counter that is kept elsewhere: forward to what it is now. */
static void advance(struct lt_metric *metric, const char *first, const char *second, double value)
{
    struct lt_series *series = lt_metric_series(metric, (const char *const[]){first, second});
    lt_series_add(series, value - lt_series_value(series));
}

static void set_jobs(struct http_metrics *m, struct coordinator *coordinator)
{
    uint32_t *id = calloc(JOBS_MAX, sizeof *id);
    double states[JOB_STATE_COUNT] = {0};
    lt_assert(id);
    const size_t count = coordinator_jobs(coordinator, id, JOBS_MAX);
    for (size_t i = 0; i < count && i < JOBS_MAX; i++) {
        struct coordinator_job_status status;
        if (coordinator_job_status(coordinator, id[i], &status, NULL) == LT_OK)
            states[status.state]++;
    }
    for (int state = 0; state < JOB_STATE_COUNT; state++) {
        const char *name = job_state_name((enum job_state)state);
        lt_series_set(lt_metric_series(m->jobs, &name), states[state]);
    }
    free(id);
}

/* A worker that left keeps its last values: what it was like when it went is what one looks for. */
static void set_workers(struct http_metrics *m, struct coordinator *coordinator)
{
    struct coordinator_worker_status *worker = calloc(WORKERS_MAX, sizeof *worker);
    lt_assert(worker);
    const size_t count = coordinator_workers(coordinator, worker, WORKERS_MAX);
    lt_series_set(lt_metric_series(m->workers, NULL), (double)count);
    for (size_t i = 0; i < count && i < WORKERS_MAX; i++) {
        const char *name = worker[i].name;
        const struct lt_beat_memory *memory = &worker[i].memory;
        lt_series_set(lt_metric_series(m->rss, &name), (double)memory->rss_bytes);
        lt_series_set(lt_metric_series(m->device, &name), (double)memory->device_bytes);
        lt_series_set(lt_metric_series(m->read, &name), (double)memory->read_bytes);
        lt_series_set(lt_metric_series(m->copied, &name), (double)memory->copied_bytes);
        lt_series_set(lt_metric_series(m->stall, &name), (double)memory->stall_us * 1e-6);
        lt_series_set(lt_metric_series(m->swapping, &name), (double)memory->swapping);
    }
    free(worker);
}

void http_metrics_write(struct http_metrics *m, struct coordinator *coordinator,
                        const struct lt_link *link, FILE *to)
{
    static const char *const kinds[] = {
        [PLAN_PREDICT] = "predict", [PLAN_DECODE] = "decode", [PLAN_CONDITION] = "condition"};
    const struct core_totals *totals = coordinator_totals(coordinator);
    set_jobs(m, coordinator);
    set_workers(m, coordinator);
    for (int kind = 0; kind < PLAN_KINDS; kind++) {
        advance(m->tasks, kinds[kind], NULL, (double)totals->tasks[kind]);
        advance(m->seconds, kinds[kind], NULL, (double)totals->task_us[kind] * 1e-6);
    }
    advance(m->failures, NULL, NULL, (double)totals->failures);
    advance(m->lost, NULL, NULL, (double)totals->leases_lost);
    for (int channel = 0; channel < 2; channel++) {
        const char *name = channel == LT_CHANNEL_BULK ? "bulk" : "control";
        advance(m->wire, name, "down", (double)link->traffic[channel].sent_bytes);
        advance(m->wire, name, "up", (double)link->traffic[channel].received_bytes);
    }
    lt_metrics_write(m->registry, to);
}
