/* Between the files of the worker's state machine (core.h): core.c is the connection and its time,
 * core_work.c what becomes of a task, core_stream.c the bytes that come and go. */
#pragma once

#include "worker/blobs.h"
#include "worker/core.h"

enum {
    FILE_NAME_BYTES = 256, /* what file systems allow */
    TASKS_MAX = 32,        /* running, waiting and finished ones whose result is not committed */
    GREETING_US = 5000000, /* a HELLO without an answer */
    BACKOFF_US = 200000,   /* first pause before a new connection, doubled up to … */
    BACKOFF_MAX_US = 30000000,
    RESEND_US_MIN = 1000000,   /* an OFFER or FETCH without an answer */
    UNHEARD_US_MAX = 600000000 /* results are held this long without a coordinator */
};

enum link_state { LINK_DOWN, LINK_GREETING, LINK_UP };
enum task_stage { STAGE_NONE, STAGE_FETCHING, STAGE_RUNNING, STAGE_FINISHED };

struct task {
    enum task_stage stage;
    uint64_t number, epoch, order; /* order: of arrival */
    struct lt_task_spec spec;
    char model_name[LT_TEXT_BYTES_MAX + 1];
    char file_name[LT_SPEC_LORAS_MAX + 1][FILE_NAME_BYTES]; /* of LoRAs, and of the add-on */
    struct engine_lora lora[LT_SPEC_LORAS_MAX];
    float lora_strength[LT_SPEC_LORAS_MAX];
    bool dropped; /* running, but nobody wants the result any more */
    bool release; /* and the coordinator is to be told when it has ended */
    uint8_t *result;
    struct lt_digest digest;
    uint64_t stream; /* of the offer under way, 0: none */
    struct lt_stream_sender sender;
    int64_t offered_us; /* last OFFER or progress */
};

struct worker_core {
    struct worker_params params;
    worker_act *act;
    void *context;
    enum link_state link;
    int64_t link_since_us, retry_us, heard_us, beat_us;
    int64_t bulk_us; /* when the bulk connection last spoke, or was not waited for */
    uint32_t attempts, beat_sequence;
    uint64_t session, next_stream, next_order;
    uint32_t heartbeat_ms, lease_ms;
    uint64_t credit_bytes;
    bool draining, exiting;
    struct task task[TASKS_MAX];
    struct blobs blobs;
    uint32_t batch_max;
    struct engine_work work[ENGINE_BATCH_MAX]; /* what runs */
    struct lt_progress progress;               /* of all that runs */
    struct lt_beat_memory memory;
    struct lt_digest resident;
    struct worker_core_stats stats;
};

/* -- core_state.c: what all of them do --------------------------------------------------------- */

void worker_core_act(struct worker_core *core, const struct worker_action *action);
void worker_core_send(struct worker_core *core, const struct lt_message *message);
/* The process is to end with this status and text; once. */
void worker_core_leave(struct worker_core *core, lt_status status, const char *text);
struct task *worker_core_find_task(struct worker_core *core, uint64_t number);
/* The one that came first of those in this stage; NULL: none. */
struct task *worker_core_find_stage(struct worker_core *core, enum task_stage stage);
uint32_t worker_core_slot_count(const struct worker_core *core);
/* Its slot is free; its blobs stay cached. */
void worker_core_forget_task(struct worker_core *core, struct task *task);

/* -- core_work.c ------------------------------------------------------------------------------- */

/* FAIL, when there is somebody to tell. */
void worker_core_report_failure(struct worker_core *core, const struct task *task, lt_status status,
                                const char *text);
/* A drained worker says BYE and leaves once nothing is left to do. */
void worker_core_after_work(struct worker_core *core);
/* The oldest waiting task, and with it those that may join it; nothing overtakes one whose blobs
 * are on their way, so that no task waits for ever. */
void worker_core_start_next(struct worker_core *core);
void worker_core_on_assign(struct worker_core *core, const struct lt_assign *assign,
                           int64_t now_us);
/* The coordinator does not want the task any more. `tell`: it waits to hear that it ended. */
void worker_core_drop_task(struct worker_core *core, struct task *task, bool tell);
void worker_core_on_revoked(struct worker_core *core, const struct lt_beat_ack *ack);
void worker_core_on_cancel(struct worker_core *core, const struct lt_cancel *cancel);

/* -- core_stream.c ----------------------------------------------------------------------------- */

/* OFFER of a finished task on a new stream. */
void worker_core_offer(struct worker_core *core, struct task *task, int64_t now_us);
void worker_core_on_want(struct worker_core *core, const struct lt_want *want, int64_t now_us);
void worker_core_on_committed(struct worker_core *core, const struct lt_committed *committed,
                              int64_t now_us);
/* FETCH of a blob from where it stands, on a new stream. */
void worker_core_fetch(struct worker_core *core, struct blob *blob, int64_t now_us);
void worker_core_on_chunk(struct worker_core *core, const struct lt_packet *packet, int64_t now_us);
void worker_core_on_abort(struct worker_core *core, const struct lt_abort *abort_message,
                          int64_t now_us);
/* Asks again for what was not answered: packets may be lost when a queue overflows or a connection
 * breaks. */
void worker_core_resend(struct worker_core *core, int64_t now_us);
/* Something is due on the bulk connection: an answer to an offer, or a chunk. */
bool worker_core_waits_for_bulk(const struct worker_core *core);
void worker_core_on_credit(struct worker_core *core, const struct lt_credit *credit,
                           int64_t now_us);
