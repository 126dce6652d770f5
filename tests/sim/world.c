/* Chance, time and the order of things. */
#include "tests/sim/world.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum {
    STEP_US = 100000, /* the longest that nothing happens */
    PUMP_US = 1000,   /* chunks that wait for room are tried again */
    FAULT_US = 50000,
    LIMIT_US = 600000000, /* of virtual time, from the end of the faults */
};

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

bool world_is_faulty(const struct world *world)
{
    return !world->calm && world->now_us < world->plan.calm_us;
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

uint32_t world_job_kinds(void)
{
    return coordinator_job_kinds();
}

static bool all_ended(const struct world *world)
{
    for (size_t j = 0; j < world->core->job_count; j++)
        if (!job_state_is_terminal(world->core->job[j]->state))
            return false;
    return world->job_count == world->plan.job_count;
}

static int64_t next_time(const struct world *world)
{
    int64_t next = world->now_us / STEP_US * STEP_US + STEP_US;
    const int64_t packet_us = lt_hub_next_us(world->hub);
    next = packet_us < next ? packet_us : next;
    next = world_is_faulty(world) && world->fault_us < next ? world->fault_us : next;
    if (core_is_sending(world->core) && world->now_us + PUMP_US < next)
        next = world->now_us + PUMP_US;
    for (uint32_t i = 0; i < world->plan.worker_count; i++)
        if (worker_next_us(world, i) < next)
            next = worker_next_us(world, i);
    return next > world->now_us ? next : world->now_us + 1;
}

static void turn(struct world *world, uint32_t first_kind)
{
    world->now_us = next_time(world);
    lt_hub_set_time(world->hub, world->now_us);
    for (uint32_t i = 0; i < world->plan.worker_count; i++)
        worker_run_due(world, i);
    if (world_is_faulty(world) && world->now_us >= world->fault_us) {
        faults_make(world);
        world->fault_us = world->now_us + FAULT_US;
    }
    while (!world->failed && world->job_count < world->plan.job_count &&
           world->job[world->job_count].due_us <= world->now_us &&
           world->stalled_until_us <= world->now_us) {
        const bool is_heavy = world->plan.heavy && world->job_count == 0;
        coordinator_submit(world, is_heavy
                                      ? coordinator_heavy_kind()
                                      : (first_kind + world->job_count) % coordinator_heavy_kind());
    }
    if (!world->failed)
        coordinator_turn(world);
}

static void begin(struct world *world)
{
    struct lt_error error;
    lt_assert(lt_hub_create(faults_of_packet, world, &world->hub, &error) == LT_OK);
    lt_assert(lt_hub_coordinator(world->hub, &world->link, &error) == LT_OK);
    lt_assert(journal_open(":memory:", &world->journal, &error) == LT_OK);
    lt_assert(coordinator_start(world, &error) == LT_OK);
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

bool world_run(uint64_t seed, const struct world_reference *reference, struct world *world,
               bool verbose)
{
    memset(world, 0, sizeof *world);
    world->seed = world->random = seed;
    faults_draw_plan(world);
    begin(world);
    const uint32_t first = world_draw(world, coordinator_heavy_kind());
    for (uint32_t j = 1; j < world->plan.job_count; j++)
        world->job[j].due_us =
            world->job[j - 1].due_us + (world_chance(world, 500) ? world_draw(world, 4000000) : 0);
    while (!world->failed && !all_ended(world) && world->now_us < world->plan.calm_us + LIMIT_US)
        turn(world, first);
    if (!world->failed)
        check_final(world, reference);
    if (verbose)
        printf("seed %llu: %u workers, %u jobs, %.1f s, %llu packets, %llu coordinator crashes, "
               "%llu failures\n",
               (unsigned long long)seed, world->plan.worker_count, world->plan.job_count,
               (double)world->now_us * 1e-6, (unsigned long long)world->events,
               (unsigned long long)world->crashes, (unsigned long long)world->retries);
    end(world);
    return !world->failed;
}

lt_status world_reference(uint32_t kind, struct world_reference *reference_out, char *text_out,
                          size_t size)
{
    struct world *world = calloc(1, sizeof *world);
    lt_assert(world);
    world->calm = true;
    world->plan = (struct world_plan){
        .worker_count = 1,
        .job_count = 1,
        .blob_cache_bytes = 1 << 24,
        .upload_bytes_max = 1 << 20,
        .credit_bytes = LT_CHUNK_BYTES_MAX,
        .heavy = kind == coordinator_heavy_kind(),
    };
    begin(world);
    while (!world->failed && !all_ended(world) && world->now_us < LIMIT_US)
        turn(world, kind);
    if (!world->failed && core_find_job(world->core, 1)->state != JOB_STATE_COMPLETED)
        world_fail(world, "job of kind %u does not complete: %s", kind,
                   core_find_job(world->core, 1)->reason);
    if (!world->failed)
        check_quiet(world);
    *reference_out = (struct world_reference){world->job[0].latents, world->job[0].frames};
    snprintf(text_out, size, "%s", world->failure);
    end(world);
    const bool failed = world->failed;
    free(world);
    return failed ? LT_INTERNAL : LT_OK;
}
