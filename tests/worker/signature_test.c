/* If a signature missed a field, a worker would go on with the weights of another job; if it held
 * one too many, it would load gigabytes for nothing. Every field alone (G5.1, G5.2 of
 * pipeline.md 4.5). */
#include "tests/test.h"

#include "worker/weights/signature.h"

static const float strengths[] = {1, 0.5f};

static struct signature_base base_of(void)
{
    return (struct signature_base){.model = lt_sha256("model", 5),
                                   .kernels = "host avx2",
                                   .device = "host",
                                   .precision = 1,
                                   .text_len = 512,
                                   .device_memory = 1 << 30,
                                   .ram = 1 << 30,
                                   .blocks_to_swap = 8,
                                   .prefetch = 2,
                                   .swap_order = "tail"};
}

static struct signature_lora lora_of(const char *name)
{
    return (struct signature_lora){
        .file = lt_sha256(name, strlen(name)), .strength = strengths, .strength_count = 2};
}

static void change_model(struct signature_base *base)
{
    base->model.byte[31] ^= 1;
}
static void change_kernels(struct signature_base *base)
{
    base->kernels = "host avx512";
}
static void change_device(struct signature_base *base)
{
    base->device = "cuda:0";
}
static void change_precision(struct signature_base *base)
{
    base->precision = 0;
}
static void change_text_len(struct signature_base *base)
{
    base->text_len = 256;
}
static void change_device_memory(struct signature_base *base)
{
    base->device_memory++;
}
static void change_ram(struct signature_base *base)
{
    base->ram++;
}
static void change_blocks(struct signature_base *base)
{
    base->blocks_to_swap = 9;
}
static void change_prefetch(struct signature_base *base)
{
    base->prefetch = 1;
}
static void change_order(struct signature_base *base)
{
    base->swap_order = "spread";
}

static void each_field_of_the_base_alone(void **state)
{
    (void)state;
    static void (*const changes[])(struct signature_base * base) = {
        change_model,         change_kernels, change_device, change_precision, change_text_len,
        change_device_memory, change_ram,     change_blocks, change_prefetch,  change_order};
    const struct signature_lora lora = lora_of("a");
    struct weights_signature first, again, seen[LT_COUNT(changes)];
    struct signature_base base = base_of();
    signature_make(&base, &lora, 1, &first);
    for (size_t i = 0; i < LT_COUNT(changes); i++) {
        base = base_of();
        signature_make(&base, &lora, 1, &again);
        assert_true(signature_equal(&first, &again)); /* G5.1 */
        changes[i](&base);
        signature_make(&base, &lora, 1, &seen[i]);
        assert_false(lt_digest_equal(&first.base, &seen[i].base)); /* G5.2 */
        assert_true(lt_digest_equal(&first.lora, &seen[i].lora));
        for (size_t k = 0; k < i; k++)
            assert_false(lt_digest_equal(&seen[i].base, &seen[k].base));
    }
}

/* What is told apart: nothing, only strengths, or files too. */
enum { SAME, STRENGTHS, FILES };

static void expect(const struct signature_lora *a, size_t a_count, const struct signature_lora *b,
                   size_t b_count, int what)
{
    const struct signature_base base = base_of();
    struct weights_signature x, y;
    signature_make(&base, a, a_count, &x);
    signature_make(&base, b, b_count, &y);
    assert_true(lt_digest_equal(&x.base, &y.base)); /* LoRAs never touch the base */
    assert_int_equal(lt_digest_equal(&x.files, &y.files), what != FILES);
    assert_int_equal(lt_digest_equal(&x.lora, &y.lora), what == SAME);
    const struct lt_digest whole_x = signature_whole(&x), whole_y = signature_whole(&y);
    assert_int_equal(lt_digest_equal(&whole_x, &whole_y), what == SAME);
}

static void each_field_of_the_loras_alone(void **state)
{
    (void)state;
    static const float other[] = {1, 0.25f}, longer[] = {1, 0.5f, 0.5f, 0.5f}, ones[] = {1, 1},
                       zero[] = {0}, minus[] = {-0.0f};
    const struct signature_lora a = lora_of("a"), b = lora_of("b"), both[] = {a, b},
                                turned[] = {b, a};
    struct signature_lora now = a;
    expect(&a, 1, &a, 1, SAME);
    expect(&a, 1, NULL, 0, FILES);
    expect(&a, 1, &b, 1, FILES);
    expect(&a, 1, both, 2, FILES);
    expect(both, 2, turned, 2, FILES);
    now.expert = 1;
    expect(&a, 1, &now, 1, FILES);
    now = a;
    now.plain_peft = true;
    expect(&a, 1, &now, 1, FILES);
    now = a;
    now.strength = other;
    expect(&a, 1, &now, 1, STRENGTHS);
    now.strength_count = 1;
    expect(&a, 1, &now, 1, STRENGTHS);
    now = (struct signature_lora){a.file, longer, 4, 0, false};
    expect(&a, 1, &now, 1, SAME); /* the last one goes on anyway */
    const struct signature_lora plain = {a.file, NULL, 0, 0, false},
                                one = {a.file, ones, 2, 0, false};
    expect(&plain, 1, &one, 1, SAME);
    const struct signature_lora none = {a.file, zero, 1, 0, false},
                                negative = {a.file, minus, 1, 0, false};
    expect(&none, 1, &negative, 1, SAME);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_field_of_the_base_alone),
        cmocka_unit_test(each_field_of_the_loras_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
