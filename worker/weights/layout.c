#include "worker/weights/layout.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCKS_MAX = 512, ALIGNMENT = 64, FUSER_EVERY = 5, STAGING_BYTES = 8 << 20 };

static const char fuser_prefix[] = "face_adapter.fuser_blocks.";

static bool numbered(const char *name, const char *prefix, size_t *number_out)
{
    const size_t length = strlen(prefix);
    char *end;
    if (strncmp(name, prefix, length) != 0 || name[length] < '0' || name[length] > '9')
        return false;
    const long number = strtol(name + length, &end, 10);
    if (*end != '.' || number >= BLOCKS_MAX)
        return false;
    *number_out = (size_t)number;
    return true;
}

static enum store_group group_of(const char *name)
{
    static const struct {
        const char *prefix;
        enum store_group group;
    } groups[] = {
        {"time_embedding.", STORE_GROUP_TIME},   {"time_projection.", STORE_GROUP_TIME},
        {"text_embedding.", STORE_GROUP_PROMPT}, {"img_emb.", STORE_GROUP_PROMPT},
        {"motion_encoder.", STORE_GROUP_PROMPT}, {"face_encoder.", STORE_GROUP_PROMPT},
    };
    for (size_t i = 0; i < LT_COUNT(groups); i++)
        if (strncmp(name, groups[i].prefix, strlen(groups[i].prefix)) == 0)
            return groups[i].group;
    return STORE_GROUP_REST;
}

size_t layout_fuser_every(size_t fusers, size_t blocks)
{
    if (fusers == (blocks + FUSER_EVERY - 1) / FUSER_EVERY)
        return FUSER_EVERY;
    return fusers > 0 && blocks % fusers == 0 ? blocks / fusers : 0;
}

/* "blocks.<n>.…" -> n; a face fuser lies with the block it follows; else a group, of which files
 * without blocks have one. */
static size_t slab_of(const struct layout *layout, const char *name)
{
    const size_t blocks = layout->block_count;
    size_t n;
    if (numbered(name, "blocks.", &n) && n < blocks)
        return n;
    if (numbered(name, fuser_prefix, &n) && layout->fuser_every && n * layout->fuser_every < blocks)
        return n * layout->fuser_every;
    return blocks + (blocks ? group_of(name) : STORE_GROUP_REST);
}

static uint64_t padded(uint64_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct layout_tensor *)a)->name, ((const struct layout_tensor *)b)->name);
}

size_t layout_slab_count(const struct layout *layout)
{
    return layout->block_count + STORE_GROUP_COUNT;
}

uint64_t layout_group_bytes(const struct layout *layout)
{
    uint64_t bytes = 0;
    for (size_t i = layout->block_count; i < layout_slab_count(layout); i++)
        bytes += layout->slab_bytes[i];
    return bytes;
}

const struct layout_tensor *layout_find(const struct layout *layout, const char *name)
{
    return bsearch(&(struct layout_tensor){.name = name}, layout->tensor, layout->count,
                   sizeof *layout->tensor, by_name);
}

static lt_status add(struct layout *layout, const struct tensor_info *info, const char *path,
                     struct lt_error *error)
{
    struct layout_tensor *tensor = &layout->tensor[layout->count];
    *tensor = (struct layout_tensor){
        .name = lt_arena_text(&layout->arena, info->name),
        .view = lt_view_make(NULL, info->type, info->rank, info->dim),
        .slab = slab_of(layout, info->name),
        .bytes = info->bytes,
        .info = *info,
    };
    if (!tensor->name)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for its index", path);
    tensor->info.name = tensor->name;
    tensor->offset = layout->slab_bytes[tensor->slab];
    layout->slab_bytes[tensor->slab] += padded(info->bytes);
    layout->weight_bytes += info->bytes;
    if (info->bytes > layout->largest_bytes)
        layout->largest_bytes = info->bytes;
    layout->count++;
    return LT_OK;
}

static lt_status add_extra(struct layout *layout, const struct store_extras *extras, size_t index,
                           const char *path, struct lt_error *error)
{
    const struct store_extra *extra = &extras->tensor[index];
    struct tensor_info info = {.name = extra->name, .type = extra->type, .rank = extra->rank};
    uint64_t count = 1;
    memcpy(info.dim, extra->dim, sizeof info.dim);
    for (int i = 0; i < extra->rank; i++)
        count *= (uint64_t)extra->dim[i];
    if (!lt_type_bytes(extra->type, count, &info.bytes))
        return lt_fail(error, LT_BAD_INPUT, "%s: '%s' is not whole blocks of its type", path,
                       extra->name);
    LT_TRY(add(layout, &info, path, error));
    layout->tensor[layout->count - 1].made = true;
    layout->tensor[layout->count - 1].extra = index;
    if (info.bytes > layout->largest_made_bytes)
        layout->largest_made_bytes = info.bytes;
    return LT_OK;
}

/* Blocks and fusers of the file, and how many tensors are wanted. */
static void count_names(struct layout *layout, const struct tensor_file *file, store_filter *wanted,
                        void *context, size_t *tensors_out)
{
    size_t blocks = 0, fusers = 0, tensors = 0, n;
    for (size_t i = 0; i < tensor_file_count(file); i++) {
        const char *name = tensor_file_at(file, i)->name;
        if (numbered(name, "blocks.", &n) && n >= blocks)
            blocks = n + 1;
        if (numbered(name, fuser_prefix, &n) && n >= fusers)
            fusers = n + 1;
        tensors += !wanted || wanted(context, name);
    }
    *tensors_out = tensors;
    layout->block_count = blocks;
    layout->fuser_every = layout_fuser_every(fusers, blocks);
}

/* Tensors were added in file order, extras last; each extra moves behind its slab's last tensor. */
static void put_in_order(struct layout *layout, size_t read_count, size_t *last)
{
    size_t n = 0;
    for (size_t s = 0; s < layout_slab_count(layout); s++)
        last[s] = SIZE_MAX;
    for (size_t i = 0; i < read_count; i++)
        last[layout->tensor[i].slab] = i;
    for (size_t i = 0; i < read_count; i++) {
        const size_t slab = layout->tensor[i].slab;
        layout->order[n++] = (uint32_t)i;
        for (size_t e = read_count; last[slab] == i && e < layout->count; e++)
            if (layout->tensor[e].slab == slab)
                layout->order[n++] = (uint32_t)e;
    }
    for (size_t e = read_count; e < layout->count; e++)
        if (last[layout->tensor[e].slab] == SIZE_MAX)
            layout->order[n++] = (uint32_t)e;
    lt_assert(n == layout->count);
}

/* Sorts the tensors by name and lets `order` follow them. */
static bool sort_by_name(struct layout *layout)
{
    uint32_t *moved = malloc((layout->count + 1) * sizeof *moved);
    struct layout_tensor *sorted =
        lt_arena_take_array(&layout->arena, layout->count + 1, sizeof *sorted);
    if (!moved || !sorted) {
        free(moved);
        return false;
    }
    memcpy(sorted, layout->tensor, layout->count * sizeof *sorted);
    qsort(sorted, layout->count, sizeof *sorted, by_name);
    struct layout_tensor *const before = layout->tensor;
    layout->tensor = sorted;
    for (size_t i = 0; i < layout->count; i++)
        moved[i] = (uint32_t)(layout_find(layout, before[i].name) - sorted);
    for (size_t i = 0; i < layout->count; i++)
        layout->order[i] = moved[layout->order[i]];
    free(moved);
    return true;
}

lt_status layout_build(const struct tensor_file *file, store_filter *wanted, void *context,
                       const struct store_extras *extras, struct layout *layout_out,
                       struct lt_error *error)
{
    const char *path = tensor_file_path(file);
    const size_t extra_count = extras ? extras->count : 0;
    struct layout layout = {0};
    size_t read_count;
    lt_status status = LT_OK;
    lt_arena_init(&layout.arena, 0);
    count_names(&layout, file, wanted, context, &read_count);
    const size_t room = read_count + extra_count + 1;
    layout.tensor = lt_arena_take_array(&layout.arena, room, sizeof *layout.tensor);
    layout.order = lt_arena_take_array(&layout.arena, room, sizeof *layout.order);
    layout.slab_bytes =
        lt_arena_take_zeroed(&layout.arena, layout_slab_count(&layout) * sizeof *layout.slab_bytes);
    size_t *last = lt_arena_take_array(&layout.arena, layout_slab_count(&layout), sizeof *last);
    if (!layout.tensor || !layout.order || !layout.slab_bytes || !last)
        status = lt_fail(error, LT_NO_MEMORY, "%s: no memory for its index", path);
    for (size_t i = 0; i < tensor_file_count(file) && status == LT_OK; i++) {
        const struct tensor_info *info = tensor_file_at(file, i);
        if (!wanted || wanted(context, info->name))
            status = add(&layout, info, path, error);
    }
    for (size_t i = 0; i < extra_count && status == LT_OK; i++)
        status = add_extra(&layout, extras, i, path, error);
    if (status == LT_OK) {
        put_in_order(&layout, read_count, last);
        if (!sort_by_name(&layout))
            status = lt_fail(error, LT_NO_MEMORY, "%s: no memory for its index", path);
    }
    for (size_t i = 1; i < layout.count && status == LT_OK; i++)
        if (strcmp(layout.tensor[i - 1].name, layout.tensor[i].name) == 0)
            status = lt_fail(error, LT_BAD_INPUT, "%s: '%s' is there twice", path,
                             layout.tensor[i].name);
    if (status != LT_OK) {
        layout_fini(&layout);
        return status;
    }
    *layout_out = layout;
    return LT_OK;
}

void layout_fini(struct layout *layout)
{
    lt_arena_fini(&layout->arena);
    *layout = (struct layout){0};
}

/* -- tiers ------------------------------------------------------------------------------------- */

/* Whether element i of `of` is one of `count` that are spread evenly; the last one always is. */
static bool is_spread(size_t i, size_t count, size_t of)
{
    return (i + 1) * count / of > i * count / of;
}

void layout_tiers(const struct layout *layout, const struct store_params *params,
                  enum store_tier *tier_out)
{
    const size_t blocks = layout->block_count;
    const size_t swapped = params->blocks_to_swap < blocks ? params->blocks_to_swap : blocks;
    const size_t on_disk = params->disk_blocks < swapped ? params->disk_blocks : swapped;
    for (size_t i = 0, n = 0; i < blocks; i++) {
        const bool swaps = params->order == STORE_ORDER_SPREAD ? is_spread(i, swapped, blocks)
                                                               : i >= blocks - swapped;
        tier_out[i] = STORE_TIER_DEVICE;
        if (swaps) /* disk blocks stand between RAM blocks: their reads get more time */
            tier_out[i] = is_spread(n++, on_disk, swapped) ? STORE_TIER_DISK : STORE_TIER_RAM;
    }
    tier_out[blocks + STORE_GROUP_REST] = STORE_TIER_DEVICE;
    tier_out[blocks + STORE_GROUP_TIME] = params->group_tier;
    tier_out[blocks + STORE_GROUP_PROMPT] = params->group_tier;
}

void layout_memory(const struct layout *layout, const struct store_params *params, bool staged,
                   struct store_memory *memory_out)
{
    enum store_tier tier[BLOCKS_MAX + STORE_GROUP_COUNT];
    struct store_memory memory = {0};
    size_t swapped = 0;
    layout_tiers(layout, params, tier);
    for (size_t i = 0; i < layout_slab_count(layout); i++) {
        const uint64_t bytes = layout->slab_bytes[i];
        const bool seldom = i == layout->block_count + STORE_GROUP_PROMPT;
        if (bytes == 0)
            continue;
        if (tier[i] == STORE_TIER_DEVICE) {
            memory.resident_bytes += bytes;
            continue;
        }
        swapped++;
        memory.copy_bytes += seldom ? 0 : bytes;
        if (tier[i] == STORE_TIER_RAM)
            memory.pinned_bytes += bytes;
        else
            memory.disk_bytes += seldom ? 0 : bytes;
        if (bytes > memory.slot_bytes)
            memory.slot_bytes = bytes;
    }
    memory.slot_count = params->prefetch + 1 < swapped ? params->prefetch + 1 : swapped;
    if (memory.slot_count == swapped) /* every one keeps its slot */
        memory.copy_bytes = memory.disk_bytes = 0;
    memory.device_bytes = memory.resident_bytes + memory.slot_count * memory.slot_bytes;
    if (staged) /* files come in pieces, extras whole */
        memory.staging_bytes =
            layout->largest_made_bytes > STAGING_BYTES ? layout->largest_made_bytes : STAGING_BYTES;
    memory.pinned_bytes += memory.staging_bytes;
    *memory_out = memory;
}
