/* A set finds its places in three passes: every key of a file finds its tensor and its place in a
 * patch; the patches are checked against the shapes of the model; patches of one tensor become a
 * target, whose terms become extras. */
#include "worker/weights/lora_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RANK_MAX = 16384, ROWS_KINDS = 3 };

struct build {
    struct lora_set *set;
    const struct tensor_file *model;
    struct lora_names *names;
    uint32_t *slot; /* of one file: [model tensor][rows kind] -> patch + 1 */
    size_t room;
};

static lt_status no_memory(struct lt_error *error)
{
    return lt_fail(error, LT_NO_MEMORY, "no memory for LoRA files");
}

int64_t lora_values(const struct tensor_info *info)
{
    int64_t count = 1;
    for (int i = 0; i < info->rank; i++)
        count *= info->dim[i];
    return count;
}

bool lora_ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* Names come from the file: a terminal must not obey them. */
static void note_left(struct lora_set *set, struct lora_report *report, const char *name)
{
    char shown[LORA_NAME_BYTES];
    snprintf(shown, sizeof shown, "%s", name);
    for (char *c = shown; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    for (size_t i = 0; i < LORA_NAMES_SHOWN; i++)
        if (!report->left[i]) {
            report->left[i] = lt_arena_text(&set->arena, shown);
            return;
        }
}

/* -- keys to patches --------------------------------------------------------------------------- */

static lt_status take_patch(struct build *build, uint32_t source, size_t tensor,
                            enum lora_rows rows, struct lora_patch **patch_out,
                            struct lt_error *error)
{
    struct lora_set *set = build->set;
    uint32_t *slot = &build->slot[tensor * ROWS_KINDS + rows];
    if (*slot == 0) {
        if (set->patch_count == build->room) {
            const size_t room = build->room ? 2 * build->room : 256;
            struct lora_patch *grown = realloc(set->patch, room * sizeof *grown);
            if (!grown)
                return no_memory(error);
            set->patch = grown;
            build->room = room;
        }
        const struct tensor_info *info = tensor_file_at(build->model, tensor);
        const int64_t all = info->rank > 0 ? info->dim[0] : 1;
        struct lora_patch *patch = &set->patch[set->patch_count];
        *patch = (struct lora_patch){
            .source = source, .target = (uint32_t)tensor, .row_count = all, .factor = 1};
        if (rows != LORA_ROWS_ALL) {
            patch->row_count = all / 2;
            patch->row_first = rows == LORA_ROWS_SECOND_HALF ? all / 2 : 0;
        }
        *slot = (uint32_t)++set->patch_count;
    }
    *patch_out = &set->patch[*slot - 1];
    return LT_OK;
}

static lt_status add_key(struct build *build, uint32_t source, const struct tensor_info *info,
                         struct lt_error *error)
{
    struct lora_file *file = &build->set->source[source];
    const char *refused;
    struct lora_key key;
    enum lora_rows rows;
    struct lora_patch *patch = NULL;
    const struct tensor_info *to = NULL;
    if (lora_key_parse(info->name, &key, &refused)) {
        if (key.expert != LORA_EXPERT_ANY && file->expert != LORA_EXPERT_ANY &&
            key.expert != file->expert)
            return LT_OK; /* the other expert's */
        to = lora_names_find(build->names, &key, &rows);
    }
    if (!to) {
        note_left(build->set, &file->report, info->name);
        return LT_OK;
    }
    if (info->type != LT_TYPE_F32 && info->type != LT_TYPE_F16 && info->type != LT_TYPE_BF16)
        return lt_fail(error, LT_UNSUPPORTED, "%s: '%s' is %s, expected F32, F16 or BF16",
                       file->report.path, info->name, lt_type_info(info->type)->name);
    LT_TRY(take_patch(build, source, (size_t)(to - tensor_file_at(build->model, 0)), rows, &patch,
                      error));
    if (patch->info[key.role])
        return lt_fail(error, LT_BAD_INPUT, "%s: '%s' and '%s' are for the same tensor '%s'",
                       file->report.path, patch->info[key.role]->name, info->name, to->name);
    patch->info[key.role] = info;
    if (file->report.matched_count++ == 0)
        file->report.form = key.form;
    return LT_OK;
}

/* -- patches against the model ----------------------------------------------------------------- */

static lt_status read_alpha(struct lora_set *set, struct lora_patch *patch, struct lt_error *error)
{
    const struct lora_file *source = &set->source[patch->source];
    const struct tensor_info *info = patch->info[LORA_ROLE_ALPHA];
    const double rank = (double)patch->rank;
    double alpha = 0; /* absent or 0: the factor is 1 */
    if (info) {
        float value;
        if (lora_values(info) != 1)
            return lt_fail(error, LT_BAD_INPUT, "%s: '%s' has %lld values, expected one",
                           source->report.path, info->name, (long long)lora_values(info));
        LT_TRY(lora_read_values(set, patch->source, info, 0, 1, &value, error));
        alpha = value;
    } else if (source->metadata_alpha != 0) {
        alpha = source->metadata_alpha * (source->metadata_rslora ? sqrt(rank) : 1);
    } else if (source->peft_ranked) {
        alpha = floor(rank * sqrt(rank));
    }
    if (!isfinite(alpha))
        return lt_fail(error, LT_BAD_INPUT, "%s: the alpha of '%s' is not a number",
                       source->report.path, patch->info[LORA_ROLE_DOWN]->name);
    patch->factor = alpha == 0 ? 1 : (float)(alpha / rank);
    return LT_OK;
}

static lt_status broken(const struct lora_set *set, const struct lora_patch *patch,
                        const struct tensor_info *info, const char *what, struct lt_error *error)
{
    return lt_fail(error, LT_BAD_INPUT, "%s: '%s' %s", set->source[patch->source].report.path,
                   info->name, what);
}

/* Sets `*fits` false when the model's tensor has another shape: T2V LoRAs on an I2V model leave
 * such keys, and that is no error. What contradicts itself is. */
static lt_status check_pair(struct lora_set *set, struct lora_patch *patch, int64_t columns,
                            bool matrix, bool *fits, struct lt_error *error)
{
    const struct tensor_info *down = patch->info[LORA_ROLE_DOWN], *up = patch->info[LORA_ROLE_UP],
                             *dora = patch->info[LORA_ROLE_DORA] ? patch->info[LORA_ROLE_DORA]
                                                                 : patch->info[LORA_ROLE_MAGNITUDE];
    if (!down && !up) {
        if (dora)
            return broken(set, patch, dora, "has no pair of matrices beside it", error);
        return LT_OK;
    }
    if (!down || !up)
        return broken(set, patch, down ? down : up,
                      "is half of a pair: the other matrix is missing", error);
    const int64_t rank = down->rank > 0 ? down->dim[0] : 0, rows = patch->row_count;
    if (rank < 1 || rank > RANK_MAX)
        return broken(set, patch, down, "has a rank beyond 1 to 16384", error);
    if (!matrix || lora_values(down) != rank * columns || up->rank < 1 || up->dim[0] != rows) {
        *fits = false;
        return LT_OK;
    }
    if (lora_values(up) != rows * rank)
        return broken(set, patch, up, "has another rank than its down matrix", error);
    if (patch->info[LORA_ROLE_DORA] && patch->info[LORA_ROLE_MAGNITUDE])
        return broken(set, patch, dora, "has two magnitudes", error);
    if (dora && lora_values(dora) != rows && lora_values(dora) != columns)
        return broken(set, patch, dora, "is not one value a row", error);
    if (dora && (lora_values(dora) != rows || (dora->rank > 1 && dora->dim[0] == 1 && rows > 1)))
        return lt_fail(error, LT_UNSUPPORTED, "%s: '%s' is a DoRA over input columns: not built",
                       set->source[patch->source].report.path, dora->name);
    patch->rank = rank;
    return read_alpha(set, patch, error);
}

static lt_status check_patch(struct build *build, struct lora_patch *patch, bool *fits,
                             struct lt_error *error)
{
    const struct tensor_info *to = tensor_file_at(build->model, patch->target);
    const int64_t values = lora_values(to), all = to->rank > 0 ? to->dim[0] : 1;
    const bool matrix = lora_ends_with(to->name, ".weight") && to->rank > 1 && values != all;
    const int64_t columns = all > 0 ? values / all : 0;
    const struct tensor_info *const whole[] = {patch->info[LORA_ROLE_DIFF],
                                               patch->info[LORA_ROLE_SET]};
    if (whole[0] && whole[1])
        return broken(build->set, patch, whole[1], "and a difference of the same tensor", error);
    LT_TRY(check_pair(build->set, patch, columns, matrix, fits, error));
    for (size_t i = 0; i < LT_COUNT(whole); i++)
        if (whole[i] && lora_values(whole[i]) != patch->row_count * columns)
            *fits = false;
    return LT_OK;
}

/* Keeps what fits; what is left counts as unmatched. */
static lt_status check_patches(struct build *build, struct lt_error *error)
{
    struct lora_set *set = build->set;
    size_t kept = 0;
    for (size_t i = 0; i < set->patch_count; i++) {
        struct lora_patch *patch = &set->patch[i];
        struct lora_report *report = &set->source[patch->source].report;
        bool fits = true;
        LT_TRY(check_patch(build, patch, &fits, error));
        const bool does =
            patch->rank > 0 || patch->info[LORA_ROLE_DIFF] || patch->info[LORA_ROLE_SET];
        if (fits && does) {
            report->patch_count++;
            report->dora_count += patch->info[LORA_ROLE_DORA] || patch->info[LORA_ROLE_MAGNITUDE];
            if (patch->rank > 0 && (report->rank_min == 0 || patch->rank < report->rank_min))
                report->rank_min = patch->rank;
            if (patch->rank > report->rank_max)
                report->rank_max = patch->rank;
            set->patch[kept++] = *patch;
            continue;
        }
        for (size_t role = 0; role < LORA_ROLE_COUNT; role++)
            if (patch->info[role]) {
                note_left(set, report, patch->info[role]->name);
                report->matched_count--;
                report->mismatched_count += !fits;
            }
    }
    set->patch_count = kept;
    return LT_OK;
}

/* -- targets and extras ------------------------------------------------------------------------ */

static int by_target(const void *a, const void *b, void *context)
{
    const struct lora_patch *x = a, *y = b;
    const struct tensor_file *model = context;
    if (x->target != y->target)
        return strcmp(tensor_file_at(model, x->target)->name,
                      tensor_file_at(model, y->target)->name);
    if (x->source != y->source)
        return x->source < y->source ? -1 : 1;
    return x->row_first < y->row_first ? -1 : x->row_first > y->row_first;
}

static lt_status add_target(struct build *build, size_t first, size_t count, struct lt_error *error)
{
    struct lora_set *set = build->set;
    const struct tensor_info *to = tensor_file_at(build->model, set->patch[first].target);
    struct lora_target *target = &set->target[set->target_count];
    const int64_t values = lora_values(to), all = to->rank > 0 ? to->dim[0] : 1;
    *target = (struct lora_target){
        .name = lt_arena_text(&set->arena, to->name),
        .matrix = lora_ends_with(to->name, ".weight") && to->rank > 1 && values != all,
        .patch_first = (uint32_t)first,
        .patch_count = (uint32_t)count,
    };
    if (!target->name)
        return no_memory(error);
    target->rows = target->matrix ? all : 1;
    target->columns = values / target->rows;
    for (size_t i = first; i < first + count; i++) {
        struct lora_patch *patch = &set->patch[i];
        patch->target = (uint32_t)set->target_count;
        target->rank += patch->rank;
        target->term_count += patch->info[LORA_ROLE_DIFF] || patch->info[LORA_ROLE_SET];
        if (target->matrix && patch->row_count != target->rows && !patch->rank)
            return lt_fail(error, LT_UNSUPPORTED,
                           "%s: a difference of half the rows of '%s' is not built",
                           set->source[patch->source].report.path, target->name);
    }
    target->term_count += target->rank > 0;
    set->target_count++;
    return LT_OK;
}

static lt_status make_targets(struct build *build, struct lt_error *error)
{
    struct lora_set *set = build->set;
    if (set->patch_count)
        qsort_r(set->patch, set->patch_count, sizeof *set->patch, by_target,
                (void *)(uintptr_t)build->model);
    set->target = lt_arena_take_array(&set->arena, set->patch_count + 1, sizeof *set->target);
    if (!set->target)
        return no_memory(error);
    for (size_t i = 0, count; i < set->patch_count; i += count) {
        const uint32_t tensor = set->patch[i].target;
        for (count = 1; i + count < set->patch_count && set->patch[i + count].target == tensor;)
            count++;
        LT_TRY(add_target(build, i, count, error));
    }
    return LT_OK;
}

static lt_status add_extra(struct lora_set *set, uint32_t target, uint32_t term, bool is_a,
                           int64_t rows, int64_t columns, struct lt_error *error)
{
    const struct lora_target *to = &set->target[target];
    const bool pair = to->rank > 0 && term == 0;
    char name[LORA_PATH_MAX + 32];
    struct store_extra *extra = (struct store_extra *)&set->extras.tensor[set->extras.count];
    snprintf(name, sizeof name, pair ? "%s.lora_%c" : "%s.diff_%c%u", to->name, is_a ? 'a' : 'b',
             term);
    *extra = (struct store_extra){.name = lt_arena_text(&set->arena, name),
                                  .type = to->matrix ? set->type : LT_TYPE_F32,
                                  .rank = to->matrix ? 2 : 1,
                                  .dim = {to->matrix ? rows : columns, columns}};
    if (!extra->name)
        return no_memory(error);
    uint64_t bytes = 0;
    lt_type_bytes(extra->type, (uint64_t)(rows * columns), &bytes);
    set->stats.extra_bytes += bytes;
    set->extra[set->extras.count++] = (struct lora_extra){target, term, is_a};
    return LT_OK;
}

static lt_status make_extras(struct lora_set *set, struct lt_error *error)
{
    size_t room = 1;
    for (size_t i = 0; i < set->target_count; i++)
        room += set->target[i].term_count + 1;
    struct store_extra *tensors = lt_arena_take_array(&set->arena, room, sizeof *tensors);
    set->extra = lt_arena_take_array(&set->arena, room, sizeof *set->extra);
    if (!tensors || !set->extra)
        return no_memory(error);
    set->extras = (struct store_extras){.tensor = tensors, .fill = lora_fill, .context = set};
    for (uint32_t i = 0; i < set->target_count; i++) {
        struct lora_target *target = &set->target[i];
        target->extra_first = (uint32_t)set->extras.count;
        for (uint32_t term = 0; term < target->term_count; term++) {
            const bool pair = term == 0 && target->rank > 0;
            const uint64_t before = set->stats.extra_bytes;
            if (pair)
                LT_TRY(add_extra(set, i, term, true, target->rank, target->columns, error));
            LT_TRY(add_extra(set, i, term, false, target->rows,
                             pair ? target->rank : target->columns, error));
            const uint64_t bytes = set->stats.extra_bytes - before;
            set->stats.term_bytes = bytes > set->stats.term_bytes ? bytes : set->stats.term_bytes;
        }
    }
    return LT_OK;
}

static lt_status match_file(struct build *build, uint32_t source, struct lt_error *error)
{
    const struct tensor_file *file = build->set->source[source].file;
    memset(build->slot, 0, tensor_file_count(build->model) * ROWS_KINDS * sizeof *build->slot);
    for (size_t i = 0; i < tensor_file_count(file); i++)
        LT_TRY(add_key(build, source, tensor_file_at(file, i), error));
    return LT_OK;
}

static lt_status match_all(struct build *build, struct lt_error *error)
{
    struct lora_set *set = build->set;
    build->slot = calloc(tensor_file_count(build->model) * ROWS_KINDS + 1, sizeof *build->slot);
    if (!build->slot)
        return no_memory(error);
    LT_TRY(lora_names_create(build->model, &build->names, error));
    for (size_t i = 0; i < set->count; i++)
        LT_TRY(match_file(build, (uint32_t)i, error));
    LT_TRY(check_patches(build, error));
    LT_TRY(make_targets(build, error));
    return make_extras(set, error);
}

lt_status lora_match(struct lora_set *set, const struct tensor_file *model, struct lt_error *error)
{
    struct build build = {.set = set, .model = model};
    const lt_status status = match_all(&build, error);
    lora_names_destroy(&build.names);
    free(build.slot);
    return status;
}
