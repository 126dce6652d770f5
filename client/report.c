#include "client/report.h"

#include "common/file.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

void report_sample(struct report *report, struct coordinator *coordinator)
{
    struct coordinator_worker_status now[LT_COUNT(report->worker)];
    size_t count = coordinator_workers(coordinator, now, LT_COUNT(now));
    count = count < LT_COUNT(now) ? count : LT_COUNT(now);
    if (count == 0)
        return;
    memcpy(report->worker, now, count * sizeof now[0]);
    report->worker_count = count;
}

void report_job(struct report *report, const struct coordinator_job_status *job, const struct plan *plan)
{
    report->job = *job;
    report->planned_down = plan->wire_bytes_down;
    report->planned_up = plan->wire_bytes_up;
    report->windows = plan->step[0].window_count;
}

static json_t *digest_json(const struct lt_digest *digest)
{
    char hex[LT_DIGEST_HEX];
    lt_digest_format(digest, hex);
    return json_string(hex);
}

static json_t *workers_json(const struct report *report)
{
    json_t *list = json_array();
    for (size_t i = 0; i < report->worker_count; i++) {
        const struct coordinator_worker_status *w = &report->worker[i];
        json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:f}", "name", w->name, "tasks", (json_int_t)w->tasks_done,
                                              "failed", (json_int_t)w->tasks_failed, "busy_seconds", w->busy_seconds));
    }
    return list;
}

lt_status report_write(const struct report *report, const char *path, const struct publish_result *published,
                       uint32_t worker_deaths, struct lt_error *error)
{
    const struct run_progress *p = &report->job.progress;
    struct rusage own, children;
    getrusage(RUSAGE_SELF, &own);
    getrusage(RUSAGE_CHILDREN, &children);
    json_t *root = json_pack(
        "{s:f, s:f, s:i, s:i, s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:o, s:o, s:o, s:o}", "seconds",
        report->seconds, "publish_seconds", report->publish_seconds, "steps", (int)p->step_count, "windows",
        (int)report->windows, "predictions", (int)p->predict_count, "decodes", (int)p->decode_count, "frames",
        (int)published->frame_count, "leases_lost", (json_int_t)report->job.retry_count, "task_failures",
        (json_int_t)report->task_failures, "worker_deaths", (json_int_t)worker_deaths, "planned_bytes_down",
        (json_int_t)report->planned_down, "planned_bytes_up", (json_int_t)report->planned_up, "rss_peak_bytes",
        (json_int_t)own.ru_maxrss * 1024, "worker_rss_peak_bytes", (json_int_t)children.ru_maxrss * 1024, "kernel_class",
        report->job.kernel_class, "job_sha256", digest_json(&report->job.digest), "latents_sha256",
        digest_json(&published->latents), "frames_sha256", digest_json(&published->frames), "workers",
        workers_json(report));
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    const lt_status status = text ? lt_file_write(path, text, strlen(text), false, error)
                                  : lt_fail(error, LT_NO_MEMORY, "%s: no memory for the report", path);
    free(text);
    json_decref(root);
    return status;
}
