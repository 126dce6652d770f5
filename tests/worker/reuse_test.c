/* Steps that reuse earlier ones' work. If this fails, a step takes another window's or another
 * step's work for its own and the picture tears, or nothing is ever reused and a cache is slower
 * than none. */
#include "tests/test.h"

#include "common/file.h"
#include "worker/easycache.h"
#include "worker/engine.h"
#include "worker/synth.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    LAYERS = 3,
    DIM = 256,
    VALUES = 16 * 3 * 4 * 6,
    TOKENS = 3 * 2 * 3,
    TEXT_ROWS = 5,
    TEXT_DIM = 32,
    SUM_BYTES = TOKENS * DIM * 4, /* f32 */
};

static char dir[] = "/tmp/longtake-test-XXXXXX";

static int make_model(void **state)
{
    (void)state;
    char path[300];
    struct synth_report report;
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof path, "%s/t2v.gguf", dir);
    const struct synth_params dit = {.variant = "t2v-1.3b",
                                     .quant = "q8_0",
                                     .seed = 1,
                                     .layers = LAYERS,
                                     .dim = DIM,
                                     .ffn = 512,
                                     .text_dim = TEXT_DIM,
                                     .freq_dim = 64,
                                     .path = path};
    return synth_write(&dit, NULL, NULL, &report, NULL) != LT_OK;
}

static int remove_model(void **state)
{
    (void)state;
    return lt_dir_remove(dir, NULL) != LT_OK;
}

/* -- the bench --------------------------------------------------------------------------------- */

struct bench {
    struct engine *engine;
    struct engine_progress progress;
    struct lt_task_spec spec;
    float x[VALUES], text[2][TEXT_ROWS * TEXT_DIM], result[VALUES];
    uint64_t copied; /* bytes of blocks that the last task fetched */
};

static uint64_t copied_bytes(struct bench *b)
{
    struct lt_beat_memory memory;
    engine_memory(b->engine, &memory);
    return memory.copied_bytes;
}

/* Every block is streamed, so a task that runs blocks fetches them. */
static void begin(struct bench *b, uint64_t reuse_bytes)
{
    const char *const dirs[] = {dir};
    const struct engine_params params = {.model_dir = dirs,
                                         .model_dir_count = 1,
                                         .thread_count = 2,
                                         .kernel_selector = "best",
                                         .memory = {.blocks_to_swap = LAYERS, .prefetch = 0},
                                         .reuse_bytes = reuse_bytes};
    struct lt_error error;
    memset(b, 0, sizeof *b);
    assert_ok(engine_create(&params, &b->engine, &error));
    for (size_t i = 0; i < LT_COUNT(b->text[0]); i++) {
        b->text[0][i] = 0.01f * (float)(i % 17) - 0.05f;
        b->text[1][i] = 0.02f * (float)(i % 11) - 0.1f;
    }
    b->spec = (struct lt_task_spec){.kind = LT_TASK_PREDICT,
                                    .model = {.name = "t2v.gguf"},
                                    .shape = {16, 3, 4, 6},
                                    .timestep = 900,
                                    .guidance = 1,
                                    .precision = LT_PRECISION_F32,
                                    .text_len = 8,
                                    .result_bytes = sizeof b->x};
}

static void end(struct bench *b)
{
    engine_destroy(&b->engine);
}

/* A step of a window: its latents move a little each time. */
static void run(struct bench *b, uint32_t window, uint32_t step)
{
    const uint64_t before = copied_bytes(b);
    for (size_t i = 0; i < VALUES; i++)
        b->x[i] = 0.1f * (float)((i * (window + 3)) % 19) - 0.9f + 0.01f * (float)step;
    if (b->spec.cache != LT_CACHE_NONE)
        b->spec.cache_key = lt_sha256(&window, sizeof window);
    b->spec.cache_step = step;
    b->spec.timestep = 900 - (double)step;
    struct engine_work work = {.task = 1,
                               .spec = &b->spec,
                               .blob = {{LT_BLOB_LATENTS, b->x, sizeof b->x},
                                        {LT_BLOB_TEXT, b->text[0], sizeof b->text[0]},
                                        {LT_BLOB_TEXT_NEGATIVE, b->text[1], sizeof b->text[1]}},
                               .blob_count = 3};
    engine_run(b->engine, &work, 1, &b->progress);
    if (work.status != LT_OK)
        fail_msg("window %u, step %u: %s", window, step, work.error.text);
    memcpy(b->result, work.result, sizeof b->result);
    free(work.result);
    b->copied = copied_bytes(b) - before;
}

/* The step with (1 + the step of) what it reuses, for each of two predictions. */
static void run_reusing(struct bench *b, uint32_t window, uint32_t step, uint32_t with,
                        uint32_t without)
{
    b->spec.cache = LT_CACHE_PLANNED;
    b->spec.reuse[0] = with;
    b->spec.reuse[1] = without;
    b->spec.reuse_count = 2;
    run(b, window, step);
}

static void run_plainly(struct bench *b, uint32_t window, uint32_t step)
{
    b->spec.cache = LT_CACHE_NONE;
    b->spec.reuse_count = 0;
    run(b, window, step);
}

/* -- as planned -------------------------------------------------------------------------------- */

static void a_plan_without_skips_changes_no_bit(void **state)
{
    (void)state;
    struct bench plain, kept;
    for (int guided = 0; guided < 2; guided++) {
        begin(&plain, 0);
        begin(&kept, 1 << 20);
        plain.spec.guidance = kept.spec.guidance = guided ? 5 : 1;
        for (uint32_t step = 0; step < 3; step++) {
            run_plainly(&plain, 0, step);
            run_reusing(&kept, 0, step, 0, 0);
            assert_memory_equal(kept.result, plain.result, sizeof plain.result);
        }
        end(&plain);
        end(&kept);
    }
}

/* No block is fetched; the result is near that of the step itself, since the steps are. */
static void a_skipped_step_fetches_no_block(void **state)
{
    (void)state;
    struct bench plain, b;
    float first[VALUES];
    const enum lt_precision precisions[] = {LT_PRECISION_F32, LT_PRECISION_BF16};
    for (size_t p = 0; p < 2; p++) {
        begin(&plain, 0);
        begin(&b, 1 << 20);
        plain.spec.precision = b.spec.precision = precisions[p];
        plain.spec.guidance = b.spec.guidance = 5;
        run_reusing(&b, 0, 0, 0, 0);
        assert_true(b.copied > 0);
        run_reusing(&b, 0, 1, 1, 1);
        assert_int_equal(b.copied, 0);
        memcpy(first, b.result, sizeof first);
        run_reusing(&b, 0, 1, 1, 1); /* the same task again: a lost result */
        assert_memory_equal(b.result, first, sizeof first);
        run_reusing(&b, 0, 2, 1, 0); /* one half only */
        assert_true(b.copied > 0);
        run_plainly(&plain, 0, 1);
        double error = 0, size = 0;
        for (size_t i = 0; i < VALUES; i++) {
            error += fabs((double)first[i] - (double)plain.result[i]);
            size += fabs((double)plain.result[i]);
        }
        assert_true(error > 0 && error < 0.2 * size); /* latents move by 2%, guidance is 5 */
        end(&plain);
        end(&b);
    }
}

/* Whatever is not the wanted step's or a later one's, or another window's, is not taken. */
static void what_is_not_there_is_computed(void **state)
{
    (void)state;
    struct bench plain, b;
    begin(&plain, 0);
    begin(&b, 1 << 20);
    run_plainly(&plain, 0, 4);
    run_reusing(&b, 1, 0, 0, 0);
    run_reusing(&b, 0, 4, 1, 1); /* another window was here */
    assert_true(b.copied > 0);
    assert_memory_equal(b.result, plain.result, sizeof b.result);
    run_reusing(&b, 0, 5, 1, 1); /* step 4 had to be computed: it serves as well */
    assert_int_equal(b.copied, 0);
    run_reusing(&b, 0, 4, 1, 1); /* from a later step: no */
    assert_true(b.copied > 0);
    assert_memory_equal(b.result, plain.result, sizeof b.result);
    run_plainly(&plain, 0, 8);
    run_reusing(&b, 0, 8, 7, 7); /* step 6 was computed elsewhere */
    assert_true(b.copied > 0);
    assert_memory_equal(b.result, plain.result, sizeof b.result);
    end(&plain);
    end(&b);
}

static void what_was_evicted_is_computed(void **state)
{
    (void)state;
    struct bench plain, b;
    begin(&plain, 0);
    begin(&b, 2 * SUM_BYTES);
    run_reusing(&b, 0, 0, 0, 0);
    run_reusing(&b, 1, 0, 0, 0);
    run_reusing(&b, 0, 1, 1, 1);
    assert_int_equal(b.copied, 0);
    run_reusing(&b, 2, 0, 0, 0); /* in place of window 1, which is the older */
    run_reusing(&b, 0, 2, 1, 1);
    assert_int_equal(b.copied, 0);
    run_reusing(&b, 1, 1, 1, 1);
    assert_true(b.copied > 0);
    run_plainly(&plain, 1, 1);
    assert_memory_equal(b.result, plain.result, sizeof b.result);
    end(&b);
    begin(&b, SUM_BYTES - 1); /* no room for any */
    run_reusing(&b, 1, 0, 0, 0);
    run_reusing(&b, 1, 1, 1, 1);
    assert_true(b.copied > 0);
    assert_memory_equal(b.result, plain.result, sizeof b.result);
    end(&plain);
    end(&b);
}

/* -- EasyCache --------------------------------------------------------------------------------- */

/* Latents 10, 9, 8.5, 8.3, 8 with velocity 2x: the gain is 2 from the second step on.
 *
 *   step 2: 2 · 0.5 / 18 = .0556             skipped: 8.5 + (18 - 9)
 *   step 3:      + 2 · 0.2 / 18 = .0778      skipped: 8.3 + 9
 *   step 4:      + 2 · 0.3 / 18 = .1111      computed */
static void easycache_sums_what_latents_moved(void **state)
{
    (void)state;
    static const float x[] = {10, 9, 8.5f, 8.3f, 8};
    float seen, at, was, v;
    struct easycache c = {.count = 1, .seen = &seen, .x = &at, .v = &was};
    for (uint32_t step = 0; step < 5; step++) {
        const bool skip = easycache_decide(&c, &x[step], step, 0.1);
        assert_int_equal(skip, step == 2 || step == 3);
        v = 2 * x[step];
        if (skip) {
            easycache_predict(&c, &x[step], &v);
            assert_true(fabsf(v - (x[step] + 9)) < 1e-5f);
        } else {
            easycache_record(&c, &x[step], &v, step);
        }
    }
    assert_true(fabs(c.gain - 2) < 1e-5 && c.sum == 0 && c.computed_after == 5);
    assert_true(easycache_decide(&c, &x[4], 5, 0.1));  /* it stands still */
    assert_false(easycache_decide(&c, &x[4], 6, 0));   /* must be computed */
    assert_false(easycache_decide(&c, &x[4], 9, 0.1)); /* steps 7 and 8 were elsewhere */
}

/* Lists and sums of the authors' rule, written again in Python (f64) for latents that swing: 24
 * steps, the first four and the last computed. */
static void easycache_decides_as_published(void **state)
{
    (void)state;
    enum { WIDTH = 5, STEPS = 24 };
    static const struct {
        double threshold;
        const char *skips;
        double sum;
    } cases[] = {
        {0.1, " 4 22", 130.71015871},
        {0.3, " 4 5 6 8 18 20 21", 148.44716429},
        {1, " 4 5 6 7 8 9 10 11 15 17 18 19 21 22", 217.91167430},
    };
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        float seen[WIDTH], at[WIDTH], was[WIDTH], x[WIDTH], v[WIDTH];
        struct easycache c = {.count = WIDTH, .seen = seen, .x = at, .v = was};
        char skips[100] = "";
        double sum = 0;
        for (uint32_t step = 0; step < STEPS; step++) {
            for (int k = 0; k < WIDTH; k++) {
                x[k] = (float)(4 * cos(0.11 * step * (1 + 0.1 * k)) + 0.2 * k);
                v[k] = 1.5f * x[k] - sinf(x[k]);
            }
            const bool open = step >= 4 && step < STEPS - 1;
            if (easycache_decide(&c, x, step, open ? cases[i].threshold : 0)) {
                easycache_predict(&c, x, v);
                snprintf(skips + strlen(skips), sizeof skips - strlen(skips), " %u", step);
            } else {
                easycache_record(&c, x, v, step);
            }
            for (int k = 0; k < WIDTH; k++)
                sum += (double)v[k];
        }
        assert_string_equal(skips, cases[i].skips);
        assert_true(fabs(sum - cases[i].sum) < 1e-4);
    }
}

static void easycache_skips_whole_steps(void **state)
{
    (void)state;
    struct bench plain, b;
    float x[VALUES], v[VALUES];
    begin(&plain, 0);
    begin(&b, 1 << 20);
    b.spec.cache = LT_CACHE_EASY;
    for (uint32_t step = 0; step < 2; step++) { /* with threshold 0: computed */
        run(&b, 0, step);
        run_plainly(&plain, 0, step);
        assert_memory_equal(b.result, plain.result, sizeof b.result);
    }
    memcpy(x, b.x, sizeof x);
    memcpy(v, b.result, sizeof v);
    b.spec.cache_threshold = 1e5;
    run(&b, 0, 2);
    assert_int_equal(b.copied, 0);
    for (size_t i = 0; i < VALUES; i++)
        assert_true(b.result[i] == b.x[i] + (v[i] - x[i]));
    run(&b, 1, 2); /* another window knows nothing */
    assert_true(b.copied > 0);
    run(&b, 0, 4); /* a step was elsewhere */
    assert_true(b.copied > 0);
    end(&b);
    begin(&b, 1 << 20);
    b.spec.cache = LT_CACHE_EASY;
    b.spec.guidance = 5;
    for (uint32_t step = 0; step < 3; step++) {
        b.spec.cache_threshold = step < 2 ? 0 : 1e5;
        run(&b, 0, step);
        assert_int_equal(b.copied == 0, step == 2); /* the negative half follows */
    }
    end(&b);
    end(&plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plan_without_skips_changes_no_bit),
        cmocka_unit_test(a_skipped_step_fetches_no_block),
        cmocka_unit_test(what_is_not_there_is_computed),
        cmocka_unit_test(what_was_evicted_is_computed),
        cmocka_unit_test(easycache_sums_what_latents_moved),
        cmocka_unit_test(easycache_decides_as_published),
        cmocka_unit_test(easycache_skips_whole_steps),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
