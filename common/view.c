#include "common/view.h"

#include "common/status.h"

#include <strings.h>

static const struct lt_type_info types[] = {
#define LT_TYPE_ROW(name, id, values, bytes) {LT_TYPE_##name, #name, values, bytes},
    LT_TYPE_LIST(LT_TYPE_ROW)
#undef LT_TYPE_ROW
};

const struct lt_type_info *lt_type_info(enum lt_type type)
{
    for (size_t i = 0; i < LT_COUNT(types); i++)
        if (types[i].type == type)
            return &types[i];
    return NULL;
}

const struct lt_type_info *lt_type_by_name(const char *name)
{
    for (size_t i = 0; i < LT_COUNT(types); i++)
        if (strcasecmp(types[i].name, name) == 0)
            return &types[i];
    return NULL;
}

struct lt_view lt_view_make(void *data, enum lt_type type, int rank, const int64_t *dim)
{
    lt_assert(rank >= 0 && rank <= LT_RANK_MAX);
    struct lt_view view = {.data = data, .type = type, .rank = rank};
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
        view.dim[i] = dim[i];
        view.stride[i] = stride;
        stride *= dim[i];
    }
    return view;
}

struct lt_view lt_view_1d(void *data, enum lt_type type, int64_t d0)
{
    return lt_view_make(data, type, 1, (int64_t[]){d0});
}

struct lt_view lt_view_2d(void *data, enum lt_type type, int64_t d0, int64_t d1)
{
    return lt_view_make(data, type, 2, (int64_t[]){d0, d1});
}

struct lt_view lt_view_3d(void *data, enum lt_type type, int64_t d0, int64_t d1, int64_t d2)
{
    return lt_view_make(data, type, 3, (int64_t[]){d0, d1, d2});
}

struct lt_view lt_view_4d(void *data, enum lt_type type, int64_t d0, int64_t d1, int64_t d2,
                          int64_t d3)
{
    return lt_view_make(data, type, 4, (int64_t[]){d0, d1, d2, d3});
}

int64_t lt_view_count(const struct lt_view *view)
{
    int64_t count = 1;
    for (int i = 0; i < view->rank; i++)
        count *= view->dim[i];
    return count;
}

bool lt_view_is_contiguous(const struct lt_view *view)
{
    int64_t stride = 1;
    for (int i = view->rank - 1; i >= 0; i--) {
        if (view->dim[i] != 1 && view->stride[i] != stride)
            return false;
        stride *= view->dim[i];
    }
    return true;
}

bool lt_type_bytes(enum lt_type type, uint64_t count, uint64_t *bytes_out)
{
    const struct lt_type_info *info = lt_type_info(type);
    if (!info || count % info->block_values != 0)
        return false;
    return !__builtin_mul_overflow(count / info->block_values, (uint64_t)info->block_bytes,
                                   bytes_out);
}

struct lt_view lt_view_rows(const struct lt_view *view, int64_t first, int64_t count)
{
    lt_assert(view->rank >= 1 && first >= 0 && count >= 0 && first + count <= view->dim[0]);
    const struct lt_type_info *info = lt_type_info(view->type);
    const int64_t values = first * view->stride[0];
    lt_assert(values % (int64_t)info->block_values == 0);
    struct lt_view rows = *view;
    rows.data =
        (char *)view->data + values / (int64_t)info->block_values * (int64_t)info->block_bytes;
    rows.dim[0] = count;
    return rows;
}

struct lt_view lt_view_reshape(const struct lt_view *view, int rank, const int64_t *dim)
{
    struct lt_view shaped = lt_view_make(view->data, view->type, rank, dim);
    lt_assert(lt_view_is_contiguous(view) && lt_view_count(view) == lt_view_count(&shaped));
    return shaped;
}
