#include "kernels/cuda/pick.h"

enum attention_variant attention_pick(bool bf16, int64_t queries, int64_t width, bool relative)
{
    if (!bf16 || width != 128 || relative)
        return ATTENTION_ROWS;
    return queries <= 64 ? ATTENTION_MMA_64 : ATTENTION_MMA_128;
}

/* Up to 512 values are a warp's work: sixteen for each lane. */
enum rms_norm_variant rms_norm_pick(int64_t group)
{
    if (group <= 512)
        return group % 2 ? RMS_NORM_HEAD : RMS_NORM_HEAD_PAIRS;
    return group % 2 ? RMS_NORM_ROW : RMS_NORM_ROW_PAIRS;
}

enum conv_variant conv_pick(bool bf16, bool exact)
{
    return bf16 && !exact ? CONV_MMA : CONV_F32;
}
