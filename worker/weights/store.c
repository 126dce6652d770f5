/* Life of a store and its tensors; who waits for whom stands in place.c and swap.c. */
#include "worker/weights/store_private.h"

#include "common/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- life -------------------------------------------------------------------------------------- */

static lt_status take_slabs(struct store *store, struct lt_error *error)
{
    const struct layout *layout = &store->layout;
    enum store_tier *tier = calloc(layout_slab_count(layout), sizeof *tier);
    store->slab = calloc(layout_slab_count(layout), sizeof *store->slab);
    store->is_placed = calloc(layout->count + 1, sizeof *store->is_placed);
    lt_status status =
        tier && store->slab && store->is_placed
            ? LT_OK
            : lt_fail(error, LT_NO_MEMORY, "%s: no memory for its slabs", store->path);
    if (status == LT_OK)
        layout_tiers(layout, &store->params, tier);
    for (size_t s = 0; s < layout_slab_count(layout) && status == LT_OK; s++) {
        struct slab *slab = &store->slab[s];
        const bool local = tier[s] == STORE_TIER_DEVICE;
        slab->tier = tier[s];
        store->stats.slab_count += layout->slab_bytes[s] > 0;
        store->reads_on =
            store->reads_on || (tier[s] == STORE_TIER_DISK && layout->slab_bytes[s] > 0);
        if (tier[s] == STORE_TIER_DISK || layout->slab_bytes[s] == 0)
            continue;
        status = device_take(store->device, local ? DEVICE_MEMORY_LOCAL : DEVICE_MEMORY_PINNED,
                             layout->slab_bytes[s], store->path, &slab->data, error);
        if (status == LT_OK && local)
            store->stats.device_bytes += layout->slab_bytes[s];
        else if (status == LT_OK)
            store->stats.pinned_bytes += layout->slab_bytes[s];
    }
    free(tier);
    for (size_t i = 0; i < layout->count && status == LT_OK; i++) {
        struct slab *slab = &store->slab[layout->tensor[i].slab];
        slab->left += slab->tier != STORE_TIER_DISK;
        store->left += slab->tier != STORE_TIER_DISK;
    }
    return status;
}

static lt_status take_memory(struct store *store, struct lt_error *error)
{
    struct store_memory memory;
    const bool staged = device_is_staged(store->device);
    layout_memory(&store->layout, &store->params, staged, &memory);
    LT_TRY(take_slabs(store, error));
    LT_TRY(swap_create(store, &memory, error));
    store->staging_bytes = memory.staging_bytes;
    if (staged)
        LT_TRY(device_take(store->device, DEVICE_MEMORY_PINNED, store->staging_bytes, "staging",
                           &store->staging, error));
    store->stats.pinned_bytes += store->staging_bytes;
    lt_assert(store->stats.device_bytes == memory.device_bytes &&
              store->stats.pinned_bytes == memory.pinned_bytes);
    return LT_OK;
}

static lt_status create(struct tensor_file *file, store_filter *wanted, void *context,
                        const struct store_params *params, int64_t first, struct store **store_out,
                        struct lt_error *error)
{
    struct store *store = calloc(1, sizeof *store);
    if (!store)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory", tensor_file_path(file));
    pthread_mutex_init(&store->lock, NULL);
    pthread_cond_init(&store->placed, NULL);
    store->opened_us = lt_clock_now_us();
    store->demand = SLAB_NONE;
    store->file = tensor_file_hold(file);
    if (params)
        store->params = *params;
    lt_status status = LT_OK;
    if (!store->params.device)
        status = device_create_host(&(struct device_params){0}, &store->own_device, error);
    store->device = store->own_device ? store->own_device : store->params.device;
    if (status == LT_OK && !(store->path = strdup(tensor_file_path(file))))
        status = lt_fail(error, LT_NO_MEMORY, "%s: no memory", tensor_file_path(file));
    if (status == LT_OK)
        status = layout_build(file, wanted, context, store->params.extras, &store->layout, error);
    if (status == LT_OK)
        status = take_memory(store, error);
    if (status == LT_OK) {
        store->stats.tensor_count = store->layout.count;
        store->stats.weight_bytes = store->layout.weight_bytes;
        place_start(store, first);
    }
    if (status != LT_OK) {
        store_destroy(&store);
        return status;
    }
    *store_out = store;
    return LT_OK;
}

lt_status store_open(struct tensor_file *file, store_filter *wanted, void *context,
                     const struct store_params *params, struct store **store_out,
                     struct lt_error *error)
{
    struct store *store;
    LT_TRY(create(file, wanted, context, params, SLAB_GROUPS, &store, error));
    const lt_status status = place_wait(store, SLAB_GROUPS, error);
    if (status != LT_OK)
        store_destroy(&store);
    else
        *store_out = store;
    return status;
}

lt_status store_load(struct tensor_file *file, store_filter *wanted, void *context,
                     struct store **store_out, struct lt_error *error)
{
    struct store *store;
    LT_TRY(create(file, wanted, context, NULL, SLAB_NONE, &store, error));
    const lt_status status = place_wait(store, SLAB_NONE, error);
    if (status != LT_OK)
        store_destroy(&store);
    else
        *store_out = store;
    return status;
}

lt_status store_finish_loading(struct store *store, struct lt_error *error)
{
    return place_wait(store, SLAB_NONE, error);
}

void store_destroy(struct store **store)
{
    struct store *s = *store;
    if (!s)
        return;
    if (s->device)
        place_stop(s);
    swap_destroy(s);
    for (size_t i = 0; s->slab && i < layout_slab_count(&s->layout); i++) {
        lt_assert(s->slab[i].users == 0);
        device_give(s->device,
                    s->slab[i].tier == STORE_TIER_DEVICE ? DEVICE_MEMORY_LOCAL
                                                         : DEVICE_MEMORY_PINNED,
                    s->slab[i].data, s->layout.slab_bytes[i]);
    }
    if (s->device)
        device_give(s->device, DEVICE_MEMORY_PINNED, s->staging, s->staging_bytes);
    device_destroy(&s->own_device);
    tensor_file_close(&s->file);
    layout_fini(&s->layout);
    pthread_cond_destroy(&s->placed);
    pthread_mutex_destroy(&s->lock);
    free(s->is_placed);
    free(s->slab);
    free(s->path);
    free(s);
    *store = NULL;
}

/* -- blocks ------------------------------------------------------------------------------------ */

size_t store_block_count(const struct store *store)
{
    return store->layout.block_count;
}

static lt_status acquire(struct store *store, size_t s, struct lt_error *error)
{
    LT_TRY(swap_use(store, s, error));
    if (store->slab[s].tier == STORE_TIER_DEVICE)
        LT_TRY(place_wait(store, (int64_t)s, error));
    store->slab[s].users++;
    return LT_OK;
}

static void release(struct store *store, size_t s)
{
    lt_assert(store->slab[s].users > 0);
    if (--store->slab[s].users == 0)
        swap_leave(store, s);
}

lt_status store_acquire(struct store *store, size_t block, struct lt_error *error)
{
    lt_assert(block < store->layout.block_count);
    return acquire(store, block, error);
}

void store_release(struct store *store, size_t block)
{
    lt_assert(block < store->layout.block_count);
    release(store, block);
}

lt_status store_acquire_group(struct store *store, enum store_group group, struct lt_error *error)
{
    return acquire(store, store->layout.block_count + group, error);
}

void store_release_group(struct store *store, enum store_group group)
{
    release(store, store->layout.block_count + group);
}

static bool holds_extras(const struct store *store, size_t s)
{
    for (size_t i = 0; i < store->layout.count; i++)
        if (store->layout.tensor[i].made && store->layout.tensor[i].slab == s)
            return true;
    return false;
}

static lt_status refill(void *context, struct lt_error *error)
{
    struct store *store = context;
    for (size_t i = 0; i < store->layout.count; i++) {
        const struct layout_tensor *tensor = &store->layout.tensor[store->layout.order[i]];
        const struct slab *slab = &store->slab[tensor->slab];
        if (tensor->made && slab->tier != STORE_TIER_DISK)
            LT_TRY(place_tensor(store, tensor, slab->data, slab->tier == STORE_TIER_DEVICE, error));
    }
    return LT_OK;
}

lt_status store_refill(struct store *store, struct lt_error *error)
{
    struct device_event *done;
    LT_TRY(store_finish_loading(store, error));
    swap_forget(store, holds_extras);
    LT_TRY(device_event_create(store->device, &done, error));
    struct device_job job = {.run = refill, .context = store, .done = done};
    device_submit(store->device, &job);
    const lt_status status = device_wait(store->device, done, error);
    device_event_destroy(&done);
    return status;
}

/* -- tensors ----------------------------------------------------------------------------------- */

bool store_has(const struct store *store, const char *name)
{
    return layout_find(&store->layout, name) != NULL;
}

lt_status store_tensor(const struct store *store, const char *name, struct lt_view *view_out,
                       struct lt_error *error)
{
    const struct layout_tensor *tensor = layout_find(&store->layout, name);
    if (!tensor)
        return lt_fail(error, LT_NOT_FOUND, "%s: tensor '%s' is missing", store->path, name);
    const struct slab *slab = &store->slab[tensor->slab];
    char *data = slab->tier == STORE_TIER_DEVICE ? slab->data
                 : slab->users > 0               ? swap_data(store, tensor->slab)
                                                 : NULL;
    if (!data && tensor->slab >= store->layout.block_count)
        return lt_fail(error, LT_INTERNAL, "%s: tensor '%s' is used without its group", store->path,
                       name);
    *view_out = tensor->view;
    view_out->data = data ? data + tensor->offset : NULL;
    return LT_OK;
}

static void format_dims(char *text, size_t size, int rank, const int64_t *dim)
{
    size_t used = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < rank && used < size; i++)
        used +=
            (size_t)snprintf(text + used, size - used, "%s%lld", i ? ", " : "", (long long)dim[i]);
    if (used < size)
        snprintf(text + used, size - used, "]");
}

lt_status store_tensor_shaped(const struct store *store, const char *name, int rank,
                              const int64_t *dim, struct lt_view *view_out, struct lt_error *error)
{
    struct lt_view view;
    int64_t count = 1;
    LT_TRY(store_tensor(store, name, &view, error));
    for (int i = 0; i < rank; i++)
        count *= dim[i];
    const struct lt_type_info *type = lt_type_info(view.type);
    if (count != lt_view_count(&view) || (rank > 0 && dim[rank - 1] % type->block_values != 0)) {
        char expected[128], found[128];
        format_dims(expected, sizeof expected, rank, dim);
        format_dims(found, sizeof found, view.rank, view.dim);
        return lt_fail(error, LT_BAD_INPUT, "%s: tensor '%s': expected %s, found %s of type %s",
                       store->path, name, expected, found, type->name);
    }
    *view_out = lt_view_make(view.data, view.type, rank, dim);
    return LT_OK;
}

void store_stats(const struct store *store, struct store_stats *stats_out)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)&store->lock; /* counting is not a change */
    pthread_mutex_lock(lock);
    *stats_out = store->stats;
    pthread_mutex_unlock(lock);
}
