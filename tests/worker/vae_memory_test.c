/* If a VAE took more than it said, or more for a longer video, a worker would be killed in the
 * middle of a job; if slices, bands or tiles changed the picture, it would show seams. */
#include "tests/worker/vae_model.h"
#include "worker/model/vae_parts.h"

static const struct shape old = {"small", 8, 4, 4, 6, 0}, new = {"a", 8, 6, 2, 3, 16},
                          tiled = {"tiled", 8, 4, 7, 10, 0};
static const struct shape *const kinds[] = {&old, &new};

/* -- running ----------------------------------------------------------------------------------- */

/* All frames of a result, [F, values] or [z, T, h, w]. */
struct result {
    float *value;
    int64_t frames, frame_values, count;
};

static lt_status keep_frame(void *context, int64_t index, const float *rgb, struct lt_error *error)
{
    struct result *result = context;
    (void)error;
    assert_int_equal(index, result->frames++);
    memcpy(result->value + index * result->frame_values, rgb,
           (size_t)result->frame_values * sizeof *rgb);
    return LT_OK;
}

static struct result room(const struct shape *shape, enum vae_part part, int64_t frames)
{
    const int64_t plane = shape->height * shape->width, scale = scale_of(shape);
    struct result result = {.frame_values = scale * scale * plane * 3};
    result.count =
        part == VAE_DECODER ? (4 * frames - 3) * result.frame_values : shape->z * frames * plane;
    result.value = calloc((size_t)result.count, sizeof *result.value);
    assert_non_null(result.value);
    return result;
}

static struct lt_view input(const struct shape *shape, enum vae_part part, int64_t frames)
{
    const int64_t plane = shape->height * shape->width, scale = scale_of(shape);
    if (part == VAE_DECODER)
        return lt_view_4d(inputs(shape, "latents", shape->z, frames, frames, plane), LT_TYPE_F32,
                          shape->z, frames, shape->height, shape->width);
    return lt_view_4d(
        inputs(shape, "pixels", 3, 4 * frames - 3, 4 * frames - 3, scale * scale * plane),
        LT_TYPE_F32, 3, 4 * frames - 3, scale * shape->height, scale * shape->width);
}

/* Frames [first, first + count) of [C, T, Y, X], as a copy. */
static struct lt_view cut(const struct lt_view *whole, int64_t first, int64_t count)
{
    const int64_t area = whole->dim[2] * whole->dim[3];
    float *data = malloc((size_t)(whole->dim[0] * count * area) * sizeof *data);
    assert_non_null(data);
    for (int64_t c = 0; c < whole->dim[0]; c++)
        memcpy(data + c * count * area,
               (const float *)whole->data + (c * whole->dim[1] + first) * area,
               (size_t)(count * area) * sizeof *data);
    return lt_view_4d(data, LT_TYPE_F32, whole->dim[0], count, whole->dim[2], whole->dim[3]);
}

static struct lt_view latents_of(const struct shape *shape, float *data, int64_t frames)
{
    return lt_view_4d(data, LT_TYPE_F32, shape->z, frames, shape->height, shape->width);
}

static struct result run(struct model *m, const struct shape *shape, enum vae_part part,
                         int64_t frames)
{
    struct lt_error error;
    struct result result = room(shape, part, frames);
    struct lt_view in = input(shape, part, frames);
    struct lt_view latents = latents_of(shape, result.value, frames);
    assert_ok(part == VAE_DECODER ? vae_decode(m->vae, &in, keep_frame, &result, NULL, &error)
                                  : vae_encode(m->vae, &in, &latents, NULL, &error));
    free(in.data);
    return result;
}

/* -- tests ------------------------------------------------------------------------------------- */

static size_t peak(const struct shape *shape, enum vae_part part, enum lt_precision precision,
                   int64_t frames)
{
    struct model m;
    struct lt_error error;
    size_t planned = 0;
    load(&m, part, "best", precision);
    free(run(&m, shape, part, frames).value);
    const size_t peak = vae_peak_bytes(m.vae);
    assert_int_equal(m.vae->frames.used_bytes, 0);
    assert_ok(
        vae_bytes(part, m.file, precision, frames, shape->height, shape->width, &planned, &error));
    assert_int_equal(planned, peak);
    struct lt_scratch scratch;
    assert_ok(vae_scratch(part, m.file, precision, shape->height, shape->width, &scratch, &error));
    /* a thread that never got a part of the largest op holds less than the others */
    const size_t held = lt_exec_scratch_bytes(m.exec);
    assert_true(held <= lt_scratch_bytes(&scratch, lt_exec_thread_count(m.exec)));
    if (frames > 2) /* shorter ones meet no history */
        assert_true(held >= lt_scratch_bytes(&scratch, 1));
    unload(&m);
    return peak;
}

static void memory_is_as_planned_and_does_not_grow_with_time(void **state)
{
    (void)state;
    for (size_t i = 0; i < LT_COUNT(kinds); i++)
        for (int part = VAE_DECODER; part <= VAE_ENCODER; part++) {
            write_file(kinds[i], (enum vae_part)part);
            for (int p = LT_PRECISION_F32; p <= LT_PRECISION_BF16; p++) {
                const enum lt_precision precision = (enum lt_precision)p;
                const size_t one = peak(kinds[i], (enum vae_part)part, precision, 1);
                const size_t few = peak(kinds[i], (enum vae_part)part, precision, 5);
                assert_true(one < few); /* a single frame remembers nothing */
                assert_int_equal(few, peak(kinds[i], (enum vae_part)part, precision, 11));
            }
        }
}

/* The published sizes, on shapes only: what docs/performance.md says. */
static size_t published(bool grouped, enum vae_part part, int64_t rows, int64_t columns)
{
    const struct shape shape = {"", grouped ? 160 : 96, grouped ? 48 : 16, 0, 0, grouped ? 256 : 0};
    const struct catalogue_vae config = {.grouped = grouped,
                                         .dim = shape.base,
                                         .decoder_dim = shape.decoder_base,
                                         .channels = shape.z};
    struct catalogue catalogue;
    struct lt_error error;
    struct tensor_file *file;
    size_t bytes = 0;
    assert_ok(catalogue_of_vae(&config, &catalogue, &error));
    assert_ok(sparse_file(path, &catalogue, &error));
    assert_ok(tensor_file_open(path, &file, &error));
    assert_ok(vae_bytes(part, file, LT_PRECISION_BF16, 21, rows, columns, &bytes, &error));
    struct lt_scratch scratch;
    assert_ok(vae_scratch(part, file, LT_PRECISION_BF16, rows, columns, &scratch, &error));
    tensor_file_close(&file);
    catalogue_fini(&catalogue);
    print_message("%s %s %dx%d latents: %.1f MiB, scratch of two threads %.1f MiB\n",
                  grouped ? "z48" : "z16", part == VAE_DECODER ? "decode" : "encode", (int)rows,
                  (int)columns, (double)bytes / 1048576,
                  (double)lt_scratch_bytes(&scratch, 2) / 1048576);
    return bytes;
}

static void published_sizes_fit_their_budgets(void **state)
{
    (void)state;
    const size_t mib = 1 << 20;
    assert_in_range(published(false, VAE_DECODER, 32, 32), 272 * mib, 300 * mib);
    assert_in_range(published(false, VAE_ENCODER, 32, 32), 100 * mib, 300 * mib);
    published(false, VAE_DECODER, 60, 104);
    published(false, VAE_ENCODER, 60, 104);
    published(false, VAE_DECODER, 90, 160);
    published(false, VAE_ENCODER, 90, 160);
    published(true, VAE_DECODER, 44, 80);
    published(true, VAE_ENCODER, 44, 80);
}

static void slices_give_the_bits_of_the_whole(void **state)
{
    static const int64_t slice[] = {1, 3, 2, 1}; /* latent frames, 7 in all */
    struct lt_error error;
    (void)state;
    for (size_t i = 0; i < LT_COUNT(kinds); i++)
        for (int p = VAE_DECODER; p <= VAE_ENCODER; p++) {
            const enum vae_part part = (enum vae_part)p;
            struct model m;
            write_file(kinds[i], part);
            load(&m, part, "best", LT_PRECISION_F32);
            const struct result whole = run(&m, kinds[i], part, 7);
            const struct lt_view all = input(kinds[i], part, 7);
            struct result sliced = room(kinds[i], part, 7);
            int64_t first = 0;
            for (size_t s = 0; s < LT_COUNT(slice); first += slice[s++]) {
                const int64_t from = part == VAE_DECODER || first == 0 ? first : 4 * first - 3;
                const int64_t count = part == VAE_DECODER ? slice[s]
                                      : first == 0        ? 4 * slice[s] - 3
                                                          : 4 * slice[s];
                struct lt_view in = cut(&all, from, count);
                float *part_data =
                    malloc((size_t)(kinds[i]->z * slice[s] * kinds[i]->height * kinds[i]->width) *
                           sizeof *part_data);
                struct lt_view latents = latents_of(kinds[i], part_data, slice[s]);
                assert_ok(part == VAE_DECODER
                              ? vae_decode_slice(m.vae, &in, keep_frame, &sliced, NULL, &error)
                              : vae_encode_slice(m.vae, &in, &latents, NULL, &error));
                const int64_t area = kinds[i]->height * kinds[i]->width;
                for (int64_t c = 0; part == VAE_ENCODER && c < kinds[i]->z; c++)
                    memcpy(sliced.value + (c * 7 + first) * area, part_data + c * slice[s] * area,
                           (size_t)(slice[s] * area) * sizeof *part_data);
                free(part_data);
                free(in.data);
            }
            vae_forget(m.vae);
            assert_memory_equal(whole.value, sliced.value,
                                (size_t)whole.count * sizeof *whole.value);
            free(whole.value);
            free(sliced.value);
            free(all.data);
            unload(&m);
        }
}

/* Frames of the tests are too small for more than one band, so the least of a band is lowered. */
static void bands_give_the_whole_frame(void **state)
{
    (void)state;
    for (size_t i = 0; i < LT_COUNT(kinds); i++)
        for (int p = VAE_DECODER; p <= VAE_ENCODER; p++) {
            const enum vae_part part = (enum vae_part)p;
            struct model m;
            struct difference difference = {0};
            write_file(kinds[i], part);
            load(&m, part, "best", LT_PRECISION_F32);
            const struct result whole = run(&m, kinds[i], part, 3);
            const size_t peak = vae_peak_bytes(m.vae);
            m.vae->band_pixels = 1;
            const struct result banded = run(&m, kinds[i], part, 3);
            assert_true(vae_peak_bytes(m.vae) < peak);
            compare(&difference, banded.value, whole.value, whole.count);
            within(&difference, 1e-6, "bands against whole frames", 3);
            free(whole.value);
            free(banded.value);
            unload(&m);
        }
}

static void a_file_with_no_vae_is_refused(void **state)
{
    struct lt_error error;
    struct tensor_file *file;
    const float one[8] = {0};
    const struct lt_named_view tensor = {"decoder.conv1.bias",
                                         lt_view_1d((void *)one, LT_TYPE_F32, 8)};
    size_t bytes;
    (void)state;
    assert_ok(lt_safetensors_write(path, &tensor, 1, NULL, 0, &error));
    assert_ok(tensor_file_open(path, &file, &error));
    assert_int_equal(vae_bytes(VAE_DECODER, file, LT_PRECISION_F32, 1, 1, 1, &bytes, &error),
                     LT_NOT_FOUND);
    assert_non_null(strstr(error.text, "conv2.bias"));
    tensor_file_close(&file);
}

/* -- tiles ------------------------------------------------------------------------------------- */

static void tiles_blend_as_the_wrapper_does(void **state)
{
    const struct vae_tiling tiling = {.rows = 4, .columns = 5, .row_stride = 2, .column_stride = 3};
    (void)state;
    for (int p = VAE_DECODER; p <= VAE_ENCODER; p++) {
        const enum vae_part part = (enum vae_part)p;
        struct model m;
        struct lt_error error;
        struct difference difference = {0};
        write_file(&tiled, part);
        load(&m, part, "best", LT_PRECISION_F32);
        struct result result = room(&tiled, part, 2);
        struct lt_view in = input(&tiled, part, 2);
        struct lt_view latents = latents_of(&tiled, result.value, 2);
        struct lt_view want = golden(&tiled, part == VAE_DECODER ? "decoded" : "encoded");
        assert_ok(part == VAE_DECODER
                      ? vae_decode_tiled(m.vae, &tiling, &in, keep_frame, &result, NULL, &error)
                      : vae_encode_tiled(m.vae, &tiling, &in, &latents, NULL, &error));
        compare(&difference, result.value, want.data, result.count);
        within(&difference, 1e-4, "tiles", 2);
        free(in.data);
        free(want.data);
        free(result.value);
        unload(&m);
    }
}

static void one_tile_is_no_tile(void **state)
{
    const struct vae_tiling tiling = {.rows = 9, .columns = 9, .row_stride = 5, .column_stride = 5};
    struct lt_error error;
    struct model m;
    (void)state;
    write_file(&old, VAE_DECODER);
    load(&m, VAE_DECODER, "best", LT_PRECISION_F32);
    const struct result whole = run(&m, &old, VAE_DECODER, 2);
    struct result one = room(&old, VAE_DECODER, 2);
    struct lt_view in = input(&old, VAE_DECODER, 2);
    assert_ok(vae_decode_tiled(m.vae, &tiling, &in, keep_frame, &one, NULL, &error));
    assert_memory_equal(whole.value, one.value, (size_t)whole.count * sizeof *whole.value);
    const struct vae_tiling wrong = {.rows = 4, .columns = 4, .row_stride = 5, .column_stride = 1};
    assert_int_equal(vae_decode_tiled(m.vae, &wrong, &in, keep_frame, &one, NULL, &error),
                     LT_BAD_INPUT);
    free(in.data);
    free(whole.value);
    free(one.value);
    unload(&m);
}

static int open_goldens(void **state)
{
    (void)state;
    return begin("z48.safetensors");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_as_planned_and_does_not_grow_with_time),
        cmocka_unit_test(published_sizes_fit_their_budgets),
        cmocka_unit_test(slices_give_the_bits_of_the_whole),
        cmocka_unit_test(bands_give_the_whole_frame),
        cmocka_unit_test(a_file_with_no_vae_is_refused),
        cmocka_unit_test(tiles_blend_as_the_wrapper_does),
        cmocka_unit_test(one_tile_is_no_tile),
    };
    return cmocka_run_group_tests(tests, open_goldens, end);
}
