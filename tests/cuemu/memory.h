/* Device memory: host memory that knows whose it is. Allocations are filled with 0xff (NaN) and end
 * at a guard page; with address sanitizers they are heap blocks. CUEMU_MEM_MB bounds each device
 * (default 4096), CUEMU_PROTECT=1 makes device memory inaccessible while no operation runs,
 * CUEMU_LEAKS=1 reports at exit what was never freed. */
#pragma once

#include <cstddef>

namespace cuemu
{

enum class place { device, pinned, pageable };

struct block_info {
    place where;
    int device;
    void *base;
    size_t bytes;
};

/* NULL when the device is full. */
void *memory_allocate(int device, size_t bytes);
void *memory_allocate_pinned(size_t bytes);
bool memory_free(void *at, place where); /* false: no such block */
bool memory_register(void *at, size_t bytes);
bool memory_unregister(void *at);
block_info memory_find(const void *at);
/* Ends the process when a copy reaches past the end of a known block. */
void memory_check(const char *what, const void *at, size_t bytes);
void memory_info(int device, size_t *free_bytes, size_t *total_bytes);

/* Around each operation. */
void memory_open();
void memory_close();

/* Installs the handler that says what a SIGSEGV in a kernel or on the host was. */
void memory_watch();

} // namespace cuemu
