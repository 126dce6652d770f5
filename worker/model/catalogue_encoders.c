/* What the files of the encoders hold, in the one form that names.h makes of the published ones. */
#include "worker/model/audio.h"
#include "worker/model/catalogue_build.h"
#include "worker/model/text.h"
#include "worker/model/vision.h"

/* -- UMT5 (encoders.md 6.1) -------------------------------------------------------------------- */

lt_status catalogue_of_umt5(const struct text_config *config, struct catalogue *catalogue_out,
                            struct lt_error *error)
{
    const int64_t d = config->dim, inner = config->head_count * config->head_width;
    const int64_t ffn = config->ffn_dim;
    struct builder b;
    begin(&b);
    ADD(&b, "", "token_embedding.weight", config->vocabulary_rows, d);
    for (int64_t n = 0; n < config->layer_count; n++) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "blocks.%lld.", (long long)n);
        ADD(&b, prefix, "norm1.weight", d);
        ADD(&b, prefix, "attn.q.weight", inner, d);
        ADD(&b, prefix, "attn.k.weight", inner, d);
        ADD(&b, prefix, "attn.v.weight", inner, d);
        ADD(&b, prefix, "attn.o.weight", d, inner);
        ADD(&b, prefix, "pos_embedding.embedding.weight", config->bucket_count, config->head_count);
        ADD(&b, prefix, "norm2.weight", d);
        ADD(&b, prefix, "ffn.gate.0.weight", ffn, d);
        ADD(&b, prefix, "ffn.fc1.weight", ffn, d);
        ADD(&b, prefix, "ffn.fc2.weight", d, ffn);
    }
    ADD(&b, "", "norm.weight", d);
    return finish(&b, catalogue_out, error);
}

/* -- CLIP vision (encoders.md 8.1) ------------------------------------------------------------- */

static void add_vision_block(struct builder *b, const struct vision_config *config, int64_t n)
{
    const int64_t d = config->width;
    char prefix[32];
    snprintf(prefix, sizeof prefix, "blocks.%lld.", (long long)n);
    add_norm(b, prefix, "norm1", d);
    if (config->fused) {
        add_linear(b, prefix, "attn.to_qkv", 3 * d, d);
    } else {
        add_linear(b, prefix, "attn.q", d, d);
        add_linear(b, prefix, "attn.k", d, d);
        add_linear(b, prefix, "attn.v", d, d);
    }
    add_linear(b, prefix, "attn.proj", d, d);
    add_norm(b, prefix, "norm2", d);
    add_linear(b, prefix, "mlp.0", config->ffn_dim, d);
    add_linear(b, prefix, "mlp.2", d, config->ffn_dim);
}

lt_status catalogue_of_vision(const struct vision_config *config, struct catalogue *catalogue_out,
                              struct lt_error *error)
{
    const int64_t d = config->width;
    struct builder b;
    begin(&b);
    ADD(&b, "", "visual.cls_embedding", d);
    ADD(&b, "", "visual.patch_embedding.weight", d, 3, config->patch, config->patch);
    ADD(&b, "", "visual.pos_embedding", vision_token_count(config), d);
    add_norm(&b, "", "visual.pre_norm", d);
    for (int64_t n = 0; n < config->layer_count; n++)
        add_vision_block(&b, config, n);
    add_norm(&b, "", "visual.post_norm", d);
    return finish(&b, catalogue_out, error);
}

/* -- wav2vec2 (encoders.md 9.1) ---------------------------------------------------------------- */

static void add_audio_block(struct builder *b, const struct audio_config *config, int64_t n)
{
    const int64_t d = config->width;
    char prefix[32];
    snprintf(prefix, sizeof prefix, "blocks.%lld.", (long long)n);
    add_linear(b, prefix, "attn.q", d, d);
    add_linear(b, prefix, "attn.k", d, d);
    add_linear(b, prefix, "attn.v", d, d);
    add_linear(b, prefix, "attn.o", d, d);
    add_norm(b, prefix, "norm1", d);
    add_linear(b, prefix, "ffn.0", config->ffn_dim, d);
    add_linear(b, prefix, "ffn.2", d, config->ffn_dim);
    add_norm(b, prefix, "norm2", d);
}

lt_status catalogue_of_audio(const struct audio_config *config, struct catalogue *catalogue_out,
                             struct lt_error *error)
{
    static const char position[] = "encoder.pos_conv_embed.conv.";
    const int64_t d = config->width, taps = config->position_taps;
    struct builder b;
    begin(&b);
    for (int i = 0; i < AUDIO_CONVS; i++) {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "feature_extractor.conv_layers.%d.", i);
        ADD(&b, prefix, "conv.weight", config->conv_width[i], i ? config->conv_width[i - 1] : 1,
            config->conv_taps[i]);
        if (i == 0)
            add_norm(&b, prefix, "layer_norm", config->conv_width[i]);
    }
    add_norm(&b, "feature_projection.", "layer_norm", config->conv_width[AUDIO_CONVS - 1]);
    add_linear(&b, "feature_projection.", "projection", d, config->conv_width[AUDIO_CONVS - 1]);
    ADD(&b, position, "bias", d);
    ADD(&b, position, "weight_g", 1, 1, taps);
    ADD(&b, position, "weight_v", d, d / config->position_groups, taps);
    add_norm(&b, "encoder.", "layer_norm", d);
    for (int64_t n = 0; n < config->layer_count; n++)
        add_audio_block(&b, config, n);
    return finish(&b, catalogue_out, error);
}
