/* Executes one kernel launch on the calling OS thread: a block is as many fibers as it has threads,
 * blocks run one after another. Barriers and warp operations are meeting points at which a fiber
 * waits; what hardware would leave to luck is reported and ends the process (fault()).
 *
 * All of this is compiled without sanitizers. What kernels do to memory happens in instrumented
 * code; the inline functions of device.h and tensor.h belong to them. */
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector_types.h>

namespace cuemu
{

struct where {
    const char *file;
    int line;
};

/* Says on stderr which kernel, block and thread did what, and aborts. */
[[noreturn]] void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

struct grid_params {
    const void *kernel;
    dim3 grid, block;
    size_t shared; /* bytes of dynamic shared memory */
};

/* Runs body once for every thread of the grid. Not reentrant: the caller holds the runtime's lock.
 * Order of threads and blocks: CUEMU_ORDER (0 forward, 1 reverse, else a seed). */
void run_grid(const grid_params &params, const std::function<void()> &body);

/* -- for the code of kernels, on a fiber ------------------------------------------------------- */

void *dynamic_shared();
/* Ends the process unless [at, at + bytes) is shared memory aligned to `bytes`. */
void check_shared(const char *operation, const void *at, size_t bytes);
unsigned lane();
unsigned thread_linear();

enum class vote { none, count, all, any };
/* Waits for all threads of the block; the vote over `predicate` comes back. */
int barrier(vote kind, int predicate, where at);

/* One warp operation: the lanes of `mask` bring a value of up to 64 bytes each (a multiple of 8,
 * aligned to 8); the last to come calls `compute`, which writes as many for each lane, and finds in
 * `value` what it left. A memory barrier among the lanes only with `orders`. */
constexpr size_t MEETING_BYTES = 64;
struct alignas(8) meeting_lane {
    unsigned char value[MEETING_BYTES], result[MEETING_BYTES];
};
using meeting_compute = void(meeting_lane (&lanes)[32], unsigned mask);
void meet(const char *operation, unsigned mask, void *value, size_t bytes, meeting_compute *compute,
          bool orders, where at);

/* cp.async: the copy happens at the wait, as late as is legal. */
struct async_copy {
    void *to;
    const void *from;
    bool valid;
};
void copy_async_queue(const async_copy &copy);
void copy_async_commit();
/* Takes the copies that a wait for `pending` groups must finish, oldest first; NULL when none left.
 */
const async_copy *copy_async_take(int pending);

} // namespace cuemu

/* Set by the scheduler before a fiber goes on. */
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;
