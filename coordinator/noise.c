#include "coordinator/noise.h"

#include "common/rng.h"

#include <stdlib.h>
#include <string.h>

enum { MARKS_MAX = 4096, BLOCK = 16 /* torch makes normals in blocks of 16 */ };

/* The torch stream as a tape of u32: where a draw begins, and states to wind from. */
struct tape {
    uint64_t draw_values; /* numbers of one full draw: C T h w */
    uint64_t draw_words;  /* what it takes from the tape */
    uint64_t step_first;  /* where the draw of step 0 begins */
    uint64_t mark_spacing;
    uint32_t mark_count; /* marks made so far; mark k stands at k * mark_spacing */
    struct lt_torch_rng *mark;
};

struct noise {
    enum noise_kind kind;
    uint64_t seed;
    uint32_t frame_count, channel_count;
    size_t plane_values; /* h w */
    uint32_t *source;    /* [T]: whose initial noise a frame gets */
    struct tape tape;
};

lt_status noise_freenoise(uint32_t frame_count, uint32_t window_frames, uint32_t overlap,
                          noise_order *order, void *context, uint32_t *source_out,
                          struct lt_error *error)
{
    const uint32_t hop = window_frames - overlap;
    uint32_t *shuffled = malloc(hop * sizeof *shuffled);
    if (!shuffled)
        return lt_fail(error, LT_NO_MEMORY, "no memory to shuffle %u latent frames", hop);
    for (uint32_t f = 0; f < frame_count; f++)
        source_out[f] = f;
    uint32_t chunk = 0;
    for (uint32_t start = 0; (uint64_t)start + window_frames < frame_count; start += hop, chunk++) {
        const uint32_t place = start + window_frames;
        const uint32_t count = frame_count - place < hop ? frame_count - place : hop;
        order(context, chunk, shuffled, count);
        for (uint32_t k = 0; k < count;
             k++) /* in place: later chunks copy what earlier ones copied */
            source_out[place + k] = source_out[start + shuffled[k]];
    }
    free(shuffled);
    return LT_OK;
}

static void order_counter(void *context, uint32_t chunk, uint32_t *order_out, uint32_t count)
{
    const struct noise *noise = context;
    const struct lt_philox stream = lt_philox_stream(noise->seed, LT_STREAM_FREENOISE, chunk, 0);
    for (uint32_t i = 0; i < count; i++)
        order_out[i] = i;
    for (uint32_t i = 0; i + 1 < count; i++) {
        uint32_t random;
        lt_philox_u32(&stream, i, &random, 1);
        const uint32_t other = i + random % (count - i);
        const uint32_t kept = order_out[i];
        order_out[i] = order_out[other];
        order_out[other] = kept;
    }
}

static void skip(struct lt_torch_rng *rng, uint64_t words)
{
    for (uint64_t i = 0; i < words; i++)
        lt_torch_u32(rng);
}

/* A generator that stands at `position` of the tape. */
static struct lt_torch_rng wind(struct tape *tape, uint64_t position)
{
    const uint64_t nearest = position / tape->mark_spacing;
    lt_assert(nearest < MARKS_MAX);
    for (; tape->mark_count <= nearest; tape->mark_count++) {
        tape->mark[tape->mark_count] = tape->mark[tape->mark_count - 1];
        skip(&tape->mark[tape->mark_count], tape->mark_spacing);
    }
    struct lt_torch_rng rng = tape->mark[nearest];
    skip(&rng, position - nearest * tape->mark_spacing);
    return rng;
}

struct order_torch_context {
    struct lt_torch_rng rng;
    uint64_t words;
};

static void order_torch(void *context, uint32_t chunk, uint32_t *order_out, uint32_t count)
{
    (void)chunk;
    struct order_torch_context *torch = context;
    lt_torch_randperm(&torch->rng, order_out, count);
    torch->words += count - 1;
}

/* Lays the tape out and shuffles, if the job wants it, at its place in the order of draws. */
static lt_status tape_init(struct noise *noise, const struct job *job, uint32_t step_count,
                           struct lt_error *error)
{
    struct tape *tape = &noise->tape;
    tape->draw_values = (uint64_t)noise->frame_count * noise->channel_count * noise->plane_values;
    if (tape->draw_values < BLOCK)
        return lt_fail(error, LT_UNSUPPORTED, "a torch draw of %llu numbers: expected at least %d",
                       (unsigned long long)tape->draw_values, BLOCK);
    tape->draw_words = tape->draw_values + (tape->draw_values % BLOCK ? BLOCK : 0);
    const uint64_t words = (step_count + UINT64_C(1)) * tape->draw_words + noise->frame_count;
    tape->mark_spacing = words / MARKS_MAX + 1;
    if (tape->mark_spacing < 1024)
        tape->mark_spacing = 1024;
    tape->mark = malloc((size_t)(words / tape->mark_spacing + 1) * sizeof *tape->mark);
    if (!tape->mark)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the noise generator's marks");
    lt_torch_seed(&tape->mark[0], noise->seed);
    tape->mark_count = 1;
    tape->step_first = tape->draw_words;
    if (job->freenoise) {
        struct order_torch_context torch = {.rng = wind(tape, tape->draw_words)};
        LT_TRY(noise_freenoise(noise->frame_count, (uint32_t)job->window_frames,
                               (uint32_t)job->window_overlap, order_torch, &torch, noise->source,
                               error));
        tape->step_first += torch.words;
    }
    return LT_OK;
}

lt_status noise_create(const struct job *job, const struct plan *plan, struct noise **noise_out,
                       struct lt_error *error)
{
    lt_status status = LT_OK;
    struct noise *noise = calloc(1, sizeof *noise);
    uint32_t *source = malloc((size_t)plan->latent_frames * sizeof *source);
    if (!noise || !source) {
        free(noise);
        free(source);
        return lt_fail(error, LT_NO_MEMORY, "no memory for the noise of %lld latent frames",
                       (long long)plan->latent_frames);
    }
    *noise = (struct noise){
        .kind = job->noise,
        .seed = job->seed,
        .frame_count = (uint32_t)plan->latent_frames,
        .channel_count = (uint32_t)plan->latent_channels,
        .plane_values = (size_t)(plan->latent_height * plan->latent_width),
        .source = source,
    };
    for (uint32_t f = 0; f < noise->frame_count; f++)
        source[f] = f;
    if (job->noise == NOISE_TORCH)
        status = tape_init(noise, job, plan->step_count, error);
    else if (job->freenoise && job->mode == JOB_MODE_WINDOWS) /* clips do not overlap */
        status =
            noise_freenoise(noise->frame_count, (uint32_t)job->window_frames,
                            (uint32_t)job->window_overlap, order_counter, noise, source, error);
    if (status != LT_OK)
        noise_destroy(&noise);
    else
        *noise_out = noise;
    return status;
}

void noise_destroy(struct noise **noise)
{
    if (!*noise)
        return;
    free((*noise)->tape.mark);
    free((*noise)->source);
    free(*noise);
    *noise = NULL;
}

/* Copies what [at, at + BLOCK) and [first, first + count) share; out[0] is value `first`. */
static void copy_shared(const float *block, uint64_t at, uint64_t first, size_t count, float *out)
{
    for (uint64_t k = 0; k < BLOCK; k++)
        if (at + k >= first && at + k < first + count)
            out[at + k - first] = block[k];
}

/* Values [first, first + count) of the full draw that begins at `draw` on the tape. A draw that
 * does not end on a block makes its last 16 values again from 16 fresh words (pipeline.md 3.9). */
static void draw_values(struct tape *tape, uint64_t draw, uint64_t first, size_t count, float *out)
{
    float block[BLOCK];
    uint64_t at = first / BLOCK * BLOCK;
    struct lt_torch_rng rng = wind(tape, draw + at);
    for (; at < first + count && at + BLOCK <= tape->draw_values; at += BLOCK) {
        lt_torch_randn(&rng, block, BLOCK);
        copy_shared(block, at, first, count, out);
    }
    const uint64_t tail = tape->draw_values - BLOCK;
    if (tape->draw_values % BLOCK && first + count > tail) {
        rng = wind(tape, draw + tape->draw_values);
        lt_torch_randn(&rng, block, BLOCK);
        copy_shared(block, tail, first, count, out);
    }
}

/* Memory order is [C, T, h, w]: the planes of a frame lie T planes apart. */
static void draw_frame(struct noise *noise, uint64_t draw, uint32_t frame, float *frame_out)
{
    for (uint32_t c = 0; c < noise->channel_count; c++) {
        const uint64_t plane = (uint64_t)c * noise->frame_count + frame;
        draw_values(&noise->tape, draw, plane * noise->plane_values, noise->plane_values,
                    frame_out + c * noise->plane_values);
    }
}

void noise_initial_frame(struct noise *noise, uint32_t frame, float *frame_out)
{
    lt_assert(frame < noise->frame_count);
    const uint32_t source = noise->source[frame];
    if (noise->kind == NOISE_TORCH) {
        draw_frame(noise, 0, source, frame_out);
        return;
    }
    for (uint32_t c = 0; c < noise->channel_count; c++) {
        const struct lt_philox stream =
            lt_philox_stream(noise->seed, LT_STREAM_INITIAL_NOISE, source, c);
        lt_philox_normal(&stream, 0, frame_out + c * noise->plane_values, noise->plane_values);
    }
}

void noise_step_frame(struct noise *noise, uint32_t step, uint32_t frame, float *frame_out)
{
    lt_assert(frame < noise->frame_count);
    if (noise->kind == NOISE_TORCH) {
        draw_frame(noise, noise->tape.step_first + step * noise->tape.draw_words, frame, frame_out);
        return;
    }
    const struct lt_philox stream =
        lt_philox_stream(noise->seed, LT_STREAM_STEP_NOISE, step, frame);
    lt_philox_normal(&stream, 0, frame_out, noise->channel_count * noise->plane_values);
}

void noise_motion_plane(struct noise *noise, uint32_t step, uint32_t frame, uint32_t channel,
                        float *plane_out)
{
    const struct lt_philox stream = lt_philox_stream(noise->seed, LT_STREAM_MOTION, step, frame);
    lt_assert(noise->kind == NOISE_PHILOX);
    lt_philox_normal(&stream, (uint64_t)channel * noise->plane_values, plane_out,
                     noise->plane_values);
}
