/* longtake plan: what a job will do, before anything runs. */
#include "client/commands.h"

#include "client/plan_memory.h"
#include "common/option.h"
#include "common/progress.h"
#include "coordinator/cut.h"
#include "coordinator/plan_json.h"

#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

struct settings {
    bool json;
    struct plan_memory memory;
};

#define MEMORY(field, option, value, ...)                                                          \
    {                                                                                              \
        .name = option, .kind = LT_OPTION_TEXT, .offset = offsetof(struct settings, memory.field), \
        .value_name = value, __VA_ARGS__                                                           \
    }

static const struct lt_option options[] = {
    LT_OPTION(struct settings, json, FLAG, NULL, NULL,
              .help = "everything, for scripts (docs/plan.md)"),
    MEMORY(device, "device", "NAME", .choices = "host|gpu",
           .help = "of the workers that the memory is planned for [host]"),
    MEMORY(device_memory, "device_memory", "SIZE", .help = "what such a device has"),
    MEMORY(ram, "ram", "SIZE", .help = "main memory of such a worker"),
    MEMORY(blocks_to_swap, "blocks_to_swap", "N", .help = "blocks streamed [as few as fit]"),
    MEMORY(prefetch, "prefetch", "K", .help = "streamed blocks fetched ahead [1]"),
    MEMORY(worker_program, "worker_program", "FILE",
           .help = "longtake-worker [beside this program]"),
};
static const struct lt_command command = {
    .program = "longtake plan",
    .usage = "JOB.json [--json] [options]",
    .summary = "Shows the context windows, steps, tasks and bytes of a job, and, where its model "
               "file is on this machine, what the model takes of a worker's memory. Runs nothing.",
    .examples = "  longtake plan take.json\n  longtake plan take.json --json | jq '.windows[0]'\n"
                "  longtake plan take.json --device gpu --device-memory 16GiB --ram 24GiB",
    .options = options,
    .option_count = LT_COUNT(options),
    .operand_min = 1,
    .operand_max = 1,
};

/* Steps whose prediction with the prompt reuses earlier work. */
static void print_skips(const struct job *job, const struct plan *plan)
{
    static const char *const open[] = {
        [JOB_CACHE_TEACACHE] = "as the transformer's time embeddings turn out",
        [JOB_CACHE_EASYCACHE] = "as each window finds",
    };
    if (job->cache.kind == JOB_CACHE_NONE)
        return;
    if (job->cache.kind != JOB_CACHE_MAGCACHE) {
        printf("reused     %s\n", open[job->cache.kind]);
        return;
    }
    uint32_t count = 0;
    printf("reused     by steps");
    for (uint32_t s = 0; s < plan->step_count; s++)
        if (plan->step[s].skip & 1) {
            printf(" %u", s);
            count++;
        }
    printf(count ? ": %u of %u\n" : " none: %u of %u\n", count, plan->step_count);
}

static void print_plan(const struct job *job, const struct plan *plan)
{
    char down[32], up[32], slice[32];
    uint32_t least = UINT32_MAX, most = 0;
    for (uint32_t s = 0; s < plan->step_count; s++) {
        least = plan->step[s].window_count < least ? plan->step[s].window_count : least;
        most = plan->step[s].window_count > most ? plan->step[s].window_count : most;
    }
    const struct window *first = &plan->step[0].window[0];
    const int64_t tokens = first->frame_count * plan->latent_height * plan->latent_width / 4;
    printf("job        %s\n", job->name);
    printf("take       %lld frames of %lldx%lld at %g frames a second (%.1f s)\n",
           (long long)job->frame_count, (long long)job->width, (long long)job->height, job->fps,
           (double)job->frame_count / job->fps);
    printf("latents    [%lld, %lld, %lld, %lld]\n", (long long)plan->latent_channels,
           (long long)plan->latent_frames, (long long)plan->latent_height,
           (long long)plan->latent_width);
    if (plan->clips.count)
        printf("clips      %u in a chain, overlap %u", most, plan->clips.params.overlap_frames);
    else if (least == most)
        printf("windows    %u a step", most);
    else
        printf("windows    %u to %u a step", least, most);
    printf(", %u latent frames, %lld tokens each\n", first->frame_count, (long long)tokens);
    printf("steps      %u, timesteps %g to %g\n", plan->step_count, plan->step[0].timestep,
           plan->step[plan->step_count - 1].timestep);
    print_skips(job, plan);
    printf("tasks      %u predictions, %u decodes", plan->predict_count, plan->segment_count);
    if (plan->condition_count)
        printf(", %u encodes of what is given", plan->condition_count);
    putchar('\n');
    if (plan->clips.count) /* no clip is denoised before the one before is decoded */
        printf("speed-up   none by more workers but in encoding: run several such jobs at once\n");
    else
        printf("speed-up   at most %u workers can work at once\n", most);
    printf("wire       %s to workers, %s back; %s a window and step each way\n",
           lt_size_format(plan->wire_bytes_down, down), lt_size_format(plan->wire_bytes_up, up),
           lt_size_format(plan->frame_bytes * first->frame_count, slice));
    uint64_t given, made;
    if (plan->condition_count && cut_wire(job, plan, &given, &made, NULL) == LT_OK)
        printf("given      %s more to workers, %s encoded back\n", lt_size_format(given, down),
               lt_size_format(made, up));
}

static lt_status print_all(const struct job_file *file, const struct plan *plan,
                           const struct plan_memory *memory, struct lt_error *error)
{
    struct plan_memory_files files;
    const char *lacking = plan_memory_files(file, &files);
    print_plan(&file->job, plan);
    if (!lacking)
        return plan_memory_print(memory, &file->job, plan, &files, error);
    printf("not known  memory: %s is not on this machine (longtake-worker memory adds it up where "
           "it is)\n",
           lacking);
    return LT_OK;
}

static lt_status write_json(const struct job_file *file, const struct plan *plan,
                            const struct plan_memory *memory, struct lt_error *error)
{
    struct plan_memory_files files;
    char *worker = NULL;
    if (!plan_memory_files(file, &files))
        LT_TRY(plan_memory_json(memory, &file->job, plan, &files, &worker, error));
    const lt_status status = plan_write_json(&file->job, plan, worker, stdout, error);
    free(worker);
    return status;
}

static lt_status run(const char *path, const struct settings *settings, struct lt_error *error)
{
    struct job_file file = {0};
    struct lt_arena arena;
    struct plan plan;
    LT_TRY(job_file_read(path, &file, error));
    lt_arena_init(&arena, 0);
    lt_status status = plan_build(&file.job, &arena, &plan, error);
    if (status == LT_OK && settings->json)
        status = write_json(&file, &plan, &settings->memory, error);
    else if (status == LT_OK)
        status = print_all(&file, &plan, &settings->memory, error);
    lt_arena_fini(&arena);
    job_file_fini(&file);
    return status;
}

static lt_status start(void *context, const void *settings, const struct lt_operands *operands,
                       struct lt_error *error)
{
    (void)context;
    return run(operands->item[0], settings, error);
}

int client_plan(int argc, char **argv)
{
    return lt_command_main(&command, argc, argv, sizeof(struct settings), start, NULL);
}
