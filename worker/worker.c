/* longtake-worker run: one loop that owns the link and the protocol, one thread that computes. The
 * loop never waits for the computation: it hears of its end by a flag and a wake, so beats go on
 * during a long step. */
#include "worker/commands.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/option.h"
#include "common/process_memory.h"
#include "proto/link_zmq.h"
#include "worker/core.h"
#include "worker/engine.h"
#include "worker/processes.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <unistd.h>

struct settings {
    const char *coordinator, *device, *name, *kernel, *key, *server_key, *log_level;
    struct lt_text_list models;
    int64_t threads;
    uint64_t blob_cache, reuse_cache;
    struct memory_settings memory;
    bool verify, insecure, exit_with_parent;
};

static const struct lt_option options[] = {
    LT_OPTION(struct settings, coordinator, TEXT, "URL", NULL,
              .help = "tcp://host:7701 or ipc:///path: the coordinator's worker address"),
    LT_OPTION(struct settings, models, LIST, "DIR", NULL,
              .help = "folder (or file) with models; may be given again"),
    LT_OPTION(struct settings, verify, FLAG, NULL, NULL,
              .help = "hash all of a model file whenever it is loaded, and refuse one whose bytes "
                      "changed; otherwise size, time, inode and 64 samples tell"),
    LT_OPTION(struct settings, device, TEXT, "NAME", "host",
              .help =
                  "where to compute: host, cuda:N, or several: cuda:0,1,2,3 starts a process for "
                  "each, which share --ram"),
    LT_OPTION(struct settings, threads, INT, "N", "0", .min = 0, .max = 1024,
              .help = "0: every processor"),
    LT_OPTION(struct settings, name, TEXT, "NAME", NULL,
              .help = "shown to operators; default: host name and process"),
    MEMORY_OPTIONS(struct settings, memory),
    MEMORY_SYNC_OPTION(struct settings, memory),
    LT_OPTION(struct settings, blob_cache, SIZE, "SIZE", NULL,
              .help = "prompts and latents kept for tasks to come; none: 1/16 of --ram, at most "
                      "1GiB"),
    LT_OPTION(struct settings, reuse_cache, SIZE, "SIZE", NULL,
              .help = "what steps leave for later ones, of jobs with a cache; none: 1/4 of --ram, "
                      "at most 4GiB"),
    LT_OPTION(struct settings, kernel, TEXT, "SEL", "best", .help = "ref, best, or OP=ref|best,…"),
    LT_OPTION(struct settings, key, TEXT, "FILE", NULL, .help = "own secret key (longtake keygen)"),
    LT_OPTION(struct settings, server_key, TEXT, "FILE", NULL,
              .help = "the coordinator's public key"),
    LT_OPTION(struct settings, insecure, FLAG, NULL, NULL, .help = "no encryption, on any address"),
    LT_OPTION(struct settings, exit_with_parent, FLAG, NULL, NULL,
              .help = "end when the starting process ends"),
    LT_OPTION(struct settings, log_level, TEXT, "LEVEL", "info",
              .choices = "debug|info|warn|error|off", .help = "least level that is logged"),
};
static const struct lt_command command = {
    .program = "longtake-worker run",
    .usage = "--coordinator URL --models DIR [options]",
    .summary = "Connects to a coordinator and computes tasks until it is told to leave.\n"
               "SIGTERM or Ctrl-C: finish the running task, hand back what waits, leave. Twice: "
               "leave now.",
    .examples = "  longtake-worker run --coordinator tcp://127.0.0.1:7701 --models ~/models\n"
                "  longtake-worker run --coordinator tcp://farm:7701 --models /models --key w1.key "
                "--server-key farm.pub",
    .options = options,
    .option_count = LT_COUNT(options),
};

enum { PROGRESS_MS = 200 };

struct worker {
    const struct settings *settings;
    struct engine *engine;
    struct worker_core *core;
    struct lt_zmq_params link_params;
    struct lt_link *link;
    bool reconnect, exit;
    lt_status exit_status;
    char exit_text[256];
    struct lt_error broken; /* the device; code LT_OK: works */

    /* The compute thread: a batch is handed over under the lock and comes back under it. */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work_ready;
    bool stop, has_task, has_result;
    struct engine_work work[ENGINE_BATCH_MAX];
    size_t work_count;
    struct engine_progress progress;
    int64_t start_us;
};

static volatile sig_atomic_t stop_signals;

static void on_signal(int number)
{
    (void)number;
    stop_signals++;
}

/* -- the compute thread ------------------------------------------------------------------------ */

static void *compute_main(void *context)
{
    struct worker *w = context;
    pthread_mutex_lock(&w->lock);
    while (!w->stop) {
        if (!w->has_task) {
            pthread_cond_wait(&w->work_ready, &w->lock);
            continue;
        }
        pthread_mutex_unlock(&w->lock);
        engine_run(w->engine, w->work, w->work_count, &w->progress);
        pthread_mutex_lock(&w->lock);
        w->has_task = false;
        w->has_result = true;
        if (w->link)
            w->link->ops->wake(w->link);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void start_batch(struct worker *w, const struct worker_action *action)
{
    pthread_mutex_lock(&w->lock);
    lt_assert(!w->has_task && !w->has_result);
    w->start_us = lt_clock_now_us();
    memcpy(w->work, action->work, action->work_count * sizeof *w->work);
    w->work_count = action->work_count;
    atomic_store(&w->progress.cancel, 0);
    w->has_task = true;
    pthread_cond_signal(&w->work_ready);
    pthread_mutex_unlock(&w->lock);
    for (size_t i = 0; i < action->work_count; i++)
        lt_log(LT_LOG_INFO, "task.start", "task=%llu epoch=%llu batch=%zu",
               (unsigned long long)action->work[i].task, (unsigned long long)action->work[i].epoch,
               action->work_count);
}

static void log_end(const struct worker *w, const struct engine_work *work)
{
    const bool failed = work->status != LT_OK && work->status != LT_CANCELLED;
    lt_log(failed ? LT_LOG_WARN : LT_LOG_INFO, "task.end", "task=%llu status=%s seconds=%.3f%s%s",
           (unsigned long long)work->task, lt_status_name(work->status),
           (double)(lt_clock_now_us() - w->start_us) * 1e-6, failed ? " error=" : "",
           failed ? work->error.text : "");
}

/* The card gives no way back but a new process: what waits goes back to the farm at once, what is
 * finished is delivered, and the process ends. */
static void leave_the_device(struct worker *w, const struct lt_error *error)
{
    if (w->broken.code != LT_OK)
        return;
    w->broken = *error;
    lt_log(LT_LOG_ERROR, "worker.device", "%s; handing back what waits, then leaving", error->text);
    worker_core_drain(w->core, lt_clock_now_us());
}

/* Hands a finished batch to the core, which may start the next one with the last of it. */
static void take_results(struct worker *w)
{
    struct engine_work work[ENGINE_BATCH_MAX];
    pthread_mutex_lock(&w->lock);
    const size_t count = w->has_result ? w->work_count : 0;
    memcpy(work, w->work, count * sizeof *work);
    w->has_result = false;
    pthread_mutex_unlock(&w->lock);
    for (size_t i = 0; i < count; i++)
        if (work[i].status == LT_DEVICE)
            leave_the_device(w, &work[i].error);
    for (size_t i = 0; i < count; i++) {
        log_end(w, &work[i]);
        worker_core_finished(w->core, work[i].task, work[i].status,
                             work[i].status == LT_OK ? "" : work[i].error.text, work[i].result,
                             lt_clock_now_us());
    }
}

/* -- actions ----------------------------------------------------------------------------------- */

static void perform(void *context, const struct worker_action *action)
{
    struct worker *w = context;
    struct lt_error error;
    switch (action->kind) {
    case WORKER_SEND:
        if (w->link && w->link->ops->send(w->link, &action->packet, &error) != LT_OK)
            lt_log(LT_LOG_DEBUG, "link.unsent", "%s: %s",
                   lt_message_name(action->packet.message.kind), error.text);
        break; /* what was lost is asked for again */
    case WORKER_RECONNECT:
        w->reconnect = true;
        break;
    case WORKER_START:
        start_batch(w, action);
        break;
    case WORKER_CANCEL:
        atomic_store(&w->progress.cancel, 1);
        break;
    case WORKER_EXIT:
        w->exit = true;
        w->exit_status = action->status;
        snprintf(w->exit_text, sizeof w->exit_text, "%s", action->text);
        break;
    }
}

static lt_status connect_again(struct worker *w, struct lt_error *error)
{
    struct lt_link *link = NULL, *old;
    w->reconnect = false;
    pthread_mutex_lock(&w->lock); /* the compute thread wakes whatever link is there */
    old = w->link;
    w->link = NULL;
    pthread_mutex_unlock(&w->lock);
    if (old)
        old->ops->destroy(old);
    LT_TRY(lt_zmq_connect(&w->link_params, &link, error));
    pthread_mutex_lock(&w->lock);
    w->link = link;
    pthread_mutex_unlock(&w->lock);
    worker_core_connected(w->core, lt_clock_now_us());
    return LT_OK;
}

/* -- the loop ---------------------------------------------------------------------------------- */

static int wait_ms(const struct worker *w)
{
    const int64_t left = (worker_core_deadline_us(w->core) - lt_clock_now_us()) / 1000 + 1;
    return left < 0 ? 0 : left < PROGRESS_MS ? (int)left : PROGRESS_MS;
}

static void tell_memory(struct worker *w)
{
    struct lt_beat_memory memory;
    engine_memory(w->engine, &memory);
    const struct lt_digest resident = engine_resident(w->engine);
    worker_core_memory(w->core, &memory);
    worker_core_resident(w->core, &resident);
    worker_core_batch(w->core, engine_batch_max(w->engine));
}

static lt_status loop(struct worker *w, struct lt_error *error)
{
    int signals = 0;
    while (!w->exit) {
        struct lt_packet packet;
        bool got = false;
        worker_core_progress(w->core, atomic_load(&w->progress.phase),
                             atomic_load(&w->progress.done), atomic_load(&w->progress.total));
        tell_memory(w);
        worker_core_tick(w->core, lt_clock_now_us());
        if (w->reconnect)
            LT_TRY(connect_again(w, error));
        if (w->link)
            LT_TRY(w->link->ops->receive(w->link, wait_ms(w), &packet, &got, error));
        else
            usleep(1000 * (unsigned)wait_ms(w));
        if (got)
            worker_core_receive(w->core, &packet, lt_clock_now_us());
        take_results(w);
        if (stop_signals > signals) {
            signals = stop_signals;
            if (signals > 1)
                return lt_fail(error, LT_CANCELLED, "stopped at once by a second signal");
            lt_log(LT_LOG_INFO, "worker.draining", "finishing the running task");
            worker_core_drain(w->core, lt_clock_now_us());
        }
    }
    if (w->broken.code != LT_OK && w->exit_status == LT_OK)
        return lt_fail(error, LT_DEVICE, "%s", w->broken.text);
    return w->exit_status == LT_OK ? LT_OK : lt_fail(error, w->exit_status, "%s", w->exit_text);
}

/* -- start and end ----------------------------------------------------------------------------- */

static lt_status check_settings(const struct settings *settings, struct lt_error *error)
{
    if (!settings->coordinator)
        return lt_fail(error, LT_USAGE, "--coordinator is needed; see --help");
    if (settings->models.count == 0)
        return lt_fail(error, LT_USAGE,
                       "--models is needed: a folder with GGUF or safetensors files");
    return LT_OK;
}

static void make_peer(struct lt_peer *peer, const char *name, uint64_t nonce)
{
    const struct lt_digest digest = lt_sha256(name, strlen(name));
    memcpy(peer->id, digest.byte, 8);
    memcpy(peer->id + 8, &nonce, 8);
    peer->id[0] |= 1; /* ZeroMQ keeps ids that begin with zero to itself */
}

static void default_name(char *name, size_t size)
{
    char host[128] = "worker";
    gethostname(host, sizeof host - 1);
    snprintf(name, size, "%s-%ld", host, (long)getpid());
}

/* A share of the memory, at most `gigabytes`. */
static uint64_t default_cache(uint64_t ram, unsigned share, uint64_t gigabytes)
{
    const uint64_t most = gigabytes << 30;
    return ram / share < most ? ram / share : most;
}

static lt_status begin(struct worker *w, struct worker_params *params, const char *name,
                       struct lt_error *error)
{
    const struct settings *s = w->settings;
    struct engine_params engine = {.model_dir = s->models.item,
                                   .model_dir_count = s->models.count,
                                   .thread_count = (int)s->threads,
                                   .kernel_selector = s->kernel,
                                   .device = s->device,
                                   .verify = s->verify,
                                   .memory = s->memory};
    if (!engine.memory.ram)
        engine.memory.ram = lt_memory_limit();
    engine.blob_bytes = s->blob_cache ? s->blob_cache : default_cache(engine.memory.ram, 16, 1);
    engine.reuse_bytes = s->reuse_cache ? s->reuse_cache : default_cache(engine.memory.ram, 4, 4);
    uint64_t random[2] = {0};
    size_t model_count;
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return lt_fail(error, LT_IO, "no random numbers from the system: %s", strerror(errno));
    LT_TRY(engine_create(&engine, &w->engine, error));
    const struct lt_model_file *models = engine_models(w->engine, &model_count);
    lt_log(LT_LOG_INFO, "worker.start", "name=%s models=%zu class=\"%s\"", name, model_count,
           engine_kernel_class(w->engine));
    *params = (struct worker_params){
        .name = name,
        .build = LT_VERSION,
        .device = s->device,
        .kernel_class = engine_kernel_class(w->engine),
        .model = models,
        .model_count = model_count,
        .boot_nonce = random[0],
        .memory_bytes = engine.memory.ram,
        .blob_cache_bytes = engine.blob_bytes,
        .jitter_seed = random[1],
    };
    w->link_params = (struct lt_zmq_params){.endpoint = s->coordinator,
                                            .key_file = s->key,
                                            .server_key_file = s->server_key,
                                            .insecure = s->insecure};
    make_peer(&w->link_params.peer, name, random[0]);
    LT_TRY(worker_core_create(params, perform, w, lt_clock_now_us(), &w->core, error));
    if (pthread_create(&w->thread, NULL, compute_main, w) != 0)
        return lt_fail(error, LT_NO_MEMORY, "cannot start the compute thread");
    return LT_OK;
}

static void end(struct worker *w)
{
    if (w->thread) {
        atomic_store(&w->progress.cancel, 1);
        pthread_mutex_lock(&w->lock);
        w->stop = true;
        pthread_cond_signal(&w->work_ready);
        pthread_mutex_unlock(&w->lock);
        pthread_join(w->thread, NULL);
        for (size_t i = 0; w->has_result && i < w->work_count; i++)
            free(w->work[i].result);
    }
    worker_core_destroy(&w->core);
    if (w->link)
        w->link->ops->destroy(w->link);
    engine_destroy(&w->engine);
    pthread_cond_destroy(&w->work_ready);
    pthread_mutex_destroy(&w->lock);
}

static lt_status run(const struct settings *settings, const char *name, struct lt_error *error)
{
    struct worker w = {.settings = settings};
    struct worker_params params;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    pthread_mutex_init(&w.lock, NULL);
    pthread_cond_init(&w.work_ready, NULL);
    lt_status status = begin(&w, &params, name, error);
    if (status == LT_OK)
        status = loop(&w, error);
    end(&w);
    return status;
}

struct crew {
    const struct settings *settings;
    const struct process_devices *devices;
    char name[256];
};

/* Its own device and its share of main memory. */
static lt_status run_one_of(void *context, size_t index, struct lt_error *error)
{
    const struct crew *crew = context;
    struct settings own = *crew->settings;
    char name[300];
    own.device = crew->devices->name[index];
    own.memory.ram = (own.memory.ram ? own.memory.ram : lt_memory_limit()) / crew->devices->count;
    snprintf(name, sizeof name, "%s-%zu", crew->name, index);
    return run(&own, name, error);
}

static lt_status run_all(const struct settings *settings, struct lt_error *error)
{
    struct process_devices devices;
    struct crew crew = {.settings = settings, .devices = &devices};
    enum lt_log_level level;
    LT_TRY(check_settings(settings, error));
    LT_TRY(process_devices_parse(settings->device, &devices, error));
    if (lt_log_level_parse(settings->log_level, &level))
        lt_log_set_level(level);
    if (settings->exit_with_parent)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (settings->name)
        snprintf(crew.name, sizeof crew.name, "%s", settings->name);
    else
        default_name(crew.name, sizeof crew.name);
    return devices.count == 1 ? run(settings, crew.name, error)
                              : processes_run(&devices, run_one_of, &crew, error);
}

static lt_status start(void *context, const void *settings, const struct lt_operands *operands,
                       struct lt_error *error)
{
    (void)context;
    (void)operands;
    return run_all(settings, error);
}

int worker_run(int argc, char **argv)
{
    return lt_command_main(&command, argc, argv, sizeof(struct settings), start, NULL);
}
