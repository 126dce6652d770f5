#include "worker/core_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void worker_core_act(struct worker_core *core, const struct worker_action *action)
{
    core->act(core->context, action);
}

void worker_core_send(struct worker_core *core, const struct lt_message *message)
{
    worker_core_act(core,
                    &(struct worker_action){.kind = WORKER_SEND, .packet = {.message = *message}});
}

void worker_core_leave(struct worker_core *core, lt_status status, const char *text)
{
    struct worker_action action = {.kind = WORKER_EXIT, .status = status};
    if (core->exiting)
        return;
    core->exiting = true;
    snprintf(action.text, sizeof action.text, "%s", text);
    worker_core_act(core, &action);
}

struct task *worker_core_find_task(struct worker_core *core, uint64_t number)
{
    for (int i = 0; i < TASKS_MAX; i++)
        if (core->task[i].stage != STAGE_NONE && core->task[i].number == number)
            return &core->task[i];
    return NULL;
}

struct task *worker_core_find_stage(struct worker_core *core, enum task_stage stage)
{
    struct task *first = NULL;
    for (int i = 0; i < TASKS_MAX; i++)
        if (core->task[i].stage == stage && (!first || core->task[i].order < first->order))
            first = &core->task[i];
    return first;
}

uint32_t worker_core_slot_count(const struct worker_core *core)
{
    return core->batch_max * WORKER_SLOTS_PER_TASK;
}

void worker_core_forget_task(struct worker_core *core, struct task *task)
{
    if (task->stage == STAGE_FETCHING || task->stage == STAGE_RUNNING)
        for (size_t i = 0; i < task->spec.blob_count; i++)
            blobs_release(&core->blobs, &task->spec.blob[i].digest);
    free(task->result);
    memset(task, 0, sizeof *task);
}
