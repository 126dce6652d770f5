/* encode-text: a prompt -> the features a transformer attends to, f32 [rows, width], zeros behind
 * the last token (encoders.md 6.3). */
#include "worker/engine_private.h"
#include "worker/model/tokenizer.h"

#include <stdlib.h>

static lt_status check(const struct engine_task *task, const struct text_config *config,
                       size_t token_count, struct lt_error *error)
{
    const uint32_t rows = task->spec->shape[0], width = task->spec->shape[1];
    LT_TRY(engine_check_result_bytes(task, 4 * (uint64_t)rows * width, error));
    if (config->dim != width)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: features of width %lld, the job says %u (model.text_width)",
                       task->spec->model.name, (long long)config->dim, width);
    if (token_count > rows)
        return lt_fail(error, LT_BAD_INPUT,
                       "the prompt has %zu tokens, the job takes %u (model.text_len)", token_count,
                       rows);
    return LT_OK;
}

lt_status engine_encode_text(const struct engine_task *task, void **result_out,
                             struct lt_error *error)
{
    const struct engine_blob *prompt = engine_find_blob(task, LT_BLOB_PROMPT);
    struct resident *resident;
    int32_t *tokens;
    size_t count;
    if (!prompt)
        return lt_fail(error, LT_BAD_INPUT, "task: its prompt is missing");
    LT_TRY(engine_load(task, ENGINE_TEXT, &resident, error));
    const struct text_config *config = text_config(resident->text);
    LT_TRY(tokenizer_encode(resident->vocabulary, prompt->data, prompt->bytes,
                            (enum tokenizer_style)task->spec->text_style, &tokens, &count, error));
    float *values = NULL;
    lt_status status = check(task, config, count, error);
    if (status == LT_OK && !(values = calloc(1, (size_t)task->spec->result_bytes)))
        status = lt_fail(error, LT_NO_MEMORY, "no memory for the features of a prompt");
    if (status == LT_OK) {
        const struct lt_view features =
            lt_view_2d(values, LT_TYPE_F32, (int64_t)count, config->dim);
        engine_begin(task, 1);
        status = text_encode(resident->text, tokens, count, &features, error);
        if (status == LT_OK)
            status = engine_check_finite(values, (int64_t)count * config->dim, "text", error);
    }
    free(tokens);
    if (status != LT_OK) {
        free(values);
        return status;
    }
    *result_out = values;
    return LT_OK;
}
