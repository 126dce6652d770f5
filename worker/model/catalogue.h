/* The tensors a model file should hold: names and shapes of dit.md 1.4, 3.1, 4.1 and
 * encoders.md 1.3, 2.2 and 4.2, for any size. `synth` writes them, `inspect` compares a file with
 * them.
 */
#pragma once

#include "common/arena.h"
#include "worker/model/config.h"

struct catalogue_entry {
    const char *name; /* lives as long as the catalogue */
    int rank;
    int64_t dim[LT_RANK_MAX]; /* PyTorch order */
};

struct catalogue {
    struct lt_arena arena;
    struct catalogue_entry *entry; /* in the order files have them */
    size_t count, room;
};

/* A Wan VAE: of the z16 kind (2.1: encoder and decoder of the same widths dim·{1,2,4,4}), or with
 * `grouped` of the z48 kind (2.2: levels in groups, 2×2 pixels folded into 12 channels, a wider
 * decoder). */
struct catalogue_vae {
    bool grouped;
    int64_t dim;         /* 96, 24 in the pruned "lightVAE"; grouped: 160 */
    int64_t decoder_dim; /* grouped only: 256 */
    int64_t channels;    /* z: 16; grouped: 48 */
};

/* The tiny VAE for previews (TAEHV): decoder widths dim·{4,2,1,1}, encoder dim throughout. */
struct catalogue_tae {
    int64_t dim;      /* 64 */
    int64_t channels; /* z: 16 in taew2_1, 48 in taew2_2 */
    int64_t patch;    /* pixels folded into channels: 1, 2 in taew2_2 */
};

/* LT_NO_MEMORY only. On success the caller calls fini; on failure there is nothing to call it on.
 */
lt_status catalogue_of_dit(const struct dit_config *config, struct catalogue *catalogue_out,
                           struct lt_error *error);
lt_status catalogue_of_vae(const struct catalogue_vae *vae, struct catalogue *catalogue_out,
                           struct lt_error *error);
lt_status catalogue_of_tae(const struct catalogue_tae *tae, struct catalogue *catalogue_out,
                           struct lt_error *error);
/* The encoders (encoders.md 6.1, 8.1, 9.1), by the one form of their names (weights/names.h). */
struct text_config;
struct vision_config;
struct audio_config;
lt_status catalogue_of_umt5(const struct text_config *config, struct catalogue *catalogue_out,
                            struct lt_error *error);
lt_status catalogue_of_vision(const struct vision_config *config, struct catalogue *catalogue_out,
                              struct lt_error *error);
lt_status catalogue_of_audio(const struct audio_config *config, struct catalogue *catalogue_out,
                             struct lt_error *error);
/* Features of a prompt: `text` [rows, width]. */
lt_status catalogue_of_text(int64_t rows, int64_t width, struct catalogue *catalogue_out,
                            struct lt_error *error);
void catalogue_fini(struct catalogue *catalogue);

int64_t catalogue_values(const struct catalogue_entry *entry);

/* Calls `problem` with a sentence for every tensor that is missing, extra, or of a wrong shape or
 * type; ends early with the status it gives. `beside` names what else may stand in the file (NULL:
 * nothing), besides what goes with 8-bit weights. Control characters of names are '?'. */
typedef lt_status catalogue_problem(void *context, const char *text, struct lt_error *error);
lt_status catalogue_compare(const struct catalogue *expected, const struct tensor_file *file,
                            bool (*beside)(const char *name), catalogue_problem *problem,
                            void *context, struct lt_error *error);
/* Before a transformer is loaded (G1.2): the first problem as LT_BAD_INPUT naming file and tensor,
 * expected and found. */
lt_status catalogue_check_dit(const struct dit_config *config, struct tensor_file *file,
                              struct lt_error *error);
