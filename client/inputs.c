#include "client/inputs.h"

#include "client/picture.h"
#include "common/file.h"
#include "common/safetensors.h"
#include "coordinator/clips.h"
#include "coordinator/media/mask.h"
#include "coordinator/media/media.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One upload. */
struct upload {
    struct job_file *file;
    inputs_put *put;
    void *context;
    struct lt_error *error;
};

static lt_status path_of(const struct upload *upload, const char *name, char path[PATH_MAX])
{
    return name[0] == '/' ? lt_path_join(path, PATH_MAX, "", name, upload->error)
                          : lt_path_join(path, PATH_MAX, upload->file->dir, name, upload->error);
}

/* Puts `data` and frees it. */
static lt_status put_owned(const struct upload *upload, void *data, uint64_t bytes,
                           struct lt_digest *digest_out)
{
    const lt_status status =
        upload->put(upload->context, data, (size_t)bytes, digest_out, upload->error);
    free(data);
    return status;
}

/* -- features ---------------------------------------------------------------------------------- */

/* Tensor `name` of a safetensors file, of at most `rank` dims. */
static lt_status read_tensor(const struct upload *upload, const char *path_given, const char *name,
                             int rank, struct lt_view *view_out)
{
    char path[PATH_MAX];
    struct lt_safetensors *file;
    LT_TRY(path_of(upload, path_given, path));
    LT_TRY(lt_safetensors_open(path, &file, upload->error));
    const lt_status status = lt_safetensors_read_f32(file, name, view_out, upload->error);
    lt_safetensors_close(&file);
    LT_TRY(status);
    if (view_out->rank == rank && lt_view_count(view_out) > 0)
        return LT_OK;
    free(view_out->data);
    return lt_fail(upload->error, LT_BAD_INPUT,
                   "%s: tensor %s: expected %d dims, found %d with %lld values", path, name, rank,
                   view_out->rank, (long long)lt_view_count(view_out));
}

static lt_status upload_text(const struct upload *upload, const char **text)
{
    char hex[LT_DIGEST_HEX], name[LT_DIGEST_HEX + 8];
    struct lt_digest digest;
    struct lt_view view;
    if (!*text || strncmp(*text, "sha256:", 7) == 0)
        return LT_OK;
    LT_TRY(read_tensor(upload, *text, "text", 2, &view));
    LT_TRY(put_owned(upload, view.data, 4 * (uint64_t)lt_view_count(&view), &digest));
    lt_digest_format(&digest, hex);
    snprintf(name, sizeof name, "sha256:%s", hex);
    *text = lt_arena_text(&upload->file->arena, name);
    return *text ? LT_OK : lt_fail(upload->error, LT_NO_MEMORY, "no memory for the job");
}

/* Bytes become the input. */
static lt_status put_input(const struct upload *upload, enum job_input_kind kind, void *data,
                           const uint32_t shape[JOB_INPUT_RANK], size_t value_bytes)
{
    struct job_input input = {.uploaded = true};
    uint64_t bytes = value_bytes;
    for (int i = 0; i < JOB_INPUT_RANK; i++) {
        input.shape[i] = shape[i];
        bytes *= shape[i];
    }
    LT_TRY(put_owned(upload, data, bytes, &input.digest));
    upload->file->job.input[kind] = input;
    return LT_OK;
}

static lt_status upload_encoded(const struct upload *upload, enum job_input_kind kind,
                                const char *name, int rank)
{
    const char *path = upload->file->job.input[kind].path;
    uint32_t shape[JOB_INPUT_RANK] = {1, 1, 1, 1};
    struct lt_view view;
    if (!path)
        return LT_OK;
    LT_TRY(read_tensor(upload, path, name, rank, &view));
    for (int i = 0; i < rank; i++)
        shape[JOB_INPUT_RANK - rank + i] = (uint32_t)view.dim[i];
    return put_input(upload, kind, view.data, shape, sizeof(float));
}

/* -- pictures ---------------------------------------------------------------------------------- */

static enum job_fit fit_of(const struct job *job)
{
    if (job->fit != JOB_FIT_AUTO)
        return job->fit;
    return job->kind == JOB_ANIMATE ? JOB_FIT_LETTERBOX : JOB_FIT_CROP;
}

/* Keeps what the image encoder sees as it was: it has a resampling of its own. */
static lt_status upload_image(const struct upload *upload, enum job_input_kind kind,
                              enum job_input_kind original_kind)
{
    const struct job *job = &upload->file->job;
    const char *given = job->input[kind].path;
    struct picture picture, fitted;
    char path[PATH_MAX];
    if (!given)
        return LT_OK;
    LT_TRY(path_of(upload, given, path));
    LT_TRY(picture_read(path, &picture, upload->error));
    lt_status status = picture_fit(&picture, fit_of(job), (uint32_t)job->width,
                                   (uint32_t)job->height, &fitted, upload->error);
    if (status == LT_OK)
        status =
            put_input(upload, kind, fitted.rgb, (uint32_t[]){1, fitted.height, fitted.width, 3}, 1);
    const struct job_input *original = &job->input[original_kind];
    if (status != LT_OK || !job->vision.name || original->path || original->uploaded) {
        free(picture.rgb);
        return status;
    }
    return put_input(upload, original_kind, picture.rgb,
                     (uint32_t[]){1, picture.height, picture.width, 3}, 1);
}

static lt_status upload_original(const struct upload *upload, enum job_input_kind kind)
{
    const char *given = upload->file->job.input[kind].path;
    struct picture picture;
    char path[PATH_MAX];
    if (!given)
        return LT_OK;
    LT_TRY(path_of(upload, given, path));
    LT_TRY(picture_read(path, &picture, upload->error));
    return put_input(upload, kind, picture.rgb, (uint32_t[]){1, picture.height, picture.width, 3},
                     1);
}

static bool ends_with(const char *path, const char *end)
{
    const size_t length = strlen(path), end_length = strlen(end);
    return length > end_length && strcmp(path + length - end_length, end) == 0;
}

/* Crops that another program made: tensor `face` [n, side, side, 3] of 0 to 1, as images lie in a
 * ComfyUI graph; 8 bits a value are kept, as of a video. */
static lt_status upload_face_tensor(const struct upload *upload, const char *given, uint32_t side)
{
    struct lt_view view;
    LT_TRY(read_tensor(upload, given, "face", 4, &view));
    const float *value = view.data;
    const size_t count = (size_t)lt_view_count(&view);
    uint8_t *rgb = malloc(count);
    lt_status status = rgb ? LT_OK : lt_fail(upload->error, LT_NO_MEMORY, "no memory for faces");
    if (status == LT_OK && (view.dim[1] != side || view.dim[2] != side || view.dim[3] != 3))
        status = lt_fail(upload->error, LT_BAD_INPUT,
                         "%s: tensor face: expected [n, %u, %u, 3], found [%lld, %lld, %lld, %lld]",
                         given, side, side, (long long)view.dim[0], (long long)view.dim[1],
                         (long long)view.dim[2], (long long)view.dim[3]);
    for (size_t i = 0; i < count && status == LT_OK; i++)
        if (value[i] >= 0 && value[i] <= 1)
            rgb[i] = (uint8_t)(value[i] * 255 + 0.5f);
        else
            status = lt_fail(upload->error, LT_BAD_INPUT,
                             "%s: tensor face: expected values from 0 to 1, found %g", given,
                             (double)value[i]);
    const uint32_t shape[JOB_INPUT_RANK] = {(uint32_t)view.dim[0], side, side, 3};
    free(view.data);
    if (status == LT_OK)
        return put_input(upload, JOB_INPUT_FACE_FRAMES, rgb, shape, 1);
    free(rgb);
    return status;
}

/* At the take's rate, and no more frames than it can use; poses may be key points, a frame each. */
static lt_status upload_video(const struct upload *upload, enum job_input_kind kind,
                              enum job_fit fit, uint32_t width, uint32_t height)
{
    const struct job *job = &upload->file->job;
    const char *given = job->input[kind].path;
    const int64_t clip = job->clip_frames > 81 ? job->clip_frames : 81;
    char path[PATH_MAX];
    uint8_t *rgb;
    uint32_t count;
    if (!given)
        return LT_OK;
    if (kind == JOB_INPUT_FACE_FRAMES && ends_with(given, ".safetensors"))
        return upload_face_tensor(upload, given, width);
    LT_TRY(path_of(upload, given, path));
    const uint32_t count_max = (uint32_t)(job->frame_count_padded + clip);
    if (kind == JOB_INPUT_POSE_FRAMES && ends_with(given, ".json"))
        LT_TRY(
            picture_read_poses(path, count_max, fit, width, height, &rgb, &count, upload->error));
    else
        LT_TRY(picture_read_video(path, job->fps, count_max, fit, width, height, &rgb, &count,
                                  upload->error));
    return put_input(upload, kind, rgb, (uint32_t[]){count, height, width, 3}, 1);
}

/* A video at the take's size. */
static lt_status read_video(const struct upload *upload, enum job_input_kind kind,
                            uint8_t **rgb_out, uint32_t *count_out)
{
    const struct job *job = &upload->file->job;
    const int64_t clip = job->clip_frames > 81 ? job->clip_frames : 81;
    char path[PATH_MAX];
    LT_TRY(path_of(upload, job->input[kind].path, path));
    return picture_read_video(path, job->fps, (uint32_t)(job->frame_count_padded + clip),
                              fit_of(job), (uint32_t)job->width, (uint32_t)job->height, rgb_out,
                              count_out, upload->error);
}

/* A video as the background that a person is put into; with a mask (white: the person), the mask on
 * the latent grid too, and black in the background where it is white (encoders.md 10.2). */
static lt_status put_background(const struct upload *upload, uint8_t *background, uint32_t count,
                                uint8_t *mask, uint32_t mask_count)
{
    enum { WHITE = 128 };
    const struct job *job = &upload->file->job;
    const struct frame_size size = {(uint32_t)job->width, (uint32_t)job->height};
    const struct frame_size grid = {size.width / 8, size.height / 8};
    const size_t bytes = 3 * (size_t)size.width * size.height,
                 cells = (size_t)grid.width * grid.height;
    float *kept = mask ? malloc(mask_count * cells * sizeof *kept) : NULL;
    lt_status status =
        kept || !mask ? LT_OK : lt_fail(upload->error, LT_NO_MEMORY, "no memory for masks");
    for (uint32_t i = 0; i < mask_count && status == LT_OK; i++)
        status =
            mask_background(mask + i * bytes, size, WHITE, grid, kept + i * cells, upload->error);
    for (uint32_t i = 0; mask && i < count && status == LT_OK; i++)
        mask_black_out(background + i * bytes, mask + (size_t)pingpong_index(i, mask_count) * bytes,
                       size, WHITE);
    if (status != LT_OK) {
        free(background);
        free(kept);
        return status;
    }
    status = put_input(upload, JOB_INPUT_BACKGROUND, background,
                       (uint32_t[]){count, size.height, size.width, 3}, 1);
    if (status == LT_OK && mask)
        return put_input(upload, JOB_INPUT_MASK, kept,
                         (uint32_t[]){mask_count, 1, grid.height, grid.width}, sizeof *kept);
    free(kept);
    return status;
}

static lt_status upload_background(const struct upload *upload)
{
    const struct job *job = &upload->file->job;
    uint8_t *background = NULL, *mask = NULL;
    uint32_t count = 0, mask_count = 0;
    if (!job->input[JOB_INPUT_BACKGROUND].path)
        return LT_OK;
    LT_TRY(read_video(upload, JOB_INPUT_BACKGROUND, &background, &count));
    lt_status status = LT_OK;
    if (job->input[JOB_INPUT_MASK].path)
        status = read_video(upload, JOB_INPUT_MASK, &mask, &mask_count);
    if (status == LT_OK)
        status = put_background(upload, background, count, mask, mask_count);
    else
        free(background);
    free(mask);
    return status;
}

/* -- voices ------------------------------------------------------------------------------------ */

/* Mono at 16 kHz; the second voice gets the first one's length, with silence behind. */
static lt_status upload_voice(const struct upload *upload, enum job_input_kind kind,
                              uint32_t length)
{
    const struct job *job = &upload->file->job;
    const char *given = job->input[kind].path;
    char path[PATH_MAX];
    float *samples;
    size_t count;
    if (!given)
        return LT_OK;
    LT_TRY(path_of(upload, given, path));
    const struct media_source source = {.path = path};
    LT_TRY(sound_read_voice(&source, 0, &samples, &count, upload->error));
    if (length && count != length) {
        float *fitted = calloc(length, sizeof *fitted);
        if (fitted)
            memcpy(fitted, samples, (count < length ? count : length) * sizeof *fitted);
        free(samples);
        if (!fitted)
            return lt_fail(upload->error, LT_NO_MEMORY, "%s: no memory for a voice", path);
        samples = fitted;
        count = length;
    }
    return put_input(upload, kind, samples, (uint32_t[]){1, 1, 1, (uint32_t)count}, sizeof(float));
}

/* Where each speaker is: the halves of the picture, or all of it (encoders.md 10.3). */
static lt_status make_speaker_masks(const struct upload *upload)
{
    const struct job *job = &upload->file->job;
    const struct frame_size size = {(uint32_t)job->width, (uint32_t)job->height};
    const struct frame_size grid = {size.width / 16, size.height / 16};
    const bool two =
        job->input[JOB_INPUT_VOICE_2].uploaded ||
        (job->input[JOB_INPUT_AUDIO].uploaded && job->input[JOB_INPUT_AUDIO].shape[0] > 1);
    float *whole = malloc(3 * (size_t)size.width * size.height * sizeof *whole);
    float *masks = malloc(3 * (size_t)grid.width * grid.height * sizeof *masks);
    lt_status status =
        whole && masks ? LT_OK : lt_fail(upload->error, LT_NO_MEMORY, "no memory for masks");
    if (status == LT_OK && two)
        speaker_masks_halves(size, 0.05, whole);
    else if (status == LT_OK)
        speaker_masks_one(size, whole);
    if (status == LT_OK)
        status = speaker_masks_fit(whole, 3, size, size, grid, masks, upload->error);
    free(whole);
    if (status != LT_OK) {
        free(masks);
        return status;
    }
    return put_input(upload, JOB_INPUT_SPEAKER_MASKS, masks,
                     (uint32_t[]){1, 3, grid.height, grid.width}, sizeof(float));
}

static lt_status upload_talk(const struct upload *upload)
{
    const struct job_input *masks = &upload->file->job.input[JOB_INPUT_SPEAKER_MASKS];
    LT_TRY(upload_encoded(upload, JOB_INPUT_AUDIO, "audio", 4));
    LT_TRY(upload_voice(upload, JOB_INPUT_VOICE, 0));
    LT_TRY(
        upload_voice(upload, JOB_INPUT_VOICE_2, upload->file->job.input[JOB_INPUT_VOICE].shape[3]));
    if (masks->path)
        return upload_encoded(upload, JOB_INPUT_SPEAKER_MASKS, "speaker_masks", 3);
    return masks->uploaded ? LT_OK : make_speaker_masks(upload);
}

lt_status inputs_upload(struct job_file *file, inputs_put *put, void *context,
                        struct lt_error *error)
{
    const struct upload u = {file, put, context, error};
    const struct job *job = &file->job;
    const uint32_t width = (uint32_t)job->width, height = (uint32_t)job->height,
                   side = (uint32_t)job->face_side;
    LT_TRY(upload_text(&u, &file->job.text));
    LT_TRY(upload_text(&u, &file->job.text_negative));
    LT_TRY(upload_original(&u, JOB_INPUT_CLIP_IMAGE));
    LT_TRY(upload_original(&u, JOB_INPUT_END_CLIP_IMAGE));
    LT_TRY(upload_image(&u, JOB_INPUT_IMAGE, JOB_INPUT_CLIP_IMAGE));
    LT_TRY(upload_image(&u, JOB_INPUT_END_IMAGE, JOB_INPUT_END_CLIP_IMAGE));
    LT_TRY(upload_video(&u, JOB_INPUT_POSE_FRAMES, fit_of(job), width, height));
    LT_TRY(upload_video(&u, JOB_INPUT_FACE_FRAMES, JOB_FIT_STRETCH, side, side));
    LT_TRY(upload_encoded(&u, JOB_INPUT_CLIP, "clip", 2));
    LT_TRY(upload_encoded(&u, JOB_INPUT_Y, "y", 4));
    LT_TRY(upload_encoded(&u, JOB_INPUT_POSE, "pose", 4));
    LT_TRY(upload_background(&u));
    LT_TRY(upload_video(&u, JOB_INPUT_VIDEO_FRAMES, fit_of(job), width, height));
    return job->kind == JOB_TALK ? upload_talk(&u) : LT_OK;
}
