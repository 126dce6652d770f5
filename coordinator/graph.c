/* A step and the decode segments look the same from here: groups ("windows") of frames that must
 * stand at a level. A cover is such a list turned round: for every frame the windows that hold it.
 * Steps that share a list share its cover. Counters count slots, not frames, so a frame that stands
 * twice in a window counts twice on both sides.
 *
 *   pending[task]  slots of its window whose frame does not stand at the task's step yet
 *   left[frame]    slots of the frame's present step that are not committed yet
 *   edge           plan->edge by the task they come from: edge_to[edge_first[task]] and so on
 *
 * The ready tasks are bits in a tree of 64-bit words (a set bit: something is set below), so the
 * lowest one, an insertion and a removal cost one word per level: at most four levels for 2^24
 * tasks. */
#include "coordinator/graph.h"

#include <stdlib.h>
#include <string.h>

enum { LEVELS_MAX = 6 };

struct cover {
    uint32_t *first; /* [T + 1] into window */
    uint32_t
        *window; /* the windows of frame f: window[first[f]] to window[first[f + 1]], exclusive */
};

struct ready_set {
    uint64_t *word[LEVELS_MAX]; /* word[0] holds the tasks */
    uint32_t level_count, count;
};

struct graph {
    const struct plan *plan;
    bool barrier;
    uint32_t frame_count;
    struct lt_arena arena;
    struct cover
        *cover; /* [step_count + 1]; steps may share arrays; the last is of the decode segments */
    uint8_t *state;       /* [task_count], enum task_state */
    uint32_t *pending;    /* [task_count] */
    uint32_t *edge_first; /* [task_count + 1] */
    uint32_t *edge_to;    /* [edge_count] */
    uint32_t *step;       /* [T] */
    uint32_t *left;       /* [T] */
    uint32_t *reached;    /* [step_count + 1]: frames that stand at this step or beyond */
    struct ready_set ready;
    uint32_t committed_count;
};

static bool ready_init(struct ready_set *set, uint32_t task_count, struct lt_arena *arena)
{
    size_t words = task_count;
    do {
        words = (words + 63) / 64;
        lt_assert(set->level_count < LEVELS_MAX);
        uint64_t *word = lt_arena_take_zeroed(arena, words * sizeof *word);
        if (!word)
            return false;
        set->word[set->level_count++] = word;
    } while (words > 1);
    return true;
}

static void ready_add(struct ready_set *set, uint32_t task)
{
    for (uint32_t level = 0; level < set->level_count; level++, task /= 64)
        set->word[level][task / 64] |= UINT64_C(1) << task % 64;
    set->count++;
}

static void ready_remove(struct ready_set *set, uint32_t task)
{
    for (uint32_t level = 0; level < set->level_count; level++, task /= 64) {
        set->word[level][task / 64] &= ~(UINT64_C(1) << task % 64);
        if (set->word[level][task / 64])
            break;
    }
    set->count--;
}

static uint32_t ready_lowest(const struct ready_set *set)
{
    if (set->count == 0)
        return UINT32_MAX;
    uint32_t index = 0;
    for (uint32_t level = set->level_count; level-- > 0;)
        index = index * 64 + (uint32_t)__builtin_ctzll(set->word[level][index]);
    return index;
}

/* Words beyond the end of a level are empty. */
static uint64_t word_of(const struct ready_set *set, uint64_t task_count, uint32_t level,
                        uint64_t index)
{
    uint64_t words = task_count;
    for (uint32_t i = 0; i <= level; i++)
        words = (words + 63) / 64;
    return index < words ? set->word[level][index] : 0;
}

static uint32_t window_count(const struct plan *plan, uint32_t step)
{
    return step < plan->step_count ? plan->step[step].window_count : plan->segment_count;
}

static uint32_t task_of(const struct plan *plan, uint32_t step, uint32_t window)
{
    return (step < plan->step_count ? plan->step[step].task_first : plan->predict_count) + window;
}

static uint32_t slot_count(const struct plan *plan, uint32_t step, uint32_t window)
{
    return step < plan->step_count ? plan->step[step].window[window].frame_count
                                   : plan->segment[window].frame_count;
}

static uint32_t slot_frame(const struct plan *plan, uint32_t step, uint32_t window, uint32_t slot)
{
    return step < plan->step_count ? plan->step[step].window[window].frame[slot]
                                   : plan->segment[window].frame_first + slot;
}

/* Counts, sums up, fills: the usual three passes. */
static bool cover_build(const struct plan *plan, uint32_t step, struct lt_arena *arena,
                        struct cover *cover)
{
    const uint32_t frames = (uint32_t)plan->latent_frames, windows = window_count(plan, step);
    uint32_t *first = lt_arena_take_zeroed(arena, (frames + 2) * sizeof *first);
    if (!first)
        return false;
    for (uint32_t w = 0; w < windows; w++)
        for (uint32_t k = 0; k < slot_count(plan, step, w); k++)
            first[slot_frame(plan, step, w, k) + 2]++;
    for (uint32_t f = 0; f < frames; f++)
        first[f + 2] += first[f + 1];
    uint32_t *window = lt_arena_take_array(arena, first[frames + 1], sizeof *window);
    if (!window)
        return false;
    for (uint32_t w = 0; w < windows; w++)
        for (uint32_t k = 0; k < slot_count(plan, step, w); k++)
            window[first[slot_frame(plan, step, w, k) + 1]++] = w;
    *cover = (struct cover){.first = first, .window = window};
    return true;
}

static bool build_covers(struct graph *graph)
{
    const struct plan *plan = graph->plan;
    for (uint32_t s = 0; s <= plan->step_count; s++) {
        const bool shared =
            s > 0 && s < plan->step_count && plan->step[s].window == plan->step[s - 1].window;
        if (shared)
            graph->cover[s] = graph->cover[s - 1];
        else if (!cover_build(plan, s, &graph->arena, &graph->cover[s]))
            return false;
        for (uint32_t w = 0; w < window_count(plan, s); w++)
            graph->pending[task_of(plan, s, w)] = slot_count(plan, s, w);
    }
    return true;
}

static void make_ready(struct graph *graph, uint32_t task)
{
    lt_assert(graph->state[task] == TASK_BLOCKED);
    graph->state[task] = TASK_READY;
    ready_add(&graph->ready, task);
}

/* Barrier: every frame stands at the task's step. */
static bool is_gated(const struct graph *graph, uint32_t step)
{
    return graph->barrier && step < graph->plan->step_count &&
           graph->reached[step] < graph->frame_count;
}

/* Counts, sums up, fills; what edges lead to waits for one more. */
static bool build_edges(struct graph *graph)
{
    const struct plan *plan = graph->plan;
    uint32_t *first = lt_arena_take_zeroed(&graph->arena, (plan->task_count + 2) * sizeof *first);
    uint32_t *to = lt_arena_take_array(&graph->arena, plan->edge_count + 1, sizeof *to);
    if (!first || !to)
        return false;
    for (uint32_t i = 0; i < plan->edge_count; i++) {
        first[plan->edge[i].from + 2]++;
        graph->pending[plan->edge[i].to]++;
    }
    for (uint32_t t = 0; t < plan->task_count; t++)
        first[t + 2] += first[t + 1];
    for (uint32_t i = 0; i < plan->edge_count; i++)
        to[first[plan->edge[i].from + 1]++] = plan->edge[i].to;
    graph->edge_first = first;
    graph->edge_to = to;
    return true;
}

/* `task` is committed: those that waited for it do so no more. */
static void release_edges(struct graph *graph, uint32_t task)
{
    for (uint32_t i = graph->edge_first[task]; i < graph->edge_first[task + 1]; i++) {
        const uint32_t to = graph->edge_to[i];
        uint32_t step, window;
        if (--graph->pending[to] > 0)
            continue;
        if (plan_task(graph->plan, to, &step, &window) != PLAN_PREDICT || !is_gated(graph, step))
            make_ready(graph, to);
    }
}

/* The frame stands at graph->step[frame] since now. */
static void arrive(struct graph *graph, uint32_t frame)
{
    const struct plan *plan = graph->plan;
    const uint32_t step = graph->step[frame];
    const struct cover *cover = &graph->cover[step];
    const bool gated = graph->barrier && step < plan->step_count;
    graph->left[frame] = cover->first[frame + 1] - cover->first[frame];
    for (uint32_t i = cover->first[frame]; i < cover->first[frame + 1]; i++) {
        const uint32_t task = task_of(plan, step, cover->window[i]);
        if (--graph->pending[task] == 0 && !gated)
            make_ready(graph, task);
    }
    if (++graph->reached[step] == graph->frame_count && gated)
        for (uint32_t w = 0; w < window_count(plan, step); w++)
            if (graph->pending[task_of(plan, step, w)] == 0)
                make_ready(graph, task_of(plan, step, w));
}

lt_status graph_create(const struct plan *plan, bool barrier, struct graph **graph_out,
                       struct lt_error *error)
{
    struct graph *graph = calloc(1, sizeof *graph);
    if (!graph)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the task graph");
    lt_arena_init(&graph->arena, 0);
    graph->plan = plan;
    graph->barrier = barrier;
    graph->frame_count = (uint32_t)plan->latent_frames;
    const size_t steps = (size_t)plan->step_count + 1;
    graph->cover = lt_arena_take_zeroed(&graph->arena, steps * sizeof *graph->cover);
    graph->reached = lt_arena_take_zeroed(&graph->arena, steps * sizeof *graph->reached);
    graph->state = lt_arena_take_zeroed(&graph->arena, plan->task_count);
    graph->pending = lt_arena_take_zeroed(&graph->arena, plan->task_count * sizeof *graph->pending);
    graph->step = lt_arena_take_zeroed(&graph->arena, graph->frame_count * sizeof *graph->step);
    graph->left = lt_arena_take_zeroed(&graph->arena, graph->frame_count * sizeof *graph->left);
    if (!graph->cover || !graph->reached || !graph->state || !graph->pending || !graph->step ||
        !graph->left || !ready_init(&graph->ready, plan->task_count, &graph->arena) ||
        !build_covers(graph) || !build_edges(graph)) {
        graph_destroy(&graph);
        return lt_fail(error, LT_NO_MEMORY, "no memory for a graph of %u tasks", plan->task_count);
    }
    for (uint32_t t = plan->predict_count + plan->segment_count; t < plan->task_count; t++)
        if (graph->pending[t] == 0)
            make_ready(graph, t);
    for (uint32_t f = 0; f < graph->frame_count; f++)
        arrive(graph, f);
    *graph_out = graph;
    return LT_OK;
}

void graph_destroy(struct graph **graph)
{
    if (!*graph)
        return;
    lt_arena_fini(&(*graph)->arena);
    free(*graph);
    *graph = NULL;
}

enum task_state graph_state(const struct graph *graph, uint32_t task)
{
    lt_assert(task < graph->plan->task_count);
    return (enum task_state)graph->state[task];
}

uint32_t graph_next(const struct graph *graph)
{
    return ready_lowest(&graph->ready);
}

uint32_t graph_next_after(const struct graph *graph, uint32_t task)
{
    const struct ready_set *set = &graph->ready;
    uint64_t index = (uint64_t)task + 1;
    uint32_t level = 0;
    /* Up until a word has a bit at or above the index, then down along the lowest ones. */
    for (; level < set->level_count; level++, index = index / 64 + 1) {
        const uint64_t limit = level == 0 ? graph->plan->task_count : UINT64_MAX;
        if (index >= limit)
            return UINT32_MAX;
        const uint64_t word = word_of(set, graph->plan->task_count, level, index / 64);
        const uint64_t above = word & (UINT64_MAX << index % 64);
        if (above) {
            index = index / 64 * 64 + (uint64_t)__builtin_ctzll(above);
            break;
        }
    }
    if (level == set->level_count)
        return UINT32_MAX;
    while (level-- > 0)
        index = index * 64 + (uint64_t)__builtin_ctzll(set->word[level][index]);
    return (uint32_t)index;
}

uint32_t graph_ready_count(const struct graph *graph)
{
    return graph->ready.count;
}

void graph_lease(struct graph *graph, uint32_t task)
{
    lt_assert(graph_state(graph, task) == TASK_READY);
    graph->state[task] = TASK_LEASED;
    ready_remove(&graph->ready, task);
}

void graph_return(struct graph *graph, uint32_t task)
{
    lt_assert(graph_state(graph, task) == TASK_LEASED);
    graph->state[task] = TASK_READY;
    ready_add(&graph->ready, task);
}

lt_status graph_commit(struct graph *graph, uint32_t task, uint32_t *frames_out,
                       uint32_t *frame_count_out, struct lt_error *error)
{
    if (task >= graph->plan->task_count)
        return lt_fail(error, LT_BAD_INPUT, "task %u: the job has %u tasks", task,
                       graph->plan->task_count);
    if (graph->state[task] == TASK_COMMITTED || graph->state[task] == TASK_BLOCKED)
        return lt_fail(error, LT_CONFLICT, "task %u is %s", task,
                       graph->state[task] == TASK_BLOCKED ? "not ready yet" : "committed already");
    if (graph->state[task] == TASK_READY)
        ready_remove(&graph->ready, task);
    graph->state[task] = TASK_COMMITTED;
    graph->committed_count++;
    release_edges(graph, task);

    uint32_t index, window, count = 0;
    if (plan_task(graph->plan, task, &index, &window) == PLAN_PREDICT) {
        const struct window *slots = &graph->plan->step[index].window[window];
        for (uint32_t k = 0; k < slots->frame_count; k++)
            if (--graph->left[slots->frame[k]] == 0)
                frames_out[count++] = slots->frame[k];
    }
    *frame_count_out = count;
    return LT_OK;
}

void graph_frame_advanced(struct graph *graph, uint32_t frame)
{
    lt_assert(frame < graph->frame_count);
    lt_assert(graph->step[frame] < graph->plan->step_count && graph->left[frame] == 0);
    graph->step[frame]++;
    arrive(graph, frame);
}

uint32_t graph_frame_step(const struct graph *graph, uint32_t frame)
{
    lt_assert(frame < graph->frame_count);
    return graph->step[frame];
}

uint32_t graph_committed_count(const struct graph *graph)
{
    return graph->committed_count;
}

bool graph_done(const struct graph *graph)
{
    return graph->committed_count == graph->plan->task_count;
}
