/* The worker's side of the protocol, event by event. If this fails, a worker computes what nobody
 * wants, loses what it has computed, goes on under a lease that another has, or hangs when a
 * coordinator is gone or talks nonsense. */
#include "worker/core.h"

#include "tests/test.h"

#include <stdlib.h>

enum {
    HEARTBEAT_MS = 1000,
    LEASE_MS = 10000,
    SECOND = 1000000,
    ACTIONS_MAX = 64,
    RESULT_BYTES = 16
};

struct action {
    enum worker_action_kind kind;
    struct lt_message message; /* texts and lists only where copied below */
    struct lt_held held[4];
    struct lt_progress beat[4];
    uint64_t task; /* START: the first of … */
    size_t task_count;
    lt_status status;
    size_t payload_bytes;
};

struct bench {
    struct worker_core *core;
    int64_t now_us;
    struct action action[ACTIONS_MAX];
    size_t count, read;
    uint64_t running[ENGINE_BATCH_MAX]; /* in the engine */
    size_t running_count;
};

static const float slice[4] = {1, 2, 3, 4}, text[2] = {5, 6};

/* -- the bench: records what the core does ----------------------------------------------------- */

static void record(void *context, const struct worker_action *from)
{
    struct bench *b = context;
    assert_true(b->count < ACTIONS_MAX);
    struct action *to = &b->action[b->count++];
    *to = (struct action){.kind = from->kind,
                          .message = from->packet.message,
                          .task = from->work_count ? from->work[0].task : 0,
                          .task_count = from->work_count,
                          .status = from->status,
                          .payload_bytes = from->packet.payload_bytes};
    if (from->kind == WORKER_SEND && to->message.kind == LT_MESSAGE_HELLO) {
        assert_true(to->message.hello.held_count <= LT_COUNT(to->held));
        memcpy(to->held, to->message.hello.held, to->message.hello.held_count * sizeof *to->held);
    }
    if (from->kind == WORKER_SEND && to->message.kind == LT_MESSAGE_BEAT) {
        assert_true(to->message.beat.lease_count <= LT_COUNT(to->beat));
        memcpy(to->beat, to->message.beat.lease, to->message.beat.lease_count * sizeof *to->beat);
    }
    if (from->kind == WORKER_START) {
        assert_int_equal(b->running_count, 0);
        for (size_t i = 0; i < from->work_count; i++)
            b->running[b->running_count++] = from->work[i].task;
    }
}

static const struct action *next(struct bench *b)
{
    assert_true(b->read < b->count);
    return &b->action[b->read++];
}

static const struct action *next_kind(struct bench *b, enum worker_action_kind kind)
{
    const struct action *action = next(b);
    assert_int_equal(action->kind, kind);
    return action;
}

static const struct action *next_sent(struct bench *b, enum lt_message_kind kind)
{
    const struct action *action = next_kind(b, WORKER_SEND);
    assert_string_equal(lt_message_name(action->message.kind), lt_message_name(kind));
    return action;
}

static void assert_nothing(const struct bench *b)
{
    assert_int_equal(b->count, b->read);
}

static void hear_payload(struct bench *b, const struct lt_message *message, const void *payload,
                         size_t bytes)
{
    const struct lt_packet packet = {
        .message = *message, .payload = payload, .payload_bytes = bytes};
    worker_core_receive(b->core, &packet, b->now_us);
}

static void hear(struct bench *b, const struct lt_message *message)
{
    hear_payload(b, message, NULL, 0);
}

static void wait(struct bench *b, int64_t us)
{
    b->now_us += us;
    worker_core_tick(b->core, b->now_us);
}

static void connect(struct bench *b)
{
    wait(b, 0);
    next_kind(b, WORKER_RECONNECT);
    worker_core_connected(b->core, b->now_us);
}

static struct lt_message welcome(void)
{
    struct lt_message message = {.kind = LT_MESSAGE_WELCOME};
    message.welcome.heartbeat_ms = HEARTBEAT_MS;
    message.welcome.lease_ms = LEASE_MS;
    return message;
}

static void begin(struct bench *b)
{
    static const struct lt_model_file model = {.name = "m.gguf", .fingerprint = {{1}}, .bytes = 1};
    const struct worker_params params = {.name = "w",
                                         .build = "b",
                                         .device = "d",
                                         .kernel_class = "k",
                                         .model = &model,
                                         .model_count = 1,
                                         .boot_nonce = 9,
                                         .memory_bytes = 1,
                                         .blob_cache_bytes = 1 << 20};
    struct lt_error error;
    *b = (struct bench){.now_us = SECOND};
    assert_ok(worker_core_create(&params, record, b, b->now_us, &b->core, &error));
}

static void begin_up(struct bench *b)
{
    begin(b);
    connect(b);
    next_sent(b, LT_MESSAGE_HELLO);
    const struct lt_message message = welcome();
    hear(b, &message);
}

static void end(struct bench *b)
{
    worker_core_destroy(&b->core);
}

/* Tasks differ in number only: the second finds its blobs in the cache. */
static void assign_kind(struct bench *b, enum lt_task_kind kind, uint64_t task, uint64_t epoch)
{
    struct lt_message message = {.kind = LT_MESSAGE_ASSIGN};
    message.assign = (struct lt_assign){.task = task, .epoch = epoch, .lease_ms = LEASE_MS};
    message.assign.spec = (struct lt_task_spec){
        .kind = kind,
        .model = {.name = "m.gguf"},
        .blob = {{LT_BLOB_LATENTS, lt_sha256(slice, sizeof slice), sizeof slice},
                 {LT_BLOB_TEXT, lt_sha256(text, sizeof text), sizeof text}},
        .blob_count = 2,
        .result_bytes = RESULT_BYTES,
    };
    hear(b, &message);
}

static void assign(struct bench *b, uint64_t task, uint64_t epoch)
{
    assign_kind(b, LT_TASK_PREDICT, task, epoch);
}

static void give_blob(struct bench *b, uint64_t stream, const void *data, size_t bytes)
{
    const struct lt_message message = {.kind = LT_MESSAGE_CHUNK,
                                       .chunk = {stream, 0, lt_crc32c(0, data, bytes)}};
    hear_payload(b, &message, data, bytes);
}

/* The task runs: its two blobs were asked for and came. */
static void run_task(struct bench *b, uint64_t task)
{
    assign(b, task, 1);
    const uint64_t first = next_sent(b, LT_MESSAGE_FETCH)->message.fetch.stream;
    const uint64_t second = next_sent(b, LT_MESSAGE_FETCH)->message.fetch.stream;
    give_blob(b, first, slice, sizeof slice);
    assert_nothing(b); /* not before it has all */
    give_blob(b, second, text, sizeof text);
    assert_int_equal(next_kind(b, WORKER_START)->task, task);
    assert_nothing(b);
}

static void finish(struct bench *b, lt_status status)
{
    void *result = status == LT_OK ? calloc(1, RESULT_BYTES) : NULL;
    assert_true(b->running_count > 0);
    const uint64_t task = b->running[0];
    memmove(b->running, b->running + 1, --b->running_count * sizeof *b->running);
    worker_core_finished(b->core, task, status, "it fell over", result, b->now_us);
}

static void answer(struct bench *b, uint64_t stream, enum lt_verdict verdict)
{
    struct lt_message message = {.kind = LT_MESSAGE_WANT};
    message.want =
        (struct lt_want){.stream = stream, .verdict = verdict, .credit = LT_CREDIT_BYTES_DEFAULT};
    hear(b, &message);
}

static void commit(struct bench *b, uint64_t task, uint64_t epoch, enum lt_verdict verdict)
{
    const struct lt_message message = {.kind = LT_MESSAGE_COMMITTED,
                                       .committed = {task, epoch, verdict}};
    hear(b, &message);
}

/* -- a task's life ----------------------------------------------------------------------------- */

static void test_task_goes_all_the_way(void **state)
{
    (void)state;
    struct bench b;
    struct worker_core_stats stats;
    begin_up(&b);
    run_task(&b, 3);
    finish(&b, LT_OK);
    const struct lt_offer offer = next_sent(&b, LT_MESSAGE_OFFER)->message.offer;
    assert_int_equal(offer.task, 3);
    assert_int_equal(offer.epoch, 1);
    assert_int_equal(offer.bytes, RESULT_BYTES);
    answer(&b, offer.stream, LT_VERDICT_WANT);
    assert_int_equal(next_sent(&b, LT_MESSAGE_CHUNK)->payload_bytes, RESULT_BYTES);
    assert_false(worker_core_is_idle(b.core)); /* it is kept until it is durable */
    commit(&b, 3, 1, LT_VERDICT_HAVE);
    assert_true(worker_core_is_idle(b.core));
    worker_core_stats(b.core, &stats);
    assert_int_equal(stats.tasks_committed, 1);
    assert_int_equal(stats.blobs_fetched, 2);
    assign(&b, 4, 1); /* of the same blobs: nothing is fetched again */
    assert_int_equal(next_kind(&b, WORKER_START)->task, 4);
    assert_nothing(&b);
    end(&b);
}

static void test_third_task_is_declined(void **state)
{
    (void)state;
    struct bench b;
    begin_up(&b);
    run_task(&b, 1);
    assign(&b, 2, 1);
    assert_nothing(&b); /* it waits */
    assign(&b, 3, 1);
    const struct lt_decline decline = next_sent(&b, LT_MESSAGE_DECLINE)->message.decline;
    assert_int_equal(decline.task, 3);
    assert_int_equal(decline.status, LT_BUSY);
    assign(&b, 1, 1); /* a repeated packet */
    assert_nothing(&b);
    finish(&b, LT_OK);
    next_sent(&b, LT_MESSAGE_OFFER);
    assert_int_equal(next_kind(&b, WORKER_START)->task, 2);
    end(&b);
}

/* A worker that streams its weights: what waits is computed together. */
static void test_waiting_tasks_run_as_one_batch(void **state)
{
    (void)state;
    struct bench b;
    begin_up(&b);
    worker_core_batch(b.core, 3);
    wait(&b, HEARTBEAT_MS * 1000);
    assert_int_equal(next_sent(&b, LT_MESSAGE_BEAT)->message.beat.slot_count, 6);
    run_task(&b, 1); /* alone: nothing else was there */
    for (uint64_t task = 2; task <= 6; task++)
        assign(&b, task, 1);
    assert_nothing(&b);
    finish(&b, LT_OK);
    next_sent(&b, LT_MESSAGE_OFFER);
    const struct action *start = next_kind(&b, WORKER_START);
    assert_int_equal(start->task, 2);
    assert_int_equal(start->task_count, 3);
    finish(&b, LT_OK);
    next_sent(&b, LT_MESSAGE_OFFER);
    assert_nothing(&b); /* the next batch waits for all of this one */
    finish(&b, LT_BAD_INPUT);
    assert_int_equal(next_sent(&b, LT_MESSAGE_FAIL)->message.fail.task, 3);
    finish(&b, LT_OK);
    next_sent(&b, LT_MESSAGE_OFFER);
    start = next_kind(&b, WORKER_START);
    assert_int_equal(start->task, 5);
    assert_int_equal(start->task_count, 2);
    end(&b);
}

static void test_other_kinds_do_not_join_a_batch(void **state)
{
    (void)state;
    struct bench b;
    begin_up(&b);
    worker_core_batch(b.core, 3);
    run_task(&b, 1);
    assign(&b, 2, 1);
    assign_kind(&b, LT_TASK_VAE_DECODE, 3, 1);
    assign(&b, 4, 1);
    finish(&b, LT_OK);
    next_sent(&b, LT_MESSAGE_OFFER);
    assert_int_equal(next_kind(&b, WORKER_START)->task_count, 1); /* 2; 4 does not overtake 3 */
    finish(&b, LT_OK);
    next_sent(&b, LT_MESSAGE_OFFER);
    assert_int_equal(next_kind(&b, WORKER_START)->task, 3);
    end(&b);
}

static void test_a_batch_is_cancelled_when_nobody_waits_for_it(void **state)
{
    (void)state;
    struct bench b;
    begin_up(&b);
    worker_core_batch(b.core, 2);
    run_task(&b, 1);
    assign(&b, 2, 1);
    assign(&b, 3, 1);
    finish(&b, LT_OK);
    next_sent(&b, LT_MESSAGE_OFFER);
    assert_int_equal(next_kind(&b, WORKER_START)->task_count, 2);
    const struct lt_message first = {.kind = LT_MESSAGE_CANCEL, .cancel = {2, 1}};
    hear(&b, &first);
    assert_nothing(&b); /* the other one is wanted */
    const struct lt_message second = {.kind = LT_MESSAGE_CANCEL, .cancel = {3, 1}};
    hear(&b, &second);
    next_kind(&b, WORKER_CANCEL);
    finish(&b, LT_CANCELLED);
    assert_int_equal(next_sent(&b, LT_MESSAGE_RELEASE)->message.release.task, 2);
    finish(&b, LT_CANCELLED);
    assert_int_equal(next_sent(&b, LT_MESSAGE_RELEASE)->message.release.task, 3);
    end(&b);
}

static void test_beats_tell_memory(void **state)
{
    (void)state;
    struct bench b;
    begin_up(&b);
    worker_core_memory(b.core, &(struct lt_beat_memory){.rss_bytes = 7, .swapping = 9});
    wait(&b, HEARTBEAT_MS * 1000);
    const struct lt_beat beat = next_sent(&b, LT_MESSAGE_BEAT)->message.beat;
    assert_int_equal(beat.memory.rss_bytes, 7);
    assert_int_equal(beat.memory.swapping, 9);
    end(&b);
}

static void test_failure_is_told_once(void **state)
{
    (void)state;
    struct bench b;
    begin_up(&b);
    run_task(&b, 1);
    finish(&b, LT_DEVICE);
    const struct lt_task_fail fail = next_sent(&b, LT_MESSAGE_FAIL)->message.fail;
    assert_int_equal(fail.status, LT_DEVICE);
    assert_true(worker_core_is_idle(b.core));
    assert_nothing(&b);
    end(&b);
}

static void test_cancelled_task_is_released_when_it_has_ended(void **state)
{
    (void)state;
    struct bench b;
    begin_up(&b);
    run_task(&b, 1);
    const struct lt_message older = {.kind = LT_MESSAGE_CANCEL, .cancel = {1, 0}};
    hear(&b, &older);
    assert_nothing(&b); /* of an older lease: no concern of this one */
    const struct lt_message cancel = {.kind = LT_MESSAGE_CANCEL, .cancel = {1, 1}};
    hear(&b, &cancel);
    next_kind(&b, WORKER_CANCEL);
    assert_nothing(&b);
    finish(&b, LT_OK); /* it was faster */
    assert_int_equal(next_sent(&b, LT_MESSAGE_RELEASE)->message.release.reason, LT_CANCELLED);
    assert_true(worker_core_is_idle(b.core));
    end(&b);
}

/* -- what is lost on the way ------------------------------------------------------------------- */

static void test_unanswered_is_asked_again(void **state)
{
    (void)state;
    struct bench b;
    begin_up(&b);
    wait(&b, 0);
    next_sent(&b, LT_MESSAGE_BEAT);
    assign(&b, 1, 1);
    next_sent(&b, LT_MESSAGE_FETCH);
    next_sent(&b, LT_MESSAGE_FETCH);
    wait(&b, SECOND);
    next_sent(&b, LT_MESSAGE_BEAT);
    assert_nothing(&b); /* one beat is no reason yet */
    wait(&b, SECOND);
    assert_int_equal(next_sent(&b, LT_MESSAGE_BEAT)->beat[0].phase, LT_PHASE_WAITING);
    give_blob(&b, next_sent(&b, LT_MESSAGE_FETCH)->message.fetch.stream, slice, sizeof slice);
    give_blob(&b, next_sent(&b, LT_MESSAGE_FETCH)->message.fetch.stream, text, sizeof text);
    next_kind(&b, WORKER_START);
    finish(&b, LT_OK);
    const uint64_t lost = next_sent(&b, LT_MESSAGE_OFFER)->message.offer.stream;
    wait(&b, 2 * SECOND);
    assert_int_equal(next_sent(&b, LT_MESSAGE_BEAT)->beat[0].phase, LT_PHASE_SENDING);
    const uint64_t again = next_sent(&b, LT_MESSAGE_OFFER)->message.offer.stream;
    answer(&b, lost, LT_VERDICT_WANT);
    assert_nothing(&b); /* that stream is over */
    answer(&b, again, LT_VERDICT_LATER);
    assert_nothing(&b);
    wait(&b, 2 * SECOND);
    next_sent(&b, LT_MESSAGE_BEAT);
    answer(&b, next_sent(&b, LT_MESSAGE_OFFER)->message.offer.stream, LT_VERDICT_HAVE);
    assert_true(worker_core_is_idle(b.core));
    end(&b);
}

static void test_blob_that_stays_damaged_fails_the_task(void **state)
{
    (void)state;
    static const float wrong[4] = {1, 2, 3, 5};
    struct bench b;
    begin_up(&b);
    assign(&b, 1, 1);
    uint64_t stream = next_sent(&b, LT_MESSAGE_FETCH)->message.fetch.stream;
    next_sent(&b, LT_MESSAGE_FETCH);
    give_blob(&b, stream, wrong, sizeof wrong); /* whole, of another digest */
    stream = next_sent(&b, LT_MESSAGE_FETCH)->message.fetch.stream;
    const struct lt_message damaged = {.kind = LT_MESSAGE_CHUNK,
                                       .chunk = {stream, 0, lt_crc32c(0, wrong, sizeof wrong)}};
    hear_payload(&b, &damaged, slice, sizeof slice); /* of another checksum */
    give_blob(&b, next_sent(&b, LT_MESSAGE_FETCH)->message.fetch.stream, wrong, sizeof wrong);
    assert_int_equal(next_sent(&b, LT_MESSAGE_FAIL)->message.fail.status, LT_LINK);
    assert_true(worker_core_is_idle(b.core));
    end(&b);
}

/* -- connections ------------------------------------------------------------------------------- */

static void test_silence_fences_the_worker(void **state)
{
    (void)state;
    struct bench b;
    begin_up(&b);
    run_task(&b, 1);
    for (int i = 0; i < LEASE_MS / HEARTBEAT_MS; i++) {
        wait(&b, SECOND - (i == 0)); /* to one microsecond before the end */
        next_sent(&b, LT_MESSAGE_BEAT);
    }
    assert_nothing(&b);
    wait(&b, 1); /* nobody was heard for a lease time */
    assert_nothing(&b);
    finish(&b, LT_OK);
    assert_nothing(&b); /* nothing is offered without a WELCOME */
    connect(&b);
    const struct action *hello = next_sent(&b, LT_MESSAGE_HELLO);
    assert_int_equal(hello->message.hello.held_count, 1);
    assert_int_equal(hello->held[0].task, 1);
    assert_true(hello->held[0].finished);
    const struct lt_message message =
        welcome(); /* the lease is gone, but the result may be adopted */
    hear(&b, &message);
    const struct lt_offer offer = next_sent(&b, LT_MESSAGE_OFFER)->message.offer;
    struct lt_message want = {.kind = LT_MESSAGE_WANT};
    want.want = (struct lt_want){offer.stream, LT_VERDICT_WANT, 0, LT_CREDIT_BYTES_DEFAULT, 5};
    hear(&b, &want);
    next_sent(&b, LT_MESSAGE_CHUNK);
    wait(&b, SECOND);
    assert_int_equal(next_sent(&b, LT_MESSAGE_BEAT)->beat[0].epoch,
                     5); /* it goes by its new lease */
    end(&b);
}

/* Control is well, bulk is dead: beats alone would keep a lease for ever. */
static void test_silent_bulk_means_a_new_connection(void **state)
{
    (void)state;
    struct bench b;
    begin_up(&b);
    run_task(&b, 1);
    finish(&b, LT_OK);
    next_sent(&b, LT_MESSAGE_OFFER);
    const struct lt_message heard = {.kind = LT_MESSAGE_BEAT_ACK};
    for (int i = 1; i < LEASE_MS / HEARTBEAT_MS; i++) {
        wait(&b, SECOND);
        hear(&b, &heard);
        next_sent(&b, LT_MESSAGE_BEAT);
        if (i % 2 == 0)
            next_sent(&b, LT_MESSAGE_OFFER); /* after two heartbeats without an answer */
    }
    assert_nothing(&b);
    wait(&b, SECOND);
    connect(&b); /* not by silence: the coordinator was heard all the time */
    assert_true(next_sent(&b, LT_MESSAGE_HELLO)->held[0].finished);
    const struct lt_message message = welcome();
    hear(&b, &message);
    next_sent(&b, LT_MESSAGE_OFFER);
    wait(&b, SECOND); /* and a whole lease time for the new connection */
    next_sent(&b, LT_MESSAGE_BEAT);
    assert_nothing(&b);
    end(&b);
}

static void test_task_that_is_not_kept_is_stopped(void **state)
{
    (void)state;
    struct bench b;
    begin_up(&b);
    run_task(&b, 1);
    const struct lt_message bye = {.kind = LT_MESSAGE_BYE, .bye = {"say HELLO first"}};
    hear(&b, &bye);
    connect(&b);
    assert_false(next_sent(&b, LT_MESSAGE_HELLO)->held[0].finished);
    const struct lt_message message = welcome();
    hear(&b, &message);
    next_kind(&b, WORKER_CANCEL);
    finish(&b, LT_CANCELLED);
    assert_nothing(&b); /* nobody waits to hear of it */
    assert_true(worker_core_is_idle(b.core));
    end(&b);
}

static void test_kept_task_goes_on(void **state)
{
    (void)state;
    struct bench b;
    begin_up(&b);
    run_task(&b, 1);
    const struct lt_message bye = {.kind = LT_MESSAGE_BYE, .bye = {"restart"}};
    hear(&b, &bye);
    connect(&b);
    next_sent(&b, LT_MESSAGE_HELLO);
    struct lt_task_ref keep = {1, 1};
    struct lt_message message = welcome();
    message.welcome.keep = &keep;
    message.welcome.keep_count = 1;
    hear(&b, &message);
    assert_nothing(&b);
    finish(&b, LT_OK);
    next_sent(&b, LT_MESSAGE_OFFER);
    end(&b);
}

static void test_unanswered_hello_backs_off(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    connect(&b);
    next_sent(&b, LT_MESSAGE_HELLO);
    int64_t pause_us = 0;
    for (int i = 0; i < 12; i++) { /* at most 30 s, whatever the number of attempts */
        while (b.count == b.read) {
            const int64_t left_us = worker_core_deadline_us(b.core) - b.now_us;
            assert_in_range(left_us, 0, 30 * SECOND);
            pause_us = left_us;
            wait(&b, left_us);
        }
        next_kind(&b, WORKER_RECONNECT);
        worker_core_connected(b.core, b.now_us);
        next_sent(&b, LT_MESSAGE_HELLO);
    }
    assert_in_range(pause_us, 15 * SECOND, 30 * SECOND);
    end(&b);
}

static void test_results_are_held_for_ten_minutes(void **state)
{
    (void)state;
    struct bench b;
    begin_up(&b);
    run_task(&b, 1);
    finish(&b, LT_OK);
    next_sent(&b, LT_MESSAGE_OFFER);
    const struct lt_message bye = {.kind = LT_MESSAGE_BYE, .bye = {"restart"}};
    hear(&b, &bye);
    connect(&b);
    next_sent(&b, LT_MESSAGE_HELLO);
    wait(&b, 600ll * SECOND);
    assert_false(worker_core_is_idle(b.core));
    wait(&b, 1);
    assert_true(worker_core_is_idle(b.core));
    end(&b);
}

static void test_reject_ends_or_delays(void **state)
{
    (void)state;
    struct bench b;
    struct lt_message reject = {.kind = LT_MESSAGE_REJECT};
    reject.reject = (struct lt_reject){.status = LT_BUSY, .text = "later", .retry_after_ms = 7000};
    begin(&b);
    connect(&b);
    next_sent(&b, LT_MESSAGE_HELLO);
    hear(&b, &reject);
    assert_nothing(&b);
    assert_int_equal(worker_core_deadline_us(b.core), b.now_us + 7 * SECOND);
    wait(&b, 7 * SECOND);
    next_kind(&b, WORKER_RECONNECT);
    worker_core_connected(b.core, b.now_us);
    next_sent(&b, LT_MESSAGE_HELLO);
    reject.reject = (struct lt_reject){.status = LT_UNSUPPORTED, .text = "another version"};
    hear(&b, &reject);
    assert_int_equal(next_kind(&b, WORKER_EXIT)->status, LT_UNSUPPORTED);
    end(&b);
}

/* -- drain and nonsense ------------------------------------------------------------------------ */

static void test_drain_finishes_what_runs(void **state)
{
    (void)state;
    struct bench b;
    begin_up(&b);
    run_task(&b, 1);
    assign(&b, 2, 1);
    worker_core_drain(b.core, b.now_us);
    const struct lt_release release = next_sent(&b, LT_MESSAGE_RELEASE)->message.release;
    assert_int_equal(release.task, 2);
    assert_int_equal(release.reason, LT_BUSY);
    assign(&b, 3, 1);
    next_sent(&b, LT_MESSAGE_DECLINE);
    finish(&b, LT_OK);
    next_sent(&b, LT_MESSAGE_OFFER);
    assert_nothing(&b); /* not before the result is safe */
    commit(&b, 1, 1, LT_VERDICT_HAVE);
    next_sent(&b, LT_MESSAGE_BYE);
    assert_int_equal(next_kind(&b, WORKER_EXIT)->status, LT_OK);
    end(&b);
}

/* Messages that mean something in this state even when they name nothing. */
static bool has_meaning(enum lt_message_kind kind, bool up)
{
    return kind == LT_MESSAGE_BYE || (up ? kind == LT_MESSAGE_ASSIGN || kind == LT_MESSAGE_DRAIN
                                         : kind == LT_MESSAGE_WELCOME || kind == LT_MESSAGE_REJECT);
}

/* Every other message in every state, naming tasks and streams that do not exist. */
static void test_nonsense_changes_nothing(void **state)
{
    (void)state;
    static const uint8_t payload[8];
    for (int up = 0; up < 2; up++)
        for (enum lt_message_kind kind = LT_MESSAGE_NONE; kind < LT_MESSAGE_COUNT; kind++) {
            struct bench b;
            struct lt_message message = welcome();
            if (has_meaning(kind, up))
                continue;
            begin(&b);
            connect(&b);
            next_sent(&b, LT_MESSAGE_HELLO);
            if (up)
                hear(&b, &message);
            message = (struct lt_message){.kind = kind};
            hear_payload(&b, &message, payload, sizeof payload);
            assert_nothing(&b);
            assert_true(worker_core_is_idle(b.core));
            end(&b);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_task_goes_all_the_way),
        cmocka_unit_test(test_third_task_is_declined),
        cmocka_unit_test(test_waiting_tasks_run_as_one_batch),
        cmocka_unit_test(test_other_kinds_do_not_join_a_batch),
        cmocka_unit_test(test_a_batch_is_cancelled_when_nobody_waits_for_it),
        cmocka_unit_test(test_beats_tell_memory),
        cmocka_unit_test(test_failure_is_told_once),
        cmocka_unit_test(test_cancelled_task_is_released_when_it_has_ended),
        cmocka_unit_test(test_unanswered_is_asked_again),
        cmocka_unit_test(test_blob_that_stays_damaged_fails_the_task),
        cmocka_unit_test(test_silence_fences_the_worker),
        cmocka_unit_test(test_silent_bulk_means_a_new_connection),
        cmocka_unit_test(test_task_that_is_not_kept_is_stopped),
        cmocka_unit_test(test_kept_task_goes_on),
        cmocka_unit_test(test_unanswered_hello_backs_off),
        cmocka_unit_test(test_results_are_held_for_ten_minutes),
        cmocka_unit_test(test_reject_ends_or_delays),
        cmocka_unit_test(test_drain_finishes_what_runs),
        cmocka_unit_test(test_nonsense_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
