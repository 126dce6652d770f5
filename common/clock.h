/* Time. Programs use lt_clock_now; state machines never read a clock: `now_us` is an argument, so
 * tests and the simulator own time. */
#pragma once

#include <stdint.h>

/* Monotonic microseconds since an arbitrary origin. */
int64_t lt_clock_now_us(void);
/* Wall clock, microseconds since 1970 (for logs and job records only, never for decisions). */
int64_t lt_clock_wall_us(void);
