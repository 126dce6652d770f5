/* What is constant over the steps of a window: pose embedding and motion of Animate (dit.md 3), and
 * what talk models hear (dit.md 4). Kept for the steps to come within a byte budget, named by the
 * digests of what they were made of. */
#include "worker/engine_private.h"
#include "worker/model/animate.h"
#include "worker/model/talk.h"

#include <stdlib.h>
#include <string.h>

enum { WINDOWS_KEPT = 64, FACE_SIDE_MAX = 4096 };

struct window_name {
    struct lt_digest pose, face, audio, masks; /* zero: none */
    struct lt_digest lora;                     /* files and strengths it went through */
    uint64_t black;                            /* the face of the negative half of a guidance */
    uint64_t mute;                             /* silence in place of the audio */
};

struct kept { /* the context refers to the pose */
    struct animate_context *animate;
    struct talk_context *talk;
    float *pose;
};

static void free_kept(void *value)
{
    struct kept *kept = value;
    animate_context_destroy(&kept->animate);
    talk_context_destroy(&kept->talk);
    free(kept->pose);
    free(kept);
}

lt_status engine_windows_create(struct engine *engine, struct lt_error *error)
{
    const struct lt_lru_params params = {.key_bytes = sizeof(struct window_name),
                                         .entries_max = WINDOWS_KEPT,
                                         .bytes_max = 4 * (uint64_t)ENGINE_CONTEXT_BYTES,
                                         .free_value = free_kept};
    return lt_lru_create(&params, &engine->windows, error);
}

struct make_window {
    const struct engine_task *task;
    struct dit *dit;
    const struct lt_view *x; /* [C, F, h, w] of the slice */
    bool black, mute;
};

/* [c, F - 1, h, w] */
static lt_status view_pose(const struct make_window *make, const struct engine_blob *blob,
                           struct kept *kept, struct lt_view *pose_out, struct lt_error *error)
{
    const int64_t *x = make->x->dim;
    const size_t bytes = (size_t)((x[1] - 1) * x[2] * x[3]) * sizeof(float);
    if (bytes == 0 || blob->bytes == 0 || blob->bytes % bytes != 0)
        return lt_fail(error, LT_BAD_INPUT, "task: a pose of %zu bytes, expected channels of %zu",
                       blob->bytes, bytes);
    if (!(kept->pose = malloc(blob->bytes)))
        return lt_fail(error, LT_NO_MEMORY, "no memory for a pose");
    memcpy(kept->pose, blob->data, blob->bytes);
    const int64_t dim[4] = {(int64_t)(blob->bytes / bytes), x[1] - 1, x[2], x[3]};
    *pose_out = lt_view_make(kept->pose, LT_TYPE_F32, 4, dim);
    return LT_OK;
}

/* [3, P, side, side]; data is the caller's to free. */
static lt_status make_face(const struct make_window *make, const struct engine_blob *blob,
                           struct lt_view *face_out, struct lt_error *error)
{
    const int64_t side = dit_config(make->dit)->face.size;
    const size_t bytes = 3 * (size_t)(side * side);
    if (side < 1 || side > FACE_SIDE_MAX || blob->bytes == 0 || blob->bytes % bytes != 0)
        return lt_fail(error, LT_BAD_INPUT, "task: faces of %zu bytes, expected frames of %zu",
                       blob->bytes, bytes);
    const int64_t frames = (int64_t)(blob->bytes / bytes);
    float *face = malloc(blob->bytes * sizeof *face);
    if (!face)
        return lt_fail(error, LT_NO_MEMORY, "no memory for %lld faces", (long long)frames);
    for (size_t i = 0; make->black && i < blob->bytes; i++)
        face[i] = -1;
    for (int64_t f = 0; !make->black && f < frames; f++)
        engine_pixels((const uint8_t *)blob->data + (size_t)f * bytes, frames, f, side * side,
                      face);
    const int64_t dim[4] = {3, frames, side, side};
    *face_out = lt_view_make(face, LT_TYPE_F32, 4, dim);
    return LT_OK;
}

static lt_status make_animate(const struct make_window *make, struct kept *kept,
                              struct lt_error *error)
{
    const struct engine_blob *pose = engine_find_blob(make->task, LT_BLOB_POSE);
    const struct engine_blob *face = engine_find_blob(make->task, LT_BLOB_FACE);
    struct animate_window window = {0};
    if (!pose && !face)
        return LT_OK;
    lt_status status = pose ? view_pose(make, pose, kept, &window.pose, error) : LT_OK;
    if (status == LT_OK && face && dit_config(make->dit)->face.size > 0)
        status = make_face(make, face, &window.face, error);
    if (status == LT_OK)
        status =
            animate_context_create(make->dit, &window, ENGINE_CONTEXT_BYTES, &kept->animate, error);
    free(window.face.data);
    return status;
}

/* masks [speakers + 1, h/2, w/2] when there are several. */
static lt_status view_masks(const struct make_window *make, int64_t speakers,
                            struct lt_view *masks_out, struct lt_error *error)
{
    const struct engine_blob *blob = engine_find_blob(make->task, LT_BLOB_SPEAKER_MASKS);
    const int64_t rows = make->x->dim[2] / 2, columns = make->x->dim[3] / 2;
    const size_t bytes = (size_t)((speakers + 1) * rows * columns) * sizeof(float);
    if (!blob || blob->bytes != bytes)
        return lt_fail(error, LT_BAD_INPUT,
                       "task: masks of %zu bytes for %lld speakers, expected %zu",
                       blob ? blob->bytes : 0, (long long)speakers, bytes);
    *masks_out =
        lt_view_3d((void *)(uintptr_t)blob->data, LT_TYPE_F32, speakers + 1, rows, columns);
    return LT_OK;
}

/* audio [speakers, 5 + 8 (F - 1), features]; silence is zeros (pipeline.md 3.8). */
static lt_status make_talk(const struct make_window *make, struct kept *kept,
                           struct lt_error *error)
{
    const struct engine_blob *blob = engine_find_blob(make->task, LT_BLOB_AUDIO);
    const int64_t features = dit_config(make->dit)->talk.features;
    const int64_t rows = TALK_FIRST_FRAMES + TALK_FRAMES * (make->x->dim[1] - 1);
    const size_t bytes = (size_t)(rows * features) * sizeof(float);
    struct talk_window window = {0};
    if (!blob)
        return LT_OK;
    if (features == 0)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: it has no speech parts; model.talk names a file "
                       "that has",
                       make->task->spec->model.name);
    const int64_t speakers = (int64_t)(blob->bytes / bytes);
    if (speakers < 1 || speakers > TALK_SPEAKERS_MAX || blob->bytes % bytes != 0)
        return lt_fail(error, LT_BAD_INPUT, "task: speech of %zu bytes, expected speakers of %zu",
                       blob->bytes, bytes);
    if (speakers > 1)
        LT_TRY(view_masks(make, speakers, &window.masks, error));
    float *silence = make->mute ? calloc(1, blob->bytes) : NULL;
    if (make->mute && !silence)
        return lt_fail(error, LT_NO_MEMORY, "no memory for silence");
    window.audio = lt_view_3d(silence ? silence : (void *)(uintptr_t)blob->data, LT_TYPE_F32,
                              speakers, rows, features);
    const lt_status status =
        talk_context_create(make->dit, &window, ENGINE_CONTEXT_BYTES, &kept->talk, error);
    free(silence);
    return status;
}

static lt_status make_window(void *context, const void *key, void **value_out, uint64_t *bytes_out,
                             struct lt_error *error)
{
    const struct make_window *make = context;
    struct kept *kept = calloc(1, sizeof *kept);
    (void)key;
    if (!kept)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a window");
    lt_status status = make_animate(make, kept, error);
    if (status == LT_OK)
        status = make_talk(make, kept, error);
    if (status != LT_OK) {
        free_kept(kept);
        return status;
    }
    *value_out = kept;
    *bytes_out = ENGINE_CONTEXT_BYTES / 8; /* what it may grow to is bounded by its own budget */
    return LT_OK;
}

static struct lt_digest digest_of(const struct lt_task_spec *spec, enum lt_blob_role role)
{
    for (size_t i = 0; i < spec->blob_count; i++)
        if (spec->blob[i].role == role)
            return spec->blob[i].digest;
    return (struct lt_digest){{0}};
}

lt_status engine_take_window(const struct engine_task *task, struct dit *dit,
                             const struct lt_view *x, bool negative, bool mute,
                             struct lt_lru_entry **entry_out, struct lt_error *error)
{
    struct window_name name;
    *entry_out = NULL;
    if (!engine_find_blob(task, LT_BLOB_POSE) && !engine_find_blob(task, LT_BLOB_FACE) &&
        !engine_find_blob(task, LT_BLOB_AUDIO))
        return LT_OK;
    memset(&name, 0, sizeof name);
    name.pose = digest_of(task->spec, LT_BLOB_POSE);
    name.face = digest_of(task->spec, LT_BLOB_FACE);
    name.lora = engine_lora_state(task);
    name.audio = digest_of(task->spec, LT_BLOB_AUDIO);
    name.masks = digest_of(task->spec, LT_BLOB_SPEAKER_MASKS);
    name.mute = mute;
    name.black = negative && engine_find_blob(task, LT_BLOB_FACE);
    struct make_window make = {task, dit, x, name.black, mute};
    return lt_lru_take(task->engine->windows, &name, make_window, &make, entry_out, error);
}

struct animate_context *engine_window_animate(const struct lt_lru_entry *entry)
{
    return entry ? ((const struct kept *)lt_lru_value(entry))->animate : NULL;
}

struct talk_context *engine_window_talk(const struct lt_lru_entry *entry)
{
    return entry ? ((const struct kept *)lt_lru_value(entry))->talk : NULL;
}
