#include "client/report.h"

#include "common/file.h"
#include "coordinator/memory_json.h"

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

void report_job(struct report *report, const struct coordinator_job_status *job,
                const struct plan *plan, const struct lt_traffic traffic[2])
{
    report->job = *job;
    report->planned_down = plan->wire_bytes_down;
    report->planned_up = plan->wire_bytes_up;
    memcpy(report->traffic, traffic, sizeof report->traffic);
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
        json_t *row =
            json_pack("{s:s, s:I, s:I, s:f}", "name", w->name, "tasks", (json_int_t)w->tasks_done,
                      "failed", (json_int_t)w->tasks_failed, "busy_seconds", w->busy_seconds);
        memory_json_add(row, &w->memory);
        json_array_append_new(list, row);
    }
    return list;
}

static void set_count(json_t *to, const char *name, uint64_t value)
{
    json_object_set_new(to, name, json_integer((json_int_t)value));
}

/* Planned payload (docs/plan.md), the payload that went, and everything on the wire with headers
 * and heartbeats. */
static json_t *wire_json(const struct report *report)
{
    const struct lt_traffic *bulk = &report->traffic[LT_CHANNEL_BULK],
                            *control = &report->traffic[LT_CHANNEL_CONTROL];
    json_t *wire = json_object();
    set_count(wire, "planned_bytes_down", report->planned_down);
    set_count(wire, "planned_bytes_up", report->planned_up);
    set_count(wire, "payload_bytes_down", bulk->sent_payload_bytes);
    set_count(wire, "payload_bytes_up", bulk->received_payload_bytes);
    set_count(wire, "bulk_bytes_down", bulk->sent_bytes);
    set_count(wire, "bulk_bytes_up", bulk->received_bytes);
    set_count(wire, "control_bytes_down", control->sent_bytes);
    set_count(wire, "control_bytes_up", control->received_bytes);
    return wire;
}

static json_t *report_json(const struct report *report, const struct publish_result *published,
                           uint32_t worker_deaths)
{
    const struct run_progress *p = &report->job.progress;
    struct rusage own, children;
    json_t *root = json_object();
    getrusage(RUSAGE_SELF, &own);
    getrusage(RUSAGE_CHILDREN, &children);
    json_object_set_new(root, "seconds", json_real(report->seconds));
    json_object_set_new(root, "publish_seconds", json_real(report->publish_seconds));
    set_count(root, "steps", p->step_count);
    set_count(root, "windows", report->windows);
    set_count(root, "predictions", p->predict_count);
    set_count(root, "decodes", p->decode_count);
    set_count(root, "frames", published->frame_count);
    set_count(root, "leases_lost", report->job.retry_count);
    set_count(root, "task_failures", report->task_failures);
    set_count(root, "worker_deaths", worker_deaths);
    set_count(root, "rss_peak_bytes", (uint64_t)own.ru_maxrss * 1024);
    set_count(root, "worker_rss_peak_bytes", (uint64_t)children.ru_maxrss * 1024);
    json_object_set_new(root, "kernel_class", json_string(report->job.kernel_class));
    json_object_set_new(root, "job_sha256", digest_json(&report->job.digest));
    json_object_set_new(root, "latents_sha256", digest_json(&published->latents));
    json_object_set_new(root, "frames_sha256", digest_json(&published->frames));
    json_object_set_new(root, "wire", wire_json(report));
    json_object_set_new(root, "workers", workers_json(report));
    return root;
}

lt_status report_write(const struct report *report, const char *path,
                       const struct publish_result *published, uint32_t worker_deaths,
                       struct lt_error *error)
{
    json_t *root = report_json(report, published, worker_deaths);
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    const lt_status status =
        text ? lt_file_write(path, text, strlen(text), false, error)
             : lt_fail(error, LT_NO_MEMORY, "%s: no memory for the report", path);
    free(text);
    json_decref(root);
    return status;
}
