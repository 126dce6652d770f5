/* eval text. */
#include "worker/eval.h"

#include "common/clock.h"
#include "worker/model/text.h"

#include <stdlib.h>

/* The given tokens, exact in f32: no vocabulary has 2^24 pieces. */
static lt_status read_tokens(struct eval *eval, struct lt_view *tokens, struct lt_error *error)
{
    struct lt_view given;
    LT_TRY(eval_input(eval, "tokens", 1, &given, error));
    LT_TRY(eval_output(eval, "tokens", LT_TYPE_I32, 1, given.dim, tokens, error));
    for (int64_t i = 0; i < given.dim[0]; i++)
        ((int32_t *)tokens->data)[i] = (int32_t)((const float *)given.data)[i];
    return LT_OK;
}

static lt_status encode(struct eval *eval, struct text *text, const struct lt_view *tokens,
                        struct lt_error *error)
{
    struct lt_view features;
    const int64_t dim[] = {tokens->dim[0], text_config(text)->dim};
    LT_TRY(eval_output(eval, "text", LT_TYPE_F32, 2, dim, &features, error));
    const int64_t start = lt_clock_now_us();
    const lt_status status =
        text_encode(text, tokens->data, (size_t)tokens->dim[0], &features, error);
    eval->seconds = (double)(lt_clock_now_us() - start) * 1e-6;
    return status;
}

static lt_status run(struct eval *eval, struct lt_error *error)
{
    struct text_config config;
    struct text *text = NULL;
    struct lt_view tokens;
    LT_TRY(text_config_detect(eval->file[0], &config, error));
    LT_TRY(read_tokens(eval, &tokens, error));
    LT_TRY(eval_load(eval, 0, text_wants, NULL, error));
    LT_TRY(text_create(&config, eval->store[0], &eval->kernels, eval->exec, &text, error));
    const lt_status status = encode(eval, text, &tokens, error);
    text_destroy(&text);
    return status;
}

const struct eval_component eval_text = {
    .name = "text",
    .summary = "tokens [n] -> text [n,4096], tokens [n]",
    .inputs = (const char *const[]){"tokens", NULL},
    .keys = (const char *const[]){NULL},
    .model_min = 1,
    .model_max = 1,
    .run = run,
};
