/* Which tensors, and of which type: the recipe that published GGUF files follow (dit.md 1.3). */
#include "worker/synth.h"

#include "worker/model/audio.h"
#include "worker/model/text.h"
#include "worker/model/vision.h"
#include "worker/weights/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The base type of a file, and the raised types of the attention's v and of the second ffn matrix;
 * the first `early` v tensors of a file may be raised further. */
static const struct recipe {
    const char *name;
    uint32_t file_type;
    enum lt_type base, v_early, v, ffn_2;
    int early;
} recipes[] = {
    {"f32", 0, LT_TYPE_F32, LT_TYPE_F32, LT_TYPE_F32, LT_TYPE_F32, 0},
    {"f16", 1, LT_TYPE_F16, LT_TYPE_F16, LT_TYPE_F16, LT_TYPE_F16, 0},
    {"bf16", 32, LT_TYPE_BF16, LT_TYPE_BF16, LT_TYPE_BF16, LT_TYPE_BF16, 0},
    {"q8_0", 7, LT_TYPE_Q8_0, LT_TYPE_Q8_0, LT_TYPE_Q8_0, LT_TYPE_Q8_0, 0},
    {"q4_0", 2, LT_TYPE_Q4_0, LT_TYPE_Q4_0, LT_TYPE_Q4_0, LT_TYPE_Q4_1, 0},
    {"q4_1", 3, LT_TYPE_Q4_1, LT_TYPE_Q4_1, LT_TYPE_Q4_1, LT_TYPE_Q4_1, 0},
    {"q5_0", 8, LT_TYPE_Q5_0, LT_TYPE_Q5_0, LT_TYPE_Q5_0, LT_TYPE_Q5_1, 0},
    {"q5_1", 9, LT_TYPE_Q5_1, LT_TYPE_Q5_1, LT_TYPE_Q5_1, LT_TYPE_Q5_1, 0},
    {"q2_k", 10, LT_TYPE_Q2_K, LT_TYPE_Q3_K, LT_TYPE_Q3_K, LT_TYPE_Q2_K, 0},
    {"q3_k_s", 11, LT_TYPE_Q3_K, LT_TYPE_Q3_K, LT_TYPE_Q3_K, LT_TYPE_Q3_K, 0},
    {"q3_k_m", 12, LT_TYPE_Q3_K, LT_TYPE_Q5_K, LT_TYPE_Q4_K, LT_TYPE_Q4_K, 2},
    {"q3_k_l", 13, LT_TYPE_Q3_K, LT_TYPE_Q5_K, LT_TYPE_Q5_K, LT_TYPE_Q5_K, 0},
    {"q4_k_s", 14, LT_TYPE_Q4_K, LT_TYPE_Q5_K, LT_TYPE_Q4_K, LT_TYPE_Q5_K, 4},
    {"q4_k_m", 15, LT_TYPE_Q4_K, LT_TYPE_Q6_K, LT_TYPE_Q6_K, LT_TYPE_Q6_K, 0},
    {"q5_k_s", 16, LT_TYPE_Q5_K, LT_TYPE_Q5_K, LT_TYPE_Q5_K, LT_TYPE_Q5_K, 0},
    {"q5_k_m", 17, LT_TYPE_Q5_K, LT_TYPE_Q6_K, LT_TYPE_Q6_K, LT_TYPE_Q6_K, 0},
    {"q6_k", 18, LT_TYPE_Q6_K, LT_TYPE_Q6_K, LT_TYPE_Q6_K, LT_TYPE_Q6_K, 0},
};

static lt_status find_recipe(const char *name, const struct recipe **recipe_out,
                             struct lt_error *error)
{
    char known[256] = "";
    for (size_t i = 0; i < LT_COUNT(recipes); i++) {
        if (strcasecmp(recipes[i].name, name) == 0) {
            *recipe_out = &recipes[i];
            return LT_OK;
        }
        const size_t length = strlen(known);
        snprintf(known + length, sizeof known - length, "%s%s", i ? ", " : "", recipes[i].name);
    }
    return lt_fail(error, LT_NOT_FOUND, "no quantisation '%s'; known are %s", name, known);
}

/* -- types ------------------------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

static bool is_16_bit(enum lt_type type)
{
    return type == LT_TYPE_F16 || type == LT_TYPE_BF16;
}

/* What the quantiser touches: two dims, a weight, and none of the parts that it keeps. */
static bool is_quantised(const struct gguf_writer_tensor *tensor)
{
    static const char *const kept[] = {"modulation.",
                                       "patch_embedding.",
                                       "text_embedding.",
                                       "time_projection.",
                                       "time_embedding.",
                                       "img_emb.",
                                       "head."};
    if (tensor->rank != 2 || !ends_with(tensor->name, "weight"))
        return false;
    for (size_t i = 0; i < LT_COUNT(kept); i++)
        if (strstr(tensor->name, kept[i]))
            return false;
    return true;
}

static enum lt_type pick_type(const struct recipe *recipe, const struct gguf_writer_tensor *tensor,
                              int64_t values, int *v_seen)
{
    const enum lt_type half = recipe->base == LT_TYPE_BF16 ? LT_TYPE_BF16 : LT_TYPE_F16;
    if (recipe->base == LT_TYPE_F32 || tensor->rank == 1 || values <= 1024 ||
        strstr(tensor->name, ".modulation") || ends_with(tensor->name, "patch_embedding.weight"))
        return LT_TYPE_F32;
    if (is_16_bit(recipe->base) || !is_quantised(tensor))
        return half;
    enum lt_type type = recipe->base;
    if (ends_with(tensor->name, "attn.v.weight"))
        type = (*v_seen)++ < recipe->early ? recipe->v_early : recipe->v;
    else if (ends_with(tensor->name, "ffn.2.weight"))
        type = recipe->ffn_2;
    return tensor->dim[1] % lt_type_info(type)->block_values == 0 ? type : half;
}

/* The quantiser drops leading ones; the tool after it puts those of modulation back. */
static void trim(struct gguf_writer_tensor *tensor)
{
    int ones = 0;
    if (ends_with(tensor->name, "modulation"))
        return;
    while (ones < tensor->rank - 1 && tensor->dim[ones] == 1)
        ones++;
    tensor->rank -= ones;
    memmove(tensor->dim, tensor->dim + ones, (size_t)tensor->rank * sizeof tensor->dim[0]);
}

/* -- layout ------------------------------------------------------------------------------------ */

static lt_status check_size(const char *option, int64_t value, int64_t multiple, int64_t max,
                            struct lt_error *error)
{
    if (value < multiple || value > max || value % multiple != 0)
        return lt_fail(error, LT_BAD_INPUT, "--%s is %lld, expected a multiple of %lld up to %lld",
                       option, (long long)value, (long long)multiple, (long long)max);
    return LT_OK;
}

static lt_status list_dit(const struct synth_params *params, bool lora,
                          struct catalogue *catalogue_out, struct lt_error *error)
{
    struct dit_config config;
    const char *base = params->base ? params->base : "t2v-14b";
    LT_TRY(dit_config_named(lora ? base : params->variant, &config, error));
    config.dim = params->dim ? params->dim : config.dim;
    config.layer_count = params->layers ? params->layers : config.layer_count;
    config.ffn_dim = params->ffn ? params->ffn : config.ffn_dim;
    config.text_dim = params->text_dim ? params->text_dim : config.text_dim;
    if (params->audio_features) {
        LT_TRY(check_size("audio-features", params->audio_features, 1, 65536, error));
        config.talk = (struct talk_config){
            .features = params->audio_features, .hidden = 64, .tokens = 4, .dim = 64};
    }
    if (params->face_size && config.face.size)
        config.face.size = params->face_size;
    if (config.face.size && (config.face.size < 8 || config.face.size > 512 ||
                             (config.face.size & (config.face.size - 1)) != 0))
        return lt_fail(error, LT_BAD_INPUT,
                       "--face-size is %lld, expected a power of 2 from 8 to 512",
                       (long long)config.face.size);
    config.freq_dim = params->freq_dim ? params->freq_dim : config.freq_dim;
    LT_TRY(check_size("dim", config.dim, 128, 16384, error));
    LT_TRY(check_size("layers", config.layer_count, 1, 512, error));
    LT_TRY(check_size("ffn", config.ffn_dim, 1, 65536, error));
    LT_TRY(check_size("text-dim", config.text_dim, 1, 65536, error));
    LT_TRY(check_size("freq-dim", config.freq_dim, 2, 65536, error));
    if (!lora)
        return catalogue_of_dit(&config, catalogue_out, error);
    LT_TRY(check_size("rank", params->rank ? params->rank : 16, 1, 16384, error));
    return synth_list_lora(params, &config, catalogue_out, error);
}

static lt_status list_vae(const struct synth_params *params, struct synth_layout *layout,
                          struct lt_error *error)
{
    const bool grouped = strcasecmp(params->variant, "vae-z48") == 0;
    const int64_t dim = params->dim ? params->dim : grouped ? 160 : 96;
    const struct catalogue_vae vae = {
        .grouped = grouped,
        .dim = dim,
        .decoder_dim = (dim * 8 + 4) / 5, /* 256 of 160 */
        .channels = params->z ? params->z
                    : grouped ? 48
                              : 16,
    };
    LT_TRY(check_size("dim", vae.dim, 1, 1024, error));
    LT_TRY(check_size("z", vae.channels, 1, 1024, error));
    return catalogue_of_vae(&vae, &layout->catalogue, error);
}

static lt_status list_tae(const struct synth_params *params, struct synth_layout *layout,
                          struct lt_error *error)
{
    const bool folded = strcasecmp(params->variant, "taew2_2") == 0;
    const struct catalogue_tae tae = {
        .dim = params->dim ? params->dim : 64,
        .channels = params->z ? params->z
                    : folded  ? 48
                              : 16,
        .patch = folded ? 2 : 1,
    };
    LT_TRY(check_size("dim", tae.dim, 1, 1024, error));
    LT_TRY(check_size("z", tae.channels, 1, 1024, error));
    return catalogue_of_tae(&tae, &layout->catalogue, error);
}

static lt_status list_text(const struct synth_params *params, struct synth_layout *layout,
                           struct lt_error *error)
{
    const int64_t rows = params->tokens ? params->tokens : 32;
    const int64_t width = params->text_dim ? params->text_dim : 4096;
    LT_TRY(check_size("tokens", rows, 1, 65536, error));
    LT_TRY(check_size("text-dim", width, 1, 65536, error));
    return catalogue_of_text(rows, width, &layout->catalogue, error);
}

/* Heads are 64 wide as in the published encoder, or 8 in a very small one. */
static lt_status list_umt5(const struct synth_params *params, struct synth_layout *layout,
                           struct lt_error *error)
{
    struct text_config text = {
        .layer_count = params->layers ? params->layers : 24,
        .dim = params->dim ? params->dim : 4096,
        .ffn_dim = params->ffn ? params->ffn : 10240,
        .vocabulary_rows = params->tokens ? params->tokens : 256384,
        .bucket_count = 32,
    };
    LT_TRY(check_size("dim", text.dim, 8, 16384, error));
    LT_TRY(check_size("layers", text.layer_count, 1, 512, error));
    LT_TRY(check_size("ffn", text.ffn_dim, 1, 65536, error));
    text.head_width = text.dim % 64 == 0 ? 64 : 8;
    text.head_count = text.dim / text.head_width;
    layout->vocabulary = malloc(sizeof *layout->vocabulary);
    if (!layout->vocabulary)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a vocabulary");
    synth_vocabulary_build(layout->vocabulary);
    if (text.vocabulary_rows < (int64_t)layout->vocabulary->count || text.vocabulary_rows > 1 << 20)
        return lt_fail(error, LT_BAD_INPUT, "--tokens is %lld, expected %zu to %d",
                       (long long)text.vocabulary_rows, layout->vocabulary->count, 1 << 20);
    return catalogue_of_umt5(&text, &layout->catalogue, error);
}

static lt_status list_vision(const struct synth_params *params, struct synth_layout *layout,
                             struct lt_error *error)
{
    struct vision_config config = vision_config_default();
    config.width = params->dim ? params->dim : config.width;
    config.layer_count = params->layers ? params->layers : config.layer_count;
    config.ffn_dim = params->ffn ? params->ffn : config.ffn_dim;
    LT_TRY(check_size("dim", config.width, config.head_count, 16384, error));
    LT_TRY(check_size("layers", config.layer_count, 1, 512, error));
    LT_TRY(check_size("ffn", config.ffn_dim, 1, 65536, error));
    return catalogue_of_vision(&config, &layout->catalogue, error);
}

/* Narrower models have narrower convolutions: 512 for 768. */
static lt_status list_audio(const struct synth_params *params, struct synth_layout *layout,
                            struct lt_error *error)
{
    struct audio_config config = audio_config_default();
    config.width = params->dim ? params->dim : config.width;
    config.layer_count = params->layers ? params->layers : config.layer_count;
    config.ffn_dim = params->ffn ? params->ffn : config.ffn_dim;
    LT_TRY(check_size("dim", config.width, config.position_groups, 16384, error));
    LT_TRY(check_size("layers", config.layer_count, 1, 512, error));
    LT_TRY(check_size("ffn", config.ffn_dim, 1, 65536, error));
    for (int i = 0; i < AUDIO_CONVS; i++)
        config.conv_width[i] = (config.width * 2 + 2) / 3;
    return catalogue_of_audio(&config, &layout->catalogue, error);
}

static lt_status list_lora(const struct synth_params *params, struct synth_layout *layout,
                           struct lt_error *error)
{
    return list_dit(params, true, &layout->catalogue, error);
}

enum { NAMES_AS_LISTED = -1 };

/* What is not a transformer. Files are of one type throughout, as they are published; only a text
 * encoder in GGUF is quantised like a transformer. */
static const struct family {
    const char *variant, *what;
    const char *usual, *usual_gguf; /* types; usual_gguf NULL: safetensors only */
    int form, form_gguf;            /* enum names_form */
    lt_status (*list)(const struct synth_params *params, struct synth_layout *layout,
                      struct lt_error *error);
} families[] = {
    {"vae-z16", "a VAE", "bf16", "bf16", NAMES_AS_LISTED, NAMES_AS_LISTED, list_vae},
    {"vae-z48", "a VAE", "bf16", "bf16", NAMES_AS_LISTED, NAMES_AS_LISTED, list_vae},
    {"taew2_1", "a VAE", "f16", "f16", NAMES_AS_LISTED, NAMES_AS_LISTED, list_tae},
    {"taew2_2", "a VAE", "f16", "f16", NAMES_AS_LISTED, NAMES_AS_LISTED, list_tae},
    {"lora", "a LoRA", "bf16", NULL, NAMES_AS_LISTED, NAMES_AS_LISTED, list_lora},
    {"text", "a file of text features", "f32", NULL, NAMES_AS_LISTED, NAMES_AS_LISTED, list_text},
    {"umt5", "a text encoder", "bf16", "q5_k_m", NAMES_UMT5_HUGGINGFACE, NAMES_UMT5_GGUF,
     list_umt5},
    {"clip-vision", "an image encoder", "f16", NULL, NAMES_VISION_HUGGINGFACE, NAMES_AS_LISTED,
     list_vision},
    {"wav2vec2", "an audio encoder", "f16", NULL, NAMES_AUDIO, NAMES_AS_LISTED, list_audio},
};

static const struct family *find_family(const char *variant)
{
    for (size_t i = 0; i < LT_COUNT(families); i++)
        if (strcasecmp(families[i].variant, variant) == 0)
            return &families[i];
    return NULL;
}

static lt_status choose_names(struct synth_layout *layout, int form, struct lt_error *error)
{
    for (size_t i = 0; i < layout->catalogue.count && form != NAMES_AS_LISTED; i++) {
        char name[128];
        names_in_form((enum names_form)form, layout->catalogue.entry[i].name, name, sizeof name);
        layout->tensor[i].name = lt_arena_text(&layout->catalogue.arena, name);
        if (!layout->tensor[i].name)
            return lt_fail(error, LT_NO_MEMORY, "no memory for the list of tensors");
    }
    return LT_OK;
}

static lt_status choose_types(struct synth_layout *layout, const struct recipe *recipe,
                              bool uniform, struct lt_error *error)
{
    const struct catalogue *catalogue = &layout->catalogue;
    int v_seen = 0;
    layout->tensor = calloc(catalogue->count, sizeof *layout->tensor);
    if (!layout->tensor)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the list of tensors");
    for (size_t i = 0; i < catalogue->count; i++) {
        const struct catalogue_entry *entry = &catalogue->entry[i];
        struct gguf_writer_tensor *tensor = &layout->tensor[i];
        *tensor = (struct gguf_writer_tensor){.name = entry->name, .rank = entry->rank};
        memcpy(tensor->dim, entry->dim, sizeof tensor->dim);
        if (uniform) {
            tensor->type = recipe->base;
            continue;
        }
        trim(tensor);
        tensor->type = pick_type(recipe, tensor, catalogue_values(entry), &v_seen);
        if (layout->safetensors) {
            tensor->rank = entry->rank;
            memcpy(tensor->dim, entry->dim, sizeof tensor->dim);
        }
    }
    return LT_OK;
}

static bool is_plain(const struct recipe *recipe)
{
    return recipe->base == LT_TYPE_F32 || is_16_bit(recipe->base);
}

/* The recipe asked for or usual, if such a file can have it. */
static lt_status choose_recipe(const struct synth_params *params, const struct family *family,
                               bool safetensors, const struct recipe **recipe_out,
                               struct lt_error *error)
{
    const struct recipe *recipe, *usual;
    if (family && !family->usual_gguf && !safetensors)
        return lt_fail(error, LT_UNSUPPORTED, "%s is kept in safetensors: --output must end so",
                       family->what);
    LT_TRY(find_recipe(!family       ? "q5_k_m"
                       : safetensors ? family->usual
                                     : family->usual_gguf,
                       &usual, error));
    LT_TRY(find_recipe(params->quant ? params->quant : usual->name, &recipe, error));
    if (!is_plain(recipe) && (safetensors || is_plain(usual)))
        return lt_fail(error, LT_UNSUPPORTED,
                       "%s cannot be %s: only f32, f16 and bf16 are possible",
                       family ? family->what : "a safetensors file", recipe->name);
    *recipe_out = recipe;
    return LT_OK;
}

lt_status synth_layout_build(const struct synth_params *params, struct synth_layout *layout_out,
                             struct lt_error *error)
{
    const struct family *family = find_family(params->variant);
    struct synth_layout layout = {.safetensors =
                                      params->path && ends_with(params->path, ".safetensors")};
    const struct recipe *recipe = NULL;
    LT_TRY(choose_recipe(params, family, layout.safetensors, &recipe, error));
    const bool uniform =
        family && (layout.safetensors || strcmp(family->usual, family->usual_gguf) == 0);
    layout.file_type = recipe->file_type;
    lt_status status = family ? family->list(params, &layout, error)
                              : list_dit(params, false, &layout.catalogue, error);
    if (status == LT_OK)
        status = choose_types(&layout, recipe, uniform, error);
    if (status == LT_OK && family)
        status =
            choose_names(&layout, layout.safetensors ? family->form : family->form_gguf, error);
    if (status != LT_OK) {
        synth_layout_fini(&layout);
        return status;
    }
    *layout_out = layout;
    return LT_OK;
}

void synth_layout_fini(struct synth_layout *layout)
{
    catalogue_fini(&layout->catalogue);
    free(layout->tensor);
    free(layout->vocabulary);
    layout->tensor = NULL;
    layout->vocabulary = NULL;
}
