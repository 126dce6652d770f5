/* If a message lost a field on its way, workers would compute another task than the one that was
 * leased; if a hostile body were believed, a coordinator could be stopped by one packet. */
#include "tests/test.h"

#include "proto/frame.h"

static struct lt_arena arena;
static struct lt_error error;

static int begin(void **state)
{
    (void)state;
    lt_arena_init(&arena, 0);
    return 0;
}

static int end(void **state)
{
    (void)state;
    lt_arena_fini(&arena);
    return 0;
}

static struct lt_message round_trip(const struct lt_message *message, bool from_worker,
                                    size_t payload)
{
    uint8_t header[LT_FRAME_HEADER_BYTES], *body;
    size_t bytes;
    struct lt_message back;
    assert_ok(lt_frame_pack(message, 7, &arena, header, &body, &bytes, &error));
    assert_ok(lt_frame_unpack(header, sizeof header, body, bytes, payload, from_worker, &arena,
                              &back, &error));
    assert_int_equal(back.kind, message->kind);
    return back;
}

static struct lt_message assign(void)
{
    struct lt_message m = {.kind = LT_MESSAGE_ASSIGN};
    m.assign = (struct lt_assign){.task = 1ull << 40, .epoch = 3, .lease_ms = 30000};
    m.assign.spec = (struct lt_task_spec){.kind = LT_TASK_PREDICT,
                                          .model = {"t2v.gguf", lt_sha256("a", 1), 99},
                                          .blob_count = 2,
                                          .shape = {16, 21, 60, 104},
                                          .timestep = 937,
                                          .guidance = 5.5,
                                          .precision = 1,
                                          .text_len = 512,
                                          .result_bytes = 8386560};
    m.assign.spec.blob[0] = (struct lt_blob_ref){LT_BLOB_LATENTS, lt_sha256("b", 1), 8386560};
    m.assign.spec.blob[1] = (struct lt_blob_ref){LT_BLOB_TEXT, lt_sha256("c", 1), 4096};
    return m;
}

static void assign_survives(void **state)
{
    (void)state;
    const struct lt_message m = assign(), back = round_trip(&m, false, 0);
    assert_string_equal(back.assign.spec.model.name, "t2v.gguf");
    assert_memory_equal(back.assign.spec.blob, m.assign.spec.blob, sizeof m.assign.spec.blob);
    assert_memory_equal(back.assign.spec.shape, m.assign.spec.shape, sizeof m.assign.spec.shape);
    assert_true(back.assign.spec.timestep == 937 && back.assign.spec.guidance == 5.5);
    assert_int_equal(back.assign.spec.result_bytes, 8386560);
    assert_int_equal(back.assign.task, 1ull << 40);
}

static void lists_survive(void **state)
{
    (void)state;
    struct lt_model_file files[] = {{"a", lt_sha256("x", 1), 1}, {"b", lt_sha256("y", 1), 2}};
    struct lt_held held[] = {{5, 6, true}};
    struct lt_message m = {.kind = LT_MESSAGE_HELLO};
    m.hello = (struct lt_hello){"w1",    77, 1,     1, "0.1", "host", "avx512",
                                1 << 30, 2,  files, 2, held,  1,      7};
    struct lt_message back = round_trip(&m, true, 0);
    assert_int_equal(back.hello.model_count, 2);
    assert_string_equal(back.hello.model[1].name, "b");
    assert_int_equal(back.hello.version_minor, 7);
    assert_true(back.hello.held[0].finished && back.hello.held[0].epoch == 6);
    struct lt_task_ref keep[] = {{1, 2}, {3, 4}};
    m = (struct lt_message){.kind = LT_MESSAGE_WELCOME,
                            .welcome = {9, 2000, 30000, 1 << 21, keep, 2, true}};
    back = round_trip(&m, false, 0);
    assert_memory_equal(back.welcome.keep, keep, sizeof keep);
    struct lt_progress progress[] = {{1, 2, LT_PHASE_RUNNING, 3, 4}};
    m = (struct lt_message){.kind = LT_MESSAGE_BEAT,
                            .beat = {8, progress, 1, 6, {1, 2, 3, 4, 5, 6, 7}, lt_sha256("r", 1)}};
    back = round_trip(&m, true, 0);
    assert_int_equal(back.beat.lease[0].total, 4);
    assert_int_equal(back.beat.slot_count, 6);
    assert_memory_equal(&back.beat.memory, &m.beat.memory, sizeof m.beat.memory);
    assert_true(lt_digest_equal(&back.beat.resident, &m.beat.resident));
    m = (struct lt_message){.kind = LT_MESSAGE_CHUNK, .chunk = {1, 262144, 0xdeadbeef}};
    back = round_trip(&m, false, 100);
    assert_int_equal(back.chunk.crc32c, 0xdeadbeef);
}

/* The first bytes of a released message must never change: version 1 of both programs reads them.
 */
/* A coordinator of 1.0 sends none of the later fields; their absence is 0. */
static void conditioning_survives(void **state)
{
    (void)state;
    struct lt_message m = assign();
    m.assign.spec.kind = LT_TASK_ENCODE_AUDIO;
    m.assign.spec.blob[0].role = LT_BLOB_ROLE_LAST;
    m.assign.spec.frame_at[0] = 0;
    m.assign.spec.frame_at[1] = 80;
    m.assign.spec.frame_at_count = 2;
    m.assign.spec.clean_slot[0] = 3;
    m.assign.spec.clean_slot_count = 1;
    m.assign.spec.handoff_frames = 25;
    m.assign.spec.handoff_length = 81;
    m.assign.spec.match = LT_MATCH_MKL;
    m.assign.spec.match_strength = 0.5;
    m.assign.spec.tile = 34;
    m.assign.spec.tile_stride = 18;
    m.assign.spec.lora[0] = (struct lt_spec_lora){{"l", lt_sha256("l", 1), 5}, -0.5, 2, true};
    m.assign.spec.lora_count = 1;
    m.assign.spec.addon = (struct lt_model_file){"talk", lt_sha256("t", 1), 6};
    m.assign.spec.audio_guidance = 4;
    const struct lt_task_spec spec = round_trip(&m, false, 0).assign.spec;
    assert_int_equal(spec.kind, LT_TASK_ENCODE_AUDIO);
    assert_int_equal(spec.frame_at_count, 2);
    assert_int_equal(spec.frame_at[1], 80);
    assert_int_equal(spec.clean_slot_count, 1);
    assert_int_equal(spec.clean_slot[0], 3);
    assert_int_equal(spec.handoff_frames, 25);
    assert_int_equal(spec.handoff_length, 81);
    assert_int_equal(spec.match, LT_MATCH_MKL);
    assert_true(spec.match_strength == 0.5);
    assert_int_equal(spec.tile, 34);
    assert_int_equal(spec.tile_stride, 18);
    assert_int_equal(spec.lora_count, 1);
    assert_string_equal(spec.lora[0].file.name, "l");
    assert_true(spec.lora[0].strength == -0.5 && spec.lora[0].plain_peft);
    assert_int_equal(spec.lora[0].expert, 2);
    assert_string_equal(spec.addon.name, "talk");
    assert_true(spec.audio_guidance == 4);
}

static void options_survive(void **state)
{
    (void)state;
    struct lt_message m = assign();
    struct lt_task_spec *spec = &m.assign.spec;
    struct lt_task_spec back = round_trip(&m, false, 0).assign.spec;
    assert_int_equal(back.guide, LT_GUIDE_CFG);
    assert_true(!back.no_velocity && back.nag_count == 0 && back.strength_count == 0 &&
                back.skip_layer_count == 0 && back.riflex_index == 0);
    spec->guide = LT_GUIDE_ZERO_STAR;
    spec->no_velocity = true;
    spec->nag_count = LT_SPEC_NAG;
    spec->nag[0] = 11;
    spec->nag[2] = 0.25;
    spec->skip_layer[0] = 9;
    spec->skip_layer[1] = 39;
    spec->skip_layer_count = 2;
    spec->riflex_index = 6;
    spec->riflex_frames = 81;
    spec->strength[1] = 0.5;
    spec->strength_count = LT_SPEC_STRENGTHS;
    back = round_trip(&m, false, 0).assign.spec;
    assert_int_equal(back.guide, LT_GUIDE_ZERO_STAR);
    assert_true(back.no_velocity && back.nag_count == 3 && back.nag[0] == 11 && back.nag[1] == 0 &&
                back.nag[2] == 0.25);
    assert_true(back.skip_layer_count == 2 && back.skip_layer[1] == 39);
    assert_true(back.riflex_index == 6 && back.riflex_frames == 81);
    assert_true(back.strength_count == 2 && back.strength[0] == 0 && back.strength[1] == 0.5);
}

static void what_is_reused_survives(void **state)
{
    (void)state;
    struct lt_message m = assign();
    struct lt_task_spec *spec = &m.assign.spec;
    struct lt_task_spec back = round_trip(&m, false, 0).assign.spec;
    assert_true(back.cache == LT_CACHE_NONE && lt_digest_is_zero(&back.cache_key));
    spec->cache = LT_CACHE_PLANNED;
    spec->cache_key = lt_sha256("w", 1);
    spec->cache_step = 7;
    spec->reuse[1] = 7;
    spec->reuse_count = 3;
    spec->cache_threshold = 0.015;
    spec->time_projected = true;
    back = round_trip(&m, false, 0).assign.spec;
    assert_int_equal(back.cache, LT_CACHE_PLANNED);
    assert_true(lt_digest_equal(&back.cache_key, &spec->cache_key));
    assert_true(back.cache_step == 7 && back.reuse_count == 3 && back.reuse[0] == 0 &&
                back.reuse[1] == 7);
    assert_true(back.cache_threshold == 0.015 && back.time_projected);
    spec->reuse[2] = 8; /* of the step itself */
    uint8_t *body;
    size_t bytes;
    assert_ok(lt_message_encode(&m, &arena, &body, &bytes, &error));
    assert_fails(lt_message_decode(m.kind, body, bytes, &arena, &m, &error), LT_BAD_INPUT,
                 "reuse: a step that is yet to come");
}

static void golden_bytes_of_a_cancel(void **state)
{
    (void)state;
    static const uint8_t want_body[] = {0x08, 0x96, 0x01, 0x10, 0x02};
    static const uint8_t want_header[] = {'L', 'T', 1, 1, LT_MESSAGE_CANCEL, 0, 0, 0, 7, 0, 0, 0,
                                          0,   0,   0, 0};
    struct lt_message m = {.kind = LT_MESSAGE_CANCEL, .cancel = {150, 2}};
    uint8_t header[LT_FRAME_HEADER_BYTES], *body;
    size_t bytes;
    assert_ok(lt_frame_pack(&m, 7, &arena, header, &body, &bytes, &error));
    assert_int_equal(bytes, sizeof want_body);
    assert_memory_equal(body, want_body, bytes);
    assert_memory_equal(header, want_header, 12);
}

static void hostile_frames_are_refused(void **state)
{
    (void)state;
    const struct lt_message m = assign();
    uint8_t header[LT_FRAME_HEADER_BYTES], *body;
    size_t bytes;
    struct lt_message back;
    assert_ok(lt_frame_pack(&m, 1, &arena, header, &body, &bytes, &error));
#define UNPACK(header_bytes, body_bytes, payload, from_worker)                                     \
    lt_frame_unpack(header, header_bytes, body, body_bytes, payload, from_worker, &arena, &back,   \
                    &error)
    assert_fails(UNPACK(15, bytes, 0, false), LT_BAD_INPUT, "header");
    assert_fails(UNPACK(16, bytes - 1, 0, false), LT_BAD_INPUT, "CRC");
    assert_fails(UNPACK(16, bytes, 0, true), LT_BAD_INPUT, "side");
    assert_fails(UNPACK(16, bytes, 5, false), LT_BAD_INPUT, "payload");
    assert_fails(UNPACK(16, LT_BODY_BYTES_MAX + 1, 0, false), LT_BAD_INPUT, "at most");
    header[2] = 9;
    assert_fails(UNPACK(16, bytes, 0, false), LT_UNSUPPORTED, "version 9");
    header[2] = 1;
    header[4] = 200;
    assert_fails(UNPACK(16, bytes, 0, false), LT_UNSUPPORTED, "kind 200");
    for (size_t cut = 0; cut < bytes; cut++) /* truncated bodies with a correct CRC never crash */
        lt_message_decode(LT_MESSAGE_ASSIGN, body, cut, &arena, &back, &error);
}

static void values_out_of_range_are_refused(void **state)
{
    (void)state;
    struct lt_message m = assign(), back;
    uint8_t *body;
    size_t bytes;
    m.assign.spec.timestep = 2000;
    assert_ok(lt_message_encode(&m, &arena, &body, &bytes, &error));
    assert_fails(lt_message_decode(LT_MESSAGE_ASSIGN, body, bytes, &arena, &back, &error),
                 LT_BAD_INPUT, "timestep");
    m = assign();
    m.assign.spec.blob[0].role = (enum lt_blob_role)99;
    assert_ok(lt_message_encode(&m, &arena, &body, &bytes, &error));
    assert_fails(lt_message_decode(LT_MESSAGE_ASSIGN, body, bytes, &arena, &back, &error),
                 LT_BAD_INPUT, "blob.role");
    m = assign();
    m.assign.spec.match = 9;
    assert_ok(lt_message_encode(&m, &arena, &body, &bytes, &error));
    assert_fails(lt_message_decode(LT_MESSAGE_ASSIGN, body, bytes, &arena, &back, &error),
                 LT_BAD_INPUT, "match");
    m = assign();
    m.assign.spec.frame_at_count = LT_SPEC_SLOTS_MAX + 1;
    assert_fails(lt_message_encode(&m, &arena, &body, &bytes, &error), LT_BAD_INPUT, "slots");
    m = assign();
    m.assign.spec.lora[0] = (struct lt_spec_lora){{"l", lt_sha256("l", 1), 5}, 1e9, 0, false};
    m.assign.spec.lora_count = 1;
    assert_ok(lt_message_encode(&m, &arena, &body, &bytes, &error));
    assert_fails(lt_message_decode(LT_MESSAGE_ASSIGN, body, bytes, &arena, &back, &error),
                 LT_BAD_INPUT, "lora.strength");
    struct lt_task_ref many[LT_REPEAT_MAX + 1] = {{0, 0}};
    m = (struct lt_message){.kind = LT_MESSAGE_BEAT_ACK, .beat_ack = {1, many, LT_REPEAT_MAX + 1}};
    assert_fails(lt_message_encode(&m, &arena, &body, &bytes, &error), LT_BAD_INPUT, "too long");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(assign_survives, begin, end),
        cmocka_unit_test_setup_teardown(lists_survive, begin, end),
        cmocka_unit_test_setup_teardown(conditioning_survives, begin, end),
        cmocka_unit_test_setup_teardown(options_survive, begin, end),
        cmocka_unit_test_setup_teardown(what_is_reused_survives, begin, end),
        cmocka_unit_test_setup_teardown(golden_bytes_of_a_cancel, begin, end),
        cmocka_unit_test_setup_teardown(hostile_frames_are_refused, begin, end),
        cmocka_unit_test_setup_teardown(values_out_of_range_are_refused, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
