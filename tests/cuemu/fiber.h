/* Stacks to switch between. x86-64 by twelve instructions, everything else by ucontext; the
 * sanitizers are told of each switch. */
#pragma once

#include <cstddef>

namespace cuemu
{

struct fiber;

/* Creates a fiber with its own stack behind a guard page. entry() never returns. */
fiber *fiber_create(void (*entry)());
/* Puts a fiber that has finished (or never ran) at its entry again. */
void fiber_reset(fiber *f);
/* From the scheduler to a fiber, and back from the fiber that runs. */
void fiber_enter(fiber *f);
void fiber_leave();
/* Leaves for ever until the next reset: a finished stack is forgotten by the sanitizers. */
void fiber_finish();

/* What thread sanitizers need: an order between what released and what acquires an object. */
void order_release(void *object);
void order_acquire(void *object);

} // namespace cuemu
