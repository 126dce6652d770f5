/* What a file holds beside what it should: for `inspect`, which tells all, and for loading, which
 * refuses at the first. */
#include "worker/model/catalogue.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROBLEM_BYTES = 1024 };

static int64_t values_of(const struct tensor_info *info)
{
    int64_t count = 1;
    for (int i = 0; i < info->rank; i++)
        count *= info->dim[i];
    return count;
}

/* dit.md 3.1, 4.1: two groups of tensors have a second spelling in some files. */
static const struct tensor_info *find_spelling(const struct tensor_file *file, const char *name)
{
    static const char fuser[] = "face_adapter.fuser_blocks.";
    char other[256] = "";
    const struct tensor_info *info = tensor_file_find(file, name);
    if (info)
        return info;
    if (strncmp(name, fuser, sizeof fuser - 1) == 0) {
        char *end;
        const long block = strtol(name + sizeof fuser - 1, &end, 10);
        snprintf(other, sizeof other, "blocks.%ld.fuser_block%s", 5 * block, end);
    } else if (strncmp(name, "audio_proj.", 11) == 0) {
        snprintf(other, sizeof other, "multitalk_%s", name);
    }
    return tensor_file_find(file, other);
}

static void format_dims(int rank, const int64_t *dim, char *text, size_t size)
{
    size_t length = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < rank && length < size; i++)
        length += (size_t)snprintf(text + length, size - length, "%s%lld", i ? ", " : "",
                                   (long long)dim[i]);
    if (length < size)
        snprintf(text + length, size - length, "]");
}

/* By element count (dit.md 1.2); matrices also by their dims, as a transposed one has the same
 * count. */
static bool fits(const struct tensor_info *info, const struct catalogue_entry *entry)
{
    if (values_of(info) != catalogue_values(entry))
        return false;
    return info->rank != 2 || entry->rank != 2 || info->dim[0] == entry->dim[0];
}

/* Weights are floats or quantised floats. */
static bool is_weight_type(enum lt_type type)
{
    switch (type) {
    case LT_TYPE_I8:
    case LT_TYPE_I16:
    case LT_TYPE_I32:
    case LT_TYPE_I64:
    case LT_TYPE_U8:
    case LT_TYPE_BOOL:
        return false;
    default:
        return true;
    }
}

struct comparison {
    catalogue_problem *problem;
    void *context;
};

static lt_status tell(const struct comparison *c, struct lt_error *error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static lt_status tell(const struct comparison *c, struct lt_error *error, const char *format, ...)
{
    char text[PROBLEM_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char *t = text; *t; t++) /* names come from the file: a terminal must not obey them */
        if ((unsigned char)*t < 0x20 || *t == 0x7f)
            *t = '?';
    return c->problem(c->context, text, error);
}

static lt_status compare_one(const struct comparison *c, const struct catalogue_entry *entry,
                             const struct tensor_info *info, struct lt_error *error)
{
    char wanted[128], found[128];
    format_dims(entry->rank, entry->dim, wanted, sizeof wanted);
    if (!info) /* constant buffers: some files leave them out */
        return strstr(entry->name, ".kernel")
                   ? LT_OK
                   : tell(c, error, "tensor '%s' %s is missing", entry->name, wanted);
    format_dims(info->rank, info->dim, found, sizeof found);
    if (!fits(info, entry))
        return tell(c, error, "tensor '%s': expected %s, found %s", entry->name, wanted, found);
    if (!is_weight_type(info->type))
        return tell(c, error, "tensor '%s': expected a float or quantised type, found %s",
                    entry->name, lt_type_info(info->type)->name);
    return LT_OK;
}

/* ComfyUI's 8-bit files: a scale beside each matrix, perhaps one for its input, and a marker. */
static bool goes_with_8_bits(const char *name)
{
    const char *end = strrchr(name, '.');
    return strcmp(name, "scaled_fp8") == 0 ||
           (end && (strcmp(end, ".scale_weight") == 0 || strcmp(end, ".scale_input") == 0));
}

lt_status catalogue_compare(const struct catalogue *expected, const struct tensor_file *file,
                            bool (*beside)(const char *name), catalogue_problem *problem,
                            void *context, struct lt_error *error)
{
    const struct comparison c = {problem, context};
    const size_t count = tensor_file_count(file);
    bool *known = calloc(count + 1, sizeof *known);
    lt_status status = LT_OK;
    if (!known)
        return lt_fail(error, LT_NO_MEMORY, "no memory to compare tensors");
    for (size_t i = 0; i < expected->count && status == LT_OK; i++) {
        const struct tensor_info *info = find_spelling(file, expected->entry[i].name);
        if (info)
            known[info - tensor_file_at(file, 0)] = true;
        status = compare_one(&c, &expected->entry[i], info, error);
    }
    for (size_t i = 0; i < count && status == LT_OK; i++) {
        const char *name = tensor_file_at(file, i)->name;
        if (!known[i] && !goes_with_8_bits(name) && !(beside && beside(name)))
            status = tell(&c, error, "tensor '%s' is not part of this variant", name);
    }
    free(known);
    return status;
}

/* -- refusing ---------------------------------------------------------------------------------- */

static lt_status refuse(void *context, const char *text, struct lt_error *error)
{
    return lt_fail(error, LT_BAD_INPUT, "%s: %s", tensor_file_path(context), text);
}

lt_status catalogue_check_dit(const struct dit_config *config, struct tensor_file *file,
                              struct lt_error *error)
{
    struct catalogue expected;
    LT_TRY(catalogue_of_dit(config, &expected, error));
    const lt_status status = catalogue_compare(&expected, file, NULL, refuse, file, error);
    catalogue_fini(&expected);
    return status;
}
