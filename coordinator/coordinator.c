#include "coordinator/coordinator.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { PACKETS_PER_STEP = 256, TICK_US = 100000 };

struct call {
    struct call *next;
    coordinator_work *work;
    void *context;
    bool done;
    lt_status status;
};

struct coordinator {
    char dir[PATH_MAX];
    int lock;
    struct journal *journal;
    struct core *core;
    struct lt_link *link;
    int64_t tick_us;       /* next */
    pthread_t thread;      /* of the loop: the one that created it */
    pthread_mutex_t mutex; /* calls and closing */
    pthread_cond_t answered;
    struct call *first, **last;
    bool closing;
};

/* -- files of jobs ----------------------------------------------------------------------------- */

static lt_status job_dir(const struct coordinator *c, uint32_t job, char path[PATH_MAX],
                         struct lt_error *error)
{
    char name[32];
    snprintf(name, sizeof name, "jobs/%u", job);
    return lt_path_join(path, PATH_MAX, c->dir, name, error);
}

static lt_status open_files(void *context, uint32_t job, bool fresh, struct objects **store_out,
                            struct lt_error *error)
{
    char path[PATH_MAX];
    LT_TRY(job_dir(context, job, path, error));
    if (fresh) /* what a crash left of a job that was never accepted */
        LT_TRY(lt_dir_remove(path, error));
    return objects_open_dir(path, store_out, error);
}

static void close_files(void *context, uint32_t job, struct objects *store)
{
    (void)context;
    (void)job;
    objects_destroy(&store);
}

static void remove_files(void *context, uint32_t job)
{
    char path[PATH_MAX];
    struct lt_error error;
    if (job_dir(context, job, path, &error) != LT_OK || lt_dir_remove(path, &error) != LT_OK)
        lt_log(LT_LOG_WARN, "job.files", "job=%u %s", job, error.text);
}

/* -- life -------------------------------------------------------------------------------------- */

static lt_status lock_dir(struct coordinator *c, struct lt_error *error)
{
    char path[PATH_MAX];
    LT_TRY(lt_path_join(path, sizeof path, c->dir, "lock", error));
    c->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (c->lock < 0)
        return lt_fail(error, LT_IO, "%s: cannot create: %s", path, strerror(errno));
    if (flock(c->lock, LOCK_EX | LOCK_NB) != 0)
        return lt_fail(error, LT_BUSY, "%s: another coordinator uses this state folder", c->dir);
    return LT_OK;
}

static lt_status open_core(struct coordinator *c, const struct coordinator_params *params,
                           struct lt_error *error)
{
    const int64_t lease_ms = params->lease_ms > 0 ? params->lease_ms : 30000;
    const int64_t long_grace_ms = lease_ms > 60000 ? lease_ms : 60000;
    const struct core_params core = {
        .lease_us = 1000 * lease_ms,
        .heartbeat_us = 1000 * (params->heartbeat_ms > 0 ? params->heartbeat_ms : 2000),
        .grace_us =
            1000 * (params->restart_grace_ms < 0 ? long_grace_ms : params->restart_grace_ms),
        .credit_bytes = params->credit_bytes ? params->credit_bytes : LT_CREDIT_BYTES_DEFAULT,
        .upload_bytes_max = 256 << 20,
        .attempts_max = params->attempts_max ? params->attempts_max : 5,
        .journal = c->journal,
        .files = {c, open_files, close_files, remove_files},
        .wall_us = lt_clock_wall_us,
        .listener = params->listener,
        .listener_context = params->listener_context,
    };
    return core_create(&core, lt_clock_now_us(), &c->core, error);
}

lt_status coordinator_create(const struct coordinator_params *params,
                             struct coordinator **coordinator_out, struct lt_error *error)
{
    struct coordinator *c = calloc(1, sizeof *c);
    if (!c)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the coordinator");
    c->lock = -1;
    c->link = params->link;
    c->last = &c->first;
    c->thread = pthread_self();
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->answered, NULL);
    char path[PATH_MAX];
    lt_status status;
    LT_TRY_OR(lt_path_join(c->dir, sizeof c->dir, params->state_dir, "", error), out);
    LT_TRY_OR(lt_dir_create(params->state_dir, error), out);
    LT_TRY_OR(lock_dir(c, error), out);
    LT_TRY_OR(lt_path_join(path, sizeof path, c->dir, "journal.sqlite", error), out);
    LT_TRY_OR(journal_open(path, &c->journal, error), out);
    LT_TRY_OR(open_core(c, params, error), out);
    *coordinator_out = c;
    return LT_OK;
out:
    coordinator_destroy(&c);
    return status;
}

/* The last of the waiting calls may still be leaving when the lock is free again. */
void coordinator_close_calls(struct coordinator *c)
{
    pthread_mutex_lock(&c->mutex);
    c->closing = true;
    for (struct call *call = c->first; call; call = call->next) {
        call->status = LT_CANCELLED;
        call->done = true;
    }
    c->first = NULL;
    c->last = &c->first;
    pthread_cond_broadcast(&c->answered);
    pthread_mutex_unlock(&c->mutex);
}

void coordinator_destroy(struct coordinator **coordinator)
{
    struct coordinator *c = *coordinator;
    if (!c)
        return;
    coordinator_close_calls(c);
    core_destroy(&c->core);
    journal_close(&c->journal);
    if (c->lock >= 0)
        close(c->lock);
    pthread_cond_destroy(&c->answered);
    pthread_mutex_destroy(&c->mutex);
    free(c);
    *coordinator = NULL;
}

/* -- the loop ---------------------------------------------------------------------------------- */

static lt_status send_packet(void *context, const struct lt_packet *packet, struct lt_error *error)
{
    struct coordinator *c = context;
    return c->link->ops->send(c->link, packet, error);
}

static lt_status flush(struct coordinator *c, struct lt_error *error)
{
    return core_flush(c->core, lt_clock_now_us(), send_packet, c, error);
}

void coordinator_wake(struct coordinator *c)
{
    c->link->ops->wake(c->link);
}

lt_status coordinator_call(struct coordinator *c, coordinator_work *work, void *context)
{
    if (pthread_equal(pthread_self(), c->thread)) {
        work(c, context);
        return LT_OK;
    }
    struct call call = {.work = work, .context = context};
    pthread_mutex_lock(&c->mutex);
    if (c->closing) {
        pthread_mutex_unlock(&c->mutex);
        return LT_CANCELLED;
    }
    *c->last = &call;
    c->last = &call.next;
    coordinator_wake(c);
    while (!call.done)
        pthread_cond_wait(&c->answered, &c->mutex);
    pthread_mutex_unlock(&c->mutex);
    return call.status;
}

static void run_calls(struct coordinator *c)
{
    pthread_mutex_lock(&c->mutex);
    while (c->first) {
        struct call *call = c->first;
        c->first = call->next;
        if (!c->first)
            c->last = &c->first;
        pthread_mutex_unlock(&c->mutex);
        call->work(c, call->context);
        pthread_mutex_lock(&c->mutex);
        call->done = true;
        pthread_cond_broadcast(&c->answered);
    }
    pthread_mutex_unlock(&c->mutex);
}

static int wait_ms(const struct coordinator *c, int timeout_ms)
{
    if (core_is_sending(c->core))
        return 1;
    const int64_t left_us = c->tick_us - lt_clock_now_us();
    const int64_t tick_ms = left_us > 0 ? left_us / 1000 + 1 : 0;
    return timeout_ms >= 0 && timeout_ms < tick_ms ? timeout_ms : (int)tick_ms;
}

lt_status coordinator_step(struct coordinator *c, int timeout_ms, struct lt_error *error)
{
    int wait = wait_ms(c, timeout_ms);
    for (int i = 0; i < PACKETS_PER_STEP; i++, wait = 0) {
        struct lt_packet packet;
        bool got;
        LT_TRY(c->link->ops->receive(c->link, wait, &packet, &got, error));
        if (!got)
            break;
        core_receive(c->core, &packet, lt_clock_now_us());
    }
    run_calls(c);
    const int64_t now_us = lt_clock_now_us();
    if (now_us >= c->tick_us) {
        core_tick(c->core, now_us);
        c->tick_us = now_us + TICK_US;
    }
    return flush(c, error);
}

/* -- jobs -------------------------------------------------------------------------------------- */

static lt_status blob_path(const struct coordinator *c, const struct lt_digest *digest,
                           char path[PATH_MAX], struct lt_error *error)
{
    char name[80];
    run_blob_name(digest, name); /* "blobs/<hex>", here as in a job's folder */
    return lt_path_join(path, PATH_MAX, c->dir, name, error);
}

lt_status coordinator_put_blob(struct coordinator *c, const void *data, size_t bytes,
                               struct lt_digest *digest_out, struct lt_error *error)
{
    if (bytes == 0 || bytes > COORDINATOR_BLOB_BYTES_MAX)
        return lt_fail(error, LT_BAD_INPUT, "a blob of %zu bytes: expected 1 to %lld", bytes,
                       (long long)COORDINATOR_BLOB_BYTES_MAX);
    const struct lt_digest digest = lt_sha256(data, bytes);
    char dir[PATH_MAX], path[PATH_MAX];
    LT_TRY(lt_path_join(dir, sizeof dir, c->dir, "blobs", error));
    LT_TRY(lt_dir_create(dir, error));
    LT_TRY(blob_path(c, &digest, path, error));
    LT_TRY(lt_file_write(path, data, bytes, true, error));
    *digest_out = digest;
    return LT_OK;
}

/* What a job names, read from where coordinator_put_blob left it. */
struct blobs {
    struct core_blob blob[RUN_BLOBS_MAX];
    size_t count;
};

static void free_blobs(struct blobs *blobs)
{
    for (size_t i = 0; i < blobs->count; i++)
        free((void *)(uintptr_t)blobs->blob[i].data);
}

static lt_status load_blobs(struct coordinator *c, const char *origin, const struct job *job,
                            struct blobs *blobs, struct lt_error *error)
{
    struct lt_digest digest[RUN_BLOBS_MAX];
    const size_t count = run_blobs(job, digest);
    for (size_t i = 0; i < count; i++) {
        char path[PATH_MAX], hex[LT_DIGEST_HEX];
        void *data;
        size_t bytes;
        lt_digest_format(&digest[i], hex);
        LT_TRY(blob_path(c, &digest[i], path, error));
        if (lt_file_read(path, COORDINATOR_BLOB_BYTES_MAX, &data, &bytes, error) != LT_OK)
            return lt_error_prefix(error, "%s: sha256:%s was not uploaded", origin, hex);
        blobs->blob[blobs->count++] = (struct core_blob){digest[i], data, bytes};
    }
    return LT_OK;
}

static lt_status add_parsed(struct coordinator *c, const struct coordinator_submit *submit,
                            const struct job *job, struct lt_arena *arena, uint32_t *id_out,
                            bool *existed_out, struct lt_error *error)
{
    struct core_submit to = {.priority = submit->priority};
    struct blobs blobs = {.count = 0};
    char *json;
    lt_status status;
    LT_TRY_OR(load_blobs(c, submit->origin, job, &blobs, error), out);
    to.blob = blobs.blob;
    to.blob_count = blobs.count;
    LT_TRY_OR(job_format(job, arena, &json, error), out);
    LT_TRY_OR(job_digest(job, &to.digest, error), out);
    to.json = json;
    to.json_bytes = strlen(json);
    LT_TRY_OR(core_add_job(c->core, &to, lt_clock_now_us(), id_out, existed_out, error), out);
    LT_TRY_OR(flush(c, error), out);
out:
    free_blobs(&blobs);
    return status;
}

lt_status coordinator_add_job(struct coordinator *c, const struct coordinator_submit *submit,
                              uint32_t *id_out, bool *existed_out, struct lt_error *error)
{
    struct lt_arena arena;
    struct job job;
    lt_arena_init(&arena, 0);
    lt_status status =
        job_parse(submit->json, submit->json_bytes, submit->origin, &arena, &job, error);
    if (status == LT_OK)
        status = add_parsed(c, submit, &job, &arena, id_out, existed_out, error);
    lt_arena_fini(&arena);
    return status;
}

lt_status coordinator_cancel(struct coordinator *c, uint32_t job, struct lt_error *error)
{
    LT_TRY(core_cancel(c->core, job, error));
    return flush(c, error);
}

lt_status coordinator_published(struct coordinator *c, uint32_t job, lt_status outcome,
                                const char *text, struct lt_error *error)
{
    LT_TRY(core_published(c->core, job, outcome, text, error));
    return flush(c, error);
}

void coordinator_drain(struct coordinator *c)
{
    core_drain(c->core);
}

/* -- answers ----------------------------------------------------------------------------------- */

lt_status coordinator_job_status(struct coordinator *c, uint32_t job,
                                 struct coordinator_job_status *status_out, struct lt_error *error)
{
    return core_job_status(c->core, job, lt_clock_now_us(), status_out, error);
}

size_t coordinator_jobs(struct coordinator *c, uint32_t *id_out, size_t max)
{
    return core_jobs(c->core, id_out, max);
}

const char *coordinator_job_json(struct coordinator *c, uint32_t job)
{
    return core_job_json(c->core, job);
}

struct run *coordinator_job_run(struct coordinator *c, uint32_t job)
{
    return core_job_run(c->core, job);
}

size_t coordinator_workers(struct coordinator *c, struct coordinator_worker_status *status_out,
                           size_t max)
{
    return core_workers(c->core, lt_clock_now_us(), status_out, max);
}

const struct core_totals *coordinator_totals(const struct coordinator *c)
{
    return core_totals(c->core);
}
