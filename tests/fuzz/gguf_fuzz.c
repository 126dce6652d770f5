/* Any bytes as a GGUF header: refused with a text, or an index in which every tensor lies inside
 * the file. The parser reads through its callback, so the file is the input itself, followed by 1
 * MiB of zeros: large tensors may fit. */
#include "worker/weights/gguf.h"

#include <string.h>

struct input {
    const uint8_t *data;
    size_t size;
};

static const uint64_t TAIL_BYTES = 1 << 20;

static lt_status read_input(void *context, uint64_t offset, void *data, size_t bytes,
                            struct lt_error *error)
{
    (void)error;
    const struct input *input = context;
    lt_assert(offset <= input->size + TAIL_BYTES && bytes <= input->size + TAIL_BYTES - offset);
    memset(data, 0, bytes);
    if (offset < input->size) {
        const size_t left = input->size - (size_t)offset;
        memcpy(data, input->data + offset, left < bytes ? left : bytes);
    }
    return LT_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lt_error error = {0};
    struct lt_arena arena;
    struct gguf_index index = {0};
    struct input input = {data, size};
    /* the last bit of the input chooses whether anything stands behind it */
    const uint64_t file_bytes = size + (size > 0 && data[size - 1] & 1 ? TAIL_BYTES : 0);
    lt_arena_init(&arena, 32 << 20);
    if (gguf_parse(read_input, &input, file_bytes, "fuzz", &arena, &index, &error) == LT_OK) {
        for (size_t i = 0; i < index.count; i++) {
            const struct tensor_info *tensor = &index.tensor[i];
            uint64_t values = 1, bytes = 0;
            lt_assert(tensor->name[0] && tensor->rank >= 0 && tensor->rank <= LT_RANK_MAX);
            for (int d = 0; d < tensor->rank; d++)
                values *= (uint64_t)tensor->dim[d];
            lt_assert(lt_type_bytes(tensor->type, values, &bytes) && bytes == tensor->bytes);
            lt_assert(tensor->offset <= file_bytes && tensor->bytes <= file_bytes - tensor->offset);
        }
        for (const struct gguf_array *array = index.arrays; array; array = array->next)
            lt_assert(array->key[0] && array->array.offset <= file_bytes &&
                      array->array.bytes <= file_bytes - array->array.offset);
        for (const struct gguf_pair *pair = index.metadata; pair; pair = pair->next)
            lt_assert(pair->key[0]);
    } else {
        lt_assert(error.text[0] != 0);
    }
    lt_arena_fini(&arena);
    return 0;
}
