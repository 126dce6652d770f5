#include "coordinator/clips.h"

enum { FRAMES_MAX = 1 << 24, CLIP_FRAMES_MAX = 4097 }; /* far above any film, far below overflow */

static const struct {
    const char *name;
    uint32_t clip_frames, overlap_frames, reference_latents;
} modes[] = {
    [CLIPS_ANIMATE] = {"animate", 77, 1, 1},
    [CLIPS_MULTITALK] = {"multitalk", 81, 25, 0},
    [CLIPS_INFINITETALK] = {"infinitetalk", 81, 9, 0},
};

static int64_t divide_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

lt_status clips_plan(const struct clips_params *params, struct clips *clips_out,
                     struct lt_error *error)
{
    lt_assert((size_t)params->mode < LT_COUNT(modes));
    struct clips_params p = *params;
    p.clip_frames = p.clip_frames ? p.clip_frames : modes[p.mode].clip_frames;
    p.overlap_frames = p.overlap_frames ? p.overlap_frames : modes[p.mode].overlap_frames;
    if (p.frame_count < 1 || p.frame_count > FRAMES_MAX)
        return lt_fail(error, LT_BAD_INPUT, "%s: %lld frames; expected 1 to %d", modes[p.mode].name,
                       (long long)p.frame_count, FRAMES_MAX);
    if (p.clip_frames % 4 != 1 || p.clip_frames < 5 || p.clip_frames > CLIP_FRAMES_MAX)
        return lt_fail(error, LT_BAD_INPUT, "%s: clips of %u frames; expected 4k+1, 5 to %d",
                       modes[p.mode].name, p.clip_frames, CLIP_FRAMES_MAX);
    if (p.overlap_frames % 4 != 1 || p.overlap_frames >= p.clip_frames)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: clips of %u frames that share %u; expected 4k+1, less than the clip",
                       modes[p.mode].name, p.clip_frames, p.overlap_frames);
    struct clips clips = {.params = p, .advance = p.clip_frames - p.overlap_frames, .count = 1};
    if (p.frame_count > p.clip_frames)
        clips.count += (uint32_t)divide_up(p.frame_count - p.clip_frames, clips.advance);
    clips.target_frames = p.clip_frames + (int64_t)(clips.count - 1) * clips.advance;
    clips.target_latents = (clips.target_frames - 1) / 4 + 1;
    *clips_out = clips;
    return LT_OK;
}

struct clip clips_at(const struct clips *clips, uint32_t index)
{
    lt_assert(index < clips->count);
    const struct clips_params *p = &clips->params;
    const uint32_t reference = modes[p->mode].reference_latents;
    const uint32_t motion = index ? p->overlap_frames : 0;
    const int64_t start = (int64_t)index * clips->advance;
    const int64_t end = start + p->clip_frames;
    return (struct clip){
        .index = index,
        .last = index + 1 == clips->count,
        .pixel_start = start,
        .pixel_count = p->clip_frames,
        .latent_start = start / 4,
        .latent_count = reference + 1 + (p->clip_frames - 1) / 4,
        .latent_drop_front = reference,
        .motion_frames = motion,
        .motion_latents = motion ? 1 + (motion - 1) / 4 : 0,
        .drop_front = motion,
        .keep_count = (uint32_t)((end < p->frame_count ? end : p->frame_count) - start - motion),
        .take_start = start + motion,
    };
}

int64_t pingpong_index(int64_t i, int64_t count)
{
    lt_assert(i >= 0 && count >= 1);
    const int64_t period = count > 1 ? 2 * (count - 1) : 1;
    const int64_t at = i % period;
    return at < count ? at : period - at;
}

void clip_audio_rows(const struct clip *clip, uint32_t i, uint32_t stride, int64_t audio_frames,
                     int64_t row_out[5])
{
    lt_assert(i < clip->pixel_count && stride >= 1 && audio_frames >= 1);
    const int64_t end = (clip->pixel_start + clip->pixel_count) * (int64_t)stride;
    int64_t rows = audio_frames;
    if (clip->last && clip->index > 0 && end >= audio_frames) {
        const int64_t missing = end - audio_frames + 3;
        rows += missing < audio_frames ? missing : audio_frames;
    }
    for (int tap = 0; tap < 5; tap++) {
        int64_t row = (clip->pixel_start + i) * (int64_t)stride + tap - 2;
        row = row < 0 ? 0 : row < rows ? row : rows - 1;
        row_out[tap] = row < audio_frames ? row : 2 * audio_frames - 1 - row;
    }
}
