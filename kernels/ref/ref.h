/* Reading and writing single values, for the reference ops: clear before quick. */
#pragma once

#include "common/safetensors.h"
#include "kernels/host/host.h"
#include "kernels/quant.h"

#include <math.h>
#include <stdlib.h>

static inline float *ref_row(const struct lt_view *view, int64_t i)
{
    return (float *)view->data + i * view->stride[0];
}

static inline float ref_get(const struct lt_view *view, int64_t index)
{
    return view->type == LT_TYPE_F32 ? ((float *)view->data)[index]
                                     : lt_bf16_to_f32(((uint16_t *)view->data)[index]);
}

static inline void ref_put(const struct lt_view *view, int64_t index, double value)
{
    if (view->type == LT_TYPE_F32)
        ((float *)view->data)[index] = (float)value;
    else
        ((uint16_t *)view->data)[index] = lt_f32_to_bf16((float)value);
}

/* A small weight (norm, bias) as malloc'ed f32; NULL for an absent one or when out of memory. */
static inline float *ref_weights(const struct lt_view *view)
{
    const int64_t count = lt_view_count(view);
    float *values = view->data ? malloc((size_t)count * sizeof *values) : NULL;
    if (values)
        lt_dequantize_row(view->type, view->data, values, count);
    return values;
}

double ref_activation(enum lt_activation activation, double x);

/* What the fast path rounds, the reference rounds too, so that bounds stay tight. */
static inline float ref_round(const struct lt_exec *exec, float value)
{
    return lt_exec_precision(exec) == LT_PRECISION_BF16 ? lt_bf16_to_f32(lt_f32_to_bf16(value))
                                                        : value;
}

lt_status ref_convert(struct lt_exec *exec, const struct lt_convert_args *args,
                      struct lt_error *error);
lt_status ref_linear(struct lt_exec *exec, const struct lt_linear_args *args,
                     struct lt_error *error);
lt_status ref_low_rank(struct lt_exec *exec, const struct lt_low_rank_args *args,
                       struct lt_error *error);
lt_status ref_layer_norm(struct lt_exec *exec, const struct lt_layer_norm_args *args,
                         struct lt_error *error);
lt_status ref_rms_norm(struct lt_exec *exec, const struct lt_rms_norm_args *args,
                       struct lt_error *error);
lt_status ref_gated_add(struct lt_exec *exec, const struct lt_gated_add_args *args,
                        struct lt_error *error);
lt_status ref_multiply(struct lt_exec *exec, const struct lt_multiply_args *args,
                       struct lt_error *error);
lt_status ref_scale(struct lt_exec *exec, const struct lt_scale_args *args, struct lt_error *error);
lt_status ref_activate(struct lt_exec *exec, const struct lt_activate_args *args,
                       struct lt_error *error);
lt_status ref_attention(struct lt_exec *exec, const struct lt_attention_args *args,
                        struct lt_error *error);
lt_status ref_patchify(struct lt_exec *exec, const struct lt_patchify_args *args,
                       struct lt_error *error);
lt_status ref_unpatchify(struct lt_exec *exec, const struct lt_unpatchify_args *args,
                         struct lt_error *error);
lt_status ref_conv(struct lt_exec *exec, const struct lt_conv_args *args, struct lt_error *error);
lt_status ref_nag(struct lt_exec *exec, const struct lt_nag_args *args, struct lt_error *error);
lt_status ref_rotate(struct lt_exec *exec, const struct lt_rotate_args *args,
                     struct lt_error *error);
lt_status ref_route(struct lt_exec *exec, const struct lt_route_args *args, struct lt_error *error);
lt_status ref_blur(struct lt_exec *exec, const struct lt_blur_args *args, struct lt_error *error);
lt_status ref_channel_norm(struct lt_exec *exec, const struct lt_channel_norm_args *args,
                           struct lt_error *error);
lt_status ref_avg_down(struct lt_exec *exec, const struct lt_avg_down_args *args,
                       struct lt_error *error);
lt_status ref_dup_up(struct lt_exec *exec, const struct lt_dup_up_args *args,
                     struct lt_error *error);
