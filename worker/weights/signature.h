/* What the weights on a device are, named so that equal names mean equal results and nothing to
 * load (pipeline.md 4.5). Two levels: the base, whose bytes are many, and the LoRAs on top; of
 * these the files and their strengths apart, as a change of strengths moves no bytes.
 *
 * SHA-256 over canonical bytes: a version, then every field with its tag and length. Pure. */
#pragma once

#include "common/digest.h"

#include <stdbool.h>

struct signature_base {
    struct lt_digest model;      /* fingerprint of the file */
    struct lt_digest addon;      /* of the file joined to it; zero: none */
    const char *kernels;         /* class: what must be equal for equal bits */
    const char *device;          /* "host", "cuda:0 NVIDIA …" */
    uint32_t precision;          /* enum lt_precision: types of products */
    int64_t text_len;            /* of the transformer; 0: not one */
    uint64_t device_memory, ram; /* what the swap plan follows from … */
    int64_t blocks_to_swap, prefetch;
    const char *swap_order;
};

struct signature_lora {
    struct lt_digest file;
    const float *strength; /* by step; equal ones at the end count once */
    size_t strength_count; /* 0: 1 */
    uint32_t expert;       /* enum lora_expert: the filter of keys */
    bool plain_peft;
};

struct weights_signature {
    struct lt_digest base, files, lora; /* lora: files and strengths */
};

void signature_make(const struct signature_base *base, const struct signature_lora *lora,
                    size_t lora_count, struct weights_signature *signature_out);
bool signature_equal(const struct weights_signature *a, const struct weights_signature *b);
/* One digest for all three. */
struct lt_digest signature_whole(const struct weights_signature *signature);
