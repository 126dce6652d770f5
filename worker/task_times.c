/* compare-times: how much a transformer's time embeddings differ from step to step, f32 [steps,
 * steps]; from it the coordinator knows the steps that TeaCache leaves out (pipeline.md 5.1). */
#include "worker/engine_private.h"

#include <stdlib.h>
#include <string.h>

enum { TIMES_MAX = 4096 };

lt_status engine_compare_times(const struct engine_task *task, void **result_out,
                               struct lt_error *error)
{
    const struct engine_blob *blob = engine_find_blob(task, LT_BLOB_TIMES);
    struct resident *resident;
    const size_t count = blob ? blob->bytes / sizeof(double) : 0;
    if (count < 1 || count > TIMES_MAX || blob->bytes % sizeof(double) != 0)
        return lt_fail(error, LT_BAD_INPUT, "task: expected 1 to %d timesteps", TIMES_MAX);
    LT_TRY(engine_check_result_bytes(task, count * count * sizeof(float), error));
    double *time = malloc(blob->bytes);
    float *distance = malloc(count * count * sizeof *distance);
    lt_status status = LT_OK;
    if (!time || !distance) {
        status = lt_fail(error, LT_NO_MEMORY, "no memory for %zu timesteps", count);
        goto out;
    }
    memcpy(time, blob->data, blob->bytes);
    for (size_t i = 0; i < count; i++)
        if (!(time[i] >= 0 && time[i] <= 1000)) {
            status = lt_fail(error, LT_BAD_INPUT, "task: timestep %zu is %g, expected 0 to 1000", i,
                             time[i]);
            goto out;
        }
    LT_TRY_OR(engine_load(task, ENGINE_TRANSFORMER, &resident, error), out);
    engine_begin(task, 1);
    LT_TRY_OR(
        dit_compare_times(resident->dit, time, count, task->spec->time_projected, distance, error),
        out);
    LT_TRY_OR(engine_check_finite(distance, (int64_t)(count * count), "comparison", error), out);
    *result_out = distance;
    distance = NULL;
out:
    free(time);
    free(distance);
    return status;
}
