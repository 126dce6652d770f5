/* One small model of each kind, written by synth, computed by eval on the host and on the device,
 * from the same inputs: what a person would do by hand to compare two machines. */
#include "worker/selftest.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/rng.h"
#include "common/safetensors.h"
#include "worker/commands.h"
#include "worker/synth.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { INPUTS_MAX = 8, MODELS_MAX = 2, ARGUMENTS_MAX = 32, PATH_BYTES = 300 };

struct input {
    const char *name;
    int rank;
    int64_t dim[4];
    double constant; /* every value; 0: normal ones */
};

/* `result`: the tensor that is compared. Bounds: of f32 in another order of sums; of bf16, inputs
 * of every product rounded to 2^-9 behind sums that differ a little. */
static const struct kind {
    const char *name, *component, *result, *precision;
    double bound;
    struct synth_params model[MODELS_MAX];
    struct input input[INPUTS_MAX];
    const char *more[3];
} kinds[] = {
    {.name = "t2v f32",
     .component = "dit",
     .result = "v",
     .precision = "f32",
     .bound = 1e-4,
     .model = {{.variant = "t2v-1.3b",
                .quant = "q8_0",
                .dim = 256,
                .ffn = 512,
                .layers = 3,
                .text_dim = 64}},
     .input = {{"x", 4, {16, 3, 8, 12}, 0}, {"timestep", 1, {1}, 500}, {"text", 2, {9, 64}, 0}}},
    {.name = "t2v bf16, blocks swapped",
     .component = "dit",
     .result = "v",
     .precision = "bf16",
     .bound = 2e-2,
     .model = {{.variant = "t2v-1.3b",
                .quant = "q5_k_m",
                .dim = 256,
                .ffn = 512,
                .layers = 3,
                .text_dim = 256}},
     .input = {{"x", 4, {16, 3, 8, 12}, 0}, {"timestep", 1, {1}, 500}, {"text", 2, {9, 256}, 0}},
     .more = {"--blocks-to-swap", "2"}},
    {.name = "i2v",
     .component = "dit",
     .result = "v",
     .precision = "bf16",
     .bound = 2e-2,
     .model = {{.variant = "i2v-14b",
                .quant = "q8_0",
                .dim = 256,
                .ffn = 256,
                .layers = 2,
                .text_dim = 64}},
     .input = {{"x", 4, {16, 2, 4, 6}, 0},
               {"timestep", 1, {1}, 700},
               {"text", 2, {5, 64}, 0},
               {"y", 4, {20, 2, 4, 6}, 0},
               {"clip", 2, {257, 1280}, 0}}},
    {.name = "animate",
     .component = "dit",
     .result = "v",
     .precision = "bf16",
     .bound = 2e-2,
     .model = {{.variant = "animate-14b",
                .quant = "q8_0",
                .dim = 256,
                .ffn = 256,
                .layers = 2,
                .text_dim = 64,
                .face_size = 8}},
     .input = {{"x", 4, {16, 2, 4, 6}, 0},
               {"timestep", 1, {1}, 700},
               {"text", 2, {5, 64}, 0},
               {"y", 4, {20, 2, 4, 6}, 0},
               {"clip", 2, {257, 1280}, 0},
               {"pose", 4, {16, 1, 4, 6}, 0},
               {"face", 4, {3, 1, 8, 8}, 0}}},
    {.name = "talk",
     .component = "dit",
     .result = "v",
     .precision = "bf16",
     .bound = 2e-2,
     .model = {{.variant = "i2v-14b",
                .quant = "f16",
                .dim = 256,
                .ffn = 256,
                .layers = 2,
                .text_dim = 64},
               {.variant = "talk-addon",
                .quant = "f16",
                .dim = 256,
                .layers = 2,
                .audio_features = 128}},
     .input = {{"x", 4, {16, 2, 4, 6}, 0},
               {"timestep", 1, {1}, 700},
               {"text", 2, {5, 64}, 0},
               {"y", 4, {20, 2, 4, 6}, 0},
               {"clip", 2, {257, 1280}, 0},
               {"audio", 4, {1, 11, 2, 64}, 0}}},
    {.name = "vae, decoding",
     .component = "vae-decode",
     .result = "pixels",
     .precision = "bf16",
     .bound = 2e-2,
     .model = {{.variant = "vae-z16", .dim = 16}},
     .input = {{"latents", 4, {16, 2, 4, 4}, 0}}},
    {.name = "vae, encoding",
     .component = "vae-encode",
     .result = "latents",
     .precision = "bf16",
     .bound = 2e-2,
     .model = {{.variant = "vae-z16", .dim = 16}},
     .input = {{"pixels", 4, {3, 5, 32, 32}, 0}}},
    {.name = "text encoder",
     .component = "text",
     .result = "text",
     .precision = "bf16",
     .bound = 2e-2,
     .model = {{.variant = "umt5", .dim = 64, .ffn = 128, .layers = 2, .tokens = 512}},
     .more = {"--set", "prompt=a cat walks over a bridge"}},
    {.name = "picture encoder",
     .component = "image",
     .result = "clip",
     .precision = "bf16",
     .bound = 2e-2,
     .model = {{.variant = "clip-vision", .dim = 64, .ffn = 128, .layers = 2}},
     .input = {{"pixels", 3, {3, 40, 56}, 0.4}},
     .more = {"--set", "heads=4"}},
    {.name = "voice encoder",
     .component = "audio",
     .result = "audio",
     .precision = "bf16",
     .bound = 2e-2,
     .model = {{.variant = "wav2vec2", .dim = 64, .ffn = 128, .layers = 2}},
     .input = {{"samples", 1, {8000}, 0}},
     .more = {"--set", "heads=4"}},
};

/* -- files ------------------------------------------------------------------------------------- */

static void name_file(char path[PATH_BYTES], const char *dir, const char *name, const char *end)
{
    snprintf(path, PATH_BYTES, "%s/%s.%s", dir, name, end);
}

static lt_status draw(const struct input *input, uint32_t number, struct lt_view *view_out,
                      struct lt_error *error)
{
    struct lt_view view = lt_view_make(NULL, LT_TYPE_F32, input->rank, input->dim);
    const size_t count = (size_t)lt_view_count(&view);
    const struct lt_philox stream = lt_philox_stream(1, LT_STREAM_TEST, 3, number);
    float *values = malloc(count * sizeof *values);
    if (!values)
        return lt_fail(error, LT_NO_MEMORY, "no memory for inputs");
    lt_philox_normal(&stream, 0, values, count);
    for (size_t i = 0; i < count && input->constant != 0; i++)
        values[i] = (float)input->constant;
    view.data = values;
    *view_out = view;
    return LT_OK;
}

static lt_status write_inputs(const struct kind *kind, const char *path, struct lt_error *error)
{
    struct lt_named_view tensor[INPUTS_MAX];
    size_t count = 0;
    lt_status status = LT_OK;
    for (; count < INPUTS_MAX && kind->input[count].name && status == LT_OK; count++) {
        tensor[count] = (struct lt_named_view){.name = kind->input[count].name};
        status = draw(&kind->input[count], (uint32_t)count, &tensor[count].view, error);
    }
    if (status == LT_OK)
        status = lt_safetensors_write(path, tensor, count, NULL, 0, error);
    while (count > 0)
        free(tensor[--count].view.data);
    return status;
}

static lt_status read_result(const char *path, const char *name, struct lt_view *view_out,
                             struct lt_error *error)
{
    struct lt_safetensors *file;
    LT_TRY(lt_safetensors_open(path, &file, error));
    const lt_status status = lt_safetensors_read_f32(file, name, view_out, error);
    lt_safetensors_close(&file);
    return status;
}

/* -- a kind ------------------------------------------------------------------------------------ */

static bool is_gguf(const struct synth_params *params)
{
    return params->text_dim > 0 || params->audio_features > 0 || params->variant[0] == 'u';
}

static lt_status write_models(const struct kind *kind, const char *dir,
                              char path[MODELS_MAX][PATH_BYTES], size_t *count_out,
                              struct lt_error *error)
{
    *count_out = 0;
    for (size_t i = 0; i < MODELS_MAX && kind->model[i].variant; i++) {
        struct synth_params params = kind->model[i];
        char name[16];
        snprintf(name, sizeof name, "model-%zu", i);
        name_file(path[i], dir, name, is_gguf(&params) ? "gguf" : "safetensors");
        params.seed = i + 1;
        params.path = path[i];
        LT_TRY(synth_write(&params, NULL, NULL, &(struct synth_report){0}, error));
        ++*count_out;
    }
    return LT_OK;
}

/* `eval`, as from the command line; the text of its errors goes to standard error. */
static lt_status evaluate(const struct selftest *test, const struct kind *kind, const char *device,
                          char model[MODELS_MAX][PATH_BYTES], size_t model_count,
                          const char *inputs, const char *output, double *seconds_out,
                          struct lt_error *error)
{
    char threads[16];
    const char *argument[ARGUMENTS_MAX] = {
        "eval", kind->component, "--device",      device,      "--output",
        output, "--precision",   kind->precision, "--threads", threads};
    int count = 10;
    snprintf(threads, sizeof threads, "%d", test->thread_count);
    for (size_t i = 0; i < model_count; i++) {
        argument[count++] = "--model";
        argument[count++] = model[i];
    }
    if (kind->input[0].name) {
        argument[count++] = "--inputs";
        argument[count++] = inputs;
    }
    for (size_t i = 0; i < LT_COUNT(kind->more) && kind->more[i]; i++)
        argument[count++] = kind->more[i];
    const int64_t begin = lt_clock_now_us();
    const int code = worker_eval(count, (char **)argument);
    *seconds_out = (double)(lt_clock_now_us() - begin) * 1e-6;
    if (code == lt_status_exit_code(LT_UNSUPPORTED))
        return lt_fail(error, LT_UNSUPPORTED, "%s does not run on %s yet", kind->component, device);
    return code == 0 ? LT_OK
                     : lt_fail(error, LT_DEVICE, "eval on %s ends with exit code %d", device, code);
}

static lt_status compare(struct selftest *test, const struct kind *kind, const char *dir,
                         struct selftest_row *row, struct lt_error *error)
{
    char model[MODELS_MAX][PATH_BYTES], inputs[PATH_BYTES], on_host[PATH_BYTES],
        on_device[PATH_BYTES];
    struct lt_view want = {0}, got = {0};
    double host_seconds, seconds;
    size_t model_count;
    name_file(inputs, dir, "inputs", "safetensors");
    name_file(on_host, dir, "host", "safetensors");
    name_file(on_device, dir, "device", "safetensors");
    LT_TRY(write_models(kind, dir, model, &model_count, error));
    LT_TRY(write_inputs(kind, inputs, error));
    LT_TRY(evaluate(test, kind, "host", model, model_count, inputs, on_host, &host_seconds, error));
    LT_TRY(evaluate(test, kind, test->device_name, model, model_count, inputs, on_device, &seconds,
                    error));
    lt_status status = read_result(on_host, kind->result, &want, error);
    if (status == LT_OK)
        status = read_result(on_device, kind->result, &got, error);
    if (status == LT_OK && lt_view_count(&want) != lt_view_count(&got))
        status = lt_fail(error, LT_DEVICE, "the results have different shapes");
    if (status == LT_OK) {
        selftest_compare(row, got.data, want.data, (size_t)lt_view_count(&want), kind->bound);
        snprintf(row->note, sizeof row->note, "%s %s; with loading %.2f s, host %.2f s",
                 kind->component, kind->precision, seconds, host_seconds);
    }
    free(want.data);
    free(got.data);
    return status;
}

void selftest_models(struct selftest *test)
{
    struct lt_error error;
    const char *base = getenv("TMPDIR");
    char dir[256];
    snprintf(dir, sizeof dir, "%s/longtake-selftest-XXXXXX", base && base[0] ? base : "/tmp");
    if (!mkdtemp(dir)) {
        lt_fail(&error, LT_IO, "%s: cannot create a folder", dir);
        selftest_fail(test, "model", "all", &error);
        return;
    }
    for (size_t i = 0; i < LT_COUNT(kinds); i++) {
        struct selftest_row *row = selftest_row(test, "model", kinds[i].name);
        const lt_status status = compare(test, &kinds[i], dir, row, &error);
        if (status != LT_OK) {
            row->skipped = status == LT_UNSUPPORTED;
            row->failed = !row->skipped;
            snprintf(row->note, sizeof row->note, "%.190s", error.text);
        }
        selftest_print(test);
    }
    lt_dir_remove(dir, NULL);
}
