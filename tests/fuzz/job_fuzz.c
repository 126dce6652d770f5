/* Any bytes as a job file: refused with a text, or a job whose canonical text reads back as itself,
 * and whose plan is made or refused within bounded memory. */
#include "coordinator/job.h"
#include "coordinator/plan.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lt_error error = {0};
    struct lt_arena arena;
    lt_arena_init(&arena, 64 << 20);
    struct job job, again;
    if (job_parse((const char *)data, size, "fuzz", &arena, &job, &error) == LT_OK) {
        char *first, *second;
        lt_assert(job_format(&job, &arena, &first, &error) == LT_OK);
        lt_assert(job_parse(first, strlen(first), "canonical", &arena, &again, &error) == LT_OK);
        lt_assert(job_format(&again, &arena, &second, &error) == LT_OK);
        lt_assert(strcmp(first, second) == 0);
        struct plan plan;
        if (job.frame_count < 2000 && plan_build(&job, &arena, &plan, &error) == LT_OK)
            lt_assert(plan.task_count > plan.predict_count);
    } else {
        lt_assert(error.text[0] != 0);
    }
    lt_arena_fini(&arena);
    return 0;
}
