/* From predictions to the next latents: when every window of a frame's step is in, the frame is
 * blended in window order (f32), sampled, written and reported to the graph. Pure functions of what
 * is stored, so doing it again after a crash gives the same bytes. Owned by one run. */
#pragma once

#include "coordinator/blend.h"
#include "coordinator/graph.h"
#include "coordinator/latents.h"
#include "coordinator/noise.h"
#include "coordinator/sampler.h"

struct collect {
    const struct plan *plan;
    const struct sampler *sampler;
    struct noise *noise;
    struct latents *latents;
    struct graph *graph;
    struct objects *store;
    float *scratch; /* blended, noise, state before and after, and one frame per source */
    size_t frame_values;
    struct blend_source *source;
    size_t source_capacity;
    uint32_t *garbage; /* predict tasks whose frames have all moved on */
    size_t garbage_count, garbage_capacity;
};

/* Everything is borrowed and outlives it. */
lt_status collect_init(struct collect *collect, const struct plan *plan,
                       const struct sampler *sampler, struct noise *noise, struct latents *latents,
                       struct graph *graph, struct objects *store, struct lt_error *error);
void collect_fini(struct collect *collect);

void collect_prediction_name(uint32_t task, char name_out[32]);

/* All windows of the frame's step are stored: its latents of the next step are written and the
 * graph knows. */
lt_status collect_advance(struct collect *collect, uint32_t frame, struct lt_error *error);
/* Once the frames' steps are journalled: removes the predictions nobody needs. */
void collect_sweep(struct collect *collect);
