/* Which tasks may run. Wavefront (design.md 4): every latent frame has its own step counter; window
 * w of step s is ready when all its frames stand at s; a frame advances to s+1 when every window of
 * step s that covers it is committed. Barrier mode: step s starts when all frames stand at s. A
 * decode segment is ready when its frames stand at the end. A task with edges (plan.h) also waits
 * for the tasks they come from; a conditioning task waits for nothing else. Pure bookkeeping: no
 * bytes, no clock. O(frames of the window) per event. */
#pragma once

#include "coordinator/plan.h"

enum task_state { TASK_BLOCKED, TASK_READY, TASK_LEASED, TASK_COMMITTED };

struct graph;

lt_status graph_create(const struct plan *plan, bool barrier, struct graph **graph_out,
                       struct lt_error *error);
void graph_destroy(struct graph **graph);

enum task_state graph_state(const struct graph *graph, uint32_t task);
/* The ready task to run next: lowest step first, then lowest index; UINT32_MAX: none is ready. */
uint32_t graph_next(const struct graph *graph);
/* The lowest ready task above `task`; UINT32_MAX: none. */
uint32_t graph_next_after(const struct graph *graph, uint32_t task);
uint32_t graph_ready_count(const struct graph *graph);
void graph_lease(struct graph *graph, uint32_t task);  /* READY -> LEASED */
void graph_return(struct graph *graph, uint32_t task); /* LEASED -> READY */
/* READY or LEASED -> COMMITTED. Gives the frames whose windows of their step are now all committed:
 * the caller blends and samples them, then reports each by graph_frame_advanced. */
lt_status graph_commit(struct graph *graph, uint32_t task, uint32_t *frames_out,
                       uint32_t *frame_count_out, struct lt_error *error);
void graph_frame_advanced(struct graph *graph,
                          uint32_t frame); /* its step + 1; may make tasks ready */
uint32_t graph_frame_step(const struct graph *graph, uint32_t frame);
uint32_t graph_committed_count(const struct graph *graph);
bool graph_done(const struct graph *graph); /* every task committed */
