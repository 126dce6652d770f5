/* How blocks are streamed follows from one search: the number of streamed blocks rises from none
 * until the device's sum fits; of those, as many as fit stay in main memory, the others are read
 * from disk for every use. */
#include "worker/memory.h"

#include "common/option.h"
#include "common/process_memory.h"

enum { PREFETCH_DEFAULT = 1 };

static const struct line {
    const char *key, *text;
    bool device;
} lines[] = {
#define MEMORY_LINE_TEXT(name, text, device) {#name, text, device},
    MEMORY_LINE_LIST(MEMORY_LINE_TEXT)
#undef MEMORY_LINE_TEXT
};

const char *memory_line_text(enum memory_line line)
{
    return lines[line].text;
}

bool memory_line_is_device(enum memory_line line)
{
    return lines[line].device;
}

/* -- the sum ----------------------------------------------------------------------------------- */

static void add_up(const struct memory_request *r, struct memory_plan *plan)
{
    const uint64_t decoder = plan->line[MEMORY_DECODER];
    plan->device_bytes = plan->ram_bytes = 0;
    for (int i = 0; i < MEMORY_LINE_COUNT; i++) {
        if (lines[i].device)
            plan->device_bytes += plan->line[i];
        else
            plan->ram_bytes += plan->line[i];
    }
    if (plan->exchange) {
        plan->device_bytes -= decoder;
        plan->device_bytes = decoder > plan->device_bytes ? decoder : plan->device_bytes;
    }
    if (r->device_is_ram)
        plan->ram_bytes += plan->device_bytes;
}

/* What may be chosen. */
struct choice {
    size_t swap_count, disk_count, prefetch; /* disk_count: streamed ones without a copy in RAM */
    enum store_tier group_tier;              /* of what is used once a forward or prompt */
    bool exchange;
};

/* Everything that follows from a choice. */
static struct memory_plan sum_of(const struct memory_request *r, const struct choice *choice)
{
    struct memory_plan plan = {.store = {.blocks_to_swap = choice->swap_count,
                                         .disk_blocks = choice->disk_count,
                                         .prefetch = choice->prefetch,
                                         .order = r->order,
                                         .group_tier = choice->group_tier},
                               .block_count = r->layout->block_count,
                               .exchange = choice->exchange};
    layout_memory(r->layout, &plan.store, !r->device_is_ram, &plan.weights);
    const struct store_memory *weights = &plan.weights;
    const uint64_t rest = choice->group_tier == STORE_TIER_DEVICE
                              ? layout_group_bytes(r->layout)
                              : r->layout->slab_bytes[r->layout->block_count + STORE_GROUP_REST];
    plan.line[MEMORY_WEIGHTS_REST] = rest;
    plan.line[MEMORY_BLOCKS_RESIDENT] = weights->resident_bytes - rest;
    plan.line[MEMORY_SLOTS] = weights->slot_count * weights->slot_bytes;
    plan.line[MEMORY_ACTIVATIONS] = r->activation_bytes;
    plan.line[MEMORY_SCRATCH] = r->scratch_bytes;
    plan.line[MEMORY_CACHE] = r->cache_bytes;
    plan.line[MEMORY_DECODER] = r->decoder_bytes;
    plan.line[MEMORY_BLOCKS_RAM] = weights->pinned_bytes - weights->staging_bytes;
    plan.line[MEMORY_STAGING] = weights->staging_bytes;
    plan.line[MEMORY_LATENTS] = r->latent_bytes;
    plan.line[MEMORY_RUNTIME] = r->runtime_bytes;
    add_up(r, &plan);
    return plan;
}

static bool device_fits(const struct memory_request *r, const struct memory_plan *plan)
{
    return !r->device_limit || plan->device_bytes <= r->device_limit;
}

static bool ram_fits(const struct memory_request *r, const struct memory_plan *plan)
{
    return !r->ram_limit || plan->ram_bytes <= r->ram_limit;
}

static bool fits(const struct memory_request *r, const struct memory_plan *plan)
{
    return device_fits(r, plan) && ram_fits(r, plan);
}

/* -- the choice -------------------------------------------------------------------------------- */

/* As few streamed blocks on disk as fit. On failure `plan_out` has all of them there. */
static bool try_choice(const struct memory_request *r, struct choice choice,
                       struct memory_plan *plan_out)
{
    for (choice.disk_count = 0; choice.disk_count <= choice.swap_count; choice.disk_count++) {
        *plan_out = sum_of(r, &choice);
        if (fits(r, plan_out))
            return true;
        if (!device_fits(r, plan_out)) { /* disk does not help the device */
            choice.disk_count = choice.swap_count;
            *plan_out = sum_of(r, &choice);
            return false;
        }
    }
    return false;
}

/* The fewest streamed blocks that fit, or just as many as the user wants. */
static bool find_count(const struct memory_request *r, struct choice choice, bool obey,
                       struct memory_plan *plan_out)
{
    if (obey) {
        choice.swap_count = (size_t)r->blocks_to_swap;
        return try_choice(r, choice, plan_out);
    }
    for (choice.swap_count = 0; choice.swap_count <= r->layout->block_count; choice.swap_count++)
        if (try_choice(r, choice, plan_out))
            return true;
    return false;
}

/* Overlap before residence, residence before turns: a slot less costs every step, turns cost two
 * loads a job. The groups go last, to where the device reads them fastest. On failure `plan_out` is
 * the last that was tried. */
static bool choose(const struct memory_request *r, bool obey, struct memory_plan *plan_out)
{
    const bool own_prefetch = r->prefetch < 0;
    const size_t prefetch = own_prefetch ? PREFETCH_DEFAULT : (size_t)r->prefetch;
    for (size_t less = 0; less <= (own_prefetch ? prefetch : 0); less++)
        for (int tier = STORE_TIER_DEVICE; tier <= STORE_TIER_DISK; tier++)
            for (int exchange = 0; exchange <= (r->decoder_bytes > 0); exchange++) {
                const struct choice choice = {.prefetch = prefetch - less,
                                              .group_tier = (enum store_tier)tier,
                                              .exchange = exchange};
                if ((tier != STORE_TIER_RAM || !r->device_is_ram) &&
                    find_count(r, choice, obey, plan_out))
                    return true;
            }
    return false;
}

static void format_sum(const struct memory_plan *plan, bool device_only, char *text, size_t size)
{
    size_t used = 0;
    char bytes[32];
    text[0] = 0;
    for (int i = 0; i < MEMORY_LINE_COUNT && used < size; i++)
        if (plan->line[i] && (lines[i].device || !device_only) &&
            !(plan->exchange && i == MEMORY_DECODER))
            used += (size_t)snprintf(text + used, size - used, "%s%s %s", used ? " + " : "",
                                     lt_size_format(plan->line[i], bytes), lines[i].text);
}

static lt_status refuse(const struct memory_request *r, const struct memory_plan *plan,
                        struct lt_error *error)
{
    const bool device = !device_fits(r, plan);
    char sum[512], need[32], limit[32], advice[160];
    struct memory_plan better;
    format_sum(plan, device, sum, sizeof sum);
    if (choose(r, false, &better))
        snprintf(advice, sizeof advice, "--blocks-to-swap %zu would fit",
                 better.store.blocks_to_swap);
    else
        snprintf(advice, sizeof advice,
                 "no number of --blocks-to-swap fits: use a smaller window, picture or "
                 "quantisation");
    return lt_fail(error, device ? LT_NO_DEVICE_MEMORY : LT_NO_MEMORY,
                   "with %zu of %zu blocks streamed, %s %s are needed and --%s allows %s: %s; %s",
                   plan->store.blocks_to_swap, plan->block_count,
                   lt_size_format(device ? plan->device_bytes : plan->ram_bytes, need),
                   device ? "of the device" : "of main memory", device ? "device-memory" : "ram",
                   lt_size_format(device ? r->device_limit : r->ram_limit, limit), sum, advice);
}

lt_status memory_plan_make(const struct memory_request *request, struct memory_plan *plan_out,
                           struct lt_error *error)
{
    struct memory_plan plan;
    const size_t blocks = request->layout->block_count;
    if (request->blocks_to_swap > (int64_t)blocks)
        return lt_fail(error, LT_USAGE, "--blocks-to-swap %lld: the model has %zu blocks",
                       (long long)request->blocks_to_swap, blocks);
    if (!choose(request, request->blocks_to_swap >= 0, &plan))
        return refuse(request, &plan, error);
    *plan_out = plan;
    return LT_OK;
}

uint64_t memory_program_bytes(void)
{
    enum { LIBRARIES = 32 << 20 };
    struct lt_memory_probe *probe;
    struct lt_process_memory memory = {0};
    if (lt_memory_probe_create(&probe, NULL) == LT_OK) {
        lt_memory_probe_read(probe, &memory);
        lt_memory_probe_destroy(&probe);
    }
    return memory.rss_anon_bytes + memory.rss_file_bytes + LIBRARIES;
}

/* -- for people and scripts -------------------------------------------------------------------- */

static const char *order_name(const struct store_params *store)
{
    return store->order == STORE_ORDER_SPREAD ? "spread" : "tail";
}

static void print_sum(const char *text, uint64_t bytes, uint64_t limit, FILE *to)
{
    char size[32], most[32];
    fprintf(to, "  %-38s %10s", text, lt_size_format(bytes, size));
    if (limit)
        fprintf(to, "  of %s", lt_size_format(limit, most));
    fputc('\n', to);
}

bool memory_plan_pairs_are_too_much(lt_status status, const struct memory_plan *plan)
{
    return status == LT_NO_MEMORY || status == LT_NO_DEVICE_MEMORY ||
           (status == LT_OK && plan->store.disk_blocks > 0);
}

void memory_plan_print(const struct memory_plan *plan, const struct memory_request *request,
                       FILE *to)
{
    const struct store_params *store = &plan->store;
    char size[32];
    fprintf(to, "blocks     %zu, %zu streamed", plan->block_count, store->blocks_to_swap);
    if (store->blocks_to_swap)
        fprintf(to, " (%s): %zu from main memory, %zu from disk, through %zu slots",
                order_name(store), store->blocks_to_swap - store->disk_blocks, store->disk_blocks,
                plan->weights.slot_count);
    fprintf(to, "\n");
    if (plan->exchange)
        fprintf(to, "VAE        does not fit beside the transformer: they take turns\n");
    for (int device = 1; device >= 0; device--) {
        fprintf(to, "%s\n", device ? "device" : "main memory");
        for (int i = 0; i < MEMORY_LINE_COUNT; i++)
            if (plan->line[i] && lines[i].device == device)
                fprintf(to, "  %-38s %10s\n", lines[i].text, lt_size_format(plan->line[i], size));
        if (device)
            print_sum("together", plan->device_bytes, request->device_limit, to);
    }
    print_sum(request->device_is_ram ? "together, with the device" : "together", plan->ram_bytes,
              request->ram_limit, to);
}

void memory_plan_write_members(const struct memory_plan *plan, FILE *to)
{
    fprintf(to,
            "\"blocks\": %zu, \"swap_blocks\": %zu, \"disk_blocks\": %zu, \"slots\": %zu, "
            "\"swap_order\": \"%s\", \"exchange\": %s, \"device_bytes\": %llu, "
            "\"ram_bytes\": %llu, \"lines\": {",
            plan->block_count, plan->store.blocks_to_swap, plan->store.disk_blocks,
            plan->weights.slot_count, order_name(&plan->store), plan->exchange ? "true" : "false",
            (unsigned long long)plan->device_bytes, (unsigned long long)plan->ram_bytes);
    for (int i = 0; i < MEMORY_LINE_COUNT; i++) {
        fprintf(to, "%s\"", i ? ", " : "");
        for (const char *c = lines[i].key; *c; c++)
            fputc(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c, to);
        fprintf(to, "\": %llu", (unsigned long long)plan->line[i]);
    }
    fputc('}', to);
}

void memory_plan_write_json(const struct memory_plan *plan, FILE *to)
{
    fputc('{', to);
    memory_plan_write_members(plan, to);
    fputc('}', to);
}
