/* What is constant over the steps of a window of Animate (dit.md 3): pose embedding and motion,
 * kept for the steps to come within a byte budget, named by the digests of pose and face. */
#include "worker/engine_private.h"
#include "worker/model/animate.h"

#include <stdlib.h>
#include <string.h>

enum { WINDOWS_KEPT = 64, FACE_SIDE_MAX = 4096 };

struct window_name {
    struct lt_digest pose, face; /* zero: none */
    struct lt_digest lora;       /* files and strengths it went through; zero: none */
    uint64_t black;              /* the face of the negative half of a guidance */
};

struct kept { /* the context refers to the pose */
    struct animate_context *context;
    float *pose;
};

static void free_kept(void *value)
{
    struct kept *kept = value;
    animate_context_destroy(&kept->context);
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
    bool black;
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

static lt_status make_window(void *context, const void *key, void **value_out, uint64_t *bytes_out,
                             struct lt_error *error)
{
    const struct make_window *make = context;
    const struct engine_blob *pose = engine_find_blob(make->task, LT_BLOB_POSE);
    const struct engine_blob *face = engine_find_blob(make->task, LT_BLOB_FACE);
    struct animate_window window = {0};
    struct kept *kept = calloc(1, sizeof *kept);
    (void)key;
    if (!kept)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a window");
    lt_status status = pose ? view_pose(make, pose, kept, &window.pose, error) : LT_OK;
    if (status == LT_OK && face && dit_config(make->dit)->face.size > 0)
        status = make_face(make, face, &window.face, error);
    if (status == LT_OK)
        status =
            animate_context_create(make->dit, &window, ENGINE_CONTEXT_BYTES, &kept->context, error);
    free(window.face.data);
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
                             const struct lt_view *x, bool negative,
                             struct lt_lru_entry **entry_out, struct lt_error *error)
{
    struct window_name name;
    *entry_out = NULL;
    if (!engine_find_blob(task, LT_BLOB_POSE) && !engine_find_blob(task, LT_BLOB_FACE))
        return LT_OK;
    memset(&name, 0, sizeof name);
    name.pose = digest_of(task->spec, LT_BLOB_POSE);
    name.face = digest_of(task->spec, LT_BLOB_FACE);
    name.lora = engine_lora_state(task);
    name.black = negative && engine_find_blob(task, LT_BLOB_FACE);
    struct make_window make = {task, dit, x, name.black};
    return lt_lru_take(task->engine->windows, &name, make_window, &make, entry_out, error);
}

struct animate_context *engine_window(const struct lt_lru_entry *entry)
{
    return entry ? ((const struct kept *)lt_lru_value(entry))->context : NULL;
}
