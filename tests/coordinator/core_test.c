/* The coordinator's core where the simulated farm (tests/sim) does not go: refusals, and what
 * people are told. If this fails, a worker or a job that cannot be served is taken in, or a job
 * stands still and nobody learns why. */
#include "coordinator/core_private.h"

#include "tests/test.h"

#include <stdlib.h>

enum { SECOND = 1000000 };

static const char job_text[] =
    "{\"size\": [16, 16], \"frames\": 25, \"seed\": 7, \"guidance\": 1,"
    "\"model\": {\"transformer\": \"t.gguf\", \"vae\": \"v.safetensors\", \"latent_channels\": 4},"
    "\"text\": {\"positive\": \"sha256:%s\"}, \"sampler\": {\"name\": \"euler\", \"steps\": 2},"
    "\"window\": {\"schedule\": \"static_standard\", \"latent_frames\": 4, \"overlap\": 1}}";

static const char one_window_text[] =
    "{\"size\": [16, 16], \"frames\": 13, \"seed\": 7, \"guidance\": 1,"
    "\"model\": {\"transformer\": \"t.gguf\", \"vae\": \"v.safetensors\", \"latent_channels\": 4},"
    "\"text\": {\"positive\": \"sha256:%s\"}, \"sampler\": {\"name\": \"euler\", \"steps\": 2}}";

struct bench {
    struct core *core;
    struct journal *journal;
    struct objects *store; /* of job 1 */
    bool removed;
    int64_t now_us;
    struct lt_message last;
    struct lt_peer last_peer; /* sent; texts only in `text` */
    char text[256];
    size_t sent;
};

/* -- the bench --------------------------------------------------------------------------------- */

static lt_status open_files(void *context, uint32_t job, bool fresh, struct objects **store_out,
                            struct lt_error *error)
{
    struct bench *b = context;
    assert_int_equal(job, 1);
    (void)fresh;
    if (!b->store)
        LT_TRY(objects_create_memory(&b->store, error));
    *store_out = b->store;
    return LT_OK;
}

static void close_files(void *context, uint32_t job, struct objects *store)
{
    (void)context; /* the bytes stay for the next core */
    (void)job;
    (void)store;
}

static void remove_files(void *context, uint32_t job)
{
    struct bench *b = context;
    (void)job;
    objects_destroy(&b->store);
    b->removed = true;
}

static int64_t no_wall(void)
{
    return 1;
}

static void start(struct bench *b)
{
    struct lt_error error;
    const struct core_params params = {
        .lease_us = 10 * SECOND,
        .heartbeat_us = SECOND,
        .grace_us = SECOND,
        .credit_bytes = LT_CREDIT_BYTES_DEFAULT,
        .upload_bytes_max = 1 << 20,
        .attempts_max = 3,
        .journal = b->journal,
        .files = {b, open_files, close_files, remove_files},
        .wall_us = no_wall,
    };
    assert_ok(core_create(&params, b->now_us, &b->core, &error));
}

static void begin(struct bench *b)
{
    struct lt_error error;
    *b = (struct bench){.now_us = SECOND};
    assert_ok(journal_open(":memory:", &b->journal, &error));
    start(b);
}

static void end(struct bench *b)
{
    core_destroy(&b->core);
    journal_close(&b->journal);
    objects_destroy(&b->store);
}

static lt_status keep_last(void *context, const struct lt_packet *packet, struct lt_error *error)
{
    struct bench *b = context;
    (void)error;
    b->last = packet->message;
    b->last_peer = packet->peer;
    b->sent++;
    if (packet->message.kind == LT_MESSAGE_REJECT)
        snprintf(b->text, sizeof b->text, "%s", packet->message.reject.text);
    return LT_OK;
}

static void flush(struct bench *b)
{
    struct lt_error error;
    assert_ok(core_flush(b->core, b->now_us, keep_last, b, &error));
}

static lt_status submit(struct bench *b, const char *format, struct lt_error *error)
{
    static const float text[2] = {1, 2};
    char hex[LT_DIGEST_HEX], json[1024];
    const struct lt_digest digest = lt_sha256(text, sizeof text);
    const struct core_blob blob = {digest, text, sizeof text};
    uint32_t id;
    bool existed;
    lt_digest_format(&digest, hex);
    snprintf(json, sizeof json, format, hex);
    const struct core_submit request = {.json = json,
                                        .json_bytes = strlen(json),
                                        .digest = lt_sha256(json, strlen(json)),
                                        .blob = &blob,
                                        .blob_count = 1};
    return core_add_job(b->core, &request, b->now_us, &id, &existed, error);
}

static void say(struct bench *b, uint8_t worker, const struct lt_message *message)
{
    const struct lt_packet packet = {.peer = {{worker}}, .message = *message};
    core_receive(b->core, &packet, b->now_us);
    flush(b);
}

/* A worker with the transformer, or with some other file. */
static void join(struct bench *b, uint8_t worker, const char *model, const char *kernel_class)
{
    struct lt_model_file file = {
        .name = model, .fingerprint = lt_sha256(model, strlen(model)), .bytes = 1};
    struct lt_message hello = {.kind = LT_MESSAGE_HELLO};
    hello.hello = (struct lt_hello){.name = "w",
                                    .version_min = LT_WIRE_MAJOR,
                                    .version_max = LT_WIRE_MAJOR,
                                    .build = "b",
                                    .device = "d",
                                    .kernel_class = kernel_class,
                                    .slot_count = 1,
                                    .model = &file,
                                    .model_count = 1};
    say(b, worker, &hello);
}

static void fail_task(struct bench *b, uint8_t worker, lt_status status)
{
    assert_int_equal(b->last.kind, LT_MESSAGE_ASSIGN);
    const struct lt_message message = {
        .kind = LT_MESSAGE_FAIL,
        .fail = {b->last.assign.task, b->last.assign.epoch, (uint32_t)status, "so it is"}};
    say(b, worker, &message);
}

/* The result of the task assigned last, all zeros. */
static void give_result(struct bench *b, uint8_t worker)
{
    const size_t bytes = (size_t)b->last.assign.spec.result_bytes;
    void *zeros = calloc(1, bytes);
    struct lt_message message = {.kind = LT_MESSAGE_OFFER};
    assert_non_null(zeros);
    message.offer = (struct lt_offer){1, b->last.assign.task, b->last.assign.epoch,
                                      lt_sha256(zeros, bytes), bytes};
    say(b, worker, &message);
    assert_int_equal(b->last.want.verdict, LT_VERDICT_WANT);
    const struct lt_packet packet = {
        .peer = {{worker}},
        .message = {.kind = LT_MESSAGE_CHUNK, .chunk = {1, 0, lt_crc32c(0, zeros, bytes)}},
        .payload = zeros,
        .payload_bytes = bytes,
    };
    core_receive(b->core, &packet, b->now_us);
    flush(b);
    free(zeros);
}

static struct coordinator_job_status status_of(struct bench *b)
{
    struct coordinator_job_status status;
    struct lt_error error;
    assert_ok(core_job_status(b->core, 1, b->now_us, &status, &error));
    return status;
}

static void assert_reason(struct bench *b, const char *part)
{
    const struct coordinator_job_status status = status_of(b);
    if (!strstr(status.reason, part))
        fail_msg("'%s' is not in: %s", part, status.reason);
}

/* -- who is let in ----------------------------------------------------------------------------- */

static void test_worker_of_another_version_is_rejected(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    struct lt_message hello = {.kind = LT_MESSAGE_HELLO};
    hello.hello = (struct lt_hello){.name = "w",
                                    .version_min = LT_WIRE_MAJOR + 1,
                                    .version_max = LT_WIRE_MAJOR + 2,
                                    .build = "b",
                                    .device = "d",
                                    .kernel_class = "k"};
    say(&b, 1, &hello);
    assert_int_equal(b.last.kind, LT_MESSAGE_REJECT);
    assert_int_equal(b.last.reject.status, LT_UNSUPPORTED);
    assert_string_equal(b.text, "the worker speaks wire versions 2 to 3, this coordinator 1");
    assert_int_equal(core_workers(b.core, b.now_us, NULL, 0), 0);
    end(&b);
}

static void test_stranger_is_asked_for_hello(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    for (enum lt_message_kind kind = LT_MESSAGE_NONE + 1; kind < LT_MESSAGE_COUNT; kind++) {
        if (kind == LT_MESSAGE_HELLO || kind == LT_MESSAGE_BEAT)
            continue;
        const struct lt_message message = {.kind = kind};
        say(&b, 1, &message);
        assert_int_equal(b.sent, 0);
    }
    const struct lt_message beat = {.kind = LT_MESSAGE_BEAT};
    say(&b, 1, &beat);
    assert_int_equal(b.last.kind, LT_MESSAGE_BYE);
    end(&b);
}

static void test_refused_job_leaves_nothing(void **state)
{
    (void)state;
    struct bench b;
    struct lt_error error;
    begin(&b);
    assert_fails(submit(&b, "{\"size\": [16, 16], \"frames\": %s}", &error), LT_BAD_INPUT, "");
    assert_true(b.removed);
    assert_int_equal(core_jobs(b.core, NULL, 0), 0);
    assert_ok(submit(&b, job_text, &error)); /* its number is free again */
    flush(&b);
    assert_int_equal(core_jobs(b.core, NULL, 0), 1);
    end(&b);
}

/* -- who gets a task --------------------------------------------------------------------------- */

/* G5.5: of two that could, the one that need not read the model. */
static void test_a_task_goes_where_its_model_is_loaded(void **state)
{
    (void)state;
    for (uint8_t holder = 2; holder <= 3; holder++) {
        struct bench b;
        struct lt_error error;
        begin(&b);
        for (uint8_t worker = 2; worker <= 3; worker++) {
            struct lt_message beat = {.kind = LT_MESSAGE_BEAT, .beat = {.sequence = 1}};
            join(&b, worker, "t.gguf", "k");
            if (worker == holder)
                beat.beat.resident = lt_sha256("t.gguf", 6);
            say(&b, worker, &beat);
        }
        assert_ok(submit(&b, one_window_text, &error));
        flush(&b); /* one task, and two idle workers */
        assert_int_equal(b.last.kind, LT_MESSAGE_ASSIGN);
        assert_int_equal(b.last_peer.id[0], holder);
        end(&b);
    }
}

/* -- what people are told ---------------------------------------------------------------------- */

static void test_waiting_job_says_for_what(void **state)
{
    (void)state;
    struct bench b;
    struct lt_error error;
    begin(&b);
    assert_ok(submit(&b, job_text, &error));
    flush(&b);
    assert_reason(&b, "no worker is connected");
    join(&b, 1, "other.gguf", "k");
    assert_reason(&b, "needs t.gguf; of 1 workers, 1 without the model");
    join(&b, 2, "t.gguf", "k");
    assert_int_equal(b.last.kind, LT_MESSAGE_ASSIGN);
    assert_reason(&b, "");
    fail_task(&b, 2, LT_CORRUPT); /* that file is damaged there: it is not tried again */
    assert_int_equal(status_of(&b).state, JOB_STATE_RUNNING);
    b.now_us += 60 * SECOND;
    join(&b, 1, "other.gguf", "k"); /* it is still here */
    assert_reason(&b, "1 without the model");
    assert_reason(&b, "1 unable to use the model");
    join(&b, 3, "t.gguf", "another");
    assert_reason(&b, "1 of another kernel class");
    join(&b, 2, "t.gguf", "k"); /* it said HELLO anew: perhaps with a whole file */
    assert_int_equal(b.last.kind, LT_MESSAGE_ASSIGN);
    end(&b);
}

static void test_job_that_cannot_be_done_fails_at_once(void **state)
{
    (void)state;
    struct bench b;
    struct lt_error error;
    begin(&b);
    assert_ok(submit(&b, job_text, &error));
    join(&b, 1, "t.gguf", "k");
    fail_task(&b, 1, LT_BAD_INPUT);
    assert_int_equal(status_of(&b).state, JOB_STATE_FAILED);
    assert_reason(&b, "task 0 on w: BAD_INPUT: so it is");
    assert_true(b.removed);
    end(&b);
}

static void test_attempts_are_counted_and_bounded(void **state)
{
    (void)state;
    struct bench b;
    struct lt_error error;
    begin(&b);
    assert_ok(submit(&b, job_text, &error));
    join(&b, 1, "t.gguf", "k");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(status_of(&b).state, JOB_STATE_RUNNING);
        assert_int_equal(b.last.assign.task, core_task_number(1, 0));
        fail_task(&b, 1, LT_DEVICE);
        b.now_us += 5 * SECOND; /* it is held back for a while */
        flush(&b);
    }
    assert_int_equal(status_of(&b).state, JOB_STATE_FAILED);
    assert_reason(&b, "DEVICE");
    end(&b);
}

static void test_failed_task_goes_elsewhere(void **state)
{
    (void)state;
    struct bench b;
    struct lt_error error;
    begin(&b);
    assert_ok(submit(&b, job_text, &error));
    join(&b, 1, "t.gguf", "k");
    const uint64_t first = b.last.assign.task;
    join(&b, 2, "t.gguf", "k");
    assert_int_not_equal(b.last.assign.task, first); /* the second is busy now */
    const struct lt_message message = {.kind = LT_MESSAGE_FAIL,
                                       .fail = {first, 1, LT_DEVICE, "so it is"}};
    say(&b, 1, &message);
    b.sent = 0;
    b.now_us += SECOND; /* the first is idle, and not held back any more */
    flush(&b);
    assert_int_equal(b.sent, 0); /* but the task waits for the other */
    join(&b, 3, "t.gguf", "k");
    assert_int_equal(b.last.kind, LT_MESSAGE_ASSIGN);
    assert_int_equal(b.last.assign.task, first);
    assert_int_equal(b.last.assign.epoch, 2);
    end(&b);
}

static void test_job_whose_files_are_gone_says_why(void **state)
{
    (void)state;
    struct bench b;
    struct lt_error error;
    begin(&b);
    assert_ok(submit(&b, job_text, &error));
    join(&b, 1, "t.gguf", "k");
    give_result(&b, 1);
    assert_int_equal(status_of(&b).progress.predict_done, 1);
    core_destroy(&b.core);
    objects_destroy(&b.store); /* somebody cleaned up */
    start(&b);
    join(&b, 1, "t.gguf", "k");
    b.now_us += 2 * SECOND;
    const struct lt_message beat = {.kind =
                                        LT_MESSAGE_BEAT}; /* it lost its lease: it is told again */
    say(&b, 1, &beat);
    assert_int_equal(status_of(&b).state, JOB_STATE_FAILED);
    assert_reason(&b, "cannot be resumed");
    assert_fails(core_cancel(b.core, 1, &error), LT_CONFLICT, "job 1 is failed already");
    assert_fails(core_published(b.core, 1, LT_OK, "", &error), LT_CONFLICT,
                 "job 1 is failed already");
    assert_fails(core_cancel(b.core, 2, &error), LT_NOT_FOUND, "there is no job 2");
    end(&b);
}

/* -- results ----------------------------------------------------------------------------------- */

static void test_result_of_wrong_size_is_charged(void **state)
{
    (void)state;
    struct bench b;
    struct lt_error error;
    begin(&b);
    assert_ok(submit(&b, job_text, &error));
    join(&b, 1, "t.gguf", "k");
    struct lt_message offer = {.kind = LT_MESSAGE_OFFER};
    offer.offer = (struct lt_offer){.stream = 1,
                                    .task = b.last.assign.task,
                                    .epoch = b.last.assign.epoch,
                                    .bytes = b.last.assign.spec.result_bytes - 4};
    say(&b, 1, &offer);
    assert_int_equal(b.last.kind, LT_MESSAGE_WANT);
    assert_int_equal(b.last.want.verdict, LT_VERDICT_STALE);
    assert_int_equal(run_task(core_job_run(b.core, 1), 0)->attempts, 1);
    end(&b);
}

/* -- what lies on a worker --------------------------------------------------------------------- */

/* Worker 1 computed both windows of the first step, and holds what the second step reuses. */
static void begin_second_step(struct bench *b, const char *cache)
{
    struct lt_error error;
    char text[1024];
    snprintf(text, sizeof text, "{%s%s", cache, job_text + 1);
    begin(b);
    assert_ok(submit(b, text, &error));
    join(b, 1, "t.gguf", "k");
    give_result(b, 1);
    give_result(b, 1);
    assert_int_equal(b->last.kind, LT_MESSAGE_ASSIGN);
    assert_int_equal(b->last.assign.task, core_task_number(1, 2));
}

static void test_reused_work_keeps_a_window_on_its_worker(void **state)
{
    (void)state;
    struct bench b;
    begin_second_step(&b, "");
    join(&b, 2, "t.gguf", "k");
    assert_int_equal(b.last.kind, LT_MESSAGE_ASSIGN); /* without a cache anybody will do */
    end(&b);
    begin_second_step(&b, "\"cache\": {\"kind\": \"magcache\", \"model\": \"14B\", "
                          "\"threshold\": 1, \"start\": 0},");
    struct lt_message first = b.last;
    assert_int_equal(first.assign.spec.cache, LT_CACHE_PLANNED);
    assert_true(first.assign.spec.cache_step == 1 && first.assign.spec.reuse[0] == 1);
    const struct lt_digest key = first.assign.spec.cache_key;
    join(&b, 2, "t.gguf", "k");
    assert_int_equal(b.last.kind, LT_MESSAGE_WELCOME); /* it idles: window 1 lies with worker 1 */
    char why[256];
    const struct dispatch_job job = {.run = core_job_run(b.core, 1), .kernel_class = "k"};
    dispatch_explain(&b.core->fleet, &job, b.now_us, why, sizeof why);
    assert_string_equal(why, "waiting for w, which holds what task 3 reuses");
    b.last = first;
    give_result(&b, 1);
    assert_int_equal(b.last.kind, LT_MESSAGE_ASSIGN);
    assert_int_equal(b.last.assign.task, core_task_number(1, 3));
    assert_false(lt_digest_equal(&key, &b.last.assign.spec.cache_key)); /* a key for each window */
    const struct lt_message bye = {.kind = LT_MESSAGE_BYE, .bye = {"so long"}};
    say(&b, 1, &bye);
    b.now_us += 60 * SECOND;
    core_tick(b.core, b.now_us);
    join(&b, 2, "t.gguf", "k");
    assert_int_equal(b.last.kind, LT_MESSAGE_ASSIGN); /* nobody holds it now */
    assert_int_equal(b.last.assign.task, core_task_number(1, 3));
    end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worker_of_another_version_is_rejected),
        cmocka_unit_test(test_stranger_is_asked_for_hello),
        cmocka_unit_test(test_refused_job_leaves_nothing),
        cmocka_unit_test(test_a_task_goes_where_its_model_is_loaded),
        cmocka_unit_test(test_waiting_job_says_for_what),
        cmocka_unit_test(test_job_that_cannot_be_done_fails_at_once),
        cmocka_unit_test(test_attempts_are_counted_and_bounded),
        cmocka_unit_test(test_failed_task_goes_elsewhere),
        cmocka_unit_test(test_job_whose_files_are_gone_says_why),
        cmocka_unit_test(test_result_of_wrong_size_is_charged),
        cmocka_unit_test(test_reused_work_keeps_a_window_on_its_worker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
