#include "worker/weights/names.h"

#include <stdio.h>
#include <string.h>

struct rename {
    const char *from, *to; /* whole names, or both end where ".weight", ".bias", … begins */
};

/* One published form: a tensor that only it has, names outside the blocks, names inside them. */
struct form {
    const char *mark, *block;
    struct rename outside[8], inside[12]; /* ended by an empty row */
};

static const struct form forms[] = {
    [NAMES_UMT5_HUGGINGFACE] =
        {.mark = "encoder.block.0.layer.0.SelfAttention.q.weight", /* transformers, ComfyUI */
         .block = "encoder.block.",
         .outside = {{"shared", "token_embedding"}, {"encoder.final_layer_norm", "norm"}},
         .inside = {{"layer.0.layer_norm", "norm1"},
                    {"layer.0.SelfAttention.q", "attn.q"},
                    {"layer.0.SelfAttention.k", "attn.k"},
                    {"layer.0.SelfAttention.v", "attn.v"},
                    {"layer.0.SelfAttention.o", "attn.o"},
                    {"layer.0.SelfAttention.relative_attention_bias", "pos_embedding.embedding"},
                    {"layer.1.layer_norm", "norm2"},
                    {"layer.1.DenseReluDense.wi_0", "ffn.gate.0"},
                    {"layer.1.DenseReluDense.wi_1", "ffn.fc1"},
                    {"layer.1.DenseReluDense.wo", "ffn.fc2"}}},
    [NAMES_UMT5_GGUF] = {.mark = "enc.blk.0.attn_q.weight", /* GGUF */
                         .block = "enc.blk.",
                         .outside = {{"token_embd", "token_embedding"},
                                     {"enc.output_norm", "norm"}},
                         .inside = {{"attn_norm", "norm1"},
                                    {"attn_q", "attn.q"},
                                    {"attn_k", "attn.k"},
                                    {"attn_v", "attn.v"},
                                    {"attn_o", "attn.o"},
                                    {"attn_rel_b", "pos_embedding.embedding"},
                                    {"ffn_norm", "norm2"},
                                    {"ffn_gate", "ffn.gate.0"},
                                    {"ffn_up", "ffn.fc1"},
                                    {"ffn_down", "ffn.fc2"}}},
    [NAMES_VISION_HUGGINGFACE] =
        {.mark = "vision_model.embeddings.class_embedding",
         .block = "vision_model.encoder.layers.",
         .outside = {{"vision_model.embeddings.class_embedding", "visual.cls_embedding"},
                     {"vision_model.embeddings.patch_embedding", "visual.patch_embedding"},
                     {"vision_model.embeddings.position_embedding.weight", "visual.pos_embedding"},
                     {"vision_model.pre_layrnorm", "visual.pre_norm"}, /* so it is spelled */
                     {"vision_model.post_layernorm", "visual.post_norm"}},
         .inside = {{"layer_norm1", "norm1"},
                    {"layer_norm2", "norm2"},
                    {"self_attn.q_proj", "attn.q"},
                    {"self_attn.k_proj", "attn.k"},
                    {"self_attn.v_proj", "attn.v"},
                    {"self_attn.out_proj", "attn.proj"},
                    {"mlp.fc1", "mlp.0"},
                    {"mlp.fc2", "mlp.2"}}},
    [NAMES_VISION_WAN] = {.mark = "visual.transformer.0.attn.to_qkv.weight",
                          .block = "visual.transformer.",
                          .inside = {{"norm1", "norm1"},
                                     {"norm2", "norm2"},
                                     {"attn.to_qkv", "attn.to_qkv"},
                                     {"attn.proj", "attn.proj"},
                                     {"mlp.0", "mlp.0"},
                                     {"mlp.2", "mlp.2"}}},
    [NAMES_VISION_OPEN_CLIP] = {.mark = "visual.class_embedding",
                                .block = "visual.transformer.resblocks.",
                                .outside = {{"visual.class_embedding", "visual.cls_embedding"},
                                            {"visual.conv1", "visual.patch_embedding"},
                                            {"visual.positional_embedding", "visual.pos_embedding"},
                                            {"visual.ln_pre", "visual.pre_norm"},
                                            {"visual.ln_post", "visual.post_norm"}},
                                .inside = {{"ln_1", "norm1"},
                                           {"ln_2", "norm2"},
                                           {"attn.in_proj_weight", "attn.to_qkv.weight"},
                                           {"attn.in_proj_bias", "attn.to_qkv.bias"},
                                           {"attn.out_proj", "attn.proj"},
                                           {"mlp.c_fc", "mlp.0"},
                                           {"mlp.c_proj", "mlp.2"}}},
    [NAMES_AUDIO] = {.mark = "feature_extractor.conv_layers.0.conv.weight",
                     .block = "encoder.layers.",
                     .outside = {{"encoder.pos_conv_embed.conv.parametrizations.weight.original0",
                                  "encoder.pos_conv_embed.conv.weight_g"},
                                 {"encoder.pos_conv_embed.conv.parametrizations.weight.original1",
                                  "encoder.pos_conv_embed.conv.weight_v"}},
                     .inside = {{"attention.q_proj", "attn.q"},
                                {"attention.k_proj", "attn.k"},
                                {"attention.v_proj", "attn.v"},
                                {"attention.out_proj", "attn.o"},
                                {"layer_norm", "norm1"},
                                {"feed_forward.intermediate_dense", "ffn.0"},
                                {"feed_forward.output_dense", "ffn.2"},
                                {"final_layer_norm", "norm2"}}},
};

static bool has(const struct tensor_info *tensors, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(tensors[i].name, name) == 0)
            return true;
    return false;
}

static bool is_name(const char *wanted, const char *name, size_t stem)
{
    return strcmp(wanted, name) == 0 || (strlen(wanted) == stem && memcmp(wanted, name, stem) == 0);
}

/* The row whose `from` (or `to`, when looked for backwards) is `name` or all of its stem, "attn_q"
 * of "attn_q.weight". */
static const struct rename *find(const struct rename *row, const char *name, bool backwards)
{
    const char *dot = strrchr(name, '.');
    const size_t stem = dot ? (size_t)(dot - name) : strlen(name);
    for (; row->from; row++)
        if (is_name(backwards ? row->to : row->from, name, stem))
            return row;
    return NULL;
}

/* Length of "<n>.", 0 without. */
static int number_length(const char *text)
{
    const int digits = (int)strspn(text, "0123456789");
    return digits > 0 && text[digits] == '.' ? digits + 1 : 0;
}

/* False: the name has no counterpart. */
static bool rename_one(const struct form *form, const char *name, char *to, size_t size)
{
    const size_t length = strlen(form->block);
    const char *rest = name;
    int prefix = 0; /* "<n>." */
    if (strncmp(name, form->block, length) == 0) {
        rest = name + length;
        prefix = number_length(rest);
        if (prefix == 0)
            return false;
    }
    const char *tail = rest + prefix;
    const struct rename *row = find(prefix ? form->inside : form->outside, tail, false);
    if (!row)
        return false;
    return snprintf(to, size, "%s%.*s%s%s", prefix ? "blocks." : "", prefix, rest, row->to,
                    tail + strlen(row->from)) < (int)size;
}

void names_in_form(enum names_form form, const char *name, char *to, size_t size)
{
    const struct form *f = &forms[form];
    const bool inside = strncmp(name, "blocks.", 7) == 0;
    const int prefix = inside ? number_length(name + 7) : 0;
    const char *tail = prefix ? name + 7 + prefix : name;
    const struct rename *row = find(prefix ? f->inside : f->outside, tail, true);
    if (row)
        snprintf(to, size, "%s%.*s%s%s", prefix ? f->block : "", prefix, prefix ? name + 7 : "",
                 row->from, tail + strlen(row->to));
    else
        snprintf(to, size, "%s", name);
}

lt_status names_of_encoder(struct tensor_info *tensors, size_t count, const char *path,
                           struct lt_arena *arena, struct lt_error *error)
{
    const struct form *form = NULL;
    for (size_t i = 0; i < LT_COUNT(forms) && !form; i++)
        form = has(tensors, count, forms[i].mark) ? &forms[i] : NULL;
    if (!form)
        return LT_OK;
    /* transformers may save the embedding under its other name only */
    const bool shared =
        has(tensors, count, "shared.weight") || has(tensors, count, "token_embd.weight");
    for (size_t i = 0; i < count; i++) {
        char name[256];
        if (!shared && strcmp(tensors[i].name, "encoder.embed_tokens.weight") == 0)
            snprintf(name, sizeof name, "token_embedding.weight");
        else if (!rename_one(form, tensors[i].name, name, sizeof name))
            continue;
        tensors[i].name = lt_arena_text(arena, name);
        if (!tensors[i].name)
            return lt_fail(error, LT_NO_MEMORY, "%s: no memory for its index", path);
    }
    return LT_OK;
}
