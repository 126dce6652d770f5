#include "worker/model/frames.h"

#include "common/safetensors.h"

#include <stdlib.h>
#include <sys/mman.h>

/* From here on a block is its own mapping: it goes back to the system at once, and what the process
 * holds is what is out. */
enum { MAPPED_BYTES = 1 << 20 };

struct frame_block { /* stands before the data */
    _Alignas(64) struct frame_block *before, *after;
    size_t bytes, taken_bytes;
};

static struct frame_block *take_block(size_t bytes)
{
    struct frame_block *block;
    const size_t taken = sizeof *block + bytes;
    if (taken < MAPPED_BYTES) {
        block = aligned_alloc(64, taken);
    } else {
        block = mmap(NULL, taken, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        block = block == MAP_FAILED ? NULL : block;
    }
    if (block)
        *block = (struct frame_block){.taken_bytes = taken};
    return block;
}

static void give_block(struct frame_block *block)
{
    if (block->taken_bytes < MAPPED_BYTES)
        free(block);
    else
        munmap(block, block->taken_bytes);
}

lt_status frames_take(struct frames *frames, enum lt_type type, int64_t rows, int64_t columns,
                      int64_t channels, struct lt_view *frame_out, struct lt_error *error)
{
    uint64_t bytes = 0;
    int64_t values;
    struct frame_block *block = NULL;
    if (!__builtin_mul_overflow(rows, columns, &values) &&
        !__builtin_mul_overflow(values, channels, &values) && values >= 0 &&
        lt_type_bytes(type, (uint64_t)values, &bytes) && bytes < SIZE_MAX / 2) {
        bytes = (bytes + 63) / 64 * 64;
        block = take_block(frames->hollow ? 64 : (size_t)bytes);
    }
    if (!block)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a [%lld, %lld, %lld] frame",
                       (long long)rows, (long long)columns, (long long)channels);
    block->after = frames->first;
    block->bytes = (size_t)bytes;
    if (frames->first)
        frames->first->before = block;
    frames->first = block;
    frames->used_bytes += block->bytes;
    if (frames->used_bytes > frames->peak_bytes)
        frames->peak_bytes = frames->used_bytes;
    *frame_out = lt_view_4d(block + 1, type, 1, rows, columns, channels);
    return LT_OK;
}

void frames_give(struct frames *frames, struct lt_view *frame)
{
    if (!frame->data)
        return;
    struct frame_block *block = (struct frame_block *)frame->data - 1;
    if (block->before)
        block->before->after = block->after;
    else
        frames->first = block->after;
    if (block->after)
        block->after->before = block->before;
    frames->used_bytes -= block->bytes;
    give_block(block);
    frame->data = NULL;
}

void frames_give_all(struct frames *frames)
{
    while (frames->first) {
        struct lt_view frame = {.data = frames->first + 1};
        frames_give(frames, &frame);
    }
}

static int64_t value_bytes(const struct lt_view *frame)
{
    return (int64_t)lt_type_info(frame->type)->block_bytes;
}

struct lt_view frame_rows(const struct lt_view *frame, int64_t first, int64_t count)
{
    const int64_t row = frame->dim[2] * frame->dim[3];
    return lt_view_4d((char *)frame->data + first * row * value_bytes(frame), frame->type, 1, count,
                      frame->dim[2], frame->dim[3]);
}

float frame_get(const struct lt_view *frame, int64_t index)
{
    return frame->type == LT_TYPE_F32 ? ((const float *)frame->data)[index]
                                      : lt_bf16_to_f32(((const uint16_t *)frame->data)[index]);
}

void frame_put(const struct lt_view *frame, int64_t index, float value)
{
    if (frame->type == LT_TYPE_F32)
        ((float *)frame->data)[index] = value;
    else
        ((uint16_t *)frame->data)[index] = lt_f32_to_bf16(value);
}
