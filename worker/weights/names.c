#include "worker/weights/names.h"

#include <stdio.h>
#include <string.h>

struct rename {
    const char *from, *to; /* both end where ".weight" or ".scale_weight" begins */
};

/* One published form: a tensor that only it has, names outside the blocks, names inside them. */
struct form {
    const char *mark, *block;
    struct rename outside[4], inside[12];
};

static const struct form forms[] = {
    [NAMES_TRANSFORMERS] = {.mark = "encoder.block.0.layer.0.SelfAttention.q.weight",
                            .block = "encoder.block.",
                            .outside = {{"shared", "token_embedding"},
                                        {"encoder.final_layer_norm", "norm"}},
                            .inside = {{"layer.0.layer_norm", "norm1"},
                                       {"layer.0.SelfAttention.q", "attn.q"},
                                       {"layer.0.SelfAttention.k", "attn.k"},
                                       {"layer.0.SelfAttention.v", "attn.v"},
                                       {"layer.0.SelfAttention.o", "attn.o"},
                                       {"layer.0.SelfAttention.relative_attention_bias",
                                        "pos_embedding.embedding"},
                                       {"layer.1.layer_norm", "norm2"},
                                       {"layer.1.DenseReluDense.wi_0", "ffn.gate.0"},
                                       {"layer.1.DenseReluDense.wi_1", "ffn.fc1"},
                                       {"layer.1.DenseReluDense.wo", "ffn.fc2"}}},
    [NAMES_GGUF] = {.mark = "enc.blk.0.attn_q.weight",
                    .block = "enc.blk.",
                    .outside = {{"token_embd", "token_embedding"}, {"enc.output_norm", "norm"}},
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
};

static bool has(const struct tensor_info *tensors, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(tensors[i].name, name) == 0)
            return true;
    return false;
}

/* The row whose `from` is the whole stem of `name`, "attn_q" of "attn_q.weight". */
static const struct rename *find(const struct rename *row, const char *name)
{
    const char *dot = strrchr(name, '.');
    const size_t stem = dot ? (size_t)(dot - name) : strlen(name);
    for (; row->from; row++)
        if (strlen(row->from) == stem && memcmp(row->from, name, stem) == 0)
            return row;
    return NULL;
}

/* False: the name has no counterpart. */
static bool rename_one(const struct form *form, const char *name, char *to, size_t size)
{
    const size_t length = strlen(form->block);
    const char *rest = name;
    int prefix = 0; /* "<n>." */
    if (strncmp(name, form->block, length) == 0) {
        rest = name + length;
        prefix = (int)strspn(rest, "0123456789");
        if (prefix == 0 || rest[prefix] != '.')
            return false;
        prefix++;
    }
    const char *tail = rest + prefix;
    const struct rename *row = find(prefix ? form->inside : form->outside, tail);
    if (!row)
        return false;
    return snprintf(to, size, "%s%.*s%s%s", prefix ? "blocks." : "", prefix, rest, row->to,
                    tail + strlen(row->from)) < (int)size;
}

lt_status names_of_text_encoder(struct tensor_info *tensors, size_t count, const char *path,
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

static const struct rename *find_ours(const struct rename *row, const char *name)
{
    for (; row->from; row++) {
        const size_t stem = strlen(row->to);
        if (strncmp(row->to, name, stem) == 0 && name[stem] == '.')
            return row;
    }
    return NULL;
}

void names_in_form(enum names_form form, const char *name, char *to, size_t size)
{
    const struct form *f = &forms[form];
    const char *rest = name;
    int prefix = 0; /* "<n>." */
    if (strncmp(name, "blocks.", 7) == 0) {
        rest = name + 7;
        prefix = (int)strspn(rest, "0123456789") + 1;
    }
    const char *tail = rest + prefix;
    const struct rename *row = find_ours(prefix ? f->inside : f->outside, tail);
    lt_assert(row);
    snprintf(to, size, "%s%.*s%s%s", prefix ? f->block : "", prefix, rest, row->from,
             tail + strlen(row->to));
}
