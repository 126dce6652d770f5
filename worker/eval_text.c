/* eval text: a prompt, or its tokens, to features. */
#include "worker/eval.h"

#include "common/clock.h"
#include "worker/model/text.h"
#include "worker/model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

/* The given tokens, exact in f32: no vocabulary has 2^24 pieces. */
static lt_status read_tokens(struct eval *eval, struct lt_view *tokens, struct lt_error *error)
{
    struct lt_view given;
    LT_TRY(eval_input(eval, "tokens", 1, &given, error));
    if (given.dim[0] < 1)
        return lt_fail(error, LT_BAD_INPUT, "%s: tensor 'tokens': at least one value",
                       eval_inputs_path(eval));
    LT_TRY(eval_output(eval, "tokens", LT_TYPE_I32, 1, given.dim, tokens, error));
    for (int64_t i = 0; i < given.dim[0]; i++) {
        const float token = ((const float *)given.data)[i];
        if (!(token >= 0 && token < 0x1p24f))
            return lt_fail(error, LT_BAD_INPUT, "%s: tensor 'tokens': value %lld is %g",
                           eval_inputs_path(eval), (long long)i, (double)token);
        ((int32_t *)tokens->data)[i] = (int32_t)token;
    }
    return LT_OK;
}

static lt_status tokenize(struct eval *eval, const char *prompt, struct lt_view *tokens,
                          struct lt_error *error)
{
    const char *path = eval_model_path(eval, 1), *clean = eval_setting(eval, "clean");
    enum tokenizer_style style = TOKENIZER_WAN;
    struct vocabulary *vocabulary;
    int32_t *ids;
    size_t count;
    if (clean)
        LT_TRY(tokenizer_style_parse(clean, &style, error));
    LT_TRY(path ? vocabulary_open(path, &vocabulary, error)
                : vocabulary_of_file(eval->file[0], &vocabulary, error));
    lt_status status =
        tokenizer_encode(vocabulary, prompt, strlen(prompt), style, &ids, &count, error);
    vocabulary_close(&vocabulary);
    LT_TRY(status);
    const int64_t dim = (int64_t)count;
    status = eval_output(eval, "tokens", LT_TYPE_I32, 1, &dim, tokens, error);
    if (status == LT_OK)
        memcpy(tokens->data, ids, count * sizeof *ids);
    free(ids);
    return status;
}

static lt_status make_tokens(struct eval *eval, struct lt_view *tokens, struct lt_error *error)
{
    const char *prompt = eval_setting(eval, "prompt");
    if (prompt && eval->inputs)
        return lt_fail(error, LT_USAGE, "text takes tokens or --set prompt=…, not both");
    return prompt ? tokenize(eval, prompt, tokens, error) : read_tokens(eval, tokens, error);
}

static lt_status tell_memory(struct eval *eval, const struct text_config *config, size_t tokens,
                             struct lt_error *error)
{
    struct lt_scratch scratch;
    LT_TRY(text_scratch(config, lt_exec_precision(eval->exec), tokens, &scratch, error));
    eval_tell(eval, text_activation_bytes(config, tokens), &scratch);
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
    LT_TRY(make_tokens(eval, &tokens, error));
    LT_TRY(tell_memory(eval, &config, (size_t)tokens.dim[0], error));
    LT_TRY(eval_load(eval, 0, text_wants, NULL, error));
    LT_TRY(text_create(&config, eval->store[0], &eval->kernels, eval->exec, &text, error));
    const lt_status status = encode(eval, text, &tokens, error);
    text_destroy(&text);
    return status;
}

const struct eval_component eval_text = {
    .name = "text",
    .summary = "tokens [n], or --set prompt=… (and clean=wan|comfy; a second --model may hold "
               "the vocabulary) -> text [n,4096], tokens [n]",
    .inputs = (const char *const[]){"tokens", NULL},
    .keys = (const char *const[]){"prompt", "clean", NULL},
    .model_min = 1,
    .model_max = 2,
    .file_max = 1,
    .inputs_optional = true,
    .run = run,
};
