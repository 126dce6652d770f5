#include "coordinator/publisher.h"

#include "common/file.h"
#include "common/log.h"
#include "coordinator/publish.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct waiting {
    struct waiting *next;
    uint32_t job;
};

struct publisher {
    char outputs[PATH_MAX - 64];
    int quality;
    struct coordinator *coordinator;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct waiting *first, **last;
    atomic_bool stop;
    bool started;
};

lt_status publisher_path(const char *outputs, uint32_t job, const char *file, char *path_out, size_t size,
                         struct lt_error *error)
{
    char name[64];
    snprintf(name, sizeof name, "%u/%s", job, file);
    return lt_path_join(path_out, size, outputs, name, error);
}

/* -- one job -------------------------------------------------------------------------------------------------- */

struct outcome {
    uint32_t job;
    struct run *run;
    lt_status status;
    struct lt_error error;
};

static void find_run(struct coordinator *coordinator, void *context)
{
    struct outcome *outcome = context;
    struct coordinator_job_status status;
    if (coordinator_job_status(coordinator, outcome->job, &status, NULL) == LT_OK &&
        status.state == JOB_STATE_FINALIZING)
        outcome->run = coordinator_job_run(coordinator, outcome->job);
}

static void tell_outcome(struct coordinator *coordinator, void *context)
{
    struct outcome *outcome = context;
    struct lt_error error;
    if (coordinator_published(coordinator, outcome->job, outcome->status, outcome->error.text, &error) != LT_OK)
        lt_log(LT_LOG_ERROR, "publish.untold", "job=%u %s", outcome->job, error.text);
}

static bool go_on(void *context, uint32_t done, uint32_t total)
{
    struct publisher *p = context;
    (void)done;
    (void)total;
    return !atomic_load(&p->stop);
}

/* What `longtake show` tells of a take; written last, so a take.json stands for whole files. */
static lt_status write_record(const char *path, const struct publish_result *result, struct lt_error *error)
{
    char latents[LT_DIGEST_HEX], frames[LT_DIGEST_HEX], text[512];
    lt_digest_format(&result->latents, latents);
    lt_digest_format(&result->frames, frames);
    const int length = snprintf(text, sizeof text,
                                "{\"frames\": %u, \"latents_sha256\": \"%s\", \"frames_sha256\": \"%s\"}\n",
                                result->frame_count, latents, frames);
    return lt_file_write(path, text, (size_t)length, true, error);
}

static lt_status write_take(struct publisher *p, uint32_t job, struct run *run, struct lt_error *error)
{
    char dir[PATH_MAX], take[PATH_MAX], latents[PATH_MAX], record[PATH_MAX];
    struct publish_result result;
    LT_TRY(publisher_path(p->outputs, job, "", dir, sizeof dir, error));
    LT_TRY(publisher_path(p->outputs, job, "take.mp4", take, sizeof take, error));
    LT_TRY(publisher_path(p->outputs, job, "latents.safetensors", latents, sizeof latents, error));
    LT_TRY(publisher_path(p->outputs, job, "take.json", record, sizeof record, error));
    LT_TRY(lt_dir_create(dir, error));
    const char *outputs[] = {take};
    const struct publish_params params = {.output = outputs, .output_count = 1, .latents = latents,
                                          .quality = p->quality, .overwrite = true, .progress = go_on, .context = p};
    LT_TRY(publish_take(run, &params, &result, error));
    return write_record(record, &result, error);
}

static void publish_job(struct publisher *p, uint32_t job)
{
    struct outcome outcome = {.job = job};
    if (coordinator_call(p->coordinator, find_run, &outcome) != LT_OK || !outcome.run)
        return;
    outcome.status = write_take(p, job, outcome.run, &outcome.error);
    if (outcome.status == LT_CANCELLED)
        return; /* the coordinator stops; the job stays FINALIZING in its journal */
    if (outcome.status == LT_OK)
        outcome.error.text[0] = 0;
    else
        lt_log(LT_LOG_ERROR, "publish.failed", "job=%u %s", job, outcome.error.text);
    coordinator_call(p->coordinator, tell_outcome, &outcome);
}

/* -- the thread ----------------------------------------------------------------------------------------------- */

static void *publisher_main(void *context)
{
    struct publisher *p = context;
    pthread_mutex_lock(&p->mutex);
    for (;;) {
        while (!p->first && !atomic_load(&p->stop))
            pthread_cond_wait(&p->changed, &p->mutex);
        if (atomic_load(&p->stop))
            break;
        struct waiting *waiting = p->first;
        p->first = waiting->next;
        if (!p->first)
            p->last = &p->first;
        pthread_mutex_unlock(&p->mutex);
        publish_job(p, waiting->job);
        free(waiting);
        pthread_mutex_lock(&p->mutex);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

lt_status publisher_create(const struct publisher_params *params, struct publisher **publisher_out,
                           struct lt_error *error)
{
    LT_TRY(lt_dir_create(params->outputs, error));
    struct publisher *p = calloc(1, sizeof *p);
    if (!p)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the publisher");
    p->quality = params->quality;
    p->last = &p->first;
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->changed, NULL);
    lt_status status = lt_path_join(p->outputs, sizeof p->outputs, params->outputs, "", error);
    if (status == LT_OK && pthread_create(&p->thread, NULL, publisher_main, p) != 0)
        status = lt_fail(error, LT_NO_MEMORY, "cannot start the publisher's thread");
    p->started = status == LT_OK;
    if (status != LT_OK) {
        publisher_destroy(&p);
        return status;
    }
    *publisher_out = p;
    return LT_OK;
}

void publisher_attach(struct publisher *p, struct coordinator *coordinator)
{
    pthread_mutex_lock(&p->mutex);
    p->coordinator = coordinator;
    pthread_mutex_unlock(&p->mutex);
}

void publisher_listen(void *publisher, const struct coordinator_event *event)
{
    struct publisher *p = publisher;
    if (event->kind != COORDINATOR_JOB_STATE || event->state != JOB_STATE_FINALIZING)
        return;
    struct waiting *waiting = calloc(1, sizeof *waiting);
    lt_assert(waiting);
    waiting->job = event->job;
    pthread_mutex_lock(&p->mutex);
    *p->last = waiting;
    p->last = &waiting->next;
    pthread_cond_signal(&p->changed);
    pthread_mutex_unlock(&p->mutex);
}

void publisher_destroy(struct publisher **publisher)
{
    struct publisher *p = *publisher;
    if (!p)
        return;
    pthread_mutex_lock(&p->mutex);
    atomic_store(&p->stop, true);
    pthread_cond_signal(&p->changed);
    pthread_mutex_unlock(&p->mutex);
    if (p->started)
        pthread_join(p->thread, NULL);
    while (p->first) {
        struct waiting *next = p->first->next;
        free(p->first);
        p->first = next;
    }
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->mutex);
    free(p);
    *publisher = NULL;
}
