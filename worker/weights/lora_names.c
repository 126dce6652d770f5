#include "worker/weights/lora_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- keys -------------------------------------------------------------------------------------- */

static const struct {
    const char *text;
    enum lora_form form;
    enum lora_expert expert;
} prefixes[] = {
    /* longer ones first */
    {"base_model.model.", LORA_FORM_PEFT, LORA_EXPERT_ANY},
    {"model.diffusion_model.", LORA_FORM_COMFYUI, LORA_EXPERT_ANY},
    {"diffusion_model.", LORA_FORM_COMFYUI, LORA_EXPERT_ANY},
    {"transformer_2.", LORA_FORM_DIFFUSERS, LORA_EXPERT_LOW},
    {"transformer.", LORA_FORM_DIFFUSERS, LORA_EXPERT_HIGH},
    {"pipe.dit.", LORA_FORM_DIFFSYNTH, LORA_EXPERT_ANY},
    {"lora_unet__", LORA_FORM_VIDEOX, LORA_EXPERT_ANY},
    {"lora_unet_", LORA_FORM_KOHYA, LORA_EXPERT_ANY},
    {"lycoris_", LORA_FORM_LYCORIS, LORA_EXPERT_ANY},
};

static const struct {
    const char *text;
    enum lora_role role;
    const char *tensor;
} suffixes[] = {
    {".lora_down.weight", LORA_ROLE_DOWN, "_weight"},
    {".lora_up.weight", LORA_ROLE_UP, "_weight"},
    {".lora_A.weight", LORA_ROLE_DOWN, "_weight"},
    {".lora_B.weight", LORA_ROLE_UP, "_weight"},
    {".lora_A", LORA_ROLE_DOWN, "_weight"},
    {".lora_B", LORA_ROLE_UP, "_weight"},
    {".lora.down.weight", LORA_ROLE_DOWN, "_weight"},
    {".lora.up.weight", LORA_ROLE_UP, "_weight"},
    {"_lora.down.weight", LORA_ROLE_DOWN, "_weight"},
    {"_lora.up.weight", LORA_ROLE_UP, "_weight"},
    {".lora_linear_layer.down.weight", LORA_ROLE_DOWN, "_weight"},
    {".lora_linear_layer.up.weight", LORA_ROLE_UP, "_weight"},
    {".alpha", LORA_ROLE_ALPHA, "_weight"},
    {".dora_scale", LORA_ROLE_DORA, "_weight"},
    {".lora_magnitude_vector.weight", LORA_ROLE_MAGNITUDE, "_weight"},
    {".lora_magnitude_vector", LORA_ROLE_MAGNITUDE, "_weight"},
    {".diff", LORA_ROLE_DIFF, "_weight"},
    {".diff_b", LORA_ROLE_DIFF, "_bias"},
    {".diff_m", LORA_ROLE_DIFF, "_modulation"},
    {".w_norm", LORA_ROLE_DIFF, "_weight"},
    {".b_norm", LORA_ROLE_DIFF, "_bias"},
    {".set_weight", LORA_ROLE_SET, "_weight"},
};

static const struct {
    const char *part, *kind;
} refusals[] = {
    {".hada_", "LoHa"},
    {".lokr_", "LoKr"},
    {".oft_", "OFT"},
    {".boft_", "BOFT"},
    {".a1.weight", "GLoRA"},
    {".a2.weight", "GLoRA"},
    {".b1.weight", "GLoRA"},
    {".b2.weight", "GLoRA"},
    {".lora_mid.", "LoCon with a middle matrix"},
    {".vera_lambda", "VeRA"},
    {".ia3_", "IA3"},
    {".on_input", "IA3"},
    {".lora_B.bias", "LoRA with its own bias"},
    {".reshape_weight", "LoRA that reshapes its weight"},
};

const char *lora_form_name(enum lora_form form)
{
    static const char *const names[LORA_FORM_COUNT] = {
        "bare", "comfyui", "diffusers", "peft", "diffsynth", "kohya", "videox-fun", "lycoris"};
    return names[form];
}

/* Prefixes may stand in one another: "base_model.model.diffusion_model.". The first one names the
 * form. */
static const char *strip_prefixes(const char *name, struct lora_key *key)
{
    key->form = LORA_FORM_BARE;
    key->expert = LORA_EXPERT_ANY;
    for (size_t i = 0; i < LT_COUNT(prefixes); i++) {
        const size_t length = strlen(prefixes[i].text);
        if (strncmp(name, prefixes[i].text, length) != 0)
            continue;
        const char *rest = strip_prefixes(name + length, key);
        if (key->expert == LORA_EXPERT_ANY)
            key->expert = prefixes[i].expert;
        key->form = prefixes[i].form;
        return rest;
    }
    return name;
}

/* Without the adapter's name: ".lora_A.default.weight" is ".lora_A.weight". */
static bool copy_path(const char *name, char *path, size_t size)
{
    static const char adapter[] = ".default";
    const char *found = strstr(name, adapter);
    const size_t length = strlen(name);
    if (length >= size)
        return false;
    memcpy(path, name, length + 1);
    if (found && (found[sizeof adapter - 1] == '.' || found[sizeof adapter - 1] == 0))
        memmove(path + (found - name), found + sizeof adapter - 1,
                strlen(found + sizeof adapter - 1) + 1);
    return true;
}

static bool take_suffix(struct lora_key *key)
{
    const size_t length = strlen(key->path);
    for (size_t i = 0; i < LT_COUNT(suffixes); i++) {
        const size_t end = strlen(suffixes[i].text);
        if (length <= end || strcmp(key->path + length - end, suffixes[i].text) != 0)
            continue;
        key->path[length - end] = 0;
        key->role = suffixes[i].role;
        key->tensor = suffixes[i].tensor;
        return true;
    }
    return false;
}

static void underscore(char *text)
{
    for (; *text; text++)
        if (*text == '.')
            *text = '_';
}

bool lora_key_parse(const char *name, struct lora_key *key_out, const char **refused_out)
{
    struct lora_key key;
    *refused_out = NULL;
    if (!copy_path(strip_prefixes(name, &key), key.path, sizeof key.path))
        return false;
    for (size_t i = 0; i < LT_COUNT(refusals); i++)
        if (strstr(key.path, refusals[i].part))
            *refused_out = refusals[i].kind;
    if (*refused_out || !take_suffix(&key))
        return false;
    underscore(key.path);
    *key_out = key;
    return true;
}

/* -- spellings --------------------------------------------------------------------------------- */

/* dit.md 1.7, whole words of the underscored path, in this order. */
static const struct {
    const char *from, *to;
} renames[] = {
    {"condition_embedder_time_embedder_linear_1", "time_embedding_0"},
    {"condition_embedder_time_embedder_linear_2", "time_embedding_2"},
    {"condition_embedder_time_proj", "time_projection_1"},
    {"condition_embedder_text_embedder_linear_1", "text_embedding_0"},
    {"condition_embedder_text_embedder_linear_2", "text_embedding_2"},
    {"condition_embedder_image_embedder_norm1", "img_emb_proj_0"},
    {"condition_embedder_image_embedder_ff_net_0_proj", "img_emb_proj_1"},
    {"condition_embedder_image_embedder_ff_net_2", "img_emb_proj_3"},
    {"condition_embedder_image_embedder_norm2", "img_emb_proj_4"},
    {"condition_embedder_image_embedder_pos_embed", "img_emb_emb_pos"},
    {"scale_shift_table", "modulation"},
    {"attn1", "self_attn"},
    {"attn2", "cross_attn"},
    {"to_q", "q"},
    {"to_k", "k"},
    {"to_v", "v"},
    {"to_out_0", "o"},
    {"to_out", "o"},
    {"add_k_proj", "k_img"},
    {"add_v_proj", "v_img"},
    {"norm_added_k", "norm_k_img"},
    {"ffn_net_0_proj", "ffn_0"},
    {"ffn_net_2", "ffn_2"},
    {"norm2", "norm3"},
};

/* Puts `to` in the place of the word `from`, once; false when it does not fit. */
static bool rename_word(char *path, const char *from, const char *to)
{
    const size_t length = strlen(from), grown = strlen(to);
    for (char *at = strstr(path, from); at; at = strstr(at + 1, from)) {
        if ((at > path && at[-1] != '_') || (at[length] && at[length] != '_'))
            continue;
        if (strlen(path) - length + grown >= LORA_PATH_MAX)
            return false;
        memmove(at + grown, at + length, strlen(at + length) + 1);
        memcpy(at, to, grown);
        return true;
    }
    return true;
}

/* face_adapter.N.to_k and to_v are the halves of fuser_blocks.N.linear1_kv. */
static bool rename_fuser(char *path, enum lora_rows *rows)
{
    static const struct {
        const char *from, *to;
        enum lora_rows rows;
    } leaves[] = {
        {"to_q", "linear1_q", LORA_ROWS_ALL},          {"to_k", "linear1_kv", LORA_ROWS_FIRST_HALF},
        {"to_v", "linear1_kv", LORA_ROWS_SECOND_HALF}, {"to_out", "linear2", LORA_ROWS_ALL},
        {"norm_q", "q_norm", LORA_ROWS_ALL},           {"norm_k", "k_norm", LORA_ROWS_ALL}};
    static const char adapter[] = "face_adapter_";
    const size_t length = sizeof adapter - 1;
    if (strncmp(path, adapter, length) != 0 || path[length] < '0' || path[length] > '9')
        return false;
    const size_t digits = strspn(path + length, "0123456789");
    if (digits > 4 || path[length + digits] != '_')
        return false;
    for (size_t i = 0; i < LT_COUNT(leaves); i++) {
        char number[8] = "";
        if (strcmp(path + length + digits + 1, leaves[i].from) != 0)
            continue;
        memcpy(number, path + length, digits);
        snprintf(path, LORA_PATH_MAX, "face_adapter_fuser_blocks_%s_%s", number, leaves[i].to);
        *rows = leaves[i].rows;
        return true;
    }
    return false;
}

static bool rename_path(char *path, enum lora_rows *rows)
{
    if (rename_fuser(path, rows))
        return true;
    if (strcmp(path, "proj_out") == 0)
        strcpy(path, "head_head"); /* no longer than what stands there, but for one byte of many */
    else if (strcmp(path, "scale_shift_table") == 0)
        strcpy(path, "head_modulation");
    for (size_t i = 0; i < LT_COUNT(renames); i++)
        if (!rename_word(path, renames[i].from, renames[i].to))
            return false;
    return true;
}

/* -- the model --------------------------------------------------------------------------------- */

struct spelled {
    char *text; /* the tensor's name, dots as underscores */
    const struct tensor_info *info;
};

struct lora_names {
    struct spelled *entry; /* sorted by text */
    size_t count;
};

static int by_text(const void *a, const void *b)
{
    return strcmp(((const struct spelled *)a)->text, ((const struct spelled *)b)->text);
}

lt_status lora_names_create(const struct tensor_file *model, struct lora_names **names_out,
                            struct lt_error *error)
{
    struct lora_names *names = calloc(1, sizeof *names);
    const size_t count = tensor_file_count(model);
    if (names)
        names->entry = calloc(count + 1, sizeof *names->entry);
    bool whole = names && names->entry;
    for (size_t i = 0; i < count && whole; i++) {
        struct spelled *entry = &names->entry[names->count++];
        entry->info = tensor_file_at(model, i);
        entry->text = strdup(entry->info->name);
        whole = entry->text != NULL;
        if (whole)
            underscore(entry->text);
    }
    if (!whole) {
        lora_names_destroy(&names);
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for its names", tensor_file_path(model));
    }
    qsort(names->entry, names->count, sizeof *names->entry, by_text);
    *names_out = names;
    return LT_OK;
}

void lora_names_destroy(struct lora_names **names)
{
    struct lora_names *n = *names;
    if (!n)
        return;
    for (size_t i = 0; i < n->count; i++)
        free(n->entry[i].text);
    free(n->entry);
    free(n);
    *names = NULL;
}

/* The tensor behind a path: "blocks_0_norm3" + "_weight", or a path that names the tensor itself,
 * as "blocks_0_modulation". */
static const struct tensor_info *find_path(const struct lora_names *names, const char *path,
                                           const struct lora_key *key)
{
    const char *const ends[] = {key->tensor, ""};
    const size_t tries = key->role == LORA_ROLE_DIFF || key->role == LORA_ROLE_SET ? 2 : 1;
    for (size_t i = 0; i < tries; i++) {
        char text[LORA_PATH_MAX + 16];
        snprintf(text, sizeof text, "%s%s", path, ends[i]);
        const struct spelled *entry = bsearch(&(struct spelled){.text = text}, names->entry,
                                              names->count, sizeof *names->entry, by_text);
        if (entry)
            return entry->info;
    }
    return NULL;
}

const struct tensor_info *lora_names_find(const struct lora_names *names,
                                          const struct lora_key *key, enum lora_rows *rows_out)
{
    char path[LORA_PATH_MAX];
    *rows_out = LORA_ROWS_ALL;
    const struct tensor_info *info = find_path(names, key->path, key);
    if (info)
        return info;
    memcpy(path, key->path, sizeof path);
    if (!rename_path(path, rows_out))
        return NULL;
    info = find_path(names, path, key);
    if (!info)
        *rows_out = LORA_ROWS_ALL;
    return info;
}
