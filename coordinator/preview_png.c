#include "coordinator/preview_png.h"

#include "coordinator/preview.h"

#include <libavcodec/avcodec.h>
#include <libavutil/frame.h>
#include <stdlib.h>
#include <string.h>

enum { FRAMES_MAX = 8, SCALE = 2 };

struct strip {
    uint8_t *rgb;
    int width, height;
};

/* -- pixels ------------------------------------------------------------------------------------ */

static void paste(const uint8_t *rgb, int64_t w, int64_t h, int64_t left, struct strip *strip)
{
    for (int64_t y = 0; y < h * SCALE; y++)
        for (int64_t x = 0; x < w * SCALE; x++)
            memcpy(strip->rgb + (y * strip->width + left + x) * 3,
                   rgb + (y / SCALE * w + x / SCALE) * 3, 3);
}

static lt_status draw(struct run *run, uint32_t count, struct strip *strip, struct lt_error *error)
{
    const struct plan *plan = run_plan(run);
    const int64_t w = plan->latent_width, h = plan->latent_height;
    float *x = malloc((size_t)(plan->latent_channels * w * h) * sizeof *x);
    uint8_t *rgb = malloc((size_t)(w * h * 3));
    lt_status status = x && rgb ? LT_OK : lt_fail(error, LT_NO_MEMORY, "no memory for a preview");
    for (uint32_t i = 0; i < count && status == LT_OK; i++) {
        const uint32_t frame = (uint32_t)((2 * i + 1) * plan->latent_frames / (2 * count));
        status = run_read_present_frame(run, frame, x, error);
        if (status == LT_OK)
            status = preview_rgb(x, plan->latent_channels, w * h, w * h, rgb, error);
        if (status == LT_OK)
            paste(rgb, w, h, i * w * SCALE, strip);
    }
    free(x);
    free(rgb);
    return status;
}

/* -- PNG --------------------------------------------------------------------------------------- */

static bool encode_frame(AVCodecContext *codec, AVFrame *frame, AVPacket *packet,
                         const struct strip *strip)
{
    codec->width = frame->width = strip->width;
    codec->height = frame->height = strip->height;
    codec->pix_fmt = AV_PIX_FMT_RGB24;
    frame->format = AV_PIX_FMT_RGB24;
    codec->time_base = (AVRational){1, 1};
    if (avcodec_open2(codec, NULL, NULL) < 0 || av_frame_get_buffer(frame, 0) < 0)
        return false;
    for (int y = 0; y < strip->height; y++)
        memcpy(frame->data[0] + (ptrdiff_t)y * frame->linesize[0],
               strip->rgb + (size_t)(y * strip->width) * 3, (size_t)strip->width * 3);
    return avcodec_send_frame(codec, frame) >= 0 && avcodec_send_frame(codec, NULL) >= 0 &&
           avcodec_receive_packet(codec, packet) >= 0;
}

static lt_status encode(const struct strip *strip, void **data_out, size_t *bytes_out,
                        struct lt_error *error)
{
    const AVCodec *png = avcodec_find_encoder(AV_CODEC_ID_PNG);
    AVCodecContext *codec = png ? avcodec_alloc_context3(png) : NULL;
    AVFrame *frame = av_frame_alloc();
    AVPacket *packet = av_packet_alloc();
    void *data = NULL;
    const bool done = codec && frame && packet && encode_frame(codec, frame, packet, strip) &&
                      (data = malloc((size_t)packet->size));
    if (done) {
        memcpy(data, packet->data, (size_t)packet->size);
        *data_out = data;
        *bytes_out = (size_t)packet->size;
    }
    av_packet_free(&packet);
    av_frame_free(&frame);
    avcodec_free_context(&codec);
    return done ? LT_OK : lt_fail(error, LT_INTERNAL, "a preview could not be made a PNG");
}

lt_status preview_png(struct run *run, void **data_out, size_t *bytes_out, struct lt_error *error)
{
    const struct plan *plan = run_plan(run);
    const uint32_t count =
        plan->latent_frames < FRAMES_MAX ? (uint32_t)plan->latent_frames : (uint32_t)FRAMES_MAX;
    struct strip strip = {.width = (int)(count * plan->latent_width * SCALE),
                          .height = (int)plan->latent_height * SCALE};
    if (!preview_is_known(plan->latent_channels))
        return lt_fail(error, LT_UNSUPPORTED, "no preview of latents with %lld channels",
                       (long long)plan->latent_channels);
    strip.rgb = malloc((size_t)strip.width * (size_t)strip.height * 3);
    if (!strip.rgb)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a preview");
    lt_status status = draw(run, count, &strip, error);
    if (status == LT_OK)
        status = encode(&strip, data_out, bytes_out, error);
    free(strip.rgb);
    return status;
}
