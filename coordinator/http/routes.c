/* What may be asked: one row a request. */
#include "coordinator/memory_json.h"
#include "coordinator/http/route.h"

#include "coordinator/preview_png.h"
#include "coordinator/publisher.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { JOB_BYTES_MAX = 1 << 20, JOBS_MAX = 10000, WORKERS_MAX = 1024 };

/* A question to the loop and its answer. */
struct question {
    const struct http_request *request;
    struct http_response *response;
    struct lt_error *error;
    lt_status status;
};

static lt_status ask(const struct http_request *request, struct http_response *response,
                     struct lt_error *error, coordinator_work *work)
{
    struct question question = {request, response, error, LT_OK};
    if (coordinator_call(request->server->coordinator, work, &question) != LT_OK)
        return lt_fail(error, LT_BUSY, "the coordinator is stopping");
    return question.status;
}

/* -- jobs -------------------------------------------------------------------------------------- */

static json_t *time_json(int64_t wall_us)
{
    return wall_us ? json_real((double)wall_us * 1e-6) : json_null();
}

static json_t *digest_json(const struct lt_digest *digest)
{
    char hex[LT_DIGEST_HEX];
    lt_digest_format(digest, hex);
    return json_string(hex);
}

static json_t *job_json(const struct coordinator_job_status *s, const char *outputs)
{
    const struct run_progress *p = &s->progress;
    char path[PATH_MAX];
    json_t *json =
        json_pack("{s:i, s:s, s:s, s:i, s:f, s:s, s:I}", "id", (int)s->id, "name", s->name, "state",
                  job_state_name(s->state), "priority", s->priority, "fraction", s->fraction,
                  "reason", s->reason, "leases_lost", (json_int_t)s->retry_count);
    json_object_set_new(json, "eta_seconds",
                        s->eta_seconds < 0 ? json_null() : json_real(s->eta_seconds));
    json_object_set_new(json, "status", json_string(lt_status_name(s->status)));
    json_object_set_new(json, "progress",
                        json_pack("{s:i, s:i, s:i, s:i, s:i, s:i}", "step", (int)p->step_low,
                                  "steps", (int)p->step_count, "predictions_done",
                                  (int)p->predict_done, "predictions", (int)p->predict_count,
                                  "decodes_done", (int)p->decode_done, "decodes",
                                  (int)p->decode_count));
    json_object_set_new(json, "created", time_json(s->created_us));
    json_object_set_new(json, "started", time_json(s->started_us));
    json_object_set_new(json, "finished", time_json(s->finished_us));
    json_object_set_new(json, "job_sha256", digest_json(&s->digest));
    json_object_set_new(json, "kernel_class", json_string(s->kernel_class));
    json_t *take =
        s->state == JOB_STATE_COMPLETED &&
                publisher_path(outputs, s->id, "take.json", path, sizeof path, NULL) == LT_OK
            ? json_load_file(path, 0, NULL)
            : NULL;
    json_object_set_new(json, "take", take ? take : json_null());
    return json;
}

static void list_jobs(struct coordinator *coordinator, void *context)
{
    struct question *q = context;
    uint32_t *id = calloc(JOBS_MAX, sizeof *id);
    json_t *list = json_array();
    lt_assert(id);
    const size_t count = coordinator_jobs(coordinator, id, JOBS_MAX);
    for (size_t i = 0; i < count && i < JOBS_MAX; i++) {
        struct coordinator_job_status status;
        if (coordinator_job_status(coordinator, id[i], &status, NULL) == LT_OK)
            json_array_append_new(list, job_json(&status, q->request->server->outputs));
    }
    free(id);
    q->response->json = json_pack("{s:o}", "jobs", list);
}

static lt_status get_jobs(const struct http_request *request, struct http_response *response,
                          struct lt_error *error)
{
    return ask(request, response, error, list_jobs);
}

static void show_job(struct coordinator *coordinator, void *context)
{
    struct question *q = context;
    struct coordinator_job_status status;
    q->status = coordinator_job_status(coordinator, q->request->job, &status, q->error);
    if (q->status == LT_OK)
        q->response->json = job_json(&status, q->request->server->outputs);
}

static lt_status get_job(const struct http_request *request, struct http_response *response,
                         struct lt_error *error)
{
    return ask(request, response, error, show_job);
}

static void show_spec(struct coordinator *coordinator, void *context)
{
    struct question *q = context;
    const char *json = coordinator_job_json(coordinator, q->request->job);
    if (!json) {
        q->status = lt_fail(q->error, LT_NOT_FOUND, "there is no job %u", q->request->job);
        return;
    }
    q->response->json = json_loads(json, 0, NULL);
}

static lt_status get_spec(const struct http_request *request, struct http_response *response,
                          struct lt_error *error)
{
    return ask(request, response, error, show_spec);
}

static void submit_job(struct coordinator *coordinator, void *context)
{
    struct question *q = context;
    const struct http_request *r = q->request;
    uint32_t id;
    bool existed;
    const struct coordinator_submit submit = {.json = r->body ? r->body : "",
                                              .json_bytes = r->body_bytes,
                                              .origin = "job",
                                              .priority = r->priority ? atoi(r->priority) : 0};
    q->status = coordinator_add_job(coordinator, &submit, &id, &existed, q->error);
    if (q->status != LT_OK)
        return;
    q->response->status = existed ? 200 : 201;
    q->response->json = json_pack("{s:i, s:b}", "id", (int)id, "existed", (int)existed);
}

static lt_status post_job(const struct http_request *request, struct http_response *response,
                          struct lt_error *error)
{
    return ask(request, response, error, submit_job);
}

static void cancel_job(struct coordinator *coordinator, void *context)
{
    struct question *q = context;
    q->status = coordinator_cancel(coordinator, q->request->job, q->error);
    if (q->status == LT_OK)
        show_job(coordinator, context);
}

static lt_status post_cancel(const struct http_request *request, struct http_response *response,
                             struct lt_error *error)
{
    return ask(request, response, error, cancel_job);
}

static void keep_blob(struct coordinator *coordinator, void *context)
{
    struct question *q = context;
    struct lt_digest digest;
    q->status = coordinator_put_blob(coordinator, q->request->body, q->request->body_bytes, &digest,
                                     q->error);
    if (q->status == LT_OK)
        q->response->json = json_pack("{s:o}", "sha256", digest_json(&digest));
}

static lt_status post_blob(const struct http_request *request, struct http_response *response,
                           struct lt_error *error)
{
    return ask(request, response, error, keep_blob);
}

/* -- takes ------------------------------------------------------------------------------------- */

static void check_completed(struct coordinator *coordinator, void *context)
{
    struct question *q = context;
    struct coordinator_job_status status;
    q->status = coordinator_job_status(coordinator, q->request->job, &status, q->error);
    if (q->status == LT_OK && status.state != JOB_STATE_COMPLETED)
        q->status = lt_fail(q->error, LT_CONFLICT, "job %u is %s: it has no take%s",
                            q->request->job, job_state_name(status.state),
                            job_state_is_terminal(status.state) ? "" : " yet");
}

static lt_status open_output(const struct http_request *request, const char *file, const char *type,
                             struct http_response *response, struct lt_error *error)
{
    char path[PATH_MAX];
    LT_TRY(ask(request, response, error, check_completed));
    LT_TRY(publisher_path(request->server->outputs, request->job, file, path, sizeof path, error));
    response->file = open(path, O_RDONLY | O_CLOEXEC);
    response->file_type = type;
    if (response->file < 0)
        return lt_fail(error, LT_NOT_FOUND, "job %u: %s is gone: %s", request->job, file,
                       strerror(errno));
    return LT_OK;
}

static lt_status get_take(const struct http_request *request, struct http_response *response,
                          struct lt_error *error)
{
    return open_output(request, "take.mp4", "video/mp4", response, error);
}

static lt_status get_latents(const struct http_request *request, struct http_response *response,
                             struct lt_error *error)
{
    return open_output(request, "latents.safetensors", "application/octet-stream", response, error);
}

/* As an unnamed file, which the server knows how to send. */
static lt_status put_picture(const void *data, size_t bytes, struct http_response *response,
                             struct lt_error *error)
{
    const int fd = memfd_create("preview", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, bytes) != (ssize_t)bytes) {
        if (fd >= 0)
            close(fd);
        return lt_fail(error, LT_NO_MEMORY, "no memory for a preview");
    }
    response->file = fd;
    response->file_type = "image/png";
    return LT_OK;
}

static void show_preview(struct coordinator *coordinator, void *context)
{
    struct question *q = context;
    struct coordinator_job_status status;
    void *data;
    size_t bytes;
    q->status = coordinator_job_status(coordinator, q->request->job, &status, q->error);
    if (q->status != LT_OK)
        return;
    struct run *run = coordinator_job_run(coordinator, q->request->job);
    if (!run) {
        q->status = lt_fail(q->error, LT_CONFLICT, "job %u is %s: its latents are not at hand",
                            q->request->job, job_state_name(status.state));
        return;
    }
    q->status = preview_png(run, &data, &bytes, q->error);
    if (q->status != LT_OK)
        return;
    q->status = put_picture(data, bytes, q->response, q->error);
    free(data);
}

static lt_status get_preview(const struct http_request *request, struct http_response *response,
                             struct lt_error *error)
{
    return ask(request, response, error, show_preview);
}

/* -- the farm ---------------------------------------------------------------------------------- */

static void list_workers(struct coordinator *coordinator, void *context)
{
    struct question *q = context;
    struct coordinator_worker_status *worker = calloc(WORKERS_MAX, sizeof *worker);
    lt_assert(worker);
    const size_t count = coordinator_workers(coordinator, worker, WORKERS_MAX);
    json_t *list = json_array();
    for (size_t i = 0; i < count && i < WORKERS_MAX; i++) {
        const struct coordinator_worker_status *w = &worker[i];
        json_t *task = w->task_job ? json_pack("{s:i, s:i, s:i, s:i}", "job", (int)w->task_job,
                                               "task", (int)w->task_index, "done",
                                               (int)w->task_done, "total", (int)w->task_total)
                                   : json_null();
        json_t *row = json_pack(
            "{s:s, s:s, s:s, s:s, s:i, s:I, s:I, s:I, s:f, s:f, s:o}", "name", w->name, "device",
            w->device, "kernel_class", w->kernel_class, "state", w->state, "models",
            (int)w->model_count, "memory_bytes", (json_int_t)w->memory_bytes, "tasks_done",
            (json_int_t)w->tasks_done, "tasks_failed", (json_int_t)w->tasks_failed, "busy_seconds",
            w->busy_seconds, "silent_seconds", (double)w->silent_ms * 1e-3, "task", task);
        memory_json_add(row, &w->memory);
        json_array_append_new(list, row);
    }
    free(worker);
    q->response->json = json_pack("{s:o}", "workers", list);
}

static lt_status get_workers(const struct http_request *request, struct http_response *response,
                             struct lt_error *error)
{
    return ask(request, response, error, list_workers);
}

static void write_metrics(struct coordinator *coordinator, void *context)
{
    struct question *q = context;
    size_t bytes;
    FILE *to = open_memstream(&q->response->text, &bytes);
    lt_assert(to);
    http_metrics_write(q->request->metrics, coordinator, q->request->server->link, to);
    fclose(to);
    q->response->text_type = "text/plain; version=0.0.4";
}

static lt_status get_metrics(const struct http_request *request, struct http_response *response,
                             struct lt_error *error)
{
    return ask(request, response, error, write_metrics);
}

static lt_status get_health(const struct http_request *request, struct http_response *response,
                            struct lt_error *error)
{
    (void)request;
    (void)error;
    response->json = json_pack("{s:s, s:s}", "status", "alive", "version", LT_VERSION);
    return LT_OK;
}

static void say_ready(struct coordinator *coordinator, void *context)
{
    struct question *q = context;
    (void)coordinator;
    q->response->json = json_pack("{s:s}", "status", "ready");
}

/* Ready when the loop answers. */
static lt_status get_ready(const struct http_request *request, struct http_response *response,
                           struct lt_error *error)
{
    return ask(request, response, error, say_ready);
}

/* -- the table --------------------------------------------------------------------------------- */

static const struct http_route routes[] = {
    {"GET", "/healthz", NULL, 0, true, get_health},
    {"GET", "/readyz", NULL, 0, true, get_ready},
    {"GET", "/metrics", NULL, 0, false, get_metrics},
    {"GET", "/v1/jobs", NULL, 0, false, get_jobs},
    {"POST", "/v1/jobs", "application/json", JOB_BYTES_MAX, false, post_job},
    {"GET", "/v1/jobs/#", NULL, 0, false, get_job},
    {"GET", "/v1/jobs/#/job", NULL, 0, false, get_spec},
    {"POST", "/v1/jobs/#/cancel", "application/json", JOB_BYTES_MAX, false, post_cancel},
    {"GET", "/v1/jobs/#/preview", NULL, 0, false, get_preview},
    {"GET", "/v1/jobs/#/take", NULL, 0, false, get_take},
    {"GET", "/v1/jobs/#/latents", NULL, 0, false, get_latents},
    {"POST", "/v1/blobs", "application/octet-stream", COORDINATOR_BLOB_BYTES_MAX, false, post_blob},
    {"GET", "/v1/workers", NULL, 0, false, get_workers},
};

/* '#' takes digits of a number that fits. */
static bool path_fits(const char *pattern, const char *path, uint32_t *job_out)
{
    for (; *pattern; pattern++) {
        if (*pattern != '#') {
            if (*path++ != *pattern)
                return false;
            continue;
        }
        char *end;
        if (*path < '0' || *path > '9')
            return false;
        errno = 0;
        const unsigned long job = strtoul(path, &end, 10);
        if (errno != 0 || job > UINT32_MAX)
            return false;
        *job_out = (uint32_t)job;
        path = end;
    }
    return *path == 0;
}

const struct http_route *http_route_find(const char *method, const char *path, uint32_t *job_out,
                                         bool *path_known_out)
{
    *path_known_out = false;
    for (size_t i = 0; i < LT_COUNT(routes); i++) {
        if (!path_fits(routes[i].path, path, job_out))
            continue;
        *path_known_out = true;
        if (strcmp(routes[i].method, method) == 0)
            return &routes[i];
    }
    return NULL;
}

json_t *http_error_json(const struct lt_error *error)
{
    return json_pack("{s:{s:s, s:s}}", "error", "status", lt_status_name(error->code), "text",
                     error->text);
}

unsigned http_error_code(lt_status status)
{
    switch (status) {
    case LT_BAD_INPUT:
    case LT_USAGE:
        return 400;
    case LT_NOT_FOUND:
        return 404;
    case LT_CONFLICT:
        return 409;
    case LT_UNSUPPORTED:
        return 422;
    case LT_BUSY:
        return 503;
    case LT_NO_MEMORY:
        return 507;
    default:
        return 500;
    }
}
