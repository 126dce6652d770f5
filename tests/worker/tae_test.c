/* If the preview decoder differed from the original, previews would flicker, be checkered or lag
 * behind the take by some frames. Goldens: tests/golden/vae/make_tae.py. */
#include "tests/worker/vae_model.h"
#include "worker/model/tae.h"

struct preview {
    const char *name;
    int64_t dim, z, patch, height, width;
};
static const struct preview previews[] = {
    {"taew2_1", 64, 16, 1, 2, 3}, {"taew2_2", 16, 48, 2, 3, 1}, {"odd", 6, 5, 1, 3, 5}};

enum { LATENT_FRAMES = 4 };

/* As the VAE's, but pixels stay within 0..1. */
static void fill_tae(const struct catalogue_entry *entry, float *to, size_t count)
{
    fill_vae(entry, to, count);
    for (size_t i = 0; i < count; i++)
        if (strcmp(entry->name, "decoder.22.weight") == 0)
            to[i] *= 0.1f;
        else if (strcmp(entry->name, "decoder.22.bias") == 0)
            to[i] += 0.5f;
}

static void write_preview(const struct preview *preview)
{
    struct lt_error error;
    struct catalogue catalogue;
    const struct catalogue_tae config = {preview->dim, preview->z, preview->patch};
    assert_ok(catalogue_of_tae(&config, &catalogue, &error));
    assert_ok(fill_file(path, &catalogue, fill_tae, NULL, &error));
    catalogue_fini(&catalogue);
}

struct tiny {
    struct tensor_file *file;
    struct store *store;
    struct lt_kernels kernels;
    struct lt_exec *exec;
    struct tae *tae;
};

static void load_tiny(struct tiny *t, const char *kernels, enum lt_precision precision)
{
    struct lt_error error;
    assert_ok(tensor_file_open(path, &t->file, &error));
    assert_ok(store_load(t->file, tae_wants, NULL, &t->store, &error));
    assert_ok(lt_kernels_select(&t->kernels, lt_caps_detect(), kernels, &error));
    assert_ok(lt_exec_create(&(struct lt_exec_params){2, precision}, &t->exec, &error));
    assert_ok(tae_create(t->store, &t->kernels, t->exec, &t->tae, &error));
}

static void unload_tiny(struct tiny *t)
{
    tae_destroy(&t->tae);
    lt_exec_destroy(&t->exec);
    store_destroy(&t->store);
    tensor_file_close(&t->file);
}

static struct lt_view latents_of(const struct preview *preview, int64_t frames)
{
    const struct shape shape = {.name = preview->name};
    const int64_t plane = preview->height * preview->width;
    float *x = inputs(&shape, "latents", preview->z, LATENT_FRAMES, frames, plane);
    for (int64_t i = 0; i < preview->z * frames * plane; i++)
        x[i] *= 2;
    return lt_view_4d(x, LT_TYPE_F32, preview->z, frames, preview->height, preview->width);
}

static void check(struct tiny *t, const struct preview *preview, int64_t frames, double bound)
{
    struct lt_error error;
    const struct shape shape = {.name = preview->name};
    struct lt_view want = golden(&shape, "decoded"), latents = latents_of(preview, frames);
    const int64_t scale = 8 * preview->patch;
    struct sink sink = {.want = want.data,
                        .frame_values = scale * scale * preview->height * preview->width * 3};
    assert_int_equal(tae_scale(t->tae), scale);
    assert_ok(tae_decode(t->tae, &latents, take_frame, &sink, &error));
    assert_int_equal(sink.frames, 4 * frames - 3);
    assert_int_equal(tae_frames(t->tae, frames), sink.frames);
    within(&sink.difference, bound, preview->name, frames);
    free(latents.data);
    free(want.data);
}

static void matches_the_rule(void **state)
{
    (void)state;
    for (size_t i = 0; i < LT_COUNT(previews); i++) {
        struct tiny t;
        write_preview(&previews[i]);
        load_tiny(&t, "best", LT_PRECISION_F32);
        for (int64_t frames = 1; frames <= LATENT_FRAMES; frames++)
            check(&t, &previews[i], frames, 1e-4);
        unload_tiny(&t);
        load_tiny(&t, "best", LT_PRECISION_BF16);
        check(&t, &previews[i], LATENT_FRAMES, 2e-2); /* 2^-9 a rounding, some forty of them */
        unload_tiny(&t);
        if (previews[i].dim > 16)
            continue;
        load_tiny(&t, "ref", LT_PRECISION_F32);
        check(&t, &previews[i], LATENT_FRAMES, 1e-4);
        unload_tiny(&t);
    }
}

static lt_status count_frame(void *context, int64_t index, const float *rgb, struct lt_error *error)
{
    (void)rgb, (void)error;
    *(int64_t *)context = index + 1;
    return LT_OK;
}

static void memory_does_not_grow_with_time(void **state)
{
    size_t peak[2];
    (void)state;
    write_preview(&previews[2]);
    for (int64_t i = 0; i < 2; i++) {
        struct tiny t;
        struct lt_error error;
        int64_t count = 0;
        load_tiny(&t, "best", LT_PRECISION_F32);
        struct lt_view latents = latents_of(&previews[2], i == 0 ? 2 : LATENT_FRAMES);
        assert_ok(tae_decode(t.tae, &latents, count_frame, &count, &error));
        peak[i] = tae_peak_bytes(t.tae);
        free(latents.data);
        unload_tiny(&t);
    }
    assert_int_equal(peak[0], peak[1]);
}

static void what_is_none_is_refused(void **state)
{
    struct lt_error error;
    struct tiny t = {0};
    const struct shape vae = {"small", 8, 4, 4, 6, 0};
    (void)state;
    write_file(&vae, VAE_DECODER);
    assert_ok(tensor_file_open(path, &t.file, &error));
    assert_ok(store_load(t.file, tae_wants, NULL, &t.store, &error));
    assert_ok(lt_kernels_select(&t.kernels, lt_caps_detect(), "best", &error));
    assert_ok(lt_exec_create(&(struct lt_exec_params){1, LT_PRECISION_F32}, &t.exec, &error));
    assert_int_equal(tae_create(t.store, &t.kernels, t.exec, &t.tae, &error), LT_NOT_FOUND);
    assert_non_null(strstr(error.text, "decoder.1.bias"));
    unload_tiny(&t);
}

static int open_goldens(void **state)
{
    (void)state;
    return begin("tae.safetensors");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_the_rule),
        cmocka_unit_test(memory_does_not_grow_with_time),
        cmocka_unit_test(what_is_none_is_refused),
    };
    return cmocka_run_group_tests(tests, open_goldens, end);
}
