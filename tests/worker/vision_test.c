/* If the image encoder differed from the original, an image-to-video model would be shown another
 * picture than the user gave: faces drift from the first frame on. Goldens: transformers'
 * CLIPVisionModel in three random shapes, torch's resizing in six (tests/golden/vision/make.py). */
#include "tests/test.h"

#include "common/file.h"
#include "tests/worker/encoder.h"
#include "worker/model/image.h"
#include "worker/model/vision.h"

static char dir[] = "/tmp/longtake-test-XXXXXX";
static char path[256];
static struct store_params placement; /* of the next model; zeroed: all resident */
static struct lt_safetensors *goldens;

static int begin_all(void **state)
{
    (void)state;
    struct lt_error error;
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof path, "%s/vision.safetensors", dir);
    return lt_safetensors_open(LT_SOURCE_DIR "/tests/golden/vision/vision.safetensors", &goldens,
                               &error) != LT_OK;
}

static int end_all(void **state)
{
    (void)state;
    lt_safetensors_close(&goldens);
    return lt_dir_remove(dir, NULL) != LT_OK;
}

static struct lt_view golden(const char *kind, int index, const char *what)
{
    char name[64];
    struct lt_error error;
    struct lt_view view;
    snprintf(name, sizeof name, "%s-%d.%s", kind, index, what);
    assert_ok(lt_safetensors_read_f32(goldens, name, &view, &error));
    return view;
}

/* picture() of make.py. */
static struct lt_view picture(const char *name, int64_t height, int64_t width)
{
    const size_t count = (size_t)(3 * height * width);
    float *values = malloc(count * sizeof *values);
    fill_values(name, values, count);
    for (size_t i = 0; i < count; i++)
        values[i] = 0.5f + 0.5f * values[i];
    return lt_view_3d(values, LT_TYPE_F32, 3, height, width);
}

static struct lt_view square(int64_t size)
{
    return lt_view_3d(calloc((size_t)(3 * size * size), sizeof(float)), LT_TYPE_F32, 3, size, size);
}

/* -- preparation ------------------------------------------------------------------------------- */

static void pictures_are_prepared_as_the_originals_do(void **state)
{
    (void)state;
    static const char *const names[] = {"wan", "comfy", "comfy-stretch"};
    for (int index = 0; index < 6; index++)
        for (int kind = 0; kind < 3; kind++) {
            struct lt_error error;
            char name[64];
            struct lt_view shape = golden("picture", index, "shape"),
                           want = golden("picture", index, names[kind]);
            const float *s = shape.data;
            snprintf(name, sizeof name, "picture-%d", index);
            struct lt_view in = picture(name, (int64_t)s[0], (int64_t)s[1]),
                           out = square((int64_t)s[2]);
            assert_ok(image_prepare((enum image_preparation)kind, &in, &out, &error));
            const struct distance d = distance_of(out.data, want.data, lt_view_count(&out));
            if (!(d.worst <= 2e-6)) /* f32 sums of a few products in another order */
                fail_msg("picture-%d, %s: worst element %.2g of the largest", index, names[kind],
                         d.worst);
            free(shape.data), free(want.data), free(in.data), free(out.data);
        }
}

static void strange_pictures_are_refused(void **state)
{
    (void)state;
    struct lt_error error;
    float pixels[3 * 130] = {0};
    struct lt_view out = square(7), in = lt_view_3d(pixels, LT_TYPE_F32, 1, 3, 4);
    assert_fails(image_prepare(IMAGE_PREPARE_WAN, &in, &out, &error), LT_BAD_INPUT, "[3, H, W]");
    in = lt_view_3d(pixels, LT_TYPE_F32, 3, 0, 4);
    assert_fails(image_prepare(IMAGE_PREPARE_WAN, &in, &out, &error), LT_BAD_INPUT, "[3, H, W]");
    in = lt_view_3d(pixels, LT_TYPE_F32, 3, 1, 65);
    assert_fails(image_prepare(IMAGE_PREPARE_COMFY_CENTER, &in, &out, &error), LT_BAD_INPUT,
                 "at most 64 times");
    in = lt_view_3d(pixels, LT_TYPE_F32, 3, 5, 5);
    pixels[74] = NAN;
    assert_fails(image_prepare(IMAGE_PREPARE_WAN, &in, &out, &error), LT_BAD_INPUT,
                 "value 74 is not finite");
    free(out.data);
}

/* -- model ------------------------------------------------------------------------------------- */

struct run {
    struct vision_config config;
    struct tensor_file *file;
    struct store *store;
    struct lt_kernels kernels;
    struct lt_exec *exec;
    struct vision *vision;
};

static void open_file(struct run *run, int64_t heads, const char *kernels,
                      enum lt_precision precision)
{
    struct lt_error error;
    assert_ok(tensor_file_open(path, &run->file, &error));
    assert_ok(vision_config_detect(run->file, &run->config, &error));
    run->config.head_count = heads;
    assert_ok(store_open(run->file, vision_wants, &run->config, &placement, &run->store, &error));
    assert_ok(lt_kernels_select(&run->kernels, lt_caps_detect(), kernels, &error));
    assert_ok(lt_exec_create(&(struct lt_exec_params){2, precision}, &run->exec, &error));
    assert_ok(
        vision_create(&run->config, run->store, &run->kernels, run->exec, &run->vision, &error));
}

static struct vision_config config_of(int index)
{
    struct lt_view shape = golden("random", index, "shape");
    const float *s = shape.data;
    const struct vision_config config = {.width = (int64_t)s[0],
                                         .ffn_dim = (int64_t)s[1],
                                         .layer_count = (int64_t)s[2],
                                         .head_count = (int64_t)s[3],
                                         .patch = (int64_t)s[4],
                                         .grid = (int64_t)s[5]};
    free(shape.data);
    return config;
}

static void begin(struct run *run, int index, enum names_form form, const char *kernels,
                  enum lt_precision precision)
{
    struct lt_error error;
    struct catalogue catalogue;
    struct vision_config config = config_of(index);
    memset(run, 0, sizeof *run);
    config.fused = form != NAMES_VISION_HUGGINGFACE;
    assert_ok(catalogue_of_vision(&config, &catalogue, &error));
    write_encoder(path, &catalogue, NAMES_VISION_HUGGINGFACE, form, "", NULL);
    catalogue_fini(&catalogue);
    open_file(run, config.head_count, kernels, precision);
    assert_int_equal(run->config.width, config.width);
    assert_int_equal(run->config.ffn_dim, config.ffn_dim);
    assert_int_equal(run->config.layer_count, config.layer_count);
    assert_int_equal(run->config.patch, config.patch);
    assert_int_equal(run->config.grid, config.grid);
    assert_int_equal(run->config.fused, config.fused);
}

static void end(struct run *run)
{
    vision_destroy(&run->vision);
    lt_exec_destroy(&run->exec);
    store_destroy(&run->store);
    tensor_file_close(&run->file);
}

/* The clip features of the golden's picture. */
static float *encode(struct run *run, int index)
{
    struct lt_error error;
    char name[64];
    struct lt_view shape = golden("random", index, "shape");
    const float *s = shape.data;
    const int64_t tokens = vision_token_count(&run->config), width = run->config.width;
    snprintf(name, sizeof name, "random-%d.pixels", index);
    struct lt_view in = picture(name, (int64_t)s[6], (int64_t)s[7]),
                   prepared = square(vision_image_size(&run->config));
    struct lt_view clip =
        lt_view_2d(malloc((size_t)(tokens * width) * sizeof(float)), LT_TYPE_F32, tokens, width);
    assert_ok(image_prepare(IMAGE_PREPARE_WAN, &in, &prepared, &error));
    assert_ok(vision_encode(run->vision, &prepared, &clip, &error));
    free(shape.data), free(in.data), free(prepared.data);
    return clip.data;
}

static void random_shapes_as_transformers_does(void **state)
{
    (void)state;
    static const struct {
        const char *kernels;
        enum lt_precision precision;
        double bound;
    } ways[] = {{"ref", LT_PRECISION_F32, 2e-4},
                {"best", LT_PRECISION_F32, 2e-4},
                {"best", LT_PRECISION_BF16, 2e-2}};
    for (int index = 0; index < 3; index++)
        for (size_t i = 0; i < LT_COUNT(ways); i++) {
            struct run run;
            struct lt_view want = golden("random", index, "clip");
            begin(&run, index, NAMES_VISION_HUGGINGFACE, ways[i].kernels, ways[i].precision);
            float *got = encode(&run, index);
            const struct distance d = distance_of(got, want.data, lt_view_count(&want));
            print_message("random-%d, %s, bound %g: relative error %.2g, worst element %.2g of the "
                          "largest, cosine %.7f\n",
                          index, ways[i].kernels, ways[i].bound, d.relative, d.worst, d.cosine);
            assert_true(d.relative <= ways[i].bound && d.cosine >= 0.9995);
            assert_true(ways[i].precision == LT_PRECISION_BF16 || d.worst <= ways[i].bound);
            assert_int_equal(vision_peak_bytes(run.vision), vision_activation_bytes(&run.config));
            struct lt_scratch scratch;
            struct lt_error error;
            assert_ok(vision_scratch(&run.config, ways[i].precision, &scratch, &error));
            if (strcmp(ways[i].kernels, "best") == 0)
                assert_true(lt_exec_scratch_bytes(run.exec) <= lt_scratch_bytes(&scratch, 2));
            end(&run);
            free(got), free(want.data);
        }
}

static void every_form_of_the_file_is_the_same_model(void **state)
{
    (void)state;
    static const enum names_form forms[] = {NAMES_VISION_HUGGINGFACE, NAMES_VISION_WAN,
                                            NAMES_VISION_OPEN_CLIP};
    float *first = NULL;
    for (size_t i = 0; i < LT_COUNT(forms); i++) {
        struct run run;
        begin(&run, 0, forms[i], "best", LT_PRECISION_F32);
        float *got = encode(&run, 0);
        const size_t bytes =
            (size_t)(vision_token_count(&run.config) * run.config.width) * sizeof *got;
        if (first)
            assert_memory_equal(got, first, bytes);
        else
            first = got;
        if (first != got)
            free(got);
        end(&run);
    }
    free(first);
}

/* Blocks that come from RAM or disk when they are used, in one slot. */
static void placement_changes_no_bits(void **state)
{
    (void)state;
    static const enum names_form forms[] = {NAMES_VISION_HUGGINGFACE, NAMES_VISION_WAN};
    for (size_t i = 0; i < LT_COUNT(forms); i++) {
        struct run run;
        float *got[2];
        struct store_stats stats;
        for (size_t swapped = 0; swapped < 2; swapped++) {
            placement =
                (struct store_params){.blocks_to_swap = 4 * swapped, .disk_blocks = swapped};
            begin(&run, 0, forms[i], "best", LT_PRECISION_F32);
            got[swapped] = encode(&run, 0);
            store_stats(run.store, &stats);
            assert_int_equal(stats.fetch_count, 3 * swapped); /* none for the checks */
            end(&run);
        }
        placement = (struct store_params){0};
        assert_memory_equal(got[0], got[1], 10 * 48 * sizeof(float));
        free(got[0]), free(got[1]);
    }
}

static void the_command_gives_the_golden(void **state)
{
    (void)state;
    struct run run;
    struct lt_error error;
    struct lt_view want = golden("random", 0, "clip"), got, in = picture("random-0.pixels", 37, 53);
    begin(&run, 0, NAMES_VISION_WAN, "best", LT_PRECISION_F32);
    end(&run);
    assert_ok(eval_through_the_command(dir, "image --model vision.safetensors --set heads=3",
                                       "pixels", &in, "clip", &got, &error));
    assert_int_equal(lt_view_count(&got), lt_view_count(&want));
    assert_true(distance_of(got.data, want.data, lt_view_count(&want)).worst <= 2e-4);
    free(in.data), free(got.data), free(want.data);
}

/* The last block and what stands behind it are a thirtieth of the file that nobody needs. */
static void only_what_is_run_is_loaded(void **state)
{
    (void)state;
    struct run run;
    struct store_stats stats;
    begin(&run, 0, NAMES_VISION_HUGGINGFACE, "best", LT_PRECISION_F32);
    store_stats(run.store, &stats);
    assert_int_equal(stats.tensor_count, 5 + 3 * 16); /* four layers, three run */
    assert_false(store_has(run.store, "visual.post_norm.weight"));
    assert_false(store_has(run.store, "blocks.3.attn.q.weight"));
    end(&run);
}

static void wrong_files_and_inputs_are_refused(void **state)
{
    (void)state;
    struct lt_error error;
    struct run run;
    struct catalogue catalogue;
    const struct vision_config config = config_of(0);
    static const struct {
        const char *without, *says;
    } files[] = {{"visual.cls_embedding", "'visual.cls_embedding' is missing"},
                 {"visual.patch_embedding.weight", "'visual.patch_embedding.weight' is missing"},
                 {"visual.pos_embedding", "'visual.pos_embedding' is missing"},
                 {"blocks.0.mlp.0.weight", "'blocks.0.mlp.0.weight' is missing"},
                 {"blocks.1.norm1.weight", "'blocks.1.norm1.weight' is missing"}};
    assert_ok(catalogue_of_vision(&config, &catalogue, &error));
    for (size_t i = 0; i < LT_COUNT(files); i++) {
        struct tensor_file *file;
        struct vision_config found;
        write_encoder(path, &catalogue, NAMES_VISION_HUGGINGFACE, NAMES_VISION_HUGGINGFACE, "",
                      files[i].without);
        assert_ok(tensor_file_open(path, &file, &error));
        assert_fails(vision_config_detect(file, &found, &error), LT_BAD_INPUT, files[i].says);
        tensor_file_close(&file);
    }
    catalogue_fini(&catalogue);
    begin(&run, 0, NAMES_VISION_HUGGINGFACE, "best", LT_PRECISION_F32);
    struct lt_view small = square(20), clip = lt_view_2d(calloc(10 * 48, 4), LT_TYPE_F32, 10, 48);
    assert_fails(vision_encode(run.vision, &small, &clip, &error), LT_BAD_INPUT, "[3, 21, 21]");
    struct lt_view right = square(21);
    atomic_int cancel = 1;
    lt_exec_set_cancel(run.exec, &cancel);
    assert_fails(vision_encode(run.vision, &right, &clip, &error), LT_CANCELLED, "cancelled");
    struct vision *none = NULL;
    run.config.head_count = 5;
    assert_fails(vision_create(&run.config, run.store, &run.kernels, run.exec, &none, &error),
                 LT_BAD_INPUT, "cannot have 5 heads");
    end(&run);
    free(small.data), free(clip.data), free(right.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pictures_are_prepared_as_the_originals_do),
        cmocka_unit_test(strange_pictures_are_refused),
        cmocka_unit_test(random_shapes_as_transformers_does),
        cmocka_unit_test(every_form_of_the_file_is_the_same_model),
        cmocka_unit_test(placement_changes_no_bits),
        cmocka_unit_test(the_command_gives_the_golden),
        cmocka_unit_test(only_what_is_run_is_loaded),
        cmocka_unit_test(wrong_files_and_inputs_are_refused),
    };
    return cmocka_run_group_tests(tests, begin_all, end_all);
}
