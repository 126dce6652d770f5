/* The roof of this machine: square products by plain oneDNN on every thread at once, weights in the
 * layout it likes best. Figures are given beside it, for machines differ and may be shared. */
#pragma once

#include "kernels/exec.h"

struct roof;

/* `bf16`: products of bf16 where the machine has them in hardware, else of f32. */
struct roof *roof_create(struct lt_exec *exec, bool bf16);
/* Measured now: the fastest of three. */
double roof_gflops(struct roof *roof);
void roof_destroy(struct roof **roof);
