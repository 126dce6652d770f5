/* Written as it is walked, not built as a tree: the longest jobs have millions of window slots.
 * Numbers have all their digits (9 for f32, 17 for f64). */
#include "coordinator/plan_json.h"

#include "coordinator/cut.h"
#include "coordinator/sampler.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static const char *comma(uint32_t index)
{
    return index ? "," : "";
}

/* "key":[[[…],…],…]: for each step its windows, for each window its frames or their weights. */
static void write_windows(const struct plan *plan, const char *key, bool weights, FILE *to)
{
    fprintf(to, "\"%s\":[", key);
    for (uint32_t s = 0; s < plan->step_count; s++) {
        fprintf(to, "%s[", comma(s));
        for (uint32_t w = 0; w < plan->step[s].window_count; w++) {
            const struct window *window = &plan->step[s].window[w];
            fprintf(to, "%s[", comma(w));
            for (uint32_t k = 0; k < window->frame_count; k++)
                if (weights)
                    fprintf(to, "%s%.9g", comma(k), (double)window->weight[k]);
                else
                    fprintf(to, "%s%" PRIu32, comma(k), window->frame[k]);
            fputc(']', to);
        }
        fputc(']', to);
    }
    fputs("],\n", to);
}

static void write_steps(const struct plan *plan, FILE *to)
{
    const uint32_t count = plan->step_count;
    fputs("\"sigmas\":[", to);
    for (uint32_t s = 0; s < count; s++)
        fprintf(to, "%s%.17g", comma(s), plan->step[s].sigma);
    fprintf(to, ",%.17g],\n\"timesteps\":[", plan->step[count - 1].sigma_next);
    for (uint32_t s = 0; s < count; s++)
        fprintf(to, "%s%.17g", comma(s), plan->step[s].timestep);
    fputs("],\n\"guidance\":[", to);
    for (uint32_t s = 0; s < count; s++)
        fprintf(to, "%s%.17g", comma(s), plan->step[s].guidance);
    fputs("],\n\"experts\":[", to);
    for (uint32_t s = 0; s < count; s++)
        fprintf(to, "%s\"%s\"", comma(s), plan->step[s].low_expert ? "low" : "high");
    fputs("],\n", to);
}

/* "skips":{"positive":[2,3,…],"negative":[…]}: steps that reuse an earlier one's work. null:
 * decided when the model's time embeddings are known, or by every window for itself. */
static void write_skips(const struct job *job, const struct plan *plan, FILE *to)
{
    static const char *const half[] = {"positive", "negative"};
    if (job->cache.kind == JOB_CACHE_NONE)
        return;
    if (job->cache.kind != JOB_CACHE_MAGCACHE) {
        fputs("\"skips\":null,\n", to);
        return;
    }
    for (uint32_t h = 0; h < LT_COUNT(half); h++) {
        uint32_t count = 0;
        fprintf(to, "%s\"%s\":[", h ? "," : "\"skips\":{", half[h]);
        for (uint32_t s = 0; s < plan->step_count; s++)
            if (plan->step[s].skip >> h & 1)
                fprintf(to, "%s%" PRIu32, comma(count++), s);
        fputc(']', to);
    }
    fputs("},\n", to);
}

static void write_tasks(const struct plan *plan, FILE *to)
{
    fprintf(to,
            "\"tasks\":{\"predict\":%" PRIu32 ",\"decode\":%" PRIu32 ",\"condition\":%" PRIu32
            ",\"total\":%" PRIu32 "},\n",
            plan->predict_count, plan->segment_count, plan->condition_count, plan->task_count);
    fputs("\"segments\":[", to);
    for (uint32_t k = 0; k < plan->segment_count; k++) {
        const struct plan_segment *segment = &plan->segment[k];
        fprintf(to,
                "%s{\"latent_first\":%" PRIu32 ",\"latent_count\":%" PRIu32
                ",\"drop_frames\":%" PRIu32 ",\"frame_first\":%" PRIu32 ",\"frame_count\":%" PRIu32
                "}",
                comma(k), segment->frame_first, segment->frame_count, segment->drop_frames,
                segment->pixel_first, segment->pixel_count);
    }
    fputs("],\n", to);
}

static uint32_t largest_window(const struct plan *plan)
{
    uint32_t largest = 0;
    for (uint32_t s = 0; s < plan->step_count; s++)
        for (uint32_t w = 0; w < plan->step[s].window_count; w++)
            if (plan->step[s].window[w].frame_count > largest)
                largest = plan->step[s].window[w].frame_count;
    return largest;
}

/* What the coordinator keeps for the job, and the largest slice or prediction on the wire. */
static void write_bytes(const struct job *job, const struct plan *plan, const char *worker_memory,
                        const uint64_t condition[2], FILE *to)
{
    const uint64_t latents = plan->frame_bytes * (uint64_t)plan->latent_frames;
    const uint64_t slice = plan->frame_bytes * largest_window(plan);
    fprintf(to,
            "\"memory\":{\"latent_frame_bytes\":%" PRIu64 ",\"latents_bytes\":%" PRIu64
            ",\"history_bytes\":%" PRIu64 ",\"slice_bytes_max\":%" PRIu64 ",\"worker\":%s},\n",
            plan->frame_bytes, latents, latents * sampler_history_count(job->sampler), slice,
            worker_memory ? worker_memory : "null");
    fprintf(to,
            "\"wire\":{\"down_bytes\":%" PRIu64 ",\"up_bytes\":%" PRIu64
            ",\"window_step_bytes_max\":%" PRIu64 ",\"condition_down_bytes\":%" PRIu64
            ",\"condition_up_bytes\":%" PRIu64 "}\n}\n",
            plan->wire_bytes_down, plan->wire_bytes_up, 2 * slice, condition[0], condition[1]);
}

lt_status plan_write_json(const struct job *job, const struct plan *plan, const char *worker_memory,
                          FILE *to, struct lt_error *error)
{
    uint64_t condition[2];
    LT_TRY(cut_wire(job, plan, &condition[0], &condition[1], error));
    fprintf(to,
            "{\"frames\":%" PRId64 ",\"size\":[%" PRId64 ",%" PRId64 "],\"latent\":[%" PRId64
            ",%" PRId64 ",%" PRId64 ",%" PRId64 "],\n",
            job->frame_count, job->width, job->height, plan->latent_channels, plan->latent_frames,
            plan->latent_height, plan->latent_width);
    write_windows(plan, "windows", false, to);
    write_windows(plan, "weights", true, to);
    write_steps(plan, to);
    write_skips(job, plan, to);
    write_tasks(plan, to);
    write_bytes(job, plan, worker_memory, condition, to);
    if (fflush(to) != 0 || ferror(to))
        return lt_fail(error, LT_IO, "the plan could not be written: %s", strerror(errno));
    return LT_OK;
}
