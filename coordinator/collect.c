#include "coordinator/collect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SCRATCH_FRAMES = 2 + 2 * (1 + SAMPLER_HISTORY_MAX) };

lt_status collect_init(struct collect *collect, const struct plan *plan,
                       const struct sampler *sampler, struct noise *noise, struct latents *latents,
                       struct graph *graph, struct objects *store, struct lt_error *error)
{
    const size_t values = plan->frame_bytes / sizeof(float);
    float *scratch = malloc(SCRATCH_FRAMES * plan->frame_bytes);
    if (!scratch)
        return lt_fail(error, LT_NO_MEMORY, "no memory to blend frames of %zu values", values);
    *collect = (struct collect){
        .plan = plan,
        .sampler = sampler,
        .noise = noise,
        .latents = latents,
        .graph = graph,
        .store = store,
        .scratch = scratch,
        .frame_values = values,
    };
    return LT_OK;
}

static void free_sources(struct collect *collect)
{
    for (size_t i = 0; i < collect->source_capacity; i++)
        free((void *)collect->source[i].first);
    free(collect->source);
}

void collect_fini(struct collect *collect)
{
    free(collect->scratch);
    free_sources(collect);
    free(collect->garbage);
    memset(collect, 0, sizeof *collect);
}

void collect_prediction_name(uint32_t task, char name_out[32])
{
    snprintf(name_out, 32, "predictions/%u", task);
}

/* Room for one more source; a source keeps its buffer for the next frame. */
static lt_status reserve_source(struct collect *collect, size_t index, struct lt_error *error)
{
    if (index < collect->source_capacity)
        return LT_OK;
    struct blend_source *source = realloc(collect->source, (index + 1) * sizeof *collect->source);
    if (!source)
        return lt_fail(error, LT_NO_MEMORY, "no memory for %zu predictions of a frame", index + 1);
    collect->source = source;
    float *values = malloc(collect->plan->frame_bytes);
    if (!values)
        return lt_fail(error, LT_NO_MEMORY, "no memory for %zu predictions of a frame", index + 1);
    source[index] = (struct blend_source){.first = values};
    collect->source_capacity = index + 1;
    return LT_OK;
}

/* Slot k of a stored prediction [C, F, h, w], gathered to [C, h, w]. */
static lt_status read_slot(struct collect *collect, uint32_t task, uint32_t slot,
                           uint32_t slot_count, float *out, struct lt_error *error)
{
    char name[32];
    collect_prediction_name(task, name);
    const size_t channels = (size_t)collect->plan->latent_channels;
    const size_t plane = collect->frame_values / channels;
    for (size_t c = 0; c < channels; c++)
        LT_TRY(objects_read(collect->store, name, (c * slot_count + slot) * plane * sizeof(float),
                            out + c * plane, plane * sizeof(float), error));
    return LT_OK;
}

static lt_status gather(struct collect *collect, uint32_t step, uint32_t frame, size_t *count_out,
                        struct lt_error *error)
{
    const struct plan_step *at = &collect->plan->step[step];
    const size_t plane = collect->frame_values / (size_t)collect->plan->latent_channels;
    size_t count = 0;
    for (uint32_t w = 0; w < at->window_count; w++) {
        const struct window *window = &at->window[w];
        for (uint32_t k = 0; k < window->frame_count; k++) {
            if (window->frame[k] != frame)
                continue;
            LT_TRY(reserve_source(collect, count, error));
            struct blend_source *source = &collect->source[count++];
            LT_TRY(read_slot(collect, at->task_first + w, k, window->frame_count,
                             (float *)source->first, error));
            source->channel_stride = plane;
            source->weight = window->weight[k];
        }
    }
    *count_out = count;
    return LT_OK;
}

static lt_status add_garbage(struct collect *collect, uint32_t task, struct lt_error *error)
{
    if (collect->garbage_count == collect->garbage_capacity) {
        const size_t capacity = collect->garbage_capacity ? 2 * collect->garbage_capacity : 16;
        uint32_t *garbage = realloc(collect->garbage, capacity * sizeof *garbage);
        if (!garbage)
            return lt_fail(error, LT_NO_MEMORY, "no memory for a list of %zu tasks", capacity);
        collect->garbage = garbage;
        collect->garbage_capacity = capacity;
    }
    collect->garbage[collect->garbage_count++] = task;
    return LT_OK;
}

/* The predictions of `step` that only waited for this frame. */
static lt_status mark_garbage(struct collect *collect, uint32_t step, uint32_t frame,
                              struct lt_error *error)
{
    const struct plan_step *at = &collect->plan->step[step];
    for (uint32_t w = 0; w < at->window_count; w++) {
        const struct window *window = &at->window[w];
        bool covers = false, passed = true;
        for (uint32_t k = 0; k < window->frame_count; k++) {
            covers |= window->frame[k] == frame;
            passed &= graph_frame_step(collect->graph, window->frame[k]) > step;
        }
        if (covers && passed)
            LT_TRY(add_garbage(collect, at->task_first + w, error));
    }
    return LT_OK;
}

static struct sampler_frame scratch_state(struct collect *collect, size_t first)
{
    struct sampler_frame state = {.x = collect->scratch + first * collect->frame_values};
    for (size_t i = 0; i < SAMPLER_HISTORY_MAX; i++)
        state.history[i] = state.x + (i + 1) * collect->frame_values;
    return state;
}

lt_status collect_advance(struct collect *collect, uint32_t frame, struct lt_error *error)
{
    const uint32_t step = graph_frame_step(collect->graph, frame);
    float *blended = collect->scratch, *noise = NULL;
    const struct sampler_frame from = scratch_state(collect, 2);
    const struct sampler_frame to = scratch_state(collect, 3 + SAMPLER_HISTORY_MAX);
    size_t count;
    LT_TRY(gather(collect, step, frame, &count, error));
    LT_TRY(blend_frame(collect->source, count, (size_t)collect->plan->latent_channels,
                       collect->frame_values / (size_t)collect->plan->latent_channels, blended,
                       error));
    LT_TRY(latents_read(collect->latents, frame, step, &from, error));
    if (sampler_needs_noise(collect->sampler, step)) {
        noise = collect->scratch + collect->frame_values;
        noise_step_frame(collect->noise, step, frame, noise);
    }
    sampler_advance(collect->sampler, step, collect->frame_values, blended, noise, &from, &to);
    LT_TRY(latents_write(collect->latents, frame, step + 1, &to, error));
    graph_frame_advanced(collect->graph, frame);
    return mark_garbage(collect, step, frame, error);
}

void collect_sweep(struct collect *collect)
{
    for (size_t i = 0; i < collect->garbage_count; i++) {
        char name[32];
        collect_prediction_name(collect->garbage[i], name);
        objects_remove(collect->store, name);
    }
    collect->garbage_count = 0;
}
