/* If a device gave other pictures than the host, a farm of both would show seams; if a model looked
 * at device memory itself, it would fall on the first GPU. Every kind of model, executed on the
 * emulator, against the host. */
#include "tests/worker/kinds.h"

#include "common/file.h"

#include <math.h>

static char dir[] = "/tmp/longtake-test-XXXXXX";
static char path[256];

static int make_dir(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    return lt_dir_remove(dir, NULL) != LT_OK;
}

/* -- places ------------------------------------------------------------------------------------ */

struct place {
    struct kind_place at;
    struct device *device;
};

/* `precision` and what the plan of `kind` tells: ops get no more scratch than that. */
static void open_place(struct place *place, const char *name, const struct kind *kind,
                       enum lt_precision precision)
{
    const struct dit_config config = kind_config(kind);
    struct lt_scratch scratch;
    struct lt_error error;
    memset(place, 0, sizeof *place);
    assert_ok(device_open(name, &(struct device_params){0}, &place->device, &error));
    assert_ok(device_kernels(place->device, "best", &place->at.kernels, &error));
    assert_ok(device_exec_create(place->device, &(struct lt_exec_params){2, precision},
                                 &place->at.exec, &error));
    assert_ok(dit_scratch(&config, precision, KIND_TOKENS, &scratch, &error));
    assert_ok(device_set_scratch(place->device, device_scratch_bytes(place->device, &scratch, 2),
                                 &error));
    place->at.params.device = place->device;
}

static void close_place(struct place *place)
{
    lt_exec_destroy(&place->at.exec);
    device_destroy(&place->device); /* which asserts that everything was given back */
}

static void run(const struct kind *kind, const struct place *place, float *out)
{
    struct kind_model model;
    kind_open(&model, kind, &place->at, path);
    kind_predict(&model, kind, &place->at, out);
    kind_close(&model);
}

static double error_of(const float *got, const float *want)
{
    double difference = 0, size = 0;
    for (int i = 0; i < KIND_BATCH * KIND_LATENT; i++) {
        difference += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        size += (double)want[i] * want[i];
    }
    return sqrt(difference / size);
}

/* f32 differs by the order of sums. In bf16 a sum that differs may round an input of the next
 * product to its neighbour, 2^-8 away: the models' own bound. */
static void every_kind_is_the_hosts(void **state)
{
    (void)state;
    static float want[KIND_BATCH * KIND_LATENT], got[KIND_BATCH * KIND_LATENT];
    for (size_t i = 0; i < LT_COUNT(kinds); i++) {
        kind_write(&kinds[i], path);
        for (int precision = LT_PRECISION_F32; precision <= LT_PRECISION_BF16; precision++) {
            struct place host, card;
            open_place(&host, "host", &kinds[i], (enum lt_precision)precision);
            open_place(&card, "cuda:0", &kinds[i], (enum lt_precision)precision);
            run(&kinds[i], &host, want);
            run(&kinds[i], &card, got);
            const double error = error_of(got, want);
            print_message("    %-16s %s: relative error %.2e\n", kinds[i].name,
                          precision == LT_PRECISION_BF16 ? "bf16" : "f32", error);
            assert_true(error <= (precision == LT_PRECISION_BF16 ? 2e-2 : 1e-5));
            close_place(&card);
            close_place(&host);
        }
    }
}

/* N streamed blocks, none or all of them from disk, k ahead (of fusers only one): with LoRAs in the
 * slabs, and with fusers. */
static void wherever_blocks_live_the_bits_are_the_same(void **state)
{
    (void)state;
    static const char *const names[] = {"lora", "animate, weakly"};
    static float want[KIND_BATCH * KIND_LATENT], got[KIND_BATCH * KIND_LATENT];
    for (size_t i = 0; i < LT_COUNT(names); i++) {
        const struct kind *kind = kinds;
        struct place card;
        while (strcmp(kind->name, names[i]) != 0)
            kind++;
        kind_write(kind, path);
        open_place(&card, "cuda:0", kind, LT_PRECISION_BF16);
        run(kind, &card, want);
        for (size_t swapped = 1; swapped <= LORA_LAYERS; swapped++)
            for (size_t on_disk = 0; on_disk <= swapped; on_disk += swapped)
                for (size_t prefetch = i; prefetch <= 2; prefetch += 1 + i) {
                    card.at.params.blocks_to_swap = swapped;
                    card.at.params.disk_blocks = on_disk;
                    card.at.params.prefetch = prefetch;
                    card.at.params.group_tier = on_disk ? STORE_TIER_DISK : STORE_TIER_RAM;
                    run(kind, &card, got);
                    assert_memory_equal(got, want, sizeof got);
                }
        close_place(&card);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_is_the_hosts),
        cmocka_unit_test(wherever_blocks_live_the_bits_are_the_same),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
