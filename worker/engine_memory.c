/* What the engine's memory is like: one sum over what it holds, for samples and beats. */
#include "worker/engine_private.h"

static void count_stores(const struct engine *engine, struct memory_counts *counts)
{
    for (int slot = 0; slot < ENGINE_SLOT_COUNT; slot++) {
        struct store_stats stats;
        if (!engine->slot[slot].store)
            continue;
        store_stats(engine->slot[slot].store, &stats);
        counts->weights_resident_bytes += stats.device_bytes;
        counts->weights_swapped_bytes += stats.pinned_bytes;
        counts->lora_bytes += stats.made_bytes;
        counts->read_bytes += stats.read_bytes;
        counts->copied_bytes += stats.copy_bytes;
        counts->stall_us += (uint64_t)stats.stall_us;
    }
}

static void count_all(const struct engine *engine, struct memory_counts *counts)
{
    struct lt_lru_stats prompts = {0};
    *counts = engine->gone;
    count_stores(engine, counts);
    if (engine->prompts)
        lt_lru_stats(engine->prompts, &prompts);
    counts->cache_bytes = prompts.bytes;
    for (int i = 0; i < 2; i++)
        if (engine->exec[i])
            counts->scratch_bytes += lt_exec_scratch_bytes(engine->exec[i]);
    counts->device_peak_bytes = counts->device_bytes = counts->weights_resident_bytes;
    if (!device_is_ram(engine->device)) { /* all that is taken of a card is taken through it */
        struct device_stats device;
        device_stats(engine->device, &device);
        counts->device_bytes = device.used_bytes[DEVICE_MEMORY_LOCAL];
        counts->device_peak_bytes = device.peak_bytes[DEVICE_MEMORY_LOCAL];
    }
}

void engine_sample(struct engine *engine, enum memory_stage stage, uint64_t task,
                   const char *subject)
{
    struct memory_counts counts;
    count_all(engine, &counts);
    if (counts.device_peak_bytes > engine->device_peak_bytes)
        engine->device_peak_bytes = counts.device_peak_bytes;
    counts.device_peak_bytes = engine->device_peak_bytes;
    diagnostics_sample(engine->diagnostics, stage, task, subject, &counts);
}

void engine_keep_counts(struct engine *engine, const struct store *store)
{
    struct store_stats stats;
    if (!store)
        return;
    store_stats(store, &stats);
    engine->gone.read_bytes += stats.read_bytes;
    engine->gone.copied_bytes += stats.copy_bytes;
    engine->gone.stall_us += (uint64_t)stats.stall_us;
}

void engine_memory(struct engine *engine, struct lt_beat_memory *memory_out)
{
    struct memory_sample last;
    diagnostics_last(engine->diagnostics, &last);
    *memory_out = (struct lt_beat_memory){
        .rss_bytes = last.process.rss_anon_bytes + last.process.rss_file_bytes +
                     last.process.rss_shmem_bytes,
        .device_bytes = last.counts.device_bytes,
        .device_peak_bytes = last.counts.device_peak_bytes,
        .read_bytes = last.counts.read_bytes,
        .copied_bytes = last.counts.copied_bytes,
        .stall_us = last.counts.stall_us,
        .swapping = diagnostics_swapping(engine->diagnostics),
    };
}
