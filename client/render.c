/* longtake render: a farm of one machine. The coordinator runs in this process and its workers are
 * children; the state folder keeps everything, so the same command goes on where it was stopped or
 * killed. */
#include "client/commands.h"

#include "client/crew.h"
#include "client/inputs.h"
#include "client/report.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "common/option.h"
#include "common/process_memory.h"
#include "common/progress.h"
#include "coordinator/coordinator.h"
#include "coordinator/media/media.h"
#include "coordinator/publish.h"
#include "proto/link_zmq.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct settings {
    int64_t workers, threads, quality, lease_ms;
    struct lt_text_list output, models, sound;
    uint64_t ram;
    const char *latents, *report, *state, *worker_program, *log_level;
    bool overwrite, keep_state;
};

static const struct lt_option options[] = {
    LT_OPTION(struct settings, workers, INT, "N", "1", .min = 1, .max = CREW_MAX,
              .help = "worker processes"),
    LT_OPTION(struct settings, threads, INT, "N", "0", .min = 0, .max = 1024,
              .help = "threads of each worker; 0: the processors divided among them"),
    LT_OPTION(struct settings, ram, SIZE, "SIZE", NULL,
              .help = "main memory for all workers together; none: what this machine or container "
                      "has"),
    LT_OPTION(struct settings, output, LIST, "FILE", NULL,
              .help = "take.mp4, or frames/ for a folder of PNG files, take.exr/ for EXR; may be "
                      "given again"),
    LT_OPTION(struct settings, sound, LIST, "FILE", NULL,
              .help = "sound for the mp4, cut or padded to its length; a video's too; several are "
                      "added up"),
    LT_OPTION(struct settings, latents, TEXT, "FILE", NULL,
              .help = "also write the latents, as safetensors"),
    LT_OPTION(struct settings, report, TEXT, "FILE", NULL,
              .help = "write seconds, bytes and digests as JSON"),
    LT_OPTION(struct settings, models, LIST, "DIR", NULL,
              .help = "where models are, beside the job file's own folder; may be given again"),
    LT_OPTION(
        struct settings, state, TEXT, "DIR", NULL,
        .help = "where unfinished work is kept [the first output with .longtake behind its name]"),
    LT_OPTION(struct settings, keep_state, FLAG, NULL, NULL,
              .help = "keep the state folder after success"),
    LT_OPTION(struct settings, overwrite, FLAG, NULL, NULL, .help = "replace outputs that exist"),
    LT_OPTION(struct settings, quality, INT, "CRF", "17", .min = 0, .max = 51,
              .help = "of mp4: lower is better, larger"),
    LT_OPTION(struct settings, lease_ms, INT, "MS", "10000", .min = 100, .max = 3600000,
              .help = "a worker that is silent for so long loses its task"),
    LT_OPTION(struct settings, worker_program, TEXT, "FILE", NULL,
              .help = "longtake-worker [beside this program]"),
    LT_OPTION(struct settings, log_level, TEXT, "LEVEL", "warn",
              .choices = "debug|info|warn|error|off", .help = "least level that is logged"),
};
static const struct lt_command command = {
    .program = "longtake render",
    .usage = "JOB.json --workers N --output TAKE.mp4 [options]",
    .summary =
        "Renders a job here: starts N workers, splits the video among them, writes the take.\n"
        "Ctrl-C finishes what runs and stops; the same command goes on from there. So it does "
        "after a crash.",
    .examples = "  longtake render take.json --workers 2 --output take.mp4\n"
                "  longtake render take.json --workers 4 --output frames/ --latents "
                "take.safetensors --report take.json.log",
    .options = options,
    .option_count = LT_COUNT(options),
    .operand_min = 1,
    .operand_max = 1,
};

enum {
    STEP_MS = 50,
    LEAVE_US = 10000000,
    MODELS_MAX = 64,
    MODEL_DIRS = 8 + JOB_LORAS_MAX,
    VOICES = 2
};

struct render {
    const struct settings *settings;
    const char *job_path;
    struct job_file file;
    char state[PATH_MAX], socket_dir[64], endpoint[128];
    const char *models[MODELS_MAX];
    /* of each model of the job, then the job file's own */
    char model_dir[MODEL_DIRS][PATH_MAX];
    size_t model_count;
    struct lt_link *link;
    struct coordinator *coordinator;
    struct crew crew;
    uint32_t job;
    char voice[VOICES][PATH_MAX]; /* of a talk job: the take's sound when no other is given */
    bool resumed, must_publish;
    struct publish_result published;
    struct lt_progress_bar bar;
    struct report report;
};

static volatile sig_atomic_t stop_signals;

static void on_signal(int number)
{
    (void)number;
    stop_signals++;
}

/* -- preparation ------------------------------------------------------------------------------- */

/* Said before the render, not hours later. */
static lt_status check_sound(const struct lt_text_list *sound, struct lt_error *error)
{
    if (sound->count > MUX_SOUNDS_MAX)
        return lt_fail(error, LT_USAGE, "--sound: %zu files; at most %d are added up", sound->count,
                       MUX_SOUNDS_MAX);
    for (size_t i = 0; i < sound->count; i++) {
        struct media_info info;
        LT_TRY(media_probe(&(struct media_source){.path = sound->item[i]}, &info, error));
        if (!info.has_sound)
            return lt_fail(error, LT_BAD_INPUT, "%s: expected sound, found none (%s)",
                           sound->item[i], info.format);
    }
    return LT_OK;
}

static lt_status choose_state(struct render *r, struct lt_error *error)
{
    const struct settings *s = r->settings;
    if (s->output.count == 0 && !s->latents)
        return lt_fail(error, LT_USAGE,
                       "--output (or --latents) is needed: where should the take go?");
    LT_TRY(check_sound(&s->sound, error));
    const char *base = s->output.count ? s->output.item[0] : s->latents;
    size_t length = strlen(base);
    while (length > 1 && base[length - 1] == '/')
        length--;
    const int written =
        s->state ? snprintf(r->state, sizeof r->state, "%s", s->state)
                 : snprintf(r->state, sizeof r->state, "%.*s.longtake", (int)length, base);
    if (written < 0 || (size_t)written >= sizeof r->state - 64)
        return lt_fail(error, LT_BAD_INPUT, "%s: path too long", base);
    return lt_dir_create(r->state, error);
}

/* The folder of a model that the job names by a path. */
static void add_model_dir(struct render *r, const char *name, char dir[PATH_MAX])
{
    if (!name || !strchr(name, '/'))
        return;
    if (name[0] == '/')
        snprintf(dir, PATH_MAX, "%s", name);
    else
        snprintf(dir, PATH_MAX, "%.2000s/%.2000s", r->file.dir, name);
    *strrchr(dir, '/') = 0;
    if (dir[0] && r->model_count < MODELS_MAX)
        r->models[r->model_count++] = dir;
}

static void choose_models(struct render *r)
{
    const struct job *job = &r->file.job;
    for (size_t i = 0; i < r->settings->models.count && r->model_count < MODELS_MAX - MODEL_DIRS;
         i++)
        r->models[r->model_count++] = r->settings->models.item[i];
    add_model_dir(r, job->transformer.name, r->model_dir[0]);
    add_model_dir(r, job->transformer_low.name, r->model_dir[1]);
    add_model_dir(r, job->vae.name, r->model_dir[2]);
    add_model_dir(r, job->text_encoder.name, r->model_dir[3]);
    add_model_dir(r, job->vision.name, r->model_dir[4]);
    add_model_dir(r, job->audio_encoder.name, r->model_dir[5]);
    add_model_dir(r, job->talk.name, r->model_dir[6]);
    for (size_t i = 0; i < job->lora_count; i++)
        add_model_dir(r, job->lora[i].file.name, r->model_dir[7 + i]);
    snprintf(r->model_dir[MODEL_DIRS - 1], PATH_MAX, "%s", r->file.dir);
    r->models[r->model_count++] = r->model_dir[MODEL_DIRS - 1];
}

static lt_status open_link(struct render *r, struct lt_error *error)
{
    const char *base =
        access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"; /* socket paths are short */
    snprintf(r->socket_dir, sizeof r->socket_dir, "%s/longtake-XXXXXX", base);
    if (!mkdtemp(r->socket_dir)) {
        r->socket_dir[0] = 0;
        return lt_fail(error, LT_IO, "cannot make a folder for the workers' socket in %s", base);
    }
    snprintf(r->endpoint, sizeof r->endpoint, "ipc://%s/workers", r->socket_dir);
    return lt_zmq_bind(&(struct lt_zmq_params){.endpoint = r->endpoint}, &r->link, error);
}

static void on_event(void *context, const struct coordinator_event *event)
{
    struct render *r = context;
    if (event->kind == COORDINATOR_JOB_STATE && event->state == JOB_STATE_FINALIZING &&
        event->job == r->job)
        r->must_publish = true;
    if (event->kind == COORDINATOR_TASK_FAILED)
        r->report.task_failures++;
}

static lt_status keep_blob(void *coordinator, const void *data, size_t bytes,
                           struct lt_digest *digest_out, struct lt_error *error)
{
    return coordinator_put_blob(coordinator, data, bytes, digest_out, error);
}

/* Before their paths become digests. */
static lt_status remember_voices(struct render *r, struct lt_error *error)
{
    static const enum job_input_kind kind[VOICES] = {JOB_INPUT_VOICE, JOB_INPUT_VOICE_2};
    for (size_t i = 0; i < VOICES; i++) {
        const char *path = r->file.job.input[kind[i]].path;
        if (path)
            LT_TRY(path[0] == '/' ? lt_path_join(r->voice[i], PATH_MAX, "", path, error)
                                  : lt_path_join(r->voice[i], PATH_MAX, r->file.dir, path, error));
    }
    return LT_OK;
}

static lt_status add_job(struct render *r, struct lt_error *error)
{
    struct coordinator_job_status status;
    char *json;
    LT_TRY(remember_voices(r, error));
    LT_TRY(inputs_upload(&r->file, keep_blob, r->coordinator, error));
    LT_TRY(job_format(&r->file.job, &r->file.arena, &json, error));
    const struct coordinator_submit submit = {
        .json = json, .json_bytes = strlen(json), .origin = r->job_path};
    LT_TRY(coordinator_add_job(r->coordinator, &submit, &r->job, &r->resumed, error));
    LT_TRY(coordinator_job_status(r->coordinator, r->job, &status, error));
    if (status.state == JOB_STATE_COMPLETED)
        return lt_fail(
            error, LT_CONFLICT,
            "this job was rendered already with this state folder; remove %s to render it "
            "again",
            r->state);
    r->must_publish = status.state == JOB_STATE_FINALIZING;
    if (r->resumed && status.progress.predict_done + status.progress.decode_done +
                              status.progress.condition_done >
                          0)
        fprintf(stderr, "resuming: %u of %u predictions and %u of %u decodes are done\n",
                status.progress.predict_done, status.progress.predict_count,
                status.progress.decode_done, status.progress.decode_count);
    return LT_OK;
}

static int threads_each(const struct settings *s)
{
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    const int64_t each = s->threads ? s->threads : processors / s->workers;
    return each < 1 ? 1 : (int)each;
}

static lt_status begin(struct render *r, struct lt_error *error)
{
    const struct settings *s = r->settings;
    LT_TRY(job_file_read(r->job_path, &r->file, error));
    LT_TRY(choose_state(r, error));
    choose_models(r);
    LT_TRY(open_link(r, error));
    const struct coordinator_params params = {.state_dir = r->state,
                                              .link = r->link,
                                              .lease_ms = s->lease_ms,
                                              .heartbeat_ms =
                                                  s->lease_ms / 5 < 2000 ? s->lease_ms / 5 : 2000,
                                              .restart_grace_ms = 0,
                                              .listener = on_event,
                                              .listener_context = r};
    LT_TRY(coordinator_create(&params, &r->coordinator, error));
    LT_TRY(add_job(r, error));
    const struct crew_params crew = {.program = s->worker_program,
                                     .endpoint = r->endpoint,
                                     .models = r->models,
                                     .model_count = r->model_count,
                                     .log_dir = r->state,
                                     .worker_count = (int)s->workers,
                                     .thread_count = threads_each(s),
                                     .ram_bytes = (s->ram ? s->ram : lt_memory_limit()) /
                                                  (uint64_t)s->workers};
    return crew_start(&r->crew, &crew, error);
}

/* -- the loop ---------------------------------------------------------------------------------- */

static void show(struct render *r, const struct coordinator_job_status *status)
{
    char text[192];
    const struct run_progress *p = &status->progress;
    if (status->reason[0])
        snprintf(text, sizeof text, "%.160s", status->reason);
    else if (p->predict_done == 0 && p->condition_done < p->condition_count)
        snprintf(text, sizeof text, "encoding %u/%u  workers %d", p->condition_done,
                 p->condition_count, crew_alive(&r->crew));
    else if (p->predict_done < p->predict_count)
        snprintf(text, sizeof text, "step %u/%u  windows %u/%u  workers %d", p->step_low + 1,
                 p->step_count, p->predict_done, p->predict_count, crew_alive(&r->crew));
    else
        snprintf(text, sizeof text, "decoding %u/%u  workers %d", p->decode_done, p->decode_count,
                 crew_alive(&r->crew));
    lt_progress_show(&r->bar, lt_clock_now_us(), status->fraction, status->eta_seconds, text);
}

static bool show_frames(void *context, uint32_t done, uint32_t total)
{
    struct render *r = context;
    char text[64];
    snprintf(text, sizeof text, "writing frame %u/%u", done, total);
    lt_progress_show(&r->bar, lt_clock_now_us(), (double)done / total, -1, text);
    return stop_signals < 2;
}

static lt_status publish(struct render *r, struct lt_error *error)
{
    const struct settings *s = r->settings;
    struct mux_sound sound[MUX_SOUNDS_MAX];
    size_t sound_count = s->sound.count;
    for (size_t i = 0; i < s->sound.count; i++)
        sound[i] = (struct mux_sound){.path = s->sound.item[i]};
    for (size_t i = 0; s->sound.count == 0 && i < VOICES && r->voice[i][0]; i++)
        sound[sound_count++] = (struct mux_sound){.path = r->voice[i]};
    const struct publish_params params = {.output = s->output.item,
                                          .output_count = s->output.count,
                                          .sound = sound,
                                          .sound_count = sound_count,
                                          .latents = s->latents,
                                          .quality = (int)s->quality,
                                          .overwrite = s->overwrite,
                                          .progress = show_frames,
                                          .context = r};
    const int64_t start = lt_clock_now_us();
    r->must_publish = false;
    LT_TRY(
        publish_take(coordinator_job_run(r->coordinator, r->job), &params, &r->published, error));
    r->report.publish_seconds = (double)(lt_clock_now_us() - start) * 1e-6;
    return LT_OK;
}

static bool all_workers_met(struct render *r)
{
    return coordinator_workers(r->coordinator, NULL, 0) >= (size_t)r->settings->workers;
}

/* Runs until the job is done, failed, or stopped by a signal. */
static lt_status loop(struct render *r, struct lt_error *error)
{
    for (;;) {
        struct coordinator_job_status status;
        LT_TRY(coordinator_step(r->coordinator, STEP_MS, error));
        LT_TRY(crew_watch(&r->crew, error));
        LT_TRY(coordinator_job_status(r->coordinator, r->job, &status, error));
        report_sample(&r->report, r->coordinator);
        if (r->must_publish) {
            LT_TRY(publish(
                r, error)); /* on failure the job stays as it is: the same command tries again */
            report_job(&r->report, &status, run_plan(coordinator_job_run(r->coordinator, r->job)),
                       r->link->traffic);
            return coordinator_published(r->coordinator, r->job, LT_OK, "", error);
        }
        if (status.state == JOB_STATE_FAILED)
            return lt_fail(error, status.status == LT_OK ? LT_INTERNAL : status.status,
                           "the job failed: %s", status.reason);
        if (status.nobody_can && all_workers_met(r))
            return lt_fail(error, LT_NOT_FOUND, "%s; the workers' logs say why: %s/worker-1.log",
                           status.reason, r->state);
        if (stop_signals)
            return lt_fail(error, LT_CANCELLED,
                           "stopped; the same command goes on from here (state: %s)", r->state);
        show(r, &status);
    }
}

/* Lets the workers finish what they run, and leave; at once at the second signal. Workers that
 * never met the coordinator know nothing of its drain: the signal tells them too. */
static void dismiss(struct render *r, bool patient)
{
    const int64_t give_up = lt_clock_now_us() + (patient ? INT64_MAX / 4 : LEAVE_US);
    struct lt_error error;
    crew_close(&r->crew);
    if (!r->coordinator)
        return;
    coordinator_drain(r->coordinator);
    crew_signal(&r->crew, SIGTERM);
    while (crew_alive(&r->crew) > 0 && lt_clock_now_us() < give_up && stop_signals < 2)
        if (coordinator_step(r->coordinator, STEP_MS, &error) != LT_OK ||
            crew_watch(&r->crew, &error) != LT_OK)
            break;
}

static void end(struct render *r, bool done)
{
    crew_close(&r->crew);
    crew_signal(&r->crew, SIGKILL);
    coordinator_destroy(&r->coordinator);
    if (r->link)
        r->link->ops->destroy(r->link);
    if (r->socket_dir[0])
        lt_dir_remove(r->socket_dir, NULL);
    if (done && !r->settings->keep_state)
        lt_dir_remove(r->state, NULL);
    job_file_fini(&r->file);
}

static void print_result(const struct render *r)
{
    char hex[LT_DIGEST_HEX], text[32];
    printf("%u frames in %s\n", r->published.frame_count,
           lt_duration_format(r->report.seconds, text));
    for (size_t i = 0; i < r->settings->output.count; i++)
        printf("take     %s\n", r->settings->output.item[i]);
    if (r->settings->latents)
        printf("latents  %s\n", r->settings->latents);
    lt_digest_format(&r->published.latents, hex);
    printf("sha256   latents %s\n", hex);
    lt_digest_format(&r->published.frames, hex);
    printf("sha256   frames  %s\n", hex);
}

static lt_status run(const char *job_path, const struct settings *settings, struct lt_error *error)
{
    struct render *r = calloc(1, sizeof *r);
    enum lt_log_level level;
    const int64_t start = lt_clock_now_us();
    if (!r)
        return lt_fail(error, LT_NO_MEMORY, "no memory");
    r->settings = settings;
    r->job_path = job_path;
    if (lt_log_level_parse(settings->log_level, &level))
        lt_log_set_level(level);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    signal(SIGPIPE, SIG_IGN);
    lt_progress_begin(&r->bar, stderr, start);
    lt_status status = begin(r, error);
    if (status == LT_OK)
        status = loop(r, error);
    lt_progress_end(&r->bar);
    if (status == LT_CANCELLED)
        fprintf(stderr, "finishing the tasks that run; Ctrl-C again stops at once\n");
    if (status == LT_OK || status == LT_CANCELLED)
        dismiss(r, status == LT_CANCELLED);
    r->report.seconds = (double)(lt_clock_now_us() - start) * 1e-6;
    if (status == LT_OK && settings->report)
        status = report_write(&r->report, settings->report, &r->published, r->crew.deaths, error);
    if (status == LT_OK)
        print_result(r);
    end(r, status == LT_OK);
    free(r);
    return status;
}

static lt_status start(void *context, const void *settings, const struct lt_operands *operands,
                       struct lt_error *error)
{
    (void)context;
    return run(operands->item[0], settings, error);
}

int client_render(int argc, char **argv)
{
    return lt_command_main(&command, argc, argv, sizeof(struct settings), start, NULL);
}
