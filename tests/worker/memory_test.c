/* The plan is the promise that a job fits before it starts. If the sum were wrong, a worker would
 * die hours into a take; if the search were, it would stream blocks for nothing.
 *
 * The acceptance case is pipeline.md 4.9's: a 16 GB card, 24 GB of RAM, WanAnimate 14B in Q5_K_M,
 * 8 of 40 blocks streamed, prefetch 2. */
#include "tests/test.h"

#include "worker/memory.h"
#include "worker/synth.h"

#include <string.h>

#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)

/* Eight blocks and 50 bytes beside them. On a device that the host cannot write, 64 MiB are staged:
 * these tests say that the device is main memory where it would matter. */
static struct memory_request small(void)
{
    static uint64_t slabs[8 + STORE_GROUP_COUNT] = {100, 100, 100, 120, 100, 100, 100, 100, 50};
    static const struct layout layout = {.slab_bytes = slabs, .block_count = 8};
    return (struct memory_request){.layout = &layout,
                                   .activation_bytes = 30,
                                   .runtime_bytes = 5,
                                   .latent_bytes = 3,
                                   .device_is_ram = true,
                                   .blocks_to_swap = -1,
                                   .prefetch = -1,
                                   .order = STORE_ORDER_SPREAD};
}

static struct memory_plan plan_of(const struct memory_request *request)
{
    struct memory_plan plan;
    struct lt_error error;
    assert_ok(memory_plan_make(request, &plan, &error));
    return plan;
}

static void without_limits_nothing_is_streamed(void **state)
{
    (void)state;
    struct memory_request request = small();
    struct memory_plan plan = plan_of(&request);
    assert_int_equal(plan.store.blocks_to_swap, 0);
    assert_int_equal(plan.weights.slot_count, 0);
    assert_int_equal(plan.device_bytes, 820 + 50 + 30);
    assert_int_equal(plan.ram_bytes, 900 + 5 + 3);
    request.device_is_ram = false;
    plan = plan_of(&request);
    assert_int_equal(plan.device_bytes, 900);
    assert_int_equal(plan.ram_bytes, plan.weights.staging_bytes + 5 + 3);
}

static void as_few_blocks_as_fit_are_streamed(void **state)
{
    (void)state;
    struct memory_request request = small();
    request.device_limit = 900;
    assert_int_equal(plan_of(&request).store.blocks_to_swap, 0);
    /* Two slots of the largest block cost 240: streaming pays from three blocks on. */
    request.device_limit = 899;
    const struct memory_plan plan = plan_of(&request);
    assert_int_equal(plan.store.blocks_to_swap, 3);
    assert_int_equal(plan.weights.slot_count, 2);
    assert_true(plan.device_bytes <= 899);
    assert_int_equal(plan.line[MEMORY_BLOCKS_RESIDENT] + plan.line[MEMORY_BLOCKS_RAM], 820);
    assert_int_equal(plan.store.disk_blocks, 0); /* main memory has no limit */
}

static void least_memory_is_one_slot(void **state)
{
    (void)state;
    struct memory_request request = small();
    struct memory_plan plan;
    struct lt_error error;
    request.device_limit = 50 + 30 + 240;
    plan = plan_of(&request);
    assert_int_equal(plan.store.blocks_to_swap, 8);
    assert_int_equal(plan.weights.slot_count, 2);
    request.device_limit = 50 + 30 + 120;
    plan = plan_of(&request); /* overlap is given up last */
    assert_int_equal(plan.weights.slot_count, 1);
    assert_int_equal(plan.device_bytes, 200);
    request.device_limit = 199;
    assert_int_equal(memory_plan_make(&request, &plan, &error), LT_NO_DEVICE_MEMORY);
    assert_non_null(strstr(error.text, "no number of --blocks-to-swap fits"));
    request.device_limit = 50 + 30 + 240;
    request.prefetch = 3; /* what the user asks for is not changed */
    assert_int_equal(memory_plan_make(&request, &plan, &error), LT_NO_DEVICE_MEMORY);
}

static void what_does_not_fit_in_ram_stays_on_disk(void **state)
{
    (void)state;
    struct memory_request request = small();
    struct lt_error error;
    request.blocks_to_swap = 8;
    request.prefetch = 1;
    const uint64_t least = 50 + 30 + 240 + 8; /* all streamed blocks on disk */
    request.ram_limit = least + 250;
    struct memory_plan plan = plan_of(&request);
    assert_int_equal(plan.store.disk_blocks, 6);
    assert_true(plan.ram_bytes <= request.ram_limit);
    assert_int_equal(plan.ram_bytes, least + plan.line[MEMORY_BLOCKS_RAM]);
    request.ram_limit = least + 820;
    plan = plan_of(&request);
    assert_int_equal(plan.store.disk_blocks, 0);
    assert_int_equal(plan.ram_bytes, least + 820);
    request.ram_limit = least - 1;
    assert_int_equal(memory_plan_make(&request, &plan, &error), LT_NO_MEMORY);
}

/* On the host a block in main memory is as dear as one on the device. */
static void on_the_host_streamed_blocks_come_from_disk(void **state)
{
    (void)state;
    struct memory_request request = small();
    struct memory_plan other;
    struct lt_error error;
    request.ram_limit = 600;
    const struct memory_plan plan = plan_of(&request);
    assert_true(plan.ram_bytes <= 600);
    assert_int_equal(plan.ram_bytes, plan.device_bytes + 8);
    assert_int_equal(plan.store.disk_blocks, plan.store.blocks_to_swap);
    request.blocks_to_swap = (int64_t)plan.store.blocks_to_swap - 1;
    request.prefetch = 1;
    assert_int_equal(memory_plan_make(&request, &other, &error), LT_NO_MEMORY);
    char advice[64];
    snprintf(advice, sizeof advice, "--blocks-to-swap %zu would fit", plan.store.blocks_to_swap);
    assert_non_null(strstr(error.text, advice));
}

static void the_vae_takes_turns_only_when_it_must(void **state)
{
    (void)state;
    struct memory_request request = small();
    request.decoder_bytes = 400;
    request.device_limit = 900 + 400;
    struct memory_plan plan = plan_of(&request);
    assert_false(plan.exchange);
    assert_int_equal(plan.device_bytes, 1300);
    request.device_limit = 50 + 30 + 240 + 400; /* beside a transformer that is all streamed */
    plan = plan_of(&request);
    assert_false(plan.exchange);
    assert_int_equal(plan.store.blocks_to_swap, 8);
    request.device_limit -= 1;
    plan = plan_of(&request);
    assert_true(plan.exchange);
    assert_true(plan.store.blocks_to_swap < 8);
    assert_true(plan.device_bytes <= request.device_limit);
    request.device_limit = 399;
    struct lt_error error;
    assert_int_equal(memory_plan_make(&request, &plan, &error), LT_NO_DEVICE_MEMORY);
}

/* -- the acceptance case ----------------------------------------------------------------------- */

enum { LAYERS = 40 };

/* Slabs of the full-size file, from its list of tensors: no weight is made. */
static void measure_animate(uint64_t slab[LAYERS + 1])
{
    const struct synth_params params = {.variant = "animate-14b", .quant = "q5_k_m"};
    struct synth_layout layout;
    struct lt_error error;
    assert_ok(synth_layout_build(&params, &layout, &error));
    for (size_t i = 0; i < layout.catalogue.count; i++) {
        unsigned n = LAYERS;
        uint64_t bytes;
        assert_true(lt_type_bytes(layout.tensor[i].type,
                                  (uint64_t)catalogue_values(&layout.catalogue.entry[i]), &bytes));
        sscanf(layout.tensor[i].name, "blocks.%u.", &n);
        slab[n] += bytes;
    }
    synth_layout_fini(&layout);
}

/* Five buffers [tokens, 5120] and one [2048, 13824], f32. */
static uint64_t activations(uint64_t tokens)
{
    return (5 * tokens * 5120 + 2048 * 13824) * 4;
}

static struct memory_request seed_case(const struct layout *layout, uint64_t tokens)
{
    return (struct memory_request){.layout = layout,
                                   .activation_bytes = activations(tokens),
                                   .latent_bytes = 64 * MIB,
                                   .runtime_bytes = GIB,
                                   .device_limit = 16 * GIB,
                                   .ram_limit = 24 * GIB,
                                   .blocks_to_swap = 8,
                                   .prefetch = 2,
                                   .order = STORE_ORDER_TAIL};
}

static void the_seed_case_fits_at_480p_and_not_at_720p(void **state)
{
    (void)state;
    static uint64_t block[LAYERS + STORE_GROUP_COUNT];
    const struct layout layout = {.slab_bytes = block, .block_count = LAYERS};
    struct memory_plan plan;
    struct lt_error error;
    memset(block, 0, sizeof block);
    measure_animate(block);
    assert_int_equal(block[0], 294455296); /* pipeline.md 4.0: 294.46 MB */
    struct memory_request request = seed_case(&layout, 21 * 1560);
    plan = plan_of(&request);
    assert_int_equal(plan.weights.slot_count, 3);
    assert_int_equal(plan.line[MEMORY_BLOCKS_RESIDENT], 32 * block[0]);
    assert_int_equal(plan.line[MEMORY_SLOTS], 3 * block[0]);
    assert_int_equal(plan.store.disk_blocks, 0);
    assert_int_equal(plan.line[MEMORY_BLOCKS_RAM], 8 * block[0]);
    assert_true(plan.device_bytes > 13 * GIB && plan.device_bytes < 15 * GIB);
    assert_true(plan.ram_bytes < 5 * GIB);

    request = seed_case(&layout, 21 * 3600);
    assert_int_equal(memory_plan_make(&request, &plan, &error), LT_NO_DEVICE_MEMORY);
    assert_non_null(strstr(error.text, "with 8 of 40 blocks streamed"));
    assert_non_null(strstr(error.text, "--device-memory allows 16.0 GiB"));
    const char *advice = strstr(error.text, "--blocks-to-swap ");
    unsigned better = 0;
    assert_non_null(advice);
    assert_int_equal(sscanf(advice, "--blocks-to-swap %u would fit", &better), 1);
    request.blocks_to_swap = better;
    plan = plan_of(&request);
    assert_true(plan.device_bytes <= 16 * GIB);
    request.blocks_to_swap = better - 1;
    assert_int_equal(memory_plan_make(&request, &plan, &error), LT_NO_DEVICE_MEMORY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_limits_nothing_is_streamed),
        cmocka_unit_test(as_few_blocks_as_fit_are_streamed),
        cmocka_unit_test(least_memory_is_one_slot),
        cmocka_unit_test(what_does_not_fit_in_ram_stays_on_disk),
        cmocka_unit_test(on_the_host_streamed_blocks_come_from_disk),
        cmocka_unit_test(the_vae_takes_turns_only_when_it_must),
        cmocka_unit_test(the_seed_case_fits_at_480p_and_not_at_720p),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
