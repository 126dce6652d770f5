/* Streams as a queue machine. Every piece of device work is a node; a node runs after the nodes it
 * depends on. Nothing runs by itself: CUEMU_WHEN says when work is done,
 *   lazy    (default) when someone waits for it, and then only what that wait needs;
 *   eager   as soon as it is queued;
 *   SEED    some at each queueing and before each wait, in a random order that dependencies allow.
 * One lock guards everything; whoever waits runs the work on his own OS thread. */
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace cuemu
{

struct stream;
struct node;
using node_ref = std::shared_ptr<node>;

struct node {
    const char *what;            /* for reports */
    int device;                  /* whose memory it may touch */
    std::vector<node_ref> needs; /* emptied when done */
    /* Gives nodes that must be done too, known only later: peers of collectives. May be empty. */
    std::function<std::vector<node_ref>()> needs_more;
    /* True when the work is done; false: a peer has yet to queue its part. */
    std::function<bool()> run;
    bool done;
    double done_ms; /* since the program began; what events tell */
};

struct stream {
    int device;
    bool blocking; /* ordered with the legacy stream */
    bool destroyed;
    node_ref last;
};

/* The lock of the whole runtime; recursive, since host functions may call it. */
std::unique_lock<std::recursive_mutex> runtime_lock();

/* Queues work behind everything the stream holds; NULL is the legacy stream of `device`. */
node_ref queue_add(stream *s, int device, const char *what, std::vector<node_ref> needs,
                   std::function<bool()> run,
                   std::function<std::vector<node_ref>()> needs_more = nullptr);
/* Runs what is needed until the node is done; waits for other OS threads where a peer is missing.
 */
void queue_wait(std::unique_lock<std::recursive_mutex> &lock, const node_ref &n);
void queue_wait_stream(std::unique_lock<std::recursive_mutex> &lock, stream *s, int device);
void queue_wait_device(std::unique_lock<std::recursive_mutex> &lock, int device);
/* As seen by a query: a lazy machine does a little each time it is asked, so that polling ends. */
bool queue_poll(const node_ref &n);
/* The node behind which everything so far in the stream lies; NULL when it is idle. */
node_ref queue_last(stream *s, int device);
/* True inside an operation: a host function may not call the runtime. */
bool queue_running();
/* Tells waiting OS threads that something changed. */
void queue_notify();

stream *stream_create(int device, bool blocking);
void stream_destroy(stream *s);

} // namespace cuemu
