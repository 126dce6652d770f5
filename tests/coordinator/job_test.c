/* A job that is read wrongly renders for a night and gives something else; one that crashes the
 * coordinator takes everybody's jobs with it. */
#include "tests/test.h"

#include "common/arena.h"
#include "coordinator/job.h"
#include "coordinator/plan.h"

#include <stdlib.h>

#define REST                                                                                       \
    "\"guidance\":1,\"model\":{\"transformer\":\"t.gguf\",\"vae\":\"v.safetensors\"},"             \
    "\"text\":{\"positive\":\"p.safetensors\"}"

#define FILES "\"model\":{\"transformer\":\"t\",\"vae\":\"v\"},\"text\":{\"positive\":\"p\"}"

static lt_status parse(const char *text, struct lt_arena *arena, struct job *job,
                       struct lt_error *error)
{
    return job_parse(text, strlen(text), "job.json", arena, job, error);
}

static void check_round_trip(const struct job *job)
{
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    char *first, *second;
    struct job again;
    struct lt_digest a, b;
    assert_ok(job_format(job, &arena, &first, &error));
    assert_ok(parse(first, &arena, &again, &error));
    assert_ok(job_format(&again, &arena, &second, &error));
    assert_string_equal(first, second);
    assert_ok(job_digest(job, &a, &error));
    assert_ok(job_digest(&again, &b, &error));
    assert_true(lt_digest_equal(&a, &b));
    lt_arena_fini(&arena);
}

static void the_shortest_job_has_the_defaults(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    struct job job;
    assert_ok(parse("{" REST "}", &arena, &job, &error));
    assert_string_equal(job.transformer.name, "t.gguf");
    assert_string_equal(job.text, "p.safetensors");
    assert_null(job.text_negative);
    assert_null(job.transformer_low.name);
    assert_int_equal(job.width, 832);
    assert_int_equal(job.frame_count_padded, 81);
    assert_int_equal(job.sampler, SAMPLER_UNIPC);
    assert_int_equal(job.schedule, WINDOW_STATIC_BALANCED);
    assert_int_equal(job.window_frames, 21);
    assert_int_equal(job.window_overlap, 4);
    assert_true(job.freenoise && job.precision_bf16 && !job.barrier);
    check_round_trip(&job);
    lt_arena_fini(&arena);
}

/* Everything in docs/job.md: its first example is this fixture. */
static void the_documented_example_is_read(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    FILE *file = fopen(LT_SOURCE_DIR "/docs/job.md", "r");
    assert_non_null(file);
    static char text[65536];
    const size_t bytes = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[bytes] = 0;
    int count = 0;
    struct job job;
    for (char *begin = strstr(text, "```json\n"); begin; begin = strstr(begin, "```json\n")) {
        begin += 8;
        char *end = strstr(begin, "```");
        assert_ok(job_parse(begin, (size_t)(end - begin), "docs/job.md", &arena, &job, &error));
        check_round_trip(&job);
        if (count++ == 0) {
            assert_int_equal(job.frame_count, 241);
            assert_int_equal(job.seed, 42);
            assert_int_equal(job.guidance_count, 20);
            assert_true(job.guidance[0] == 5 && job.guidance[10] == 1 && job.guidance[19] == 1);
            assert_string_equal(job.transformer_low.name, "wan2.2_t2v_low_noise_14B_Q5_K_M.gguf");
        }
        begin = end;
    }
    assert_int_equal(count, 2);
    lt_arena_fini(&arena);
}

static void values_are_converted_as_documented(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    struct job job;
    assert_ok(parse("{\"size\":[847,481.0],\"frames\":76,\"window\":{\"stride\":0},"
                    "\"sampler\":{\"name\":\"dpm++_sde\",\"sigmas\":[1,0.5,0]},\"seed\":"
                    "9223372036854775807," REST "}",
                    &arena, &job, &error));
    assert_int_equal(job.width, 832);
    assert_int_equal(job.height, 480);
    assert_int_equal(job.frame_count, 76);
    assert_int_equal(job.frame_count_padded, 77);
    assert_int_equal(job.window_stride, 1);
    assert_int_equal(job.step_count, 2);
    assert_int_equal(job.sigma_count, 2);
    assert_true(job.seed == INT64_MAX);
    check_round_trip(&job);
    assert_ok(parse("{\"sampler\":{\"name\":\"dpm++/beta\"}," REST "}", &arena, &job, &error));
    assert_int_equal(job.sampler, SAMPLER_DPMPP);
    assert_true(job.beta_schedule);
    check_round_trip(&job);
    static const struct {
        int64_t frames, padded;
    } lengths[] = {{1, 1}, {2, 5}, {4, 5}, {5, 5}, {6, 9}, {81, 81}, {82, 85}, {100000, 100001}};
    for (size_t i = 0; i < LT_COUNT(lengths); i++) {
        char text[512];
        snprintf(text, sizeof text, "{\"frames\":%lld," REST "}", (long long)lengths[i].frames);
        assert_ok(parse(text, &arena, &job, &error));
        assert_int_equal(job.frame_count_padded, lengths[i].padded);
    }
    assert_ok(parse(
        "{\"guidance\":[4,3,1],\"model\":{\"transformer\":{\"file\":\"t\",\"fingerprint\":"
        "\"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"},\"vae\":\"v\"},"
        "\"text\":{\"positive\":\"p \\u00fc\",\"negative\":"
        "\"sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"}}",
        &arena, &job, &error));
    assert_int_equal(job.transformer.fingerprint.byte[1], 0x11);
    assert_int_equal(job.guidance_count, 3);
    check_round_trip(&job);
    lt_arena_fini(&arena);
}

static void what_leads_predictions_is_read(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    struct job job;
    assert_ok(parse("{" REST "}", &arena, &job, &error));
    assert_true(!job.guide.zero_star && job.guide.nag_scale == 0 && job.guide.riflex == 0 &&
                job.guide.skip_layer_count == 0 && job.pose_strength == 1);
    assert_ok(parse("{\"guide\":{\"zero_star\":true,\"zero_steps\":2,\"nag_scale\":11,"
                    "\"skip_layers\":[9,10],\"skip_end\":0.5,\"riflex\":6},\"text\":{"
                    "\"positive\":\"p\",\"negative\":\"n\"},\"guidance\":4,\"model\":{"
                    "\"transformer\":\"t\",\"vae\":\"v\"}}",
                    &arena, &job, &error));
    assert_true(job.guide.zero_star && job.guide.zero_steps == 2 && job.guide.riflex == 6);
    assert_true(job.guide.nag_scale == 11 && job.guide.nag_tau == 2.5 &&
                job.guide.nag_alpha == 0.25);
    assert_true(job.guide.skip_layer_count == 2 && job.guide.skip_layer[1] == 10 &&
                job.guide.skip_start == 0.1 && job.guide.skip_end == 0.5);
    check_round_trip(&job);
    lt_arena_fini(&arena);
}

/* A job without a cache is named as it was before there were any. */
static void a_cache_is_read(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    char *text;
    lt_arena_init(&arena, 0);
    struct job job;
    struct lt_digest none, off, on;
    assert_ok(parse("{" REST "}", &arena, &job, &error));
    assert_int_equal(job.cache.kind, JOB_CACHE_NONE);
    assert_ok(job_digest(&job, &none, &error));
    assert_ok(job_format(&job, &arena, &text, &error));
    assert_null(strstr(text, "cache"));
    assert_ok(parse("{" REST ",\"cache\":{\"kind\":\"none\"}}", &arena, &job, &error));
    assert_ok(job_digest(&job, &off, &error));
    assert_true(lt_digest_equal(&none, &off));
    assert_ok(parse("{" REST ",\"cache\":{\"kind\":\"magcache\",\"model\":\"14B_2.2\","
                    "\"threshold\":0.06,\"start\":6,\"skips\":2,\"compat\":true}}",
                    &arena, &job, &error));
    assert_true(job.cache.kind == JOB_CACHE_MAGCACHE && job.cache.threshold == 0.06 &&
                job.cache.start == 6 && job.cache.end == -1 && job.cache.skips == 2 &&
                job.cache.compat);
    assert_ok(job_digest(&job, &on, &error));
    assert_false(lt_digest_equal(&none, &on));
    check_round_trip(&job);
    assert_ok(parse("{" REST ",\"cache\":{\"kind\":\"teacache\",\"curve\":\"plain\","
                    "\"neighbours\":true}}",
                    &arena, &job, &error));
    check_round_trip(&job);
    assert_ok(
        parse("{" REST ",\"cache\":{\"kind\":\"easycache\",\"end\":20}}", &arena, &job, &error));
    check_round_trip(&job);
    lt_arena_fini(&arena);
}

/* Off unless asked for, and a job without tiles is named as it was before there were any. */
static void tiles_are_read(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    char *text;
    lt_arena_init(&arena, 0);
    struct job job;
    struct lt_digest none, off, on, other;
    assert_ok(parse("{" REST "}", &arena, &job, &error));
    assert_int_equal(job.decode_tile, 0);
    assert_ok(job_digest(&job, &none, &error));
    assert_ok(job_format(&job, &arena, &text, &error));
    assert_null(strstr(text, "tile"));
    assert_ok(parse("{" REST ",\"decode\":{\"tile\":0}}", &arena, &job, &error));
    assert_ok(job_digest(&job, &off, &error));
    assert_true(lt_digest_equal(&none, &off));
    assert_ok(parse("{" REST ",\"decode\":{\"tile\":272}}", &arena, &job, &error));
    assert_int_equal(job.decode_overlap, 128); /* half, down to a latent of either VAE */
    assert_ok(job_digest(&job, &on, &error));
    assert_false(lt_digest_equal(&none, &on));
    check_round_trip(&job);
    assert_ok(parse("{" REST ",\"decode\":{\"tile\":272,\"overlap\":0}}", &arena, &job, &error));
    assert_int_equal(job.decode_overlap, 0);
    assert_ok(job_digest(&job, &other, &error));
    assert_false(lt_digest_equal(&other, &on));
    check_round_trip(&job);
    lt_arena_fini(&arena);
}

/* clang-format off */
static const struct {
    const char *text, *part;
    lt_status status;
} refused[] = {
    {"{" REST ",\"cache\":{\"kind\":\"deepcache\"}}",
     "/cache/kind: expected one of none, teacache, magcache, easycache", LT_BAD_INPUT},
    {"{" REST ",\"cache\":{\"kind\":\"magcache\"}}", "/cache/model: needed", LT_BAD_INPUT},
    {"{" REST ",\"cache\":{\"kind\":\"teacache\"}}", "/cache/model: needed", LT_BAD_INPUT},
    {"{" REST ",\"cache\":{\"kind\":\"magcache\",\"model\":\"13B\"}}",
     "/cache/model: expected one of none, 1_3B", LT_BAD_INPUT},
    {"{" REST ",\"cache\":{\"kind\":\"easycache\",\"model\":\"14B\"}}",
     "/cache/model: means nothing", LT_BAD_INPUT},
    {"{" REST ",\"cache\":{\"threshold\":0.2}}", "/cache/threshold: means nothing", LT_BAD_INPUT},
    {"{" REST ",\"cache\":{\"kind\":\"easycache\",\"compat\":true}}",
     "/cache/compat: means nothing", LT_BAD_INPUT},
    {"{" REST ",\"window\":{\"schedule\":\"uniform_standard\"},\"cache\":{\"kind\":\"easycache\"}}",
     "/cache/kind: the windows of /window/schedule change", LT_BAD_INPUT},
    {"", "job.json:1:", LT_BAD_INPUT},
    {"[]", "expected an object, found a list", LT_BAD_INPUT},
    {"{}", "/model/transformer: missing", LT_BAD_INPUT},
    {"{\"model\":{\"transformer\":\"t\"},\"text\":{}}", "/model/vae: missing", LT_BAD_INPUT},
    {"{\"model\":{\"transformer\":\"t\",\"vae\":\"v\"}}", "/text/positive: missing",
     LT_BAD_INPUT},
    {"{" FILES "}",
     "/text/negative: needed, because guidance is 5", LT_BAD_INPUT},
    {"{" REST "} x", "end of file expected", LT_BAD_INPUT},
    {"{" REST ",\"seed\":1,\"seed\":2}", "duplicate", LT_BAD_INPUT},
    {"{" REST ",\"frame\":2}", "/frame: unknown key; did you mean 'frames'?", LT_BAD_INPUT},
    {"{" REST ",\"windows\":{}}", "/windows: unknown key; did you mean 'window'?", LT_BAD_INPUT},
    {"{" REST ",\"sampler\":{\"stpes\":2}}",
     "/sampler/stpes: unknown key; did you mean 'steps'?", LT_BAD_INPUT},
    {"{" REST ",\"completely_else\":1}", "/completely_else: unknown key", LT_BAD_INPUT},
    {"{" REST ",\"a\\u001b[2Jb\":1}", "/a?[2Jb: unknown key", LT_BAD_INPUT},
    {"{" REST ",\"window\":[1]}", "/window: expected an object, found a list", LT_BAD_INPUT},
    {"{" REST ",\"kind\":\"animate\"}", "/media/image: missing: the reference", LT_BAD_INPUT},
    {"{" REST ",\"kind\":\"image-to-video\"}", "/media/image: missing", LT_BAD_INPUT},
    {"{" REST ",\"colour\":{\"match\":\"mkl\"}}", "/colour/match: there is no /media/image",
     LT_BAD_INPUT},
    {"{" REST ",\"kind\":\"image-to-video\",\"media\":{\"image\":{\"sha256\":"
     "\"0000000000000000000000000000000000000000000000000000000000000000\",\"shape\":[1,16,16,3]}}}",
     "/media/image: dim 1 of its shape is 16, expected 480", LT_BAD_INPUT},
    {"{\"guidance\":1,\"model\":{\"transformer\":\"t\",\"vae\":\"v\"},\"text\":{\"prompt\":\"a\"}}",
     "/model/text_encoder: needed for /text/prompt", LT_BAD_INPUT},
    {"{\"guidance\":1,\"model\":{\"transformer\":\"t\",\"vae\":\"v\",\"text_encoder\":\"e\"},"
     "\"text\":{\"prompt\":\"a | |b\"}}",
     "/text/prompt: one of its parts", LT_BAD_INPUT},
    {"{" REST ",\"mode\":\"loop\"}", "/mode: text-to-video jobs have no loop mode", LT_BAD_INPUT},
    {"{" REST ",\"media\":{\"image\":\"a.png\"}}", "/media/image: text-to-video jobs have no use",
     LT_BAD_INPUT},
    {"{" REST ",\"media\":{\"image\":{\"sha256\":\"aa\",\"shape\":[1]}}}", "64 hexadecimal",
     LT_BAD_INPUT},
    {"{" REST ",\"kind\":\"talk\"}", "/model/talk: missing: the add-on", LT_BAD_INPUT},
    {"{" REST ",\"lora\":[{\"file\":\"l\",\"weight\":1}]}", "/lora/0: unknown key 'weight'", LT_BAD_INPUT},
    {"{" REST ",\"lora\":[{\"strength\":1}]}", "/lora/0: 'file' is missing", LT_BAD_INPUT},
    {"{" REST ",\"lora\":[{\"file\":\"l\",\"on\":\"low\"}]}", "there is one transformer", LT_BAD_INPUT},
    {"{" REST ",\"kind\":\"tv\"}", "expected one of text-to-video, image-to-video, animate, talk; found 'tv'", LT_BAD_INPUT},
    {"{" REST ",\"kind\":1}", "/kind: expected a word, found a number", LT_BAD_INPUT},
    {"{" REST ",\"name\":\"\"}", "/name: expected 1 to 4096 bytes of text, found 0",
     LT_BAD_INPUT},
    {"{" REST ",\"name\":\"a\\nb\"}", "control character at byte 1", LT_BAD_INPUT},
    {"{" REST ",\"name\":\"a\\u0000b\"}", "\\u0000", LT_BAD_INPUT},
    {"{" REST ",\"name\":\"\xff\"}", "unable to decode byte 0xff", LT_BAD_INPUT},
    {"{" REST ",\x1b[2J}", "near '?'", LT_BAD_INPUT}, /* a terminal must not obey */
    {"{" REST ",\"frames\":0}", "/frames: expected 1 to 100000, found 0", LT_BAD_INPUT},
    {"{" REST ",\"frames\":100001}", "found 100001", LT_BAD_INPUT},
    {"{" REST ",\"frames\":81.0}", "/frames: expected a whole number, found a fraction",
     LT_BAD_INPUT},
    {"{" REST ",\"frames\":\"81\"}", "expected a whole number, found a text", LT_BAD_INPUT},
    {"{" REST ",\"frames\":null}", "expected a whole number, found null", LT_BAD_INPUT},
    {"{" REST ",\"seed\":-1}", "/seed: expected 0 to", LT_BAD_INPUT},
    {"{" REST ",\"seed\":9223372036854775808}", "too big integer", LT_BAD_INPUT},
    {"{" REST ",\"fps\":1e999}", "real number overflow", LT_BAD_INPUT},
    {"{" REST ",\"fps\":NaN}", "job.json:1:", LT_BAD_INPUT},
    {"{" REST ",\"fps\":0}", "/fps: expected 0.1 to 1000, found 0", LT_BAD_INPUT},
    {"{" REST ",\"noise\":\"white\"}", "/noise: expected one of torch, counter; found 'white'",
     LT_BAD_INPUT},
    {"{" REST ",\"size\":832}", "/size: expected [width, height]", LT_BAD_INPUT},
    {"{" REST ",\"size\":[832]}", "/size: expected [width, height]", LT_BAD_INPUT},
    {"{" REST ",\"size\":[832,15]}", "/size/1: expected 16 to 8192, found 15", LT_BAD_INPUT},
    {"{" REST ",\"size\":[832.5,480]}", "whole pixels", LT_BAD_INPUT},
    {"{" REST ",\"window\":{\"overlap\":21}}",
     "/window/overlap: 21 is not below latent_frames 21", LT_BAD_INPUT},
    {"{" REST ",\"window\":{\"fuse\":7}}", "/window/fuse: expected a word, found a number",
     LT_BAD_INPUT},
    {"{" REST ",\"window\":{\"freenoise\":1}}", "/window/freenoise: expected true or false",
     LT_BAD_INPUT},
    {"{\"guidance\":1,\"guide\":{\"nag_scale\":11}," FILES "}",
     "/text/negative: needed, because /guide/nag_scale", LT_BAD_INPUT},
    {"{" REST ",\"guide\":{\"skip_start\":0.5,\"skip_end\":0.4}}",
     "/guide/skip_start: 0.5 is behind skip_end 0.4", LT_BAD_INPUT},
    {"{" REST ",\"guide\":{\"skip_layers\":[9,9.5]}}",
     "/guide/skip_layers: expected numbers of blocks, found 9.5", LT_BAD_INPUT},
    {"{" REST ",\"guide\":{\"zero_steps\":1}}", "/guide/zero_steps: only with zero_star",
     LT_BAD_INPUT},
    {"{" REST ",\"guide\":{\"riflex\":23}}", "/guide/riflex: expected 0 to 22, found 23",
     LT_BAD_INPUT},
    {"{" REST ",\"decode\":{\"warmup\":0}}", "/decode/warmup: at least 1", LT_BAD_INPUT},
    {"{" REST ",\"decode\":{\"tile\":48}}", "/decode/tile: expected 0 or a multiple of 16 from 64 on, found 48",
     LT_BAD_INPUT},
    {"{" REST ",\"decode\":{\"tile\":264}}", "/decode/tile: expected 0 or a multiple of 16", LT_BAD_INPUT},
    {"{" REST ",\"decode\":{\"tile\":16384}}", "/decode/tile: expected 0 to 8192", LT_BAD_INPUT},
    {"{" REST ",\"decode\":{\"tile\":64,\"overlap\":64}}",
     "/decode/overlap: expected a multiple of 16 below /decode/tile, which is 64, found 64", LT_BAD_INPUT},
    {"{" REST ",\"decode\":{\"tile\":64,\"overlap\":8}}", "/decode/overlap: expected a multiple of 16", LT_BAD_INPUT},
    {"{" REST ",\"decode\":{\"overlap\":16}}", "/decode/overlap: of tiles, and /decode/tile is 0", LT_BAD_INPUT},
    {"{" REST ",\"sampler\":{\"name\":\"ddim\"}}", "/sampler/name: expected one of euler",
     LT_BAD_INPUT},
    {"{" REST ",\"sampler\":{\"name\":\"ddim/beta\"}}", "lcm, flowmatch_distill", LT_BAD_INPUT},
    {"{" REST ",\"sampler\":{\"name\":\"/beta\"}}", "found '/beta'", LT_BAD_INPUT},
    {"{" REST ",\"sampler\":{\"name\":\"lcm/beta\",\"beta\":false}}",
     "/sampler/beta: false contradicts the name 'lcm/beta'", LT_BAD_INPUT},
    {"{" REST ",\"sampler\":{\"name\":\"multitalk/beta\"}}", "no beta schedule", LT_BAD_INPUT},
    {"{" REST ",\"sampler\":{\"steps\":3,\"sigmas\":[0.9]}}",
     "/sampler/steps: 3 steps, but sigmas has 1", LT_BAD_INPUT},
    {"{" REST ",\"sampler\":{\"sigmas\":[]}}",
     "/sampler/sigmas: expected 1 to 1000 numbers, found 0", LT_BAD_INPUT},
    {"{" REST ",\"sampler\":{\"sigmas\":[0.5,0.9]}}", "/sampler: sigma 1 is 0.9", LT_BAD_INPUT},
    {"{" REST ",\"sampler\":{\"sigmas\":[0.5,true]}}",
     "/sampler/sigmas/1: expected a number, found true", LT_BAD_INPUT},
    {"{" REST ",\"sampler\":{\"start_step\":30}}", "/sampler: steps 30 to 30 of 30",
     LT_BAD_INPUT},
    {"{" REST ",\"sampler\":{\"name\":\"flowmatch_distill\"}}", "exactly 4 steps, not 30",
     LT_BAD_INPUT},
    {"{" REST ",\"sampler\":{\"name\":\"euler\",\"official\":true}}",
     "/sampler/official: only for", LT_BAD_INPUT},
    {"{\"guidance\":{\"from\":3}," FILES "}",
     "/guidance: a schedule needs 'from' and 'to'", LT_BAD_INPUT},
    {"{\"guidance\":{\"form\":3}," FILES "}",
     "/guidance/form: unknown key", LT_BAD_INPUT},
    {"{\"guidance\":[1,-1]," FILES "}",
     "/guidance/1: expected 0 to 100, found -1", LT_BAD_INPUT},
    {"{\"guidance\":1,\"model\":{\"transformer\":{\"file\":\"t\",\"sha\":1},\"vae\":\"v\"}}",
     "/model/transformer: unknown key 'sha'", LT_BAD_INPUT},
    {"{\"guidance\":1,"
     "\"model\":{\"transformer\":{\"file\":\"t\",\"fingerprint\":\"00\"},\"vae\":\"v\"}}",
     "64 hexadecimal digits", LT_BAD_INPUT},
    {"{\"guidance\":1,\"model\":{\"transformer\":{},\"vae\":\"v\"}}", "'file' is missing",
     LT_BAD_INPUT},
    {"{\"guidance\":1,\"model\":{\"transformer\":\"t\",\"vae\":\"v\"},"
     "\"text\":{\"positive\":\"sha256:12\"}}",
     "/text/positive: sha256:", LT_BAD_INPUT},
};
/* clang-format on */

static void what_is_wrong_is_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < LT_COUNT(refused); i++) {
        struct lt_error error = {0};
        struct lt_arena arena;
        lt_arena_init(&arena, 0);
        struct job job = {.frame_count = -77};
        const lt_status status = parse(refused[i].text, &arena, &job, &error);
        if (status != refused[i].status || !strstr(error.text, refused[i].part))
            fail_msg("%s\n  gave %s: %s\n  expected: %s", refused[i].text, lt_status_name(status),
                     error.text, refused[i].part);
        assert_int_equal(job.frame_count, -77); /* untouched */
        lt_arena_fini(&arena);
    }
}

static void size_and_depth_are_bounded(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    struct job job;
    const size_t bytes = (1 << 20) + 1;
    char *text = malloc(bytes);
    assert_non_null(text);
    memset(text, ' ', bytes);
    assert_fails(job_parse(text, bytes, "job.json", &arena, &job, &error), LT_BAD_INPUT,
                 "at most 1048576");
    memset(text, '[', bytes);
    assert_fails(job_parse(text, bytes - 1, "job.json", &arena, &job, &error), LT_BAD_INPUT,
                 "32 deep");
    memcpy(text, "{\"name\":\"", 9); /* brackets in a text have no depth: refused for its length */
    memcpy(text + 5009, "\"}", 2);
    assert_fails(job_parse(text, 5011, "job.json", &arena, &job, &error), LT_BAD_INPUT,
                 "found 5000");
    free(text);
    lt_arena_fini(&arena);
}

/* Every prefix of a good job is refused, none crashes; bytes flipped one by one do not crash
 * either. */
static void damaged_jobs_are_refused(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    struct job job;
    const char *good =
        "{\"size\":[64,64],\"sampler\":{\"sigmas\":[0.9,0.5]},\"window\":{\"overlap\":2}," REST "}";
    const size_t bytes = strlen(good);
    assert_ok(job_parse(good, bytes, "job.json", &arena, &job, &error));
    for (size_t length = 0; length < bytes; length++)
        assert_int_equal(job_parse(good, length, "job.json", &arena, &job, &error), LT_BAD_INPUT);
    char *text = malloc(bytes);
    assert_non_null(text);
    for (size_t i = 0; i < bytes * 8; i++) {
        memcpy(text, good, bytes);
        text[i / 8] = (char)(text[i / 8] ^ 1 << i % 8);
        if (job_parse(text, bytes, "job.json", &arena, &job, &error) == LT_OK)
            check_round_trip(&job);
    }
    free(text);
    lt_arena_fini(&arena);
}

static void equal_jobs_have_equal_digests(void **state)
{
    (void)state;
    struct lt_error error;
    struct lt_arena arena;
    lt_arena_init(&arena, 0);
    struct job a, b;
    struct lt_digest digest_a, digest_b;
    assert_ok(parse("{" REST ",\"seed\":7,\"frames\":81}", &arena, &a, &error));
    assert_ok(parse("{\"frames\":81, \"seed\":7, " REST "}", &arena, &b, &error));
    assert_ok(job_digest(&a, &digest_a, &error));
    assert_ok(job_digest(&b, &digest_b, &error));
    assert_true(lt_digest_equal(&digest_a, &digest_b));
    b.seed = 8;
    assert_ok(job_digest(&b, &digest_b, &error));
    assert_false(lt_digest_equal(&digest_a, &digest_b));
    lt_arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_shortest_job_has_the_defaults),
        cmocka_unit_test(the_documented_example_is_read),
        cmocka_unit_test(values_are_converted_as_documented),
        cmocka_unit_test(what_leads_predictions_is_read),
        cmocka_unit_test(a_cache_is_read),
        cmocka_unit_test(tiles_are_read),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(size_and_depth_are_bounded),
        cmocka_unit_test(damaged_jobs_are_refused),
        cmocka_unit_test(equal_jobs_have_equal_digests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
