#include "cuemu/memory.h"

#include "cuemu/block.h"

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sys/mman.h>
#include <unistd.h>

namespace cuemu
{

void say_context(); /* block.cpp */

struct allocation {
    place where;
    int device;
    size_t bytes;
    void *map; /* with the guard page behind; NULL: heap, or registered */
    size_t map_bytes;
};

static auto &blocks = *new std::map<uintptr_t, allocation>; /* by address; never destroyed */
static size_t used[64];
constexpr size_t ALIGNMENT = 256; /* what cudaMalloc promises */

#ifdef CUEMU_ASAN
constexpr bool ON_HEAP = true;
#else
constexpr bool ON_HEAP = false;
#endif

static bool option(const char *name)
{
    const char *text = getenv(name);
    return text && strcmp(text, "0") != 0;
}

static bool protecting()
{
    return !ON_HEAP && option("CUEMU_PROTECT");
}

static size_t capacity_bytes()
{
    const char *text = getenv("CUEMU_MEM_MB");
    return (text ? strtoull(text, nullptr, 10) : 4096) << 20;
}

static size_t page_bytes()
{
    static const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    return page;
}

/* -- reports ----------------------------------------------------------------------------------- */

static bool operation_runs;

static void on_segv(int signal, siginfo_t *info, void *)
{
    const uintptr_t at = reinterpret_cast<uintptr_t>(info->si_addr);
    const char *what = "an address that is nobody's, or misaligned";
    for (const auto &[base, a] : blocks) {
        if (!a.map || a.where != place::device)
            continue;
        if (at >= base && at < base + a.bytes)
            what = operation_runs ? "device memory" : "device memory, touched by the host";
        else if (at >= base + a.bytes && at < reinterpret_cast<uintptr_t>(a.map) + a.map_bytes)
            what = "the guard page behind an allocation";
    }
    fprintf(stderr, "cuemu: invalid access at %p: %s\n", info->si_addr, what);
    say_context();
    struct sigaction by_default = {};
    by_default.sa_handler = SIG_DFL;
    sigaction(signal, &by_default, nullptr); /* the instruction runs again, and ends us */
}

static void report_leaks()
{
    size_t count = 0, bytes = 0;
    for (const auto &[base, a] : blocks)
        if (a.where == place::device || a.map) {
            count++;
            bytes += a.bytes;
        }
    if (count == 0)
        return;
    fprintf(stderr, "cuemu: %zu allocations of %zu bytes were never freed\n", count, bytes);
    _exit(70);
}

void memory_watch()
{
    static bool once;
    if (once)
        return;
    once = true;
    if (option("CUEMU_LEAKS"))
        atexit(report_leaks);
    if (ON_HEAP)
        return;
    static char alternate[64 << 10];
    stack_t stack = {};
    stack.ss_sp = alternate;
    stack.ss_size = sizeof alternate;
    sigaltstack(&stack, nullptr);
    struct sigaction action = {};
    action.sa_sigaction = on_segv;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, nullptr);
}

/* -- allocations ------------------------------------------------------------------------------- */

static void *map_block(size_t bytes, allocation &a)
{
    const size_t page = page_bytes(), body = (bytes + ALIGNMENT + page - 1) / page * page;
    a.map_bytes = body + page;
    a.map = mmap(nullptr, a.map_bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (a.map == MAP_FAILED)
        return nullptr;
    const uintptr_t end = reinterpret_cast<uintptr_t>(a.map) + body;
    mprotect(reinterpret_cast<void *>(end), page, PROT_NONE);
    return reinterpret_cast<void *>((end - bytes) & ~(ALIGNMENT - 1));
}

static void *allocate(place where, int device, size_t bytes)
{
    allocation a = {where, device, bytes, nullptr, 0};
    void *at = nullptr;
    if (ON_HEAP) {
        if (posix_memalign(&at, ALIGNMENT, bytes) != 0)
            return nullptr;
    } else {
        at = map_block(bytes, a);
        if (!at)
            return nullptr;
        const uintptr_t end = reinterpret_cast<uintptr_t>(a.map) + a.map_bytes - page_bytes();
        memset(at, 0xff, end - reinterpret_cast<uintptr_t>(at)); /* with the canary behind */
        if (where == place::device && protecting() && !operation_runs)
            mprotect(a.map, a.map_bytes, PROT_NONE);
    }
    if (ON_HEAP)
        memset(at, 0xff, bytes);
    blocks[reinterpret_cast<uintptr_t>(at)] = a;
    return at;
}

void *memory_allocate(int device, size_t bytes)
{
    memory_watch();
    if (bytes > capacity_bytes() || used[device] > capacity_bytes() - bytes)
        return nullptr;
    void *at = allocate(place::device, device, bytes);
    if (at)
        used[device] += bytes;
    return at;
}

void *memory_allocate_pinned(size_t bytes)
{
    memory_watch();
    return allocate(place::pinned, 0, bytes);
}

/* What lies between the end of an allocation and its guard page, less than 256 bytes. */
static void check_canary(uintptr_t at, const allocation &a)
{
    const uintptr_t end = reinterpret_cast<uintptr_t>(a.map) + a.map_bytes - page_bytes();
    for (uintptr_t p = at + a.bytes; p < end; p++)
        if (*reinterpret_cast<unsigned char *>(p) != 0xff)
            fault("byte %zu behind an allocation of %zu bytes was overwritten",
                  static_cast<size_t>(p - at - a.bytes), a.bytes);
}

bool memory_free(void *at, place where)
{
    const auto found = blocks.find(reinterpret_cast<uintptr_t>(at));
    if (found == blocks.end() || found->second.where != where)
        return false;
    const allocation a = found->second;
    if (where == place::device)
        used[a.device] -= a.bytes;
    if (a.map) {
        mprotect(a.map, a.map_bytes - page_bytes(), PROT_READ | PROT_WRITE);
        check_canary(found->first, a);
        /* the addresses stay nobody's: a stack or another allocation there would hide a late use */
        if (mmap(a.map, a.map_bytes, PROT_NONE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
            munmap(a.map, a.map_bytes);
    } else {
        free(at);
    }
    blocks.erase(found);
    return true;
}

bool memory_register(void *at, size_t bytes)
{
    if (memory_find(at).where != place::pageable)
        return false;
    blocks[reinterpret_cast<uintptr_t>(at)] = {place::pinned, -1, bytes, nullptr, 0};
    return true;
}

bool memory_unregister(void *at)
{
    const auto found = blocks.find(reinterpret_cast<uintptr_t>(at));
    if (found == blocks.end() || found->second.device != -1)
        return false;
    blocks.erase(found);
    return true;
}

block_info memory_find(const void *at)
{
    const uintptr_t address = reinterpret_cast<uintptr_t>(at);
    auto after = blocks.upper_bound(address);
    if (after != blocks.begin()) {
        const auto &[base, a] = *--after;
        if (address - base < std::max(a.bytes, size_t{1}))
            return {a.where, a.device, reinterpret_cast<void *>(base), a.bytes};
    }
    return {place::pageable, -1, nullptr, 0};
}

void memory_check(const char *what, const void *at, size_t bytes)
{
    const block_info block = memory_find(at);
    const size_t offset =
        static_cast<size_t>(static_cast<const char *>(at) - static_cast<const char *>(block.base));
    if (block.where != place::pageable && block.bytes - offset < bytes)
        fault("%s of %zu bytes at offset %zu of an allocation of %zu bytes", what, bytes, offset,
              block.bytes);
}

void memory_info(int device, size_t *free_bytes, size_t *total_bytes)
{
    *total_bytes = capacity_bytes();
    *free_bytes = capacity_bytes() - used[device];
}

static void protect_all(int protection)
{
    for (const auto &[base, a] : blocks)
        if (a.map && a.where == place::device)
            mprotect(a.map, a.map_bytes - page_bytes(), protection);
}

void memory_open()
{
    if (protecting())
        protect_all(PROT_READ | PROT_WRITE);
    operation_runs = true;
}

void memory_close()
{
    operation_runs = false;
    if (protecting())
        protect_all(PROT_NONE);
}

} // namespace cuemu
