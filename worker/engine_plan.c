/* Memory of the components, decided before a byte is read: a transformer's plan (memory.h) beside
 * what else is resident, or in its place. */
#include "worker/engine_private.h"

/* -- what there is ----------------------------------------------------------------------------- */

static uint64_t others_bytes(const struct engine *engine, enum engine_slot slot)
{
    uint64_t bytes = 0;
    for (int other = 0; other < ENGINE_SLOT_COUNT; other++)
        if (other != (int)slot)
            bytes += engine->slot[other].planned_bytes;
    return bytes;
}

static void drop_others(struct engine *engine, enum engine_slot slot)
{
    for (int other = 0; other < ENGINE_SLOT_COUNT; other++)
        if (other != (int)slot && engine->slot[other].store)
            engine_drop(engine, (enum engine_slot)other);
}

static uint64_t less(uint64_t limit, uint64_t bytes)
{
    return limit == 0 ? 0 : limit > bytes ? limit - bytes : 1; /* 0 would be no limit at all */
}

static void set_limits(const struct engine *engine, struct memory_request *request, uint64_t taken)
{
    request->device_limit = less(engine->memory.device_memory, taken);
    request->ram_limit = less(engine->memory.ram, taken);
}

static struct memory_request request_of(const struct engine *engine, const struct layout *layout)
{
    return (struct memory_request){.layout = layout,
                                   .runtime_bytes = engine->runtime_bytes,
                                   .latent_bytes = engine->blob_bytes,
                                   .device_is_ram = device_is_ram(engine->device),
                                   .blocks_to_swap = engine->memory.blocks_to_swap,
                                   .prefetch = engine->memory.prefetch,
                                   .order = memory_swap_order(&engine->memory)};
}

/* Beside what else is resident, or in its place. Not `streaming`: only with every block resident.
 */
static lt_status plan_in_room(struct engine *engine, enum engine_slot slot,
                              struct memory_request *request, bool streaming,
                              struct memory_plan *plan_out, struct lt_error *error)
{
    const uint64_t others = others_bytes(engine, slot);
    lt_status status = LT_OK;
    for (int drop = 0; drop <= (others > 0); drop++) {
        set_limits(engine, request, drop ? 0 : others);
        status = memory_plan_make(request, plan_out, error);
        if (status != LT_OK || (!streaming && plan_out->store.blocks_to_swap > 0))
            continue;
        if (drop)
            drop_others(engine, slot);
        return LT_OK;
    }
    return status == LT_OK ? LT_NO_MEMORY : status;
}

lt_status engine_take_plan(struct engine *engine, enum engine_slot slot, struct memory_plan *plan,
                           struct lt_error *error)
{
    size_t most = 0;
    engine->slot[slot].planned_bytes = plan->device_bytes;
    engine->slot[slot].scratch_bytes = (size_t)plan->line[MEMORY_SCRATCH];
    plan->store.device = engine->device;
    for (int i = 0; i < ENGINE_SLOT_COUNT; i++)
        most = engine->slot[i].scratch_bytes > most ? engine->slot[i].scratch_bytes : most;
    return device_set_scratch(engine->device, most, error);
}

/* -- other components -------------------------------------------------------------------------- */

lt_status engine_plan(struct engine *engine, enum engine_slot slot, const struct layout *layout,
                      uint64_t activation_bytes, uint64_t scratch_bytes, uint64_t held_bytes,
                      const char *what, struct memory_plan *plan_out, struct lt_error *error)
{
    struct memory_request request = request_of(engine, layout);
    request.activation_bytes = activation_bytes;
    request.scratch_bytes = scratch_bytes;
    request.latent_bytes += held_bytes;
    request.blocks_to_swap = -1; /* the user's wish is about the transformer */
    if (plan_in_room(engine, slot, &request, false, plan_out, error) == LT_OK ||
        plan_in_room(engine, slot, &request, true, plan_out, error) == LT_OK)
        return LT_OK;
    return lt_error_prefix(error, "%s: ", what);
}

/* -- a transformer ----------------------------------------------------------------------------- */

/* Keys and values of a prompt in every block, f32; the budget bounds it. */
static size_t context_need(const struct dit_config *config, const struct engine_size *size)
{
    const uint64_t rows = size->text_values / (uint64_t)config->text_dim + 1;
    const uint64_t bytes = (uint64_t)(config->layer_count * 2 * config->dim) * rows * sizeof(float);
    return bytes < ENGINE_CONTEXT_BYTES ? (size_t)bytes : ENGINE_CONTEXT_BYTES;
}

struct search {
    const struct engine_task *task;
    const struct dit_config *config;
    const struct engine_size *size;
    uint64_t lora_bytes; /* beside the slabs */
    struct memory_request request;
};

static void ask_for(struct search *s, size_t task_count, size_t context_bytes)
{
    const size_t inputs = s->size->input_count * task_count;
    s->request.activation_bytes =
        dit_activation_bytes(s->config, s->size->tokens, inputs) + s->lora_bytes;
    if (!s->request.device_is_ram)
        s->request.activation_bytes += dit_card_bytes(s->config, s->size->tokens, inputs);
    s->request.cache_bytes = s->size->input_count * (uint64_t)context_bytes;
    s->request.latent_bytes = s->task->engine->blob_bytes + inputs * s->task->spec->result_bytes;
    if (s->size->keeps) {
        s->request.activation_bytes +=
            inputs * (size_t)(s->size->tokens * s->config->dim) * sizeof(float);
        if (s->request.device_is_ram)
            s->request.latent_bytes += s->task->engine->reuse_bytes;
        else /* blocks' sums lie where ops are */
            s->request.cache_bytes += s->task->engine->reuse_bytes;
    }
}

/* Streaming is the last resort; before it, what is kept of prompts goes. */
static lt_status find_plan(struct search *s, struct engine_plan *plan, struct lt_error *error)
{
    const size_t need = context_need(s->config, s->size);
    lt_status status = LT_OK;
    for (int streaming = s->request.blocks_to_swap > 0; streaming < 2; streaming++)
        for (int keep = 1; keep >= 0; keep--) {
            plan->context_bytes = keep ? need : 0;
            ask_for(s, 1, plan->context_bytes);
            status = plan_in_room(s->task->engine, ENGINE_TRANSFORMER, &s->request, streaming,
                                  &plan->memory, error);
            if (status == LT_OK)
                return LT_OK;
        }
    return status;
}

/* As many tasks as fit beside the same blocks. */
static unsigned find_batch(struct search *s, const struct engine_plan *plan)
{
    if (plan->memory.store.blocks_to_swap == 0)
        return 1;
    set_limits(s->task->engine, &s->request, others_bytes(s->task->engine, ENGINE_TRANSFORMER));
    for (unsigned count = ENGINE_BATCH_MAX; count > 1; count--) {
        struct memory_plan larger;
        ask_for(s, count, plan->context_bytes);
        if (memory_plan_make(&s->request, &larger, NULL) == LT_OK &&
            larger.store.blocks_to_swap == plan->memory.store.blocks_to_swap &&
            larger.store.disk_blocks == plan->memory.store.disk_blocks)
            return count;
    }
    return 1;
}

lt_status engine_plan_dit(const struct engine_task *task, const struct tensor_file *file,
                          const struct dit_config *config, const struct engine_size *size,
                          const struct lora_set *lora, struct engine_plan *plan_out,
                          struct lt_error *error)
{
    struct layout layout;
    struct lt_scratch scratch;
    struct engine_plan plan = {.batch_max = 1};
    lt_status status;
    LT_TRY(dit_scratch(config, (enum lt_precision)task->spec->precision, size->tokens, &scratch,
                       error));
    LT_TRY(layout_build(file, NULL, NULL, lora ? lora_set_extras(lora) : NULL, &layout, error));
    struct search search = {task, config, size, lora ? lora_set_use_bytes(lora) : 0,
                            request_of(task->engine, &layout)};
    if (lora)
        LT_TRY_OR(lora_set_scratch(lora, (enum lt_precision)task->spec->precision, size->tokens,
                                   &scratch, error),
                  out);
    search.request.scratch_bytes =
        device_scratch_bytes(task->engine->device, &scratch, lt_exec_thread_count(task->exec));
    LT_TRY_OR(find_plan(&search, &plan, error), out);
    plan.batch_max = find_batch(&search, &plan);
    *plan_out = plan;
out:
    layout_fini(&layout);
    return status;
}
