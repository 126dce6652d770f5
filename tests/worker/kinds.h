/* A small model of every kind of the transformer family, with all its inputs, to be run in one
 * place and another: results differ by the places only. */
#pragma once

#include "tests/worker/lora_file.h"
#include "worker/model/animate.h"
#include "worker/model/dit_parts.h"
#include "worker/model/talk.h"

enum {
    KIND_FRAMES = 3,
    KIND_ROWS = 4,
    KIND_COLUMNS = 6,
    KIND_LATENT = 16 * KIND_FRAMES * KIND_ROWS * KIND_COLUMNS,
    KIND_TOKENS = KIND_LATENT / 64,
    KIND_BATCH = 2,
    KIND_TEXT = 5,
    KIND_FACES = 4 * (KIND_FRAMES - 2) + 1,
    KIND_FACE_SIDE = 8,
    KIND_HEARD = TALK_FIRST_FRAMES + TALK_FRAMES * (KIND_FRAMES - 1),
    KIND_CELLS = KIND_ROWS / 2 * KIND_COLUMNS / 2
};

enum kind_lora {
    KIND_LORA_NONE,
    KIND_LORA_PLACED,   /* pairs and dense differences, of vectors too, in the slabs */
    KIND_LORA_STREAMED, /* from the file, one at a time */
};

struct kind {
    const char *name;
    bool y, clip, nag, pose, face;
    int64_t speakers; /* 0: no talk parts */
    bool per_frame;   /* timesteps */
    double strength;  /* of pose, face and audio */
    enum kind_lora lora;
    bool reuse; /* the first forward keeps what blocks add, the second adds it */
    size_t batch;
};

static const struct kind kinds[] = {
    {.name = "text", .batch = 1},
    {.name = "image", .y = true, .clip = true, .batch = 1},
    {.name = "guided away", .nag = true, .batch = 1},
    {.name = "clean frames", .per_frame = true, .batch = 1},
    {.name = "animate", .y = true, .pose = true, .face = true, .strength = 1, .batch = 1},
    {.name = "animate, weakly", .y = true, .pose = true, .face = true, .strength = 0.5, .batch = 1},
    {.name = "talk", .y = true, .speakers = 1, .strength = 1, .batch = 1},
    {.name = "talk of two", .y = true, .speakers = 2, .strength = 0.75, .batch = 1},
    {.name = "lora", .lora = KIND_LORA_PLACED, .batch = 1},
    {.name = "lora, streamed", .lora = KIND_LORA_STREAMED, .batch = 1},
    {.name = "reuse", .reuse = true, .batch = 1},
    {.name = "batch", .batch = KIND_BATCH},
};

static inline struct dit_config kind_config(const struct kind *kind)
{
    struct dit_config config = {.variant = kind->pose   ? DIT_VARIANT_ANIMATE
                                           : kind->clip ? DIT_VARIANT_I2V_21
                                                        : DIT_VARIANT_T2V,
                                .dim = LORA_DIM,
                                .ffn_dim = LORA_FFN,
                                .head_count = 2,
                                .layer_count = LORA_LAYERS,
                                .in_channels = kind->y ? 36 : 16,
                                .out_channels = 16,
                                .text_dim = 40,
                                .freq_dim = 64,
                                .text_len = 12,
                                .pose_channels = kind->pose ? 16 : 0,
                                .image_attention = kind->clip,
                                .epsilon = 1e-6f};
    if (kind->face)
        config.face = (struct face_config){.size = KIND_FACE_SIDE,
                                           .channels = {5, 7}, /* widths follow no rule */
                                           .every = 5,
                                           .motion_dim = 12,
                                           .motion_basis = 3,
                                           .dim = 20,
                                           .heads = 2};
    if (kind->speakers)
        config.talk =
            (struct talk_config){.features = 12 * 8, .hidden = 16, .tokens = 4, .dim = 24};
    return config;
}

/* -- files ------------------------------------------------------------------------------------- */

static inline void kind_write_lora(const char *path)
{
    struct lora_writer w = {.count = 0};
    lora_add_blocks(&w, FORM_COMFYUI, "one", 0, 3, 2);
    lora_add_pair(&w, FORM_COMFYUI, "one", "head.head", 2, 0);
    lora_add_diff(&w, "diffusion_model.blocks.0.norm3.diff", "one", "blocks.0.norm3.weight", 1,
                  LORA_DIM, 0.1f);
    lora_add_diff(&w, "diffusion_model.blocks.1.ffn.0.diff_b", "one", "blocks.1.ffn.0.bias", 1,
                  LORA_FFN, 0.1f);
    lora_add_diff(&w, "diffusion_model.blocks.1.cross_attn.q.diff", "one",
                  "blocks.1.cross_attn.q.weight", LORA_DIM, LORA_DIM, 0.05f);
    lora_write(&w, path);
}

/* The model's file; a LoRA's beside it, "<path>.lora", where the kind has one. */
static inline void kind_write(const struct kind *kind, const char *path)
{
    const struct dit_config config = kind_config(kind);
    struct catalogue catalogue;
    struct lt_error error;
    char lora[300];
    assert_ok(catalogue_of_dit(&config, &catalogue, &error));
    assert_ok(fill_file(path, &catalogue, fill_like_golden, NULL, &error));
    catalogue_fini(&catalogue);
    snprintf(lora, sizeof lora, "%s.lora", path);
    if (kind->lora)
        kind_write_lora(lora);
}

/* -- a model in a place ------------------------------------------------------------------------ */

/* Where it runs; whoever made it keeps it. */
struct kind_place {
    struct lt_kernels kernels;
    struct lt_exec *exec;
    struct store_params params; /* device and tiers */
};

struct kind_model {
    struct tensor_file *file;
    struct lora_set *lora;
    struct store *store;
    struct dit *dit;
};

static inline void kind_open(struct kind_model *model, const struct kind *kind,
                             const struct kind_place *place, const char *path)
{
    const struct dit_config config = kind_config(kind);
    struct store_params params = place->params;
    struct lt_error error;
    char lora[300];
    memset(model, 0, sizeof *model);
    assert_ok(tensor_file_open(path, &model->file, &error));
    snprintf(lora, sizeof lora, "%s.lora", path);
    const float strength = 0.7f;
    const struct lora_source source = {lora, &strength, 1, 0, false};
    const struct lora_params wanted = {
        &source, 1, lt_exec_precision(place->exec) == LT_PRECISION_F32 ? LT_TYPE_F32 : LT_TYPE_BF16,
        kind->lora == KIND_LORA_STREAMED};
    if (kind->lora)
        assert_ok(lora_set_create(&wanted, model->file, &model->lora, &error));
    params.extras = model->lora ? lora_set_extras(model->lora) : NULL;
    assert_ok(store_open(model->file, NULL, NULL, &params, &model->store, &error));
    assert_ok(store_finish_loading(model->store, &error));
    assert_ok(dit_create(&config, model->store, &place->kernels, place->exec, &model->dit, &error));
    dit_set_lora(model->dit, model->lora);
}

static inline void kind_close(struct kind_model *model)
{
    dit_destroy(&model->dit);
    store_destroy(&model->store);
    lora_set_destroy(&model->lora);
    tensor_file_close(&model->file);
}

static inline float *kind_values(const char *name, size_t count)
{
    float *values = malloc(count * sizeof *values);
    lt_assert(values);
    fill_values(name, values, count);
    return values;
}

/* Everything the kind has; out [batch, KIND_LATENT]. Twice: the second time with what was kept. */
static inline void kind_predict(struct kind_model *model, const struct kind *kind,
                                const struct kind_place *place, float *out)
{
    static const float masks[3 * KIND_CELLS] = {1, 1, 0, 1, 0, 0, /* 1 */
                                                0, 0, 1, 0, 1, 0, /* 2 */
                                                0, 0, 0, 0, 0, 1};
    const struct dit_config config = kind_config(kind);
    const int64_t cells = KIND_FRAMES * KIND_ROWS * KIND_COLUMNS;
    const double steps[KIND_FRAMES] = {0, 640, 640};
    struct lt_error error;
    float *x = kind_values("input.x", KIND_BATCH * KIND_LATENT),
          *y = kind_values("input.y", (size_t)(20 * cells)),
          *text = kind_values("input.text", 5 * 40), *nag_text = kind_values("input.nag", 12 * 40),
          *clip = kind_values("input.clip", 257 * 1280),
          *pose = kind_values("input.pose", (size_t)(16 * cells)),
          *face = kind_values("input.face", 3 * KIND_FACES * KIND_FACE_SIDE * KIND_FACE_SIDE),
          *audio = kind_values("input.audio", 2 * KIND_HEARD * 96);
    const struct dit_prompt prompt = {
        .text = lt_view_2d(text, LT_TYPE_F32, KIND_TEXT, 40),
        .nag_text = lt_view_2d(kind->nag ? nag_text : NULL, LT_TYPE_F32, 12, 40),
        .clip = lt_view_2d(kind->clip ? clip : NULL, LT_TYPE_F32, 257, 1280)};
    const struct animate_window window = {
        .pose = lt_view_4d(kind->pose ? pose : NULL, LT_TYPE_F32, 16, KIND_FRAMES - 1, KIND_ROWS,
                           KIND_COLUMNS),
        .face = lt_view_4d(kind->face ? face : NULL, LT_TYPE_F32, 3, KIND_FACES, KIND_FACE_SIDE,
                           KIND_FACE_SIDE)};
    const struct talk_window speech = {
        .audio =
            lt_view_3d(kind->speakers ? audio : NULL, LT_TYPE_F32, kind->speakers, KIND_HEARD, 96),
        .masks = lt_view_3d(kind->speakers > 1 ? (void *)masks : NULL, LT_TYPE_F32, 3,
                            KIND_ROWS / 2, KIND_COLUMNS / 2)};
    struct dit_options options = dit_options_default;
    options.pose_strength = options.face_strength = options.audio_scale = kind->strength;
    struct dit_context *context;
    struct animate_context *animate = NULL;
    struct talk_context *talk = NULL;
    void *added = NULL;
    const size_t added_bytes = (size_t)(KIND_TOKENS * config.dim) * 2;
    struct dit_inputs inputs[KIND_BATCH];
    struct lt_view v[KIND_BATCH];
    assert_ok(dit_context_create(model->dit, &prompt, 1 << 20, &context, &error));
    if (kind->pose || kind->face)
        assert_ok(animate_context_create(model->dit, &window, 1 << 20, &animate, &error));
    if (kind->speakers)
        assert_ok(talk_context_create(model->dit, &speech, 1 << 20, &talk, &error));
    assert_ok(lt_exec_take(place->exec, added_bytes, &added, &error));
    for (size_t i = 0; i < kind->batch; i++) {
        const int64_t frames = KIND_FRAMES - (int64_t)i; /* of different sizes */
        inputs[i] = (struct dit_inputs){
            .x = lt_view_4d(x + i * KIND_LATENT, LT_TYPE_F32, 16, frames, KIND_ROWS, KIND_COLUMNS),
            .y = lt_view_4d(kind->y ? y : NULL, LT_TYPE_F32, 20, frames, KIND_ROWS, KIND_COLUMNS),
            .timestep = 937 - 300 * (double)i,
            .timesteps = kind->per_frame ? steps : NULL,
            .context = context,
            .animate = animate,
            .talk = talk,
            .options = &options,
            .reuse = kind->reuse ? DIT_REUSE_KEEP : DIT_REUSE_NONE,
            .added = lt_view_2d(added, LT_TYPE_BF16, KIND_TOKENS, config.dim)};
        v[i] = lt_view_4d(out + i * KIND_LATENT, LT_TYPE_F32, 16, frames, KIND_ROWS, KIND_COLUMNS);
    }
    memset(out, 0, KIND_BATCH * KIND_LATENT * sizeof *out);
    assert_ok(dit_forward(model->dit, inputs, kind->batch, v, &error));
    inputs[0].reuse = kind->reuse ? DIT_REUSE_ADD : DIT_REUSE_NONE;
    assert_ok(dit_forward(model->dit, inputs, kind->batch, v, &error));
    lt_exec_give(place->exec, added, added_bytes);
    talk_context_destroy(&talk);
    animate_context_destroy(&animate);
    dit_context_destroy(&context);
    float *const inputs_of[] = {x, y, text, nag_text, clip, pose, face, audio};
    for (size_t i = 0; i < LT_COUNT(inputs_of); i++)
        free(inputs_of[i]);
}
