/* WanAnimate's pose pictures and face boxes from key points (encoders.md 10.1), so that a user's
 * detector need only give numbers. 133 points in the COCO-WholeBody order: 17 body, 6 feet, 68 face
 * (with point 22 of the official list 69), 21 left hand, 21 right hand. */
#pragma once

#include "coordinator/media/fit.h"

enum { POSE_POINTS = 133 };

struct pose {
    float x[POSE_POINTS], y[POSE_POINTS]; /* pixels of the picture they were found in */
    float score[POSE_POINTS];             /* below 0.5: not drawn */
};

struct pose_track {
    struct frame_size size;
    uint32_t count;
    struct pose *pose; /* [count] */
};

/* {"width": W, "height": H, "frames": [[x, y, score, x, y, score, …], …]}, 399 numbers a frame.
 * Errors name the file, the frame and what was found. */
lt_status pose_track_read(const char *path, struct pose_track *track_out, struct lt_error *error);
lt_status pose_track_parse(const char *text, size_t bytes, const char *origin,
                           struct pose_track *track_out, struct lt_error *error);
void pose_track_free(struct pose_track *track); /* accepts a zeroed one */

/* The skeleton on black, [height, width, 3] u8 RGB of `size`; points are scaled from `from`. Sticks
 * of max(int(min(H, W) / 200) - 1, 1) pixels; limbs at 0.6 of their colour, joints, then hands; the
 * face is not drawn. */
void pose_draw(const struct pose *pose, struct frame_size from, struct frame_size size,
               uint8_t *rgb);

/* The square-ish box around the face, of 1.3 times its area and more above than below, inside the
 * picture: for fit_crop to 512 × 512. False: the points have no extent. */
bool pose_face_box(const struct pose *pose, struct frame_size size, struct frame_box *box_out);
