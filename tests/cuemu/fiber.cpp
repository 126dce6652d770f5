#include "cuemu/fiber.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__x86_64__) && !defined(CUEMU_UCONTEXT)
#define CUEMU_SWITCH 1
#else
#define CUEMU_SWITCH 0
#include <ucontext.h>
#endif

/* This file is compiled without instrumentation; the build says which sanitizer the rest has. */
#ifdef CUEMU_ASAN
extern "C" {
void __sanitizer_start_switch_fiber(void **save, const void *bottom, size_t size);
void __sanitizer_finish_switch_fiber(void *save, const void **bottom_old, size_t *size_old);
void __asan_unpoison_memory_region(void const volatile *at, size_t size);
}
#endif
#ifdef CUEMU_TSAN
extern "C" {
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned flags);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
void __tsan_acquire(void *object);
void __tsan_release(void *object);
}
constexpr unsigned NO_SYNC = 1; /* a switch of ours orders nothing between two threads of a block */
#endif

namespace cuemu
{

constexpr size_t STACK_BYTES = 256 << 10;

struct fiber {
    char *stack; /* STACK_BYTES above the guard page */
    void (*entry)();
#if CUEMU_SWITCH
    void *sp;
#else
    ucontext_t context;
#endif
    void *sanitizer; /* ASan: its fake stack; TSan: its fiber */
};

static fiber *running;
static fiber scheduler;
#ifdef CUEMU_ASAN
static const void *scheduler_bottom;
static size_t scheduler_size;
#endif

#if CUEMU_SWITCH
extern "C" void cuemu_switch(void **save, void *load);
asm(R"(
    .text
    .globl cuemu_switch
    .type cuemu_switch, @function
cuemu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size cuemu_switch, .-cuemu_switch
)");
#endif

static void entered()
{
#ifdef CUEMU_ASAN
    __sanitizer_finish_switch_fiber(running->sanitizer, &scheduler_bottom, &scheduler_size);
#endif
}

static void start()
{
    entered();
    running->entry();
    abort();
}

fiber *fiber_create(void (*entry)())
{
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    void *memory = mmap(nullptr, STACK_BYTES + page, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) {
        perror("cuemu: stack of a fiber");
        abort();
    }
    fiber *f = new fiber{};
    f->stack = static_cast<char *>(memory) + page;
    f->entry = entry;
#ifdef CUEMU_TSAN
    f->sanitizer = __tsan_create_fiber(0);
#endif
    fiber_reset(f);
    return f;
}

void fiber_reset(fiber *f)
{
#if CUEMU_SWITCH
    void **sp = reinterpret_cast<void **>(f->stack + STACK_BYTES);
    *--sp = nullptr;                         /* keeps the entry's frame aligned */
    *--sp = reinterpret_cast<void *>(start); /* where the switch returns to */
    for (int i = 0; i < 6; i++)
        *--sp = nullptr;
    f->sp = sp;
#else
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK_BYTES;
    f->context.uc_link = nullptr;
    makecontext(&f->context, start, 0);
#endif
#ifdef CUEMU_ASAN
    f->sanitizer = nullptr;
    __asan_unpoison_memory_region(f->stack, STACK_BYTES);
#endif
}

static void change(fiber *from, fiber *to)
{
#if CUEMU_SWITCH
    cuemu_switch(&from->sp, to->sp);
#else
    swapcontext(&from->context, &to->context);
#endif
}

void fiber_enter(fiber *f)
{
    running = f;
#ifdef CUEMU_ASAN
    __sanitizer_start_switch_fiber(&scheduler.sanitizer, f->stack, STACK_BYTES);
#endif
#ifdef CUEMU_TSAN
    scheduler.sanitizer = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(f->sanitizer, NO_SYNC);
#endif
    change(&scheduler, f);
#ifdef CUEMU_ASAN
    __sanitizer_finish_switch_fiber(scheduler.sanitizer, nullptr, nullptr);
#endif
}

static void leave(bool for_ever)
{
    fiber *f = running;
    (void)for_ever;
#ifdef CUEMU_ASAN
    __sanitizer_start_switch_fiber(for_ever ? nullptr : &f->sanitizer, scheduler_bottom,
                                   scheduler_size);
#endif
#ifdef CUEMU_TSAN
    __tsan_switch_to_fiber(scheduler.sanitizer, NO_SYNC);
#endif
    change(f, &scheduler);
    entered();
}

void fiber_leave()
{
    leave(false);
}

void fiber_finish()
{
    leave(true);
}

void order_release(void *object)
{
    (void)object;
#ifdef CUEMU_TSAN
    __tsan_release(object);
#endif
}

void order_acquire(void *object)
{
    (void)object;
#ifdef CUEMU_TSAN
    __tsan_acquire(object);
#endif
}

} // namespace cuemu
