/* The first placement. One job on the device's copy queue places one tensor and queues itself
 * again, so fetches for compute get in between; it follows the file, except that the slab compute
 * waits for goes first. A thread runs ahead and brings the slabs' memory in from the system: fresh
 * pages are half the price of a read from a fast disk. */
#include "worker/weights/store_private.h"

#include "common/clock.h"

enum { PREFAULT_BYTES = 8 << 20, PREFAULT_MIN_BYTES = 64 << 20 };

static lt_status fill_extra(struct store *store, const struct layout_tensor *tensor, void *to,
                            struct lt_error *error)
{
    const struct store_extras *extras = store->params.extras;
    LT_TRY(extras->fill(extras->context, tensor->extra, to, tensor->bytes, error));
    pthread_mutex_lock(&store->lock);
    store->stats.made_bytes += tensor->bytes;
    pthread_mutex_unlock(&store->lock);
    return LT_OK;
}

static lt_status read_part(struct store *store, const struct layout_tensor *tensor, uint64_t offset,
                           void *to, size_t bytes, struct lt_error *error)
{
    LT_TRY(tensor_file_read_part(store->file, &tensor->info, offset, to, bytes, error));
    pthread_mutex_lock(&store->lock);
    store->stats.read_bytes += bytes;
    pthread_mutex_unlock(&store->lock);
    return LT_OK;
}

/* The host cannot write there: by pinned memory, piece by piece. */
static lt_status place_staged(struct store *store, const struct layout_tensor *tensor, char *to,
                              struct lt_error *error)
{
    if (tensor->made) {
        LT_TRY(fill_extra(store, tensor, store->staging, error));
        return device_copy(store->device, to, store->staging, tensor->bytes, error);
    }
    for (uint64_t done = 0; done < tensor->bytes;) {
        const uint64_t left = tensor->bytes - done;
        const size_t part = left < store->staging_bytes ? left : store->staging_bytes;
        LT_TRY(read_part(store, tensor, done, store->staging, part, error));
        LT_TRY(device_copy(store->device, to + done, store->staging, part, error));
        done += part;
    }
    return LT_OK;
}

lt_status place_tensor(struct store *store, const struct layout_tensor *tensor, void *slab,
                       bool on_device, struct lt_error *error)
{
    char *to = (char *)slab + tensor->offset;
    if (on_device && store->staging)
        return place_staged(store, tensor, to, error);
    return tensor->made ? fill_extra(store, tensor, to, error)
                        : read_part(store, tensor, 0, to, tensor->bytes, error);
}

static double seconds_open(const struct store *store)
{
    return (double)(lt_clock_now_us() - store->opened_us) * 1e-6;
}

/* Places one tensor of the order where it stays. */
static lt_status place_one(struct store *store, size_t at, struct lt_error *error)
{
    const size_t t = store->layout.order[at];
    const struct layout_tensor *tensor = &store->layout.tensor[t];
    struct slab *slab = &store->slab[tensor->slab];
    LT_TRY(place_tensor(store, tensor, slab->data, slab->tier == STORE_TIER_DEVICE, error));
    store->is_placed[t] = true;
    pthread_mutex_lock(&store->lock);
    store->left--;
    if (--slab->left == 0) {
        pthread_cond_broadcast(&store->placed);
        if (tensor->slab == 0)
            store->stats.first_block_seconds = seconds_open(store);
    }
    if (store->left == 0)
        store->stats.load_seconds = seconds_open(store);
    pthread_mutex_unlock(&store->lock);
    return LT_OK;
}

/* Whether slab `slab` is meant by `s`: a slab, the groups that stay, or all. */
static bool is_of(const struct store *store, size_t slab, int64_t s)
{
    if (s == SLAB_GROUPS)
        return slab >= store->layout.block_count && store->slab[slab].tier == STORE_TIER_DEVICE;
    return s == SLAB_NONE || slab == (size_t)s;
}

/* Tensors of it that are not placed; under the lock. */
static size_t left_of(const struct store *store, int64_t s)
{
    size_t left = 0;
    for (size_t slab = 0; slab < layout_slab_count(&store->layout); slab++)
        left += is_of(store, slab, s) ? store->slab[slab].left : 0;
    return left;
}

/* The first of the order, from `from` on, that is to be placed and is of `s`. */
static size_t next_of(const struct store *store, size_t from, int64_t s)
{
    const struct layout *layout = &store->layout;
    for (size_t at = from; at < layout->count; at++) {
        const size_t t = layout->order[at], slab = layout->tensor[t].slab;
        if (!store->is_placed[t] && store->slab[slab].tier != STORE_TIER_DISK &&
            is_of(store, slab, s))
            return at;
    }
    return layout->count;
}

lt_status place_slab(struct store *store, size_t s, struct lt_error *error)
{
    for (size_t at = 0; (at = next_of(store, at, (int64_t)s)) < store->layout.count;)
        LT_TRY(place_one(store, at, error));
    return LT_OK;
}

static lt_status load_step(void *context, struct lt_error *error)
{
    struct store *store = context;
    pthread_mutex_lock(&store->lock);
    if (left_of(store, store->demand) == 0)
        store->demand = SLAB_NONE;
    const int64_t demand = store->demand;
    const bool stopping = store->stopping;
    pthread_mutex_unlock(&store->lock);
    store->cursor = next_of(store, store->cursor, SLAB_NONE);
    const size_t at = demand == SLAB_NONE ? store->cursor : next_of(store, store->cursor, demand);
    lt_status status = LT_OK;
    if (!stopping && at < store->layout.count)
        status = place_one(store, at, error);
    pthread_mutex_lock(&store->lock);
    const bool more = status == LT_OK && !store->stopping && store->left > 0;
    if (store->left == 0 && !store->reads_on)
        tensor_file_close(&store->file);
    if (status != LT_OK) {
        store->load_status = status;
        store->load_error = *error;
    }
    store->loading = more;
    if (more)
        device_submit(store->device, &store->load_job);
    pthread_cond_broadcast(&store->placed);
    pthread_mutex_unlock(&store->lock);
    return status;
}

/* Under the lock. */
static void go_on(struct store *store)
{
    if (store->loading || store->left == 0)
        return;
    store->load_status = LT_OK;
    store->loading = true;
    store->load_job = (struct device_job){.run = load_step, .context = store};
    device_submit(store->device, &store->load_job);
}

lt_status place_wait(struct store *store, int64_t s, struct lt_error *error)
{
    lt_status status = LT_OK;
    pthread_mutex_lock(&store->lock);
    if (left_of(store, s) > 0) {
        const int64_t start = lt_clock_now_us();
        store->demand = s;
        go_on(store);
        while (left_of(store, s) > 0 && store->loading)
            pthread_cond_wait(&store->placed, &store->lock);
        store->stats.load_wait_us += lt_clock_now_us() - start;
        if (left_of(store, s) > 0) {
            status = store->load_status;
            if (error)
                *error = store->load_error;
        }
    }
    pthread_mutex_unlock(&store->lock);
    return status;
}

/* -- the thread that runs ahead ---------------------------------------------------------------- */

static void *prefault(void *context)
{
    struct store *store = context;
    const size_t count = layout_slab_count(&store->layout);
    for (size_t i = 0; i < count; i++) {
        const size_t s = (store->layout.block_count + i) % count; /* groups are needed first */
        const size_t bytes = store->slab[s].data ? store->layout.slab_bytes[s] : 0;
        for (size_t at = 0; at < bytes; at += PREFAULT_BYTES) {
            pthread_mutex_lock(&store->lock);
            const bool stop = store->stopping || store->slab[s].left == 0;
            pthread_mutex_unlock(&store->lock);
            if (stop)
                break;
            const size_t left = bytes - at;
            device_prefault(store->device, (char *)store->slab[s].data + at,
                            left < PREFAULT_BYTES ? left : PREFAULT_BYTES);
        }
    }
    return NULL;
}

void place_start(struct store *store, int64_t first)
{
    pthread_mutex_lock(&store->lock);
    store->demand = first;
    go_on(store);
    pthread_mutex_unlock(&store->lock);
    /* without the thread it is only slower */
    store->prefaults =
        store->stats.device_bytes + store->stats.pinned_bytes >= PREFAULT_MIN_BYTES &&
        pthread_create(&store->prefault_thread, NULL, prefault, store) == 0;
}

void place_stop(struct store *store)
{
    pthread_mutex_lock(&store->lock);
    store->stopping = true;
    while (store->loading)
        pthread_cond_wait(&store->placed, &store->lock);
    pthread_mutex_unlock(&store->lock);
    if (store->prefaults)
        pthread_join(store->prefault_thread, NULL);
    store->prefaults = false;
}
