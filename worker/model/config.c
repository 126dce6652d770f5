#include "worker/model/config.h"

#include "worker/weights/layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    LAYERS_MAX = 512,
    SIZE_MAX_SANE = 1 << 20 /* products of two or three stay far from overflow */
};

static const struct {
    const char *name;
    struct dit_config config;
} named[] = {
#define COMMON .text_dim = 4096, .freq_dim = 256, .text_len = 512, .epsilon = 1e-6f
#define WIDE                                                                                       \
    .dim = 5120, .ffn_dim = 13824, .head_count = 40, .layer_count = 40, .out_channels = 16, COMMON
    {"t2v-1.3b",
     {.variant = DIT_VARIANT_T2V,
      .dim = 1536,
      .ffn_dim = 8960,
      .head_count = 12,
      .layer_count = 30,
      .in_channels = 16,
      .out_channels = 16,
      COMMON}},
    {"t2v-14b", {.variant = DIT_VARIANT_T2V, .in_channels = 16, WIDE}},
    {"i2v-14b", {.variant = DIT_VARIANT_I2V_21, .in_channels = 36, .image_attention = true, WIDE}},
    {"flf2v-14b",
     {.variant = DIT_VARIANT_FLF2V,
      .in_channels = 36,
      .image_attention = true,
      .image_positions = true,
      WIDE}},
    {"i2v-a14b", {.variant = DIT_VARIANT_I2V_22, .in_channels = 36, WIDE}},
    {"ti2v-5b",
     {.variant = DIT_VARIANT_TI2V_5B,
      .dim = 3072,
      .ffn_dim = 14336,
      .head_count = 24,
      .layer_count = 30,
      .in_channels = 48,
      .out_channels = 48,
      COMMON}},
    {"animate-14b",
     {.variant = DIT_VARIANT_ANIMATE,
      .in_channels = 36,
      .image_attention = true,
      .pose_channels = 16,
      .face = {.size = 512,
               .channels = {32, 64, 128, 256, 512, 512, 512, 512},
               .motion_dim = 512,
               .motion_basis = 20,
               .dim = 1024,
               .heads = 4,
               .every = 5},
      WIDE}},
    {"talk-addon",
     {.variant = DIT_VARIANT_TALK_ADDON,
      .in_channels = 36,
      .image_attention = true,
      .talk = {.features = 12 * 768, .hidden = 512, .tokens = 32, .dim = 768},
      WIDE}},
#undef WIDE
#undef COMMON
};

/* Files of relatives that we know and do not run (dit.md 1.6, 3). */
static const struct {
    const char *tensor, *name;
} relatives[] = {
    {"vace_blocks.0.after_proj.weight", "VACE"},
    {"audio_injector.injector.0.k.weight", "S2V"},
    {"audio_proj.audio_proj_glob_1.layer.weight", "HuMo"},
    {"control_adapter.conv.weight", "Fun camera"},
    {"ref_conv.weight", "Fun control with reference"},
    {"fps_embedding.weight", "SkyReels"},
    {"patch_embedding_pose.weight", "SCAIL"},
};

const char *dit_variant_name(enum dit_variant variant)
{
    static const char *const names[] = {"t2v",     "i2v-2.1", "flf2v",     "i2v-2.2",
                                        "ti2v-5b", "animate", "talk-addon"};
    return (size_t)variant < LT_COUNT(names) ? names[variant] : "unknown";
}

lt_status dit_config_named(const char *name, struct dit_config *config_out, struct lt_error *error)
{
    for (size_t i = 0; i < LT_COUNT(named); i++)
        if (strcasecmp(named[i].name, name) == 0) {
            *config_out = named[i].config;
            return LT_OK;
        }
    return lt_fail(error, LT_USAGE,
                   "no variant '%s'; known: t2v-1.3b, t2v-14b, i2v-14b, flf2v-14b, i2v-a14b, "
                   "ti2v-5b, animate-14b, "
                   "talk-addon",
                   name);
}

static int64_t count_of(const struct tensor_info *tensor)
{
    int64_t count = 1;
    for (int i = 0; tensor && i < tensor->rank; i++)
        count *= tensor->dim[i];
    return tensor ? count : 0;
}

/* How many units of `unit` values the tensor holds: a whole number above zero. */
static lt_status units_of(const struct tensor_file *file, const char *name, int64_t unit,
                          int64_t *units_out, struct lt_error *error)
{
    const struct tensor_info *tensor = tensor_file_find(file, name);
    const int64_t count = count_of(tensor);
    if (!tensor)
        return lt_fail(error, LT_BAD_INPUT, "%s: not a Wan transformer: tensor '%s' is missing",
                       tensor_file_path(file), name);
    if (count == 0 || count % unit != 0)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: tensor '%s': %lld values, expected a multiple of %lld",
                       tensor_file_path(file), name, (long long)count, (long long)unit);
    *units_out = count / unit;
    return LT_OK;
}

static lt_status refuse_relatives(const struct tensor_file *file, struct lt_error *error)
{
    for (size_t i = 0; i < LT_COUNT(relatives); i++)
        if (tensor_file_find(file, relatives[i].tensor))
            return lt_fail(error, LT_UNSUPPORTED,
                           "%s: a Wan %s model (it has '%s'), which is not supported",
                           tensor_file_path(file), relatives[i].name, relatives[i].tensor);
    for (size_t i = 0; i < tensor_file_count(file); i++) {
        const char *name = tensor_file_at(file, i)->name;
        const bool mtv = strstr(name, "motion_attn") != NULL;
        if (mtv || strncmp(name, "casual_audio_encoder.", 21) == 0)
            return lt_fail(error, LT_UNSUPPORTED,
                           "%s: a Wan %s model (it has '%s'), which is not supported",
                           tensor_file_path(file), mtv ? "MTV" : "S2V", name);
    }
    return LT_OK;
}

static lt_status count_layers(const struct tensor_file *file, int64_t *layers_out,
                              struct lt_error *error)
{
    int64_t layers = 0;
    for (size_t i = 0; i < tensor_file_count(file); i++) {
        const char *name = tensor_file_at(file, i)->name;
        char *end;
        if (strncmp(name, "blocks.", 7) != 0 || name[7] < '0' || name[7] > '9')
            continue;
        const long number = strtol(name + 7, &end, 10);
        /* Animate's face blocks may be filed as blocks.N.fuser_block: they make no block */
        if (*end != '.' || strncmp(end, ".fuser_block.", 13) == 0)
            continue;
        if (number >= LAYERS_MAX)
            return lt_fail(error, LT_BAD_INPUT, "%s: tensor '%s': at most %d blocks are allowed",
                           tensor_file_path(file), name, LAYERS_MAX);
        layers = number >= layers ? number + 1 : layers;
    }
    *layers_out = layers;
    return LT_OK;
}

static bool is_animate(const struct tensor_file *file)
{
    return tensor_file_find(file, "pose_patch_embedding.weight") ||
           tensor_file_find(file, "face_adapter.fuser_blocks.0.k_norm.weight") ||
           tensor_file_find(file, "blocks.0.fuser_block.k_norm.weight");
}

/* Five apart as published, unless their number says otherwise. */
static lt_status measure_fusers(const struct tensor_file *file, int64_t layers,
                                struct face_config *face, struct lt_error *error)
{
    char name[96];
    int64_t count = 0;
    face->every = 5;
    if (tensor_file_find(file, "blocks.0.fuser_block.k_norm.weight"))
        return LT_OK; /* filed beside the block they follow */
    do
        snprintf(name, sizeof name, "face_adapter.fuser_blocks.%lld.k_norm.weight",
                 (long long)count);
    while (tensor_file_find(file, name) && ++count <= LAYERS_MAX);
    face->every = (int64_t)layout_fuser_every((size_t)count, (size_t)layers);
    if (face->every == 0)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: %lld of 'face_adapter.fuser_blocks' for %lld blocks: where they "
                       "belong cannot be told",
                       tensor_file_path(file), (long long)count, (long long)layers);
    return LT_OK;
}

/* The smallest map is 4 by 4, each level doubles it. dit.md 3.1. */
static lt_status measure_motion(const struct tensor_file *file, struct face_config *face,
                                struct lt_error *error)
{
    static const char convs[] = "motion_encoder.enc.net_app.convs.";
    char name[96];
    int64_t levels = 0, wide;
    LT_TRY(
        units_of(file, "motion_encoder.enc.net_app.convs.0.1.bias", 1, &face->channels[0], error));
    for (;; levels++) {
        snprintf(name, sizeof name, "%s%lld.conv2.2.bias", convs, (long long)levels + 1);
        if (levels == FACE_LEVELS_MAX || !tensor_file_find(file, name))
            break;
        LT_TRY(units_of(file, name, 1, &face->channels[levels + 1], error));
    }
    face->size = 4ll << levels;
    LT_TRY(units_of(file, "motion_encoder.enc.fc.0.bias", 1, &face->motion_dim, error));
    snprintf(name, sizeof name, "%s%lld.weight", convs, (long long)levels + 1);
    LT_TRY(units_of(file, name, 16 * face->motion_dim, &wide, error));
    if (levels == 0 || wide != face->channels[levels])
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: tensor '%s': a motion encoder of %lld levels that ends in %lld "
                       "channels, expected %lld",
                       tensor_file_path(file), name, (long long)levels, (long long)wide,
                       (long long)face->channels[levels]);
    return units_of(file, "motion_encoder.dec.direction.weight", face->motion_dim,
                    &face->motion_basis, error);
}

static lt_status measure_face(const struct tensor_file *file, int64_t layers,
                              struct face_config *face, struct lt_error *error)
{
    LT_TRY(measure_motion(file, face, error));
    LT_TRY(units_of(file, "face_encoder.conv2.conv.bias", 1, &face->dim, error));
    LT_TRY(units_of(file, "face_encoder.conv1_local.conv.bias", face->dim, &face->heads, error));
    int64_t widest = face->motion_dim > face->dim ? face->motion_dim : face->dim;
    for (size_t i = 0; i < LT_COUNT(face->channels); i++)
        widest = face->channels[i] > widest ? face->channels[i] : widest;
    if (widest > SIZE_MAX_SANE || face->heads > SIZE_MAX_SANE ||
        face->motion_basis > face->motion_dim)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: a motion basis of %lld in %lld dimensions, or a width above %d",
                       tensor_file_path(file), (long long)face->motion_basis,
                       (long long)face->motion_dim, SIZE_MAX_SANE);
    return measure_fusers(file, layers, face, error);
}

/* Animate's parts, each on when it is there. */
static lt_status measure_animate(const struct tensor_file *file, struct dit_config *c,
                                 struct lt_error *error)
{
    c->variant = DIT_VARIANT_ANIMATE;
    if (tensor_file_find(file, "pose_patch_embedding.weight"))
        LT_TRY(units_of(file, "pose_patch_embedding.weight", 4 * c->dim, &c->pose_channels, error));
    if (!tensor_file_find(file, "face_adapter.fuser_blocks.0.k_norm.weight") &&
        !tensor_file_find(file, "blocks.0.fuser_block.k_norm.weight"))
        return LT_OK;
    return measure_face(file, c->layer_count, &c->face, error);
}

static lt_status choose_variant(const struct tensor_file *file, struct dit_config *c,
                                struct lt_error *error)
{
    c->image_attention = tensor_file_find(file, "blocks.0.cross_attn.k_img.weight") != NULL;
    c->image_positions = tensor_file_find(file, "img_emb.emb_pos") != NULL;
    if (is_animate(file))
        return measure_animate(file, c, error);
    if (c->image_attention && c->in_channels == 36)
        c->variant = c->image_positions ? DIT_VARIANT_FLF2V : DIT_VARIANT_I2V_21;
    else if (c->image_attention)
        return lt_fail(error, LT_UNSUPPORTED,
                       "%s: image cross-attention with %lld input channels: a control model, "
                       "which is not supported",
                       tensor_file_path(file), (long long)c->in_channels);
    else if (c->in_channels == 36)
        c->variant = DIT_VARIANT_I2V_22;
    else if (c->in_channels == 48 && c->out_channels == 48)
        c->variant = DIT_VARIANT_TI2V_5B;
    else if (c->in_channels == c->out_channels)
        c->variant = DIT_VARIANT_T2V;
    else
        return lt_fail(error, LT_UNSUPPORTED,
                       "%s: %lld input channels for %lld output channels: a control model, which "
                       "is not supported",
                       tensor_file_path(file), (long long)c->in_channels,
                       (long long)c->out_channels);
    return LT_OK;
}

/* The audio projection: five frames into the first latent frame, eight into every other. */
static lt_status measure_talk(const struct tensor_file *file, struct talk_config *talk,
                              struct lt_error *error)
{
    const char *prefix = tensor_file_find(file, "multitalk_audio_proj.proj1.weight")
                             ? "multitalk_audio_proj"
                             : "audio_proj";
    char name[64];
    snprintf(name, sizeof name, "%s.proj1.bias", prefix);
    LT_TRY(units_of(file, name, 1, &talk->hidden, error));
    snprintf(name, sizeof name, "%s.proj1.weight", prefix);
    LT_TRY(units_of(file, name, 5 * talk->hidden, &talk->features, error));
    snprintf(name, sizeof name, "%s.norm.weight", prefix);
    LT_TRY(units_of(file, name, 1, &talk->dim, error));
    snprintf(name, sizeof name, "%s.proj3.bias", prefix);
    LT_TRY(units_of(file, name, talk->dim, &talk->tokens, error));
    if (talk->hidden > SIZE_MAX_SANE || talk->features > SIZE_MAX_SANE ||
        talk->dim > SIZE_MAX_SANE || talk->tokens > SIZE_MAX_SANE)
        return lt_fail(error, LT_BAD_INPUT, "%s: an audio width above %d", tensor_file_path(file),
                       SIZE_MAX_SANE);
    return LT_OK;
}

static bool has_talk(const struct tensor_file *file)
{
    return tensor_file_find(file, "blocks.0.audio_cross_attn.q_linear.weight") != NULL;
}

static lt_status refuse_longcat(const struct tensor_file *file, struct lt_error *error)
{
    if (!tensor_file_find(file, "blocks.0.audio_cross_attn.q_norm.weight"))
        return LT_OK;
    return lt_fail(error, LT_UNSUPPORTED, "%s: a LongCat-Avatar model, which is not supported",
                   tensor_file_path(file));
}

/* The sizes of the model it is merged onto are not in it: those of the one published base are
 * assumed. */
static lt_status detect_talk(const struct tensor_file *file, struct dit_config *config_out,
                             struct lt_error *error)
{
    struct dit_config c;
    LT_TRY(dit_config_named("talk-addon", &c, error));
    LT_TRY(units_of(file, "blocks.0.norm_x.weight", 1, &c.dim, error));
    if (c.dim % 128 != 0)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: width %lld is not a multiple of the head width 128",
                       tensor_file_path(file), (long long)c.dim);
    c.head_count = c.dim / 128;
    LT_TRY(count_layers(file, &c.layer_count, error));
    LT_TRY(measure_talk(file, &c.talk, error));
    *config_out = c;
    return LT_OK;
}

lt_status dit_config_detect(const struct tensor_file *file, struct dit_config *config_out,
                            struct lt_error *error)
{
    struct dit_config c = {.text_len = 512, .epsilon = 1e-6f};
    int64_t unused;
    LT_TRY(refuse_longcat(file, error));
    if (has_talk(file) && !tensor_file_find(file, "blocks.0.self_attn.q.weight"))
        return detect_talk(file, config_out, error);
    if (!is_animate(file)) /* it may hold parts that others are known by */
        LT_TRY(refuse_relatives(file, error));
    LT_TRY(units_of(file, "patch_embedding.bias", 1, &c.dim, error));
    if (c.dim == 4096)
        return lt_fail(error, LT_UNSUPPORTED,
                       "%s: a LongCat model (width 4096), which is not supported",
                       tensor_file_path(file));
    if (c.dim < 128 || c.dim % 128 != 0)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: width %lld is not a multiple of the head width 128",
                       tensor_file_path(file), (long long)c.dim);
    c.head_count = c.dim / 128;
    LT_TRY(units_of(file, "patch_embedding.weight", 4 * c.dim, &c.in_channels, error));
    LT_TRY(units_of(file, "head.head.weight", 4 * c.dim, &c.out_channels, error));
    LT_TRY(units_of(file, "blocks.0.ffn.0.weight", c.dim, &c.ffn_dim, error));
    LT_TRY(units_of(file, "text_embedding.0.weight", c.dim, &c.text_dim, error));
    LT_TRY(units_of(file, "time_embedding.0.weight", c.dim, &c.freq_dim, error));
    LT_TRY(units_of(file, "blocks.0.self_attn.norm_q.weight", c.dim, &unused, error));
    LT_TRY(units_of(file, "head.modulation", 2 * c.dim, &unused, error));
    if (c.freq_dim % 2 != 0)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: tensor 'time_embedding.0.weight': %lld columns, expected an even "
                       "number",
                       tensor_file_path(file), (long long)c.freq_dim);
    if (c.dim > SIZE_MAX_SANE || c.ffn_dim > SIZE_MAX_SANE || c.text_dim > SIZE_MAX_SANE ||
        c.freq_dim > SIZE_MAX_SANE || c.in_channels > SIZE_MAX_SANE ||
        c.out_channels > SIZE_MAX_SANE)
        return lt_fail(error, LT_BAD_INPUT, "%s: a width above %d", tensor_file_path(file),
                       SIZE_MAX_SANE);
    LT_TRY(count_layers(file, &c.layer_count, error));
    LT_TRY(choose_variant(file, &c, error));
    if (has_talk(file))
        LT_TRY(measure_talk(file, &c.talk, error));
    *config_out = c;
    return LT_OK;
}
