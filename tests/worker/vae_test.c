/* If the VAE differed from the original, every frame would be blurred, shifted or flicker at latent
 * boundaries. Goldens: tests/golden/vae, from diffusers' AutoencoderKLWan in f32. */
#include "tests/test.h"

#include "common/file.h"
#include "tests/worker/fill.h"
#include "worker/model/vae.h"

#include <math.h>

static char dir[] = "/tmp/longtake-test-XXXXXX";
static char path[256];
static struct lt_safetensors *goldens;

static int begin(void **state)
{
    struct lt_error error;
    (void)state;
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof path, "%s/vae.safetensors", dir);
    return lt_safetensors_open(LT_SOURCE_DIR "/tests/golden/vae/vae.safetensors", &goldens,
                               &error) != LT_OK;
}

static int end(void **state)
{
    (void)state;
    lt_safetensors_close(&goldens);
    return lt_dir_remove(dir, NULL) != LT_OK;
}

/* -- weights: the rule of tests/golden/vae/make.py --------------------------------------------- */

static bool ends_with(const char *text, const char *tail)
{
    const size_t length = strlen(text), tail_length = strlen(tail);
    return length >= tail_length && strcmp(text + length - tail_length, tail) == 0;
}

static void fill_vae(const struct catalogue_entry *entry, float *to, size_t count)
{
    const double gain = strcmp(entry->name, "decoder.head.2.weight") == 0 ? 0.25 : 1;
    const float scale = (float)(gain * sqrt(3.0 / (double)((int64_t)count / entry->dim[0])));
    fill_values(entry->name, to, count);
    for (size_t i = 0; i < count; i++)
        to[i] = ends_with(entry->name, ".gamma")  ? 1 + 0.1f * to[i]
                : ends_with(entry->name, ".bias") ? 0.1f * to[i]
                                                  : scale * to[i];
}

static bool is_decoder(const char *name)
{
    enum vae_part part = VAE_DECODER;
    return vae_wants(&part, name);
}

static bool is_encoder(const char *name)
{
    enum vae_part part = VAE_ENCODER;
    return vae_wants(&part, name);
}

struct shape {
    const char *name;
    int64_t base, z, height, width;
};
static const struct shape small = {"small", 8, 4, 4, 6}, full = {"full", 96, 16, 4, 4};

static void write_file(const struct shape *shape, enum vae_part part)
{
    struct lt_error error;
    struct catalogue catalogue;
    const struct catalogue_vae config = {.dim = shape->base, .channels = shape->z};
    assert_ok(catalogue_of_vae(&config, &catalogue, &error));
    assert_ok(fill_file(path, &catalogue, fill_vae, part == VAE_DECODER ? is_decoder : is_encoder,
                        &error));
    catalogue_fini(&catalogue);
}

struct model {
    struct tensor_file *file;
    struct store *store;
    struct lt_kernels kernels;
    struct lt_exec *exec;
    struct vae *vae;
};

static void load(struct model *m, enum vae_part part, const char *kernels,
                 enum lt_precision precision)
{
    struct lt_error error;
    assert_ok(tensor_file_open(path, &m->file, &error));
    assert_ok(store_load(m->file, vae_wants, &part, &m->store, &error));
    assert_ok(lt_kernels_select(&m->kernels, lt_caps_detect(), kernels, &error));
    assert_ok(lt_exec_create(&(struct lt_exec_params){2, precision}, &m->exec, &error));
    assert_ok(vae_create(part, m->store, &m->kernels, m->exec, &m->vae, &error));
}

static void unload(struct model *m)
{
    vae_destroy(&m->vae);
    lt_exec_destroy(&m->exec);
    store_destroy(&m->store);
    tensor_file_close(&m->file);
}

/* -- comparing --------------------------------------------------------------------------------- */

static struct lt_view golden(const struct shape *shape, const char *what)
{
    char name[64];
    struct lt_error error;
    struct lt_view view;
    snprintf(name, sizeof name, "%s.%s", shape->name, what);
    assert_ok(lt_safetensors_read_f32(goldens, name, &view, &error));
    return view;
}

struct difference {
    double error, size; /* sums of squares */
};

static void compare(struct difference *d, const float *got, const float *want, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        d->error += (double)(got[i] - want[i]) * (double)(got[i] - want[i]);
        d->size += (double)want[i] * (double)want[i];
    }
}

static void within(const struct difference *d, double bound, const char *what, int64_t frames)
{
    const double relative = sqrt(d->error / d->size);
    print_message("%s, %d latent frames: relative error %.2g\n", what, (int)frames, relative);
    if (!(relative <= bound))
        fail_msg("%s, %d latent frames: relative error %.3g, at most %.3g", what, (int)frames,
                 relative, bound);
}

struct sink {
    const float *want;
    int64_t frame_values, frames;
    struct difference difference;
};

static lt_status take_frame(void *context, int64_t index, const float *rgb, struct lt_error *error)
{
    struct sink *sink = context;
    (void)error;
    assert_int_equal(index, sink->frames);
    compare(&sink->difference, rgb, sink->want + index * sink->frame_values, sink->frame_values);
    sink->frames++;
    return LT_OK;
}

/* The first `frames` of the five golden latent frames: the VAE is causal, so is its golden. */
static float *inputs(const struct shape *shape, const char *what, int64_t channels, int64_t all,
                     int64_t frames, int64_t plane)
{
    char name[64];
    float *whole = malloc((size_t)(channels * all * plane) * sizeof *whole);
    snprintf(name, sizeof name, "%s.%s", shape->name, what);
    fill_values(name, whole, (size_t)(channels * all * plane));
    for (int64_t c = 0; c < channels; c++)
        memmove(whole + c * frames * plane, whole + c * all * plane,
                (size_t)(frames * plane) * sizeof *whole);
    return whole;
}

static void decode(struct model *m, const struct shape *shape, int64_t frames, double bound)
{
    struct lt_error error;
    struct lt_view want = golden(shape, "decoded");
    float *x = inputs(shape, "latents", shape->z, 5, frames, shape->height * shape->width);
    const struct lt_view latents =
        lt_view_4d(x, LT_TYPE_F32, shape->z, frames, shape->height, shape->width);
    struct sink sink = {.want = want.data, .frame_values = 64 * shape->height * shape->width * 3};
    assert_ok(vae_decode(m->vae, &latents, take_frame, &sink, NULL, &error));
    assert_int_equal(sink.frames, 4 * frames - 3);
    within(&sink.difference, bound, "decode", frames);
    free(x);
    free(want.data);
}

static void encode(struct model *m, const struct shape *shape, int64_t frames, double bound)
{
    struct lt_error error;
    struct lt_view want = golden(shape, "encoded");
    const int64_t plane = shape->height * shape->width;
    float *x = inputs(shape, "pixels", 3, 17, 4 * frames - 3, 64 * plane);
    float *out = malloc((size_t)(shape->z * frames * plane) * sizeof *out);
    const struct lt_view pixels =
        lt_view_4d(x, LT_TYPE_F32, 3, 4 * frames - 3, 8 * shape->height, 8 * shape->width);
    struct lt_view latents =
        lt_view_4d(out, LT_TYPE_F32, shape->z, frames, shape->height, shape->width);
    struct difference difference = {0};
    assert_ok(vae_encode(m->vae, &pixels, &latents, NULL, &error));
    for (int64_t c = 0; c < shape->z; c++)
        compare(&difference, out + c * frames * plane, (const float *)want.data + c * 5 * plane,
                frames * plane);
    within(&difference, bound, "encode", frames);
    free(out);
    free(x);
    free(want.data);
}

static void all_lengths(const struct shape *shape, enum vae_part part, const char *kernels,
                        enum lt_precision precision, int64_t longest, double bound)
{
    static const int64_t lengths[] = {1, 2, 3, 5};
    struct model m;
    load(&m, part, kernels, precision);
    for (size_t i = 0; i < LT_COUNT(lengths) && lengths[i] <= longest; i++)
        part == VAE_DECODER ? decode(&m, shape, lengths[i], bound)
                            : encode(&m, shape, lengths[i], bound);
    unload(&m);
}

/* -- tests ------------------------------------------------------------------------------------- */

static void small_vae(void **state)
{
    (void)state;
    for (int part = VAE_DECODER; part <= VAE_ENCODER; part++) {
        write_file(&small, (enum vae_part)part);
        all_lengths(&small, (enum vae_part)part, "ref", LT_PRECISION_F32, 5, 1e-4);
        all_lengths(&small, (enum vae_part)part, "best", LT_PRECISION_F32, 5, 1e-4);
    }
}

static void full_width_vae(void **state)
{
    (void)state;
    for (int part = VAE_DECODER; part <= VAE_ENCODER; part++) {
        write_file(&full, (enum vae_part)part);
        all_lengths(&full, (enum vae_part)part, "best", LT_PRECISION_F32, 5, 1e-4);
        /* bf16 keeps 8 bits: 2^-9 a rounding, over some thirty layers of residual sums */
        all_lengths(&full, (enum vae_part)part, "best", LT_PRECISION_BF16, 5, 3e-2);
    }
}

static lt_status drop_frame(void *context, int64_t index, const float *rgb, struct lt_error *error)
{
    (void)index, (void)rgb, (void)error;
    ++*(int64_t *)context;
    return LT_OK;
}

static size_t decode_peak(enum lt_precision precision, int64_t latent_frames)
{
    struct lt_error error;
    struct model m;
    int64_t frames = 0;
    load(&m, VAE_DECODER, "best", precision);
    float *x = inputs(&small, "latents", small.z, latent_frames, latent_frames,
                      small.height * small.width);
    const struct lt_view latents =
        lt_view_4d(x, LT_TYPE_F32, small.z, latent_frames, small.height, small.width);
    assert_ok(vae_decode(m.vae, &latents, drop_frame, &frames, NULL, &error));
    assert_int_equal(frames, 4 * latent_frames - 3);
    const size_t peak = vae_peak_bytes(m.vae);
    free(x);
    unload(&m);
    return peak;
}

static size_t encode_peak(enum lt_precision precision, int64_t latent_frames)
{
    struct lt_error error;
    struct model m;
    const int64_t frames = 4 * latent_frames - 3, plane = small.height * small.width;
    load(&m, VAE_ENCODER, "best", precision);
    float *x = inputs(&small, "pixels", 3, frames, frames, 64 * plane);
    float *out = malloc((size_t)(small.z * latent_frames * plane) * sizeof *out);
    const struct lt_view pixels =
        lt_view_4d(x, LT_TYPE_F32, 3, frames, 8 * small.height, 8 * small.width);
    struct lt_view latents =
        lt_view_4d(out, LT_TYPE_F32, small.z, latent_frames, small.height, small.width);
    assert_ok(vae_encode(m.vae, &pixels, &latents, NULL, &error));
    const size_t peak = vae_peak_bytes(m.vae);
    free(out);
    free(x);
    unload(&m);
    return peak;
}

static void memory_does_not_grow_with_time(void **state)
{
    (void)state;
    for (int p = LT_PRECISION_F32; p <= LT_PRECISION_BF16; p++) {
        const enum lt_precision precision = (enum lt_precision)p;
        write_file(&small, VAE_DECODER);
        assert_int_equal(decode_peak(precision, 5), decode_peak(precision, 21));
        write_file(&small, VAE_ENCODER);
        assert_int_equal(encode_peak(precision, 5), encode_peak(precision, 21));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_vae),
        cmocka_unit_test(full_width_vae),
        cmocka_unit_test(memory_does_not_grow_with_time),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
