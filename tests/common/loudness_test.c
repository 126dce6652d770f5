/* If loudness were measured otherwise than by pyloudnorm, every voice would reach the audio encoder
 * at another level than the talk models were trained on: mouths that mumble or shout. */
#include "tests/test.h"

#include "common/loudness.h"
#include "common/safetensors.h"
#include "tests/worker/fill.h"

#include <math.h>

enum { RATE = 16000, ROOM = 64000 };

static double golden(const char *name)
{
    struct lt_safetensors *file;
    struct lt_error error;
    double lufs;
    assert_ok(
        lt_safetensors_open(LT_SOURCE_DIR "/tests/golden/audio/audio.safetensors", &file, &error));
    const struct lt_safetensor *tensor = lt_safetensors_find(file, name);
    assert_non_null(tensor);
    assert_ok(lt_safetensors_read(file, tensor, &lufs, &error));
    lt_safetensors_close(&file);
    return lufs;
}

/* The signals of tests/golden/audio/make.py. */
static size_t noise(const char *name, float amplitude, size_t count, float *to)
{
    fill_values(name, to, count);
    for (size_t i = 0; i < count; i++)
        to[i] *= amplitude;
    return count;
}

static size_t swell(size_t count, float *to)
{
    fill_values("loudness.odd", to, count);
    for (size_t i = 0; i < count; i++)
        to[i] = (float)(0.2 * (0.55 + 0.45 * sin((double)i * 0.0004)) * (double)to[i] + 0.01);
    return count;
}

static size_t square(size_t count, float *to)
{
    fill_values("loudness.clipping", to, count);
    for (size_t i = 0; i < count; i++)
        to[i] = to[i] > 0 ? 3 : -3;
    return count;
}

static size_t make(const char *name, float *to)
{
    if (strcmp(name, "plain") == 0)
        return noise("loudness.plain", 0.3f, 32000, to);
    if (strcmp(name, "odd") == 0)
        return swell(12347, to);
    if (strcmp(name, "gated") == 0)
        return noise("loudness.gated", 0.5f, 20001, to) +
               noise("loudness.hush", 0.0005f, 30011, to + 20001);
    if (strcmp(name, "clipping") == 0)
        return square(9000, to);
    if (strcmp(name, "silence") == 0)
        return noise("silence", 0, 16000, to);
    if (strcmp(name, "faint") == 0)
        return noise("loudness.faint", 1e-5f, 16000, to);
    return noise("loudness.block", 0.1f, 6400, to);
}

static void as_pyloudnorm_does(void **state)
{
    (void)state;
    static const char *const names[] = {"plain",   "odd",   "gated", "clipping",
                                        "silence", "faint", "block"};
    float *samples = malloc(ROOM * sizeof *samples);
    for (size_t i = 0; i < LT_COUNT(names); i++) {
        struct lt_error error;
        char key[64];
        double got;
        snprintf(key, sizeof key, "loudness.%s", names[i]);
        const double want = golden(key);
        const size_t count = make(names[i], samples);
        assert_ok(lt_loudness_measure(samples, count, RATE, &got, &error));
        if (isinf(want))
            assert_true(isinf(got) && got < 0);
        else if (!(fabs(got - want) <= 1e-6)) /* the signals' own rounding to f32 */
            fail_msg("%s: %.9f LUFS, expected %.9f", names[i], got, want);
    }
    free(samples);
}

static void what_has_no_loudness_is_left_alone(void **state)
{
    (void)state;
    struct lt_error error;
    float samples[6400] = {0.5f};
    double lufs;
    assert_ok(lt_loudness_measure(samples, 6399, RATE, &lufs, &error));
    assert_true(isnan(lufs)); /* shorter than a block */
    assert_true(lt_loudness_gain(lufs, -23) == 1);
    assert_true(lt_loudness_gain(-INFINITY, -23) == 1);
    assert_true(lt_loudness_gain(-100.5, -23) == 1); /* as the originals: |L| > 100 */
    assert_true(fabs(lt_loudness_gain(-43, -23) - 10) < 1e-12);
    assert_true(fabs(lt_loudness_gain(-3, -23) - 0.1) < 1e-12);
    assert_ok(lt_loudness_measure(NULL, 0, RATE, &lufs, &error));
    assert_true(isnan(lufs));
}

/* A normalised signal measures what it was brought to. */
static void the_gain_reaches_its_target(void **state)
{
    (void)state;
    struct lt_error error;
    float *samples = malloc(ROOM * sizeof *samples);
    double lufs;
    const size_t count = make("gated", samples);
    assert_ok(lt_loudness_measure(samples, count, RATE, &lufs, &error));
    const double gain = lt_loudness_gain(lufs, -23);
    for (size_t i = 0; i < count; i++)
        samples[i] *= (float)gain;
    assert_ok(lt_loudness_measure(samples, count, RATE, &lufs, &error));
    assert_true(fabs(lufs + 23) < 1e-3); /* hush now lies nearer to the absolute gate */
    free(samples);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_pyloudnorm_does),
        cmocka_unit_test(what_has_no_loudness_is_left_alone),
        cmocka_unit_test(the_gain_reaches_its_target),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
