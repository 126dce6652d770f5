/* Channels-last convolution of the VAE. Frames of another type are converted once to the GEMM's;
 * each part makes one band of rows of one output frame: a 2-D convolution by oneDNN for each
 * temporal tap, summed in tap order in f32, then bias, residual and the output's type. Taps that
 * fall on zero frames are skipped. Because taps are summed in one order and bands do not depend on
 * the call, cutting a sequence into calls (with `past`) gives the same bits. */
#include "common/safetensors.h"
#include "kernels/cuda/exec_cuda.h"
#include "kernels/host/gemm.h"
#include "kernels/host/simd.h"
#include "kernels/quant.h"
#include "kernels/scratch.h"

#include <string.h>

enum { BAND_ROWS = 4, TAPS_MAX = 3 };
enum band_kind {
    BAND_FIRST,
    BAND_INNER,
    BAND_LAST,
    BAND_KINDS
}; /* of one kind: same rows, same padding */

/* Weights in a layout that oneDNN has a fast kernel for; which one it has depends on the band's
 * geometry. */
struct layout {
    dnnl_memory_desc_t desc;
    char *tap[TAPS_MAX];
};

struct conv {
    struct lt_exec *exec;
    const struct lt_conv_args *args;
    const struct simd *simd;
    bool bf16, round;
    size_t value; /* bytes of a value in the GEMM's type */
    int64_t kt, ky, kx, ci, co, up;
    int64_t zeros, past_frames, bands;
    bool direct; /* past and in are read where they are: they have the GEMM's type and dense rows */
    char *frames; /* else [past + in, Y, X, Ci] in the GEMM's type */
    const float *bias;
    struct layout layout[BAND_KINDS];
    int layout_count, layout_of[BAND_KINDS];
    struct host_failure failure;
};

/* -- preparation ------------------------------------------------------------------------------- */

static void convert_part(void *context, int64_t index, int thread)
{
    (void)thread;
    struct conv *c = context;
    const int64_t rows = c->args->in.dim[1], columns = c->args->in.dim[2], frame = index / rows,
                  y = index % rows;
    const bool is_past = frame < c->past_frames;
    const struct lt_view *from = is_past ? &c->args->past : &c->args->in;
    const int64_t source = is_past ? frame : frame - c->past_frames;
    char *to = c->frames + (size_t)(index * columns * c->ci) * c->value;
    for (int64_t x = 0; x < columns; x++, to += (size_t)c->ci * c->value) {
        const int64_t at = source * from->stride[0] + y * from->stride[1] + x * from->stride[2];
        float buffer[64];
        for (int64_t i = 0; i < c->ci; i += 64) {
            const int64_t count = c->ci - i < 64 ? c->ci - i : 64;
            if (from->type == LT_TYPE_BF16 && c->bf16) {
                memcpy(to + i * 2, (const uint16_t *)from->data + at + i, (size_t)count * 2);
                continue;
            }
            if (from->type == LT_TYPE_BF16)
                c->simd->from_bf16((const uint16_t *)from->data + at + i, buffer, count);
            else
                memcpy(buffer, (const float *)from->data + at + i, (size_t)count * 4);
            if (c->bf16) {
                c->simd->to_bf16(buffer, (uint16_t *)(void *)to + i, count);
            } else if (c->round) {
                uint16_t half[64];
                c->simd->to_bf16(buffer, half, count);
                c->simd->from_bf16(half, (float *)(void *)to + i, count);
            } else {
                memcpy(to + i * 4, buffer, (size_t)count * 4);
            }
        }
    }
}

struct band { /* geometry of a 2-D convolution */
    int64_t in_rows, in_columns, out_rows, out_columns;
    int pad_top, pad_bottom, pad_left, pad_right;
};

struct make {
    const struct conv *conv;
    const struct band *band;
    const struct layout *layout; /* NULL: oneDNN may choose */
    dnnl_memory_desc_t src, dst;
    bool accumulate;
};

static void describe(struct make *make)
{
    const struct conv *c = make->conv;
    const struct band *b = make->band;
    const dnnl_data_type_t type = c->bf16 ? dnnl_bf16 : dnnl_f32;
    dnnl_memory_desc_init_by_tag(&make->src, 4, (dnnl_dims_t){1, c->ci, b->in_rows, b->in_columns},
                                 type, dnnl_nhwc);
    dnnl_memory_desc_init_by_tag(
        &make->dst, 4, (dnnl_dims_t){1, c->co, b->out_rows, b->out_columns}, dnnl_f32, dnnl_nhwc);
}

static dnnl_status_t make_conv_pd(dnnl_engine_t engine, const struct make *make,
                                  dnnl_primitive_desc_t *pd)
{
    const struct conv *c = make->conv;
    const struct band *b = make->band;
    dnnl_memory_desc_t weights;
    if (make->layout)
        weights = make->layout->desc;
    else
        dnnl_memory_desc_init_by_tag(&weights, 4, (dnnl_dims_t){c->co, c->ci, c->ky, c->kx},
                                     c->bf16 ? dnnl_bf16 : dnnl_f32, dnnl_format_tag_any);
    dnnl_convolution_desc_t desc;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t status = dnnl_convolution_forward_desc_init(
        &desc, dnnl_forward_inference, dnnl_convolution_direct, &make->src, &weights, NULL,
        &make->dst, (dnnl_dims_t){c->args->stride_space, c->args->stride_space},
        (dnnl_dims_t){b->pad_top, b->pad_left}, (dnnl_dims_t){b->pad_bottom, b->pad_right});
    if (status == dnnl_success && make->accumulate) {
        dnnl_post_ops_t ops = NULL;
        dnnl_primitive_attr_create(&attr);
        dnnl_post_ops_create(&ops);
        dnnl_post_ops_append_sum(ops, 1.0f);
        dnnl_primitive_attr_set_post_ops(attr, ops);
        dnnl_post_ops_destroy(ops);
    }
    if (status == dnnl_success)
        status = dnnl_primitive_desc_create(pd, &desc, attr, engine, NULL);
    if (attr)
        dnnl_primitive_attr_destroy(attr);
    return status;
}

static dnnl_status_t make_conv(dnnl_engine_t engine, const void *context, dnnl_primitive_t *made)
{
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t status = make_conv_pd(engine, context, &pd);
    if (status == dnnl_success)
        status = dnnl_primitive_create(made, pd);
    if (pd)
        dnnl_primitive_desc_destroy(pd);
    return status;
}

/* Band `index` of an output frame: which input rows it needs and what padding is left for it. */
static struct band band_of(const struct conv *c, int64_t index, int64_t *first_in)
{
    const struct lt_conv_args *a = c->args;
    const int64_t first = index * BAND_ROWS, height = a->in.dim[1] * c->up;
    struct band b = {.out_columns = a->out.dim[2],
                     .in_columns = a->in.dim[2] * c->up,
                     .pad_left = a->pad_left,
                     .pad_right = a->pad_right};
    b.out_rows = first + BAND_ROWS < a->out.dim[1] ? BAND_ROWS : a->out.dim[1] - first;
    int64_t top = first * a->stride_space - a->pad_top;
    int64_t bottom = (first + b.out_rows - 1) * a->stride_space - a->pad_top + c->ky;
    b.pad_top = top < 0 ? (int)-top : 0;
    b.pad_bottom = bottom > height ? (int)(bottom - height) : 0;
    top = top < 0 ? 0 : top;
    bottom = bottom > height ? height : bottom;
    b.in_rows = bottom - top;
    *first_in = top;
    return b;
}

struct reorder {
    dnnl_memory_desc_t from, to;
};

static dnnl_status_t make_reorder(dnnl_engine_t engine, const void *context, dnnl_primitive_t *made)
{
    const struct reorder *r = context;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t status =
        dnnl_reorder_primitive_desc_create(&pd, &r->from, engine, &r->to, engine, NULL);
    if (status == dnnl_success)
        status = dnnl_primitive_create(made, pd);
    if (pd)
        dnnl_primitive_desc_destroy(pd);
    return status;
}

static enum band_kind kind_of(const struct conv *c, int64_t index)
{
    return index == 0 ? BAND_FIRST : index == c->bands - 1 ? BAND_LAST : BAND_INNER;
}

/* oneDNN's preferred layout of one tap's weights for the bands of a kind. */
static dnnl_status_t choose_layout(struct conv *c, dnnl_engine_t engine, int64_t index)
{
    int64_t first;
    const struct band band = band_of(c, index, &first);
    struct make make = {.conv = c, .band = &band};
    dnnl_primitive_desc_t pd = NULL;
    describe(&make);
    const dnnl_status_t status = make_conv_pd(engine, &make, &pd);
    if (status != dnnl_success)
        return status;
    const dnnl_memory_desc_t desc = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    int known = 0;
    while (known < c->layout_count && !dnnl_memory_desc_equal(&c->layout[known].desc, &desc))
        known++;
    if (known == c->layout_count)
        c->layout[c->layout_count++].desc = desc;
    c->layout_of[kind_of(c, index)] = known;
    dnnl_primitive_desc_destroy(pd);
    return dnnl_success;
}

static lt_status choose_layouts(struct conv *c, struct lt_error *error)
{
    dnnl_engine_t engine = NULL;
    dnnl_status_t status = dnnl_engine_create(&engine, dnnl_cpu, 0);
    for (int64_t index = 0; index < c->bands && index < 2 && status == dnnl_success; index++)
        status = choose_layout(c, engine, index);
    if (c->bands > 2 && status == dnnl_success)
        status = choose_layout(c, engine, c->bands - 1);
    if (engine)
        dnnl_engine_destroy(engine);
    return status == dnnl_success ? LT_OK
                                  : host_dnnl_failed("choosing a convolution", status, error);
}

/* Weights [co, ci, kt, ky, kx] as oneDNN can read them. */
struct plain {
    const char *data;
    bool bf16; /* else f32 */
};

static lt_status reorder_tap(struct conv *c, const struct layout *layout, const struct plain *plain,
                             int64_t tap, struct lt_error *error)
{
    struct reorder reorder = {.to = layout->desc};
    const int64_t area = c->ky * c->kx;
    dnnl_memory_desc_init_by_strides(&reorder.from, 4, (dnnl_dims_t){c->co, c->ci, c->ky, c->kx},
                                     plain->bf16 ? dnnl_bf16 : dnnl_f32,
                                     (dnnl_dims_t){c->ci * c->kt * area, c->kt * area, c->kx, 1});
    struct host_key key = {{HOST_REORDER | (c->bf16 ? 16 : 0) | (plain->bf16 ? 32 : 0), c->co,
                            c->ci, c->kt, c->ky, c->kx}};
    /* The layout depends on the band too: tell descriptors apart by their strides. */
    for (int i = 0; i < 4; i++)
        key.word[6 + i] = reorder.to.format_desc.blocking.strides[i];
    key.word[10] = reorder.to.format_desc.blocking.inner_nblks;
    struct host_place place;
    LT_TRY(host_primitive(c->exec, 0, &key, make_reorder, &reorder, &place, error));
    const char *from = plain->data + (size_t)(tap * area) * (plain->bf16 ? 2 : 4);
    const struct host_memory memory[] = {{DNNL_ARG_FROM, &reorder.from, from},
                                         {DNNL_ARG_TO, &reorder.to, layout->tap[tap]}};
    const dnnl_status_t status = host_run(&place, memory, 2);
    return status == dnnl_success ? LT_OK : host_dnnl_failed("reordering weights", status, error);
}

/* -- parts ------------------------------------------------------------------------------------- */

/* Rows [first, first+count) of a converted frame, nearest-upsampled by two into `to` when asked
 * for. */
static const char *source_rows(const struct conv *c, int64_t frame, int64_t first, int64_t count,
                               char *to)
{
    const int64_t columns = c->args->in.dim[2], rows = c->args->in.dim[1];
    const size_t pixel = (size_t)c->ci * c->value;
    const struct lt_view *from = frame < c->past_frames ? &c->args->past : &c->args->in;
    const int64_t own = frame < c->past_frames ? frame : frame - c->past_frames;
    const char *plane = c->direct
                            ? (const char *)from->data + own * from->stride[0] * (int64_t)c->value
                            : c->frames + (size_t)(frame * rows * columns) * pixel;
    if (c->up == 1)
        return plane + (size_t)(first * columns) * pixel;
    char *at = to;
    for (int64_t y = first; y < first + count; y++) {
        if (y % 2 == 1 && y > first) { /* the same row again */
            memcpy(at, at - (size_t)(2 * columns) * pixel, (size_t)(2 * columns) * pixel);
            at += (size_t)(2 * columns) * pixel;
            continue;
        }
        const char *row = plane + (size_t)(y / 2 * columns) * pixel;
        for (int64_t x = 0; x < columns; x++, row += pixel, at += 2 * pixel) {
            memcpy(at, row, pixel);
            memcpy(at + pixel, row, pixel);
        }
    }
    return to;
}

/* Adds bias and residual to a band of sums and stores it in the output's type. */
static void store_band(const struct conv *c, float *sums, int64_t t, int64_t first, int64_t rows)
{
    const struct lt_view *out = &c->args->out, *add = &c->args->add;
    for (int64_t y = first; y < first + rows; y++)
        for (int64_t x = 0; x < out->dim[2]; x++, sums += c->co) {
            const int64_t at = t * out->stride[0] + y * out->stride[1] + x * out->stride[2];
            if (c->bias)
                c->simd->gated_add(sums, sums, c->bias, NULL, c->co);
            if (add->data) {
                const int64_t from = t * add->stride[0] + y * add->stride[1] + x * add->stride[2];
                for (int64_t i = 0; i < c->co; i += 64) {
                    float buffer[64];
                    const int64_t count = c->co - i < 64 ? c->co - i : 64;
                    if (add->type == LT_TYPE_F32)
                        memcpy(buffer, (const float *)add->data + from + i, (size_t)count * 4);
                    else
                        c->simd->from_bf16((const uint16_t *)add->data + from + i, buffer, count);
                    c->simd->gated_add(sums + i, sums + i, buffer, NULL, count);
                }
            }
            if (out->type == LT_TYPE_F32)
                memcpy((float *)out->data + at, sums, (size_t)c->co * 4);
            else
                c->simd->to_bf16(sums, (uint16_t *)out->data + at, c->co);
        }
}

static lt_status run_tap(struct conv *c, const struct band *band, const struct layout *layout,
                         const char *src, int64_t tap, bool accumulate, float *sums, int thread,
                         struct lt_error *error)
{
    struct make make = {.conv = c, .band = band, .layout = layout, .accumulate = accumulate};
    struct host_place place;
    const struct host_key key = {
        {HOST_CONV | (c->bf16 ? 16 : 0) | (accumulate ? 32 : 0), c->ci, c->co, c->ky, c->kx,
         band->in_rows, band->in_columns, band->out_rows, band->out_columns,
         band->pad_top << 16 | band->pad_bottom << 8 | c->args->stride_space,
         band->pad_left << 16 | band->pad_right,
         layout->desc.format_desc.blocking.inner_nblks << 24 ^
             layout->desc.format_desc.blocking.strides[0]}};
    describe(&make);
    LT_TRY(host_primitive(c->exec, thread, &key, make_conv, &make, &place, error));
    const struct host_memory memory[] = {{DNNL_ARG_SRC, &make.src, src},
                                         {DNNL_ARG_WEIGHTS, &layout->desc, layout->tap[tap]},
                                         {DNNL_ARG_DST, &make.dst, sums}};
    const dnnl_status_t status = host_run(&place, memory, 3);
    return status == dnnl_success ? LT_OK : host_dnnl_failed("convolution", status, error);
}

/* -- scratch ----------------------------------------------------------------------------------- */

static bool is_direct(const struct conv *c, const struct lt_view *view)
{
    const bool same = c->bf16 ? view->type == LT_TYPE_BF16 : view->type == LT_TYPE_F32 && !c->round;
    return !view->data ||
           (same && view->stride[2] == c->ci && view->stride[1] == view->dim[2] * c->ci);
}

static size_t packed_bytes(const struct conv *c)
{
    size_t bytes = 0;
    for (int i = 0; i < c->layout_count; i++)
        bytes += (size_t)c->kt * ((dnnl_memory_desc_get_size(&c->layout[i].desc) + 63) / 64 * 64);
    return bytes;
}

static size_t padded(int64_t values, size_t value)
{
    return ((size_t)values * value + 63) / 64 * 64;
}

static size_t frame_bytes_of(const struct conv *c)
{
    const struct lt_view *in = &c->args->in;
    return c->direct
               ? 0
               : padded((c->past_frames + in->dim[0]) * in->dim[1] * in->dim[2] * c->ci, c->value);
}

/* Are the weights packed from where they lie? Only types that oneDNN knows. */
static bool is_stored_well(const struct conv *c)
{
    const enum lt_type type = c->args->weight.type;
    return !c->round && (type == LT_TYPE_F32 || type == LT_TYPE_BF16);
}

static size_t plain_bytes_of(const struct conv *c)
{
    return is_stored_well(c) ? 0 : padded(lt_view_count(&c->args->weight), 4);
}

static size_t sum_bytes_of(const struct conv *c)
{
    return padded(BAND_ROWS * c->args->out.dim[2] * c->co, 4);
}

/* Shared: frames in the product's type, packed weights, widened weights, bias. A thread: the sums
 * of a band, and its input rows where they are doubled. */
static struct lt_scratch scratch_of(const struct conv *c)
{
    const int64_t rows = BAND_ROWS + c->ky - 1, columns = c->args->in.dim[2] * c->up;
    return (struct lt_scratch){
        .shared = frame_bytes_of(c) + packed_bytes(c) + plain_bytes_of(c) + padded(c->co, 4),
        .thread = sum_bytes_of(c) + (c->up == 1 ? 0 : padded(rows * columns * c->ci, c->value))};
}

/* -- bands ------------------------------------------------------------------------------------- */

static void band_part(void *context, int64_t index, int thread)
{
    struct conv *c = context;
    struct lt_error error;
    const int64_t t = index / c->bands, number = index % c->bands;
    int64_t first_in;
    const struct band band = band_of(c, number, &first_in);
    const struct layout *layout = &c->layout[c->layout_of[kind_of(c, number)]];
    const size_t sum_bytes = sum_bytes_of(c);
    char *scratch = lt_exec_scratch(c->exec, thread, scratch_of(c).thread);
    float *sums = (float *)(void *)scratch;
    lt_status status =
        scratch ? LT_OK : lt_fail(&error, LT_NO_MEMORY, "op conv: no scratch memory");
    bool any = false;
    for (int64_t tap = 0; tap < c->kt && status == LT_OK; tap++) {
        const int64_t frame = t * c->args->stride_time + tap - c->zeros;
        if (frame < 0)
            continue;
        const char *src = source_rows(c, frame, first_in, band.in_rows, scratch + sum_bytes);
        status = run_tap(c, &band, layout, src, tap, any, sums, thread, &error);
        any = true;
    }
    if (status != LT_OK) {
        host_failure_note(&c->failure, &error);
        return;
    }
    if (!any)
        memset(sums, 0, sum_bytes);
    store_band(c, sums, t, number * BAND_ROWS, band.out_rows);
}

/* Every tap in every layout. `to` has the room of packed_bytes. */
static lt_status pack(struct conv *c, const struct plain *plain, char *to, struct lt_error *error)
{
    for (int i = 0; i < c->layout_count; i++)
        for (int64_t tap = 0; tap < c->kt; tap++) {
            c->layout[i].tap[tap] = to;
            to += (dnnl_memory_desc_get_size(&c->layout[i].desc) + 63) / 64 * 64;
            LT_TRY(reorder_tap(c, &c->layout[i], plain, tap, error));
        }
    return LT_OK;
}

static const char *widen_weights(const struct conv *c, float *to, int64_t count)
{
    lt_dequantize_row(c->args->weight.type, c->args->weight.data, to, count);
    for (int64_t i = 0; i < count && c->round; i++)
        to[i] = lt_bf16_to_f32(lt_f32_to_bf16(to[i]));
    return (const char *)to;
}

static lt_status prepare(struct conv *c, struct lt_error *error)
{
    const struct lt_conv_args *a = c->args;
    const size_t frame_bytes = frame_bytes_of(c);
    char *shared = lt_exec_scratch(c->exec, -1, scratch_of(c).shared);
    if (!shared)
        return lt_fail(error, LT_NO_MEMORY, "op conv: no scratch memory");
    c->frames = shared;
    char *behind = shared + frame_bytes + packed_bytes(c);
    struct plain plain = {a->weight.data, a->weight.type == LT_TYPE_BF16};
    if (!is_stored_well(c))
        plain = (struct plain){widen_weights(c, (float *)(void *)behind, lt_view_count(&a->weight)),
                               false};
    LT_TRY(pack(c, &plain, shared + frame_bytes, error));
    if (a->bias.data) {
        float *bias = (float *)(void *)(behind + plain_bytes_of(c));
        lt_dequantize_row(a->bias.type, a->bias.data, bias, c->co);
        c->bias = bias;
    }
    if (!c->direct)
        lt_exec_parallel(c->exec, (c->past_frames + a->in.dim[0]) * a->in.dim[1], convert_part, c);
    return LT_OK;
}

/* Everything that follows from precision and shapes. */
static lt_status choose(struct conv *c, const struct lt_conv_args *args,
                        enum lt_precision precision, struct lt_error *error)
{
    const int w = args->weight.rank;
    const bool bf16 = precision == LT_PRECISION_BF16 && !args->exact;
    *c = (struct conv){.args = args,
                       .simd = simd_best(),
                       .bf16 = bf16 && host_has_bf16(),
                       .round = bf16 && !host_has_bf16(),
                       .co = args->weight.dim[0],
                       .ci = args->weight.dim[1],
                       .kt = w == 5 ? args->weight.dim[2] : 1,
                       .ky = args->weight.dim[w - 2],
                       .kx = args->weight.dim[w - 1],
                       .up = args->upsample ? 2 : 1};
    if (c->kt > TAPS_MAX)
        return lt_fail(error, LT_UNSUPPORTED, "op conv: %lld temporal taps, at most %d",
                       (long long)c->kt, TAPS_MAX);
    c->value = c->bf16 ? 2 : 4;
    c->past_frames = args->past.data ? args->past.dim[0] : 0;
    c->zeros =
        (args->out.dim[0] - 1) * args->stride_time + c->kt - c->past_frames - args->in.dim[0];
    c->bands = (args->out.dim[1] + BAND_ROWS - 1) / BAND_ROWS;
    c->direct = is_direct(c, &args->in) && is_direct(c, &args->past);
    return choose_layouts(c, error);
}

lt_status lt_scratch_conv_of(enum lt_precision precision, const struct lt_conv_args *args,
                             struct lt_scratch *scratch_out, struct lt_error *error)
{
    struct conv c;
    LT_TRY(choose(&c, args, precision, error));
    *scratch_out = scratch_of(&c);
    scratch_out->cuda = lt_cuda_scratch_conv(precision == LT_PRECISION_BF16, args);
    return LT_OK;
}

lt_status host_conv(struct lt_exec *exec, const struct lt_conv_args *args, struct lt_error *error)
{
    struct conv c;
    LT_TRY(choose(&c, args, lt_exec_precision(exec), error));
    c.exec = exec;
    LT_TRY(prepare(&c, error));
    lt_exec_parallel(exec, args->out.dim[0] * c.bands, band_part, &c);
    return host_failure_give(&c.failure, error);
}

struct lt_scratch lt_scratch_conv(int64_t co, int64_t ci, int64_t kt, int64_t ky, int64_t kx,
                                  int64_t columns)
{
    /* blocks of 16 channels, each of at most three layouts; plain weights; bias */
    const int64_t plain = co * ci * kt * ky * kx,
                  packed = (co + 15) / 16 * 16 * ((ci + 15) / 16 * 16) * kt * ky * kx;
    const struct lt_conv_args args = {
        .weight = lt_view_make(NULL, LT_TYPE_F32, 5, (int64_t[]){co, ci, kt, ky, kx})};
    return (struct lt_scratch){.shared =
                                   (size_t)(BAND_KINDS * packed + plain + co) * sizeof(float) +
                                   64 * (size_t)(3 * kt + 2),
                               .thread = (size_t)(BAND_ROWS * columns * co) * sizeof(float) + 64,
                               .cuda = lt_cuda_scratch_conv(false, &args)};
}
