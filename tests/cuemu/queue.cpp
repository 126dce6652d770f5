#include "cuemu/queue.h"

#include "cuemu/block.h"
#include "cuemu/memory.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

namespace cuemu
{

static struct machine {
    std::recursive_mutex mutex;
    std::condition_variable_any changed;
    std::map<int, stream> legacy; /* by device */
    std::vector<std::unique_ptr<stream>> streams;
    std::deque<node_ref> pending; /* queued and not known to be done */
    bool running = false;         /* an operation runs: host functions shall not start another */
    uint64_t random = 1;
    std::string seed; /* as CUEMU_WHEN gave it */
} &m = *new machine;  /* never destroyed: other static objects may still call */

static double now_ms()
{
    using namespace std::chrono;
    static const steady_clock::time_point start = steady_clock::now();
    return duration<double, std::milli>(steady_clock::now() - start).count();
}

std::unique_lock<std::recursive_mutex> runtime_lock()
{
    return std::unique_lock<std::recursive_mutex>(m.mutex);
}

bool queue_running()
{
    return m.running;
}

void queue_notify()
{
    m.changed.notify_all();
}

/* -- when ------------------------------------------------------------------------------------- */

enum class when { lazy, eager, random };

static when policy()
{
    const char *text = getenv("CUEMU_WHEN");
    if (!text || strcmp(text, "lazy") == 0)
        return when::lazy;
    if (strcmp(text, "eager") == 0)
        return when::eager;
    if (m.seed != text) {
        m.seed = text;
        m.random = strtoull(text, nullptr, 10) * 2654435761u + 1;
    }
    return when::random;
}

static uint64_t next_random()
{
    m.random = m.random * 6364136223846793005ull + 1442695040888963407ull;
    return m.random >> 33;
}

/* -- running ---------------------------------------------------------------------------------- */

static bool is_ready(const node &n)
{
    if (n.done)
        return false;
    for (const node_ref &need : n.needs)
        if (!need->done)
            return false;
    return true;
}

/* Runs one node whose needs are done; false when a peer is missing. */
static bool run_node(node &n)
{
    if (m.running)
        fault("%s would wait inside a host function or a kernel: that is not allowed", n.what);
    m.running = true;
    memory_open();
    const bool done = n.run ? n.run() : true;
    memory_close();
    m.running = false;
    if (done) {
        n.done = true;
        n.done_ms = now_ms();
        n.needs.clear();
        n.run = nullptr;
        n.needs_more = nullptr;
    }
    queue_notify();
    return done;
}

static void forget_done()
{
    while (!m.pending.empty() && m.pending.front()->done)
        m.pending.pop_front();
}

/* Depth first along the needs, without recursion: streams may hold thousands of nodes. Returns
 * whether anything ran. */
static bool run_needed(const node_ref &wanted)
{
    std::vector<node_ref> path = {wanted};
    std::vector<node_ref> stuck; /* tried in vain, or a peer of what is being tried */
    bool ran = false;
    auto blocked = [&](const node_ref &n) {
        return std::find(stuck.begin(), stuck.end(), n) != stuck.end() ||
               std::find(path.begin(), path.end(), n) != path.end();
    };
    while (!path.empty()) {
        node_ref n = path.back(), next;
        if (n->done) {
            path.pop_back();
            continue;
        }
        bool missing = false;
        auto consider = [&](const std::vector<node_ref> &needs) {
            for (const node_ref &need : needs) {
                if (need->done)
                    continue;
                missing = true;
                if (!next && !blocked(need))
                    next = need;
            }
        };
        consider(n->needs);
        if (n->needs_more && !missing) {
            const bool before = missing;
            consider(n->needs_more());
            missing = before; /* peers help; what can be done without them is done */
        }
        if (next) {
            path.push_back(next);
            continue;
        }
        if (!missing && run_node(*n))
            ran = true;
        else
            stuck.push_back(n);
        path.pop_back();
    }
    forget_done();
    return ran;
}

/* Runs one node of all that could run now, chosen by the seed. */
static bool run_any()
{
    std::vector<node_ref> ready;
    for (const node_ref &n : m.pending)
        if (is_ready(*n))
            ready.push_back(n);
    while (!ready.empty()) {
        const size_t i = next_random() % ready.size();
        if (run_node(*ready[i]))
            return true;
        ready.erase(ready.begin() + static_cast<long>(i));
    }
    forget_done();
    return false;
}

/* -- queueing and waiting --------------------------------------------------------------------- */

static stream *resolve(stream *s, int device)
{
    if (s)
        return s;
    stream &legacy = m.legacy[device];
    legacy.device = device;
    legacy.blocking = true;
    return &legacy;
}

static void push_open(std::vector<node_ref> &list, const node_ref &n)
{
    if (n && !n->done)
        list.push_back(n);
}

/* The legacy stream waits for all blocking streams of its device, and they for it. */
static void add_legacy_order(std::vector<node_ref> &needs, const stream *s)
{
    const stream *legacy = resolve(nullptr, s->device);
    if (s != legacy) {
        if (s->blocking)
            push_open(needs, legacy->last);
        return;
    }
    for (const auto &other : m.streams)
        if (other->blocking && other->device == s->device)
            push_open(needs, other->last);
}

node_ref queue_add(stream *s, int device, const char *what, std::vector<node_ref> needs,
                   std::function<bool()> run, std::function<std::vector<node_ref>()> needs_more)
{
    s = resolve(s, device);
    node_ref n = std::make_shared<node>();
    n->what = what;
    n->device = s->device;
    for (const node_ref &need : needs)
        push_open(n->needs, need);
    push_open(n->needs, s->last);
    add_legacy_order(n->needs, s);
    n->run = std::move(run);
    n->needs_more = std::move(needs_more);
    s->last = n;
    m.pending.push_back(n);
    if (!m.running) {
        if (policy() == when::eager)
            run_needed(n);
        else if (policy() == when::random)
            for (uint64_t i = next_random() % 3; i > 0; i--)
                run_any();
    }
    queue_notify();
    return n;
}

void queue_wait(std::unique_lock<std::recursive_mutex> &lock, const node_ref &n)
{
    static const char *text = getenv("CUEMU_PEER_SECONDS");
    static const int seconds = text ? atoi(text) : 20;
    while (n && !n->done) {
        bool ran = false;
        if (policy() == when::random)
            while (!n->done && run_any())
                ran = true;
        if (!n->done)
            ran = run_needed(n) || ran;
        if (n->done || ran)
            continue;
        if (m.changed.wait_for(lock, std::chrono::seconds(seconds)) == std::cv_status::timeout)
            fault("%s waits for a peer that does not come", n->what);
    }
}

node_ref queue_last(stream *s, int device)
{
    s = resolve(s, device);
    return s->last && !s->last->done ? s->last : nullptr;
}

void queue_wait_stream(std::unique_lock<std::recursive_mutex> &lock, stream *s, int device)
{
    s = resolve(s, device);
    queue_wait(lock, s->last);
    std::vector<node_ref> others; /* waiting for the legacy stream waits for those it is behind */
    if (s == resolve(nullptr, device))
        add_legacy_order(others, s);
    for (const node_ref &n : others)
        queue_wait(lock, n);
}

void queue_wait_device(std::unique_lock<std::recursive_mutex> &lock, int device)
{
    queue_wait(lock, resolve(nullptr, device)->last);
    for (size_t i = 0; i < m.streams.size(); i++)
        if (m.streams[i]->device == device)
            queue_wait(lock, m.streams[i]->last);
}

bool queue_poll(const node_ref &n)
{
    if (n && !n->done && !m.running) {
        const auto first = [](const node_ref &from) { /* the deepest thing not done on the way */
                                                      node_ref at = from;
                                                      for (bool deeper = true; deeper;) {
                                                          deeper = false;
                                                          for (const node_ref &need : at->needs)
                                                              if (!need->done) {
                                                                  at = need;
                                                                  deeper = true;
                                                                  break;
                                                              }
                                                      }
                                                      return at;
        };
        run_needed(first(n));
        return false; /* what was not done when asked is not done */
    }
    return !n || n->done;
}

stream *stream_create(int device, bool blocking)
{
    m.streams.push_back(std::make_unique<stream>());
    stream *s = m.streams.back().get();
    s->device = device;
    s->blocking = blocking;
    return s;
}

void stream_destroy(stream *s)
{
    s->destroyed = true; /* kept: its work goes on, and a later use of the handle is reported */
}

} // namespace cuemu
