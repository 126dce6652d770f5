/* The table: filled by the reference, then by what the machine offers; and the one place where
 * arguments are checked, in front of every variant. */
#include "kernels/cuda/exec_cuda.h"
#include "kernels/exec.h"
#include "kernels/host/host.h"
#include "kernels/kernels.h"

#include <stdio.h>
#include <string.h>

void lt_kernels_init(struct lt_kernels *table, unsigned caps)
{
    lt_kernels_init_ref(table);
    if (caps & LT_CAP_HOST)
        lt_kernels_init_host(table, caps);
    if (caps & LT_CAP_CUDA)
        lt_kernels_init_cuda(table);
}

/* Takes one op's entry from another table. */
static bool copy_op(struct lt_kernels *to, const struct lt_kernels *from, const char *op,
                    size_t length)
{
#define COPY(name)                                                                                 \
    if (strlen(#name) == length && strncmp(op, #name, length) == 0) {                              \
        to->name = from->name;                                                                     \
        to->name##_variant = from->name##_variant;                                                 \
        return true;                                                                               \
    }
    LT_KERNEL_LIST(COPY)
#undef COPY
    return false;
}

lt_status lt_kernels_select(struct lt_kernels *table, unsigned caps, const char *selector,
                            struct lt_error *error)
{
    struct lt_kernels ref, best;
    lt_kernels_init(&ref, 0);
    lt_kernels_init(&best, caps);
    if (strcmp(selector, "ref") == 0 || strcmp(selector, "best") == 0) {
        *table = selector[0] == 'r' ? ref : best;
        return LT_OK;
    }
    struct lt_kernels chosen = best;
    for (const char *at = selector; *at;) {
        const size_t length = strcspn(at, ",");
        const char *equals = memchr(at, '=', length);
        const size_t value = equals ? length - (size_t)(equals - at) - 1 : 0;
        const bool is_ref = value == 3 && strncmp(equals + 1, "ref", 3) == 0;
        const bool is_best = value == 4 && strncmp(equals + 1, "best", 4) == 0;
        if (!equals || (!is_ref && !is_best) ||
            !copy_op(&chosen, is_ref ? &ref : &best, at, (size_t)(equals - at)))
            return lt_fail(
                error, LT_USAGE,
                "kernel selector '%s': expected ref, best, or OP=ref|best,… ('%.*s' is not)",
                selector, (int)length, at);
        at += length + (at[length] == ',');
    }
    *table = chosen;
    return LT_OK;
}

/* -- checks ------------------------------------------------------------------------------------ */

static lt_status wrong(struct lt_error *error, const char *op, const char *what)
{
    return lt_fail(error, LT_INTERNAL, "op %s: %s", op, what);
}

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return wrong(error, __func__, "requires " #condition);                                 \
    } while (0)

static bool is_f32(const struct lt_view *view, int rank)
{
    return view->data && view->type == LT_TYPE_F32 && view->rank == rank &&
           (rank == 0 || view->dim[rank - 1] <= 1 || view->stride[rank - 1] == 1);
}

static bool is_float(const struct lt_view *view)
{
    return view->data && (view->type == LT_TYPE_F32 || view->type == LT_TYPE_BF16);
}

static bool same_dims(const struct lt_view *a, const struct lt_view *b)
{
    return a->rank == b->rank && memcmp(a->dim, b->dim, (size_t)a->rank * sizeof a->dim[0]) == 0;
}

static bool covers(const struct lt_view *weight, int64_t count)
{
    return !weight->data || lt_view_count(weight) == count;
}

static bool groups_fit(const struct lt_view *group, int64_t rows, int64_t group_rows, int64_t width)
{
    if (!group->data)
        return true;
    const int64_t groups = group_rows > 0 ? (rows + group_rows - 1) / group_rows : 1;
    return group->type == LT_TYPE_F32 && lt_view_is_contiguous(group) &&
           lt_view_count(group) >= groups * width;
}

static lt_status convert(const struct lt_convert_args *a, struct lt_error *error)
{
    REQUIRE(a->in.data && a->out.data);
    REQUIRE(lt_view_count(&a->in) == lt_view_count(&a->out));
    REQUIRE(lt_view_is_contiguous(&a->in) && lt_view_is_contiguous(&a->out));
    REQUIRE(a->out.type == LT_TYPE_F32 || a->out.type == LT_TYPE_F16 ||
            a->out.type == LT_TYPE_BF16);
    return LT_OK;
}

static lt_status linear(const struct lt_linear_args *a, struct lt_error *error)
{
    REQUIRE(is_f32(&a->out, 2) && is_f32(&a->in, 2));
    REQUIRE(a->weight.data && a->weight.rank == 2 && lt_view_is_contiguous(&a->weight));
    REQUIRE(a->in.dim[1] == a->weight.dim[1] && a->out.dim[1] == a->weight.dim[0]);
    REQUIRE(a->in.dim[0] == a->out.dim[0]);
    REQUIRE(covers(&a->bias, a->weight.dim[0]) && covers(&a->weight_scale, 1));
    REQUIRE(!a->weight_scale.data || a->weight_scale.type == LT_TYPE_F32);
    return LT_OK;
}

static lt_status low_rank(const struct lt_low_rank_args *a, struct lt_error *error)
{
    const int64_t rank = a->b.dim[1];
    REQUIRE(is_f32(&a->out, 2) && is_f32(&a->in, 2) && a->in.dim[0] == a->out.dim[0]);
    REQUIRE(a->b.data && a->b.rank == 2 && lt_view_is_contiguous(&a->b));
    REQUIRE(a->out.dim[1] == a->b.dim[0]);
    REQUIRE(!a->a.data || (a->a.rank == 2 && lt_view_is_contiguous(&a->a) && a->a.dim[0] == rank));
    REQUIRE(a->in.dim[1] == (a->a.data ? a->a.dim[1] : rank));
    REQUIRE(is_f32(&a->scale, 1) && a->scale.dim[0] == rank && covers(&a->bias, a->b.dim[0]));
    REQUIRE(is_f32(&a->hidden, 2) && lt_view_is_contiguous(&a->hidden));
    REQUIRE(a->hidden.dim[0] >= 1 && a->hidden.dim[1] == rank);
    return LT_OK;
}

static lt_status layer_norm(const struct lt_layer_norm_args *a, struct lt_error *error)
{
    REQUIRE(is_f32(&a->out, 2) && is_f32(&a->in, 2) && same_dims(&a->out, &a->in));
    REQUIRE(covers(&a->weight, a->in.dim[1]) && covers(&a->bias, a->in.dim[1]));
    REQUIRE(groups_fit(&a->scale, a->in.dim[0], a->group_rows, a->in.dim[1]));
    REQUIRE(groups_fit(&a->shift, a->in.dim[0], a->group_rows, a->in.dim[1]));
    return LT_OK;
}

static lt_status rms_norm(const struct lt_rms_norm_args *a, struct lt_error *error)
{
    REQUIRE(is_f32(&a->out, 2) && is_f32(&a->in, 2) && same_dims(&a->out, &a->in));
    REQUIRE(a->weight.data && lt_view_count(&a->weight) > 0);
    REQUIRE(a->in.dim[1] % lt_view_count(&a->weight) == 0);
    if (!a->time.data)
        return LT_OK;
    REQUIRE(is_f32(&a->time, 3) && is_f32(&a->row, 3) && is_f32(&a->column, 3));
    REQUIRE(a->head_width > 0 && a->in.dim[1] % a->head_width == 0);
    REQUIRE(2 * (a->time.dim[1] + a->row.dim[1] + a->column.dim[1]) == a->head_width);
    REQUIRE(a->in.dim[0] == a->time.dim[0] * a->row.dim[0] * a->column.dim[0]);
    return LT_OK;
}

static lt_status gated_add(const struct lt_gated_add_args *a, struct lt_error *error)
{
    REQUIRE(is_f32(&a->out, 2) && is_f32(&a->residual, 2) && is_f32(&a->in, 2));
    REQUIRE(same_dims(&a->out, &a->residual) && same_dims(&a->out, &a->in));
    REQUIRE(groups_fit(&a->gate, a->in.dim[0], a->group_rows, a->in.dim[1]));
    return LT_OK;
}

static lt_status multiply(const struct lt_multiply_args *a, struct lt_error *error)
{
    REQUIRE(is_f32(&a->out, 2) && is_f32(&a->a, 2) && is_f32(&a->b, 2));
    REQUIRE(same_dims(&a->out, &a->a) && same_dims(&a->out, &a->b));
    return LT_OK;
}

static lt_status scale(const struct lt_scale_args *a, struct lt_error *error)
{
    REQUIRE(is_f32(&a->in, a->in.rank) && is_f32(&a->out, a->out.rank));
    REQUIRE(lt_view_count(&a->in) == lt_view_count(&a->out));
    REQUIRE(lt_view_is_contiguous(&a->in) && lt_view_is_contiguous(&a->out));
    return LT_OK;
}

static lt_status activate(const struct lt_activate_args *a, struct lt_error *error)
{
    REQUIRE(is_float(&a->in) && a->in.type == a->out.type && a->out.data);
    REQUIRE(lt_view_count(&a->in) == lt_view_count(&a->out));
    REQUIRE(lt_view_is_contiguous(&a->in) && lt_view_is_contiguous(&a->out));
    return LT_OK;
}

static lt_status attention(const struct lt_attention_args *a, struct lt_error *error)
{
    REQUIRE(is_f32(&a->out, 3) && is_f32(&a->q, 3) && is_f32(&a->k, 3) && is_f32(&a->v, 3));
    REQUIRE(same_dims(&a->out, &a->q) && same_dims(&a->k, &a->v));
    REQUIRE(a->q.dim[1] == a->k.dim[1] && a->q.dim[2] == a->k.dim[2] && a->k.dim[0] > 0);
    REQUIRE(!a->relative_bias.data ||
            (is_f32(&a->relative_bias, 2) && a->relative_bias.dim[0] == a->q.dim[1] &&
             a->relative_bias.dim[1] == a->q.dim[0] + a->k.dim[0] - 1));
    return LT_OK;
}

static lt_status patchify(const struct lt_patchify_args *a, struct lt_error *error)
{
    REQUIRE(is_f32(&a->out, 2) && is_f32(&a->in, 4));
    REQUIRE(lt_view_is_contiguous(&a->in) && lt_view_is_contiguous(&a->out));
    REQUIRE(a->in.dim[2] % 2 == 0 && a->in.dim[3] % 2 == 0);
    REQUIRE(a->out.dim[1] == 4 * a->in.dim[0]);
    REQUIRE(a->out.dim[0] == a->in.dim[1] * a->in.dim[2] / 2 * (a->in.dim[3] / 2));
    return LT_OK;
}

static lt_status unpatchify(const struct lt_unpatchify_args *a, struct lt_error *error)
{
    REQUIRE(is_f32(&a->in, 2) && is_f32(&a->out, 4));
    REQUIRE(lt_view_is_contiguous(&a->in) && lt_view_is_contiguous(&a->out));
    REQUIRE(a->out.dim[2] % 2 == 0 && a->out.dim[3] % 2 == 0);
    REQUIRE(a->in.dim[1] == 4 * a->out.dim[0]);
    REQUIRE(a->in.dim[0] == a->out.dim[1] * a->out.dim[2] / 2 * (a->out.dim[3] / 2));
    return LT_OK;
}

static bool frame_shape(const struct lt_view *view, int64_t rows, int64_t columns, int64_t channels)
{
    return view->rank == 4 && view->dim[1] == rows && view->dim[2] == columns &&
           view->dim[3] == channels && view->stride[3] == 1;
}

static lt_status conv(const struct lt_conv_args *a, struct lt_error *error)
{
    const int w = a->weight.rank;
    REQUIRE(is_float(&a->in) && is_float(&a->out) && a->weight.data);
    REQUIRE(a->out.type == a->in.type || a->out.type == LT_TYPE_F32);
    REQUIRE((w == 4 || w == 5) && lt_view_is_contiguous(&a->weight));
    const int64_t kt = w == 5 ? a->weight.dim[2] : 1, ky = a->weight.dim[w - 2],
                  kx = a->weight.dim[w - 1];
    const int64_t up = a->upsample ? 2 : 1;
    REQUIRE(a->stride_time >= 1 && a->stride_space >= 1);
    REQUIRE(a->weight.dim[1] == a->in.dim[3] && a->weight.dim[0] == a->out.dim[3]);
    REQUIRE(frame_shape(&a->in, a->in.dim[1], a->in.dim[2], a->weight.dim[1]));
    const int64_t rows =
        (a->in.dim[1] * up + a->pad_top + a->pad_bottom - ky) / a->stride_space + 1;
    const int64_t columns =
        (a->in.dim[2] * up + a->pad_left + a->pad_right - kx) / a->stride_space + 1;
    REQUIRE(frame_shape(&a->out, rows, columns, a->weight.dim[0]));
    REQUIRE(!a->past.data || (a->past.type == a->in.type && a->past.dim[0] <= kt - 1 &&
                              frame_shape(&a->past, a->in.dim[1], a->in.dim[2], a->in.dim[3])));
    /* The first output frame may reach at most kt - 1 zero frames back; the last must not pass the
     * input. */
    const int64_t have = a->in.dim[0] + (a->past.data ? a->past.dim[0] : 0);
    const int64_t need = (a->out.dim[0] - 1) * a->stride_time + kt;
    REQUIRE(a->out.dim[0] >= 1 && need >= have && need - have <= kt - 1);
    REQUIRE(covers(&a->bias, a->weight.dim[0]));
    REQUIRE(!a->add.data || (a->add.type == a->out.type && same_dims(&a->add, &a->out)));
    return LT_OK;
}

static lt_status channel_norm(const struct lt_channel_norm_args *a, struct lt_error *error)
{
    REQUIRE(is_float(&a->in) && a->in.type == a->out.type && a->out.data && a->in.rank >= 1);
    REQUIRE(same_dims(&a->in, &a->out) && lt_view_is_contiguous(&a->in) &&
            lt_view_is_contiguous(&a->out));
    REQUIRE(a->gamma.data && lt_view_count(&a->gamma) == a->in.dim[a->in.rank - 1]);
    return LT_OK;
}

static lt_status nag(const struct lt_nag_args *a, struct lt_error *error)
{
    REQUIRE(is_f32(&a->out, 2) && is_f32(&a->positive, 2) && is_f32(&a->negative, 2));
    REQUIRE(same_dims(&a->out, &a->positive) && same_dims(&a->out, &a->negative));
    return LT_OK;
}

static lt_status rotate(const struct lt_rotate_args *a, struct lt_error *error)
{
    REQUIRE(is_f32(&a->out, 3) && is_f32(&a->in, 3) && same_dims(&a->out, &a->in));
    REQUIRE(a->in.dim[2] % 2 == 0 && a->in.stride[2] == 1 && a->out.stride[2] == 1);
    REQUIRE(is_f32(&a->position, 1) && a->position.dim[0] == a->in.dim[0]);
    return LT_OK;
}

static lt_status route(const struct lt_route_args *a, struct lt_error *error)
{
    const int64_t masks = a->maps.dim[0], count = a->maps.dim[1];
    REQUIRE(is_f32(&a->maps, 2) && lt_view_is_contiguous(&a->maps) && masks >= 1 && count >= 1);
    REQUIRE(is_f32(&a->looks, 3) && a->looks.dim[0] == count && a->looks.dim[2] >= masks);
    REQUIRE(is_f32(&a->position, 1) && a->position.dim[0] == count && a->looks.dim[1] >= 1);
    REQUIRE(is_f32(&a->range, 2) && lt_view_is_contiguous(&a->range));
    REQUIRE(a->range.dim[0] >= masks - 1 && a->range.dim[1] == 2);
    REQUIRE(is_f32(&a->size, 1) && a->size.dim[0] == masks);
    REQUIRE(is_f32(&a->first, 1) && a->first.dim[0] == masks);
    return LT_OK;
}

static lt_status blur(const struct lt_blur_args *a, struct lt_error *error)
{
    REQUIRE(is_f32(&a->in, 4) && is_f32(&a->out, 4));
    REQUIRE(lt_view_is_contiguous(&a->in) && lt_view_is_contiguous(&a->out));
    REQUIRE(a->pad >= 0 && a->stride >= 1);
    REQUIRE(a->in.dim[1] + 2 * a->pad >= 4 && a->in.dim[2] + 2 * a->pad >= 4);
    REQUIRE(a->out.dim[0] == a->in.dim[0] && a->out.dim[3] == a->in.dim[3]);
    REQUIRE(a->out.dim[1] == (a->in.dim[1] + 2 * a->pad - 4) / a->stride + 1);
    REQUIRE(a->out.dim[2] == (a->in.dim[2] + 2 * a->pad - 4) / a->stride + 1);
    return LT_OK;
}

static lt_status avg_down(const struct lt_avg_down_args *a, struct lt_error *error)
{
    const int64_t block = (int64_t)a->time * a->space * a->space;
    REQUIRE(is_float(&a->in) && is_float(&a->out) && a->in.type == a->out.type);
    REQUIRE(lt_view_is_contiguous(&a->in) && lt_view_is_contiguous(&a->out));
    REQUIRE(a->time >= 1 && a->space >= 1 && a->frame >= 0 && a->frame < a->time);
    REQUIRE(a->in.rank == 4 && a->in.dim[0] == 1 && a->out.rank == 4 && a->out.dim[0] == 1);
    REQUIRE(a->in.dim[1] == a->space * a->out.dim[1] && a->in.dim[2] == a->space * a->out.dim[2]);
    REQUIRE(a->in.dim[3] * block % a->out.dim[3] == 0);
    return LT_OK;
}

static lt_status dup_up(const struct lt_dup_up_args *a, struct lt_error *error)
{
    const int64_t block = (int64_t)a->time * a->space * a->space;
    REQUIRE(is_float(&a->in) && is_float(&a->out) && a->in.type == a->out.type);
    REQUIRE(lt_view_is_contiguous(&a->in) && lt_view_is_contiguous(&a->out));
    REQUIRE(a->time >= 1 && a->space >= 1 && a->frame >= 0 && a->frame < a->time);
    REQUIRE(a->in.rank == 4 && a->in.dim[0] == 1 && a->out.rank == 4 && a->out.dim[0] == 1);
    REQUIRE(a->out.dim[1] == a->space * a->in.dim[1] && a->out.dim[2] == a->space * a->in.dim[2]);
    REQUIRE(a->out.dim[3] * block % a->in.dim[3] == 0);
    return LT_OK;
}

#define WRAPPER(op)                                                                                \
    lt_status lt_##op(const struct lt_kernels *kernels, struct lt_exec *exec,                      \
                      const struct lt_##op##_args *args, struct lt_error *error)                   \
    {                                                                                              \
        LT_TRY(op(args, error));                                                                   \
        LT_TRY(kernels->op(exec, args, error));                                                    \
        return lt_exec_cancelled(exec) ? lt_fail(error, LT_CANCELLED, "cancelled") : LT_OK;        \
    }
LT_KERNEL_LIST(WRAPPER)
#undef WRAPPER
