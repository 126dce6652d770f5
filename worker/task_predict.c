/* predict: latent slices, their prompts and conditioning -> the guided velocities. Tasks of a batch
 * share each block's weights. */
#include "worker/engine_private.h"
#include "worker/guidance.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PARTS_MAX = 3 /* of a guidance */, CLIP_WIDTH = 1280 };

struct prompt {                       /* names a context that is kept for the steps to come */
    struct lt_digest text, nag, clip; /* zero: none */
    int64_t text_len;
    struct lt_digest lora; /* files and strengths: keys and values go through them; zero: none */
};

void engine_free_prompt(void *value)
{
    struct dit_context *context = value;
    dit_context_destroy(&context);
}

size_t engine_prompt_key_bytes(void)
{
    return sizeof(struct prompt);
}

static bool is_guided(const struct lt_task_spec *spec)
{
    return fabs(spec->guidance - 1) > 1e-9;
}

/* The voice has a scale of its own. */
static bool is_led_by_audio(const struct lt_task_spec *spec)
{
    bool heard = false;
    for (size_t i = 0; i < spec->blob_count; i++)
        heard |= spec->blob[i].role == LT_BLOB_AUDIO;
    return heard && fabs(spec->audio_guidance - 1) > 1e-9;
}

size_t engine_input_count(const struct lt_task_spec *spec)
{
    return 1 + (size_t)is_guided(spec) + (size_t)is_led_by_audio(spec);
}

struct make_prompt {
    struct dit *dit;
    size_t cache_bytes;
    const struct engine_blob *text, *nag, *clip;
};

/* A blob of f32 rows. */
static lt_status rows_of(const struct engine_blob *blob, const char *what, int64_t width,
                         struct lt_view *view_out, struct lt_error *error)
{
    const size_t row_bytes = (size_t)width * sizeof(float);
    if (blob->bytes == 0 || blob->bytes % row_bytes != 0)
        return lt_fail(error, LT_BAD_INPUT, "task: a %s of %zu bytes, expected rows of %zu", what,
                       blob->bytes, row_bytes);
    *view_out = lt_view_2d((void *)(uintptr_t)blob->data, LT_TYPE_F32,
                           (int64_t)(blob->bytes / row_bytes), width);
    return LT_OK;
}

static lt_status make_prompt(void *context, const void *key, void **value_out, uint64_t *bytes_out,
                             struct lt_error *error)
{
    const struct make_prompt *make = context;
    struct dit_prompt prompt = {0};
    struct dit_context *made;
    (void)key;
    LT_TRY(rows_of(make->text, "text", dit_config(make->dit)->text_dim, &prompt.text, error));
    if (make->nag)
        LT_TRY(rows_of(make->nag, "negative text", dit_config(make->dit)->text_dim,
                       &prompt.nag_text, error));
    if (make->clip)
        LT_TRY(rows_of(make->clip, "clip", CLIP_WIDTH, &prompt.clip, error));
    LT_TRY(dit_context_create(make->dit, &prompt, make->cache_bytes, &made, error));
    *value_out = made;
    *bytes_out = make->cache_bytes; /* what it may grow to */
    return LT_OK;
}

/* The context of a prompt, to be released; `nag` NULL: without. */
static lt_status take_prompt(const struct engine_task *task, struct dit *dit,
                             const struct engine_blob *text, const struct engine_blob *nag,
                             struct lt_lru_entry **prompt_out, struct lt_error *error)
{
    const struct engine_blob *clip = engine_find_blob(task, LT_BLOB_CLIP);
    struct make_prompt make = {dit, task->engine->context_bytes, text, nag, clip};
    struct prompt key;
    memset(&key, 0, sizeof key);
    key.text = lt_sha256(text->data, text->bytes);
    key.text_len = dit_config(dit)->text_len;
    if (nag)
        key.nag = lt_sha256(nag->data, nag->bytes);
    if (clip)
        key.clip = lt_sha256(clip->data, clip->bytes);
    key.lora = engine_lora_state(task);
    return lt_lru_take(task->engine->prompts, &key, make_prompt, &make, prompt_out, error);
}

/* A task on its way through a batch: up to three inputs of the transformer, side by side: with the
 * prompt; then without it, with or without the voice (pipeline.md 3.8). */
struct prediction {
    const struct engine_task *task;
    struct lt_view x, y;
    struct dit_options options[2]; /* with the prompt, without */
    int64_t skip_layer[LT_SPEC_SLOTS_MAX];
    double *timesteps; /* [F], when some frames are clean; else NULL */
    size_t part_count;
    bool negative[PARTS_MAX], mute[PARTS_MAX]; /* without the prompt, the voice */
    struct lt_lru_entry *prompt[PARTS_MAX], *window[PARTS_MAX];
    size_t prompt_count;
    struct engine_reuse reuse;
    float *v; /* [parts, C, F, h, w] */
};

/* [c, F, h, w]: the transformer says how many channels it wants. */
static lt_status take_y(struct prediction *p, struct lt_error *error)
{
    const struct engine_blob *blob = engine_find_blob(p->task, LT_BLOB_Y);
    if (!blob)
        return LT_OK;
    const int64_t channel = p->x.dim[1] * p->x.dim[2] * p->x.dim[3];
    const size_t bytes = (size_t)channel * sizeof(float);
    if (blob->bytes == 0 || blob->bytes % bytes != 0)
        return lt_fail(error, LT_BAD_INPUT, "task: y of %zu bytes, expected channels of %zu",
                       blob->bytes, bytes);
    const int64_t dim[4] = {(int64_t)(blob->bytes / bytes), p->x.dim[1], p->x.dim[2], p->x.dim[3]};
    p->y = lt_view_make((void *)(uintptr_t)blob->data, LT_TYPE_F32, 4, dim);
    return LT_OK;
}

static lt_status take_timesteps(struct prediction *p, struct lt_error *error)
{
    const struct lt_task_spec *spec = p->task->spec;
    if (spec->clean_slot_count == 0)
        return LT_OK;
    if (!(p->timesteps = malloc((size_t)p->x.dim[1] * sizeof *p->timesteps)))
        return lt_fail(error, LT_NO_MEMORY, "no memory for a prediction");
    for (int64_t f = 0; f < p->x.dim[1]; f++)
        p->timesteps[f] = spec->timestep;
    for (size_t i = 0; i < spec->clean_slot_count; i++) {
        if (spec->clean_slot[i] >= p->x.dim[1])
            return lt_fail(error, LT_BAD_INPUT, "task: clean slot %u of %lld", spec->clean_slot[i],
                           (long long)p->x.dim[1]);
        p->timesteps[spec->clean_slot[i]] = 0;
    }
    return LT_OK;
}

/* Blocks are skipped without the prompt only. */
static void take_options(struct prediction *p)
{
    const struct lt_task_spec *spec = p->task->spec;
    struct dit_options *o = &p->options[0];
    *o = dit_options_default;
    if (spec->nag_count > 0) {
        o->nag_scale = spec->nag[0];
        o->nag_tau = spec->nag[1];
        o->nag_alpha = spec->nag[2];
    }
    o->riflex_index = spec->riflex_index;
    o->riflex_frames = spec->riflex_frames;
    if (spec->strength_count > 0) {
        o->pose_strength = spec->strength[0];
        o->face_strength = spec->strength[1];
    }
    p->options[1] = *o;
    for (size_t i = 0; i < spec->skip_layer_count; i++)
        p->skip_layer[i] = spec->skip_layer[i];
    p->options[1].skip_layers = p->skip_layer;
    p->options[1].skip_count = spec->skip_layer_count;
}

static void take_parts(struct prediction *p)
{
    const bool guided = is_guided(p->task->spec);
    p->part_count = 1;
    if (guided)
        p->negative[p->part_count++] = true;
    if (is_led_by_audio(p->task->spec)) {
        p->negative[p->part_count] = guided;
        p->mute[p->part_count++] = true;
    }
}

static lt_status begin(struct prediction *p, struct lt_error *error)
{

    LT_TRY(engine_slice(p->task, LT_BLOB_LATENTS, &p->x, error));
    const size_t bytes = (size_t)lt_view_count(&p->x) * sizeof(float);
    LT_TRY(engine_check_result_bytes(p->task, bytes, error));
    LT_TRY(take_y(p, error));
    LT_TRY(take_timesteps(p, error));
    take_options(p);
    take_parts(p);
    p->v = malloc(p->part_count * bytes);
    return p->v ? LT_OK : lt_fail(error, LT_NO_MEMORY, "no memory for a prediction");
}

static lt_status take_prompts(struct prediction *p, struct dit *dit, struct lt_error *error)
{
    for (; p->prompt_count < p->part_count; p->prompt_count++) {
        const size_t part = p->prompt_count;
        const bool negative = p->negative[part];
        const struct engine_blob *text =
            engine_find_blob(p->task, negative ? LT_BLOB_TEXT_NEGATIVE : LT_BLOB_TEXT);
        if (!text)
            return lt_fail(error, LT_BAD_INPUT, "task: its text is missing");
        const struct engine_blob *nag = NULL;
        if (!negative && p->task->spec->nag_count > 0 &&
            !(nag = engine_find_blob(p->task, LT_BLOB_TEXT_NEGATIVE)))
            return lt_fail(error, LT_BAD_INPUT, "task: its negative text is missing");
        LT_TRY(engine_take_window(p->task, dit, &p->x, negative, p->mute[part], &p->window[part],
                                  error));
        LT_TRY(take_prompt(p->task, dit, text, nag, &p->prompt[part], error));
    }
    return LT_OK;
}

/* A part is known by what it lacks: with another guidance at another step its number differs. */
static void begin_reuse(struct prediction *p, const struct dit *dit)
{
    unsigned lacks[PARTS_MAX];
    for (size_t part = 0; part < p->part_count; part++)
        lacks[part] = p->negative[part] | (unsigned)p->mute[part] << 1;
    engine_reuse_begin(p->task, dit, &p->x, lacks, p->part_count, &p->reuse);
}

static void add_inputs(const struct prediction *p, struct dit_inputs *inputs, struct lt_view *v)
{
    for (size_t part = 0; part < p->part_count; part++) {
        v[part] =
            lt_view_make(p->v + (int64_t)part * lt_view_count(&p->x), LT_TYPE_F32, 4, p->x.dim);
        inputs[part] = (struct dit_inputs){.x = p->x,
                                           .y = p->y,
                                           .timestep = p->task->spec->timestep,
                                           .timesteps = p->timesteps,
                                           .context = lt_lru_value(p->prompt[part]),
                                           .animate = engine_window_animate(p->window[part]),
                                           .talk = engine_window_talk(p->window[part]),
                                           .options = &p->options[p->negative[part]],
                                           .done = &p->task->progress->done};
        engine_reuse_input(&p->reuse, part, &inputs[part]);
    }
}

/* Guidance, and the check of every number. */
static lt_status finish(struct prediction *p, struct lt_error *error)
{
    const int64_t count = lt_view_count(&p->x);
    const struct lt_task_spec *spec = p->task->spec;
    const float *second = p->v + count;
    engine_reuse_done(&p->reuse, p->v);
    if (p->part_count == 3)
        guidance_audio(p->v, second, second + count, count, spec->guidance, spec->audio_guidance,
                       spec->audio_formula == 1);
    else if (p->part_count == 2 && p->mute[1])
        guidance_cfg(p->v, second, count, spec->audio_guidance);
    else if (p->part_count == 2)
        (spec->guide == LT_GUIDE_ZERO_STAR ? guidance_zero_star : guidance_cfg)(p->v, second, count,
                                                                                spec->guidance);
    return engine_check_finite(p->v, count, "prediction", error);
}

/* The status of one task; on LT_OK its result is the prediction. */
static void settle(struct prediction *p, lt_status status)
{
    struct engine_work *work = p->task->work;
    while (p->prompt_count > 0)
        lt_lru_release(p->task->engine->prompts, p->prompt[--p->prompt_count]);
    for (size_t part = 0; part < PARTS_MAX; part++)
        if (p->window[part])
            lt_lru_release(p->task->engine->windows, p->window[part]);
    memset(p->window, 0, sizeof p->window);
    engine_reuse_end(&p->reuse);
    work->status = status;
    work->result = status == LT_OK ? p->v : NULL;
    if (status != LT_OK)
        free(p->v);
    free(p->timesteps);
    p->v = NULL;
    p->timesteps = NULL;
}

/* All that came so far, in one forward. */
static lt_status forward(struct prediction *p, size_t count, struct dit *dit,
                         struct lt_error *error)
{
    struct dit_inputs inputs[ENGINE_BATCH_MAX * PARTS_MAX];
    struct lt_view v[ENGINE_BATCH_MAX * PARTS_MAX];
    size_t input_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (p[i].reuse.whole)
            continue;
        add_inputs(&p[i], inputs + input_count, v + input_count);
        input_count += p[i].part_count;
    }
    engine_begin(p[0].task, (unsigned)(dit_config(dit)->layer_count * (int64_t)input_count));
    return input_count ? dit_forward(dit, inputs, input_count, v, error) : LT_OK;
}

/* A task whose own inputs are wrong fails alone; what goes wrong in the forward is everybody's. */
void engine_predict(const struct engine_task *tasks, size_t count)
{
    struct prediction p[ENGINE_BATCH_MAX] = {0};
    struct resident *resident = NULL;
    struct lt_error error;
    size_t ready = 0;
    lt_status status = engine_load(&tasks[0], ENGINE_TRANSFORMER, &resident, &error);
    for (size_t i = 0; i < count; i++) {
        struct lt_error *own = &tasks[i].work->error;
        p[ready] = (struct prediction){.task = &tasks[i]};
        lt_status one =
            status == LT_OK ? begin(&p[ready], own) : lt_fail(own, status, "%s", error.text);
        if (one == LT_OK && tasks[i].spec->no_velocity) {
            memset(p[ready].v, 0, (size_t)lt_view_count(&p[ready].x) * sizeof(float));
            settle(&p[ready], LT_OK);
            continue;
        }
        if (one == LT_OK)
            one = take_prompts(&p[ready], resident->dit, own);
        if (one == LT_OK)
            begin_reuse(&p[ready], resident->dit);
        if (one == LT_OK)
            ready++;
        else
            settle(&p[ready], one);
    }
    if (ready > 0)
        status = forward(p, ready, resident->dit, &error);
    for (size_t i = 0; i < ready; i++) {
        struct lt_error *own = &p[i].task->work->error;
        settle(&p[i],
               status == LT_OK ? finish(&p[i], own) : lt_fail(own, status, "%s", error.text));
    }
    if (status == LT_CORRUPT) /* the file is another one now: what was read of it must not stay */
        engine_drop(tasks[0].engine, ENGINE_TRANSFORMER);
}
