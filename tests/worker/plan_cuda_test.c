/* If a plan were not what a card is asked for, a worker would run out of memory in the middle of a
 * job; if streaming changed a bit, a take would show where blocks were swapped. The worker on the
 * emulated card, with LoRAs, as a user starts it. */
#include "tests/test.h"

#include "common/file.h"
#include "common/rng.h"
#include "common/safetensors.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[] = "/tmp/longtake-test-XXXXXX";

/* Exit code of the worker on the emulated card, in `dir`. */
static int worker(const char *program, const char *arguments)
{
    char line[1024];
    snprintf(line, sizeof line,
             "cd %s && CUEMU_PROTECT=1 CUEMU_LEAKS=1 timeout 60 %s/%s %s >out.txt 2>&1", dir,
             LT_BINARY_DIR, program, arguments);
    const int status = system(line);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static char *file_of(const char *name, size_t *bytes_out)
{
    char path[300];
    struct lt_error error;
    void *text;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_ok(lt_file_read(path, 64 << 20, &text, bytes_out, &error));
    return text;
}

static unsigned long long reported(const char *name)
{
    size_t bytes;
    char *report = file_of("report.json", &bytes), *at = strstr(report, name);
    assert_non_null(at);
    const unsigned long long value = strtoull(at + strlen(name) + 2, NULL, 10);
    free(report);
    return value;
}

static void draw(float *values, size_t count, uint32_t number)
{
    const struct lt_philox stream = lt_philox_stream(3, LT_STREAM_TEST, 4, number);
    lt_philox_normal(&stream, 0, values, count);
}

static int make_files(void **state)
{
    (void)state;
    static float x[16 * 2 * 8 * 12], text[9 * 64], timestep[1] = {600};
    const struct lt_named_view inputs[] = {
        {"x", lt_view_4d(x, LT_TYPE_F32, 16, 2, 8, 12)},
        {"text", lt_view_2d(text, LT_TYPE_F32, 9, 64)},
        {"timestep", lt_view_1d(timestep, LT_TYPE_F32, 1)},
    };
    char path[300];
    if (!mkdtemp(dir))
        return 1;
    draw(x, LT_COUNT(x), 0);
    draw(text, LT_COUNT(text), 1);
    snprintf(path, sizeof path, "%s/in.safetensors", dir);
    return lt_safetensors_write(path, inputs, LT_COUNT(inputs), NULL, 0, NULL) != LT_OK ||
           worker("longtake-worker", "synth --variant t2v-1.3b --dim 256 --ffn 512 --layers 3 "
                                     "--text-dim 64 --quant q8_0 --seed 1 --output t2v.gguf") ||
           worker("longtake-worker",
                  "synth --variant lora --base t2v-1.3b --dim 256 --ffn 512 --layers 3 --text-dim "
                  "64 --rank 8 --seed 2 --output lora.safetensors");
}

static int remove_files(void **state)
{
    (void)state;
    return lt_dir_remove(dir, NULL) != LT_OK;
}

static int predict(const char *more)
{
    char line[512];
    snprintf(line, sizeof line,
             "eval dit --device cuda:0 --model t2v.gguf --lora lora.safetensors:0.7 --inputs "
             "in.safetensors --output v.safetensors --report report.json %s",
             more);
    return worker("longtake-worker-emulated", line);
}

static void streamed_blocks_give_the_same_bits_within_the_plan(void **state)
{
    static const struct {
        int swapped, prefetch;
        const char *when;
    } table[] = {{0, 0, "lazy"}, {1, 0, "lazy"}, {2, 1, "lazy"}, {3, 0, "eager"},
                 {3, 1, "1"},    {3, 2, "2"},    {2, 0, "3"}};
    char *first = NULL;
    size_t first_bytes = 0;
    (void)state;
    for (size_t i = 0; i < LT_COUNT(table); i++) {
        char more[128];
        size_t bytes;
        snprintf(more, sizeof more, "--blocks-to-swap %d --prefetch %d", table[i].swapped,
                 table[i].prefetch);
        setenv("CUEMU_WHEN", table[i].when, 1);
        if (predict(more) != 0)
            fail_msg("%s: %s", more, file_of("out.txt", &bytes));
        assert_in_range(reported("\"device_peak_bytes\""), 1, reported("\"device_bytes\""));
        char *v = file_of("v.safetensors", &bytes);
        if (i == 0) {
            first = v;
            first_bytes = bytes;
            continue;
        }
        assert_int_equal(bytes, first_bytes);
        assert_memory_equal(v, first, bytes);
        free(v);
    }
    free(first);
    unsetenv("CUEMU_WHEN");
}

/* With the plan's bytes and no more it runs; with one less by another plan (groups make room), that
 * is obeyed too; with next to nothing it is refused before it reads. */
static void a_limit_is_obeyed_to_the_byte(void **state)
{
    size_t bytes;
    char more[128];
    (void)state;
    assert_int_equal(predict("--blocks-to-swap 3 --prefetch 0"), 0);
    const unsigned long long plan = reported("\"device_bytes\"");
    for (unsigned less = 0; less < 2; less++) {
        snprintf(more, sizeof more, "--blocks-to-swap 3 --prefetch 0 --device-memory %llu",
                 plan - less);
        assert_int_equal(predict(more), 0);
        assert_int_equal(reported("\"device_bytes\"") == plan, less == 0);
        assert_in_range(reported("\"device_bytes\""), 1, plan - less);
        assert_in_range(reported("\"device_peak_bytes\""), 1, plan - less);
    }
    assert_int_equal(predict("--device-memory 5MiB"), 7);
    char *out = file_of("out.txt", &bytes);
    assert_non_null(strstr(out, "of the device are needed"));
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streamed_blocks_give_the_same_bits_within_the_plan),
        cmocka_unit_test(a_limit_is_obeyed_to_the_byte),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
