#include "cuemu/block.h"

#include "cuemu/fiber.h"
#include "cuemu/shared.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cuemu
{

enum class state { ready, at_barrier, at_meeting, returned };

struct queued_copy {
    async_copy copy;
    unsigned group;
};

struct thread {
    state now;
    fiber *stack; /* NULL before the first run and after the last */
    uint3 index;
    where at; /* of the last barrier or warp operation */
    int predicate, vote;
    struct meeting *meeting;
    std::vector<queued_copy> copies; /* oldest first; the first copies_taken are done */
    size_t copies_taken;
    unsigned groups_closed;
};

struct meeting {
    const char *operation;
    unsigned mask, arrived;
    meeting_compute *compute;
    meeting *next; /* of the spare ones */
    meeting_lane lanes[32];
};

/* Two objects in turn: with one, a thread already at the next barrier would hide races of those
 * that have not left this one. */
struct turn {
    char objects[2];
    int now;
};

/* No containers here: fibers change it, and a thread sanitizer would see their copies as races. */
struct warp {
    meeting *open[32];
    unsigned open_count;
    turn order;
};

static struct scheduler {
    const grid_params *params;
    const std::function<void()> *body;
    std::vector<thread> threads;
    std::vector<warp> warps;
    meeting *spare;
    std::vector<fiber *> stacks; /* TSan: one per thread index; else a pile of free ones */
    std::vector<unsigned> order;
    thread *current; /* the one whose fiber runs; NULL in the scheduler */
    unsigned alive, at_barrier;
    vote barrier_kind;
    turn barrier_order;
    char block_begins, block_ends; /* two, or a thread would be ordered with those that ended */
    shared_buffer shared;
    uint64_t random;
} &g = *new scheduler{}; /* never destroyed: stacks are kept */

/* -- reports ----------------------------------------------------------------------------------- */

static void say_where(const thread &t)
{
    fprintf(stderr, "thread (%u,%u,%u) of block (%u,%u,%u)", t.index.x, t.index.y, t.index.z,
            blockIdx.x, blockIdx.y, blockIdx.z);
}

void say_context()
{
    if (!g.params)
        return;
    fprintf(stderr, "cuemu: in kernel %s, ", g.shared.kernel->name);
    if (g.current)
        say_where(*g.current);
    fputc('\n', stderr);
}

void fault(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("cuemu: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    say_context();
    abort();
}

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

[[noreturn]] static void report_deadlock()
{
    unsigned shown = 0, waiting = 0;
    for (const thread &t : g.threads) {
        if (t.now == state::returned)
            continue;
        waiting++;
        if (shown++ < 8) {
            fputs("cuemu: ", stderr);
            say_where(t);
            fprintf(stderr, " waits at %s (%s:%d)\n",
                    t.now == state::at_barrier ? "__syncthreads" : t.meeting->operation,
                    file_name(t.at.file), t.at.line);
        }
    }
    fault("deadlock: %u of %zu threads wait for others", waiting, g.threads.size());
}

/* -- the scheduler ----------------------------------------------------------------------------- */

static uint64_t next_random()
{
    g.random += 0x9e3779b97f4a7c15ull; /* splitmix64 */
    uint64_t z = g.random;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static unsigned long order_mode()
{
    const char *text = getenv("CUEMU_ORDER");
    return text ? strtoul(text, nullptr, 10) : 0;
}

static void shuffle(std::vector<unsigned> &list)
{
    for (size_t i = list.size(); i > 1; i--)
        std::swap(list[i - 1], list[next_random() % i]);
}

static void lane_returns(thread &t)
{
    t.now = state::returned;
    g.alive--;
}

/* The life of a fiber: one kernel thread after another would need a reset, so one and out. */
static void thread_main()
{
    order_acquire(&g.block_begins);
    (*g.body)();
    order_release(&g.block_ends);
    lane_returns(*g.current);
    fiber_finish();
    abort();
}

static fiber *take_stack(size_t thread_index)
{
#ifdef CUEMU_TSAN
    while (g.stacks.size() <= thread_index)
        g.stacks.push_back(fiber_create(thread_main));
    fiber_reset(g.stacks[thread_index]);
    return g.stacks[thread_index];
#else
    (void)thread_index;
    if (g.stacks.empty())
        return fiber_create(thread_main);
    fiber *f = g.stacks.back();
    g.stacks.pop_back();
    fiber_reset(f);
    return f;
#endif
}

static void run_thread(unsigned index)
{
    thread &t = g.threads[index];
    if (!t.stack)
        t.stack = take_stack(index);
    g.current = &t;
    threadIdx = t.index;
    fiber_enter(t.stack);
    g.current = nullptr;
    if (t.now == state::returned) {
#ifndef CUEMU_TSAN
        g.stacks.push_back(t.stack);
#endif
        t.stack = nullptr;
    }
}

static int count_votes(vote kind)
{
    int count = 0, asked = 0;
    for (const thread &t : g.threads)
        if (t.now == state::at_barrier) {
            count += t.predicate != 0;
            asked++;
        }
    switch (kind) {
    case vote::all:
        return count == asked;
    case vote::any:
        return count > 0;
    default:
        return count;
    }
}

static void open_barrier()
{
    static const bool relaxed = getenv("CUEMU_RELAXED") != nullptr;
    const thread *first = nullptr;
    for (thread &t : g.threads) {
        if (t.now == state::returned) {
            if (!relaxed) {
                g.current = &t;
                const thread &other =
                    *std::find_if(g.threads.begin(), g.threads.end(),
                                  [](const thread &o) { return o.now == state::at_barrier; });
                fault("__syncthreads at %s:%d is not reached by all: this thread has returned",
                      file_name(other.at.file), other.at.line);
            }
            continue;
        }
        if (!first)
            first = &t;
        if (t.at.line != first->at.line || strcmp(t.at.file, first->at.file) != 0) {
            g.current = &t;
            fault("__syncthreads reached from two lines at once: %s:%d and %s:%d",
                  file_name(first->at.file), first->at.line, file_name(t.at.file), t.at.line);
        }
    }
    const int result = count_votes(g.barrier_kind);
    for (thread &t : g.threads)
        if (t.now == state::at_barrier) {
            t.vote = result;
            t.now = state::ready;
        }
    g.at_barrier = 0;
    g.barrier_order.now ^= 1;
}

static void run_threads(unsigned long order)
{
    while (g.alive > 0) {
        if (order > 1)
            shuffle(g.order);
        bool progress = false;
        for (unsigned index : g.order)
            if (g.threads[index].now == state::ready) {
                run_thread(index);
                progress = true;
            }
        if (g.alive > 0 && g.at_barrier == g.alive) {
            open_barrier();
            progress = true;
        }
        if (!progress)
            report_deadlock();
    }
}

static void run_block(unsigned long order)
{
    const unsigned count = static_cast<unsigned>(g.threads.size());
    for (thread &t : g.threads) {
        t.now = state::ready;
        t.copies.clear();
        t.copies_taken = 0;
        t.groups_closed = 0;
    }
    g.alive = count;
    g.at_barrier = 0;
    shared_poison(g.shared);
    order_release(&g.block_begins);
    run_threads(order);
    order_acquire(&g.block_ends);
}

static void set_up_threads(const dim3 &block, unsigned long order)
{
    const unsigned count = block.x * block.y * block.z;
    g.threads.resize(count);
    g.warps.resize((count + 31) / 32);
    g.order.resize(count);
    for (unsigned i = 0; i < count; i++) {
        g.threads[i].index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
        g.threads[i].stack = nullptr;
        g.order[i] = order == 1 ? count - 1 - i : i;
    }
}

void run_grid(const grid_params &params, const std::function<void()> &body)
{
    const unsigned long order = order_mode();
    g.shared = shared_create(&kernel_find(params.kernel), params.shared);
    g.params = &params;
    g.body = &body;
    g.random = order;
    gridDim = params.grid;
    blockDim = params.block;

    set_up_threads(params.block, order);
    const uint64_t blocks = uint64_t{params.grid.x} * params.grid.y * params.grid.z;
    const uint64_t start = order > 1 ? next_random() % blocks : 0;
    for (uint64_t i = 0; i < blocks; i++) {
        const uint64_t b = order == 1 ? blocks - 1 - i : (start + i) % blocks;
        blockIdx = {static_cast<unsigned>(b % params.grid.x),
                    static_cast<unsigned>(b / params.grid.x % params.grid.y),
                    static_cast<unsigned>(b / params.grid.x / params.grid.y)};
        run_block(order);
    }
    g.params = nullptr;
    shared_destroy(g.shared);
}

/* -- what kernels call ------------------------------------------------------------------------- */

static thread &self(const char *what)
{
    if (!g.current)
        fault("%s outside a kernel", what);
    return *g.current;
}

void *dynamic_shared()
{
    self("dynamic_shared");
    return g.shared.data;
}

void check_shared(const char *operation, const void *at, size_t bytes)
{
    self(operation);
    if (reinterpret_cast<uintptr_t>(at) % bytes != 0)
        fault("%s: address %p is not aligned to %zu bytes", operation, at, bytes);
    if (!shared_contains(g.shared, at, bytes))
        fault("%s: address %p is not shared memory of the block", operation, at);
}

unsigned thread_linear()
{
    return static_cast<unsigned>(&self("lane") - g.threads.data());
}

unsigned lane()
{
    return thread_linear() % 32;
}

int barrier(vote kind, int predicate, where at)
{
    thread &t = self("__syncthreads");
    t.at = at;
    t.predicate = predicate;
    t.now = state::at_barrier;
    g.at_barrier++;
    g.barrier_kind = kind;
    char *order = &g.barrier_order.objects[g.barrier_order.now];
    order_release(order);
    fiber_leave();
    order_acquire(order);
    return t.vote;
}

/* Lanes of the warp that exist and have not returned. */
static unsigned lanes_alive(unsigned warp_index)
{
    unsigned alive = 0;
    for (unsigned l = 0; l < 32 && warp_index * 32 + l < g.threads.size(); l++)
        if (g.threads[warp_index * 32 + l].now != state::returned)
            alive |= 1u << l;
    return alive;
}

static void check_mask(const char *operation, unsigned mask, unsigned own, unsigned alive, where at)
{
    if (!(mask & own))
        fault("%s at %s:%d: the lane is not in its own mask %08x", operation, file_name(at.file),
              at.line, mask);
    if (mask & ~alive)
        fault("%s at %s:%d: mask %08x names lanes %08x that have returned or never were", operation,
              file_name(at.file), at.line, mask, mask & ~alive);
}

static meeting *join(warp &w, const char *operation, unsigned mask, meeting_compute *compute,
                     where at)
{
    for (unsigned i = 0; i < w.open_count; i++) {
        meeting *m = w.open[i];
        if (!(m->mask & mask))
            continue;
        if (m->mask != mask)
            fault("%s at %s:%d: mask %08x overlaps mask %08x of a waiting %s", operation,
                  file_name(at.file), at.line, mask, m->mask, m->operation);
        if (strcmp(m->operation, operation) != 0)
            fault("%s at %s:%d meets a %s of the same lanes", operation, file_name(at.file),
                  at.line, m->operation);
        return m;
    }
    meeting *m = g.spare;
    if (m)
        g.spare = m->next;
    else
        m = new meeting;
    m->operation = operation;
    m->mask = mask;
    m->arrived = 0;
    m->compute = compute;
    w.open[w.open_count++] = m;
    return m;
}

/* Words of kernels are moved by this loop: memcpy would be seen by the sanitizers as ours. */
static void copy_words(void *to, const void *from, size_t bytes)
{
    using word = uint64_t __attribute__((may_alias));
    volatile word *t = static_cast<volatile word *>(to);
    const word *f = static_cast<const word *>(from);
    for (size_t i = 0; i < bytes / 8; i++)
        t[i] = f[i];
}

static void complete(warp &w, meeting *m, unsigned warp_index)
{
    if (m->compute)
        m->compute(m->lanes, m->mask);
    *std::find(w.open, w.open + w.open_count, m) = w.open[w.open_count - 1];
    w.open_count--;
    w.order.now ^= 1;
    for (unsigned l = 0; l < 32; l++)
        if (m->mask >> l & 1)
            g.threads[warp_index * 32 + l].now = state::ready;
}

void meet(const char *operation, unsigned mask, void *value, size_t bytes, meeting_compute *compute,
          bool orders, where at)
{
    thread &t = self(operation);
    const unsigned index = thread_linear(), warp_index = index / 32, own = 1u << index % 32;
    warp &w = g.warps[warp_index];
    t.at = at;
    check_mask(operation, mask, own, lanes_alive(warp_index), at);
    meeting *m = join(w, operation, mask, compute, at);
    copy_words(m->lanes[index % 32].value, value, bytes);
    m->arrived |= own;
    t.meeting = m;
    char *order = &w.order.objects[w.order.now];
    if (orders)
        order_release(order);
    if (m->arrived == mask) {
        complete(w, m, warp_index);
    } else {
        t.now = state::at_meeting;
        fiber_leave();
    }
    if (orders)
        order_acquire(order);
    copy_words(value, m->lanes[index % 32].result, bytes);
    m->arrived &= ~own; /* the last to go hands the meeting back */
    if (m->arrived == 0) {
        m->next = g.spare;
        g.spare = m;
    }
}

void copy_async_queue(const async_copy &copy)
{
    thread &t = self("copy_async_16");
    if (t.copies_taken == t.copies.size()) {
        t.copies.clear();
        t.copies_taken = 0;
    }
    t.copies.push_back({copy, t.groups_closed + 1});
}

void copy_async_commit()
{
    self("copy_async_commit").groups_closed++;
}

const async_copy *copy_async_take(int pending)
{
    static async_copy taken;
    thread &t = self("copy_async_wait");
    if (t.copies_taken == t.copies.size() ||
        t.copies[t.copies_taken].group + static_cast<unsigned>(pending) > t.groups_closed)
        return nullptr;
    taken = t.copies[t.copies_taken++].copy;
    return &taken;
}

} // namespace cuemu
