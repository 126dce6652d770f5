/* If a diffusers VAE were read under wrong names, a layer would get another's weights. The list of
 * names is that of the original's own models: tests/golden/vae/make_names.py. And a VAE in a GGUF
 * file, some of whose tools fold dims, must be the same VAE. */
#include "tests/worker/vae_model.h"
#include "worker/weights/gguf_write.h"

struct pair {
    char kind[16], from[128], to[128];
};

static size_t read_pairs(const char *kind, struct pair *pairs, size_t room)
{
    FILE *file = fopen(LT_SOURCE_DIR "/tests/golden/vae/names.txt", "r");
    struct pair pair;
    size_t count = 0;
    assert_non_null(file);
    while (fscanf(file, "%15s %127s %127s", pair.kind, pair.from, pair.to) == 3)
        if (strcmp(pair.kind, kind) == 0) {
            assert_true(count < room);
            pairs[count++] = pair;
        }
    fclose(file);
    return count;
}

/* A file with one value a tensor, its number, under the diffusers names. */
static struct tensor_file *write_numbers(const struct pair *pairs, size_t count)
{
    struct lt_error error;
    struct tensor_file *file;
    struct lt_named_view *tensors = calloc(count, sizeof *tensors);
    float *number = calloc(count, sizeof *number);
    assert_true(tensors && number);
    for (size_t i = 0; i < count; i++) {
        number[i] = (float)i;
        tensors[i] = (struct lt_named_view){pairs[i].from, lt_view_1d(&number[i], LT_TYPE_F32, 1)};
    }
    assert_ok(lt_safetensors_write(path, tensors, count, NULL, 0, &error));
    free(tensors);
    free(number);
    assert_ok(tensor_file_open(path, &file, &error));
    return file;
}

static void diffusers_names_become_the_originals(void **state)
{
    enum { ROOM = 256 };
    static const struct {
        const char *kind;
        struct catalogue_vae vae;
    } kinds[] = {{"vae-z16", {.dim = 8, .channels = 4}},
                 {"vae-z48", {.grouped = true, .dim = 8, .decoder_dim = 16, .channels = 6}}};
    struct pair *pairs = calloc(ROOM, sizeof *pairs);
    struct lt_error error;
    (void)state;
    for (size_t k = 0; k < LT_COUNT(kinds); k++) {
        const size_t count = read_pairs(kinds[k].kind, pairs, ROOM);
        struct catalogue catalogue;
        struct tensor_file *file = write_numbers(pairs, count);
        assert_ok(catalogue_of_vae(&kinds[k].vae, &catalogue, &error));
        assert_int_equal(catalogue.count, count);
        for (size_t i = 0; i < count; i++) {
            const struct tensor_info *info = tensor_file_find(file, pairs[i].to);
            float number = -1;
            if (!info)
                fail_msg("%s: %s is not %s", kinds[k].kind, pairs[i].from, pairs[i].to);
            assert_ok(tensor_file_read(file, info, &number, &error));
            assert_int_equal((int)number, i);
            assert_non_null(tensor_file_find(file, catalogue.entry[i].name));
        }
        tensor_file_close(&file);
        catalogue_fini(&catalogue);
    }
    free(pairs);
}

/* -- GGUF -------------------------------------------------------------------------------------- */

static const struct shape small = {"small", 8, 4, 4, 6, 0};

/* As ggml has it: four dims at most, the two outermost of a 3-D convolution folded into one. */
static void write_gguf(void)
{
    struct lt_error error;
    struct catalogue catalogue;
    struct gguf_writer *writer;
    const struct catalogue_vae config = {.dim = small.base, .channels = small.z};
    const struct gguf_writer_pair pair = {.key = "general.architecture", .text = "wan"};
    assert_ok(catalogue_of_vae(&config, &catalogue, &error));
    struct gguf_writer_tensor *tensors = calloc(catalogue.count, sizeof *tensors);
    assert_non_null(tensors);
    for (size_t i = 0; i < catalogue.count; i++) {
        const struct catalogue_entry *entry = &catalogue.entry[i];
        const int fold = entry->rank == 5;
        tensors[i] = (struct gguf_writer_tensor){
            .name = entry->name, .type = LT_TYPE_F32, .rank = entry->rank - fold};
        memcpy(tensors[i].dim, entry->dim + fold, (size_t)tensors[i].rank * sizeof *entry->dim);
        if (fold)
            tensors[i].dim[0] = entry->dim[0] * entry->dim[1];
    }
    assert_ok(gguf_writer_begin(path, tensors, catalogue.count, &pair, 1, &writer, &error));
    for (size_t i = 0; i < catalogue.count; i++) {
        const size_t count = (size_t)catalogue_values(&catalogue.entry[i]);
        float *values = malloc(count * sizeof *values);
        assert_non_null(values);
        fill_vae(&catalogue.entry[i], values, count);
        assert_ok(gguf_writer_put(writer, i, 0, values, count * sizeof *values, &error));
        free(values);
    }
    assert_ok(gguf_writer_end(&writer, &error));
    free(tensors);
    catalogue_fini(&catalogue);
}

static void a_gguf_file_is_the_same_vae(void **state)
{
    static const int64_t lengths[] = {3, 0};
    (void)state;
    write_gguf();
    for (int part = VAE_DECODER; part <= VAE_ENCODER; part++)
        all_lengths(&small, (enum vae_part)part, "best", LT_PRECISION_F32, lengths, 1e-4);
}

static int open_goldens(void **state)
{
    (void)state;
    return begin("vae.safetensors");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(diffusers_names_become_the_originals),
        cmocka_unit_test(a_gguf_file_is_the_same_vae),
    };
    return cmocka_run_group_tests(tests, open_goldens, end);
}
