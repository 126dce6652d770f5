#include "coordinator/slices.h"

static int64_t clamp(int64_t i, int64_t count)
{
    return i < 0 ? 0 : i < count ? i : count - 1;
}

/* The (unclamped) frame of entry i = 0 … 4(n-1): slot 0 has one frame, the others four. */
static int64_t frame_of(const uint32_t *latent, uint32_t i)
{
    const uint32_t slot = (i + 3) / 4;
    return 4 * (int64_t)latent[slot] - (4 * (int64_t)slot - i);
}

void slice_frames(const uint32_t *latent, uint32_t n, int64_t frame_count, int64_t *frame_out)
{
    lt_assert(n >= 1 && frame_count >= 1);
    for (uint32_t i = 0; i <= 4 * (n - 1); i++)
        frame_out[i] = clamp(frame_of(latent, i), frame_count);
}

void slice_audio(const uint32_t *latent, uint32_t n, uint32_t stride, int64_t row_count,
                 int64_t *row_out)
{
    lt_assert(n >= 1 && row_count >= 1 && stride >= 1);
    for (uint32_t i = 0; i <= 4 * (n - 1); i++)
        for (int tap = 0; tap < 5; tap++)
            *row_out++ = clamp(frame_of(latent, i) * stride + tap - 2, row_count);
}

void slice_pose_latents(const uint32_t *latent, uint32_t n, int64_t pose_latent_count,
                        int64_t *index_out)
{
    lt_assert(n >= 1 && pose_latent_count >= 1);
    for (uint32_t slot = 1; slot < n; slot++)
        *index_out++ = clamp((int64_t)latent[slot] - 1, pose_latent_count);
}

void slice_face_frames(const uint32_t *latent, uint32_t n, int64_t frame_count, int64_t *frame_out)
{
    lt_assert(n >= 1 && frame_count >= 1);
    for (uint32_t slot = 1; slot < n; slot++)
        for (int k = 0; k < 4; k++)
            *frame_out++ = clamp(4 * ((int64_t)latent[slot] - 1) + k, frame_count);
}
