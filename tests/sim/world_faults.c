/* What goes wrong: drawn once for a schedule (rates), then packet by packet and round by round. */
#include "tests/sim/world.h"

#include <stdlib.h>
#include <string.h>

void faults_draw_plan(struct world *world)
{
    struct world_plan *plan = &world->plan;
    *plan = (struct world_plan){
        .worker_count = 1 + world_draw(world, WORLD_WORKERS_MAX),
        .job_count = 1 + world_draw(world, WORLD_JOBS_MAX),
        .delay_us_max = 1 + world_draw(world, world_chance(world, 300) ? 300000 : 5000),
        .drop = world_chance(world, 500) ? world_draw(world, 200) : 0,
        .repeat = world_chance(world, 500) ? world_draw(world, 200) : 0,
        .reorder = world_chance(world, 300),
        .full = world_chance(world, 200) ? world_draw(world, 300) : 0,
        .damage = world_chance(world, 200) ? world_draw(world, 100) : 0,
        .liar = world_chance(world, 50),
        .fix_crc = world_chance(world, 500),
        .worker_crash = world_chance(world, 500) ? world_draw(world, 40) : 0,
        .coordinator_crash = world_chance(world, 600) ? world_draw(world, 40) : 0,
        .partition = world_chance(world, 400) ? world_draw(world, 30) : 0,
        .drain = world_chance(world, 200) ? world_draw(world, 20) : 0,
        .freeze = world_chance(world, 300) ? world_draw(world, 30) : 0,
        .stall = world_chance(world, 200) ? world_draw(world, 20) : 0,
        .drain_all = world_chance(world, 100) ? world_draw(world, 20) : 0,
        .engine_failure = world_chance(world, 250) ? world_draw(world, 300) : 0,
        .slow = world_chance(world, 300) ? 300 : 0,
        .mixed_models = world_chance(world, 200),
        .two_classes = world_chance(world, 200),
        .batch_max = world_chance(world, 300) ? 2 + world_draw(world, 3) : 1,
        .blob_cache_bytes = world_chance(world, 300) ? world_draw(world, 4096) : 1 << 20,
        .upload_bytes_max =
            world_chance(world, 300) ? 1 << 22 : 4096, /* little: LATER is seen too */
        .credit_bytes = world_chance(world, 500) ? LT_CHUNK_BYTES_MAX : LT_CREDIT_BYTES_DEFAULT,
        .heavy = world_chance(world, 30),
        .calm_us = 1000000 + world_draw(world, 20000000),
        .cancel = world_chance(world, 200),
    };
    if (world_chance(world, 20)) /* nothing else is wrong: that must not cost the job */
        *plan = (struct world_plan){
            .worker_count = 2 + world_draw(world, WORLD_WORKERS_MAX - 1),
            .job_count = plan->job_count,
            .delay_us_max = 1000,
            .slow = plan->slow,
            .liar = true,
            .only_liar = true,
            .fix_crc = plan->fix_crc,
            .blob_cache_bytes = plan->blob_cache_bytes,
            .upload_bytes_max = plan->upload_bytes_max,
            .credit_bytes = plan->credit_bytes,
        };
    plan->two_classes &=
        !plan->mixed_models; /* else a job may be bound to a class that lacks its model */
}

/* -- packets ----------------------------------------------------------------------------------- */

int64_t faults_of_packet(void *context, const struct lt_packet *packet, bool to_worker,
                         int64_t *repeat_us)
{
    struct world *world = context;
    const uint32_t index = packet->peer.id[0] - 1u;
    if (world->calm)
        return 100;
    if ((to_worker && world->deaf) || world->worker[index].cut_until_us > world->now_us)
        return LT_FAULT_DROP;
    const bool faulty = world_is_faulty(world);
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

/* One bit of the chunk is another. */
static lt_status send_damaged(struct world *world, struct lt_link *link,
                              const struct lt_packet *packet, struct lt_error *error)
{
    struct lt_packet damaged = *packet;
    uint8_t *payload = malloc(packet->payload_bytes);
    lt_assert(payload);
    memcpy(payload, packet->payload, packet->payload_bytes);
    payload[world_draw(world, (uint32_t)packet->payload_bytes)] ^=
        (uint8_t)(1u << world_draw(world, 8));
    damaged.payload = payload;
    if (world->plan.fix_crc)
        damaged.message.chunk.crc32c = lt_crc32c(0, payload, packet->payload_bytes);
    const lt_status status = link->ops->send(link, &damaged, error);
    free(payload);
    return status;
}

lt_status faults_send(struct world *world, struct lt_link *link, uint32_t worker,
                      const struct lt_packet *packet, struct lt_error *error)
{
    const struct world_plan *plan = &world->plan;
    const bool faulty = world_is_faulty(world);
    if (faulty && world_chance(world, plan->full))
        return lt_fail(error, LT_BUSY, "the peer's queue is full");
    if (packet->message.kind == LT_MESSAGE_CHUNK &&
        ((plan->liar && worker == 1) || (faulty && world_chance(world, plan->damage))))
        return send_damaged(world, link, packet, error);
    return link->ops->send(link, packet, error);
}

/* -- machines ---------------------------------------------------------------------------------- */

static void hurt_worker(struct world *world, uint32_t index)
{
    const struct world_plan *plan = &world->plan;
    struct world_worker *worker = &world->worker[index];
    if (worker->core && world_chance(world, plan->worker_crash)) {
        worker_kill(world, index);
        worker->up_us = world->now_us + world_draw(world, 5000000);
    }
    if (world_chance(world, plan->partition))
        worker->cut_until_us = world->now_us + world_draw(world, 6000000);
    if (worker->core && world_chance(world, plan->drain))
        worker_core_drain(worker->core, world->now_us);
    if (worker->core && world_chance(world, plan->freeze))
        worker_freeze(world, index, world_draw(world, 6000000));
}

static void disturb_coordinator(struct world *world)
{
    const struct world_plan *plan = &world->plan;
    if (world_chance(world, plan->coordinator_crash))
        coordinator_crash(world);
    if (world->failed || world->stalled_until_us > world->now_us)
        return; /* it hears nothing now */
    if (world_chance(world, plan->stall))
        world->stalled_until_us = world->now_us + world_draw(world, 5000000);
    else if (world->restart_us == 0 && world_chance(world, plan->drain_all)) {
        core_drain(world->core);
        world->restart_us = world->now_us + 1 + world_draw(world, 3000000);
    } else if (plan->cancel && world->job_count == plan->job_count && plan->job_count > 1 &&
               world_chance(world, 20)) {
        coordinator_cancel(world, &world->job[plan->job_count - 1]);
    }
}

void faults_make(struct world *world)
{
    for (uint32_t i = 0; i < world->plan.worker_count; i++)
        hurt_worker(world, i);
    disturb_coordinator(world);
}
