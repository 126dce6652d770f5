/* What the files of the audio encoder share: audio_config.c says what a file holds,
 * audio_features.c makes frames of samples, audio.c runs the transformer on them. */
#pragma once

#include "worker/model/audio.h"

struct audio {
    struct audio_config config;
    struct net net;           /* its arenas: activations */
    struct lt_arena prepared; /* what follows, of the exec's memory */
    struct lt_arena read;     /* of RAM: what this code folds into the first convolution */
    /* [out, taps · in] f32, the channel fastest: a window of consecutive steps is one row. The
     * first is of `read`. */
    struct lt_view conv[AUDIO_CONVS];
    struct lt_view conv_bias[AUDIO_CONVS]; /* data NULL: none; nobody reads the first */
    struct lt_view norm_weight, norm_bias; /* of the first convolution, f32 [out], of `read` */
    struct lt_view position;               /* [width, taps · width / groups] f32 */
};

/* Samples as the first convolution sees them: gain · sample + offset. */
struct audio_level {
    double gain, offset;
};

/* Steps that `count` steps of a convolution's input give. */
int64_t audio_conv_steps(const struct audio_config *config, int conv, int64_t count);
/* Steps at 50 a second that all convolutions give. */
int64_t audio_feature_count(const struct audio_config *config, int64_t count);

/* [rows, columns] f32 of `prepared` or `read`. */
lt_status audio_prepared(struct lt_arena *arena, struct lt_view *view_out, int64_t rows,
                         int64_t columns, struct lt_error *error);
/* Reorders the weights of the convolutions and finds their norm. */
lt_status audio_prepare_features(struct audio *audio, struct lt_error *error);
/* features: [frames, conv_width of the last], at the video's frames. */
lt_status audio_features(struct audio *audio, const struct audio_inputs *inputs,
                         struct audio_level level, const struct lt_view *features,
                         struct lt_error *error);
/* What audio_features takes from the arena, and of scratch, joined to `most`. */
size_t audio_features_bytes(const struct audio_config *config, int64_t count);
lt_status audio_features_scratch(const struct audio_config *config, enum lt_precision precision,
                                 int64_t count, struct lt_scratch *most, struct lt_error *error);

/* Bytes of one array of floats in an arena. */
static inline size_t audio_room(int64_t values)
{
    return ((size_t)values * sizeof(float) + 63) / 64 * 64;
}
