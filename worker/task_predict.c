/* predict: a latent slice, its prompts and its conditioning -> the guided velocity. */
#include "worker/engine_private.h"
#include "worker/guidance.h"

#include <math.h>
#include <stdlib.h>

enum { HALVES_MAX = 2 }; /* of a guidance */

struct prompt { /* names a context that is kept for the steps to come */
    struct lt_digest text;
    int64_t text_len;
};

void engine_free_prompt(void *value)
{
    struct dit_context *context = value;
    dit_context_destroy(&context);
}

size_t engine_prompt_key_bytes(void)
{
    return sizeof(struct prompt);
}

struct make_prompt {
    struct dit *dit;
    const struct engine_blob *text;
};

static lt_status make_prompt(void *context, const void *key, void **value_out, uint64_t *bytes_out,
                             struct lt_error *error)
{
    const struct make_prompt *make = context;
    const struct engine_blob *text = make->text;
    const struct dit_config *config = dit_config(make->dit);
    const size_t row_bytes = (size_t)config->text_dim * sizeof(float);
    struct dit_context *made;
    (void)key;
    if (text->bytes == 0 || text->bytes % row_bytes != 0)
        return lt_fail(error, LT_BAD_INPUT, "task: a text of %zu bytes, expected rows of %zu",
                       text->bytes, row_bytes);
    const struct dit_prompt prompt = {.text = lt_view_2d((void *)text->data, LT_TYPE_F32,
                                                         (int64_t)(text->bytes / row_bytes),
                                                         config->text_dim)};
    LT_TRY(dit_context_create(make->dit, &prompt, ENGINE_CONTEXT_BYTES, &made, error));
    *value_out = made;
    *bytes_out = ENGINE_CONTEXT_BYTES; /* what it may grow to */
    return LT_OK;
}

/* The context of a prompt, to be released. */
static lt_status take_prompt(const struct engine_task *task, struct dit *dit,
                             const struct engine_blob *text, struct lt_lru_entry **prompt_out,
                             struct lt_error *error)
{
    const struct prompt key = {lt_sha256(text->data, text->bytes), dit_config(dit)->text_len};
    struct make_prompt make = {dit, text};
    return lt_lru_take(task->engine->prompts, &key, make_prompt, &make, prompt_out, error);
}

/* One prediction per text, side by side: in one batch a block's weights are fetched once for both.
 * `to` holds them one after the other. */
static lt_status predict_texts(const struct engine_task *task, struct dit *dit,
                               const struct lt_view *x, const enum lt_blob_role *role, size_t count,
                               float *to, struct lt_error *error)
{
    struct lt_lru *prompts = task->engine->prompts;
    struct lt_lru_entry *prompt[HALVES_MAX];
    struct dit_inputs inputs[HALVES_MAX];
    struct lt_view v[HALVES_MAX];
    size_t taken = 0;
    lt_status status = LT_OK;
    for (; taken < count; taken++) {
        const struct engine_blob *text = engine_find_blob(task, role[taken]);
        status = text ? take_prompt(task, dit, text, &prompt[taken], error)
                      : lt_fail(error, LT_BAD_INPUT, "task: its text is missing");
        if (status != LT_OK)
            break;
        v[taken] = lt_view_make(to + (int64_t)taken * lt_view_count(x), LT_TYPE_F32, 4, x->dim);
        inputs[taken] = (struct dit_inputs){.x = *x,
                                            .timestep = task->spec->timestep,
                                            .context = lt_lru_value(prompt[taken]),
                                            .done = &task->progress->done};
    }
    if (status == LT_OK)
        status = dit_forward(dit, inputs, count, v, error);
    while (taken > 0)
        lt_lru_release(prompts, prompt[--taken]);
    return status;
}

lt_status engine_predict(const struct engine_task *task, void **result_out, struct lt_error *error)
{
    static const enum lt_blob_role role[HALVES_MAX] = {LT_BLOB_TEXT, LT_BLOB_TEXT_NEGATIVE};
    const double guidance = task->spec->guidance;
    const size_t halves = fabs(guidance - 1) > 1e-9 ? 2 : 1;
    struct resident *resident;
    struct lt_view x;
    LT_TRY(engine_slice(task, LT_BLOB_LATENTS, &x, error));
    const int64_t count = lt_view_count(&x);
    LT_TRY(engine_check_result_bytes(task, (uint64_t)count * sizeof(float), error));
    LT_TRY(engine_load(task, ENGINE_TRANSFORMER, &resident, error));
    engine_begin(task, (unsigned)dit_config(resident->dit)->layer_count * (unsigned)halves);
    float *with = malloc((size_t)count * halves * sizeof *with);
    if (!with)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a prediction");
    lt_status status = predict_texts(task, resident->dit, &x, role, halves, with, error);
    const float *without = with + count;
    if (status == LT_OK && halves == 2)
        guidance_cfg(with, without, count, guidance);
    if (status == LT_OK)
        status = engine_check_finite(with, count, "prediction", error);
    if (status != LT_OK) {
        free(with);
        return status;
    }
    *result_out = with;
    return LT_OK;
}
