/* Which variant of an op a shape takes: pure, so that a table of shapes tests it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum attention_variant {
    ATTENTION_ROWS,    /* f32 arithmetic, any width up to 256, biases by distance */
    ATTENTION_MMA_64,  /* tensor cores, 64 queries a block */
    ATTENTION_MMA_128, /* 128 queries a block: keys are read half as often */
};
/* `bf16`: products of rounded inputs are asked for; `relative`: there is a bias by distance. */
enum attention_variant attention_pick(bool bf16, int64_t queries, int64_t width, bool relative);

/* A row, or a head, for a block or a warp; PAIRS: two neighbours at a time, as rotation needs. */
enum rms_norm_variant { RMS_NORM_ROW, RMS_NORM_ROW_PAIRS, RMS_NORM_HEAD, RMS_NORM_HEAD_PAIRS };
/* `group`: values that share a mean. */
enum rms_norm_variant rms_norm_pick(int64_t group);

enum conv_variant {
    CONV_F32, /* f32 arithmetic */
    CONV_MMA, /* tensor cores */
};
enum conv_variant conv_pick(bool bf16, bool exact);
