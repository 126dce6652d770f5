/* The uniform schedules start each step's windows at another place: that is why they need the
 * repair walk. Upstream's walk may insert a window that runs off the end and, with strides, may
 * leave frames without any weight; both are put right here and nothing else differs
 * (pipeline.md 1.5). */
#include "coordinator/window.h"

#include "coordinator/blend.h"

#include <math.h>
#include <string.h>

/* A list that grows while it is built; windows are arrays of frames in the arena. */
struct builder {
    const struct window_params *params;
    struct lt_arena *arena;
    struct window *window;
    uint32_t count, capacity;
};

bool window_schedule_is_static(enum window_schedule schedule)
{
    return schedule == WINDOW_STATIC_STANDARD || schedule == WINDOW_STATIC_BALANCED ||
           schedule == WINDOW_BATCHED;
}

bool window_schedule_is_looped(enum window_schedule schedule)
{
    return schedule == WINDOW_UNIFORM_LOOPED || schedule == WINDOW_UNIFORM_LOOPED_OPEN;
}

bool window_schedule_is_batched(enum window_schedule schedule)
{
    return schedule == WINDOW_BATCHED || schedule == WINDOW_BATCHED_SHIFTED;
}

double window_ordered_halving(uint64_t index)
{
    uint64_t reversed = 0;
    for (int bit = 0; bit < 64; bit++)
        reversed |= (index >> bit & 1) << (63 - bit);
    return ldexp((double)reversed, -64);
}

static lt_status no_memory(struct lt_error *error)
{
    return lt_fail(error, LT_NO_MEMORY, "no memory for the window lists");
}

/* Puts a window before position `at` and gives its frames to fill. */
static uint32_t *insert(struct builder *list, uint32_t at, uint32_t frame_count)
{
    if (list->count == list->capacity) {
        const uint32_t capacity = list->capacity ? list->capacity * 2 : 16;
        struct window *window = lt_arena_take_array(list->arena, capacity, sizeof *window);
        if (!window)
            return NULL;
        if (list->count)
            memcpy(window, list->window, list->count * sizeof *window);
        list->window = window;
        list->capacity = capacity;
    }
    uint32_t *frame = lt_arena_take_array(list->arena, frame_count, sizeof *frame);
    if (!frame)
        return NULL;
    memmove(&list->window[at + 1], &list->window[at], (list->count - at) * sizeof *list->window);
    list->window[at] = (struct window){.frame = frame, .frame_count = frame_count};
    list->count++;
    return frame;
}

/* [first, first + count) */
static bool insert_run(struct builder *list, uint32_t at, uint32_t first, uint32_t count)
{
    uint32_t *frame = insert(list, at, count);
    for (uint32_t m = 0; frame && m < count; m++)
        frame[m] = first + m;
    return frame != NULL;
}

static bool append_run(struct builder *list, uint32_t first, uint32_t count)
{
    return insert_run(list, list->count, first, count);
}

static uint32_t static_count(const struct window_params *params)
{
    const uint32_t hop = params->size - params->overlap;
    return (params->frame_count - params->size + hop - 1) / hop + 1;
}

/* Start of window k of the static_standard list. */
static uint32_t static_start(const struct window_params *params, uint32_t k)
{
    const uint64_t start = (uint64_t)k * (params->size - params->overlap);
    const uint32_t last = params->frame_count - params->size;
    return start < last ? (uint32_t)start : last;
}

static bool build_static(struct builder *list, bool balanced)
{
    const struct window_params *params = list->params;
    const uint32_t count = static_count(params), last = params->frame_count - params->size;
    for (uint32_t k = 0; k < count; k++) {
        uint32_t start = static_start(params, k);
        if (balanced && count > 1) /* floor(k last / (count - 1) + 1/2) */
            start = (uint32_t)((2 * (uint64_t)k * last + count - 1) / (2 * (uint64_t)(count - 1)));
        if (!append_run(list, start, params->size))
            return false;
    }
    return true;
}

/* Windows of n without overlap; `first` frames before the first of them. */
static bool build_batched(struct builder *list, uint32_t first)
{
    const uint32_t frame_count = list->params->frame_count, size = list->params->size;
    if (first && !append_run(list, 0, first))
        return false;
    for (uint32_t start = first; start < frame_count; start += size)
        if (!append_run(list, start, frame_count - start < size ? frame_count - start : size))
            return false;
    return true;
}

/* round(T H(i)), half to even as Python's round. */
static uint32_t step_offset(const struct window_params *params, uint32_t step)
{
    return (uint32_t)nearbyint(params->frame_count * window_ordered_halving(step));
}

/* Every level k takes each 2^k-th frame, wrapping round the end. */
static bool build_looped(struct builder *list, uint32_t step, bool closed)
{
    const struct window_params *params = list->params;
    const uint64_t frame_count = params->frame_count, size = params->size;
    uint32_t level_count = 1; /* min(d, ceil(log2(T / n)) + 1) */
    while (size << (level_count - 1) < frame_count)
        level_count++;
    level_count = params->stride < level_count ? params->stride : level_count;

    const uint64_t pad = step_offset(params, step);
    const uint64_t end = frame_count + pad - (closed ? 0 : params->overlap);
    for (uint32_t level = 0; level < level_count; level++) {
        const uint64_t stride = (uint64_t)1 << level;
        const uint64_t first = (uint64_t)(window_ordered_halving(step) * (double)stride) + pad;
        for (uint64_t j = first; j < end; j += size * stride - params->overlap) {
            uint32_t *frame = insert(list, list->count, params->size);
            if (!frame)
                return false;
            for (uint64_t m = 0; m < size; m++)
                frame[m] = (uint32_t)((j + m * stride) % frame_count);
        }
    }
    return true;
}

/* Index of the first frame that is smaller than its predecessor; 0: the window does not wrap. */
static uint32_t find_wrap(const struct window *window)
{
    for (uint32_t i = 1; i < window->frame_count; i++)
        if (window->frame[i] < window->frame[i - 1])
            return i;
    return 0;
}

static bool contains(const struct window *window, uint32_t frame)
{
    for (uint32_t i = 0; i < window->frame_count; i++)
        if (window->frame[i] == frame)
            return true;
    return false;
}

/* Moves a wrapped window so that it ends at T - 1. */
static void shift_to_end(struct window *window, uint32_t frame_count)
{
    uint32_t *frame = (uint32_t *)window->frame; /* ours: made by insert() */
    const uint32_t first = frame[0];
    for (uint32_t i = 0; i < window->frame_count; i++)
        frame[i] = (uint32_t)(((uint64_t)frame[i] + frame_count - first) % frame_count);
    const uint32_t rest = frame_count - 1 - frame[window->frame_count - 1];
    for (uint32_t i = 0; i < window->frame_count; i++)
        frame[i] += rest;
}

/* Frees the list of windows that wrap, repeat an earlier one, or (a shifted strided one) leave the
 * take. */
static bool repair_wrapped(struct builder *list)
{
    const uint32_t frame_count = list->params->frame_count, size = list->params->size;
    for (uint32_t p = 0; p < list->count; p++) {
        const uint32_t wrap = find_wrap(&list->window[p]);
        if (wrap == 0)
            continue;
        const uint32_t frame = list->window[p].frame[wrap];
        shift_to_end(&list->window[p], frame_count);
        if (!contains(&list->window[(p + 1) % list->count], frame)) {
            const uint32_t start = frame < frame_count - size ? frame : frame_count - size;
            if (!insert_run(list, p + 1, start, size))
                return false;
        }
    }
    return true;
}

static bool in_range(const struct window *window, uint32_t frame_count)
{
    for (uint32_t i = 0; i < window->frame_count; i++)
        if (window->frame[i] >= frame_count)
            return false;
    return true;
}

/* Keeps the first of equal windows; `same_first[f]` chains the windows kept that begin with frame
 * f. */
static bool drop_repeated(struct builder *list)
{
    const uint32_t frame_count = list->params->frame_count;
    uint32_t *same_first = lt_arena_take_array(list->arena, frame_count, sizeof *same_first);
    uint32_t *next = lt_arena_take_array(list->arena, list->count, sizeof *next);
    if (!same_first || !next)
        return false;
    memset(same_first, 0xff, frame_count * sizeof *same_first);
    uint32_t kept = 0;
    for (uint32_t p = 0; p < list->count; p++) {
        const struct window window = list->window[p];
        if (!in_range(&window, frame_count))
            continue;
        uint32_t *head = &same_first[window.frame[0]];
        bool repeated = false;
        for (uint32_t q = *head; q != UINT32_MAX && !repeated; q = next[q])
            repeated = memcmp(list->window[q].frame, window.frame,
                              window.frame_count * sizeof *window.frame) == 0;
        if (repeated)
            continue;
        list->window[kept] = window;
        next[kept] = *head;
        *head = kept++;
    }
    list->count = kept;
    return true;
}

static bool build_windows(struct builder *list, uint32_t step)
{
    switch (list->params->schedule) {
    case WINDOW_STATIC_STANDARD:
        return build_static(list, false);
    case WINDOW_STATIC_BALANCED:
        return build_static(list, true);
    case WINDOW_BATCHED:
        return build_batched(list, 0);
    case WINDOW_BATCHED_SHIFTED:
        return build_batched(list, step_offset(list->params, step) % list->params->size);
    case WINDOW_UNIFORM_LOOPED:
        return build_looped(list, step, true);
    case WINDOW_UNIFORM_LOOPED_OPEN:
        return build_looped(list, step, false);
    case WINDOW_UNIFORM_STANDARD:
        return build_looped(list, step, true) && repair_wrapped(list) && drop_repeated(list);
    case WINDOW_UNIFORM_STANDARD_COMFY:
        return build_looped(list, step, false) && repair_wrapped(list) && drop_repeated(list);
    }
    return false;
}

/* Fills the weights of window p and adds them to total[T]. */
static bool weigh(struct builder *list, uint32_t p, double *total)
{
    struct window *window = &list->window[p];
    float *weight = lt_arena_take_array(list->arena, window->frame_count, sizeof *weight);
    if (!weight)
        return false;
    blend_weights(list->params, window->frame, window->frame_count, weight);
    window->weight = weight;
    for (uint32_t i = 0; i < window->frame_count; i++)
        total[window->frame[i]] += weight[i];
    return true;
}

/* Appends the static window in which `frame` weighs most. */
static lt_status cover_frame(struct builder *list, uint32_t frame, double *total,
                             struct lt_error *error)
{
    const struct window_params *params = list->params;
    const uint32_t count = static_count(params);
    const struct lt_mark mark = lt_arena_mark(list->arena);
    uint32_t *run = lt_arena_take_array(list->arena, params->size, sizeof *run);
    float *weight = lt_arena_take_array(list->arena, params->size, sizeof *weight);
    if (!run || !weight)
        return no_memory(error);
    float best = 0;
    uint32_t best_start = 0;
    for (uint32_t k = 0; k < count; k++) {
        const uint32_t start = static_start(params, k);
        if (frame < start || frame >= start + params->size)
            continue;
        for (uint32_t m = 0; m < params->size; m++)
            run[m] = start + m;
        blend_weights(params, run, params->size, weight);
        if (weight[frame - start] > best) {
            best = weight[frame - start];
            best_start = start;
        }
    }
    lt_arena_rewind(list->arena, mark);
    if (!(best > 0))
        return lt_fail(error, LT_UNSUPPORTED,
                       "no window of %u frames with overlap %u gives frame %u a weight",
                       params->size, params->overlap, frame);
    if (!append_run(list, best_start, params->size) || !weigh(list, list->count - 1, total))
        return no_memory(error);
    return LT_OK;
}

/* The rule of pipeline.md 1.5: every index in range, every frame with a weight above 0. */
static lt_status verify(struct builder *list, struct lt_error *error)
{
    const uint32_t frame_count = list->params->frame_count;
    double *total = lt_arena_take_array(list->arena, frame_count, sizeof *total);
    if (!total)
        return no_memory(error);
    for (uint32_t f = 0; f < frame_count; f++)
        total[f] = 0;
    for (uint32_t p = 0; p < list->count; p++) {
        lt_assert(in_range(&list->window[p], frame_count));
        if (!weigh(list, p, total))
            return no_memory(error);
    }
    for (uint32_t f = 0; f < frame_count; f++)
        if (!(total[f] > 0))
            LT_TRY(cover_frame(list, f, total, error));
    return LT_OK;
}

/* One window over everything, with weight 1. */
static bool build_single(struct builder *list)
{
    const uint32_t frame_count = list->params->frame_count;
    float *weight = lt_arena_take_array(list->arena, frame_count, sizeof *weight);
    if (!weight || !append_run(list, 0, frame_count))
        return false;
    for (uint32_t i = 0; i < frame_count; i++)
        weight[i] = 1;
    list->window[0].weight = weight;
    return true;
}

lt_status window_list_build(const struct window_params *params, uint32_t step,
                            struct lt_arena *arena, struct window_list *list_out,
                            struct lt_error *error)
{
    if (params->frame_count == 0 || params->size == 0)
        return lt_fail(error, LT_BAD_INPUT,
                       "%u latent frames in windows of %u: both must be at least 1",
                       params->frame_count, params->size);
    if (params->overlap >= params->size)
        return lt_fail(error, LT_BAD_INPUT,
                       "window overlap %u must be below the window's %u frames", params->overlap,
                       params->size);
    if (params->stride == 0)
        return lt_fail(error, LT_BAD_INPUT, "window stride must be at least 1");
    struct builder list = {.params = params, .arena = arena};
    if (params->frame_count <= params->size) {
        if (!build_single(&list))
            return no_memory(error);
    } else {
        if (!build_windows(&list, step))
            return no_memory(error);
        LT_TRY(verify(&list, error));
    }
    *list_out = (struct window_list){.window = list.window, .count = list.count};
    return LT_OK;
}
