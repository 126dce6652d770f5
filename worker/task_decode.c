/* vae-decode: latents -> pixel frames, u8. A clip of a loop also hands on its last frames: they are
 * encoded here, from f32, where they were decoded, so the next clip starts on exactly what this one
 * ended with, and latents travel instead of frames (pipeline.md 2.3, 2.4). */
#include "common/color.h"
#include "worker/engine_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The numbers on the wire. */
_Static_assert((int)LT_MATCH_REINHARD == (int)LT_COLOR_REINHARD &&
                   (int)LT_MATCH_MKL == (int)LT_COLOR_MKL,
               "methods of matching colours");

struct pixels {
    uint8_t *rgb;
    int64_t drop, frames; /* frames: decoded, those dropped included */
    int64_t scale, plane; /* pixels of a latent in a direction, pixels of a frame */
    float *tail;          /* [tail_frames, 3, H, W]: the last frames; or NULL */
    int64_t tail_frames, tail_length;
    const uint8_t *background; /* [tail_length, H, W, 3] behind the handed frames; NULL: grey */
    struct lt_color_stats reference; /* method LT_COLOR_NONE: colours stay */
    double strength;
    float *matched; /* [H, W, 3] in [0, 1]: one frame */
};

static void keep_tail(const struct pixels *to, int64_t index, const float *rgb)
{
    const int64_t at = index - (to->frames - to->tail_frames);
    if (!to->tail || at < 0)
        return;
    for (int64_t c = 0; c < 3; c++)
        for (int64_t i = 0; i < to->plane; i++)
            to->tail[(3 * at + c) * to->plane + i] = rgb[3 * i + c];
}

/* In [0, 1], clamped, and back to [-1, 1]. */
static const float *match(const struct pixels *to, const float *rgb)
{
    if (to->reference.method == LT_COLOR_NONE)
        return rgb;
    for (int64_t i = 0; i < 3 * to->plane; i++)
        to->matched[i] = (rgb[i] + 1.0f) * 0.5f;
    lt_color_match(&to->reference, to->strength, to->matched, (size_t)to->plane, 3, 1);
    for (int64_t i = 0; i < 3 * to->plane; i++)
        to->matched[i] = to->matched[i] * 2.0f - 1.0f;
    return to->matched;
}

static lt_status keep_frame(void *context, int64_t index, const float *decoded,
                            struct lt_error *error)
{
    (void)error;
    const struct pixels *to = context;
    const float *rgb = match(to, decoded);
    keep_tail(to, index, rgb);
    if (index < to->drop) /* warm-up */
        return LT_OK;
    const int64_t values = 3 * to->plane;
    uint8_t *out = to->rgb + (index - to->drop) * values;
    for (int64_t i = 0; i < values; i++)
        out[i] = (uint8_t)lrintf((rgb[i] + 1.0f) * 127.5f);
    return LT_OK;
}

static lt_status measure(const struct engine_task *task, const struct lt_view *latents,
                         int64_t scale, struct pixels *pixels, uint64_t *handed_out,
                         struct lt_error *error)
{
    const struct lt_task_spec *spec = task->spec;
    const int64_t frames = 4 * latents->dim[1] - 3;
    *pixels = (struct pixels){
        .drop = spec->drop_frames,
        .frames = frames,
        .scale = scale,
        .plane = latents->dim[2] * latents->dim[3] * scale * scale,
        .tail_frames = spec->handoff_frames,
        .tail_length = spec->handoff_length,
    };
    if (pixels->drop >= frames)
        return lt_fail(error, LT_BAD_INPUT, "task: drops %u of %lld frames", spec->drop_frames,
                       (long long)frames);
    if (pixels->tail_length > 4096 || pixels->tail_frames > pixels->tail_length ||
        pixels->tail_frames > frames || (pixels->tail_length && !pixels->tail_frames))
        return lt_fail(error, LT_BAD_INPUT, "task: hands on %u of %lld frames, as %u",
                       spec->handoff_frames, (long long)frames, spec->handoff_length);
    const struct engine_blob *background = engine_find_blob(task, LT_BLOB_PIXELS);
    if (background && background->bytes != (size_t)(3 * pixels->tail_length * pixels->plane))
        return lt_fail(error, LT_BAD_INPUT, "task: a background of %zu bytes, expected %lld",
                       background->bytes, (long long)(3 * pixels->tail_length * pixels->plane));
    pixels->background = background ? background->data : NULL;
    *handed_out = pixels->tail_length
                      ? (uint64_t)(latents->dim[0] * latents->dim[2] * latents->dim[3] *
                                   ((pixels->tail_length - 1) / 4 + 1))
                      : 0;
    return engine_check_result_bytes(
        task, (uint64_t)((frames - pixels->drop) * 3 * pixels->plane) + *handed_out * sizeof(float),
        error);
}

static lt_status take(struct pixels *pixels, const struct lt_task_spec *spec,
                      struct lt_error *error)
{
    pixels->rgb = malloc((size_t)spec->result_bytes);
    pixels->tail = pixels->tail_length
                       ? malloc((size_t)(3 * pixels->tail_frames * pixels->plane) * sizeof(float))
                       : NULL;
    pixels->matched = malloc((size_t)(3 * pixels->plane) * sizeof(float));
    if (pixels->rgb && pixels->matched && (pixels->tail || !pixels->tail_length))
        return LT_OK;
    free(pixels->rgb);
    free(pixels->tail);
    free(pixels->matched);
    return lt_fail(error, LT_NO_MEMORY, "no memory for %lld decoded frames",
                   (long long)pixels->frames);
}

/* What the frames' colours are brought to. */
static lt_status measure_reference(const struct engine_task *task, struct pixels *pixels,
                                   struct lt_error *error)
{
    const struct engine_blob *blob = engine_find_blob(task, LT_BLOB_REFERENCE);
    const int64_t values = 3 * pixels->plane;
    if (task->spec->match == LT_MATCH_NONE)
        return LT_OK;
    if (!blob || blob->bytes != (size_t)values)
        return lt_fail(error, LT_BAD_INPUT, "task: a reference of %zu bytes, expected %lld",
                       blob ? blob->bytes : 0, (long long)values);
    for (int64_t i = 0; i < values; i++)
        pixels->matched[i] = (float)((const uint8_t *)blob->data)[i] / 255.0f;
    pixels->strength = task->spec->match_strength;
    pixels->reference = lt_color_measure((enum lt_color_method)task->spec->match, pixels->matched,
                                         (size_t)pixels->plane, 3, 1);
    return LT_OK;
}

static void fill_tail(void *context, int64_t frame, int64_t frames, int64_t slot, float *to)
{
    const struct pixels *from = context;
    if (from->background && frame >= from->tail_frames)
        engine_pixels(from->background + 3 * frame * from->plane, frames, slot, from->plane, to);
    for (int64_t c = 0; c < 3 && frame < from->tail_frames; c++)
        memcpy(to + (c * frames + slot) * from->plane, from->tail + (3 * frame + c) * from->plane,
               (size_t)from->plane * sizeof *to);
}

static lt_status hand_on(const struct engine_task *task, const struct lt_view *latents,
                         struct pixels *pixels, uint64_t handed, struct lt_error *error)
{
    const struct engine_frames frames = {.count = pixels->tail_length,
                                         .rows = latents->dim[2] * pixels->scale,
                                         .columns = latents->dim[3] * pixels->scale,
                                         .fill = fill_tail,
                                         .context = pixels};
    float *to = (float *)(void *)(pixels->rgb + task->spec->result_bytes - handed * sizeof(float));
    return engine_encode_frames(task, &frames, to, (int64_t)handed, error);
}

static lt_status decode(const struct engine_task *task, struct vae *vae,
                        const struct vae_tiling *tiling, const struct lt_view *latents,
                        struct pixels *pixels, struct lt_error *error)
{
    atomic_uint *done = &task->progress->done;
    return tiling->rows ? vae_decode_tiled(vae, tiling, latents, keep_frame, pixels, done, error)
                        : vae_decode(vae, latents, keep_frame, pixels, done, error);
}

lt_status engine_vae_decode(const struct engine_task *task, void **result_out,
                            struct lt_error *error)
{
    struct resident *resident;
    struct lt_view latents;
    struct pixels pixels;
    uint64_t handed = 0;
    LT_TRY(engine_slice(task, LT_BLOB_LATENTS, &latents, error));
    LT_TRY(engine_load(task, ENGINE_VAE_DECODER, &resident, error));
    LT_TRY(measure(task, &latents, vae_scale(resident->vae), &pixels, &handed, error));
    LT_TRY(take(&pixels, task->spec, error));
    const struct vae_tiling tiling = engine_tiling(task->spec);
    const int64_t tiles = tiling.rows ? vae_tile_count(&tiling, latents.dim[2], latents.dim[3]) : 1;
    engine_begin(
        task, (unsigned)(tiles * latents.dim[1] + (handed ? (pixels.tail_length - 1) / 4 + 1 : 0)));
    lt_status status = measure_reference(task, &pixels, error);
    if (status == LT_OK)
        status = decode(task, resident->vae, &tiling, &latents, &pixels, error);
    if (status == LT_OK && handed)
        status = hand_on(task, &latents, &pixels, handed, error);
    free(pixels.tail);
    free(pixels.matched);
    if (status != LT_OK) {
        free(pixels.rgb);
        return status;
    }
    *result_out = pixels.rgb;
    return LT_OK;
}
