/* If a card's device broke, weights would be overwritten while a kernel still reads them, a worker
 * would find out in the middle of a task that memory is short, or go on computing on a card that
 * has failed. Runs on the emulated card, where the host touching device memory is a crash. */
#include "tests/test.h"

#include "kernels/exec.h"
#include "kernels/kernels.h"
#include "kernels/scratch.h"
#include "worker/device.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MIB = 1 << 20, WORKSPACE = 4 * MIB + 2 * sizeof(float) };

static const char *const orders[] = {"lazy", "eager", "1", "2", "3"};

static struct device *open_device(struct device_params params)
{
    struct lt_error error;
    struct device *device;
    assert_ok(device_create_cuda(0, &params, &device, &error));
    return device;
}

static struct lt_exec *open_exec(struct device *device, enum lt_precision precision)
{
    struct lt_error error;
    struct lt_exec *exec;
    assert_ok(device_exec_create(device, &(struct lt_exec_params){.precision = precision}, &exec,
                                 &error));
    return exec;
}

static struct device_stats stats_of(struct device *device)
{
    struct device_stats stats;
    device_stats(device, &stats);
    return stats;
}

/* -- memory ------------------------------------------------------------------------------------ */

static void memory_is_counted_to_the_byte_and_bounded(void **state)
{
    (void)state;
    struct device *device = open_device((struct device_params){
        .limit_bytes = {[DEVICE_MEMORY_LOCAL] = 3 * MIB, [DEVICE_MEMORY_PINNED] = MIB}});
    struct lt_error error;
    void *a, *b, *c = NULL;
    assert_true(device_is_staged(device));
    assert_false(device_is_ram(device));
    assert_ok(device_take(device, DEVICE_MEMORY_LOCAL, 2 * MIB + 1, "a", &a, &error));
    assert_fails(device_take(device, DEVICE_MEMORY_LOCAL, MIB, "block 7", &c, &error),
                 LT_NO_DEVICE_MEMORY,
                 "block 7: 1.00 MiB of device memory do not fit: 2.00 MiB in use, the limit is "
                 "3.00 MiB");
    assert_ok(device_take(device, DEVICE_MEMORY_LOCAL, MIB - 1, "b", &b, &error));
    assert_ok(device_take(device, DEVICE_MEMORY_PINNED, MIB, "c", &c, &error));
    assert_fails(device_take(device, DEVICE_MEMORY_PINNED, 1, "d", &c, &error), LT_NO_MEMORY,
                 "pinned RAM");
    memset(c, 1, MIB);
    device_give(device, DEVICE_MEMORY_LOCAL, a, 2 * MIB + 1);
    assert_int_equal(stats_of(device).used_bytes[DEVICE_MEMORY_LOCAL], MIB - 1);
    assert_int_equal(stats_of(device).peak_bytes[DEVICE_MEMORY_LOCAL], 3 * MIB);
    device_give(device, DEVICE_MEMORY_LOCAL, b, MIB - 1);
    device_give(device, DEVICE_MEMORY_PINNED, c, MIB);
    device_destroy(&device);
}

/* Whatever the user allows, a card has what it has: known before anything is placed. */
static void the_card_itself_is_a_limit(void **state)
{
    (void)state;
    struct lt_error error;
    void *data;
    setenv("CUEMU_MEM_MB", "64", 1);
    struct device *device = open_device((struct device_params){.limit_bytes = {1ull << 40}});
    assert_int_equal(stats_of(device).limit_bytes[DEVICE_MEMORY_LOCAL], 62 * MIB);
    assert_fails(device_take(device, DEVICE_MEMORY_LOCAL, 63 * MIB, "w", &data, &error),
                 LT_NO_DEVICE_MEMORY, "the limit is 62.0 MiB");
    setenv("CUEMU_FAIL", "cudaMalloc:1", 1); /* fragments: the driver refuses what should fit */
    assert_fails(device_take(device, DEVICE_MEMORY_LOCAL, MIB, "w", &data, &error),
                 LT_NO_DEVICE_MEMORY, "w: the system has no device memory of 1.00 MiB");
    unsetenv("CUEMU_FAIL");
    assert_ok(device_take(device, DEVICE_MEMORY_LOCAL, MIB, "w", &data, &error)); /* works on */
    device_give(device, DEVICE_MEMORY_LOCAL, data, MIB);
    device_destroy(&device);
    unsetenv("CUEMU_MEM_MB");
}

/* -- queues ------------------------------------------------------------------------------------ */

struct work {
    struct device *device;
    void *to, *from;
    size_t bytes;
};

static lt_status copy_work(void *context, struct lt_error *error)
{
    const struct work *work = context;
    return device_copy(work->device, work->to, work->from, work->bytes, error);
}

enum { VALUES = 4096, ROUNDS = 6 };

/* A slot as swap.c uses one: fetched by the copy queue, read by compute that is only queued, and
 * fetched again at once. Each round must be read before the next one comes. */
static void turn_a_slot(struct device *device, struct lt_exec *exec,
                        const struct lt_kernels *kernels)
{
    struct lt_error error;
    struct device_event *fetched, *idle;
    void *pinned[ROUNDS], *slot, *sums;
    float result[ROUNDS][VALUES];
    const size_t bytes = VALUES * sizeof(float);
    assert_ok(device_event_create(device, &fetched, &error));
    assert_ok(device_event_create(device, &idle, &error));
    assert_ok(device_take(device, DEVICE_MEMORY_LOCAL, bytes, "slot", &slot, &error));
    assert_ok(lt_exec_take(exec, ROUNDS * bytes, &sums, &error));
    for (int r = 0; r < ROUNDS; r++) {
        struct work work = {device, slot, NULL, bytes};
        assert_ok(device_take(device, DEVICE_MEMORY_PINNED, bytes, "master", &pinned[r], &error));
        for (int i = 0; i < VALUES; i++)
            ((float *)pinned[r])[i] = (float)(r * VALUES + i);
        work.from = pinned[r];
        struct device_job job = {
            .run = copy_work, .context = &work, .after = idle, .done = fetched};
        device_submit(device, &job);
        assert_ok(device_wait(device, fetched, &error));
        assert_ok(LT_OP(convert, kernels, exec, &error,
                        .out = lt_view_1d((float *)sums + r * VALUES, LT_TYPE_F32, VALUES),
                        .in = lt_view_1d(slot, LT_TYPE_F32, VALUES)));
        device_mark(device, idle);
    }
    assert_ok(lt_exec_download(exec, result, sums, sizeof result, &error));
    for (int r = 0; r < ROUNDS; r++)
        for (int i = 0; i < VALUES; i++)
            assert_true(result[r][i] == (float)(r * VALUES + i));
    assert_int_equal(stats_of(device).copy_bytes, ROUNDS * bytes);
    assert_int_equal(stats_of(device).copy_count, ROUNDS);
    for (int r = 0; r < ROUNDS; r++)
        device_give(device, DEVICE_MEMORY_PINNED, pinned[r], bytes);
    device_give(device, DEVICE_MEMORY_LOCAL, slot, bytes);
    lt_exec_give(exec, sums, ROUNDS * bytes);
    device_event_destroy(&fetched);
    device_event_destroy(&idle);
}

static void a_slot_is_refilled_when_compute_has_read_it(void **state)
{
    (void)state;
    for (size_t o = 0; o < LT_COUNT(orders); o++) {
        struct lt_error error;
        struct lt_kernels kernels;
        setenv("CUEMU_WHEN", orders[o], 1);
        struct device *device = open_device((struct device_params){0});
        struct lt_exec *exec = open_exec(device, LT_PRECISION_F32);
        assert_ok(device_kernels(device, "best", &kernels, &error));
        turn_a_slot(device, exec, &kernels);
        lt_exec_destroy(&exec);
        device_destroy(&device);
    }
    unsetenv("CUEMU_WHEN");
}

/* -- memory of ops ----------------------------------------------------------------------------- */

/* Longer than the ring of pinned pieces, and overwritten as soon as the call returns. */
static void uploads_leave_their_source_at_once(void **state)
{
    (void)state;
    enum { BYTES = 9 * MIB + 5, ZEROS = 1000 };
    unsigned char *from = malloc(BYTES), *to = malloc(BYTES);
    assert_true(from && to);
    for (size_t o = 0; o < LT_COUNT(orders); o++) {
        struct lt_error error;
        void *data;
        setenv("CUEMU_WHEN", orders[o], 1);
        struct device *device = open_device((struct device_params){0});
        struct lt_exec *exec = open_exec(device, LT_PRECISION_BF16);
        assert_ok(lt_exec_take(exec, BYTES, &data, &error));
        for (int i = 0; i < BYTES; i++)
            from[i] = (unsigned char)(i * 7 + i / 251);
        assert_ok(lt_exec_upload(exec, data, from, BYTES, &error));
        memset(from, 0, BYTES);
        assert_ok(lt_exec_zero(exec, (char *)data + 5, ZEROS, &error));
        assert_ok(lt_exec_download(exec, to, data, BYTES, &error));
        for (int i = 0; i < BYTES; i++)
            assert_int_equal(to[i], i >= 5 && i < 5 + ZEROS ? 0 : (unsigned char)(i * 7 + i / 251));
        assert_int_equal(stats_of(device).used_bytes[DEVICE_MEMORY_LOCAL], BYTES + WORKSPACE);
        assert_int_equal(stats_of(device).used_bytes[DEVICE_MEMORY_PINNED],
                         device_staging_bytes(device));
        lt_exec_give(exec, data, BYTES);
        lt_exec_destroy(&exec);
        device_destroy(&device);
    }
    free(from);
    free(to);
    unsetenv("CUEMU_WHEN");
}

/* out[L,N] on the card, by weights [N,K] of f16. */
static lt_status multiply(struct lt_exec *exec, const struct lt_kernels *kernels, float *out,
                          struct lt_error *error)
{
    enum { ROWS = 3, IN = 64, OUT = 32 };
    static float in[ROWS * IN];
    static uint16_t weight[OUT * IN];
    void *x, *w, *y;
    for (int i = 0; i < ROWS * IN; i++)
        in[i] = (float)(i % 5);
    for (int i = 0; i < OUT * IN; i++)
        weight[i] = i % 3 ? 0x3c00 : 0xc000; /* 1, -2 */
    LT_TRY(lt_exec_take(exec, sizeof in, &x, error));
    LT_TRY(lt_exec_take(exec, sizeof weight, &w, error));
    LT_TRY(lt_exec_take(exec, ROWS * OUT * sizeof(float), &y, error));
    lt_status status = lt_exec_upload(exec, x, in, sizeof in, error);
    if (status == LT_OK)
        status = lt_exec_upload(exec, w, weight, sizeof weight, error);
    if (status == LT_OK)
        status = LT_OP(linear, kernels, exec, error, .out = lt_view_2d(y, LT_TYPE_F32, ROWS, OUT),
                       .in = lt_view_2d(x, LT_TYPE_F32, ROWS, IN),
                       .weight = lt_view_2d(w, LT_TYPE_F16, OUT, IN));
    if (status == LT_OK)
        status = lt_exec_download(exec, out, y, ROWS * OUT * sizeof(float), error);
    lt_exec_give(exec, y, ROWS * OUT * sizeof(float));
    lt_exec_give(exec, w, sizeof weight);
    lt_exec_give(exec, x, sizeof in);
    for (int l = 0; l < ROWS && status == LT_OK; l++)
        for (int n = 0; n < OUT; n++) {
            float sum = 0;
            for (int k = 0; k < IN; k++)
                sum += in[l * IN + k] * ((n * IN + k) % 3 ? 1 : -2);
            assert_true(out[l * OUT + n] == sum); /* small whole numbers: exact in bf16 too */
        }
    return status;
}

/* What ops were told to take is taken before, to the byte, and no op takes more. */
static void scratch_is_what_was_planned(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_scratch scratch;
    struct lt_kernels kernels;
    float out[3 * 32];
    struct device *device = open_device((struct device_params){0});
    assert_ok(device_kernels(device, "best", &kernels, &error));
    for (int precision = 0; precision < 2; precision++) {
        struct lt_exec *exec = open_exec(device, (enum lt_precision)precision);
        assert_ok(
            lt_scratch_linear((enum lt_precision)precision, 3, 64, 32, false, &scratch, &error));
        assert_true(scratch.cuda > 0);
        const size_t bytes = device_scratch_bytes(device, &scratch, 5);
        assert_int_equal(bytes, WORKSPACE + scratch.cuda);
        assert_ok(device_set_scratch(device, bytes, &error));
        assert_int_equal(stats_of(device).used_bytes[DEVICE_MEMORY_LOCAL], bytes);
        assert_ok(multiply(exec, &kernels, out, &error));
        assert_int_equal(stats_of(device).used_bytes[DEVICE_MEMORY_LOCAL], bytes);
        assert_ok(device_set_scratch(device, bytes - 1, &error));
        assert_fails(multiply(exec, &kernels, out, &error), LT_INTERNAL, "were planned");
        assert_ok(device_set_scratch(device, 0, &error));
        assert_int_equal(stats_of(device).used_bytes[DEVICE_MEMORY_LOCAL], WORKSPACE);
        lt_exec_destroy(&exec);
    }
    device_destroy(&device);
}

/* -- what goes wrong --------------------------------------------------------------------------- */

static void only_kernels_of_the_card_are_taken(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_kernels kernels;
    char name[128];
    struct device *device = open_device((struct device_params){0});
    assert_fails(device_kernels(device, "ref", &kernels, &error), LT_USAGE,
                 "--kernel ref: convert by 'ref' works on main memory, not on cuda:0");
    assert_fails(device_kernels(device, "attention=ref", &kernels, &error), LT_USAGE, "attention");
    device_class(device, name, sizeof name);
    assert_non_null(strstr(name, "sm_80 cuemu 0"));
    device_destroy(&device);
}

static void each_missing_card_has_its_line(void **state)
{
    (void)state;
    static const struct {
        const char *device, *name, *value;
        lt_status status;
        const char *text;
    } cases[] = {
        {"cuda:0", "CUEMU_DEVICES", "0", LT_NOT_FOUND, "this machine has no CUDA device"},
        {"cuda:2", "CUEMU_DEVICES", "2", LT_NOT_FOUND,
         "the last CUDA device of this machine is "
         "cuda:1"},
        {"cuda:0", "CUEMU_DRIVER", "11080", LT_UNSUPPORTED, "the NVIDIA driver serves CUDA 11.8"},
        {"cuda:0", "CUEMU_DRIVER", "0", LT_UNSUPPORTED, "no NVIDIA driver is installed"},
        {"cuda:0", "CUEMU_SM", "75", LT_UNSUPPORTED, "is sm_75, sm_80 (Ampere) or later"},
        {"cuda:0", "CUEMU_MEM_MB", "0", LT_NO_DEVICE_MEMORY, "0 B are free"},
        {"cuda:", "CUEMU_SM", "80", LT_USAGE, "expected host or cuda:N"},
        {"cuda:1x", "CUEMU_SM", "80", LT_USAGE, "expected host or cuda:N"},
        {"gpu", "CUEMU_SM", "80", LT_USAGE, "--device gpu: expected host or cuda:N"},
    };
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        struct lt_error error;
        struct device *device = NULL;
        setenv(cases[i].name, cases[i].value, 1);
        assert_fails(device_open(cases[i].device, &(struct device_params){0}, &device, &error),
                     cases[i].status, cases[i].text);
        assert_null(device);
        unsetenv(cases[i].name);
    }
    struct lt_error error;
    struct device *host;
    assert_ok(device_open("host", &(struct device_params){0}, &host, &error));
    assert_true(device_is_ram(host));
    device_destroy(&host);
}

/* In a process of its own: the driver's state is lost with it. */
static void break_the_card(const char *fault)
{
    struct lt_error error;
    struct lt_scratch scratch;
    struct lt_kernels kernels;
    struct device_event *idle, *fetched;
    float out[3 * 32], *pinned;
    void *slot;
    struct device *device = open_device((struct device_params){0});
    struct lt_exec *exec = open_exec(device, LT_PRECISION_BF16);
    assert_ok(device_kernels(device, "best", &kernels, &error));
    assert_ok(lt_scratch_linear(LT_PRECISION_BF16, 3, 64, 32, false, &scratch, &error));
    assert_ok(device_set_scratch(device, device_scratch_bytes(device, &scratch, 1), &error));
    assert_ok(device_event_create(device, &idle, &error));
    assert_ok(device_event_create(device, &fetched, &error));
    assert_ok(device_take(device, DEVICE_MEMORY_LOCAL, 64, "slot", &slot, &error));
    assert_ok(device_take(device, DEVICE_MEMORY_PINNED, 64, "master", (void **)&pinned, &error));
    setenv("CUEMU_FAIL", fault, 1);
    assert_fails(multiply(exec, &kernels, out, &error), LT_DEVICE, "illegal");
    unsetenv("CUEMU_FAIL");
    /* from here on everything fails, and everything can be given back */
    struct work work = {device, slot, pinned, 64};
    struct device_job job = {.run = copy_work, .context = &work, .after = idle, .done = fetched};
    void *more = NULL;
    device_mark(device, idle);
    device_submit(device, &job);
    assert_fails(device_wait(device, fetched, &error), LT_DEVICE, "device cuda:0");
    assert_fails(device_bind(device, &error), LT_DEVICE, "device cuda:0");
    assert_fails(device_take(device, DEVICE_MEMORY_LOCAL, 1, "x", &more, &error), LT_DEVICE,
                 "device cuda:0");
    assert_fails(lt_exec_upload(exec, slot, out, 4, &error), LT_DEVICE, "device cuda:0");
    assert_null(more);
    device_give(device, DEVICE_MEMORY_LOCAL, slot, 64);
    device_give(device, DEVICE_MEMORY_PINNED, pinned, 64);
    device_event_destroy(&idle);
    device_event_destroy(&fetched);
    lt_exec_destroy(&exec);
    device_destroy(&device);
}

static void a_broken_card_fails_at_once_and_for_good(void **state)
{
    (void)state;
    static const char *const faults[] = {"launch:2", "cudaMemcpyAsync:1", "cudaStreamSynchronize:1",
                                         "cudaEventRecord:1"};
    for (size_t i = 0; i < LT_COUNT(faults); i++) {
        int status = 0;
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            break_the_card(faults[i]);
            _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            fail_msg("%s: the process ended with %d", faults[i], status);
    }
}

int main(void)
{
    setenv("CUEMU_PROTECT", "1", 1);
    setenv("CUEMU_LEAKS", "1", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_broken_card_fails_at_once_and_for_good),
        cmocka_unit_test(each_missing_card_has_its_line),
        cmocka_unit_test(memory_is_counted_to_the_byte_and_bounded),
        cmocka_unit_test(the_card_itself_is_a_limit),
        cmocka_unit_test(a_slot_is_refilled_when_compute_has_read_it),
        cmocka_unit_test(uploads_leave_their_source_at_once),
        cmocka_unit_test(scratch_is_what_was_planned),
        cmocka_unit_test(only_kernels_of_the_card_are_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
