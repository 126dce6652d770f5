/* The bytes that leave a run: task specs with their slices, and finished latents and frames. Frames
 * of a leased task stand still until it is committed, so a slice is read from the latents whenever
 * it is asked for and never held. */
#include "coordinator/run.h"
#include "coordinator/run_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* [C, F, h, w] of some latent frames at one step. */
struct slice {
    const uint32_t *frame; /* NULL: first, first + 1 … */
    uint32_t first, count, step;
};

static struct slice slice_of(const struct run *run, uint32_t task)
{
    uint32_t index, window;
    if (plan_task(&run->plan, task, &index, &window) == PLAN_DECODE) {
        const struct plan_segment *segment = &run->plan.segment[index];
        return (struct slice){.first = segment->frame_first,
                              .count = segment->frame_count,
                              .step = run->plan.step_count};
    }
    const struct window *at = &run->plan.step[index].window[window];
    return (struct slice){.frame = at->frame, .count = at->frame_count, .step = index};
}

static uint64_t plane_bytes(const struct run *run)
{
    return run->plan.frame_bytes / (uint64_t)run->plan.latent_channels;
}

static lt_status read_slice(struct run *run, const struct slice *slice, uint64_t offset, void *data,
                            size_t bytes, struct lt_error *error)
{
    const uint64_t plane = plane_bytes(run);
    unsigned char *to = data;
    while (bytes > 0) {
        const uint64_t index = offset / plane, skip = offset % plane; /* plane (c, slot) */
        const uint32_t slot = (uint32_t)(index % slice->count);
        const uint64_t channel = index / slice->count;
        const uint32_t frame = slice->frame ? slice->frame[slot] : slice->first + slot;
        const size_t part = plane - skip < bytes ? (size_t)(plane - skip) : bytes;
        LT_TRY(latents_read_part(&run->latents, frame, slice->step, channel * plane + skip, to,
                                 part, error));
        to += part;
        offset += part;
        bytes -= part;
    }
    return LT_OK;
}

static lt_status digest_slice(struct run *run, const struct slice *slice,
                              struct lt_digest *digest_out, struct lt_error *error)
{
    const size_t part = plane_bytes(run);
    unsigned char *buffer = malloc(part);
    if (!buffer)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a slice's plane");
    struct lt_sha256 hash;
    lt_sha256_begin(&hash);
    lt_status status = LT_OK;
    const uint64_t planes = (uint64_t)run->plan.latent_channels * slice->count;
    for (uint64_t i = 0; i < planes && status == LT_OK; i++) {
        status = read_slice(run, slice, i * part, buffer, part, error);
        if (status == LT_OK)
            lt_sha256_add(&hash, buffer, part);
    }
    free(buffer);
    if (status == LT_OK)
        *digest_out = lt_sha256_end(&hash);
    return status;
}

uint64_t run_result_bytes(const struct run *run, uint32_t task)
{
    uint32_t index, window;
    if (plan_task(&run->plan, task, &index, &window) == PLAN_PREDICT)
        return run->plan.frame_bytes * run->plan.step[index].window[window].frame_count;
    const struct plan_segment *segment = &run->plan.segment[index];
    const uint64_t frames = 4 * ((uint64_t)segment->frame_count - 1) + 1 - segment->drop_frames;
    return frames * run_frame_width(run) * run_frame_height(run) * 3;
}

static void add_blob(struct lt_task_spec *spec, enum lt_blob_role role,
                     const struct lt_digest *digest, uint64_t bytes)
{
    spec->blob[spec->blob_count++] = (struct lt_blob_ref){role, *digest, bytes};
}

lt_status run_task_spec(struct run *run, uint32_t task, struct lt_task_spec *spec_out,
                        struct lt_error *error)
{
    const struct slice slice = slice_of(run, task);
    const struct plan *plan = &run->plan;
    const struct job_model *model = run_model(run, run_task_model(run, task));
    struct lt_digest digest;
    LT_TRY(digest_slice(run, &slice, &digest, error));
    struct lt_task_spec spec = {
        .kind = LT_TASK_PREDICT,
        .model = {.name = model->name, .fingerprint = model->fingerprint},
        .shape = {(uint32_t)plan->latent_channels, slice.count, (uint32_t)plan->latent_height,
                  (uint32_t)plan->latent_width},
        .guidance = 1,
        .precision = run->job.precision_bf16, /* enum lt_precision: F32 0, BF16 1 */
        .text_len = (uint32_t)run->job.text_len,
        .result_bytes = run_result_bytes(run, task),
    };
    add_blob(&spec, LT_BLOB_LATENTS, &digest, plan->frame_bytes * slice.count);
    uint32_t index, window;
    if (plan_task(plan, task, &index, &window) == PLAN_DECODE) {
        spec.kind = LT_TASK_VAE_DECODE;
        spec.drop_frames = plan->segment[index].drop_frames;
    } else {
        spec.timestep = plan->step[index].timestep;
        spec.guidance = plan->step[index].guidance;
        add_blob(&spec, LT_BLOB_TEXT, &run->text[0].digest, run->text[0].bytes);
        if (spec.guidance != 1)
            add_blob(&spec, LT_BLOB_TEXT_NEGATIVE, &run->text[1].digest, run->text[1].bytes);
    }
    *spec_out = spec;
    return LT_OK;
}

void run_text_name(const struct lt_digest *digest, char name_out[80])
{
    char hex[LT_DIGEST_HEX];
    lt_digest_format(digest, hex);
    snprintf(name_out, 80, "blobs/%s", hex);
}

static const struct run_text *find_text(const struct run *run, const struct lt_digest *digest)
{
    for (size_t i = 0; i < LT_COUNT(run->text); i++)
        if (run->text[i].bytes && lt_digest_equal(&run->text[i].digest, digest))
            return &run->text[i];
    return NULL;
}

lt_status run_blob_bytes(struct run *run, uint32_t task, const struct lt_digest *digest,
                         uint64_t *bytes_out, struct lt_error *error)
{
    const struct run_text *text = find_text(run, digest);
    if (text) {
        *bytes_out = text->bytes;
        return LT_OK;
    }
    const struct slice slice = slice_of(run, task);
    struct lt_digest have;
    if (graph_state(run->graph, task) != TASK_LEASED)
        return lt_fail(error, LT_NOT_FOUND, "task %u is not leased", task);
    LT_TRY(digest_slice(run, &slice, &have, error));
    if (!lt_digest_equal(&have, digest))
        return lt_fail(error, LT_NOT_FOUND, "task %u has no such blob", task);
    *bytes_out = run->plan.frame_bytes * slice.count;
    return LT_OK;
}

lt_status run_read_blob(struct run *run, uint32_t task, const struct lt_digest *digest,
                        uint64_t offset, void *data, size_t bytes, struct lt_error *error)
{
    char name[80];
    if (find_text(run, digest)) {
        run_text_name(digest, name);
        return objects_read(run->store, name, offset, data, bytes, error);
    }
    const struct slice slice = slice_of(run, task);
    if (graph_state(run->graph, task) != TASK_LEASED)
        return lt_fail(error, LT_NOT_FOUND, "task %u is not leased any more", task);
    return read_slice(run, &slice, offset, data, bytes, error);
}

uint32_t run_frame_width(const struct run *run)
{
    return (uint32_t)run->plan.latent_width * 8;
}

uint32_t run_frame_height(const struct run *run)
{
    return (uint32_t)run->plan.latent_height * 8;
}

lt_status run_read_frame(struct run *run, uint32_t frame, uint8_t *rgb_out, struct lt_error *error)
{
    const uint64_t bytes = 3 * (uint64_t)run_frame_width(run) * run_frame_height(run);
    uint32_t low = 0, high = run->plan.segment_count;
    while (high - low > 1) { /* segments are in order */
        const uint32_t middle = low + (high - low) / 2;
        if (run->plan.segment[middle].pixel_first <= frame)
            low = middle;
        else
            high = middle;
    }
    const struct plan_segment *segment = &run->plan.segment[low];
    if (frame - segment->pixel_first >= segment->pixel_count)
        return lt_fail(error, LT_BAD_INPUT, "frame %u: the take has %lld", frame,
                       (long long)run->job.frame_count);
    char name[32];
    snprintf(name, sizeof name, "segments/%u", low);
    return objects_read(run->store, name, (frame - segment->pixel_first) * bytes, rgb_out, bytes,
                        error);
}

lt_status run_read_latent_frame(struct run *run, uint32_t frame, float *x_out,
                                struct lt_error *error)
{
    return latents_read_part(&run->latents, frame, run->plan.step_count, 0, x_out,
                             run->plan.frame_bytes, error);
}

lt_status run_read_present_frame(struct run *run, uint32_t frame, float *x_out,
                                 struct lt_error *error)
{
    return latents_read_part(&run->latents, frame, graph_frame_step(run->graph, frame), 0, x_out,
                             run->plan.frame_bytes, error);
}

static struct slice whole(const struct run *run)
{
    return (struct slice){.count = (uint32_t)run->plan.latent_frames, .step = run->plan.step_count};
}

lt_status run_read_latents(struct run *run, float *x_out, struct lt_error *error)
{
    const struct slice slice = whole(run);
    return read_slice(run, &slice, 0, x_out, run->plan.frame_bytes * slice.count, error);
}

lt_status run_latents_digest(struct run *run, struct lt_digest *digest_out, struct lt_error *error)
{
    const struct slice slice = whole(run);
    return digest_slice(run, &slice, digest_out, error);
}

lt_status run_frames_digest(struct run *run, struct lt_digest *digest_out, struct lt_error *error)
{
    const size_t bytes = 3 * (size_t)run_frame_width(run) * run_frame_height(run);
    uint8_t *rgb = malloc(bytes);
    if (!rgb)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a frame of %zu bytes", bytes);
    struct lt_sha256 hash;
    lt_sha256_begin(&hash);
    lt_status status = LT_OK;
    for (uint32_t f = 0; f < run->job.frame_count && status == LT_OK; f++) {
        status = run_read_frame(run, f, rgb, error);
        if (status == LT_OK)
            lt_sha256_add(&hash, rgb, bytes);
    }
    free(rgb);
    if (status == LT_OK)
        *digest_out = lt_sha256_end(&hash);
    return status;
}
