/* If detection were wrong, a file would run as another model: noise instead of pictures, or a crash
 * far from its cause. */
#include "tests/test.h"

#include "tests/worker/model_file.h"
#include "worker/model/config.h"
#include "worker/synth.h"

/* Headers only: a synthetic layout at small size, its bytes a hole in the file.
 * `drop` leaves a tensor out, `add` puts one in (one value). */
static struct tensor_file *open_variant(const char *variant, int64_t layers, const char *drop,
                                        const char *add, int *fd_out)
{
    struct lt_error error;
    struct synth_layout layout;
    struct synth_params params = {.variant = variant,
                                  .quant = "f16",
                                  .layers = layers,
                                  .dim = 256,
                                  .ffn = 500,
                                  .text_dim = 72};
    struct bytes header = {0};
    char path[64];
    uint64_t offset = 0, count = 0;
    assert_ok(synth_layout_build(&params, &layout, &error));
    for (size_t i = 0; i < layout.catalogue.count; i++)
        count += !drop || strcmp(drop, layout.tensor[i].name) != 0;
    put_head(&header, 3, count + (add != NULL), 0);
    for (size_t i = 0; i < layout.catalogue.count; i++) {
        const struct gguf_writer_tensor *tensor = &layout.tensor[i];
        uint64_t dim[LT_RANK_MAX], bytes = 0;
        if (drop && strcmp(drop, tensor->name) == 0)
            continue;
        for (int d = 0; d < tensor->rank; d++)
            dim[d] = (uint64_t)tensor->dim[tensor->rank - 1 - d];
        put_info(&header, tensor->name, (uint32_t)tensor->rank, dim, tensor->type, offset);
        assert_true(lt_type_bytes(tensor->type,
                                  (uint64_t)catalogue_values(&layout.catalogue.entry[i]), &bytes));
        offset += (bytes + 31) / 32 * 32;
    }
    if (add)
        put_info(&header, add, 1, (const uint64_t[]){1}, LT_TYPE_F32, offset);
    put_padding(&header, 32);
    *fd_out = lend_path(header.data, header.count, path);
    assert_int_equal(ftruncate(*fd_out, (off_t)(header.count + offset + 32)), 0);
    struct tensor_file *file = NULL;
    assert_ok(tensor_file_open(path, &file, &error));
    free(header.data);
    synth_layout_fini(&layout);
    return file;
}

static void every_variant_is_told_by_its_tensors(void **state)
{
    (void)state;
    static const struct {
        const char *synth, *detected;
        int64_t in, out;
        bool image, positions;
    } cases[] = {
        {"t2v-1.3b", "t2v", 16, 16, false, false},
        {"t2v-14b", "t2v", 16, 16, false, false},
        {"i2v-14b", "i2v-2.1", 36, 16, true, false},
        {"flf2v-14b", "flf2v", 36, 16, true, true},
        {"i2v-a14b", "i2v-2.2", 36, 16, false, false},
        {"ti2v-5b", "ti2v-5b", 48, 48, false, false},
        {"animate-14b", "animate", 36, 16, true, false},
    };
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        struct lt_error error;
        struct dit_config config;
        int fd;
        struct tensor_file *file = open_variant(cases[i].synth, 12, NULL, NULL, &fd);
        assert_ok(dit_config_detect(file, &config, &error));
        assert_string_equal(dit_variant_name(config.variant), cases[i].detected);
        assert_int_equal(config.in_channels, cases[i].in);
        assert_int_equal(config.out_channels, cases[i].out);
        assert_int_equal(config.image_attention, cases[i].image);
        assert_int_equal(config.image_positions, cases[i].positions);
        assert_int_equal(config.dim, 256);
        assert_int_equal(config.head_count, 2);
        assert_int_equal(config.layer_count, 12);
        assert_int_equal(config.ffn_dim, 500);
        assert_int_equal(config.text_dim, 72);
        assert_int_equal(config.freq_dim, 256);
        assert_int_equal(config.text_len, 512);
        tensor_file_close(&file);
        close(fd);
    }
}

static void the_talk_addon_has_its_own_sizes(void **state)
{
    (void)state;
    struct lt_error error;
    struct dit_config config;
    int fd;
    struct tensor_file *file = open_variant("talk-addon", 3, NULL, NULL, &fd);
    assert_ok(dit_config_detect(file, &config, &error));
    assert_int_equal(config.variant, DIT_VARIANT_TALK_ADDON);
    assert_int_equal(config.dim, 256);
    assert_int_equal(config.layer_count, 3);
    tensor_file_close(&file);
    close(fd);
}

/* dit.md 1.6, step 3: each by the tensor that tells it. */
static void relatives_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *tensor, *what;
    } cases[] = {
        {"vace_blocks.0.after_proj.weight", "VACE"},
        {"audio_injector.injector.0.k.weight", "S2V"},
        {"casual_audio_encoder.encoder.conv.weight", "S2V"},
        {"audio_proj.audio_proj_glob_1.layer.weight", "HuMo"},
        {"control_adapter.conv.weight", "Fun camera"},
        {"ref_conv.weight", "Fun control"},
        {"fps_embedding.weight", "SkyReels"},
        {"patch_embedding_pose.weight", "SCAIL"},
        {"blocks.1.motion_attn.q.weight", "MTV"},
    };
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        struct lt_error error;
        struct dit_config config;
        int fd;
        struct tensor_file *file = open_variant("t2v-1.3b", 2, NULL, cases[i].tensor, &fd);
        assert_fails(dit_config_detect(file, &config, &error), LT_UNSUPPORTED, cases[i].what);
        assert_non_null(strstr(error.text, cases[i].tensor));
        tensor_file_close(&file);
        close(fd);
    }
}

static void what_is_missing_is_named(void **state)
{
    (void)state;
    static const char *const needed[] = {
        "patch_embedding.bias",  "patch_embedding.weight",           "head.head.weight",
        "blocks.0.ffn.0.weight", "text_embedding.0.weight",          "time_embedding.0.weight",
        "head.modulation",       "blocks.0.self_attn.norm_q.weight",
    };
    for (size_t i = 0; i < LT_COUNT(needed); i++) {
        struct lt_error error;
        struct dit_config config = {.dim = 77};
        int fd;
        struct tensor_file *file = open_variant("t2v-1.3b", 2, needed[i], NULL, &fd);
        assert_fails(dit_config_detect(file, &config, &error), LT_BAD_INPUT, needed[i]);
        assert_int_equal(config.dim, 77); /* untouched */
        tensor_file_close(&file);
        close(fd);
    }
}

static void absurd_block_numbers_are_refused(void **state)
{
    (void)state;
    struct lt_error error;
    struct dit_config config;
    int fd;
    struct tensor_file *file =
        open_variant("t2v-1.3b", 2, NULL, "blocks.99999999999999999999.x", &fd);
    assert_fails(dit_config_detect(file, &config, &error), LT_BAD_INPUT, "blocks");
    tensor_file_close(&file);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_variant_is_told_by_its_tensors),
        cmocka_unit_test(the_talk_addon_has_its_own_sizes),
        cmocka_unit_test(relatives_are_refused_by_name),
        cmocka_unit_test(what_is_missing_is_named),
        cmocka_unit_test(absurd_block_numbers_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
