/* What the steps of a window leave on this worker for later ones (docs/caches.md): the tokens' sum
 * over the blocks, or EasyCache's last velocity; least recently used within a byte budget, gone at
 * the end of the program. What is not here is computed: never wrong, only slower. */
#include "worker/easycache.h"
#include "worker/engine_private.h"

#include <stdlib.h>
#include <string.h>

enum { KEPT_MAX = 512 };

struct kept_name {
    struct lt_digest key; /* of job and window */
    uint32_t lacks;       /* which of the task's predictions: what it is made without */
    uint32_t type;        /* of the values */
    int64_t count;
};

struct kept {
    struct lt_view added; /* planned: [L, d], in the exec's memory */
    uint32_t after;       /* of it: 1 + the step it is of; 0: nothing yet */
    struct easycache easy;
    struct lt_exec *exec; /* NULL: the values are of RAM */
    void *values;
    size_t bytes;
};

static void free_kept(void *value)
{
    struct kept *kept = value;
    if (kept->exec)
        lt_exec_give(kept->exec, kept->values, kept->bytes);
    else
        free(kept->values);
    free(kept);
}

lt_status engine_reuse_create(struct engine *engine, struct lt_error *error)
{
    const struct lt_lru_params params = {.key_bytes = sizeof(struct kept_name),
                                         .entries_max = KEPT_MAX,
                                         .bytes_max = engine->reuse_bytes,
                                         .free_value = free_kept};
    return lt_lru_create(&params, &engine->reuse, error);
}

struct make_kept {
    struct lt_exec *exec; /* ops work on the values; NULL: only this code does */
    size_t bytes;
};

static lt_status make_kept(void *context, const void *key, void **value_out, uint64_t *bytes_out,
                           struct lt_error *error)
{
    const struct make_kept *make = context;
    struct kept *kept = calloc(1, sizeof *kept);
    (void)key;
    if (kept) {
        *kept = (struct kept){.exec = make->exec, .bytes = make->bytes};
        if (!make->exec)
            kept->values = malloc(make->bytes);
        else if (lt_exec_take(make->exec, make->bytes, &kept->values, error) != LT_OK)
            kept->values = NULL;
    }
    if (!kept || !kept->values) {
        free(kept);
        return lt_fail(error, LT_NO_MEMORY, "no memory for what later steps reuse");
    }
    *value_out = kept;
    *bytes_out = make->bytes;
    return LT_OK;
}

/* NULL: there is no room for it, ever. */
static struct kept *take(const struct engine_task *task, const struct kept_name *name,
                         struct make_kept make, struct lt_lru_entry **entry_out)
{
    struct lt_error error;
    if (make.bytes > task->engine->reuse_bytes ||
        lt_lru_take(task->engine->reuse, name, make_kept, &make, entry_out, &error) != LT_OK)
        return NULL;
    return lt_lru_value(*entry_out);
}

static struct kept_name name_of(const struct engine_reuse *reuse, size_t which, enum lt_type type,
                                int64_t count)
{
    struct kept_name name;
    memset(&name, 0, sizeof name);
    name.key = reuse->task->spec->cache_key;
    name.lacks = reuse->lacks[which];
    name.type = type;
    name.count = count;
    return name;
}

/* -- as planned -------------------------------------------------------------------------------- */

/* The wanted step's sum, or a later one's: a worker that had to compute keeps what it found. */
static void begin_planned(struct engine_reuse *reuse, const struct dit_config *config,
                          const struct lt_view *x, size_t which)
{
    const struct lt_task_spec *spec = reuse->task->spec;
    const enum lt_type type = spec->precision == LT_PRECISION_BF16 ? LT_TYPE_BF16 : LT_TYPE_F32;
    const int64_t tokens = x->dim[1] * (x->dim[2] / 2) * (x->dim[3] / 2);
    const struct make_kept make = {reuse->task->exec,
                                   (size_t)(tokens * config->dim) * (type == LT_TYPE_BF16 ? 2 : 4)};
    const struct kept_name name = name_of(reuse, which, type, tokens);
    struct kept *kept = take(reuse->task, &name, make, &reuse->entry[which]);
    if (!kept)
        return;
    kept->added = lt_view_2d(kept->values, type, tokens, config->dim);
    const uint32_t wanted = which < spec->reuse_count ? spec->reuse[which] : 0;
    const bool there = wanted > 0 && kept->after >= wanted && kept->after <= spec->cache_step;
    reuse->how[which] = there ? DIT_REUSE_ADD : DIT_REUSE_KEEP;
    if (!there)
        kept->after = 0; /* until it is written */
}

/* -- EasyCache --------------------------------------------------------------------------------- */

static struct easycache *begin_easy(struct engine_reuse *reuse, const struct lt_view *x,
                                    size_t which)
{
    const int64_t count = lt_view_count(x);
    const struct kept_name name = name_of(reuse, which, LT_TYPE_F32, -count);
    const struct make_kept make = {NULL, 3 * (size_t)count * sizeof(float)};
    struct kept *kept = take(reuse->task, &name, make, &reuse->entry[which]);
    if (!kept)
        return NULL;
    float *values = kept->values;
    kept->easy.count = count;
    kept->easy.seen = values;
    kept->easy.x = values + count;
    kept->easy.v = values + 2 * count;
    return &kept->easy;
}

static struct easycache *easy_of(const struct engine_reuse *reuse, size_t which)
{
    return &((struct kept *)lt_lru_value(reuse->entry[which]))->easy;
}

/* The prediction with the prompt decides for the others, who must know the same step. */
static void decide_easy(struct engine_reuse *reuse, const struct lt_view *x)
{
    const struct lt_task_spec *spec = reuse->task->spec;
    for (size_t which = 0; which < reuse->count; which++)
        if (!begin_easy(reuse, x, which)) {
            engine_reuse_end(reuse);
            return;
        }
    double threshold = spec->cache_threshold;
    const struct easycache *first = easy_of(reuse, 0);
    for (size_t which = 1; which < reuse->count; which++)
        if (easy_of(reuse, which)->computed_after != first->computed_after)
            threshold = 0;
    reuse->whole = easycache_decide(easy_of(reuse, 0), x->data, spec->cache_step, threshold);
}

/* -- a task's predictions ---------------------------------------------------------------------- */

void engine_reuse_begin(const struct engine_task *task, const struct dit *dit,
                        const struct lt_view *x, const unsigned *lacks, size_t count,
                        struct engine_reuse *reuse)
{
    lt_assert(count <= LT_SPEC_PREDICTIONS);
    *reuse = (struct engine_reuse){.task = task, .x = *x, .count = count};
    memcpy(reuse->lacks, lacks, count * sizeof *lacks);
    if (task->spec->cache == LT_CACHE_EASY)
        decide_easy(reuse, x);
    for (size_t which = 0; task->spec->cache == LT_CACHE_PLANNED && which < count; which++)
        begin_planned(reuse, dit_config(dit), x, which);
}

void engine_reuse_input(const struct engine_reuse *reuse, size_t which, struct dit_inputs *inputs)
{
    if (reuse->how[which] == DIT_REUSE_NONE)
        return;
    inputs->reuse = reuse->how[which];
    inputs->added = ((const struct kept *)lt_lru_value(reuse->entry[which]))->added;
}

void engine_reuse_done(struct engine_reuse *reuse, float *v)
{
    const uint32_t step = reuse->task->spec->cache_step;
    const int64_t values = lt_view_count(&reuse->x);
    for (size_t which = 0; which < reuse->count; which++, v += values) {
        if (!reuse->entry[which])
            continue;
        if (reuse->how[which] == DIT_REUSE_KEEP)
            ((struct kept *)lt_lru_value(reuse->entry[which]))->after = step + 1;
        if (reuse->task->spec->cache != LT_CACHE_EASY)
            continue;
        if (reuse->whole)
            easycache_predict(easy_of(reuse, which), reuse->x.data, v);
        else
            easycache_record(easy_of(reuse, which), reuse->x.data, v, step);
    }
}

void engine_reuse_end(struct engine_reuse *reuse)
{
    for (size_t which = 0; which < LT_SPEC_PREDICTIONS; which++)
        if (reuse->entry[which])
            lt_lru_release(reuse->task->engine->reuse, reuse->entry[which]);
    memset(reuse->entry, 0, sizeof reuse->entry);
    memset(reuse->how, 0, sizeof reuse->how);
    reuse->whole = false;
}
