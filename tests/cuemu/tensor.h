/* The twins of ldmatrix and mma.sync: meetings of a whole warp. */
#pragma once

#include "cuemu/device.h"

namespace cuemu
{

constexpr unsigned WARP = 0xffffffffu;

struct alignas(8) matrix_row {
    uint16_t value[8];
};
/* Register m of lane l: elements 2t, 2t + 1 of row g of matrix m; transposed: of column g. */
void load_matrix_compute(meeting_lane (&lanes)[32], unsigned mask);
void load_matrix_trans_compute(meeting_lane (&lanes)[32], unsigned mask);

/* Each lane reads its own row, so that sanitizers know who did. */
template <int count>
inline void load_matrix(uint32_t (&r)[count], int matrices, const void *row, bool transposed,
                        where at = here())
{
    matrix_row own = {};
    if (lane() / 8 < static_cast<unsigned>(matrices)) {
        check_shared("load_matrix", row, 16);
        for (int i = 0; i < 8; i++)
            own.value[i] = static_cast<const uint16_t *>(row)[i];
    }
    meet(transposed ? "load_matrix_trans" : "load_matrix", WARP, &own, sizeof own,
         transposed ? load_matrix_trans_compute : load_matrix_compute, false, at);
    memcpy(r, &own, sizeof r);
}

struct alignas(8) mma_operands {
    float d[4];
    uint32_t a[4], b[2];
};
void mma_bf16_compute(meeting_lane (&lanes)[32], unsigned mask);

inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                              where at = here())
{
    mma_operands own;
    memcpy(own.d, d, sizeof own.d);
    memcpy(own.a, a, sizeof own.a);
    memcpy(own.b, b, sizeof own.b);
    meet("mma_bf16", WARP, &own, sizeof own, mma_bf16_compute, false, at);
    memcpy(d, own.d, sizeof own.d);
}

inline uint32_t pack_bf16(float low, float high)
{
    return uint32_t{bits<uint16_t>(__float2bfloat16(low))} |
           uint32_t{bits<uint16_t>(__float2bfloat16(high))} << 16;
}

} // namespace cuemu
