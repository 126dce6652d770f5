#include "worker/weights/signature.h"

#include <string.h>

enum { FORMAT_VERSION = 1 };

/* [ tag u8 | length u64 LE | bytes ]: no two lists of fields give the same bytes. */
static void add_bytes(struct lt_sha256 *hash, uint8_t tag, const void *data, uint64_t bytes)
{
    uint8_t head[9] = {tag};
    for (int i = 0; i < 8; i++)
        head[1 + i] = (uint8_t)(bytes >> (8 * i));
    lt_sha256_add(hash, head, sizeof head);
    lt_sha256_add(hash, data, (size_t)bytes);
}

static void add_number(struct lt_sha256 *hash, uint8_t tag, uint64_t value)
{
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    add_bytes(hash, tag, bytes, sizeof bytes);
}

static void add_text(struct lt_sha256 *hash, uint8_t tag, const char *text)
{
    add_bytes(hash, tag, text ? text : "", text ? strlen(text) : 0);
}

static void add_digest(struct lt_sha256 *hash, uint8_t tag, const struct lt_digest *digest)
{
    add_bytes(hash, tag, digest->byte, LT_DIGEST_BYTES);
}

static struct lt_digest of_base(const struct signature_base *base)
{
    struct lt_sha256 hash;
    lt_sha256_begin(&hash);
    add_number(&hash, 'V', FORMAT_VERSION);
    add_digest(&hash, 'm', &base->model);
    add_digest(&hash, 'j', &base->addon);
    add_text(&hash, 'k', base->kernels);
    add_text(&hash, 'd', base->device);
    add_number(&hash, 'p', base->precision);
    add_number(&hash, 't', (uint64_t)base->text_len);
    add_number(&hash, 'D', base->device_memory);
    add_number(&hash, 'R', base->ram);
    add_number(&hash, 's', (uint64_t)base->blocks_to_swap);
    add_number(&hash, 'f', (uint64_t)base->prefetch);
    add_text(&hash, 'o', base->swap_order);
    return lt_sha256_end(&hash);
}

static struct lt_digest of_files(const struct signature_lora *lora, size_t count)
{
    struct lt_sha256 hash;
    lt_sha256_begin(&hash);
    add_number(&hash, 'V', FORMAT_VERSION);
    add_number(&hash, 'n', count);
    for (size_t i = 0; i < count; i++) {
        add_digest(&hash, 'l', &lora[i].file);
        add_number(&hash, 'e', lora[i].expert);
        add_number(&hash, 'a', lora[i].plain_peft);
    }
    return lt_sha256_end(&hash);
}

/* Equal ones at the end say the same as one of them; -0 is 0. */
static void add_strengths(struct lt_sha256 *hash, const struct signature_lora *lora)
{
    const float one = 1, *strength = lora->strength_count ? lora->strength : &one;
    size_t count = lora->strength_count ? lora->strength_count : 1;
    while (count > 1 && strength[count - 1] == strength[count - 2])
        count--;
    add_number(hash, 'c', count);
    for (size_t i = 0; i < count; i++) {
        const float value = strength[i] == 0 ? 0 : strength[i];
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        add_number(hash, 'x', bits);
    }
}

void signature_make(const struct signature_base *base, const struct signature_lora *lora,
                    size_t lora_count, struct weights_signature *signature_out)
{
    struct lt_sha256 hash;
    signature_out->base = of_base(base);
    signature_out->files = of_files(lora, lora_count);
    lt_sha256_begin(&hash);
    add_digest(&hash, 'F', &signature_out->files);
    for (size_t i = 0; i < lora_count; i++)
        add_strengths(&hash, &lora[i]);
    signature_out->lora = lt_sha256_end(&hash);
}

bool signature_equal(const struct weights_signature *a, const struct weights_signature *b)
{
    return lt_digest_equal(&a->base, &b->base) && lt_digest_equal(&a->lora, &b->lora);
}

struct lt_digest signature_whole(const struct weights_signature *signature)
{
    struct lt_sha256 hash;
    lt_sha256_begin(&hash);
    add_digest(&hash, 'B', &signature->base);
    add_digest(&hash, 'L', &signature->lora);
    return lt_sha256_end(&hash);
}
