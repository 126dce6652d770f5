#include "tests/sim/world.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum {
    TICK_US = 100000,
    FAULT_US = 50000,
    LIMIT_US = 600000000, /* of virtual time, from the end of the faults */
};

/* Small jobs of every shape that the pieces between worker and take can have. */
#define JOB(sampler, schedule, extra, frames)                                                        \
    "{\"size\": [16, 16], \"frames\": " frames ", \"seed\": 7, \"guidance\": [2, 1],"                 \
    "\"model\": {\"transformer\": \"high.gguf\", \"transformer_low\": \"low.gguf\","                 \
    "\"vae\": \"vae.safetensors\", \"latent_channels\": 4},"                                         \
    "\"text\": {\"positive\": \"sha256:%s\", \"negative\": \"sha256:%s\"},"                          \
    "\"sampler\": {\"name\": \"" sampler "\", \"steps\": 4},"                                        \
    "\"window\": {\"schedule\": \"" schedule "\", \"latent_frames\": 4, " extra "},"   \
    "\"decode\": {\"segment\": 5, \"warmup\": 2}}"

static const char *const jobs[] = {
    JOB("euler", "static_standard", "\"overlap\": 2", "45"),
    JOB("unipc", "static_balanced", "\"overlap\": 2, \"fuse\": \"hann\"", "43"),
    JOB("dpm++_sde", "uniform_standard", "\"overlap\": 1", "41"),
    JOB("dpm++", "uniform_looped", "\"overlap\": 2, \"stride\": 2", "45"),
    JOB("lcm", "batched_shifted", "\"overlap\": 0", "37"),
    JOB("unipc", "static_standard", "\"overlap\": 2, \"barrier\": true", "33"),
};

static const float text[2][8] = {{1, 2, 3, 4, 5, 6, 7, 8}, {-1, -2, -3, -4, -5, -6, -7, -8}};

uint32_t world_job_kinds(void)
{
    return LT_COUNT(jobs);
}

/* -- chance ------------------------------------------------------------------------------------------------- */

uint32_t world_draw(struct world *world, uint32_t bound)
{
    world->random += 0x9e3779b97f4a7c15u; /* splitmix64 */
    uint64_t z = world->random;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) % bound);
}

bool world_chance(struct world *world, uint32_t of_thousand)
{
    return world_draw(world, 1000) < of_thousand;
}

void world_fail(struct world *world, const char *format, ...)
{
    if (world->failed)
        return; /* the first failure is the one to look at */
    va_list args;
    va_start(args, format);
    vsnprintf(world->failure, sizeof world->failure, format, args);
    va_end(args);
    world->failed = true;
}

struct world_job *world_find_job(struct world *world, uint32_t id)
{
    for (uint32_t j = 0; j < WORLD_JOBS_MAX; j++)
        if (world->job[j].id == id && id != 0)
            return &world->job[j];
    return NULL;
}

static void draw_plan(struct world *world)
{
    struct world_plan *plan = &world->plan;
    *plan = (struct world_plan){
        .worker_count = 1 + world_draw(world, WORLD_WORKERS_MAX),
        .job_count = 1 + world_draw(world, WORLD_JOBS_MAX),
        .delay_us_max = 1 + world_draw(world, world_chance(world, 300) ? 300000 : 5000),
        .drop = world_chance(world, 500) ? world_draw(world, 200) : 0,
        .repeat = world_chance(world, 500) ? world_draw(world, 200) : 0,
        .reorder = world_chance(world, 300),
        .worker_crash = world_chance(world, 500) ? world_draw(world, 40) : 0,
        .coordinator_crash = world_chance(world, 600) ? world_draw(world, 40) : 0,
        .partition = world_chance(world, 400) ? world_draw(world, 30) : 0,
        .drain = world_chance(world, 200) ? world_draw(world, 20) : 0,
        .engine_failure = world_chance(world, 250) ? world_draw(world, 300) : 0,
        .slow = world_chance(world, 300) ? 300 : 0,
        .calm_us = 1000000 + world_draw(world, 20000000),
        .cancel = world_chance(world, 200),
    };
}

/* -- the wire ----------------------------------------------------------------------------------------------- */

static int64_t decide_fate(void *context, const struct lt_packet *packet, bool to_worker, int64_t *repeat_us)
{
    struct world *world = context;
    const uint32_t index = packet->peer.id[0] - 1u;
    if (world->calm)
        return 100;
    if ((to_worker && world->deaf) || world->worker[index].cut_until_us > world->now_us)
        return LT_FAULT_DROP;
    const bool faulty = world->now_us < world->plan.calm_us;
    int64_t due_us = world->now_us + 50 + world_draw(world, (uint32_t)world->plan.delay_us_max);
    int64_t *lane_us = &world->lane_us[index][to_worker];
    if (!world->plan.reorder || !faulty) {
        due_us = due_us > *lane_us ? due_us : *lane_us;
        *lane_us = due_us;
    }
    if (faulty && world_chance(world, world->plan.repeat))
        *repeat_us = due_us - world->now_us + world_draw(world, 500000);
    return faulty && world_chance(world, world->plan.drop) ? LT_FAULT_DROP : due_us - world->now_us;
}

/* -- the coordinator ---------------------------------------------------------------------------------------- */

static lt_status open_files(void *context, uint32_t id, bool fresh, struct objects **store_out, struct lt_error *error)
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
    if (event->kind == COORDINATOR_TASK_FAILED)
        world->retries++;
}

static lt_status start_core(struct world *world, struct lt_error *error)
{
    const struct core_params params = {
        .lease_us = 2000000,
        .heartbeat_us = 200000,
        .grace_us = 3000000,
        .credit_bytes = LT_CREDIT_BYTES_DEFAULT,
        .upload_bytes_max = 4096, /* a few results: LATER is seen too */
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
    return world->link->ops->send(world->link, packet, error);
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
        world->events++;
    }
}

static struct lt_digest state_of(struct world *world)
{
    struct lt_digest digest = {{0}};
    struct lt_error error;
    if (core_state_digest(world->core, &digest, &error) != LT_OK)
        world_fail(world, "state: %s", error.text);
    return digest;
}

/* Between two batches, in the middle of one, or after a commit whose packets never leave. */
static void crash_coordinator(struct world *world)
{
    struct lt_error error;
    struct lt_digest before = state_of(world);
    world->deaf = true;
    switch (world_draw(world, 3)) {
    case 0: break;
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
    journal_rollback(world->journal);
    core_destroy(&world->core);
    for (uint32_t j = 0; j < WORLD_JOBS_MAX; j++)
        if (world->job[j].store)
            objects_memory_crash(world->job[j].store, world->random);
    world->deaf = false;
    world->crashes++;
    if (start_core(world, &error) != LT_OK) {
        world_fail(world, "replay: the coordinator does not start again: %s", error.text);
        return;
    }
    const struct lt_digest after = state_of(world);
    if (!lt_digest_equal(&before, &after))
        world_fail(world, "replay: the restarted coordinator has another state");
}

static void publish(struct world *world)
{
    struct lt_error error;
    for (uint32_t j = 0; j < world->plan.job_count; j++) {
        struct world_job *job = &world->job[j];
        struct run *run = core_job_run(world->core, job->id);
        if (!job->finalizing || !run)
            continue;
        job->finalizing = false;
        if (run_latents_digest(run, &job->latents, &error) != LT_OK ||
            run_frames_digest(run, &job->frames, &error) != LT_OK ||
            core_published(world->core, job->id, LT_OK, "", &error) != LT_OK)
            world_fail(world, "publish: %s", error.text);
        flush(world);
    }
}

/* -- the world ---------------------------------------------------------------------------------------------- */

static void add_job(struct world *world, uint32_t kind)
{
    char hex[2][LT_DIGEST_HEX], json[2048];
    struct lt_error error;
    uint32_t id;
    bool existed;
    for (int i = 0; i < 2; i++) {
        const struct lt_digest digest = lt_sha256(text[i], sizeof text[i]);
        lt_digest_format(&digest, hex[i]);
    }
    snprintf(json, sizeof json, jobs[kind], hex[0], hex[1]);
    const struct core_submit submit = {
        .json = json,
        .json_bytes = strlen(json),
        .digest = lt_sha256(json, strlen(json)),
        .text = text[0],
        .text_negative = text[1],
        .text_bytes = sizeof text[0],
        .text_negative_bytes = sizeof text[1],
    };
    if (core_add_job(world->core, &submit, world->now_us, &id, &existed, &error) != LT_OK) {
        world_fail(world, "job of kind %u: %s", kind, error.text);
        return;
    }
    world->job[id - 1].kind = kind;
    if (run_plan(core_job_run(world->core, id))->task_count > WORLD_TASKS_MAX)
        world_fail(world, "job of kind %u has too many tasks for the world", kind);
    flush(world);
}

static void make_faults(struct world *world)
{
    const struct world_plan *plan = &world->plan;
    for (uint32_t i = 0; i < plan->worker_count; i++) {
        struct world_worker *worker = &world->worker[i];
        if (worker->core && world_chance(world, plan->worker_crash)) {
            worker_kill(world, i);
            worker->up_us = world->now_us + world_draw(world, 5000000);
        }
        if (world_chance(world, plan->partition))
            worker->cut_until_us = world->now_us + world_draw(world, 6000000);
        if (worker->core && world_chance(world, plan->drain))
            worker_core_drain(worker->core, world->now_us);
    }
    if (world_chance(world, plan->coordinator_crash))
        crash_coordinator(world);
    if (plan->cancel && plan->job_count > 1 && world_chance(world, 20)) {
        struct lt_error error;
        struct world_job *last = &world->job[plan->job_count - 1];
        last->cancel_asked |= core_cancel(world->core, last->id, &error) == LT_OK;
    }
}

static bool all_ended(const struct world *world)
{
    for (size_t j = 0; j < world->core->job_count; j++)
        if (!job_state_is_terminal(world->core->job[j]->state))
            return false;
    return true;
}

static int64_t next_time(const struct world *world)
{
    int64_t next = world->now_us / TICK_US * TICK_US + TICK_US;
    const int64_t packet_us = lt_hub_next_us(world->hub);
    next = packet_us < next ? packet_us : next;
    next = !world->calm && world->fault_us < next ? world->fault_us : next;
    for (uint32_t i = 0; i < world->plan.worker_count; i++)
        if (worker_next_us(world, i) < next)
            next = worker_next_us(world, i);
    return next > world->now_us ? next : world->now_us + 1;
}

static void turn(struct world *world)
{
    world->now_us = next_time(world);
    lt_hub_set_time(world->hub, world->now_us);
    for (uint32_t i = 0; i < world->plan.worker_count; i++)
        worker_run_due(world, i);
    if (!world->calm && world->now_us >= world->fault_us) {
        if (world->now_us < world->plan.calm_us)
            make_faults(world);
        world->fault_us = world->now_us + FAULT_US;
    }
    if (world->failed)
        return;
    receive(world);
    if (world->now_us % TICK_US == 0)
        core_tick(world->core, world->now_us);
    flush(world);
    publish(world);
}

static void begin(struct world *world)
{
    struct lt_error error;
    lt_assert(lt_hub_create(decide_fate, world, &world->hub, &error) == LT_OK);
    lt_assert(lt_hub_coordinator(world->hub, &world->link, &error) == LT_OK);
    lt_assert(journal_open(":memory:", &world->journal, &error) == LT_OK);
    lt_assert(start_core(world, &error) == LT_OK);
    for (uint32_t i = 0; i < world->plan.worker_count; i++)
        worker_boot(world, i);
}

static void end(struct world *world)
{
    for (uint32_t i = 0; i < WORLD_WORKERS_MAX; i++)
        worker_kill(world, i);
    core_destroy(&world->core);
    journal_close(&world->journal);
    world->link->ops->destroy(world->link);
    lt_hub_destroy(&world->hub);
    for (uint32_t j = 0; j < WORLD_JOBS_MAX; j++)
        objects_destroy(&world->job[j].store);
}

bool world_run(uint64_t seed, const struct world_reference *reference, struct world *world, bool verbose)
{
    memset(world, 0, sizeof *world);
    world->seed = world->random = seed;
    draw_plan(world);
    begin(world);
    const uint32_t first = world_draw(world, LT_COUNT(jobs));
    for (uint32_t j = 0; j < world->plan.job_count; j++)
        add_job(world, (first + j) % LT_COUNT(jobs));
    while (!world->failed && !all_ended(world) && world->now_us < world->plan.calm_us + LIMIT_US)
        turn(world);
    if (!world->failed)
        check_final(world, reference);
    if (verbose)
        printf("seed %llu: %u workers, %u jobs, %.1f s, %llu packets, %llu coordinator crashes, %llu failures\n",
               (unsigned long long)seed, world->plan.worker_count, world->plan.job_count, (double)world->now_us * 1e-6,
               (unsigned long long)world->events, (unsigned long long)world->crashes,
               (unsigned long long)world->retries);
    end(world);
    return !world->failed;
}

lt_status world_reference(uint32_t kind, struct world_reference *reference_out, char *text_out, size_t size)
{
    struct world *world = calloc(1, sizeof *world);
    lt_assert(world);
    world->calm = true;
    world->plan = (struct world_plan){.worker_count = 1, .job_count = 1};
    begin(world);
    add_job(world, kind);
    while (!world->failed && !all_ended(world) && world->now_us < LIMIT_US)
        turn(world);
    if (!world->failed && core_find_job(world->core, 1)->state != JOB_STATE_COMPLETED)
        world_fail(world, "job of kind %u does not complete: %s", kind, core_find_job(world->core, 1)->reason);
    *reference_out = (struct world_reference){world->job[0].latents, world->job[0].frames};
    snprintf(text_out, size, "%s", world->failure);
    end(world);
    const bool failed = world->failed;
    free(world);
    return failed ? LT_INTERNAL : LT_OK;
}
