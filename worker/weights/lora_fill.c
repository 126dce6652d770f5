/* Values on their way from LoRA files to where they are used: one piece at a time. */
#include "worker/weights/lora_private.h"

#include "common/safetensors.h"
#include "kernels/quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The raw values are read to the end of the f32 room and widened from front to back: writing never
 * passes reading. */
lt_status lora_read_values(struct lora_set *set, uint32_t source, const struct tensor_info *info,
                           int64_t first, int64_t count, float *to, struct lt_error *error)
{
    const size_t value = lt_type_info(info->type)->block_bytes;
    char *raw = (char *)to + (size_t)count * (sizeof *to - value);
    LT_TRY(tensor_file_read_part(set->source[source].file, info, (uint64_t)first * value, raw,
                                 (size_t)count * value, error));
    set->read_bytes += (uint64_t)count * value;
    for (int64_t i = 0; i < count && info->type != LT_TYPE_F32; i++) {
        uint16_t half;
        memcpy(&half, raw + i * 2, sizeof half);
        to[i] = info->type == LT_TYPE_F16 ? lt_f16_to_f32(half) : lt_bf16_to_f32(half);
    }
    return LT_OK;
}

static void put_values(enum lt_type type, void *data, int64_t at, const float *from, int64_t count)
{
    if (type == LT_TYPE_F32) {
        memcpy((float *)data + at, from, (size_t)count * sizeof *from);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        ((uint16_t *)data)[at + i] = lt_f32_to_bf16(from[i]);
}

/* A whole tensor, in its order, to values `at` … of `data`. */
static lt_status copy_tensor(struct lora_set *set, uint32_t source, const struct tensor_info *info,
                             enum lt_type type, void *data, int64_t at, int64_t count,
                             struct lt_error *error)
{
    const size_t value = lt_type_info(type)->block_bytes;
    if (info->type == type) { /* nothing to convert: straight to its place */
        LT_TRY(tensor_file_read_part(set->source[source].file, info, 0,
                                     (char *)data + (size_t)at * value, (size_t)count * value,
                                     error));
        set->read_bytes += (uint64_t)count * value;
        return LT_OK;
    }
    for (int64_t done = 0; done < count; done += set->piece_values) {
        const int64_t left = count - done,
                      part = left < set->piece_values ? left : set->piece_values;
        LT_TRY(lora_read_values(set, source, info, done, part, set->piece, error));
        put_values(type, data, at + done, set->piece, part);
    }
    return LT_OK;
}

/* A [R, in]: the down matrices one below the other. */
static lt_status fill_a(struct lora_set *set, const struct lora_target *target, void *data,
                        struct lt_error *error)
{
    int64_t rank = 0;
    for (uint32_t i = 0; i < target->patch_count; i++) {
        const struct lora_patch *patch = &set->patch[target->patch_first + i];
        if (patch->rank == 0)
            continue;
        LT_TRY(copy_tensor(set, patch->source, patch->info[LORA_ROLE_DOWN], set->type, data,
                           rank * target->columns, patch->rank * target->columns, error));
        rank += patch->rank;
    }
    return LT_OK;
}

/* The up matrix of one patch as columns [at, at + r) of B, its rows times gain + 1. */
static lt_status fill_columns(struct lora_set *set, const struct lora_target *target,
                              const struct lora_patch *patch, int64_t at, void *data,
                              struct lt_error *error)
{
    const struct tensor_info *up = patch->info[LORA_ROLE_UP];
    const int64_t rank = patch->rank, rows = set->piece_values / rank;
    if (rank == target->rank && patch->row_count == target->rows && !patch->gain)
        return copy_tensor(set, patch->source, up, set->type, data, 0, target->rows * rank, error);
    for (int64_t row = 0; row < patch->row_count; row += rows) {
        const int64_t left = patch->row_count - row, count = left < rows ? left : rows;
        LT_TRY(
            lora_read_values(set, patch->source, up, row * rank, count * rank, set->piece, error));
        for (int64_t i = 0; i < count; i++) {
            float *from = set->piece + i * rank;
            for (int64_t r = 0; r < rank && patch->gain; r++)
                from[r] *= 1 + patch->gain[row + i];
            put_values(set->type, data, (patch->row_first + row + i) * target->rank + at, from,
                       rank);
        }
    }
    return LT_OK;
}

/* B [out, R]: the up matrices side by side; zeros where a patch is for half of the rows. */
static lt_status fill_b(struct lora_set *set, const struct lora_target *target, void *data,
                        size_t bytes, struct lt_error *error)
{
    int64_t rank = 0;
    memset(data, 0, bytes);
    for (uint32_t i = 0; i < target->patch_count; i++) {
        const struct lora_patch *patch = &set->patch[target->patch_first + i];
        if (patch->rank == 0)
            continue;
        LT_TRY(fill_columns(set, target, patch, rank, data, error));
        rank += patch->rank;
    }
    return LT_OK;
}

lt_status lora_fill(void *context, size_t index, void *data, size_t bytes, struct lt_error *error)
{
    struct lora_set *set = context;
    const struct lora_extra *extra = &set->extra[index];
    const struct store_extra *tensor = &set->extras.tensor[index];
    const struct lora_target *target = &set->target[extra->target];
    const struct lora_patch *patch = lora_term_patch(set, target, extra->term);
    if (extra->is_a)
        return fill_a(set, target, data, error);
    if (!patch)
        return fill_b(set, target, data, bytes, error);
    const struct tensor_info *info =
        patch->info[LORA_ROLE_DIFF] ? patch->info[LORA_ROLE_DIFF] : patch->info[LORA_ROLE_SET];
    return copy_tensor(set, patch->source, info, tensor->type, data, 0,
                       target->rows * target->columns, error);
}

/* -- DoRA -------------------------------------------------------------------------------------- */

struct measure { /* of one patch */
    struct lora_set *set;
    struct lora_patch *patch;
    const struct lora_target *target;
    const struct tensor_info *base;
    float *down; /* [r, in], of PEFT's form only */
    float *row;  /* [in] */
    float *up;   /* [r] */
    char *raw;   /* rows of the model as stored */
    int64_t raw_rows;
    uint64_t row_bytes;
};

static double norm_of(const float *row, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += (double)row[i] * row[i];
    return sqrt(sum);
}

/* dit.md 5.3: m / (‖W‖ + eps) with the norm of the weight as it is; PEFT takes it with the patch.
 */
static lt_status measure_row(struct measure *m, int64_t row, const char *raw,
                             struct lt_error *error)
{
    struct lora_patch *patch = m->patch;
    const int64_t columns = m->target->columns;
    lt_dequantize_row(m->base->type, raw, m->row, columns);
    if (m->down) {
        LT_TRY(lora_read_values(m->set, patch->source, patch->info[LORA_ROLE_UP], row * patch->rank,
                                patch->rank, m->up, error));
        for (int64_t r = 0; r < patch->rank; r++) {
            const float by = patch->factor * m->up[r];
            for (int64_t i = 0; i < columns; i++)
                m->row[i] += by * m->down[r * columns + i];
        }
    }
    const double norm = norm_of(m->row, columns) + 1.1920929e-7;
    patch->gain[row] = (float)(patch->gain[row] / norm - 1);
    return LT_OK;
}

static lt_status measure_rows(struct measure *m, struct tensor_file *model, struct lt_error *error)
{
    struct lora_patch *patch = m->patch;
    for (int64_t row = 0; row < patch->row_count; row += m->raw_rows) {
        const int64_t left = patch->row_count - row,
                      count = left < m->raw_rows ? left : m->raw_rows;
        const size_t bytes = (size_t)count * m->row_bytes;
        LT_TRY(tensor_file_read_part(model, m->base,
                                     (uint64_t)(patch->row_first + row) * m->row_bytes, m->raw,
                                     bytes, error));
        m->set->stats.base_bytes += bytes;
        for (int64_t i = 0; i < count; i++)
            LT_TRY(measure_row(m, row + i, m->raw + (size_t)i * m->row_bytes, error));
    }
    return LT_OK;
}

static lt_status take_rooms(struct measure *m, struct lt_error *error)
{
    const struct lora_patch *patch = m->patch;
    const size_t columns = (size_t)m->target->columns, rank = (size_t)patch->rank;
    if (!lt_type_bytes(m->base->type, (uint64_t)columns, &m->row_bytes))
        return lt_fail(error, LT_BAD_INPUT, "tensor '%s': rows are not whole blocks",
                       m->base->name);
    const uint64_t fit = (1 << 20) / m->row_bytes;
    m->raw_rows = fit > 1 ? (int64_t)fit : 1;
    m->row = malloc(columns * sizeof *m->row);
    m->raw = malloc((size_t)m->raw_rows * m->row_bytes);
    m->up = malloc(rank * sizeof *m->up);
    const bool patched = patch->info[LORA_ROLE_MAGNITUDE] != NULL;
    if (patched)
        m->down = malloc(rank * columns * sizeof *m->down);
    if (!m->row || !m->raw || !m->up || (patched && !m->down))
        return lt_fail(error, LT_NO_MEMORY, "no memory to measure '%s'", m->base->name);
    return patched ? copy_tensor(m->set, patch->source, patch->info[LORA_ROLE_DOWN], LT_TYPE_F32,
                                 m->down, 0, (int64_t)(rank * columns), error)
                   : LT_OK;
}

static lt_status measure_patch(struct lora_set *set, struct lora_patch *patch,
                               struct tensor_file *model, struct lt_error *error)
{
    const struct lora_target *target = &set->target[patch->target];
    struct measure m = {.set = set,
                        .patch = patch,
                        .target = target,
                        .base = tensor_file_find(model, target->name)};
    const struct tensor_info *magnitude = patch->info[LORA_ROLE_DORA]
                                              ? patch->info[LORA_ROLE_DORA]
                                              : patch->info[LORA_ROLE_MAGNITUDE];
    const size_t gain_bytes = (size_t)patch->row_count * sizeof *patch->gain;
    lt_status status;
    patch->gain = malloc(gain_bytes);
    if (!patch->gain)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the gain of '%s'", target->name);
    set->stats.buffer_bytes += gain_bytes;
    LT_TRY_OR(copy_tensor(set, patch->source, magnitude, LT_TYPE_F32, patch->gain, 0,
                          patch->row_count, error),
              out);
    LT_TRY_OR(take_rooms(&m, error), out);
    LT_TRY_OR(measure_rows(&m, model, error), out);
out:
    free(m.down);
    free(m.row);
    free(m.up);
    free(m.raw);
    return status;
}

lt_status lora_measure_gains(struct lora_set *set, struct tensor_file *model,
                             struct lt_error *error)
{
    for (size_t i = 0; i < set->patch_count; i++) {
        struct lora_patch *patch = &set->patch[i];
        if (patch->rank > 0 && (patch->info[LORA_ROLE_DORA] || patch->info[LORA_ROLE_MAGNITUDE]))
            LT_TRY(measure_patch(set, patch, model, error));
    }
    return LT_OK;
}
