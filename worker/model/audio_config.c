/* What a wav2vec2 file holds (encoders.md 9.1). */
#include "worker/model/audio.h"

#include <stdio.h>
#include <string.h>

enum { HEAD_WIDTH = 64, LAYERS_MAX = 512, DIM_MAX = 65536 };

struct audio_config audio_config_default(void)
{
    return (struct audio_config){.width = 768,
                                 .ffn_dim = 3072,
                                 .layer_count = 12,
                                 .head_count = 768 / HEAD_WIDTH,
                                 .conv_width = {512, 512, 512, 512, 512, 512, 512},
                                 .conv_taps = {10, 3, 3, 3, 3, 2, 2},
                                 .position_taps = 128,
                                 .position_groups = 16};
}

static lt_status shape(const struct tensor_file *file, const char *name, int rank,
                       const int64_t **dim_out, struct lt_error *error)
{
    const struct tensor_info *info = tensor_file_find(file, name);
    if (!info)
        return lt_fail(error, LT_BAD_INPUT, "%s: not a wav2vec2 encoder: tensor '%s' is missing",
                       tensor_file_path(file), name);
    if (info->rank != rank)
        return lt_fail(error, LT_BAD_INPUT, "%s: tensor '%s': expected %d dimensions, found %d",
                       tensor_file_path(file), name, rank, info->rank);
    for (int i = 0; i < rank; i++)
        if (info->dim[i] < 1 || info->dim[i] > DIM_MAX)
            return lt_fail(error, LT_BAD_INPUT,
                           "%s: tensor '%s': expected dimensions of 1 to %d, found %lld",
                           tensor_file_path(file), name, DIM_MAX, (long long)info->dim[i]);
    *dim_out = info->dim;
    return LT_OK;
}

static lt_status detect_convs(const struct tensor_file *file, struct audio_config *config,
                              struct lt_error *error)
{
    int64_t in = 1;
    if (tensor_file_find(file, "feature_extractor.conv_layers.1.layer_norm.weight"))
        return lt_fail(error, LT_UNSUPPORTED,
                       "%s: a wav2vec2 with a norm in every convolution (wav2vec2-large); the talk "
                       "models use wav2vec2-base",
                       tensor_file_path(file));
    for (int i = 0; i < AUDIO_CONVS; i++, in = config->conv_width[i - 1]) {
        char name[80];
        const int64_t *dim;
        snprintf(name, sizeof name, "feature_extractor.conv_layers.%d.conv.weight", i);
        LT_TRY(shape(file, name, 3, &dim, error));
        if (dim[1] != in)
            return lt_fail(error, LT_BAD_INPUT,
                           "%s: tensor '%s': takes %lld channels, the layer before gives %lld",
                           tensor_file_path(file), name, (long long)dim[1], (long long)in);
        config->conv_width[i] = dim[0];
        config->conv_taps[i] = dim[2];
    }
    return LT_OK;
}

static lt_status detect_positions(const struct tensor_file *file, struct audio_config *config,
                                  struct lt_error *error)
{
    const int64_t *dim;
    LT_TRY(shape(file, "encoder.pos_conv_embed.conv.weight_v", 3, &dim, error));
    if (dim[0] != config->width || config->width % dim[1] != 0)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: the positional convolution is [%lld, %lld, …] for a width of %lld",
                       tensor_file_path(file), (long long)dim[0], (long long)dim[1],
                       (long long)config->width);
    config->position_groups = config->width / dim[1];
    config->position_taps = dim[2];
    return LT_OK;
}

lt_status audio_config_detect(const struct tensor_file *file, struct audio_config *config_out,
                              struct lt_error *error)
{
    struct audio_config config = {0};
    const int64_t *dim;
    char name[80];
    LT_TRY(detect_convs(file, &config, error));
    LT_TRY(shape(file, "feature_projection.projection.weight", 2, &dim, error));
    config.width = dim[0];
    LT_TRY(detect_positions(file, &config, error));
    LT_TRY(shape(file, "blocks.0.ffn.0.weight", 2, &dim, error));
    config.ffn_dim = dim[0];
    config.head_count = config.width % HEAD_WIDTH == 0 ? config.width / HEAD_WIDTH : 1;
    for (; config.layer_count < LAYERS_MAX; config.layer_count++) {
        snprintf(name, sizeof name, "blocks.%lld.norm1.weight", (long long)config.layer_count);
        if (!tensor_file_find(file, name))
            break;
    }
    *config_out = config;
    return LT_OK;
}
