/* If a prompt were cut into other pieces than the model was trained with, pictures would follow it
 * badly, and nobody could tell why. Held to libsentencepiece, to Hugging Face tokenizers and to
 * ftfy on 6,000 random strings (tests/golden/tokenizer/make.py): every id must be equal. */
#include "tests/test.h"

#include "common/safetensors.h"
#include "worker/model/prompt.h"
#include "worker/model/tokenizer.h"
#include "worker/weights/gguf_write.h"

#include <unistd.h>

static struct lt_safetensors *fixture;

static int open_fixture(void **state)
{
    struct lt_error error;
    (void)state;
    return lt_safetensors_open(LT_SOURCE_DIR "/tests/golden/tokenizer/tokenizer.safetensors",
                               &fixture, &error) != LT_OK;
}

static int close_fixture(void **state)
{
    (void)state;
    lt_safetensors_close(&fixture);
    return 0;
}

/* Raw bytes of "<model>.<part>", malloc'ed. */
static void *read_part(const char *model, const char *part, size_t *count_out)
{
    char name[64];
    struct lt_error error;
    snprintf(name, sizeof name, "%s.%s", model, part);
    const struct lt_safetensor *tensor = lt_safetensors_find(fixture, name);
    if (!tensor)
        fail_msg("the fixture has no %s", name);
    void *data = malloc(tensor->bytes + 1);
    assert_ok(lt_safetensors_read(fixture, tensor, data, &error));
    *count_out = (size_t)tensor->dim[0];
    return data;
}

static struct vocabulary *vocabulary_named(const char *model)
{
    size_t bytes;
    struct lt_error error;
    struct vocabulary *vocabulary;
    void *data = read_part(model, "model", &bytes);
    assert_ok(vocabulary_parse(data, bytes, model, &vocabulary, &error));
    free(data);
    return vocabulary;
}

static void print_text(const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        fprintf(stderr, text[i] < 0x21 || text[i] > 0x7e ? "\\x%02x" : "%c",
                (unsigned char)text[i]);
    fprintf(stderr, "\n");
}

/* Every string of one part of the fixture. */
static void hold(const struct vocabulary *vocabulary, const char *part, enum tokenizer_style style)
{
    size_t count, text_count, id_count, different = 0;
    char *texts = read_part(part, "texts", &text_count);
    int32_t *text_bytes = read_part(part, "text_bytes", &count);
    int16_t *ids = read_part(part, "ids", &id_count);
    int32_t *id_counts = read_part(part, "id_count", &count);
    const char *text = texts;
    const int16_t *want = ids;
    for (size_t i = 0; i < count; text += text_bytes[i], want += id_counts[i], i++) {
        struct lt_error error;
        int32_t *tokens;
        size_t tokens_count;
        assert_ok(tokenizer_encode(vocabulary, text, (size_t)text_bytes[i], style, &tokens,
                                   &tokens_count, &error));
        bool same = tokens_count == (size_t)id_counts[i];
        for (size_t t = 0; same && t < tokens_count; t++)
            same = tokens[t] == want[t];
        if (!same && different++ < 5) {
            print_text(text, (size_t)text_bytes[i]);
            for (int t = 0; t < id_counts[i]; t++)
                fprintf(stderr, " %d", want[t]);
            fprintf(stderr, "\n");
            for (size_t t = 0; t < tokens_count; t++)
                fprintf(stderr, " %d", tokens[t]);
            fprintf(stderr, "\n");
        }
        free(tokens);
    }
    printf("    %s: %zu strings, %zu ids, %zu strings differ\n", part, count, id_count, different);
    assert_true(count >= 1500);
    assert_int_equal(different, 0);
    free(texts);
    free(text_bytes);
    free(ids);
    free(id_counts);
}

static void ids_are_those_of_sentencepiece(void **state)
{
    (void)state;
    static const char *const models[] = {"umt5", "nfkc", "plain"};
    for (size_t i = 0; i < LT_COUNT(models); i++) {
        struct vocabulary *vocabulary = vocabulary_named(models[i]);
        hold(vocabulary, models[i], TOKENIZER_COMFY);
        vocabulary_close(&vocabulary);
    }
}

static void ids_are_those_of_the_original(void **state)
{
    (void)state;
    struct vocabulary *vocabulary = vocabulary_named("umt5");
    hold(vocabulary, "wan", TOKENIZER_WAN);
    vocabulary_close(&vocabulary);
}

static void prompts_are_cleaned_as_ftfy_does(void **state)
{
    (void)state;
    size_t count, bytes, different = 0;
    char *texts = read_part("wan", "texts", &bytes), *wanted = read_part("clean", "texts", &bytes);
    int32_t *text_bytes = read_part("wan", "text_bytes", &count);
    int32_t *wanted_bytes = read_part("clean", "text_bytes", &count);
    const char *text = texts, *want = wanted;
    for (size_t i = 0; i < count; text += text_bytes[i], want += wanted_bytes[i], i++) {
        struct text_buffer got = {0};
        prompt_clean(text, (size_t)text_bytes[i], &got);
        if (got.bytes != (size_t)wanted_bytes[i] ||
            (got.bytes && memcmp(got.data, want, got.bytes) != 0)) {
            if (different++ < 8) {
                print_text(text, (size_t)text_bytes[i]);
                print_text(want, (size_t)wanted_bytes[i]);
                print_text(got.data, got.bytes);
            }
        }
        text_buffer_fini(&got);
    }
    assert_int_equal(different, 0);
    free(texts);
    free(wanted);
    free(text_bytes);
    free(wanted_bytes);
}

/* -- vocabularies in other files ----------------------------------------------------------------
 */

static char path[] = "/tmp/longtake-test-XXXXXX";

static void put_arrays(struct gguf_writer_pair *pairs, const struct vocabulary *vocabulary,
                       char (*texts)[128], const char **text, float *score, int32_t *type)
{
    const size_t count = vocabulary_count(vocabulary);
    for (size_t i = 0; i < count; i++) {
        const struct piece *piece = vocabulary_piece(vocabulary, (int32_t)i);
        snprintf(texts[i], sizeof *texts, "%.*s", (int)piece->bytes, piece->text);
        text[i] = texts[i];
        score[i] = piece->score;
        type[i] = (int32_t)piece->type;
    }
    pairs[0] = (struct gguf_writer_pair){.key = "tokenizer.ggml.model", .text = "t5"};
    pairs[1] =
        (struct gguf_writer_pair){.key = "tokenizer.ggml.tokens", .texts = text, .count = count};
    pairs[2] =
        (struct gguf_writer_pair){.key = "tokenizer.ggml.scores", .floats = score, .count = count};
    pairs[3] = (struct gguf_writer_pair){
        .key = "tokenizer.ggml.token_type", .numbers = type, .count = count};
    pairs[4] = (struct gguf_writer_pair){
        .key = "tokenizer.ggml.add_space_prefix", .number = 1, .flag = true};
    pairs[5] = (struct gguf_writer_pair){
        .key = "tokenizer.ggml.remove_extra_whitespaces", .number = 1, .flag = true};
}

static void write_gguf(const struct gguf_writer_pair *pairs, size_t count)
{
    struct gguf_writer *writer;
    struct lt_error error;
    assert_ok(gguf_writer_begin(path, NULL, 0, pairs, count, &writer, &error));
    assert_ok(gguf_writer_end(&writer, &error));
}

/* As llama.cpp's converter writes it: the same ids as the model it came from. */
static void a_gguf_holds_a_vocabulary(void **state)
{
    (void)state;
    struct vocabulary *from = vocabulary_named("umt5"), *vocabulary;
    const size_t count = vocabulary_count(from);
    char(*texts)[128] = calloc(count, sizeof *texts);
    const char **text = calloc(count, sizeof *text);
    float *score = calloc(count, sizeof *score);
    int32_t *type = calloc(count, sizeof *type);
    struct gguf_writer_pair pairs[6];
    struct lt_error error;
    put_arrays(pairs, from, texts, text, score, type);
    write_gguf(pairs, 6);
    assert_ok(vocabulary_open(path, &vocabulary, &error));
    hold(vocabulary, "umt5", TOKENIZER_COMFY);
    hold(vocabulary, "wan", TOKENIZER_WAN);
    vocabulary_close(&vocabulary);
    write_gguf(pairs + 1, 5);
    assert_fails(vocabulary_open(path, &vocabulary, &error), LT_NOT_FOUND, "spiece.model");
    write_gguf(pairs, 3);
    assert_fails(vocabulary_open(path, &vocabulary, &error), LT_BAD_INPUT, "token_type");
    pairs[2].count--;
    write_gguf(pairs, 6);
    assert_fails(vocabulary_open(path, &vocabulary, &error), LT_BAD_INPUT, "scores");
    pairs[2].count++;
    pairs[0].text = "llama";
    write_gguf(pairs, 6);
    assert_fails(vocabulary_open(path, &vocabulary, &error), LT_UNSUPPORTED, "'llama'");
    vocabulary_close(&from);
    free(texts);
    free(text);
    free(score);
    free(type);
    unlink(path);
}

static void write_bytes(const void *data, size_t bytes)
{
    FILE *file = fopen(path, "w");
    assert_true(file && fwrite(data, 1, bytes, file) == bytes && fclose(file) == 0);
}

static void a_file_of_its_own_or_inside_another(void **state)
{
    (void)state;
    static const char json[] = "{\"version\": \"1.0\", \"model\": {}}";
    size_t bytes;
    struct lt_error error;
    struct vocabulary *vocabulary;
    void *model = read_part("umt5", "model", &bytes);
    write_bytes(model, bytes); /* spiece.model */
    assert_ok(vocabulary_open(path, &vocabulary, &error));
    assert_int_equal(vocabulary_count(vocabulary), 840);
    vocabulary_close(&vocabulary);
    const struct lt_named_view inside = {"spiece_model",
                                         lt_view_1d(model, LT_TYPE_U8, (int64_t)bytes)};
    assert_ok(lt_safetensors_write(path, &inside, 1, NULL, 0, &error)); /* as ComfyUI packs it */
    assert_ok(vocabulary_open(path, &vocabulary, &error));
    assert_int_equal(vocabulary_count(vocabulary), 840);
    vocabulary_close(&vocabulary);
    write_bytes(json, sizeof json - 1);
    assert_fails(vocabulary_open(path, &vocabulary, &error), LT_UNSUPPORTED, "spiece.model");
    assert_fails(vocabulary_open("/nonexistent/spiece.model", &vocabulary, &error), LT_NOT_FOUND,
                 "/nonexistent/spiece.model");
    unlink(path);
    free(model);
}

/* -- hostile models ------------------------------------------------------------------------------
 */

static void damaged_models_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t count;
        lt_status status;
        const char *part;
    } cases[] = {
        {"", 0, LT_BAD_INPUT, "no normal piece"},
        {"\x0a\x05\x0a\x7fxyz", 7, LT_BAD_INPUT, "damaged piece"},
        {"\x0a\xff\xff\xff\xff\x0f", 6, LT_BAD_INPUT, "no sentencepiece model"},
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11, LT_BAD_INPUT, "no sentencepiece"},
        {"\x0b\x00", 2, LT_BAD_INPUT, "no sentencepiece model"}, /* a group */
        {"\x0a\x05\x0a\x01x\x18\x07", 7, LT_BAD_INPUT, "unknown type"},
        {"\x0a\x08\x0a\x01x\x15\x00\x00\xc0\x7f", 10, LT_BAD_INPUT, "no number"},
        {"\x12\x02\x18\x02", 4, LT_UNSUPPORTED, "BPE"},
        {"\x12\x03\xc0\x01\x01", 5, LT_UNSUPPORTED, "suffix"},
        {"\x1a\x05\x12\x03\x01\x02\x03", 7, LT_BAD_INPUT, "character map"},
        {"\x1a\x0a\x12\x08\x00\x01\x00\x00____", 12, LT_BAD_INPUT, "character map"},
    };
    for (size_t i = 0; i < LT_COUNT(cases); i++) {
        struct vocabulary *vocabulary = NULL;
        struct lt_error error = {0};
        assert_fails(
            vocabulary_parse(cases[i].bytes, cases[i].count, "x.model", &vocabulary, &error),
            cases[i].status, cases[i].part);
        assert_null(vocabulary);
        assert_non_null(strstr(error.text, "x.model"));
    }
}

/* Any prefix of a model is a model with fewer pieces, or refused; never more. */
static void every_truncation_is_met(void **state)
{
    (void)state;
    size_t bytes, whole = 0;
    void *model = read_part("plain", "model", &bytes);
    for (size_t length = 0; length < bytes; length += 7) {
        struct vocabulary *vocabulary = NULL;
        struct lt_error error;
        if (vocabulary_parse(model, length, "x", &vocabulary, &error) != LT_OK)
            continue;
        whole++;
        assert_true(vocabulary_count(vocabulary) <= 560);
        vocabulary_close(&vocabulary);
    }
    assert_true(whole > 0 && whole < bytes / 7);
    free(model);
}

static void prompts_have_bounds(void **state)
{
    (void)state;
    struct vocabulary *vocabulary = vocabulary_named("umt5");
    struct lt_error error;
    int32_t *tokens;
    size_t count;
    const size_t bytes = TOKENIZER_PROMPT_BYTES_MAX + 1;
    char *prompt = malloc(bytes);
    memset(prompt, 'a', bytes);
    assert_fails(
        tokenizer_encode(vocabulary, prompt, bytes, TOKENIZER_WAN, &tokens, &count, &error),
        LT_BAD_INPUT, "65537 bytes");
    assert_ok(
        tokenizer_encode(vocabulary, prompt, bytes - 1, TOKENIZER_WAN, &tokens, &count, &error));
    assert_int_equal(count, TOKENIZER_WAN_TOKENS_MAX);
    assert_int_equal(tokens[count - 1], vocabulary_rules(vocabulary)->end);
    free(tokens);
    assert_ok(
        tokenizer_encode(vocabulary, prompt, bytes - 1, TOKENIZER_COMFY, &tokens, &count, &error));
    assert_true(count > 10000);
    free(tokens);
    for (int style = TOKENIZER_WAN; style <= TOKENIZER_COMFY; style++) {
        assert_ok(tokenizer_encode(vocabulary, "", 0, (enum tokenizer_style)style, &tokens, &count,
                                   &error));
        assert_int_equal(count, 1); /* </s> alone */
        free(tokens);
    }
    free(prompt);
    vocabulary_close(&vocabulary);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_those_of_sentencepiece),
        cmocka_unit_test(prompts_are_cleaned_as_ftfy_does),
        cmocka_unit_test(ids_are_those_of_the_original),
        cmocka_unit_test(a_gguf_holds_a_vocabulary),
        cmocka_unit_test(a_file_of_its_own_or_inside_another),
        cmocka_unit_test(damaged_models_are_refused),
        cmocka_unit_test(every_truncation_is_met),
        cmocka_unit_test(prompts_have_bounds),
    };
    close(mkstemp(path));
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
