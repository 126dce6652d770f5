#include "kernels/ref/ref.h"

void lt_kernels_init_ref(struct lt_kernels *table)
{
#define ENTRY(op)                                                                                  \
    table->op = ref_##op;                                                                          \
    table->op##_variant = "ref";
    LT_KERNEL_LIST(ENTRY)
#undef ENTRY
}
