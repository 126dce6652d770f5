/* Copies: what arrives is what was sent, how fast, and how much of a copy hides behind compute that
 * runs at the same time - what block swap lives on. */
#include "worker/selftest.h"

#include "common/clock.h"
#include "kernels/scratch.h"

#include <stdlib.h>
#include <string.h>

enum { ENOUGH_US = 20 * 1000 };
static const size_t FIRST_BYTES = (size_t)1 << 20, LAST_BYTES = (size_t)256 << 20;

struct copier {
    struct selftest *test;
    size_t bytes;
    void *pinned, *local;
    struct device_event *done;
    struct device_job job;
};

static lt_status copy_all(void *context, struct lt_error *error)
{
    const struct copier *c = context;
    return device_copy(c->test->device, c->local, c->pinned, c->bytes, error);
}

static void close_copier(struct copier *c)
{
    device_give(c->test->device, DEVICE_MEMORY_LOCAL, c->local, c->bytes);
    device_give(c->test->device, DEVICE_MEMORY_PINNED, c->pinned, c->bytes);
    device_event_destroy(&c->done);
}

static lt_status open_copier(struct selftest *test, size_t bytes, struct copier *c,
                             struct lt_error *error)
{
    *c = (struct copier){.test = test, .bytes = bytes};
    lt_status status = device_event_create(test->device, &c->done, error);
    if (status == LT_OK)
        status =
            device_take(test->device, DEVICE_MEMORY_PINNED, bytes, "a copy", &c->pinned, error);
    if (status == LT_OK)
        status = device_take(test->device, DEVICE_MEMORY_LOCAL, bytes, "a copy", &c->local, error);
    if (status != LT_OK) {
        close_copier(c);
        return status;
    }
    for (size_t i = 0; i < bytes; i++)
        ((unsigned char *)c->pinned)[i] = (unsigned char)(i * 131 + (i >> 12));
    c->job = (struct device_job){.run = copy_all, .context = c, .done = c->done};
    return LT_OK;
}

static lt_status copy_once(struct copier *c, int64_t *us_out, struct lt_error *error)
{
    const int64_t begin = lt_clock_now_us();
    device_submit(c->test->device, &c->job);
    LT_TRY(device_wait(c->test->device, c->done, error));
    *us_out = lt_clock_now_us() - begin;
    return LT_OK;
}

static lt_status check_arrival(struct copier *c, struct selftest_row *row, int64_t *us_out,
                               struct lt_error *error)
{
    unsigned char *back = malloc(c->bytes);
    if (!back)
        return lt_fail(error, LT_NO_MEMORY, "no memory for what comes back");
    const int64_t begin = lt_clock_now_us();
    const lt_status status = lt_exec_download(c->test->exec[0], back, c->local, c->bytes, error);
    *us_out = lt_clock_now_us() - begin;
    row->failed = row->failed || (status == LT_OK && memcmp(back, c->pinned, c->bytes) != 0);
    if (row->failed)
        snprintf(row->note, sizeof row->note, "other bytes came back");
    free(back);
    return status;
}

static void set_rate(struct selftest_row *row, size_t bytes, int64_t us)
{
    row->rate = (double)bytes / (double)(us > 0 ? us : 1) * 1e-3;
    row->unit = "GB/s";
    if (!row->failed)
        snprintf(row->note, sizeof row->note, "%zu MiB", bytes >> 20);
}

/* Both directions, larger until it takes a while; the last size is left open. */
static lt_status measure_copies(struct selftest *test, struct copier *c, struct selftest_row *to,
                                struct selftest_row *from, int64_t *us, struct lt_error *error)
{
    for (size_t bytes = FIRST_BYTES;; bytes *= 4) {
        int64_t back_us = 0;
        LT_TRY(open_copier(test, bytes, c, error));
        lt_status status = copy_once(c, us, error); /* pages and clocks warm up */
        if (status == LT_OK)
            status = copy_once(c, us, error);
        if (status == LT_OK)
            status = check_arrival(c, to, &back_us, error);
        if (status != LT_OK) {
            close_copier(c);
            return status;
        }
        set_rate(to, bytes, *us);
        set_rate(from, bytes, back_us);
        if (test->quick || *us > ENOUGH_US || bytes >= LAST_BYTES)
            return LT_OK;
        close_copier(c);
    }
}

/* Compute that takes about as long as the copy: one op over and over. */
static lt_status compute(struct selftest *test, void *data, int64_t count, unsigned calls,
                         int64_t *us_out, struct lt_error *error)
{
    const struct lt_view view = lt_view_1d(data, LT_TYPE_F32, count);
    float value;
    const int64_t begin = lt_clock_now_us();
    for (unsigned i = 0; i < calls; i++)
        LT_TRY(LT_OP(scale, &test->kernels, test->exec[0], error, .out = view, .in = view,
                     .factor = 1));
    LT_TRY(lt_exec_download(test->exec[0], &value, data, sizeof value, error));
    *us_out = lt_clock_now_us() - begin;
    return LT_OK;
}

static lt_status measure_overlap(struct copier *c, int64_t copy_us, struct selftest_row *row,
                                 struct lt_error *error)
{
    enum { CALLS_MAX = 2000 };
    struct selftest *test = c->test;
    const int64_t count = (int64_t)(c->bytes / sizeof(float));
    int64_t one_us, alone_us, both_us;
    void *data;
    LT_TRY(lt_exec_take(test->exec[0], c->bytes, &data, error));
    lt_status status = lt_exec_zero(test->exec[0], data, c->bytes, error);
    if (status == LT_OK)
        status = compute(test, data, count, 1, &one_us, error);
    if (status == LT_OK)
        status = compute(test, data, count, 1, &one_us, error);
    const int64_t wanted = status == LT_OK ? copy_us / (one_us > 0 ? one_us : 1) + 1 : 1;
    const unsigned calls = wanted > CALLS_MAX ? CALLS_MAX : (unsigned)wanted;
    if (status == LT_OK)
        status = compute(test, data, count, calls, &alone_us, error);
    if (status == LT_OK) {
        const int64_t begin = lt_clock_now_us();
        device_submit(test->device, &c->job);
        status = compute(test, data, count, calls, &both_us, error);
        const lt_status copied = device_wait(test->device, c->done, error);
        status = status == LT_OK ? copied : status;
        both_us = lt_clock_now_us() - begin;
    }
    lt_exec_give(test->exec[0], data, c->bytes);
    LT_TRY(status);
    const double less = (double)(copy_us < alone_us ? copy_us : alone_us);
    const double hidden = (double)(copy_us + alone_us - both_us) / (less > 0 ? less : 1);
    row->rate = 100 * (hidden < 0 ? 0 : hidden > 1 ? 1 : hidden);
    row->unit = "%";
    snprintf(row->note, sizeof row->note, "copy %.1f ms, compute %.1f ms, both at once %.1f ms",
             (double)copy_us * 1e-3, (double)alone_us * 1e-3, (double)both_us * 1e-3);
    return LT_OK;
}

void selftest_copies(struct selftest *test)
{
    struct lt_error error;
    struct copier copier;
    int64_t us = 0;
    struct selftest_row *to = selftest_row(test, "copy", "to the device"),
                        *from = selftest_row(test, "copy", "from the device");
    if (measure_copies(test, &copier, to, from, &us, &error) != LT_OK) {
        selftest_fail(test, "copy", "both ways", &error);
        return;
    }
    if (measure_overlap(&copier, us, selftest_row(test, "copy", "behind compute"), &error) != LT_OK)
        selftest_fail(test, "copy", "overlap", &error);
    close_copier(&copier);
}
