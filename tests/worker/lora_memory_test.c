/* LoRAs doubled the memory of the known implementation: the f32 form of a whole file stood beside
 * its bf16 copies. G3.1 of pipeline.md 4.3, by an allocator that counts (the linker puts it in
 * front of malloc). */
#include "tests/worker/lora_file.h"

#include "common/file.h"
#include "worker/weights/lora.h"

#include <malloc.h>

static size_t live, peak, calls;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *data, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void __real_free(void *data);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *data, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
void __wrap_free(void *data);
char *__wrap_strdup(const char *text);

static void *counted(void *data)
{
    calls++;
    live += data ? malloc_usable_size(data) : 0;
    peak = live > peak ? live : peak;
    return data;
}

void *__wrap_malloc(size_t size)
{
    return counted(__real_malloc(size));
}

void *__wrap_calloc(size_t count, size_t size)
{
    return counted(__real_calloc(count, size));
}

void *__wrap_realloc(void *data, size_t size)
{
    live -= data ? malloc_usable_size(data) : 0;
    return counted(__real_realloc(data, size));
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return counted(__real_aligned_alloc(alignment, size));
}

char *__wrap_strdup(const char *text)
{
    return counted(__real_strdup(text));
}

void __wrap_free(void *data)
{
    live -= data ? malloc_usable_size(data) : 0;
    __real_free(data);
}

/* -- a model and LoRAs ------------------------------------------------------------------------- */

enum { RANK = 64, FILES = 3, INDEX_BYTES_MAX = 1 << 20 };

static char dir[] = "/tmp/longtake-test-XXXXXX";
static char model_path[200], lora_path[200];

static int make_files(void **state)
{
    (void)state;
    const struct dit_config config = {.variant = DIT_VARIANT_T2V,
                                      .dim = LORA_DIM,
                                      .ffn_dim = LORA_FFN,
                                      .head_count = 2,
                                      .layer_count = LORA_LAYERS,
                                      .in_channels = 16,
                                      .out_channels = 16,
                                      .text_dim = 40,
                                      .freq_dim = 64,
                                      .text_len = 12,
                                      .epsilon = 1e-6f};
    struct catalogue catalogue;
    static struct lora_writer w;
    struct lt_error error;
    if (!mkdtemp(dir) || catalogue_of_dit(&config, &catalogue, &error) != LT_OK)
        return 1;
    snprintf(model_path, sizeof model_path, "%s/model.safetensors", dir);
    snprintf(lora_path, sizeof lora_path, "%s/lora.safetensors", dir);
    const lt_status status = fill_file(model_path, &catalogue, fill_like_golden, NULL, &error);
    catalogue_fini(&catalogue);
    lora_add_blocks(&w, FORM_KOHYA, "one", 0, RANK, 8);
    lora_write(&w, lora_path);
    return status != LT_OK;
}

static int remove_files(void **state)
{
    (void)state;
    return lt_dir_remove(dir, NULL) != LT_OK;
}

static void open_set(bool streamed, struct lora_set **set)
{
    struct lora_source source[FILES];
    struct tensor_file *model;
    struct lt_error error;
    for (int i = 0; i < FILES; i++)
        source[i] = (struct lora_source){.path = lora_path};
    const struct lora_params params = {source, FILES, LT_TYPE_BF16, streamed};
    assert_ok(tensor_file_open(model_path, &model, &error));
    assert_ok(lora_set_create(&params, model, set, &error));
    tensor_file_close(&model);
}

static uint64_t bytes_of(const struct store_extra *extra)
{
    uint64_t count = 1, bytes = 0;
    for (int i = 0; i < extra->rank; i++)
        count *= (uint64_t)extra->dim[i];
    assert_true(lt_type_bytes(extra->type, count, &bytes));
    return bytes;
}

/* -- tests ------------------------------------------------------------------------------------- */

/* The pair of one Linear of one file, in f32. */
static const uint64_t pair_f32_bytes = RANK * (LORA_DIM + LORA_DIM) * sizeof(float);

static void g3_1_one_patch_at_a_time(void **state)
{
    (void)state;
    struct lora_set *set = NULL;
    struct lora_stats stats;
    struct lt_error error;
    const size_t before = live;
    open_set(false, &set);
    lora_set_stats(set, &stats);
    const size_t index = live - before - stats.buffer_bytes;
    assert_true(stats.buffer_bytes <= pair_f32_bytes);
    assert_true(index <= INDEX_BYTES_MAX); /* names and shapes of three files */
    const struct store_extras *extras = lora_set_extras(set);
    void *slab = malloc(stats.extra_bytes); /* all of them, bf16 */
    char *to = slab;
    const size_t held = live, calls_before = calls;
    peak = live;
    for (size_t i = 0; i < extras->count; i++) {
        const uint64_t bytes = bytes_of(&extras->tensor[i]);
        assert_ok(extras->fill(extras->context, i, to, bytes, &error));
        to += bytes;
    }
    assert_int_equal(to - (char *)slab, stats.extra_bytes);
    assert_int_equal(peak, held); /* not a byte more while everything is written */
    assert_int_equal(calls, calls_before);
    /* f32 files of the same numbers are twice as large: they never stood here whole */
    lora_set_stats(set, &stats);
    assert_true(stats.read_bytes >= 2 * stats.extra_bytes);
    free(slab);
    lora_set_destroy(&set);
    assert_int_equal(live, before);
}

/* With the disk tier: one term of all files, the piece, the index; nothing grows with use. */
static void a_streamed_set_is_bounded(void **state)
{
    (void)state;
    struct lora_set *set = NULL;
    struct lora_stats stats;
    struct lt_error error;
    const size_t before = live;
    open_set(true, &set);
    const size_t opened = live;
    peak = live;
    lora_set_stats(set, &stats);
    for (int turn = 0; turn < 3; turn++)
        for (size_t i = 0; i < LT_COUNT(lora_linears); i++) {
            struct lt_view a, b;
            char name[100];
            snprintf(name, sizeof name, "blocks.1.%s.weight", lora_linears[i]);
            const struct lora_target *target = lora_find(set, name);
            assert_non_null(target);
            assert_ok(lora_term_views(set, target, 0, NULL, &a, &b, &error));
            assert_int_equal(a.dim[0], FILES * RANK);
        }
    assert_int_equal(stats.term_bytes, FILES * RANK * (LORA_DIM + LORA_DIM) * 2);
    assert_true(peak - opened <= stats.term_bytes + 64);
    lora_set_destroy(&set);
    assert_int_equal(live, before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(g3_1_one_patch_at_a_time),
        cmocka_unit_test(a_streamed_set_is_bounded),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
