#include "coordinator/run.h"
#include "coordinator/run_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static lt_status no_memory(struct lt_error *error)
{
    return lt_fail(error, LT_NO_MEMORY, "no memory for the job");
}

static lt_status allocate(struct run *run, struct lt_error *error)
{
    uint32_t most = 1;
    for (uint32_t s = 0; s < run->plan.step_count; s++)
        for (uint32_t w = 0; w < run->plan.step[s].window_count; w++)
            if (run->plan.step[s].window[w].frame_count > most)
                most = run->plan.step[s].window[w].frame_count;
    run->frames = lt_arena_take_array(&run->arena, most, sizeof *run->frames);
    run->task = lt_arena_take_array(&run->arena, run->plan.task_count, sizeof *run->task);
    if (!run->frames || !run->task)
        return no_memory(error);
    for (uint32_t t = 0; t < run->plan.task_count; t++)
        run->task[t] = (struct run_task){.lease = UINT32_MAX};
    return LT_OK;
}

/* Everything that follows from the job's text alone. */
static lt_status build(struct run *run, const struct run_params *params, struct lt_error *error)
{
    LT_TRY(job_parse(params->json, params->json_bytes, "job", &run->arena, &run->job, error));
    LT_TRY(plan_build(&run->job, &run->arena, &run->plan, error));
    LT_TRY(sampler_build(run->job.sampler, &run->plan, &run->arena, &run->sampler, error));
    LT_TRY(noise_create(&run->job, &run->plan, &run->noise, error));
    LT_TRY(graph_create(&run->plan, run->job.barrier, &run->graph, error));
    LT_TRY(latents_init(&run->latents, run->store, (uint32_t)run->plan.latent_frames,
                        run->sampler.history_count, run->plan.frame_bytes, error));
    LT_TRY(collect_init(&run->collect, &run->plan, &run->sampler, run->noise, &run->latents,
                        run->graph, run->store, error));
    run->model[RUN_TRANSFORMER] = run->job.transformer;
    run->model[RUN_TRANSFORMER_LOW] = run->job.transformer_low;
    run->model[RUN_VAE] = run->job.vae;
    run->model[RUN_TEXT_ENCODER] = run->job.text_encoder;
    run->model[RUN_VISION] = run->job.vision;
    run->model[RUN_AUDIO_ENCODER] = run->job.audio_encoder;
    run->model[RUN_TALK] = run->job.talk;
    for (size_t i = 0; i < run->job.lora_count; i++)
        run->model[RUN_LORA + i] = run->job.lora[i].file;
    LT_TRY(allocate(run, error));
    LT_TRY(run_skips_init(run, error));
    return run_blobs_init(run, error);
}

static lt_status write_noise(struct run *run, struct lt_error *error)
{
    const struct sampler_frame state = {.x = run->collect.scratch};
    for (uint32_t f = 0; f < run->plan.latent_frames; f++) {
        noise_initial_frame(run->noise, f, state.x);
        LT_TRY(latents_write(&run->latents, f, 0, &state, error));
    }
    return latents_sync(&run->latents, error);
}

/* What the journal holds of a job, in memory, so that replay may write to it. */
struct replay {
    struct run *run;
    struct journal_task *task;
    size_t task_count, task_capacity;
    uint32_t *step; /* [T] */
};

static lt_status replay_task(void *context, const struct journal_task *task, struct lt_error *error)
{
    struct replay *replay = context;
    if (task->task >= replay->run->plan.task_count || task->state == TASK_BLOCKED ||
        task->state > TASK_COMMITTED)
        return lt_fail(error, LT_CORRUPT, "journal: job %u has no task %u in state %u",
                       replay->run->id, task->task, task->state);
    if (replay->task_count == replay->task_capacity) {
        const size_t capacity = replay->task_capacity ? 2 * replay->task_capacity : 64;
        struct journal_task *list = realloc(replay->task, capacity * sizeof *list);
        if (!list)
            return no_memory(error);
        replay->task = list;
        replay->task_capacity = capacity;
    }
    replay->task[replay->task_count++] = *task;
    return LT_OK;
}

static lt_status replay_frame(void *context, uint32_t frame, uint32_t step, struct lt_error *error)
{
    struct replay *replay = context;
    if (frame >= replay->run->plan.latent_frames || step > replay->run->plan.step_count)
        return lt_fail(error, LT_CORRUPT, "journal: job %u has no latent frame %u at step %u",
                       replay->run->id, frame, step);
    replay->step[frame] = step;
    return LT_OK;
}

/* A frame whose state is not saved yet must be, before it moves on: two halves hold two steps. */
static lt_status advance_frame(struct run *run, uint32_t frame, struct lt_error *error)
{
    if (run->latents.unsaved[frame]) {
        LT_TRY(run_sync(run, error));
        LT_TRY(journal_commit(run->journal, error));
        latents_committed(&run->latents);
    }
    LT_TRY(collect_advance(&run->collect, frame, error));
    return journal_put_frame(run->journal, run->id, frame, graph_frame_step(run->graph, frame),
                             error);
}

static void count_committed(struct run *run, uint32_t task)
{
    uint32_t index, window;
    run->done[plan_task(&run->plan, task, &index, &window)]++;
}

static lt_status replay_committed(struct replay *replay, uint32_t task, struct lt_error *error)
{
    struct run *run = replay->run;
    uint32_t count;
    LT_TRY(graph_commit(run->graph, task, run->frames, &count, error));
    count_committed(run, task);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t frame = run->frames[i];
        if (replay->step[frame] > graph_frame_step(run->graph, frame))
            graph_frame_advanced(run->graph, frame);
        else
            LT_TRY(advance_frame(run, frame, error));
    }
    return LT_OK;
}

/* Predictions that were to be removed when the coordinator stopped. */
static void remove_leftovers(struct run *run)
{
    for (uint32_t s = 0; s < run->plan.step_count; s++)
        for (uint32_t w = 0; w < run->plan.step[s].window_count; w++) {
            const struct window *window = &run->plan.step[s].window[w];
            bool passed = true;
            for (uint32_t k = 0; passed && k < window->frame_count; k++)
                passed = graph_frame_step(run->graph, window->frame[k]) > s;
            char name[32];
            collect_prediction_name(run->plan.step[s].task_first + w, name);
            if (passed)
                objects_remove(run->store, name);
        }
}

/* Inputs before what needs them: in rounds, because conditioning and clips do not stand in that
 * order. A round goes by index, so that the windows of a long take need one. */
static lt_status replay_all_committed(struct replay *replay, struct lt_error *error)
{
    struct run *run = replay->run;
    for (size_t left = SIZE_MAX, before; left > 0;) {
        uint32_t waiting = 0;
        before = left;
        left = 0;
        for (size_t i = 0; i < replay->task_count; i++) {
            const struct journal_task *row = &replay->task[i];
            if (row->state != TASK_COMMITTED ||
                graph_state(run->graph, row->task) == TASK_COMMITTED)
                continue;
            if (graph_state(run->graph, row->task) == TASK_READY) {
                LT_TRY(replay_committed(replay, row->task, error));
            } else {
                waiting = row->task;
                left++;
            }
        }
        if (left == before)
            return lt_fail(error, LT_CORRUPT,
                           "journal: task %u of job %u is done before its inputs", waiting,
                           run->id);
    }
    return LT_OK;
}

static lt_status replay_tasks(struct replay *replay, struct lt_error *error)
{
    struct run *run = replay->run;
    for (size_t i = 0; i < replay->task_count; i++) {
        const struct journal_task *row = &replay->task[i];
        run->task[row->task].epoch = row->epoch;
        run->task[row->task].attempts = row->attempts;
    }
    LT_TRY(replay_all_committed(replay, error));
    run->recovered = calloc(replay->task_count + 1, sizeof *run->recovered);
    if (!run->recovered)
        return no_memory(error);
    for (size_t i = 0; i < replay->task_count; i++) {
        const struct journal_task *row = &replay->task[i];
        if (row->state != TASK_LEASED)
            continue;
        if (graph_state(run->graph, row->task) != TASK_READY)
            return lt_fail(error, LT_CORRUPT,
                           "journal: task %u of job %u is leased before it is ready", row->task,
                           run->id);
        graph_lease(run->graph, row->task);
        run->leased_count++;
        run->recovered[run->recovered_count++] = (struct run_recovered){row->task, row->peer};
    }
    LT_TRY(run_sync(run, error));
    LT_TRY(journal_commit(run->journal, error));
    run_committed(run);
    remove_leftovers(run);
    return LT_OK;
}

static lt_status recover(struct run *run, struct lt_error *error)
{
    struct replay replay = {.run = run};
    replay.step = calloc((size_t)run->plan.latent_frames, sizeof *replay.step);
    if (!replay.step)
        return no_memory(error);
    lt_status status;
    LT_TRY_OR(journal_each_frame(run->journal, run->id, replay_frame, &replay, error), out);
    LT_TRY_OR(journal_each_task(run->journal, run->id, replay_task, &replay, error), out);
    LT_TRY_OR(replay_tasks(&replay, error), out);
out:
    free(replay.step);
    free(replay.task);
    return status;
}

lt_status run_create(const struct run_params *params, bool resume, struct run **run_out,
                     struct lt_error *error)
{
    struct run *run = calloc(1, sizeof *run);
    if (!run)
        return no_memory(error);
    lt_arena_init(&run->arena, 0);
    run->id = params->id;
    run->journal = params->journal;
    run->store = params->store;
    lt_status status = build(run, params, error);
    if (status == LT_OK)
        status = resume ? recover(run, error) : write_noise(run, error);
    if (status != LT_OK) {
        run_destroy(&run);
        return status;
    }
    *run_out = run;
    return LT_OK;
}

void run_destroy(struct run **run)
{
    if (!*run)
        return;
    run_blobs_fini(*run);
    collect_fini(&(*run)->collect);
    latents_fini(&(*run)->latents);
    graph_destroy(&(*run)->graph);
    noise_destroy(&(*run)->noise);
    free((*run)->recovered);
    lt_arena_fini(&(*run)->arena);
    free(*run);
    *run = NULL;
}

uint32_t run_id(const struct run *run)
{
    return run->id;
}

const struct job *run_job(const struct run *run)
{
    return &run->job;
}

const struct plan *run_plan(const struct run *run)
{
    return &run->plan;
}

struct graph *run_graph(struct run *run)
{
    return run->graph;
}

struct run_task *run_task(struct run *run, uint32_t task)
{
    lt_assert(task < run->plan.task_count);
    return &run->task[task];
}

size_t run_take_recovered(struct run *run, struct run_recovered **recovered_out)
{
    const size_t count = run->recovered_count;
    *recovered_out = run->recovered;
    run->recovered = NULL;
    run->recovered_count = 0;
    return count;
}

const struct job_model *run_model(const struct run *run, uint32_t index)
{
    lt_assert(index < RUN_MODELS);
    return &run->model[index];
}

void run_pin_model(struct run *run, uint32_t index, const struct lt_digest *fingerprint)
{
    lt_assert(index < RUN_MODELS);
    run->model[index].fingerprint = *fingerprint;
}

_Static_assert(RUN_LORA + JOB_LORAS_MAX <= RUN_MODELS, "every LoRA has a pin");

size_t run_companions(const struct run *run, uint32_t model, uint32_t out[RUN_MODELS])
{
    const struct job *job = &run->job;
    const bool high = model == RUN_TRANSFORMER, low = model == RUN_TRANSFORMER_LOW;
    size_t count = 0;
    if (!high && !low)
        return 0;
    if (job->talk.name)
        out[count++] = RUN_TALK;
    for (size_t i = 0; i < job->lora_count; i++)
        if (job->lora[i].on == JOB_EXPERT_BOTH || (job->lora[i].on == JOB_EXPERT_LOW) == low)
            out[count++] = RUN_LORA + (uint32_t)i;
    return count;
}

static enum run_model_kind condition_model(enum plan_condition_what what)
{
    switch (what) {
    case PLAN_CONDITION_TEXT:
    case PLAN_CONDITION_NEGATIVE:
        return RUN_TEXT_ENCODER;
    case PLAN_CONDITION_CLIP:
        return RUN_VISION;
    case PLAN_CONDITION_AUDIO:
        return RUN_AUDIO_ENCODER;
    default:
        return RUN_VAE;
    }
}

uint32_t run_task_model(const struct run *run, uint32_t task)
{
    uint32_t index, window;
    switch (plan_task(&run->plan, task, &index, &window)) {
    case PLAN_PREDICT:
        return run->plan.step[index].low_expert ? RUN_TRANSFORMER_LOW : RUN_TRANSFORMER;
    case PLAN_CONDITION:
        if (run->plan.condition[index].what == PLAN_CONDITION_TIMES)
            return run->plan.condition[index].index ? RUN_TRANSFORMER_LOW : RUN_TRANSFORMER;
        return condition_model(run->plan.condition[index].what);
    default:
        return RUN_VAE;
    }
}

uint32_t run_model_end(const struct run *run, uint32_t task)
{
    uint32_t index, window;
    switch (plan_task(&run->plan, task, &index, &window)) {
    case PLAN_DECODE:
        return run->plan.predict_count + run->plan.segment_count;
    case PLAN_CONDITION:
        return task + 1;
    default:
        break;
    }
    const bool low = run->plan.step[index].low_expert;
    while (index < run->plan.step_count && run->plan.step[index].low_expert == low)
        index++;
    return index < run->plan.step_count ? run->plan.step[index].task_first
                                        : run->plan.predict_count;
}

void run_lease(struct run *run, uint32_t task)
{
    graph_lease(run->graph, task);
    run->leased_count++;
}

void run_return(struct run *run, uint32_t task)
{
    graph_return(run->graph, task);
    run->leased_count--;
    run->task[task].lease = UINT32_MAX;
}

static lt_status store_result(struct run *run, uint32_t task, const void *data, size_t bytes,
                              struct lt_error *error)
{
    char name[32];
    size_t bad;
    if (bytes != run_result_bytes(run, task))
        return lt_fail(error, LT_BAD_INPUT,
                       "task %u of job %u: a result of %zu bytes, expected %llu", task, run->id,
                       bytes, (unsigned long long)run_result_bytes(run, task));
    const uint64_t pixels = run_pixel_bytes(run, task); /* u8: any value is one */
    if (!blend_is_finite((const float *)(const void *)((const char *)data + pixels),
                         (bytes - pixels) / sizeof(float), &bad))
        return lt_fail(error, LT_BAD_INPUT,
                       "task %u of job %u: value %zu of the result is not finite", task, run->id,
                       bad);
    run_result_name(run, task, name);
    return objects_put(run->store, name, data, bytes, error);
}

lt_status run_accept(struct run *run, uint32_t task, const void *data, size_t bytes,
                     bool *stored_out, struct lt_error *error)
{
    *stored_out = false;
    LT_TRY(store_result(run, task, data, bytes, error));
    *stored_out = true;
    uint32_t count;
    const bool leased = graph_state(run->graph, task) == TASK_LEASED;
    LT_TRY(graph_commit(run->graph, task, run->frames, &count, error));
    run->leased_count -= leased;
    count_committed(run, task);
    const struct journal_task row = {
        .task = task,
        .state = TASK_COMMITTED,
        .epoch = run->task[task].epoch,
        .attempts = run->task[task].attempts,
    };
    LT_TRY(journal_put_task(run->journal, run->id, &row, error));
    for (uint32_t i = 0; i < count; i++)
        LT_TRY(advance_frame(run, run->frames[i], error));
    return LT_OK;
}

lt_status run_sync(struct run *run, struct lt_error *error)
{
    return latents_sync(&run->latents, error);
}

void run_committed(struct run *run)
{
    latents_committed(&run->latents);
    collect_sweep(&run->collect);
}

void run_progress(const struct run *run, struct run_progress *progress_out)
{
    uint32_t low = run->plan.step_count, high = 0;
    for (uint32_t f = 0; f < run->plan.latent_frames; f++) {
        const uint32_t step = graph_frame_step(run->graph, f);
        low = step < low ? step : low;
        high = step > high ? step : high;
    }
    *progress_out = (struct run_progress){
        .predict_count = run->plan.predict_count,
        .predict_done = run->done[PLAN_PREDICT],
        .decode_count = run->plan.segment_count,
        .decode_done = run->done[PLAN_DECODE],
        .condition_count = run->plan.condition_count,
        .condition_done = run->done[PLAN_CONDITION],
        .ready_count = graph_ready_count(run->graph),
        .leased_count = run->leased_count,
        .step_count = run->plan.step_count,
        .step_low = low,
        .step_high = high,
    };
}
