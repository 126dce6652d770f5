/* Any bytes as a file of key points: refused with its name, or every frame can be drawn. */
#include "coordinator/media/pose.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t rgb[48 * 32 * 3];
    const struct frame_size canvas = {48, 32};
    struct pose_track track;
    struct lt_error error;
    const lt_status status =
        pose_track_parse((const char *)data, size, "points.json", &track, &error);
    if (status != LT_OK) {
        lt_assert(error.code == status && strstr(error.text, "points.json"));
        return 0;
    }
    lt_assert(track.count > 0);
    for (uint32_t i = 0; i < track.count && i < 4; i++) {
        struct frame_box box;
        pose_draw(&track.pose[i], track.size, canvas, rgb);
        if (pose_face_box(&track.pose[i], track.size, &box))
            lt_assert(box.x0 >= 0 && box.x0 < box.x1 && box.x1 <= (int32_t)track.size.width);
    }
    pose_track_free(&track);
    return 0;
}
