/* G9: whatever fails while a task is computed (a piece of memory, a read, a mapping), the engine
 * cleans up once, keeps the first cause, and computes the same bits when it is asked again. If not,
 * one bad moment would end a worker that holds an hour of loaded weights.
 *
 * The calls of our own objects are wrapped: those of libraries go on as they are. */
#include "tests/test.h"

#include "common/file.h"
#include "common/log.h"
#include "worker/engine.h"
#include "worker/synth.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* -- calls that fail --------------------------------------------------------------------------- */

enum {
    LAYERS = 2,
    VALUES = 16 * 2 * 4 * 4,
    TEXT_ROWS = 3,
    TEXT_DIM = 16,
    ERROR_BYTES = sizeof((struct lt_error *)0)->text
};

static atomic_int fail_at = -1, calls; /* the call that fails; -1: none */
static atomic_llong live;              /* pieces of memory that were taken and not given back */

static atomic_bool fail_on; /* so do all after it */

static bool fails(void)
{
    const int call = atomic_fetch_add(&calls, 1), at = atomic_load(&fail_at);
    return call == at || (at >= 0 && call > at && atomic_load(&fail_on));
}

static void *taken(void *data)
{
    atomic_fetch_add(&live, data != NULL);
    return data;
}

#define WRAP(type, name, ...)                                                                      \
    type __real_##name(__VA_ARGS__);                                                               \
    type __wrap_##name(__VA_ARGS__);                                                               \
    type __wrap_##name(__VA_ARGS__)

WRAP(void *, malloc, size_t bytes)
{
    return fails() ? NULL : taken(__real_malloc(bytes));
}

WRAP(void *, calloc, size_t count, size_t bytes)
{
    return fails() ? NULL : taken(__real_calloc(count, bytes));
}

WRAP(void *, aligned_alloc, size_t alignment, size_t bytes)
{
    return fails() ? NULL : taken(__real_aligned_alloc(alignment, bytes));
}

WRAP(void *, realloc, void *old, size_t bytes)
{
    if (fails())
        return NULL;
    return old ? __real_realloc(old, bytes) : taken(__real_realloc(NULL, bytes));
}

WRAP(char *, strdup, const char *text)
{
    return fails() ? NULL : taken(__real_strdup(text));
}

WRAP(void, free, void *data)
{
    atomic_fetch_sub(&live, data != NULL);
    __real_free(data);
}

WRAP(ssize_t, pread, int fd, void *data, size_t bytes, off_t offset)
{
    if (!fails())
        return __real_pread(fd, data, bytes, offset);
    errno = EIO;
    return -1;
}

WRAP(void *, mmap, void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    if (!fails())
        return __real_mmap(at, bytes, protection, flags, fd, offset);
    errno = ENOMEM;
    return MAP_FAILED;
}

static char cause[2]
                 [ERROR_BYTES]; /* the first failure told since: of the test's thread, of others */
static pthread_t computing;

lt_status __real_lt_fail(struct lt_error *error, lt_status status, const char *format, ...);
lt_status __wrap_lt_fail(struct lt_error *error, lt_status status, const char *format, ...);
lt_status __wrap_lt_fail(struct lt_error *error, lt_status status, const char *format, ...)
{
    struct lt_error made;
    va_list args;
    va_start(args, format);
    vsnprintf(made.text, sizeof made.text, format, args);
    va_end(args);
    char *first = cause[!pthread_equal(pthread_self(), computing)];
    if (atomic_load(&fail_on) && error && !first[0])
        strcpy(first, made.text);
    return __real_lt_fail(error, status, "%s", made.text);
}

/* -- a task of each kind ----------------------------------------------------------------------- */

static char dir[] = "/tmp/longtake-test-XXXXXX";
static float x[VALUES], text[TEXT_ROWS * TEXT_DIM];
static const struct lt_task_spec specs[] = {
    {.kind = LT_TASK_PREDICT,
     .model = {.name = "t2v.gguf"},
     .shape = {16, 2, 4, 4},
     .timestep = 500,
     .guidance = 1,
     .precision = LT_PRECISION_F32,
     .text_len = 8,
     .result_bytes = sizeof x},
    {.kind = LT_TASK_VAE_DECODE,
     .model = {.name = "vae.safetensors"},
     .shape = {16, 2, 4, 4},
     .precision = LT_PRECISION_F32,
     .result_bytes = 5 * 32 * 32 * 3},
};

static int make_models(void **state)
{
    (void)state;
    char path[300];
    struct synth_report report;
    if (!mkdtemp(dir))
        return 1;
    for (size_t i = 0; i < VALUES; i++)
        x[i] = 0.1f * (float)(i % 13) - 0.6f;
    for (size_t i = 0; i < LT_COUNT(text); i++)
        text[i] = 0.05f * (float)(i % 7);
    snprintf(path, sizeof path, "%s/t2v.gguf", dir);
    const struct synth_params dit = {.variant = "t2v-1.3b",
                                     .quant = "q8_0",
                                     .seed = 1,
                                     .layers = LAYERS,
                                     .dim = 128,
                                     .ffn = 64,
                                     .text_dim = TEXT_DIM,
                                     .freq_dim = 32,
                                     .path = path};
    if (synth_write(&dit, NULL, NULL, &report, NULL) != LT_OK)
        return 1;
    snprintf(path, sizeof path, "%s/vae.safetensors", dir);
    const struct synth_params vae = {.variant = "vae-z16", .seed = 2, .dim = 4, .path = path};
    return synth_write(&vae, NULL, NULL, &report, NULL) != LT_OK;
}

static int remove_models(void **state)
{
    (void)state;
    return lt_dir_remove(dir, NULL) != LT_OK;
}

static lt_status make_engine(struct engine **engine, struct lt_error *error)
{
    char path[2][300]; /* files, not their folder: scandir would take memory that we give back */
    snprintf(path[0], sizeof path[0], "%s/t2v.gguf", dir);
    snprintf(path[1], sizeof path[1], "%s/vae.safetensors", dir);
    const char *const files[] = {path[0], path[1]};
    const struct engine_params params = {.model_dir = files,
                                         .model_dir_count = 2,
                                         .thread_count = 1,
                                         .kernel_selector = "best",
                                         .memory = {.blocks_to_swap = LAYERS, .prefetch = 0}};
    return engine_create(&params, engine, error);
}

static struct engine_work run(struct engine *engine, size_t kind)
{
    struct engine_progress progress = {0};
    struct engine_work work = {
        .task = 1,
        .spec = &specs[kind],
        .blob = {{LT_BLOB_LATENTS, x, sizeof x}, {LT_BLOB_TEXT, text, sizeof text}},
        .blob_count = 2};
    engine_run(engine, &work, 1, &progress);
    return work;
}

/* -- tests ------------------------------------------------------------------------------------- */

static void expect_the_bits(struct engine *engine, size_t kind, const void *want, int call)
{
    struct engine_work again = run(engine, kind);
    if (again.status != LT_OK)
        fail_msg("call %d, asked again: %s", call, again.error.text);
    assert_memory_equal(again.result, want, specs[kind].result_bytes);
    __real_free(again.result);
    atomic_fetch_sub(&live, 1);
}

/* True: no call was left to fail. */
static bool fail_call(size_t kind, int call, const void *want, int *failures)
{
    struct engine *engine;
    struct lt_error error;
    const long long before = atomic_load(&live);
    assert_ok(make_engine(&engine, &error));
    atomic_store(&calls, 0);
    atomic_store(&fail_at, call);
    struct engine_work work = run(engine, kind);
    const bool past_all = atomic_load(&calls) <= call;
    atomic_store(&fail_at, -1);
    if (work.status == LT_OK) {
        assert_memory_equal(work.result, want, specs[kind].result_bytes);
        free(work.result);
    } else {
        assert_null(work.result);
        assert_true(work.error.text[0] != 0 && work.error.code == work.status);
        ++*failures;
    }
    if (!past_all)
        expect_the_bits(engine, kind, want, call);
    engine_destroy(&engine);
    if (atomic_load(&live) != before)
        fail_msg("call %d leaves %lld pieces of memory behind", call, atomic_load(&live) - before);
    return past_all;
}

/* Every `stride`th call. */
static void fail_calls(size_t kind, int stride)
{
    struct engine *engine;
    struct lt_error error;
    int failures = 0, call = 0;
    assert_ok(make_engine(&engine, &error));
    struct engine_work want = run(engine, kind);
    assert_int_equal(want.status, LT_OK);
    engine_destroy(&engine);
    while (!fail_call(kind, call, want.result, &failures))
        call += stride;
    assert_true(failures > 20 && call < 10000);
    free(want.result);
}

static void g9_3_every_call_of_a_prediction_may_fail(void **state)
{
    (void)state;
    fail_calls(0, LT_SANITIZED ? 5 : 1); /* sanitizers take their time */
}

static void g9_3_calls_of_a_decode_may_fail(void **state)
{
    (void)state;
    fail_calls(1, LT_SANITIZED ? 29 : 7); /* some 900 calls, alike for each frame and layer */
}

/* From call `call` on everything fails, cleaning up too. False: the task needed none of it. */
static bool break_down(int call, char told[ERROR_BYTES])
{
    struct engine *engine;
    struct lt_error error;
    assert_ok(make_engine(&engine, &error));
    memset(cause, 0, sizeof cause);
    computing = pthread_self();
    atomic_store(&calls, 0);
    atomic_store(&fail_on, true);
    atomic_store(&fail_at, call);
    struct engine_work work = run(engine, 0);
    atomic_store(&fail_at, -1);
    atomic_store(&fail_on, false);
    strcpy(told, work.error.text);
    free(work.result);
    engine_destroy(&engine);
    return work.status != LT_OK;
}

/* A task tells what failed first, on the thread that computes or on the one that reads. */
static void g9_2_the_first_cause_is_told(void **state)
{
    (void)state;
    int count = 0;
    char told[ERROR_BYTES];
    for (int call = 0; break_down(call, told); call += LT_SANITIZED ? 37 : 11, count++)
        if ((!cause[0][0] || !strstr(told, cause[0])) && (!cause[1][0] || !strstr(told, cause[1])))
            fail_msg("call %d: told '%s', first was '%s' or '%s'", call, told, cause[0], cause[1]);
    assert_true(count > (LT_SANITIZED ? 3 : 10));
}

static void g9_3_every_call_of_a_start_may_fail(void **state)
{
    (void)state;
    int call = 0, failures = 0;
    for (bool past_all = false; !past_all; call++) {
        struct engine *engine = NULL;
        struct lt_error error;
        const long long before = atomic_load(&live);
        atomic_store(&calls, 0);
        atomic_store(&fail_at, call);
        const lt_status status = make_engine(&engine, &error);
        past_all = atomic_load(&calls) <= call;
        atomic_store(&fail_at, -1);
        failures += status != LT_OK;
        engine_destroy(&engine);
        assert_int_equal(atomic_load(&live), before);
    }
    assert_true(failures > 3);
}

/* A cancelled task leaves the engine as it was. */
static void g9_1_cancel_cleans_up_once(void **state)
{
    (void)state;
    struct engine *engine;
    struct engine_progress progress = {.cancel = 1};
    struct lt_error error;
    const long long before = atomic_load(&live);
    assert_ok(make_engine(&engine, &error));
    struct engine_work work = {
        .task = 1,
        .spec = &specs[0],
        .blob = {{LT_BLOB_LATENTS, x, sizeof x}, {LT_BLOB_TEXT, text, sizeof text}},
        .blob_count = 2};
    engine_run(engine, &work, 1, &progress);
    assert_int_equal(work.status, LT_CANCELLED);
    assert_null(work.result);
    struct engine_work again = run(engine, 0);
    assert_int_equal(again.status, LT_OK);
    free(again.result);
    engine_destroy(&engine);
    assert_int_equal(atomic_load(&live), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(g9_2_the_first_cause_is_told),
        cmocka_unit_test(g9_3_every_call_of_a_prediction_may_fail),
        cmocka_unit_test(g9_3_calls_of_a_decode_may_fail),
        cmocka_unit_test(g9_3_every_call_of_a_start_may_fail),
        cmocka_unit_test(g9_1_cancel_cleans_up_once),
    };
    lt_log_set_level(LT_LOG_OFF);
    return cmocka_run_group_tests(tests, make_models, remove_models);
}
