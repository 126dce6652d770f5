/* The ring. Each use of a slab asks for the next k swapped ones in the order of the forward
 * (blocks, then the time group, which opens the next forward), so one is on its way while k are
 * computed. Each slot has two events: `fetched`, which compute waits for, and `idle`, which a fetch
 * into the slot waits for. A slot whose block is neither in use nor among the wanted ones is free
 * for another. */
#include "worker/weights/store_private.h"

#include <stdio.h>
#include <stdlib.h>

static bool is_swapped(const struct store *store, size_t s)
{
    return store->slab[s].tier != STORE_TIER_DEVICE && store->layout.slab_bytes[s] > 0;
}

/* What a forward uses `ahead` places behind slab `s`. The prompt group stands where the time group
 * does: a forward follows. */
static size_t next_after(const struct store *store, size_t s, size_t ahead)
{
    const size_t blocks = store->layout.block_count, time = blocks + STORE_GROUP_TIME;
    const size_t place = ((s < blocks  ? s
                           : s == time ? blocks
                                       : blocks - 1) +
                          ahead) %
                         (blocks + 1);
    return place < blocks ? place : time;
}

static struct slot *slot_of(const struct store *store, size_t s)
{
    for (size_t i = 0; i < store->slot_count; i++)
        if (store->slot[i].slab == (int64_t)s)
            return &store->slot[i];
    return NULL;
}

void *swap_data(const struct store *store, size_t s)
{
    const struct slot *slot = slot_of(store, s);
    return slot ? slot->data : NULL;
}

/* -- the copy queue's side --------------------------------------------------------------------- */

static lt_status fetch_from_disk(struct slot *slot, struct lt_error *error)
{
    struct store *store = slot->store;
    const struct layout *layout = &store->layout;
    for (size_t i = 0; i < layout->count; i++) {
        const struct layout_tensor *tensor = &layout->tensor[layout->order[i]];
        if (tensor->slab == (size_t)slot->slab)
            LT_TRY(place_tensor(store, tensor, slot->data, true, error));
    }
    if (!store->staging)
        device_landed(store->device, layout->slab_bytes[slot->slab]);
    return LT_OK;
}

static lt_status fetch(void *context, struct lt_error *error)
{
    struct slot *slot = context;
    struct store *store = slot->store;
    const size_t s = (size_t)slot->slab;
    const size_t bytes = store->layout.slab_bytes[s];
    if (store->slab[s].tier == STORE_TIER_DISK) {
        LT_TRY(fetch_from_disk(slot, error));
    } else {
        LT_TRY(place_slab(store, s, error));
        LT_TRY(device_copy(store->device, slot->data, store->slab[s].data, bytes, error));
    }
    pthread_mutex_lock(&store->lock);
    store->stats.copy_bytes += bytes;
    store->stats.fetch_count++;
    pthread_mutex_unlock(&store->lock);
    return LT_OK;
}

/* -- the compute queue's side ------------------------------------------------------------------ */

/* Whether slab `s` is among the next k swapped ones after `now`. */
static bool is_wanted(const struct store *store, size_t s, size_t now)
{
    const size_t blocks = store->layout.block_count;
    for (size_t i = 1, found = 0; i <= blocks && found < store->params.prefetch; i++) {
        const size_t next = next_after(store, now, i);
        if (next == s)
            return true;
        found += is_swapped(store, next);
    }
    return false;
}

/* An empty slot if there is one: while blocks are still being placed, those that are there may be
 * asked for late, and what is in a slot then serves the next forward. */
static struct slot *free_slot(struct store *store, size_t now)
{
    struct slot *free = NULL, *busy = NULL;
    for (size_t i = 0; i < store->slot_count; i++) {
        struct slot *slot = &store->slot[i];
        if (slot->slab == SLAB_NONE)
            return slot;
        if ((size_t)slot->slab == now || store->slab[slot->slab].users > 0 ||
            is_wanted(store, (size_t)slot->slab, now))
            continue;
        if (!device_event_is_done(slot->fetched))
            busy = slot; /* left behind by a forward that was cancelled or skips blocks */
        else if (!free)
            free = slot;
    }
    return free ? free : busy;
}

/* Asks for slab `s` unless it is there or on its way; false: there is no slot for it now. */
static bool ask_for(struct store *store, size_t s, size_t now)
{
    if (slot_of(store, s))
        return true;
    struct slot *slot = free_slot(store, now);
    if (!slot)
        return false;
    (void)device_wait(store->device, slot->fetched, NULL); /* the job is ours again */
    slot->slab = (int64_t)s;
    slot->job = (struct device_job){
        .run = fetch, .context = slot, .after = slot->idle, .done = slot->fetched};
    device_submit(store->device, &slot->job);
    return true;
}

static bool is_placed(struct store *store, size_t s)
{
    pthread_mutex_lock(&store->lock);
    const bool placed = store->slab[s].left == 0;
    pthread_mutex_unlock(&store->lock);
    return placed;
}

/* While blocks are still being placed, nothing overtakes those that come before it. */
static void look_ahead(struct store *store, size_t now)
{
    const size_t blocks = store->layout.block_count;
    for (size_t i = 1, asked = 0; i <= blocks && asked < store->params.prefetch; i++) {
        const size_t next = next_after(store, now, i);
        if (!is_placed(store, next))
            return;
        if (!is_swapped(store, next))
            continue;
        if (!ask_for(store, next, now))
            return;
        asked++;
    }
}

static int64_t stall_us(struct store *store)
{
    struct device_stats stats;
    device_stats(store->device, &stats);
    return stats.stall_us;
}

static const char *name_of(const struct store *store, size_t s, char name[32])
{
    static const char *const groups[] = {"the rest", "the time group", "the prompt group"};
    if (s >= store->layout.block_count)
        return groups[s - store->layout.block_count];
    snprintf(name, 32, "block %zu", s);
    return name;
}

lt_status swap_use(struct store *store, size_t s, struct lt_error *error)
{
    if (store->slot_count == 0)
        return LT_OK;
    char name[32];
    const int64_t before = stall_us(store);
    const bool swapped = is_swapped(store, s);
    if (swapped && !ask_for(store, s, s))
        return lt_fail(error, LT_BUSY, "%s: %s needs a slot, all %zu are in use", store->path,
                       name_of(store, s, name), store->slot_count);
    look_ahead(store, s);
    lt_status status = LT_OK;
    if (swapped) {
        struct slot *slot = slot_of(store, s);
        status = device_wait(store->device, slot->fetched, error);
        if (status != LT_OK) {
            slot->slab = SLAB_NONE; /* the next use tries again */
            lt_error_prefix(error, "%s", name_of(store, s, name));
        }
    }
    pthread_mutex_lock(&store->lock);
    store->stats.stall_us += stall_us(store) - before;
    pthread_mutex_unlock(&store->lock);
    return status;
}

void swap_leave(struct store *store, size_t s)
{
    struct slot *slot = slot_of(store, s);
    if (slot)
        device_mark(store->device, slot->idle);
}

void swap_forget(struct store *store, bool (*stale)(const struct store *store, size_t s))
{
    for (size_t i = 0; i < store->slot_count; i++) {
        struct slot *slot = &store->slot[i];
        (void)device_wait(store->device, slot->fetched, NULL);
        if (slot->slab != SLAB_NONE && stale(store, (size_t)slot->slab)) {
            lt_assert(store->slab[slot->slab].users == 0);
            slot->slab = SLAB_NONE;
        }
    }
}

/* -- life -------------------------------------------------------------------------------------- */

lt_status swap_create(struct store *store, const struct store_memory *memory,
                      struct lt_error *error)
{
    store->slot = calloc(memory->slot_count + 1, sizeof *store->slot);
    if (!store->slot)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for its slots", store->path);
    store->slot_count = memory->slot_count;
    store->slot_bytes = memory->slot_bytes;
    for (size_t i = 0; i < store->slot_count; i++) {
        struct slot *slot = &store->slot[i];
        slot->store = store;
        slot->slab = SLAB_NONE;
        LT_TRY(device_event_create(store->device, &slot->fetched, error));
        LT_TRY(device_event_create(store->device, &slot->idle, error));
        LT_TRY(device_take(store->device, DEVICE_MEMORY_LOCAL, store->slot_bytes,
                           "a slot for swapped blocks", &slot->data, error));
        store->stats.device_bytes += store->slot_bytes;
    }
    return LT_OK;
}

void swap_destroy(struct store *store)
{
    for (size_t i = 0; i < store->slot_count; i++) {
        struct slot *slot = &store->slot[i];
        if (slot->fetched)
            (void)device_wait(store->device, slot->fetched, NULL);
        device_give(store->device, DEVICE_MEMORY_LOCAL, slot->data, store->slot_bytes);
        if (slot->fetched)
            device_event_destroy(&slot->fetched);
        if (slot->idle)
            device_event_destroy(&slot->idle);
    }
    free(store->slot);
    store->slot = NULL;
    store->slot_count = 0;
}
