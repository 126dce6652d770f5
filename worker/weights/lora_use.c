/* What a model asks of a set while it runs. */
#include "worker/weights/lora_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* -- strengths --------------------------------------------------------------------------------- */

static float strength_now(const struct lora_set *set, uint32_t source)
{
    const struct lora_file *file = &set->source[source];
    return file->strength[set->step < file->strength_count ? set->step : file->strength_count - 1];
}

float lora_strength(const struct lora_set *set, const struct lora_patch *patch)
{
    return strength_now(set, patch->source);
}

lt_status lora_set_strengths(struct lora_set *set, const struct lora_source *source, size_t count,
                             struct lt_error *error)
{
    lt_assert(count == set->count);
    for (size_t i = 0; i < count; i++)
        for (size_t s = 0; s < source[i].strength_count; s++)
            if (!isfinite(source[i].strength[s]))
                return lt_fail(error, LT_BAD_INPUT, "%s: strength %zu is not a number",
                               source[i].path, s);
    for (size_t i = 0; i < count; i++) {
        struct lora_file *file = &set->source[i];
        const size_t steps = source[i].strength_count ? source[i].strength_count : 1;
        float *strength = file->strength;
        if (steps > file->strength_count) {
            strength = lt_arena_take_array(&set->arena, steps, sizeof *strength);
            if (!strength)
                return lt_fail(error, LT_NO_MEMORY, "no memory for %zu strengths", steps);
        }
        for (size_t s = 0; s < steps; s++)
            strength[s] = source[i].strength_count ? source[i].strength[s] : 1;
        file->strength = strength;
        file->strength_count = steps;
    }
    return LT_OK;
}

void lora_set_step(struct lora_set *set, size_t step)
{
    set->step = step;
}

struct lt_digest lora_set_state(const struct lora_set *set)
{
    struct lt_sha256 hash;
    lt_sha256_begin(&hash);
    for (size_t i = 0; i < set->count; i++) {
        const float strength = strength_now(set, (uint32_t)i);
        lt_sha256_add(&hash, &set->source[i].report.fingerprint, LT_DIGEST_BYTES);
        lt_sha256_add(&hash, &strength, sizeof strength);
    }
    return lt_sha256_end(&hash);
}

/* -- reports ----------------------------------------------------------------------------------- */

size_t lora_set_count(const struct lora_set *set)
{
    return set->count;
}

const struct lora_report *lora_set_report(const struct lora_set *set, size_t index)
{
    lt_assert(index < set->count);
    return &set->source[index].report;
}

void lora_set_stats(const struct lora_set *set, struct lora_stats *stats_out)
{
    *stats_out = set->stats;
    stats_out->read_bytes = set->read_bytes;
}

void lora_set_stream(struct lora_set *set)
{
    set->streamed = true;
}

bool lora_set_is_streamed(const struct lora_set *set)
{
    return set->streamed;
}

const struct store_extras *lora_set_extras(const struct lora_set *set)
{
    return set->streamed ? NULL : &set->extras;
}

/* "blocks.3." of a name; empty for what is outside the blocks. */
static size_t block_prefix(const char *name)
{
    const size_t digits = strncmp(name, "blocks.", 7) == 0 ? strspn(name + 7, "0123456789") : 0;
    return digits > 0 ? 7 + digits + 1 : 0;
}

uint64_t lora_set_use_bytes(const struct lora_set *set)
{
    int64_t factors = 0, outside = 0, block = 0, most = 0;
    for (size_t i = 0; i < set->target_count; i++) { /* by name: a block's stand together */
        const struct lora_target *target = &set->target[i];
        const int64_t wide = target->rank + target->rows + target->columns;
        const size_t prefix = block_prefix(target->name);
        if (i > 0 && strncmp(target->name, set->target[i - 1].name, prefix) != 0)
            block = 0;
        if (target->matrix)
            factors = wide > factors ? wide : factors;
        else if (prefix > 0)
            block += 2 * target->columns;
        else
            outside += 2 * target->columns;
        most = block > most ? block : most;
    }
    return LORA_HIDDEN_BYTES + (uint64_t)(factors + outside + most) * sizeof(float) +
           (set->streamed ? set->stats.term_bytes : 0);
}

static lt_status join_product(struct lt_scratch *most, enum lt_precision precision, int64_t rows,
                              int64_t k, int64_t n, struct lt_error *error)
{
    for (int exact = 0; exact < 2; exact++) {
        struct lt_scratch one;
        LT_TRY(lt_scratch_linear(precision, rows, k, n, exact, &one, error));
        lt_scratch_join(most, &one);
    }
    return LT_OK;
}

lt_status lora_set_scratch(const struct lora_set *set, enum lt_precision precision, int64_t rows,
                           struct lt_scratch *most, struct lt_error *error)
{
    for (size_t i = 0; i < set->target_count; i++) {
        const struct lora_target *target = &set->target[i];
        if (!target->matrix || target->rank == 0)
            continue;
        LT_TRY(join_product(most, precision, rows, target->columns, target->rank, error));
        LT_TRY(join_product(most, precision, rows, target->rank, target->rows, error));
    }
    return LT_OK;
}

/* -- targets ----------------------------------------------------------------------------------- */

static int by_name(const void *name, const void *target)
{
    return strcmp(name, ((const struct lora_target *)target)->name);
}

const struct lora_target *lora_find(const struct lora_set *set, const char *name)
{
    return bsearch(name, set->target, set->target_count, sizeof *set->target, by_name);
}

bool lora_target_is_matrix(const struct lora_target *target)
{
    return target->matrix;
}

size_t lora_term_count(const struct lora_target *target)
{
    return target->term_count;
}

const struct lora_patch *lora_term_patch(const struct lora_set *set,
                                         const struct lora_target *target, size_t term)
{
    size_t at = target->rank > 0 ? 1 : 0;
    if (term < at)
        return NULL;
    for (uint32_t i = 0; i < target->patch_count; i++) {
        const struct lora_patch *patch = &set->patch[target->patch_first + i];
        if ((patch->info[LORA_ROLE_DIFF] || patch->info[LORA_ROLE_SET]) && at++ == term)
            return patch;
    }
    lt_assert_failed("a term of the target", __FILE__, __LINE__);
}

int64_t lora_term_rank(const struct lora_target *target, size_t index)
{
    return target->rank > 0 && index == 0 ? target->rank : target->columns;
}

bool lora_term_scale(const struct lora_set *set, const struct lora_target *target, size_t index,
                     float *scale)
{
    const struct lora_patch *whole = lora_term_patch(set, target, index);
    bool any = false;
    if (whole) {
        const float strength = lora_strength(set, whole);
        for (int64_t i = 0; i < target->columns; i++)
            scale[i] = strength;
        return strength != 0;
    }
    for (uint32_t i = 0; i < target->patch_count; i++) {
        const struct lora_patch *patch = &set->patch[target->patch_first + i];
        const float by = lora_strength(set, patch) * patch->factor;
        for (int64_t r = 0; r < patch->rank; r++)
            *scale++ = by;
        any = any || (patch->rank > 0 && by != 0);
    }
    return any;
}

static size_t extra_bytes(const struct lora_set *set, size_t index)
{
    const struct store_extra *extra = &set->extras.tensor[index];
    uint64_t count = 1, bytes = 0;
    for (int i = 0; i < extra->rank; i++)
        count *= (uint64_t)extra->dim[i];
    lt_type_bytes(extra->type, count, &bytes);
    return (size_t)bytes;
}

/* The term's bytes of a streamed set, read now. */
static lt_status stream_term(struct lora_set *set, size_t first, size_t count, void **data,
                             struct lt_error *error)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += (extra_bytes(set, first + i) + 63) / 64 * 64;
    if (bytes > set->stream_bytes) {
        free(set->stream);
        set->stats.buffer_bytes -= set->stream_bytes;
        set->stream = aligned_alloc(64, bytes);
        set->stream_bytes = set->stream ? bytes : 0;
        set->stats.buffer_bytes += set->stream_bytes;
        if (!set->stream)
            return lt_fail(error, LT_NO_MEMORY, "no memory for a LoRA term of %zu bytes", bytes);
    }
    char *at = set->stream;
    for (size_t i = 0; i < count; i++) {
        data[i] = at;
        LT_TRY(lora_fill(set, first + i, at, extra_bytes(set, first + i), error));
        at += (extra_bytes(set, first + i) + 63) / 64 * 64;
    }
    return LT_OK;
}

lt_status lora_term_views(struct lora_set *set, const struct lora_target *target, size_t index,
                          const struct store *store, struct lt_view *a_out, struct lt_view *b_out,
                          struct lt_error *error)
{
    const bool pair = target->rank > 0 && index == 0;
    const size_t skipped = target->rank > 0 && index > 0 ? 1 : 0; /* a pair has two extras */
    const size_t first = target->extra_first + index + skipped, count = pair ? 2 : 1;
    struct lt_view view[2] = {{0}};
    void *data[2];
    if (set->streamed)
        LT_TRY(stream_term(set, first, count, data, error));
    for (size_t i = 0; i < count; i++) {
        const struct store_extra *extra = &set->extras.tensor[first + i];
        if (set->streamed)
            view[i] = lt_view_make(data[i], extra->type, extra->rank, extra->dim);
        else
            LT_TRY(store_tensor(store, extra->name, &view[i], error));
    }
    *a_out = pair ? view[0] : (struct lt_view){0};
    *b_out = view[count - 1];
    return LT_OK;
}

bool lora_target_gain(const struct lora_set *set, const struct lora_target *target, float *gain)
{
    const int64_t count = target->matrix ? target->rows : target->columns;
    bool any = false;
    memset(gain, 0, (size_t)count * sizeof *gain);
    for (uint32_t i = 0; i < target->patch_count; i++) {
        const struct lora_patch *patch = &set->patch[target->patch_first + i];
        const float strength = lora_strength(set, patch);
        if (strength == 0 || (!patch->gain && !patch->info[LORA_ROLE_SET]))
            continue;
        any = true;
        for (int64_t row = 0; row < count && patch->info[LORA_ROLE_SET]; row++)
            gain[row] -= strength;
        for (int64_t row = 0; row < patch->row_count && patch->gain; row++)
            gain[patch->row_first + row] += strength * patch->gain[row];
    }
    return any;
}

bool lora_target_active(const struct lora_set *set, const struct lora_target *target)
{
    for (uint32_t i = 0; i < target->patch_count; i++)
        if (lora_strength(set, &set->patch[target->patch_first + i]) != 0)
            return true;
    return false;
}
