#include "worker/model/frames.h"

#include "common/safetensors.h"

#include <stdlib.h>
#include <sys/mman.h>

/* From here on a block is its own mapping: it goes back to the system at once, and what the process
 * holds is what is out. */
enum { MAPPED_BYTES = 1 << 20 };

struct frame_block {
    struct frame_block *before, *after;
    void *data;
    void *staged; /* RAM for this code to look at; NULL: none, or on the host */
    size_t bytes;
};

static lt_status take_data(const struct frames *frames, struct frame_block *block,
                           struct lt_error *error)
{
    if (frames->hollow) {
        block->data = block;
        return LT_OK;
    }
    if (!lt_exec_is_host(frames->exec) || block->bytes < MAPPED_BYTES)
        return lt_exec_take(frames->exec, block->bytes, &block->data, error);
    block->data =
        mmap(NULL, block->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return block->data != MAP_FAILED
               ? LT_OK
               : lt_fail(error, LT_NO_MEMORY, "no memory for a frame of %zu bytes", block->bytes);
}

static void give_data(const struct frames *frames, struct frame_block *block)
{
    if (frames->hollow)
        return;
    if (!lt_exec_is_host(frames->exec) || block->bytes < MAPPED_BYTES)
        lt_exec_give(frames->exec, block->data, block->bytes);
    else
        munmap(block->data, block->bytes);
}

/* Of a frame that is out; these are some tens. */
static struct frame_block *block_of(const struct frames *frames, const struct lt_view *frame)
{
    struct frame_block *block = frames->first;
    while (block && block->data != frame->data)
        block = block->after;
    lt_assert(block);
    return block;
}

lt_status frames_take(struct frames *frames, enum lt_type type, int64_t rows, int64_t columns,
                      int64_t channels, struct lt_view *frame_out, struct lt_error *error)
{
    uint64_t bytes = 0;
    int64_t values;
    struct frame_block *block = NULL;
    if (!__builtin_mul_overflow(rows, columns, &values) &&
        !__builtin_mul_overflow(values, channels, &values) && values >= 0 &&
        lt_type_bytes(type, (uint64_t)values, &bytes) && bytes < SIZE_MAX / 2)
        block = calloc(1, sizeof *block);
    if (!block)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a [%lld, %lld, %lld] frame",
                       (long long)rows, (long long)columns, (long long)channels);
    block->bytes = ((size_t)bytes + 63) / 64 * 64;
    const lt_status status = take_data(frames, block, error);
    if (status != LT_OK) {
        free(block);
        return status;
    }
    block->after = frames->first;
    if (frames->first)
        frames->first->before = block;
    frames->first = block;
    frames->used_bytes += block->bytes;
    if (frames->used_bytes > frames->peak_bytes)
        frames->peak_bytes = frames->used_bytes;
    *frame_out = lt_view_4d(block->data, type, 1, rows, columns, channels);
    return LT_OK;
}

void frames_give(struct frames *frames, struct lt_view *frame)
{
    if (!frame->data)
        return;
    struct frame_block *block = block_of(frames, frame);
    if (block->before)
        block->before->after = block->after;
    else
        frames->first = block->after;
    if (block->after)
        block->after->before = block->before;
    frames->used_bytes -= block->bytes;
    give_data(frames, block);
    free(block->staged);
    free(block);
    frame->data = NULL;
}

void frames_give_all(struct frames *frames)
{
    while (frames->first) {
        struct lt_view frame = {.data = frames->first->data};
        frames_give(frames, &frame);
    }
}

/* -- this code's look at them ------------------------------------------------------------------ */

lt_status frames_open(const struct frames *frames, const struct lt_view *frame,
                      struct lt_view *values_out, struct lt_error *error)
{
    struct frame_block *block = block_of(frames, frame);
    *values_out = *frame;
    if (lt_exec_is_host(frames->exec))
        return LT_OK;
    if (!block->staged)
        block->staged = malloc(block->bytes);
    if (!block->staged)
        return lt_fail(error, LT_NO_MEMORY, "no memory to look at a frame of %zu bytes",
                       block->bytes);
    values_out->data = block->staged;
    return LT_OK;
}

lt_status frames_close(const struct frames *frames, const struct lt_view *frame,
                       struct lt_error *error)
{
    const struct frame_block *block = block_of(frames, frame);
    if (!block->staged)
        return LT_OK;
    return lt_exec_upload(frames->exec, block->data, block->staged, block->bytes, error);
}

lt_status frames_values(const struct frames *frames, const struct lt_view *frame,
                        struct lt_view *values_out, struct lt_error *error)
{
    const struct frame_block *block = block_of(frames, frame);
    LT_TRY(frames_open(frames, frame, values_out, error));
    if (!block->staged)
        return LT_OK;
    return lt_exec_download(frames->exec, block->staged, block->data, block->bytes, error);
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
