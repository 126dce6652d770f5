/* From a picture to what the image encoder sees (encoders.md 8.3). */
#pragma once

#include "common/status.h"
#include "common/view.h"

enum image_preparation {
    /* As Wan does: bicubic (a = -0.75, no low pass) straight to size × size, whatever the aspect.
     */
    IMAGE_PREPARE_WAN,
    /* As ComfyUI's node with crop "center": bicubic with a low pass (a = -0.5) to the smaller side,
     * the middle, rounded to 8 bits. */
    IMAGE_PREPARE_COMFY_CENTER,
    /* The same with crop "none": stretched. */
    IMAGE_PREPARE_COMFY_STRETCH,
};

/* pixels: f32 [3, H, W] in [0, 1]; out: f32 [3, size, size], minus CLIP's mean, over its deviation.
 * LT_BAD_INPUT: not three channels, a side of zero or above 16384, one side more than 64 times the
 * other, or a value that is not finite. */
lt_status image_prepare(enum image_preparation preparation, const struct lt_view *pixels,
                        struct lt_view *out, struct lt_error *error);
