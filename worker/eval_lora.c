/* --lora of eval: FILE[:S[,S…]], and what the report says of each file. */
#include "worker/eval.h"

#include "worker/lora_option.h"

#include <string.h>

static lt_status read_choices(const struct eval *eval, struct lora_source *choice, bool *streamed,
                              struct lt_error *error)
{
    const char *expert = eval_setting(eval, "lora_expert"), *peft = eval_setting(eval, "lora_peft");
    int64_t stream = 0;
    if (expert && strcmp(expert, "high") == 0)
        choice->expert = LORA_EXPERT_HIGH;
    else if (expert && strcmp(expert, "low") == 0)
        choice->expert = LORA_EXPERT_LOW;
    else if (expert)
        return lt_fail(error, LT_USAGE, "--set lora_expert=%s: expected high or low", expert);
    choice->plain_peft = peft && strcmp(peft, "plain") == 0;
    if (peft && !choice->plain_peft && strcmp(peft, "ranked") != 0)
        return lt_fail(error, LT_USAGE, "--set lora_peft=%s: expected ranked or plain", peft);
    LT_TRY(eval_setting_int(eval, "lora_stream", 0, 1, &stream, error));
    *streamed = stream == 1;
    return LT_OK;
}

lt_status eval_open_loras(struct eval *eval, const struct lt_text_list *list,
                          struct tensor_file *model, struct lt_error *error)
{
    struct lora_source choice = {0};
    struct lora_option option = {0};
    struct lora_params params = {
        .type = lt_exec_precision(eval->exec) == LT_PRECISION_F32 ? LT_TYPE_F32 : LT_TYPE_BF16};
    int64_t step = 0;
    LT_TRY(read_choices(eval, &choice, &params.streamed, error));
    LT_TRY(eval_setting_int(eval, "lora_step", 0, 100000, &step, error));
    LT_TRY(lora_option_parse(list, &choice, &option, error));
    params.source = option.source;
    params.count = option.count;
    const lt_status status = lora_set_create(&params, model, &eval->lora, error);
    if (status == LT_OK) {
        lora_set_step(eval->lora, (size_t)step);
        eval->extras[0] = lora_set_extras(eval->lora);
    }
    lora_option_fini(&option);
    return status;
}

/* -- report ------------------------------------------------------------------------------------ */

static void print_string(FILE *to, const char *text)
{
    fputc('"', to);
    for (; *text; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            fprintf(to, "\\%c", c);
        else if (c < 0x20 || c >= 0x7f)
            fprintf(to, "\\u%04x", c);
        else
            fputc(c, to);
    }
    fputc('"', to);
}

void eval_print_loras(const struct eval *eval, FILE *to)
{
    struct lora_stats stats;
    lora_set_stats(eval->lora, &stats);
    fprintf(to,
            ", \"lora_read_bytes\": %llu, \"lora_bytes\": %llu, \"lora_buffer_bytes\": %llu, "
            "\"lora\": [",
            (unsigned long long)stats.read_bytes, (unsigned long long)stats.extra_bytes,
            (unsigned long long)stats.buffer_bytes);
    for (size_t i = 0; i < lora_set_count(eval->lora); i++) {
        const struct lora_report *report = lora_set_report(eval->lora, i);
        fprintf(to, "%s{\"file\": ", i ? ", " : "");
        print_string(to, report->path);
        fprintf(to,
                ", \"form\": \"%s\", \"keys\": %zu, \"matched\": %zu, \"other_shape\": %zu, "
                "\"tensors\": %zu, \"rank_max\": %lld, \"left\": [",
                lora_form_name(report->form), report->key_count, report->matched_count,
                report->mismatched_count, report->patch_count, (long long)report->rank_max);
        for (size_t n = 0; n < LORA_NAMES_SHOWN && report->left[n]; n++) {
            fputs(n ? ", " : "", to);
            print_string(to, report->left[n]);
        }
        fputs("]}", to);
    }
    fputc(']', to);
}
