/* The bytes that leave a run: task specs with their blobs, and finished latents and frames. Blobs
 * are cuts (cut.h): they are read when they are asked for and never held. Latents of a leased task
 * stand still until it is committed; everything else never changes once it is there. */
#include "coordinator/plan_skips.h"
#include "coordinator/run.h"
#include "coordinator/run_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DIGESTS_KEPT = 8192 };

struct cut_name {
    const void *name;
    uint64_t role;
};

void run_blob_name(const struct lt_digest *digest, char name_out[80])
{
    char hex[LT_DIGEST_HEX];
    lt_digest_format(digest, hex);
    snprintf(name_out, 80, "blobs/%s", hex);
}

size_t run_blobs(const struct job *job, struct lt_digest digest_out[RUN_BLOBS_MAX])
{
    const char *const text[2] = {job->text, job->text_negative};
    size_t count = 0;
    for (size_t i = 0; i < LT_COUNT(text); i++)
        if (text[i] && strncmp(text[i], "sha256:", 7) == 0 &&
            lt_digest_parse(text[i] + 7, &digest_out[count]))
            count++;
    for (size_t i = 0; i < JOB_INPUT_COUNT; i++)
        if (job->input[i].uploaded)
            digest_out[count++] = job->input[i].digest;
    return count;
}

void run_result_name(const struct run *run, uint32_t task, char name_out[32])
{
    uint32_t index, window;
    switch (plan_task(&run->plan, task, &index, &window)) {
    case PLAN_PREDICT:
        collect_prediction_name(task, name_out);
        break;
    case PLAN_DECODE:
        snprintf(name_out, 32, "segments/%u", index);
        break;
    default:
        snprintf(name_out, 32, "results/%u", index);
        break;
    }
}

/* -- what the job came with -------------------------------------------------------------------- */

static lt_status find_text(struct run *run, const char *text, size_t which, struct lt_error *error)
{
    char name[80];
    if (!text)
        return LT_OK;
    if (strncmp(text, "sha256:", 7) != 0 || !lt_digest_parse(text + 7, &run->text[which]))
        return lt_fail(error, LT_BAD_INPUT, "text: '%.64s' was not uploaded", text);
    run_blob_name(&run->text[which], name);
    return objects_size(run->store, name, &run->text_bytes[which], error);
}

static bool is_encoded(size_t kind)
{
    switch (kind) {
    case JOB_INPUT_MASK:
    case JOB_INPUT_CLIP:
    case JOB_INPUT_Y:
    case JOB_INPUT_POSE:
    case JOB_INPUT_VOICE:
    case JOB_INPUT_VOICE_2:
    case JOB_INPUT_AUDIO:
    case JOB_INPUT_SPEAKER_MASKS:
        return true;
    default:
        return false;
    }
}

static lt_status check_input(struct run *run, size_t kind, struct lt_error *error)
{
    const struct job_input *input = &run->job.input[kind];
    uint64_t bytes, expected = is_encoded(kind) ? sizeof(float) : 1;
    char name[80];
    if (input->path)
        return lt_fail(error, LT_BAD_INPUT, "'%.64s' was not uploaded", input->path);
    if (!input->uploaded)
        return LT_OK;
    for (size_t i = 0; i < JOB_INPUT_RANK; i++)
        expected *= input->shape[i];
    run_blob_name(&input->digest, name);
    LT_TRY(objects_size(run->store, name, &bytes, error));
    if (bytes != expected)
        return lt_fail(error, LT_BAD_INPUT,
                       "an input of shape [%u, %u, %u, %u] has %llu bytes, expected %llu",
                       input->shape[0], input->shape[1], input->shape[2], input->shape[3],
                       (unsigned long long)bytes, (unsigned long long)expected);
    return LT_OK;
}

lt_status run_blobs_init(struct run *run, struct lt_error *error)
{
    const struct lt_lru_params params = {.key_bytes = sizeof(struct cut_name),
                                         .entries_max = DIGESTS_KEPT,
                                         .bytes_max = DIGESTS_KEPT * sizeof(struct lt_digest),
                                         .free_value = free};
    LT_TRY(lt_lru_create(&params, &run->digests, error));
    LT_TRY(find_text(run, run->job.text, 0, error));
    LT_TRY(find_text(run, run->job.text_negative, 1, error));
    for (size_t i = 0; i < JOB_INPUT_COUNT; i++)
        LT_TRY(check_input(run, i, error));
    return LT_OK;
}

void run_blobs_fini(struct run *run)
{
    lt_lru_destroy(&run->digests);
}

static lt_status read_plane(struct run *run, const struct cut *cut, const struct cut_cell *cell,
                            uint32_t channel, uint32_t step, uint64_t skip, void *data,
                            size_t bytes, struct lt_error *error);

/* -- reading cuts ------------------------------------------------------------------------------ */

static lt_status fill_plane(float value, uint64_t skip, void *data, size_t bytes)
{
    unsigned char *to = data;
    for (size_t i = 0; i < bytes; i++) /* any part of a plane, which may begin within a number */
        to[i] = ((const unsigned char *)&value)[(skip + i) % sizeof value];
    return LT_OK;
}

static lt_status read_prompt(const struct run *run, uint32_t index, uint64_t skip, void *data,
                             size_t bytes)
{
    size_t length;
    const char *text = index == CUT_PROMPT_NEGATIVE ? run->job.prompt_negative
                                                    : cut_prompt(run->job.prompt, index, &length);
    memcpy(data, text + skip, bytes);
    return LT_OK;
}

/* MultiTalk's motion latents at a step: M as it was handed on, noised to where the step stands,
 * with noise of its own (pipeline.md 2.4.6). */
static lt_status read_motion(struct run *run, const struct cut *cut, const struct cut_cell *cell,
                             uint32_t channel, uint32_t step, uint64_t skip, void *data,
                             size_t bytes, struct lt_error *error)
{
    const struct cut_cell from = {cell->motion_source, cell->index, cell->frame,
                                  cell->frame_count,   0,           0};
    const size_t values = (size_t)(cut->plane_bytes / sizeof(float));
    const float level =
        step < run->plan.step_count ? (float)(run->plan.step[step].timestep / 1000) : 0;
    float *plane = malloc(2 * cut->plane_bytes);
    if (!plane)
        return lt_fail(error, LT_NO_MEMORY, "no memory for motion latents");
    const lt_status status =
        read_plane(run, cut, &from, channel, step, 0, plane, cut->plane_bytes, error);
    if (status == LT_OK && level > 0) {
        float *noise = plane + values;
        noise_motion_plane(run->noise, step, cell->at, channel, noise);
        for (size_t i = 0; i < values; i++)
            plane[i] = (1 - level) * plane[i] + level * noise[i];
    }
    if (status == LT_OK)
        memcpy(data, (const char *)plane + skip, bytes);
    free(plane);
    return status;
}

/* Bytes `skip` and on of the plane `channel` beyond the cell's. */
static lt_status read_plane(struct run *run, const struct cut *cut, const struct cut_cell *cell,
                            uint32_t channel, uint32_t step, uint64_t skip, void *data,
                            size_t bytes, struct lt_error *error)
{
    const uint64_t plane = (uint64_t)channel * cell->frame_count + cell->frame;
    const uint64_t at = plane * cut->plane_bytes + skip;
    const struct plan *plan = &run->plan;
    char name[80];
    switch (cell->source) {
    case CUT_ZERO:
        return fill_plane(0, skip, data, bytes);
    case CUT_ONE:
        return fill_plane(1, skip, data, bytes);
    case CUT_LATENTS:
        return latents_read_part(&run->latents, cell->frame, step,
                                 channel * cut->plane_bytes + skip, data, bytes, error);
    case CUT_MOTION:
        return read_motion(run, cut, cell, channel, step, skip, data, bytes, error);
    case CUT_TIMES:
        memcpy(data, (const char *)&plan->step[cell->index].timestep + skip, bytes);
        return LT_OK;
    case CUT_PROMPT:
        return read_prompt(run, cell->index, skip, data, bytes);
    case CUT_TEXT:
        run_blob_name(&run->text[cell->index], name);
        return objects_read(run->store, name, at, data, bytes, error);
    case CUT_INPUT:
        run_blob_name(&run->job.input[cell->index].digest, name);
        return objects_read(run->store, name, at, data, bytes, error);
    case CUT_RESULT:
        run_result_name(run, plan->predict_count + plan->segment_count + cell->index, name);
        return objects_read(run->store, name, at, data, bytes, error);
    case CUT_SEGMENT:
        run_result_name(run, plan->predict_count + cell->index, name);
        return objects_read(run->store, name,
                            run_pixel_bytes(run, plan->predict_count + cell->index) + at, data,
                            bytes, error);
    }
    return lt_fail(error, LT_INTERNAL, "a blob from nowhere");
}

static lt_status read_cut(struct run *run, const struct cut *cut, uint32_t step, uint64_t offset,
                          void *data, size_t bytes, struct lt_error *error)
{
    unsigned char *to = data;
    if (offset > cut_bytes(cut) || bytes > cut_bytes(cut) - offset)
        return lt_fail(error, LT_BAD_INPUT, "beyond the end of a blob");
    while (bytes > 0) {
        const uint64_t index = offset / cut->plane_bytes, skip = offset % cut->plane_bytes;
        const uint32_t slot = (uint32_t)(index % cut->slot_count);
        uint32_t channel = (uint32_t)(index / cut->slot_count), group = 0;
        while (channel >= cut->channels[group])
            channel -= cut->channels[group++];
        const uint64_t left = cut->plane_bytes - skip;
        const size_t part = left < bytes ? (size_t)left : bytes;
        LT_TRY(read_plane(run, cut, &cut->cell[group * cut->slot_count + slot], channel, step, skip,
                          to, part, error));
        to += part;
        offset += part;
        bytes -= part;
    }
    return LT_OK;
}

/* Step at which the latents of a task stand. */
static uint32_t step_of(const struct run *run, uint32_t task)
{
    uint32_t index, window;
    return plan_task(&run->plan, task, &index, &window) == PLAN_PREDICT ? index
                                                                        : run->plan.step_count;
}

static lt_status digest_cut(struct run *run, const struct cut *cut, uint32_t step,
                            struct lt_digest *digest_out, struct lt_error *error)
{
    enum { PART = 1 << 18 };
    const uint64_t bytes = cut_bytes(cut);
    unsigned char *buffer = malloc(PART);
    if (!buffer)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a blob's digest");
    struct lt_sha256 hash;
    lt_sha256_begin(&hash);
    lt_status status = LT_OK;
    for (uint64_t at = 0; at < bytes && status == LT_OK; at += PART) {
        const size_t part = bytes - at < PART ? (size_t)(bytes - at) : PART;
        status = read_cut(run, cut, step, at, buffer, part, error);
        if (status == LT_OK)
            lt_sha256_add(&hash, buffer, part);
    }
    free(buffer);
    if (status == LT_OK)
        *digest_out = lt_sha256_end(&hash);
    return status;
}

struct make_digest {
    struct run *run;
    const struct cut *cut;
};

static lt_status make_digest(void *context, const void *key, void **value_out, uint64_t *bytes_out,
                             struct lt_error *error)
{
    const struct make_digest *make = context;
    struct lt_digest *digest = malloc(sizeof *digest);
    (void)key;
    if (!digest)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a digest");
    const lt_status status = digest_cut(make->run, make->cut, 0, digest, error);
    if (status != LT_OK) {
        free(digest);
        return status;
    }
    *value_out = digest;
    *bytes_out = sizeof *digest;
    return LT_OK;
}

/* What does not change with the step is read once. */
static lt_status cut_digest(struct run *run, const struct cut *cut, uint32_t step,
                            struct lt_digest *digest_out, struct lt_error *error)
{
    if (!cut->name)
        return digest_cut(run, cut, step, digest_out, error);
    const struct cut_name key = {cut->name, cut->role};
    struct make_digest make = {run, cut};
    struct lt_lru_entry *entry;
    LT_TRY(lt_lru_take(run->digests, &key, make_digest, &make, &entry, error));
    *digest_out = *(const struct lt_digest *)lt_lru_value(entry);
    lt_lru_release(run->digests, entry);
    return LT_OK;
}

/* -- tasks ------------------------------------------------------------------------------------- */

uint64_t run_result_bytes(const struct run *run, uint32_t task)
{
    struct lt_task_spec spec = {0};
    cut_spec(&run->job, &run->plan, task, &spec);
    return spec.result_bytes;
}

uint64_t run_pixel_bytes(const struct run *run, uint32_t task)
{
    struct lt_task_spec spec = {0};
    cut_spec(&run->job, &run->plan, task, &spec);
    return spec.kind != LT_TASK_VAE_DECODE
               ? 0
               : spec.result_bytes - (spec.handoff_length ? run->plan.frame_bytes *
                                                                ((spec.handoff_length - 1) / 4 + 1)
                                                          : 0);
}

static lt_status fill_spec(struct run *run, uint32_t task, struct lt_arena *arena,
                           struct lt_task_spec *spec, struct lt_error *error)
{
    struct cut cut[CUTS_MAX];
    size_t count;
    LT_TRY(cut_task(&run->job, &run->plan, task, run->text_bytes, arena, cut, &count, error));
    for (size_t i = 0; i < count; i++) {
        struct lt_blob_ref *blob = &spec->blob[spec->blob_count++];
        blob->role = cut[i].role;
        blob->bytes = cut_bytes(&cut[i]);
        LT_TRY(cut_digest(run, &cut[i], step_of(run, task), &blob->digest, error));
    }
    return LT_OK;
}

/* The step whose transformer a task uses. */
static uint32_t transformer_step(const struct run *run, uint32_t task)
{
    uint32_t index, window;
    if (plan_task(&run->plan, task, &index, &window) == PLAN_PREDICT)
        return index;
    return plan_expert_steps(&run->plan, run->plan.condition[index].index).first;
}

/* The add-on and the LoRAs of a prediction, or of what its transformer is asked before. */
static void name_files(const struct run *run, uint32_t task, struct lt_task_spec *spec)
{
    uint32_t index[RUN_MODELS];
    const size_t count = run_companions(run, run_task_model(run, task), index);
    for (size_t i = 0; i < count; i++) {
        const struct job_model *model = &run->model[index[i]];
        const struct lt_model_file file = {.name = model->name, .fingerprint = model->fingerprint};
        if (index[i] == RUN_TALK) {
            spec->addon = file;
            continue;
        }
        const struct job_lora *lora = &run->job.lora[index[i] - RUN_LORA];
        const uint32_t step = transformer_step(run, task);
        const size_t at = step < lora->strength_count ? step : lora->strength_count - 1;
        spec->lora[spec->lora_count++] = (struct lt_spec_lora){
            .file = file,
            .strength = lora->strength[at],
            .expert = !lora->combined                   ? 0
                      : run->plan.step[step].low_expert ? 2
                                                        : 1,
            .plain_peft = lora->plain_peft,
        };
    }
}

lt_status run_task_spec(struct run *run, uint32_t task, struct lt_task_spec *spec_out,
                        struct lt_error *error)
{
    const struct job_model *model = run_model(run, run_task_model(run, task));
    struct lt_arena arena;
    struct lt_task_spec spec = {
        .model = {.name = model->name, .fingerprint = model->fingerprint},
        .precision = run->job.precision_bf16, /* enum lt_precision: F32 0, BF16 1 */
        .text_len = (uint32_t)run->job.text_len,
    };
    uint32_t index, window;
    if (plan_task(&run->plan, task, &index, &window) == PLAN_PREDICT)
        LT_TRY(run_know_skips(run, error));
    cut_spec(&run->job, &run->plan, task, &spec);
    if (spec.cache != LT_CACHE_NONE)
        spec.cache_key = run_cache_key(run, window);
    name_files(run, task, &spec);
    lt_arena_init(&arena, 0);
    const lt_status status = fill_spec(run, task, &arena, &spec, error);
    lt_arena_fini(&arena);
    if (status == LT_OK)
        *spec_out = spec;
    return status;
}

/* The cut of a task that has this digest. Latents are what is left when no other cut has it: their
 * digest is not taken again for each chunk. */
static lt_status find_cut(struct run *run, const struct cut *cut, size_t count,
                          const struct lt_digest *digest, const struct cut **cut_out,
                          struct lt_error *error)
{
    *cut_out = NULL;
    for (size_t i = 0; i < count; i++) {
        struct lt_digest have;
        if (!cut[i].name) {
            if (!*cut_out)
                *cut_out = &cut[i];
            continue;
        }
        LT_TRY(cut_digest(run, &cut[i], 0, &have, error));
        if (lt_digest_equal(&have, digest)) {
            *cut_out = &cut[i];
            return LT_OK;
        }
    }
    return *cut_out ? LT_OK : lt_fail(error, LT_NOT_FOUND, "the task names no such blob");
}

lt_status run_read_blob(struct run *run, uint32_t task, const struct lt_digest *digest,
                        uint64_t offset, void *data, size_t bytes, struct lt_error *error)
{
    struct cut list[CUTS_MAX];
    const struct cut *cut;
    struct lt_arena arena;
    size_t count;
    lt_arena_init(&arena, 0);
    lt_status status =
        cut_task(&run->job, &run->plan, task, run->text_bytes, &arena, list, &count, error);
    if (status == LT_OK)
        status = find_cut(run, list, count, digest, &cut, error);
    if (status == LT_OK && !cut->name && graph_state(run->graph, task) != TASK_LEASED)
        status = lt_fail(error, LT_NOT_FOUND, "task %u is not leased any more", task);
    if (status == LT_OK)
        status = read_cut(run, cut, step_of(run, task), offset, data, bytes, error);
    lt_arena_fini(&arena);
    return status;
}

/* -- what comes out ---------------------------------------------------------------------------- */

uint32_t run_frame_width(const struct run *run)
{
    return (uint32_t)(run->plan.latent_width * run->plan.scale);
}

uint32_t run_frame_height(const struct run *run)
{
    return (uint32_t)(run->plan.latent_height * run->plan.scale);
}

lt_status run_read_input(struct run *run, enum job_input_kind kind, uint64_t offset, void *data,
                         size_t bytes, struct lt_error *error)
{
    char name[80];
    run_blob_name(&run->job.input[kind].digest, name);
    return objects_read(run->store, name, offset, data, bytes, error);
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

lt_status run_read_latents(struct run *run, float *x_out, struct lt_error *error)
{
    struct lt_arena arena;
    struct cut cut;
    lt_arena_init(&arena, 0);
    lt_status status = cut_latents(&run->job, &run->plan, &arena, &cut, error);
    if (status == LT_OK)
        status = read_cut(run, &cut, run->plan.step_count, 0, x_out, cut_bytes(&cut), error);
    lt_arena_fini(&arena);
    return status;
}

lt_status run_latents_digest(struct run *run, struct lt_digest *digest_out, struct lt_error *error)
{
    struct lt_arena arena;
    struct cut cut;
    lt_arena_init(&arena, 0);
    lt_status status = cut_latents(&run->job, &run->plan, &arena, &cut, error);
    if (status == LT_OK)
        status = digest_cut(run, &cut, run->plan.step_count, digest_out, error);
    lt_arena_fini(&arena);
    return status;
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
