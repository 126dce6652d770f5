/* Synthetic LoRA files: a pair for every Linear of a transformer's blocks, under the keys of one
 * tool (dit.md 5.1). */
#include "worker/synth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PARTS = 3, KEY_MAX = 256 };

static const struct {
    const char *name, *prefix, *down, *up;
    bool underscores, theirs, alpha; /* theirs: module names of diffusers */
} forms[] = {
    {"comfyui", "diffusion_model.", ".lora_A.weight", ".lora_B.weight", false, false, false},
    {"kohya", "lora_unet_", ".lora_down.weight", ".lora_up.weight", true, false, true},
    {"diffusers", "transformer.", ".lora_A.weight", ".lora_B.weight", false, true, false},
};

static bool is_block_linear(const struct catalogue_entry *entry)
{
    const size_t length = strlen(entry->name);
    return entry->rank == 2 && strncmp(entry->name, "blocks.", 7) == 0 && length > 7 &&
           strcmp(entry->name + length - 7, ".weight") == 0 &&
           (strstr(entry->name, "attn.") || strstr(entry->name, ".ffn."));
}

/* dit.md 1.7: "blocks.0.self_attn.q" is "blocks.0.attn1.to_q" there. */
static void rename_module(char module[KEY_MAX])
{
    static const char *const words[][2] = {{"self_attn.o", "attn1.to_out.0"},
                                           {"cross_attn.o", "attn2.to_out.0"},
                                           {"cross_attn.k_img", "attn2.add_k_proj"},
                                           {"cross_attn.v_img", "attn2.add_v_proj"},
                                           {"self_attn.", "attn1.to_"},
                                           {"cross_attn.", "attn2.to_"},
                                           {"ffn.0", "ffn.net.0.proj"},
                                           {"ffn.2", "ffn.net.2"}};
    for (size_t i = 0; i < LT_COUNT(words); i++) {
        char renamed[KEY_MAX];
        const char *at = strstr(module, words[i][0]);
        if (!at)
            continue;
        snprintf(renamed, sizeof renamed, "%.*s%s%s", (int)(at - module), module, words[i][1],
                 at + strlen(words[i][0]));
        memcpy(module, renamed, sizeof renamed);
        return;
    }
}

static const char *add_key(struct lt_arena *arena, size_t form, const char *weight, const char *end)
{
    char module[KEY_MAX], key[2 * KEY_MAX];
    snprintf(module, sizeof module, "%.*s", (int)(strlen(weight) - 7), weight);
    if (forms[form].theirs)
        rename_module(module);
    for (char *c = module; *c && forms[form].underscores; c++)
        if (*c == '.')
            *c = '_';
    snprintf(key, sizeof key, "%s%s%s", forms[form].prefix, module, end);
    return lt_arena_text(arena, key);
}

static lt_status find_form(const char *name, size_t *form_out, struct lt_error *error)
{
    for (size_t i = 0; i < LT_COUNT(forms); i++)
        if (strcmp(name ? name : "comfyui", forms[i].name) == 0) {
            *form_out = i;
            return LT_OK;
        }
    return lt_fail(error, LT_NOT_FOUND, "no key form '%s'; known are comfyui, kohya, diffusers",
                   name);
}

lt_status synth_list_lora(const struct synth_params *params, const struct dit_config *config,
                          struct catalogue *catalogue_out, struct lt_error *error)
{
    struct catalogue model, lora = {0};
    const int64_t rank = params->rank ? params->rank : 16;
    size_t form = 0;
    bool whole = true;
    LT_TRY(find_form(params->form, &form, error));
    LT_TRY(catalogue_of_dit(config, &model, error));
    lt_arena_init(&lora.arena, 0);
    lora.room = PARTS * model.count;
    lora.entry = calloc(lora.room, sizeof *lora.entry);
    for (size_t i = 0; lora.entry && i < model.count; i++) {
        const struct catalogue_entry *entry = &model.entry[i];
        if (!is_block_linear(entry))
            continue;
        const struct {
            const char *end;
            int dims;
            int64_t dim[2];
        } part[PARTS] = {{forms[form].down, 2, {rank, entry->dim[1]}},
                         {forms[form].up, 2, {entry->dim[0], rank}},
                         {".alpha", 0, {0}}};
        for (int p = 0; p < PARTS - !forms[form].alpha; p++) {
            struct catalogue_entry *to = &lora.entry[lora.count++];
            to->name = add_key(&lora.arena, form, entry->name, part[p].end);
            to->rank = part[p].dims;
            memcpy(to->dim, part[p].dim, sizeof part[p].dim);
            whole = whole && to->name;
        }
    }
    catalogue_fini(&model);
    if (!lora.entry || !whole) {
        catalogue_fini(&lora);
        return lt_fail(error, LT_NO_MEMORY, "no memory for the list of tensors");
    }
    *catalogue_out = lora;
    return LT_OK;
}
