/* Two biquads in f64, one sample at a time; a sample's energy goes to the up to four blocks that it
 * lies in. Block edges are rounded as the original rounds them (numpy: half to even; truncation),
 * so that the last block is there exactly when the original has it. */
#include "common/loudness.h"

#include <math.h>
#include <stdlib.h>

static const double BLOCK_SECONDS = 0.4, STEP = 0.25, GATE_LUFS = -70, OFFSET = -0.691;
static const double PI = 3.14159265358979323846;

/* Transposed direct form II, as scipy's lfilter: y = b0·x + s0, s0 = b1·x - a1·y + s1, … */
struct biquad {
    double b0, b1, b2, a1, a2, s0, s1;
};

/* The two of the cookbook formulae that K-weighting uses, divided by a0. */
static struct biquad high_shelf(double gain_db, double q, double hz, double rate)
{
    const double a = pow(10, gain_db / 40), w = 2 * PI * (hz / rate), c = cos(w),
                 slope = 2 * sqrt(a) * (sin(w) / (2 * q));
    const double a0 = (a + 1) - (a - 1) * c + slope;
    return (struct biquad){
        .b0 = a * ((a + 1) + (a - 1) * c + slope) / a0,
        .b1 = -2 * a * ((a - 1) + (a + 1) * c) / a0,
        .b2 = a * ((a + 1) + (a - 1) * c - slope) / a0,
        .a1 = 2 * ((a - 1) - (a + 1) * c) / a0,
        .a2 = ((a + 1) - (a - 1) * c - slope) / a0,
    };
}

static struct biquad high_pass(double q, double hz, double rate)
{
    const double w = 2 * PI * (hz / rate), c = cos(w), alpha = sin(w) / (2 * q), a0 = 1 + alpha;
    return (struct biquad){
        .b0 = (1 + c) / 2 / a0,
        .b1 = -(1 + c) / a0,
        .b2 = (1 + c) / 2 / a0,
        .a1 = -2 * c / a0,
        .a2 = (1 - alpha) / a0,
    };
}

static double filter(struct biquad *f, double x)
{
    const double y = f->b0 * x + f->s0;
    f->s0 = f->b1 * x - f->a1 * y + f->s1;
    f->s1 = f->b2 * x - f->a2 * y;
    return y;
}

static size_t block_first(size_t block, double rate)
{
    return (size_t)(BLOCK_SECONDS * ((double)block * STEP) * rate);
}

static size_t block_end(size_t block, double rate)
{
    return (size_t)(BLOCK_SECONDS * ((double)block * STEP + 1) * rate);
}

/* energy[j] = Σ y² of block j; blocks that the audio ends in hold what there is. */
static void add_energies(const float *samples, size_t count, double rate, double *energy,
                         size_t blocks)
{
    struct biquad shelf = high_shelf(4, 1 / sqrt(2), 1500, rate), pass = high_pass(0.5, 38, rate);
    size_t first = 0, end = 0; /* blocks [first, end) hold the sample */
    for (size_t i = 0; i < count; i++) {
        const double y = filter(&pass, filter(&shelf, samples[i]));
        while (end < blocks && block_first(end, rate) <= i)
            end++;
        while (first < end && block_end(first, rate) <= i)
            first++;
        for (size_t j = first; j < end; j++)
            energy[j] += y * y;
    }
}

static double loudness_of(double power)
{
    return OFFSET + 10 * log10(power);
}

/* Loudness of the mean power of the blocks above both gates; of no block: log10(0). */
static double gated(const double *power, size_t blocks, double gate, bool inclusive)
{
    double sum = 0;
    size_t count = 0;
    for (size_t j = 0; j < blocks; j++) {
        const double l = loudness_of(power[j]);
        if ((inclusive ? l >= GATE_LUFS : l > GATE_LUFS) && l > gate) {
            sum += power[j];
            count++;
        }
    }
    return count ? loudness_of(sum / (double)count) : -INFINITY;
}

lt_status lt_loudness_measure(const float *samples, size_t count, double rate, double *lufs_out,
                              struct lt_error *error)
{
    if ((double)count < BLOCK_SECONDS * rate) {
        *lufs_out = NAN;
        return LT_OK;
    }
    const double seconds = (double)count / rate;
    const size_t blocks = (size_t)(rint((seconds - BLOCK_SECONDS) / (BLOCK_SECONDS * STEP)) + 1);
    double *power = calloc(blocks, sizeof *power);
    if (!power)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the loudness of %zu samples", count);
    add_energies(samples, count, rate, power, blocks);
    for (size_t j = 0; j < blocks; j++)
        power[j] *= 1.0 / (BLOCK_SECONDS * rate);
    const double relative = gated(power, blocks, -INFINITY, true) - 10;
    *lufs_out = gated(power, blocks, relative, false);
    free(power);
    return LT_OK;
}

double lt_loudness_gain(double lufs, double target)
{
    return fabs(lufs) <= 100 ? pow(10, (target - lufs) / 20) : 1; /* NAN is not <= 100 */
}
