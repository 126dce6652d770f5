/* The bodies of libcudart that the project calls, with NVIDIA's own prototypes. */
#include "cuemu/runtime.h"

#include "cuemu/block.h"
#include "cuemu/memory.h"
#include "cuemu/shared.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string>

struct CUevent_st {
    int device;
    bool timing, recorded;
    cuemu::node_ref node; /* of the last record */
};

namespace cuemu
{

static thread_local int device_now;
static thread_local cudaError_t last_error;
static cudaError_t sticky_error;
static auto &handles = *new std::set<const void *>; /* live streams and events */
static auto &allowed_shared = *new std::map<const void *, size_t>;
static auto &calls = *new std::map<std::string, unsigned long>;

constexpr size_t SHARED_DEFAULT = 48 << 10, SHARED_MAX = 227 << 10;

static long number(const char *name, long fallback)
{
    const char *text = getenv(name);
    return text ? strtol(text, nullptr, 10) : fallback;
}

static int device_count()
{
    return static_cast<int>(number("CUEMU_DEVICES", 1));
}

int current_device()
{
    return device_now;
}

bool told_to_fail(const char *name)
{
    const char *text = getenv("CUEMU_FAIL");
    if (!text)
        return false;
    const size_t length = strlen(name);
    if (strncmp(text, name, length) != 0 || text[length] != ':')
        return false;
    return ++calls[name] == strtoul(text + length + 1, nullptr, 10);
}

void set_sticky(cudaError_t error)
{
    if (sticky_error == cudaSuccess)
        sticky_error = error;
}

cudaError_t sticky()
{
    return sticky_error;
}

bool stream_of(cudaStream_t handle, stream **s_out)
{
    if (!handle || handle == cudaStreamLegacy) {
        *s_out = nullptr;
        return true;
    }
    *s_out = reinterpret_cast<stream *>(handle);
    return handles.count(handle) > 0;
}

static cudaError_t fail(cudaError_t error)
{
    if (error != cudaSuccess && error != cudaErrorNotReady)
        last_error = error;
    return error;
}

/* What every call checks first. Injected faults: memory calls say out of memory; others leave the
 * context broken. */
static cudaError_t enter(const char *name)
{
    if (number("CUEMU_DRIVER", CUDART_VERSION) / 1000 < CUDART_VERSION / 1000)
        return cudaErrorInsufficientDriver;
    if (device_count() == 0)
        return cudaErrorNoDevice;
    if (queue_running())
        return cudaErrorNotPermitted;
    if (sticky_error != cudaSuccess)
        return sticky_error;
    if (!told_to_fail(name))
        return cudaSuccess;
    if (strstr(name, "Malloc") || strstr(name, "HostAlloc"))
        return cudaErrorMemoryAllocation;
    set_sticky(cudaErrorIllegalAddress);
    return sticky_error;
}

#define ENTER()                                                                                    \
    auto lock = cuemu::runtime_lock();                                                             \
    if (const cudaError_t entered = cuemu::enter(__func__))                                        \
    return cuemu::fail(entered)

#define REQUIRE(condition, error)                                                                  \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return cuemu::fail(error);                                                             \
    } while (0)

#define STREAM(handle)                                                                             \
    cuemu::stream *s;                                                                              \
    REQUIRE(cuemu::stream_of(handle, &s), cudaErrorInvalidResourceHandle)

/* What a wait returns: the node's faults have become sticky meanwhile. */
static cudaError_t waited()
{
    return fail(sticky_error);
}

/* -- kernels ----------------------------------------------------------------------------------- */

static cudaError_t check_launch(const void *kernel, const dim3 &grid, const dim3 &block,
                                size_t shared)
{
    const uint64_t threads = uint64_t{block.x} * block.y * block.z;
    if (threads == 0 || threads > 1024 || block.x > 1024 || block.y > 1024 || block.z > 64)
        return cudaErrorInvalidConfiguration;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 ||
        grid.z > 65535)
        return cudaErrorInvalidConfiguration;
    const auto opted = allowed_shared.find(kernel);
    const size_t fixed = kernel_find(kernel).static_bytes;
    if (fixed > SHARED_DEFAULT)
        return cudaErrorInvalidValue; /* nvcc would not have compiled it */
    if (shared > (opted == allowed_shared.end() ? SHARED_DEFAULT - fixed : opted->second))
        return cudaErrorInvalidValue;
    return cudaSuccess;
}

cudaError_t launch(const void *kernel, dim3 grid, dim3 block, size_t shared, cudaStream_t handle,
                   std::function<void()> body)
{
    auto lock = runtime_lock();
    if (const cudaError_t entered = enter("launch"))
        return fail(entered);
    STREAM(handle);
    REQUIRE(!s || s->device == device_now, cudaErrorInvalidResourceHandle);
    const cudaError_t checked = check_launch(kernel, grid, block, shared);
    REQUIRE(checked == cudaSuccess, checked);
    memory_watch();
    queue_add(s, device_now, kernel_find(kernel).name, {}, [=] {
        const grid_params params = {kernel, grid, block, shared};
        run_grid(params, body);
        return true;
    });
    return cudaSuccess;
}

/* -- copies ------------------------------------------------------------------------------------ */

static bool fits(cudaMemcpyKind kind, place to, place from)
{
    const bool to_device = to == place::device, from_device = from == place::device;
    switch (kind) {
    case cudaMemcpyHostToHost:
        return !to_device && !from_device;
    case cudaMemcpyHostToDevice:
        return to_device && !from_device;
    case cudaMemcpyDeviceToHost:
        return !to_device && from_device;
    case cudaMemcpyDeviceToDevice:
        return to_device && from_device;
    case cudaMemcpyDefault:
        return true;
    }
    return false;
}

struct rectangle {
    char *to;
    const char *from;
    size_t to_pitch, from_pitch, width, rows;
};

static void copy_rows(const rectangle &r)
{
    for (size_t i = 0; i < r.rows; i++)
        memmove(r.to + i * r.to_pitch, r.from + i * r.from_pitch, r.width);
}

/* Pageable sources are read before the call returns; copies into pageable memory are finished. */
static cudaError_t copy(std::unique_lock<std::recursive_mutex> &lock, rectangle r,
                        cudaMemcpyKind kind, stream *s, bool wait)
{
    if (r.width == 0 || r.rows == 0)
        return cudaSuccess;
    const place to = memory_find(r.to).where, from = memory_find(r.from).where;
    REQUIRE(fits(kind, to, from), cudaErrorInvalidValue);
    memory_check("copy to", r.to, (r.rows - 1) * r.to_pitch + r.width);
    memory_check("copy from", r.from, (r.rows - 1) * r.from_pitch + r.width);
    std::shared_ptr<std::vector<char>> staged;
    if (from == place::pageable && to == place::device && !wait) {
        staged = std::make_shared<std::vector<char>>(r.width * r.rows);
        copy_rows({staged->data(), r.from, r.width, r.from_pitch, r.width, r.rows});
        r.from = staged->data();
        r.from_pitch = r.width;
    }
    const node_ref n = queue_add(s, device_now, "a copy", {}, [r, staged] {
        copy_rows(r);
        return true;
    });
    if (wait || to == place::pageable)
        queue_wait(lock, n);
    return waited();
}

static cudaError_t set_bytes(std::unique_lock<std::recursive_mutex> &lock, void *at, int value,
                             size_t bytes, stream *s, bool wait)
{
    REQUIRE(memory_find(at).where != place::pageable || bytes == 0, cudaErrorInvalidValue);
    memory_check("set of", at, bytes);
    const node_ref n = queue_add(s, device_now, "a set", {}, [=] {
        memset(at, value, bytes);
        return true;
    });
    if (wait)
        queue_wait(lock, n);
    return waited();
}

} // namespace cuemu

using namespace cuemu;

extern "C" {

/* -- devices ----------------------------------------------------------------------------------- */

cudaError_t cudaGetDeviceCount(int *count)
{
    auto lock = runtime_lock();
    *count = 0;
    const cudaError_t entered = enter(__func__);
    REQUIRE(entered == cudaSuccess, entered);
    *count = device_count();
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    ENTER();
    REQUIRE(device >= 0 && device < device_count(), cudaErrorInvalidDevice);
    device_now = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    ENTER();
    *device = device_now;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
    ENTER();
    REQUIRE(device >= 0 && device < device_count(), cudaErrorInvalidDevice);
    size_t free_bytes;
    *p = {};
    snprintf(p->name, sizeof p->name, "cuemu %d", device);
    memory_info(device, &free_bytes, &p->totalGlobalMem);
    p->major = static_cast<int>(number("CUEMU_SM", 80)) / 10;
    p->minor = static_cast<int>(number("CUEMU_SM", 80)) % 10;
    p->sharedMemPerBlock = SHARED_DEFAULT;
    p->sharedMemPerBlockOptin = p->sharedMemPerMultiprocessor = SHARED_MAX;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->warpSize = warpSize;
    p->maxThreadsPerBlock = p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 0x7fffffff;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->multiProcessorCount = 1;
    p->maxThreadsPerMultiProcessor = 2048;
    p->asyncEngineCount = 2;
    p->unifiedAddressing = p->concurrentKernels = p->canMapHostMemory = 1;
    p->pciBusID = device + 1;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    struct cudaDeviceProp p;
    const cudaError_t got = cudaGetDeviceProperties(&p, device);
    if (got != cudaSuccess)
        return got;
    switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
        *value = p.major;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
        *value = p.minor;
        return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
        *value = p.multiProcessorCount;
        return cudaSuccess;
    case cudaDevAttrMaxThreadsPerBlock:
        *value = p.maxThreadsPerBlock;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = static_cast<int>(p.sharedMemPerBlock);
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = static_cast<int>(p.sharedMemPerBlockOptin);
        return cudaSuccess;
    case cudaDevAttrWarpSize:
        *value = p.warpSize;
        return cudaSuccess;
    default:
        return cuemu::fail(cudaErrorNotSupported);
    }
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = device_count() == 0 ? 0 : static_cast<int>(number("CUEMU_DRIVER", CUDART_VERSION));
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    ENTER();
    queue_wait_device(lock, device_now);
    return cuemu::waited();
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer)
{
    ENTER();
    REQUIRE(device >= 0 && device < device_count() && peer >= 0 && peer < device_count(),
            cudaErrorInvalidDevice);
    *can = device != peer;
    return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned)
{
    ENTER();
    REQUIRE(peer >= 0 && peer < device_count() && peer != device_now, cudaErrorInvalidDevice);
    return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    ENTER();
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

/* -- errors ------------------------------------------------------------------------------------ */

cudaError_t cudaGetLastError(void)
{
    const cudaError_t error = last_error;
    last_error = sticky_error;
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}

// clang-format off
#define ERRORS(X)                                                                                  \
    X(cudaSuccess, "no error")                                                                     \
    X(cudaErrorInvalidValue, "invalid argument")                                                   \
    X(cudaErrorMemoryAllocation, "out of memory")                                                  \
    X(cudaErrorInvalidConfiguration, "invalid configuration argument")                             \
    X(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version") \
    X(cudaErrorNoDevice, "no CUDA-capable device is detected")                                     \
    X(cudaErrorInvalidDevice, "invalid device ordinal")                                            \
    X(cudaErrorInvalidResourceHandle, "invalid resource handle")                                   \
    X(cudaErrorNotReady, "device not ready")                                                       \
    X(cudaErrorIllegalAddress, "an illegal memory access was encountered")                         \
    X(cudaErrorNotPermitted, "operation not permitted")                                            \
    X(cudaErrorNotSupported, "operation not supported")                                            \
    X(cudaErrorHostMemoryAlreadyRegistered, "part or all of the requested memory range is already mapped") \
    X(cudaErrorHostMemoryNotRegistered, "pointer does not correspond to a registered memory region") \
    X(cudaErrorUnknown, "unknown error")
// clang-format on

const char *cudaGetErrorName(cudaError_t error)
{
    switch (error) {
#define NAME(code, text)                                                                           \
    case code:                                                                                     \
        return #code;
        ERRORS(NAME)
#undef NAME
    default:
        return "unrecognized error code";
    }
}

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
#define TEXT(code, text)                                                                           \
    case code:                                                                                     \
        return text;
        ERRORS(TEXT)
#undef TEXT
    default:
        return "unrecognized error code";
    }
}

/* -- memory ------------------------------------------------------------------------------------ */

cudaError_t cudaMalloc(void **at, size_t bytes)
{
    ENTER();
    *at = nullptr;
    if (bytes == 0)
        return cudaSuccess;
    void *got = memory_allocate(device_now, bytes);
    REQUIRE(got, cudaErrorMemoryAllocation);
    *at = got;
    return cudaSuccess;
}

cudaError_t cudaFree(void *at)
{
    ENTER();
    if (!at)
        return cudaSuccess;
    const block_info block = memory_find(at);
    REQUIRE(block.where == place::device && block.base == at, cudaErrorInvalidValue);
    queue_wait_device(lock, block.device);
    memory_free(at, place::device);
    return cuemu::waited();
}

cudaError_t cudaHostAlloc(void **at, size_t bytes, unsigned)
{
    ENTER();
    *at = nullptr;
    if (bytes == 0)
        return cudaSuccess;
    void *got = memory_allocate_pinned(bytes);
    REQUIRE(got, cudaErrorMemoryAllocation);
    *at = got;
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **at, size_t bytes)
{
    ENTER();
    return cudaHostAlloc(at, bytes, 0);
}

cudaError_t cudaFreeHost(void *at)
{
    ENTER();
    if (!at)
        return cudaSuccess;
    for (int device = 0; device < device_count(); device++)
        queue_wait_device(lock, device);
    REQUIRE(memory_free(at, place::pinned), cudaErrorInvalidValue);
    return cuemu::waited();
}

cudaError_t cudaHostRegister(void *at, size_t bytes, unsigned)
{
    ENTER();
    REQUIRE(at && bytes > 0, cudaErrorInvalidValue);
    REQUIRE(memory_register(at, bytes), cudaErrorHostMemoryAlreadyRegistered);
    return cudaSuccess;
}

cudaError_t cudaHostUnregister(void *at)
{
    ENTER();
    REQUIRE(memory_unregister(at), cudaErrorHostMemoryNotRegistered);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    ENTER();
    memory_info(device_now, free_bytes, total_bytes);
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *at)
{
    ENTER();
    const block_info block = memory_find(at);
    *attributes = {};
    attributes->type = block.where == place::device   ? cudaMemoryTypeDevice
                       : block.where == place::pinned ? cudaMemoryTypeHost
                                                      : cudaMemoryTypeUnregistered;
    attributes->device = block.device < 0 ? 0 : block.device;
    attributes->devicePointer = block.where == place::pageable ? nullptr : const_cast<void *>(at);
    attributes->hostPointer = block.where == place::device ? nullptr : const_cast<void *>(at);
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    ENTER();
    return cuemu::copy(
        lock, {static_cast<char *>(to), static_cast<const char *>(from), bytes, bytes, bytes, 1},
        kind, nullptr, true);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    ENTER();
    STREAM(stream);
    return cuemu::copy(
        lock, {static_cast<char *>(to), static_cast<const char *>(from), bytes, bytes, bytes, 1},
        kind, s, false);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t stream)
{
    ENTER();
    STREAM(stream);
    REQUIRE(width <= to_pitch && width <= from_pitch, cudaErrorInvalidValue);
    return cuemu::copy(lock,
                       {static_cast<char *>(to), static_cast<const char *>(from), to_pitch,
                        from_pitch, width, height},
                       kind, s, false);
}

cudaError_t cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device,
                                size_t bytes, cudaStream_t stream)
{
    ENTER();
    STREAM(stream);
    REQUIRE(memory_find(to).device == to_device && memory_find(from).device == from_device,
            cudaErrorInvalidValue);
    return cuemu::copy(
        lock, {static_cast<char *>(to), static_cast<const char *>(from), bytes, bytes, bytes, 1},
        cudaMemcpyDeviceToDevice, s, false);
}

cudaError_t cudaMemset(void *at, int value, size_t bytes)
{
    ENTER();
    return cuemu::set_bytes(lock, at, value, bytes, nullptr, false);
}

cudaError_t cudaMemsetAsync(void *at, int value, size_t bytes, cudaStream_t stream)
{
    ENTER();
    STREAM(stream);
    return cuemu::set_bytes(lock, at, value, bytes, s, false);
}

/* -- streams and events ------------------------------------------------------------------------ */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    ENTER();
    *stream =
        reinterpret_cast<cudaStream_t>(stream_create(device_now, !(flags & cudaStreamNonBlocking)));
    handles.insert(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int)
{
    return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    ENTER();
    STREAM(stream);
    REQUIRE(s, cudaErrorInvalidResourceHandle);
    stream_destroy(s);
    handles.erase(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    ENTER();
    STREAM(stream);
    queue_wait_stream(lock, s, device_now);
    return cuemu::waited();
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    ENTER();
    STREAM(stream);
    return queue_poll(queue_last(s, device_now)) ? cuemu::waited() : cudaErrorNotReady;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    ENTER();
    *event = new CUevent_st{device_now, !(flags & cudaEventDisableTiming), false, nullptr};
    handles.insert(*event);
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    ENTER();
    REQUIRE(handles.erase(event) > 0, cudaErrorInvalidResourceHandle);
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    ENTER();
    STREAM(stream);
    REQUIRE(handles.count(event) > 0, cudaErrorInvalidResourceHandle);
    REQUIRE(event->device == (s ? s->device : device_now), cudaErrorInvalidResourceHandle);
    event->recorded = true;
    event->node = queue_add(s, device_now, "an event", {}, nullptr);
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    ENTER();
    STREAM(stream);
    REQUIRE(handles.count(event) > 0, cudaErrorInvalidResourceHandle);
    if (event->node && !event->node->done)
        queue_add(s, device_now, "a wait for an event", {event->node}, nullptr);
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    ENTER();
    REQUIRE(handles.count(event) > 0, cudaErrorInvalidResourceHandle);
    queue_wait(lock, event->node);
    return cuemu::waited();
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    ENTER();
    REQUIRE(handles.count(event) > 0, cudaErrorInvalidResourceHandle);
    return queue_poll(event->node) ? cuemu::waited() : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    ENTER();
    REQUIRE(handles.count(from) > 0 && handles.count(to) > 0, cudaErrorInvalidResourceHandle);
    REQUIRE(from->timing && to->timing && from->recorded && to->recorded,
            cudaErrorInvalidResourceHandle);
    if (!from->node->done || !to->node->done)
        return cudaErrorNotReady;
    *ms = static_cast<float>(to->node->done_ms - from->node->done_ms);
    return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *context)
{
    ENTER();
    STREAM(stream);
    queue_add(s, device_now, "a host function", {}, [=] {
        memory_close(); /* the host may not touch device memory */
        function(context);
        memory_open();
        return true;
    });
    return cudaSuccess;
}

/* -- kernels ----------------------------------------------------------------------------------- */

cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attribute, int value)
{
    ENTER();
    REQUIRE(value >= 0, cudaErrorInvalidValue);
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout)
        return cudaSuccess; /* a hint */
    REQUIRE(attribute == cudaFuncAttributeMaxDynamicSharedMemorySize, cudaErrorNotSupported);
    const size_t fixed = kernel_find(kernel).static_bytes;
    REQUIRE(static_cast<size_t>(value) + fixed <= SHARED_MAX, cudaErrorInvalidValue);
    allowed_shared[kernel] = std::max(static_cast<size_t>(value), SHARED_DEFAULT - fixed);
    return cudaSuccess;
}

} // extern "C"
