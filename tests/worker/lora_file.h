/* Writes LoRA files for tests in every key form, filled by name like the golden's
 * (tests/golden/lora): the same values whatever the form. */
#pragma once

#include "common/safetensors.h"
#include "tests/test.h"
#include "tests/worker/fill.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LORA_TENSORS_MAX = 256, LORA_LAYERS = 2, LORA_DIM = 256, LORA_FFN = 160 };

struct lora_writer {
    struct lt_named_view tensor[LORA_TENSORS_MAX];
    char name[LORA_TENSORS_MAX][200];
    size_t count;
};

static inline float *lora_add(struct lora_writer *w, const char *name, enum lt_type type, int rank,
                              const int64_t *dim)
{
    struct lt_view view = lt_view_make(NULL, type, rank, dim);
    view.data = calloc((size_t)lt_view_count(&view) + 1, sizeof(float));
    assert_true(view.data && w->count < LORA_TENSORS_MAX);
    snprintf(w->name[w->count], sizeof w->name[0], "%s", name);
    w->tensor[w->count] = (struct lt_named_view){w->name[w->count], view};
    w->count++;
    return view.data;
}

static inline void lora_fill_scaled(const char *name, float *to, int64_t count, float scale)
{
    fill_values(name, to, (size_t)count);
    for (int64_t i = 0; i < count; i++)
        to[i] *= scale;
}

/* `metadata`: of diffusers' key; NULL: none. */
static inline void lora_write_with(struct lora_writer *w, const char *path, const char *metadata)
{
    struct lt_error error;
    const char *const pair[] = {"lora_adapter_metadata", metadata};
    assert_ok(lt_safetensors_write(path, w->tensor, w->count, pair, metadata ? 1 : 0, &error));
    for (size_t i = 0; i < w->count; i++)
        free(w->tensor[i].view.data);
    w->count = 0;
}

static inline void lora_write(struct lora_writer *w, const char *path)
{
    lora_write_with(w, path, NULL);
}

/* -- forms ------------------------------------------------------------------------------------- */

enum form {
    FORM_COMFYUI,
    FORM_COMFYUI_DOWN, /* lora_down, lora_up */
    FORM_KOHYA,
    FORM_VIDEOX,
    FORM_DIFFUSERS,
    FORM_FINETRAINERS, /* diffusion_model. and diffusers' names */
    FORM_PEFT,
    FORM_DIFFSYNTH,
    FORM_BARE,
    FORM_LYCORIS,
    FORM_COUNT
};

enum { MODULE_BYTES = 160 };

static inline void swap_word(char text[MODULE_BYTES], const char *from, const char *to)
{
    char whole[MODULE_BYTES];
    const char *at = strstr(text, from);
    if (!at)
        return;
    const int used =
        snprintf(whole, sizeof whole, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    assert_true(used < (int)sizeof whole);
    memcpy(text, whole, sizeof whole);
}

/* dit.md 1.7, the names of diffusers. */
static inline void to_diffusers(char *module)
{
    static const char *const words[][2] = {
        {"text_embedding.0", "condition_embedder.text_embedder.linear_1"},
        {"time_embedding.2", "condition_embedder.time_embedder.linear_2"},
        {"time_projection.1", "condition_embedder.time_proj"},
        {"head.head", "proj_out"},
        {"self_attn.o", "attn1.to_out.0"},
        {"cross_attn.o", "attn2.to_out.0"},
        {"self_attn.", "attn1.to_"},
        {"cross_attn.", "attn2.to_"},
        {"ffn.0", "ffn.net.0.proj"},
        {"ffn.2", "ffn.net.2"}};
    for (size_t i = 0; i < LT_COUNT(words); i++)
        swap_word(module, words[i][0], words[i][1]);
}

static inline void to_underscores(char *text)
{
    for (; *text; text++)
        if (*text == '.')
            *text = '_';
}

/* "blocks.0.self_attn.q" and 'A', 'B' or 'a' (alpha) to the key of a form. */
static inline const char *lora_key(enum form form, const char *module, char part)
{
    static char key[200];
    char name[MODULE_BYTES];
    snprintf(name, sizeof name, "%s", module);
    const bool down_up = form == FORM_KOHYA || form == FORM_VIDEOX || form == FORM_LYCORIS ||
                         form == FORM_COMFYUI_DOWN;
    const bool adapter = form == FORM_PEFT || form == FORM_DIFFSYNTH;
    static const char *const prefix[FORM_COUNT] = {
        "diffusion_model.",  "diffusion_model.", "lora_unet_",
        "lora_unet__",       "transformer.",     "diffusion_model.",
        "base_model.model.", "pipe.dit.",        "",
        "lycoris_"};
    if (form == FORM_DIFFUSERS || form == FORM_FINETRAINERS)
        to_diffusers(name);
    if (form == FORM_LYCORIS) {
        swap_word(name, "attn.o", "attn.to_out.0");
        swap_word(name, "ffn.0", "ffn.net.0.proj");
        swap_word(name, "ffn.2", "ffn.net.2");
    }
    if (form == FORM_KOHYA || form == FORM_VIDEOX || form == FORM_LYCORIS)
        to_underscores(name);
    const char *end = part == 'a'   ? "alpha"
                      : part == 'd' ? "dora_scale"
                      : part == 'm' ? "lora_magnitude_vector"
                      : part == 'A' ? (down_up   ? "lora_down.weight"
                                       : adapter ? "lora_A.default.weight"
                                                 : "lora_A.weight")
                                    : (down_up   ? "lora_up.weight"
                                       : adapter ? "lora_B.default.weight"
                                                 : "lora_B.weight");
    snprintf(key, sizeof key, "%s%s.%s", prefix[form], name, end);
    return key;
}

/* -- the LoRAs of the golden ------------------------------------------------------------------- */

static const char *const lora_linears[] = {
    "self_attn.q",  "self_attn.k",  "self_attn.v",  "self_attn.o", "cross_attn.q",
    "cross_attn.k", "cross_attn.v", "cross_attn.o", "ffn.0",       "ffn.2"};

static inline void lora_shape(const char *module, int64_t *out, int64_t *in)
{
    *out = strstr(module, "ffn.0")             ? LORA_FFN
           : strcmp(module, "head.head") == 0  ? 64
           : strstr(module, "time_projection") ? 6 * LORA_DIM
                                               : LORA_DIM;
    *in = strstr(module, "ffn.2")                  ? LORA_FFN
          : strstr(module, "text_embedding.0")     ? 40
          : strcmp(module, "patch_embedding") == 0 ? 64
                                                   : LORA_DIM;
}

/* A pair of `tag` ("one", "two") for a module; alpha 0: none. */
static inline void lora_add_pair(struct lora_writer *w, enum form form, const char *tag,
                                 const char *module, int64_t rank, float alpha)
{
    char name[200];
    int64_t out, in;
    lora_shape(module, &out, &in);
    snprintf(name, sizeof name, "%s.%s.down", tag, module);
    lora_fill_scaled(
        name, lora_add(w, lora_key(form, module, 'A'), LT_TYPE_F32, 2, (int64_t[]){rank, in}),
        rank * in, 0.3f);
    snprintf(name, sizeof name, "%s.%s.up", tag, module);
    lora_fill_scaled(
        name, lora_add(w, lora_key(form, module, 'B'), LT_TYPE_F32, 2, (int64_t[]){out, rank}),
        out * rank, 0.3f);
    if (alpha != 0)
        *lora_add(w, lora_key(form, module, 'a'), LT_TYPE_F32, 0, NULL) = alpha;
}

static inline void lora_add_blocks(struct lora_writer *w, enum form form, const char *tag,
                                   size_t first_linear, int64_t rank, float alpha)
{
    for (int n = 0; n < LORA_LAYERS; n++)
        for (size_t i = first_linear; i < LT_COUNT(lora_linears); i++) {
            char module[100];
            snprintf(module, sizeof module, "blocks.%d.%s", n, lora_linears[i]);
            lora_add_pair(w, form, tag, module, rank, alpha);
        }
}

/* A difference of a tensor under the key `key`. */
static inline void lora_add_diff(struct lora_writer *w, const char *key, const char *tag,
                                 const char *tensor, int64_t rows, int64_t columns, float scale)
{
    char name[300];
    snprintf(name, sizeof name, "%s.%s.diff", tag, tensor);
    lora_fill_scaled(name,
                     lora_add(w, key, LT_TYPE_F32, rows > 1 ? 2 : 1,
                              rows > 1 ? (int64_t[]){rows, columns} : (int64_t[]){columns}),
                     rows * columns, scale);
}
