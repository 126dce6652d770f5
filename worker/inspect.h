/* What a model file is: variant, sizes, types, bytes per block, and what is missing, extra or of a
 * wrong shape for that variant. Reads the header and some samples only. */
#pragma once

#include "worker/model/audio.h"
#include "worker/model/catalogue.h"
#include "worker/model/text.h"
#include "worker/model/vision.h"
#include "worker/weights/lora_describe.h"

#include <stdio.h>

enum inspect_kind {
    INSPECT_UNKNOWN,
    INSPECT_TRANSFORMER,
    INSPECT_VAE_Z16, /* also the pruned "lightVAE" */
    INSPECT_VAE_Z48,
    INSPECT_TAE, /* the tiny VAE for previews */
    INSPECT_LORA,
    INSPECT_TEXT, /* a UMT5 encoder */
    INSPECT_VISION,
    INSPECT_AUDIO,
};

struct inspect_type {
    enum lt_type type;
    size_t tensors;
    uint64_t bytes;
};

enum { INSPECT_TYPES_MAX = 24 };

struct inspect_report {
    struct lt_arena arena; /* problems */
    enum inspect_kind kind;
    struct dit_config config; /* of a transformer */
    struct catalogue_vae vae; /* of a VAE */
    struct catalogue_tae tae; /* of a tiny VAE */
    struct lora_description lora;
    struct text_config text; /* of a text encoder */
    bool has_vocabulary;
    struct vision_config vision;
    struct audio_config audio;
    struct lt_digest fingerprint;
    struct lt_digest content; /* of all bytes; zero: not asked for. By the caller */
    uint64_t parameters, tensor_bytes, rest_bytes; /* rest: outside the blocks */
    uint64_t block_bytes_min, block_bytes_max;     /* 0 without blocks */
    size_t block_count;
    size_t largest; /* index in the file */
    struct inspect_type
        type[INSPECT_TYPES_MAX]; /* in the order of common/view.h; only those present */
    size_t type_count;
    const char **problem; /* sentences; names are those of the file, controls replaced by '?' */
    size_t problem_count, problem_room;
};

/* Fails only when the file cannot be read or memory ends; a strange file is a report with problems.
 * On success the caller calls fini. */
lt_status inspect_file(struct tensor_file *file, struct inspect_report *report_out,
                       struct lt_error *error);
void inspect_fini(struct inspect_report *report);

void inspect_print(const struct tensor_file *file, const struct inspect_report *report, FILE *to);
void inspect_print_json(const struct tensor_file *file, const struct inspect_report *report,
                        FILE *to);
