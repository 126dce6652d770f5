#include "worker/weights/lora_describe.h"

#include "kernels/quant.h"

#include <string.h>

static lt_status add_alpha(struct tensor_file *file, const struct tensor_info *info,
                           struct lora_description *d, struct lt_error *error)
{
    unsigned char raw[8];
    float alpha;
    int64_t count = 1;
    for (int i = 0; i < info->rank; i++)
        count *= info->dim[i];
    if (count != 1 ||
        (info->type != LT_TYPE_F32 && info->type != LT_TYPE_F16 && info->type != LT_TYPE_BF16))
        return LT_OK;
    LT_TRY(tensor_file_read(file, info, raw, error));
    lt_dequantize_row(info->type, raw, &alpha, 1);
    d->alpha_min = d->alpha_count == 0 || alpha < d->alpha_min ? alpha : d->alpha_min;
    d->alpha_max = d->alpha_count == 0 || alpha > d->alpha_max ? alpha : d->alpha_max;
    d->alpha_count++;
    return LT_OK;
}

static void add_pair(const struct tensor_info *down, struct lora_description *d)
{
    const int64_t rank = down->rank > 0 ? down->dim[0] : 0;
    d->pair_count++;
    d->rank_min = d->pair_count == 1 || rank < d->rank_min ? rank : d->rank_min;
    d->rank_max = rank > d->rank_max ? rank : d->rank_max;
}

static lt_status add(struct tensor_file *file, const struct tensor_info *info,
                     const struct lora_key *key, size_t *up_count, struct lora_description *d,
                     struct lt_error *error)
{
    d->key_count++;
    d->form_keys[key->form]++;
    switch (key->role) {
    case LORA_ROLE_DOWN:
        add_pair(info, d);
        break;
    case LORA_ROLE_UP:
        (*up_count)++;
        break;
    case LORA_ROLE_ALPHA:
        return add_alpha(file, info, d, error);
    case LORA_ROLE_DORA:
    case LORA_ROLE_MAGNITUDE:
        d->dora_count++;
        break;
    default:
        d->diff_count++;
    }
    return LT_OK;
}

lt_status lora_describe(struct tensor_file *file, bool *is_lora_out,
                        struct lora_description *description_out, struct lt_error *error)
{
    struct lora_description d = {0};
    size_t up_count = 0, refused_count = 0;
    bool high = false, low = false;
    for (size_t i = 0; i < tensor_file_count(file); i++) {
        const struct tensor_info *info = tensor_file_at(file, i);
        const char *refused;
        struct lora_key key;
        if (lora_key_parse(info->name, &key, &refused)) {
            LT_TRY(add(file, info, &key, &up_count, &d, error));
            high = high || key.expert == LORA_EXPERT_HIGH;
            low = low || key.expert == LORA_EXPERT_LOW;
        }
        refused_count += refused != NULL;
        if (refused && !d.refused_kind) {
            d.refused_kind = refused;
            d.refused_key = info->name;
        }
    }
    for (int form = 0; form < LORA_FORM_COUNT; form++)
        if (d.form_keys[form] > d.form_keys[d.form])
            d.form = (enum lora_form)form;
    d.half_count = d.pair_count > up_count ? d.pair_count - up_count : up_count - d.pair_count;
    d.both_experts = high && low;
    *is_lora_out = 2 * (d.key_count + refused_count) > tensor_file_count(file);
    *description_out = d;
    return LT_OK;
}
