#include "client/picture.h"

#include "coordinator/media/fit.h"
#include "coordinator/media/media.h"
#include "coordinator/media/pose.h"

#include <stdlib.h>
#include <string.h>

lt_status picture_read(const char *path, struct picture *picture_out, struct lt_error *error)
{
    const struct media_source source = {.path = path};
    return image_read(&source, &picture_out->rgb, &picture_out->width, &picture_out->height, error);
}

lt_status picture_fit(const struct picture *picture, enum job_fit fit, uint32_t width,
                      uint32_t height, struct picture *fitted_out, struct lt_error *error)
{
    const struct frame_size from = {picture->width, picture->height}, to = {width, height};
    const size_t bytes = 3 * (size_t)width * height;
    uint8_t *rgb = malloc(bytes);
    lt_status status = LT_OK;
    if (!rgb)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a picture of %ux%u", width, height);
    if (from.width == width && from.height == height)
        memcpy(rgb, picture->rgb, bytes);
    else if (fit == JOB_FIT_STRETCH)
        status = lt_resize_u8(LT_RESIZE_PIL_BICUBIC, picture->rgb, from.width, from.height, 3, rgb,
                              width, height, error);
    else if (fit == JOB_FIT_LETTERBOX)
        status = fit_letterbox(letterbox_kernel(from, to), picture->rgb, from, rgb, to, error);
    else
        status = fit_cover(FIT_IMAGE, picture->rgb, from, rgb, to, error);
    if (status != LT_OK) {
        free(rgb);
        return status;
    }
    *fitted_out = (struct picture){rgb, width, height};
    return LT_OK;
}

/* -- videos ------------------------------------------------------------------------------------ */

struct frames {
    uint8_t *rgb;
    size_t frame_bytes;
    uint32_t count, room;
};

static lt_status append(struct frames *frames, const uint8_t *rgb, struct lt_error *error)
{
    if (frames->count == frames->room) {
        const uint32_t room = frames->room ? 2 * frames->room : 16;
        uint8_t *grown = realloc(frames->rgb, room * frames->frame_bytes);
        if (!grown)
            return lt_fail(error, LT_NO_MEMORY, "no memory for %u frames", room);
        frames->rgb = grown;
        frames->room = room;
    }
    memcpy(frames->rgb + frames->count++ * frames->frame_bytes, rgb, frames->frame_bytes);
    return LT_OK;
}

static lt_status read_frames(struct video *video, uint32_t count_max, enum job_fit fit,
                             uint32_t width, uint32_t height, struct picture *picture,
                             struct frames *frames, struct lt_error *error)
{
    while (frames->count < count_max) {
        struct picture fitted;
        bool end;
        LT_TRY(video_read(video, picture->rgb, &end, error));
        if (end)
            break;
        LT_TRY(picture_fit(picture, fit, width, height, &fitted, error));
        const lt_status status = append(frames, fitted.rgb, error);
        free(fitted.rgb);
        LT_TRY(status);
    }
    return LT_OK;
}

/* Key points instead of pictures: drawn at the take's size where the shapes agree, else at their
 * own and then fitted. */
static lt_status draw_poses(const struct pose_track *track, uint32_t count_max, enum job_fit fit,
                            uint32_t width, uint32_t height, struct frames *frames,
                            struct lt_error *error)
{
    const struct frame_size size = track->size;
    const bool direct = (uint64_t)size.width * height == (uint64_t)size.height * width;
    const struct frame_size drawn = direct ? (struct frame_size){width, height} : size;
    struct picture picture = {malloc(3 * (size_t)drawn.width * drawn.height), drawn.width,
                              drawn.height};
    lt_status status =
        picture.rgb ? LT_OK : lt_fail(error, LT_NO_MEMORY, "no memory for a drawing");
    for (uint32_t i = 0; i < track->count && i < count_max && status == LT_OK; i++) {
        struct picture fitted = {0};
        pose_draw(&track->pose[i], size, drawn, picture.rgb);
        status = picture_fit(&picture, fit, width, height, &fitted, error);
        if (status == LT_OK)
            status = append(frames, fitted.rgb, error);
        free(fitted.rgb);
    }
    free(picture.rgb);
    return status;
}

lt_status picture_read_poses(const char *path, uint32_t count_max, enum job_fit fit, uint32_t width,
                             uint32_t height, uint8_t **rgb_out, uint32_t *count_out,
                             struct lt_error *error)
{
    struct frames frames = {.frame_bytes = 3 * (size_t)width * height};
    struct pose_track track;
    LT_TRY(pose_track_read(path, &track, error));
    const lt_status status = draw_poses(&track, count_max, fit, width, height, &frames, error);
    pose_track_free(&track);
    if (status != LT_OK) {
        free(frames.rgb);
        return status;
    }
    *rgb_out = frames.rgb;
    *count_out = frames.count;
    return LT_OK;
}

lt_status picture_read_video(const char *path, double fps, uint32_t count_max, enum job_fit fit,
                             uint32_t width, uint32_t height, uint8_t **rgb_out,
                             uint32_t *count_out, struct lt_error *error)
{
    const struct media_source source = {.path = path};
    struct frames frames = {.frame_bytes = 3 * (size_t)width * height};
    struct video *video;
    LT_TRY(video_open(&source, fps, &video, error));
    struct picture picture = {.width = video_width(video), .height = video_height(video)};
    picture.rgb = malloc(3 * (size_t)picture.width * picture.height);
    lt_status status = picture.rgb ? LT_OK : lt_fail(error, LT_NO_MEMORY, "no memory for a frame");
    if (status == LT_OK)
        status = read_frames(video, count_max, fit, width, height, &picture, &frames, error);
    if (status == LT_OK && frames.count == 0)
        status = lt_fail(error, LT_BAD_INPUT, "%s: no frame in it", path);
    video_close(&video);
    free(picture.rgb);
    if (status != LT_OK) {
        free(frames.rgb);
        return status;
    }
    *rgb_out = frames.rgb;
    *count_out = frames.count;
    return LT_OK;
}
