/* Pictures and videos brought to the size of a take, [H, W, 3] u8 RGB. */
#pragma once

#include "coordinator/job.h"

struct picture {
    uint8_t *rgb; /* malloc'ed, the holder's */
    uint32_t width, height;
};

lt_status picture_read(const char *path, struct picture *picture_out, struct lt_error *error);

/* crop: Lanczos so that it covers, the middle of it (encoders.md 5.3); stretch: bicubic; letterbox:
 * so that it fits, black bars (10.1). A picture of the size already is kept to the last bit. */
lt_status picture_fit(const struct picture *picture, enum job_fit fit, uint32_t width,
                      uint32_t height, struct picture *fitted_out, struct lt_error *error);

/* Frames [*count_out, height, width, 3] of a video, a folder of images or one image, as at `fps`;
 * at most `count_max`. malloc'ed. */
lt_status picture_read_video(const char *path, double fps, uint32_t count_max, enum job_fit fit,
                             uint32_t width, uint32_t height, uint8_t **rgb_out,
                             uint32_t *count_out, struct lt_error *error);

/* The same of skeletons, drawn from a JSON file of 133 key points a frame
 * (coordinator/media/pose.h), one frame each. */
lt_status picture_read_poses(const char *path, uint32_t count_max, enum job_fit fit, uint32_t width,
                             uint32_t height, uint8_t **rgb_out, uint32_t *count_out,
                             struct lt_error *error);
