/* The coordinator of the world: the real core, its files and journal in memory, a publisher that
 * takes digests, and its crashes. */
#include "tests/sim/world.h"

#include <stdlib.h>
#include <string.h>

enum { TICK_US = 100000, HEAVY_TEXT_BYTES = 2 * LT_CHUNK_BYTES_MAX + 4000 };

/* Small jobs of every shape that the pieces between worker and take can have. */
#define JOB(size, sampler, schedule, extra, frames)                                                \
    "{\"size\": [" size ", " size "], \"frames\": " frames ", \"seed\": 7, \"guidance\": [2, 1],"  \
    "\"model\": {\"transformer\": \"high.gguf\", \"transformer_low\": \"low.gguf\","               \
    "\"vae\": \"vae.safetensors\", \"latent_channels\": 4},"                                       \
    "\"text\": {\"positive\": \"sha256:%s\", \"negative\": \"sha256:%s\"},"                        \
    "\"sampler\": {\"name\": \"" sampler "\", \"steps\": 4},"                                      \
    "\"window\": {\"schedule\": \"" schedule "\", \"latent_frames\": 4, " extra "},"               \
    "\"decode\": {\"segment\": 5, \"warmup\": 2}}"

/* With conditioning: pictures, prompts, a pose; as windows and as a loop of clips. */
#define MORE(kind, size, channels, frames, text, media, rest)                                      \
    "{\"kind\": \"" kind "\", \"size\": [" size ", " size "], \"frames\": " frames                 \
    ", \"seed\": 7, \"guidance\": [2, 1], \"model\": {\"transformer\": \"high.gguf\","             \
    "\"transformer_low\": \"low.gguf\", \"vae\": \"vae.safetensors\","                             \
    "\"audio_layers\": 2, \"audio_width\": 6, \"talk\": \"talk.safetensors\","                     \
    "\"text_encoder\": \"text.gguf\", \"text_len\": 3, \"text_width\": 2,"                         \
    "\"latent_channels\": " channels "}, \"text\": {" text "}, \"media\": {" media "},"            \
    "\"sampler\": {\"name\": \"unipc\", \"steps\": 4}, \"decode\": {\"segment\": 5, \"warmup\": "  \
    "2},"                                                                                          \
    "\"window\": {\"latent_frames\": 4, \"overlap\": 2}" rest "}"
#define TALK     "\"talk\": {\"variant\": \"multitalk\", \"audio_guidance\": 4}"
#define FEATURES "\"positive\": \"sha256:%s\", \"negative\": \"sha256:%s\""
#define PROMPTS  "\"prompt\": \"%.3s | %.3s\", \"negative_prompt\": \"bad\""
#define PICTURE(key, count, side)                                                                  \
    "\"" key "\": {\"sha256\": \"%s\", \"shape\": [" count ", " side ", " side ", 3]}"

static const char *const jobs[] = {
    JOB("16", "euler", "static_standard", "\"overlap\": 2", "45"),
    JOB("16", "unipc", "static_balanced", "\"overlap\": 2, \"fuse\": \"hann\"", "43"),
    JOB("16", "dpm++_sde", "uniform_standard", "\"overlap\": 1", "41"),
    JOB("16", "dpm++", "uniform_looped", "\"overlap\": 2, \"stride\": 2", "45"),
    JOB("16", "lcm", "batched_shifted", "\"overlap\": 0", "37"),
    JOB("16", "unipc", "static_standard", "\"overlap\": 2, \"barrier\": true", "33"),
    JOB("16", "euler", "static_standard",
        "\"overlap\": 2}, \"cache\": {\"kind\": \"magcache\", \"model\": \"14B\", "
        "\"threshold\": 1, \"start\": 0",
        "45"),
    JOB("16", "unipc", "static_balanced",
        "\"overlap\": 2}, \"cache\": {\"kind\": \"teacache\", \"curve\": \"plain\", "
        "\"threshold\": 0.9, \"start\": 0",
        "41"),
    JOB("16", "euler", "static_standard",
        "\"overlap\": 2}, \"cache\": {\"kind\": \"easycache\", \"start\": 1", "45"),
    MORE("image-to-video", "16", "16", "41", PROMPTS,
         PICTURE("image", "1", "16") ", " PICTURE("end_image", "1", "16"), ""),
    MORE("animate", "16", "16", "37", FEATURES,
         PICTURE("image", "1", "16") "%.0s, " PICTURE("pose", "3", "16"), ""),
    MORE("animate", "16", "16", "30", PROMPTS,
         PICTURE("image", "1", "16") "%.0s, " PICTURE("pose", "3", "16"),
         ", \"mode\": \"loop\", \"loop\": {\"frames\": 9, \"overlap\": 1}"),
    MORE("talk", "16", "16", "26", FEATURES,
         PICTURE(
             "image", "1",
             "16") "%.0s},"
                   "\"conditioning\": {\"audio\": {\"sha256\": \"%s\", \"shape\": [1, 48, 2, 6]}",
         ", \"mode\": \"loop\", \"loop\": {\"frames\": 13, \"overlap\": 5}," TALK),
    MORE("talk", "16", "16", "26", FEATURES,
         PICTURE(
             "image", "1",
             "16") "%.0s},"
                   "\"conditioning\": {\"audio\": {\"sha256\": \"%s\", \"shape\": [2, 24, 2, 6]}",
         ", \"mode\": \"loop\", \"loop\": {\"frames\": 13, \"overlap\": 5},"
         "\"talk\": {\"variant\": \"infinitetalk\"}"),
    MORE("talk", "16", "16", "30", FEATURES,
         PICTURE(
             "image", "1",
             "16") "%.0s},"
                   "\"conditioning\": {\"audio\": {\"sha256\": \"%s\", \"shape\": [1, 48, 2, 6]}",
         ", " TALK),
    MORE("image-to-video", "32", "48", "33", FEATURES, PICTURE("image", "1", "32"), ""),
    JOB("128", "euler", "static_standard", "\"overlap\": 1",
        "33"), /* with the long text: the heavy one */
};

enum { BLOBS = 5 };

/* The one of 48 channels: its pictures are 32 wide. */
static uint32_t coordinator_clean_kind(void)
{
    return LT_COUNT(jobs) - 2;
}

uint32_t coordinator_job_kinds(void)
{
    return LT_COUNT(jobs);
}

uint32_t coordinator_heavy_kind(void)
{
    return LT_COUNT(jobs) - 1;
}

/* -- what the core needs ----------------------------------------------------------------------- */

static lt_status open_files(void *context, uint32_t id, bool fresh, struct objects **store_out,
                            struct lt_error *error)
{
    struct world *world = context;
    lt_assert(id >= 1 && id <= WORLD_JOBS_MAX);
    struct world_job *job = &world->job[id - 1];
    if (fresh && job->store)
        objects_destroy(&job->store);
    if (!job->store)
        LT_TRY(objects_create_memory(&job->store, error));
    job->id = id;
    *store_out = job->store;
    return LT_OK;
}

static void close_files(void *context, uint32_t id, struct objects *store)
{
    (void)context; /* the bytes outlive the coordinator */
    (void)id;
    (void)store;
}

static void remove_files(void *context, uint32_t id)
{
    struct world *world = context;
    objects_destroy(&world->job[id - 1].store);
    world->job[id - 1].removed = true;
}

static int64_t no_wall(void)
{
    return 1;
}

static void listen(void *context, const struct coordinator_event *event)
{
    struct world *world = context;
    struct world_job *job = world_find_job(world, event->job);
    if (job && event->kind == COORDINATOR_JOB_STATE && event->state == JOB_STATE_FINALIZING)
        job->finalizing = true;
    if (job && event->kind == COORDINATOR_JOB_STATE && event->state == JOB_STATE_COMPLETED)
        job->completions++;
    if (event->kind == COORDINATOR_TASK_FAILED)
        world->retries++;
}

lt_status coordinator_start(struct world *world, struct lt_error *error)
{
    const struct core_params params = {
        .lease_us = 2000000,
        .heartbeat_us = 200000,
        .grace_us = 3000000,
        .credit_bytes = world->plan.credit_bytes,
        .upload_bytes_max = world->plan.upload_bytes_max,
        .attempts_max = 5,
        .journal = world->journal,
        .files = {world, open_files, close_files, remove_files},
        .wall_us = no_wall,
        .listener = listen,
        .listener_context = world,
    };
    return core_create(&params, world->now_us, &world->core, error);
}

static lt_status send_packet(void *context, const struct lt_packet *packet, struct lt_error *error)
{
    struct world *world = context;
    check_sent(world, packet);
    return faults_send(world, world->link, packet->peer.id[0] - 1u, packet, error);
}

static void flush(struct world *world)
{
    struct lt_error error;
    if (core_flush(world->core, world->now_us, send_packet, world, &error) != LT_OK)
        world_fail(world, "flush: %s", error.text);
    if (!world->failed)
        check_state(world);
}

static void receive(struct world *world)
{
    struct lt_packet packet;
    struct lt_error error;
    bool got;
    while (world->link->ops->receive(world->link, 0, &packet, &got, &error) == LT_OK && got) {
        core_receive(world->core, &packet, world->now_us);
        world->received[packet.message.kind]++;
        world->events++;
    }
}

/* -- crashes ----------------------------------------------------------------------------------- */

static struct lt_digest state_of(struct world *world)
{
    struct lt_digest digest = {{0}};
    struct lt_error error;
    if (core_state_digest(world->core, &digest, &error) != LT_OK)
        world_fail(world, "state: %s", error.text);
    return digest;
}

/* Dies with whatever was not committed, and starts again: with the state `before`. */
static void restart(struct world *world, const struct lt_digest *before)
{
    struct lt_error error;
    journal_rollback(world->journal);
    core_destroy(&world->core);
    for (uint32_t j = 0; j < WORLD_JOBS_MAX; j++)
        if (world->job[j].store)
            objects_memory_crash(world->job[j].store, world->random);
    world->deaf = false;
    world->restart_us = world->stalled_until_us = 0;
    world->crashes++;
    if (coordinator_start(world, &error) != LT_OK) {
        world_fail(world, "replay: the coordinator does not start again: %s", error.text);
        return;
    }
    const struct lt_digest after = state_of(world);
    if (!lt_digest_equal(before, &after))
        world_fail(world, "replay: the restarted coordinator has another state");
}

/* Between two batches, in the middle of one, or after a commit whose packets never leave. */
void coordinator_crash(struct world *world)
{
    struct lt_digest before = state_of(world);
    world->deaf = true;
    switch (world_draw(world, 3)) {
    case 0:
        break;
    case 1:
        receive(world);
        core_tick(world->core, world->now_us);
        core_dispatch(world->core, world->now_us);
        break;
    default:
        receive(world);
        flush(world);
        before = state_of(world);
        break;
    }
    restart(world, &before);
}

/* -- jobs -------------------------------------------------------------------------------------- */

static bool add(struct world *world, const struct core_submit *submit, uint32_t id_expected,
                bool existed_expected)
{
    struct lt_error error;
    uint32_t id;
    bool existed;
    if (core_add_job(world->core, submit, world->now_us, &id, &existed, &error) != LT_OK)
        world_fail(world, "job: %s", error.text);
    else if (id != id_expected || existed != existed_expected)
        world_fail(world, "job: number %u was expected, found %u%s", id_expected, id,
                   existed ? " again" : "");
    return !world->failed;
}

void coordinator_submit(struct world *world, uint32_t kind)
{
    /* two texts, two pictures, three pictures of a pose */
    const size_t text_bytes = kind == coordinator_heavy_kind() ? HEAVY_TEXT_BYTES : 32;
    const size_t side = kind == coordinator_clean_kind() ? 32 : 16;
    const size_t bytes[BLOBS] = {text_bytes, text_bytes, 3 * side * side, 3 * side * side,
                                 9 * side * side};
    const uint32_t id = world->job_count + 1;
    struct core_blob blob[BLOBS];
    char hex[BLOBS][LT_DIGEST_HEX], json[4096];
    for (int i = 0; i < BLOBS; i++) {
        float *value = calloc(1, bytes[i] + sizeof *value);
        lt_assert(value);
        for (size_t k = 0; k < bytes[i] / sizeof(float); k++)
            value[k] = (float)(i ? -i : 1) * (float)(k + 1);
        blob[i] = (struct core_blob){lt_sha256(value, bytes[i]), value, bytes[i]};
        lt_digest_format(&blob[i].digest, hex[i]);
    }
    snprintf(json, sizeof json, jobs[kind], hex[0], hex[1], hex[2], hex[3], hex[4]);
    const struct core_submit submit = {
        .json = json,
        .json_bytes = strlen(json),
        .digest = lt_sha256(json, strlen(json)),
        .blob = blob,
        .blob_count = BLOBS,
    };
    if (!world->calm &&
        world_chance(world, 100)) { /* nobody was told that it is accepted: the client asks again */
        const struct lt_digest before = state_of(world);
        if (add(world, &submit, id, false))
            restart(world, &before);
    }
    if (!world->failed && add(world, &submit, id, false)) {
        world->job[world->job_count++].kind = kind;
        const struct plan *plan = run_plan(core_job_run(world->core, id));
        world->task_count = plan->task_count;
        world->conditioned_count = plan->condition_count ? 4 * plan->step[0].window_count : 0;
        if (world->task_count > WORLD_TASKS_MAX)
            world_fail(world, "job of kind %u has too many tasks for the world", kind);
        flush(world);
        add(world, &submit, id, true);
    }
    for (int i = 0; i < BLOBS; i++)
        free((void *)(uintptr_t)blob[i].data);
}

void coordinator_cancel(struct world *world, struct world_job *job)
{
    struct lt_error error;
    job->cancel_asked |= core_cancel(world->core, job->id, &error) == LT_OK;
    flush(world);
}

static void publish(struct world *world)
{
    struct lt_error error;
    for (uint32_t j = 0; j < world->job_count && !world->failed; j++) {
        struct world_job *job = &world->job[j];
        struct run *run = core_job_run(world->core, job->id);
        if (!job->finalizing || !run)
            continue;
        const struct lt_digest before = state_of(world);
        job->finalizing = false;
        if (run_latents_digest(run, &job->latents, &error) != LT_OK ||
            run_frames_digest(run, &job->frames, &error) != LT_OK ||
            core_published(world->core, job->id, LT_OK, "", &error) != LT_OK)
            world_fail(world, "publish: %s", error.text);
        else if (world_is_faulty(world) && world_chance(world, 5 * world->plan.coordinator_crash))
            restart(world, &before); /* it must be published again */
        else
            flush(world);
    }
}

void coordinator_turn(struct world *world)
{
    if (world->stalled_until_us > world->now_us)
        return;
    if (world->restart_us && world->restart_us <= world->now_us)
        coordinator_crash(world);
    if (world->failed)
        return;
    receive(world);
    if (world->now_us >= world->tick_us) {
        core_tick(world->core, world->now_us);
        world->tick_us = world->now_us + TICK_US;
    }
    flush(world);
    publish(world);
}
