/* The bodies of NCCL that the project calls. A collective is a node on each rank's stream; the node
 * that finds all its peers ready moves the data of all. So one thread may drive every rank, or each
 * rank may be a thread. Sums are f32 in rank order. Joining a communicator does not wait for the
 * others, unlike there. */
#include "cuemu/block.h"
#include "cuemu/memory.h"
#include "cuemu/runtime.h"

#include <cstring>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <map>
#include <nccl.h>

namespace cuemu
{

enum class collective_kind { all_reduce, all_gather, reduce_scatter, broadcast };

/* What must be the same on all ranks. */
struct agreement {
    collective_kind kind;
    size_t count;
    ncclDataType_t type;
    ncclRedOp_t operation;
    int root;
    bool operator==(const agreement &o) const
    {
        return kind == o.kind && count == o.count && type == o.type && operation == o.operation &&
               root == o.root;
    }
};

struct part {
    bool joined, done;
    const char *from;
    char *to;
    node_ref at;
};

struct collective {
    agreement what;
    std::vector<part> parts; /* by rank */
};

struct transfer {
    bool sends, done;
    int peer;
    char *data;
    size_t bytes;
    node_ref at;
    std::weak_ptr<transfer> other; /* the other end, once it was called */
};
using transfer_ref = std::shared_ptr<transfer>;

struct clique {
    int ranks;
    bool aborted;
    std::map<uint64_t, std::shared_ptr<collective>>
        collectives; /* by their number, until all done */
    std::map<std::pair<int, int>, std::deque<transfer_ref>>
        open; /* by (from, to): one end called */
};

static auto &cliques = *new std::map<uint64_t, std::shared_ptr<clique>>;

} // namespace cuemu

struct ncclComm {
    std::shared_ptr<cuemu::clique> all;
    int rank, device;
    uint64_t called; /* collectives so far */
};

namespace cuemu
{

struct point_call {
    ncclComm_t comm;
    cudaStream_t stream;
    transfer_ref moved;
};
static thread_local int group_depth;
static thread_local std::vector<point_call> group_points;

static size_t width_of(ncclDataType_t type)
{
    switch (type) {
    case ncclInt8:
    case ncclUint8:
        return 1;
    case ncclFloat16:
    case ncclBfloat16:
        return 2;
    case ncclInt32:
    case ncclFloat32:
        return 4;
    default:
        return 0;
    }
}

/* -- arithmetic -------------------------------------------------------------------------------- */

static float load(const char *data, ncclDataType_t type, size_t i)
{
    switch (type) {
    case ncclFloat16:
        return __half2float(reinterpret_cast<const __half *>(data)[i]);
    case ncclBfloat16:
        return __bfloat162float(reinterpret_cast<const __nv_bfloat16 *>(data)[i]);
    default:
        return reinterpret_cast<const float *>(data)[i];
    }
}

static void store(char *data, ncclDataType_t type, size_t i, float value)
{
    switch (type) {
    case ncclFloat16:
        reinterpret_cast<__half *>(data)[i] = __float2half(value);
        break;
    case ncclBfloat16:
        reinterpret_cast<__nv_bfloat16 *>(data)[i] = __float2bfloat16(value);
        break;
    default:
        reinterpret_cast<float *>(data)[i] = value;
    }
}

/* Elements first … first + count of all ranks' sources joined, as bytes of the type. */
static std::vector<char> reduce(const collective &c, size_t first, size_t count)
{
    std::vector<char> out(count * width_of(c.what.type));
    for (size_t i = 0; i < count; i++) {
        float all = load(c.parts[0].from, c.what.type, first + i);
        for (size_t r = 1; r < c.parts.size(); r++) {
            const float x = load(c.parts[r].from, c.what.type, first + i);
            if (c.what.operation == ncclMax)
                all = x > all ? x : all;
            else if (c.what.operation == ncclMin)
                all = x < all ? x : all;
            else
                all += x;
        }
        if (c.what.operation == ncclAvg)
            all /= static_cast<float>(c.parts.size());
        store(out.data(), c.what.type, i, all);
    }
    return out;
}

/* Everything is read before anything is written: buffers may be in place. */
static void carry_out(collective &c)
{
    const size_t ranks = c.parts.size(), count = c.what.count;
    const size_t bytes = count * width_of(c.what.type);
    std::vector<char> all;
    switch (c.what.kind) {
    case collective_kind::all_reduce:
        all = reduce(c, 0, count);
        break;
    case collective_kind::reduce_scatter:
        all = reduce(c, 0, count * ranks);
        break;
    case collective_kind::all_gather:
        for (const part &p : c.parts)
            all.insert(all.end(), p.from, p.from + bytes);
        break;
    case collective_kind::broadcast:
        all.assign(c.parts[c.what.root].from, c.parts[c.what.root].from + bytes);
        break;
    }
    const bool scattered = c.what.kind == collective_kind::reduce_scatter;
    for (size_t r = 0; r < ranks; r++) {
        memcpy(c.parts[r].to, all.data() + (scattered ? r * bytes : 0),
               scattered ? bytes : all.size());
        c.parts[r].done = true;
    }
}

/* -- nodes ------------------------------------------------------------------------------------- */

static bool is_ready(const node_ref &n)
{
    if (!n)
        return false;
    for (const node_ref &need : n->needs)
        if (!need->done)
            return false;
    return true;
}

static void append_needs(std::vector<node_ref> &list, const node_ref &n)
{
    if (n)
        list.insert(list.end(), n->needs.begin(), n->needs.end());
}

static bool run_collective(const clique &all, collective &c, int rank)
{
    if (c.parts[rank].done || all.aborted)
        return true;
    for (int r = 0; r < all.ranks; r++)
        if (!c.parts[r].joined || (r != rank && !is_ready(c.parts[r].at)))
            return false;
    carry_out(c);
    return true;
}

static ncclResult_t check_call(ncclComm_t comm, stream **s, cudaStream_t handle)
{
    if (!comm || !stream_of(handle, s) || (*s && (*s)->device != comm->device))
        return ncclInvalidArgument;
    if (comm->all->aborted)
        return ncclInvalidUsage;
    if (sticky() != cudaSuccess || told_to_fail("nccl"))
        return ncclUnhandledCudaError;
    return ncclSuccess;
}

static bool check_buffer(const char *what, const void *at, size_t bytes, int device)
{
    const block_info block = memory_find(at);
    if (bytes > 0 && (block.where != place::device || block.device != device))
        return false;
    memory_check(what, at, bytes);
    return true;
}

static ncclResult_t call(ncclComm_t comm, cudaStream_t handle, const agreement &what,
                         const void *from, size_t from_count, void *to, size_t to_count)
{
    auto lock = runtime_lock();
    stream *s;
    if (const ncclResult_t wrong = check_call(comm, &s, handle))
        return wrong;
    const bool reduces =
        what.kind == collective_kind::all_reduce || what.kind == collective_kind::reduce_scatter;
    const size_t width = width_of(what.type);
    const bool is_float = width > 1 && what.type != ncclInt32;
    if (width == 0 || (reduces && !is_float) || what.root < 0 || what.root >= comm->all->ranks ||
        !check_buffer("NCCL reads", from, from_count * width, comm->device) ||
        !check_buffer("NCCL writes", to, to_count * width, comm->device))
        return ncclInvalidArgument;
    const uint64_t number = comm->called++;
    std::shared_ptr<collective> &held = comm->all->collectives[number];
    if (!held)
        held = std::make_shared<collective>(collective{what, std::vector<part>(comm->all->ranks)});
    const std::shared_ptr<collective> c = held;
    if (!(c->what == what))
        fault("NCCL: rank %d calls something else as number %llu than the ranks before", comm->rank,
              static_cast<unsigned long long>(number));
    const int rank = comm->rank;
    const std::shared_ptr<clique> all = comm->all;
    c->parts[rank] = {true, false, static_cast<const char *>(from), static_cast<char *>(to),
                      nullptr};
    c->parts[rank].at = queue_add(
        s, comm->device, "a collective of NCCL", {},
        [all, c, rank] { return run_collective(*all, *c, rank); },
        [c] {
            std::vector<node_ref> needs;
            for (const part &p : c->parts)
                append_needs(needs, p.at);
            return needs;
        });
    bool complete = true;
    for (const part &p : c->parts)
        complete = complete && p.joined;
    if (complete)
        all->collectives.erase(number); /* the nodes hold it */
    return ncclSuccess;
}

/* -- point to point ---------------------------------------------------------------------------- */

static bool run_transfers(const clique &all, const std::vector<transfer_ref> &own)
{
    bool done = true;
    for (const transfer_ref &t : own) {
        const transfer_ref other = t->other.lock();
        if (!t->done && other && is_ready(other->at)) {
            memcpy(t->sends ? other->data : t->data, t->sends ? t->data : other->data, t->bytes);
            t->done = other->done = true;
        }
        done = done && t->done;
    }
    return done || all.aborted;
}

/* The n-th send from one rank to another meets the n-th receive there. */
static void match(clique &all, int rank, const transfer_ref &t)
{
    std::deque<transfer_ref> &open =
        all.open[t->sends ? std::make_pair(rank, t->peer) : std::make_pair(t->peer, rank)];
    if (open.empty() || open.front()->sends == t->sends) {
        open.push_back(t);
        return;
    }
    const transfer_ref other = open.front();
    open.pop_front();
    if (other->bytes != t->bytes)
        fault("NCCL: ranks %d and %d exchange %zu and %zu bytes", rank, t->peer, t->bytes,
              other->bytes);
    t->other = other;
    other->other = t;
}

/* All transfers that one rank has on one stream go on side by side. */
static void queue_transfers(ncclComm_t comm, cudaStream_t handle,
                            const std::vector<transfer_ref> &own)
{
    stream *s = nullptr;
    stream_of(handle, &s);
    const std::shared_ptr<clique> all = comm->all;
    for (const transfer_ref &t : own)
        match(*all, comm->rank, t);
    const node_ref n = queue_add(
        s, comm->device, "a send or receive of NCCL", {},
        [all, own] { return run_transfers(*all, own); },
        [own] {
            std::vector<node_ref> needs;
            for (const transfer_ref &t : own)
                if (const transfer_ref other = t->other.lock())
                    append_needs(needs, other->at);
            return needs;
        });
    for (const transfer_ref &t : own)
        t->at = n;
}

static ncclResult_t point(ncclComm_t comm, cudaStream_t handle, bool sends, int peer, void *data,
                          size_t count, ncclDataType_t type)
{
    auto lock = runtime_lock();
    stream *s;
    if (const ncclResult_t wrong = check_call(comm, &s, handle))
        return wrong;
    const size_t bytes = count * width_of(type);
    if (width_of(type) == 0 || peer < 0 || peer >= comm->all->ranks ||
        !check_buffer(sends ? "NCCL sends" : "NCCL receives", data, bytes, comm->device))
        return ncclInvalidArgument;
    const transfer_ref t = std::make_shared<transfer>();
    t->sends = sends;
    t->peer = peer;
    t->data = static_cast<char *>(data);
    t->bytes = bytes;
    if (group_depth > 0)
        group_points.push_back({comm, handle, t});
    else
        queue_transfers(comm, handle, {t});
    return ncclSuccess;
}

static ncclComm_t join(uint64_t id, int ranks, int rank, int device)
{
    std::shared_ptr<clique> &all = cliques[id];
    if (!all) {
        all = std::make_shared<clique>();
        all->ranks = ranks;
    }
    return new ncclComm{all, rank, device, 0};
}

} // namespace cuemu

using namespace cuemu;

extern "C" {

ncclResult_t ncclGetVersion(int *version)
{
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    auto lock = runtime_lock();
    static uint64_t next;
    memset(id, 0, sizeof *id);
    memcpy(id, &++next, sizeof next);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank)
{
    auto lock = runtime_lock();
    uint64_t number;
    memcpy(&number, &id, sizeof number);
    if (ranks < 1 || rank < 0 || rank >= ranks || number == 0)
        return ncclInvalidArgument;
    if (sticky() != cudaSuccess || told_to_fail("ncclCommInitRank"))
        return ncclUnhandledCudaError;
    *comm = join(number, ranks, rank, current_device());
    return (*comm)->all->ranks == ranks ? ncclSuccess : ncclInvalidArgument;
}

ncclResult_t ncclCommInitAll(ncclComm_t *comms, int count, const int *devices)
{
    ncclUniqueId id;
    ncclGetUniqueId(&id);
    auto lock = runtime_lock();
    uint64_t number;
    memcpy(&number, &id, sizeof number);
    for (int i = 0; i < count; i++)
        comms[i] = join(number, count, i, devices ? devices[i] : i);
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t)
{
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    auto lock = runtime_lock();
    delete comm;
    return ncclSuccess;
}

/* What waits for a peer ends, on all ranks; results are undefined. */
ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    auto lock = runtime_lock();
    comm->all->aborted = true;
    queue_notify();
    delete comm;
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error)
{
    auto lock = runtime_lock();
    *error = comm->all->aborted ? ncclRemoteError : ncclSuccess;
    return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int *count)
{
    *count = comm->all->ranks;
    return ncclSuccess;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank)
{
    *rank = comm->rank;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    static const char *const texts[] = {
        "no error",         "unhandled cuda error", "unhandled system error", "internal error",
        "invalid argument", "invalid usage",        "remote process exited",  "in progress",
    };
    return static_cast<size_t>(result) < sizeof texts / sizeof *texts ? texts[result]
                                                                      : "unknown result code";
}

const char *ncclGetLastError(ncclComm_t)
{
    return "";
}

ncclResult_t ncclGroupStart(void)
{
    group_depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    auto lock = runtime_lock();
    if (group_depth == 0)
        return ncclInvalidUsage;
    if (--group_depth > 0)
        return ncclSuccess;
    while (!group_points.empty()) {
        const point_call first = group_points.front();
        std::vector<transfer_ref> own;
        std::vector<point_call> rest;
        for (const point_call &p : group_points)
            if (p.comm == first.comm && p.stream == first.stream)
                own.push_back(p.moved);
            else
                rest.push_back(p);
        group_points = rest;
        queue_transfers(first.comm, first.stream, own);
    }
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclRedOp_t operation, ncclComm_t comm, cudaStream_t stream)
{
    return call(comm, stream, {collective_kind::all_reduce, count, type, operation, 0}, from, count,
                to, count);
}

ncclResult_t ncclReduceScatter(const void *from, void *to, size_t count, ncclDataType_t type,
                               ncclRedOp_t operation, ncclComm_t comm, cudaStream_t stream)
{
    return call(comm, stream, {collective_kind::reduce_scatter, count, type, operation, 0}, from,
                comm ? count * comm->all->ranks : 0, to, count);
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream)
{
    return call(comm, stream, {collective_kind::all_gather, count, type, ncclSum, 0}, from, count,
                to, comm ? count * comm->all->ranks : 0);
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream)
{
    const bool is_root = comm && comm->rank == root;
    return call(comm, stream, {collective_kind::broadcast, count, type, ncclSum, root}, from,
                is_root ? count : 0, to, count);
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream)
{
    return point(comm, stream, true, peer, const_cast<void *>(from), count, type);
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    return point(comm, stream, false, peer, to, count, type);
}

} // extern "C"
