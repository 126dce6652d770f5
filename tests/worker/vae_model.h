/* VAEs of any size with the weights that tests/golden/vae was made with, and their comparison with
 * it. */
#pragma once

#include "common/file.h"
#include "tests/test.h"
#include "tests/worker/fill.h"
#include "worker/model/vae.h"

#include <math.h>

static char dir[] = "/tmp/longtake-test-XXXXXX";
static char path[256];
static struct lt_safetensors *goldens;

/* Not every test uses every helper. */

/* A folder for the model file, and the fixture of that name. */
static inline int begin(const char *fixture)
{
    struct lt_error error;
    char golden_path[512];
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof path, "%s/vae.safetensors", dir);
    snprintf(golden_path, sizeof golden_path, "%s/tests/golden/vae/%s", LT_SOURCE_DIR, fixture);
    return lt_safetensors_open(golden_path, &goldens, &error) != LT_OK;
}

static inline int end(void **state)
{
    (void)state;
    lt_safetensors_close(&goldens);
    return lt_dir_remove(dir, NULL) != LT_OK;
}

/* -- weights: the rule of tests/golden/vae/make.py --------------------------------------------- */

static inline bool ends_with(const char *text, const char *tail)
{
    const size_t length = strlen(text), tail_length = strlen(tail);
    return length >= tail_length && strcmp(text + length - tail_length, tail) == 0;
}

static inline void fill_vae(const struct catalogue_entry *entry, float *to, size_t count)
{
    const double gain = strcmp(entry->name, "decoder.head.2.weight") == 0 ? 0.25 : 1;
    const float scale = (float)(gain * sqrt(3.0 / (double)((int64_t)count / entry->dim[0])));
    fill_values(entry->name, to, count);
    for (size_t i = 0; i < count; i++)
        to[i] = ends_with(entry->name, ".gamma")  ? 1 + 0.1f * to[i]
                : ends_with(entry->name, ".bias") ? 0.1f * to[i]
                                                  : scale * to[i];
}

static inline bool is_decoder(const char *name)
{
    enum vae_part part = VAE_DECODER;
    return vae_wants(&part, name);
}

static inline bool is_encoder(const char *name)
{
    enum vae_part part = VAE_ENCODER;
    return vae_wants(&part, name);
}

struct shape {
    const char *name; /* in the fixture */
    int64_t base, z, height, width;
    int64_t decoder_base; /* of the Wan 2.2 kind; 0: the Wan 2.1 kind */
};

static inline int64_t scale_of(const struct shape *shape)
{
    return shape->decoder_base ? 16 : 8;
}

static inline void write_file(const struct shape *shape, enum vae_part part)
{
    struct lt_error error;
    struct catalogue catalogue;
    const struct catalogue_vae config = {.grouped = shape->decoder_base > 0,
                                         .dim = shape->base,
                                         .decoder_dim = shape->decoder_base,
                                         .channels = shape->z};
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

static inline void load(struct model *m, enum vae_part part, const char *kernels,
                        enum lt_precision precision)
{
    struct lt_error error;
    assert_ok(tensor_file_open(path, &m->file, &error));
    assert_ok(store_load(m->file, vae_wants, &part, &m->store, &error));
    assert_ok(lt_kernels_select(&m->kernels, lt_caps_detect(), kernels, &error));
    assert_ok(lt_exec_create(&(struct lt_exec_params){2, precision}, &m->exec, &error));
    assert_ok(vae_create(part, m->store, &m->kernels, m->exec, &m->vae, &error));
}

static inline void unload(struct model *m)
{
    vae_destroy(&m->vae);
    lt_exec_destroy(&m->exec);
    store_destroy(&m->store);
    tensor_file_close(&m->file);
}

/* -- comparing --------------------------------------------------------------------------------- */

static inline struct lt_view golden(const struct shape *shape, const char *what)
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

static inline void compare(struct difference *d, const float *got, const float *want, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        d->error += (double)(got[i] - want[i]) * (double)(got[i] - want[i]);
        d->size += (double)want[i] * (double)want[i];
    }
}

static inline void within(const struct difference *d, double bound, const char *what,
                          int64_t frames)
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

static inline lt_status take_frame(void *context, int64_t index, const float *rgb,
                                   struct lt_error *error)
{
    struct sink *sink = context;
    (void)error;
    assert_int_equal(index, sink->frames);
    compare(&sink->difference, rgb, sink->want + index * sink->frame_values, sink->frame_values);
    sink->frames++;
    return LT_OK;
}

/* The first `frames` of the five golden latent frames: the VAE is causal, so is its golden. */
static inline float *inputs(const struct shape *shape, const char *what, int64_t channels,
                            int64_t all, int64_t frames, int64_t plane)
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

static inline void decode(struct model *m, const struct shape *shape, int64_t frames, double bound)
{
    struct lt_error error;
    struct lt_view want = golden(shape, "decoded");
    float *x = inputs(shape, "latents", shape->z, 5, frames, shape->height * shape->width);
    const struct lt_view latents =
        lt_view_4d(x, LT_TYPE_F32, shape->z, frames, shape->height, shape->width);
    struct sink sink = {.want = want.data,
                        .frame_values =
                            scale_of(shape) * scale_of(shape) * shape->height * shape->width * 3};
    assert_ok(vae_decode(m->vae, &latents, take_frame, &sink, NULL, &error));
    assert_int_equal(sink.frames, 4 * frames - 3);
    within(&sink.difference, bound, "decode", frames);
    free(x);
    free(want.data);
}

static inline void encode(struct model *m, const struct shape *shape, int64_t frames, double bound)
{
    struct lt_error error;
    struct lt_view want = golden(shape, "encoded");
    const int64_t plane = shape->height * shape->width, scale = scale_of(shape);
    float *x = inputs(shape, "pixels", 3, 17, 4 * frames - 3, scale * scale * plane);
    float *out = malloc((size_t)(shape->z * frames * plane) * sizeof *out);
    const struct lt_view pixels =
        lt_view_4d(x, LT_TYPE_F32, 3, 4 * frames - 3, scale * shape->height, scale * shape->width);
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

/* Latent frames: every one of `lengths`, which ends with 0. */
static inline void all_lengths(const struct shape *shape, enum vae_part part, const char *kernels,
                               enum lt_precision precision, const int64_t *lengths, double bound)
{
    struct model m;
    load(&m, part, kernels, precision);
    for (size_t i = 0; lengths[i]; i++)
        part == VAE_DECODER ? decode(&m, shape, lengths[i], bound)
                            : encode(&m, shape, lengths[i], bound);
    unload(&m);
}
