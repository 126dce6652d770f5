#include "coordinator/fleet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fleet_fini(struct fleet *fleet)
{
    for (size_t i = 0; i < fleet->count; i++) {
        free(fleet->worker[i]->model);
        free(fleet->worker[i]);
    }
    free(fleet->worker);
    memset(fleet, 0, sizeof *fleet);
}

/* Index of the peer, or where it belongs. */
static size_t place_of(const struct fleet *fleet, const struct lt_peer *peer)
{
    size_t low = 0, high = fleet->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (memcmp(fleet->worker[middle]->peer.id, peer->id, sizeof peer->id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct fleet_worker *fleet_find(const struct fleet *fleet, const struct lt_peer *peer)
{
    const size_t at = place_of(fleet, peer);
    if (at == fleet->count || !lease_peer_equal(&fleet->worker[at]->peer, peer))
        return NULL;
    return fleet->worker[at];
}

const char *fleet_base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static lt_status copy_models(const struct lt_hello *hello, struct fleet_model **model_out,
                             struct lt_error *error)
{
    struct fleet_model *model = calloc(hello->model_count + 1, sizeof *model);
    if (!model)
        return lt_fail(error, LT_NO_MEMORY, "no memory for %zu models", hello->model_count);
    for (size_t i = 0; i < hello->model_count; i++) {
        snprintf(model[i].name, sizeof model[i].name, "%s", fleet_base_name(hello->model[i].name));
        model[i].fingerprint = hello->model[i].fingerprint;
    }
    *model_out = model;
    return LT_OK;
}

static lt_status insert(struct fleet *fleet, const struct lt_peer *peer,
                        struct fleet_worker **worker_out, struct lt_error *error)
{
    if (fleet->count == fleet->capacity) {
        const size_t capacity = fleet->capacity ? 2 * fleet->capacity : 16;
        struct fleet_worker **list =
            realloc(fleet->worker, capacity * sizeof(struct fleet_worker *));
        if (!list)
            return lt_fail(error, LT_NO_MEMORY, "no memory for %zu workers", capacity);
        fleet->worker = list;
        fleet->capacity = capacity;
    }
    struct fleet_worker *worker = calloc(1, sizeof *worker);
    if (!worker)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a worker");
    worker->peer = *peer;
    worker->lease_first = LEASE_NONE;
    worker->session = ++fleet->session_last;
    const size_t at = place_of(fleet, peer);
    memmove(fleet->worker + at + 1, fleet->worker + at,
            (fleet->count - at) * sizeof(struct fleet_worker *));
    fleet->worker[at] = worker;
    fleet->count++;
    *worker_out = worker;
    return LT_OK;
}

lt_status fleet_join(struct fleet *fleet, const struct lt_peer *peer, const struct lt_hello *hello,
                     int64_t now_us, struct fleet_worker **worker_out, struct lt_error *error)
{
    if (!hello->kernel_class || !hello->kernel_class[0])
        return lt_fail(error, LT_BAD_INPUT, "a HELLO without kernel class");
    struct fleet_model *model = NULL;
    LT_TRY(copy_models(hello, &model, error));
    struct fleet_worker *worker = fleet_find(fleet, peer);
    if (!worker) {
        const lt_status status = insert(fleet, peer, &worker, error);
        if (status != LT_OK) {
            free(model);
            return status;
        }
    }
    free(worker->model);
    worker->model = model;
    worker->model_count = hello->model_count;
    snprintf(worker->name, sizeof worker->name, "%s", hello->name ? hello->name : "");
    snprintf(worker->device, sizeof worker->device, "%s", hello->device ? hello->device : "");
    snprintf(worker->kernel_class, sizeof worker->kernel_class, "%s", hello->kernel_class);
    worker->memory_bytes = hello->memory_bytes;
    fleet_set_slots(worker, hello->slot_count ? hello->slot_count : 1);
    worker->version_minor = hello->version_minor;
    worker->heard_us = now_us;
    worker->suspect = false;
    *worker_out = worker;
    return LT_OK;
}

void fleet_set_slots(struct fleet_worker *worker, uint32_t count)
{
    if (count)
        worker->slot_count = count < LT_SLOTS_MAX ? count : LT_SLOTS_MAX;
}

void fleet_remove(struct fleet *fleet, struct fleet_worker *worker)
{
    lt_assert(worker->lease_count == 0);
    const size_t at = place_of(fleet, &worker->peer);
    lt_assert(at < fleet->count && fleet->worker[at] == worker);
    fleet->count--;
    memmove(fleet->worker + at, fleet->worker + at + 1,
            (fleet->count - at) * sizeof(struct fleet_worker *));
    free(worker->model);
    free(worker);
}

void fleet_attach(struct fleet_worker *worker, struct lease_table *leases, uint32_t lease)
{
    lease_at(leases, lease)->next = worker->lease_first;
    worker->lease_first = lease;
    worker->lease_count++;
}

void fleet_detach(struct fleet_worker *worker, struct lease_table *leases, uint32_t lease)
{
    uint32_t *at = &worker->lease_first;
    while (*at != lease) {
        lt_assert(*at != LEASE_NONE);
        at = &lease_at(leases, *at)->next;
    }
    *at = lease_at(leases, lease)->next;
    lease_at(leases, lease)->next = LEASE_NONE;
    worker->lease_count--;
}

struct fleet_model *fleet_model(const struct fleet_worker *worker, const char *name,
                                const struct lt_digest *fingerprint)
{
    const bool pinned = !lt_digest_is_zero(fingerprint);
    for (size_t i = 0; i < worker->model_count; i++) {
        struct fleet_model *model = &worker->model[i];
        if (pinned ? lt_digest_equal(&model->fingerprint, fingerprint)
                   : strcmp(model->name, fleet_base_name(name)) == 0)
            return model;
    }
    return NULL;
}

const char *fleet_state(const struct fleet_worker *worker)
{
    if (worker->suspect)
        return "suspect";
    if (worker->draining)
        return "draining";
    return worker->lease_count ? "busy" : "idle";
}
