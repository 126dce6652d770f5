#include "coordinator/publisher.h"

#include "common/file.h"
#include "common/log.h"
#include "common/queue.h"
#include "coordinator/publish.h"
#include "coordinator/voice_file.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WAITING_MAX = 1 << 16 };

struct publisher {
    char outputs[PATH_MAX - 64];
    int quality;
    struct coordinator *coordinator;
    pthread_t thread;
    struct lt_queue *waiting; /* numbers of jobs */
    atomic_bool stop;
    bool started;
};

lt_status publisher_path(const char *outputs, uint32_t job, const char *file, char *path_out,
                         size_t size, struct lt_error *error)
{
    char name[64];
    snprintf(name, sizeof name, "%u/%s", job, file);
    return lt_path_join(path_out, size, outputs, name, error);
}

/* -- one job ----------------------------------------------------------------------------------- */

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
    if (coordinator_published(coordinator, outcome->job, outcome->status, outcome->error.text,
                              &error) != LT_OK)
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
static lt_status write_record(const char *path, const struct publish_result *result,
                              struct lt_error *error)
{
    char latents[LT_DIGEST_HEX], frames[LT_DIGEST_HEX], text[512];
    lt_digest_format(&result->latents, latents);
    lt_digest_format(&result->frames, frames);
    const int length =
        snprintf(text, sizeof text,
                 "{\"frames\": %u, \"latents_sha256\": \"%s\", \"frames_sha256\": \"%s\"}\n",
                 result->frame_count, latents, frames);
    return lt_file_write(path, text, (size_t)length, true, error);
}

static lt_status write_take(struct publisher *p, uint32_t job, struct run *run,
                            struct lt_error *error)
{
    char dir[PATH_MAX], take[PATH_MAX], latents[PATH_MAX], record[PATH_MAX];
    struct publish_result result;
    struct voice_files voices;
    LT_TRY(publisher_path(p->outputs, job, "", dir, sizeof dir, error));
    LT_TRY(publisher_path(p->outputs, job, "take.mp4", take, sizeof take, error));
    LT_TRY(publisher_path(p->outputs, job, "latents.safetensors", latents, sizeof latents, error));
    LT_TRY(publisher_path(p->outputs, job, "take.json", record, sizeof record, error));
    LT_TRY(lt_dir_create(dir, error));
    const char *outputs[] = {take};
    lt_status status = voice_files_write(run, dir, &voices, error);
    const struct publish_params params = {.output = outputs,
                                          .output_count = 1,
                                          .sound = voices.sound,
                                          .sound_count = voices.count,
                                          .latents = latents,
                                          .quality = p->quality,
                                          .overwrite = true,
                                          .progress = go_on,
                                          .context = p};
    if (status == LT_OK)
        status = publish_take(run, &params, &result, error);
    voice_files_remove(&voices);
    LT_TRY(status);
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

/* -- the thread -------------------------------------------------------------------------------- */

static void *publisher_main(void *context)
{
    struct publisher *p = context;
    uint32_t job;
    while (lt_queue_pop(p->waiting, &job, -1) == LT_OK)
        if (!atomic_load(&p->stop))
            publish_job(p, job);
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
    lt_status status = lt_path_join(p->outputs, sizeof p->outputs, params->outputs, "", error);
    if (status == LT_OK)
        status = lt_queue_create(WAITING_MAX, sizeof(uint32_t), &p->waiting, error);
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

/* Before the first event, so before the thread looks at it. */
void publisher_attach(struct publisher *p, struct coordinator *coordinator)
{
    p->coordinator = coordinator;
}

void publisher_listen(void *publisher, const struct coordinator_event *event)
{
    struct publisher *p = publisher;
    if (event->kind != COORDINATOR_JOB_STATE || event->state != JOB_STATE_FINALIZING)
        return;
    if (lt_queue_push(p->waiting, &event->job, 0) !=
        LT_OK) /* the loop must not wait for the publisher */
        lt_log(LT_LOG_ERROR, "publish.full", "job=%u is published after the next start",
               event->job);
}

void publisher_destroy(struct publisher **publisher)
{
    struct publisher *p = *publisher;
    if (!p)
        return;
    atomic_store(&p->stop, true);
    if (p->waiting)
        lt_queue_close(p->waiting);
    if (p->started)
        pthread_join(p->thread, NULL);
    lt_queue_destroy(&p->waiting);
    free(p);
    *publisher = NULL;
}
