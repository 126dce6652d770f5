#include "coordinator/job.h"

static const double guidance_default[] = {5.0};

void job_defaults(struct job *job)
{
    *job = (struct job){
        .name = "take",
        .width = 832,
        .height = 480,
        .frame_count = 81,
        .frame_count_padded = 81,
        .fps = 16,
        .seed = 0,
        .noise = NOISE_PHILOX,
        .boundary = 0.875,
        .latent_channels = 16,
        .text_len = 512,
        .precision_bf16 = true,
        .sampler = SAMPLER_UNIPC,
        .step_count = 30,
        .shift = 5,
        .end_step = -1,
        .guidance = guidance_default,
        .guidance_count = LT_COUNT(guidance_default),
        .schedule = WINDOW_STATIC_BALANCED,
        .fuse = WINDOW_FUSE_LINEAR,
        .window_frames = 21,
        .window_overlap = 4,
        .window_stride = 1,
        .freenoise = true,
        .decode_segment = 32,
        .decode_warmup = 12,
    };
}
