/* Ops that work row by row: norms, modulation, rotation, residuals, activations, conversions. All
 * are bound by memory: each byte is read and written once. */
#include "common/safetensors.h"
#include "kernels/host/host.h"
#include "kernels/host/simd.h"
#include "kernels/quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_PER_PART = 16, VALUES_PER_PART = 64 * 1024, ROTATE_WIDTH_MAX = 1024 };

const struct simd *simd_best(void)
{
    const unsigned caps = lt_caps_detect();
    return caps & LT_CAP_AVX512 ? &simd_avx512 : caps & LT_CAP_AVX2 ? &simd_avx2 : &simd_plain;
}

bool host_has_bf16(void)
{
    return (lt_caps_detect() & LT_CAP_AVX512_BF16) != 0;
}

void host_failure_note(struct host_failure *failure, const struct lt_error *error)
{
    int none = LT_OK;
    if (atomic_compare_exchange_strong(&failure->status, &none, (int)error->code))
        failure->error = *error; /* read after the parts are joined */
}

lt_status host_failure_give(const struct host_failure *failure, struct lt_error *error)
{
    const lt_status status = (lt_status)atomic_load(&failure->status);
    if (status != LT_OK && error)
        *error = failure->error;
    return status;
}

struct rows {
    const void *args;
    const struct simd *simd;
    const float *weight, *bias;
};

/* Up to two small weights as f32, in the caller's scratch. */
static lt_status take_weights(struct lt_exec *exec, const struct lt_view *weight,
                              const struct lt_view *bias, struct rows *rows, struct lt_error *error)
{
    const int64_t w = weight->data ? lt_view_count(weight) : 0,
                  b = bias->data ? lt_view_count(bias) : 0;
    float *scratch = lt_exec_scratch(exec, -1, (size_t)(w + b + 16) * sizeof *scratch);
    if (!scratch)
        return lt_fail(error, LT_NO_MEMORY, "no scratch memory for a norm");
    if (w) {
        lt_dequantize_row(weight->type, weight->data, scratch, w);
        rows->weight = scratch;
    }
    if (b) {
        lt_dequantize_row(bias->type, bias->data, scratch + w, b);
        rows->bias = scratch + w;
    }
    return LT_OK;
}

static int64_t last_row(int64_t index, int64_t count)
{
    return (index + 1) * ROWS_PER_PART < count ? (index + 1) * ROWS_PER_PART : count;
}

static int64_t row_parts(int64_t count)
{
    return (count + ROWS_PER_PART - 1) / ROWS_PER_PART;
}

static float *row(const struct lt_view *view, int64_t i)
{
    return (float *)view->data + i * view->stride[0];
}

static const float *group_row(const struct lt_view *view, int64_t l, int64_t group_rows,
                              int64_t width)
{
    return view->data ? (const float *)view->data + (group_rows > 0 ? l / group_rows : 0) * width
                      : NULL;
}

static void layer_norm_part(void *context, int64_t index, int thread)
{
    (void)thread;
    const struct rows *r = context;
    const struct lt_layer_norm_args *a = r->args;
    const int64_t width = a->in.dim[1];
    for (int64_t l = index * ROWS_PER_PART; l < last_row(index, a->in.dim[0]); l++) {
        const float *in = row(&a->in, l);
        const float mean = r->simd->sum(in, width) / (float)width;
        const float variance = r->simd->sum_squares(in, mean, width) / (float)width;
        r->simd->normalize(row(&a->out, l), in, mean, 1.0f / sqrtf(variance + a->epsilon),
                           r->weight, r->bias, group_row(&a->scale, l, a->group_rows, width),
                           group_row(&a->shift, l, a->group_rows, width), width);
    }
}

lt_status host_layer_norm(struct lt_exec *exec, const struct lt_layer_norm_args *args,
                          struct lt_error *error)
{
    struct rows rows = {.args = args, .simd = simd_best()};
    LT_TRY(take_weights(exec, &args->weight, &args->bias, &rows, error));
    lt_exec_parallel(exec, row_parts(args->in.dim[0]), layer_norm_part, &rows);
    return LT_OK;
}

static void rms_norm_part(void *context, int64_t index, int thread)
{
    (void)thread;
    const struct rows *r = context;
    const struct lt_rms_norm_args *a = r->args;
    const int64_t width = a->in.dim[1], group = lt_view_count(&a->weight);
    for (int64_t l = index * ROWS_PER_PART; l < last_row(index, a->in.dim[0]); l++) {
        const float *in = row(&a->in, l);
        float *out = row(&a->out, l);
        for (int64_t g = 0; g < width; g += group) {
            const float mean = r->simd->sum_squares(in + g, 0, group) / (float)group;
            r->simd->normalize(out + g, in + g, 0, 1.0f / sqrtf(mean + a->epsilon), r->weight, NULL,
                               NULL, NULL, group);
        }
        if (!a->time.data)
            continue;
        const int64_t column = l % a->column.dim[0], y = l / a->column.dim[0] % a->row.dim[0];
        const int64_t time = l / (a->column.dim[0] * a->row.dim[0]);
        for (float *x = out; x < out + width;) {
            r->simd->rotate(x, row(&a->time, time), a->time.dim[1]);
            x += 2 * a->time.dim[1];
            r->simd->rotate(x, row(&a->row, y), a->row.dim[1]);
            x += 2 * a->row.dim[1];
            r->simd->rotate(x, row(&a->column, column), a->column.dim[1]);
            x += 2 * a->column.dim[1];
        }
    }
}

lt_status host_rms_norm(struct lt_exec *exec, const struct lt_rms_norm_args *args,
                        struct lt_error *error)
{
    struct rows rows = {.args = args, .simd = simd_best()};
    LT_TRY(take_weights(exec, &args->weight, &(struct lt_view){0}, &rows, error));
    lt_exec_parallel(exec, row_parts(args->in.dim[0]), rms_norm_part, &rows);
    return LT_OK;
}

static void gated_add_part(void *context, int64_t index, int thread)
{
    (void)thread;
    const struct rows *r = context;
    const struct lt_gated_add_args *a = r->args;
    const int64_t width = a->in.dim[1];
    for (int64_t l = index * ROWS_PER_PART; l < last_row(index, a->in.dim[0]); l++)
        r->simd->gated_add(row(&a->out, l), row(&a->residual, l), row(&a->in, l),
                           group_row(&a->gate, l, a->group_rows, width), width);
}

lt_status host_gated_add(struct lt_exec *exec, const struct lt_gated_add_args *args,
                         struct lt_error *error)
{
    (void)error;
    struct rows rows = {.args = args, .simd = simd_best()};
    lt_exec_parallel(exec, row_parts(args->in.dim[0]), gated_add_part, &rows);
    return LT_OK;
}

static void multiply_part(void *context, int64_t index, int thread)
{
    (void)thread;
    const struct rows *r = context;
    const struct lt_multiply_args *a = r->args;
    for (int64_t l = index * ROWS_PER_PART; l < last_row(index, a->out.dim[0]); l++)
        r->simd->multiply(row(&a->out, l), row(&a->a, l), row(&a->b, l), a->out.dim[1]);
}

lt_status host_multiply(struct lt_exec *exec, const struct lt_multiply_args *args,
                        struct lt_error *error)
{
    (void)error;
    struct rows rows = {.args = args, .simd = simd_best()};
    lt_exec_parallel(exec, row_parts(args->out.dim[0]), multiply_part, &rows);
    return LT_OK;
}

struct nag {
    const struct lt_nag_args *args;
    struct lt_exec *exec;
    const struct simd *simd;
    struct host_failure failure;
};

static void nag_part(void *context, int64_t index, int thread)
{
    struct nag *r = context;
    const struct lt_nag_args *a = r->args;
    const int64_t width = a->out.dim[1];
    struct lt_error error;
    float *guided = lt_exec_scratch(r->exec, thread, (size_t)width * sizeof *guided);
    if (!guided) {
        lt_fail(&error, LT_NO_MEMORY, "op nag: no scratch memory");
        host_failure_note(&r->failure, &error);
        return;
    }
    for (int64_t l = index * ROWS_PER_PART; l < last_row(index, a->out.dim[0]); l++) {
        const float *positive = row(&a->positive, l), *negative = row(&a->negative, l);
        r->simd->mix(guided, positive, a->scale, negative, 1 - a->scale, width);
        const float before = r->simd->sum_abs(positive, width),
                    after = r->simd->sum_abs(guided, width);
        float by = a->alpha;
        if (!(after / before <= a->tau)) /* 0/0 too */
            by *= before * a->tau / (after + 1e-7f);
        r->simd->mix(row(&a->out, l), positive, 1 - a->alpha, guided, by, width);
    }
}

lt_status host_nag(struct lt_exec *exec, const struct lt_nag_args *args, struct lt_error *error)
{
    struct nag nag = {.args = args, .exec = exec, .simd = simd_best()};
    lt_exec_parallel(exec, row_parts(args->out.dim[0]), nag_part, &nag);
    return host_failure_give(&nag.failure, error);
}

/* A row's sines and cosines serve all its heads. */
static void rotate_part(void *context, int64_t index, int thread)
{
    (void)thread;
    const struct lt_rotate_args *a = ((const struct rows *)context)->args;
    const int64_t width = a->in.dim[2], first = index * ROWS_PER_PART;
    for (int64_t l = first; l < first + ROWS_PER_PART && l < a->in.dim[0]; l++) {
        float turn[ROTATE_WIDTH_MAX]; /* cos, sin of each pair */
        const double position = ((const float *)a->position.data)[l];
        for (int64_t j = 0; j < width; j += 2) {
            const double angle = position * pow(10000.0, -(double)j / (double)width);
            turn[j] = (float)cos(angle);
            turn[j + 1] = (float)sin(angle);
        }
        for (int64_t h = 0; h < a->in.dim[1]; h++) {
            const float *in = (const float *)a->in.data + l * a->in.stride[0] + h * a->in.stride[1];
            float *out = (float *)a->out.data + l * a->out.stride[0] + h * a->out.stride[1];
            for (int64_t j = 0; j < width; j += 2) {
                const float x = in[j], y = in[j + 1];
                out[j] = x * turn[j] - y * turn[j + 1];
                out[j + 1] = x * turn[j + 1] + y * turn[j];
            }
        }
    }
}

lt_status host_rotate(struct lt_exec *exec, const struct lt_rotate_args *args,
                      struct lt_error *error)
{
    struct rows rows = {.args = args};
    if (args->in.dim[2] > ROTATE_WIDTH_MAX)
        return lt_fail(error, LT_UNSUPPORTED, "op rotate: head width %lld, at most %d",
                       (long long)args->in.dim[2], ROTATE_WIDTH_MAX);
    lt_exec_parallel(exec, row_parts(args->in.dim[0]), rotate_part, &rows);
    return LT_OK;
}

/* Values of an f32 or bf16 view as f32: in place for f32, in `buffer` for bf16. */
static float *widen(const struct simd *simd, const struct lt_view *view, int64_t first,
                    int64_t count, float *buffer)
{
    if (view->type == LT_TYPE_F32)
        return (float *)view->data + first;
    simd->from_bf16((const uint16_t *)view->data + first, buffer, count);
    return buffer;
}

enum { CHANNELS_PER_PIECE = 1024 };

static void activate_part(void *context, int64_t index, int thread)
{
    (void)thread;
    const struct rows *r = context;
    const struct lt_activate_args *a = r->args;
    const int64_t count = lt_view_count(&a->in), end = (index + 1) * VALUES_PER_PART;
    for (int64_t i = index * VALUES_PER_PART; i < (end < count ? end : count);
         i += CHANNELS_PER_PIECE) {
        float buffer[CHANNELS_PER_PIECE];
        const int64_t left = (end < count ? end : count) - i;
        const int64_t piece = left < CHANNELS_PER_PIECE ? left : CHANNELS_PER_PIECE;
        const float *in = widen(r->simd, &a->in, i, piece, buffer);
        if (in != buffer)
            memcpy(buffer, in, (size_t)piece * sizeof *buffer);
        r->simd->activate(a->activation, buffer, piece);
        if (a->out.type == LT_TYPE_F32)
            memcpy((float *)a->out.data + i, buffer, (size_t)piece * sizeof *buffer);
        else
            r->simd->to_bf16(buffer, (uint16_t *)a->out.data + i, piece);
    }
}

lt_status host_activate(struct lt_exec *exec, const struct lt_activate_args *args,
                        struct lt_error *error)
{
    (void)error;
    struct rows rows = {.args = args, .simd = simd_best()};
    lt_exec_parallel(exec, (lt_view_count(&args->in) + VALUES_PER_PART - 1) / VALUES_PER_PART,
                     activate_part, &rows);
    return LT_OK;
}

enum { PIXELS_PER_PART = 512 };

static void channel_norm_part(void *context, int64_t index, int thread)
{
    (void)thread;
    const struct rows *r = context;
    const struct lt_channel_norm_args *a = r->args;
    const int64_t channels = lt_view_count(&a->gamma), pixels = lt_view_count(&a->in) / channels;
    const int64_t last =
        (index + 1) * PIXELS_PER_PART < pixels ? (index + 1) * PIXELS_PER_PART : pixels;
    float buffer[4096],
        *values = channels <= 4096 ? buffer : malloc((size_t)channels * sizeof *values);
    lt_assert(values); /* no Wan VAE has a quarter as many channels */
    for (int64_t p = index * PIXELS_PER_PART; p < last; p++) {
        const float *in = widen(r->simd, &a->in, p * channels, channels, values);
        const float norm = sqrtf(r->simd->sum_squares(in, 0, channels));
        const float scale = sqrtf((float)channels) / (norm > 1e-12f ? norm : 1e-12f);
        float *out = a->out.type == LT_TYPE_F32 ? (float *)a->out.data + p * channels : values;
        r->simd->normalize(out, in, 0, scale, r->weight, NULL, NULL, NULL, channels);
        r->simd->activate(a->activation, out, channels);
        if (out == values)
            r->simd->to_bf16(values, (uint16_t *)a->out.data + p * channels, channels);
    }
    if (values != buffer)
        free(values);
}

lt_status host_channel_norm(struct lt_exec *exec, const struct lt_channel_norm_args *args,
                            struct lt_error *error)
{
    struct rows rows = {.args = args, .simd = simd_best()};
    LT_TRY(take_weights(exec, &args->gamma, &(struct lt_view){0}, &rows, error));
    const int64_t pixels = lt_view_count(&args->in) / lt_view_count(&args->gamma);
    lt_exec_parallel(exec, (pixels + PIXELS_PER_PART - 1) / PIXELS_PER_PART, channel_norm_part,
                     &rows);
    return LT_OK;
}

static void convert_part(void *context, int64_t index, int thread)
{
    (void)thread;
    const struct rows *r = context;
    const struct lt_convert_args *a = r->args;
    const struct lt_type_info *type = lt_type_info(a->in.type);
    const int64_t count = lt_view_count(&a->in), end = (index + 1) * VALUES_PER_PART;
    const int64_t last = end < count ? end : count;
    for (int64_t i = index * VALUES_PER_PART; i < last; i += CHANNELS_PER_PIECE) {
        float buffer[CHANNELS_PER_PIECE];
        const int64_t piece = last - i < CHANNELS_PER_PIECE ? last - i : CHANNELS_PER_PIECE;
        const char *from = (const char *)a->in.data + i / type->block_values * type->block_bytes;
        float *to = a->out.type == LT_TYPE_F32 ? (float *)a->out.data + i : buffer;
        r->simd->dequantize(a->in.type, from, to, piece);
        if (a->out.type == LT_TYPE_BF16)
            r->simd->to_bf16(buffer, (uint16_t *)a->out.data + i, piece);
        else if (a->out.type == LT_TYPE_F16)
            for (int64_t j = 0; j < piece; j++)
                ((uint16_t *)a->out.data)[i + j] = lt_f32_to_f16(buffer[j]);
    }
}

lt_status host_convert(struct lt_exec *exec, const struct lt_convert_args *args,
                       struct lt_error *error)
{
    (void)error;
    struct rows rows = {.args = args, .simd = simd_best()};
    lt_exec_parallel(exec, (lt_view_count(&args->in) + VALUES_PER_PART - 1) / VALUES_PER_PART,
                     convert_part, &rows);
    return LT_OK;
}
