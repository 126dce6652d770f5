#include "worker/model/catalogue_build.h"

enum {
    CLIP_WIDTH = 1280,
    CLIP_POSITIONS = 514,
};
enum { HEAD_WIDTH = 128 };

void catalogue_fini(struct catalogue *catalogue)
{
    lt_arena_fini(&catalogue->arena);
    free(catalogue->entry);
    *catalogue = (struct catalogue){0};
}

int64_t catalogue_values(const struct catalogue_entry *entry)
{
    int64_t count = 1;
    for (int i = 0; i < entry->rank; i++)
        count *= entry->dim[i];
    return count;
}

/* -- transformer (dit.md 1.4) ------------------------------------------------------------------ */

static void add_attention(struct builder *b, const char *prefix, int64_t d, bool image)
{
    static const char *const linears[] = {"q", "k", "v", "o"};
    for (size_t i = 0; i < LT_COUNT(linears); i++)
        add_linear(b, prefix, linears[i], d, d);
    ADD(b, prefix, "norm_q.weight", d);
    ADD(b, prefix, "norm_k.weight", d);
    if (image) {
        add_linear(b, prefix, "k_img", d, d);
        add_linear(b, prefix, "v_img", d, d);
        ADD(b, prefix, "norm_k_img.weight", d);
    }
}

static void add_block(struct builder *b, const struct dit_config *config, int64_t block)
{
    char prefix[64], part[96];
    const int64_t d = config->dim;
    snprintf(prefix, sizeof prefix, "blocks.%lld.", (long long)block);
    ADD(b, prefix, "modulation", 1, 6, d);
    snprintf(part, sizeof part, "%sself_attn.", prefix);
    add_attention(b, part, d, false);
    snprintf(part, sizeof part, "%scross_attn.", prefix);
    add_attention(b, part, d, config->image_attention);
    add_norm(b, prefix, "norm3", d);
    add_linear(b, prefix, "ffn.0", config->ffn_dim, d);
    add_linear(b, prefix, "ffn.2", d, config->ffn_dim);
}

static void add_image_embedding(struct builder *b, const struct dit_config *config)
{
    if (config->image_positions)
        ADD(b, "img_emb.", "emb_pos", 1, CLIP_POSITIONS, CLIP_WIDTH);
    add_norm(b, "img_emb.", "proj.0", CLIP_WIDTH);
    add_linear(b, "img_emb.", "proj.1", CLIP_WIDTH, CLIP_WIDTH);
    add_linear(b, "img_emb.", "proj.3", config->dim, CLIP_WIDTH);
    add_norm(b, "img_emb.", "proj.4", config->dim);
}

/* -- Animate (dit.md 3.1) ---------------------------------------------------------------------- */

static void add_motion_encoder(struct builder *b, const struct face_config *face)
{
    int64_t from = face->channels[0], level = 1;
    char prefix[96];
    ADD(b, "motion_encoder.enc.net_app.convs.0.", "0.weight", from, 3, 1, 1);
    ADD(b, "motion_encoder.enc.net_app.convs.0.", "1.bias", 1, from, 1, 1);
    for (int64_t size = face->size; size > 4; size /= 2, level++) {
        const int64_t to = face->channels[level];
        snprintf(prefix, sizeof prefix, "motion_encoder.enc.net_app.convs.%lld.", (long long)level);
        ADD(b, prefix, "conv1.0.weight", from, from, 3, 3);
        ADD(b, prefix, "conv1.1.bias", 1, from, 1, 1);
        ADD(b, prefix, "conv2.0.kernel", 4, 4);
        ADD(b, prefix, "conv2.1.weight", to, from, 3, 3);
        ADD(b, prefix, "conv2.2.bias", 1, to, 1, 1);
        ADD(b, prefix, "skip.0.kernel", 4, 4);
        ADD(b, prefix, "skip.1.weight", to, from, 1, 1);
        from = to;
    }
    snprintf(prefix, sizeof prefix, "motion_encoder.enc.net_app.convs.%lld.", (long long)level);
    ADD(b, prefix, "weight", face->motion_dim, from, 4, 4);
    for (int i = 0; i < 5; i++) {
        snprintf(prefix, sizeof prefix, "motion_encoder.enc.fc.%d", i);
        add_linear(b, prefix, "", i < 4 ? face->motion_dim : face->motion_basis, face->motion_dim);
    }
    ADD(b, "motion_encoder.", "dec.direction.weight", face->motion_dim, face->motion_basis);
}

static void add_face(struct builder *b, const struct dit_config *config)
{
    const struct face_config *face = &config->face;
    const int64_t d = config->dim;
    add_motion_encoder(b, face);
    ADD(b, "face_encoder.", "conv1_local.conv.weight", face->heads * face->dim, face->motion_dim,
        3);
    ADD(b, "face_encoder.", "conv1_local.conv.bias", face->heads * face->dim);
    for (int i = 2; i <= 3; i++) {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "face_encoder.conv%d.conv.", i);
        ADD(b, prefix, "weight", face->dim, face->dim, 3);
        ADD(b, prefix, "bias", face->dim);
    }
    add_linear(b, "face_encoder.", "out_proj", d, face->dim);
    ADD(b, "face_encoder.", "padding_tokens", 1, 1, 1, d);
    for (int64_t block = 0; block * face->every < config->layer_count; block++) {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "face_adapter.fuser_blocks.%lld.", (long long)block);
        add_linear(b, prefix, "linear1_q", d, d);
        add_linear(b, prefix, "linear1_kv", 2 * d, d);
        add_linear(b, prefix, "linear2", d, d);
        ADD(b, prefix, "q_norm.weight", HEAD_WIDTH);
        ADD(b, prefix, "k_norm.weight", HEAD_WIDTH);
    }
}

static void add_animate(struct builder *b, const struct dit_config *config)
{
    if (config->pose_channels > 0) {
        ADD(b, "pose_patch_embedding.", "bias", config->dim);
        ADD(b, "pose_patch_embedding.", "weight", config->dim, config->pose_channels, 1, 2, 2);
    }
    if (config->face.size > 0)
        add_face(b, config);
}

/* -- talk add-on (dit.md 4.1) ------------------------------------------------------------------ */

static void add_talk(struct builder *b, const struct dit_config *config)
{
    const struct talk_config *t = &config->talk;
    const int64_t d = config->dim;
    add_linear(b, "audio_proj.", "proj1", t->hidden, 5 * t->features);
    add_linear(b, "audio_proj.", "proj1_vf", t->hidden, 8 * t->features);
    add_linear(b, "audio_proj.", "proj2", t->hidden, t->hidden);
    add_linear(b, "audio_proj.", "proj3", t->tokens * t->dim, t->hidden);
    add_norm(b, "audio_proj.", "norm", t->dim);
    for (int64_t block = 0; block < config->layer_count; block++) {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "blocks.%lld.", (long long)block);
        add_norm(b, prefix, "norm_x", d);
        add_linear(b, prefix, "audio_cross_attn.q_linear", d, d);
        add_linear(b, prefix, "audio_cross_attn.kv_linear", 2 * d, t->dim);
        add_linear(b, prefix, "audio_cross_attn.proj", d, d);
    }
}

lt_status catalogue_of_dit(const struct dit_config *config, struct catalogue *catalogue_out,
                           struct lt_error *error)
{
    struct builder b;
    const int64_t d = config->dim;
    begin(&b);
    if (config->variant == DIT_VARIANT_TALK_ADDON) {
        add_talk(&b, config);
        return finish(&b, catalogue_out, error);
    }
    ADD(&b, "", "patch_embedding.bias", d);
    ADD(&b, "", "patch_embedding.weight", d, config->in_channels, 1, 2, 2);
    add_linear(&b, "", "text_embedding.0", d, config->text_dim);
    add_linear(&b, "", "text_embedding.2", d, d);
    add_linear(&b, "", "time_embedding.0", d, config->freq_dim);
    add_linear(&b, "", "time_embedding.2", d, d);
    add_linear(&b, "", "time_projection.1", 6 * d, d);
    for (int64_t block = 0; block < config->layer_count; block++)
        add_block(&b, config, block);
    add_linear(&b, "", "head.head", 4 * config->out_channels, d);
    ADD(&b, "", "head.modulation", 1, 2, d);
    if (config->image_attention)
        add_image_embedding(&b, config);
    if (config->variant == DIT_VARIANT_ANIMATE)
        add_animate(&b, config);
    if (config->talk.tokens > 0)
        add_talk(&b, config);
    return finish(&b, catalogue_out, error);
}

/* -- VAE (encoders.md 1.2, 1.3) ---------------------------------------------------------------- */

static void add_conv(struct builder *b, const char *prefix, const char *name, int64_t out,
                     int64_t in, int64_t time, int64_t space)
{
    char full[256];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    ADD(b, full, ".weight", out, in, time, space, space);
    ADD(b, full, ".bias", out);
}

static void add_residual(struct builder *b, const char *prefix, int64_t in, int64_t out)
{
    ADD(b, prefix, "residual.0.gamma", in, 1, 1, 1);
    add_conv(b, prefix, "residual.2", out, in, 3, 3);
    ADD(b, prefix, "residual.3.gamma", out, 1, 1, 1);
    add_conv(b, prefix, "residual.6", out, out, 3, 3);
    if (in != out)
        add_conv(b, prefix, "shortcut", out, in, 1, 1);
}

static void add_middle(struct builder *b, const char *part, int64_t width)
{
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%s.middle.0.", part);
    add_residual(b, prefix, width, width);
    snprintf(prefix, sizeof prefix, "%s.middle.1.", part);
    ADD(b, prefix, "norm.gamma", width, 1, 1);
    ADD(b, prefix, "to_qkv.weight", 3 * width, width, 1, 1);
    ADD(b, prefix, "to_qkv.bias", 3 * width);
    ADD(b, prefix, "proj.weight", width, width, 1, 1);
    ADD(b, prefix, "proj.bias", width);
    snprintf(prefix, sizeof prefix, "%s.middle.2.", part);
    add_residual(b, prefix, width, width);
}

static void add_resample(struct builder *b, const char *prefix, int64_t out, int64_t in,
                         int64_t time_out)
{
    ADD(b, prefix, "resample.1.weight", out, in, 3, 3);
    ADD(b, prefix, "resample.1.bias", out);
    if (time_out > 0) {
        ADD(b, prefix, "time_conv.weight", time_out, in, 3, 1, 1);
        ADD(b, prefix, "time_conv.bias", time_out);
    }
}

static void add_head(struct builder *b, const char *part, int64_t out, int64_t in)
{
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%s.head.", part);
    ADD(b, prefix, "0.gamma", in, 1, 1, 1);
    add_conv(b, prefix, "2", out, in, 3, 3);
}

static void add_encoder(struct builder *b, const struct catalogue_vae *vae)
{
    const int64_t width[] = {vae->dim, vae->dim, 2 * vae->dim, 4 * vae->dim, 4 * vae->dim};
    char prefix[64];
    int index = 0;
    add_conv(b, "encoder.", "conv1", width[0], 3, 3, 3);
    for (int level = 0; level < 4; level++) {
        for (int k = 0; k < 2; k++) {
            snprintf(prefix, sizeof prefix, "encoder.downsamples.%d.", index++);
            add_residual(b, prefix, width[level + (k > 0)], width[level + 1]);
        }
        if (level == 3)
            break;
        snprintf(prefix, sizeof prefix, "encoder.downsamples.%d.", index++);
        add_resample(b, prefix, width[level + 1], width[level + 1],
                     level > 0 ? width[level + 1] : 0);
    }
    add_middle(b, "encoder", width[4]);
    add_head(b, "encoder", 2 * vae->channels, width[4]);
}

/* Spatial upsampling halves the width, so a level begins with half of the width above it. */
static void add_decoder(struct builder *b, const struct catalogue_vae *vae)
{
    const int64_t width[] = {4 * vae->dim, 4 * vae->dim, 2 * vae->dim, vae->dim};
    char prefix[64];
    int index = 0;
    int64_t in = width[0];
    add_conv(b, "decoder.", "conv1", width[0], vae->channels, 3, 3);
    add_middle(b, "decoder", width[0]);
    for (int level = 0; level < 4; level++) {
        for (int k = 0; k < 3; k++) {
            snprintf(prefix, sizeof prefix, "decoder.upsamples.%d.", index++);
            add_residual(b, prefix, in, width[level]);
            in = width[level];
        }
        if (level == 3)
            break;
        snprintf(prefix, sizeof prefix, "decoder.upsamples.%d.", index++);
        add_resample(b, prefix, in / 2, in, level < 2 ? 2 * in : 0);
        in /= 2;
    }
    add_head(b, "decoder", 3, width[3]);
}

/* -- VAE of TI2V-5B (encoders.md 2.2) ---------------------------------------------------------- */

enum { FOLDED_CHANNELS = 12 };

/* `blocks` residual blocks from `in` to `out` channels, then a resampling that keeps them. */
static void add_group(struct builder *b, const char *part, int group, int blocks, int64_t in,
                      int64_t out, bool resample, int64_t time_out)
{
    char prefix[96];
    for (int k = 0; k < blocks; k++) {
        snprintf(prefix, sizeof prefix, "%s.%d.%s.%d.", part, group, strchr(part, '.') + 1, k);
        add_residual(b, prefix, k == 0 ? in : out, out);
    }
    if (resample) {
        snprintf(prefix, sizeof prefix, "%s.%d.%s.%d.", part, group, strchr(part, '.') + 1, blocks);
        add_resample(b, prefix, out, out, time_out);
    }
}

static void add_grouped_encoder(struct builder *b, const struct catalogue_vae *vae)
{
    const int64_t d = vae->dim, width[] = {d, d, 2 * d, 4 * d, 4 * d};
    add_conv(b, "encoder.", "conv1", d, FOLDED_CHANNELS, 3, 3);
    for (int group = 0; group < 4; group++)
        add_group(b, "encoder.downsamples", group, 2, width[group], width[group + 1], group < 3,
                  group == 1 || group == 2 ? width[group + 1] : 0);
    add_middle(b, "encoder", 4 * d);
    add_head(b, "encoder", 2 * vae->channels, 4 * d);
}

static void add_grouped_decoder(struct builder *b, const struct catalogue_vae *vae)
{
    const int64_t d = vae->decoder_dim, width[] = {4 * d, 4 * d, 4 * d, 2 * d, d};
    add_conv(b, "decoder.", "conv1", 4 * d, vae->channels, 3, 3);
    add_middle(b, "decoder", 4 * d);
    for (int group = 0; group < 4; group++)
        add_group(b, "decoder.upsamples", group, 3, width[group], width[group + 1], group < 3,
                  group < 2 ? 2 * width[group + 1] : 0);
    add_head(b, "decoder", FOLDED_CHANNELS, d);
}

lt_status catalogue_of_vae(const struct catalogue_vae *vae, struct catalogue *catalogue_out,
                           struct lt_error *error)
{
    struct builder b;
    begin(&b);
    vae->grouped ? add_grouped_encoder(&b, vae) : add_encoder(&b, vae);
    add_conv(&b, "", "conv1", 2 * vae->channels, 2 * vae->channels, 1, 1);
    add_conv(&b, "", "conv2", vae->channels, vae->channels, 1, 1);
    vae->grouped ? add_grouped_decoder(&b, vae) : add_decoder(&b, vae);
    return finish(&b, catalogue_out, error);
}

/* -- tiny VAE (encoders.md 4.2) ---------------------------------------------------------------- */

static void add_flat_conv(struct builder *b, const char *part, int index, int64_t out, int64_t in,
                          bool bias)
{
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%s.%d.", part, index);
    ADD(b, prefix, "weight", out, in, 3, 3);
    if (bias)
        ADD(b, prefix, "bias", out);
}

/* Three memory blocks from `index` on. */
static void add_memory_blocks(struct builder *b, const char *part, int index, int64_t width)
{
    for (int i = 0; i < 9; i++) {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "%s.%d.conv.%d.", part, index + i / 3, i % 3 * 2);
        ADD(b, prefix, "weight", width, i % 3 == 0 ? 2 * width : width, 3, 3);
        ADD(b, prefix, "bias", width);
    }
}

static void add_time_step(struct builder *b, const char *part, int index, int64_t out, int64_t in)
{
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%s.%d.", part, index);
    ADD(b, prefix, "conv.weight", out, in, 1, 1);
}

lt_status catalogue_of_tae(const struct catalogue_tae *tae, struct catalogue *catalogue_out,
                           struct lt_error *error)
{
    static const int shrinks[] = {2, 2, 1}, grows[] = {1, 2, 2};
    const int64_t d = tae->dim, pixel = 3 * tae->patch * tae->patch;
    const int64_t width[] = {4 * d, 2 * d, d, d};
    struct builder b;
    begin(&b);
    add_flat_conv(&b, "encoder", 0, d, pixel, true);
    for (int level = 0; level < 3; level++) {
        const int index = 2 + 5 * level;
        add_time_step(&b, "encoder", index, d, shrinks[level] * d);
        add_flat_conv(&b, "encoder", index + 1, d, d, false);
        add_memory_blocks(&b, "encoder", index + 2, d);
    }
    add_flat_conv(&b, "encoder", 17, tae->channels, d, true);
    add_flat_conv(&b, "decoder", 1, width[0], tae->channels, true);
    for (int level = 0; level < 3; level++) {
        const int index = 3 + 6 * level;
        add_memory_blocks(&b, "decoder", index, width[level]);
        add_time_step(&b, "decoder", index + 4, grows[level] * width[level], width[level]);
        add_flat_conv(&b, "decoder", index + 5, width[level + 1], width[level], false);
    }
    add_flat_conv(&b, "decoder", 22, pixel, d, true);
    return finish(&b, catalogue_out, error);
}

lt_status catalogue_of_text(int64_t rows, int64_t width, struct catalogue *catalogue_out,
                            struct lt_error *error)
{
    struct builder b;
    begin(&b);
    ADD(&b, "", "text", rows, width);
    return finish(&b, catalogue_out, error);
}
