/* Any bytes as an upload: pictures and sound are read within the limits, or refused with a text
 * that names the file. */
#include "coordinator/media/media.h"

#include <stdlib.h>
#include <string.h>

static const struct media_limits limits = {
    .file_bytes = 1 << 20, .side = 512, .frame_pixels = 1 << 16, .frame_count = 32, .seconds = 4};

static void check(lt_status status, const struct lt_error *error)
{
    lt_assert(status == LT_OK || (error->code == status && strstr(error->text, "upload")));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct media_source source = {.path = "upload",
                                        .data = size ? data : (const uint8_t *)"",
                                        .bytes = size,
                                        .limits = &limits};
    struct lt_error error = {0};
    struct media_info info;
    struct video *video;
    float *voice;
    size_t count;
    bool end = false;
    lt_status status = media_probe(&source, &info, &error);
    check(status, &error);
    if (status != LT_OK)
        return 0;
    status = sound_read_voice(&source, 0, &voice, &count, &error);
    check(status, &error);
    if (status == LT_OK) {
        lt_assert(count <= 4 * 16000);
        free(voice);
    }
    struct sound *sound;
    status = sound_open(&source, &(struct sound_format){48000, 2}, &sound, &error);
    check(status, &error);
    if (status == LT_OK) {
        float block[2 * 999];
        do
            status = sound_read(sound, block, 999, &count, &error);
        while (status == LT_OK && count > 0);
        check(status, &error);
        sound_close(&sound);
    }
    status = video_open(&source, 30, &video, &error);
    check(status, &error);
    if (status != LT_OK)
        return 0;
    lt_assert(video_width(video) <= 512 && video_height(video) <= 512);
    uint8_t *rgb = malloc((size_t)3 * video_width(video) * video_height(video));
    int frames = 0; /* a rate below 30 makes more of them, to a point */
    while (rgb && status == LT_OK && !end && frames++ < 256)
        status = video_read(video, rgb, &end, &error);
    check(status, &error);
    free(rgb);
    video_close(&video);
    return 0;
}
