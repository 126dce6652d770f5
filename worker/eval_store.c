/* How eval places a model: the user's limits and wishes make a plan, the plan makes a store. */
#include "worker/eval.h"

static lt_status make_plan(struct eval *eval, const struct layout *layout, struct memory_plan *plan,
                           struct lt_error *error)
{
    const struct memory_settings *m = &eval->memory;
    const struct memory_request request = {
        .layout = layout,
        .activation_bytes = eval->activation_bytes,
        .scratch_bytes = eval->scratch_bytes,
        .cache_bytes = eval->cache_bytes,
        .latent_bytes = eval->input_bytes,
        .runtime_bytes = eval->runtime_bytes,
        .device_is_ram = device_is_ram(eval->device),
        .device_limit = m->device_memory,
        .ram_limit = m->ram,
        .blocks_to_swap = m->blocks_to_swap,
        .prefetch = m->prefetch,
        .order = memory_swap_order(m),
    };
    LT_TRY(memory_plan_make(&request, plan, error));
    eval->plan = *plan;
    return LT_OK;
}

void eval_tell(struct eval *eval, uint64_t activation_bytes, const struct lt_scratch *scratch)
{
    eval->activation_bytes = activation_bytes;
    eval->scratch_bytes =
        device_scratch_bytes(eval->device, scratch, lt_exec_thread_count(eval->exec));
}

static lt_status plan_model(struct eval *eval, size_t index, store_filter *wanted, void *context,
                            struct memory_plan *plan, struct lt_error *error)
{
    struct layout layout;
    LT_TRY(layout_build(eval->file[index], wanted, context, eval->extras[index], &layout, error));
    const lt_status status = make_plan(eval, &layout, plan, error);
    layout_fini(&layout);
    return status;
}

lt_status eval_load(struct eval *eval, size_t index, store_filter *wanted, void *context,
                    struct lt_error *error)
{
    struct memory_plan plan;
    lt_assert(index < EVAL_MODELS_MAX && eval->file[index] && !eval->store[index]);
    lt_status status = plan_model(eval, index, wanted, context, &plan, error);
    if (eval->extras[index] && eval->lora && memory_plan_pairs_are_too_much(status, &plan)) {
        eval->activation_bytes -= lora_set_use_bytes(eval->lora);
        lora_set_stream(eval->lora);
        eval->extras[index] = NULL;
        eval->activation_bytes += lora_set_use_bytes(eval->lora);
        status = plan_model(eval, index, wanted, context, &plan, error);
    }
    LT_TRY(status);
    LT_TRY(device_set_scratch(eval->device, eval->scratch_bytes, error));
    plan.store.device = eval->device;
    plan.store.extras = eval->extras[index];
    LT_TRY(store_open(eval->file[index], wanted, context, &plan.store, &eval->store[index], error));
    eval_sample(eval, MEMORY_STAGE_LOAD_END);
    return LT_OK;
}

void eval_store_stats(const struct eval *eval, struct store_stats *sum_out)
{
    struct store_stats sum = {0};
    for (size_t i = 0; i < EVAL_MODELS_MAX; i++) {
        struct store_stats one = {0};
        if (eval->store[i])
            store_stats(eval->store[i], &one);
        sum.weight_bytes += one.weight_bytes;
        sum.device_bytes += one.device_bytes;
        sum.pinned_bytes += one.pinned_bytes;
        sum.read_bytes += one.read_bytes;
        sum.made_bytes += one.made_bytes;
        sum.copy_bytes += one.copy_bytes;
        sum.fetch_count += one.fetch_count;
        sum.stall_us += one.stall_us;
        sum.load_wait_us += one.load_wait_us;
        sum.load_seconds += one.load_seconds;
        sum.first_block_seconds += one.first_block_seconds;
    }
    *sum_out = sum;
}
