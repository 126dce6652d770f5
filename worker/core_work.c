#include "worker/core_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void worker_core_report_failure(struct worker_core *core, const struct task *task, lt_status status,
                                const char *text)
{
    struct lt_message message = {.kind = LT_MESSAGE_FAIL,
                                 .fail = {task->number, task->epoch, status, text}};
    core->stats.tasks_failed++;
    if (core->link == LINK_UP)
        worker_core_send(core, &message);
}

static void release(struct worker_core *core, const struct task *task, lt_status reason)
{
    struct lt_message message = {.kind = LT_MESSAGE_RELEASE,
                                 .release = {task->number, task->epoch, reason}};
    if (core->link == LINK_UP)
        worker_core_send(core, &message);
}

void worker_core_after_work(struct worker_core *core)
{
    if (core->draining && worker_core_is_idle(core)) {
        struct lt_message message = {.kind = LT_MESSAGE_BYE, .bye = {"drained"}};
        if (core->link == LINK_UP)
            worker_core_send(core, &message);
        worker_core_leave(core, LT_OK, "drained");
    }
}

/* Those whose blobs cannot be had. */
static void fail_unfetchable(struct worker_core *core)
{
    for (int i = 0; i < TASKS_MAX; i++) {
        struct task *task = &core->task[i];
        bool failed = false;
        for (size_t b = 0; task->stage == STAGE_FETCHING && b < task->spec.blob_count; b++)
            failed = failed ||
                     blobs_find(&core->blobs, &task->spec.blob[b].digest)->state == BLOB_FAILED;
        if (failed) {
            worker_core_report_failure(core, task, LT_LINK, "a blob could not be fetched whole");
            worker_core_forget_task(core, task);
        }
    }
}

/* False: a blob is still on its way. */
static bool make_work(struct worker_core *core, const struct task *task, struct engine_work *work)
{
    *work = (struct engine_work){.task = task->number,
                                 .epoch = task->epoch,
                                 .spec = &task->spec,
                                 .lora = task->lora,
                                 .lora_count = task->spec.lora_count,
                                 .blob_count = task->spec.blob_count};
    for (size_t i = 0; i < task->spec.blob_count; i++) {
        const struct blob *blob = blobs_find(&core->blobs, &task->spec.blob[i].digest);
        if (blob->state != BLOB_READY)
            return false;
        work->blob[i] =
            (struct engine_blob){task->spec.blob[i].role, blob->data, (size_t)blob->bytes};
    }
    return true;
}

void worker_core_start_next(struct worker_core *core)
{
    size_t count = 0;
    if (worker_core_find_stage(core, STAGE_RUNNING))
        return;
    fail_unfetchable(core);
    while (count < core->batch_max && !core->draining) {
        struct task *task = worker_core_find_stage(core, STAGE_FETCHING);
        if (!task || !make_work(core, task, &core->work[count]) ||
            (count > 0 && (!engine_may_join(core->work[0].spec, &task->spec) ||
                           !engine_same_loras(&core->work[0], &core->work[count]))))
            break;
        task->stage = STAGE_RUNNING;
        count++;
    }
    if (count == 0)
        return;
    core->progress = (struct lt_progress){.phase = LT_PHASE_LOADING};
    worker_core_act(core, &(struct worker_action){
                              .kind = WORKER_START, .work = core->work, .work_count = count});
}

static lt_status take_blobs(struct worker_core *core, struct task *task, struct lt_error *error)
{
    for (size_t i = 0; i < task->spec.blob_count; i++)
        if (!blobs_use(&core->blobs, &task->spec.blob[i].digest, task->spec.blob[i].bytes,
                       core->credit_bytes, error)) {
            while (i-- > 0)
                blobs_release(&core->blobs, &task->spec.blob[i].digest);
            return error->code;
        }
    return LT_OK;
}

static void decline(struct worker_core *core, const struct lt_assign *assign, lt_status status,
                    const char *text)
{
    struct lt_message message = {.kind = LT_MESSAGE_DECLINE,
                                 .decline = {assign->task, assign->epoch, status, text}};
    worker_core_send(core, &message);
}

static void on_known_assign(struct worker_core *core, struct task *task,
                            const struct lt_assign *assign, int64_t now_us)
{
    if (assign->epoch <= task->epoch)
        return; /* a repeated packet */
    task->epoch = assign->epoch;
    task->dropped = task->release = false;
    if (task->stage == STAGE_FINISHED)
        worker_core_offer(core, task, now_us);
}

void worker_core_on_assign(struct worker_core *core, const struct lt_assign *assign, int64_t now_us)
{
    struct task *task = worker_core_find_task(core, assign->task), *slot = NULL;
    struct lt_error error;
    int active = 0;
    if (task) {
        on_known_assign(core, task, assign, now_us);
        return;
    }
    for (int i = 0; i < TASKS_MAX; i++) {
        active += core->task[i].stage == STAGE_FETCHING || core->task[i].stage == STAGE_RUNNING;
        if (core->task[i].stage == STAGE_NONE && !slot)
            slot = &core->task[i];
    }
    if (active >= (int)worker_core_slot_count(core) || !slot || core->draining) {
        decline(core, assign, LT_BUSY, core->draining ? "draining" : "all slots are taken");
        return;
    }
    *slot = (struct task){.number = assign->task,
                          .epoch = assign->epoch,
                          .spec = assign->spec,
                          .order = ++core->next_order};
    snprintf(slot->model_name, sizeof slot->model_name, "%s", assign->spec.model.name);
    slot->spec.model.name = slot->model_name;
    for (size_t i = 0; i < slot->spec.lora_count; i++) {
        snprintf(slot->file_name[i], FILE_NAME_BYTES, "%s", assign->spec.lora[i].file.name);
        slot->spec.lora[i].file.name = slot->file_name[i];
        slot->lora_strength[i] = (float)assign->spec.lora[i].strength;
        slot->lora[i] = (struct engine_lora){.file = slot->spec.lora[i].file,
                                             .strength = &slot->lora_strength[i],
                                             .strength_count = 1,
                                             .expert = slot->spec.lora[i].expert,
                                             .plain_peft = slot->spec.lora[i].plain_peft};
    }
    if (slot->spec.addon.name) {
        snprintf(slot->file_name[LT_SPEC_LORAS_MAX], FILE_NAME_BYTES, "%s",
                 assign->spec.addon.name);
        slot->spec.addon.name = slot->file_name[LT_SPEC_LORAS_MAX];
    }
    if (take_blobs(core, slot, &error) != LT_OK) {
        decline(core, assign, error.code, error.text);
        memset(slot, 0, sizeof *slot);
        return;
    }
    slot->stage = STAGE_FETCHING;
    for (size_t i = 0; i < slot->spec.blob_count; i++) {
        struct blob *blob = blobs_find(&core->blobs, &slot->spec.blob[i].digest);
        if (blob->state == BLOB_FETCHING && blob->receiver.stream == 0)
            worker_core_fetch(core, blob, now_us);
    }
    worker_core_start_next(core);
}

/* A running task's result is wanted: the batch goes on for it. */
static bool somebody_waits(const struct worker_core *core)
{
    for (int i = 0; i < TASKS_MAX; i++)
        if (core->task[i].stage == STAGE_RUNNING && !core->task[i].dropped)
            return true;
    return false;
}

void worker_core_drop_task(struct worker_core *core, struct task *task, bool tell)
{
    if (task->stage == STAGE_RUNNING) {
        task->dropped = true;
        task->release = tell;
        if (!somebody_waits(core))
            worker_core_act(core, &(struct worker_action){.kind = WORKER_CANCEL});
        return;
    }
    if (tell && task->stage == STAGE_FETCHING)
        release(core, task, LT_CANCELLED);
    worker_core_forget_task(core, task);
}

void worker_core_finished(struct worker_core *core, uint64_t number, lt_status status,
                          const char *text, void *result, int64_t now_us)
{
    struct task *task = worker_core_find_task(core, number);
    lt_assert(task && task->stage == STAGE_RUNNING);
    if (task->dropped || status != LT_OK) {
        free(result);
        if (task->dropped ? task->release : status == LT_CANCELLED)
            release(core, task, LT_CANCELLED);
        else if (!task->dropped)
            worker_core_report_failure(core, task, status, text);
        worker_core_forget_task(core, task);
    } else {
        for (size_t i = 0; i < task->spec.blob_count; i++)
            blobs_release(&core->blobs, &task->spec.blob[i].digest);
        task->result = result;
        task->digest = lt_sha256(result, (size_t)task->spec.result_bytes);
        task->stage = STAGE_FINISHED;
        worker_core_offer(core, task, now_us);
    }
    worker_core_start_next(core);
    worker_core_after_work(core);
}

void worker_core_on_revoked(struct worker_core *core, const struct lt_beat_ack *ack)
{
    for (size_t i = 0; i < ack->revoked_count; i++) {
        struct task *task = worker_core_find_task(core, ack->revoked[i].task);
        /* A finished one is left: its offer is answered with STALE, or adopted. */
        if (task && task->epoch <= ack->revoked[i].epoch && task->stage != STAGE_FINISHED)
            worker_core_drop_task(core, task, false);
    }
    worker_core_start_next(core);
    worker_core_after_work(core);
}

void worker_core_on_cancel(struct worker_core *core, const struct lt_cancel *cancel)
{
    struct task *task = worker_core_find_task(core, cancel->task);
    if (task && task->epoch <= cancel->epoch)
        worker_core_drop_task(core, task, true);
    worker_core_start_next(core);
    worker_core_after_work(core);
}

void worker_core_drain(struct worker_core *core, int64_t now_us)
{
    (void)now_us;
    core->draining = true;
    for (int i = 0; i < TASKS_MAX; i++)
        if (core->task[i].stage == STAGE_FETCHING) {
            release(core, &core->task[i], LT_BUSY);
            worker_core_forget_task(core, &core->task[i]);
        }
    worker_core_after_work(core);
}
