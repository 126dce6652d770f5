/* The audio encoder of the talk models: wav2vec2-base (encoders.md 9), any size by its tensors.
 *
 * One audio is used by one thread at a time. Weights of the layers stay in the store; those of the
 * convolutions are kept once more, in the order in which they are multiplied. */
#pragma once

#include "kernels/scratch.h"
#include "worker/model/net.h"

enum { AUDIO_CONVS = 7, AUDIO_RATE = 16000, AUDIO_FPS = 25 };

#define AUDIO_LOUDNESS (-23.0) /* LUFS, of the talk pipelines */

struct audio_config {
    int64_t width, ffn_dim, layer_count;
    int64_t head_count; /* not told by tensors: heads of 64 */
    int64_t conv_width[AUDIO_CONVS], conv_taps[AUDIO_CONVS];
    int64_t position_taps, position_groups;
};

/* LT_UNSUPPORTED names wav2vec2 files of another build (a norm in every convolution);
 * LT_BAD_INPUT names what is missing. */
lt_status audio_config_detect(const struct tensor_file *file, struct audio_config *config_out,
                              struct lt_error *error);
/* wav2vec2-base. */
struct audio_config audio_config_default(void);

struct audio;

/* Keeps references to all three. Every missing or wrong tensor is told before any work. */
lt_status audio_create(const struct audio_config *config, struct store *store,
                       const struct lt_kernels *kernels, struct lt_exec *exec,
                       struct audio **audio_out, struct lt_error *error);
void audio_destroy(struct audio **audio);

struct audio_inputs {
    const float *samples; /* mono, AUDIO_RATE */
    int64_t count;
    double loudness; /* LUFS it is brought to first; NAN: as it is */
    bool normalize;  /* then to mean 0 and variance 1; chinese-wav2vec2-base wants it not */
};

/* Video frames of so many samples: ⌊count / 16000 · 25⌋. */
int64_t audio_frame_count(int64_t count);

/* out: f32 [audio_frame_count, layer_count, width], the hidden state behind every layer; written in
 * part on failure. Audio of no frame, shorter than what the convolutions see (400 samples), or with
 * a sample that is not finite is LT_BAD_INPUT. The exec's cancel flag ends it between steps.
 *
 * Memory does not grow with the raw convolutions (which see 3,200 steps a second): they run in
 * pieces, exactly, though their norm is over the whole clip. What grows is `out` and five buffers
 * of [frames, width]. */
lt_status audio_encode(struct audio *audio, const struct audio_inputs *inputs, struct lt_view *out,
                       struct lt_error *error);

/* Bytes of activations audio_encode takes for so many samples, beside `out` and the exec's scratch.
 */
size_t audio_activation_bytes(const struct audio_config *config, int64_t count);
/* Scratch of the exec that its ops take at most. */
lt_status audio_scratch(const struct audio_config *config, enum lt_precision precision,
                        int64_t count, struct lt_scratch *scratch_out, struct lt_error *error);
/* Bytes kept from create to destroy. */
size_t audio_prepared_bytes(const struct audio_config *config);
/* The most that activations have taken so far. */
size_t audio_peak_bytes(const struct audio *audio);
