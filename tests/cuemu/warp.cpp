/* What the last lane to come computes for all of its warp. */
#include "cuemu/tensor.h"

namespace cuemu
{

template <typename T> static T *value_of(meeting_lane &lane)
{
    return reinterpret_cast<T *>(lane.value);
}

template <typename T> static T *result_of(meeting_lane &lane)
{
    return reinterpret_cast<T *>(lane.result);
}

void shuffle_compute(meeting_lane (&lanes)[32], unsigned mask)
{
    for (unsigned l = 0; l < 32; l++) {
        if (!(mask >> l & 1))
            continue;
        const unsigned source = value_of<shuffled>(lanes[l])->source;
        if (!(mask >> source & 1))
            fault("shuffle: lane %u reads lane %u, which is not in mask %08x", l, source, mask);
        *result_of<shuffled>(lanes[l]) = *value_of<shuffled>(lanes[source]);
    }
}

uint64_t gather(const char *operation, unsigned mask, uint64_t value, meeting_compute *compute,
                where at)
{
    meet(operation, mask, &value, sizeof value, compute, false, at);
    return value;
}

template <typename Join>
static void reduce(meeting_lane (&lanes)[32], unsigned mask, uint64_t start, Join join)
{
    uint64_t all = start;
    for (unsigned l = 0; l < 32; l++)
        if (mask >> l & 1)
            all = join(all, *value_of<uint64_t>(lanes[l]), l);
    for (meeting_lane &lane : lanes)
        *result_of<uint64_t>(lane) = all;
}

void ballot_compute(meeting_lane (&lanes)[32], unsigned mask)
{
    reduce(lanes, mask, 0, [](uint64_t all, uint64_t v, unsigned l) { return all | v << l; });
}

void sum_compute(meeting_lane (&lanes)[32], unsigned mask)
{
    reduce(lanes, mask, 0, [](uint64_t all, uint64_t v, unsigned) { return all + v; });
}

void max_compute(meeting_lane (&lanes)[32], unsigned mask)
{
    reduce(lanes, mask, 0, [](uint64_t all, uint64_t v, unsigned) { return v > all ? v : all; });
}

void min_compute(meeting_lane (&lanes)[32], unsigned mask)
{
    reduce(lanes, mask, UINT64_MAX,
           [](uint64_t all, uint64_t v, unsigned) { return v < all ? v : all; });
}

static uint32_t pair(uint16_t low, uint16_t high)
{
    return low | uint32_t{high} << 16;
}

void load_matrix_compute(meeting_lane (&lanes)[32], unsigned)
{
    for (unsigned l = 0; l < 32; l++)
        for (unsigned m = 0; m < 4; m++) {
            const uint16_t *row = value_of<matrix_row>(lanes[m * 8 + l / 4])->value;
            result_of<uint32_t>(lanes[l])[m] = pair(row[l % 4 * 2], row[l % 4 * 2 + 1]);
        }
}

void load_matrix_trans_compute(meeting_lane (&lanes)[32], unsigned)
{
    for (unsigned l = 0; l < 32; l++)
        for (unsigned m = 0; m < 4; m++) {
            const unsigned row = m * 8 + l % 4 * 2, column = l / 4;
            result_of<uint32_t>(lanes[l])[m] =
                pair(value_of<matrix_row>(lanes[row])->value[column],
                     value_of<matrix_row>(lanes[row + 1])->value[column]);
        }
}

static float low(uint32_t pair_of_two)
{
    return bits<float>(pair_of_two << 16);
}

static float high(uint32_t pair_of_two)
{
    return bits<float>(pair_of_two & 0xffff0000u);
}

void mma_bf16_compute(meeting_lane (&lanes)[32], unsigned)
{
    float a[16][16], b[16][8], d[16][8];
    for (unsigned l = 0; l < 32; l++) {
        const mma_operands &own = *value_of<mma_operands>(lanes[l]);
        const unsigned g = l / 4, t = l % 4 * 2;
        for (unsigned r = 0; r < 4; r++) {
            a[g + r % 2 * 8][t + r / 2 * 8] = low(own.a[r]);
            a[g + r % 2 * 8][t + r / 2 * 8 + 1] = high(own.a[r]);
            d[g + r / 2 * 8][t + r % 2] = own.d[r];
        }
        for (unsigned r = 0; r < 2; r++) {
            b[t + r * 8][g] = low(own.b[r]);
            b[t + r * 8 + 1][g] = high(own.b[r]);
        }
    }
    for (unsigned i = 0; i < 16; i++)
        for (unsigned k = 0; k < 16; k++)
            for (unsigned j = 0; j < 8; j++)
                d[i][j] += a[i][k] * b[k][j];
    for (unsigned l = 0; l < 32; l++)
        for (unsigned r = 0; r < 4; r++)
            result_of<mma_operands>(lanes[l])->d[r] = d[l / 4 + r / 2 * 8][l % 4 * 2 + r % 2];
}

} // namespace cuemu
