#include "kernels/host/host.h"
#include "kernels/host/simd.h"

void lt_kernels_init_host(struct lt_kernels *table, unsigned caps)
{
    static const char *const names[] = {"host", "host.avx2", "host.avx512", "host.avx512_bf16"};
    const char *rows = names[caps & LT_CAP_AVX512 ? 2 : caps & LT_CAP_AVX2 ? 1 : 0];
    const char *products = caps & LT_CAP_AVX512_BF16 ? names[3] : rows;
#define ENTRY(op, variant)                                                                         \
    table->op = host_##op;                                                                         \
    table->op##_variant = variant;
    ENTRY(convert, rows)
    ENTRY(linear, products)
    ENTRY(low_rank, products)
    ENTRY(layer_norm, rows)
    ENTRY(rms_norm, rows)
    ENTRY(gated_add, rows)
    ENTRY(multiply, rows)
    ENTRY(activate, rows)
    ENTRY(attention, products)
    ENTRY(conv, products)
    ENTRY(channel_norm, rows)
    ENTRY(nag, rows)
    ENTRY(rotate, rows)
    ENTRY(blur, rows)
    ENTRY(avg_down, rows)
    ENTRY(dup_up, rows)
#undef ENTRY
}
