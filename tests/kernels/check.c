#include "tests/kernels/check.h"

#include "common/rng.h"
#include "kernels/quant.h"
#include "tests/kernels/place.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CANARY = 64, BUFFERS_MAX = 64 };

static struct {
    char *base;
    size_t bytes;
    bool canaries;
} buffers[BUFFERS_MAX];
static int buffer_count;

static uint32_t word(struct check *check)
{
    uint32_t value;
    const struct lt_philox stream = lt_philox_stream(check->seed, LT_STREAM_TEST, 0, 0);
    lt_philox_u32(&stream, check->drawn++, &value, 1);
    return value;
}

int64_t check_int(struct check *check, int64_t low, int64_t high)
{
    return low + (int64_t)(word(check) % (uint64_t)(high - low + 1));
}

static char *buffer(size_t bytes, bool canaries)
{
    const size_t around = canaries ? CANARY : 0;
    char *base = place_allocate(bytes + 2 * around);
    lt_assert(base && buffer_count < BUFFERS_MAX);
    buffers[buffer_count].base = base;
    buffers[buffer_count].bytes = bytes;
    buffers[buffer_count++].canaries = canaries;
    memset(base, 0xA5, around);
    memset(base + around + bytes, 0xA5, around);
    return base + around;
}

float *check_buffer(struct check *check, int64_t count)
{
    (void)check;
    float *data = (float *)(void *)buffer((size_t)count * sizeof *data, true);
    for (int64_t i = 0; i < count; i++)
        data[i] = NAN;
    return data;
}

void check_fill(struct check *check, float *data, int64_t count, float scale)
{
    const struct lt_philox stream = lt_philox_stream(check->seed, LT_STREAM_TEST, 1, word(check));
    lt_philox_normal(&stream, 0, data, (size_t)count);
    for (int64_t i = 0; i < count; i++)
        data[i] *= scale;
}

void *check_weights(struct check *check, enum lt_type type, int64_t count, float scale)
{
    struct lt_error error;
    uint64_t bytes = 0;
    float *values = malloc((size_t)count * sizeof *values);
    lt_assert(values && lt_type_bytes(type, (uint64_t)count, &bytes));
    check_fill(check, values, count, scale);
    void *data = buffer(bytes, false);
    check_status(check, lt_quantize_row(type, values, data, count, &error), &error);
    free(values);
    return data;
}

static void failed(struct check *check, const char *what)
{
    check->failures++;
    fprintf(stderr, "FAILED %s %s (seed %llu): %s\n", check->op, check->what,
            (unsigned long long)check->seed, what);
}

void check_close(struct check *check, const float *got, const float *want, int64_t count,
                 struct check_bound bound)
{
    double error = 0, square = 0;
    char text[256];
    check->comparisons++;
    for (int64_t i = 0; i < count; i++) {
        const double d = (double)got[i] - want[i];
        if (!(fabs(d) <= bound.abs + bound.rel * fabs(want[i]))) {
            snprintf(text, sizeof text, "element %lld is %.9g, reference %.9g (%s)", (long long)i,
                     got[i], want[i], bound.why);
            failed(check, text);
            return;
        }
        error += d * d;
        square += (double)want[i] * want[i];
    }
    if (error > bound.nmse * square + 1e-30) {
        snprintf(text, sizeof text, "normalised mean squared error %.3g above %.3g (%s)",
                 error / square, bound.nmse, bound.why);
        failed(check, text);
    }
}

void check_same(struct check *check, const void *a, const void *b, size_t bytes, const char *what)
{
    check->comparisons++;
    if (memcmp(a, b, bytes) != 0)
        failed(check, what);
}

void check_status(struct check *check, lt_status status, const struct lt_error *error)
{
    if (status != LT_OK)
        failed(check, error->text);
}

void check_release(struct check *check)
{
    for (int i = 0; i < buffer_count; i++) {
        for (size_t j = 0; buffers[i].canaries && j < CANARY; j++)
            if ((unsigned char)buffers[i].base[j] != 0xA5 ||
                (unsigned char)buffers[i].base[CANARY + buffers[i].bytes + j] != 0xA5) {
                failed(check, "wrote outside its buffer");
                break;
            }
        place_free(buffers[i].base);
    }
    buffer_count = 0;
}
